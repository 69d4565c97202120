"""
The README's table of toyworld, from results/toyworld.jsonl; and how a run gets into that file.

    python tools/toyworld/table.py                                  # print the table
    python tools/toyworld/table.py --add runs/A runs/B ...          # append finished runs first

Each line of the file is one run: its flags, its seed, the table that it printed, the machine and
the date.
"""
import argparse
import json
import os
import platform
import time
from pathlib import Path

import torch

FILE = Path(__file__).parents[2] / "results" / "toyworld.jsonl"
UNTRAINED = "untrained CLIP, frames averaged"
# Row of a run's results.json -> row of the table; {} is the model.
ROWS = {UNTRAINED: UNTRAINED, "trained": "{}", "trained, with modulation": "{}, with modulation"}
# experts -> model
MODELS = {1: "plain transformer (E = 1)", 4: "MoTE (E = 4)"}


def add(run: Path) -> dict:
    """One line of the file, from a run's last.pt and results.json.

    The machine is this one, so add runs where they were made. The date is that of results.json,
    which a run writes last.
    """
    checkpoint = torch.load(run / "last.pt", map_location="cpu", weights_only=True)
    config = checkpoint["config"]
    results = run / "results.json"
    finished = time.gmtime(results.stat().st_mtime)

    # The flags in which the table's runs differ, or that change their numbers.
    flags = ("experts", "seed", "epochs", "lr", "clip_lr", "threads")
    line = {flag: config[flag] for flag in flags}
    line["results"] = json.loads(results.read_text())
    line["torch"] = checkpoint["torch"]
    line["machine"] = f"{platform.machine()}, {os.cpu_count()} cores"
    line["date"] = time.strftime("%Y-%m-%d", finished)
    return line


def table(lines: list[dict]) -> str:
    """Markdown: mean (lowest to highest) over seeds, per model and dataset; then the conditions.

    lines: those of the file, all made under the conditions of the first, but for experts and seed.
    """
    first = lines[0]
    sets = list(first["results"]["trained"])
    out = ["| top-1, per cent | " + " | ".join(sets) + " |", "|---" * (len(sets) + 1) + "|"]
    for experts, model in MODELS.items():
        runs = [line for line in lines if line["experts"] == experts]
        for row, name in ROWS.items():
            # The untrained CLIP is the same for both models: it has one row.
            if not runs or (row == UNTRAINED and experts != 1):
                continue
            cells = [cell([run["results"][row][dataset] for run in runs]) for dataset in sets]
            out.append(f"| {name.format(model)} | " + " | ".join(cells) + " |")

    seeds = sorted({line["seed"] for line in lines})
    threads = first["threads"] or "default"
    out.append("")
    out.append(f"Seeds {', '.join(map(str, seeds))}; torch {first['torch']}, {first['machine']}, "
               f"{threads} threads, {first['date']}.")
    return "\n".join(out)


def cell(values: list[float]) -> str:
    """The mean of top-1 over seeds, in per cent, with the range if there is one.

    A range, not a standard deviation: there are few seeds.
    """
    mean = f"{sum(values) / len(values):.1f}"
    if max(values) > min(values):
        return f"{mean} ({min(values):.1f} to {max(values):.1f})"
    return mean


def main(argv: list[str] | None = None) -> str:
    """Add runs to the file, if there are any to add; print the table and return it."""
    parser = argparse.ArgumentParser("table.py", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--add", nargs="+", default=[], help="folders of finished runs")
    parser.add_argument("--file", default=str(FILE))
    options = parser.parse_args(argv)

    file = Path(options.file)
    runs = [Path(run) for run in options.add]
    for run in runs:
        if not (run / "results.json").is_file():
            parser.error(f"{run} has no results.json: a run writes it when it ends")

    lines = []
    if file.exists():
        lines = [json.loads(line) for line in file.read_text().splitlines()]
    lines += [add(run) for run in runs]
    if not lines:
        parser.error(f"{file} has no runs yet: --add RUN")
    if runs:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(json.dumps(line) + "\n" for line in lines))

    text = table(lines)
    print(text)
    return text


if __name__ == "__main__":
    main()
