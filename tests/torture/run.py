"""
Is anything lost, is anything silently wrong? Runs, files and machines are tortured, and what comes out is compared.

    python tests/torture/run.py                                  # all: an hour on two cores, half of it the soak
    python tests/torture/run.py kills poisons                    # some
    python tests/torture/run.py --quick                          # a few of each, minutes, nothing kept: for CI
    python tests/torture/run.py --table                          # the newest rows, as README.md shows them

A row per torture: how many trials, how many of them failed, and the first that did; printed, and appended to
results/torture.jsonl. What is done to runs: tests/torture/runs.py; to files and evaluations: tests/torture/files.py.
Real videos are taken from --videos or $MOTE_TEST_VIDEOS. Exit status: 0 all hold, 1 not, 2 a mistake in the command.
"""
import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
from torture import (
    files,  # noqa: E402
    runs,  # noqa: E402
)
from torture.job import Job  # noqa: E402

from mote.data import require_decoder  # noqa: E402
from mote.runtime.errors import one_line_errors  # noqa: E402
from mote.runtime.options import plain_errors  # noqa: E402
from tools.bench.speed import PACKAGES, read, version  # noqa: E402

TORTURES: dict[str, tuple[str, Callable]] = {                    # name -> what must be true, how it is tried
    "kills": ("kill -9 at any moment: the resumed run ends bit for bit as one that was never killed",
              lambda o, job: runs.kills(job, o.quick)),
    "signals": ("SIGTERM, SIGINT, on one and two ranks: all save the same step, exit status 143, and go on",
                lambda o, job: runs.signals(job, o.quick)),
    "ranks": ("a dead rank: the others stop within a minute, the log says which; --max-restarts recovers",
              lambda o, job: runs.ranks(job, o.quick)),
    "damaged": ("a damaged newest checkpoint: the one before it is taken, saying so",
                lambda o, job: runs.damaged(job, o.quick)),
    "disk": ("a full disk, unwritable and vanished folders: one line, the last good checkpoint intact",
             lambda o, job: runs.disk(job, o.quick)),
    "poisons": ("NaN and inf in losses and gradients: refused before the weights, written down, a stop after five",
                lambda o, job: runs.poisons(job, o.quick)),
    "workers": ("a video that kills or hangs its worker: named and skipped, all else as if it were undecodable",
                lambda o, job: runs.workers(job, o.quick)),
    "determinism": ("the same seed: the same numbers, any number of workers",
                    lambda o, job: runs.determinism(job, o.quick)),
    "starts": ("two processes that start at once on empty caches: both end well",
               lambda o, job: runs.starts(job, o.quick)),
    "evaluation": ("1 to 4 ranks, lists that do not divide: every video once, the same answers",
                   lambda o, job: files.ranks(job, o)),
    "batches": ("any batch size and number of workers: cosines within 1e-5", lambda o, job: files.batches(job, o)),
    "videos": ("bit-flipped, cut, spliced videos: no crash, no hang, memory bounded", lambda o, _: files.videos(o)),
    "sizes": ("headers that claim an absurd size: refused before decoding", lambda o, _: files.sizes(o)),
    "fuzz": ("damaged lists, csv, json, checkpoints, caches: read right or refused in one line",
             lambda o, _: files.fuzz(o)),
    "security": ("nothing from a file is executed, no shell sees a file's name", lambda o, _: files.security(o)),
    "soak": ("half an hour of training: memory of all processes and open files stay flat",
             lambda o, job: runs.soak(job, *((0.5, None) if o.quick else (o.minutes, o.file.with_name("soak.jsonl"))))),
}


def torture(name: str, o: argparse.Namespace, job: Job) -> dict:
    """One row."""
    what, trials = TORTURES[name]
    tried, failed, first, last, begin = 0, 0, "", "", time.monotonic()
    try:
        for trial in trials(o, job):
            tried, failed, last = tried + 1, failed + bool(trial.failure), trial.what
            if trial.failure:
                first = first or f"{trial.what}: {trial.failure}"
                print(f"    FAILED {trial.what}: {trial.failure}", flush=True)
            elif o.verbose:
                print(f"    {trial.what}", flush=True)
    except Exception as error:                                   # the torture itself broke: that does not hold either
        tried, failed, first = tried + 1, failed + 1, first or f"{type(error).__name__}: {error}"
    return {"name": name, "what": what, "tried": tried, "failed": failed, "holds": tried > 0 and failed == 0,
            "first_failure": first[:500], "last": last, "seconds": round(time.monotonic() - begin)}


def describe(row: dict) -> str:
    return (f"{row['name']:12s} {row['tried']:5d} tried {row['failed']:4d} failed  {row['seconds']:5d} s  "
            f"{'holds' if row['holds'] else 'DOES NOT HOLD: ' + row['first_failure']}")


def table(rows: list[dict]) -> str:
    """Markdown: the newest row of each torture."""
    newest = {row["name"]: row for row in rows}
    lines = ["| torture | what must be true | tried | failed |", "|---|---|---|---|"]
    for name in TORTURES:
        if row := newest.get(name):
            note = f" ({row['last']})" if name == "videos" else ""
            lines.append(f"| {name} | {row['what']}{note} | {row['tried']} | {row['failed']} |")
    where = dict.fromkeys(f"{r['machine']}, {r['date']}, " + ", ".join(
        f"{package} {number}" for package, number in r["versions"].items() if number) for r in newest.values())
    return "\n".join([*lines, "", *(f"Run on {one}." for one in where)])


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = plain_errors(argparse.ArgumentParser("tests/torture/run.py", description=__doc__))
    add = parser.add_argument
    add("names", nargs="*", metavar="TORTURE", help=f"{', '.join(TORTURES)}; none: all")
    add("--quick", action="store_true", help="a few trials of each, nothing kept")
    add("--minutes", type=float, default=30, help="of the soak")
    add("--videos", type=Path, default=os.environ.get("MOTE_TEST_VIDEOS") or None, help="a folder of real video files")
    add("--file", type=Path, default=ROOT / "results/torture.jsonl", help="where rows go")
    add("--table", action="store_true", help="print the newest rows of the file as a table")
    add("--verbose", action="store_true", help="print each trial")
    o = parser.parse_args(argv)
    if unknown := [name for name in o.names if name not in TORTURES]:
        parser.error(f"no torture {unknown[0]}; there are {', '.join(TORTURES)}")
    if not 0 < o.minutes < float("inf"):
        parser.error(f"--minutes must be above 0, got {o.minutes}")
    if o.videos and not o.videos.is_dir():
        parser.error(f"--videos {o.videos}: no such folder")
    o.names = o.names or list(TORTURES)
    return o


def main(argv: list[str] | None = None) -> int:
    with one_line_errors("tests/torture/run.py"):
        o = parse(argv)
        if o.table:
            print(table(read(o.file)))
            return 0
        require_decoder()
        about = {"quick": o.quick, "machine": f"{platform.machine()}, {os.cpu_count()} cores",
                 "versions": {package: version(package) for package in PACKAGES}, "date": time.strftime("%Y-%m-%d")}
        rows = []
        with tempfile.TemporaryDirectory(prefix="mote-torture-") as folder:
            job = Job(Path(folder))
            for name in o.names:
                rows.append({**torture(name, o, job), **about})
                print(describe(rows[-1]), flush=True)
                if not o.quick:
                    with open(o.file, "a") as file:
                        file.write(json.dumps(rows[-1]) + "\n")
        return 0 if all(row["holds"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
