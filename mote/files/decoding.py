"""
Frames out of files: video containers, through torchcodec, and folders of JPEGs.

    decode(path, choose)             the frames of the indices choose(how many there are)
    decode_distinct(path, choose)    each distinct frame once, and where each index finds its own

A damaged file is Undecodable, with its reason in one line. Frames are sought where torchcodec's
seeks are right; the bytes of the file decide (containers/). Others are decoded from the first
frame on, up to the last one asked for.

Copy together with containers/. Needs torch, numpy and torchcodec (which needs FFmpeg's
libraries).
Not part of the paper. Differs from the authors' code: torchcodec, not decord.
"""
import contextlib
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

try:
    from .containers import UNCOUNTED, Look, examine
except ImportError:                              # copied beside containers/, outside the package
    from containers import UNCOUNTED, Look, examine  # type: ignore[no-redef]

MAX_PIXELS = 2**25     # of a frame, 8K: a damaged header may claim any size, and ask for the memory

# What torchcodec raised on damaged files.
DAMAGED = (RuntimeError, ValueError, IndexError, OSError, ZeroDivisionError)


class Undecodable(ValueError):
    """A video that raises, or that gives fewer frames than were asked for."""


def decode(path: str | Path, choose: Callable[[int], np.ndarray]) -> Tensor:
    """Frames choose(how many) of a file or a folder of JPEGs -> uint8 (*indices.shape, 3, h, w).

    choose: from the number of frames to 0-based indices of any shape, such as `segment_indices` of
    mote/data.py. It is a function because the number is known only when the file is open. Raises
    Undecodable.
    """
    frames, places = decode_distinct(path, choose)
    return frames[places]


def decode_distinct(
    path: str | Path, choose: Callable[[int], np.ndarray]
) -> tuple[Tensor, Tensor]:
    """Each distinct frame once, uint8 (n, 3, h, w), and where in them each index finds its own.

    The places have the shape of what choose gives: frames[places] are the frames asked for. Views
    of a test video share frames, and a short video repeats them: none is decoded or encoded twice.
    Raises Undecodable, one line that begins with the path.
    """
    path = Path(path)
    try:
        if path.is_dir():
            files = jpeg_files(path)
            indices = choose(len(files))
            distinct, places = np.unique(indices, return_inverse=True)
            frames = read_jpegs([files[i] for i in distinct])
        else:
            look = examine(path)
            decoder = open_video(path, look)
            if len(decoder) == 0:
                raise ValueError("no frame in it")
            indices = choose(len(decoder))
            distinct, places = np.unique(indices, return_inverse=True)
            frames = read_frames(path, look, decoder, distinct.tolist())
    except DAMAGED as error:
        raise Undecodable(f"{path}: {first_line(error)}"[:300]) from None

    if len(frames) != len(distinct) or len(frames) == 0:
        raise Undecodable(f"{path}: asked for {len(distinct)} frames, got {len(frames)}")
    return frames, torch.from_numpy(places.reshape(np.shape(indices)))


def first_line(error: Exception) -> str:
    """What an error says, without torchcodec's own source file; its type where it says nothing.

    torchcodec cannot open a file of a rate of `inf`, which is no JSON.
    """
    if isinstance(error, json.JSONDecodeError):
        return "its header has no sensible durations of the frames"
    lines = str(error).splitlines() or [type(error).__name__]
    return re.sub(r"^.*\.cpp:\d+, ", "", lines[0])


def check_size(h: int | None, w: int | None) -> None:
    """Raise ValueError for a frame of more than MAX_PIXELS; a header may say nothing: None."""
    if (h or 0) * (w or 0) > MAX_PIXELS:
        raise ValueError(f"the header claims {w} x {h} pixels: more than {MAX_PIXELS}, not decoded")


# --- a folder of JPEGs ----------------------------------------------------------------------------
def jpeg_files(folder: Path) -> list[Path]:
    """The frames of a folder, in order. Raises ValueError for none, or for several kinds."""
    files = []
    for file in folder.iterdir():
        if file.suffix.lower() in (".jpg", ".jpeg") and not file.name.startswith("."):
            files.append(file)

    # What a name has beside its last number: img_00001, flow_x_00001, Windows' frame (1).
    kinds = sorted({re.sub(r"\d+(?=\D*$)", "", file.stem) for file in files})
    if len(kinds) != 1:
        raise ValueError("a folder without .jpg or .jpeg files, or with several kinds of them: "
                         f"{kinds[:3]}")
    files.sort(key=lambda file: (len(file.stem), file.stem))     # 2 before 10, with zeros or not
    return files


def read_jpegs(files: list[Path]) -> Tensor:
    """JPEGs of one size -> uint8 (n, 3, h, w). All headers are read before any is decoded.

    Raises one of DAMAGED for a damaged file, for frames of several sizes and for a size too large.
    """
    from torchcodec.decoders import decode_jpeg

    sizes = [jpeg_size(file.read_bytes()) for file in files]
    h, w = np.max(sizes, axis=0)
    check_size(h, w)
    return torch.stack([decode_jpeg(file, mode="RGB") for file in files])


def jpeg_size(file: bytes) -> tuple[int, int]:
    """Height and width that a JPEG's header claims. Raises IndexError for a file without a header.

    A file is two bytes, then segments: ff, kind, length (2 bytes, itself included), content. Kinds
    c0 to cf hold the size, after one more byte, but for three of them, which are tables.
    """
    at = 2
    while not 0xC0 <= file[at + 1] <= 0xCF or file[at + 1] in (0xC4, 0xC8, 0xCC):
        if file[at + 1] == 0xFF:                                 # any number of ff may fill up
            at += 1
        else:
            at += 2 + int.from_bytes(file[at + 2:at + 4], "big")

    h = int.from_bytes(file[at + 5:at + 7], "big")
    w = int.from_bytes(file[at + 7:at + 9], "big")
    return h, w


# --- a video container ----------------------------------------------------------------------------
INDEXED = ("mp4", "mkv", "avi")                  # what torchcodec counts well


def open_video(path: Path, look: Look):
    """A decoder of a file whose header claims no absurd size: torchcodec's, or an InOrder.

    To be called in the worker that decodes: a decoder does not survive a fork. One thread, since
    the workers are many. Raises ValueError for a file without video.
    """
    # Absolute: FFmpeg takes the 12: of a relative path 12:30/1.mp4 for a protocol.
    path = path.absolute()
    if look.instead:
        raise ValueError(f"{look.instead}, no video")
    indexed = open_indexed(path) if look.container in INDEXED else None
    decoder = indexed
    if look.in_order or indexed is None:
        decoder = InOrder(path)
        if look.in_order in UNCOUNTED:
            decoder.length = sum(1 for _ in InOrder(path).frames())
            if decoder.length == 0:              # VP9 and AV1 refuse such a beginning
                raise ValueError(look.in_order)
        elif indexed is not None:                # without the frames that an edit list hides
            decoder.length = len(indexed)
        elif look.container in ("ogg", "asf") and len(decoder) == 1:
            raise ValueError("sound with a picture, no video")
    check_size(decoder.metadata.height, decoder.metadata.width)
    return decoder


def open_indexed(path: Path):
    """torchcodec's decoder, or None where it has counted the frames and cannot go back to them."""
    from torchcodec.decoders import VideoDecoder

    try:
        return VideoDecoder(path, num_ffmpeg_threads=1)
    except RuntimeError as error:
        if "Could not seek" not in str(error):
            raise
    return None


class InOrder:
    """A decoder that never seeks: packets as they are stored, frames as the codec gives them.

    len() is the number of packets, one for each frame in nearly all files.
    """

    def __init__(self, path: Path) -> None:
        from torchcodec.decoders import Demuxer

        self.path = path
        self.demuxer = Demuxer(path)             # packets are read from it once
        self.metadata = self.demuxer.streams[0].metadata
        self.length: int | None = None

    def __len__(self) -> int:
        """Counted without decoding."""
        from torchcodec.decoders import Demuxer

        if self.length is None:
            self.length = sum(1 for _ in Demuxer(self.path))
        return self.length

    def frames(self):
        """Every frame, as the codec made it: not yet in RGB. To be called once.

        They end with the first packet that does not decode, as the last one of a file that was cut
        off: to go on behind it would be to miscount.
        """
        decoder = self.demuxer.streams[0].make_decoder(num_ffmpeg_threads=1)
        with contextlib.suppress(RuntimeError):
            for packet in self.demuxer:
                yield from decoder.decode(packet)
        yield from decoder.drain()

    def get(self, distinct: list[int]) -> Tensor:
        """The frames of a sorted list of indices -> uint8 (n, 3, h, w), in the header's size.

        For the last one or two frames, if they are not there, the one before stands in. Raises
        IndexError where more are missing, or for an index that no frame has.
        """
        from torchcodec.decoders import ColorConverter

        if distinct[0] < 0 or distinct[-1] >= len(self):
            raise IndexError(f"frames {distinct[0]} to {distinct[-1]} of {len(self)}")
        convert = ColorConverter().convert
        wanted = set(distinct)
        found = []
        i = -1
        for i, frame in enumerate(self.frames()):
            latest = frame
            if i in wanted:
                found.append(convert(frame).data)
            if i == distinct[-1]:
                break
        missing = len(distinct) - len(found)
        if missing and (i < 0 or i < len(self) - 3):
            raise IndexError(f"{len(self)} frames are stored, but only {i + 1} decode")
        if missing:
            found += [convert(latest).data] * missing
        return torch.stack(same_size(found, self.metadata.height, self.metadata.width))


def same_size(frames: list[Tensor], h: int, w: int) -> list[Tensor]:
    """Frames (3, ?, ?), uint8, with those of another size resized to (3, h, w)."""
    resized = []
    for frame in frames:
        if frame.shape[1:] != (h, w):
            floats = torch.nn.functional.interpolate(
                frame[None].float(), (h, w), mode="bicubic", antialias=True)
            frame = floats[0].round().clamp(0, 255).to(torch.uint8)
        resized.append(frame)
    return resized


def read_frames(path: Path, look: Look, decoder, distinct: list[int]) -> Tensor:
    """The frames of a sorted list of indices -> uint8 (n, 3, h, w), as a player shows them."""
    if isinstance(decoder, InOrder):
        frames = decoder.get(distinct)
    else:
        frames = seek_frames(path, look.front, decoder, distinct)
    if decoder.metadata.stream_index in look.mirrored:
        # torchcodec turns frames, but does not mirror them: what is left is a flip of the rows as
        # they were stored, which are columns after a quarter turn.
        quarter = round((decoder.metadata.rotation or 0) / 90) % 2
        frames = frames.flip(-1 if quarter else -2)
    return frames


def seek_frames(path: Path, front: int, decoder, distinct: list[int]) -> Tensor:
    """The same from torchcodec's own decoder, before any mirroring.

    front: how many frames are shown before the first keyframe that is; they are read in order. So
    are all where torchcodec does not reach one: at the end of open GOPs, or where the size changes.
    """
    n = len(decoder)
    early = [i for i in distinct if i < front]
    late = distinct[len(early):]
    if not late:
        return in_order(path, n, early)
    try:
        frames = decoder.get_frames_at(late).data
    except RuntimeError:                         # what is damaged does not decode in order either
        return in_order(path, n, distinct)
    return torch.cat([in_order(path, n, early), frames]) if early else frames


def in_order(path: Path, n: int, distinct: list[int]) -> Tensor:
    """The same of a file of n frames from its first frame on."""
    reader = InOrder(path)
    reader.length = n
    return reader.get(distinct)


# --- the decoder itself ---------------------------------------------------------------------------
def require_decoder() -> None:
    """Raise OSError, saying what to install, where torchcodec cannot load FFmpeg's libraries."""
    try:
        import torchcodec.decoders
        # Since 0.16, importing it without FFmpeg says nothing. Making a decoder raises the reason.
        if getattr(torchcodec, "ffmpeg_major_version", 0) is None:
            torchcodec.decoders.VideoDecoder(b"")
    except (ImportError, RuntimeError, OSError) as error:
        reason = str(error).strip().splitlines()[0][:100]
        raise OSError("torchcodec cannot load FFmpeg's shared libraries (versions 4 to 9): "
                      f"apt-get install ffmpeg, or brew install ffmpeg ({reason})") from None
