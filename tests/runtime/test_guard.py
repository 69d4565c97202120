"""
A refused step leaves no trace but its line, too many of them end the run, and so do too many undecodable videos.

Checked on the functions, on a guard of a tower with one buffer, and on runs of 6 steps on 12 videos with faults in
them; tests/torture/run.py does it to whole runs.
"""
import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from support.faults import Killed, in_forward, infinite_gradient, killed, signalled
from support.runs import ALONE
from torch import nn
from torture.job import same

import train
from mote import data
from mote.runtime import guard
from mote.runtime.checkpoints import read_checkpoint
from mote.runtime.guard import BadVideos, Guard, finite

NAN, INF = float("nan"), float("inf")


# --- a step that is not finite --------------------------------------------------------------------
@pytest.mark.parametrize("loss, gradient, fine", [
    (1.0, 1.0, True), (NAN, 1.0, False), (INF, 1.0, False), (1.0, NAN, False), (1.0, INF, False), (1.0, -INF, False),
    (1.0, 1e19, True), (3e38, 1e20, False)])                     # AdamW keeps squares; their sum may overflow
def test_a_step_is_finite_if_each_loss_and_each_gradient_is(loss, gradient, fine):
    parameters = [nn.Parameter(torch.zeros(9)) for _ in range(3)]           # the last one has no gradient
    parameters[0].grad, parameters[1].grad = torch.zeros(9), torch.full((9,), min(abs(gradient), 1e19))
    parameters[1].grad[4] = gradient
    losses = torch.tensor([[1.0, 1.0, 1.0], [1.0, loss, 1.0]])
    assert finite(losses, parameters).item() == fine


def merged_loss_nan(losses):
    return {**losses, "L_WMR": losses["L_WMR"] * NAN}


@pytest.mark.parametrize("fault, values", [(merged_loss_nan, [False, True, False]),
                                           (infinite_gradient, [False, False, False])], ids=["loss", "gradient"])
def test_a_refused_step_touches_nothing_and_its_videos_are_written_down(job, tmp_path, monkeypatch, fault, values):
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
    losses, = refused["losses"]                                  # of one micro-batch
    assert list(losses) == ["L_TE", "L_WMR", "L_MSE"] and [text == "nan" for text in losses.values()] == values
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


@pytest.mark.parametrize("repeats", [1, 3])                      # a few-shot list is repeated
def test_more_than_a_twentieth_of_the_distinct_videos_is_too_many(repeats):
    def two_bad_of(count: int) -> BadVideos:
        videos = [(f"{i}.mp4", 0) for i in range(count)]
        return BadVideos(videos * repeats, {"undecodable": ["0.mp4", "1.mp4"]})
    two_bad_of(40).check()                                       # 5 per cent
    with pytest.raises(ValueError, match="2 of 39 training videos are undecodable: over 5%"):
        two_bad_of(39).check()


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


# --- the guard, a step at a time -------------------------------------------------------------------
VIDEOS = [("a.mp4", 0), ("b.mp4", 1), ("c.mp4", 0)]


class Tower(nn.Module):
    """One weight, whose gradient is there, and one buffer, which a forward pass changes."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2))
        self.weight.grad = torch.ones(2)
        self.register_buffer("running_mean", torch.tensor([5.0]))


@pytest.fixture
def tower():
    return Tower()


@pytest.fixture
def watch(tower, tmp_path):
    """A guard of that tower on VIDEOS. Its report of refused steps: tmp_path / refused.jsonl."""
    return Guard(ALONE, tower, VIDEOS, tmp_path)


def see(watch, indices, failed=(), **losses):
    """A micro-batch of these videos that gave these losses."""
    watch.saw({"index": torch.tensor(indices), "failed": list(failed)},
              {name: torch.tensor(loss, requires_grad=True) for name, loss in losses.items()})


def make_step(watch, number, loss=1.0):
    """Step `number`, which changes the buffer. -> whether it is sound"""
    watch.before_step()
    watch.tower.running_mean.add_(1)
    see(watch, [0, 2], L_TE=loss)
    return watch.step_is_sound(number, watch.tower.parameters())


def another_rank_raises(monkeypatch, *flags):
    """Flags of `agree` that the sum over all ranks has, though this rank did not raise them."""
    monkeypatch.setattr(guard, "total", lambda raised: raised + torch.tensor(flags))


def test_a_step_holds_its_own_micro_batches_without_their_graphs(watch):
    for _ in range(2):                                           # the second step forgets the first
        watch.before_step()
        assert watch.losses_on_device == watch.losses == [] and watch.clips == 0
        see(watch, [0, 2], L_TE=1.0, L_MSE=2.0)
        see(watch, [1], L_TE=3.0, L_MSE=4.0)
    assert watch.step_is_sound(1, watch.tower.parameters())
    assert watch.losses == [{"L_TE": 1.0, "L_MSE": 2.0}, {"L_TE": 3.0, "L_MSE": 4.0}]
    assert not any(loss.requires_grad for one in watch.losses_on_device for loss in one.values())
    assert watch.indices == [0, 2, 1] and watch.clips == 3


def test_a_sound_step_keeps_what_it_changed_and_ends_nothing(watch, tower, tmp_path, capsys):
    assert make_step(watch, 1)
    assert tower.running_mean.item() == 6 and not watch.run_must_end
    watch.end_if_it_must(1)
    assert capsys.readouterr().out == "" and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("loss, gradient", [(NAN, 1.0), (1.0, INF)])
def test_an_unsound_step_is_said_written_down_and_its_buffers_restored(watch, tower, tmp_path, capsys, loss, gradient):
    tower.weight.grad[1] = gradient
    assert not make_step(watch, 7, loss)
    assert tower.running_mean.item() == 5
    line, = map(json.loads, (tmp_path / "refused.jsonl").read_text().splitlines())
    assert line == {"step": 7, "losses": [{"L_TE": f"{loss:.4g}"}], "videos": ["a.mp4", "c.mp4"]}
    assert capsys.readouterr().out == (f"step 7: a loss or a gradient is not finite: refused, the weights stay; "
                                       f"its 2 videos are in {tmp_path / 'refused.jsonl'}\n")


def test_one_bad_micro_batch_of_several_refuses_the_step_and_all_are_written_down(watch, tmp_path):
    watch.before_step()
    see(watch, [0], L_TE=1.0)
    see(watch, [1], L_TE=NAN)
    see(watch, [2], L_TE=3.0)
    assert not watch.step_is_sound(1, watch.tower.parameters())
    line, = map(json.loads, (tmp_path / "refused.jsonl").read_text().splitlines())
    assert line["losses"] == [{"L_TE": "1"}, {"L_TE": "nan"}, {"L_TE": "3"}]
    assert line["videos"] == ["a.mp4", "b.mp4", "c.mp4"]


def test_what_another_rank_refuses_is_refused_here_too(watch, tower, monkeypatch):
    another_rank_raises(monkeypatch, 0.0, 1.0)
    assert not make_step(watch, 1)
    assert tower.running_mean.item() == 5 and watch.refused.in_a_row == 1 and not watch.stopping


def test_steps_refused_in_a_row_end_the_run_and_a_sound_one_starts_the_count_anew(watch, monkeypatch):
    monkeypatch.setattr(guard, "MAX_REFUSED", 2)
    for number, loss in enumerate([NAN, 1.0, NAN], 1):
        make_step(watch, number, loss)
        assert not watch.run_must_end
        watch.end_if_it_must(number)
    make_step(watch, 4, NAN)
    assert watch.run_must_end
    with pytest.raises(ValueError, match="2 steps in a row with a loss or a gradient that is not finite: stopped;"):
        watch.end_if_it_must(4)


@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_signal_to_any_rank_ends_the_run_after_a_sound_step(watch, tower, monkeypatch, capsys, tmp_path, elsewhere):
    if elsewhere:
        another_rank_raises(monkeypatch, 1.0, 0.0)
    else:
        os.kill(os.getpid(), signal.SIGTERM)
    assert make_step(watch, 3) and tower.running_mean.item() == 6
    assert watch.run_must_end and capsys.readouterr().out == ""
    with pytest.raises(SystemExit) as left:
        watch.end_if_it_must(3)
    came = "signal to another rank" if elsewhere else "SIGTERM"
    assert left.value.code == 143
    assert capsys.readouterr().out == f"{came}: saved at step 3; --out {tmp_path} --resume auto goes on\n"


def test_a_signal_that_comes_after_the_ranks_have_agreed_waits_for_the_next_step(watch):
    assert make_step(watch, 1)
    os.kill(os.getpid(), signal.SIGTERM)
    assert not watch.run_must_end                                # else this rank alone would save and leave
    watch.end_if_it_must(1)
    assert make_step(watch, 2) and watch.run_must_end


def test_bad_videos_are_said_once_and_end_the_run_once_they_are_known(watch, capsys):
    watch.before_step()
    see(watch, [0, 2], failed=[1, 2], L_TE=1.0)
    watch.end_if_it_must(1)                                      # of this rank alone so far
    watch.report_bad_videos()
    watch.report_bad_videos()
    assert capsys.readouterr().out.splitlines() == [
        "cannot decode b.mp4: another video is drawn in its place (1 so far)",
        "cannot decode c.mp4: another video is drawn in its place (2 so far)"]
    with pytest.raises(ValueError, match="2 of 3 training videos are undecodable: over 5%"):
        watch.end_if_it_must(1)


def test_bad_videos_of_the_checkpoint_are_not_said_again(tower, tmp_path, capsys):
    watch = Guard(ALONE, tower, VIDEOS, tmp_path, {"undecodable": ["b.mp4"]})
    watch.before_step()
    see(watch, [0, 2], failed=[1], L_TE=1.0)
    watch.report_bad_videos()
    assert capsys.readouterr().out == "" and watch.bad.known == ["b.mp4"]


# --- the guard, in a run --------------------------------------------------------------------------
@pytest.mark.parametrize("fault, status", [(signalled(signal.SIGTERM), 143), (infinite_gradient, 2)],
                         ids=["signal", "refused"])
def test_the_run_ends_only_after_the_save(job, tmp_path, monkeypatch, fault, status):
    monkeypatch.setattr(guard, "MAX_REFUSED", 1)
    events, save, end = [], train.run_folder.save, Guard.end_if_it_must

    def note_save(ranks, out, keep, step, *rest):
        save(ranks, out, keep, step, *rest)
        events.append(("saved", step))

    def note_end(watch, step):
        events.append(("may end", step))
        end(watch, step)
    monkeypatch.setattr(train.run_folder, "save", note_save)
    monkeypatch.setattr(Guard, "end_if_it_must", note_end)
    in_forward(monkeypatch, fault, 2)
    with pytest.raises(SystemExit) as ended:
        train.main([*job, str(tmp_path)])
    assert ended.value.code == status
    assert events == [("may end", 1), ("saved", 2), ("may end", 2)]


def test_a_run_whose_first_steps_are_refused_logs_and_goes_on(job, tmp_path, monkeypatch, capsys):
    in_forward(monkeypatch, infinite_gradient, 1, 2)
    train.main([*job, str(tmp_path), "--log-every", "1"])
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("step ") and "  loss " in line]
    assert len(lines) == 6 and all("  loss nan" in line for line in lines[:2])
    assert all("  L_TE " in line for line in lines[2:])
