"""
One process or many: which rank this is, where it computes, how ranks add up their numbers, how a mistake is reported.

torchrun says so in the environment (RANK, WORLD_SIZE, LOCAL_RANK); without it, rank 0 of 1. Not part of the paper.
"""
import os
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

from ..data import require_decoder

PATIENCE = timedelta(hours=1)                                    # NCCL's 10 minutes are less than a slow disk takes


@dataclass(frozen=True)
class Ranks:
    """rank of world_size, and its device. `first` is the one that prints and writes."""
    rank: int
    world_size: int
    device: torch.device

    @property
    def first(self) -> bool:
        return self.rank == 0

    def say(self, text: str) -> None:
        """Print, on the first rank alone."""
        if self.first:
            print(text, flush=True)


def find_ranks(device: str = "auto", threads: int = 0) -> Ranks:
    """Read the environment; start no process group. threads: torch's; 0: its choice. Raises ValueError, OSError."""
    require_decoder()
    if threads:
        torch.set_num_threads(threads)
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    local = int(os.environ.get("LOCAL_RANK", 0))
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        chosen = torch.device(device)
    except RuntimeError:
        raise ValueError(f"--device {device}: expected auto, cpu, cuda, cuda:N or another of torch's "
                         "device types") from None
    if chosen.type == "cuda":
        chosen = torch.device("cuda", local if chosen.index is None else chosen.index)
        if chosen.index >= torch.cuda.device_count():
            raise ValueError(f"--device {chosen}: this machine has {torch.cuda.device_count()} CUDA devices")
    try:
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(f"--device {device}: not usable here ({str(error).splitlines()[0][:100]})") from None
    return Ranks(rank, world, chosen)


def start(ranks: Ranks) -> None:
    """Join the process group; nothing to do alone."""
    if ranks.device.type == "cuda":
        torch.cuda.set_device(ranks.device)
    if ranks.world_size > 1 and not dist.is_initialized():
        backend, env = "nccl" if ranks.device.type == "cuda" else "gloo", os.environ
        if env.get("TORCHELASTIC_RESTART_COUNT", "0") == "0" or env["LOCAL_WORLD_SIZE"] != env["WORLD_SIZE"]:
            dist.init_process_group(backend, timeout=PATIENCE)
            return
        # A restart gets the store of the ranks that died, their addresses in it: give it a part of its own. Not on
        # several machines: each counts its own restarts; there, TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 (pytorch #135712).
        store, rank, world = next(dist.rendezvous("env://"))
        part = dist.PrefixStore(f"restart {env['TORCHELASTIC_RESTART_COUNT']}", store)
        dist.init_process_group(backend, store=part, rank=rank, world_size=world, timeout=PATIENCE)


def stop() -> None:
    """Leave the process group, if there is one."""
    if dist.is_initialized():
        dist.destroy_process_group()


def total(numbers: Tensor) -> Tensor:
    """The sum over all ranks, on all ranks."""
    if dist.is_initialized():
        dist.all_reduce(numbers)
    return numbers


def gather(items: list) -> list:
    """The lists of all ranks joined, in rank order, on all ranks."""
    if not dist.is_initialized():
        return items
    everyones: list = [None] * dist.get_world_size()
    dist.all_gather_object(everyones, items)
    return [item for one in everyones for item in one]


def from_rank_0(value):
    """Rank 0's value, on all ranks."""
    box = [value]
    if dist.is_initialized():
        dist.broadcast_object_list(box)
    return box[0]


