"""
What tests/torture/run.py does to files: damaged videos, lists, csv, json, checkpoints and caches; hostile ones; and the
same evaluation on any number of ranks, workers and any batch size.

Each torture is a generator of Trial(what, failure), as in tests/torture/runs.py.
"""
import contextlib
import io
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from PIL import Image
from torchcodec.encoders import VideoEncoder
from torture.job import ROOT, Job, flip, megabytes
from torture.runs import Trial

import eval as evaluation
import train
from mote import toyworld
from mote.clip_backbone import class_embeddings, clip_config, load_clip
from mote.data import TestViews, TrainingClips, Undecodable, decode
from mote.datasets.lists import read_classes, read_split
from mote.runtime import watched_loading
from mote.runtime.checkpoints import load_model, read_checkpoint, save_checkpoint
from mote.runtime.ranks import Ranks
from mote.runtime.run_folder import evaluated
from mote.scoring import evaluate as scoring

MEMORY = 1500             # MB that decoding 8 frames of a damaged file may take, over what the imports took
CPU = Ranks(0, 1, torch.device("cpu"))


# --- damaged videos ---------------------------------------------------------------------------------------------------
def damage(whole: bytes, other: bytes, chance: random.Random) -> bytes:
    """Flip up to 300 bits, cut, zero a part, or splice with another file."""
    kind, place = chance.randrange(5), chance.randrange(len(whole))
    if kind == 0:
        return whole[:place]
    if kind == 1:
        return whole[:place] + other[chance.randrange(len(other)):]
    if kind == 2:
        length = chance.randrange(1, 1 + len(whole) // 4)
        return whole[:place] + bytes(length) + whole[place + length:]
    changed = bytearray(whole)
    head = min(len(whole), 2000) if kind == 3 else len(whole)    # 3: the header alone
    for _ in range(chance.randrange(1, 300 if kind == 4 else 20)):
        changed[chance.randrange(head)] ^= 1 << chance.randrange(8)
    return bytes(changed)


def originals(folder: Path, real: Path | None) -> list[Path]:
    """Video files of many containers and codecs: real ones where there are some, and generated ones."""
    clip = toyworld.make_clip("star", "red", "moving left", (0,))
    for name, codec in (("a.mp4", "libx264"), ("b.avi", "mpeg4"), ("c.mkv", "libx264"), ("d.webm", "libvpx-vp9"),
                        ("e.mov", "mpeg4")):
        with contextlib.suppress(RuntimeError):                  # an FFmpeg without that encoder
            VideoEncoder(clip, frame_rate=12).to_file(folder / name, codec=codec)
    there = [file for file in sorted(real.iterdir()) if file.suffix in (".mp4", ".mkv", ".avi", ".mov")] if real else []
    return [*there, *sorted(file for file in folder.iterdir() if file.stat().st_size)]


def videos(o) -> Iterator[Trial]:
    """Damaged copies through TestViews and TrainingClips in a worker: no crash of the main process, no hang, no end of
    memory. A copy that kills or hangs its worker is skipped, and counted in the note."""
    chance, number = random.Random(0), 60 if o.quick else 2000
    with tempfile.TemporaryDirectory() as place, patch.object(watched_loading, "HUNG", 20.0), patch.object(watched_loading, "POLL", 1.0):
        (Path(place) / "whole").mkdir()
        whole = [(file, file.read_bytes()) for file in originals(Path(place) / "whole", o.videos)]
        paths = []
        for i in range(number):
            (file, content), (_, other) = chance.choice(whole), chance.choice(whole)
            paths.append((f"{place}/{i}{file.suffix}", 0))
            Path(paths[-1][0]).write_bytes(damage(content, other, chance))
        paths += [(str(file), 0) for file, _ in whole] * number  # what TrainingClips draws in place of damaged ones
        watch = watched_loading.Watch(paths, 1)
        peak, counts = 0.0, {"decoded": 0, "undecodable": 0}
        half = number // 2
        sets = ((TestViews(paths, 8, 64, watch=watch), [[i] for i in range(half)]),
                (TrainingClips(paths, 8, 64, 0, watch=watch), [[(0, i)] for i in range(half, number)]))
        before = sum(megabytes())
        with contextlib.redirect_stdout(io.StringIO()):
            for data, keys in sets:
                begin = time.monotonic()
                for key, batch in zip(keys, watched_loading.watched(data, keys, watch, 1)):
                    peak, seconds = max(peak, sum(megabytes()) - before), time.monotonic() - begin
                    counts["undecodable" if batch["failed"] else "decoded"] += 1
                    yield Trial(f"{key}", "" if seconds < 60 else f"{seconds:.0f} s")
                    begin = time.monotonic()
        said = ", ".join(f"{n} {what}" for what, n in counts.items())
        yield Trial(f"{said}, of these {len(watch.skipped)} skipped; at most {peak:.0f} MB more",
                    "" if peak < MEMORY else "memory not bounded")


def sizes(o) -> Iterator[Trial]:
    """Headers that claim an absurd size: refused, and quickly."""
    with tempfile.TemporaryDirectory() as place:
        clip = toyworld.make_clip("star", "red", "moving left", (0,))
        wide = clip.repeat(1, 1, 7, 7)[..., :300, :300]          # 300 takes two bytes in the header, FFV1 has no other
        VideoEncoder(wide, frame_rate=12).to_file(f"{place}/a.mkv", codec="ffv1")
        whole = Path(f"{place}/a.mkv").read_bytes()
        for kind in (b"\xb0\x82", b"\xba\x82"):                 # PixelWidth, PixelHeight
            whole = whole.replace(kind + b"\x01\x2c", kind + b"\x30\x00", 1)         # 12288
        Path(f"{place}/a.mkv").write_bytes(whole)
        folder = Path(place) / "jpegs"
        folder.mkdir()
        Image.fromarray(clip[0].permute(1, 2, 0).numpy()).save(folder / "1.jpg")
        jpeg = bytearray((folder / "1.jpg").read_bytes())
        at = jpeg.index(b"\xff\xc0")
        jpeg[at + 5:at + 9] = b"\x30\x00\x30\x00"
        (folder / "1.jpg").write_bytes(bytes(jpeg))
        for path in (f"{place}/a.mkv", str(folder)):
            before = sum(megabytes())
            try:
                decode(path, lambda n: np.arange(min(n, 4)))
                failure = "decoded"
            except Undecodable as error:
                failure = "" if "12288 x 12288" in str(error) else str(error)
            more = sum(megabytes()) - before
            yield Trial(Path(path).name, failure or (f"{more:.0f} MB" if more > 300 else ""))


# --- other damaged files ----------------------------------------------------------------------------------------------
def fuzz(o) -> Iterator[Trial]:
    """Damaged lists, csv, json, checkpoints, caches: read, or refused in a ValueError or OSError; nothing else."""
    chance, number = random.Random(1), 40 if o.quick else 1000
    golden = ROOT / "tests/golden/official_tiny_checkpoint.pt"
    with tempfile.TemporaryDirectory() as place, contextlib.redirect_stdout(io.StringIO()):
        folder = Path(place)
        toyworld.generate(folder / "toy", "toyworld-novel", clips={"val": 1})
        clip, tokenizer = load_clip("toyworld", "toyworld")
        names = ["red star moving left", "blue circle growing"]
        right = class_embeddings(clip, tokenizer, names, cache=folder / "cache")
        cache, = (folder / "cache").iterdir()
        checkpoint = train_checkpoint(folder)
        config = (ROOT / "mote/toyworld/toyworld.json").read_bytes()
        metrics = b'{"step": 5, "data": "toyworld", "plain": {"top1": 3.0}}\n' * 3
        official = b"Basketball/v_a_g01_c01.avi 1\nArchery/v_b_g01_c02.avi 2\n"

        def embeddings(_) -> None:
            if not torch.equal(class_embeddings(clip, tokenizer, names, cache=folder / "cache"), right):
                raise AssertionError("a damaged cache was believed")
        cases: list[tuple[str, Path, bytes, Callable]] = [
            ("list", folder / "toy/val.txt", (folder / "toy/val.txt").read_bytes(),
             lambda file: read_split(file.parent, "val")),
            ("csv", folder / "toy/classes.csv", (folder / "toy/classes.csv").read_bytes(), read_classes),
            ("official list", folder / "toy/testlist01.txt", official, lambda file: read_split(file.parent, "val")),
            ("json of a model", folder / "model.json", config, lambda file: clip_config(str(file))),
            ("metrics", folder / "metrics.jsonl", metrics, lambda file: evaluated(file.parent)),
            ("skip list", folder / "skipped.txt", b"a.mp4\nb.mp4\n",
             lambda file: watched_loading.Watch([("a.mp4", 0)], 1, file)),
            ("templates", folder / "templates.txt", b"a video of {}\n{} indeed\n",
             lambda file: evaluation.read_templates(str(file))),
            ("checkpoint", folder / "last.pt", checkpoint.read_bytes(), load_model),
            ("the authors' checkpoint", folder / "official.pt", golden.read_bytes(), load_model),
            ("cache", cache, cache.read_bytes(), embeddings)]
        for what, file, whole, read in cases:
            for _ in range(number if len(whole) < 10_000 else max(5, number // 10)):
                file.write_bytes(damage(whole, chance.choice([whole, config, official]), chance))
                failure = ""
                try:
                    read(file)
                except (ValueError, OSError) as error:
                    failure = "" if str(error).strip() else f"an empty {type(error).__name__}"
                except Exception as error:                       # whatever it is, it is the failure looked for
                    failure = f"{type(error).__name__}: {error}"[:200]
                yield Trial(what, failure)
            file.unlink()
        for flipped in range(3 if o.quick else 30):              # in the weights, where nothing else is broken
            whole = checkpoint.read_bytes()
            file = folder / "last.pt"
            file.write_bytes(flip(whole, len(whole) // 2 + 7 * flipped))
            try:
                read_checkpoint(file)
                yield Trial("one bit of a weight", "believed")
            except ValueError:
                yield Trial("one bit of a weight", "")


def train_checkpoint(folder: Path) -> Path:
    """A small checkpoint in our format."""
    save_checkpoint(folder / "good.pt", read_checkpoint(ROOT / "tests/golden/official_tiny_checkpoint.pt"))
    return folder / "good.pt"


# --- hostile files ----------------------------------------------------------------------------------------------------
class Hostile:
    """Unpickled without care, it writes a file."""

    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self):
        return Path.touch, (self.marker,)


def security(o) -> Iterator[Trial]:
    """Nothing from a checkpoint, a cache or a list is executed; no shell sees a file's name."""
    with tempfile.TemporaryDirectory() as place:
        folder, marker = Path(place), Path(place) / "executed"
        toyworld.generate(folder / "data/toyworld", "toyworld", clips={"train": 1, "val": 1})
        for name, content in (("pickle.pt", Hostile(marker)), ("dict.pt", {"model": Hostile(marker), "step": 0})):
            torch.save(content, folder / name)
            toy = ["--data-root", f"{place}/data/toyworld", "--workers", "0", "--threads", "1"]
            clip = ["--backbone", "toyworld", "--pretrained", "toyworld"]
            for script, flags in ((train, ["--init", f"{place}/{name}", "--out", f"{place}/run", *clip]),
                                  (train, ["--resume", f"{place}/{name}", "--out", f"{place}/run2", *clip]),
                                  (train, [*clip[:3], f"{place}/{name}", "--out", f"{place}/run3"]),
                                  (evaluation, ["--checkpoint", f"{place}/{name}"]),
                                  (evaluation, [*clip[:3], f"{place}/{name}"])):
                errors = io.StringIO()
                with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO()):
                    try:
                        script.main([*toy, *flags])
                        status = 0
                    except SystemExit as ended:
                        status = ended.code
                lines = len(errors.getvalue().strip().splitlines())
                failure = "" if (status, lines) == (2, 1) else errors.getvalue()[-200:]
                failure = "executed" if marker.exists() else failure
                yield Trial(f"{script.__name__} {flags[0]} {name}", failure)
        clip, tokenizer = load_clip("toyworld", "toyworld")
        right = class_embeddings(clip, tokenizer, ["star"], cache=folder / "cache")
        cache, = (folder / "cache").iterdir()
        torch.save(Hostile(marker), cache)
        again = class_embeddings(clip, tokenizer, ["star"], cache=folder / "cache")
        yield Trial("cache", "executed" if marker.exists() else "" if torch.equal(again, right) else "believed")
        names = (f"$(touch {marker.name}).mp4", f"`touch {marker.name}`.mp4", f"; touch {marker.name} #.mp4", "-y.mp4",
                 "a 'b' \"c\".mp4", "|touch executed.mp4")
        source = folder / "shell"
        video = next((folder / "data/toyworld/videos").iterdir()).read_bytes()
        for label, name in enumerate(names):
            (source / f"class{label}").mkdir(parents=True)
            for copy in (name, f"{name[:-4]} 2.mp4"):
                (source / f"class{label}" / copy).write_bytes(video)
        done = subprocess.run([sys.executable, str(ROOT / "tools/prepare.py"), str(source), f"{place}/prepared",
                               "--jobs", "1", "--measure", "0"], cwd=place, capture_output=True,
                              text=True)
        failure = "executed" if any(folder.rglob("executed")) else done.stderr[-200:] if done.returncode else ""
        yield Trial("names that a shell would execute", failure or (
            "" if "12 prepared" in done.stdout else done.stdout[-200:]))


# --- evaluation -------------------------------------------------------------------------------------------------------
def ranks(job: Job, o) -> Iterator[Trial]:
    """On 1 to 4 ranks, of lists that do not divide, also where a rank gets none: every video once, the same answers."""
    folder = job.folder / "data/toyworld-novel"
    lines = (folder / "val.txt").read_text().splitlines()
    for count in (3, 7, len(lines))[:1 if o.quick else 3]:
        (folder / "few.txt").write_text("\n".join(lines[:count]) + "\n")
        first = None
        for world in (1, 4) if o.quick else (1, 2, 3, 4):
            out = job.folder / f"{count}-{world}.json"
            done = subprocess.run(
                [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(world),
                 "eval.py", "--backbone", "toyworld", "--pretrained", "toyworld", "--data-root", str(folder), "--list",
                 str(folder / "few.txt"), "--workers", str(world % 2), "--threads", "1", "--device", "cpu", "--clips",
                 "2", "--batch", str(3 * world), "--json", str(out)], cwd=ROOT, env=job.environment,
                capture_output=True, text=True)
            what = f"{count} videos on {world} ranks"
            if done.returncode:
                yield Trial(what, done.stderr[-200:])
                continue
            split = json.loads(out.read_text())["splits"][0]
            first = first or split
            counts = split["videos"] == split["decoded"] == len(split["per_video"]) == count
            yield Trial(what, "" if counts and split["per_video"] == first["per_video"] else "other answers")


def batches(job: Job, o) -> Iterator[Trial]:
    """Whatever batch and workers: cosines that differ by at most 1e-5."""
    videos, names, _ = evaluation.dataset("novel", str(job.folder / "data/toyworld-novel"), "val", CPU)
    clip, tokenizer = load_clip("toyworld", "toyworld")
    classes, first, seen = class_embeddings(clip, tokenizer, names), None, []
    model = train.MoTE(clip.visual, train.TemporalTransformer(64, 2), classes, clip.logit_scale, clip.image_mean,
                       clip.image_std)
    plan = evaluation.protocol("novel", videos, names, "", ("{}",), frames=8, resize=model.image_size)
    halves = scoring.half_class_scores
    for size, workers in ((16, 0), (1, 0), (7, 1), (40, 2))[:3 if o.quick else 4]:
        seen.clear()
        with patch.object(scoring, "half_class_scores", lambda c, y: seen.append(c) or halves(c, y)):
            scoring.evaluate(model, videos, classes, CPU, plan, batch=size, workers=workers)
        first = first or [c.clone() for c in seen]
        far = max(float((a - b).abs().max()) for a, b in zip(first, seen))
        yield Trial(f"batch {size}, {workers} workers: {far:.1e}", "" if far <= 1e-5 else "other cosines")
