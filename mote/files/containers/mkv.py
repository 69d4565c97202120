"""
mkv and webm: elements, tracks, the times of the blocks (RFC 8794, RFC 9559).

    examine_mkv(data)          -> Look

Part of containers/. Needs numpy. Not part of the paper.
"""
import mmap
import struct
from collections.abc import Iterator

import numpy as np

from .avi import avi_in_order
from .look import Look
from .reordering import IN_PLACE, Frames, why_in_order

# Ids from RFC 9559, 5, with the bits that give their length, as they stand in the file. There they
# are called Segment, Cluster, BlockGroup, Tracks; Timestamp, SimpleBlock, Block, ReferenceBlock;
# TrackEntry, TrackNumber, TrackType, CodecID, CodecPrivate, ContentEncodings.
SEGMENT, CLUSTER, GROUP, TRACKS = 0x18538067, 0x1F43B675, 0xA0, 0x1654AE6B
TIME, SIMPLE, BLOCK, REFERENCE = 0xE7, 0xA3, 0xA1, 0xFB
ENTRY, NUMBER, KIND, CODEC, PRIVATE, ENCODINGS = 0xAE, 0xD7, 0x83, 0x86, 0x63A2, 0x6D80


def element(data: mmap.mmap, at: int, whole: bool = False) -> tuple[int, int, int]:
    """An EBML element: its id, and where its content begins and ends (RFC 8794).

    whole: where it ends by its own account, also beyond the end of the file. Id and size have 1 to
    8 bytes: as many zero bits as bytes follow the first, a 1, then the number. An id keeps these
    bits, a size drops them; a size of ones only is unknown. Raises IndexError at the file's end.
    """
    length = 9 - data[at].bit_length()
    name = int.from_bytes(data[at:at + length], "big")
    at += length
    length = 9 - data[at].bit_length()
    size = int.from_bytes(data[at:at + length], "big") & ((1 << 7 * length) - 1)
    at += length
    if length > 8 or size == (1 << 7 * length) - 1:              # unknown: to the end
        return name, at, len(data)
    return name, at, at + size if whole else min(at + size, len(data))


def elements(data: mmap.mmap, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """All elements between two places. Those of SEGMENT, CLUSTER and GROUP come one by one.

    So a cluster of unknown size, as live recordings have, is left when the next one comes.
    """
    while at + 2 < end:
        name, begin, stop = element(data, at)
        yield name, begin, stop
        at = begin if name in (SEGMENT, CLUSTER, GROUP) else stop


def examine_mkv(data: mmap.mmap) -> Look:
    """Seeking is right if the times of the blocks run back somewhere, or no frame needs one."""
    films: dict[int, dict[int, bytes]] = {}
    at = 0
    for name, begin, stop in elements(data, 0, len(data)):
        if name == TRACKS:
            films = mkv_films(data, begin, stop)
            at = stop
            break
        if name == CLUSTER:
            raise ValueError("blocks before the tracks")
    if not at:
        raise ValueError("no tracks")
    if not films:
        picture = data.find(b"image/") >= 0      # the type of an attachment
        return Look("mkv", instead="sound with a picture" if picture else "sound")

    in_order = ""
    for number, film in films.items():
        in_order = in_order or mkv_in_order(data, at, number, film)
    return Look("mkv", in_order)


def mkv_films(data: mmap.mmap, begin: int, stop: int) -> dict[int, dict[int, bytes]]:
    """Number -> fields, of each track of pictures."""
    films = {}
    for name, first, last in elements(data, begin, stop):
        if name == ENTRY:
            fields = {inner: data[a:b] for inner, a, b in elements(data, first, last)}
            if int.from_bytes(fields[KIND], "big") == 1:
                films[int.from_bytes(fields[NUMBER], "big")] = fields
    return films


def mkv_in_order(data: mmap.mmap, at: int, number: int, film: dict[int, bytes]) -> str:
    """Why a track must be read in order, or "". at: where the blocks begin."""
    codec = film[CODEC].rstrip(b"\0").decode("latin-1").lower()
    config = film.get(PRIVATE, b"")
    frames = mkv_frames(data, at, number)
    if frames is None:
        return "its frames are laced"
    if codec == "v_ms/vfw/fourcc":               # as in an .avi: times of decoding
        chunks = list(zip(frames.starts.tolist(), frames.stops.tolist()))
        # The private data is a BITMAPINFOHEADER.
        return avi_in_order(data, config[16:20].decode("latin-1").lower(), config[40:], chunks)
    # Encoded (compressed, encrypted): the bytes of a block are not those of its frame.
    if ENCODINGS in film and codec not in IN_PLACE:
        return "its frames are compressed or encrypted"
    why = why_in_order(data, codec, config, frames)
    if not why and frames.times.min(initial=0) < 0:              # FFmpeg drops such a time
        why = "it has times below 0"
    return why


def mkv_frames(data: mmap.mmap, at: int, number: int) -> Frames | None:
    """The frames of a track; None if a block holds several (lacing: RFC 9559, 10.3).

    Times in ticks of the segment, 1 ms if it says nothing else.
    """
    times: list[int] = []
    starts: list[int] = []
    stops: list[int] = []
    keys: list[bool] = []
    cluster = 0
    ours = False
    for name, begin, stop in elements(data, at, len(data)):
        if name == TIME:
            cluster = int.from_bytes(data[begin:stop], "big")
        elif name == REFERENCE and ours:         # the block in front of it, in its group
            keys[-1] = False
        elif name in (SIMPLE, BLOCK):
            # The number of its track, its time after the cluster's, one byte of flags.
            track, first = data[begin] & 127, begin + 1
            if data[begin] < 128:
                track, first = data[begin] & 63, begin + 2
                track = track << 8 | data[begin + 1]
            ours = track == number
            if ours:
                if data[first + 2] & 0x06:
                    return None
                times.append(cluster + struct.unpack_from(">h", data, first)[0])
                starts.append(first + 3)
                stops.append(stop)
                keys.append(name == BLOCK or data[first + 2] >= 0x80)
    places = np.array([starts, stops], np.int64)
    return Frames(np.array(times, np.int64), *places, np.array(keys, bool))
