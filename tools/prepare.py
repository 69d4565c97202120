"""
Re-encode a dataset, once, so that training decodes it several times as fast; and measure by how much.

    python tools/prepare.py SRC DST                         # every video below SRC -> the same path below DST, .mp4
    python tools/prepare.py SRC DST --jobs 16 --clips-per-second 300
    python train.py --data-root DST

Training takes 8 frames from all over a video, and for each the decoder works through all since the keyframe before. So:
a keyframe every 12 frames, H.264 that is cheap to decode (-tune fastdecode), short side 256 (never enlarged), upright,
no sound. Every frame that decodes is kept, in order. Lists (.txt, .csv, .json in SRC and its folders) are copied; mote
finds the videos they name by their stem. Folders of JPEGs are not copied: those are cheap to decode.
SRC is only read. A file appears in DST whole or not at all, and the same command goes on where a run was stopped. What
ffmpeg cannot do is in DST/failed.txt, and the exit status is 1. Needs the ffmpeg program, with libx264.
"""
import argparse
import contextlib
import errno
import fcntl
import itertools
import json
import math
import os
import random
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from multiprocessing.pool import ThreadPool
from pathlib import Path

import torch
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).parents[1]))
from mote.data import (  # noqa: E402
    TrainingClips,
    Undecodable,
    require_decoder,  # noqa: E402
)
from mote.datasets.folders import VIDEO_ENDINGS  # noqa: E402
from mote.runtime.errors import one_line_errors  # noqa: E402
from mote.runtime.options import plain_errors  # noqa: E402

FAILED, SETTINGS, TEMPORARY = "failed.txt", "prepare.json", ".prepare-"                # what we write beside the videos
FULL = (os.strerror(errno.ENOSPC), os.strerror(errno.EDQUOT))
T, SIZE = 8, 224                                                 # of the clips measured: the paper's
FLAGS = {"short-side": (256, 2, 8192, "pixels, even; smaller videos keep theirs"),     # default, least, most
         "gop": (12, 1, 1000, "most frames from keyframe to keyframe"),
         "crf": (23, 1, 51, "x264's quality, 1 the best"),
         "jobs": (os.cpu_count() or 1, 1, 1024, "files at once, each on one core"),
         "measure": (32, 0, 10**6, "files whose decoding is measured"),
         "clips-per-second": (144, 1, 10**6, "what training takes: batch x steps/s")}


def find(folder: Path, above: frozenset[str]) -> Iterator[Path]:
    """Video files below a folder, but hidden ones. Links are followed, except into one of the folders above."""
    real = os.path.realpath(folder)
    for name in sorted(os.listdir(folder)) if real not in above else ():
        if os.path.isdir(folder / name) and name[0] != ".":
            yield from find(folder / name, above | {real})
        elif name.lower().endswith(VIDEO_ENDINGS) and name[0] != ".":
            yield folder / name


def plan(src: Path, dst: Path) -> tuple[dict[Path, Path], dict[Path, Path]]:
    """Target -> source, of videos and of lists. Raises ValueError for two sources of one target."""
    videos: dict[Path, Path] = {}
    for video in find(src, frozenset({os.path.realpath(dst)})):
        target = dst / video.relative_to(src).with_suffix(".mp4")
        if target in videos:
            raise ValueError(f"{videos[target]} and {video} would both become {target}: rename one")
        videos[target] = video
    if not videos:
        raise ValueError(f"{src}: no videos below it (endings: {' '.join(VIDEO_ENDINGS)})")
    return videos, {dst / file.relative_to(src): file for file in (*src.glob("*.*"), *src.glob("*/*.*"))
                    if file.suffix.lower() in (".txt", ".csv", ".json") and file.is_file()
                    and not re.search(r"(^|/)\.", str(file.relative_to(src)))
                    and file.name not in (FAILED, SETTINGS)}     # SRC may be the DST of another run


def open_folder(dst: Path, parents: set[Path], settings: str):
    """Make DST and the folders in it; remove what a killed run left. -> DST/prepare.json, a lock while it is open."""
    for parent in parents:
        if os.path.realpath(parent) != os.path.normpath(os.path.join(os.path.realpath(dst), parent.relative_to(dst))):
            raise ValueError(f"{parent} is a link or below one: what it leads to might be written over")
    dst.mkdir(parents=True, exist_ok=True)
    file = open(dst / SETTINGS, "a+", encoding="utf-8")
    if (before := (dst / SETTINGS).read_text(encoding="utf-8")) not in ("", settings):
        raise ValueError(f"{dst} was prepared with {before[:200]}, not {settings}: choose another folder")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise BlockingIOError(f"{dst}: another run is preparing it") from None
    print("" if before else settings, end="", file=file, flush=True)
    for parent in parents:
        parent.mkdir(parents=True, exist_ok=True)
        for left in parent.glob(f"{TEMPORARY}*"):
            left.unlink()
    return file


def find_ffmpeg() -> list[str]:
    """Options that keep every frame, as this version spells them. Raises OSError: no ffmpeg, or one without x264."""
    if not (program := shutil.which("ffmpeg")):
        raise OSError("there is no ffmpeg program on the PATH: apt-get install ffmpeg, or brew install ffmpeg")
    encoders, options = (subprocess.run(["ffmpeg", *what], stdin=subprocess.DEVNULL, capture_output=True).stdout
                         for what in (["-encoders"], ["-h", "long"]))
    if b" libx264 " not in encoders:
        raise OSError(f"{program} was built without libx264: install another, such as the system's")
    mode = "-fps_mode" if b"-fps_mode" in options else "-vsync"                                # renamed in FFmpeg 5.1
    return ["-enc_time_base", "1:90000", mode, "passthrough"]


def ffmpeg(*arguments: str) -> tuple[int, list[str]]:
    """Run it, without a shell. -> number of frames it decoded, its errors. Raises OSError with its last one."""
    done = subprocess.run(["ffmpeg", "-nostdin", "-hide_banner", "-nostats", "-v", "level+verbose", *arguments],
                          stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    said = done.stderr.decode(errors="replace")
    errors = re.findall(r"^(?:\[\S+ @ \S+\] )*\[(?:error|fatal|panic)\] (?!Conversion failed)(.*)", said, re.M)
    full = [error for error in errors if any(reason in error for reason in FULL)]
    if full or done.returncode:
        raise OSError((full or errors or [f"ffmpeg ended with status {done.returncode}"])[-1])
    return int((re.findall(r"(\d+) frames decoded", said) or [0])[0]), errors


@contextlib.contextmanager
def whole(target: Path) -> Iterator[Path]:
    """A temporary file beside the target, which becomes the target if no exception comes."""
    temporary = target.with_name(f"{TEMPORARY}{os.getpid()}-{threading.get_ident()}.mp4")
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())                              # or a power cut could leave the name without the bytes
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def encode(src: Path, dst: Path, options: argparse.Namespace, keep_all: list[str]) -> tuple[str, str]:
    """One video -> why it failed or "", what ffmpeg complained of or "". Raises OSError where the disk is full."""
    w, h = (f"2*min(trunc({side}/2)\\,round({side}*{options.short_side}/min(iw\\,ih)/2))" for side in ("iw", "ih"))
    # Timestamps that repeat, run back, or that a coarse clock makes equal, would cost frames: let them increase.
    filters = f"scale={w}:{h},settb=1/90000,setpts=if(N\\,max(PTS-STARTPTS\\,PREV_OUTPTS+1)\\,0)"
    try:
        with whole(dst) as temporary:
            frames, complaints = ffmpeg(
                "-y", "-protocol_whitelist", "file", "-threads", "1", "-i", f"file:{src}", "-filter_threads", "1",
                "-map", "0:V:0", "-map_metadata", "-1", "-map_chapters", "-1", "-vf", filters, *keep_all,
                "-pix_fmt", "yuv420p", "-c:v", "libx264", "-threads", "1", "-g", str(options.gop),
                "-crf", str(options.crf), "-tune", "fastdecode", "-f", "mp4", f"file:{temporary}")
            written, wrong = ffmpeg("-threads", "1", "-i", f"file:{temporary}", *keep_all, "-f", "null", "-")
            if wrong or written != frames or not frames:         # not the number in the header, which may lie
                raise OSError(f"{frames} frames decoded, {written} written {''.join(wrong[-1:])}")
        return "", f"{frames} frames, {complaints[-1]}" if complaints else ""
    except OSError as error:
        if any(reason in str(error) for reason in FULL):
            raise OSError(f"{dst}: {error}") from None
        return " ".join(str(error).split()), ""


def measure(pairs: list[tuple[Path, Path]]) -> tuple[int, list[float]]:
    """(original, prepared) files -> how many decode, clips/s of each: what a worker of the loader does, on one core."""
    torch.set_num_threads(1)
    taken = []
    for pair in pairs:
        clips, seconds = [TrainingClips([(str(path), 0)], T, SIZE, seed=0) for path in pair], [0.0, 0.0]
        with contextlib.suppress(Undecodable):
            for epoch, i in itertools.product(range(3), (0, 1)):                 # in turns: what slows one slows both
                start = time.perf_counter()
                if clips[i][epoch, 0]["failed"]:
                    raise Undecodable(pair[i])
                seconds[i] += (time.perf_counter() - start) * (epoch > 0)        # at first they are read from the disk
            taken.append(seconds)
    return len(taken), [2 * len(taken) / sum(column) for column in zip(*taken)]


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = plain_errors(argparse.ArgumentParser(
        "prepare.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter))
    parser.add_argument("src", type=Path, metavar="SRC", help="the dataset's folder")
    parser.add_argument("dst", type=Path, metavar="DST", help="where the prepared one goes")
    for name, (default, _, _, help) in FLAGS.items():
        parser.add_argument(f"--{name}", type=int, default=default, metavar="N", help=f"{help} (default {default})")
    options = parser.parse_args(argv)
    for name, (_, least, most, _) in FLAGS.items():
        value, even = getattr(options, name.replace("-", "_")), name == "short-side"
        if not least <= value <= most or value % 2 and even:
            parser.error(f"--{name} must be {least} to {most}{', and even' * even}, got {value}")
    if not options.src.is_dir():
        parser.error(f"no folder at {options.src}")
    real = [os.path.realpath(options.src), os.path.realpath(options.dst)]
    if os.path.commonpath(real) in real:
        parser.error(f"SRC {options.src} and DST {options.dst} must not be the same folder or one inside the other")
    return options


def prepare(options: argparse.Namespace) -> dict:
    """Everything. -> how many were prepared, there, failed, measured; bytes and clips/s (before, after)."""
    src, dst, failed = options.src, options.dst, 0
    (videos, lists), keep_all = plan(src, dst), find_ffmpeg()
    if options.measure:
        require_decoder()                                        # now, not after days of work
    settings = json.dumps({name: getattr(options, name) for name in ("short_side", "gop", "crf")})
    with open_folder(dst, {dst, *(target.parent for target in (*videos, *lists))}, settings), \
            open(dst / FAILED, "w", buffering=1, encoding="utf-8", errors="surrogateescape") as failures, \
            ThreadPool(options.jobs) as pool:
        for target, file in lists.items():
            if not target.exists() or target.stat().st_mtime < file.stat().st_mtime:
                with whole(target) as temporary:
                    shutil.copy2(file, temporary)                # its time too
                if re.search(rb"^\s*/", file.read_bytes(), re.M):
                    print(f"warning: {target} holds absolute paths, which still lead to the originals", file=sys.stderr)
        todo = [target for target in videos if not target.exists()]
        try:
            results = pool.imap_unordered(lambda t: (videos[t], *encode(videos[t], t, options, keep_all)), todo)
            for video, why, complaint in tqdm(results, total=len(todo), unit="video", disable=None):
                name = str(video.relative_to(src)).replace("\n", "\\n")
                if why:
                    failed += 1
                    failures.write(f"{name}\t{why}\n")
                elif complaint:
                    tqdm.write(f"warning: {name}: ffmpeg complains, but keeps {complaint}", sys.stderr)
        except KeyboardInterrupt:
            raise SystemExit("tools/prepare.py: stopped; the same command goes on from here") from None
        finally:
            pool.terminate()
            pool.join()                                          # the files at work are finished, or cleared away
            if not failed:
                (dst / FAILED).unlink()
    pairs = [(video, target) for target, video in videos.items() if target.exists()]
    size = [sum(pair[i].stat().st_size for pair in pairs) for i in (0, 1)]
    done = {"prepared": len(todo) - failed, "already there": len(videos) - len(todo), "failed": failed}
    print(", ".join(f"{number} {what}" for what, number in done.items()), f"({dst / FAILED})" if failed else "")
    print(f"{len(pairs)} videos: {size[0] / 1e6:.1f} MB before, {size[1] / 1e6:.1f} MB after")
    number, rates = measure(random.Random(0).sample(pairs, min(options.measure, len(pairs))))
    if number:
        cores = [math.ceil(options.clips_per_second / rate) for rate in rates]
        print(f"decoding {T} frames, one core, {number} videos: {rates[0]:.1f} clips/s before, {rates[1]:.1f} after, "
              f"{rates[1] / rates[0]:.2f} times as fast\n"
              f"{options.clips_per_second} clips/s need {cores[0]} cores unprepared, {cores[1]} prepared")
    elif options.measure and pairs:
        print("decoding not measured: no video decodes both before and after")
    return {**done, "measured": number, "bytes": size, "clips_per_second": rates}


def main(argv: list[str] | None = None) -> dict:
    with one_line_errors("tools/prepare.py"):
        return prepare(parse(argv))


if __name__ == "__main__":
    sys.exit(1 if main(sys.argv[1:])["failed"] else 0)
