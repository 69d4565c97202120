"""
The datasets of a run are scored once for each step that asks for it, and what is known already is not scored again.

Checked on a stub in place of `evaluate`, which notes what it is asked; on real videos:
tests/runtime/test_run_folder.py.
"""
import json
from dataclasses import asdict

import pytest
import torch
from support.runs import ALONE

from mote.clip_backbone import Pixels
from mote.datasets.dataset import Dataset
from mote.files.towers.pixels import OPENAI_MEAN, OPENAI_STD
from mote.runtime.board import Board
from mote.runtime.ranks import Ranks
from mote.scoring import benchmark as scoring
from mote.scoring import protocols
from mote.scoring.benchmark import Benchmark, Conditions
from mote.scoring.protocols import protocol_of

SETS = {name: Dataset(name, [(f"{name}.mp4", 0)], ["a class"], "") for name in ("k400", "ucf101", "hmdb51")}
EMBEDDINGS = {name: torch.full((1, 3), i) for i, name in enumerate(SETS)}
TOP1 = {"k400": 10.0, "ucf101": 20.0, "hmdb51": 0.0}


def scores_of(name: str) -> dict:
    return {"plain": {"top1": TOP1[name], "top5": 50.0}, "modulated": {"top1": 5.0, "top5": 25.0}}


class Model:
    """As far as Benchmark knows MoTE. temporal: the transformer that it was given, if any."""
    finetune_classes = torch.zeros(5, 3)

    def __init__(self, temporal=None):
        self.temporal = temporal

    def with_temporal(self, temporal):
        return Model(temporal)


class Scorer:
    """In place of `evaluate`. calls: (model, dataset, options) of each; failed: {dataset: undecodable videos}."""

    def __init__(self):
        self.calls: list[tuple] = []
        self.failed: dict[str, list[str]] = {}

    def __call__(self, model, videos, classes_ND, ranks, protocol, **options) -> dict:
        name = protocol.data
        assert videos is SETS[name].videos and classes_ND is EMBEDDINGS[name]
        self.calls.append((model, name, {"protocol": protocol, **options}))
        return {**scores_of(name), "decoded": 2, "failed": self.failed.get(name, []), "videos": 3,
                "per_video": [1, 2, 3]}

    def names(self) -> list[str]:
        """The datasets that were scored since this was last asked, in order."""
        names = [name for _, name, _ in self.calls]
        self.calls.clear()
        return names


@pytest.fixture
def asked(monkeypatch):
    scorer = Scorer()
    monkeypatch.setattr(scoring, "evaluate", scorer)
    return scorer


def benchmark_in(out, ranks=ALONE, *more) -> Benchmark:
    testing = Conditions(["{}", "a {}"], 8, 224, Pixels(), 2, *more)
    return Benchmark(SETS, EMBEDDINGS, testing, ranks, out, Board(False, out, 0))


def recorded(out) -> list[dict]:
    file = out / "metrics.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


# --- one dataset, one score -----------------------------------------------------------------------
def test_a_score_is_under_the_runs_protocol_and_leaves_out_its_skipped_videos(asked, tmp_path):
    model = Model()
    result = benchmark_in(tmp_path).score(model, "ucf101", "bf16")
    (scored, name, more), = asked.calls
    assert scored is model and name == "ucf101" and result["plain"]["top1"] == 20
    assert more == {"protocol": protocol_of(SETS["ucf101"], ["{}", "a {}"], frames=8, resize=224,
                                             precision="bf16"), "workers": 2,
                    "skipped": tmp_path / "skipped.txt"}


def protocol_lines(name: str) -> str:
    return f"{protocol_of(SETS[name], ['{}', 'a {}'], frames=8, resize=224)}\n"


def test_protocols_and_undecodable_videos_are_said_once_and_again_when_they_change(asked, tmp_path, capsys):
    asked.failed["k400"] = ["a.mp4"]
    benchmark = benchmark_in(tmp_path)
    said = "k400: 1 of 3 videos could not be decoded: a.mp4\n"
    for name, printed in (("k400", protocol_lines("k400") + said), ("ucf101", protocol_lines("ucf101")), ("k400", "")):
        benchmark.score(Model(), name, "fp32")
        assert capsys.readouterr().out == printed
    asked.failed["k400"] = ["b.mp4"]
    benchmark.score(Model(), "k400", "fp32")
    assert capsys.readouterr().out == said.replace("a.mp4", "b.mp4")


def test_the_seconds_of_the_newest_test_of_each_dataset_are_kept_and_of_all_tests(asked, tmp_path, monkeypatch):
    ticks = iter([0.0, 5.0, 10.0, 12.0, 20.0, 24.0])
    monkeypatch.setattr(scoring.time, "perf_counter", lambda: next(ticks))
    benchmark = benchmark_in(tmp_path)
    for name in ("k400", "ucf101", "k400"):
        benchmark.score(Model(), name, "fp32")
    assert benchmark.seconds == {"k400": 4.0, "ucf101": 2.0} and benchmark.seconds_in_all == 11.0


def test_the_protocol_says_how_the_tower_has_its_frames_made(asked, tmp_path):
    pixels = Pixels((0.5, 0.4, 0.3), (0.2, 0.3, 0.4), "squash", "bilinear")
    testing = Conditions(["{}"], 8, 224, pixels, 2)
    Benchmark(SETS, EMBEDDINGS, testing, ALONE, tmp_path, Board(False, tmp_path, 0)).score(Model(), "ucf101", "fp32")
    (_, _, more), = asked.calls
    assert {name: getattr(more["protocol"], name) for name in asdict(pixels)} == asdict(pixels)


# --- test -----------------------------------------------------------------------------------------
def test_the_dataset_of_the_run_is_tested_and_all_of_them_where_asked(asked, tmp_path):
    benchmark = benchmark_in(tmp_path)
    benchmark.test(Model(), 3, 1, {})
    assert asked.names() == ["k400"]
    benchmark.test(Model(), 6, 2, {}, last=True)
    assert asked.names() == ["k400", "ucf101", "hmdb51"]


def test_a_test_is_printed_and_recorded_with_the_losses_and_without_the_answers(asked, tmp_path, capsys):
    benchmark = benchmark_in(tmp_path)
    benchmark.test(Model(), 3, 1, {"L_TE": 0.5, "L_WMR": 0.25})
    line, = recorded(tmp_path)
    assert line == {"step": 3, "epoch": 1, "data": "k400", "L_TE": 0.5, "L_WMR": 0.25, **scores_of("k400"),
                    "decoded": 2, "failed": [], "videos": 3}
    assert list(line)[:5] == ["step", "epoch", "data", "L_TE", "L_WMR"]
    assert capsys.readouterr().out == protocol_lines("k400") + (
        "epoch 1  k400  top-1 10.00  top-5 50.00  with modulation: top-1 5.00  top-5 25.00\n")


def test_a_line_says_how_many_videos_it_is_of_where_some_failed(asked, tmp_path, capsys):
    asked.failed["k400"] = ["a.mp4"]
    benchmark_in(tmp_path).test(Model(), 3, 1, {})
    assert capsys.readouterr().out.endswith("top-5 25.00  (2 of 3 videos decoded)\n")


def test_another_rank_than_the_first_scores_and_neither_prints_nor_writes(asked, tmp_path, capsys):
    benchmark_in(tmp_path, Ranks(1, 2, torch.device("cpu"))).test(Model(), 3, 1, {}, last=True)
    assert asked.names() == ["k400", "ucf101", "hmdb51"]
    assert capsys.readouterr().out == "" and not list(tmp_path.iterdir())


def test_what_is_recorded_of_this_step_is_left_out_and_nothing_else(asked, tmp_path):
    """A kill in the middle of the last evaluation: the next start scores what is missing."""
    for step, name in ((3, "hmdb51"), (6, "ucf101"), (9, "k400")):
        with open(tmp_path / "metrics.jsonl", "a") as file:
            file.write(json.dumps({"step": step, "data": name}) + "\n")
    benchmark = benchmark_in(tmp_path)
    benchmark.test(Model(), 6, 2, {}, last=True)
    assert asked.names() == ["k400", "hmdb51"]
    lines = [(line["step"], line["data"]) for line in recorded(tmp_path)]
    assert lines == [(3, "hmdb51"), (6, "ucf101"), (9, "k400"), (6, "k400"), (6, "hmdb51")]
    benchmark.test(Model(), 6, 2, {}, last=True)
    benchmark.test(Model(), 9, 3, {})
    assert asked.names() == [] and len(recorded(tmp_path)) == 5


def test_all_ranks_leave_out_what_rank_0_finds_recorded(asked, tmp_path, monkeypatch):
    """A rank that read the file itself might see it before or after rank 0 writes."""
    monkeypatch.setattr(scoring, "from_rank_0", lambda found: {(6, "k400")})
    benchmark_in(tmp_path).test(Model(), 6, 2, {}, last=True)
    assert asked.names() == ["ucf101", "hmdb51"]


# --- how it is tested, and what is kept ------------------------------------------------------------
def test_tests_between_epochs_may_be_in_another_precision_than_the_first_and_the_last(asked, tmp_path):
    benchmark = benchmark_in(tmp_path, ALONE, "bf16", "tf32")
    benchmark.untrained(Model(), None)
    benchmark.test(Model(), 3, 1, {})
    benchmark.test(Model(), 6, 2, {}, last=True)
    benchmark.results.clear()
    benchmark.final(Model())
    precisions = [more["protocol"].precision for _, _, more in asked.calls]
    assert precisions == ["tf32"] * 3 + ["bf16"] + ["tf32"] * 3 + ["tf32"] * 3
    assert {more["protocol"].precision for _, _, more in asked.calls} == {"bf16", "tf32"}


def test_the_videos_of_a_dataset_are_looked_for_on_disk_once(asked, tmp_path, monkeypatch):
    looked = []
    monkeypatch.setattr(protocols.os.path, "exists", lambda path: looked.append(path) or True)
    benchmark = benchmark_in(tmp_path)
    for step in (3, 6, 9):
        benchmark.test(Model(), step, step, {}, last=step == 9)
    assert sorted(looked) == ["hmdb51.mp4", "k400.mp4", "ucf101.mp4"]


def test_only_tests_of_the_runs_own_set_in_the_precision_between_epochs_may_become_the_best(asked, tmp_path,
                                                                                           monkeypatch):
    asked_for = []
    monkeypatch.setattr(scoring, "name_best", lambda ranks, out, result: asked_for.append(
        (result["step"], result["data"], recorded(out)[-1:])))
    for keep, final, expected in ((True, "bf16", [3, 6]), (True, "fp32", [3]), (False, "bf16", [])):
        asked_for.clear()
        out = tmp_path / f"{keep}{final}"
        out.mkdir()
        benchmark = benchmark_in(out, ALONE, "bf16", final, keep)
        benchmark.test(Model(), 3, 1, {})
        benchmark.test(Model(), 6, 2, {}, last=True)
        assert [step for step, _, _ in asked_for] == expected and {name for _, name, _ in asked_for} <= {"k400"}
        # Before the test is recorded: a kill in between has it made again.
        assert all(not lines or lines[0]["step"] < step for step, _, lines in asked_for)


# --- the table at the end -------------------------------------------------------------------------
def test_the_end_does_not_score_twice(asked, tmp_path):
    benchmark = benchmark_in(tmp_path)
    benchmark.test(Model(), 3, 1, {})
    benchmark.test(Model(), 6, 2, {}, last=True)
    asked.names()
    results = benchmark.final(Model())
    assert asked.names() == [] and list(results) == list(SETS)
    assert [one["step"] for one in results.values()] == [6, 6, 6]            # the newest of each


def test_the_end_scores_what_only_an_earlier_process_has_scored(asked, tmp_path):
    benchmark_in(tmp_path).test(Model(), 6, 2, {})
    asked.names()
    again = benchmark_in(tmp_path)
    again.test(Model(), 6, 2, {}, last=True)
    assert asked.names() == ["ucf101", "hmdb51"]
    results = again.final(Model())
    assert asked.names() == ["k400"] and list(results) == list(SETS)
    assert results["k400"]["plain"]["top1"] == 10 and len(recorded(tmp_path)) == 3       # recorded once


# --- the untrained CLIP ---------------------------------------------------------------------------
def test_the_untrained_clip_is_scored_on_every_dataset_with_its_frames_averaged(asked, tmp_path):
    assert benchmark_in(tmp_path).untrained(Model(), None) == TOP1
    models = [model for model, _, _ in asked.calls]
    assert asked.names() == list(SETS)
    assert all(len(model.temporal.blocks) == 0 for model in models)
    assert not list(tmp_path.iterdir())                                      # nothing is recorded


OLDER = {"mean": list(OPENAI_MEAN), "std": OPENAI_STD}            # as a checkpoint has it that names no way to resize


@pytest.mark.parametrize("frames, config, clip, alike", [
    (8, {}, {}, True), (8, {"final_precision": "fp32"}, {"resize_mode": "shortest"}, True),
    (16, {}, {}, False), (8, {"final_precision": "bf16"}, {}, False),
    (8, {}, {"resize_mode": "squash"}, False), (8, {}, {"interpolation": "bilinear"}, False),
])
def test_known_scores_are_taken_only_for_as_many_frames_made_alike_in_the_same_precision(
        asked, tmp_path, frames, config, clip, alike):
    known = {"k400": 33.0, "ucf101": 44.0, "gone": 55.0}
    resumed = {"frames": frames, "untrained": known, "config": config, "clip": {**OLDER, **clip}}
    top1 = benchmark_in(tmp_path).untrained(Model(), resumed)
    assert asked.names() == (["hmdb51"] if alike else ["k400", "ucf101", "hmdb51"])
    assert top1 == ({"k400": 33.0, "ucf101": 44.0, "hmdb51": 0.0} if alike else TOP1)


def test_a_known_score_of_zero_is_known(asked, tmp_path):
    known = dict.fromkeys(SETS, 0.0)
    resumed = {"frames": 8, "untrained": known, "config": {}, "clip": OLDER}
    assert benchmark_in(tmp_path).untrained(Model(), resumed) == known
    assert asked.names() == []
