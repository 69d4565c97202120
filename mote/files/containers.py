"""
What a video file is, by its bytes: its container, and whether torchcodec may seek in it.

    look = examine(path)
    look.container     "mp4", "mkv", "avi", "mpegts", ...; "unknown" for bytes that say nothing
    look.in_order      why the file must be decoded from its first frame on; "" if seeking is right
    look.front         how many frames at its beginning must be, wherever seeking is right
    look.mirrored      whether a player shows it mirrored
    look.instead       what it holds, if that is known to be no video: "sound"

torchcodec seeks by presentation times: the time at which a frame is shown. Frames are stored in the
order in which they are decoded, and B-frames are shown before a frame that is stored before them.
So where B-frames have no times of their own, seeking finds other frames than those asked for. This
file says for which files seeking is right: mp4 and mkv with times, and whatever has no B-frames.

The file's ending is never looked at. No byte of a picture is decoded. Measured cost: docs/data.md.
Copy alone: needs numpy only. Not part of the paper.
"""
import mmap
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

# Codecs whose frames are shown in the order in which they are stored, by their names in mp4 and
# avi (lower case), and in mkv. AVI names a codec by its encoder, so one has several names.
# A codec that stands in none of these sets is taken to have B-frames: the careful side.
# EVERY_FRAME: each frame is a keyframe, so any may be sought, with an index or without.
EVERY_FRAME = frozenset("""
    mjpg jpeg mjpa mjpb avrn ljpg dmb1 apch apcn apcs apco ap4h ap4x avdn avdh cfhd icod
    ffvh hfyu ulrg ulra uly0 uly2 uly4 ulh0 ulh2 lags magy png mpng tiff qoi
    raw 2vuy uyvy yuy2 yuyv yv12 i420 iyuv nv12 y800 v210 dib hap1 hap5 hapy
    dvc dvcp dvpp dv5n dv5p dvsd dv25 dv50 dvh1 dvhp dvhq dvh5 dvh6
    v_mjpeg v_prores v_uncompressed
""".split())
IN_PLACE = EVERY_FRAME | frozenset("""
    vp08 vp09 av01 vp80 vp90 vp60 vp61 vp62 vp6f flv1 svq1 h263 s263 u263 i263
    div3 div4 mp43 mp42 mpg4 mp41 col1 wmv1 wmv2 cvid msvc cram rle rle8 iv31 iv32 zlib mszh tscc
    ffv1 gif v_vp8 v_vp9 v_av1 v_theora v_ffv1
""".split())
MPEG4 = frozenset("xvid divx dx50 fmp4 mp4v mp4s 3iv2 3ivx blz0 dxgm rmp4 sedg hdx4 smp4 m4s2 "
                  "umsv v_mpeg4/iso/asp v_mpeg4/iso/sp v_mpeg4/iso/ap".split())
H264 = frozenset("avc1 avc2 avc3 avc4 h264 x264 davc vssh dvav dva1 v_mpeg4/iso/avc".split())
HEVC = frozenset("hvc1 hev1 dvh1 dvhe hevc h265 x265 v_mpegh/iso/hevc".split())

# What reading a damaged header raised. RecursionError: boxes nested too deep.
DAMAGED = (struct.error, IndexError, KeyError, ValueError, OverflowError, RecursionError)
PACKED = re.compile(rb"DivX\d+(?:b|Build)\d+p")                  # two frames in one chunk


class Look(NamedTuple):
    """What a file's bytes say."""
    container: str
    in_order: str = ""
    front: int = 0
    mirrored: bool = False
    instead: str = ""


def examine(path: str | Path) -> Look:
    """Judge a file by its bytes. Raises OSError where it cannot be read.

    A file that begins like one container and is damaged further on is to be read in order: the
    decoder has the last word on it.
    """
    with open(path, "rb") as file:
        try:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError:                       # an empty file
            return Look("unknown", "it is empty")
    with data:
        name = container(data)
        if name in ("mp3", "flac"):
            return Look(name, instead="sound, perhaps with a picture")
        reader = READERS.get(name)
        if reader is None:
            return Look(name, f"torchcodec's seeks in {name} are not exact")
        try:
            return reader(data)
        except DAMAGED:
            return Look(name, f"its {name} header is damaged")


# --- 1. which container ---------------------------------------------------------------------------
# 1A 45 DF A3 is the id of the EBML header (RFC 8794, 11.2), which webm has too; 06 0E 2B 34 begins
# each key of MXF; 00 00 01 BA is the pack header of a program stream (ISO 13818-1).
SIGNATURES = {
    b"\x1aE\xdf\xa3": "mkv", b"FLV": "flv", b"0&\xb2u\x8ef\xcf\x11": "asf", b"OggS": "ogg",
    b"nut/multimedia container": "nut", b"DKIF": "ivf", b"GIF8": "gif", b"\x06\x0e+4": "mxf",
    b".RMF": "rm", b"\0\0\x01\xba": "mpeg", b"ID3": "mp3", b"fLaC": "flac",
}
# Boxes that come first. ftyp should (14496-12, 4.3), but QuickTime's older files have none, and
# single fragments begin with styp, sidx or moof.
BOXES = (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot", b"styp", b"moof", b"sidx")


def container(data: mmap.mmap) -> str:
    """The name of a container, from the first bytes of a file; "unknown" for all others."""
    head = data[:600]
    if head[4:8] in BOXES:
        return "mp4"
    if head[:4] == b"RIFF" and head[8:11] == b"AVI":
        return "avi"
    for signature, name in SIGNATURES.items():
        if head.startswith(signature):
            return name
    # A packet of 188 bytes begins with 0x47; in .m2ts, four bytes with a time stand before each.
    for first, length in ((0, 188), (4, 192)):
        if [head[at:at + 1] for at in range(first, first + 3 * length, length)] == [b"G"] * 3:
            return "mpegts"
    # A start code, and what the sequence headers of MPEG-1 to -4, H.264 and HEVC begin with.
    # B3: MPEG-1 and -2; B0 and 00 to 2F: MPEG-4; 40, 42, 46: HEVC's sets and delimiter; 67: H.264's
    # set. Its other usual forms, 07 and 27, and the delimiter, 09, lie between 00 and 2F.
    if re.match(rb"\0?\0\0\x01[\xb0\xb3\x00-\x2f\x40\x42\x46\x67]", head):
        return "raw stream"
    return "unknown"


def claimed_size(path: str | Path) -> int:
    """Bytes that a file should have by its own account, where it gives one; 0 where it does not.

    More than it has: its end was cut off. Raises OSError where it cannot be read. Less than it has
    is no fault: of an avi only the first RIFF counts, and an mp4's last box may give no size.
    """
    with open(path, "rb") as file:
        try:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError:                       # an empty file
            return 0
    with data:
        name = container(data)
        at = 0
        try:
            if name == "avi":
                # The size in a RIFF header leaves out the header's own 8 bytes.
                return 8 + struct.unpack_from("<I", data, 4)[0]
            if name == "mkv":
                # The EBML header, then the Segment: all else lies in that.
                _, begin, at = element(data, 0, whole=True)
                _, begin, at = element(data, at, whole=True)
            while name == "mp4" and at + 8 <= len(data):
                size, = struct.unpack_from(">I", data, at)
                if size == 1:
                    size, = struct.unpack_from(">Q", data, at + 8)
                if size < 8:                     # to the end of the file, or damaged
                    break
                at += size
        except DAMAGED:
            return 0
        return at


# --- 2. mp4, mov, 3gp -----------------------------------------------------------------------------
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

    films = []
    for place in moov[b"trak"]:
        trak = box_tree(data, *place)
        # hdlr (8.4.3): version and flags (4 bytes), 4 unused here, the kind of the track.
        # QuickTime has a second one in minf, behind this one.
        kind = b""
        if b"hdlr" in trak:
            begin, _ = trak[b"hdlr"][0]
            kind = data[begin + 8:begin + 12]
        if kind == b"vide":
            films.append(trak)
    if not films:
        # covr: a cover, as iTunes stores it.
        picture = data.find(b"covr", *top[b"moov"][0]) >= 0
        return Look("mp4", instead="sound with a picture" if picture else "sound")

    in_order = ""
    front = 0
    for trak in films:
        why, first = mp4_in_order(data, trak, top.get(b"moof", []))
        in_order = in_order or why
        front = max(front, first)
    # Of several tracks, the first is the one that is played.
    return Look("mp4", in_order, front, is_mirrored(data, moov, films[0]))


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
    of fragments the track's tables list no frames, or not all, so its times are not compared.
    """
    codec, config = mp4_codec(data, trak)
    shifts = time_shifts(data, trak, moofs)
    front = 0
    if not moofs:
        times = mp4_times(data, trak, shifts)
        if len(np.unique(times)) < len(times):
            return "two of its frames have one time", 0
        edits = mp4_edits(data, trak)
        if len(edits) > 1:
            return "its edit list has several parts", 0
        if len(edits):
            front = frames_before_a_keyframe(data, trak, times, edits[0])
        if front and codec == "av01":            # its decoder gives out what an edit list hides
            return "it was cut in front of a keyframe", 0
        if b"stss" in trak and 1 not in table(data, trak[b"stss"][0], 1)[:, 0]:
            return "its first frame is no keyframe", 0

    if codec in IN_PLACE:
        return "", front
    samples = None if moofs else mp4_samples(data, trak)
    if not len(shifts) or shifts.min() == shifts.max():
        return without_times(data, codec, config, samples), front
    if samples is None or b"stss" not in trak:
        return "", front
    keys = table(data, trak[b"stss"][0], 1)[:, 0] - 1
    steps = np.diff(shifts, append=shifts[-1:])
    return between_keyframes(data, codec, config, samples, keys, steps == 0), front


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


def time_shifts(data: mmap.mmap, trak: dict[bytes, list[Box]], moofs: list[Box]) -> np.ndarray:
    """From decoding to showing: of each frame, or of the first fragment that has several.

    All equal, or none: the order in which frames are stored is all that is left. In ticks of the
    track. ctts (14496-12, 8.6.1.3) has rows (how many frames, shift); read as signed in its version
    0 too, as QuickTime means it. trun (8.8.8) has rows of up to four columns, as its flags say:
    0x100 duration, 0x200 size, 0x400 flags, 0x800 shift; in front of them the number of rows and,
    for flags 1 and 4, four bytes each. Fragments of all tracks are looked at.
    """
    if b"ctts" in trak:
        return repeated(data, table(data, trak[b"ctts"][0], 2, ">i4"))
    for place in moofs:
        for begin, stop in box_tree(data, *place).get(b"trun", []):
            version_flags, rows = struct.unpack_from(">II", data, begin)
            if version_flags & 0x800:            # the last of up to four columns
                first = begin + 8 + 4 * bool(version_flags & 1) + 4 * bool(version_flags & 4)
                columns = (version_flags >> 8 & 15).bit_count()
                if rows * columns * 4 > stop - first:
                    raise ValueError("a table longer than its box")
                numbers = np.frombuffer(data[first:first + rows * columns * 4], ">i4")
                shifts = numbers[columns - 1::columns]
                if len(shifts) and shifts.min() < shifts.max():
                    return shifts
    return np.zeros(0, np.int64)


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


# --- 3. mkv, webm ---------------------------------------------------------------------------------
# Ids from RFC 9559, 5, with the bits that give their length, as they stand in the file. There they
# are called Segment, Cluster, BlockGroup, Tracks; Timestamp, SimpleBlock and Block; TrackEntry,
# TrackNumber, TrackType, CodecID, CodecPrivate, ContentEncodings.
SEGMENT, CLUSTER, GROUP, TRACKS = 0x18538067, 0x1F43B675, 0xA0, 0x1654AE6B
TIME, BLOCKS = 0xE7, (0xA3, 0xA1)
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
    times, starts, stops = mkv_blocks(data, at, number)
    if codec == "v_ms/vfw/fourcc":               # as in an .avi: times of decoding
        chunks = zip(starts, stops)
        # The private data is a BITMAPINFOHEADER.
        return avi_in_order(data, config[16:20].decode("latin-1").lower(), config[40:], chunks)
    if len(set(times)) < len(times):
        return "two of its frames have one time"
    if min(times, default=0) < 0:                # FFmpeg gives such a keyframe no time at all
        return "it has times below 0"
    content = np.frombuffer(data, np.uint8)
    # The flags of a SimpleBlock say whether it is a keyframe; those of a Block in a group do not.
    keys = np.flatnonzero(content[np.array(starts, np.int64) - 1] & 0x80)
    del content                                  # or the mapping could not be closed
    if len(keys) and keys[0]:
        return "its first frame is no keyframe"
    if codec in IN_PLACE:
        return ""
    # Encoded (compressed, encrypted): the bytes of a block are not those of its frame.
    samples = None if ENCODINGS in film else (np.array(starts), np.array(stops))
    if times == sorted(times):
        return without_times(data, codec, config, samples)
    if samples is None:
        return ""
    onwards = np.diff(np.array(times), append=times[-1] + 1) > 0
    return between_keyframes(data, codec, config, samples, keys, onwards)


def mkv_blocks(data: mmap.mmap, at: int, number: int) -> tuple[list[int], list[int], list[int]]:
    """Of a track's frames: when each is shown, where it begins and ends.

    Times in ticks of the segment, 1 ms if it says nothing else; places in bytes of the file. A
    block counts as one frame: lacing (RFC 9559, 10.3), which packs several, is for sound.
    """
    times: list[int] = []
    starts: list[int] = []
    stops: list[int] = []
    cluster = 0
    for name, begin, stop in elements(data, at, len(data)):
        if name == TIME:
            cluster = int.from_bytes(data[begin:stop], "big")
        elif name in BLOCKS:
            # The number of its track, its time after the cluster's, one byte of flags.
            track, first = data[begin] & 127, begin + 1
            if data[begin] < 128:
                track, first = data[begin] & 63, begin + 2
                track = track << 8 | data[begin + 1]
            if track == number:
                times.append(cluster + struct.unpack_from(">h", data, first)[0])
                starts.append(first + 3)
                stops.append(stop)
    return times, starts, stops


# --- 4. avi ---------------------------------------------------------------------------------------
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
    if codec in H264:
        return why if h264_reorders(annex_b_sps(config)) is not False else ""
    # Of a packed chunk only the first frame's type would be seen, so those are ruled out here.
    if codec not in MPEG4 or not low_delay(config) or PACKED.search(config):
        return why
    for begin, stop in frames:
        if vop_type(data, begin, stop) == B_VOP:
            return "it has B-frames, and its frames have no times"
    return ""


# --- 5. B-frames ----------------------------------------------------------------------------------
LOST = "the times of its frames were lost, as in a stream copy from .avi"
VOP, B_VOP = b"\0\0\x01\xb6", 2


def may_reorder(codec: str, config: bytes) -> bool:
    """Whether the order of showing may differ from that of storing, as far as the header tells."""
    if codec in H264:
        return h264_reorders(avcc_sps(config)) is not False
    if codec in HEVC:
        return hevc_reorders(config)
    return codec not in IN_PLACE


def without_times(data: mmap.mmap, codec: str, config: bytes,
                  samples: tuple[np.ndarray, np.ndarray] | None) -> str:
    """Why a track whose times say nothing must be read in order, or "".

    samples: where its frames begin and end; None if that is not known.
    """
    if not may_reorder(codec, config):
        return ""
    if samples is None or not (codec in H264 or codec in MPEG4):
        return LOST
    starts, stops = samples
    if len(starts) and (starts[-1] > len(data) or starts.min() < 0):
        raise ValueError("frames beyond the file's end")
    if codec in H264:
        reorders = has_b_slices(data, starts, stops, length_size(config))
    else:
        reorders = has_b_vops(data, config, starts, stops)
    return LOST if reorders else ""


def between_keyframes(data: mmap.mmap, codec: str, config: bytes,
                      samples: tuple[np.ndarray, np.ndarray], keys: np.ndarray,
                      onwards: np.ndarray) -> str:
    """Why a track with times of its own must be read in order nevertheless, or "".

    Times may be lost in a part: a lost clip was joined to a good one. And keyframes may be none,
    but points from which P frames make the picture whole, bit by bit (intra refresh).
    keys: the places of the keyframes, sorted. onwards: of each frame, whether the next one that is
    stored is the next one shown. Of H.264 and MPEG-4 only.
    """
    starts, stops = samples
    count = min(len(starts), len(onwards))
    keys = keys[(keys >= 0) & (keys < count)]
    if not (codec in H264 or codec in MPEG4) or not len(keys):
        return ""
    if starts.max() > len(data) or starts.min() < 0:
        raise ValueError("frames beyond the file's end")
    if codec in H264 and has_slices(data, starts[keys], stops[keys], length_size(config), P_SLICES):
        return "its keyframes are no whole pictures"

    # A stretch runs from one keyframe to the next. The step out of it says nothing.
    ends = np.append(keys[1:], count)
    in_doubt = [np.arange(first, end) for first, end in zip(keys, ends)
                if end - first > 2 and onwards[first:end - 1].all()]
    if not in_doubt:
        return ""
    chosen = np.concatenate(in_doubt)
    return without_times(data, codec, config, (starts[chosen], stops[chosen]))


def has_b_slices(data: mmap.mmap, starts: np.ndarray, stops: np.ndarray, size: int) -> bool:
    """Whether a frame begins with a B slice. size: bytes of the length before each unit."""
    return has_slices(data, starts, stops, size, B_SLICES)


# A slice begins with two numbers: the first block, 0 written as 1, and its type. P is 0 or 5,
# written as 1 or 00110; B is 1 or 6, written as 010 or 00111 (H.264, 7.3.3 and 9.1).
# (mask, bits) of the first byte.
P_SLICES = ((0xC0, 0xC0), (0xFC, 0x98))
B_SLICES = ((0xF0, 0xA0), (0xFC, 0x9C))


def has_slices(data: mmap.mmap, starts: np.ndarray, stops: np.ndarray, size: int,
               kinds: tuple) -> bool:
    """Whether one of the frames begins with a slice of these kinds; True if none is found in one.

    Slices are units 1 and 5; unit 2, the first part of a slice in three parts, begins alike. Only
    the first slice of each frame is looked at. size: bytes of the length before each unit.
    """
    content = np.frombuffer(data, np.uint8)
    try:
        at = starts
        end = np.minimum(stops, len(content))
        # All frames at once: of each, one unit further in each round, until a slice comes. In
        # front of it there may be a delimiter, parameter sets and messages.
        for _ in range(32):
            inside = at + size + 1 < end
            at, end = at[inside], end[inside]
            unit = content[at + size] & 31
            first = content[at + size + 1]
            found = np.zeros(len(first), bool)
            for mask, bits in kinds:
                found |= first & mask == bits
            if (found & np.isin(unit, (1, 2, 5))).any():
                return True
            others = ~np.isin(unit, (1, 2, 5))
            if not others.any():
                return False
            at, end = at[others], end[others]
            lengths = np.zeros(len(at), np.int64)
            for i in range(size):
                lengths = lengths * 256 + content[at + i]
            at = at + size + lengths
        return True                              # no slice found: not excluded
    finally:
        del content                              # or the mapping could not be closed


def has_b_vops(data: mmap.mmap, config: bytes, starts: np.ndarray, stops: np.ndarray) -> bool:
    """Whether one of the frames of MPEG-4 part 2 is a B-VOP."""
    if not len(starts):
        return True
    head = config + data[starts[0]:min(stops[0], starts[0] + 4096)]
    if PACKED.search(head):
        return True
    frames = zip(starts.tolist(), stops.tolist())
    return any(vop_type(data, begin, stop) == B_VOP for begin, stop in frames)


def vop_type(data: mmap.mmap, begin: int, stop: int) -> int:
    """The type of a frame of MPEG-4 part 2: 0 I, 1 P, 2 B, 3 sprite; -1 for none.

    vop_coding_type: the first two bits behind the start code (14496-2, 6.2.5).
    """
    if data[begin:begin + 4] != VOP:
        begin = data.find(VOP, begin, stop)
    if begin < 0 or begin + 4 >= len(data):
        return -1
    return data[begin + 4] >> 6


def low_delay(config: bytes) -> bool:
    """Whether a header of MPEG-4 part 2 says that no frame waits for another (14496-2, 6.2.3)."""
    found = re.search(rb"\0\0\x01[\x20-\x2f]", config)
    if not found:
        return False
    # video_object_layer(): random access, type, identifier, aspect ratio, control parameters.
    bits = Bits(config[found.end():found.end() + 32])
    bits.read(1)
    simple = bits.read(8) in (1, 17)             # Simple or Advanced Simple
    if bits.read(1):
        bits.read(7)
    if bits.read(4) == 15:                       # a shape of the pixels of its own
        bits.read(16)
    if not bits.read(1):                         # nothing said: as FFmpeg then assumes
        return simple
    bits.read(2)
    return bool(bits.read(1))


class Bits:
    """Reads a header bit by bit."""

    def __init__(self, content: bytes) -> None:
        self.number = int.from_bytes(content, "big")
        self.left = 8 * len(content)

    def read(self, count: int) -> int:
        """The next bits as a number. Raises ValueError at the end."""
        self.left -= count
        if self.left < 0:
            raise ValueError("a header that ends too soon")
        return self.number >> self.left & ((1 << count) - 1)

    def golomb(self) -> int:
        """A number in Exp-Golomb code: as many zeros as it has bits after its first."""
        zeros = 0
        while not self.read(1):
            zeros += 1
        return (1 << zeros) - 1 + self.read(zeros)


def unescaped(unit: bytes) -> bytes:
    """A unit of H.264 or HEVC without the bytes 3 that keep start codes out of it (7.3.1)."""
    return unit.replace(b"\0\0\x03", b"\0\0")


def length_size(config: bytes) -> int:
    """Bytes of the length before each unit, from an avcC box (ISO 14496-15).

    It begins: version, profile, its constraints, level, this length less 1 (the last 2 bits of a
    byte), number of parameter sets (the last 5), then each with its length in 2 bytes. Raises
    IndexError where there is no such box.
    """
    return (config[4] & 3) + 1


def avcc_sps(config: bytes) -> bytes:
    """The first parameter set of an avcC box; b"" for none."""
    if len(config) < 8 or not config[5] & 31:
        return b""
    return config[8:8 + int.from_bytes(config[6:8], "big")]


def annex_b_sps(content: bytes) -> bytes:
    """The first parameter set behind a start code; b"" for none."""
    # Unit 7, with any of the four values of nal_ref_idc. What is returned may run on into the next
    # unit: a set is read from its beginning, and only as far as needed.
    found = re.search(rb"\0\0\x01([\x07\x27\x47\x67].{8,200})", content, re.S)
    return found[1] if found else b""


def h264_reorders(sps: bytes) -> bool | None:
    """False if H.264's parameter set rules out B-frames shown early; None if it does not say.

    It does where frames are shown in the order of decoding (type 2 of 8.2.1), and in Baseline,
    which has no B slices.
    """
    if len(sps) < 5:
        return None
    # seq_parameter_set_data(), 7.3.2.1.1, up to pic_order_cnt_type.
    bits = Bits(unescaped(sps))
    bits.read(8)
    profile = bits.read(8)
    bits.read(16)
    bits.golomb()
    if profile == 66:
        return False
    if profile in (100, 110, 122, 244, 44, 83, 86, 118, 128):
        if bits.golomb() == 3:                   # colour not subsampled
            bits.read(1)
        bits.golomb()
        bits.golomb()
        bits.read(1)
        if bits.read(1):                         # scaling lists: slice types will tell
            return None
    bits.golomb()
    return False if bits.golomb() == 2 else None


def hevc_reorders(config: bytes) -> bool:
    """Whether HEVC's parameter set in an hvcC box lets frames be shown early (H.265, 7.3.2.2).

    hvcC (ISO 14496-15): 22 bytes, then the number of lists. A list: the type of its units (the last
    6 bits of a byte; 33 is this set), their number (2 bytes), each with its length (2 bytes).
    """
    if len(config) < 23:
        return True
    at = 23
    for _ in range(config[22]):
        kind = config[at] & 63
        length = int.from_bytes(config[at + 3:at + 5], "big")
        if kind == 33 and int.from_bytes(config[at + 1:at + 3], "big"):
            return sps_reorders(unescaped(config[at + 5:at + 5 + length]))
        for _ in range(int.from_bytes(config[at + 1:at + 3], "big")):
            at += 2 + int.from_bytes(config[at + 3:at + 5], "big")
            if at > len(config):
                raise ValueError("a header that ends too soon")
        at += 3
    return True


def sps_reorders(sps: bytes) -> bool:
    """Whether sps_max_num_reorder_pics is above 0 in one of the layers.

    Of each layer it stands between the size of the buffer and the latency; a flag in front of them
    says whether all layers have these three or only the highest. `layers` is their number less 1.
    """
    # seq_parameter_set_rbsp(): header and identifier, layers, profile and level of each layer,
    # chroma, size, cropping, depths, and at last what is asked for.
    bits = Bits(sps)
    bits.read(16 + 4)
    layers = bits.read(3)
    bits.read(1 + 96)
    flags = [bits.read(2) for _ in range(layers)]
    if layers:
        bits.read(2 * (8 - layers))
    for flag in flags:
        bits.read(88 * (flag >> 1) + 8 * (flag & 1))
    bits.golomb()
    if bits.golomb() == 3:
        bits.read(1)
    bits.golomb()
    bits.golomb()
    if bits.read(1):                             # cropping
        for _ in range(4):
            bits.golomb()
    for _ in range(3):
        bits.golomb()
    count = 1 + layers if bits.read(1) else 1
    most = 0
    for _ in range(count):
        bits.golomb()
        most = max(most, bits.golomb())
        bits.golomb()
    return most > 0


READERS = {"mp4": examine_mp4, "mkv": examine_mkv, "avi": examine_avi}
