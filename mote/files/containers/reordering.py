"""
Whether frames are shown in the order in which they are stored: what codecs say of B-frames.

First by the codec's name, then by the headers of MPEG-4 part 2, H.264 and HEVC, at last by the
types of the frames. No frame is decoded.

Part of containers/. Needs numpy. Not part of the paper.
"""
import mmap
import re
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
    dvc dvcp dvpp dv5n dv5p dvsd dv25 dv50 dvhp dvhq dvh5 dvh6
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
PACKED = re.compile(rb"DivX\d+(?:b|Build)\d+p")                  # two frames in one chunk

LOST = "the times of its frames were lost, as in a stream copy from .avi"
# Where decoding begins with frames that cannot be decoded, only decoding tells how many those are.
PARTIAL = "its keyframes are no whole pictures"
NO_KEYFRAME = "its first frame is no keyframe"
NOT_CODED = "it has frames that are not coded"
CUT_AV1 = "it was cut in front of a keyframe"    # its decoder gives out what an edit list hides
OPEN = "its first frames need others, which were cut off"
VOP, B_VOP = b"\0\0\x01\xb6", 2


class Frames(NamedTuple):
    """A track's frames in the order in which they are stored: arrays of one length."""
    times: np.ndarray                            # when each is shown, in ticks
    starts: np.ndarray                           # its place in the file, in bytes
    stops: np.ndarray
    keys: np.ndarray                             # bool: whether it is marked as a keyframe


def why_in_order(data: mmap.mmap, codec: str, config: bytes, frames: Frames,
                 shown_from: float = -np.inf) -> str:
    """Why a track whose frames have times must be read in order, or "".

    shown_from: the time at which the part begins that an edit list shows. Raises ValueError for
    frames outside the file.
    """
    times, starts, stops, keys = frames
    marked = np.flatnonzero(keys)
    if not keys[:1].all():
        return NO_KEYFRAME
    if ((times < times[:1]) & (times >= shown_from)).any():      # B-frames of an open GOP
        return OPEN
    if len(np.unique(times)) < len(times):
        return "two of its frames have one time"
    if (np.maximum.accumulate(times)[marked] > times[marked]).any():
        return "its times run back, as where clips were joined"
    if len(keys) > 2 and keys.all() and codec not in EVERY_FRAME | H264:
        return "it does not say which of its frames are keyframes"
    if codec in IN_PLACE or not len(starts):
        return ""
    if starts.max() > len(data) or starts.min() < 0:
        raise ValueError("frames beyond the file's end")
    if codec in MPEG4:
        config += data[starts[0]:min(stops[0], starts[0] + 4096)]    # may hold the headers
        if has_empty(stops - starts):
            return NOT_CODED
    why = wrong_keyframes(data, codec, config, starts[marked], stops[marked])
    if not why:
        doubted = shown_as_stored(times, marked)
        why = lost_times(data, codec, config, starts[doubted], stops[doubted])
    return why


def wrong_keyframes(data: mmap.mmap, codec: str, config: bytes, starts: np.ndarray,
                    stops: np.ndarray) -> str:
    """Why decoding may not begin with any of the keyframes, or "". starts, stops: where those are.

    H.264's keyframes may be none, but points from which P frames make the picture whole, bit by bit
    (intra refresh). A writer may mark wrong frames. Of interlaced MPEG-4, FFmpeg leaves out
    B-frames that come behind a seek.
    """
    if codec in MPEG4:
        if mpeg4_header(config) == (False, True):
            return "it is interlaced MPEG-4 with B-frames"
        kinds = [vop_type(data, *place) for place in zip(starts.tolist(), stops.tolist())]
        return PARTIAL if max(kinds, default=0) > 0 else ""
    units, firsts = first_slices(data, codec, config, starts, stops)
    if codec in H264:
        return PARTIAL if is_slice(firsts, P_SLICES).any() else ""
    # Units 16 to 23 are the pictures with which decoding may begin (H.265, 7.4.2.2).
    return PARTIAL if ((units < 16) | (units > 23)).any() else ""


def shown_as_stored(times: np.ndarray, marked: np.ndarray) -> np.ndarray:
    """The frames, by number, whose times say that they are shown in the order they are stored in.

    From one keyframe to the next (marked: their numbers), since times may be lost in a part only,
    where a lost clip was joined to a good one. The step out of such a stretch says nothing, and one
    of two frames has no B-frame.
    """
    onwards = np.diff(times) > 0
    if onwards.all():
        return np.arange(len(times))
    ends = np.append(marked[1:], len(times))
    stretches = [np.arange(first, end) for first, end in zip(marked, ends)
                 if end - first > 2 and onwards[first:end - 1].all()]
    return np.concatenate([np.zeros(0, np.int64), *stretches])


def lost_times(data: mmap.mmap, codec: str, config: bytes, starts: np.ndarray, stops: np.ndarray
               ) -> str:
    """LOST if some of these frames are B-frames: by their times, all are shown as they are stored.

    The frames are asked too, whatever the header says: behind a clip without B-frames, another may
    have been joined. starts, stops: where they are. Only of a few codecs the frames tell.
    """
    if not len(starts):
        return ""
    if codec in MPEG4:
        places = zip(starts.tolist(), stops.tolist())
        lost = any(vop_type(data, *place) == B_VOP for place in places)
    elif codec in H264:
        lost = bool(is_slice(first_slices(data, codec, config, starts, stops)[1], B_SLICES).any())
    elif codec in HEVC:
        # Units that no other picture needs, and those shown before the keyframe in front of them.
        units, _ = first_slices(data, codec, config, starts, stops)
        lost = hevc_reorders(config) or bool(np.isin(units, (0, 6, 7, 8, 9)).any())
    else:
        lost = True
    return LOST if lost else ""


# A slice begins with two numbers: the first block, 0 written as 1, and its type. P is 0 or 5,
# written as 1 or 00110; B is 1 or 6, written as 010 or 00111 (H.264, 7.3.3 and 9.1).
# (mask, bits) of the first byte.
P_SLICES = ((0xC0, 0xC0), (0xFC, 0x98))
B_SLICES = ((0xF0, 0xA0), (0xFC, 0x9C))


def is_slice(firsts: np.ndarray, kinds: tuple[tuple[int, int], ...]) -> np.ndarray:
    """Of the first bytes of slices of H.264: whether each is of these kinds."""
    return np.logical_or.reduce([firsts & mask == bits for mask, bits in kinds])


def first_slices(data: mmap.mmap, codec: str, config: bytes, starts: np.ndarray, stops: np.ndarray
                 ) -> tuple[np.ndarray, np.ndarray]:
    """Of each frame of H.264 or HEVC, its first slice: the kind of its unit, its first byte.

    A unit: its length, a header of 1 or 2 bytes with its kind, its content. H.264's slices are
    units 1 and 5; unit 2, the first part of a slice in three parts, begins alike. HEVC's are those
    below 32. In front there may be a delimiter, parameter sets and messages. Frames that the end of
    the file cuts off are left out; empty for another codec. Raises ValueError for no slice.
    """
    hevc = codec in HEVC
    if not hevc and codec not in H264:
        return np.zeros(0, np.uint8), np.zeros(0, np.uint8)
    size = length_size(config, hevc)
    content = np.frombuffer(data, np.uint8)
    units = [np.zeros(0, np.uint8)]
    firsts = [np.zeros(0, np.uint8)]
    try:
        at = starts
        end = np.minimum(stops, len(content))
        # All frames at once: of each, one unit further in each round, until a slice comes.
        for _ in range(32):
            if not len(at):
                break
            inside = at + size + 2 < end
            at, end = at[inside], end[inside]
            unit = content[at + size] >> 1 & 63 if hevc else content[at + size] & 31
            found = unit < 32 if hevc else np.isin(unit, (1, 2, 5))
            units.append(unit[found])
            firsts.append(content[at[found] + size + 1 + hevc])
            at, end = at[~found], end[~found]
            lengths = np.zeros(len(at), np.int64)
            for i in range(size):
                lengths = lengths * 256 + content[at + i]
            at = at + size + lengths
        if len(at):
            raise ValueError("a frame without a picture")
        return np.concatenate(units), np.concatenate(firsts)
    finally:
        del content                              # or the mapping could not be closed


def has_empty(sizes: np.ndarray) -> bool:
    """Whether one of the frames of MPEG-4 part 2 says in a few bytes that it is the one before.

    FFmpeg does not count those.
    """
    return bool(((sizes > 0) & (sizes < 20)).any())


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
    """Whether a header of MPEG-4 part 2 says that no frame waits for another."""
    return mpeg4_header(config)[0]


def mpeg4_header(config: bytes) -> tuple[bool, bool]:
    """Whether no frame waits for another, and whether it is interlaced (14496-2, 6.2.3)."""
    found = re.search(rb"\0\0\x01[\x20-\x2f]", config)
    if not found:
        return False, False
    # video_object_layer(): random access, type, identifier, aspect ratio, control parameters.
    bits = Bits(config[found.end():found.end() + 64])
    bits.read(1)
    waits_for_none = bits.read(8) in (1, 17)     # Simple or Advanced Simple: as FFmpeg then assumes
    if bits.read(1):
        bits.read(7)
    if bits.read(4) == 15:                       # a shape of the pixels of its own
        bits.read(16)
    if bits.read(1):
        bits.read(2)
        waits_for_none = bool(bits.read(1))
        if bits.read(1):                         # sizes of a buffer
            bits.read(79)
    if bits.read(2):                             # no rectangle: not decoded by FFmpeg
        return waits_for_none, False
    bits.read(1)
    ticks = bits.read(16)                        # in a second
    bits.read(1)
    if bits.read(1):                             # a fixed rate
        bits.read(max(1, (ticks - 1).bit_length()))
    bits.read(1 + 13 + 1 + 13 + 1)               # width and height
    return waits_for_none, bool(bits.read(1))


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


def length_size(config: bytes, hevc: bool) -> int:
    """Bytes of the length before each unit, from an avcC or hvcC box (ISO 14496-15).

    The last 2 bits of byte 4 of avcC, 21 of hvcC, hold this length less 1. Raises IndexError where
    there is no such box.
    """
    return (config[21 if hevc else 4] & 3) + 1


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
