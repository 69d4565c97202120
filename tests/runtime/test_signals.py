"""
A signal ends the step, not the run: all ranks save, leave with status 143, and the same command goes on bit for bit.

Checked on handlers in this process, on two processes of which one gets the signal, and on a run of 6 steps.
"""
import multiprocessing
import os
import signal
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from support.faults import in_forward, signalled
from torture.job import same

import train
from mote.runtime.checkpoints import read_checkpoint
from mote.runtime.guard import agree
from mote.runtime.ranks import Ranks
from mote.runtime.signals import Stop


@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_noted_and_a_ctrl_c_some_seconds_later_stops_at_once(first):
    stop = Stop()
    assert stop.came == ""
    for number in (first, signal.SIGINT, signal.SIGTERM):        # torchrun repeats what it gets
        os.kill(os.getpid(), number)
    assert stop.came == first.name
    stop.since -= 4
    os.kill(os.getpid(), signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)


def one_of_two(rank: int, store: str, number: int, answers) -> None:
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    stop = Stop()
    if rank == 1:
        os.kill(os.getpid(), number)
    flags = torch.tensor([float(bool(stop.came)), 0, rank == 0])
    answers.put(agree(flags, torch.tensor([10.0 + rank])))
    dist.destroy_process_group()
    stop.leave(3, Ranks(rank, 2, torch.device("cpu")), Path("RUN"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_what_one_rank_notices_all_ranks_agree_on_and_leave_with_143(number, tmp_path, capfd):
    fork = multiprocessing.get_context("fork")
    answers = fork.SimpleQueue()
    ranks = [fork.Process(target=one_of_two, args=(rank, tmp_path / "store", number, answers)) for rank in (0, 1)]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join(60)
    assert [rank.exitcode for rank in ranks] == [143, 143]
    told = sorted((answers.get() for _ in ranks), key=lambda answer: answer[1])
    assert told == [([True, False, True], [10.0]), ([True, False, True], [11.0])]
    assert capfd.readouterr().out == "signal to another rank: saved at step 3; --out RUN --resume auto goes on\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_has_the_step_saved_and_the_same_command_goes_on_bit_for_bit(straight, job, tmp_path, monkeypatch,
                                                                              capsys, number):
    before = [signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGINT)]
    run = tmp_path / "run"
    with monkeypatch.context() as patch, pytest.raises(SystemExit) as left:
        in_forward(patch, signalled(number), 2)                  # of 3 steps an epoch
        train.main([*job, str(run)])
    assert left.value.code == 143 and read_checkpoint(run)["step"] == 2
    assert f"{number.name}: saved at step 2; --out {run} --resume auto goes on" in capsys.readouterr().out
    train.main([*job, str(run)])
    assert [signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGINT)] == before
    for part in ("model", "optimizer", "step", "meter", "untrained"):
        assert same(read_checkpoint(run)[part], read_checkpoint(straight)[part]), part
    for name in ("metrics.jsonl", "results.json"):
        assert (run / name).read_bytes() == (straight / name).read_bytes()
