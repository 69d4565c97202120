"""
Videos as people have them, written by ffmpeg: containers, codecs and what is odd about them.

    python tests/support/footage.py        writes them all, reads them, and prints the table of docs/data.md

The right frames of a file are those that ffmpeg gives when it decodes the whole file in order. Each frame of the
pattern differs from all others, so the nearest one says which frame came.
"""
import functools
import shutil
import struct
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mote.data import Undecodable, decode
from mote.files.containers import examine

PATTERN = "testsrc2=size=96x64:rate=25:duration=2"               # 50 frames
X264 = "-c:v libx264 -pix_fmt yuv420p -crf 12 -g 20"
B_FRAMES = f"{X264} -bf 3"
NO_B_FRAMES = f"{X264} -bf 0"
OPEN_GOP = f"{X264} -bf 3 -x264-params open-gop=1:scenecut=0"
X265 = "-c:v libx265 -crf 14 -g 20 -x265-params log-level=none:pools=none"
VP9 = "-c:v libvpx-vp9 -crf 20 -b:v 0 -cpu-used 5 -g 20 -lag-in-frames 10 -auto-alt-ref 1"
AV1 = "-c:v libaom-av1 -cpu-used 8 -crf 20 -g 20"
MPEG4 = "-c:v mpeg4 -q:v 2 -g 20"
MPEG2 = "-c:v mpeg2video -q:v 2 -bf 2"
REFRESH = "-c:v libx264 -pix_fmt yuv420p -crf 12 -g 15 -x264-params intra-refresh=1"
MJPEG = "-c:v mjpeg -q:v 2 -pix_fmt yuvj420p"
UNEVEN = "-vf settb=1/1000,setpts=N*N+N*7 -fps_mode passthrough -enc_time_base 1:1000"
TURNS = {"": (1, 0, 0, 1), "mirrored": (-1, 0, 0, 1), "upside down, mirrored": (1, 0, 0, -1),
         "turned by 180": (-1, 0, 0, -1), "turned by 90": (0, 1, -1, 0), "turned by 270": (0, -1, 1, 0),
         "transposed": (0, 1, 1, 0), "transposed, turned by 180": (0, -1, -1, 0)}


class Footage(NamedTuple):
    """How ffmpeg writes a file: from the pattern, or without re-encoding from another of these."""
    name: str
    codec: str
    trouble: str
    options: str
    source: str = ""                             # the name of the file that it is a copy of
    turn: str = ""                               # one of TURNS: its display matrix
    keep: float = 1                              # the share of its bytes that is kept


def turned(turn: str) -> Footage:
    return Footage(f"{turn.replace(' ', '_').replace(',', '')}.mp4", "H.264", turn, B_FRAMES, turn=turn)


FOOTAGE = [
    Footage("b_frames.mp4", "H.264", "B-frames", B_FRAMES),
    Footage("no_b_frames.mp4", "H.264", "no B-frames, so no times of their own", NO_B_FRAMES),
    Footage("open_gop.mp4", "H.264", "open GOPs", OPEN_GOP),
    Footage("open_gop_at_the_end.mp4", "H.264", "open GOPs, one of them at the end", f"{OPEN_GOP} -g 12"),
    Footage("cut.mp4", "H.264", "cut without decoding: an edit list", "-ss 0.5", "b_frames.mp4"),
    Footage("cut_open_gop.mp4", "H.264", "the same, open GOPs", "-ss 0.7", "open_gop.mp4"),
    Footage("fragments.mp4", "H.264", "in fragments", "-movflags frag_keyframe+empty_moov", "b_frames.mp4"),
    Footage("cut_end_open_gop.mp4", "H.264", "the same, cut at its end too", "-ss 0.5 -t 1.09", "open_gop.mp4"),
    Footage("late.mp4", "H.264", "a first frame that is no keyframe", "-copyinkf -ss 0.5", "b_frames.mp4"),
    Footage("late.mkv", "H.264", "a first frame that is no keyframe", "-copyinkf -ss 0.5", "b_frames.mp4"),
    Footage("refresh.mp4", "H.264", "intra refresh, B-frames", f"{REFRESH} -bf 3"),
    Footage("refresh.mkv", "H.264", "intra refresh, no B-frames", f"{REFRESH} -bf 0"),
    Footage("every.mp4", "H.264", "a fragment for each frame", "-movflags frag_every_frame+empty_moov", "b_frames.mp4"),
    Footage("cut_fragments.mp4", "H.264", "open GOPs, cut without decoding, fragments",
            "-ss 0.9 -movflags frag_keyframe+empty_moov", "open_gop.mp4"),
    Footage("below.mkv", "H.264", "times below 0", "-output_ts_offset -0.04 -avoid_negative_ts disabled",
            "b_frames.mp4"),
    Footage("uneven.mp4", "H.264", "variable rate", f"{UNEVEN} {B_FRAMES}"),
    Footage("repeated_times.mp4", "H.264", "frames of one time",
            f"-vf settb=1/1000,setpts=N*N+N*7 -fps_mode passthrough {B_FRAMES}"),
    Footage("ten_bits.mp4", "H.264", "10 bit", "-c:v libx264 -pix_fmt yuv420p10le -crf 12"),
    Footage("full_range.mp4", "H.264", "full range", "-c:v libx264 -pix_fmt yuvj420p -crf 12"),
    Footage("interlaced.mp4", "H.264", "interlaced", f"{B_FRAMES} -flags +ildct+ilme -x264-params tff=1"),
    *[turned(turn) for turn in TURNS if turn],
    Footage("negative.mov", "H.264", "times before decoding", "-movflags negative_cts_offsets", "b_frames.mp4"),
    Footage("b_frames.mkv", "H.264", "B-frames", B_FRAMES),
    Footage("open_gop.mkv", "H.264", "open GOPs", OPEN_GOP),
    Footage("uneven.mkv", "H.264", "variable rate", f"{UNEVEN} {B_FRAMES}"),
    Footage("repeated_times.mkv", "H.264", "frames of one time",
            f"-vf settb=1/1000,setpts=N*N+N*7 -fps_mode passthrough {B_FRAMES}"),
    Footage("hevc.mp4", "HEVC", "B-frames", X265),
    Footage("cut_hevc.mov", "HEVC", "cut without decoding: an edit list", "-ss 0.5", "hevc.mp4"),
    Footage("hevc.mkv", "HEVC", "10 bit", f"{X265} -pix_fmt yuv420p10le"),
    Footage("vp9.webm", "VP9", "hidden frames", VP9),
    Footage("vp9.mp4", "VP9", "", VP9),
    Footage("av1.mkv", "AV1", "", AV1),
    Footage("av1.mp4", "AV1", "", AV1),
    Footage("cut_av1.mp4", "AV1", "cut without decoding: an edit list", "-ss 0.5", "av1.mkv"),
    Footage("interlaced_mpeg4.mp4", "MPEG-4", "interlaced, B-frames", f"{MPEG4} -bf 2 -flags +ildct+ilme"),
    Footage("mpeg4.mp4", "MPEG-4", "B-frames", f"{MPEG4} -bf 2"),
    Footage("mpeg4.mkv", "MPEG-4", "no B-frames", MPEG4),
    Footage("cut_mpeg4.mp4", "MPEG-4", "cut without decoding: an edit list", "-ss 0.3", "mpeg4.mp4"),
    Footage("mjpeg.mov", "MJPEG", "", MJPEG),
    Footage("mpeg4_b_frames.avi", "MPEG-4", "B-frames", f"{MPEG4} -bf 2"),
    Footage("mpeg4.avi", "MPEG-4", "no B-frames", MPEG4),
    Footage("packed.avi", "MPEG-4", "B-frames, by XviD", "-c:v libxvid -q:v 2 -bf 2"),
    Footage("mjpeg.avi", "MJPEG", "", MJPEG),
    Footage("wmv2.avi", "WMV 8", "", "-c:v wmv2 -q:v 2 -g 20"),
    Footage("cut_off.avi", "WMV 8", "cut off, so without an index", "-c:v wmv2 -q:v 2 -g 20", keep=0.9),
    Footage("palette.avi", "raw", "colours in a palette", "-c:v rawvideo -pix_fmt pal8"),
    Footage("gaps.avi", "MPEG-4", "variable rate", f"-vf setpts=(N+5*floor(N/10))/25/TB -fps_mode vfr {MPEG4}"),
    Footage("h264.avi", "H.264", "B-frames", B_FRAMES),
    Footage("h264_no_b_frames.avi", "H.264", "no B-frames", NO_B_FRAMES),
    Footage("mpeg2.avi", "MPEG-2", "B-frames", MPEG2),
    Footage("lost.mp4", "MPEG-4", "times lost in a copy from .avi", "", "mpeg4_b_frames.avi"),
    Footage("lost_xvid.mov", "MPEG-4", "times lost in a copy from .avi", "", "packed.avi"),
    Footage("lost_h264.mp4", "H.264", "times lost in a copy from .avi", "", "h264.avi"),
    Footage("lost_h264.3gp", "H.264", "times lost in a copy from .avi", "", "h264.avi"),
    Footage("lost_fragments.mp4", "H.264", "times lost, fragments", "-movflags frag_keyframe+empty_moov", "h264.avi"),
    Footage("lost_hevc.mp4", "HEVC", "times lost", "-bsf:v setts=pts=DTS", "hevc.mkv"),
    Footage("lost_h264.mkv", "H.264", "times lost", "-bsf:v setts=pts=DTS", "b_frames.mkv"),
    Footage("lost_hevc.mkv", "HEVC", "times lost", "-bsf:v setts=pts=DTS", "hevc.mkv"),
    Footage("lost_mpeg2.mov", "MPEG-2", "times lost in a copy from .avi", "", "mpeg2.avi"),
    Footage("h264.ts", "H.264", "B-frames", B_FRAMES),
    Footage("interlaced.mts", "H.264", "interlaced", f"{B_FRAMES} -flags +ildct+ilme -x264-params tff=1 -f mpegts"),
    Footage("h264.m2ts", "H.264", "open GOPs, packets of 192 bytes", f"{OPEN_GOP} -f mpegts -mpegts_m2ts_mode 1"),
    Footage("hevc.ts", "HEVC", "B-frames", X265),
    Footage("mpeg1.mpg", "MPEG-1", "B-frames", "-c:v mpeg1video -q:v 2 -bf 2"),
    Footage("mpeg2.mpeg", "MPEG-2", "interlaced", f"{MPEG2} -flags +ildct+ilme"),
    Footage("mpeg2.vob", "MPEG-2", "B-frames", MPEG2),
    Footage("h264.mpg", "H.264", "B-frames", B_FRAMES),
    Footage("raw.h264", "H.264", "B-frames", B_FRAMES),
    Footage("raw.m2v", "MPEG-2", "B-frames", MPEG2),
    Footage("h264.flv", "H.264", "open GOPs", OPEN_GOP),
    Footage("h264.asf", "H.264", "B-frames", B_FRAMES),
    Footage("wmv2.wmv", "WMV 8", "", "-c:v wmv2 -q:v 2"),
    Footage("theora.ogv", "Theora", "", "-c:v libtheora -q:v 9"),
    Footage("animated.gif", "GIF", "", ""),
]
BY_NAME = {footage.name: footage for footage in FOOTAGE}


# --- writing and reading ----------------------------------------------------------------------------------------------
def write(name: str, folder: Path) -> Path:
    """The file of this name, written once. Raises subprocess.CalledProcessError where ffmpeg cannot."""
    path = folder / name
    if path.exists():
        return path
    footage = BY_NAME[name]
    command = ["ffmpeg", "-v", "error", "-y"]
    if footage.source:
        options = footage.options.split()
        before = options[:2] if options[:1] == ["-ss"] else []
        after = options[len(before):]
        command += [*before, "-i", str(write(footage.source, folder)), "-c", "copy", *after]
    else:
        command += ["-f", "lavfi", "-i", PATTERN, "-threads", "1", *footage.options.split()]
    subprocess.run([*command, str(path)], check=True, capture_output=True)
    if footage.keep < 1:
        content = path.read_bytes()
        path.write_bytes(content[:int(footage.keep * len(content))])
    if footage.turn:
        set_matrix(path, TURNS[footage.turn])
    return path


def set_matrix(path: Path, numbers: tuple[int, int, int, int]) -> None:
    """Write a display matrix into the first track header of an .mp4."""
    content = path.read_bytes()
    at = content.index(b"tkhd") + 44
    a, b, c, d = [number << 16 for number in numbers]
    path.write_bytes(content[:at] + struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30) + content[at + 36:])


@functools.lru_cache(maxsize=128)
def right_frames(path: Path) -> Tensor:
    """All frames as ffmpeg decodes them in order, upright: uint8 (n, 3, h, w)."""
    command = ["ffmpeg", "-v", "error", "-i", f"file:{path}", "-map", "0:V:0", "-vsync", "passthrough"]
    header = subprocess.run([*command, "-frames:v", "1", "-f", "yuv4mpegpipe", "-pix_fmt", "yuv444p", "-"], check=True,
                            capture_output=True).stdout.split(b" ", 3)
    w, h = int(header[1][1:]), int(header[2][1:])
    raw = subprocess.run([*command, "-f", "rawvideo", "-pix_fmt", "rgb24", "-"], check=True, capture_output=True).stdout
    return torch.from_numpy(np.frombuffer(raw, np.uint8).copy()).view(-1, h, w, 3).permute(0, 3, 1, 2)


def strayed(path: Path, indices: list[int]) -> list[tuple[int, int]]:
    """(asked for, nearest) of the frames that are nearer to another one than to that asked for. Raises Undecodable."""
    frames = decode(path, lambda n: np.array(indices))
    right = right_frames(path)
    assert frames.shape[1:] == right.shape[1:], f"frames of {frames.shape}, not {right.shape}"
    distances = torch.cdist(frames.flatten(1).float(), right.flatten(1).float())
    pairs = []
    for asked, row in zip(indices, distances, strict=True):
        if row[asked] > row.min():               # two frames of the pattern may be encoded alike
            pairs.append((asked, int(row.argmin())))
    return pairs


def wrong(path: Path, indices: list[int]) -> list[tuple[int, int]]:
    """The same without what is allowed: of the last two frames, the one before."""
    last = len(right_frames(path)) - 1
    return [(asked, given) for asked, given in strayed(path, indices)
            if not (asked >= last - 1 and asked - 2 <= given < asked)]


# --- the table --------------------------------------------------------------------------------------------------------
def row(name: str, folder: Path) -> str:
    """The line of docs/data.md on one file."""
    footage = BY_NAME[name]
    path = write(name, folder)
    look = examine(path)
    n = len(right_frames(path))
    how = "sought"
    if look.in_order:
        how = "in order"
    elif look.front:
        how = "sought; in order before the first keyframe"
    try:
        each = [pair for i in range(n) for pair in strayed(path, [i])]
        allowed = [pair for i in range(n - 2, n) for pair in strayed(path, [i])]
        result = "right"
        if each:
            result = "right; the last may be the one before" if each == allowed else f"{len(each)} of {n} wrong"
    except Undecodable:
        result = "refused"
    return f"| {Path(name).suffix} | {footage.codec} | {footage.trouble} | {how} | {result} |"


def table(folder: Path) -> list[str]:
    """The lines of the table, header included."""
    rows = [row(footage.name, folder) for footage in FOOTAGE]
    return ["| file | codec | tried with | read | frames |", "|---|---|---|---|---|", *rows]


def main(argv: list[str] | None = None) -> str:
    """Print the table. -> it"""
    if not shutil.which("ffmpeg"):
        raise SystemExit("footage.py: needs the ffmpeg program")
    with tempfile.TemporaryDirectory() as place:
        text = "\n".join(table(Path(place)))
    print(text)
    return text


if __name__ == "__main__":
    main(sys.argv[1:])
