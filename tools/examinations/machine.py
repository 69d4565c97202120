"""
What the machine can do: its GPUs, its cores, its shared memory, its disk; and a container's limits.
"""
import math
import os
import resource
import shutil
import tempfile
from argparse import Namespace
from pathlib import Path

from tools.examinations.findings import Finding, Findings, size


def workers_of(options: Namespace) -> int:
    """The number that train.py takes for --workers, here and on this device."""
    from mote.runtime.workers import count_workers
    return count_workers(options.config.workers, options.device, clips_of_a_batch(options),
                         options.config.frames, options.side, options.ranks)


def clips_of_a_batch(options: Namespace) -> int:
    """Of a micro-batch of one rank."""
    return math.ceil(options.config.batch / options.ranks / options.config.accumulate)


# --- 0. the tower ---------------------------------------------------------------------------------
def tower(options: Namespace) -> Findings:
    """The CLIP that train.py would load: is all there but a download. Its weights are not read."""
    from mote.clip_backbone import find_clip

    config = options.config
    try:
        source = find_clip(config.backbone, config.pretrained, config.as_tag, config.tokenizer)
    except (ValueError, OSError) as error:
        yield Finding(False, str(error))
        return
    where = source.file or f"{config.pretrained or 'random weights'}, not looked for"
    yield Finding(True, f"{config.backbone}: {where}; pixels: {source.pixels}; "
                        f"tokenizer: {source.tokenizer.name}")


# --- 1. device ------------------------------------------------------------------------------------
def device(options: Namespace) -> Findings:
    """The device that train.py would take, its precision, and a GPU for each rank.

    Sets options.device, which later examinations read.
    """
    import torch

    from mote.runtime.precision import dtype_for
    from mote.runtime.ranks import find_ranks

    wanted = options.config.device
    options.device = torch.device("cpu")                         # if the next line raises
    options.device = find_ranks(wanted).device
    precision = dtype_for(options.device, "auto")

    if options.device.type == "cuda":
        about = torch.cuda.get_device_properties(options.device)
        yield Finding(precision == "bf16",
                      f"{about.name}, {size(about.total_memory)}: --precision auto is {precision}",
                      "it has no bf16, so activations take twice the memory: raise --accumulate",
                      "warn")
        count = torch.cuda.device_count()
        yield Finding(options.ranks <= count, f"{options.ranks} ranks, {count} GPUs",
                      f"torchrun --nproc-per-node {count}")
    # Training on the CPU of a machine with a GPU is rarely meant, and nothing else would tell.
    elif wanted == "auto" and shutil.which("nvidia-smi"):
        yield Finding(False, f"nvidia-smi is there, but torch {torch.__version__} finds no GPU",
                      "a torch for the CUDA version that nvidia-smi shows, or unset "
                      "CUDA_VISIBLE_DEVICES, or --device cpu")
    else:
        yield Finding(True, f"{options.device.type}: --precision auto is {precision}")


# --- 2. cores -------------------------------------------------------------------------------------
def threads_of_a_rank(options: Namespace) -> int:
    """Where OMP_NUM_THREADS is not set, torchrun gives one thread to each of several ranks."""
    import torch
    if options.config.threads:
        return options.config.threads
    if options.ranks == 1 or os.environ.get("OMP_NUM_THREADS"):
        return torch.get_num_threads()
    return 1


def threads(options: Namespace) -> Findings:
    """Threads of torch, and workers that decode, on the cores that there are.

    Sets options.cores. More threads than cores wait for one another at every operator, which costs
    far more than the share of a core that each lacks.
    """
    from mote.runtime.workers import available_cores

    options.cores = available_cores()
    cores = options.cores
    ranks = options.ranks
    each = threads_of_a_rank(options)
    share = max(1, int(cores / ranks))

    busy = ranks * each > cores
    found = f"{cores:g} cores for {ranks} x {each} threads of torch"
    if busy:
        found += " (on 2 cores, 2 processes of 2 threads took 15 to 25 times as long as of 1)"
    advice = f"--threads {share}"
    if ranks > cores:
        advice += f" and torchrun --nproc-per-node {int(cores) or 1}"
    level = "WRONG" if options.device.type == "cpu" else "warn"  # a GPU needs no cores to compute
    yield Finding(not busy, found, advice, level)

    workers = workers_of(options)
    yield Finding(ranks * workers <= cores, f"{cores:g} cores for {ranks} x {workers} workers",
                  f"--workers {share}", "warn")


# --- 3. shared memory and disk --------------------------------------------------------------------
def shared_memory(options: Namespace) -> Findings:
    """Room for the batches in /dev/shm, and for the open files that lie there.

    Each worker leaves two batches there. On a CPU one more is in use; a GPU has its own copy.
    """
    from mote.runtime.workers import PREFETCHED, batch_bytes

    workers = workers_of(options)
    batches = 0
    if workers:
        batches = PREFETCHED * workers + (options.device.type == "cpu")
    # uint8 frames: they become floats on the device, after the batch has left.
    batch = batch_bytes(clips_of_a_batch(options), options.config.frames, options.side)
    need = options.ranks * batches * batch

    if Path("/dev/shm").is_dir():
        free = shutil.disk_usage("/dev/shm").free
        yield Finding(need <= free,
                      f"/dev/shm: {size(free)} free, {options.ranks} x {workers} workers fill up "
                      f"to {size(need)}",
                      f"docker run --shm-size={math.ceil(2 * need / 1e9)}g, a higher --accumulate, "
                      "or --workers 0")

    # torch shares each tensor between processes as an open file.
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    yield Finding(soft >= 1024 or soft == resource.RLIM_INFINITY, f"{soft} open files at most",
                  "ulimit -n 4096", "warn")


def disk(options: Namespace) -> Findings:
    """For the checkpoints kept and the one being written, temporary files, CLIP's weights."""
    from mote.runtime.prompts import CACHE
    config = options.config
    # An old checkpoint is removed only when the new one is whole.
    files = config.keep + 1
    yield room(config.out or "runs", files * checkpoint_size(options), f"{files} checkpoints",
               "another --out, or --keep 1", "WRONG")
    yield room(tempfile.gettempdir(), 1e9, "temporary files", "TMPDIR=FOLDER", "warn")
    yield room(CACHE.parent, 2e9, "CLIP's weights", "XDG_CACHE_HOME=FOLDER", "warn")


def checkpoint_size(options: Namespace) -> int:
    """Bytes of one checkpoint: weights and AdamW's two moments, 4 bytes each."""
    import torch

    from mote.clip_backbone import build_visual
    from mote.temporal_experts import TemporalTransformer

    config = options.config
    with torch.device("meta"):       # shapes without numbers
        visual = build_visual(options.clip)
        temporal = TemporalTransformer(options.clip["embed_dim"], config.layers, config.experts)
    parameters = [*visual.parameters(), *temporal.parameters()]
    return 3 * 4 * sum(p.numel() for p in parameters)


def room(folder: str | Path, need: float, what: str, advice: str, level: str) -> Finding:
    """Whether a folder, or the one it will be made in, has room and may be written to."""
    parents = Path(folder, "_").absolute().parents
    # The folder may not be there yet: then its nearest parent says which disk it will be on.
    there = next(parent for parent in parents if parent.exists())
    free = shutil.disk_usage(there).free
    ours = os.access(there, os.W_OK)

    closed = "" if ours else ", not ours to write in"
    found = f"{folder}: {size(free)} free{closed}; {what} need {size(need)}"
    return Finding(free >= need and ours, found, advice, level)
