"""
How many processes decode videos for a rank: --workers.

A GPU waits if they are too few: two feed about 84 clips/s, and by arithmetic (docs/speed.md) a
large GPU trains ViT-B/16 on several times as many. On a CPU, training itself is the slow part, and
two are enough. More workers than cores bring nothing; more than fit into shared memory fail. Not
part of the paper.
"""
import os
import shutil
from pathlib import Path

import torch

from .ranks import number_in

ON_CPU = 2                # where the CPU trains too
MAX_WORKERS = 16          # of a rank, however many cores there are
PREFETCHED = 2            # batches that a worker holds ready in shared memory: torch's default


def count_workers(wanted: str, device: torch.device, clips: int, frames: int, size: int,
                  local_ranks: int = 0) -> int:
    """--workers as a number: auto by device, cores and shared memory, else the number itself.

    0 means that the rank decodes for itself: slow, but it needs no shared memory.

    device: that the rank computes on. clips, frames, size: of a batch, clips of so many frames of
    so many pixels a side; it lies in shared memory until the rank takes it. local_ranks: on this
    machine; 0: as torchrun says. Raises ValueError as `check_workers` does.
    """
    check_workers(wanted)
    if wanted != "auto":
        return int(wanted)
    if device.type == "cpu":
        return ON_CPU
    ranks = local_ranks or number_in("LOCAL_WORLD_SIZE", 1)
    by_cores = available_cores() / ranks
    by_memory = free_shared_memory() / (ranks * PREFETCHED * batch_bytes(clips, frames, size))
    return int(min(MAX_WORKERS, max(1, by_cores), by_memory))


def check_workers(wanted: str) -> None:
    """Raise ValueError for anything but auto or a number of at least 0."""
    if wanted != "auto" and not str(wanted).isdecimal():
        raise ValueError(f"--workers must be auto or a number of at least 0, got {wanted!r}")


def batch_bytes(clips: int, frames: int, size: int) -> int:
    """Of clips of RGB frames of size x size pixels, uint8."""
    return clips * frames * 3 * size * size


def available_cores() -> float:
    """Those that this process may use; a container may have a fraction of one.

    os.cpu_count() counts the whole machine's, also where taskset, a scheduler or a container gives
    this process fewer.
    """
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1

    quota = container_limit("cpu.max")   # "max 100000", or microseconds of work in each so many
    if quota.startswith("max"):
        return float(cores)
    work, period = quota.split()
    return min(float(cores), int(work) / int(period))


def container_limit(file: str) -> str:
    """A limit of this container, as text (control groups, version 2); "max" for none.

    file: cpu.max, memory.max, ... Outside Linux, and under version 1, there is no such file.
    """
    path = Path("/sys/fs/cgroup", file)
    if path.is_file():
        return path.read_text()
    return "max"


def free_shared_memory() -> float:
    """Bytes free in /dev/shm; infinity on systems that have none."""
    if not Path("/dev/shm").is_dir():
        return float("inf")
    return shutil.disk_usage("/dev/shm").free
