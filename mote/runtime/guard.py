"""
What happens to a week of training on shared machines, and what protects from it.

    a signal               Stop              the step ends, all ranks save and leave together, with exit status 143
    NaN or inf in a step   finite, Refused   refused on all ranks before it touches a weight; its files written down
    a video that kills     Watch, watched    dead or hung workers are replaced, the video they were at skipped for good

A kill at any moment: mote/runtime/checkpoints.py, mote/runtime/run_folder.py. A rank that dies: torchrun ends the others. Damage that decodes
with concealed errors cannot be detected. Without workers (--workers 0) a video that crashes the decoder ends the run.
Not part of the paper.
"""
import contextlib
import itertools
import json
import signal
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from ..data import Undecodable, collate
from .ranks import Process, gather, printable, total

HUNG = 120.0              # seconds at one video, after which its worker is taken to hang
POLL = 5.0                # seconds between looks at the workers while no batch comes
MAX_DEATHS = 3            # of workers in a row, without a batch in between and without a video to blame
MAX_REFUSED = 5           # refused steps in a row
MAX_BAD = 0.05            # part of the training videos that may be undecodable
NOT_THE_VIDEO = (0, -signal.SIGTERM, -signal.SIGINT, -signal.SIGKILL)    # a worker's end: from outside, no memory


# --- a signal ---------------------------------------------------------------------------------------------------------
class Stop:
    """`came`: whether SIGTERM (a scheduler that wants the machine back) or SIGINT (Ctrl-C) did. The step goes on.

    A second Ctrl-C some seconds later stops at once: torchrun repeats the first one within milliseconds.
    """

    def __init__(self):
        self.came, self.since = "", 0.0
        if threading.current_thread() is threading.main_thread():            # elsewhere Python allows no handlers
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, self.note)

    def note(self, number: int, _) -> None:
        if self.came and number == signal.SIGINT and time.monotonic() - self.since > 3:
            raise KeyboardInterrupt
        if not self.came:
            self.came, self.since = signal.Signals(number).name, time.monotonic()

    def leave(self, step: int, process: Process, out: Path) -> None:
        """Exit with the status of a process that SIGTERM ended, as schedulers expect it."""
        if process.first:
            print(f"{self.came or 'signal to another rank'}: saved at step {step}; --out {out} --resume auto goes on",
                  flush=True)
        raise SystemExit(128 + signal.SIGTERM)


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

    def __init__(self, file: Path, process: Process):
        self.file, self.process, self.last, self.in_a_row = file, process, 0, 0

    def remember(self, tower: torch.nn.Module) -> None:
        """Before a step: a batch norm changes its statistics in the forward pass, before anything can be refused."""
        self.buffers = [(buffer, buffer.clone()) for buffer in tower.buffers()]

    def write_down(self, step: int, losses: list[Tensor], videos: list[str]) -> str:
        """Append losses and videos of all ranks to the file. -> a line to print. All ranks must call it."""
        self.last, self.in_a_row = step, self.in_a_row + 1 if step == self.last + 1 else 1
        for buffer, before in self.buffers:
            buffer.copy_(before)
        losses, videos = gather([[f"{one:.4g}" for one in three.tolist()] for three in losses]), gather(videos)
        if self.process.first:
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
class Watch:
    """Which video each worker is at, in shared memory, and which videos none is to touch again.

    `with watch(index):` stands around each decode. Raises Undecodable for a video that is skipped.
    file: keeps what is skipped, a path a line, from one start to the next.
    """

    def __init__(self, videos: list[tuple[str, int]], workers: int, file: Path | None = None):
        self.paths, self.file = [path for path, _ in videos], file
        text = file.read_bytes().decode(errors="surrogateescape") if file and file.exists() else ""
        known = set(text.split("\n"))                            # splitlines() knows more ends than we write
        self.skipped = {index for index, path in enumerate(self.paths) if path in known}
        self.at = torch.full((max(1, workers), 2), -1.0, dtype=torch.float64).share_memory_()    # index, since when

    @contextlib.contextmanager
    def __call__(self, index: int) -> Iterator[None]:
        if index in self.skipped:
            raise Undecodable(f"{self.paths[index]}: skipped, it has killed a worker")
        worker = get_worker_info()
        mine = self.at[worker.id if worker else 0]
        mine[1] = time.monotonic()
        mine[0] = index
        try:
            yield
        finally:
            mine[0] = -1                                         # idle: whatever happens now is not this video's fault

    def oldest(self) -> float:
        """Seconds that the slowest worker has been at its video; 0 where all are idle."""
        return max((time.monotonic() - since for index, since in self.at.tolist() if index >= 0), default=0.0)

    def blame(self, workers: list) -> None:
        """Skip what dead workers were at, unless they were killed from outside, and what others hang at; say so."""
        for (index, since), worker in zip(self.at.tolist(), workers):
            dead, seconds = not worker.is_alive(), time.monotonic() - since
            if index < 0 or (worker.exitcode in NOT_THE_VIDEO if dead else seconds < HUNG):
                continue
            path, code = self.paths[int(index)], worker.exitcode or 0
            how = f"hung {seconds:.0f} s" if not dead else signal.Signals(-code).name if code < 0 else f"exit {code}"
            self.skipped |= {i for i, other in enumerate(self.paths) if other == path}
            print(f"skipped from now on: {printable(path)} (its worker: {how})", flush=True)
            if self.file:
                self.file.parent.mkdir(parents=True, exist_ok=True)
                with open(self.file, "a", encoding="utf-8", errors="surrogateescape") as lines:
                    lines.write(f"{path}\n")
        self.at.fill_(-1)


class WorkersGone(Exception):
    """Of a DataLoader: one has died, or hangs at a video, or no batch comes. WorkersGone(its processes)."""


def watched(data: Dataset, keys: Iterable[list], watch: Watch, workers: int, pin_memory: bool = False
            ) -> Iterator[dict]:
    """The batches of a DataLoader, in the order of keys; workers that die or hang are replaced, as often as it takes.

    data: decodes within `watch`. Raises OSError where workers die again and again and no video is to blame.
    """
    done = deaths = 0
    while True:
        loader = DataLoader(data, batch_sampler=itertools.islice(keys, done, None), num_workers=workers,
                            collate_fn=collate, pin_memory=pin_memory, timeout=POLL if workers else 0,
                            worker_init_fn=ignore_interrupts)
        known = len(watch.skipped)
        try:
            for batch in polled(loader, watch):
                done, deaths = done + 1, 0
                yield batch
            return
        except WorkersGone as gone:
            processes, = gone.args
            watch.blame(processes)
            deaths = deaths + 1 if len(watch.skipped) == known else 0
            if deaths == MAX_DEATHS:
                raise OSError(f"workers died or stalled {deaths} times in a row and no video is to blame (exit status "
                              f"{', '.join(str(worker.exitcode) for worker in processes)}; -9 is mostly a want of "
                              "memory: give fewer --workers)") from None
            for worker in processes:
                worker.kill()                                    # one that hangs in a decoder hears nothing else


def polled(loader: DataLoader, watch: Watch) -> Iterator[dict]:
    """The loader's batches, its workers looked at every POLL seconds while none comes. Raises WorkersGone."""
    before, asked = signal.getsignal(signal.SIGCHLD), time.monotonic()
    stream = iter(loader)
    if loader.num_workers and threading.current_thread() is threading.main_thread():
        theirs = getattr(before, "__module__", "").startswith("torch.")          # another DataLoader's: it would raise
        signal.signal(signal.SIGCHLD, signal.SIG_DFL if theirs else before)      # in the middle of a training step
    processes = getattr(stream, "_workers", [])
    while True:
        looked = time.monotonic()
        try:
            batch = next(stream, None)
        except (RuntimeError, OSError, EOFError) as error:       # the loader's after POLL seconds, the pipe of a worker
            time.sleep(0 if isinstance(error, RuntimeError) else 1)          # that is just dying, or the dataset's own
            if time.monotonic() - looked > POLL + 0.5 * HUNG:    # we were suspended ourselves: no video's fault
                watch.at[:, 1], asked = time.monotonic(), time.monotonic()
            stalled = time.monotonic() - asked > 10 * HUNG or watch.oldest() > HUNG
            if stalled or not all(worker.is_alive() for worker in processes):
                raise WorkersGone(processes) from None
            if "DataLoader timed out" not in str(error):
                raise
            continue
        if batch is None:
            return
        yield batch
        asked = time.monotonic()


def ignore_interrupts(_: int) -> None:
    """Ctrl-C goes to all processes of a terminal: the main one decides, and needs its workers until then."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
