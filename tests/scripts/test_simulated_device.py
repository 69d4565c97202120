"""
Every tensor is on the device that it should be on, and the host waits for the device once a training step.

Shown without a GPU, on a device that is simulated (tests/support/simulated_device.py).
"""
import json
import os
import subprocess
import sys

import pytest
from support.places import ROOT
from support.runs import metrics

import eval as evaluation
import train

SCRIPT = ROOT / "tests" / "support" / "simulated_runs.py"

@pytest.fixture(scope="module")
def job(world, tmp_path_factory):
    """Flags of train.py, without device and folder: two epochs of three steps on 12 videos, tested at the end."""
    folder = tmp_path_factory.mktemp("job")
    lists = []
    for split, count in (("train", 12), ("val", 4)):
        lines = (world / "toyworld" / f"{split}.txt").read_text().splitlines(keepends=True)
        (folder / f"{split}.txt").write_text("".join(lines[:count]))
        lists += [f"--{split}-list", str(folder / f"{split}.txt")]
    return ["--data", "toyworld", *lists, "--zero-shot", "", "--threads", "1", "--workers", "0", "--layers", "2",
            "--frames", "2", "--batch", "4", "--epochs", "2", "--eval-every", "2", "--log-every", "99"]


def simulated(train: list[list[str]], eval: list[list[str]] = ()) -> dict:
    """What tests/support/simulated_runs.py prints of these runs."""
    jobs = {"train": [[*flags, "--device", "gpu:0"] for flags in train],
            "eval": [[*flags, "--device", "gpu:0"] for flags in eval]}
    done = subprocess.run([sys.executable, SCRIPT, json.dumps(jobs)], cwd=ROOT, capture_output=True, text=True,
                          env={**os.environ, "MOTE_TRACEBACK": "1"})
    if "has no attribute '_setup_privateuseone" in done.stderr or "cannot import name '_setup_private" in done.stderr:
        pytest.skip("this torch cannot register a device that is written in Python")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def waits(result: dict) -> dict:
    return {(what, tuple(shape), where): times for what, shape, where, times in result["seen"] if "wait" in what}


def test_training_is_the_same_there_and_waits_once_a_step(job, tmp_path):
    """Accumulated or not, with a frozen CLIP, and gone on with from a checkpoint."""
    runs = {"plain": [], "accumulated": ["--accumulate", "2"], "frozen": ["--clip-lr", "0"],
            "plain_again": ["--epochs", "3"]}
    folders = {name: str(tmp_path / name.removesuffix("_again")) for name in runs}
    result = simulated([[*job, *more, "--out", folders[name], "--resume", "auto"] for name, more in runs.items()])
    assert result["steps"] == 6 + 6 + 6 + 3
    assert {(what, where.partition(":")[0]) for what, _, where in waits(result)} == {("download: a wait", "guard.py")}
    assert sum(waits(result).values()) == result["steps"]

    here = [train.main([*job, *more, "--out", f"{folders[name]}-here", "--resume", "auto", "--device", "cpu"])
            for name, more in runs.items()]
    assert result["returned"] == here
    # The losses of the last epoch, to what other kernels of attention may change.
    losses = {name: metrics(tmp_path / name)[0]["L_TE"] for name in ("plain", "accumulated", "frozen")}
    assert losses == pytest.approx({name: metrics(tmp_path / f"{name}-here")[0]["L_TE"] for name in losses}, rel=1e-3)
    assert min(abs(losses[a] - losses[b]) for a in losses for b in losses if a != b) > 0.01


@pytest.mark.slow
def test_evaluation_is_the_same_there(job, world, tmp_path):
    train.main([*job, "--out", str(tmp_path / "run"), "--device", "cpu"])
    val = job[job.index("--val-list") + 1]
    video = next((world / "toyworld" / "videos").glob("*.mp4"))
    model = ["--checkpoint", str(tmp_path / "run"), "--threads", "1"]
    commands = [[*model, "--data", "toyworld", "--list", val, "--clips", "2", "--crops", "3", "--workers", "0"],
                [*model, "--video", str(video), "--classes", "star moving left, star moving right, ring"]]
    result = simulated([], commands)
    scores, ranked = result["returned"]
    here = [evaluation.main([*command, "--device", "cpu"]) for command in commands]
    assert scores == here[0]["plain"]
    for there, row in zip(ranked, here[1]["ranked"], strict=True):
        assert there[2] == row[2] and there[:2] == pytest.approx(row[:2], rel=1e-4)


def test_a_tensor_that_stays_on_the_cpu_is_refused(tmp_path):
    """The simulation would notice: a check that cannot fail says nothing."""
    script = ("import torch, support.simulated_device as simulated\n"
              "with simulated.there():\n"
              "    here, there = torch.ones(2), torch.ones(2, device='gpu')\n"
              "    simulated.watching = True\n"
              "    assert (there + 1).sum().item() == 4.0\n"
              "    there[torch.tensor([0])]\n"
              "    there[there > 0]\n"
              "    print(sorted(what for what, _, _ in simulated.seen))\n"
              "    there + here\n")
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True,
                          env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"})
    assert "RuntimeError: Expected all tensors to be on the same device, but found gpu:0 and cpu" in done.stderr
    assert done.stdout == ("['aten._local_scalar_dense: a wait', 'aten.index: a wait', 'upload of an index: a wait']\n")
