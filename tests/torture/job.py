"""
Runs of train.py for the tortures: started, waited for, and compared bit for bit.

A torture is a generator of Trial(what was tried, failure); without a failure that is "".
"""
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import torch

from mote import toyworld
from mote.runtime.checkpoints import read_checkpoint

ROOT = Path(__file__).parents[2]
LONG = 180                # seconds after which a process counts as hung
SAVES = 4                 # --save-every
JOB = ["--data", "toyworld", "--zero-shot", "toyworld-novel", "--device", "cpu", "--threads", "1",
       "--epochs", "2", "--batch", "16", "--layers", "2", "--eval-every", "1",
       "--save-every", str(SAVES), "--log-every", "2"]


class Trial(NamedTuple):
    what: str
    failure: str


# --- 1. starting and waiting ----------------------------------------------------------------------
class Job:
    """A folder with toyworld's data, small, and runs of train.py on it."""

    def __init__(self, folder: Path):
        data = folder / "data"
        toyworld.generate(data / "toyworld", "toyworld", clips={"train": 2, "val": 1})
        toyworld.generate(data / "toyworld-novel", "toyworld-novel", clips={"val": 1})
        self.folder = folder
        self.runs = 0
        self.environment = {**os.environ, "MOTE_DATA": str(data),
                            "XDG_CACHE_HOME": str(folder / "cache"), "OMP_NUM_THREADS": "1",
                            "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
        self.references: dict[int, Path] = {}
        self.seconds = 0.0                               # of the undisturbed run on one rank

    def new(self) -> Path:
        """The folder of a run that is not there yet."""
        self.runs += 1
        return self.folder / f"run{self.runs}"

    def start(self, run: Path, *flags: str, fault: dict | None = None, ranks: int = 1,
              restarts: int = 0, workers: int = 0) -> subprocess.Popen:
        """Start a run, or go on with it. fault: tests/torture/faults.py; restarts: of torchrun."""
        launch = [sys.executable]
        if ranks > 1:
            launch += ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node",
                       str(ranks), "--max-restarts", str(restarts), "--monitor-interval", "0.5"]
        script = ["train.py"]
        if fault is not None:
            script = ["tests/torture/faults.py", json.dumps(fault)]
        command = [*launch, *script, *JOB, "--workers", str(workers), "--out", str(run),
                   "--resume", "auto", *flags]

        # A session of its own: what hangs is killed with all of its children.
        with open(run.with_suffix(".log"), "ab") as log:
            return subprocess.Popen(command, cwd=ROOT, env=self.environment, stdout=log,
                                    stderr=subprocess.STDOUT, start_new_session=True)

    def log(self, run: Path) -> str:
        """What a run has printed so far; empty if it has not started."""
        file = run.with_suffix(".log")
        return file.read_text(errors="replace") if file.exists() else ""

    def finish(self, run: Path, *flags: str, **options) -> int:
        """Start it and wait. -> exit status. The arguments are those of `start`."""
        return self.wait(self.start(run, *flags, **options))

    def wait(self, process: subprocess.Popen, seconds: float = LONG) -> int:
        """-> exit status; -999 if it had to be killed because it did not end."""
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return -999

    def wait_for(self, run: Path, text: str, process: subprocess.Popen) -> bool:
        """Until the log has the text. False if the process ended before."""
        while text not in self.log(run):
            if process.poll() is not None:
                return False
            time.sleep(0.02)
        return True

    def run_to(self, out: Path, log: Path, *flags: str) -> int:
        """A fresh run with its folder and its log anywhere. -> exit status"""
        command = [sys.executable, "train.py", *JOB, "--out", str(out), *flags]
        with open(log, "wb") as to:
            return subprocess.run(command, cwd=ROOT, stdout=to, stderr=to,
                                  env=self.environment).returncode

    def reference(self, ranks: int = 1) -> Path:
        """A run that nothing happened to."""
        if ranks not in self.references:
            run = self.new()
            begin = time.monotonic()
            self.references[ranks] = run
            status = self.finish(run, ranks=ranks)
            if status:
                raise RuntimeError(f"the undisturbed run ended with {status}:\n{self.log(run)}")
            self.seconds = self.seconds or time.monotonic() - begin
        return self.references[ranks]


# --- 2. what a run leaves, compared ---------------------------------------------------------------
def state(run: Path) -> dict:
    """All that a run leaves, but for what differs by its nature (the folder's name in the
    configuration). Raises OSError or ValueError if the run has not ended well.
    """
    checkpoint = read_checkpoint(run)
    return {"weights": checkpoint["model"], "optimiser": checkpoint["optimizer"]["state"],
            "step": checkpoint["step"], "metrics": (run / "metrics.jsonl").read_text(),
            "table": (run / "results.json").read_text()}


def same(a, b) -> bool:
    """Are they equal bit for bit? Tensors, dicts with tensors at any depth, anything else."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    return a == b


def difference(run: Path, reference: Path) -> str:
    """What differs between the ends of two runs; "" for nothing."""
    try:
        a = state(run)
        b = state(reference)
    except (OSError, ValueError) as error:
        return f"no end: {error}"
    return ", ".join(f"other {key}" for key in a if not same(a[key], b[key]))


def wrong_end(status: int, run: Path, reference: Path) -> str:
    """What is wrong with the end of a run that should be that of the reference; "" for nothing."""
    if status:
        return f"exit status {status}"
    return difference(run, reference)


def unreadable(run: Path) -> str:
    """The checkpoints of a run that cannot be read; "" for none."""
    bad = []
    for file in [*run.glob("step_*.pt"), *run.glob("last.pt")]:
        try:
            read_checkpoint(file)
        except ValueError as error:
            bad.append(str(error))
    return "; ".join(bad)


def one_line(job: Job, run: Path, words: str) -> str:
    """What is wrong with the last words of a run that ended by a fault of the user or the machine.

    They should be one line about an error, with these words in it.
    """
    log = job.log(run)
    errors = [line for line in log.splitlines() if "error" in line.lower()]
    if "Traceback" in log or len(errors) != 1:
        return f"not one line: {log[-300:]}"
    if words not in errors[0]:
        return f"does not say {words!r}: {errors[0]}"
    return ""


# --- 3. damage, and memory ------------------------------------------------------------------------
def flip(whole: bytes, place: int) -> bytes:
    """The same bytes, with the lowest bit of the one at this place flipped."""
    return whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1:]


def megabytes(pid: int | str = "self") -> tuple[float, float]:
    """Memory of a process, and of its children. What several share is counted in parts."""
    children = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):               # a thread that has just ended
            children += (task / "children").read_text().split()
    return proportional(pid), sum(map(proportional, children))


def proportional(pid: int | str) -> float:
    """Memory of one process in MB (Pss); 0 if it has ended."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) / 1024
    return 0.0
