"""
Ranks exchange gradients once a step: in its last micro-batch, and in that one only.

Checked on a stub of DistributedDataParallel that notes what it is asked; what real ranks compute together:
tests/scripts/test_train.py.
"""
import contextlib

import pytest
import torch
from support.runs import ALONE
from torch import nn

import train
from mote.runtime import parallel
from mote.runtime.parallel import data_parallel, on_device, sync_only_on_the_last
from mote.runtime.ranks import Ranks


class Stub(nn.Module):
    """In place of DistributedDataParallel. passes: for each forward pass, whether it exchanges gradients."""

    def __init__(self, module: nn.Module, **options):
        super().__init__()
        self.module = module
        self.options = options
        self.syncs = True
        self.passes: list[bool] = []

    @contextlib.contextmanager
    def no_sync(self):
        self.syncs = False
        yield
        self.syncs = True

    def forward(self, *inputs):
        self.passes.append(self.syncs)
        return self.module(*inputs)


@pytest.fixture(autouse=True)
def stub(monkeypatch):
    monkeypatch.setattr(parallel, "DistributedDataParallel", Stub)


# --- who exchanges gradients, and when ------------------------------------------------------------
@pytest.mark.parametrize("accumulate, expected", [(1, [True]), (2, [False, True]), (4, [False, False, False, True])])
def test_gradients_are_exchanged_in_the_last_micro_batch_only(accumulate, expected):
    objective = Stub(nn.Identity())
    for i in range(accumulate):
        with sync_only_on_the_last(objective, i == accumulate - 1):
            objective(torch.ones(1))
    assert objective.passes == expected and objective.syncs


def test_an_objective_of_one_rank_has_nothing_to_hold_back():
    for last in (False, True):
        with sync_only_on_the_last(nn.Identity(), last):         # it has no no_sync
            pass


@pytest.mark.parametrize("compile", [False, True])
@pytest.mark.parametrize("world_size", [1, 2])
def test_the_objective_is_compiled_if_asked_and_then_shared_by_ranks_if_there_are_several(monkeypatch, world_size,
                                                                                         compile):
    compiled = nn.Identity()
    asked = []
    monkeypatch.setattr(torch, "compile", lambda module, **options: asked.append((module, options)) or compiled)
    plain = nn.Identity()
    objective = data_parallel(plain, Ranks(0, world_size, torch.device("cpu")), compile)
    inner = objective.module if world_size > 1 else objective
    assert isinstance(objective, Stub) == (world_size > 1)
    assert inner is (compiled if compile else plain)
    assert asked == ([(plain, {"dynamic": False})] if compile else [])


def test_a_run_exchanges_gradients_once_a_step(job, tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr(train, "data_parallel", lambda objective, *_: made.append(Stub(objective)) or made[0])
    train.main([*job, str(tmp_path), "--accumulate", "2"])
    assert made[0].passes == [False, True] * 6 and made[0].syncs             # 6 steps


# --- tensors to a device --------------------------------------------------------------------------
def test_tensors_come_in_their_order_on_the_device():
    tensors = [torch.zeros(2), torch.zeros(3, dtype=torch.uint8)]
    moved = on_device(torch.device("meta"), *tensors)
    assert [one.device.type for one in moved] == ["meta", "meta"]
    assert [(one.shape, one.dtype) for one in moved] == [(one.shape, one.dtype) for one in tensors]


def test_a_tensor_that_is_there_is_not_copied():
    tensor = torch.zeros(2)
    moved, = on_device(ALONE.device, tensor)
    assert moved is tensor
