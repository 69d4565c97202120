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
from .reordering import (
    EVERY_FRAME,
    H264,
    IN_PLACE,
    NO_KEYFRAME,
    between_keyframes,
    partial_keyframes,
    without_times,
)

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
    times, starts, stops, marks = mkv_blocks(data, at, number)
    if codec == "v_ms/vfw/fourcc":               # as in an .avi: times of decoding
        chunks = zip(starts, stops)
        # The private data is a BITMAPINFOHEADER.
        return avi_in_order(data, config[16:20].decode("latin-1").lower(), config[40:], chunks)
    if len(set(times)) < len(times):
        return "two of its frames have one time"
    if min(times, default=0) < 0:                # FFmpeg gives such a keyframe no time at all
        return "it has times below 0"
    keys = np.flatnonzero(marks)
    if not all(marks[:1]):
        return NO_KEYFRAME
    if len(marks) > 2 and all(marks) and codec not in EVERY_FRAME | H264:
        return "it does not say which of its frames are keyframes"
    if codec in IN_PLACE:
        return ""
    # Encoded (compressed, encrypted): the bytes of a block are not those of its frame.
    if ENCODINGS in film:
        return without_times(data, codec, config, None) if times == sorted(times) else ""
    samples = np.array(starts), np.array(stops)
    why = partial_keyframes(data, codec, config, samples, keys)
    if not why and times == sorted(times):
        why = without_times(data, codec, config, samples)
    elif not why:
        onwards = np.diff(np.array(times), append=times[-1] + 1) > 0
        why = between_keyframes(data, codec, config, samples, keys, onwards)
    return why


def mkv_blocks(data: mmap.mmap, at: int, number: int
               ) -> tuple[list[int], list[int], list[int], list[bool]]:
    """Of a track's frames: when each is shown, where it begins and ends, if it is a keyframe.

    Times in ticks of the segment, 1 ms if it says nothing else; places in bytes of the file. A
    block counts as one frame: lacing (RFC 9559, 10.3), which packs several, is for sound.
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
                times.append(cluster + struct.unpack_from(">h", data, first)[0])
                starts.append(first + 3)
                stops.append(stop)
                keys.append(name == BLOCK or data[first + 2] >= 0x80)
    return times, starts, stops, keys
