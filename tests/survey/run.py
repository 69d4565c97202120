"""
Every model that open_clip describes, in mote: does it build, run, train, and agree with open_clip?

    python tests/survey/run.py                          # all 144: minutes on one core
    python tests/survey/run.py ViT-B-32 RN50            # some of them
    python tests/survey/run.py --table families         # as in docs/towers.md; or pixels

As it is, each model is built on torch's meta device, which shows its sizes and needs no memory.
Small (shrinking.py), with random weights in a file, it is loaded by mote and by open_clip, and what
they compute is compared (examining.py). Nothing is downloaded: tokenizers and text towers come from
a hub's cache with tiny ones. No pretrained weights are used.

A row for each model is printed, and appended to results/towers.jsonl. Exit status: 0 all agree,
1 not, 2 a mistake in the command.
"""
import argparse
import logging
import os
import platform
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

import torch

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
from survey import examining, tables  # noqa: E402
from survey.shrinking import hub_of_tiny_files, kinds  # noqa: E402

from mote.runtime.errors import one_line_errors  # noqa: E402
from mote.runtime.options import plain_errors  # noqa: E402
from tools.bench.rows import append, installed, read, version  # noqa: E402

PACKAGES = ("torch", "open_clip_torch", "timm", "transformers", "tokenizers")
TOLERANCE = 1e-6                                 # of vectors of unit length, in float32
TABLES = {"families": tables.families, "pixels": tables.pixels}


# --- one model ------------------------------------------------------------------------------------
def survey(name: str, folder: Path) -> dict:
    """All that is known of a model after it was tried. folder: for small files.

    What fails is said in one line, under "failed"; the numbers that came before it are kept.
    """
    started = time.monotonic()
    row = {"name": name, "failed": ""}
    row["pixels"] = [{"tags": tags, **asdict(pixels)}
                     for pixels, tags in examining.pixels_by_tag(name).items()]
    try:
        row |= examining.full_size(name)
        with hub_of_tiny_files(folder / "hub", name):
            try_small(name, folder, row)
    except Exception as error:                   # of open_clip, timm, transformers, or ours
        row["failed"] = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    row.pop("kinds", None)
    row["seconds"] = round(time.monotonic() - started, 2)
    return row


def try_small(name: str, folder: Path, row: dict) -> None:
    """Load the small one in mote and in open_clip, and fill a row. ValueError for what is wrong."""
    choices = examining.tags_to_name(name)
    both = examining.load_both(name, folder, next(iter(choices)))
    visual = both.clip.visual
    if sorted(kinds(visual)) != row["kinds"]:
        raise ValueError("the small tower is made of other parts than the tower itself")

    row["features_off"] = examining.features_off(both)
    row["classes_off"] = examining.classes_off(both)
    row["without_gradient"] = len(examining.without_gradient(visual))
    row["checkpointing"] = examining.recomputes(visual)
    if max(row["features_off"], row["classes_off"]) > TOLERANCE:
        raise ValueError("features or class embeddings are not open_clip's")
    if not examining.same_ids(both):
        raise ValueError("token ids are not open_clip's")
    for as_tag, right in choices.items():
        clip, _ = examining.load_ours(name, both.config, both.file, as_tag)
        if clip.pixels != right:
            raise ValueError(f"frames are not made as those of {as_tag or 'its tags'}")
    both.file.unlink()


# --- all of them ----------------------------------------------------------------------------------
def run(names: list[str], file: Path | None) -> list[dict]:
    """Survey some models; each row is printed and kept as soon as it is there."""
    about = {"machine": f"{platform.machine()}, {os.cpu_count()} cores",
             "versions": {package: version(package) for package in PACKAGES},
             "date": time.strftime("%Y-%m-%d")}
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            row = {**survey(name, Path(folder)), **about}
            rows.append(row)
            print(line_of(row), flush=True)
            if file:
                file.parent.mkdir(parents=True, exist_ok=True)
                append(file, row)
    print(f"{len(rows)} models, {sum(row['seconds'] for row in rows):.0f} s, "
          f"{installed(about['versions'])}")
    return rows


def line_of(row: dict) -> str:
    """One row for the terminal."""
    if row["failed"]:
        return f"{row['name']:34s} FAILED: {row['failed']}"
    return (f"{row['name']:34s} {row['visual']:18s} features off by {row['features_off']:.0e}, "
            f"classes by {row['classes_off']:.0e}  {row['seconds']:.1f} s")


# --- the command ----------------------------------------------------------------------------------
def parse(argv: list[str] | None) -> argparse.Namespace:
    """The options. ValueError, one line, for a mistake."""
    import open_clip

    parser = plain_errors(argparse.ArgumentParser("tests/survey/run.py", description=__doc__))
    add = parser.add_argument
    add("names", nargs="*", metavar="NAME", help="models of open_clip; none: all")
    add("--file", default=str(ROOT / "results" / "towers.jsonl"), help="where rows go; '': nowhere")
    add("--table", choices=TABLES, help="print a table of the file's newest rows")
    options = parser.parse_args(argv)
    unknown = [name for name in options.names if name not in open_clip.list_models()]
    if unknown:
        parser.error(f"open_clip has no model {unknown[0]}")
    options.names = options.names or open_clip.list_models()
    return options


def main(argv: list[str] | None = None) -> int:
    """Survey, or with --table read. -> exit status"""
    with one_line_errors("tests/survey/run.py"):
        options = parse(argv)
        if options.table:
            print(TABLES[options.table](read(Path(options.file))))
            return 0

        logging.disable(logging.WARNING)         # open_clip's, of random weights: meant so
        torch.set_num_threads(1)
        rows = run(options.names, Path(options.file) if options.file else None)
        return int(any(row["failed"] for row in rows))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
