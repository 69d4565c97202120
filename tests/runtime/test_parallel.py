"""
Ranks exchange gradients once a step: in its last micro-batch, and in that one only.

Checked on a stub of DistributedDataParallel that notes what it is asked, and on two real ranks whose tower has batch
norms; what other ranks compute together: tests/scripts/test_train.py.
"""
import contextlib
import json
import shutil
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from support.clips import OPENAI
from support.runs import ALONE, checkpoint, metrics, torchrun
from torch import nn

import train
from mote.clip_backbone import Pixels, load_clip
from mote.model import MoTE
from mote.runtime import parallel
from mote.runtime.checkpoints import build_model
from mote.runtime.parallel import data_parallel, on_device, sync_only_on_the_last
from mote.runtime.ranks import Ranks
from mote.scoring.evaluate import all_cosines
from mote.scoring.protocols import Protocol
from mote.temporal_experts import TemporalTransformer


class Stub(nn.Module):
    """In place of DistributedDataParallel. passes: for each forward pass, whether it exchanges gradients."""

    ignored: list[str] = []                                      # buffers that are not exchanged

    @classmethod
    def _set_params_and_buffers_to_ignore_for_model(cls, module: nn.Module, names: list[str]):
        cls.ignored = names

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
    monkeypatch.setattr(Stub, "ignored", [])


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


# --- buffers --------------------------------------------------------------------------------------
NEVER_CHANGES = ["finetune_classes", "image_mean", "image_std"]


@pytest.mark.parametrize("compile, prefix", [(False, "model"), (True, "_orig_mod.model")])
def test_only_class_embeddings_and_pixel_statistics_are_left_out_of_the_exchange(compile, prefix):
    model = MoTE(nn.BatchNorm2d(3), TemporalTransformer(8, 1), torch.zeros(4, 8), torch.zeros(()), Pixels())
    data_parallel(train.Objective(model, True), Ranks(0, 2, torch.device("cpu")), compile)
    assert sorted(Stub.ignored) == [f"{prefix}.{name}" for name in NEVER_CHANGES]


def test_torch_leaves_out_what_it_is_told_to(monkeypatch):
    monkeypatch.setattr(parallel, "DistributedDataParallel", nn.parallel.DistributedDataParallel)
    model = MoTE(nn.BatchNorm2d(3), TemporalTransformer(8, 1), torch.zeros(4, 8), torch.zeros(()), Pixels())
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        objective = data_parallel(train.Objective(model, True), Ranks(0, 2, torch.device("cpu")))
        sent = {id(buffer) for buffer in objective.modules_buffers}
    finally:
        dist.destroy_process_group()
    assert sent == {id(buffer) for buffer in model.visual.buffers()}


DRIVER = """
import os, sys
import torch
import train
from mote.scoring import evaluate
real = evaluate.all_cosines
made = []
def spy(*inputs):
    cosines, failed = real(*inputs)
    made.append(cosines)
    torch.save(made, f"{sys.argv[1]}/cosines{os.environ['RANK']}.pt")
    return cosines, failed
evaluate.all_cosines = spy
train.main(sys.argv[2:])
"""


@pytest.fixture(scope="module")
def resnet_job(job, tmp_path_factory):
    """The flags of `job` with a CLIP whose tower is a small ResNet of OpenAI's kind."""
    folder = tmp_path_factory.mktemp("resnet")
    (folder / "resnet.json").write_text(json.dumps({
        "embed_dim": 32, "vision_cfg": {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8, "patch_size": None},
        "text_cfg": {"context_length": 24, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
        "preprocess_cfg": OPENAI}))
    torch.save(load_clip(str(folder / "resnet.json"), "")[0].state_dict(), folder / "resnet.pt")
    flags = dict(zip(job[:-2:2], job[1:-1:2]))
    flags |= {"--backbone": str(folder / "resnet.json"), "--pretrained": str(folder / "resnet.pt"), "--clip-lr": "1e-3",
              "--eval-every": "1"}
    return [word for pair in flags.items() for word in pair]


def on_two_ranks(folder: Path, *flags: str) -> list[list[torch.Tensor]]:
    """Train into folder/run on two ranks. -> each rank's cosines, of each evaluation"""
    folder.mkdir(exist_ok=True)
    (folder / "driver.py").write_text(DRIVER)
    done = torchrun(2, str(folder / "driver.py"), str(folder), *flags, "--resume", "auto", "--out", str(folder / "run"))
    assert done.returncode == 0, done.stderr
    return [torch.load(folder / f"cosines{rank}.pt") for rank in (0, 1)]


@pytest.mark.slow
def test_a_tower_with_batch_norms_is_tested_alike_by_all_ranks_and_resumes_bit_for_bit(resnet_job, tmp_path):
    first, second = on_two_ranks(tmp_path / "straight", *resnet_job)
    assert len(first) == len(second) == 3                        # untrained, after the first and the second epoch
    assert all(torch.equal(a, b) for a, b in zip(first, second))

    saved = checkpoint(tmp_path / "straight/run", "step_6.pt")["model"]
    assert any(name.endswith("running_mean") for name in saved)
    # Rank 1's videos too were tested with the statistics of the checkpoint, which are rank 0's.
    model = build_model(checkpoint(tmp_path / "straight/run", "step_6.pt"))
    lines = (tmp_path / "straight/run/val.txt").read_text().splitlines()
    videos = [(str(tmp_path / "straight/run" / line.rpartition(" ")[0]), 0) for line in lines]
    plan = Protocol("", "", len(videos), len(videos), "", 32, "", 1, "", frames=2, resize=32)
    alone, _ = all_cosines(model.eval(), videos, model.finetune_classes, ALONE, plan, 16, 0, None)
    torch.testing.assert_close(first[-1], alone, rtol=0, atol=1e-6)

    parts = tmp_path / "parts"
    shutil.copytree(tmp_path / "straight/run", parts / "run")
    for name in ("step_6.pt", "last.pt"):
        (parts / "run" / name).unlink()
    first, second = on_two_ranks(parts, *resnet_job)             # from step 3 on: tested once
    assert len(first) == 1 and torch.equal(first[0], second[0])
    again = checkpoint(parts / "run", "step_6.pt")["model"]
    assert all(torch.equal(again[name], saved[name]) for name in saved)
    assert metrics(parts / "run") == metrics(tmp_path / "straight/run")


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
