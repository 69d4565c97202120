"""
The boxes of mp4, mov and 3gp, and the tables in them (ISO 14496-12).

Part of containers/. Needs numpy. Not part of the paper.
"""
import mmap
import struct
from collections.abc import Iterator

import numpy as np

MASTERS = (b"moov", b"trak", b"edts", b"mdia", b"minf", b"stbl", b"mvex", b"moof", b"traf")
Box = tuple[int, int]                            # where its content begins and ends


def boxes(data: mmap.mmap, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """(type, begin, end) of the contents of the boxes between two places (ISO 14496-12, 4.2).

    A box: its size with this header (4 bytes), its type (4), and for size 1 the true size (8). All
    numbers are big-endian. One that claims more than there is ends at `end`. A size below 8
    raises ValueError.
    """
    while start + 8 <= end:
        size, kind = struct.unpack_from(">I4s", data, start)
        begin = start + 8
        if size == 1:
            size, = struct.unpack_from(">Q", data, begin)
            begin += 8
        elif size == 0:                          # to the end of the file
            size = end - start
        if size < 8:
            raise ValueError("a box shorter than its header")
        yield kind, begin, min(start + size, end)
        start += size


def box_tree(data: mmap.mmap, start: int, end: int) -> dict[bytes, list[Box]]:
    """All boxes inside one, by type, those inside MASTERS included.

    A trak is listed but not entered: the tables of several tracks would get mixed up.
    """
    found: dict[bytes, list[Box]] = {}
    for kind, begin, stop in boxes(data, start, end):
        found.setdefault(kind, []).append((begin, stop))
        if kind in MASTERS and kind != b"trak":
            for inner, places in box_tree(data, begin, stop).items():
                found.setdefault(inner, []).extend(places)
    return found


def table(data: mmap.mmap, place: Box, columns: int, kind: str = ">u4", skip: int = 4
          ) -> np.ndarray:
    """A box of rows of numbers: version (4 bytes), number of rows, rows. -> (rows, columns)

    skip: bytes in front of the number of rows. Raises ValueError where the box is too short.
    The result is int64, so that sums over a whole film do not overflow.
    """
    begin, stop = place
    rows, = struct.unpack_from(">I", data, begin + skip)
    begin += skip + 4
    width = columns * int(kind[-1])
    if rows * width > stop - begin:
        raise ValueError("a table longer than its box")
    numbers = np.frombuffer(data[begin:begin + rows * width], kind)
    return numbers.reshape(rows, columns).astype(np.int64)


def repeated(data: mmap.mmap, runs: np.ndarray) -> np.ndarray:
    """Rows (how often, number) -> the numbers, each as often. A damaged file may claim billions."""
    if runs[:, 0].sum() > len(data):
        raise ValueError("more frames than bytes")
    return np.repeat(runs[:, 1], runs[:, 0])


def mp4_times(data: mmap.mmap, trak: dict[bytes, list[Box]]) -> np.ndarray:
    """When each frame is shown, in the order in which they are stored (14496-12, 8.6.1).

    In ticks of the track, as int64. stts has rows (how many frames, ticks to the next one); ctts
    rows (how many frames, shift from decoding to showing), read as signed in its version 0 too, as
    QuickTime means it.
    """
    steps = repeated(data, table(data, trak[b"stts"][0], 2))
    times = np.cumsum(steps) - steps
    if b"ctts" in trak:
        shifts = repeated(data, table(data, trak[b"ctts"][0], 2, ">i4"))
        length = min(len(times), len(shifts))
        times[:length] += shifts[:length]
    return times
