"""
Is anything lost, is anything silently wrong? Runs, files and machines are tortured, and what comes
out is compared.

    python tests/torture/run.py                          # all: an hour on two cores, half the soak
    python tests/torture/run.py kills poisons            # some
    python tests/torture/run.py --quick                  # a few of each, minutes, nothing kept: CI
    python tests/torture/run.py --table                  # as in docs/reliability.md

A row per torture: how many trials, how many of them failed, and the first that did. Rows are
printed, and appended to results/torture.jsonl. Real videos are taken from --videos or
$MOTE_TEST_VIDEOS. Exit status: 0 all hold, 1 not, 2 a mistake in the command.

    interrupted_runs.py, broken_runs.py, whole_runs.py           what is done to runs of train.py
    damaged_videos.py, damaged_files.py, hostile_files.py        to files
    evaluations.py                                               to evaluations
    job.py, faults.py                                            a run, and one with faults in it
"""
import argparse
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
from torture import (  # noqa: E402
    broken_runs,
    damaged_files,
    damaged_videos,
    evaluations,
    hostile_files,
    interrupted_runs,
    whole_runs,
)
from torture.job import Job  # noqa: E402

from mote.data import require_decoder  # noqa: E402
from mote.runtime.errors import one_line_errors  # noqa: E402
from mote.runtime.options import plain_errors  # noqa: E402
from tools.bench.rows import PACKAGES, append, installed, read, version  # noqa: E402

# Name -> what must be true; a function of the job and the options that yields trials.
TORTURES: dict[str, tuple[str, Callable]] = {
    "kills": ("kill -9 at any moment: the resumed run ends bit for bit as one that was never "
              "killed",
              interrupted_runs.kills),
    "signals": ("SIGTERM, SIGINT, on one and two ranks: all save the same step, exit status 143, "
                "and go on",
                interrupted_runs.signals),
    "ranks": ("a dead rank: the others stop within a minute, the log says which; --max-restarts "
              "recovers",
              interrupted_runs.ranks),
    "damaged": ("a damaged newest checkpoint: the one before it is taken, saying so",
                broken_runs.damaged),
    "disk": ("a full disk, unwritable and vanished folders: one line, the last good checkpoint "
             "intact",
             broken_runs.disk),
    "poisons": ("NaN and inf in losses and gradients: refused before the weights, written down, a "
                "stop after five",
                broken_runs.poisons),
    "workers": ("a video that kills or hangs its worker: named and skipped, all else as if it were "
                "undecodable",
                broken_runs.workers),
    "determinism": ("the same seed: the same numbers, any number of workers",
                    whole_runs.determinism),
    "starts": ("two processes that start at once on empty caches: both end well",
               whole_runs.starts),
    "evaluation": ("1 to 4 ranks, lists that do not divide: every video once, the same answers",
                   evaluations.ranks),
    "batches": ("any batch size and number of workers: cosines within 1e-5",
                evaluations.batches),
    "videos": ("bit-flipped, cut, spliced videos: no crash, no hang, memory bounded",
               damaged_videos.videos),
    "sizes": ("headers that claim an absurd size: refused before decoding",
              damaged_videos.sizes),
    "fuzz": ("damaged lists, csv, json, checkpoints, caches: read right or refused in one line",
             damaged_files.fuzz),
    "security": ("nothing from a file is executed, no shell sees a file's name",
                 hostile_files.security),
    "soak": ("half an hour of training: memory of all processes and open files stay flat",
             whole_runs.soak),
}


# --- 1. rows --------------------------------------------------------------------------------------
def torture(name: str, options: argparse.Namespace, job: Job) -> dict:
    """Try all trials of a torture. -> its row

    A torture without a trial does not hold: nothing was shown.
    """
    what, trials = TORTURES[name]
    begin = time.monotonic()
    tried = 0
    failed = 0
    first = ""
    last = ""
    try:
        for trial in trials(job, options):
            tried += 1
            last = trial.what
            if trial.failure:
                failed += 1
                said = f"{trial.what}: {trial.failure}"
                first = first or said
                print(f"    FAILED {said}", flush=True)
            elif options.verbose:
                print(f"    {trial.what}", flush=True)
    except Exception as error:                            # a torture that breaks does not hold
        tried += 1
        failed += 1
        first = first or f"{type(error).__name__}: {error}"
    return {"name": name, "what": what, "tried": tried, "failed": failed,
            "holds": tried > 0 and failed == 0, "first_failure": first[:500], "last": last,
            "seconds": round(time.monotonic() - begin)}


def describe(row: dict) -> str:
    """One row as a line."""
    end = "holds" if row["holds"] else f"DOES NOT HOLD: {row['first_failure']}"
    return (f"{row['name']:12s} {row['tried']:5d} tried {row['failed']:4d} failed  "
            f"{row['seconds']:5d} s  {end}")


def table(rows: list[dict]) -> str:
    """Markdown: the newest row of each torture, in their order; below it, where they ran."""
    newest = {row["name"]: row for row in rows}
    lines = ["| torture | what must be true | tried | failed |", "|---|---|---|---|"]
    for name in TORTURES:
        if name in newest:
            lines.append(table_line(newest[name]))
    where = dict.fromkeys(circumstances(row) for row in newest.values())
    return "\n".join([*lines, "", *[f"Run on {one}." for one in where]])


def table_line(row: dict) -> str:
    """One row as a line of the table. Of the videos, the last trial says how many decoded."""
    what = row["what"]
    if row["name"] == "videos":
        what += f" ({row['last']})"
    return f"| {row['name']} | {what} | {row['tried']} | {row['failed']} |"


def circumstances(row: dict) -> str:
    """What a row was tried on."""
    return f"{row['machine']}, {row['date']}, {installed(row['versions'])}"


# --- 2. the command -------------------------------------------------------------------------------
def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = plain_errors(argparse.ArgumentParser("tests/torture/run.py", description=__doc__))
    add = parser.add_argument
    add("names", nargs="*", metavar="TORTURE", help=f"{', '.join(TORTURES)}; none: all")
    add("--quick", action="store_true", help="a few trials of each, nothing kept")
    add("--minutes", type=float, default=30, help="of the soak")
    add("--videos", type=Path, default=os.environ.get("MOTE_TEST_VIDEOS") or None,
        help="a folder of real video files")
    add("--file", type=Path, default=ROOT / "results/torture.jsonl", help="where rows go")
    add("--table", action="store_true", help="print the newest rows of the file as a table")
    add("--verbose", action="store_true", help="print each trial")
    options = parser.parse_args(argv)

    unknown = [name for name in options.names if name not in TORTURES]
    if unknown:
        parser.error(f"no torture {unknown[0]}; there are {', '.join(TORTURES)}")
    if not 0 < options.minutes < float("inf"):
        parser.error(f"--minutes must be above 0, got {options.minutes}")
    if options.videos and not options.videos.is_dir():
        parser.error(f"--videos {options.videos}: no such folder")
    options.names = options.names or list(TORTURES)
    return options


def main(argv: list[str] | None = None) -> int:
    with one_line_errors("tests/torture/run.py"):
        options = parse(argv)
        if options.table:
            print(table(read(options.file)))
            return 0
        require_decoder()
        rows = run_all(options)
        return 0 if all(row["holds"] for row in rows) else 1


def run_all(options: argparse.Namespace) -> list[dict]:
    """Run the tortures; each row is printed and kept as soon as it is there."""
    about = {"quick": options.quick, "machine": f"{platform.machine()}, {os.cpu_count()} cores",
             "versions": {package: version(package) for package in PACKAGES},
             "date": time.strftime("%Y-%m-%d")}
    rows = []
    with tempfile.TemporaryDirectory(prefix="mote-torture-") as folder:
        job = Job(Path(folder))
        for name in options.names:
            row = {**torture(name, options, job), **about}
            rows.append(row)
            print(describe(row), flush=True)
            if not options.quick:
                append(options.file, row)
    return rows


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
