"""
--workers auto: two where the CPU trains; on a GPU as many as cores and shared memory feed, at most 16.
"""
import os
import shutil
from argparse import Namespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import eval
import train
from mote.runtime import workers
from mote.runtime.workers import batch_bytes, count_workers

CPU, GPU = torch.device("cpu"), torch.device("cuda")
BATCH = (18, 8, 224)                                             # clips of a rank, frames, pixels a side


@pytest.fixture
def machine(monkeypatch):
    """machine(cores, batches that fit into shared memory, quota, ranks): what the count looks at."""
    def machine(cores: int, batches: float = 1e6, quota: str = "max 100000", ranks: str = "1"):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)), raising=False)
        monkeypatch.setattr(shutil, "disk_usage", lambda _: Namespace(free=batches * batch_bytes(*BATCH)))
        monkeypatch.setattr(workers, "container_limit", {"cpu.max": quota}.get)
        monkeypatch.setenv("LOCAL_WORLD_SIZE", ranks)
    return machine


def test_a_clip_of_the_paper_has_1204224_bytes():
    assert batch_bytes(1, 8, 224) == 8 * 3 * 224 * 224 == 1_204_224


@pytest.mark.parametrize("cores, batches, quota, ranks, expected", [
    (16, 1e6, "max 100000", "1", 16), (64, 1e6, "max 100000", "1", 16), (64, 1e6, "max 100000", "8", 8),
    (30, 1e6, "max 100000", "8", 3), (4, 1e6, "max 100000", "8", 1),         # one at least
    (64, 1e6, "400000 100000", "1", 4), (64, 1e6, "50000 100000", "1", 1), (2, 1e6, "400000 100000", "1", 2),
    (64, 20, "max 100000", "1", 10), (64, 20, "max 100000", "2", 5), (64, 3.9, "max 100000", "1", 1),
    (64, 1.9, "max 100000", "1", 0)])                            # without workers: else their batches would not fit
def test_auto_on_a_gpu_counts_cores_quota_ranks_and_two_batches_a_worker(machine, cores, batches, quota, ranks,
                                                                        expected):
    machine(cores, batches, quota, ranks)
    assert count_workers("auto", GPU, *BATCH) == expected
    assert count_workers("auto", GPU, *BATCH, local_ranks=1) >= expected


def test_auto_on_a_cpu_is_two(machine):
    for cores in (1, 64):
        machine(cores, 1)
        assert count_workers("auto", CPU, *BATCH) == 2


@given(st.integers(0, 999))
def test_a_number_is_taken_as_it_is(number):
    assert count_workers(str(number), GPU, *BATCH) == count_workers(str(number), CPU, *BATCH) == number


@pytest.mark.parametrize("wanted", ["-1", "many", "1.5", "", "Auto"])
def test_anything_else_is_one_line_before_any_work(wanted):
    says = f"--workers must be auto or a number of at least 0, got {wanted!r}"
    for parse, needed in ((train.parse_config, []), (eval.parse_config, ["--data", "x", "--checkpoint", "y"])):
        with pytest.raises(ValueError) as raised:
            parse([*needed, f"--workers={wanted}"])
        assert str(raised.value) == says


def test_a_system_without_shared_memory_does_not_limit(machine, monkeypatch):
    machine(8, 1)
    monkeypatch.setattr(workers.Path, "is_dir", lambda _: False)
    assert count_workers("auto", GPU, *BATCH) == 8
