"""
Runs whose checkpoints, disk, numbers or videos go wrong: nothing is lost, and the log says what
went wrong.
"""
import json
import os
import subprocess
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path

from torture.job import Job, Trial, difference, flip, one_line, same, unreadable, wrong_end

from mote.runtime import guard
from mote.runtime.checkpoints import read_checkpoint
from mote.runtime.run_folder import newest_checkpoint, number


# --- 1. a damaged checkpoint ----------------------------------------------------------------------
def harmed(whole: bytes) -> dict[str, bytes]:
    """Harm -> what it makes of a file."""
    half = len(whole) // 2
    return {"one bit flipped": flip(whole, half), "empty": b"", "cut": whole[:half]}


def damaged(job: Job, options: Namespace) -> Iterator[Trial]:
    """A newest checkpoint that is cut, empty or has one bit flipped: the one before it is taken,
    and the log says so.
    """
    harms = ("one bit flipped",) if options.quick else ("one bit flipped", "empty", "cut")
    for what in harms:
        # A signal makes the run save and leave before its end.
        run = job.new()
        process = job.start(run)
        job.wait_for(run, "step 6/", process)
        process.terminate()
        job.wait(process)

        newest = max(run.glob("step_*.pt"), key=number)
        newest.write_bytes(harmed(newest.read_bytes())[what])    # last.pt is the same file
        status = job.finish(run)
        failure = wrong_end(status, run, job.reference())
        if not failure and f"passed over: cannot read {newest}" not in job.log(run):
            failure = "nothing said"
        yield Trial(f"newest checkpoint {what}", failure)


# --- 2. disks and folders -------------------------------------------------------------------------
def disk(job: Job, options: Namespace) -> Iterator[Trial]:
    """A full disk, a folder that cannot be written, data that are gone: one line, and the last
    checkpoint is still good.
    """
    # No checkpoint is as small as this limit.
    full = {"step": 6, "file_size": 50_000}
    yield from broken_by(job, "full disk (RLIMIT_FSIZE)", full, "cannot write")

    # Moved away in the middle of an epoch: every video from then on cannot be decoded.
    data = job.folder / "data"
    gone = {"step": 6, "rename": [str(data / "toyworld"), str(data / "gone")]}
    yield from broken_by(job, "dataset folder gone", gone, "could not be decoded")

    file = job.folder / "a_file"
    file.touch()
    yield unwritable(job, "a path under a file", file / "run")
    yield unwritable(job, "a folder that cannot be", Path("/proc/none/run"))
    yield from small_disk(job)


def broken_by(job: Job, what: str, fault: dict, words: str) -> Iterator[Trial]:
    """A run that a fault ends with these words. Without the fault it goes on.

    fault: tests/torture/faults.py. Its checkpoint of step 5 or later must be left.
    """
    run = job.new()
    status = job.finish(run, fault=fault)
    failure = f"exit status {status}" if status != 2 else one_line(job, run, words)
    failure = failure or unreadable(run)
    newest = newest_checkpoint(run)
    if not failure and (newest is None or newest["step"] < 5):
        failure = "the last good checkpoint is gone"
    yield Trial(what, failure)

    if "rename" in fault:
        there, away = fault["rename"]
        os.rename(away, there)
    status = job.finish(run)
    yield Trial(f"{what}, gone on", wrong_end(status, run, job.reference()))


def unwritable(job: Job, what: str, out: Path) -> Trial:
    """A run whose folder cannot be made: one line."""
    log = job.folder / "out.log"
    status = job.run_to(out, log)
    text = log.read_text()
    good = status == 2 and "Traceback" not in text and text.count("error") == 1
    return Trial(what, "" if good else text[-300:])


def small_disk(job: Job) -> Iterator[Trial]:
    """A disk of 20 MB. No trial where mounting one is not allowed."""
    place = job.folder / "small"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=20m", "none", str(place)]
    if subprocess.run(mount, capture_output=True).returncode:
        return

    try:
        run = place / "run"
        log = place.with_suffix(".log")
        status = job.run_to(run, log, "--keep", "9")
        text = log.read_text()
        good = status == 2 and "cannot write" in text and "Traceback" not in text
        failure = "" if good else text[-300:]
        failure = failure or unreadable(run)
        if not failure and newest_checkpoint(run) is None:
            failure = "no checkpoint is left"
        yield Trial("a disk of 20 MB runs full", failure)
    finally:
        subprocess.run(["umount", str(place)], capture_output=True)


# --- 3. NaN and inf -------------------------------------------------------------------------------
def poisons(job: Job, options: Namespace) -> Iterator[Trial]:
    """NaN in a loss, inf in a gradient: refused before the weights, on all ranks alike, and written
    down; after several steps in a row the run stops.
    """
    cases = ((1, "loss"), (2, "gradient"), (2, "loss"))   # ranks, what is not finite on the last
    if options.quick:
        cases = cases[:2]
    for ranks, where in cases:
        what = f"{where} not finite on rank {ranks - 1} of {ranks}"
        run = job.new()
        status = job.finish(run, "--keep", "99", "--save-every", "1", ranks=ranks,
                            fault={"poison": [4], "rank": ranks - 1, "where": where})
        if status:
            yield Trial(what, f"exit status {status}: {job.log(run)[-300:]}")
        else:
            yield Trial(what, after_a_refused_step(run))

    # Every step from 3 on: the weights before them are saved, then it stops.
    run = job.new()
    status = job.finish(run, fault={"poison": list(range(3, 99))})
    newest = newest_checkpoint(run)
    failure = f"exit status {status}" if status != 2 else ""
    failure = failure or one_line(job, run, f"{guard.MAX_REFUSED} steps in a row")
    if not failure and newest["step"] != 2 + guard.MAX_REFUSED:
        failure = f"saved at step {newest['step']}"
    yield Trial("every step from 3 on", failure)


def after_a_refused_step(run: Path) -> str:
    """What is wrong with a run whose step 4 was poisoned; "" for nothing.

    Step 4 leaves weights and moments as step 3 did, step 5 goes on, and refused.jsonl names step 4
    and its 16 videos, from all ranks.
    """
    three = read_checkpoint(run / "step_3.pt")
    four = read_checkpoint(run / "step_4.pt")
    five = read_checkpoint(run / "step_5.pt")
    same_weights = same(three["model"], four["model"])
    same_moments = same(three["optimizer"]["state"], four["optimizer"]["state"])
    if not same_weights or not same_moments:
        return "the step touched the weights"
    if same(four["model"], five["model"]):
        return "the next step did not"

    refused = [json.loads(line) for line in (run / "refused.jsonl").read_text().splitlines()]
    steps = [line["step"] for line in refused]
    if steps != [4] or len(set(refused[0]["videos"])) != 16:
        return f"written down: {refused}"
    if "nan" in (run / "metrics.jsonl").read_text().lower():
        return "NaN in the end"
    return ""


# --- 4. videos that kill or hang a worker ---------------------------------------------------------
def workers(job: Job, options: Namespace) -> Iterator[Trial]:
    """The video is named and skipped, and all else is as if it could not be decoded."""
    videos = job.folder / "data/toyworld"
    sides = ("train",) if options.quick else ("train", "val")
    for side in sides:
        # What the run must come to: that of one where the video is no video.
        name = (videos / f"{side}.txt").read_text().split()[6]
        victim = videos / name
        undecodable = job.new()
        whole = victim.read_bytes()
        victim.write_bytes(b"not a video")
        job.finish(undecodable, workers=1)
        victim.write_bytes(whole)

        # The video decodes again, but for the fault.
        for kind in ("segfault", "hang"):
            run = job.new()
            status = job.finish(run, fault={kind: name, "hung": 3, "poll": 0.5}, workers=2)
            if status:
                failure = f"exit status {status}: {job.log(run)[-300:]}"
            else:
                failure = difference(run, undecodable) or not_skipped(run, victim)
            yield Trial(f"{kind} at a {side} video", failure)


def not_skipped(run: Path, victim: Path) -> str:
    """What is wrong with the list of skipped videos, on which only this one should be."""
    file = run / "skipped.txt"
    skipped = file.read_text().split("\n") if file.exists() else []
    return "" if skipped == [str(victim), ""] else f"skipped: {skipped}"
