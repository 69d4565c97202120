"""
A refused step leaves no trace but its line, too many of them end the run, and so do too many undecodable videos.

Checked on the functions and on runs of 6 steps on 12 videos with faults in them; tests/torture/run.py does it to whole
runs.
"""
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from support.faults import Killed, in_forward, killed
from torch import nn
from torture.job import same

import train
from mote import data
from mote.runtime import guard
from mote.runtime.checkpoints import read_checkpoint
from mote.runtime.guard import BadVideos, finite

NAN, INF = float("nan"), float("inf")


# --- a step that is not finite --------------------------------------------------------------------
@pytest.mark.parametrize("loss, gradient, fine", [
    (1.0, 1.0, True), (NAN, 1.0, False), (INF, 1.0, False), (1.0, NAN, False), (1.0, INF, False), (1.0, -INF, False),
    (1.0, 1e19, True), (3e38, 1e20, False)])                     # AdamW keeps squares; their sum may overflow
def test_a_step_is_finite_if_each_loss_and_each_gradient_is(loss, gradient, fine):
    parameters = [nn.Parameter(torch.zeros(9)) for _ in range(3)]           # the last one has no gradient
    parameters[0].grad, parameters[1].grad = torch.zeros(9), torch.full((9,), min(abs(gradient), 1e19))
    parameters[1].grad[4] = gradient
    assert finite([torch.ones(3), torch.tensor([1.0, loss, 1.0])], parameters).item() == fine


def infinite_gradient(losses):
    first = losses[0].clone()
    first.register_hook(lambda gradient: gradient * INF)
    return first, *losses[1:]


@pytest.mark.parametrize("fault", [lambda losses: (losses[0], losses[1] * NAN, losses[2]), infinite_gradient],
                         ids=["loss", "gradient"])
def test_a_refused_step_touches_nothing_and_its_videos_are_written_down(job, tmp_path, monkeypatch, fault):
    in_forward(monkeypatch, fault, 2)
    train.main([*job, str(tmp_path), "--save-every", "1"])
    one, two, three = (read_checkpoint(tmp_path / f"step_{step}.pt") for step in (1, 2, 3))
    assert any("running_mean" in name for name in one["model"])
    assert same(one["model"], two["model"]) and same(one["optimizer"]["state"], two["optimizer"]["state"])
    assert not any(same(two["model"][name], three["model"][name]) for name in two["model"] if "running_" in name)
    refused, = map(json.loads, (tmp_path / "refused.jsonl").read_text().splitlines())
    trained_on = [line.rpartition(" ")[0] for line in (tmp_path / "train.txt").read_text().splitlines()]
    order = np.random.default_rng((0, 0)).permutation(12)[4:8]              # the second batch of MicroBatches
    assert refused["step"] == 2 and refused["videos"] == [trained_on[i] for i in order]
    assert [len(three) for three in refused["losses"]] == [3]
    assert "nan" not in (tmp_path / "metrics.jsonl").read_text().lower()


@pytest.mark.parametrize("steps, stopped_at", [([1, 2, 4, 5], None), ([2, 3, 4], 4)])
def test_a_run_stops_after_some_refused_steps_in_a_row_with_the_last_good_state_saved(
        job, tmp_path, monkeypatch, capsys, steps, stopped_at):
    monkeypatch.setattr(guard, "MAX_REFUSED", 3)
    in_forward(monkeypatch, infinite_gradient, *steps)
    if stopped_at is None:                                       # the accepted third step starts the count anew
        train.main([*job, str(tmp_path)])
        return
    with pytest.raises(SystemExit) as ended:
        train.main([*job, str(tmp_path), "--save-every", "1"])
    error, = capsys.readouterr().err.splitlines()
    assert ended.value.code == 2 and "3 steps in a row with a loss or a gradient that is not finite" in error
    good, last = read_checkpoint(tmp_path / "step_1.pt"), read_checkpoint(tmp_path)
    assert last["step"] == stopped_at and same(good["model"], last["model"])
    assert same(good["optimizer"]["state"], last["optimizer"]["state"])


def test_the_last_good_state_is_saved_though_no_save_was_due(job, tmp_path, monkeypatch):
    monkeypatch.setattr(guard, "MAX_REFUSED", 1)
    in_forward(monkeypatch, infinite_gradient, 2)
    with pytest.raises(SystemExit):
        train.main([*job, str(tmp_path)])
    assert [path.name for path in tmp_path.glob("step_*.pt")] == ["step_2.pt"]


# --- videos that cannot be decoded ----------------------------------------------------------------
def test_an_undecodable_video_is_named_once_and_counted_over_a_resume():
    videos = [("a", 0), ("b", 0), ("a", 1), ("c", 0)]
    bad = BadVideos(videos)
    bad.new = [0, 2, 0]
    assert bad.report() == ["cannot decode a: another video is drawn in its place (1 so far)"]
    bad.new += [0]
    assert bad.report() == [] == bad.report() and bad.known == ["a"]
    bad = BadVideos(videos, {"undecodable": bad.known})
    bad.new = [2, 3]
    assert bad.report() == ["cannot decode c: another video is drawn in its place (2 so far)"]
    bad.check(40)                                                # 5 per cent
    with pytest.raises(ValueError, match="2 of 39 training videos are undecodable: over 5%"):
        bad.check(39)


def test_a_video_skipped_at_an_earlier_start_is_not_touched_and_named_once_over_a_resume(job, tmp_path, monkeypatch,
                                                                                         capsys):
    monkeypatch.setattr(guard, "MAX_BAD", 0.1)
    bad = Path(os.environ["MOTE_DATA"]) / "toyworld" / Path(job[3]).read_text().split()[0]
    (tmp_path / "skipped.txt").write_text(f"{bad}\n")
    real = data.decode
    monkeypatch.setattr(data, "decode", lambda path, choose: pytest.fail() if path == str(bad) else real(path, choose))
    with monkeypatch.context() as patch, pytest.raises(Killed):
        in_forward(patch, killed, 4)
        train.main([*job, str(tmp_path)])
    train.main([*job, str(tmp_path)])
    assert capsys.readouterr().out.count(f"cannot decode {bad}: another video is drawn in its place (1 so far)") == 1
