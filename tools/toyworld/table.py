"""
The README's table of toyworld, from results/toyworld.jsonl; and how a run gets into that file.

    python tools/toyworld/table.py                                  # print the table
    python tools/toyworld/table.py --add runs/A runs/B ...          # append finished runs first

Each line of the file is one run: its flags, its seed, the table that it printed, the machine and the date.
"""
import argparse
import json
import os
import platform
import time
from pathlib import Path

import torch

FILE = Path(__file__).parents[2] / "results" / "toyworld.jsonl"
ROWS = {"untrained CLIP, frames averaged": "untrained CLIP, frames averaged", "trained": "{}",
        "trained, with modulation": "{}, with modulation"}
MODELS = {1: "plain transformer (E = 1)", 4: "MoTE (E = 4)"}


def add(run: Path) -> dict:
    """One line of the file, from a run's last.pt and results.json."""
    checkpoint = torch.load(run / "last.pt", map_location="cpu", weights_only=True)
    config = checkpoint["config"]
    return {"experts": config["experts"], "seed": config["seed"], "epochs": config["epochs"], "lr": config["lr"],
            "clip_lr": config["clip_lr"], "threads": config["threads"],
            "results": json.loads((run / "results.json").read_text()), "torch": checkpoint["torch"],
            "machine": f"{platform.machine()}, {os.cpu_count()} cores",
            "date": time.strftime("%Y-%m-%d", time.gmtime((run / "results.json").stat().st_mtime))}


def table(lines: list[dict]) -> str:
    """Markdown: mean (lowest to highest) over seeds, per model and dataset."""
    sets = list(lines[0]["results"]["trained"])
    out = ["| top-1, per cent | " + " | ".join(sets) + " |", "|---" * (len(sets) + 1) + "|"]
    for experts, model in MODELS.items():
        runs = [line for line in lines if line["experts"] == experts]
        for row, name in ROWS.items():
            if runs and (row != "untrained CLIP, frames averaged" or experts == 1):      # the same CLIP for both
                cells = []
                for dataset in sets:
                    values = [run["results"][row][dataset] for run in runs]
                    spread = f" ({min(values):.1f} to {max(values):.1f})" if max(values) > min(values) else ""
                    cells.append(f"{sum(values) / len(values):.1f}{spread}")
                out.append(f"| {name.format(model)} | " + " | ".join(cells) + " |")
    seeds = sorted({line["seed"] for line in lines})
    first = lines[0]
    return "\n".join(out) + (f"\n\nSeeds {', '.join(map(str, seeds))}; torch {first['torch']}, {first['machine']}, "
                             f"{first['threads'] or 'default'} threads, {first['date']}.")


def main(argv: list[str] | None = None) -> str:
    parser = argparse.ArgumentParser("toyworld_table.py", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--add", nargs="+", default=[], help="folders of finished runs")
    parser.add_argument("--file", default=str(FILE))
    options = parser.parse_args(argv)
    file = Path(options.file)
    for run in map(Path, options.add):
        if not (run / "results.json").is_file():
            parser.error(f"{run} has no results.json: a run writes it when it ends")
    lines = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    lines += [add(Path(run)) for run in options.add]
    if not lines:
        parser.error(f"{file} has no runs yet: --add RUN")
    if options.add:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    print(table(lines))
    return table(lines)


if __name__ == "__main__":
    main()
