"""
Ranks have a device each, find each other, also after torchrun has restarted them, and end alone where one has failed.

What they compute together: tests/scripts/test_train.py. A rank that fails in a run: test_errors.py.
"""
import multiprocessing
import os
import subprocess
import sys
import time

import pytest
import torch
import torch.distributed as dist
from support.places import ROOT

from mote.runtime import ranks
from mote.runtime.ranks import Ranks, choose_device, find_ranks

VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "SLURM_STEP_NUM_TASKS", "CUDA_VISIBLE_DEVICES")


def environment(monkeypatch, **variables) -> None:
    """Only these of the variables that say who a process is."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


def with_gpus(monkeypatch, count: int) -> None:
    """As if torch saw that many GPUs."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.setattr(torch, "empty", lambda *_, **__: None)


# --- who a process is -----------------------------------------------------------------------------
@pytest.mark.parametrize("tasks, rank, refused", [("2", None, True), ("16", None, True), ("1", None, False),
                                                  (None, None, False), ("2", "0", False)])
def test_processes_that_srun_starts_without_torchrun_are_refused(monkeypatch, tasks, rank, refused):
    given = {"SLURM_STEP_NUM_TASKS": tasks, "RANK": rank}
    environment(monkeypatch, **{name: value for name, value in given.items() if value is not None})
    if refused:
        with pytest.raises(ValueError, match=f"srun has started {tasks} processes.*torchrun"):
            find_ranks("cpu")
    else:
        assert find_ranks("cpu") == Ranks(0, 1, torch.device("cpu"))


@pytest.mark.parametrize("local_rank", [0, 1])
@pytest.mark.parametrize("here, device, wrong", [("2", "cuda:0", "2 ranks of this machine would share"),
                                                 ("2", "cuda:1", "would share"), ("1", "cuda:0", ""),
                                                 ("1", "cuda:1", ""), ("1", "cuda:2", "has 2 CUDA devices")])
def test_a_numbered_gpu_is_for_one_rank_alone(monkeypatch, local_rank, here, device, wrong):
    environment(monkeypatch, LOCAL_WORLD_SIZE=here)
    with_gpus(monkeypatch, 2)
    if wrong:
        with pytest.raises(ValueError, match=f"--device {device}: .*{wrong}"):
            choose_device(device, 2, local_rank)
    else:
        assert choose_device(device, 2, local_rank) == torch.device(device)


@pytest.mark.parametrize("asked", ["auto", "cuda"])
@pytest.mark.parametrize("visible, gpus, local_rank, number", [
    (None, 4, 3, 3), ("4,5,6,7", 4, 3, 3),                       # torchrun shows all of them to all ranks
    ("3", 1, 3, 0), ("GPU-8932f937", 1, 1, 0),                   # one for each task
    (None, 1, 0, 0), (None, 1, 1, None), ("0,1", 2, 2, None)])   # more ranks than GPUs
def test_a_rank_takes_the_gpu_of_its_number_or_the_only_one_that_it_is_shown(monkeypatch, asked, visible, gpus,
                                                                             local_rank, number):
    environment(monkeypatch, LOCAL_WORLD_SIZE="4")
    if visible:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    with_gpus(monkeypatch, gpus)
    if number is None:
        with pytest.raises(ValueError, match=f"--device cuda:{local_rank}: this machine has {gpus} CUDA devices"):
            choose_device(asked, 4, local_rank)
    else:
        assert choose_device(asked, 4, local_rank) == torch.device("cuda", number)


@pytest.mark.parametrize("name", ["mps", "xpu", "meta"])
def test_several_ranks_cannot_compute_where_they_cannot_sum_their_gradients(name):
    with pytest.raises(ValueError, match=f"--device {name}: 2 ranks can compute on cpu and cuda only"):
        choose_device(name, 2, 0)
    assert choose_device("cpu", 2, 1).type == "cpu"


def test_a_device_without_numbers_is_refused():
    with pytest.raises(ValueError, match="--device meta: its tensors have no numbers"):
        choose_device("meta", 1, 0)


@pytest.mark.parametrize("variable", ["RANK", "WORLD_SIZE", "LOCAL_RANK", "SLURM_STEP_NUM_TASKS"])
def test_a_variable_that_is_no_number_is_named(monkeypatch, variable):
    monkeypatch.setenv(variable, "abc")
    with pytest.raises(ValueError, match=f"the environment has {variable}=abc: expected a number"):
        ranks.read_environment()
    monkeypatch.setenv(variable, "")
    assert ranks.read_environment() == (0, 1, 0)


# --- the process group ----------------------------------------------------------------------------

@pytest.mark.parametrize("count, here, own", [(None, "2", False), ("0", "2", False), ("1", "2", True), ("2", "2", True),
                                              ("1", "1", False)])
def test_ranks_that_torchrun_restarts_get_a_store_of_their_own_where_they_are_all_on_one_machine(monkeypatch, count,
                                                                                                 here, own):
    groups, store = [], dist.HashStore()
    monkeypatch.setattr(dist, "init_process_group", lambda backend, **more: groups.append((backend, more)))
    monkeypatch.setattr(dist, "rendezvous", lambda url: iter([(store, 1, 2)]))
    monkeypatch.delenv("TORCHELASTIC_RESTART_COUNT", raising=False)
    for name, value in {"TORCHELASTIC_RESTART_COUNT": count, "LOCAL_WORLD_SIZE": here, "WORLD_SIZE": "2"}.items():
        if value is not None:
            monkeypatch.setenv(name, value)
    ranks.start(Ranks(1, 2, torch.device("cpu")))
    (backend, more), = groups
    assert backend == "gloo" and ("store" in more) == own and more["timeout"].total_seconds() == 3600
    if own:
        store.set("address", "of the dead")
        assert (more["rank"], more["world_size"]) == (1, 2) and not more["store"].check(["address"])
        more["store"].set("address", "mine")
        assert store.check([f"restart {count}/address"])


def test_a_run_whose_log_nobody_reads_any_more_goes_on(tmp_path):
    """As when Ctrl-C ends tee: the first line is read, then the pipe is closed."""
    script = ("import os, sys, pathlib\n"
              "from mote.runtime.errors import report\n"
              "from mote.runtime.ranks import find_ranks\n"
              "ranks = find_ranks('cpu', 1)\n"
              "ranks.say('first')\n"
              "sys.stdin.read()\n"
              "ranks.say('second'); ranks.say('third'); report('fourth')\n"
              "pathlib.Path(sys.argv[1]).write_text('saved')\n")
    child = subprocess.Popen([sys.executable, "-c", script, str(tmp_path / "file")], stdin=subprocess.PIPE,
                             stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT)
    assert child.stdout.readline() == "first\n"
    child.stdout.close()
    child.stdin.close()
    assert child.wait() == 0 and (tmp_path / "file").read_text() == "saved"


def test_a_rank_that_ends_at_once_loses_no_output_and_leaves_no_loader_process():
    """Its workers hold the pipe and sleep: `run` waits until they have ended too.

    Each kill takes a while, in which torch notes that the worker is gone.
    """
    script = ("import atexit, sys, time\n"
              "from multiprocessing.process import BaseProcess\n"
              "from torch.utils.data import DataLoader\n"
              "from mote.runtime.ranks import end_at_once\n"
              "class Slow:\n"
              "    def __len__(self): return 9\n"
              "    def __getitem__(self, i): time.sleep(60 * (i > 0)); return i\n"
              "batches = iter(DataLoader(Slow(), num_workers=2))\n"
              "next(batches)\n"
              "kill = BaseProcess.kill\n"
              "BaseProcess.kill = lambda self: (kill(self), time.sleep(0.2))\n"
              "atexit.register(time.sleep, 60)\n"
              "print('out', end=''); print('err', end='', file=sys.stderr)\n"
              "end_at_once(7)\n")
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True,
                          env={**os.environ, "PYTHONUNBUFFERED": ""})
    assert (done.returncode, done.stdout, done.stderr) == (7, "out", "err") and time.monotonic() - started < 45


# --- exchanges ------------------------------------------------------------------------------------
def gather_on(rank: int, world_size: int, store: str, count: int, answers) -> None:
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world_size)
    mine = torch.tensor([[float(number), -number] for number in range(rank, count, world_size)]).reshape(-1, 2)
    answers.put(ranks.gather_rows(mine, count).tolist())
    dist.destroy_process_group()


@pytest.mark.parametrize("world_size, count", [(2, 5), (3, 7), (3, 6), (3, 2)])
def test_rows_of_all_ranks_come_in_the_order_of_their_numbers(tmp_path, world_size, count):
    """Also where some ranks have one row less, or none."""
    fork = multiprocessing.get_context("fork")
    answers = fork.SimpleQueue()
    processes = [fork.Process(target=gather_on, args=(rank, world_size, tmp_path / "store", count, answers))
                 for rank in range(world_size)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    expected = [[float(number), -float(number)] for number in range(count)]
    assert [answers.get() for _ in processes] == [expected] * world_size


def test_one_process_has_all_rows():
    rows = torch.rand(3, 2)
    assert ranks.gather_rows(rows, 3) is rows
