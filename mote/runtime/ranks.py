"""
One process or many: which rank this is, where it computes, how ranks add up their numbers, how a mistake is reported.

torchrun says so in the environment (RANK, WORLD_SIZE, LOCAL_RANK); without it, rank 0 of 1. Not part of the paper.
"""
import argparse
import contextlib
import os
import re
import signal
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

PRECISIONS = ("fp32", "tf32", "bf16")
PATIENCE = timedelta(hours=1)                                    # NCCL's 10 minutes are less than a slow disk takes
GONE = re.compile("gloo|NCCL|Connection (closed|reset)|Broken pipe|Timed out|store")    # what torch says of lost peers


@dataclass(frozen=True)
class Process:
    """rank of world, and its device. `first` is the one that prints and writes."""
    rank: int
    world: int
    device: torch.device

    @property
    def first(self) -> bool:
        return self.rank == 0


def this_process(device: str = "auto", threads: int = 0) -> Process:
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
    return Process(rank, world, chosen)


def start(process: Process) -> None:
    """Join the process group; nothing to do alone."""
    if process.device.type == "cuda":
        torch.cuda.set_device(process.device)
    if process.world > 1 and not dist.is_initialized():
        backend, env = "nccl" if process.device.type == "cuda" else "gloo", os.environ
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


def autocast(device: torch.device, precision: str):
    """What a forward pass runs in: bf16 autocast; tf32: float32 with matmuls that a GPU rounds to 10 bits; fp32."""
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    return torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else contextlib.nullcontext()


def dtype_for(device: torch.device, wanted: str) -> str:
    """auto: bf16 on GPUs that have it (not emulated), else fp32. Half precision with a scaler is not offered."""
    if wanted != "auto":
        return wanted
    native = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return "bf16" if native else "fp32"


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


@contextlib.contextmanager
def one_line_errors(script: str) -> Iterator[None]:
    """A user's mistake (ValueError, OSError) becomes one line, from rank 0 alone, and exit status 2.

    MOTE_TRACEBACK=1 lets it through, for whoever suspects a mistake of ours.
    """
    warnings.formatwarning = lambda message, *_, **__: f"warning: {message}\n"      # one line too, without our source
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    except KeyboardInterrupt:
        print(f"{script}: stopped", file=sys.stderr, flush=True)
        raise SystemExit(130) from None
    except (ValueError, OSError) as error:
        if os.environ.get("MOTE_TRACEBACK") == "1":
            raise
        text = str(error).strip()
        if "in DataLoader worker process" in text:               # it comes with the worker's traceback
            text = text.splitlines()[-1].partition(": ")[2]
        where, rank = "", os.environ.get("RANK", "0")
        if rank != "0":                                          # the same mistake on rank 0 has ended us by then
            time.sleep(3)
            where = f" on rank {rank}"
        print(f"{script}: error{where}: {' '.join(text.split())}", file=sys.stderr, flush=True)
        raise SystemExit(2) from None
    except RuntimeError as error:
        if not (dist.is_initialized() and GONE.search(str(error))):
            raise
        print(f"{script}: error on rank {os.environ.get('RANK')}: another rank is gone, it seems: see its own line or "
              f"torchrun's summary ({' '.join(str(error).split())[:200]})", file=sys.stderr, flush=True)
        raise SystemExit(1) from None
    finally:
        stop()
        if threading.current_thread() is threading.main_thread():
            for number, handler in handlers.items():
                signal.signal(number, handler)


def printable(path: str) -> str:
    """A path as a terminal takes it, whatever bytes are in it."""
    return os.fsencode(path).decode(errors="replace")


def require_decoder() -> None:
    """Raise OSError, saying what to install, where torchcodec cannot load FFmpeg's libraries."""
    try:
        import torchcodec.decoders
        if getattr(torchcodec, "ffmpeg_major_version", 0) is None:           # since 0.16 importing it says nothing
            torchcodec.decoders.VideoDecoder(b"")                # raises, with the reason
    except (ImportError, RuntimeError, OSError) as error:
        raise OSError("torchcodec cannot load FFmpeg's shared libraries (versions 4 to 9): apt-get install ffmpeg, or "
                      f"brew install ffmpeg ({str(error).strip().splitlines()[0][:100]})") from None


class Help(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """The script's docstring as it stands, and the defaults."""


def plain_errors(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Make a parser raise ValueError, for `one_line_errors`, where it would print its usage and exit."""
    parser.formatter_class = Help
    def error(message: str):
        raise ValueError(message)
    parser.error = error
    return parser
