"""
avi: chunks, the name of the codec, the index.

    examine_avi(data)          -> Look

Part of containers/. Not part of the paper.
"""
import mmap
import struct
from collections.abc import Iterator

from .look import Look
from .reordering import B_VOP, EVERY_FRAME, IN_PLACE, MPEG4, PACKED, low_delay, vop_type


def examine_avi(data: mmap.mmap) -> Look:
    """Frames have no times here: seeking is right only where they need none."""
    # Each stream has a header (strh), then a format (strf): a BITMAPINFOHEADER of 40 bytes, with
    # the name of the codec at 16, then what the decoder needs.
    number = -1
    film = False
    for kind, begin, stop in riff_chunks(data, 0, len(data)):
        if kind == b"strh":
            number += 1
            film = data[begin:begin + 4] == b"vids"
        elif kind == b"strf" and film:
            codec = data[begin + 16:begin + 20].strip(b"\0 ").decode("latin-1").lower() or "raw"
            config = data[begin + 40:stop]
            chunks = avi_frames(data, stop, number)
            # Without an index (the end is cut off, or it was written to a pipe) FFmpeg takes every
            # frame for a keyframe, and torchcodec begins to decode anywhere.
            indexed = codec in EVERY_FRAME or data.rfind(b"idx1") >= 0 or data.rfind(b"ix0") >= 0
            why = avi_in_order(data, codec, config, chunks)
            return Look("avi", why or ("" if indexed else "it has no index"))
    raise ValueError("no stream of pictures")


def riff_chunks(data: mmap.mmap, at: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """(id, begin, end) of the chunks between two places, those inside lists included.

    A chunk: id (4 bytes), size without this header (4, little-endian), content, a byte more if the
    size is odd. The size of a list is not used, so further RIFFs (OpenDML) are walked through too.
    """
    while at + 8 <= end:
        kind, size = struct.unpack_from("<4sI", data, at)
        at += 8
        if kind in (b"RIFF", b"LIST"):
            at += 4                              # its name; what is inside comes next
            continue
        yield kind, at, min(at + size, end)
        at += size + size % 2


def avi_frames(data: mmap.mmap, at: int, number: int) -> Iterator[tuple[int, int]]:
    """Where the frames of a stream begin and end, one after the other.

    Their chunks are named by the stream's number and dc (compressed) or db (not): 00dc.
    The index (idx1) is not read.
    """
    names = (b"%02ddc" % number, b"%02ddb" % number)
    for kind, begin, stop in riff_chunks(data, at, len(data)):
        if kind in names:
            yield begin, stop


def avi_in_order(data: mmap.mmap, codec: str, config: bytes, frames) -> str:
    """Why a stream without times must be read in order, or "". frames: where each begins, ends."""
    if codec in IN_PLACE:
        return ""
    why = f"{codec} may have B-frames, and its frames have no times"
    frames = iter(frames)
    begin, stop = next(frames, (0, 0))
    # Headers may stand in the first frame only.
    config += data[begin:min(stop, begin + 4096)]
    # Of a packed chunk only the first frame's type would be seen, so those are ruled out here.
    if codec not in MPEG4 or not low_delay(config) or PACKED.search(config):
        return why
    for begin, stop in frames:
        if vop_type(data, begin, stop) == B_VOP:
            return "it has B-frames, and its frames have no times"
    return ""
