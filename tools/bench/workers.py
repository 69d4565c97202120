"""
What tools/bench/speed.py measures in processes of its own: imports, peaks of memory, two ranks.

    python tools/bench/workers.py JSON                    # one worker, its options and case as JSON
"""
import json
import os
import subprocess
import sys
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

import torch.distributed as dist
from torch import nn

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))
from mote.clip_backbone import build_visual, clip_config  # noqa: E402
from mote.runtime.ranks import find_ranks, start  # noqa: E402
from tools.bench.pairs import interleave  # noqa: E402
from tools.bench.steps import (  # noqa: E402
    floor_step,
    load,
    peak_memory,
    settle_for,
    training_step,
)


# --- 1. starting a process ------------------------------------------------------------------------
def run_python(*arguments: str, **environment: str) -> str:
    """Run python with these arguments in the project's folder. -> what it printed

    Raises RuntimeError with its errors if it fails.
    """
    done = subprocess.run([sys.executable, *arguments], cwd=ROOT,
                          env={**os.environ, **environment}, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(arguments)}:\n{done.stderr}")
    return done.stdout


def worker(options: Namespace, what: str, **case) -> list[str]:
    """Arguments of python that run a worker of this file. The case overrides the options."""
    about = {"backbone": options.backbone, "device": str(options.device),
             "threads": options.threads, "clips": options.clips, "pairs": options.pairs}
    return [str(Path(__file__).resolve()), json.dumps({**about, "what": what, **case})]


def first_step(options: Namespace, folder: str, i: int) -> None:
    """train.py's toyworld job until it has made a step. folder: has its data, and gets its run."""
    command = [sys.executable, "train.py", "--log-every", "1", "--workers", "0",
               "--device", str(options.device), "--threads", str(options.threads),
               "--out", f"{folder}/{i}"]
    environment = {**os.environ, "MOTE_DATA": f"{folder}/data", "XDG_CACHE_HOME": f"{folder}/cache"}
    process = subprocess.Popen(command, cwd=ROOT, text=True, stdout=subprocess.PIPE,
                               env=environment)

    # Reading stops at the line, so the time ends there; the run is of no more use.
    if not any(line.startswith("step 1/") for line in process.stdout):
        raise RuntimeError("train.py ended before its first step")
    process.kill()
    process.communicate()


# --- 2. the workers -------------------------------------------------------------------------------
def memory_worker(options: Namespace) -> int:
    """Bytes that two steps, or two of the floor, take at their peak over what the imports took."""
    options.device = find_ranks(options.device, options.threads).device
    config = clip_config(options.backbone)                # imports open_clip
    before = peak_memory(options.device)

    visual = build_visual(config).to(options.device)
    visual.set_grad_checkpointing(options.checkpoint)
    if options.floor:
        step = floor_step(options, visual, options.frames)
    else:
        _, step = training_step(options, visual, options.frames)

    # In the second step weights, gradients and activations are all there.
    step(0)
    step(1)
    return peak_memory(options.device) - before


def ranks_worker(options: Namespace) -> list[list[float]] | None:
    """Seconds of a step on all ranks, of one without communication, and of one on rank 0 while the
    others wait: a column each, on rank 0. None on the other ranks.
    """
    ranks = find_ranks(options.device.partition(":")[0], threads=1)
    options.device = ranks.device
    wait_for_device = settle_for(ranks.device)
    start(ranks)
    visual = load(options.backbone, options.device)[0].visual
    objective, step = training_step(options, visual)
    ddp = nn.parallel.DistributedDataParallel(objective)

    # The same step three times: with communication, without, and on one rank alone.
    def whole(i: int) -> None:
        step(i, ddp)

    def silent(i: int) -> None:
        with ddp.no_sync():
            step(i, ddp)

    def alone(i: int) -> None:
        if ranks.first:
            step(i)

    # The ranks meet before and after each turn: a slow one must not borrow time of the next turn.
    def settle() -> None:
        wait_for_device()
        dist.barrier()

    columns = interleave([whole, silent, alone], options.pairs, settle)
    dist.destroy_process_group()
    return columns if ranks.first else None


WORKERS: dict[str, Callable] = {"memory": memory_worker, "ranks": ranks_worker}

if __name__ == "__main__":
    options = Namespace(**json.loads(sys.argv[1]))
    answer = WORKERS[options.what](options)
    if answer is not None:
        print(json.dumps(answer))
