"""
Draw runs of train.py: some frames, the table that a run ends with, and its curves.

    python tools/picture.py RUN                    # -> RUN/results.png
    python tools/picture.py RUN OTHER --out both.png                # side by side

The table has one group of bars per dataset, one bar per model; the sentences under it say the same
in words. A run that has not ended yet has no table. Needs matplotlib (pip install -e .[figures]).
"""
import argparse
import json
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from mote.data import Undecodable, decode, segment_indices
from mote.datasets.lists import read_classes, read_list
from mote.runtime.errors import one_line_errors
from mote.runtime.options import plain_errors
from mote.runtime.run_folder import read_log, read_metrics

GREYS = ("0.75", "0.45", "0.15")                   # one for each row of the table; fit for print
STEP = 0.27                                        # between bars of a group; groups are 1 apart
FRAMES = 8                                         # of the strip
GAP = 5                                            # between them, in per cent of their width
SIZE = (9.0, 7.0)                                  # of the picture of one run, in inches
CURVES = ("loss", "accuracy", "rate")
RATES = {"lr_clip": "CLIP", "lr_temporal": "temporal transformer"}

Rows = dict[str, dict[str, float]]                 # row of the table -> dataset -> per cent


# --- 1. what a run's folder says ------------------------------------------------------------------
@dataclass(frozen=True)
class Run:
    """A run as far as it has come; what it does not have yet is empty or None."""
    name: str
    rows: Rows                                     # of results.json
    log: list[dict]                                # of log.jsonl
    metrics: list[dict]                            # of metrics.jsonl
    strip: Tensor | None                           # of a test video, uint8 (h, width, 3)
    words: str                                     # the name of its class


def read_run(folder: Path) -> Run:
    """Raises ValueError for a folder in which no run has written anything to draw."""
    file = folder / "results.json"
    rows = read_rows(file)
    log = read_log(folder)
    metrics = read_metrics(folder)
    if not rows and not log and not metrics:
        raise ValueError(f"{folder}: no results.json, no log.jsonl with a line: not a run, or one "
                         "that has not logged anything yet")
    strip, words = first_test_video(folder)
    return Run(str(folder), rows, log, metrics, strip, words)


def read_rows(file: Path) -> Rows:
    """The table of results.json; {} without it. Raises ValueError for another file."""
    if not file.is_file():
        return {}
    try:
        rows = json.loads(file.read_text())
        if len(rows) != 3 or not all(isinstance(row, dict) for row in rows.values()):
            raise ValueError("three rows are expected")
    except (ValueError, AttributeError, TypeError) as error:
        raise ValueError(f"{file}: not a table of train.py ({error})") from None
    return rows


def first_test_video(run: Path) -> tuple[Tensor | None, str]:
    """Frames of the first test video, side by side, and its class; None where they cannot be read.

    Its path may count from where the run was started, which may be another folder than this one.
    """
    try:
        # Not read_split, which would search the whole folder for a video that is not there.
        classes = read_classes(run / "classes.csv")
        videos, _ = read_list(run / "val.txt", Path("."), classes)
        path, label = videos[0]
        frames = decode(path, lambda num_frames: segment_indices(num_frames, FRAMES)[0])
    except (OSError, Undecodable, ValueError):
        return None, ""
    white = frames.new_full((FRAMES, 3, frames.shape[2], GAP * frames.shape[3] // 100), 255)
    strip = torch.cat([frames, white], dim=3).permute(2, 0, 3, 1).flatten(1, 2)
    return strip, classes[label]


# --- 2. the table in words ------------------------------------------------------------------------
def sentences(rows: Rows) -> list[str]:
    """Three sentences about a table: close-set, zero-shot, modulation.

    They are true of any numbers: a change is named as it is, at the table's one decimal. The first
    dataset is the one that the run was trained on.
    """
    before, after, modulated = rows.values()
    trained_on, *others = before
    first = (f"On test videos of {trained_on}, the dataset that the model was trained on, top-1 "
             f"{change(before[trained_on], after[trained_on])} per cent.")

    if others:
        changes = [f"{change(before[name], after[name])} ({name})" for name in others]
        second = f"On datasets that it was not trained on, top-1 {listed(changes)}."
    else:
        second = "It was tested on no other dataset: --zero-shot names some."

    changes = [f"{change(after[name], modulated[name])} ({name})" for name in before]
    third = ("With modulation (Eq. 11), which shrinks the temporal feature the further the test "
             f"classes are from the training classes, top-1 {listed(changes)}.")
    return [first, second, third]


def change(before: float, after: float) -> str:
    """
    >>> change(15.0, 79.44), change(99.3, 85.3), change(79.41, 79.44)
    ('rose from 15.0 to 79.4', 'fell from 99.3 to 85.3', 'stayed at 79.4')
    """
    old, new = f"{before:.1f}", f"{after:.1f}"
    if old == new:
        return f"stayed at {new}"
    verb = "rose" if after > before else "fell"
    return f"{verb} from {old} to {new}"


def listed(parts: list[str]) -> str:
    """
    >>> listed(["a"]), listed(["a", "b", "c"])
    ('a', 'a, b and c')
    """
    if len(parts) == 1:
        return parts[0]
    return f"{', '.join(parts[:-1])} and {parts[-1]}"


# --- 3. the picture -------------------------------------------------------------------------------
def draw(runs: list[Run], out: Path) -> None:
    """All runs side by side, with the same axes, so that curves can be compared."""
    import matplotlib
    matplotlib.use("Agg")                          # no display is needed
    import matplotlib.pyplot as plt

    figure = plt.figure(figsize=(SIZE[0] * len(runs), SIZE[1]), layout="constrained")
    parts = figure.subfigures(1, len(runs), squeeze=False)[0]
    panels = [draw_run(part, run) for part, run in zip(parts, runs)]
    for name in CURVES:
        same_limits([one[name] for one in panels if one[name].lines])
    figure.savefig(out, dpi=150)
    plt.close(figure)


def draw_run(figure, run: Run) -> dict:
    """One run: frames on top, below them the table and, beside it, the curves. -> axes by name"""
    figure.suptitle(run.name, fontsize=10, parse_math=False)
    panels = figure.subplot_mosaic([["frames", "frames"], ["table", "loss"], ["table", "accuracy"],
                                    ["words", "rate"]],
                                   width_ratios=[1.25, 1], height_ratios=[0.9, 1.5, 1.5, 1.2])
    for name in ("frames", "words"):
        panels[name].axis("off")
    if run.strip is not None:
        panels["frames"].imshow(run.strip.numpy())
        panels["frames"].set_title(f"a test video: {run.words}", fontsize=9)
    if run.rows:
        draw_table(panels["table"], run.rows)
        text = "\n".join(wrapped(sentence) for sentence in sentences(run.rows))
        panels["words"].text(0, 1, text, va="top", fontsize=8)
    else:
        panels["table"].axis("off")
    draw_losses(panels["loss"], run.log)
    draw_accuracies(panels["accuracy"], run)
    draw_rates(panels["rate"], run.log)
    last = max([line["epoch"] for line in run.log + run.metrics], default=1)
    for name in CURVES:
        panels[name].set_xlim(0, 1.03 * last)
    return panels


def wrapped(sentence: str) -> str:
    """In lines as wide as the table. Names of datasets stay whole."""
    return textwrap.fill(sentence, 68, break_on_hyphens=False)


def draw_table(axes, rows: Rows) -> None:
    """Bars. The rows are train.py's three, in its order: the middle one stands in the middle of its
    group.
    """
    # Every row has the same datasets.
    sets = list(next(iter(rows.values())))
    for i, (row, grey) in enumerate(zip(rows, GREYS)):
        places = [group + STEP * (i - 1) for group in range(len(sets))]
        top1 = [rows[row][name] for name in sets]
        bars = axes.bar(places, top1, 0.25, color=grey, label=row)
        axes.bar_label(bars, fmt="%.1f", fontsize=7)

    axes.set_xticks(range(len(sets)), sets, fontsize=8)
    axes.set_ylim(0, 112)                          # room for the numbers above full bars
    finish(axes, "top-1, per cent")
    axes.legend(fontsize=8, frameon=False, loc="lower left", bbox_to_anchor=(0, 1))


def draw_losses(axes, log: list[dict]) -> None:
    """The weighted sum of Eq. 10 in black, and its terms, whatever they are called."""
    # Of the last line: a loss may have come with a resume, and a first line may have none.
    last = log[-1] if log else {}
    names = [name for name in last if name.startswith("L_")]
    for name in ("loss", *names):
        kept = [line for line in log if name in line]
        black = {"color": "black"} if name == "loss" else {"lw": 1}
        axes.plot([line["epoch"] for line in kept], [line[name] for line in kept], label=name,
                  **black)
    axes.set_ylim(bottom=0)
    finish(axes, "loss", legend=bool(log))


def draw_accuracies(axes, run: Run) -> None:
    """Top-1 of every dataset, without modulation; of an ended run, from untrained CLIP's on."""
    untrained = next(iter(run.rows.values()), {})
    for name in dict.fromkeys(line["data"] for line in run.metrics):
        points = [(0, untrained[name])] if name in untrained else []
        points += [(line["epoch"], line["plain"]["top1"]) for line in run.metrics
                   if line["data"] == name]
        axes.plot(*zip(*points), marker="o", ms=3, label=name)
    axes.set_ylim(0, 105)
    finish(axes, "top-1, per cent", legend=bool(run.metrics))


def draw_rates(axes, log: list[dict]) -> None:
    """On a logarithmic axis, since the two peaks may be a factor of ten apart. It ends where a
    rate is as good as 0.
    """
    for name, words in RATES.items():
        kept = [line for line in log if line.get(name, 0) > 0]
        if kept:
            axes.plot([line["epoch"] for line in kept], [line[name] for line in kept], label=words)
    axes.set_yscale("log")
    axes.set_ylim(bottom=axes.get_ylim()[1] / 1000)
    axes.set_xlabel("epoch", fontsize=8)
    finish(axes, "learning rate", legend=bool(axes.lines))


def finish(axes, title: str, legend: bool = False) -> None:
    axes.set_ylabel(title, fontsize=8)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    if legend:
        # Above the curves, in one row: inside, it would hide some.
        axes.legend(fontsize=7, frameon=False, ncols=4, loc="lower left",
                    bbox_to_anchor=(-0.02, 0.98), borderpad=0, handlelength=1.2, columnspacing=1.0)


def same_limits(panels: list) -> None:
    """The widest limits for all that have curves."""
    if not panels:
        return
    left, right = zip(*(axes.get_xlim() for axes in panels))
    bottom, top = zip(*(axes.get_ylim() for axes in panels))
    for axes in panels:
        axes.set(xlim=(min(left), max(right)), ylim=(min(bottom), max(top)))


def main(argv: list[str] | None = None) -> Path:
    """Draw runs, print of each what its table says, and return the picture's path.

    A mistake is one line and exit status 2.
    """
    with one_line_errors("picture.py"):
        parser = plain_errors(argparse.ArgumentParser("picture.py", description=__doc__))
        parser.add_argument("runs", nargs="+", metavar="RUN", help="a run's folder")
        parser.add_argument("--out", default="",
                            help="the picture; empty: results.png in the first run's folder")
        options = parser.parse_args(argv)
        runs = [read_run(Path(folder)) for folder in options.runs]

        out = Path(options.out or Path(options.runs[0]) / "results.png")
        draw(runs, out)
        for run in runs:
            if run.rows:
                print(*sentences(run.rows), sep="\n")
        print(out)
        return out


if __name__ == "__main__":
    main(sys.argv[1:])
