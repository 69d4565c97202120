"""
mp4, mov and 3gp: the times of the frames, edit lists, display matrices (ISO 14496-12).

    examine_mp4(data)          -> Look

Part of containers/. Needs numpy. Not part of the paper.
"""
import mmap
import re
import struct

import numpy as np

from .boxes import Box, box_tree, boxes, mp4_times, repeated, table
from .fragments import fragmented_frames
from .look import Look
from .reordering import CUT_AV1, Frames, why_in_order


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
        why, first = mp4_in_order(data, moov, trak, top.get(b"moof", []))
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


def mp4_in_order(data: mmap.mmap, moov: dict[bytes, list[Box]], trak: dict[bytes, list[Box]],
                 moofs: list[Box]) -> tuple[str, int]:
    """Why a track must be read in order, or ""; and how many frames at its beginning must be."""
    codec, config = mp4_codec(data, trak)
    frames = listed_frames(data, trak)
    if moofs:                                    # no edit list hides a frame of theirs
        frames = fragmented_frames(data, moov, trak, moofs, frames)
        return why_in_order(data, codec, config, frames), 0
    edits = mp4_edits(data, trak)
    front = frames_before_a_keyframe(frames, edits[0]) if edits else 0
    why = CUT_AV1 if front and codec == "av01" else ""
    why = why or why_in_order(data, codec, config, frames, edits[0] if edits else -np.inf)
    if not why and len(edits) > 1:
        why = "its edit list has several parts"
    if not why and np.abs(np.diff(frames.times)).max(initial=0) >= 1 << 28:
        why = "its times leap"                   # FFmpeg takes it for damage
    return why, front


def listed_frames(data: mmap.mmap, trak: dict[bytes, list[Box]]) -> Frames:
    """The frames that the track's own tables list; in a file of fragments none, or the first.

    stss (8.6.2) counts keyframes from 1. Without it, every frame is one.
    """
    times = mp4_times(data, trak)
    starts, stops = mp4_samples(data, trak)
    count = min(len(times), len(starts))
    keys = np.ones(count, bool)
    if b"stss" in trak:
        marked = table(data, trak[b"stss"][0], 1)[:, 0] - 1
        keys[:] = False
        keys[marked[(marked >= 0) & (marked < count)]] = True
    return Frames(times[:count], starts[:count], stops[:count], keys)


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


def frames_before_a_keyframe(frames: Frames, start: int) -> int:
    """How many frames are shown before the first keyframe that is.

    A clip that was cut without decoding hides the keyframe that its first frames need, and all up
    to `start`. torchcodec 0.17 then seeks without an index, and may land behind the frame.
    """
    times = frames.times
    shown = times[frames.keys & (times >= start)]
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
