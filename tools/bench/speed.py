"""
What mote costs, beside CLIP itself and beside what one would use in its place. Ratios, no seconds.

    python tools/bench/speed.py                                # all sections: an hour on two cores
    python tools/bench/speed.py training evaluation --pairs 20 # some of them
    python tools/bench/speed.py loader --video FILE            # without it, of $MOTE_TEST_VIDEOS
    python tools/bench/speed.py --device cuda --clips 16       # the same; and bf16, clips/s, MFU
    python tools/bench/speed.py --quick                        # does it run? tiny, nothing kept
    python tools/bench/speed.py --table                        # as in docs/speed.md

Each row is printed with the seconds that it comes from, and appended to results/speed.jsonl.

    what is measured      model_sections.py, data_sections.py, process_sections.py
    what they run         steps.py, views.py, loader.py, demo.py; in other processes: workers.py
    how ratios are taken  pairs.py
    how rows are shown    rows.py
"""
import argparse
import os
import platform
import sys
import time
from pathlib import Path

import torch

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))
from mote.clip_backbone import clip_config  # noqa: E402
from mote.runtime.errors import one_line_errors  # noqa: E402
from mote.runtime.options import plain_errors  # noqa: E402
from mote.runtime.ranks import find_ranks  # noqa: E402
from tools.bench import rows as bench_rows  # noqa: E402
from tools.bench.data_sections import decoder, loader, text, views  # noqa: E402
from tools.bench.model_sections import evaluation, growth, optimiser, training  # noqa: E402
from tools.bench.process_sections import demo, memory, ranks, start  # noqa: E402
from tools.bench.steps import T, settle_for  # noqa: E402

SECTIONS = {"training": training, "evaluation": evaluation, "views": views, "text": text,
            "optimiser": optimiser, "loader": loader, "decoder": decoder, "memory": memory,
            "start": start, "growth": growth, "ranks": ranks, "demo": demo}
ONE_THREAD = ("loader", "ranks")                          # sections, whatever --threads


# --- 1. measuring ---------------------------------------------------------------------------------
def measure(options: argparse.Namespace) -> list[dict]:
    """Run the sections; each row is printed and kept as soon as it is there.

    A run of all sections takes an hour: what was measured before it ends or breaks is not lost.
    Returns the rows, with what they were measured with.
    """
    about = circumstances(options)
    rows = []
    for section in options.sections:
        threads = 1 if section in ONE_THREAD else about["threads"]
        for one in SECTIONS[section](options):
            # Without the device in its name, a GPU's row would replace the CPU's in the table.
            if options.device.type == "cuda":
                one["name"] += ", cuda"
            if one["holds"] is False:
                one["reason"] = bench_rows.REASONS.get((section, one["name"]), "")

            row = {"section": section, **one, **about, "threads": threads}
            rows.append(row)
            print(bench_rows.describe(row), flush=True)
            if options.file:
                options.file.parent.mkdir(parents=True, exist_ok=True)
                bench_rows.append(options.file, row)
    return rows


def circumstances(options: argparse.Namespace) -> dict:
    """What all rows of this run are measured with."""
    machine = [platform.machine(), f"{os.cpu_count()} cores"]
    if options.device.type == "cuda":
        machine.append(torch.cuda.get_device_name(options.device))
    versions = {package: bench_rows.version(package) for package in bench_rows.PACKAGES}
    return {"threads": torch.get_num_threads(), "device": options.device.type,
            "backbone": options.backbone, "clips": options.clips,
            "machine": ", ".join(one for one in machine if one), "versions": versions,
            "date": time.strftime("%Y-%m-%d")}


# --- 2. the command -------------------------------------------------------------------------------
def parse(argv: list[str] | None) -> argparse.Namespace:
    """The options, checked before anything is measured. ValueError, one line, for a mistake."""
    parser = plain_errors(argparse.ArgumentParser("tools/bench/speed.py", description=__doc__))
    add = parser.add_argument
    add("sections", nargs="*", metavar="SECTION", help=f"{', '.join(SECTIONS)}; none: all")
    add("--pairs", type=int, default=10, help="of each ratio, at least 10")
    add("--clips", type=int, default=2, help=f"clips of {T} frames at a time")
    add("--backbone", default="ViT-B-16-quickgelu", help="open_clip model, with random weights")
    add("--device", default="cpu", help="cpu or cuda")
    add("--threads", type=int, default=0, help="torch's threads; 0: torch's choice")
    add("--video", default="",
        help="of the loader; default $MOTE_TEST_VIDEOS/arm_wrestling.mp4")
    add("--file", default="",
        help="where rows go; default results/speed.jsonl, with --quick nowhere")
    add("--quick", action="store_true", help="2 pairs on toyworld's CLIP: only whether it runs")
    add("--table", action="store_true", help="print the newest rows of the file as a table")
    options = parser.parse_args(argv)

    unknown = [name for name in options.sections if name not in SECTIONS]
    if unknown:
        parser.error(f"no section {unknown[0]}; there are {', '.join(SECTIONS)}")
    if options.pairs < 10 or options.clips < 1 or options.threads < 0:
        parser.error("--pairs must be at least 10, --clips 1, --threads 0, "
                     f"got {options.pairs}, {options.clips}, {options.threads}")

    options.sections = options.sections or list(SECTIONS)
    options.file = file_of_rows(options)
    options.video = options.video or usual_video()
    on_a_video = {"loader", "decoder"} & set(options.sections)
    needs_video = on_a_video and not options.table
    if needs_video and not Path(options.video).is_file():
        parser.error("the sections loader and decoder need --video FILE or $MOTE_TEST_VIDEOS: "
                     f"no file at {options.video or 'either'}")
    # After the check of --pairs, which asks for more: two pairs say whether it runs, no more.
    if options.quick:
        options.pairs = 2
        options.backbone = "toyworld"
    clip_config(options.backbone)                         # an unknown name is said now
    return options


def file_of_rows(options: argparse.Namespace) -> Path | None:
    """Where rows are kept and read; None: nowhere."""
    if options.file:
        return Path(options.file)
    if options.quick and not options.table:
        return None
    return ROOT / "results" / "speed.jsonl"


def usual_video() -> str:
    """The loader's file where --video names none; empty without $MOTE_TEST_VIDEOS."""
    folder = os.environ.get("MOTE_TEST_VIDEOS", "")
    return str(Path(folder) / "arm_wrestling.mp4") if folder else ""


def main(argv: list[str] | None = None) -> list[dict]:
    """Measure, or with --table read. -> the rows"""
    with one_line_errors("tools/bench/speed.py"):
        options = parse(argv)
        if options.table:
            rows = bench_rows.read(options.file)
            print(bench_rows.table(rows, SECTIONS))
            return rows

        options.device = find_ranks(options.device, options.threads).device
        options.settle = settle_for(options.device)
        options.precisions = [("fp32", "")]               # what is measured, and how its rows end
        if options.device.type == "cuda":
            options.precisions.append(("bf16", ", bf16"))
        return measure(options)


if __name__ == "__main__":
    main(sys.argv[1:])
