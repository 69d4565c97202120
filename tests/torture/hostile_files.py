"""
Hostile files: nothing from a checkpoint or a cache is executed; no shell sees a file's name.
"""
import contextlib
import io
import subprocess
import sys
import tempfile
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import torch
from torture.job import ROOT, Job, Trial

import eval as evaluation
import train
from mote import toyworld
from mote.clip_backbone import class_embeddings, load_clip


class Hostile:
    """Unpickled without care, it makes a file."""

    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self):
        return Path.touch, (self.marker,)


def security(job: Job, options: Namespace) -> Iterator[Trial]:
    """Hostile checkpoints, a hostile cache, and file names that a shell would execute.

    Whatever is executed makes a file named like the marker.
    """
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        marker = folder / "executed"
        toyworld.generate(folder / "data/toyworld", "toyworld", clips={"train": 1, "val": 1})
        yield from hostile_checkpoints(folder, marker)
        yield hostile_cache(folder / "cache", marker)
        yield hostile_names(folder, marker)


def hostile_checkpoints(folder: Path, marker: Path) -> Iterator[Trial]:
    """Each way that a checkpoint comes into train.py and eval.py: refused in one line.

    The file is hostile as a whole, or in the weights of what looks like a checkpoint.
    """
    contents = {"pickle.pt": Hostile(marker), "dict.pt": {"model": Hostile(marker), "step": 0}}
    toy = ["--data-root", f"{folder}/data/toyworld", "--workers", "0", "--threads", "1"]
    clip = ["--backbone", "toyworld", "--pretrained"]
    for name, content in contents.items():
        file = f"{folder}/{name}"
        torch.save(content, file)
        # As weights to start from, as a run to go on with, as CLIP, as what is evaluated.
        calls = [(train, ["--init", file, "--out", f"{folder}/run", *clip, "toyworld"]),
                 (train, ["--resume", file, "--out", f"{folder}/run2", *clip, "toyworld"]),
                 (train, [*clip, file, "--out", f"{folder}/run3"]),
                 (evaluation, ["--checkpoint", file]),
                 (evaluation, [*clip, file])]
        for script, flags in calls:
            failure = not_refused(script, [*toy, *flags])
            if marker.exists():
                failure = "executed"
            yield Trial(f"{script.__name__} {flags[0]} {name}", failure)


def not_refused(script: ModuleType, flags: list[str]) -> str:
    """What a script says, in place of one line and exit status 2."""
    errors = io.StringIO()
    status = 0
    with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO()):
        try:
            script.main(flags)
        except SystemExit as ended:
            status = ended.code

    text = errors.getvalue()
    lines = text.strip().splitlines()
    return "" if status == 2 and len(lines) == 1 else text[-200:]


def hostile_cache(cache: Path, marker: Path) -> Trial:
    """A cache of class embeddings that is hostile is not believed, but made anew."""
    clip, tokenizer = load_clip("toyworld", "toyworld")
    right = class_embeddings(clip, tokenizer, ["star"], cache=cache)
    file, = cache.iterdir()
    torch.save(Hostile(marker), file)
    again = class_embeddings(clip, tokenizer, ["star"], cache=cache)

    failure = "" if torch.equal(again, right) else "believed"
    return Trial("cache", "executed" if marker.exists() else failure)


def hostile_names(folder: Path, marker: Path) -> Trial:
    """tools/prepare.py, which calls ffmpeg, on videos whose names are commands.

    Some are commands of a shell; one would be a flag of ffmpeg; one has quotes and a space.
    """
    names = (f"$(touch {marker.name}).mp4", f"`touch {marker.name}`.mp4",
             f"; touch {marker.name} #.mp4", "-y.mp4", "a 'b' \"c\".mp4", "|touch executed.mp4")
    # Two videos of each class: one cannot be split into train and val.
    source = folder / "shell"
    video = next((folder / "data/toyworld/videos").iterdir()).read_bytes()
    for label, name in enumerate(names):
        of_class = source / f"class{label}"
        of_class.mkdir(parents=True)
        (of_class / name).write_bytes(video)
        (of_class / f"{name[:-4]} 2.mp4").write_bytes(video)

    command = [sys.executable, str(ROOT / "tools/prepare.py"), str(source), f"{folder}/prepared",
               "--jobs", "1", "--measure", "0"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if any(folder.rglob("executed")):
        failure = "executed"
    elif done.returncode:
        failure = done.stderr[-200:]
    else:
        failure = "" if "12 prepared" in done.stdout else done.stdout[-200:]
    return Trial("names that a shell would execute", failure)
