"""
A mistake is one line and an exit status. Those of users are checked where they are made (tests/scripts, tests/tools).
"""
import time

import pytest
import torch
import torch.distributed as dist
from support.runs import SMALL, torchrun

from mote.runtime import errors
from mote.runtime.errors import one_line_errors

GLOO = "[/pytorch/third_party/gloo/gloo/transport/tcp/"
MEMORY = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


@pytest.fixture(autouse=True)
def no_wait(monkeypatch):
    monkeypatch.setattr(errors, "OTHERS_FIRST", 0.0)
    monkeypatch.setattr(errors, "LOST_PEER_LAST", 0.0)
    monkeypatch.setattr(errors, "NOTED", [])


def ended(script: str, error: BaseException, capsys) -> tuple[object, list[str]]:
    """The exit status with which a script ends in an error, and the lines that it prints."""
    with pytest.raises(SystemExit) as raised, one_line_errors(script):
        raise error
    return raised.value.code, capsys.readouterr().err.splitlines()


@pytest.mark.parametrize("error", [
    RuntimeError(f"{GLOO}pair.cc:545] Read error [127.0.0.1]:14557: Connection reset by peer."),
    RuntimeError(f"{GLOO}unbound_buffer.cc:78] Timed out waiting 5000ms for recv operation to complete"),
    RuntimeError(f"Gloo connectFullMesh failed with {GLOO}pair.cc:156] no error"),
    dist.DistBackendError("NCCL communicator was aborted on rank 1"), dist.DistNetworkError("Broken pipe"),
    dist.DistStoreError("Timed out after 3600 seconds waiting for clients. 1/2 clients joined.")])
def test_what_torch_says_of_a_lost_peer_is_one_line(monkeypatch, capsys, error):
    monkeypatch.setenv("RANK", "3")
    status, (line,) = ended("train.py", error, capsys)
    assert status == 1
    says = "train.py: error on rank 3: torch.distributed failed, mostly because another rank is gone"
    assert line.startswith(says) and str(error) in line


@pytest.mark.parametrize("text", ["mat1 and mat2 shapes cannot be multiplied", "triton: failed to store the result",
                                  "Connection closed by peer", "Timed out", "Broken pipe"])
def test_an_error_that_only_has_words_of_a_lost_peer_comes_through(text):
    with pytest.raises(RuntimeError, match=text), one_line_errors("train.py"):
        raise RuntimeError(text)


def test_a_full_gpu_is_one_line_that_names_the_options_which_need_less(capsys):
    status, (line,) = ended("train.py", MEMORY, capsys)
    assert status == 1 and "--accumulate" in line and "--checkpoint-activations" in line and "2.00 GiB" in line


@pytest.mark.parametrize("error", [ValueError("--batch 15"), dist.DistBackendError("NCCL"), MEMORY])
def test_whoever_asks_for_the_traceback_gets_it_for_every_error(monkeypatch, capsys, error):
    monkeypatch.setenv("MOTE_TRACEBACK", "1")
    with pytest.raises(type(error)) as raised, one_line_errors("train.py"):
        raise error
    assert raised.value is error and capsys.readouterr().err == ""


def test_a_rank_that_torchrun_is_ending_says_nothing_of_the_lost_peer(monkeypatch, capsys):
    """Its signal has come while the rank waited for the other one, and was only noted."""
    monkeypatch.setattr(errors, "NOTED", ["SIGTERM"])
    assert errors.report_error("train.py", dist.DistNetworkError("Broken pipe")) == 1
    assert capsys.readouterr().err == ""


# --- several ranks --------------------------------------------------------------------------------
# destroy_process_group waits for all ranks, as under NCCL. Ranks that hang end after a minute.
DRIVER = """
import faulthandler, os, sys, time
import torch.distributed as dist
import train
faulthandler.dump_traceback_later(60, exit=True)
dist.destroy_process_group = dist.barrier
real = train.micro_batch
def micro_batch(objective, batch, config, step, *rest):
    if step == 2 and os.environ["RANK"] == "1":
        with open(sys.argv[1], "w") as file:
            file.write(str(time.time()))
        raise {error}
    return real(objective, batch, config, step, *rest)
train.micro_batch = micro_batch
train.main(sys.argv[2:])
"""


@pytest.mark.parametrize("error, expected", [
    ('ValueError("in step 3")', "train.py: error on rank 1: in step 3"),
    pytest.param('RuntimeError("ours")', "RuntimeError: ours", marks=pytest.mark.slow)])
def test_a_rank_that_fails_ends_and_takes_the_others_with_it_and_is_reported_once(world, tmp_path, error, expected):
    (tmp_path / "driver.py").write_text(DRIVER.format(error=error))
    small = [*SMALL, "--workers", "1", "--device", "cpu", "--layers", "1", "--out", str(tmp_path / "run")]
    done = torchrun(2, str(tmp_path / "driver.py"), str(tmp_path / "failed"), *small)
    took = time.time() - float((tmp_path / "failed").read_text())
    assert done.returncode != 0 and took < 30, done.stderr
    lines = done.stderr.splitlines()
    assert lines.count(expected) == 1 and done.stderr.count("train.py: error") == ("train.py" in expected), done.stderr
