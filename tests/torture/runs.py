"""
What tests/torture/run.py does to runs of train.py: it kills, signals, starves and poisons them, and lets them go on.

Each torture is a generator of Trial(what, failure): no failure is "". A run that was interrupted must end with the
weights, the optimiser's state, the metrics and the table of one that was not: bit for bit.
"""
import contextlib
import json
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from torture.job import JOB, ROOT, SAVES, Job, difference, flip, megabytes, one_line, same, unreadable

from mote.runtime import guard
from mote.runtime.checkpoints import read_checkpoint
from mote.runtime.run_folder import newest_checkpoint, number


class Trial(NamedTuple):
    what: str
    failure: str


def kills(job: Job, quick: bool) -> Iterator[Trial]:
    """kill -9 in turns between steps, inside a checkpoint write, and at any moment, the start included."""
    chance, reference, lives = random.Random(0), job.reference(), 4 if quick else 50
    run, life, starts = job.new(), 0, 0
    while life < lives:
        where, starts = ("between steps", "a checkpoint write", "any moment")[starts % 3], starts + 1
        logged = job.log(run).count("\nstep ") + chance.randint(1, 4) if run.with_suffix(".log").exists() else 1
        process, moment = job.start(run, fault={"slow_save": 0.2}), time.monotonic() + chance.uniform(0, job.seconds)
        while process.poll() is None and not (
                job.log(run).count("\nstep ") >= logged if where == "between steps" else
                time.monotonic() > moment and (where == "any moment" or list(run.glob(".*.pt.*")))):
            time.sleep(0.002)
        time.sleep(chance.uniform(0, 0.25) * (where != "any moment"))            # any moment of the write or the step
        ended = process.poll() is not None
        process.kill()
        process.wait()
        if ended:                                                # before the moment came: not killed
            status = process.returncode
            yield Trial("the end after several kills", f"exit status {status}" if status else
                        difference(run, reference))
            run = job.new()
            continue
        life += 1
        steps = [int(line.split()[1].split("/")[0]) for line in job.log(run).splitlines() if line.startswith("step ")]
        newest = newest_checkpoint(run) if run.exists() else None
        repeated = (steps[-1] if steps else 0) - (newest["step"] if newest else 0)
        failure = unreadable(run) or (f"{repeated} steps are repeated" if repeated > SAVES else "")
        yield Trial(f"killed: {where}, step {steps[-1] if steps else 0}", failure)
        if life == lives:
            status = job.finish(run)
            yield Trial("the end after several kills", f"exit status {status}" if status else
                        difference(run, reference))


def signals(job: Job, quick: bool) -> Iterator[Trial]:
    """SIGTERM and SIGINT: all ranks save the same step and leave with 143; the same command goes on."""
    cases = (("the run", 1, signal.SIGTERM), ("the run", 1, signal.SIGINT), ("torchrun", 2, signal.SIGTERM),
             ("torchrun", 2, signal.SIGINT), ("rank 1 of 2 alone", 2, signal.SIGTERM))
    for whom, ranks, sent in cases[::4] if quick else cases:
        for step in (2,) if quick else (2, 4, 5, 8):             # 4: saves at the end of an epoch, not evaluated
            run = job.new()
            alone = {"signal": sent, "rank": 1, "step": step} if "alone" in whom else {}
            process = job.start(run, ranks=ranks, fault={"status": f"{run}.status", **alone})
            if not alone and job.wait_for(run, f"step {step}/", process):
                process.send_signal(sent)
            status, what = job.wait(process), f"{sent.name} to {whom}, after step {step}"
            log = job.log(run)
            failure = "" if log.count("saved at step") == 1 else f"no word of saving: {log[-200:]}"
            saved = re.search(r"saved at step (\d+)", log)
            if saved and int(saved[1]) != newest_checkpoint(run)["step"]:
                failure = f"it says {saved[0]}, and the newest is of step {newest_checkpoint(run)['step']}"
            each = [file.read_text() for file in run.parent.glob(f"{run.name}.status.*")]
            failure = failure or ("" if each == ["143"] * ranks and status else f"exit status {status}, ranks {each}")
            yield Trial(what, failure or unreadable(run))
            status = job.finish(run, ranks=ranks)
            yield Trial(f"{what}, gone on", f"exit status {status}" if status else
                        difference(run, job.reference(ranks)))


def ranks(job: Job, quick: bool) -> Iterator[Trial]:
    """A rank that dies: the others stop within a minute, the log says which. With --max-restarts the run recovers."""
    for rank in (1,) if quick else (0, 1):
        run = job.new()
        process = job.start(run, ranks=2, fault={"signal": signal.SIGKILL, "rank": rank, "step": 3})
        job.wait_for(run, "step 2/", process)
        died = time.monotonic()
        status, took = job.wait(process), time.monotonic() - died
        log = job.log(run)
        failure = f"the others stopped after {took:.0f} s" if took > 60 else "exit status 0" if not status else ""
        named = f"rank      : {rank} " in log and "Signal 9" in log
        failure = failure or ("" if named else "the log does not say which")
        yield Trial(f"rank {rank} of 2 killed", failure or unreadable(run))
        run = job.new()
        fault = {"signal": signal.SIGKILL, "rank": rank, "step": 4, "once": str(job.folder / f"once{rank}")}
        status = job.finish(run, ranks=2, restarts=1, fault=fault)
        yield Trial(f"rank {rank} of 2 killed, --max-restarts 1", f"exit status {status}" if status else
                    difference(run, job.reference(2)))


def damaged(job: Job, quick: bool) -> Iterator[Trial]:
    """A newest checkpoint that is cut, empty, or has one bit flipped: the one before it is taken, saying so."""
    harms = (("one bit flipped", lambda whole: flip(whole, len(whole) // 2)), ("empty", lambda whole: b""),
             ("cut", lambda whole: whole[:len(whole) // 2]))
    for what, harm in harms[:1] if quick else harms:
        run = job.new()
        process = job.start(run)
        job.wait_for(run, "step 6/", process)
        process.send_signal(signal.SIGTERM)
        job.wait(process)
        newest = max(run.glob("step_*.pt"), key=number)
        newest.write_bytes(harm(newest.read_bytes()))            # last.pt is the same file
        status, log = job.finish(run), job.log(run)
        failure = f"exit status {status}" if status else difference(run, job.reference())
        yield Trial(f"newest checkpoint {what}", failure or ("" if f"passed over: cannot read {newest}" in log else
                                                             "nothing said"))


def disk(job: Job, quick: bool) -> Iterator[Trial]:
    """A full disk, a folder that cannot be written, data that are gone: one line, the last checkpoint still good."""
    moved = job.folder / "data/gone"
    for what, fault, words, cure in (
            ("full disk (RLIMIT_FSIZE)", {"step": 6, "file_size": 50_000}, "cannot write", None),
            ("dataset folder gone", {"step": 6, "rename": [str(job.folder / "data/toyworld"), str(moved)]},
             "could not be decoded", lambda: moved.rename(job.folder / "data/toyworld"))):
        run = job.new()
        status = job.finish(run, fault=fault)
        failure = "" if status == 2 else f"exit status {status}"
        failure = failure or one_line(job, run, words) or unreadable(run)
        newest = newest_checkpoint(run)
        yield Trial(what, failure or ("" if newest and newest["step"] >= 5 else "the last good checkpoint is gone"))
        if cure:
            cure()
        status = job.finish(run)
        yield Trial(f"{what}, gone on", f"exit status {status}" if status else difference(run, job.reference()))
    file = job.folder / "a_file"
    file.touch()
    for what, out in (("a path under a file", file / "run"), ("a folder that cannot be", Path("/proc/none/run"))):
        log = job.folder / "out.log"
        with open(log, "wb") as to:
            status = subprocess.run([sys.executable, "train.py", *JOB, "--out", str(out)], cwd=ROOT, stdout=to,
                                    stderr=to, env=job.environment).returncode
        text = log.read_text()
        yield Trial(what, "" if status == 2 and "Traceback" not in text and text.count("error") == 1 else text[-300:])
    yield from small_disk(job)


def small_disk(job: Job) -> Iterator[Trial]:
    """A disk of 20 MB, where mounting one is allowed."""
    place = job.folder / "small"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=20m", "none", str(place)], capture_output=True).returncode:
        return
    try:
        run = place / "run"
        with open(place.with_suffix(".log"), "wb") as to:
            status = subprocess.run([sys.executable, "train.py", *JOB, "--out", str(run), "--keep", "9"], cwd=ROOT,
                                    stdout=to, stderr=to, env=job.environment).returncode
        text = place.with_suffix(".log").read_text()
        failure = "" if status == 2 and "cannot write" in text and "Traceback" not in text else text[-300:]
        yield Trial("a disk of 20 MB runs full", failure or unreadable(run) or (
            "" if newest_checkpoint(run) else "no checkpoint is left"))
    finally:
        subprocess.run(["umount", str(place)], capture_output=True)


def poisons(job: Job, quick: bool) -> Iterator[Trial]:
    """NaN in a loss, inf in a gradient: refused before the weights, on all ranks alike, written down; then a stop."""
    for count, where in ((1, "loss"), (2, "gradient"), (2, "loss"))[:2 if quick else 3]:
        run = job.new()
        status = job.finish(run, "--keep", "99", "--save-every", "1", ranks=count,
                            fault={"poison": [4], "rank": count - 1, "where": where})
        what = f"{where} not finite on rank {count - 1} of {count}"
        if status:
            yield Trial(what, f"exit status {status}: {job.log(run)[-300:]}")
            continue
        three, four, five = (read_checkpoint(run / f"step_{step}.pt") for step in (3, 4, 5))
        lines = [json.loads(line) for line in (run / "refused.jsonl").read_text().splitlines()]
        failure = "" if same(three["model"], four["model"]) and same(
            three["optimizer"]["state"], four["optimizer"]["state"]) else "the step touched the weights"
        failure = failure or ("the next step did not" if same(four["model"], five["model"]) else "")
        failure = failure or ("" if [line["step"] for line in lines] == [4] and len(set(lines[0]["videos"])) == 16 else
                              f"written down: {lines}")
        yield Trial(what, failure or ("NaN in the end" if "nan" in (run / "metrics.jsonl").read_text().lower() else ""))
    run = job.new()
    status = job.finish(run, fault={"poison": list(range(3, 99))})
    newest = newest_checkpoint(run)
    failure = "" if status == 2 else f"exit status {status}"
    yield Trial("every step from 3 on", failure or one_line(job, run, f"{guard.MAX_REFUSED} steps in a row") or (
        "" if newest["step"] == 2 + guard.MAX_REFUSED else f"saved at step {newest['step']}"))


def workers(job: Job, quick: bool) -> Iterator[Trial]:
    """A video that kills its worker, one that hangs it: named, skipped, and all else as if it were undecodable."""
    videos = job.folder / "data/toyworld"
    for split in ("train",) if quick else ("train", "val"):
        victim = (videos / f"{split}.txt").read_text().split()[6]
        broken = job.new()
        whole = (videos / victim).read_bytes()
        (videos / victim).write_bytes(b"not a video")
        job.finish(broken, workers=1)
        (videos / victim).write_bytes(whole)
        for kind in ("segfault", "hang"):
            run = job.new()
            status = job.finish(run, fault={kind: victim, "hung": 3, "poll": 0.5}, workers=2)
            skipped = (run / "skipped.txt").read_text().split("\n") if (run / "skipped.txt").exists() else []
            failure = f"exit status {status}: {job.log(run)[-300:]}" if status else difference(run, broken)
            yield Trial(f"{kind} at a {split} video", failure or (
                "" if skipped == [str(videos / victim), ""] else f"skipped: {skipped}"))


def determinism(job: Job, quick: bool) -> Iterator[Trial]:
    """The same seed gives the same numbers, twice, with any number of workers."""
    for count in (2,) if quick else (0, 1, 2, 3):
        run = job.new()
        status = job.finish(run, workers=count)
        yield Trial(f"{count} workers", f"exit status {status}" if status else difference(run, job.reference()))


def starts(job: Job, quick: bool) -> Iterator[Trial]:
    """Two processes that start at once, without data and without caches: both end well, and alike."""
    for _ in range(1 if quick else 3):
        with tempfile.TemporaryDirectory() as folder:
            environment = {**job.environment, "MOTE_DATA": f"{folder}/data", "XDG_CACHE_HOME": f"{folder}/cache"}
            code = ("import sys; sys.path.insert(0, '.'); from mote import toyworld; "
                    "toyworld.SETS = {n: {s: 1 for s in c} for n, c in toyworld.SETS.items()}; import eval; "
                    "eval.main(['--backbone', 'toyworld', '--pretrained', 'toyworld', '--data', 'toyworld-novel', "
                    "'--workers', '0', '--threads', '1', '--json', sys.argv[1]])")
            both = [subprocess.Popen([sys.executable, "-c", code, f"{folder}/{i}.json"], cwd=ROOT, env=environment,
                                     stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) for i in range(2)]
            said = [process.communicate()[1].decode()[-200:] for process in both]
            failure = next((text for process, text in zip(both, said) if process.returncode), "")
            left = [path.name for path in Path(folder).rglob("*") if path.name.startswith(".")]
            with contextlib.suppress(OSError):
                a, b = (json.loads(Path(f"{folder}/{i}.json").read_text()) for i in range(2))
                failure = failure or ("" if a["splits"][0]["per_video"] == b["splits"][0]["per_video"] else "not alike")
            yield Trial("two starts at once", failure or (f"left behind: {left}" if left else ""))


def soak(job: Job, minutes: float, curve: Path | None) -> Iterator[Trial]:
    """Toyworld training for that long: memory of the main process and of its workers, and open files, stay flat."""
    run, samples = job.new(), []
    process = job.start(run, "--epochs", "100000", "--eval-every", "20", "--log-every", "100", "--save-every", "0",
                        workers=2)
    begin = time.monotonic()
    while time.monotonic() - begin < 60 * minutes and process.poll() is None:
        time.sleep(min(10.0, 6 * minutes))
        main, children = megabytes(process.pid)
        files = len(list(Path(f"/proc/{process.pid}/fd").iterdir()))
        samples.append((round(time.monotonic() - begin), main, children, files))
    ended = process.poll()
    process.send_signal(signal.SIGTERM)
    status = job.wait(process)
    if curve:
        curve.write_text("".join(json.dumps(dict(zip(("seconds", "main_mb", "workers_mb", "files"), sample))) + "\n"
                                 for sample in samples))
    yield Trial(f"{minutes:g} minutes", "" if ended is None and status == 143 else f"exit status {ended or status}")
    third = max(1, len(samples) // 3)
    for name, column in (("memory of the main process", 1), ("memory of the workers", 2), ("open files", 3)):
        early, late = (max(sample[column] for sample in part)
                       for part in (samples[third:2 * third], samples[2 * third:]))
        yield Trial(f"{name}: {early:.0f}, then {late:.0f}", "" if late <= 1.05 * early + 2 else "grows")
