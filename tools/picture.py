"""
Draw the table that train.py prints at the end: one group of bars per dataset, one bar per model.

    python tools/picture.py RUN                    # RUN/results.json -> RUN/results.png

Needs matplotlib (pip install -e .[figures]).
"""
import argparse
import json
import sys
from pathlib import Path


def main(argv: list[str] | None = None) -> Path:
    parser = argparse.ArgumentParser("picture.py", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="a run's folder, with results.json")
    parser.add_argument("--out", default="", help="the picture; empty: results.png in the run's folder")
    options = parser.parse_args(argv)
    file = Path(options.run) / "results.json"
    if not file.is_file():
        parser.error(f"no results.json in {options.run}: a run writes it when it ends")
    rows = json.loads(file.read_text())

    import matplotlib
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    sets = list(next(iter(rows.values())))
    figure, axes = plt.subplots(figsize=(1.5 + 2.1 * len(sets), 3.2), layout="constrained")
    for i, ((row, top1), grey) in enumerate(zip(rows.items(), ("0.75", "0.45", "0.15"))):         # readable in print
        places = [x + 0.27 * (i - 1) for x in range(len(sets))]
        bars = axes.bar(places, [top1[s] for s in sets], 0.25, color=grey, label=row)
        axes.bar_label(bars, fmt="%.1f", fontsize=8)
    axes.set_xticks(range(len(sets)), sets)
    axes.set_ylabel("top-1, per cent")
    axes.set_ylim(0, 112)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8, frameon=False, ncols=len(rows), loc="upper center", bbox_to_anchor=(0.5, 1.16))
    out = Path(options.out or Path(options.run) / "results.png")
    figure.savefig(out, dpi=150)
    print(f"{out}")
    return out


if __name__ == "__main__":
    main(sys.argv[1:])
