"""
A training step on several ranks: gradients are averaged once a step, not per micro-batch.

Not part of the paper.
"""
import contextlib

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from .ranks import Ranks


def data_parallel(objective: nn.Module, ranks: Ranks, compile: bool = False) -> nn.Module:
    """What the loop calls: the objective, compiled if asked for, its gradients shared by ranks."""
    if compile:
        objective = torch.compile(objective, dynamic=False)
    if ranks.world_size > 1:
        objective = DistributedDataParallel(objective, gradient_as_bucket_view=True)
    return objective


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
