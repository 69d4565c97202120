"""
A DataLoader whose workers are watched: one that dies or hangs is replaced.

A damaged video can crash the decoder, and its worker with it, or keep it busy for ever. torch's
DataLoader then raises, or waits for ever. Here the worker is replaced, the video that it was at is
skipped for good, and every batch still comes once, in order:

    Watch      which video each worker is at, and which videos are skipped
    watched    the batches; starts a new DataLoader whenever workers are gone
    polled     the batches of one DataLoader, or WorkersGone

Not protected: with --workers 0 the decoder runs in the training process, so a video that crashes
it ends the run; and damage that decodes with concealed errors cannot be detected. Videos that
raise an error are not dangerous: mote/data.py and guard.py see to them. Not part of the paper.
"""
import contextlib
import itertools
import signal
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

from ..data import Undecodable, collate
from .errors import printable
from .ranks import print_line

HUNG = 120.0              # seconds at one video, after which its worker is taken to hang
POLL = 5.0                # seconds between looks at the workers while no batch comes
MAX_DEATHS = 3            # times in a row that workers go without a batch or a video to blame

# Exit statuses that are not the video's fault: a normal end, a kill from outside, no memory.
NOT_THE_VIDEO = (0, -signal.SIGTERM, -signal.SIGINT, -signal.SIGKILL)


# --- which video each worker is at ----------------------------------------------------------------
class Watch:
    """Which video each worker is at, in shared memory, and which videos are skipped.

    `with watch(index):` stands around each decode, in the workers. The other methods are called in
    the main process.

    skipped   indices of videos that no worker touches again
    file      keeps their paths, one a line, from one start of a run to the next
    """

    def __init__(self, videos: list[tuple[str, int]], workers: int, file: Path | None = None):
        self.paths = [path for path, _ in videos]
        self.file = file

        text = ""
        if file and file.exists():
            text = file.read_bytes().decode(errors="surrogateescape")
        known = set(text.split("\n"))      # splitlines() would also split at \r, \x0b, \u2028, ...
        self.skipped = {index for index, path in enumerate(self.paths) if path in known}

        # A row for each worker: the index of its video, -1 while it has none, and since when. The
        # loader's workers are forked or spawned later and all write to the same memory.
        rows = max(1, workers)
        self.at = torch.full((rows, 2), -1.0, dtype=torch.float64).share_memory_()

    @contextlib.contextmanager
    def __call__(self, index: int) -> Iterator[None]:
        """Around the decoding of one video. Raises Undecodable for one that is skipped."""
        if index in self.skipped:
            raise Undecodable(f"{self.paths[index]}: skipped, it has killed a worker")

        worker = get_worker_info()
        mine = self.at[worker.id if worker else 0]
        mine[1] = time.monotonic()         # first the time: an index with an old time would "hang"
        mine[0] = index
        try:
            yield
        finally:
            mine[0] = -1                   # what happens from here on is not this video's fault

    def oldest(self) -> float:
        """Seconds that the slowest worker has been at its video; 0 where all are idle."""
        now = time.monotonic()
        return max((now - since for index, since in self.at.tolist() if index >= 0), default=0.0)

    def restart_clocks(self) -> None:
        """Count the seconds of every worker at its video from now on."""
        self.at[:, 1] = time.monotonic()

    def blame(self, workers: list) -> None:
        """Skip the videos that killed their worker or that one hangs at, and say so."""
        for (index, since), worker in zip(self.at.tolist(), workers):
            if index < 0:
                continue
            harm = harm_done(worker, time.monotonic() - since)
            if harm:
                self.skip(self.paths[int(index)], harm)
        self.at.fill_(-1)                  # all of these workers are replaced

    def skip(self, path: str, harm: str) -> None:
        """Never touch a video again, in this start or a later one. It may be in the list twice."""
        self.skipped |= {index for index, other in enumerate(self.paths) if other == path}
        print_line(f"skipped from now on: {printable(path)} (its worker: {harm})", sys.stdout)

        if self.file:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            with open(self.file, "a", encoding="utf-8", errors="surrogateescape") as lines:
                lines.write(f"{path}\n")


def harm_done(worker, seconds: float) -> str:
    """What a video has done to its worker, at it for so many seconds; "" if nothing.

    "SIGSEGV", "exit 3" or "hung 120 s". A worker that was killed from outside, or that works at
    its video while another one dies, says nothing against its video.
    """
    if worker.is_alive():
        return f"hung {seconds:.0f} s" if seconds >= HUNG else ""
    if worker.exitcode in NOT_THE_VIDEO:
        return ""
    if worker.exitcode < 0:
        return signal.Signals(-worker.exitcode).name
    return f"exit {worker.exitcode}"


# --- batches, whatever becomes of the workers -----------------------------------------------------
class WorkersGone(Exception):
    """A worker of a DataLoader has died or hangs at a video, or no batch comes from them."""

    def __init__(self, workers: list):
        super().__init__(workers)
        self.workers = workers             # their processes


def watched(data: Dataset, keys: Iterable[list], watch: Watch, workers: int,
            device: torch.device | None = None) -> Iterator[dict]:
    """The batches of a DataLoader, one for each of keys, in their order.

    data: decodes within `watch`. keys: a batch sampler, which gives the same each time that it is
    iterated. device: where the batches go; for a GPU their memory is pinned. Workers that die or
    hang are replaced, as often as it takes. Raises OSError, one line, where they die again and
    again and no video is to blame.
    """
    pin_memory = device is not None and device.type == "cuda"
    done = 0                               # batches that have come
    deaths = 0                             # see MAX_DEATHS
    while True:
        remaining = itertools.islice(keys, done, None)
        loader = DataLoader(data, batch_sampler=remaining, num_workers=workers,
                            collate_fn=collate, pin_memory=pin_memory,
                            timeout=POLL if workers else 0, worker_init_fn=ignore_interrupts)
        num_skipped = len(watch.skipped)
        try:
            for batch in polled(loader, watch):
                done += 1
                deaths = 0
                yield batch
            return
        except WorkersGone as gone:
            watch.blame(gone.workers)
            found_one = len(watch.skipped) > num_skipped
            deaths = 0 if found_one else deaths + 1
            if deaths == MAX_DEATHS:
                raise OSError(no_video_to_blame(deaths, gone.workers)) from None
            for worker in gone.workers:
                worker.kill()              # one that hangs in a decoder hears nothing else


def no_video_to_blame(deaths: int, workers: list) -> str:
    """The one line of a run that ends because its workers die and no video explains it."""
    statuses = ", ".join(str(worker.exitcode) for worker in workers)
    return (f"workers died or stalled {deaths} times in a row and no video is to blame "
            f"(exit status {statuses}; -9 is mostly a want of memory: give fewer --workers)")


def polled(loader: DataLoader, watch: Watch) -> Iterator[dict]:
    """The loader's batches; its workers are looked at every POLL seconds while none comes.

    Raises WorkersGone where one is dead, one is at a video for more than HUNG seconds, or no batch
    has come for ten times as long. An error of the dataset itself comes through.
    """
    handler = signal.getsignal(signal.SIGCHLD)
    asked = time.monotonic()               # since when we wait for the next batch
    batches = iter(loader)                 # starts the workers, and sets torch's handler of SIGCHLD
    if loader.num_workers:
        remove_torch_handler(handler)
    workers = getattr(batches, "_workers", [])

    while True:
        looked = time.monotonic()
        try:
            batch = next(batches, None)
        except (RuntimeError, OSError, EOFError) as error:
            # After POLL seconds without a batch the loader raises RuntimeError, and so may the
            # dataset. The others come through the pipe of a worker that is about to die: give it
            # the time to be dead when we look.
            if not isinstance(error, RuntimeError):
                time.sleep(1)
            if was_suspended(looked):      # no worker could work meanwhile: no video's fault
                watch.restart_clocks()
                asked = time.monotonic()
            waited = time.monotonic() - asked
            if workers_are_gone(workers, watch, waited):
                raise WorkersGone(workers) from None
            if "DataLoader timed out" not in str(error):
                raise
            continue

        if batch is None:
            return
        yield batch
        asked = time.monotonic()           # the training step in between is not the workers' time


def remove_torch_handler(before) -> None:
    """Set SIGCHLD's handler to the one before a DataLoader, or to none if that was torch's too.

    torch's raises as soon as a worker dies, wherever the main process is: in the middle of a
    training step. It is set once a process, so an earlier DataLoader may have left it.
    """
    if threading.current_thread() is not threading.main_thread():    # Python allows it there only
        return
    from_torch = getattr(before, "__module__", "").startswith("torch.")
    signal.signal(signal.SIGCHLD, signal.SIG_DFL if from_torch else before)


def was_suspended(looked: float) -> bool:
    """Have we been stopped since we looked for a batch, as by SIGSTOP and SIGCONT?

    The loader gives up after POLL seconds; where the clock has gone on for much longer, neither
    this process nor its workers were running.
    """
    return time.monotonic() - looked > POLL + 0.5 * HUNG


def workers_are_gone(workers: list, watch: Watch, waited: float) -> bool:
    """Is a worker dead or hanging at a video, or has no batch come for too many seconds?"""
    stalled = waited > 10 * HUNG
    hanging = watch.oldest() > HUNG
    dead = not all(worker.is_alive() for worker in workers)
    return stalled or hanging or dead


def ignore_interrupts(_: int) -> None:
    """Ctrl-C goes to all processes of a terminal: the main one decides, and needs its workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
