"""
What happens to a week of training on shared machines, and what protects from it.

    a signal               Stop              the step ends, all ranks save and leave together, with exit status 143
    NaN or inf in a step   finite, Refused   refused on all ranks before it touches a weight; its files written down
    a video that kills     Watch, watched    dead or hung workers are replaced, the video they were at skipped for good

A kill at any moment: mote/runtime/checkpoints.py, mote/runtime/run_folder.py. A rank that dies: torchrun ends the others. Damage that decodes
with concealed errors cannot be detected. Without workers (--workers 0) a video that crashes the decoder ends the run.
Not part of the paper.
"""
import json
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

from .errors import printable
from .ranks import Ranks, gather, total

MAX_REFUSED = 5           # refused steps in a row
MAX_BAD = 0.05            # part of the training videos that may be undecodable


# --- a signal ---------------------------------------------------------------------------------------------------------
# --- NaN or inf in a step ---------------------------------------------------------------------------------------------
def finite(losses: list[Tensor], parameters: Iterable[torch.nn.Parameter]) -> Tensor:
    """Whether every loss and every gradient of a step is finite, as a 0-d tensor on their device.

    So must their squares be: AdamW keeps them, and a parameter whose second moment is inf never moves again.
    """
    gradients = [p.grad for p in parameters if p.grad is not None]
    largest = torch.nn.utils.get_total_norm(gradients, norm_type=float("inf"))
    return torch.stack(losses).isfinite().all() & largest.square().isfinite()


def agree(device: torch.device, *flags: bool | Tensor) -> list[bool]:
    """Whether any rank has raised each flag: one answer for all ranks, or they would wait for each other for ever."""
    raised = torch.stack([torch.as_tensor(flag, device=device).float() for flag in flags])
    return (total(raised) > 0).tolist()


class Refused:
    """The steps that were refused: written down, counted, and what they left in running statistics taken back."""

    def __init__(self, file: Path, ranks: Ranks):
        self.file, self.ranks, self.last, self.in_a_row = file, ranks, 0, 0

    def remember(self, tower: torch.nn.Module) -> None:
        """Before a step: a batch norm changes its statistics in the forward pass, before anything can be refused."""
        self.buffers = [(buffer, buffer.clone()) for buffer in tower.buffers()]

    def write_down(self, step: int, losses: list[Tensor], videos: list[str]) -> str:
        """Append losses and videos of all ranks to the file. -> a line to print. All ranks must call it."""
        self.last, self.in_a_row = step, self.in_a_row + 1 if step == self.last + 1 else 1
        for buffer, before in self.buffers:
            buffer.copy_(before)
        losses, videos = gather([[f"{one:.4g}" for one in three.tolist()] for three in losses]), gather(videos)
        if self.ranks.first:
            with open(self.file, "a") as lines:
                lines.write(json.dumps({"step": step, "losses": losses, "videos": videos}) + "\n")
        return (f"step {step}: a loss or a gradient is not finite: refused, the weights stay; its {len(videos)} videos "
                f"are in {self.file}")

    @property
    def too_often(self) -> bool:
        return self.in_a_row >= MAX_REFUSED

    def check(self) -> None:
        """Raise ValueError after MAX_REFUSED steps in a row: the state before them has been saved by then."""
        if self.too_often:
            raise ValueError(f"{self.in_a_row} steps in a row with a loss or a gradient that is not finite: stopped; "
                             f"the weights before them are saved. A lower --lr and --clip-lr? See {self.file}")


# --- videos that cannot be decoded ------------------------------------------------------------------------------------
class BadVideos:
    """The training videos that could not be decoded: reported once each, and not too many of them."""

    def __init__(self, videos: list[tuple[str, int]], resumed: dict | None = None):
        self.videos, self.known, self.new = videos, (resumed or {}).get("undecodable", []), []

    def report(self) -> list[str]:
        """A line for each video that a rank has put into `new`, as an index, for the first time. All must call it."""
        found = sorted({self.videos[index][0] for index in gather(self.new)} - set(self.known))
        self.known, self.new, so_far = sorted([*self.known, *found]), [], len(self.known)
        return [f"cannot decode {printable(path)}: another video is drawn in its place ({n} so far)"
                for n, path in enumerate(found, so_far + 1)]

    def check(self, num_videos: int) -> None:
        """Raise ValueError where they are more than MAX_BAD of the training videos."""
        if len(self.known) > MAX_BAD * num_videos:
            raise ValueError(f"{len(self.known)} of {num_videos} training videos are undecodable: over {MAX_BAD:.0%}")


# --- a video that kills -----------------------------------------------------------------------------------------------
