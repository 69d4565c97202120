"""
A training step on several ranks: gradients are averaged once a step, not per micro-batch.

Buffers are another matter. Batch-norm statistics are rank 0's at the beginning of every step, and
`same_buffers` makes them so before a test. Class embeddings and pixel statistics never change.

Not part of the paper.
"""
import contextlib

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ..model import MoTE
from .ranks import Ranks


def data_parallel(objective: nn.Module, ranks: Ranks, compile: bool = False) -> nn.Module:
    """What the loop calls: the objective, compiled if asked for, its gradients shared by ranks."""
    if compile:
        objective = torch.compile(objective, dynamic=False)
    if ranks.world_size == 1:
        return objective
    # They need not be sent in every step. torch has no public name for this yet (pytorch #43690).
    DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(
        objective, unchanging_buffers(objective))
    return DistributedDataParallel(objective, gradient_as_bucket_view=True)


def unchanging_buffers(objective: nn.Module) -> list[str]:
    """Names of the buffers that MoTE itself has: class embeddings, mean and std of pixels.

    Those of its towers are not among them: batch norms change theirs in every forward pass.
    """
    names = []
    for prefix, module in objective.named_modules():
        if isinstance(module, MoTE):
            names += [f"{prefix}.{name}" for name, _ in module.named_buffers(recurse=False)]
    return names


def same_buffers(model: nn.Module) -> None:
    """Give all ranks rank 0's buffers. All ranks must call it; one process has nothing to do.

    After a step, each rank's batch norms have seen its own clips last. A checkpoint keeps rank 0's:
    so a test that is made after a resume gives what it would have given before.
    """
    if dist.is_initialized():
        for buffer in model.buffers():
            dist.broadcast(buffer, src=0)


def sync_only_on_the_last(objective: nn.Module, last: bool) -> contextlib.AbstractContextManager:
    """Around forward and backward of a micro-batch: ranks exchange gradients in the last one only.

    Around the forward pass too: DistributedDataParallel decides there what its backward will do.
    """
    if last or not isinstance(objective, DistributedDataParallel):
        return contextlib.nullcontext()
    return objective.no_sync()


def on_device(device: torch.device, *tensors: Tensor) -> list[Tensor]:
    """The tensors on a device; pinned memory is copied while the host goes on."""
    return [tensor.to(device, non_blocking=True) for tensor in tensors]
