"""
A run's folder and its log: what was trained on, how it went, where it can go on.

    train.txt val.txt classes.csv     the lists, as mote/datasets/lists.py reads them (--data-root .)
    metrics.jsonl                     one line per evaluation
    step_N.pt last.pt                 the newest checkpoints (mote/runtime/checkpoints.py); last.pt is the newest again
    skipped.txt refused.jsonl         videos and steps that did harm (mote/runtime/guard.py)
    results.json                      the table printed at the end

Only rank 0 writes, skipped.txt excepted. Not part of the paper.
"""
import contextlib
import json
import os
import shutil
import time
from pathlib import Path

import torch

from ..datasets.lists import Videos, write_split
from ..scoring.evaluate import describe
from .checkpoints import read_checkpoint, save_checkpoint
from .log import table
from .ranks import Ranks, from_rank_0


def open_run(ranks: Ranks, out: Path, step: int, train: Videos, val: Videos, classes: list[str]) -> None:
    """Make the folder, keep the lists, and drop the metrics later than the checkpoint which the run goes on from."""
    if not ranks.first:
        return
    out.mkdir(parents=True, exist_ok=True)
    if (out / "train.txt").exists() and not (out / "metrics.jsonl").exists():
        raise ValueError(f"{out} holds a train.txt but no run: a dataset's own lists would be overwritten")
    for part in out.glob(".*.pt.*"):                             # what a kill left of a checkpoint
        part.unlink()
    kept = [line for line in read_metrics(out) if line["step"] <= step]
    part = out / ".metrics.jsonl"                                # renamed when whole: a kill must not cost the history
    part.write_text("".join(f"{json.dumps(line)}\n" for line in kept))
    os.replace(part, out / "metrics.jsonl")                      # before the lists: it says that they are ours
    write_split(out, "train", train, classes)
    write_split(out, "val", val, classes)


def read_metrics(out: Path) -> list[dict]:
    """The evaluations of metrics.jsonl; a line that a kill has cut is left out."""
    lines, file = [], out / "metrics.jsonl"
    for line in file.read_text(errors="replace").splitlines() if file.exists() else ():
        with contextlib.suppress(ValueError):
            lines.append(json.loads(line))
    return [line for line in lines if isinstance(line, dict) and isinstance(line.get("step"), int)
            and isinstance(line.get("data"), str)]


def save(ranks: Ranks, out: Path, keep: int, checkpoint: dict) -> None:
    """step_N.pt and last.pt, one file under two names; of the others all but the newest are deleted. All ranks wait."""
    if ranks.first:
        write(out, keep, checkpoint)
    from_rank_0(None)                                            # a rank that left now would have the others killed


def write(out: Path, keep: int, checkpoint: dict) -> None:
    newest, link = out / f"step_{checkpoint['step']}.pt", out / f".last.pt.{os.getpid()}"
    save_checkpoint(newest, checkpoint)
    try:
        os.link(newest, link)
    except OSError:                                              # a file system without links
        shutil.copyfile(newest, link)
    os.replace(link, out / "last.pt")
    ours = [path for path in out.glob("step_*.pt") if number(path) <= checkpoint["step"]]      # later ones: damaged
    for old in sorted(ours, key=number, reverse=True)[keep:]:
        old.unlink()


def number(path: Path) -> float:
    """The N of step_N.pt; of last.pt, and whatever else, more than any."""
    digits = path.stem.removeprefix("step_")
    return int(digits) if digits.isdecimal() else float("inf")


def newest_checkpoint(out: Path) -> dict | None:
    """The checkpoint with the most steps; damaged files are passed over, saying so; None without one."""
    best = None
    for path in sorted([out / "last.pt", *out.glob("step_*.pt")], key=number, reverse=True):
        if best and number(path) <= best["step"]:
            break
        try:
            best = max(best, read_checkpoint(path), key=lambda checkpoint: checkpoint["step"] if checkpoint else -1)
        except FileNotFoundError:
            continue
        except ValueError as error:
            if os.environ.get("RANK", "0") == "0":
                print(f"passed over: {error}", flush=True)
    return best


def find_run(out: str, resume: str, data: str) -> tuple[Path, dict | None]:
    """The folder of --out and --resume, and the checkpoint to go on from: None for a fresh start, in an empty one.
    Without either, runs/DATA-DATE-TIME.

    Going back to an earlier checkpoint needs a folder of its own: beside the later ones, `auto` could not tell which
    of the two histories to go on with.
    """
    run = Path(out or f"runs/{data}-{time.strftime('%Y%m%d-%H%M%S')}")
    if resume and not out:
        run = Path(resume) if Path(resume).is_dir() else Path(resume).parent
    if out:
        if not resume and run.exists() and not (run.is_dir() and not any(run.iterdir())):
            raise ValueError(f"--out {run} exists and is not an empty folder: choose another, "
                             "or go on with --resume auto")
        run.mkdir(parents=True, exist_ok=True)                   # fails now rather than at the first save
    if not resume:
        return run, None
    resumed = newest_checkpoint(run) if resume == "auto" else read_checkpoint(resume)
    if resumed and (missing := [key for key in ("optimizer", "config", "frames", "untrained") if key not in resumed]):
        raise ValueError(f"--resume {resume}: no {missing[0]} in it; to start from weights alone, use --init")
    if not resumed and any(path.suffix == ".pt" for path in run.glob("[ls]*")):
        raise ValueError(f"--resume auto: there are checkpoints in {run} and none can be read; choose another --out")
    if resumed and resume != "auto" and (newest := newest_checkpoint(run)) and newest["step"] > resumed["step"]:
        raise ValueError(f"--resume {resume}: {run} already goes on to step {newest['step']}; choose another --out")
    return run, resumed


def check_resumed(resumed: dict, **now) -> None:
    """Raise ValueError, naming it, where something that the class embeddings depend on is not the checkpoint's."""
    if "variant" not in now and (variant := resumed["config"].get("variant")):
        raise ValueError(f"--resume: a run of tools/ablations.py {variant}: go on with that")
    for name, value in now.items():
        if resumed.get(name) != value:
            raise ValueError(f"--resume: the checkpoint was trained with another {name}: start a new run")


def restore(optimizer: torch.optim.Optimizer, state: dict) -> None:
    """Load its moments; learning rates and weight decay stay those of the command line. Raises ValueError."""
    if len(state.get("param_groups", ())) != len(optimizer.param_groups):
        raise ValueError("--resume: --clip-lr or --lr is 0 now and was not then, or the other way round")
    for old, new in zip(state["param_groups"], optimizer.param_groups):
        old.update(peak=new["peak"], weight_decay=new["weight_decay"])
    optimizer.load_state_dict(state)


def evaluated(out: Path) -> set[tuple[int, str]]:
    """(step, dataset) of the evaluations that are recorded: a kill after a checkpoint leaves its evaluation to do."""
    return {(line["step"], line["data"]) for line in read_metrics(out)}


def record(ranks: Ranks, out: Path, result: dict) -> dict:
    """Print one evaluation and append it to metrics.jsonl, but for what each video got. -> it"""
    if ranks.first:
        print(f"epoch {result['epoch']}, {describe(result)}", flush=True)
        with open(out / "metrics.jsonl", "a") as file:
            file.write(json.dumps({key: value for key, value in result.items() if key != "per_video"}) + "\n")
    return result


def finish(ranks: Ranks, out: Path, untrained: dict[str, float], results: dict[str, dict]) -> dict:
    """Print and keep the table: top-1 of the untrained CLIP, the trained model, the same with modulation. -> rows"""
    rows = {"untrained CLIP, frames averaged": untrained,
            "trained": {name: result["plain"]["top1"] for name, result in results.items()},
            "trained, with modulation": {name: result["modulated"]["top1"] for name, result in results.items()}}
    if ranks.first:
        print(f"\n{table(rows)}")
        for name, result in results.items():
            if result["failed"]:
                print(f"{name}: of {result['decoded']} videos; {len(result['failed'])} more could not be decoded")
        (out / "results.json").write_text(json.dumps(rows, indent=1) + "\n")
    return rows


