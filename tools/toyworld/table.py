"""
The table of toyworld in docs/results.md, from results/toyworld.jsonl; how a run gets into the file.

    python tools/toyworld/table.py                                  # print the table
    python tools/toyworld/table.py --add runs/A runs/B ...          # append finished runs first

Each line of the file is one run: its seed, its recipe (the flags that change its numbers), the
table that it printed, the machine and the date. A row is the mean over the seeds of one recipe.
Runs that were made under other conditions (torch, machine, epochs, threads, test videos) are
refused, and so is a run that is there already.
"""
import argparse
import json
import os
import platform
import sys
import time
from dataclasses import asdict
from pathlib import Path

import torch

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))
import train  # noqa: E402
from mote.runtime.errors import one_line_errors  # noqa: E402
from mote.runtime.options import flag, plain_errors  # noqa: E402

FILE = ROOT / "results" / "toyworld.jsonl"

# --- what a line holds ----------------------------------------------------------------------------
RECIPE = ("experts", "weight_merged", "weight_mse", "lr", "clip_lr")    # in every line
CONDITIONS = ("torch", "machine", "epochs", "threads")                  # one value for all lines
NEITHER = ("seed", "results", "date")
# Flags of train.py that change no number. All others stand in a line where they are not the
# default, and are then part of its recipe.
NO_MATTER = ("data_root", "out", "resume", "eval_every", "save_every", "keep", "log_every",
             "workers", "tensorboard")

# --- rows of the table ----------------------------------------------------------------------------
UNTRAINED = "untrained CLIP, frames averaged"
# Row of a run's results.json -> row of the table; {} is the recipe's name.
TRAINED = {"trained": "{}", "trained, with modulation": "{}, with modulation"}

MOTE = {"experts": 4, "weight_merged": 0.5, "weight_mse": 0.1, "lr": 3e-3, "clip_lr": 4e-4}
ALONE = {**MOTE, "weight_merged": 0.0, "weight_mse": 0.0}
PLAIN = {**ALONE, "experts": 1}
NAMES = {
    "plain transformer (E = 1)": PLAIN,
    "plain transformer (E = 1) with L_MSE": {**PLAIN, "weight_mse": 0.1},
    "experts alone (E = 4, L_TE only)": ALONE,
    "MoTE (E = 4)": MOTE,
}
NAMES |= {f"{name}, `--lr 6e-3`": {**recipe, "lr": 6e-3} for name, recipe in NAMES.items()}


def add(run: Path) -> dict:
    """One line of the file, from a run's last.pt and results.json.

    The machine is this one, so add runs where they were made. The date is that of results.json,
    which a run writes last.
    """
    results = run / "results.json"
    if not results.is_file():
        raise ValueError(f"{run} has no results.json: a run writes it when it ends")
    checkpoint = torch.load(run / "last.pt", map_location="cpu", weights_only=True)
    config = checkpoint["config"]

    line = {name: config[name] for name in (*RECIPE, "seed", "epochs", "threads")}
    defaults = asdict(train.parse_config([]))
    for name, value in config.items():
        if name not in line and name not in NO_MATTER and defaults.get(name) != value:
            line[name] = value
    line["results"] = json.loads(results.read_text())
    line["torch"] = checkpoint["torch"]
    line["machine"] = f"{platform.machine()}, {os.cpu_count()} cores"
    line["date"] = time.strftime("%Y-%m-%d", time.gmtime(results.stat().st_mtime))
    return line


def recipe_of(line: dict) -> dict:
    """The flags that change a run's numbers. Runs with the same ones differ in their seeds alone.
    """
    return {name: value for name, value in line.items() if name not in (*CONDITIONS, *NEITHER)}


def name_of(recipe: dict) -> str:
    """The name that NAMES has for a recipe; for any other its flags, as train.py takes them."""
    for name, named in NAMES.items():
        if recipe == named:
            return name

    words = []
    for name, value in recipe.items():
        # Experts and weights always stand there: the default of one depends on the other.
        if name in ("lr", "clip_lr") and value == MOTE[name]:
            continue
        if value is True:                                        # every switch is off by default
            words.append(flag(name))
        else:
            words.append(f"{flag(name)} {value}")
    return f"`{' '.join(words)}`"


def check(lines: list[dict], places: list[str]) -> None:
    """Raise ValueError for a run that cannot be in one table with those before it.

    places: where each line comes from, for the message.
    """
    first = lines[0]
    seen: list[tuple] = []
    for line, place in zip(lines, places, strict=True):
        missing = [name for name in RECIPE if name not in line]
        if missing:
            raise ValueError(f"{place} does not say its {', '.join(missing)}")

        for name in CONDITIONS:
            if line[name] != first[name]:
                raise ValueError(f"{place} has {name} {line[name]}, {places[0]} has {first[name]}: "
                                 "a table is of one; keep other runs in another --file")
        if line["results"][UNTRAINED] != first["results"][UNTRAINED]:
            raise ValueError(f"{place} has other numbers of the untrained CLIP than {places[0]}: "
                             "not the same test; keep other runs in another --file")

        run = (recipe_of(line), line["seed"])
        if run in seen:
            raise ValueError(f"{place} is {places[seen.index(run)]} again: {name_of(run[0])}, "
                             f"seed {line['seed']}")
        seen.append(run)


def table(lines: list[dict]) -> str:
    """Markdown: mean (lowest to highest) over seeds, per recipe and dataset; then the conditions.

    lines: those of the file, which `check` has passed. Seeds have a column where rows differ.
    """
    groups: dict[str, list[dict]] = {name: [] for name in NAMES}
    for line in lines:
        groups.setdefault(name_of(recipe_of(line)), []).append(line)
    groups = {name: runs for name, runs in groups.items() if runs}
    seeds = {name: seeds_of(runs) for name, runs in groups.items()}

    first = lines[0]
    untrained = first["results"][UNTRAINED]
    rows = [["top-1, per cent", "seeds", *untrained]]
    rows.append([UNTRAINED, "", *(f"{top1:.1f}" for top1 in untrained.values())])
    for name, runs in groups.items():
        for row, words in TRAINED.items():
            cells = [cell([run["results"][row][data] for run in runs]) for data in untrained]
            rows.append([words.format(name), seeds[name], *cells])

    threads = f"--threads {first['threads']}"
    conditions = f"torch {first['torch']}, {first['machine']}, {threads}, {dates_of(lines)}."
    if len(set(seeds.values())) == 1:
        rows = [[row[0], *row[2:]] for row in rows]
        conditions = f"Seeds {seeds_of(lines)}; {conditions}"
    out = ["| " + " | ".join(row) + " |" for row in rows]
    out.insert(1, "|---" * len(rows[0]) + "|")
    return "\n".join([*out, "", conditions[0].upper() + conditions[1:]])


def cell(values: list[float]) -> str:
    """The mean of top-1 over seeds, in per cent, with the range if there is one.

    A range, not a standard deviation: there are few seeds.
    """
    mean = f"{sum(values) / len(values):.1f}"
    if max(values) > min(values):
        return f"{mean} ({min(values):.1f} to {max(values):.1f})"
    return mean


def seeds_of(lines: list[dict]) -> str:
    """The seeds of some runs, each once, in order."""
    return ", ".join(str(seed) for seed in sorted({line["seed"] for line in lines}))


def dates_of(lines: list[dict]) -> str:
    """The first day on which one of the runs ended, and the last if it is another."""
    days = sorted({line["date"] for line in lines})
    return days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"


def run(options: argparse.Namespace) -> str:
    """Add runs to the file, if there are any to add; print the table and return it."""
    file = Path(options.file)
    lines = []
    if file.exists():
        lines = [json.loads(line) for line in file.read_text().splitlines()]
    places = [f"line {number} of {file}" for number in range(1, len(lines) + 1)]
    lines += [add(Path(folder)) for folder in options.add]
    places += options.add
    if not lines:
        raise ValueError(f"{file} has no runs yet: --add RUN")

    check(lines, places)
    text = table(lines)
    if options.add:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    print(text)
    return text


def main(argv: list[str] | None = None) -> str:
    """What `python tools/toyworld/table.py` does: a mistake is one line and exit status 2."""
    with one_line_errors("table.py"):
        parser = plain_errors(argparse.ArgumentParser("table.py", description=__doc__))
        parser.add_argument("--add", nargs="+", default=[], help="folders of finished runs")
        parser.add_argument("--file", default=str(FILE), help="where the runs are kept")
        return run(parser.parse_args(argv))


if __name__ == "__main__":
    main()
