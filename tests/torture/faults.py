"""
train.py with faults in it: what cannot be done to a run from outside, the run does itself.

    python tests/torture/faults.py JSON ARGUMENTS-OF-TRAIN

JSON holds what shall happen, all of it optional:

    rank        the rank that it happens to; 0 if it is not there
    step        after this step of the process, counted from 1, do these:
      signal    send it to itself
      file_size let no file grow beyond so many bytes, as on a full disk
      rename    [from, to]: move a folder away
      once      a file: do it only if the file is not there, and create it
    poison      steps whose first loss is NaN; with "where": "gradient", whose gradient is inf
    segfault    a video: decoding it kills the process
    hang        a video: decoding it does not end
    slow_save   seconds that writing a checkpoint takes
    hung, poll  seconds after which a worker counts as hung, and between looks at the workers
    status      a file: each rank writes its exit status, which torchrun hides, into FILE.RANK
"""
import io
import json
import os
import resource
import signal
import sys
import time
from pathlib import Path

import torch

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))
import train  # noqa: E402
from mote import data  # noqa: E402
from mote.files import decoding  # noqa: E402
from mote.runtime import guard, watched_loading  # noqa: E402

PIECES = 20               # in which a slow checkpoint is written


class Poison(torch.autograd.Function):
    """The identity, with an infinite gradient."""

    @staticmethod
    def forward(_, x):
        return x.clone()

    @staticmethod
    def backward(_, gradient):
        return gradient * float("inf")


class Faults:
    """What JSON says, and how far this process has come."""

    def __init__(self, fault: dict):
        self.fault = fault
        self.here = int(os.environ.get("RANK", 0)) == fault.get("rank", 0)
        self.steps = 0                                   # that this process has made

    def after_a_step(self) -> None:
        """Do what is due after this step."""
        fault = self.fault
        self.steps += 1
        if not self.here or self.steps != fault.get("step"):
            return

        if "once" in fault:
            once = Path(fault["once"])
            if once.exists():
                return
            once.touch()
        if "signal" in fault:
            os.kill(os.getpid(), fault["signal"])
        if "file_size" in fault:
            resource.setrlimit(resource.RLIMIT_FSIZE, (fault["file_size"], resource.RLIM_INFINITY))
        if "rename" in fault:
            os.rename(*fault["rename"])

    def poisoned(self, loss: torch.Tensor) -> torch.Tensor:
        """The first loss of the step that is being made."""
        if not self.here or self.steps + 1 not in self.fault.get("poison", ()):
            return loss
        if self.fault.get("where") == "gradient":
            return Poison.apply(loss)
        return loss * float("nan")

    def before_decoding(self, path) -> None:
        """Die of a video, or hang at it."""
        if str(path).endswith(self.fault.get("segfault", "/none")):
            os.kill(os.getpid(), signal.SIGSEGV)
        if str(path).endswith(self.fault.get("hang", "/none")):
            time.sleep(1e6)


# --- where faults are put in ----------------------------------------------------------------------
def into_training(faults: Faults) -> None:
    """All that faults use of a training: ranks agree once a step; the objective has losses."""
    agree = guard.agree
    forward = train.Objective.forward

    def agree_and_do(*flags):
        answer = agree(*flags)
        faults.after_a_step()
        return answer

    def poisoned_forward(self, *inputs):
        losses = forward(self, *inputs)
        return {**losses, "L_TE": faults.poisoned(losses["L_TE"])}

    guard.agree = agree_and_do
    train.Objective.forward = poisoned_forward


def into_loading(faults: Faults) -> None:
    """Decoding that kills or hangs, and how soon a worker counts as hung."""
    decode = decoding.decode_distinct

    def fatal_decode(path, choose):
        faults.before_decoding(path)
        return decode(path, choose)

    decoding.decode_distinct = fatal_decode                # training's, through decode
    data.decode_distinct = fatal_decode                    # testing's
    watched_loading.HUNG = faults.fault.get("hung", watched_loading.HUNG)
    watched_loading.POLL = faults.fault.get("poll", watched_loading.POLL)


def into_saving(seconds: float) -> None:
    """Checkpoints written slowly enough that a run can be killed in between."""
    save = torch.save

    def slow_save(checkpoint, file):
        whole = io.BytesIO()
        save(checkpoint, whole)
        content = whole.getbuffer()
        piece = 1 + len(content) // PIECES
        for i in range(0, len(content), piece):
            file.write(content[i:i + piece])
            file.flush()
            time.sleep(seconds / PIECES)

    torch.save = slow_save


def main(fault: dict, arguments: list[str]) -> None:
    faults = Faults(fault)
    into_training(faults)
    into_loading(faults)
    if "slow_save" in fault:
        into_saving(fault["slow_save"])

    try:
        train.main(arguments)
    except SystemExit as ended:
        if "status" in fault:
            rank = os.environ.get("RANK", 0)
            Path(f"{fault['status']}.{rank}").write_text(str(ended.code))
        raise


if __name__ == "__main__":
    main(json.loads(sys.argv[1]), sys.argv[2:])
