"""
mp4 in fragments: their frames (ISO 14496-12, 8.8).

    fragmented_frames(data, moov, trak, moofs, first)    the frames of all fragments, behind `first`

A moof box describes frames that lie behind it: a traf for each track, with its number and defaults
in tfhd, the time of its first frame in tfdt, and its frames in trun boxes.

Part of containers/. Needs numpy. Not part of the paper.
"""
import mmap
import struct

import numpy as np

from .boxes import Box, box_tree, boxes
from .reordering import Frames

Tree = dict[bytes, list[Box]]


def fragmented_frames(data: mmap.mmap, moov: Tree, trak: Tree, moofs: list[Box], first: Frames
                      ) -> Frames:
    """The frames of one track. first: those that its own tables list."""
    begin, _ = trak[b"tkhd"][0]
    number = struct.unpack_from(">I", data, begin + (20 if data[begin] else 12))[0]
    # trex (8.8.3): flags, number of the track, an index, then duration, size and flags of a frame.
    defaults = (0, 0, 0)
    for begin, _ in moov.get(b"trex", []):
        if struct.unpack_from(">I", data, begin + 4)[0] == number:
            defaults = struct.unpack_from(">III", data, begin + 12)
    parts = [first]
    following = 0
    for moof in moofs:
        for kind, *place in boxes(data, *moof):
            traf = box_tree(data, *place) if kind == b"traf" else {}
            begin, _ = traf.get(b"tfhd", [(0, 0)])[0]
            if begin and struct.unpack_from(">I", data, begin + 4)[0] == number:
                frames, following = read_fragment(data, traf, moof[0] - 8, defaults, following)
                parts += frames
    return Frames(*[np.concatenate(column) for column in zip(*parts)])


def read_fragment(data: mmap.mmap, traf: Tree, moof: int, defaults: tuple[int, ...], time: int
                  ) -> tuple[list[Frames], int]:
    """The frames of each run, and when the next fragment begins.

    moof: its box's place. time: when this one should begin. tfhd (8.8.7): flags, number of the
    track, then as the flags say: 1 a place (8 bytes), 2 an index, 8 duration, 0x10 size, 0x20 flags
    of a frame (4 bytes each).
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

    runs = []
    for run in traf.get(b"trun", []):
        offset, (steps, sizes, marks, shifts) = read_run(data, run, values[1:])
        if offset is None:                       # behind the run before it: no writer seen does so
            raise ValueError("a run of frames without a place")
        stops = moof + offset + np.cumsum(sizes)
        # Bit 16 of a frame's flags: it is no keyframe (8.8.3.1).
        runs.append(Frames(time + np.cumsum(steps) - steps + shifts, stops - sizes, stops,
                           marks & 0x10000 == 0))
        time += int(steps.sum())
    return runs, time


def read_run(data: mmap.mmap, place: Box, defaults: list[int]
             ) -> tuple[int | None, list[np.ndarray]]:
    """Of a trun box: its place after the moof; its frames' durations, sizes, flags, shifts.

    trun (8.8.8): flags, number of rows; for flag 1 a place, for flag 4 the first frame's flags;
    rows of up to four columns, for 0x100, 0x200, 0x400 and 0x800. defaults: of the first three.
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
    width = (flags >> 8 & 15).bit_count()
    if rows * width * 4 > stop - at or rows > len(data):
        raise ValueError("a table longer than its box")
    numbers = np.frombuffer(data[at:at + rows * width * 4], ">i4").reshape(rows, width)
    numbers = numbers.astype(np.int64)
    columns = []
    used = 0
    for flag, default in zip((0x100, 0x200, 0x400, 0x800), [*defaults, 0]):
        if flags & flag:
            columns.append(numbers[:, used])
            used += 1
        else:
            columns.append(np.full(rows, default))
    if first_flags is not None and rows:
        columns[2][0] = first_flags
    return offset, columns
