"""
mp4 in fragments: when its frames are shown (ISO 14496-12, 8.8).

    fragments_in_order(data, moov, trak, moofs, codec, config)          why a track must be, or ""

A moof box describes frames that lie behind it: a traf for each track, with its number and defaults
in tfhd, the time of its first frame in tfdt, and its frames in trun boxes.

Part of containers/. Needs numpy. Not part of the paper.
"""
import mmap
import struct
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from .boxes import Box, box_tree, boxes, mp4_times, time_shifts
from .reordering import (
    IN_PLACE,
    LOST,
    NO_KEYFRAME,
    OPEN,
    may_reorder,
    partial_keyframes,
)

Tree = dict[bytes, list[Box]]


class Fragment(NamedTuple):
    """What a traf says of its frames."""
    times: np.ndarray                            # when each is shown, in ticks of the track
    start: int                                   # the first frame's place in the file; -1: unsaid
    key: bool                                    # whether that is a keyframe


def fragments_in_order(data: mmap.mmap, moov: Tree, trak: Tree, moofs: list[Box], codec: str,
                       config: bytes) -> str:
    """Why a track in fragments must be read in order, or "".

    The first frames may be listed by the track's own tables: they count as a fragment. The times
    of one or two frames say nothing of their order.
    """
    fragments = list(read_fragments(data, moov, trak, moofs))
    parts = [mp4_times(data, trak, time_shifts(data, trak))]
    parts += [fragment.times for fragment in fragments]
    times = np.concatenate(parts)
    if len(np.unique(times)) < len(times):
        return "two of its frames have one time"
    if len(times) and times.min() < times[0]:    # B-frames of an open GOP
        return OPEN
    if fragments and not len(parts[0]) and not fragments[0].key:
        return NO_KEYFRAME
    if codec in IN_PLACE:
        return ""
    starts = [fragment.start for fragment in fragments if fragment.key and fragment.start >= 0]
    samples = np.array(starts, np.int64), np.full(len(starts), len(data))
    why = partial_keyframes(data, codec, config, samples, np.arange(len(starts)))
    if why or not may_reorder(codec, config):
        return why
    for of_part in [*parts, times]:
        if len(of_part) > 2 and (np.diff(of_part) > 0).all():
            return LOST
    return ""


def read_fragments(data: mmap.mmap, moov: Tree, trak: Tree, moofs: list[Box]
                   ) -> Iterator[Fragment]:
    """The fragments of one track."""
    begin, _ = trak[b"tkhd"][0]
    number = struct.unpack_from(">I", data, begin + (20 if data[begin] else 12))[0]
    # trex (8.8.3): flags, number of the track, an index, then duration, size and flags of a frame.
    defaults = (0, 0, 0)
    for begin, _ in moov.get(b"trex", []):
        if struct.unpack_from(">I", data, begin + 4)[0] == number:
            defaults = struct.unpack_from(">III", data, begin + 12)
    following = 0
    for moof in moofs:
        for kind, *place in boxes(data, *moof):
            traf = box_tree(data, *place) if kind == b"traf" else {}
            begin, _ = traf.get(b"tfhd", [(0, 0)])[0]
            if begin and struct.unpack_from(">I", data, begin + 4)[0] == number:
                fragment, following = read_fragment(data, traf, moof[0] - 8, defaults, following)
                yield fragment


def read_fragment(data: mmap.mmap, traf: Tree, moof: int, defaults: tuple[int, ...], time: int
                  ) -> tuple[Fragment, int]:
    """A fragment, and when the next one begins. moof: its box's place. time: when it should begin.

    tfhd (8.8.7): flags, number of the track, then as the flags say: 1 a place (8 bytes), 2 an
    index, 8 duration, 0x10 size, 0x20 flags of a frame (4 bytes each).
    """
    begin, _ = traf[b"tfhd"][0]
    flags, = struct.unpack_from(">I", data, begin)
    at = begin + 8
    if flags & 1:
        moof, = struct.unpack_from(">Q", data, at)
        at += 8
    values = [0, *defaults]
    for i, flag in enumerate((2, 8, 0x10, 0x20)):
        if flags & flag:
            values[i], = struct.unpack_from(">I", data, at)
            at += 4
    if b"tfdt" in traf:
        begin, _ = traf[b"tfdt"][0]
        time, = struct.unpack_from(">Q" if data[begin] else ">I", data, begin + 4)

    times = []
    start = -1
    first_flags = values[3]
    for i, place in enumerate(traf.get(b"trun", [])):
        offset, flags_of_first, steps, shifts = read_run(data, place, values[1])
        if i == 0 and offset is not None:
            start = moof + offset
        if i == 0 and flags_of_first is not None:
            first_flags = flags_of_first
        times.append(time + np.cumsum(steps) - steps + shifts)
        time += int(steps.sum())
    # Bit 16 of a frame's flags: it is no keyframe (8.8.3.1).
    joined = np.concatenate(times or [np.zeros(0, np.int64)])
    return Fragment(joined, start, not first_flags & 0x10000), time


def read_run(data: mmap.mmap, place: Box, duration: int
             ) -> tuple[int | None, int | None, np.ndarray, np.ndarray]:
    """Of a trun box: first frame's place after the moof and flags, durations, shifts of all frames.

    trun (8.8.8): flags, number of rows; for flag 1 a place, for flag 4 the first frame's flags;
    rows of up to four columns: 0x100 duration, 0x200 size, 0x400 flags, 0x800 shift.
    """
    begin, stop = place
    flags, rows = struct.unpack_from(">II", data, begin)
    at = begin + 8
    offset = first_flags = None
    if flags & 1:
        offset, = struct.unpack_from(">i", data, at)
        at += 4
    if flags & 4:
        first_flags, = struct.unpack_from(">I", data, at)
        at += 4
    columns = (flags >> 8 & 15).bit_count()
    if rows * columns * 4 > stop - at or rows > len(data):
        raise ValueError("a table longer than its box")
    numbers = np.frombuffer(data[at:at + rows * columns * 4], ">i4").reshape(rows, columns)
    numbers = numbers.astype(np.int64)
    if flags & 0x400 and first_flags is None and rows:
        first_flags = int(numbers[0, (flags >> 8 & 3).bit_count()])
    steps = numbers[:, 0] if flags & 0x100 else np.full(rows, duration)
    shifts = numbers[:, -1] if flags & 0x800 else np.zeros(rows, np.int64)
    return offset, first_flags, steps, shifts
