"""
Sections of tools/bench/speed.py on videos and class names: views, text, loader, decoder.

Each takes the command's options and yields rows (tools/bench/pairs.py). Where a thing can be
counted, such as frames or calls, it is: a count needs no interval, and is the same on any machine.
"""
import tempfile
from argparse import Namespace
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from unittest.mock import patch

import numpy as np
import torch

from mote import toyworld
from mote.clip_backbone import class_embeddings
from mote.data import segment_indices
from mote.runtime.workers import count_workers
from tools.bench import loader as loader_ways
from tools.bench.pairs import count, interleave, not_run, ratio
from tools.bench.steps import T, load
from tools.bench.views import count_views

# A short video, whose clips overlap, and a long one, whose clips hardly do.
VIEWS = ((20, 3, 1), (20, 4, 3), (300, 3, 1), (300, 4, 3))        # frames of a video, clips, crops


def views(options: Namespace) -> Iterator[dict]:
    """Frames decoded and encoded, beside the distinct frames of a video's views.

    Distinct frames are those of its clips. Each crop of a frame has to be encoded on its own.
    """
    for length, clips, crops in VIEWS:
        counts = count_views(length, clips, crops)
        distinct = len(np.unique(segment_indices(length, T, clips)))
        which = f"{length} frames, {clips} x {crops} views"
        yield count(f"{which}: decoded / distinct", counts["decoded"], distinct, "= 1")
        yield count(f"{which}: encoded / distinct", counts["encoded"], distinct * crops, "= 1")
        yield count(f"{which}: encoded / views x frames", counts["encoded"], clips * crops * T)


def text(options: Namespace) -> Iterator[dict]:
    """Class embeddings in batches and one by one, and what a second start encodes again.

    The cache of class embeddings should leave nothing to encode.
    """
    clip, tokenizer = load(options.backbone, options.device)
    classes = [*toyworld.class_set("toyworld"), *toyworld.class_set("toyworld-appearance")]
    names = [name for name, _ in classes]

    # As many classes as take about a minute, all rounds of both sides together.
    (once,), = interleave([lambda _: class_embeddings(clip, tokenizer, names[:1])], 1,
                          options.settle)
    affordable = int(60 / (2 * (options.pairs + 1) * once))
    n = 3 if options.quick else min(len(names), max(2, affordable))

    def in_batches(_: int) -> None:
        class_embeddings(clip, tokenizer, names[:n])

    def one_by_one(_: int) -> None:
        for name in names[:n]:
            class_embeddings(clip, tokenizer, [name])

    # No cache is given here, so both sides encode anew in every round.
    columns = interleave([in_batches, one_by_one], options.pairs, options.settle)
    yield ratio("class embeddings in batches / one class at a time", *columns, "<= 1",
                f"{n} classes")

    # Calls of the text tower are counted, not timed: a second start makes none.
    tower = patch.object(clip, "encode_text", wraps=clip.encode_text)
    with tempfile.TemporaryDirectory() as cache, tower as calls:
        class_embeddings(clip, tokenizer, names[:2], cache=cache)
        first = calls.call_count
        class_embeddings(clip, tokenizer, names[:2], cache=cache)
        second = calls.call_count - first
    yield count("text tower's calls, second start / first", second, first, "= 0")


def loader(options: Namespace) -> Iterator[dict]:
    """The training loader beside other ways, on one core: torch and the decoders on one thread.

    A worker of the loader has one core too. All ways run in turns, on all kinds of file.
    """
    threads = torch.get_num_threads()
    with tempfile.TemporaryDirectory() as folder:
        try:
            made = loader_ways.files(Path(options.video), Path(folder))
        except OSError as error:                          # no ffmpeg, which other sections need not
            yield not_run("all of it", str(error))
            return
        # Set back below: other sections of this process have the threads that were asked for.
        torch.set_num_threads(1)
        ways, missing = ways_that_work(made)
        seconds = dict(zip(ways, interleave(list(ways.values()), options.pairs)))
    torch.set_num_threads(threads)

    # What the transforms cost over decoding, which no loader can go below.
    for kind, target in (("video", "<= 1.25"), ("prepared", "<= 1.25"), ("JPEG folder", "")):
        yield ratio(f"{kind}: TrainingClips / decoding alone", seconds[kind, "ours"],
                    seconds[kind, "decoding alone"], target)

    # What it costs to know that the frames are the right ones.
    for kind in ("video", "prepared"):
        yield ratio(f"{kind}: a look at its bytes / decoding alone", seconds[kind, "a look"],
                    seconds[kind, "decoding alone"], "<= 0.02")

    # What the authors' way costs beside ours. Where decord is missing, the row says why.
    for kind, target in (("video", ">= 1.2"), ("prepared", ">= 2")):
        name = f"{kind}: decord + PIL as the authors' / TrainingClips"
        if kind in missing:
            yield not_run(name, missing[kind], target)
        else:
            yield ratio(name, seconds[kind, "decord + PIL"], seconds[kind, "ours"], target)

    # What preparing a dataset gains.
    for kind, target in (("prepared", ">= 4"), ("JPEG folder", "")):
        yield ratio(f"TrainingClips: video / {kind}", seconds["video", "ours"],
                    seconds[kind, "ours"], target)


def decoder(options: Namespace) -> Iterator[dict]:
    """Clips of T sparse frames by as many workers as --workers auto gives, and by the GPU."""
    name = f"{T} sparse frames: CPU workers / torchcodec's CUDA decoder"
    if options.device.type != "cuda":
        yield not_run(name, "no CUDA device")
        return

    path = Path(options.video)
    workers = count_workers("auto", options.device, options.clips, T, loader_ways.SIZE)
    ways = [loader_ways.by_workers(path, workers), loader_ways.by_device(path, "cuda")]
    columns = interleave(ways, options.pairs, options.settle)
    speeds = [f"{loader_ways.CLIPS / median(column):.0f}" for column in columns]
    yield ratio(name, *columns, note=f"clips/s: {speeds[0]} by {workers} workers, "
                                     f"{speeds[1]} by the GPU")


def ways_that_work(made: dict[str, Path]) -> tuple[dict[tuple, Callable], dict[str, str]]:
    """(kind of file, way) -> its function; kind -> why a way is missing. JPEGs have two ways.

    made: kind of file -> its path. Only decord can be missing, or fail on a file.
    """
    ways = {}
    missing = {}
    for kind, path in made.items():
        for way, build in loader_ways.WAYS.items():
            if kind == "JPEG folder" and way in ("decord + PIL", "a look"):
                continue
            try:
                ways[kind, way] = build(path)
            except ImportError:
                missing[kind] = "pip install decord"
            except ValueError as error:
                missing[kind] = str(error)
    return ways, missing
