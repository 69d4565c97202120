"""
A DataLoader whose workers are watched: one that dies or hangs is replaced, and the video it was at is skipped for good.

Without workers (--workers 0) a video that crashes the decoder ends the run. Not part of the paper.
"""
import contextlib
import itertools
import signal
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

from ..data import Undecodable, collate
from .errors import printable

HUNG = 120.0              # seconds at one video, after which its worker is taken to hang
POLL = 5.0                # seconds between looks at the workers while no batch comes
MAX_DEATHS = 3            # of workers in a row, without a batch in between and without a video to blame
NOT_THE_VIDEO = (0, -signal.SIGTERM, -signal.SIGINT, -signal.SIGKILL)    # a worker's end: from outside, no memory


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
