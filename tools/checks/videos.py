"""
Open many videos, each in a process that may crash or hang, and remember what was seen. Used by tools/check.py.

    for path, record in examine_all(paths, depth="some", hashed=set(), file=Path("checked.jsonl"), jobs=2, timeout=60):
        record       frames, height, width, seconds, sha256 as far as known; problem: [kind, what] if there is one

A record is a line of `file` as soon as it is there, and is taken from it while path, size and time of change are the
same: whatever ends a run, the next goes on. depth: how much is decoded, one of DEPTHS.
"""
import hashlib
import json
import multiprocessing
import os
import re
import signal
import sys
import time
from collections.abc import Iterator
from multiprocessing.connection import wait
from pathlib import Path

import numpy as np

from mote.data import MAX_PIXELS, Undecodable, decode, segment_indices

DEPTHS = ("none", "first", "some", "all")                        # each sees what those before it see
T = 8                                                            # frames of a clip


def reason(error: Exception, path: str) -> str:
    """One line; torchcodec's messages start with its own source file, decode's with the path."""
    first = (str(error).splitlines() or [type(error).__name__])[0].removeprefix(f"{path}: ")
    return re.sub(r"^.*\.cpp:\d+, ", "", first)[:200]


def read_header(path: str, seen: dict) -> list[str] | None:
    """Size, and the frames that the header claims against those that the file holds, not decoded yet. -> problem"""
    from torchcodec.decoders import VideoDecoder

    decoder = VideoDecoder(path, num_ffmpeg_threads=1)
    header = decoder.metadata
    n, claimed, lasts = len(decoder), header.num_frames_from_header, header.duration_seconds
    seen |= {"frames": n, "height": header.height, "width": header.width, "seconds": lasts}
    if (header.height or 0) * (header.width or 0) > MAX_PIXELS:
        return ["absurd size", f"{header.width} x {header.height} pixels"]
    whole = header.duration_seconds_from_header
    if whole is None:                                            # .mkv, .webm: of all streams
        try:
            whole = VideoDecoder(path, num_ffmpeg_threads=1, seek_mode="approximate").metadata.duration_seconds
        except (ValueError, RuntimeError):                       # not even that
            whole = None
    part = (lasts or 0) / whole if whole else 1
    # Some frames of an .avi are empty. An .mp4 that was cut without re-encoding (Kinetics) hides those before the cut:
    # its number is too high, its time is right. The sound of an .mkv may be longer than its pictures.
    if claimed and n < claimed - max(2, 0.05 * claimed) and (path.lower().endswith(".avi") or part < 0.95):
        return ["fewer frames than claimed", f"the header claims {claimed} frames, the file holds {n}"]
    if not claimed and n and part < 0.75:
        return ["fewer frames than claimed", f"the header claims {whole:.1f} s, its {n} frames last {lasts or 0:.1f} s"]
    return None


def read_frames(path: str, depth: str, seen: dict) -> list[str] | None:
    """Decode the first frame; then eight from all over and the last, as clips do, or all. -> problem"""
    def first(n: int) -> np.ndarray:
        seen["frames"] = n
        return np.zeros(1, dtype=int)

    decode(path, first)
    n = seen["frames"]
    for indices in {"first": [], "some": [np.append(segment_indices(n, T)[0], n - 1)],
                    "all": np.split(np.arange(n), range(32, n, 32))}[depth]:
        try:
            decode(path, lambda _, indices=indices: indices)
        except Undecodable as error:
            for i in np.unique(indices):
                try:
                    decode(path, lambda _, i=i: np.array([i]))
                except Undecodable as alone:
                    return ["fewer frames than claimed", f"frame {i} of {n} does not decode ({reason(alone, path)})"]
            return ["undecodable", f"each frame alone decodes, but not {len(indices)} at once ({reason(error, path)})"]
    return None


def examine(path: str, depth: str, hashed: bool) -> dict:
    """The record of one video file or folder of JPEGs."""
    seen: dict = {}
    try:
        if hashed:
            whole = hashlib.sha256()
            with open(path, "rb") as file:
                while part := file.read(1 << 24):
                    whole.update(part)
            seen["sha256"] = whole.hexdigest()
        problem = None if os.path.isdir(path) else read_header(path, seen)
        problem = problem or (read_frames(path, depth, seen) if depth != "none" else None)
    except (Undecodable, RuntimeError, ValueError, OSError) as error:
        problem = ["undecodable", reason(error, path)]
    return {**seen, "problem": problem} if problem else seen


def work(connection, parent: int) -> None:
    """A worker: (path, depth, hashed) in, a record out, until None comes or nobody is there any more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)                 # Ctrl-C is for the parent
    while os.getppid() == parent:
        if connection.poll(5):
            task = connection.recv()
            if task is None:
                return
            connection.send(examine(*task))


def examine_anew(tasks: list[tuple], jobs: int, timeout: float) -> Iterator[tuple[str, dict]]:
    """(path, record) of every task (path, depth, hashed), as they come; a worker that dies or hangs is replaced."""
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    todo, busy = iter(tasks), {}                                 # busy: connection -> process, path, when it is late

    def give(connection=None, process=None) -> None:
        task = next(todo, None)
        if task and not connection:
            connection, theirs = context.Pipe()
            process = context.Process(target=work, args=(theirs, os.getpid()), daemon=True)
            process.start()
            theirs.close()                                       # so that the worker's death is the end of the pipe
        if task:
            busy[connection] = process, task[0], time.monotonic() + timeout
        if connection:
            connection.send(task)                                # None: go home
        if connection and not task:
            process.join(1)

    try:
        for _ in range(jobs):
            give()
        while busy:
            ready = wait(list(busy), max(0, min(late for *_, late in busy.values()) - time.monotonic()))
            for connection, (process, path, late) in list(busy.items()):
                alive = connection in ready
                if alive:
                    try:
                        record = connection.recv()
                    except (EOFError, OSError):
                        process.join()
                        record, alive = {"problem": ["decoder crashed", f"exit status {process.exitcode}"]}, False
                elif time.monotonic() > late:
                    process.kill()
                    process.join(1)                              # no longer: some hang where no signal reaches them
                    record = {"problem": ["decoder hung", f"no answer in {timeout:g} s"], "limit": timeout}
                else:
                    continue
                del busy[connection]
                give(*((connection, process) if alive else ()))
                yield path, record
    finally:
        for process, *_ in busy.values():
            process.kill()
            process.join(1)


def read_records(file: Path) -> dict[tuple, dict]:
    """(path, size, time of change) -> the last record; half a line, of a run that was killed, counts as none."""
    records = {}
    for line in file.read_bytes().splitlines() if file.exists() else ():
        try:
            record = json.loads(line)
            DEPTHS.index(record["depth"])
            records[record["path"], record["size"], record["mtime"]] = record
        except (ValueError, KeyError, TypeError):
            continue
    return records


def reusable(record: dict, depth: str, hashed: bool, timeout: float) -> bool:
    """Whether a record answers what is asked now."""
    if record.get("limit", timeout) < timeout:                   # hung, and may have longer now
        return False
    died = record.get("problem", [""])[0] in ("decoder crashed", "decoder hung")
    return DEPTHS.index(record["depth"]) >= DEPTHS.index(depth) and (not hashed or "sha256" in record or died)


def examine_all(paths: list[str], depth: str, hashed: set[str], file: Path, jobs: int,
                timeout: float) -> Iterator[tuple[str, dict]]:
    """(path, record) of every video; those in `hashed` with the sha256 of their content. New records go to `file`."""
    old, tasks, keys = read_records(file), [], {}
    for path in paths:
        stat = os.stat(path)
        keys[path] = (path, stat.st_size, stat.st_mtime_ns)
        record = old.get(keys[path])
        if record and reusable(record, depth, path in hashed, timeout):
            yield path, record
        else:
            tasks.append((path, depth, path in hashed))
    with open(file, "ab+") as out:
        out.seek(max(0, out.seek(0, os.SEEK_END) - 1))
        if out.read() not in (b"", b"\n"):
            out.write(b"\n")                                     # after half a line
        for path, record in examine_anew(tasks, jobs, timeout):
            record = {**dict(zip(("path", "size", "mtime"), keys[path])), "depth": depth, **record}
            out.write(json.dumps(record).encode() + b"\n")
            out.flush()
            yield path, record
