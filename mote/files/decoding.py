"""
Frames out of files: video containers, through torchcodec, and folders of JPEGs.

    decode(path, choose)             the frames of the indices choose(how many there are)
    decode_distinct(path, choose)    each distinct frame once, and where each index finds its own

A damaged file is Undecodable, with its reason in one line.

Copy alone: needs torch, numpy and torchcodec (which needs FFmpeg's libraries).
Not part of the paper. Differs from the authors' code: torchcodec, not decord.
"""
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

MAX_PIXELS = 2**25     # of a frame, 8K: a damaged header may claim any size, and ask for the memory

# Containers without presentation times. With B-frames in them, as in UCF-101's and HMDB-51's .avi,
# torchcodec 0.17 finds a frame before the one asked for, whenever it seeks: decode them in order.
# In .ts it finds wrong frames even in order.
IN_ORDER = (".avi", ".divx", ".mpg", ".mpeg")
WRONG = (".ts",)

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
            decoder = open_video(path)
            indices = choose(len(decoder))
            distinct, places = np.unique(indices, return_inverse=True)
            frames = read_frames(path, decoder, distinct.tolist())
    except DAMAGED as error:
        raise Undecodable(f"{path}: {first_line(error)}"[:300]) from None

    if len(frames) != len(distinct) or len(frames) == 0:
        raise Undecodable(f"{path}: asked for {len(distinct)} frames, got {len(frames)}")
    return frames, torch.from_numpy(places.reshape(np.shape(indices)))


def first_line(error: Exception) -> str:
    """What an error says, without torchcodec's own source file; its type where it says nothing."""
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
def open_video(path: Path):
    """torchcodec's decoder of a file whose header claims no absurd size.

    To be called in the worker that decodes: a decoder does not survive a fork. One thread, since
    the workers are many.
    """
    from torchcodec.decoders import VideoDecoder

    # FFmpeg takes the 12: of a relative path 12:30/1.mp4 for a protocol.
    decoder = VideoDecoder(path.absolute(), num_ffmpeg_threads=1)
    check_size(decoder.metadata.height, decoder.metadata.width)
    return decoder


def read_frames(path: Path, decoder, distinct: list[int]) -> Tensor:
    """The frames of a sorted list of indices -> uint8 (n, 3, h, w).

    For the last one or two frames that torchcodec cannot reach (open GOPs), the one before stands
    in. A RuntimeError anywhere else is the decoder's. Raises ValueError for a container in WRONG.
    """
    ending = path.suffix.lower()
    if ending in WRONG:
        raise ValueError("torchcodec mistakes the frames of this container: re-encode it "
                         "(tools/prepare.py)")
    if ending in IN_ORDER:
        return read_in_order(decoder, distinct)

    last = len(decoder) - 1
    try:
        return decoder.get_frames_at(distinct).data
    except RuntimeError:
        if distinct[-1] < last or last < 1:
            raise
        reachable = [min(i, last - 1) for i in distinct]
        return open_video(path).get_frames_at(reachable).data    # a new one: the old one has failed


def read_in_order(decoder, distinct: list[int]) -> Tensor:
    """The same, but decoding all frames from the first one on, so that torchcodec never seeks.

    It decodes the whole video up to the last frame asked for; a copy that tools/prepare.py has
    re-encoded is faster.
    """
    last = len(decoder) - 1
    frames = []
    for i in range(distinct[-1] + 1):
        try:
            frame = decoder.get_frame_at(i).data
        except RuntimeError:
            if i < max(1, last - 1):
                raise                                            # else the frame before stands in
        if i in distinct:
            frames.append(frame)
    return torch.stack(frames)


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
