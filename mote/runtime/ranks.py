"""
One process or many: which rank this is, where it computes, and how ranks exchange numbers.

torchrun starts the processes and says in the environment which one each is; without torchrun there
is rank 0 of 1. Everything here works in both cases, so that callers need not ask.

This protects from a device that is not there or that ranks would share, which is a one-line error
before any work is done; from N runs in one folder (`read_environment`); from ranks that meet the
addresses of dead ones after a restart (`start`); and from a rank that has failed and waits for the
others (`end_at_once`). A rank that dies: torchrun ends the others. Not part of the paper.
"""
import multiprocessing
import os
import signal
import sys
from dataclasses import dataclass
from datetime import timedelta
from typing import NoReturn, TextIO

import torch
import torch.distributed as dist
from torch import Tensor

from ..data import require_decoder
from .progress import cleared

PATIENCE = timedelta(hours=1)              # NCCL's 10 minutes are less than a slow disk takes


@dataclass(frozen=True)
class Ranks:
    """Which process this is, of how many, and its device, as torchrun's variables say.

    rank         RANK, 0 to world_size - 1, over all machines
    world_size   WORLD_SIZE, the number of processes
    device       the one that was asked for; a GPU without a number is the one of LOCAL_RANK, the
                 rank within this machine
    """
    rank: int
    world_size: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this is rank 0, the one that prints and writes."""
        return self.rank == 0

    def say(self, text: str) -> None:
        """Print, on the first rank alone."""
        if self.first:
            print_line(text, sys.stdout)


def print_line(text: str, stream: TextIO, end: str = "\n") -> None:
    """Print at once. A reader that has gone must not end a run.

    `| tee` goes at a Ctrl-C that the run itself only notes: what is printed from then on goes to
    nobody, and the run can save.
    """
    try:
        with cleared():
            print(text, end=end, file=stream, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


# --- before there is a process group --------------------------------------------------------------
def find_ranks(device: str = "auto", threads: int = 0) -> Ranks:
    """Read the environment and choose the device; start no process group.

    device: auto or one of torch's. threads: of torch, in this process; 0: torch's choice. Raises
    ValueError where the device cannot be used and OSError where videos cannot be decoded.
    """
    require_decoder()
    if threads:
        torch.set_num_threads(threads)

    rank, world_size, local_rank = read_environment()
    return Ranks(rank, world_size, choose_device(device, world_size, local_rank))


def read_environment() -> tuple[int, int, int]:
    """torchrun's RANK, WORLD_SIZE and LOCAL_RANK; without torchrun 0, 1 and 0.

    Raises ValueError where Slurm's srun has started several processes and torchrun none: each would
    think itself the only one, and write into the folder of the others.
    """
    tasks = number_in("SLURM_STEP_NUM_TASKS", 1)
    if tasks > 1 and "RANK" not in os.environ:
        raise ValueError(f"srun has started {tasks} processes, and each would be a run of its own: "
                         "let srun start one torchrun on each node (docs/clusters.md)")

    return number_in("RANK", 0), number_in("WORLD_SIZE", 1), number_in("LOCAL_RANK", 0)


def number_in(variable: str, default: int) -> int:
    """The number in an environment variable; the default where it is not set, or empty."""
    text = os.environ.get(variable) or str(default)
    if not text.isdecimal():
        raise ValueError(f"the environment has {variable}={text}: expected a number")
    return int(text)


def choose_device(name: str, world_size: int, local_rank: int) -> torch.device:
    """The device of that name, a GPU with its number. Raises ValueError where it is not usable."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"

    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(f"--device {name}: expected auto, cpu, cuda, cuda:N or another of torch's "
                         "device types") from None

    if device.type not in ("cpu", "cuda") and world_size > 1:
        raise ValueError(f"--device {name}: {world_size} ranks can compute on cpu and cuda only, "
                         "for they must sum their gradients; without torchrun it can be used")
    if device.type == "meta":
        raise ValueError(f"--device {name}: its tensors have no numbers")
    if device.type == "cuda":
        device = torch.device("cuda", gpu_number(device, local_rank))

    # torch knows the names of devices that it was not built for, or that are not here: try it.
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0].partition(". ")[0][:200]
        raise ValueError(f"--device {name}: not usable here ({reason})") from None
    return device


def gpu_number(device: torch.device, local_rank: int) -> int:
    """Which of the GPUs that this process sees is its own. Raises ValueError where there is none.

    device: as it was asked for, cuda or cuda:N. torchrun shows all GPUs of a machine to all ranks.
    Others, as Slurm with --gpus-per-task=1, show one to each, whose number is then 0 in all ranks.
    """
    count = torch.cuda.device_count()
    ranks_here = number_in("LOCAL_WORLD_SIZE", 1)
    if device.index is not None and ranks_here > 1:
        raise ValueError(f"--device {device}: the {ranks_here} ranks of this machine would share "
                         "it; with --device cuda each takes its own")

    number = local_rank if device.index is None else device.index
    if device.index is None and count == 1 and "CUDA_VISIBLE_DEVICES" in os.environ:
        number = 0
    if number >= count:
        raise ValueError(f"--device cuda:{number}: this machine has {count} CUDA devices")
    return number


# --- the process group ----------------------------------------------------------------------------
def start(ranks: Ranks) -> None:
    """Join the process group, NCCL's for GPUs and gloo for all else; one process needs none.

    Waits until every rank has come. Do what can go wrong on one rank alone before this.
    """
    if ranks.device.type == "cuda":
        torch.cuda.set_device(ranks.device)
    if ranks.world_size == 1 or dist.is_initialized():
        return

    backend = "nccl" if ranks.device.type == "cuda" else "gloo"
    restarts = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    if restarts == "0" or not on_one_machine():
        dist.init_process_group(backend, timeout=PATIENCE)
        return

    # A restart gets the store of the ranks that died, their addresses in it, so give it a part of
    # its own. Not on several machines, for each counts its own restarts: there, set
    # TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 (pytorch #135712).
    store, rank, world_size = next(dist.rendezvous("env://"))
    part = dist.PrefixStore(f"restart {restarts}", store)
    dist.init_process_group(backend, store=part, rank=rank, world_size=world_size, timeout=PATIENCE)


def on_one_machine() -> bool:
    """Has torchrun started all ranks on this machine?"""
    return os.environ["LOCAL_WORLD_SIZE"] == os.environ["WORLD_SIZE"]


def stop() -> None:
    """Leave the process group, if there is one. NCCL waits here until all ranks have come."""
    if dist.is_initialized():
        dist.destroy_process_group()


def others_wait() -> bool:
    """Are there other ranks, which may be waiting for this one?"""
    return dist.is_initialized() and dist.get_world_size() > 1


def end_at_once(status: int) -> NoReturn:
    """End this process without a word to the other ranks, which learn it from the connections.

    Neither `stop` nor the usual end of a Python process, which ends communicators too: under NCCL
    both may wait for ranks that wait for this one. What atexit would have done is done here: the
    output is flushed, and the loader's processes, which only read, are ended.
    """
    try:
        for stream in (sys.stdout, sys.stderr):
            print_line("", stream, end="")
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)            # torch's handler raises an error
        for child in multiprocessing.active_children():
            child.kill()
    finally:
        os._exit(status)


# --- exchanges: all ranks must call them, in the same order ---------------------------------------
def total(numbers: Tensor) -> Tensor:
    """The sum over all ranks, on all ranks. numbers itself is changed."""
    if dist.is_initialized():
        dist.all_reduce(numbers)
    return numbers


def gather(items: list) -> list:
    """The lists of all ranks joined, in rank order, on all ranks. Items are pickled."""
    if not dist.is_initialized():
        return items

    lists: list = [None] * dist.get_world_size()
    dist.all_gather_object(lists, items)

    joined = []
    for each in lists:
        joined.extend(each)
    return joined


def gather_rows(rows: Tensor, count: int) -> Tensor:
    """The rows of all ranks in one tensor (count, ...), on all ranks and on the same device.

    rows: one for each of the numbers rank, rank + world size, ... below count, in that order.
    """
    if not dist.is_initialized():
        return rows

    world_size = dist.get_world_size()
    most = -(-count // world_size)                               # some ranks have one less
    mine = rows.new_zeros(most, *rows.shape[1:])
    mine[:len(rows)] = rows
    everyones = [torch.empty_like(mine) for _ in range(world_size)]
    dist.all_gather(everyones, mine)
    # Row i of rank r is number i * world_size + r.
    return torch.stack(everyones, dim=1).flatten(0, 1)[:count]


def from_rank_0(value):
    """Rank 0's value, on all ranks."""
    box = [value]
    if dist.is_initialized():
        dist.broadcast_object_list(box)
    return box[0]
