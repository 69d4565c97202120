"""
Runs of train.py for tests/torture/runs.py: started, waited for, compared bit for bit, with faults in them.

What cannot be done to a run from outside is done by the run itself: `python tests/torture/job.py JSON ARGUMENTS` is
train.py with the faults of JSON in it.
"""
import contextlib
import io
import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import torch

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
import train  # noqa: E402
from mote import data, toyworld  # noqa: E402
from mote.files import decoding  # noqa: E402
from mote.runtime import watched_loading  # noqa: E402
from mote.runtime.checkpoints import read_checkpoint  # noqa: E402

JOB = ["--data", "toyworld", "--zero-shot", "toyworld-novel", "--device", "cpu", "--threads", "1", "--epochs", "2",
       "--batch", "16", "--layers", "2", "--eval-every", "1", "--save-every", "4", "--log-every", "2"]
LONG, SAVES = 180, 4                                             # seconds after which a process hangs; --save-every


# --- the job, with faults in it ---------------------------------------------------------------------------------------
def with_faults(fault: dict, arguments: list[str]) -> None:
    """train.py, and at a step (of rank "rank", once if "once" names a file that is not there yet): what fault says."""
    here, count = int(os.environ.get("RANK", 0)) == fault.get("rank", 0), [0]
    agree, forward, decode, torch_save = train.agree, train.Objective.forward, data.decode_distinct, torch.save

    def agree_and_do(*flags):
        count[0] += 1
        answer = agree(*flags)
        if here and count[0] == fault.get("step") and not Path(fault.get("once", "/none")).exists():
            if "once" in fault:
                Path(fault["once"]).touch()
            if "signal" in fault:
                os.kill(os.getpid(), fault["signal"])
            if "file_size" in fault:
                resource.setrlimit(resource.RLIMIT_FSIZE, (fault["file_size"], resource.RLIM_INFINITY))
            if "rename" in fault:
                os.rename(*fault["rename"])
        return answer

    def poisoned_forward(self, *inputs):
        losses = forward(self, *inputs)
        if not here or count[0] + 1 not in fault.get("poison", ()):
            return losses
        return Poison.apply(losses[0]) if fault.get("where") == "gradient" else losses[0] * float("nan"), *losses[1:]

    def fatal_decode(path, choose):
        if str(path).endswith(fault.get("segfault", "/none")):
            os.kill(os.getpid(), signal.SIGSEGV)
        if str(path).endswith(fault.get("hang", "/none")):
            time.sleep(1e6)
        return decode(path, choose)

    def slow_save(checkpoint, file):
        """Long enough to be killed in."""
        whole = io.BytesIO()
        torch_save(checkpoint, whole)
        for i in range(0, len(whole.getbuffer()), 1 + len(whole.getbuffer()) // 20):
            file.write(whole.getbuffer()[i:i + 1 + len(whole.getbuffer()) // 20])
            file.flush()
            time.sleep(fault["slow_save"] / 20)
    train.agree, train.Objective.forward = agree_and_do, poisoned_forward
    torch.save = slow_save if "slow_save" in fault else torch_save
    data.decode_distinct = decoding.decode_distinct = fatal_decode           # of test views, of training clips
    watched_loading.HUNG, watched_loading.POLL = fault.get("hung", watched_loading.HUNG), fault.get("poll", watched_loading.POLL)
    try:
        train.main(arguments)
    except SystemExit as ended:
        if "status" in fault:                                    # torchrun does not tell
            Path(f"{fault['status']}.{os.environ.get('RANK', 0)}").write_text(str(ended.code))
        raise


class Poison(torch.autograd.Function):
    """The identity, with an infinite gradient."""

    @staticmethod
    def forward(_, x):
        return x.clone()

    @staticmethod
    def backward(_, gradient):
        return gradient * float("inf")


# --- starting, waiting, comparing -------------------------------------------------------------------------------------
class Job:
    """A folder with toyworld's data, small, and runs of train.py on it. ranks, workers: of `start`."""

    def __init__(self, folder: Path):
        self.folder, self.runs = folder, 0
        toyworld.generate(folder / "data/toyworld", "toyworld", clips={"train": 2, "val": 1})
        toyworld.generate(folder / "data/toyworld-novel", "toyworld-novel", clips={"val": 1})
        self.environment = {**os.environ, "MOTE_DATA": str(folder / "data"), "XDG_CACHE_HOME": str(folder / "cache"),
                            "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
        self.references: dict[int, Path] = {}
        self.seconds = 0.0                                       # of the undisturbed run on one rank

    def new(self) -> Path:
        self.runs += 1
        return self.folder / f"run{self.runs}"

    def start(self, run: Path, *flags: str, fault: dict | None = None, ranks: int = 1, restarts: int = 0,
              workers: int = 0) -> subprocess.Popen:
        script = ["train.py"] if fault is None else ["tests/torture/job.py", json.dumps(fault)]
        launch = [sys.executable]
        if ranks > 1:
            launch += ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks),
                       "--max-restarts", str(restarts), "--monitor-interval", "0.5"]
        log = open(run.with_suffix(".log"), "ab")
        command = [*launch, *script, *JOB, "--workers", str(workers), "--out", str(run), "--resume", "auto", *flags]
        return subprocess.Popen(command, cwd=ROOT, env=self.environment, stdout=log, stderr=subprocess.STDOUT,
                                start_new_session=True)

    def log(self, run: Path) -> str:
        return run.with_suffix(".log").read_text(errors="replace")

    def finish(self, run: Path, *flags: str, **options) -> int:
        """Start it and wait. -> exit status; kills what does not end."""
        return self.wait(self.start(run, *flags, **options))

    def wait(self, process: subprocess.Popen, seconds: float = LONG) -> int:
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return -999

    def wait_for(self, run: Path, text: str, process: subprocess.Popen) -> bool:
        """Until the log has the text. False if the process ended before."""
        while text not in (self.log(run) if run.with_suffix(".log").exists() else ""):
            if process.poll() is not None:
                return False
            time.sleep(0.02)
        return True

    def reference(self, ranks: int = 1) -> Path:
        """A run that nothing happened to."""
        if ranks not in self.references:
            run, begin = self.new(), time.monotonic()
            self.references[ranks] = run
            if status := self.finish(run, ranks=ranks):
                raise RuntimeError(f"the undisturbed run ended with {status}:\n{self.log(run)}")
            self.seconds = self.seconds or time.monotonic() - begin
        return self.references[ranks]


def state(run: Path) -> dict:
    """All that a run leaves, but for what differs by its nature (the folder's name in the configuration)."""
    checkpoint = read_checkpoint(run)
    return {"weights": checkpoint["model"], "optimiser": checkpoint["optimizer"]["state"], "step": checkpoint["step"],
            "metrics": (run / "metrics.jsonl").read_text(), "table": (run / "results.json").read_text()}


def same(a, b) -> bool:
    """Bit for bit, whatever is nested in what."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    return a.dtype == b.dtype and torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


def difference(run: Path, reference: Path) -> str:
    """What differs between the ends of two runs; "" for nothing."""
    try:
        a, b = state(run), state(reference)
    except (OSError, ValueError) as error:
        return f"no end: {error}"
    return ", ".join(f"other {key}" for key in a if not same(a[key], b[key]))


def unreadable(run: Path) -> str:
    """The checkpoints of a run that cannot be read."""
    bad = []
    for file in [*run.glob("step_*.pt"), *run.glob("last.pt")]:
        try:
            read_checkpoint(file)
        except ValueError as error:
            bad.append(str(error))
    return "; ".join(bad)


def one_line(job: Job, run: Path, words: str) -> str:
    """What is wrong with the last words of a run that a user's or the machine's fault has ended."""
    log = job.log(run)
    errors = [line for line in log.splitlines() if "error" in line.lower()]
    if "Traceback" in log or len(errors) != 1:
        return f"not one line: {log[-300:]}"
    return "" if words in errors[0] else f"does not say {words!r}: {errors[0]}"


def flip(whole: bytes, place: int) -> bytes:
    """One bit of it."""
    return whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1:]


def megabytes(pid: int | str = "self") -> tuple[float, float]:
    """Memory of a process, and of its children; what several share is counted in parts."""
    def proportional(one: int | str) -> float:
        with contextlib.suppress(OSError):
            lines = Path(f"/proc/{one}/smaps_rollup").read_text().splitlines()
            return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024
        return 0.0
    children = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):                       # a thread that has just ended
            children += (task / "children").read_text().split()
    return proportional(pid), sum(map(proportional, children))


if __name__ == "__main__":
    with_faults(json.loads(sys.argv[1]), sys.argv[2:])
