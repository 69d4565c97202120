"""
tools/bench/speed.py: its statistics by hand, sides that take turns and do the same work, rows that are kept and shown.

Nothing here asserts a time. Must be true: the interval holds the median with the chance it states, by the binomial; a
target is met if the interval reaches it, from either side; both sides of a ratio get the same frames; what a section
yields is finite, one JSON line each; a mistake is one line. --quick: toyworld's CLIP, two pairs.
"""
import itertools
import json
import math
import os
import re
import shutil
import subprocess
import sys
import time
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.optim.optimizer import _global_optimizer_post_hooks

import train
from mote import toyworld
from tools.bench import data_sections
from tools.bench import loader as bench_loader
from tools.bench import pairs as bench_pairs
from tools.bench import rows as bench_rows
from tools.bench import speed as bench
from tools.bench import steps as bench_steps
from tools.bench import views as bench_views

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")
TINY = Namespace(backbone="toyworld", device=CPU, clips=2, threads=1, pairs=2, settle=lambda: None)
needs_ffmpeg = pytest.mark.skipif(not shutil.which("ffmpeg"), reason="tools/prepare.py runs the ffmpeg program")


# --- statistics -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("n, ranks, chance", [(1, (1, 1), 0), (2, (1, 2), 1 / 2), (5, (1, 5), 1 - 2 / 32),
                                              (6, (1, 6), 1 - 2 / 64), (8, (1, 8), 1 - 2 / 256),
                                              (9, (2, 8), 1 - 2 * (1 + 9) / 512), (10, (2, 9), 1 - 2 * (1 + 10) / 1024),
                                              (15, (4, 12), 1 - 2 * (1 + 15 + 105 + 455) / 2**15)])
def test_the_ranks_of_an_interval_by_hand(n, ranks, chance):
    assert bench_pairs.interval_ranks(n) == (*ranks, pytest.approx(chance))


@pytest.mark.parametrize("n", range(1, 13))
def test_the_chance_of_an_interval_is_that_of_all_coin_tosses(n):
    # each value lies below the true median as often as above it: count the patterns that put the median inside
    first, last, chance = bench_pairs.interval_ranks(n)
    inside = sum(first <= sum(below) < last for below in itertools.product((0, 1), repeat=n))
    assert chance == pytest.approx(inside / 2**n)


@given(st.integers(6, 200))
def test_the_interval_is_the_shortest_that_holds_the_median_often_enough(n):
    first, last, chance = bench_pairs.interval_ranks(n)
    assert first + last == n + 1 and first <= last
    narrower = chance - 2 * math.comb(n, first) / 2**n           # one rank less at either end
    assert narrower < 0.95 <= chance


def test_a_ratio_is_the_median_of_the_ratios_of_the_pairs():
    row = bench_pairs.ratio("a / b", [1.0, 2.0, 9.0], [1.0, 4.0, 3.0], "<= 1")
    assert row["ratio"] == 1 and (row["low"], row["high"]) == (0.5, 3)           # of the medians: 2 / 3
    assert row["beside"] == "2 s / 3 s" and row["pairs"] == 3 and row["ranks"] == "1 to 3 of 3, 75.0 %"


def test_the_ends_of_the_interval_are_the_values_of_its_ranks():
    row = bench_pairs.row("ten", [5.0, 1, 9, 3, 7, 10, 2, 8, 4, 6])
    assert (row["low"], row["ratio"], row["high"]) == (2, 5.5, 9)
    assert row["ranks"] == "2 to 9 of 10, 97.9 %"


@pytest.mark.parametrize("target, low, high, met", [
    ("<= 1.05", 1.04, 1.2, True), ("<= 1.05", 1.05, 1.2, True), ("<= 1.05", 1.06, 2, False), ("<= 1.05", 0.5, 1, True),
    (">= 5", 4, 5, True), (">= 5", 4, 4.9, False), (">= 5", 6, 7, True), ("= 1", 1, 1, True), ("= 1", 1, 1.5, False),
    ("= 1", 0.5, 1, False), ("= 0", 0, 0, True), ("", 1, 2, None)])
def test_a_target_is_met_if_the_interval_reaches_it(target, low, high, met):
    assert bench_pairs.holds(target, low, high) is met


def test_sides_take_turns_backwards_every_other_round(monkeypatch):
    clock, calls = [0.0], []

    def side(name, seconds):
        def run(i):
            calls.append((i, name))
            clock[0] += seconds * (i or 1000)                    # the round before would stand out
        return run
    monkeypatch.setattr(bench_pairs.time, "perf_counter", lambda: clock[0])
    columns = bench_pairs.interleave([side("a", 1), side("b", 10), side("c", 100)], 4)
    assert ["".join(name for i, name in calls if i == n) for n in range(5)] == ["cba", "abc", "cba", "abc", "cba"]
    assert columns == [[1, 2, 3, 4], [10, 20, 30, 40], [100, 200, 300, 400]]


def test_the_clock_starts_and_stops_when_the_device_is_idle(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(bench_pairs.time, "perf_counter", lambda: clock[0])
    queue = []

    def settle():
        clock[0] += sum(queue)
        queue.clear()
    (a, b) = bench_pairs.interleave([lambda _: queue.append(1), lambda _: queue.append(5)], 2, settle)
    assert (a, b) == ([1, 1], [5, 5])


# --- what is timed ----------------------------------------------------------------------------------------------------
def gradients_of(step, module) -> set[str]:
    """Names of the parameters that a step gives a gradient, which it then drops."""
    got, hooks = set(), []
    for name, p in module.named_parameters():
        hooks.append(p.register_hook(lambda _, name=name: got.add(name)))
    step(1)
    for hook in hooks:
        hook.remove()
    assert all(p.grad is None for p in module.parameters())
    return got


def test_the_step_trains_everything_and_the_floor_the_tower_alone():
    visual = bench_steps.load("toyworld", CPU)[0].visual
    frames = []
    hook = visual.register_forward_pre_hook(lambda _, inputs: frames.append(tuple(inputs[0].shape)))
    objective, step = bench_steps.training_step(TINY, visual)
    assert isinstance(objective, train.Objective) and objective.second_pass
    assert gradients_of(step, objective) == {name for name, _ in objective.named_parameters()}
    assert gradients_of(bench_steps.floor_step(TINY, visual), visual) == {name for name, _ in visual.named_parameters()}
    bench_steps.evaluation_step(TINY, visual, "fp32")(1)
    bench_steps.floor_step(TINY, visual, backward=False)(1)
    hook.remove()
    assert frames == [(16, 3, 40, 40)] * 4                       # the same work for the tower each time


def test_the_head_is_the_step_without_a_tower():
    head = bench_steps.Given(TINY, 16)
    objective, step = bench_steps.training_step(TINY, head, layers=2, experts=3, classes=7)
    model = objective.model
    assert (len(model.temporal.blocks), model.temporal.num_experts, len(model.finetune_classes)) == (2, 3, 7)
    assert [name for name, _ in model.visual.named_parameters()] == ["features"]
    assert "model.visual.features" in gradients_of(step, objective)


def test_views_are_counted_where_frames_are_decoded_and_encoded():
    counts = bench_views.count_views(300, 3, 1)                  # three clips of eight, no frame shared
    assert counts == {"decoded": 24, "encoded": 24}
    assert not bench_steps.load("toyworld", CPU)[0].visual._forward_pre_hooks
    short = bench_views.count_views(20, 4, 3)                    # starts 0, 0, 1, 1: 16 distinct frames
    assert short["decoded"] == 16 and 16 * 3 <= short["encoded"] <= 4 * 3 * 8


@pytest.fixture(scope="module")
def video(world):
    return world / "toyworld/videos/train_circle_growing_0.mp4"


def test_all_ways_of_a_loader_get_the_same_frames(video, tmp_path, monkeypatch):
    from torchcodec.decoders import VideoDecoder
    asked, get = [], VideoDecoder.get_frames_at
    monkeypatch.setattr(VideoDecoder, "get_frames_at", lambda self, i: asked.append(list(i)) or get(self, i))
    ours, alone = bench_loader.ours(video), bench_loader.decoding_alone(video)
    for pair in range(5):
        clip = ours(pair)
        assert clip.shape == (8, 3, 224, 224) and clip.dtype == torch.uint8
        assert len(alone(pair)) == len(asked[-1])
        assert asked[-1] == asked[-2]
    assert len({tuple(indices) for indices in asked}) > 1        # and other ones in other pairs
    folder = bench_loader.jpegs(video, tmp_path)
    assert len(list(folder.iterdir())) == 16
    frames = bench_loader.decoding_alone(folder)(0)              # as many frames as the video: the same indices
    assert (frames.float() - get(VideoDecoder(video), asked[0]).data.float()).abs().mean() < 12


def test_the_authors_way_decodes_the_same_frames_and_gives_floats(tmp_path, monkeypatch):
    from torchcodec.encoders import VideoEncoder
    decord, video = pytest.importorskip("decord"), tmp_path / "video.mp4"
    VideoEncoder(toyworld.make_clip("star", "white", "growing", (0,), size=64), frame_rate=12).to_file(video)
    asked, get = [], decord.VideoReader.get_batch
    monkeypatch.setattr(decord.VideoReader, "get_batch", lambda self, i: asked.append(list(i)) or get(self, i))
    clip = bench_loader.decord_and_pil(video)(3)
    assert clip.shape == (8, 3, 224, 224) and clip.dtype == torch.float32
    assert 0 <= clip.min() and 0.2 < clip.max() <= 1
    wanted = bench_loader.random_indices(16, 8, np.random.default_rng((bench_loader.SEED, 3, 0)))
    assert asked[-1] == wanted.tolist()


# --- rows: made, kept, shown ------------------------------------------------------------------------------------------
FIELDS = {"section", "name", "ratio", "low", "high", "target", "holds", "pairs", "ranks", "beside", "note", "reason",
          "threads", "device", "backbone", "clips", "machine", "versions", "date"}


def measured(file, *arguments) -> list[dict]:
    """Run sections; the rows that came back, checked against those that were appended."""
    before = len(bench_rows.read(file)) if file.exists() else 0
    rows = bench.main(["--quick", "--file", str(file), *arguments])
    assert bench_rows.read(file)[before:] == json.loads(json.dumps(rows)) and rows
    for row in rows:
        assert set(row) == FIELDS and set(row["versions"]) == set(bench_rows.PACKAGES) and row["versions"]["torch"]
        if row["ratio"] is not None:
            assert all(math.isfinite(row[name]) for name in ("ratio", "low", "high"))
            assert row["low"] <= row["ratio"] <= row["high"]
    return rows


def test_quick_sections_yield_finite_rows_that_are_appended(tmp_path):
    file = tmp_path / "new" / "speed.jsonl"
    sections = ("training", "evaluation", "optimiser", "growth")
    rows = measured(file, *sections)
    assert tuple(dict.fromkeys(row["section"] for row in rows)) == sections
    targets = {row["name"]: row["target"] for row in rows if row["target"] and row["section"] in sections[:2]}
    assert list(targets.values()) == ["<= 1.05", "<= 1.02", ">= 5"]
    assert all(p.grad is None for p in bench_steps.load("toyworld", CPU)[0].parameters())
    share = next(row for row in rows if "whole training step" in row["name"])
    assert 0 < share["ratio"] < 1
    assert [row["name"] for row in rows if row["section"] == "growth"][:2] == [
        "step of the head: 16 frames / 8", "step of the head: 32 frames / 8"]
    text = measured(file, "text")                                # after the rows that are there
    assert text[-1]["ratio"] == 0 and text[-1]["holds"] and text[-1]["beside"].startswith("0 / ")


def test_the_views_of_a_short_video_are_compared_with_its_distinct_frames(tmp_path):
    rows = {row["name"]: row for row in measured(tmp_path / "f", "views")}
    assert rows["20 frames, 3 x 1 views: decoded / distinct"]["beside"] == "16 / 16"
    assert rows["300 frames, 4 x 3 views: encoded / distinct"]["beside"].endswith(" / 96")
    assert rows["20 frames, 4 x 3 views: encoded / views x frames"]["beside"].endswith(" / 96")


@needs_ffmpeg
def test_workers_and_a_device_decode_the_same_frames(video, monkeypatch):
    monkeypatch.setattr(bench_loader, "CLIPS", 3)
    frames = [bench_loader.by_workers(video, workers)(0) for workers in (0, 2)]
    frames.append(bench_loader.by_device(video, "cpu")(1))
    assert frames == [3 * 8] * 3                                 # 16 frames are enough for 8 distinct ones


def test_a_gpus_decoder_is_compared_where_there_is_a_gpu(video, monkeypatch):
    rows = list(data_sections.decoder(Namespace(device=torch.device("cpu"))))
    name = "8 sparse frames: CPU workers / torchcodec's CUDA decoder"
    assert [(row["name"], row["ratio"], row["reason"]) for row in rows] == [(name, None, "not run: no CUDA device")]
    monkeypatch.setattr(bench_loader, "CLIPS", 2)
    monkeypatch.setattr(data_sections, "count_workers", lambda *_: 0)
    devices = []
    real = bench_loader.by_device
    monkeypatch.setattr(bench_loader, "by_device", lambda path, device: devices.append(device) or real(path, "cpu"))
    row, = data_sections.decoder(Namespace(device=torch.device("cuda"), video=str(video), clips=2, pairs=2,
                                           settle=lambda: None))
    assert row["name"] == name and row["ratio"] > 0 and devices == ["cuda"]
    assert re.fullmatch(r"clips/s: \d+ by 0 workers, \d+ by the GPU", row["note"])


def test_the_loader_without_decord_says_what_to_install(video, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "decord", None)
    torch.set_num_threads(2)
    rows = measured(tmp_path / "f", "loader", "--video", str(video))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)                                     # the tests'
    assert threads == 2
    absent = [row for row in rows if row["ratio"] is None]
    assert [row["target"] for row in absent] == [">= 1.2", ">= 2"]
    assert all(row["reason"] == "not run: pip install decord" and row["holds"] is None for row in absent)
    assert len(rows) == 9 and all(row["threads"] == 1 for row in rows)
    shown = bench_rows.table(rows, bench.SECTIONS), bench_rows.describe(absent[0])
    assert all("not run: pip install decord" in text for text in shown)


def test_the_loader_without_ffmpeg_is_not_run_and_the_rest_is(video, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    rows = measured(tmp_path / "f", "loader", "views", "--video", str(video))
    assert rows[0]["ratio"] is None and "no ffmpeg program" in rows[0]["reason"] and len(rows) == 1 + 12


@needs_ffmpeg
def test_a_video_that_decord_cannot_read_is_said_to_be_one(video, tmp_path):
    pytest.importorskip("decord")
    first = measured(tmp_path / "f", "loader", "--video", str(video))[5]          # 48 pixels wide, which decord pads
    assert first["ratio"] is None and first["reason"].startswith("not run: decord: ")


def test_the_shares_of_the_demo_sum_to_one(tmp_path):
    begin = time.perf_counter()
    made = measured(tmp_path / "f", "demo")
    assert sum(float(row["beside"].removesuffix(" s")) for row in made) <= 1.02 * (time.perf_counter() - begin)
    assert not _global_optimizer_post_hooks                      # nothing of it is left behind
    rows = {row["name"].partition(",")[0]: row["ratio"] for row in made}
    assert set(rows) == {"generating videos", "class embeddings", "untrained evaluation", "waiting for data",
                         "training steps", "evaluation", "saving", "all else"}
    assert sum(rows.values()) == pytest.approx(1) and min(rows.values()) > 0


@pytest.mark.slow
@pytest.mark.parametrize("section", ["memory", "start", "ranks"])
def test_sections_in_processes_of_their_own_yield_finite_rows(section, tmp_path):
    assert measured(tmp_path / "f", section, "--threads", "1")


def given_row(section="training", name="step", **fields):
    about = {"section": section, "threads": 2, "device": "cpu", "backbone": "ViT-B-16-quickgelu", "clips": 2,
             "machine": "x86_64, 2 cores", "versions": {"torch": "2.15.0", "decord": None}, "date": "2026-11-22"}
    return {**bench_pairs.row(name, [1.0] * 10), **about, **fields}


def test_the_table_shows_the_newest_row_of_each_name_in_the_order_of_the_sections(tmp_path, capsys):
    lines = [given_row("loader", "decode", ratio=None, low=None, high=None, ranks="", reason="not run: a reason"),
             given_row(ratio=1.5, target="<= 1.05", holds=True, low=1.0, high=1.6),
             given_row("views", "count", ratio=2.0, ranks="", target="= 1", holds=False, reason="short"),
             given_row(ratio=1.04, target="<= 1.05", holds=True, low=1.01, high=1.06, note="theirs 1.31")]
    file = tmp_path / "speed.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    bench.main(["--table", "--file", str(file)])
    assert capsys.readouterr().out == """\
| section | what | ratio | interval | target | met |
|---|---|---|---|---|---|
| training | step (theirs 1.31) | 1.040 | 1.010 to 1.060 | <= 1.05 | yes |
| views | count | 2.000 |  | = 1 | no: short |
| loader | decode | not run: a reason |  |  |  |

Interval: of the ordered ratios of the pairs, 2 to 9 of 10, 97.9 %.
Measured with ViT-B-16-quickgelu, 2 clips, 2 threads, x86_64, 2 cores, 2026-11-22, torch 2.15.0.
"""


def test_a_row_that_misses_its_target_stays_with_its_reason(tmp_path, monkeypatch):
    def misses(o):
        yield bench_pairs.ratio("slow", [2.0, 2.0], [1.0, 1.0], "<= 1.05")
        yield bench_pairs.ratio("fast", [1.0, 1.0], [1.0, 1.0], "<= 1.05")
    monkeypatch.setitem(bench.SECTIONS, "training", misses)
    reasons = {("training", "slow"): "by design", ("training", "fast"): "not to be shown"}
    monkeypatch.setattr(bench_rows, "REASONS", reasons)
    slow, fast = measured(tmp_path / "f", "training")
    assert (slow["holds"], slow["reason"], fast["holds"], fast["reason"]) == (False, "by design", True, "")
    assert "NOT MET" in bench_rows.describe(slow) and "no: by design" in bench_rows.table([slow], bench.SECTIONS)


def test_quick_rows_are_not_kept_unless_a_file_is_named():
    assert bench.parse(["--quick", "training"]).file is None
    with pytest.raises(ValueError, match="ViT-B-17"):            # before anything runs
        bench.parse(["demo", "--backbone", "ViT-B-17"])
    assert bench.parse(["training"]).file == bench.parse(["--table"]).file == ROOT / "results" / "speed.jsonl"


@pytest.mark.parametrize("arguments, says", [
    (["speed"], "no section speed"), (["training", "--pairs", "9"], "--pairs must be at least 10"),
    (["training", "--clips", "0"], "--clips 1"), (["training", "--threads", "-1"], "--threads 0"),
    (["loader", "--video", "nowhere.mp4"], "nowhere.mp4"), (["loader"], "$MOTE_TEST_VIDEOS"),
    (["training", "--backbone", "ViT-B-17"], "ViT-B-17"), (["training", "--device", "abacus"], "abacus"),
    (["--table", "--file", "nowhere.jsonl"], "nowhere.jsonl"), (["--table", "--file", "broken.jsonl"], "line 2"),
    (["--pear"], "--pear")])
def test_a_mistake_is_one_line(arguments, says, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MOTE_TEST_VIDEOS", raising=False)
    monkeypatch.delenv("MOTE_TRACEBACK", raising=False)
    Path("broken.jsonl").write_text(json.dumps(given_row()) + "\n{\n")
    with pytest.raises(SystemExit) as stop:
        bench.main(arguments)
    out, error = capsys.readouterr()
    assert stop.value.code == 2 and out == "" and len(error.splitlines()) == 1
    assert error.startswith("tools/bench/speed.py: error: ") and says in error


def test_it_runs_as_a_program_from_any_folder(tmp_path):
    (tmp_path / "f").write_text(json.dumps(given_row()) + "\n")
    done = subprocess.run([sys.executable, ROOT / "tools/bench/speed.py", "--table", "--file", "f"], cwd=tmp_path,
                          capture_output=True, text=True, env={**os.environ, "PYTHONPATH": ""})
    assert done.returncode == 0 and "| training | step |" in done.stdout, done.stderr
