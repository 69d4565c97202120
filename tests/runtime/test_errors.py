"""
A mistake is one line and an exit status. Those of users are checked where they are made (tests/scripts, tests/tools).
"""
import pytest
import torch.distributed as dist

from mote.runtime.errors import one_line_errors


@pytest.mark.parametrize("text, group, gone", [
    ("[../gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:33441", True, True),
    ("NCCL communicator was aborted on rank 1", True, True), ("Broken pipe", True, True),
    ("mat1 and mat2 shapes cannot be multiplied", True, False), ("Connection closed by peer", False, False)])
def test_a_peer_that_is_gone_is_one_line_and_any_other_error_comes_through(monkeypatch, capsys, text, group, gone):
    monkeypatch.setattr(dist, "is_initialized", lambda: group)
    monkeypatch.setattr(dist, "destroy_process_group", lambda: None)
    monkeypatch.setenv("RANK", "3")
    with pytest.raises(SystemExit if gone else RuntimeError) as raised, one_line_errors("train.py"):
        raise RuntimeError(text)
    error = capsys.readouterr().err.splitlines()
    assert len(error) == gone and (not gone or raised.value.code == 1)
    assert not gone or error[0].startswith("train.py: error on rank 3: another rank is gone")
