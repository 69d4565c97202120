"""
Ranks find each other, also after torchrun has restarted them. What they compute together: tests/scripts/test_train.py.
"""
import subprocess
import sys

import pytest
import torch
import torch.distributed as dist
from support.places import ROOT

from mote.runtime import ranks
from mote.runtime.ranks import Ranks


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
