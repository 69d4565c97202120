"""
A run's folder and its log: what was trained on, how it went, where it can go on.

    train.txt val.txt classes.csv     the lists, as mote/lists.py reads them (--data-root .)
    metrics.jsonl                     one line per evaluation
    step_N.pt last.pt                 checkpoints (mote/checkpoint.py)
    results.json                      the table printed at the end

Only rank 0 writes. Not part of the paper.
"""
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from .checkpoint import read_checkpoint
from .lists import Videos, write_split
from .processes import Process, total


def open_run(out: Path, step: int, train: Videos, val: Videos, classes: list[str]) -> None:
    """Make the folder, keep the lists, and drop the metrics later than the checkpoint which the run goes on from."""
    out.mkdir(parents=True, exist_ok=True)
    if (out / "train.txt").exists() and not (out / "metrics.jsonl").exists():
        raise ValueError(f"{out} holds a train.txt but no run: a dataset's own lists would be overwritten")
    write_split(out, "train", train, classes)
    write_split(out, "val", val, classes)
    metrics = out / "metrics.jsonl"
    lines = metrics.read_text().splitlines() if metrics.exists() else []
    kept = [line for line in lines if line.endswith("}") and json.loads(line)["step"] <= step]      # a kill cuts a line
    metrics.write_text("".join(f"{line}\n" for line in kept))


def newest_checkpoint(out: Path) -> dict | None:
    """The checkpoint with the most steps among last.pt and step_N.pt, damaged files passed over; None without one."""
    best = None
    for path in [out / "last.pt", *sorted(out.glob("step_*.pt"))]:
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
    if resumed and "optimizer" not in resumed:
        raise ValueError(f"--resume {resume}: no optimizer in it; to start from weights alone, use --init")
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


def restore_optimizer(optimizer: torch.optim.Optimizer, state: dict) -> None:
    """Load its moments; learning rates and weight decay stay those of the command line. Raises ValueError."""
    if len(state.get("param_groups", ())) != len(optimizer.param_groups):
        raise ValueError("--resume: --clip-lr or --lr is 0 now and was not then, or the other way round")
    for old, new in zip(state["param_groups"], optimizer.param_groups):
        old.update(peak=new["peak"], weight_decay=new["weight_decay"])
    optimizer.load_state_dict(state)


def header(process: Process, dtype: str, config: dict, optimizer: torch.optim.Optimizer, untrained: dict) -> str:
    """The first lines of a log: versions, device, configuration, parameter counts, where the untrained CLIP stands."""
    parts = ", ".join(f"{sum(p.numel() for p in g['params']) / 1e6:.2f} M at peak lr {g['peak']:g}"
                      for g in optimizer.param_groups)
    return (f"torch {torch.__version__}, {process.world} x {process.device.type}, {torch.get_num_threads()} threads, "
            f"{dtype}\nconfig {json.dumps(config)}\ntrained parameters: {parts}\nuntrained CLIP, top-1: "
            + ", ".join(f"{name} {top1:.1f}" for name, top1 in untrained.items()))


def record(out: Path, result: dict) -> None:
    """Append one evaluation to metrics.jsonl, but for what each video got."""
    with open(out / "metrics.jsonl", "a") as file:
        file.write(json.dumps({key: value for key, value in result.items() if key != "per_video"}) + "\n")


def table(rows: dict[str, dict[str, float]]) -> str:
    """Top-1 by model (row) and dataset (column), as text."""
    sets = list(next(iter(rows.values())))
    width = max(len(name) for name in sets) + 2
    head = f"{'top-1, per cent':34s}" + "".join(f"{name:>{width}s}" for name in sets)
    body = [f"{row:34s}" + "".join(f"{top1[name]:{width}.1f}" for name in sets) for row, top1 in rows.items()]
    return "\n".join([head, *body])


class Meter:
    """Means of the three losses, clips/s and the share of time spent waiting for data, since it was last read."""

    def __init__(self, device: torch.device, world: int):
        self.world, self.losses = world, torch.zeros(3, device=device)
        self.restart()

    def restart(self) -> None:
        self.losses.zero_()
        self.passes, self.clips, self.waited, self.since = 0, 0, 0.0, time.perf_counter()

    def wait_for(self, stream: Iterator[dict]) -> dict:
        """The next batch; the time it takes to come is time that the model stood still."""
        asked = time.perf_counter()
        batch = next(stream)
        self.waited += time.perf_counter() - asked
        return batch

    def add(self, losses: tuple[Tensor, ...], clips: int) -> None:
        """One micro-batch: its losses (kept on the device: reading them would wait for it) and its size."""
        self.losses += torch.stack(losses).detach()
        self.passes, self.clips = self.passes + 1, self.clips + clips

    def read(self) -> tuple[list[float], str]:
        """The mean losses over all ranks, and "clips/s, data wait" of this rank times the ranks."""
        means = (total(self.losses.clone()) / (self.passes * self.world)).tolist()
        seconds = time.perf_counter() - self.since
        return means, f"{self.clips * self.world / seconds:.0f} clips/s  data wait {100 * self.waited / seconds:.0f} %"
