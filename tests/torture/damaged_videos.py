"""
Damaged videos: decoding them ends, takes bounded memory, and never ends the main process.
"""
import contextlib
import io
import random
import tempfile
import time
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from PIL import Image
from torchcodec.encoders import VideoEncoder
from torture.job import Job, Trial, megabytes

from mote import toyworld
from mote.data import TestViews, TrainingClips, Undecodable, decode
from mote.runtime import watched_loading

MEMORY = 1500             # MB that decoding 8 frames may take, over what the imports took
SUFFIXES = (".mp4", ".mkv", ".avi", ".mov")
CODECS = {"a.mp4": "libx264", "b.avi": "mpeg4", "c.mkv": "libx264", "d.webm": "libvpx-vp9",
          "e.mov": "mpeg4"}


# --- 1. bit-flipped, cut, spliced -----------------------------------------------------------------
def damage(whole: bytes, other: bytes, chance: random.Random) -> bytes:
    """Cut, splice with another file, zero a part, or flip bits: of the header, or up to 300."""
    kind = chance.randrange(5)
    place = chance.randrange(len(whole))
    if kind == 0:
        return whole[:place]
    if kind == 1:
        return whole[:place] + other[chance.randrange(len(other)):]
    if kind == 2:
        length = chance.randrange(1, 1 + len(whole) // 4)
        return whole[:place] + bytes(length) + whole[place + length:]

    changed = bytearray(whole)
    head = min(len(whole), 2000) if kind == 3 else len(whole)
    most = 20 if kind == 3 else 300
    for _ in range(chance.randrange(1, most)):
        changed[chance.randrange(head)] ^= 1 << chance.randrange(8)
    return bytes(changed)


def toy_clip() -> torch.Tensor:
    """Frames of a toyworld video."""
    return toyworld.make_clip("star", "red", "moving left", (0,))


def originals(folder: Path, real: Path | None) -> list[Path]:
    """Video files of many containers and codecs: real ones where there are some, and generated."""
    clip = toy_clip()
    for name, codec in CODECS.items():
        with contextlib.suppress(RuntimeError):           # an FFmpeg without that encoder
            VideoEncoder(clip, frame_rate=12).to_file(folder / name, codec=codec)
    generated = sorted(file for file in folder.iterdir() if file.stat().st_size)

    if real is None:
        return generated
    return [*sorted(file for file in real.iterdir() if file.suffix in SUFFIXES), *generated]


def damaged_copies(folder: Path, whole: list[Path], number: int) -> list[str]:
    """So many damaged copies of some of the files. -> their paths

    The same in every run, as long as the files are the same.
    """
    chance = random.Random(0)
    contents = [(file, file.read_bytes()) for file in whole]
    paths = []
    for i in range(number):
        file, content = chance.choice(contents)
        _, other = chance.choice(contents)
        path = folder / f"{i}{file.suffix}"
        path.write_bytes(damage(content, other, chance))
        paths.append(str(path))
    return paths


def videos(job: Job, options: Namespace) -> Iterator[Trial]:
    """Damaged copies through TestViews and TrainingClips in a worker: no crash of the main process,
    no hang, memory bounded. A copy that kills or hangs its worker is skipped, and counted in the
    last trial.
    """
    number = 60 if options.quick else 2000
    half = number // 2
    hung = patch.object(watched_loading, "HUNG", 20.0)
    poll = patch.object(watched_loading, "POLL", 1.0)
    with tempfile.TemporaryDirectory() as place, hung, poll:
        listed = damaged_list(Path(place), options.videos, number)
        watch = watched_loading.Watch(listed, 1)
        test = TestViews(listed, 8, 64, watch=watch)
        training = TrainingClips(listed, 8, 64, 0, watch=watch)
        seen = Seen()
        yield from decode_all(test, [[i] for i in range(half)], watch, seen)
        yield from decode_all(training, [[(0, i)] for i in range(half, number)], watch, seen)

        yield Trial(f"{seen.decoded} decoded, {seen.undecodable} undecodable, of these "
                    f"{len(watch.skipped)} skipped; at most {seen.peak:.0f} MB more",
                    "" if seen.peak < MEMORY else "memory not bounded")


def damaged_list(folder: Path, real: Path | None, number: int) -> list[tuple[str, int]]:
    """A list that begins with so many damaged videos, and goes on with whole ones: TrainingClips
    draws others of the list in place of damaged ones.
    """
    (folder / "whole").mkdir()
    whole = originals(folder / "whole", real)
    damaged = [(path, 0) for path in damaged_copies(folder, whole, number)]
    return [*damaged, *[(str(file), 0) for file in whole] * number]


class Seen:
    """How many videos decoded, and the memory that this took at most, in MB."""

    def __init__(self):
        self.decoded = 0
        self.undecodable = 0
        self.before = sum(megabytes())
        self.peak = 0.0


def decode_all(data: torch.utils.data.Dataset, keys: list[list], watch: watched_loading.Watch,
               seen: Seen) -> Iterator[Trial]:
    """One video at a time through a worker: each within a minute.

    Memory is looked at after each, of this process and of its workers together.
    """
    batches = watched_loading.watched(data, keys, watch, 1)
    for key in keys:
        begin = time.monotonic()
        failed = next_failed(batches)
        seconds = time.monotonic() - begin

        seen.peak = max(seen.peak, sum(megabytes()) - seen.before)
        if failed:
            seen.undecodable += 1
        else:
            seen.decoded += 1
        yield Trial(f"{key}", "" if seconds < 60 else f"{seconds:.0f} s")


def next_failed(batches: Iterator[dict]) -> list:
    """The videos of the next batch that could not be decoded. What loading prints is not shown."""
    with contextlib.redirect_stdout(io.StringIO()):
        return next(batches)["failed"]


# --- 2. an absurd size ----------------------------------------------------------------------------
ABSURD = b"\x30\x00"      # 12288, of pixels


def absurd_video(folder: Path) -> Path:
    """A video whose header claims 12288 x 12288 pixels."""
    # 300 takes two bytes in the container's header, and FFV1 has no header of its own.
    path = folder / "a.mkv"
    wide = toy_clip().repeat(1, 1, 7, 7)[..., :300, :300]
    VideoEncoder(wide, frame_rate=12).to_file(path, codec="ffv1")

    whole = path.read_bytes()
    for field in (b"\xb0\x82", b"\xba\x82"):              # PixelWidth, PixelHeight
        whole = whole.replace(field + b"\x01\x2c", field + ABSURD, 1)
    path.write_bytes(whole)
    return path


def absurd_jpegs(folder: Path) -> Path:
    """A folder with a JPEG whose header claims 12288 x 12288 pixels."""
    made = folder / "jpegs"
    made.mkdir()
    picture = made / "1.jpg"
    Image.fromarray(toy_clip()[0].permute(1, 2, 0).numpy()).save(picture)

    jpeg = bytearray(picture.read_bytes())
    at = jpeg.index(b"\xff\xc0")                          # start of frame: height, width at byte 5
    jpeg[at + 5:at + 9] = ABSURD + ABSURD
    picture.write_bytes(bytes(jpeg))
    return made


def sizes(job: Job, options: Namespace) -> Iterator[Trial]:
    """Headers that claim an absurd size: refused before anything is decoded.

    Frames of 12288 x 12288 would take 450 MB each. The error names the size, and memory shows that
    none was decoded.
    """
    with tempfile.TemporaryDirectory() as place:
        for path in (absurd_video(Path(place)), absurd_jpegs(Path(place))):
            before = sum(megabytes())
            try:
                decode(str(path), lambda n: np.arange(min(n, 4)))
                failure = "decoded"
            except Undecodable as error:
                failure = "" if "12288 x 12288" in str(error) else str(error)

            more = sum(megabytes()) - before
            if not failure and more > 300:
                failure = f"{more:.0f} MB"
            yield Trial(path.name, failure)
