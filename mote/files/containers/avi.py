"""
avi: chunks, the name of the codec, the index.

    examine_avi(data)          -> Look

Part of containers/. Needs numpy. Not part of the paper.
"""
import mmap
import re
import struct
from collections.abc import Iterator

import numpy as np

from .look import Look
from .reordering import (
    B_VOP,
    EVERY_FRAME,
    H264,
    IN_PLACE,
    MPEG4,
    NO_KEYFRAME,
    NOT_CODED,
    PACKED,
    first_slices,
    has_empty,
    low_delay,
    vop_type,
)

IDR = re.compile(rb"\0\0\x01[\x25\x45\x65]")    # unit 5 behind a start code


def examine_avi(data: mmap.mmap) -> Look:
    """Frames have no times here: seeking is right only where they need none."""
    # Each stream has a header (strh), then a format (strf): a BITMAPINFOHEADER of 40 bytes, with
    # the name of the codec at 16, then what the decoder needs.
    number = -1
    film = False
    films = []
    for kind, begin, stop in riff_chunks(data, 0, len(data)):
        if kind == b"strh":
            number += 1
            film = data[begin:begin + 4] == b"vids"
        elif kind == b"strf" and film:
            films.append((number, begin, stop))
        elif kind[2:] in (b"dc", b"db"):         # frames: the headers are behind us
            break
    if not films:
        raise ValueError("no stream of pictures")
    if len(films) > 1:                           # FFmpeg chooses one
        return Look("avi", "it has several video tracks")

    number, begin, stop = films[0]
    codec = data[begin + 16:begin + 20].strip(b"\0 ").decode("latin-1").lower() or "raw"
    bits, = struct.unpack_from("<H", data, begin + 14)
    if bits <= 8:                                # torchcodec's seeks lose it
        return Look("avi", "its colours stand in a palette")
    if codec in EVERY_FRAME:
        return Look("avi")
    chunks = list(avi_frames(data, stop, number))
    why = avi_in_order(data, codec, data[begin + 40:stop], chunks)
    if not why and not indexed(data, number, len(chunks)):
        why = "it has no index of all its frames"
    return Look("avi", why)


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


def indexed(data: mmap.mmap, number: int, count: int) -> bool:
    """Whether an index says which of a stream's frames are keyframes.

    Without one, as in a file that was cut off or written to a pipe, FFmpeg takes every frame for a
    keyframe, and torchcodec begins to decode anywhere. A row of idx1: name, flags, place and size
    of a chunk, 4 bytes each; flag 0x10 marks a keyframe. An index of OpenDML (ix00) is trusted.
    """
    flags: list[int] = []
    for kind, begin, stop in riff_chunks(data, 0, len(data)):
        if kind == b"ix%02d" % number:
            return True
        if kind == b"idx1":
            rows = struct.iter_unpack("<2s2sIII", data[begin:stop - (stop - begin) % 16])
            flags = [row[2] & 0x10 for row in rows if row[0] == b"%02d" % number]
    return len(flags) >= count and not all(flags)


def avi_in_order(data: mmap.mmap, codec: str, config: bytes, frames: list[tuple[int, int]]) -> str:
    """Why a stream without times must be read in order, or "". frames: where each begins, ends."""
    if codec in IN_PLACE:
        return ""
    why = f"{codec} may have B-frames, and its frames have no times"
    if not frames:
        return why
    begin, stop = frames[0]
    if codec in H264 and not begins_anew(data, config, begin, stop):
        return NO_KEYFRAME
    if codec not in MPEG4:
        return why
    # Headers may stand in the first frame only.
    config += data[begin:min(stop, begin + 4096)]
    if PACKED.search(config):                    # of a packet only the first frame's type is seen
        return why
    if has_empty(np.array([stop - begin for begin, stop in frames])):
        return NOT_CODED
    if not low_delay(config):
        return why
    if any(vop_type(data, begin, stop) == B_VOP for begin, stop in frames[1:]):
        return "it has B-frames, and its frames have no times"
    return ""


def begins_anew(data: mmap.mmap, config: bytes, begin: int, stop: int) -> bool:
    """Whether a frame of H.264 needs no other one: unit 5 (7.4.1.2.4).

    Its units have start codes in front of them, or their lengths: then the header is an avcC.
    """
    if config[:1] == b"\x01":
        units, _ = first_slices(data, "avc1", config, np.array([begin]), np.array([stop]))
        return 5 in units
    return bool(IDR.search(data[begin:stop]))
