"""
The rows of tools/bench/speed.py, a JSON line each: kept, read, shown as lines and as a table.

    section, name           what was measured
    ratio, low, high        the figure and the ends of its interval; null if it was not run
    target, holds           what it should reach, and whether the interval does
    pairs, ranks            how many pairs it is of, and which of them end the interval
    beside, note, reason    what it comes from, what to compare it with, why it misses its target
    threads, device, ...    what it was measured with
"""
import importlib.metadata
import json
from collections.abc import Iterable
from pathlib import Path

# Packages whose version can change a figure.
PACKAGES = ("torch", "torchvision", "torchcodec", "open_clip_torch", "decord")

# Why a target is not met: (section, name) -> the reason that is shown.
CACHE = "likely the cache: one layer's weights fit, those of several do not"
REASONS = {
    ("evaluation", "4 experts merged in every forward / merged once"):
        "both are bound by memory, and the bytes would allow 4.3 to 5.0: the plain head reads "
        "50 MB, merging 134 MB more; it writes 34 (where a write reads first, reading them too), "
        "which the layers read again",
    ("loader", "prepared: decord + PIL as the authors' / TrainingClips"):
        "torchcodec decoding the same frames, and nothing else, would reach 1.6",
    ("loader", "prepared: a look at its bytes / decoding alone"):
        "between decodes, its caches are cold: 1.1 ms, and 0.24 where nothing comes between",
    ("growth", "step of the head: 4 layers / 1"): CACHE,
    ("growth", "step of the head: 8 layers / 1"): CACHE,
}


def version(package: str) -> str | None:
    """Of an installed package; None without it."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def installed(versions: dict[str, str | None]) -> str:
    """The packages that a row was measured with, as text."""
    there = [f"{package} {number}" for package, number in versions.items() if number]
    return ", ".join(there)


def read(file: Path) -> list[dict]:
    """The rows of a file. Raises ValueError with the line that is not JSON."""
    rows = []
    for number, line in enumerate(file.read_text().splitlines(), 1):
        try:
            rows.append(json.loads(line))
        except ValueError:
            raise ValueError(f"{file}: line {number} is not JSON") from None
    return rows


def append(file: Path, row: dict) -> None:
    """Keep a row as the last line of a file."""
    with open(file, "a") as lines:
        lines.write(json.dumps(row) + "\n")


def describe(row: dict) -> str:
    """One row as a line for the terminal, printed as soon as it is measured."""
    section = f"{row['section']:10s}"
    if row["ratio"] is None:
        return f"{section} {row['name']}: {row['reason']}"

    between = ""
    if row["ranks"]:
        between = f"[{row['low']:.3f}, {row['high']:.3f}]"
    met = {None: "", True: "met", False: "NOT MET"}[row["holds"]]
    return (f"{section} {row['name']:58s} {row['ratio']:8.3f} {between:18s} {row['target']:8s} "
            f"{met:8s} {row['beside']}")


def table(rows: list[dict], sections: Iterable[str]) -> str:
    """Markdown: the newest row of each name, in the order of the sections; below it how the
    intervals were taken, and on what.
    """
    # Later lines of the file replace earlier ones: a figure that was measured again counts once.
    newest = {(row["section"], row["name"]): row for row in rows}
    shown = []
    for section in sections:
        shown += [row for row in newest.values() if row["section"] == section]

    ranks = dict.fromkeys(row["ranks"] for row in shown if row["ranks"])
    where = dict.fromkeys(circumstances(row) for row in shown)
    return "\n".join([
        "| section | what | ratio | interval | target | met |",
        "|---|---|---|---|---|---|",
        *[table_line(row) for row in shown],
        "",
        f"Interval: of the ordered ratios of the pairs, {'; '.join(ranks)}.",
        *[f"Measured with {one}." for one in where]])


def table_line(row: dict) -> str:
    """One row as a line of the table."""
    what = row["name"]
    if row["note"]:
        what += f" ({row['note']})"

    # A row that was not run shows its reason in place of the number.
    number = row["reason"] if row["ratio"] is None else f"{row['ratio']:.3f}"
    between = ""
    if row["ranks"]:
        between = f"{row['low']:.3f} to {row['high']:.3f}"

    met = {None: "", True: "yes", False: "no"}[row["holds"]]
    reason = row["reason"] or REASONS.get((row["section"], row["name"]), "")
    if row["holds"] is False and reason:
        met += f": {reason}"
    return f"| {row['section']} | {what} | {number} | {between} | {row['target']} | {met} |"


def circumstances(row: dict) -> str:
    """What a row was measured with, as text: rows that share it are named once below the table."""
    return (f"{row['backbone']}, {row['clips']} clips, {row['threads']} threads, {row['machine']}, "
            f"{row['date']}, {installed(row['versions'])}")
