"""
Sections of tools/bench/speed.py on whole processes: memory, start, ranks, demo.

Each takes the command's options and yields rows (tools/bench/pairs.py). What is measured here
includes the start of Python and its imports, or would be disturbed by what ran before.
"""
import json
import tempfile
from argparse import Namespace
from collections.abc import Callable, Iterator
from unittest.mock import patch

import torch

from mote import toyworld
from tools.bench.demo import demo_seconds
from tools.bench.pairs import interleave, not_run, ratio, row
from tools.bench.steps import T
from tools.bench.workers import first_step, run_python, worker

# With --quick: videos of each class and side.
FEW = {"toyworld": {"train": 1, "val": 1}, "toyworld-novel": {"val": 1},
       "toyworld-appearance": {"val": 1}}


def memory(options: Namespace) -> Iterator[dict]:
    """Peaks of memory, of a training step and of the tower: three each, which hardly vary.

    A process each: what one has taken it does not give back to the next.
    """
    def peaks(**case) -> list[float]:
        usual = {"frames": T, "floor": False, "checkpoint": False}
        command = worker(options, "memory", **{**usual, **case})
        times = 2 if options.quick else 3
        return [float(run_python(*command)) / 2**30 for _ in range(times)]

    # As the other sections; twice the frames; the paper's larger backbone, with one clip.
    large = {"backbone": options.backbone if options.quick else "ViT-L-14-quickgelu", "clips": 1}
    cases = {f"{options.clips} x {T} frames": {},
             f"{options.clips} x {2 * T} frames": {"frames": 2 * T},
             f"ViT-L/14, 1 x {T} frames": large}
    for name, case in cases.items():
        step = peaks(**case)
        floor = peaks(**case, floor=True)
        yield ratio(f"{name}: training step / visual tower", step, floor, unit="GiB")
        less = peaks(**case, checkpoint=True)
        yield ratio(f"{name}: activation checkpointing / none", less, step, unit="GiB")


def start(options: Namespace) -> Iterator[dict]:
    """From nothing to mote, to an answer, to the first training step, beside importing torch."""
    # A process of its own every time: a second import costs nothing.
    def new_process(*arguments: str) -> Callable:
        return lambda _: run_python(*arguments)

    import_torch = new_process("-c", "import torch")
    import_mote = new_process("-c", "import mote")
    show_help = new_process("train.py", "--help")
    torch_s, mote_s, help_s = interleave([import_torch, import_mote, show_help], options.pairs)
    yield ratio("import mote / import torch", mote_s, torch_s, "<= 1.2")
    yield ratio("train.py --help / import torch", help_s, torch_s, "<= 1.2")

    # Videos are generated before the clock starts; the warm-up round fills the cache of names.
    with tempfile.TemporaryDirectory() as folder:
        for name, few in FEW.items():
            clips = few if options.quick else None
            toyworld.generate(f"{folder}/data/{name}", name, clips=clips)
        columns = interleave([lambda i: first_step(options, folder, i), import_torch],
                             options.pairs)
    yield ratio("train.py to its first step / import torch", *columns,
                note="toyworld generated, its names cached")


def ranks(options: Namespace) -> Iterator[dict]:
    """A training step on two ranks beside one, and what of it is communication.

    Each rank has as many clips as one alone. no_sync leaves communication out.
    """
    # On a GPU each rank needs one of its own. Both rows are there all the same, with the reason.
    step_name = "step on 2 ranks / on 1"
    share_name = "communication's share of the step"
    if options.device.type == "cuda" and torch.cuda.device_count() < 2:
        yield not_run(step_name, "needs two GPUs")
        yield not_run(share_name, "needs two GPUs")
        return

    # torchrun may print before rank 0 does: its answer is the last line.
    said = run_python("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
                      *worker(options, "ranks"), OMP_NUM_THREADS="1")
    whole, silent, alone = json.loads(said.splitlines()[-1])
    shares = [1 - b / a for a, b in zip(whole, silent)]
    yield ratio(step_name, whole, alone, note="one thread and as many clips a rank")
    yield row(share_name, shares, note="1 - with no_sync / without")


def demo(options: Namespace) -> Iterator[dict]:
    """What share of the demo, `make demo`, each of its parts takes. The shares sum to one."""
    arguments = ["--device", str(options.device), "--threads", str(options.threads)]
    sets = {}
    if options.quick:
        arguments += ["--epochs", "2", "--workers", "0"]
        sets = FEW

    # Without --quick the sets stay as they are.
    with patch.dict(toyworld.SETS, sets):
        spent = demo_seconds(arguments)
    for part, seconds in spent.items():
        share = seconds / spent.total()
        yield row(f"{part}, share of the run", [share], beside=f"{seconds:.3g} s")
