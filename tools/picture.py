"""
Draw the table that train.py prints at the end: one group of bars per dataset, one bar per model.

    python tools/picture.py RUN                    # RUN/results.json -> RUN/results.png

Needs matplotlib (pip install -e .[figures]).
"""
import argparse
import json
import sys
from pathlib import Path

GREYS = ("0.75", "0.45", "0.15")                   # one for each row of the table; fit for print
STEP = 0.27                                        # between bars of a group; groups are 1 apart


def main(argv: list[str] | None = None) -> Path:
    """Draw a run's table and return the picture's path."""
    parser = argparse.ArgumentParser("picture.py", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="a run's folder, with results.json")
    parser.add_argument("--out", default="",
                        help="the picture; empty: results.png in the run's folder")
    options = parser.parse_args(argv)
    file = Path(options.run) / "results.json"
    if not file.is_file():
        parser.error(f"no results.json in {options.run}: a run writes it when it ends")

    out = Path(options.out or Path(options.run) / "results.png")
    draw(json.loads(file.read_text()), out)
    print(f"{out}")
    return out


def draw(rows: dict[str, dict[str, float]], out: Path) -> None:
    """The picture of a table, row -> dataset -> top-1 in per cent.

    The rows are train.py's three, in its order: the middle one stands in the middle of its group.
    """
    import matplotlib
    matplotlib.use("Agg")                          # no display is needed
    import matplotlib.pyplot as plt

    # Every row has the same datasets.
    sets = list(next(iter(rows.values())))
    size = (1.5 + 2.1 * len(sets), 3.2)            # inches
    figure, axes = plt.subplots(figsize=size, layout="constrained")
    for i, (row, grey) in enumerate(zip(rows, GREYS)):
        places = [group + STEP * (i - 1) for group in range(len(sets))]
        top1 = [rows[row][name] for name in sets]
        bars = axes.bar(places, top1, 0.25, color=grey, label=row)
        axes.bar_label(bars, fmt="%.1f", fontsize=8)

    axes.set_xticks(range(len(sets)), sets)
    axes.set_ylabel("top-1, per cent")
    axes.set_ylim(0, 112)                          # room for the numbers above full bars
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8, frameon=False, ncols=len(rows), loc="upper center",
                bbox_to_anchor=(0.5, 1.16))
    figure.savefig(out, dpi=150)


if __name__ == "__main__":
    main(sys.argv[1:])
