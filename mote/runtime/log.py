"""
What a run prints: its header, a line every so many steps, the table at its end. log.jsonl keeps
the lines.

The losses come by name, as train.py's `Objective` returns them: this file knows none of them.
Not part of the paper.
"""
import json
import math
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch

from ..data import MicroBatches
from ..datasets.dataset import Dataset
from .precision import dtype_for
from .progress import duration, progress
from .ranks import Ranks, gather
from .recipes import in_proportion

FIRST_LOSSES = ("L_TE", "L_WMR", "L_MSE")       # of checkpoints that kept them in a list


def header(ranks: Ranks, beside: str, about: dict, optimizer: torch.optim.Optimizer, train: Dataset,
           drawn: int, batches: MicroBatches, out: Path) -> str:
    """The first lines of a log: versions, device, options, sizes, untrained CLIP's top-1.

    beside: the options that are not the recipe's; all are in config.json. about: what a checkpoint
    says of the run. drawn: how many of the training videos are used. Together with the data, this
    is what somebody needs to repeat the run.
    """
    config = about["config"]
    trained = []
    for group in optimizer.param_groups:
        millions = sum(parameter.numel() for parameter in group["params"]) / 1e6
        trained.append(f"{group['name']} {millions:.2f} M at peak lr {group['peak']:g}")
    scores = [f"{name} {top1:.1f}" for name, top1 in about["untrained"].items()]
    videos = f"{drawn} training videos"
    if drawn < len(train.videos):
        videos += f" repeated to {len(train.videos)}"                         # Appendix B
    return "\n".join([
        f"torch {torch.__version__}, {ranks.world_size} x {ranks.device.type}, "
        f"{torch.get_num_threads()} threads, {dtype_for(ranks.device, config['precision'])}",
        f"differs from the recipe: {beside or 'nothing'} (all options: {out / 'config.json'})",
        f"trained parameters: {', '.join(trained)}; "
        f"warm-up {config['warmup']:g} of {config['epochs']} epochs{in_proportion(config)}",
        f"untrained CLIP, top-1: {', '.join(scores)}",
        f"{train.name}: {videos}, {len(train.classes)} classes, {batches.steps_per_epoch} steps "
        f"per epoch, from step {batches.start}; run folder {out}"])


class TimeLeft:
    """Seconds that the rest of a run takes, from what it has taken since this process began.

    Steps and evaluations count apart, for they take turns. An evaluation is expected to take as
    long as the last one of its dataset; one that this process has not made yet counts nothing.
    """

    def __init__(self, batches: MicroBatches, eval_every: int, benchmark):
        """eval_every: epochs. benchmark: scoring's Benchmark, which knows what its tests took."""
        self.batches = batches
        self.eval_every = eval_every * batches.steps_per_epoch
        self.benchmark = benchmark
        self.began = time.perf_counter()
        self.tested_before = benchmark.seconds_in_all

    def __call__(self, done: int) -> float:
        """done: the number of the last step that was made. NaN before this process has made one."""
        made = done - self.batches.start
        if made == 0:
            return math.nan
        tested = self.benchmark.seconds_in_all - self.tested_before
        stepping = time.perf_counter() - self.began - tested

        # Still to come: the test after this step, those in between, and the one of all datasets.
        seconds = self.benchmark.seconds
        first = next(iter(self.benchmark.datasets))
        stop = self.batches.stop
        tests = (stop - 1) // self.eval_every - (done - 1) // self.eval_every
        testing = tests * seconds.get(first, 0.0) + sum(seconds.values())
        return stepping / made * (stop - done) + testing


class Log:
    """The log of a training: printed, kept in log.jsonl, and shown to TensorBoard if asked for.

    What log.jsonl has is not the same in each run: speeds are in it. metrics.jsonl is the record
    that a resumed run repeats to the byte.
    """

    def __init__(self, ranks: Ranks, out: Path, batches: MicroBatches,
                 optimizer: torch.optim.Optimizer, benchmark, eval_every: int):
        """benchmark: scoring's Benchmark, for the time left and its board. eval_every: epochs."""
        self.ranks = ranks
        self.file = out / "log.jsonl"
        self.batches = batches
        self.optimizer = optimizer
        self.time_left = TimeLeft(batches, eval_every, benchmark)
        self.board = benchmark.board

    def bar(self, steps: range) -> Iterable[int]:
        """The steps, of which the last is one that only tests, with a bar."""
        return progress(steps, "training", self.batches.stop, self.ranks.first, steps.start,
                        self.time_left)

    def add(self, step: int, loss: float, terms: dict[str, float], speed: dict[str, float]) -> None:
        """A line. step: how many are done. loss: the weighted sum of the terms, {name: mean}.

        speed: of `Meter.read`. The rates are those of the last step.
        """
        if not terms:                              # before the first step that was not refused
            loss = math.nan
        rates = {group["name"]: group["lr"] for group in self.optimizer.param_groups}
        epoch = step / self.batches.steps_per_epoch
        left = duration(self.time_left(step))
        self.ranks.say(log_line(step, self.batches.stop, epoch, loss, terms, rates, speed, left))
        if not self.ranks.first:
            return

        named_rates = {f"lr_{name}": rate for name, rate in rates.items()}
        scalars = {"loss": loss, **terms, **named_rates, **speed}
        scalars = {name: number for name, number in scalars.items() if math.isfinite(number)}
        with open(self.file, "a") as lines:
            lines.write(json.dumps({"step": step, "epoch": epoch, **scalars}) + "\n")
        self.board.add(step, scalars)


def log_line(step: int, stop: int, epoch: float, loss: float, terms: dict[str, float],
             rates: dict[str, float], speed: dict[str, float], left: str) -> str:
    """One line of the log, as docs/reliability.md explains it.

    rates: CLIP's, then the temporal transformer's; a frozen part has none. left: a duration.
    """
    means = "  ".join(f"{name} {mean:.3f}" for name, mean in terms.items())
    lr = "/".join(f"{rate:.1e}" for rate in rates.values())
    return (f"step {step}/{stop}  epoch {epoch:.2f}  loss {loss:.3f}  {means}  lr {lr}  "
            f"{speed['clips_per_second']:.0f} clips/s  "
            f"data wait {100 * speed['data_wait']:.0f} %  left {left}")


def table(rows: dict[str, dict[str, float]]) -> str:
    """Top-1 in per cent by model (row) and dataset (column), as text.

    Every row has the same datasets. A column is as wide as the longest dataset's name.
    """
    names = list(next(iter(rows.values())))
    width = max(len(name) for name in names) + 2
    lines = [f"{'top-1, per cent':34s}" + "".join(f"{name:>{width}s}" for name in names)]
    for row, top1 in rows.items():
        lines.append(f"{row:34s}" + "".join(f"{top1[name]:{width}.1f}" for name in names))
    return "\n".join(lines)


class Meter:
    """Means of the losses, clips/s and the share of time spent waiting, since they were read.

    A rank sums its own losses; ranks exchange them only in `state` and `read`, not at each step.
    passes counts the micro-batches of all ranks that had a loss: each has the same number of clips,
    so a mean over passes is a mean over clips. It is counted by name, since a resumed run may have
    a loss that its checkpoint had not. Refused steps are not added.
    """

    def __init__(self, ranks: Ranks, resumed: dict | None = None):
        """resumed: a checkpoint, with what `state` gave it: the means go on from there."""
        state = loss_state(resumed)
        self.world_size = ranks.world_size
        self.passes = dict(state["passes"])
        self.means = state["means"]
        self.sums = dict(state["sums"]) if ranks.first else {}                # of all ranks
        self.restart()

    def restart(self) -> None:
        """Set the clock to 0: evaluating does not count as training time. Saving does."""
        self.clips = 0
        self.waited = 0.0
        self.since = time.perf_counter()

    def wait_for(self, stream: Iterator[dict]) -> dict:
        """The next batch of a stream. Until it comes, the model stands still: "data wait"."""
        asked = time.perf_counter()
        batch = next(stream)
        self.waited += time.perf_counter() - asked
        return batch

    def add(self, losses: list[dict[str, float]], clips: int) -> None:
        """Add a step: the losses of each of its micro-batches, and its clips, on this rank.

        Every micro-batch has the same names.
        """
        for name in losses[0]:
            column = [one[name] for one in losses]
            # fsum: float32 numbers add up to the same, in whatever order they come.
            self.sums[name] = math.fsum([self.sums.get(name, 0.0), *column])
            self.passes[name] = self.passes.get(name, 0) + len(losses) * self.world_size
        self.clips += clips

    def state(self) -> dict:
        """Sums and means of all ranks, for a checkpoint. All ranks must call it.

        It changes nothing, so that saving does not alter what the next log line says.
        """
        everyones = gather([self.sums])
        # A dict, not a set: the losses keep the order in which train.py names them.
        names: dict[str, None] = {}
        for sums in everyones:
            names |= dict.fromkeys(sums)
        sums = {name: math.fsum(one.get(name, 0.0) for one in everyones) for name in names}
        return {"sums": sums, "passes": dict(self.passes), "means": self.means}

    def read(self) -> tuple[dict[str, float], dict[str, float]]:
        """The means over all ranks, and the speed; then begin anew. All ranks call it.

        The speed is {"clips_per_second": .., "data_wait": share of the time}.

        Where every step since was refused, the means are those of the time before. Clips are this
        rank's times the number of ranks, and the waiting is this rank's: rank 0's is printed.
        """
        if self.passes:                                          # else every step was refused
            sums = self.state()["sums"]
            self.means = {name: sums[name] / passes for name, passes in self.passes.items()}
        self.sums = {}
        self.passes = {}
        seconds = time.perf_counter() - self.since
        speed = {"clips_per_second": self.clips * self.world_size / seconds,
                 "data_wait": self.waited / seconds}
        self.restart()
        return self.means, speed


def loss_state(checkpoint: dict | None) -> dict:
    """What `Meter.state` gave a checkpoint, and what it gave older ones, in today's form.

    Older ones have one number of passes for all losses; the oldest, losses without names.
    """
    state = (checkpoint or {}).get("meter") or {"sums": {}, "passes": {}, "means": {}}
    named = dict(state)
    for key in ("sums", "means"):
        if not isinstance(state[key], dict):
            named[key] = dict(zip(FIRST_LOSSES, state[key]))
    if isinstance(state["passes"], int):
        counted = named["sums"] if state["passes"] else {}
        named["passes"] = dict.fromkeys(counted, state["passes"])
    return named
