"""
Damaged lists, csv, json, checkpoints and caches: read right, or refused in one line.
"""
import contextlib
import io
import random
import tempfile
from argparse import Namespace
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from torture.damaged_videos import damage
from torture.job import ROOT, Job, Trial, flip

from mote import toyworld
from mote.clip_backbone import class_embeddings, clip_config, load_clip
from mote.datasets.lists import read_classes, read_split
from mote.runtime import prompts
from mote.runtime.checkpoints import load_model, read_checkpoint, save_checkpoint
from mote.runtime.run_folder import evaluated
from mote.runtime.watched_loading import Watch

AUTHORS = ROOT / "tests/golden/official_tiny_checkpoint.pt"               # in the authors' format
CONFIG = ROOT / "mote/toyworld/toyworld.json"
METRICS = b'{"step": 5, "data": "toyworld", "plain": {"top1": 3.0}}\n' * 3
PUBLISHED = b"Basketball/v_a_g01_c01.avi 1\nArchery/v_b_g01_c02.avi 2\n"      # a list of UCF101


class Case(NamedTuple):
    """A kind of file: where it lies, what it holds undamaged, how it is read."""
    what: str
    file: Path
    whole: bytes
    read: Callable[[Path], object]


def fuzz(job: Job, options: Namespace) -> Iterator[Trial]:
    """Each kind of file, damaged: read, or refused in a ValueError or OSError; nothing else.

    Scripts print these two as one line. A file is cut, spliced with another kind, or has bits
    flipped. What is read right cannot be told for a list or a csv, but it can for what has a hash.
    """
    chance = random.Random(1)
    number = 40 if options.quick else 1000
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        with contextlib.redirect_stdout(io.StringIO()):
            cases = all_cases(folder)

        others = [CONFIG.read_bytes(), PUBLISHED]
        for case in cases:
            # A large file takes long to read.
            times = number if len(case.whole) < 10_000 else max(5, number // 10)
            for _ in range(times):
                other = chance.choice([case.whole, *others])
                case.file.write_bytes(damage(case.whole, other, chance))
                yield Trial(case.what, wrong_refusal(case))
            case.file.unlink()                            # or the next case might read it

        yield from flipped_weights(folder, 3 if options.quick else 30)


def all_cases(folder: Path) -> list[Case]:
    """One case of each kind of file, made in a folder.

    Files of a dataset lie in its folder: readers find them by their names there.
    """
    toy = folder / "toy"
    toyworld.generate(toy, "toyworld-novel", clips={"val": 1})
    ours = folder / "good.pt"
    save_checkpoint(ours, read_checkpoint(AUTHORS))

    # Readers take a path. These do not: some take a folder or text, one takes more.
    def read_list(file: Path) -> object:
        return read_split(file.parent, "val")

    def read_config(file: Path) -> object:
        return clip_config(str(file))

    def read_metrics(file: Path) -> object:
        return evaluated(file.parent)

    def read_skipped(file: Path) -> object:
        return Watch([("a.mp4", 0)], 1, file)

    def read_templates(file: Path) -> object:
        return prompts.read_templates(str(file))

    def case(what: str, file: Path, read: Callable) -> Case:
        return Case(what, file, file.read_bytes(), read)

    templates = b"a video of {}\n{} indeed\n"
    theirs = AUTHORS.read_bytes()
    return [case("list", toy / "val.txt", read_list),
            case("csv", toy / "classes.csv", read_classes),
            Case("official list", toy / "testlist01.txt", PUBLISHED, read_list),
            Case("json of a model", folder / "model.json", CONFIG.read_bytes(), read_config),
            Case("metrics", folder / "metrics.jsonl", METRICS, read_metrics),
            Case("skip list", folder / "skipped.txt", b"a.mp4\nb.mp4\n", read_skipped),
            Case("templates", folder / "templates.txt", templates, read_templates),
            Case("checkpoint", folder / "last.pt", ours.read_bytes(), load_model),
            Case("the authors' checkpoint", folder / "authors.pt", theirs, load_model),
            cache_of_embeddings(folder / "cache")]


def cache_of_embeddings(cache: Path) -> Case:
    """A cache of class embeddings. Reading it must give what it held undamaged: it is made anew
    where it is damaged.
    """
    clip, tokenizer = load_clip("toyworld", "toyworld")
    names = ["red star moving left", "blue circle growing"]
    right = class_embeddings(clip, tokenizer, names, cache=cache)
    file, = cache.iterdir()

    def read(_: Path) -> None:
        if not torch.equal(class_embeddings(clip, tokenizer, names, cache=cache), right):
            raise AssertionError("a damaged cache was believed")

    return Case("cache", file, file.read_bytes(), read)


def wrong_refusal(case: Case) -> str:
    """What is wrong with how a damaged file is read or refused; "" for nothing."""
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            case.read(case.file)
    except (ValueError, OSError) as error:
        return "" if str(error).strip() else f"an empty {type(error).__name__}"
    except Exception as error:                            # any other is the failure looked for
        return f"{type(error).__name__}: {error}"[:200]
    return ""


def flipped_weights(folder: Path, number: int) -> Iterator[Trial]:
    """Checkpoints with one bit flipped in their weights, where nothing else is broken: refused."""
    whole = (folder / "good.pt").read_bytes()
    file = folder / "last.pt"
    for i in range(number):
        file.write_bytes(flip(whole, len(whole) // 2 + 7 * i))
        try:
            read_checkpoint(file)
            failure = "believed"
        except ValueError:
            failure = ""
        yield Trial("one bit of a weight", failure)
