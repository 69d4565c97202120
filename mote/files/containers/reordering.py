"""
Whether frames are shown in the order in which they are stored: what codecs say of B-frames.

First by the codec's name, then by the headers of MPEG-4 part 2, H.264 and HEVC, at last by the
types of the frames. No frame is decoded.

Part of containers/. Needs numpy. Not part of the paper.
"""
import mmap
import re

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

    samples: where its frames begin and end; None if that is not known. H.264's slices are asked,
    whatever its header says: a clip with another header may have been joined to the first.
    """
    if not may_reorder(codec, config) and (samples is None or codec not in H264):
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


def partial_keyframes(data: mmap.mmap, codec: str, config: bytes,
                      samples: tuple[np.ndarray, np.ndarray], keys: np.ndarray) -> str:
    """Why a track must be read in order though it has times or needs none, or "".

    H.264's keyframes may be none, but points from which P frames make the picture whole, bit by bit
    (intra refresh). Of interlaced MPEG-4, FFmpeg leaves out B-frames that come behind a seek.
    samples: where its frames begin and end. keys: which of them are keyframes.
    """
    starts, stops = samples
    if codec in MPEG4 and mpeg4_header(config) == (False, True):
        return "it is interlaced MPEG-4 with B-frames"
    keys = keys[(keys >= 0) & (keys < len(starts))]
    if codec not in H264 or not len(keys):
        return ""
    if starts.max() > len(data) or starts.min() < 0:
        raise ValueError("frames beyond the file's end")
    partial = has_slices(data, starts[keys], stops[keys], length_size(config), P_SLICES)
    return PARTIAL if partial else ""


def between_keyframes(data: mmap.mmap, codec: str, config: bytes,
                      samples: tuple[np.ndarray, np.ndarray], keys: np.ndarray,
                      onwards: np.ndarray) -> str:
    """Why a track with times of its own must be read in order nevertheless, or "".

    Times may be lost in a part: a lost clip was joined to a good one. samples: where its frames
    begin and end. keys: which of them are keyframes, sorted. onwards: of each frame, whether the
    next one that is stored is the next one shown.
    """
    starts, stops = samples
    count = min(len(starts), len(onwards))
    keys = keys[(keys >= 0) & (keys < count)]
    if not len(keys):
        return ""

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
