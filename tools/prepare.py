"""
Re-encode a dataset, once, so that training decodes it several times as fast; measure by how much.

    python tools/prepare.py SRC DST        # every video below SRC -> the same path below DST, .mp4
    python tools/prepare.py SRC DST --jobs 16 --clips-per-second 300
    python train.py --data-root DST

Training takes 8 frames from all over a video, and for each of them the decoder works through all
frames since the keyframe before it. So a prepared video has a keyframe every 12 frames, H.264 that
is cheap to decode (-tune fastdecode), a short side of 256 (never enlarged), upright pictures and no
sound. Every frame that decodes is kept, in order: each frame of a copy is compared with the frames
of its source around the same number. The picture keeps its shape, also for a tower that squashes
frames; a tower of more than 256 pixels a side wants a --short-side of that size.

Lists (.txt, .csv, .json in SRC and its folders) are copied; mote finds the videos that they name by
their stems. Folders of JPEGs are not copied: they are cheap to decode as they are.

SRC is only read. A file appears in DST whole or not at all, and after a run was stopped the same
command goes on. What ffmpeg cannot do is written to DST/failed.txt, and the exit status is 1. Needs
the ffmpeg program, with libx264.
"""
import argparse
import contextlib
import errno
import fcntl
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
from typing import NamedTuple, TextIO

import numpy as np
import torch
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).parents[1]))
from mote.data import TrainingClips, Undecodable, require_decoder  # noqa: E402
from mote.datasets.finding_lists import ENDINGS  # noqa: E402
from mote.datasets.folders import VIDEO_ENDINGS  # noqa: E402
from mote.files.containers import examine  # noqa: E402
from mote.runtime.errors import one_line_errors  # noqa: E402
from mote.runtime.options import plain_errors  # noqa: E402

# What we write beside the videos: two files, and temporary files whose names begin with the third.
FAILED = "failed.txt"
SETTINGS = "prepare.json"
TEMPORARY = ".prepare-"
LIST_ENDINGS = tuple(f".{ending}" for ending in ENDINGS)
# Videos that mote lists do not look for, but that ffmpeg decodes: a copy of them is found.
SOURCE_ENDINGS = (*VIDEO_ENDINGS, ".mts", ".m2ts", ".vob", ".ogv", ".asf", ".divx", ".m2v", ".f4v",
                  ".h264", ".hevc")

FULL = (os.strerror(errno.ENOSPC), os.strerror(errno.EDQUOT))    # what ffmpeg says of a full disk
T, SIZE = 8, 224                                 # of the clips measured: the paper's
SIGHT = 32                                       # pixels a side of the frames compared, in grey
NEIGHBOURS = 6                                   # frames before and after, compared with each
EPOCHS = 3                                       # measured; the first only fills the disk's cache


class Flag(NamedTuple):
    """A whole number that may be given on the command line."""
    default: int
    least: int
    most: int
    help: str


# Only the first three change the videos: they are what DST/prepare.json holds.
FLAGS = {
    "short-side": Flag(256, 2, 8192, "pixels, even; smaller videos keep theirs"),
    "gop": Flag(12, 1, 1000, "most frames from keyframe to keyframe"),
    "crf": Flag(23, 1, 51, "x264's quality, 1 the best"),
    "jobs": Flag(os.cpu_count() or 1, 1, 1024, "files at once, each on one core"),
    "measure": Flag(32, 0, 10**6, "files whose decoding is measured"),
    "clips-per-second": Flag(144, 1, 10**6, "what training takes: batch x steps/s"),
}


# --- what there is to do --------------------------------------------------------------------------
def plan(src: Path, dst: Path) -> tuple[dict[Path, Path], dict[Path, Path]]:
    """Target -> source, of videos and of lists.

    Raises ValueError where there is no video, and for two sources of one target.
    """
    videos: dict[Path, Path] = {}
    # DST is among the folders not to enter: a link in SRC may lead into it.
    for video in find_videos(src, frozenset({os.path.realpath(dst)})):
        target = dst / video.relative_to(src).with_suffix(".mp4")
        if target in videos:
            raise ValueError(f"{videos[target]} and {video} would both become {target}: rename one")
        videos[target] = video
    if not videos:
        raise ValueError(f"{src}: no videos below it "
                         f"(endings: {' '.join(SOURCE_ENDINGS)})")

    lists: dict[Path, Path] = {}
    for file in [*src.glob("*.*"), *src.glob("*/*.*")]:
        name = file.relative_to(src)
        hidden = any(part.startswith(".") for part in name.parts)
        ours = file.name in (FAILED, SETTINGS)                   # SRC may be the DST of another run
        if name.suffix.lower() in LIST_ENDINGS and file.is_file() and not hidden and not ours:
            lists[dst / name] = file
    return videos, lists


def find_videos(folder: Path, above: frozenset[str]) -> Iterator[Path]:
    """Video files below a folder, but hidden ones.

    Links are followed, except into one of the folders above (real paths): that would never end.
    Two links to one folder give its videos twice, as train and val may share one.
    """
    real = os.path.realpath(folder)
    if real in above:
        return
    for name in sorted(os.listdir(folder)):
        if name.startswith("."):
            continue
        if os.path.isdir(folder / name):
            yield from find_videos(folder / name, above | {real})
        elif name.lower().endswith(SOURCE_ENDINGS):
            yield folder / name


def open_folder(dst: Path, parents: set[Path], settings: str) -> TextIO:
    """Make DST and the folders in it, and remove what a killed run left.

    parents: the folders of all targets, DST among them. settings: those that change the videos; one
    folder has one kind. -> DST/prepare.json, which is a lock on the folder as long as it is open.
    Raises ValueError or OSError for a folder that must not be written to.
    """
    for parent in parents:
        expected = os.path.join(os.path.realpath(dst), parent.relative_to(dst))
        if os.path.realpath(parent) != os.path.normpath(expected):
            raise ValueError(f"{parent} is a link or below one: "
                             "what it leads to might be written over")

    dst.mkdir(parents=True, exist_ok=True)
    # Opened to append: opening must not empty what another run has written.
    file = open(dst / SETTINGS, "a+", encoding="utf-8")
    before = (dst / SETTINGS).read_text(encoding="utf-8")
    if before not in ("", settings):
        raise ValueError(f"{dst} was prepared with {before[:200]}, not {settings}: "
                         "choose another folder")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise BlockingIOError(f"{dst}: another run is preparing it") from None
    if not before:
        file.write(settings)
        file.flush()

    for parent in parents:
        parent.mkdir(parents=True, exist_ok=True)
        # Under the lock: no other run can be writing these.
        for left in parent.glob(f"{TEMPORARY}*"):
            left.unlink()
    return file


def open_failures(dst: Path) -> TextIO:
    """DST/failed.txt, empty. Each line is written at once; names may hold any bytes."""
    return open(dst / FAILED, "w", buffering=1, encoding="utf-8", errors="surrogateescape")


@contextlib.contextmanager
def whole(target: Path) -> Iterator[Path]:
    """A temporary file beside the target, which becomes the target if no exception comes."""
    unique = f"{os.getpid()}-{threading.get_ident()}"
    temporary = target.with_name(f"{TEMPORARY}{unique}.mp4")
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())              # or a power cut could leave a name without bytes
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def copy_lists(lists: dict[Path, Path]) -> None:
    """Copy each list that is not in DST, or is older there. lists: target -> source

    Paths in a list are relative and stay right, whatever the ending of the videos. Absolute ones
    would train on the originals: that is worth a warning.
    """
    for target, file in lists.items():
        if target.exists() and target.stat().st_mtime >= file.stat().st_mtime:
            continue
        with whole(target) as temporary:
            shutil.copy2(file, temporary)        # its time too: an edited copy stays
        if re.search(rb"^\s*/", file.read_bytes(), re.M):
            print(f"warning: {target} holds absolute paths, which still lead to the originals",
                  file=sys.stderr)


# --- ffmpeg ---------------------------------------------------------------------------------------
def find_ffmpeg() -> list[str]:
    """Options that keep every frame, as this version of ffmpeg spells them.

    Raises OSError: there is no ffmpeg, or one without x264.
    """
    program = shutil.which("ffmpeg")
    if not program:
        raise OSError("there is no ffmpeg program on the PATH: apt-get install ffmpeg, "
                      "or brew install ffmpeg")
    if b" libx264 " not in ffmpeg_prints("-encoders"):
        raise OSError(f"{program} was built without libx264: install another, "
                      "such as the system's")
    # passthrough: neither drop nor repeat a frame for a constant rate.
    renamed = b"-fps_mode" in ffmpeg_prints("-h", "long")        # in FFmpeg 5.1
    mode = "-fps_mode" if renamed else "-vsync"
    return ["-enc_time_base", "1:90000", mode, "passthrough"]


def ffmpeg_prints(*arguments: str) -> bytes:
    """What ffmpeg says about itself, on its standard output, as bytes. Its status is ignored."""
    done = subprocess.run(["ffmpeg", *arguments], stdin=subprocess.DEVNULL, capture_output=True)
    return done.stdout


class Run(NamedTuple):
    """What ffmpeg did: how many frames it decoded, what they look like, and its errors."""
    decoded: int
    sight: np.ndarray                            # (n, SIGHT * SIGHT) uint8, grey
    errors: list[str]


def ffmpeg(source: list[str], keep_all: list[str], *output: str) -> Run:
    """Run ffmpeg, without a shell: look at every frame of a source, and write an output, if any.

    source: options and the input's name. Raises OSError with its last error if it fails, or if the
    disk is full: old versions end with status 0 nevertheless.
    """
    # Frames whose size changes on the way go through the filters of the first one.
    command = ["ffmpeg", "-nostdin", "-hide_banner", "-nostats", "-v", "level+verbose",
               "-reinit_filter", "0", *source]
    # 0:V:0 is the first stream of pictures that is no cover image.
    small = f"format=gray,scale={SIGHT}:{SIGHT}:flags=area,settb=1/90000,setpts=N"
    look = ["-map", "0:V:0", "-vf", small, *keep_all, "-f", "rawvideo", "pipe:1"]
    done = subprocess.run([*command, *look, *output], stdin=subprocess.DEVNULL, capture_output=True)
    said = done.stderr.decode(errors="replace")
    # "[mp4 @ 0x1] [error] ...", but not the summary of those before it.
    errors = re.findall(r"^(?:\[\S+ @ \S+\] )*\[(?:error|fatal|panic)\] (?!Conversion failed)(.*)",
                        said, re.M)

    full = [error for error in errors if tells_of_full_disk(error)]
    if full:
        raise OSError(full[-1])
    if done.returncode < 0 or done.returncode == 255:
        # A signal ended it, mostly Ctrl-C, of which the main thread hears a moment later: it must
        # stop the pool before this thread takes the next video.
        time.sleep(1)
    if done.returncode:
        raise OSError(errors[-1] if errors else f"ffmpeg ended with status {done.returncode}")
    counts = re.findall(r"(\d+) frames decoded", said)
    whole = len(done.stdout) // SIGHT**2 * SIGHT**2
    sight = np.frombuffer(done.stdout[:whole], np.uint8).reshape(-1, SIGHT**2)
    return Run(int(counts[0]) if counts else 0, sight, errors)


def misplaced(before: np.ndarray, after: np.ndarray) -> str:
    """Which frame of a copy is another one of its source, or "".

    before, after: what the frames look like, (n, SIGHT * SIGHT) each. Among its neighbours a frame
    must be nearest to its own source frame. Where nothing moves, all are equally near, but for the
    noise of encoding: a frame is misplaced only if another one is more than twice as near.
    """
    n = len(before)
    distances = np.full((n, 2 * NEIGHBOURS + 1), np.inf)
    for shift in range(-NEIGHBOURS, NEIGHBOURS + 1):
        first = max(0, -shift)
        last = min(n, n - shift)
        if first < last:
            theirs = before[first + shift:last + shift].astype(np.int16)
            difference = np.abs(after[first:last] - theirs)
            distances[first:last, shift + NEIGHBOURS] = difference.mean(axis=1)

    own = distances[:, NEIGHBOURS]
    strange = np.flatnonzero(own > 2 * distances.min(axis=1) + 0.5)       # grey levels
    if not len(strange):
        return ""
    i = int(strange[0])
    source = i + int(distances[i].argmin()) - NEIGHBOURS
    return f"frame {i} of the copy is frame {source} of the source"


def tells_of_full_disk(text: str) -> bool:
    """Whether an error says that the disk is full: it would come again with every other video."""
    return any(reason in text for reason in FULL)


def picture_filters(short_side: int) -> str:
    """ffmpeg's filters: the short side scaled down and made even, times that increase."""
    sizes = []
    for side in ("iw", "ih"):
        even = f"trunc({side}/2)"
        scaled = f"round({side}*{short_side}/min(iw\\,ih)/2)"
        sizes.append(f"2*min({even}\\,{scaled})")
    # Times that repeat, run back, or that a coarse clock makes equal would cost frames.
    increasing = "setpts=if(N\\,max(PTS-STARTPTS\\,PREV_OUTPTS+1)\\,0)"
    return f"scale={sizes[0]}:{sizes[1]},settb=1/90000,{increasing}"


def encode(src: Path, dst: Path, options: argparse.Namespace, keep_all: list[str]
           ) -> tuple[str, str]:
    """Prepare one video. -> why it failed or "", what ffmpeg complained of or ""

    keep_all: options of find_ffmpeg. Raises OSError where the disk is full.
    """
    # One thread each: --jobs files are at work at once. No protocol but files: a name such as
    # http:x.mp4 is a name.
    source = ["-y", "-protocol_whitelist", "file", "-threads", "1", "-i", f"file:{src}",
              "-filter_threads", "1"]
    pictures_only = ["-map", "0:V:0", "-map_metadata", "-1", "-map_chapters", "-1"]
    codec = ["-pix_fmt", "yuv420p", "-c:v", "libx264", "-threads", "1", "-g", str(options.gop),
             "-crf", str(options.crf), "-tune", "fastdecode"]
    filters = ["-vf", picture_filters(options.short_side)]
    try:
        with whole(dst) as temporary:
            made = ffmpeg(source, keep_all, *pictures_only, *filters, *keep_all, *codec,
                          "-f", "mp4", f"file:{temporary}")
            # Decoded again, and counted: the number in its header may lie.
            again = ffmpeg(["-threads", "1", "-i", f"file:{temporary}"], keep_all)
            frames, complaints = made.decoded, made.errors
            if again.errors or again.decoded != frames or not frames:
                wrong = "".join(again.errors[-1:])
                raise OSError(f"{frames} frames decoded, {again.decoded} written {wrong}")
            if len(made.sight) != frames or len(again.sight) != frames:
                raise OSError(f"{frames} frames decoded, {len(made.sight)} of the source and "
                              f"{len(again.sight)} of the copy seen")
            # Times that repeat or were lost would keep mote from seeking in the copy.
            moved = misplaced(made.sight, again.sight) or examine(temporary).in_order
            if moved:
                raise OSError(moved)
    except OSError as error:
        if tells_of_full_disk(str(error)):
            raise OSError(f"{dst}: {error}") from None
        return " ".join(str(error).split()), ""

    if complaints:
        return "", f"{frames} frames, {complaints[-1]}"
    return "", ""


def encode_all(videos: dict[Path, Path], todo: list[Path], options: argparse.Namespace,
               keep_all: list[str], failures: TextIO) -> int:
    """Prepare the videos of the targets in todo. -> how many failed

    videos: target -> source. failures: the open failed.txt, a line for each; it is removed again
    if none fails.
    """
    def encode_to(target: Path) -> tuple[Path, str, str]:
        return videos[target], *encode(videos[target], target, options, keep_all)

    failed = 0
    with ThreadPool(options.jobs) as pool:
        try:
            results = pool.imap_unordered(encode_to, todo)
            for video, why, complaint in tqdm(results, total=len(todo), unit="video", disable=None):
                name = str(video.relative_to(options.src)).replace("\n", "\\n")
                if why:
                    failed += 1
                    failures.write(f"{name}\t{why}\n")
                elif complaint:
                    tqdm.write(f"warning: {name}: ffmpeg complains, but keeps {complaint}",
                               sys.stderr)
        except KeyboardInterrupt:
            raise SystemExit("tools/prepare.py: stopped; the same command goes on from here"
                             ) from None
        finally:
            pool.terminate()
            pool.join()                          # the files at work are finished, or cleared away
            if not failed:
                (options.dst / FAILED).unlink()
    return failed


# --- how fast it decodes now ----------------------------------------------------------------------
def measure(pairs: list[tuple[Path, Path]]) -> tuple[int, list[float]]:
    """(original, prepared) files -> how many of them decode, clips/s of originals and of prepared.

    It does what a worker of the training's loader does, on one core.
    """
    # A worker of a DataLoader has one thread too.
    torch.set_num_threads(1)
    taken = []
    for pair in pairs:
        with contextlib.suppress(Undecodable):
            taken.append(time_pair(pair))
    clips = (EPOCHS - 1) * len(taken)
    return len(taken), [clips / sum(column) for column in zip(*taken)]


def time_pair(pair: tuple[Path, Path]) -> list[float]:
    """Seconds that the clips of each of two files take. Raises Undecodable.

    By turns: what slows the machine down slows both. In the first epoch, which does not count, the
    files are read from the disk.
    """
    clips = [TrainingClips([(str(path), 0)], T, SIZE, seed=0) for path in pair]
    seconds = [0.0, 0.0]
    for epoch in range(EPOCHS):
        for i in range(2):
            start = time.perf_counter()
            if clips[i][epoch, 0]["failed"]:
                raise Undecodable(pair[i])
            if epoch > 0:
                seconds[i] += time.perf_counter() - start
    return seconds


def describe_speed(number: int, rates: list[float], clips_per_second: int) -> str:
    """Two lines: the rates that were measured on a number of videos, and the cores they mean."""
    before, after = rates
    cores = [math.ceil(clips_per_second / rate) for rate in rates]
    return (f"decoding {T} frames, one core, {number} videos: {before:.1f} clips/s before, "
            f"{after:.1f} after, {after / before:.2f} times as fast\n"
            f"{clips_per_second} clips/s need {cores[0]} cores unprepared, {cores[1]} prepared")


# --- the command ----------------------------------------------------------------------------------
def parse(argv: list[str] | None) -> argparse.Namespace:
    """The command line, checked, also for folders that lie one inside the other.

    Raises ValueError for the first mistake.
    """
    parser = plain_errors(argparse.ArgumentParser("prepare.py", description=__doc__))
    parser.add_argument("src", type=Path, metavar="SRC", help="the dataset's folder")
    parser.add_argument("dst", type=Path, metavar="DST", help="where the prepared one goes")
    for name, flag in FLAGS.items():
        parser.add_argument(f"--{name}", type=int, default=flag.default, metavar="N",
                            help=flag.help)
    options = parser.parse_args(argv)

    for name, flag in FLAGS.items():
        value = getattr(options, name.replace("-", "_"))
        rule = f"{flag.least} to {flag.most}"
        good = flag.least <= value <= flag.most
        if name == "short-side":
            rule += ", and even"
            good = good and value % 2 == 0
        if not good:
            parser.error(f"--{name} must be {rule}, got {value}")

    if not options.src.is_dir():
        parser.error(f"no folder at {options.src}")
    # By real paths: a link may lead from one into the other.
    real = [os.path.realpath(options.src), os.path.realpath(options.dst)]
    if os.path.commonpath(real) in real:
        parser.error(f"SRC {options.src} and DST {options.dst} must not be the same folder "
                     "or one inside the other")
    return options


def prepare(options: argparse.Namespace) -> dict:
    """Plan, copy the lists, encode the videos, report, measure.

    Whatever may be refused is refused before the first video is encoded. Returns how many videos
    were prepared, already there, failed and measured; bytes and clips/s are (before, after).
    """
    src, dst = options.src, options.dst
    videos, lists = plan(src, dst)
    keep_all = find_ffmpeg()
    if options.measure:
        require_decoder()                        # now, not after days of work
    settings = {name: getattr(options, name) for name in ("short_side", "gop", "crf")}
    parents = {dst, *(target.parent for target in [*videos, *lists])}

    with open_folder(dst, parents, json.dumps(settings)):
        with open_failures(dst) as failures:
            copy_lists(lists)
            todo = [target for target in videos if not target.exists()]
            failed = encode_all(videos, todo, options, keep_all, failures)

    done = {"prepared": len(todo) - failed, "already there": len(videos) - len(todo),
            "failed": failed}
    counts = ", ".join(f"{number} {what}" for what, number in done.items())
    print(counts, f"({dst / FAILED})" if failed else "")

    # Of all videos that are there, also those of earlier runs.
    pairs = [(video, target) for target, video in videos.items() if target.exists()]
    sizes = [sum(pair[i].stat().st_size for pair in pairs) for i in range(2)]
    print(f"{len(pairs)} videos: {sizes[0] / 1e6:.1f} MB before, {sizes[1] / 1e6:.1f} MB after")

    # The same ones each time, so that two settings can be compared.
    drawn = random.Random(0).sample(pairs, min(options.measure, len(pairs)))
    number, rates = measure(drawn)
    if number:
        print(describe_speed(number, rates, options.clips_per_second))
    elif drawn:
        print("decoding not measured: no video decodes both before and after")
    return {**done, "measured": number, "bytes": sizes, "clips_per_second": rates}


def main(argv: list[str] | None = None) -> dict:
    """Prepare a dataset. -> what `prepare` returns, for tests and other scripts"""
    with one_line_errors("tools/prepare.py"):
        return prepare(parse(argv))


if __name__ == "__main__":
    sys.exit(1 if main(sys.argv[1:])["failed"] else 0)
