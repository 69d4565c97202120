"""
Open many videos in processes that may crash or hang, and remember what was seen.

Used by tools/check.py.

    for path, record in examine_all(paths, "some", set(), Path("checked.jsonl"), 2, 60):
        record       frames, height, width, seconds, sha256, as far as they are known; container,
                     and in_order, why it is not sought in;
                     problem: [kind, what] if there is one
    for path, record in compare_all(paths, 2, 60):
        record       problem, if frames that were sought are not those read in order

Each record becomes a line of the file at once. A later run takes it from there as long as the
video's path, size and time of change are the same: whatever ends a run, the next one goes on.
depth says how much of a video is decoded; it is one of DEPTHS.
"""
import contextlib
import hashlib
import json
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Iterator
from multiprocessing.connection import wait
from pathlib import Path
from typing import BinaryIO

import numpy as np

from mote.data import MAX_PIXELS, Undecodable, decode, segment_indices
from mote.files import containers, decoding

DEPTHS = ("none", "first", "some", "all")        # each sees what those before it see
T = 8                                            # frames of a clip
AT_ONCE = 32                                     # frames decoded at once for "all"
COMPARED = 600                                   # frames from the first on, of which T are compared
ORDER = "order"                                  # in place of a depth: compare sought and in order
Task = tuple[str, str, bool]                     # path, depth, whether its content is hashed


# --- one video ------------------------------------------------------------------------------------
def examine(path: str, depth: str, hashed: bool) -> dict:
    """The record of one video file or folder of JPEGs, with its first problem if it has one.

    hashed: whether the record needs the sha256 of the file's content.
    """
    seen: dict = {}
    problem = None
    try:
        if hashed:
            seen["sha256"] = sha256(path)
        if depth == ORDER:
            problem = compare(path)
        elif not os.path.isdir(path):
            problem = read_header(path, seen)
        if not problem and depth not in ("none", ORDER):
            problem = read_frames(path, depth, seen)
    except (Undecodable, RuntimeError, ValueError, OSError) as error:
        problem = true_reason(path, reason(error, path))
    if problem:
        seen["problem"] = problem
    return seen


def true_reason(path: str, what: str) -> list[str]:
    """[kind, what] of a file that does not decode. what: what the decoder says, which may mislead.

    First what the bytes say: sound only, cut off, or no video at all under a video's name.
    """
    if os.path.isdir(path):
        return ["undecodable", what]
    with contextlib.suppress(OSError):
        if what.endswith("no video"):
            return ["no video", what]
        missing = cut_off(path)
        if missing:
            return ["cut off", f"{missing} ({what})"]
        if containers.examine(path).container == "unknown":
            with open(path, "rb") as file:
                head = file.read(16)
            return ["not a video", f"its bytes are of no known container, they begin with {head!r}"]
    return ["undecodable", what]


def cut_off(path: str) -> str:
    """How much of a file there is, if it should be longer by its own account; else ""."""
    size = os.path.getsize(path)
    claimed = containers.claimed_size(path)
    return f"cut off: {size} of {claimed} bytes are there" if claimed > size else ""


def sha256(path: str) -> str:
    """Of a file's content, read in parts: videos may be larger than the memory."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while part := file.read(1 << 24):
            digest.update(part)
    return digest.hexdigest()


def reason(error: Exception, path: str) -> str:
    """An error in one line, without the path, with which messages of mote.data begin."""
    return decoding.first_line(error).removeprefix(f"{path}: ")[:200]


def read_header(path: str, seen: dict) -> list[str] | None:
    """Note frames, size and duration in `seen`; compare them with the header's claims.

    The frames are those that the file holds: torchcodec counts them without decoding. Returns the
    problem, [kind, what], or None.
    """
    look = containers.examine(path)
    seen |= {"container": look.container, "in_order": look.in_order}
    if look.instead:
        return ["no video", f"{look.instead}, no video"]
    decoder = None
    if look.container in decoding.INDEXED:
        decoder = decoding.open_indexed(Path(path).absolute())
    if decoder is not None:
        seen["seconds"] = decoder.metadata.duration_seconds
    else:
        decoder = decoding.InOrder(Path(path).absolute())       # nobody looks at its times
    header = decoder.metadata
    n = len(decoder)
    height, width = header.height, header.width
    seen |= {"frames": n, "height": height, "width": width}
    if (height or 0) * (width or 0) > MAX_PIXELS:
        return ["absurd size", f"{width} x {height} pixels"]
    problem = claims_too_much(path, look.container, n, header) if "seconds" in seen else None
    # Of an .avi whose writer was not careful, the size may be wrong and the file whole.
    if not problem and look.container != "avi" and cut_off(path):
        return ["cut off", cut_off(path)]
    return problem


def claims_too_much(path: str, container: str, n: int, header) -> list[str] | None:
    """The problem, [kind, what], of a file that holds fewer than its header says, or None.

    n: its frames.
    """
    seconds = header.duration_seconds
    claimed = header.num_frames_from_header
    claimed_seconds = duration_in_header(path, header)
    share = 1.0
    if claimed_seconds:
        share = (seconds or 0) / claimed_seconds

    # Some frames of an .avi are empty. An .mp4 that was cut without re-encoding (Kinetics) hides
    # those before the cut: its number is too high, its time is right.
    if claimed:
        few = n < claimed - max(2, 0.05 * claimed)
        if few and (container == "avi" or share < 0.95):
            what = f"the header claims {claimed} frames, the file holds {n}"
            missing = cut_off(path)
            if missing:
                what += f"; {missing}"
            return ["fewer frames than claimed", what]
    # The sound of an .mkv may be longer than its pictures.
    elif n and share < 0.75:
        return ["fewer frames than claimed", f"the header claims {claimed_seconds:.1f} s, "
                f"its {n} frames last {seconds or 0:.1f} s"]
    return None


def duration_in_header(path: str, header) -> float | None:
    """Seconds that the header claims for the video; None if it claims nothing."""
    from torchcodec.decoders import VideoDecoder

    if header.duration_seconds_from_header is not None:
        return header.duration_seconds_from_header
    try:                                         # .mkv, .webm: one duration for all their streams
        decoder = VideoDecoder(os.path.abspath(path), num_ffmpeg_threads=1,
                               seek_mode="approximate")
        return decoder.metadata.duration_seconds
    except (ValueError, RuntimeError):           # not even that
        return None


def read_frames(path: str, depth: str, seen: dict) -> list[str] | None:
    """Decode the first frame, then as many as the depth asks for. Notes their number in `seen`.

    Returns the problem, [kind, what], or None. Raises Undecodable if the first frame is bad.
    """
    def first(n: int) -> np.ndarray:
        seen["frames"] = n                       # noted even if this frame does not decode
        return np.zeros(1, dtype=int)

    decode(path, first)
    n = seen["frames"]
    for indices in frames_to_decode(n, depth):
        try:
            decode_at(path, indices)
        except Undecodable as error:
            bad = first_undecodable(path, indices)
            if bad is None:
                return ["undecodable", f"each frame alone decodes, but not {len(indices)} at once "
                        f"({reason(error, path)})"]
            i, why = bad
            return ["fewer frames than claimed", f"frame {i} of {n} does not decode ({why})"]
    return None


def compare(path: str) -> list[str] | None:
    """The problem, [kind, what], if frames that are sought are not those read in order, or None.

    Looks at T frames within the first COMPARED ones, but not at the last two, where the one before
    may stand in.
    """
    counts: list[int] = []
    decode(path, lambda n: counts.append(n) or np.zeros(1, dtype=int))
    n = min(counts[0] - 2, COMPARED)
    if n < 1:
        return None
    indices = np.unique(segment_indices(n, T))
    sought = decode(path, lambda _: indices)

    look = containers.examine(path)._replace(in_order="to compare")
    reader = decoding.InOrder(Path(path))
    in_order = decoding.read_frames(Path(path), look, reader, indices.tolist())
    for i, first, second in zip(indices, sought, in_order):
        if first.shape != second.shape or (first.float() - second.float()).abs().mean() > 1:
            return ["wrong frames", f"frame {i}, sought, is not frame {i}, read in order"]
    return None


def frames_to_decode(n: int, depth: str) -> list[np.ndarray]:
    """Which of n frames to decode after the first, in groups that are decoded at once.

    "some": eight from all over the video, as clips take them, and the last one, which is the first
    to be missing from a file that was cut off. "all": in groups, as memory may not hold all frames.
    """
    if depth == "some":
        return [np.append(segment_indices(n, T)[0], n - 1)]
    if depth == "all":
        return np.split(np.arange(n), range(AT_ONCE, n, AT_ONCE))
    return []


def decode_at(path: str, indices: np.ndarray) -> None:
    """Decode the frames of these numbers, and forget them. Raises Undecodable."""
    decode(path, lambda _: indices)


def first_undecodable(path: str, indices: np.ndarray) -> tuple[int, str] | None:
    """The first of these frames that does not decode alone, and why; None if all of them do."""
    for i in np.unique(indices):
        try:
            decode_at(path, np.array([i]))
        except Undecodable as error:
            return i, reason(error, path)
    return None


# --- processes ------------------------------------------------------------------------------------
def work(connection, parent: int) -> None:
    """What a worker does: a task in, a record out, until None comes or its parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)                 # Ctrl-C is for the parent
    while os.getppid() == parent:
        if connection.poll(5):
            task = connection.recv()
            if task is None:
                return
            connection.send(examine(*task))


class Worker:
    """A process that examines one video at a time: which one, and until when we wait for it."""

    def __init__(self, context) -> None:
        self.path = ""
        self.late = 0.0
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=work, args=(theirs, os.getpid()), daemon=True)
        self.process.start()
        theirs.close()                           # so that its death is the end of the pipe

    def give(self, task: Task, timeout: float) -> None:
        """Send it a task, to be answered within `timeout` seconds.

        The deadline is on the monotonic clock: setting the machine's time must not move it.
        """
        self.path = task[0]
        self.late = time.monotonic() + timeout
        self.connection.send(task)

    def answer(self) -> tuple[bool, dict]:
        """Whether it is alive, and the record that it sent or that says how it died."""
        try:
            return True, self.connection.recv()
        except (EOFError, OSError):
            self.process.join()                  # now it has an exit status
            problem = ["decoder crashed", f"exit status {self.process.exitcode}"]
            return False, {"problem": problem}

    def give_up(self, timeout: float) -> tuple[bool, dict]:
        """Kill it. -> False, as it is not alive, and the record of its video"""
        self.kill()
        return False, {"problem": ["decoder hung", f"no answer in {timeout:g} s"], "limit": timeout}

    def send_home(self) -> None:
        """Let it end by itself: there is nothing more to do."""
        self.connection.send(None)
        self.process.join(1)

    def kill(self) -> None:
        """End it at once. A decoder that hangs in C code heeds no gentler signal."""
        self.process.kill()
        self.process.join(1)                     # no longer: some hang where no signal reaches them


def examine_anew(tasks: list[Task], jobs: int, timeout: float) -> Iterator[tuple[str, dict]]:
    """(path, record) of every video that no earlier run has seen."""
    yield from run_in_workers(tasks, jobs, timeout)


def compare_all(paths: list[str], jobs: int, timeout: float) -> Iterator[tuple[str, dict]]:
    """(path, record) of every video, whose frames are sought and read in order. Nothing is kept."""
    yield from run_in_workers([(path, ORDER, False) for path in paths], jobs, timeout)


def run_in_workers(tasks: list[Task], jobs: int, timeout: float) -> Iterator[tuple[str, dict]]:
    """(path, record) of every task, as they come. A worker that dies or hangs is replaced.

    jobs: workers at once. timeout: seconds for one video. Whatever ends this, also Ctrl-C or a
    caller that stops to ask for more, no worker is left behind.
    """
    # fork starts at once; elsewhere it is missing or not safe.
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    todo = iter(tasks)
    busy: list[Worker] = []

    def give_next(worker: Worker | None) -> None:
        """The next task goes to this worker, or to a new one; without a task, it goes home."""
        task = next(todo, None)
        if task is not None:
            worker = worker or Worker(context)
            busy.append(worker)                  # before it works: whatever happens, it is killed
            worker.give(task, timeout)
        elif worker:
            worker.send_home()

    try:
        for _ in range(jobs):
            give_next(None)
        while busy:
            # Sleep until an answer comes, a worker dies (the end of its pipe), or one is late.
            soonest = min(worker.late for worker in busy)
            connections = [worker.connection for worker in busy]
            ready = wait(connections, max(0, soonest - time.monotonic()))

            for worker in list(busy):
                path = worker.path               # of this task, not of the next one
                if worker.connection in ready:
                    alive, record = worker.answer()
                elif time.monotonic() > worker.late:
                    alive, record = worker.give_up(timeout)
                else:
                    continue
                busy.remove(worker)
                give_next(worker if alive else None)
                yield path, record
    finally:
        for worker in busy:
            worker.kill()


# --- what earlier runs saw ------------------------------------------------------------------------
def read_records(file: Path) -> dict[tuple, dict]:
    """(path, size, time of change) -> its last record.

    A run that was killed may leave half a line, which counts as none.
    """
    if not file.exists():
        return {}
    records = {}
    for line in file.read_bytes().splitlines():
        try:
            record = json.loads(line)
            if record["depth"] in DEPTHS:
                records[record["path"], record["size"], record["mtime"]] = record
        except (ValueError, KeyError, TypeError):
            continue
    return records


def reusable(record: dict, depth: str, hashed: bool, timeout: float) -> bool:
    """Whether a record answers what is asked now.

    depth: how much must have been decoded at least. hashed: whether it must have a sha256. A video
    that crashed or hung has none; opening it anew would end in the same way.
    """
    if record.get("limit", timeout) < timeout:                   # it hung, and may have longer now
        return False
    if DEPTHS.index(record["depth"]) < DEPTHS.index(depth):
        return False
    died = record.get("problem", [""])[0] in ("decoder crashed", "decoder hung")
    return not hashed or "sha256" in record or died


def examine_all(paths: list[str], depth: str, hashed: set[str], file: Path, jobs: int,
                timeout: float) -> Iterator[tuple[str, dict]]:
    """(path, record) of every video. New records are appended to `file`.

    hashed: the paths whose records need the sha256 of the content. jobs: processes. timeout:
    seconds for one video.
    """
    old = read_records(file)
    tasks: list[Task] = []
    keys = {}
    for path in paths:
        stat = os.stat(path)
        keys[path] = (path, stat.st_size, stat.st_mtime_ns)
        record = old.get(keys[path])
        if record and reusable(record, depth, path in hashed, timeout):
            yield path, record
        else:
            tasks.append((path, depth, path in hashed))

    with open(file, "ab+") as out:
        end_last_line(out)
        for path, record in examine_anew(tasks, jobs, timeout):
            _, size, mtime = keys[path]
            record = {"path": path, "size": size, "mtime": mtime, "depth": depth, **record}
            out.write(json.dumps(record).encode() + b"\n")
            out.flush()
            yield path, record


def end_last_line(out: BinaryIO) -> None:
    """End the half line that a killed run may leave: the next record must stand on its own."""
    size = out.seek(0, os.SEEK_END)
    out.seek(max(0, size - 1))
    if out.read() not in (b"", b"\n"):
        out.write(b"\n")
