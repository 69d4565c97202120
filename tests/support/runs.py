"""Runs of train.py, as tests make and read them."""
import json
import os
import subprocess
import sys
from pathlib import Path

import torch
from support.places import ROOT

from mote.runtime.ranks import Ranks

ALONE = Ranks(0, 1, torch.device("cpu"))
SMALL = ["--data", "toyworld", "--threads", "1", "--workers", "0", "--epochs", "2", "--batch", "16", "--log-every", "1",
         "--eval-every", "2", "--zero-shot", "toyworld-novel", "--layers", "2", "--keep", "99"]


def checkpoint(run: Path, name: str = "last.pt") -> dict:
    return torch.load(run / name, weights_only=True)


def assert_same_weights(a: dict, b: dict, **tolerance) -> None:
    for key, tensor in a["model"].items():
        torch.testing.assert_close(tensor, b["model"][key], msg=lambda m, key=key: f"{key}: {m}", **tolerance)


def metrics(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def torchrun(ranks: int, *command: str) -> subprocess.CompletedProcess:
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
    return subprocess.run([*launch, *command], cwd=ROOT, capture_output=True, text=True, timeout=300,
                          env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)})
