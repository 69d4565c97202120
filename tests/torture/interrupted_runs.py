"""
Runs that are killed or told to stop: the same command goes on and ends as if nothing had happened.

That is, with the weights, the optimiser's state, the metrics and the table of a run that was not
interrupted, bit for bit.
"""
import random
import re
import signal
import subprocess
import time
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path

from torture.job import SAVES, Job, Trial, unreadable, wrong_end

from mote.runtime.run_folder import newest_checkpoint

# --- 1. kill -9 -----------------------------------------------------------------------------------
MOMENTS = ("between steps", "a checkpoint write", "any moment")


def kills(job: Job, options: Namespace) -> Iterator[Trial]:
    """kill -9 in turns between steps, inside a checkpoint write, and at any moment, the start
    included. A run is killed until it ends before the moment comes; then the next run is.
    """
    chance = random.Random(0)
    reference = job.reference()
    lives = 4 if options.quick else 50

    run = job.new()
    life = 0
    start = 0
    while life < lives:
        where = MOMENTS[start % 3]
        start += 1
        status = start_and_kill(job, run, where, chance)
        if status is not None:
            yield Trial("the end after several kills", wrong_end(status, run, reference))
            run = job.new()
            continue
        life += 1
        yield after_a_kill(job, run, where)

    status = job.finish(run)
    yield Trial("the end after several kills", wrong_end(status, run, reference))


def start_and_kill(job: Job, run: Path, where: str, chance: random.Random) -> int | None:
    """Go on with a run and kill it. -> None, or its exit status if it ended before the moment."""
    steps = 1                                            # in the log: the moment "between steps"
    if run.with_suffix(".log").exists():
        steps = steps_in(job.log(run)) + chance.randint(1, 4)
    process = job.start(run, fault={"slow_save": 0.2})
    moment = time.monotonic() + chance.uniform(0, job.seconds)

    def has_come() -> bool:
        if where == "between steps":
            return steps_in(job.log(run)) >= steps
        if time.monotonic() <= moment:
            return False
        return where == "any moment" or any(run.glob(".*.pt.*"))

    while process.poll() is None and not has_come():
        time.sleep(0.002)
    delay = chance.uniform(0, 0.25)                      # any moment of the write or of the step
    if where != "any moment":
        time.sleep(delay)

    ended = process.poll() is not None
    process.kill()
    process.wait()
    return process.returncode if ended else None


def steps_in(log: str) -> int:
    """How many lines about a step the log has."""
    return log.count("\nstep ")


def after_a_kill(job: Job, run: Path, where: str) -> Trial:
    """Its checkpoints can be read, and going on repeats no more steps than lie between two."""
    lines = [line for line in job.log(run).splitlines() if line.startswith("step ")]
    step = int(lines[-1].split()[1].split("/")[0]) if lines else 0
    newest = newest_checkpoint(run) if run.exists() else None
    repeated = step - (newest["step"] if newest else 0)

    failure = unreadable(run)
    if not failure and repeated > SAVES:
        failure = f"{repeated} steps are repeated"
    return Trial(f"killed: {where}, step {step}", failure)


# --- 2. SIGTERM and SIGINT ------------------------------------------------------------------------
SIGNALS = (("the run", 1, signal.SIGTERM), ("the run", 1, signal.SIGINT),
           ("torchrun", 2, signal.SIGTERM), ("torchrun", 2, signal.SIGINT),
           ("rank 1 of 2 alone", 2, signal.SIGTERM))      # to whom, ranks, the signal


def signals(job: Job, options: Namespace) -> Iterator[Trial]:
    """All ranks save the same step and leave with exit status 143; the same command goes on."""
    cases = (SIGNALS[0], SIGNALS[-1]) if options.quick else SIGNALS
    steps = (2,) if options.quick else (2, 4, 5, 8)      # 4: saves where an epoch ends, unevaluated
    for whom, ranks, sent in cases:
        for step in steps:
            what = f"{sent.name} to {whom}, after step {step}"
            run = job.new()
            process = start_and_signal(job, run, whom, ranks, sent, step)
            status = job.wait(process)
            yield Trial(what, after_a_signal(job, run, status, ranks) or unreadable(run))

            status = job.finish(run, ranks=ranks)
            yield Trial(f"{what}, gone on", wrong_end(status, run, job.reference(ranks)))


def start_and_signal(job: Job, run: Path, whom: str, ranks: int, sent: signal.Signals, step: int
                     ) -> subprocess.Popen:
    """Start a run and send it the signal once it has logged the step. One rank of several cannot
    be told from outside, so it sends the signal to itself.
    """
    fault = {"status": f"{run}.status"}
    if "alone" in whom:
        fault.update(signal=sent, rank=1, step=step)
    process = job.start(run, ranks=ranks, fault=fault)
    if "alone" not in whom and job.wait_for(run, f"step {step}/", process):
        process.send_signal(sent)
    return process


def after_a_signal(job: Job, run: Path, status: int, ranks: int) -> str:
    """What is wrong with how a run left: it says once which step it saved, and each rank's exit
    status is 143. That of torchrun, `status`, is any but 0.
    """
    log = job.log(run)
    saved = re.search(r"saved at step (\d+)", log)
    if saved:
        newest = newest_checkpoint(run)["step"]
        if int(saved[1]) != newest:
            return f"it says {saved[0]}, and the newest is of step {newest}"
    if log.count("saved at step") != 1:
        return f"no word of saving: {log[-200:]}"

    statuses = [file.read_text() for file in run.parent.glob(f"{run.name}.status.*")]
    if statuses != ["143"] * ranks or status == 0:
        return f"exit status {status}, ranks {statuses}"
    return ""


# --- 3. a rank that dies --------------------------------------------------------------------------
def ranks(job: Job, options: Namespace) -> Iterator[Trial]:
    """The others stop within a minute, the log says which died. With --max-restarts the run
    recovers.
    """
    victims = (1,) if options.quick else (0, 1)
    for rank in victims:
        # Without restarts torchrun ends the others.
        fault = {"signal": signal.SIGKILL, "rank": rank, "step": 3}
        run = job.new()
        process = job.start(run, ranks=2, fault=fault)
        job.wait_for(run, "step 2/", process)
        died = time.monotonic()
        status = job.wait(process)
        took = time.monotonic() - died
        failure = after_a_death(job.log(run), rank, status, took)
        yield Trial(f"rank {rank} of 2 killed", failure or unreadable(run))

        # With one, all ranks go on from the newest checkpoint, and the fault does not come again.
        fault = {**fault, "step": 4, "once": str(job.folder / f"once{rank}")}
        run = job.new()
        status = job.finish(run, ranks=2, restarts=1, fault=fault)
        yield Trial(f"rank {rank} of 2 killed, --max-restarts 1",
                    wrong_end(status, run, job.reference(2)))


def after_a_death(log: str, rank: int, status: int, took: float) -> str:
    """What is wrong with how the other ranks left, `took` seconds after the last step."""
    if took > 60:
        return f"the others stopped after {took:.0f} s"
    if status == 0:
        return "exit status 0"
    if f"rank      : {rank} " not in log or "Signal 9" not in log:
        return "the log does not say which"
    return ""
