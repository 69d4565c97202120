"""
What mote costs beside CLIP itself, and beside what one would use in its place: ratios, never seconds.

    python tools/bench/speed.py                                      # all sections: about an hour on two cores
    python tools/bench/speed.py training evaluation --pairs 20       # some of them
    python tools/bench/speed.py loader --video FILE                  # else $MOTE_TEST_VIDEOS/arm_wrestling.mp4
    python tools/bench/speed.py --device cuda --clips 16             # the same ratios, bf16 too, clips/s, MFU
    python tools/bench/speed.py --quick                              # does it run? 2 pairs of tiny things, nothing kept
    python tools/bench/speed.py --table                              # the newest rows, as README.md shows them

Each row is printed, the seconds that it comes from beside it, and appended to results/speed.jsonl. How ratios are
taken: tools/bench/pairs.py; of what: tools/bench/steps.py, tools/bench/loader.py.

Dimension key   B clips   T frames   D embedding   N classes   E experts   L layers
"""
import argparse
import importlib.metadata
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))
import train  # noqa: E402
from mote import toyworld  # noqa: E402
from mote.clip_backbone import class_embeddings, clip_config  # noqa: E402
from mote.data import segment_indices  # noqa: E402
from mote.runtime.errors import one_line_errors  # noqa: E402
from mote.runtime.guard import agree, finite  # noqa: E402
from mote.runtime.options import plain_errors  # noqa: E402
from mote.runtime.ranks import find_ranks  # noqa: E402
from tools.bench import loader as bench_loader  # noqa: E402
from tools.bench import steps as steps  # noqa: E402
from tools.bench.pairs import count, interleave, not_run, ratio, row  # noqa: E402
from tools.bench.steps import E, Given, T, load, run_python, training_step, worker  # noqa: E402

PACKAGES = ("torch", "torchvision", "torchcodec", "open_clip_torch", "decord")
PEAKS = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "4090": 165e12}       # bf16, dense, per second
FEW = {"toyworld": {"train": 1, "val": 1}, "toyworld-novel": {"val": 1}, "toyworld-appearance": {"val": 1}}
GROWTH = {"frames": ((8, 16, 32), "at most linear: what weights cost does not depend on T, the rest is linear"),
          "experts": ((1, 2, 4, 8), "at most linear: merging is, the matmuls do not depend on E"),
          "layers": ((1, 2, 4, 8), "at most linear: the layers are, the losses do not depend on L"),
          "classes": ((100, 1000), "at most linear: the cosines are, the layers do not depend on N")}
ONE_THREAD = ("loader", "ranks")                                 # sections, whatever --threads
REASONS = {("evaluation", "4 experts merged in every forward / merged once"):                # why a target is not met
           "both are bound by memory, and the bytes would allow 4.3 to 5.0: the plain head reads 50 MB, merging "
           "134 MB more; it writes 34 (where a write reads first, reading them too), which the layers read again",
           ("loader", "prepared: decord + PIL as the authors' / TrainingClips"):
           "torchcodec decoding the same frames, and nothing else, would reach 1.6",
           **{("growth", f"step of the head: {n} layers / 1"):
              "likely the cache: one layer's weights fit, those of several do not" for n in (4, 8)}}


# --- 1. the sections: each yields rows --------------------------------------------------------------------------------
def training(o: argparse.Namespace) -> Iterator[dict]:
    visual, features = load(o.backbone, o.device)[0].visual, Given(o, o.clips * T)
    for precision, tail in o.precisions:
        step, head = (training_step(o, tower, precision=precision)[1] for tower in (visual, features))
        floor = steps.floor_step(o, visual, precision=precision)
        whole, clip, alone = interleave([step, floor, head], o.pairs, o.settle)
        yield ratio(f"training step / CLIP's visual tower{tail}", whole, clip, "<= 1.05",
                    "the authors' step: 1.31, without activation checkpointing 1.14")
        yield ratio(f"step of the head, features given / visual tower{tail}", alone, clip)
        if o.device.type == "cuda":
            yield row(f"clips/s{tail}", [o.clips / seconds for seconds in whole])
            peak = next((peak for gpu, peak in PEAKS.items() if gpu in torch.cuda.get_device_name(o.device)), None)
            if peak and precision == "bf16":
                from torch.utils.flop_counter import FlopCounterMode
                with FlopCounterMode(display=False) as counter:
                    step(0)
                yield row(f"MFU{tail}", [counter.get_total_flops() / seconds / peak for seconds in whole])


@torch.no_grad()
def evaluation(o: argparse.Namespace) -> Iterator[dict]:
    visual, features = load(o.backbone, o.device)[0].visual, Given(o, o.clips * T)
    for precision, tail in o.precisions:
        whole, floor, alone = interleave([
            steps.evaluation_step(o, visual, precision), steps.floor_step(o, visual, T, precision, backward=False),
            steps.evaluation_step(o, features, precision)], o.pairs, o.settle)
        yield ratio(f"evaluation / CLIP's visual tower{tail}", whole, floor, "<= 1.02", "the authors': 1.25")
        yield ratio(f"the head, features given / visual tower{tail}", alone, floor)
    h = steps.new_model(o, features).temporal
    one, e_BTD = h.merged(), features.features.unflatten(0, (o.clips, T))
    columns = interleave([lambda _: h(e_BTD, h.uniform_weights()), lambda _: one(e_BTD, one.uniform_weights())],
                         o.pairs, o.settle)
    yield ratio(f"{E} experts merged in every forward / merged once", *columns, ">= 5", "the head alone")


def views(o: argparse.Namespace) -> Iterator[dict]:
    for length, clips, crops in ((20, 3, 1), (20, 4, 3), (300, 3, 1), (300, 4, 3)):
        counts, distinct = steps.count_views(length, clips, crops), len(np.unique(segment_indices(length, T, clips)))
        which = f"{length} frames, {clips} x {crops} views"
        yield count(f"{which}: decoded / distinct", counts["decoded"], distinct, "= 1")
        yield count(f"{which}: encoded / distinct", counts["encoded"], distinct * crops, "= 1")
        yield count(f"{which}: encoded / views x frames", counts["encoded"], clips * crops * T)


def text(o: argparse.Namespace) -> Iterator[dict]:
    clip, tokenizer = load(o.backbone, o.device)
    names = [name for data in ("toyworld", "toyworld-appearance") for name, _ in toyworld.class_set(data)]
    (once,), = interleave([lambda _: class_embeddings(clip, tokenizer, names[:1])], 1, o.settle)
    n = 3 if o.quick else min(len(names), max(2, int(60 / (2 * (o.pairs + 1) * once))))            # about a minute
    columns = interleave([lambda _: class_embeddings(clip, tokenizer, names[:n]),
                          lambda _: [class_embeddings(clip, tokenizer, [name]) for name in names[:n]]],
                         o.pairs, o.settle)
    yield ratio("class embeddings in batches / one class at a time", *columns, "<= 1", f"{n} classes")
    with tempfile.TemporaryDirectory() as cache, patch.object(clip, "encode_text", wraps=clip.encode_text) as tower:
        class_embeddings(clip, tokenizer, names[:2], cache=cache)
        first = tower.call_count
        class_embeddings(clip, tokenizer, names[:2], cache=cache)
    yield count("text tower's calls, second start / first", tower.call_count - first, first, "= 0")


def optimiser(o: argparse.Namespace) -> Iterator[dict]:
    objective, step = training_step(o, load(o.backbone, o.device)[0].visual)
    fused = train.build_optimizer(objective.model, train.Config())
    groups = [{"params": group["params"]} for group in fused.param_groups]
    plain = torch.optim.AdamW(groups, lr=0.0, weight_decay=0.2, fused=False)
    gradients = {p: torch.randn_like(p) for group in groups for p in group["params"]}

    def update(optimizer: torch.optim.Optimizer) -> None:
        for p, gradient in gradients.items():
            p.grad = gradient
        optimizer.step()
        optimizer.zero_grad()                                    # or the training step would add to them
    losses, given = [torch.zeros(3, device=o.device)], [torch.nn.Parameter(torch.zeros_like(p)) for p in gradients]
    for p, gradient in zip(given, gradients.values()):
        p.grad = gradient
    plain_s, fused_s, look_s, step_s = interleave([
        lambda _: update(plain), lambda _: update(fused), lambda _: agree(o.device, ~finite(losses, given)), step],
        o.pairs, o.settle)
    yield ratio("AdamW step, fused / not fused", fused_s, plain_s, "<= 1")
    whole_s = [a + b for a, b in zip(fused_s, step_s)]
    yield ratio("fused AdamW step / whole training step", fused_s, whole_s)
    yield ratio("looking for NaN in losses and gradients / whole training step", look_s, whole_s)


def loader(o: argparse.Namespace) -> Iterator[dict]:
    """On one core: torch and the decoders on one thread each."""
    ways, missing, threads = {}, {}, torch.get_num_threads()
    with tempfile.TemporaryDirectory() as folder:
        try:
            made = bench_loader.files(Path(o.video), Path(folder))
        except OSError as error:                                 # no ffmpeg program, say: the other sections need none
            yield not_run("all of it", str(error))
            return
        torch.set_num_threads(1)
        for kind, path in made.items():
            for way, build in bench_loader.WAYS.items():
                if (kind, way) != ("JPEG folder", "decord + PIL"):
                    try:
                        ways[kind, way] = build(path)
                    except (ImportError, ValueError) as error:
                        missing[kind] = "pip install decord" if isinstance(error, ImportError) else str(error)
        seconds = dict(zip(ways, interleave(list(ways.values()), o.pairs)))
    torch.set_num_threads(threads)
    for kind, target in (("video", "<= 1.25"), ("prepared", "<= 1.25"), ("JPEG folder", "")):
        yield ratio(f"{kind}: TrainingClips / decoding alone", seconds[kind, "ours"], seconds[kind, "decoding alone"],
                    target)
    for kind, target in (("video", ">= 1.2"), ("prepared", ">= 2")):
        name = f"{kind}: decord + PIL as the authors' / TrainingClips"
        yield not_run(name, missing[kind], target) if kind in missing else ratio(
            name, seconds[kind, "decord + PIL"], seconds[kind, "ours"], target)
    for kind, target in (("prepared", ">= 4"), ("JPEG folder", "")):
        yield ratio(f"TrainingClips: video / {kind}", seconds["video", "ours"], seconds[kind, "ours"], target)


def memory(o: argparse.Namespace) -> Iterator[dict]:
    """Peaks of processes of their own, three of each: they hardly vary."""
    def peaks(**case) -> list[float]:
        command = worker(o, **{"what": "memory", "frames": T, "floor": False, "checkpoint": False, **case})
        return [float(run_python(*command)) / 2**30 for _ in range(2 if o.quick else 3)]
    large = {"backbone": o.backbone if o.quick else "ViT-L-14-quickgelu", "clips": 1}
    for name, case in ((f"{o.clips} x {T} frames", {}), (f"{o.clips} x {2 * T} frames", {"frames": 2 * T}),
                       (f"ViT-L/14, 1 x {T} frames", large)):
        step = peaks(**case)
        yield ratio(f"{name}: training step / visual tower", step, peaks(**case, floor=True), unit="GiB")
        yield ratio(f"{name}: activation checkpointing / none", peaks(**case, checkpoint=True), step, unit="GiB")


def start(o: argparse.Namespace) -> Iterator[dict]:
    def new_process(*arguments: str):
        return lambda _: run_python(*arguments)
    torch_s, mote_s, help_s = interleave([new_process("-c", "import torch"), new_process("-c", "import mote"),
                                          new_process("train.py", "--help")], o.pairs)
    yield ratio("import mote / import torch", mote_s, torch_s, "<= 1.2")
    yield ratio("train.py --help / import torch", help_s, torch_s, "<= 1.2")
    with tempfile.TemporaryDirectory() as folder:
        for name, few in FEW.items():
            toyworld.generate(f"{folder}/data/{name}", name, clips=few if o.quick else None)
        columns = interleave([lambda i: steps.first_step(o, folder, i), new_process("-c", "import torch")], o.pairs)
    yield ratio("train.py to its first step / import torch", *columns, note="toyworld generated, its names cached")


def growth(o: argparse.Namespace) -> Iterator[dict]:
    for size, (numbers, law) in GROWTH.items():
        heads = [training_step(o, Given(o, o.clips * (n if size == "frames" else T)), **{size: n})[1] for n in numbers]
        first, *rest = interleave(heads, o.pairs, o.settle)
        for n, column in zip(numbers[1:], rest):
            yield ratio(f"step of the head: {n} {size} / {numbers[0]}", column, first, f"<= {n / numbers[0]:g}", law)


def ranks(o: argparse.Namespace) -> Iterator[dict]:
    names = "step on 2 ranks / on 1", "communication's share of the step"
    if o.device.type == "cuda" and torch.cuda.device_count() < 2:
        yield from (not_run(name, "needs two GPUs") for name in names)
        return
    said = run_python("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *worker(o, "ranks"),
                      OMP_NUM_THREADS="1")
    whole, silent, alone = json.loads(said.splitlines()[-1])
    yield ratio(names[0], whole, alone, note="one thread and as many clips a rank")
    yield row(names[1], [1 - b / a for a, b in zip(whole, silent)], note="1 - with no_sync / without")


def demo(o: argparse.Namespace) -> Iterator[dict]:
    few = ["--epochs", "2", "--workers", "0"] if o.quick else []
    with patch.dict(toyworld.SETS, FEW if o.quick else {}):
        spent = steps.demo_seconds(["--device", str(o.device), "--threads", str(o.threads), *few])
    for part, seconds in spent.items():
        yield row(f"{part}, share of the run", [seconds / spent.total()], beside=f"{seconds:.3g} s")


SECTIONS = {f.__name__: f for f in (training, evaluation, views, text, optimiser, loader, memory, start, growth, ranks,
                                    demo)}


# --- 2. rows: measured and kept, printed, as a table ------------------------------------------------------------------
def version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def measure(o: argparse.Namespace) -> list[dict]:
    """Run the sections; each row is kept as soon as it is there."""
    gpu = torch.cuda.get_device_name(o.device) if o.device.type == "cuda" else ""
    about = {"threads": torch.get_num_threads(), "device": o.device.type, "backbone": o.backbone, "clips": o.clips,
             "machine": ", ".join(filter(None, (platform.machine(), f"{os.cpu_count()} cores", gpu))),
             "versions": {package: version(package) for package in PACKAGES}, "date": time.strftime("%Y-%m-%d")}
    rows = []
    for section, one in ((name, one) for name in o.sections for one in SECTIONS[name](o)):
        one["name"] += ", cuda" * bool(gpu)
        if one["holds"] is False:
            one["reason"] = REASONS.get((section, one["name"]), "")
        rows.append({"section": section, **one, **about, **({"threads": 1} if section in ONE_THREAD else {})})
        print(describe(rows[-1]), flush=True)
        if o.file:
            o.file.parent.mkdir(parents=True, exist_ok=True)
            with open(o.file, "a") as file:
                file.write(json.dumps(rows[-1]) + "\n")
    return rows


def describe(r: dict) -> str:
    """One row as a line."""
    if r["ratio"] is None:
        return f"{r['section']:10s} {r['name']}: {r['reason']}"
    between = f"[{r['low']:.3f}, {r['high']:.3f}]" if r["ranks"] else ""
    met = {None: "", True: "met", False: "NOT MET"}[r["holds"]]
    return f"{r['section']:10s} {r['name']:58s} {r['ratio']:8.3f} {between:18s} {r['target']:8s} {met:8s} {r['beside']}"


def table(lines: list[dict]) -> str:
    """Markdown: the newest row of each (section, name), the sections in their order here."""
    newest = {(r["section"], r["name"]): r for r in lines}
    rows = [r for section in SECTIONS for r in newest.values() if r["section"] == section]
    out = ["| section | what | ratio | interval | target | met |", "|---|---|---|---|---|---|"]
    for r in rows:
        what = r["name"] + f" ({r['note']})" * bool(r["note"])
        number = r["reason"] if r["ratio"] is None else f"{r['ratio']:.3f}"
        between = f"{r['low']:.3f} to {r['high']:.3f}" if r["ranks"] else ""
        reason = r["reason"] or REASONS.get((r["section"], r["name"]), "")
        met = {None: "", True: "yes", False: "no" + f": {reason}" * bool(reason)}[r["holds"]]
        out.append(f"| {r['section']} | {what} | {number} | {between} | {r['target']} | {met} |")
    ranks = dict.fromkeys(r["ranks"] for r in rows if r["ranks"])
    where = dict.fromkeys(
        f"{r['backbone']}, {r['clips']} clips, {r['threads']} threads, {r['machine']}, {r['date']}, " + ", ".join(
            f"{package} {number}" for package, number in r["versions"].items() if number) for r in rows)
    return "\n".join([*out, "", f"Interval: of the ordered ratios of the pairs, {'; '.join(ranks)}.",
                      *(f"Measured with {one}." for one in where)])


def read(file: Path) -> list[dict]:
    lines = []
    for number, line in enumerate(file.read_text().splitlines(), 1):
        try:
            lines.append(json.loads(line))
        except ValueError:
            raise ValueError(f"{file}: line {number} is not JSON") from None
    return lines


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = plain_errors(argparse.ArgumentParser("tools/bench/speed.py", description=__doc__,
                                                  formatter_class=argparse.RawDescriptionHelpFormatter))
    add = parser.add_argument
    add("sections", nargs="*", metavar="SECTION", help=f"{', '.join(SECTIONS)}; none: all")
    add("--pairs", type=int, default=10, help="of each ratio, at least 10")
    add("--clips", type=int, default=2, help=f"clips of {T} frames at a time")
    add("--backbone", default="ViT-B-16-quickgelu", help="open_clip model, with random weights")
    add("--device", default="cpu", help="cpu or cuda")
    add("--threads", type=int, default=0, help="torch's threads; 0: torch's choice")
    add("--video", default="", help="of the loader; default $MOTE_TEST_VIDEOS/arm_wrestling.mp4")
    add("--file", default="", help="where rows go; default results/speed.jsonl, with --quick nowhere")
    add("--quick", action="store_true", help="2 pairs on toyworld's CLIP: only whether it runs")
    add("--table", action="store_true", help="print the newest rows of the file as a table")
    o = parser.parse_args(argv)
    if unknown := [name for name in o.sections if name not in SECTIONS]:
        parser.error(f"no section {unknown[0]}; there are {', '.join(SECTIONS)}")
    if o.pairs < 10 or o.clips < 1 or o.threads < 0:
        parser.error(f"--pairs must be at least 10, --clips 1, --threads 0, got {o.pairs}, {o.clips}, {o.threads}")
    o.sections = o.sections or list(SECTIONS)
    o.file = Path(o.file) if o.file else None if o.quick and not o.table else ROOT / "results" / "speed.jsonl"
    folder = os.environ.get("MOTE_TEST_VIDEOS", "")
    o.video = o.video or (str(Path(folder) / "arm_wrestling.mp4") if folder else "")
    if "loader" in o.sections and not o.table and not Path(o.video).is_file():
        parser.error(f"the section loader needs --video FILE or $MOTE_TEST_VIDEOS: no file at {o.video or 'either'}")
    if o.quick:
        o.pairs, o.backbone = 2, "toyworld"
    clip_config(o.backbone)                                      # an unknown name is said now
    return o


def main(argv: list[str] | None = None) -> list[dict]:
    with one_line_errors("tools/bench/speed.py"):
        o = parse(argv)
        if o.table:
            print(table(rows := read(o.file)))
            return rows
        o.device = find_ranks(o.device, o.threads).device
        o.settle = steps.settle_for(o.device)
        o.precisions = [("fp32", "")] + [("bf16", ", bf16")] * (o.device.type == "cuda")
        return measure(o)


if __name__ == "__main__":
    main(sys.argv[1:])
