"""
What protects a training run: one guard, asked once a step, on all ranks together.

    a signal          all ranks finish the step, save and leave together       (signals.py)
    NaN or infinity   the step is refused on all ranks before it touches a weight, and written down
    a broken video    it is reported once; too many of them end the run

A video that kills its worker: watched_loading.py. A kill at any moment: checkpoints.py and
run_folder.py. A rank that dies: torchrun ends the others. Damage that decodes without an error
cannot be detected. Not part of the paper.
"""
import json
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor, nn

from .errors import printable
from .ranks import Ranks, gather, total
from .signals import Stop

# One bad batch passes; weights or rates that have gone wrong refuse every step from then on.
MAX_REFUSED = 5           # refused steps in a row
MAX_BAD = 0.05            # part of the training videos that may be undecodable


class Guard:
    """Decides whether a step may change the weights, and whether the run must end.

    tower: whose buffers a refused step must not have changed. videos: (path, label), as
    TrainingClips has them. out: the run's folder. resumed: the checkpoint that it goes on from.
    All ranks call its methods.
    """

    def __init__(self, ranks: Ranks, tower: nn.Module, videos: list[tuple[str, int]], out: Path,
                 resumed: dict | None = None):
        self.ranks = ranks
        self.tower = tower
        self.videos = videos
        self.out = out
        self.stop = Stop()
        self.stopping = False
        self.refused = Refused(out / "refused.jsonl", ranks)
        self.bad = BadVideos(videos, resumed)

    def before_step(self) -> None:
        """Remember what a refused step must leave as it was, and forget the step before.

        Weights and moments need no copy: the optimiser steps only after `step_is_sound`.
        """
        self.refused.remember(self.tower)
        self.losses_on_device: list[dict[str, Tensor]] = []
        self.losses: list[dict[str, float]] = []
        self.indices: list[int] = []

    def saw(self, batch: dict, losses: dict[str, Tensor]) -> None:
        """Note a micro-batch: its losses, its videos, and those that could not be decoded.

        The losses stay on their device: to read them here would make the host wait for the GPU in
        every micro-batch. `step_is_sound` reads them once a step.
        """
        self.losses_on_device.append({name: loss.detach() for name, loss in losses.items()})
        self.indices += batch["index"].tolist()
        self.bad.new += batch["failed"]

    @property
    def clips(self) -> int:
        """How many clips this rank has seen in this step."""
        return len(self.indices)

    def step_is_sound(self, step: int, parameters: Iterable[nn.Parameter]) -> bool:
        """Whether every loss and gradient is finite on every rank.

        step: its number, from 1. A step that is not sound is written down, and the buffers are
        what they were before it. The same exchange tells all ranks of a signal: see `run_must_end`.
        From here on `losses` are this rank's, as numbers.

        Here the host waits for the device, once a step: what it must know travels together.
        """
        losses = torch.stack([torch.stack(list(one.values())) for one in self.losses_on_device])
        # Made on the device: a number of the host would have to be copied there.
        came = torch.full((), bool(self.stop.came), device=losses.device, dtype=torch.float32)
        unsound = ~finite(losses, parameters)
        flags = torch.stack([came, unsound.float()])
        (self.stopping, refused), numbers = agree(flags, losses.flatten())

        for one in self.losses_on_device:
            self.losses.append(dict(zip(one, numbers)))
            numbers = numbers[len(one):]
        if refused:
            paths = [self.videos[index][0] for index in self.indices]
            self.ranks.say(self.refused.write_down(step, self.losses, paths))
        return not refused

    def report_bad_videos(self) -> None:
        """Print a line for each video that was found broken since the last call.

        Call it when a log line or a checkpoint is due, on all ranks: they exchange what they found.
        """
        for line in self.bad.report():
            self.ranks.say(line)

    @property
    def run_must_end(self) -> bool:
        """Whether this step is the last one, so that the state after it must be saved."""
        return self.stopping or self.refused.too_often

    def end_if_it_must(self, step: int) -> None:
        """End the run if there is a reason to. Call it after saving, at every step.

        Raises ValueError for too many refused steps or too many broken videos, and SystemExit after
        a signal. All ranks decide alike, for all have the same counts.
        """
        self.refused.check()
        self.bad.check()
        if self.stopping:
            self.stop.leave(step, self.ranks, self.out)


# --- NaN or infinity in a step -------------------------------------------------------------------
def finite(losses: Tensor, parameters: Iterable[nn.Parameter]) -> Tensor:
    """Whether every loss and every gradient of a step is finite, as a 0-d tensor on their device.

    Their squares must be finite too: AdamW keeps them, and a parameter whose second moment is
    infinite never moves again. The largest gradient stands for all of them: NaN and infinity both
    carry through the maximum.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    largest = torch.nn.utils.get_total_norm(gradients, norm_type=float("inf"))
    return losses.isfinite().all() & largest.square().isfinite()


def agree(flags: Tensor, numbers: Tensor) -> tuple[list[bool], list[float]]:
    """Whether any rank has raised each flag: one answer for all, or some ranks would go on alone.

    flags: (F,), 0 or 1. numbers: (n,), of this rank. Both are read in one go, once a step.
    """
    read = torch.cat([total(flags), numbers.float()]).tolist()
    return [number > 0 for number in read[:len(flags)]], read[len(flags):]


class Refused:
    """The steps that were refused: written to a file, counted, and their buffers restored.

    last and in_a_row are the same on all ranks. A resumed run counts from 0 again.
    """

    def __init__(self, file: Path, ranks: Ranks):
        self.file = file
        self.ranks = ranks
        self.last = 0
        self.in_a_row = 0

    def remember(self, tower: nn.Module) -> None:
        """Before a step: batch norms change their statistics in the forward pass already."""
        self.buffers = [(buffer, buffer.clone()) for buffer in tower.buffers()]

    def write_down(self, step: int, losses: list[dict[str, float]], videos: list[str]) -> str:
        """Append losses and videos of all ranks to the file. -> a line to print. All call it.

        step: its number, from 1. losses: of this rank's micro-batches. videos: this rank's paths. A
        line of the file is {"step": .., "losses": [{name: text}, ..], "videos": [path, ..]}.
        """
        follows = step == self.last + 1
        self.in_a_row = self.in_a_row + 1 if follows else 1
        self.last = step
        for buffer, before in self.buffers:
            buffer.copy_(before)

        # As text: json has no NaN and no infinity.
        readable = []
        for one in losses:
            readable.append({name: f"{loss:.4g}" for name, loss in one.items()})
        readable = gather(readable)
        videos = gather(videos)
        if self.ranks.first:
            with open(self.file, "a") as lines:
                entry = {"step": step, "losses": readable, "videos": videos}
                lines.write(json.dumps(entry) + "\n")
        return (f"step {step}: a loss or a gradient is not finite: refused, the weights stay; "
                f"its {len(videos)} videos are in {self.file}")

    @property
    def too_often(self) -> bool:
        """Whether refusing has not helped: MAX_REFUSED steps in a row."""
        return self.in_a_row >= MAX_REFUSED

    def check(self) -> None:
        """Raise ValueError after MAX_REFUSED steps in a row; the state before them is saved."""
        if self.too_often:
            raise ValueError(f"{self.in_a_row} steps in a row with a loss or a gradient that is "
                             "not finite: stopped; the weights before them are saved. "
                             f"A lower --lr and --clip-lr? See {self.file}")


# --- videos that cannot be decoded ---------------------------------------------------------------
class BadVideos:
    """The training videos that could not be decoded: reported once each, and not too many.

    mote/data.py has drawn another video in the place of each. known: sorted paths, the same on all
    ranks; a checkpoint keeps them as "undecodable", so that a resumed run does not report again.
    """

    def __init__(self, videos: list[tuple[str, int]], resumed: dict | None = None):
        self.videos = videos
        self.distinct = len(set(videos))                         # few-shot lists are repeated
        self.known = (resumed or {}).get("undecodable", [])
        self.new: list[int] = []                                 # indices, of this rank

    def report(self) -> list[str]:
        """A line for each video in `new` of any rank, but once each. All ranks must call it."""
        paths = {self.videos[index][0] for index in gather(self.new)}
        found = sorted(paths - set(self.known))
        lines = []
        for so_far, path in enumerate(found, len(self.known) + 1):
            lines.append(f"cannot decode {printable(path)}: another video is drawn in its place "
                         f"({so_far} so far)")
        self.known = sorted([*self.known, *found])
        self.new = []
        return lines

    def check(self) -> None:
        """Raise ValueError where they are more than MAX_BAD of the training videos.

        So a half copied dataset ends the run, rather than being trained on as far as it goes.
        """
        if len(self.known) > MAX_BAD * self.distinct:
            raise ValueError(f"{len(self.known)} of {self.distinct} training videos are "
                             f"undecodable: over {MAX_BAD:.0%}; tools/check.py names them")
