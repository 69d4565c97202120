"""
Runs that nothing happens to: the same numbers every time, two at once, and one for half an hour.
"""
import json
import subprocess
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from torture.job import ROOT, Job, Trial, megabytes, wrong_end


def determinism(job: Job, options: Namespace) -> Iterator[Trial]:
    """The same seed gives the same numbers, twice, with any number of workers."""
    counts = (2,) if options.quick else (0, 1, 2, 3)
    for count in counts:
        run = job.new()
        status = job.finish(run, workers=count)
        yield Trial(f"{count} workers", wrong_end(status, run, job.reference()))


# --- two at once ----------------------------------------------------------------------------------
# eval.py on a toyworld of a video per class, in a process of its own; its argument is for --json.
EVALUATION = """
import sys
sys.path.insert(0, '.')
from mote.toyworld import generator
for clips in generator.SETS.values():
    for side in clips:
        clips[side] = 1
import eval
eval.main(['--backbone', 'toyworld', '--pretrained', 'toyworld', '--data', 'toyworld-novel',
           '--workers', '0', '--threads', '1', '--json', sys.argv[1]])
"""


def starts(job: Job, options: Namespace) -> Iterator[Trial]:
    """Two processes that start at once, without data and without caches: both end well, alike."""
    times = 1 if options.quick else 3
    for _ in range(times):
        with tempfile.TemporaryDirectory() as folder:
            yield Trial("two starts at once", two_starts(job, Path(folder)))


def two_starts(job: Job, folder: Path) -> str:
    """What went wrong with two evaluations in a folder; "" for nothing.

    Both generate toyworld and fill the cache of class embeddings, and leave no unfinished files.
    """
    environment = {**job.environment, "MOTE_DATA": str(folder / "data"),
                   "XDG_CACHE_HOME": str(folder / "cache")}
    results = [folder / "0.json", folder / "1.json"]
    both = [subprocess.Popen([sys.executable, "-c", EVALUATION, str(result)], cwd=ROOT,
                             env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
            for result in results]
    errors = [process.communicate()[1].decode()[-200:] for process in both]
    for process, error in zip(both, errors):
        if process.returncode:
            return error or f"exit status {process.returncode}"

    a, b = (json.loads(result.read_text())["splits"][0]["per_video"] for result in results)
    if a != b:
        return "not alike"
    left = [path.name for path in folder.rglob("*") if path.name.startswith(".")]
    return f"left behind: {left}" if left else ""


# --- a long one -----------------------------------------------------------------------------------
class Sample(NamedTuple):
    """A look at a run: when, megabytes of its main process and of its workers, open files."""
    seconds: int
    main_mb: float
    workers_mb: float
    files: int


def soak(job: Job, options: Namespace) -> Iterator[Trial]:
    """Toyworld training for minutes: memory of the main process and of its workers, and the number
    of open files, stay flat. Samples are kept in soak.jsonl beside the rows.
    """
    minutes = 0.5 if options.quick else options.minutes
    run = job.new()
    process = job.start(run, "--epochs", "100000", "--eval-every", "20", "--log-every", "100",
                        "--save-every", "0", workers=2)
    # It should still run when the time is over, and then leave as after any signal.
    samples = watch(process, minutes)
    ended = process.poll()
    process.terminate()
    status = job.wait(process)
    if not options.quick:
        lines = [json.dumps(sample._asdict()) + "\n" for sample in samples]
        options.file.with_name("soak.jsonl").write_text("".join(lines))

    good = ended is None and status == 143
    yield Trial(f"{minutes:g} minutes", "" if good else f"exit status {ended or status}")

    # The first third of the time is for growing: caches, workers, the allocator.
    third = max(1, len(samples) // 3)
    middle = samples[third:2 * third]
    rest = samples[2 * third:]
    columns = {"memory of the main process": "main_mb", "memory of the workers": "workers_mb",
               "open files": "files"}
    for name, column in columns.items():
        early = max(getattr(sample, column) for sample in middle)
        late = max(getattr(sample, column) for sample in rest)
        flat = late <= 1.05 * early + 2
        yield Trial(f"{name}: {early:.0f}, then {late:.0f}", "" if flat else "grows")


def watch(process: subprocess.Popen, minutes: float) -> list[Sample]:
    """Samples of a process until the time is over or it has ended."""
    samples = []
    begin = time.monotonic()
    while time.monotonic() - begin < 60 * minutes and process.poll() is None:
        time.sleep(min(10.0, 6 * minutes))
        main, workers = megabytes(process.pid)
        files = len(list(Path(f"/proc/{process.pid}/fd").iterdir()))
        samples.append(Sample(round(time.monotonic() - begin), main, workers, files))
    return samples
