"""
A run's folder: what was trained on, how it went, and where it can go on.

    train.txt val.txt classes.csv     the lists, as mote/datasets reads them (--data-root .)
    config.json                       all options, of the newest start
    metrics.jsonl                     one line per evaluation
    log.jsonl                         one line per line of the log
    step_N.pt last.pt                 the newest checkpoints; last.pt is the newest again
    best.pt best.json                 with --keep-best: see best.py
    skipped.txt refused.jsonl         two trouble logs: skipped videos and refused steps
    results.json                      the table printed at the end

Only rank 0 writes, except for skipped.txt. Not part of the paper.
"""
import contextlib
import json
import os
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import nn

from ..clip_backbone import clip_config, text_hash
from ..datasets.dataset import Dataset, list_hash
from ..datasets.lists import Videos, write_split
from .best import forget_best
from .checkpoints import check_weights, name_again, pixels_of, read_checkpoint, save_checkpoint
from .guard import Guard
from .log import Meter, table
from .ranks import Ranks, from_rank_0

LISTS = ("train.txt", "train.csv", "train.json", "val.txt", "val.csv", "val.json", "classes.csv")
LOCK = ".lock"
LOCKS: dict[Path, int] = {}                                      # folder -> its lock, held open
RESUMABLE = ("optimizer", "config", "frames", "untrained")       # what weights alone do not have


# --- where a run lies, and what it goes on from --------------------------------------------------
@dataclass(frozen=True)
class Start:
    """A run's folder, and the checkpoint that it goes on from or takes its first weights from."""
    out: Path
    resumed: dict | None = None
    initial: dict | None = None

    @property
    def step(self) -> int:
        """Steps that were made before."""
        return self.resumed["step"] if self.resumed else 0


def find_start(out: str, resume: str, init: str, data: str) -> Start:
    """What --out, --resume and --init ask for. Raises ValueError or OSError.

    Without --out and --resume the folder is runs/DATA-DATE-TIME. A fresh start wants an empty
    folder. Going back to an earlier checkpoint wants a folder of its own: beside the later ones,
    `auto` could not tell which of the two histories to go on with.
    """
    if resume == "auto" and not out:
        raise ValueError("--resume auto needs --out, the folder to look in")
    if resume and init:
        raise ValueError("--init is where a run starts and --resume where it goes on: give one")
    run = folder_of_run(out, resume, data)
    if out:
        if not resume and run.exists() and not is_empty_folder(run):
            raise ValueError(f"--out {run} exists and is not an empty folder: choose another, "
                             "or go on with --resume auto")
        run.mkdir(parents=True, exist_ok=True)                   # fails now, not at the first save
    if resume and resume != "auto":
        start = Start(run, resumed=resume_from(resume, run))
        take(run)
        return start
    if run.is_dir():
        take(run)
    if resume:
        return Start(run, resumed=resume_newest(run))
    return Start(run, initial=read_checkpoint(init) if init else None)


def folder_of_run(out: str, resume: str, data: str) -> Path:
    """The folder of a run: --out, else the one that --resume lies in, else a new name by date.

    Nothing is made here: a mistake in another option must not leave an empty folder behind.
    """
    if out:
        return Path(out)
    if resume:
        return Path(resume) if Path(resume).is_dir() else Path(resume).parent
    return Path(f"runs/{data}-{time.strftime('%Y%m%d-%H%M%S')}")


def take(run: Path) -> None:
    """Make sure that a folder is a run's, or can become one, and hold it. Raises ValueError."""
    check_ours(run)
    if os.environ.get("RANK", "0") == "0":
        hold(run)


def hold(run: Path) -> None:
    """Keep the folder for this process, until it ends. Raises ValueError where another one has it.

    Two runs in one folder would mix their histories and remove each other's files. A lock of POSIX:
    the loader's workers do not inherit it, and a kill leaves none behind. Where the file system or
    the system has no locks, nothing is held.
    """
    try:
        import fcntl
        if run in LOCKS:                                         # an earlier run of this process
            os.close(LOCKS.pop(run))
        LOCKS[run] = os.open(run / LOCK, os.O_CREAT | os.O_WRONLY)
        fcntl.lockf(LOCKS[run], fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ValueError(f"--out {run}: another run is writing there; wait for its end, or choose "
                         "another --out") from None
    except (ImportError, OSError):
        return


def check_ours(run: Path) -> None:
    """Raise ValueError for a folder with lists but no run: a dataset's own would be overwritten.

    A run's metrics are written before its lists, so a kill never leaves such a folder.
    """
    lists = [file.name for file in run.glob("*.*") if file.name in LISTS]
    if lists and not (run / "metrics.jsonl").exists():
        raise ValueError(f"{run} holds a list ({lists[0]}) but no run: "
                         "a dataset's own lists would be overwritten; choose another --out")


def is_empty_folder(path: Path) -> bool:
    """False for a file too: --out must not name one."""
    return path.is_dir() and all(file.name == LOCK for file in path.iterdir())


def resume_newest(run: Path) -> dict | None:
    """--resume auto: the newest checkpoint of the folder that can be read; None if it has none.

    None means a fresh start, so the same command serves for the first start and every restart.
    Raises ValueError where checkpoints exist and none can be read: a fresh start would write over
    files that may still be rescued.
    """
    resumed = newest_checkpoint(run)
    if resumed:
        check_resumable(resumed, "auto")
    elif any(path.suffix == ".pt" for path in run.glob("[bls]*")):
        raise ValueError(f"--resume auto: there are checkpoints in {run} and none can be read; "
                         "choose another --out")
    return resumed


def resume_from(resume: str, run: Path) -> dict:
    """--resume FILE: that checkpoint, unless the folder already holds a later one.

    Raises FileNotFoundError or ValueError, one line each.
    """
    resumed = read_checkpoint(resume)
    check_resumable(resumed, resume)
    newest = newest_checkpoint(run)
    if newest and newest["step"] > resumed["step"]:
        raise ValueError(f"--resume {resume}: {run} already goes on to step {newest['step']}; "
                         "choose another --out")
    return resumed


def check_resumable(checkpoint: dict, resume: str) -> None:
    """Raise ValueError for a checkpoint of weights alone, such as one converted from the authors'.

    Without AdamW's moments it could not go on bit for bit. resume: the option, for the message.
    """
    missing = [key for key in RESUMABLE if key not in checkpoint]
    if missing:
        raise ValueError(f"--resume {resume}: no {missing[0]} in it; "
                         "to start from weights alone, use --init")


def newest_checkpoint(out: Path) -> dict | None:
    """The checkpoint with the most steps, or None. Damaged files are passed over, and named.

    last.pt is read first, for it is nearly always the newest. The others are read from the latest
    step down, and only while their name promises more steps than the best one so far. best.pt is
    read where nothing else is left.
    """
    best = None
    paths = sorted([out / "last.pt", *out.glob("step_*.pt")], key=number, reverse=True)
    for path in [*paths, out / "best.pt"]:
        if best and (number(path) <= best["step"] or path.name == "best.pt"):
            break
        try:
            checkpoint = read_checkpoint(path)
        except FileNotFoundError:        # most often a folder without last.pt
            continue
        except ValueError as error:
            if os.environ.get("RANK", "0") == "0":
                print(f"passed over: {error}", flush=True)
            continue
        if best is None or checkpoint["step"] > best["step"]:
            best = checkpoint
    return best


def number(path: Path) -> float:
    """The N of step_N.pt; infinity for last.pt and any other name."""
    digits = path.stem.removeprefix("step_")
    return int(digits) if digits.isdecimal() else float("inf")


# --- going on from a checkpoint ------------------------------------------------------------------
SHARED = ("classes", "templates", "text_hash", "batch", "list of videos")


def describe_run(config: dict, clip: nn.Module, templates: list[str], train: Dataset,
                 drawn: Videos, val: Dataset) -> dict:
    """What a checkpoint says of its run beside the weights. A dict of builtins.

    config: the options, as a dict. drawn: the training videos in use, fewer than train.videos with
    --shots. A resumed run must agree with its checkpoint in the entries named in SHARED.
    "frames" and "batch" stand beside "config" too, since eval.py and `check_resumed` read them.
    """
    return {"config": config, "frames": config["frames"], "batch": config["batch"],
            "clip": describe_clip(clip, config),
            "classes": train.classes, "templates": templates, "text_hash": text_hash(clip),
            "list of videos": [list_hash(drawn), list_hash(val.videos)]}


def describe_clip(clip: nn.Module, config: dict) -> dict:
    """Where a CLIP came from, and what is needed to build its visual tower anew.

    config: the options, as a dict; those that `load_clip` takes are kept. The description is kept
    in full, not by name alone: `load_model` then builds the tower without the file or folder of
    --backbone, and without a download of the original weights.
    """
    named = {name: config[name] for name in ("backbone", "pretrained", "as_tag", "tokenizer")}
    return {**named, "config": clip_config(config["backbone"]), **asdict(clip.pixels)}


def check_resumed(resumed: dict, **now) -> None:
    """Raise ValueError, naming it, where a resumed run would be another run.

    now: what a run and its checkpoint must share, such as the classes and the templates. A run of
    an ablation goes on as that ablation alone.
    """
    variant = resumed["config"].get("variant")
    if variant and "variant" not in now:
        raise ValueError(f"--resume: a run of tools/ablations.py {variant}: go on with that")
    for name, value in now.items():
        before = resumed.get(name)
        if before != value:
            values = f" ({before}, now {value})" if isinstance(value, int | float) else ""
            raise ValueError(f"--resume: the checkpoint was trained with another {name}{values}: "
                             "give the same, or start a new run")


def check_statistics(before: dict, now: dict) -> None:
    """Raise ValueError where a resumed run would normalise its frames otherwise than before.

    before, now: the entry "clip" of a checkpoint. A file of weights does not say its mean and std,
    so the same options may have found others. How test frames are resized may change: `Benchmark`
    then tests untrained CLIP anew.
    """
    trained = pixels_of(before)
    here = pixels_of(now)
    if (trained.mean, trained.std) != (here.mean, here.std):
        raise ValueError(f"--resume: the checkpoint was trained with mean {trained.mean} and std "
                         f"{trained.std} of pixels, now {here.mean} and {here.std}: give --as-tag "
                         "of weights that have the former, or start a new run")


def check_start(start: Start, about: dict, last_step: int) -> None:
    """Raise ValueError where --resume cannot go on: another run, or one that is past its end.

    about: of this run, from `describe_run`. last_step: the steps that --epochs asks for. A step
    equal to last_step is allowed: only the last evaluation may be left to do.
    """
    if start.resumed:
        check_resumed(start.resumed, **{name: about[name] for name in SHARED})
        check_statistics(start.resumed["clip"], about["clip"])
    if start.initial and os.environ.get("RANK", "0") == "0":
        for change in changes_from(start.initial, about):
            print(f"--init: {change}: the training has to make up for it")
    if start.step > last_step:
        raise ValueError(f"--resume: step {start.step} of the checkpoint is past the {last_step} "
                         f"steps of --epochs {about['config']['epochs']}")


def changes_from(initial: dict, about: dict) -> list[str]:
    """Words for what --init's weights were trained with and this run has not: pixels, text tower.

    Neither is refused: a training adapts to it. The authors' checkpoints name no text tower.
    """
    changes = []
    trained = pixels_of(initial["clip"])
    here = pixels_of(about["clip"])
    if (trained.mean, trained.std) != (here.mean, here.std):
        changes.append(f"trained on pixels with {trained}, now {here}")
    if initial.get("text_hash", about["text_hash"]) != about["text_hash"]:
        changes.append("trained towards the class embeddings of another text tower")
    return changes


def agree_on_start(start: Start) -> Start:
    """The same start with rank 0's folder, on all ranks. All ranks must call it.

    The name runs/DATA-DATE-TIME may differ by a second between ranks. Raises ValueError where a
    rank would start at another step, as on machines that do not share a disk.
    """
    first = from_rank_0(start.step)
    if first != start.step:
        raise ValueError(f"--resume: rank 0 found a checkpoint of step {first}, this one "
                         f"{start.step}: they must share --out")
    return replace(start, out=from_rank_0(start.out))


def weights_to_start_from(model: nn.Module, start: Start) -> dict | None:
    """The state dict of --resume or --init, checked against the model; None for random weights.

    The classes are those of this run's dataset, whatever --init was fine-tuned on.
    """
    if start.resumed:
        state = start.resumed["model"]
    elif start.initial:
        state = {**start.initial["model"], "finetune_classes": model.finetune_classes}
    else:
        return None
    check_weights(model, state)
    return state


def load_start(model: nn.Module, optimizer: torch.optim.Optimizer, weights: dict | None,
               start: Start) -> None:
    """Load the weights, and in a resumed run the optimiser's moments.

    weights: of `weights_to_start_from`. Checking and loading are apart because the untrained CLIP
    is scored in between, in the tower that these weights replace.
    """
    if weights:
        model.load_state_dict(weights)
    if start.resumed:
        restore(optimizer, start.resumed["optimizer"])


def restore(optimizer: torch.optim.Optimizer, state: dict) -> None:
    """Load AdamW's moments; peak rates and weight decay stay the command line's.

    Raises ValueError for another number of parameter groups: what was frozen in one of the two
    runs, the tower or the temporal transformer, has no group there. Changes `state` in place.
    """
    if len(state.get("param_groups", ())) != len(optimizer.param_groups):
        raise ValueError("--resume: --clip-lr or --lr is 0 now and was not then, "
                         "or the other way round")
    for old, new in zip(state["param_groups"], optimizer.param_groups):
        old.update(name=new["name"], peak=new["peak"], weight_decay=new["weight_decay"])
    optimizer.load_state_dict(state)


# --- what is written -----------------------------------------------------------------------------
def open_run(ranks: Ranks, start: Start, train: Videos, val: Videos, classes: list[str],
             config: dict) -> None:
    """Make the folder, write options and lists, and drop what is recorded of after the start.

    A run that goes on from step N measures again what came after N, so those lines go, of
    metrics.jsonl and of log.jsonl. config: the options, as a dict.
    """
    if not ranks.first:
        return
    out = start.out
    out.mkdir(parents=True, exist_ok=True)
    for part in out.glob(".*.pt.*"):                             # what a kill left of a checkpoint
        part.unlink()
    # Metrics are written before the lists, because a folder that has them is ours, and its lists
    # may be overwritten at the next start.
    cut(out / "metrics.jsonl", read_metrics(out), start.step)
    cut(out / "log.jsonl", read_log(out), start.step)
    forget_best(out, start.step)
    (out / "results.json").unlink(missing_ok=True)               # of an earlier end: it comes again
    (out / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    write_split(out, "train", train, classes)
    write_split(out, "val", val, classes)


def cut(file: Path, lines: list[dict], step: int) -> None:
    """Write those of the lines that are not of after a step. A kill must not cost the history."""
    part = file.with_name(f".{file.name}")                       # renamed when whole
    part.write_text("".join(f"{json.dumps(line)}\n" for line in lines if line["step"] <= step))
    os.replace(part, file)


def read_metrics(out: Path) -> list[dict]:
    """The evaluations of metrics.jsonl, oldest first; [] without a file.

    A line that a kill has cut is left out. Its evaluation then counts as not done.
    """
    lines = read_lines(out / "metrics.jsonl")
    return [line for line in lines if isinstance(line.get("data"), str)]


def read_log(out: Path) -> list[dict]:
    """What log.jsonl has of each line of the log, oldest first; [] without a file."""
    lines = read_lines(out / "log.jsonl")
    return [line for line in lines if isinstance(line.get("epoch"), float)]


def read_lines(file: Path) -> list[dict]:
    """The lines that have a step. One that a kill has cut is left out, though it may be json."""
    if not file.exists():
        return []
    lines = []
    for text in file.read_text(errors="replace").splitlines():
        with contextlib.suppress(ValueError):
            lines.append(json.loads(text))
    return [line for line in lines if isinstance(line, dict) and isinstance(line.get("step"), int)]


def evaluated(out: Path) -> set[tuple[int, str]]:
    """(step, dataset) of the recorded evaluations: a kill after a checkpoint leaves some to do."""
    return {(line["step"], line["data"]) for line in read_metrics(out)}


def record(ranks: Ranks, out: Path, result: dict) -> None:
    """Append one evaluation to metrics.jsonl, without the answers for each video.

    They are thousands per evaluation; eval.py --json writes them for any checkpoint.
    """
    if ranks.first:
        kept = {key: value for key, value in result.items() if key != "per_video"}
        with open(out / "metrics.jsonl", "a") as file:
            file.write(json.dumps(kept) + "\n")


def save(ranks: Ranks, out: Path, keep: int, step: int, model: nn.Module,
         optimizer: torch.optim.Optimizer, meter: Meter, guard: Guard, about: dict) -> None:
    """Write step_N.pt and last.pt; keep the newest `keep` files. All ranks call it.

    step: how many are done. about: what `describe_run` says. The losses since the last log line
    and the known broken videos are kept too, so that a resumed run prints the log it would have.
    """
    losses = meter.state()                  # gathered: before the branch that rank 0 alone takes
    if ranks.first:
        checkpoint = {"model": model.state_dict(), "optimizer": optimizer.state_dict(),
                      "step": step, "meter": losses, "undecodable": guard.bad.known, **about,
                      "torch": str(torch.__version__)}
        write(out, keep, checkpoint)
    from_rank_0(None)                       # a rank that left now would have the others killed


def write(out: Path, keep: int, checkpoint: dict) -> None:
    """One file under two names. A kill at any moment leaves the old pair or the new one.

    A hard link costs no space. Old files are removed only when the new ones are in place.
    """
    newest = out / f"step_{checkpoint['step']}.pt"
    save_checkpoint(newest, checkpoint)
    name_again(newest, out / "last.pt")
    # Files of later steps are damaged ones, which this run has passed over: they are left alone.
    ours = [path for path in out.glob("step_*.pt") if number(path) <= checkpoint["step"]]
    for old in sorted(ours, key=number, reverse=True)[keep:]:
        old.unlink()


def finish(ranks: Ranks, out: Path, untrained: dict[str, float], results: dict[str, dict]) -> dict:
    """Print the table of top-1 in per cent and write results.json. -> {model: {dataset: top-1}}

    untrained: {dataset: top-1} of CLIP with its frames averaged. results: {dataset: what `evaluate`
    gives}. Top-1 is of the videos that could be decoded; how many could not is printed below.
    """
    trained = {name: result["plain"]["top1"] for name, result in results.items()}
    modulated = {name: result["modulated"]["top1"] for name, result in results.items()}
    rows = {"untrained CLIP, frames averaged": untrained,
            "trained": trained,
            "trained, with modulation": modulated}
    ranks.say(f"\n{table(rows)}")
    for name, result in results.items():
        if result["failed"]:
            ranks.say(f"{name}: of {result['decoded']} videos; "
                      f"{len(result['failed'])} more could not be decoded")
    if ranks.first:
        (out / "results.json").write_text(json.dumps(rows, indent=1) + "\n")
    return rows
