"""
What a run prints: its header, a line every so many steps, the table at its end. Not part of the paper.
"""
import json
import math
import time
from collections.abc import Iterator

import torch

from ..merging import total_loss
from .ranks import Ranks, gather


def header(ranks: Ranks, dtype: str, config: dict, optimizer: torch.optim.Optimizer, untrained: dict) -> str:
    """The first lines of a log: versions, device, configuration, parameter counts, where the untrained CLIP stands."""
    parts = ", ".join(f"{sum(p.numel() for p in g['params']) / 1e6:.2f} M at peak lr {g['peak']:g}"
                      for g in optimizer.param_groups)
    return (f"torch {torch.__version__}, {ranks.world_size} x {ranks.device.type}, {torch.get_num_threads()} threads, "
            f"{dtype}\nconfig {json.dumps(config)}\ntrained parameters: {parts}\nuntrained CLIP, top-1: "
            + ", ".join(f"{name} {top1:.1f}" for name, top1 in untrained.items()))


def log(meter: "Meter", step: int, steps: int, every: int, weight_merged: float, weight_mse: float,
        optimizer: torch.optim.Optimizer) -> str:
    """One line of the log; the meter is read. every: steps per epoch. All ranks must call it."""
    speed = meter.read()
    expert, merged, mse = meter.means
    rates = "/".join(f"{group['lr']:.1e}" for group in optimizer.param_groups)
    return (f"step {step}/{steps}  epoch {step / every:.2f}  "
            f"loss {total_loss(expert, merged, mse, weight_merged, weight_mse):.3f}  expert {expert:.3f}  "
            f"merged {merged:.3f}  mse {mse:.3f}  lr {rates}  {speed}")


def table(rows: dict[str, dict[str, float]]) -> str:
    """Top-1 by model (row) and dataset (column), as text."""
    sets = list(next(iter(rows.values())))
    width = max(len(name) for name in sets) + 2
    head = f"{'top-1, per cent':34s}" + "".join(f"{name:>{width}s}" for name in sets)
    body = [f"{row:34s}" + "".join(f"{top1[name]:{width}.1f}" for name in sets) for row, top1 in rows.items()]
    return "\n".join([head, *body])


class Meter:
    """Means of the three losses, clips/s and the share of time spent waiting for data, since they were last read."""

    def __init__(self, ranks: Ranks, resumed: dict | None = None):
        """resumed: a checkpoint with what `state` gave: the same means come out as if nothing had been between."""
        state = (resumed or {}).get("meter") or {"sums": [0.0] * 3, "passes": 0, "means": [0.0] * 3}
        self.world_size, self.passes, self.means = ranks.world_size, state["passes"], state["means"]
        self.sums = list(state["sums"]) if ranks.first else [0.0] * 3
        self.restart()

    def restart(self) -> None:
        """The clock: evaluating and saving are not clips/s."""
        self.clips, self.waited, self.since = 0, 0.0, time.perf_counter()

    def wait_for(self, stream: Iterator[dict]) -> dict:
        """The next batch; the time it takes to come is time that the model stood still."""
        asked = time.perf_counter()
        batch = next(stream)
        self.waited += time.perf_counter() - asked
        return batch

    def add(self, losses: list[list[float]], clips: int) -> None:
        """A step: the three losses of each micro-batch, and its clips, on this rank."""
        self.sums = [math.fsum(each) for each in zip(self.sums, *losses)]
        self.passes, self.clips = self.passes + len(losses) * self.world_size, self.clips + clips

    def state(self) -> dict:
        """Of all ranks, on all ranks. fsum: float32 losses add up to the same, in whatever order."""
        return {"sums": [math.fsum(each) for each in zip(*gather([self.sums]))], "passes": self.passes,
                "means": self.means}

    def read(self) -> str:
        """Compute the means over all ranks, begin anew. -> "clips/s, data wait" of this rank times the ranks."""
        sums = self.state()["sums"]
        self.means = [each / self.passes for each in sums] if self.passes else self.means     # all steps were refused
        self.sums, self.passes = [0.0] * 3, 0
        seconds = time.perf_counter() - self.since
        speed = f"{self.clips * self.world_size / seconds:.0f} clips/s  data wait {100 * self.waited / seconds:.0f} %"
        self.restart()
        return speed

    def named(self) -> dict[str, float]:
        """The means that were last read, as metrics.jsonl has them."""
        return dict(zip(("loss_expert", "loss_merged", "loss_mse"), self.means))
