"""
The means in the log are exact: the same bit for bit wherever a run is saved and gone on, and on any number of ranks.

A checkpoint that keeps its losses without names, as older ones do, is gone on from to the same means.
"""
import json
import math
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.faults import Killed, in_forward, killed
from support.runs import ALONE

import train
from mote.runtime import log
from mote.runtime.board import Board
from mote.runtime.checkpoints import read_checkpoint, save_checkpoint
from mote.runtime.ranks import Ranks

losses = st.one_of(st.just(0.0), st.floats(2.0**-16, 64, width=32))         # their sums are exact in 53 bits


NAMES = ("L_TE", "L_WMR", "L_MSE")
numbers = st.floats(-1e9, 1e9)                                               # float64, as a checkpoint has them


def named(*three: float) -> dict[str, torch.Tensor]:
    """A micro-batch's losses, as Objective returns them."""
    return dict(zip(NAMES, three))


def place(rank: int, world_size: int) -> Ranks:
    return Ranks(rank, world_size, torch.device("cpu"))


# --- means ----------------------------------------------------------------------------------------
@given(st.lists(st.tuples(losses, losses, losses, losses, losses, losses), min_size=1, max_size=12),
       st.sets(st.integers(0, 12)), st.integers(1, 2))
def test_means_are_the_same_bit_for_bit_wherever_a_run_is_saved_and_gone_on(steps, saved_before, ranks):
    """Of two ranks, each with three losses a step; `together` stands in for the group they are in."""
    def together(what: str) -> list:
        sums = [meter.sums for meter in meters]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(log, "gather", lambda _: sums)
            return [getattr(meter, what)() for meter in meters]
    places = [place(rank, ranks) for rank in range(ranks)]
    meters = [log.Meter(place) for place in places]
    for i, six in enumerate(steps):
        if i in saved_before:
            states = together("state")
            assert states == [states[0]] * ranks                 # whichever rank writes it
            meters = [log.Meter(place, {"meter": json.loads(json.dumps(states[0]))}) for place in places]
        for rank, meter in enumerate(meters):
            meter.add([named(*six[3 * rank:3 * rank + 3])], 4)
    read = together("read")
    exact = [math.fsum(six[3 * rank + k] for six in steps for rank in range(ranks)) for k in range(3)]
    means = dict(zip(NAMES, [one / (len(steps) * ranks) for one in exact]))
    assert all(meter.means == means and list(meter.means) == list(NAMES) for meter in meters)
    assert all(returned == means for returned, _ in read)
    assert all(meter.state()["sums"] == {} and meter.state()["passes"] == {} for meter in meters)


def test_the_means_are_the_same_on_another_number_of_ranks():
    two = log.Meter(place(0, 2))
    for _ in range(3):
        two.add([named(2.0, 4.0, 6.0)], 1)
    sums = {"L_TE": 12.0, "L_WMR": 24.0, "L_MSE": 36.0}                      # of both ranks
    state = {"sums": sums, "passes": two.state()["passes"], "means": dict.fromkeys(NAMES, 0.0)}
    one = log.Meter(ALONE, {"meter": state})
    one.add([named(2.0, 4.0, 6.0)], 1)
    one.read()
    assert one.means == {"L_TE": 2.0, "L_WMR": 4.0, "L_MSE": 6.0}


def test_a_window_of_refused_steps_alone_keeps_the_means_before_it():
    meter = log.Meter(ALONE)
    meter.add([named(1.0, 2.0, 3.0)], 1)
    first, _ = meter.read()
    again, _ = meter.read()
    assert meter.means == first == again == {"L_TE": 1.0, "L_WMR": 2.0, "L_MSE": 3.0}


def test_each_micro_batch_counts_once_in_the_mean():
    meter = log.Meter(ALONE)
    meter.add([named(1.0, 2.0, 3.0), named(2.0, 4.0, 6.0)], 8)
    meter.add([named(6.0, 0.0, 0.0), named(3.0, 2.0, 3.0)], 8)
    means, _ = meter.read()
    assert means == {"L_TE": 3.0, "L_WMR": 2.0, "L_MSE": 3.0}


def test_a_run_of_one_loss_has_one_mean():
    meter = log.Meter(ALONE)
    meter.add([{"L_TE": 1.5}], 1)
    means, _ = meter.read()
    assert means == {"L_TE": 1.5}


# --- checkpoints whose losses have no names -------------------------------------------------------
def without_names(state: dict) -> dict:
    """What older checkpoints kept of a meter: lists of three, one count. Before the first step they held zeros."""
    lists = {key: list(state[key].values()) or [0.0] * 3 for key in ("sums", "means")}
    return {**lists, "passes": max(state["passes"].values(), default=0)}


@given(st.tuples(numbers, numbers, numbers), st.tuples(losses, losses, losses), st.integers(0, 9), st.booleans())
def test_a_meter_whose_sums_have_no_names_goes_on_to_the_same_means(sums, step, passes, refused):
    old = {"sums": list(sums), "passes": passes, "means": [1.0, 2.0, 3.0]}
    new = {"sums": dict(zip(NAMES, sums)), "passes": passes, "means": dict(zip(NAMES, (1.0, 2.0, 3.0)))}
    meters = [log.Meter(ALONE, {"meter": state}) for state in (old, new)]
    assert meters[0].means == {"L_TE": 1.0, "L_WMR": 2.0, "L_MSE": 3.0}
    if not refused:
        for meter in meters:
            meter.add([named(*step)], 1)
    means = [meter.read()[0] for meter in meters]
    assert means[0] == means[1] and list(means[0]) == list(NAMES)
    if passes and refused:
        assert list(means[0].values()) == [one / passes for one in sums]


def test_a_loss_that_the_checkpoint_had_not_is_a_mean_over_its_own_passes():
    before = log.Meter(ALONE)
    before.add([{"L_TE": 1.0}] * 3, 1)
    meter = log.Meter(ALONE, {"meter": before.state()})
    meter.add([{"L_TE": 5.0, "L_WMR": 2.0}], 1)
    assert meter.read()[0] == {"L_TE": 2.0, "L_WMR": 2.0}


def test_a_run_goes_on_from_a_checkpoint_whose_losses_have_no_names(straight, job, tmp_path, monkeypatch):
    flags = [*job, str(tmp_path), "--save-every", "2"]
    with monkeypatch.context() as patch, pytest.raises(Killed):
        in_forward(patch, killed, 6)                             # step 4 is saved, in the middle of an epoch
        train.main(flags)
    saved = read_checkpoint(tmp_path / "step_4.pt")
    assert saved["meter"]["passes"] == dict.fromkeys(NAMES, 1) and list(saved["meter"]["sums"]) == list(NAMES)
    for name in ("step_4.pt", "last.pt"):
        save_checkpoint(tmp_path / name, {**saved, "meter": without_names(saved["meter"])})
    train.main(flags)
    assert (tmp_path / "metrics.jsonl").read_bytes() == (straight / "metrics.jsonl").read_bytes()
    assert read_checkpoint(tmp_path)["meter"] == read_checkpoint(straight)["meter"]


def test_a_checkpoint_without_a_meter_starts_at_nothing():
    assert log.Meter(ALONE, {"step": 3}).state() == log.Meter(ALONE).state() == {"sums": {}, "passes": {}, "means": {}}


# --- speed, and the lines -------------------------------------------------------------------------
def test_the_speed_is_of_all_ranks_and_of_the_time_since_it_was_last_read(monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(log.time, "perf_counter", lambda: clock[0])

    def slow():
        for batch in range(2):
            clock[0] += 1.0
            yield batch
    meter, stream = log.Meter(place(0, 3)), slow()
    assert [meter.wait_for(stream), meter.wait_for(stream)] == [0, 1]        # 2 s of waiting
    clock[0] += 6.0
    meter.add([{"L_TE": 1.0}], 16)
    _, speed = meter.read()
    assert speed == {"clips_per_second": 6.0, "data_wait": 0.25}             # 3 x 16 clips in 8 s
    clock[0] += 50.0                                             # an evaluation
    meter.restart()
    clock[0] += 2.0
    _, speed = meter.read()
    assert speed == {"clips_per_second": 0.0, "data_wait": 0.0}


TERMS = {"L_TE": 1.0, "L_WMR": 2.0, "L_MSE": 0.3456}
SPEED = {"clips_per_second": 6.4, "data_wait": 0.25}


def log_in(out, ranks=ALONE, left: float = 5025.0) -> log.Log:
    """A log of 60 steps, 20 an epoch, with its rates."""
    batches = SimpleNamespace(stop=60, steps_per_epoch=20)
    optimizer = SimpleNamespace(param_groups=[{"name": "clip", "lr": 3e-6}, {"name": "temporal", "lr": 5e-5}])
    benchmark = SimpleNamespace(board=Board(False, out, 0), seconds_in_all=0.0)
    one = log.Log(ranks, out, batches, optimizer, benchmark, 1)
    one.time_left = lambda step: left
    return one


def test_a_line_of_the_log_by_hand(tmp_path, capsys):
    log_in(tmp_path).add(30, 2.0346, TERMS, SPEED)
    assert capsys.readouterr().out == (
        "step 30/60  epoch 1.50  loss 2.035  L_TE 1.000  L_WMR 2.000  L_MSE 0.346  lr 3.0e-06/5.0e-05  "
        "6 clips/s  data wait 25 %  left 1:23:45\n")


def test_log_jsonl_has_what_a_line_shows_in_full(tmp_path):
    for step in (20, 30):
        log_in(tmp_path).add(step, 2.0346, TERMS, SPEED)
    _, line = [json.loads(text) for text in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert line == {"step": 30, "epoch": 1.5, "loss": 2.0346, **TERMS, "lr_clip": 3e-6, "lr_temporal": 5e-5, **SPEED}


@pytest.mark.parametrize("flags, names", [
    ([], {"lr_clip", "lr_temporal"}), (["--clip-lr", "0"], {"lr_temporal"}),
    (["--lr", "0"], {"lr_clip"}), (["--layers", "0"], {"lr_clip"})])
def test_a_part_that_is_frozen_has_no_rate(job, tmp_path, flags, names):
    train.main([*job, str(tmp_path), *flags])
    line = json.loads((tmp_path / "log.jsonl").read_text().splitlines()[-1])
    assert {name for name in line if name.startswith("lr_")} == names


def test_log_jsonl_has_finite_numbers_alone(tmp_path):
    log_in(tmp_path, left=math.nan).add(30, math.nan, {"L_TE": math.inf}, {"clips_per_second": 6.4, "data_wait": 0.0})
    log_in(tmp_path).add(40, 0.0, {}, SPEED)                     # every step so far was refused: there is no loss
    first, second = [json.loads(text) for text in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert set(first) == {"step", "epoch", "lr_clip", "lr_temporal", "clips_per_second", "data_wait"}
    assert "loss" not in second


def test_another_rank_than_the_first_logs_nothing(tmp_path, capsys):
    log_in(tmp_path, place(1, 2)).add(30, 2.0, TERMS, SPEED)
    assert capsys.readouterr().out == "" and not list(tmp_path.iterdir())


# --- the time left --------------------------------------------------------------------------------
@pytest.fixture
def clock(monkeypatch):
    """Seconds, in a list, that the test sets."""
    now = [100.0]
    monkeypatch.setattr(log.time, "perf_counter", lambda: now[0])
    return now


def benchmark_of(**seconds: float) -> SimpleNamespace:
    """Two datasets, of which the tests have taken so long."""
    datasets = {"k400": None, "ucf101": None}
    return SimpleNamespace(datasets=datasets, seconds=seconds, seconds_in_all=sum(seconds.values()))


def test_the_time_left_is_that_of_the_steps_and_of_the_tests_to_come(clock):
    batches = SimpleNamespace(start=10, stop=60, steps_per_epoch=10)
    benchmark = benchmark_of(k400=7.0, ucf101=3.0)               # of the untrained CLIP, before the clock started
    left = log.TimeLeft(batches, 2, benchmark)                   # tests after steps 20 and 40, and at 60 of both
    assert math.isnan(left(10))                                  # no step yet: there is no speed
    clock[0] += 30.0
    assert left(20) == 40 * 3 + 2 * 7 + 7 + 3                    # the test after step 20 is still to come
    benchmark.seconds["k400"] = 11.0                             # now it is made
    benchmark.seconds_in_all += 11.0
    clock[0] += 11.0 + 3.0
    assert left(21) == 39 * 3 + 11 + 11 + 3
    clock[0] += 39 * 3.0
    assert left(60) == 11 + 3                                    # all steps are made, the last test is not


def test_a_test_that_was_never_made_counts_nothing(clock):
    """A resumed run has the untrained scores from its checkpoint."""
    left = log.TimeLeft(SimpleNamespace(start=0, stop=20, steps_per_epoch=10), 1, benchmark_of())
    clock[0] += 20.0
    assert left(10) == 20.0


# --- the header -----------------------------------------------------------------------------------
def test_the_header_shows_what_differs_from_the_recipe_and_where_all_options_are(world, tmp_path, capsys):
    run = tmp_path / "run"
    train.main(["--data", "toyworld", "--threads", "1", "--workers", "0", "--epochs", "1", "--zero-shot", "",
                "--out", str(run)])
    printed = capsys.readouterr().out
    line, = (line for line in printed.splitlines() if line.startswith("differs from the recipe"))
    assert line == (f"differs from the recipe: --zero-shot '' --out {run} --epochs 1 --workers 0 --threads 1 "
                    f"(all options: {run}/config.json)")
    assert "; warm-up 0.0625 of 1 epochs" in printed             # the recipe's, shrunk with its 16 epochs to one
    config = json.loads((run / "config.json").read_text())
    assert config == read_checkpoint(run)["config"] and config["batch"] == 32
