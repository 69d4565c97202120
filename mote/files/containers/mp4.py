"""
mp4, mov and 3gp: boxes, the times of the frames, edit lists, display matrices (ISO 14496-12).

    examine_mp4(data)          -> Look

Part of containers/. Needs numpy. Not part of the paper.
"""
import mmap
import re
import struct
from collections.abc import Iterator

import numpy as np

from .look import Look
from .reordering import (
    IN_PLACE,
    LOST,
    between_keyframes,
    may_reorder,
    partial_keyframes,
    without_times,
)

MASTERS = (b"moov", b"trak", b"edts", b"mdia", b"minf", b"stbl", b"moof", b"traf")
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


def examine_mp4(data: mmap.mmap) -> Look:
    """Seeking is right if the frames have times of their own, or need none."""
    top: dict[bytes, list[Box]] = {}
    for kind, begin, stop in boxes(data, 0, len(data)):
        top.setdefault(kind, []).append((begin, stop))
    moov = box_tree(data, *top[b"moov"][0]) if b"moov" in top else {}
    if not moov.get(b"trak"):
        raise ValueError("no track")

    films = {}
    for i, place in enumerate(moov[b"trak"]):
        trak = box_tree(data, *place)
        # hdlr (8.4.3): version and flags (4 bytes), 4 unused here, the kind of the track.
        # QuickTime has a second one in minf, behind this one.
        kind = b""
        if b"hdlr" in trak:
            begin, _ = trak[b"hdlr"][0]
            kind = data[begin + 8:begin + 12]
        if kind == b"vide":
            films[i] = trak
    if not films:
        # covr: a cover, as iTunes stores it.
        picture = data.find(b"covr", *top[b"moov"][0]) >= 0
        return Look("mp4", instead="sound with a picture" if picture else "sound")

    # Of several, FFmpeg chooses one, by bit rates too. So the most careful way for any is taken.
    in_order = ""
    front = 0
    for trak in films.values():
        why, first = mp4_in_order(data, trak, top.get(b"moof", []))
        in_order = in_order or why
        front = max(front, first)
    mirrored = tuple(i for i, trak in films.items() if is_mirrored(data, moov, trak))
    return Look("mp4", in_order, front, mirrored)


def is_mirrored(data: mmap.mmap, moov: dict[bytes, list[Box]], trak: dict[bytes, list[Box]]
                ) -> bool:
    """Whether the matrices of the track and of the film turn left to right, taken together.

    tkhd (14496-12, 8.3.2) and mvhd (8.2.2) hold a matrix of nine numbers: a b u c d v x y w. It
    mirrors where ad - bc is negative; a mere rotation leaves that positive. Two mirrors cancel out.
    """
    mirrored = False
    for kind, tree, places in ((b"tkhd", trak, (40, 52)), (b"mvhd", moov, (36, 48))):
        if kind in tree:
            begin = tree[kind][0][0]
            version = min(data[begin], 1)        # version 1 has longer dates in front
            a, b, _, c, d = struct.unpack_from(">5i", data, begin + places[version])
            mirrored ^= a * d - b * c < 0
    return mirrored


def mp4_in_order(data: mmap.mmap, trak: dict[bytes, list[Box]], moofs: list[Box]
                 ) -> tuple[str, int]:
    """Why a track must be read in order, or ""; and how many frames at its beginning must be.

    Shifts that differ: whoever wrote the file knew in which order its frames are shown. In a file
    of fragments the track's tables list no frames, or not all, so nothing else is compared.
    """
    codec, config = mp4_codec(data, trak)
    shifts = time_shifts(data, trak)
    if moofs:
        return fragments_in_order(data, trak, moofs, may_reorder(codec, config)), 0

    times = mp4_times(data, trak, shifts)
    if len(np.unique(times)) < len(times):
        return "two of its frames have one time", 0
    edits = mp4_edits(data, trak)
    if len(edits) > 1:
        return "its edit list has several parts", 0
    front = frames_before_a_keyframe(data, trak, times, edits[0]) if edits else 0
    if front and codec == "av01":                # its decoder gives out what an edit list hides
        return "it was cut in front of a keyframe", 0
    if b"stss" in trak and 1 not in table(data, trak[b"stss"][0], 1)[:, 0]:
        return "its first frame is no keyframe", 0

    if codec in IN_PLACE:
        return "", front
    samples = mp4_samples(data, trak)
    keys = np.zeros(0, np.int64)                 # without stss, every frame is a keyframe
    if b"stss" in trak:
        keys = table(data, trak[b"stss"][0], 1)[:, 0] - 1
    why = partial_keyframes(data, codec, config, samples, keys)
    if not why and (not len(shifts) or shifts.min() == shifts.max()):
        why = without_times(data, codec, config, samples)
    elif not why:
        steps = np.diff(shifts, append=shifts[-1:])
        why = between_keyframes(data, codec, config, samples, keys, steps == 0)
    return why, front


def mp4_codec(data: mmap.mmap, trak: dict[bytes, list[Box]]) -> tuple[str, bytes]:
    """Of the first sample entry (14496-12, 8.5.2 and 12.1.3): name, and what its decoder needs.

    The entry begins 8 bytes into stsd; it has 86 bytes of fixed fields, then boxes. Its name may be
    mp4v for MPEG-1 and -2 as well: only esds tells. What is neither MPEG-4 nor JPEG by esds becomes
    "mpeg", which is in none of the sets above.
    """
    begin, _ = trak[b"stsd"][0]
    size, kind = struct.unpack_from(">I4s", data, begin + 8)
    codec = kind.decode("latin-1").strip().lower()
    inside = {}
    for inner, first, stop in boxes(data, begin + 8 + 86, begin + 8 + size):
        inside[inner] = data[first:stop]
    if b"esds" in inside:
        # An MPEG-4 descriptor: tag 4, its length (1 to 4 bytes), then the kind of the stream.
        found = re.search(rb"\x04[\x80-\xff]{0,3}[\x00-\x7f](.)", inside[b"esds"][4:], re.S)
        codec = {b"\x20": "mp4v", b"\x6c": "jpeg"}.get(found[1] if found else b"", "mpeg")
    config = inside.get(b"avcC") or inside.get(b"hvcC") or inside.get(b"esds") or b""
    return codec, config


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


def time_shifts(data: mmap.mmap, trak: dict[bytes, list[Box]]) -> np.ndarray:
    """From decoding to showing, of each frame that the track's own tables list; empty for none.

    All equal, or none: the order in which frames are stored is all that is left. In ticks of the
    track. ctts (14496-12, 8.6.1.3) has rows (how many frames, shift); read as signed in its version
    0 too, as QuickTime means it.
    """
    if b"ctts" not in trak:
        return np.zeros(0, np.int64)
    return repeated(data, table(data, trak[b"ctts"][0], 2, ">i4"))


def fragments_in_order(data: mmap.mmap, trak: dict[bytes, list[Box]], moofs: list[Box],
                       reorders: bool) -> str:
    """Why a track in fragments must be read in order, or "".

    reorders: whether its codec may show frames in another order. The first frames may be listed by
    the track's own tables: they count as a fragment. A fragment of one or two frames says nothing.
    """
    if not reorders:
        return ""
    listed = repeated(data, table(data, trak[b"stts"][0], 2))
    shifts = [time_shifts(data, trak) if b"ctts" in trak else 0 * listed]
    shifts += fragment_shifts(data, trak, moofs)
    for of_fragment in [*shifts, np.concatenate(shifts)]:
        if len(of_fragment) > 2 and of_fragment.min() == of_fragment.max():
            return LOST
    return ""


def fragment_shifts(data: mmap.mmap, trak: dict[bytes, list[Box]], moofs: list[Box]
                    ) -> Iterator[np.ndarray]:
    """The same of the frames of each fragment; 0 for a frame without a shift.

    A fragment (traf) names its track in tfhd (8.8.7). trun (8.8.8) has rows of up to four columns,
    as its flags say: 0x100 duration, 0x200 size, 0x400 flags, 0x800 shift; in front of them the
    number of rows and, for flags 1 and 4, four bytes each.
    """
    begin, _ = trak[b"tkhd"][0]
    number = data[begin + 20:begin + 24] if data[begin] else data[begin + 12:begin + 16]
    for moof in moofs:
        for kind, *traf in boxes(data, *moof):
            fragment = box_tree(data, *traf) if kind == b"traf" else {}
            if b"tfhd" not in fragment:
                continue
            begin, _ = fragment[b"tfhd"][0]
            if data[begin + 4:begin + 8] != number:
                continue
            shifts = [run_shifts(data, run) for run in fragment.get(b"trun", [])]
            yield np.concatenate(shifts or [np.zeros(0, np.int64)])


def run_shifts(data: mmap.mmap, place: Box) -> np.ndarray:
    """The shifts in one trun box."""
    begin, stop = place
    flags, rows = struct.unpack_from(">II", data, begin)
    first = begin + 8 + 4 * bool(flags & 1) + 4 * bool(flags & 4)
    columns = (flags >> 8 & 15).bit_count()
    if rows * columns * 4 > stop - first or rows > len(data):
        raise ValueError("a table longer than its box")
    if not flags & 0x800:                        # the last column
        return np.zeros(rows, np.int64)
    numbers = np.frombuffer(data[first:first + rows * columns * 4], ">i4")
    return numbers[columns - 1::columns].astype(np.int64)


def mp4_times(data: mmap.mmap, trak: dict[bytes, list[Box]], shifts: np.ndarray) -> np.ndarray:
    """When each frame is shown, in the order in which they are stored (14496-12, 8.6.1).

    In ticks of the track, as int64. stts has rows (how many frames, ticks to the next one).
    """
    steps = repeated(data, table(data, trak[b"stts"][0], 2))
    times = np.cumsum(steps) - steps
    length = min(len(times), len(shifts))
    times[:length] += shifts[:length]
    return times


def mp4_edits(data: mmap.mmap, trak: dict[bytes, list[Box]]) -> list[int]:
    """Where in the track each part begins that an edit list shows, but the empty ones (8.6.6).

    In ticks of the track; the durations, unused here, are in those of the film. An empty part,
    which only delays the track, begins at -1.
    """
    if b"elst" not in trak:
        return []
    begin, stop = trak[b"elst"][0]
    rows, = struct.unpack_from(">I", data, begin + 4)
    kind = ">QqI" if data[begin] == 1 else ">IiI"                # how long, from where, how fast
    if rows * struct.calcsize(kind) > stop - begin:
        raise ValueError("a table longer than its box")
    shown = []
    for row in range(rows):
        _, start, _ = struct.unpack_from(kind, data, begin + 8 + row * struct.calcsize(kind))
        if start >= 0:
            shown.append(start)
    return shown


def frames_before_a_keyframe(data: mmap.mmap, trak: dict[bytes, list[Box]], times: np.ndarray,
                             start: int) -> int:
    """How many frames are shown before the first keyframe that is.

    A clip that was cut without decoding hides the keyframe that its first frames need, and all up
    to `start`. torchcodec 0.17 then seeks without an index, and may land behind the frame.
    """
    if b"stss" not in trak:                      # every frame is a keyframe
        return 0
    # stss (8.6.2) counts frames from 1.
    keys = table(data, trak[b"stss"][0], 1)[:, 0] - 1
    key_times = times[keys[(keys >= 0) & (keys < len(times))]]
    shown = key_times[key_times >= start]
    first = shown.min() if len(shown) else times.max(initial=start) + 1
    front = int(((times >= start) & (times < first)).sum())
    # FFmpeg rounds times: one frame more may count as shown.
    return front + 1 if front else 0


def mp4_samples(data: mmap.mmap, trak: dict[bytes, list[Box]]) -> tuple[np.ndarray, np.ndarray]:
    """Where the frames begin and end, in the order in which they are stored (14496-12, 8.7).

    Bytes from the file's beginning, int64. stsz: one size for all frames, or 0 and a table.
    Its compact form, stz2, is not read: KeyError, so such a file counts as damaged.
    """
    begin, _ = trak[b"stsz"][0]
    size, number = struct.unpack_from(">II", data, begin + 4)
    if number > len(data):
        raise ValueError("more frames than bytes")
    sizes = np.full(number, size) if size else table(data, trak[b"stsz"][0], 1, skip=8)[:, 0]
    if b"co64" in trak:
        chunks = table(data, trak[b"co64"][0], 1, ">u8")[:, 0]
    else:
        chunks = table(data, trak[b"stco"][0], 1)[:, 0]

    # A frame lies in a chunk, behind the frames that come before it there.
    # Rows of stsc: first chunk (from 1), frames in each chunk from there on.
    first, frames, _ = table(data, trak[b"stsc"][0], 3).T
    following = np.append(first[1:], len(chunks) + 1)
    in_chunk = repeated(data, np.stack([following - first, frames], axis=1))
    chunk = repeated(data, np.stack([in_chunk, np.arange(len(in_chunk))], axis=1))[:number]
    before = np.cumsum(sizes) - sizes            # bytes of all frames before this one
    head = (np.cumsum(in_chunk) - in_chunk)[chunk]
    starts = chunks[chunk] + before[:len(chunk)] - before[head]
    return starts, starts + sizes[:len(chunk)]
