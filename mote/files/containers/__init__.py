"""
What a video file is, by its bytes: its container, and whether torchcodec may seek in it.

    look = examine(path)
    look.container     "mp4", "mkv", "avi", "mpegts", ...; "unknown" for bytes that say nothing
    look.in_order      why the file must be decoded from its first frame on; "" if seeking is right
    look.front         how many frames at its beginning must be, wherever seeking is right
    look.mirrored      the streams, counted from 0, that a player shows mirrored
    look.instead       what it holds, if that is known to be no video: "sound"

torchcodec seeks by presentation times: the time at which a frame is shown. Frames are stored in the
order in which they are decoded, and B-frames are shown before a frame that is stored before them.
So where B-frames have no times of their own, seeking finds other frames than those asked for. This
package says for which files seeking is right: mp4 and mkv with times, and whatever has no B-frames.

    mp4.py, mkv.py, avi.py     what the headers of a container say of its times
    boxes.py, fragments.py     parts of mp4.py
    reordering.py              what codecs say of B-frames
    look.py                    the answer

The file's ending is never looked at. No byte of a picture is decoded. Measured cost: docs/data.md.
Copy the folder alone: it needs numpy only. Not part of the paper.
"""
import mmap
import re
import struct
from pathlib import Path

from .avi import examine_avi
from .look import DAMAGED, Look
from .mkv import element, examine_mkv
from .mp4 import examine_mp4
from .reordering import CUT_AV1, NO_KEYFRAME, NOT_CODED, OPEN, PARTIAL

__all__ = ["UNCOUNTED", "Look", "claimed_size", "container", "examine"]

# Reasons that mean: other frames may decode than torchcodec counts.
UNCOUNTED = (PARTIAL, NO_KEYFRAME, OPEN, NOT_CODED, CUT_AV1)

READERS = {"mp4": examine_mp4, "mkv": examine_mkv, "avi": examine_avi}


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


# --- which container ------------------------------------------------------------------------------
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
