"""
Nothing that a run has recorded is lost, whenever it is killed, and a start goes on from the newest good checkpoint.

Checked by killing each write of a start, by damaging each file, and on runs of 6 steps on 12 videos.
"""
import itertools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from support.faults import Killed, in_forward, killed, raises
from support.places import ROOT
from support.runs import ALONE
from torch import nn

import train
from mote import load_model
from mote.clip_backbone import Pixels
from mote.datasets.dataset import Dataset
from mote.runtime import run_folder as runs
from mote.runtime.board import Board
from mote.runtime.checkpoints import read_checkpoint, save_checkpoint
from mote.runtime.log import Meter
from mote.runtime.run_folder import Start, newest_checkpoint
from mote.scoring.benchmark import Benchmark, Conditions


# --- checkpoints that are kept --------------------------------------------------------------------
def save_step(out: Path, keep: int, step: int) -> None:
    """A checkpoint of a model without weights."""
    optimizer = SimpleNamespace(state_dict=dict)
    guard = SimpleNamespace(bad=SimpleNamespace(known=[]))
    runs.save(ALONE, out, keep, step, nn.Module(), optimizer, Meter(ALONE), guard, {})


@pytest.mark.parametrize("links", [True, False])
def test_the_newest_checkpoints_are_kept_last_is_the_newest_and_nothing_else_is_deleted(tmp_path, monkeypatch, links):
    mine = ["step_.pt", "step_best.pt", "step_1.5.pt", "step_-1.pt", "step_0.pt.bak", "my_step_0.pt", "best.pt"]
    for name in mine:
        (tmp_path / name).write_text(name)
    if not links:
        monkeypatch.setattr(os, "link", raises(OSError("not here")))
    for step, kept in ((8, [8]), (9, [8, 9]), (10, [8, 9, 10]), (101, [9, 10, 101])):
        save_step(tmp_path, 3, step)
        there = {path.name for path in tmp_path.iterdir()}
        assert there == {*mine, "last.pt", *(f"step_{n}.pt" for n in kept)}
        assert (tmp_path / "last.pt").read_bytes() == (tmp_path / f"step_{step}.pt").read_bytes()
        assert (tmp_path / "last.pt").samefile(tmp_path / f"step_{step}.pt") == links
    assert all((tmp_path / name).read_text() == name for name in mine)


def test_a_checkpoint_is_kept_beside_damaged_ones_of_more_steps(tmp_path):
    for step in (20, 19):                                        # passed over at the start: the run goes on from 8
        (tmp_path / f"step_{step}.pt").write_bytes(b"damaged")
    save_step(tmp_path, 2, 9)
    assert (tmp_path / "step_9.pt").exists()


# --- the start of a run ---------------------------------------------------------------------------
LOG = [{"step": 1, "epoch": 0.5, "loss": 2.5}, {"step": 2, "epoch": 1.0, "loss": 1.5}]
WHOLE = [{"step": 1, "data": "k400", "plain": {"top1": 1.5}}, {"step": 2, "data": "ucf101"}]
LISTS = ([("a.mp4", 0)], [("b.mp4", 0)], ["a class"], {"epochs": 2})      # and the options


def start_at(out: Path, step: int) -> Start:
    return Start(out, resumed={"step": step} if step else None)


def lines(*metrics: dict) -> bytes:
    return "".join(f"{json.dumps(line)}\n" for line in metrics).encode()


@pytest.mark.parametrize("bad", [b'{"step": 2, "data": "k4', b'{"step": 2, "data": "k400", "plain": {"top1": 3.0}',
                                 b"garbage", b"\0\0\0\0", b'{"data": "\xff\xfe', b"\xff", b"3", b"[1]", b"null", b"{}",
                                 b'{"step": null}', b""])
def test_a_line_of_metrics_that_a_kill_has_cut_is_left_out_and_no_other(tmp_path, bad):
    file = tmp_path / "metrics.jsonl"
    for content in (lines(*WHOLE) + bad, lines(WHOLE[0]) + bad + b"\n" + lines(WHOLE[1])):
        file.write_bytes(content)
        assert runs.evaluated(tmp_path) == {(1, "k400"), (2, "ucf101")}
        runs.open_run(ALONE, start_at(tmp_path, 2), *LISTS)
        assert file.read_bytes() == lines(*WHOLE)
    runs.open_run(ALONE, start_at(tmp_path, 1), *LISTS)                    # going on from step 1: the others come again
    assert file.read_bytes() == lines(WHOLE[0])


def test_log_lines_of_after_the_start_are_cut_and_those_that_a_kill_has_cut_left_out(tmp_path):
    (tmp_path / "log.jsonl").write_bytes(lines(*LOG, {"step": 3, "epoch": 1.5}) + b'{"step": 1, "epo')
    runs.open_run(ALONE, start_at(tmp_path, 2), *LISTS)
    assert (tmp_path / "log.jsonl").read_bytes() == lines(*LOG)
    runs.open_run(ALONE, start_at(tmp_path, 0), *LISTS)
    assert (tmp_path / "log.jsonl").read_bytes() == b""


def test_a_killed_run_logs_each_step_once_as_if_it_had_not_been_killed(job, tmp_path, monkeypatch):
    flags = [*job, str(tmp_path / "killed"), "--log-every", "1", "--save-every", "2"]
    with monkeypatch.context() as patch, pytest.raises(Killed):
        in_forward(patch, killed, 6)                             # step 5 is logged, step 4 is saved
        train.main(flags)
    train.main(flags)
    train.main([*job, str(tmp_path / "whole"), "--log-every", "1"])
    logs = [runs.read_log(tmp_path / name) for name in ("killed", "whole")]
    assert [line["step"] for line in logs[0]] == [1, 2, 3, 4, 5, 6]
    for line in (*logs[0], *logs[1]):
        del line["clips_per_second"], line["data_wait"]          # all else is the same bit for bit
    assert logs[0] == logs[1]


def half_written(path, text, **_):
    path.write_bytes(text[:7].encode())
    raise Killed


@pytest.mark.parametrize("where, what, calls", [
    (Path, "write_text", 0), (os, "replace", 0), (Path, "write_text", 1), (os, "replace", 1), (Path, "write_text", 2),
    (runs, "write_split", 0), (Path, "write_text", 3), (runs, "write_split", 1), (Path, "write_text", 4)])
@pytest.mark.parametrize("history", [(), WHOLE])
def test_a_kill_between_the_writes_of_a_start_loses_nothing_and_the_next_start_is_not_refused(
        tmp_path, monkeypatch, where, what, calls, history):
    if history:
        runs.open_run(ALONE, start_at(tmp_path, 0), *LISTS)
        (tmp_path / "metrics.jsonl").write_bytes(lines(*history))
        (tmp_path / "log.jsonl").write_bytes(lines(*LOG))
    real, kill, count = getattr(where, what), half_written if where is Path else killed, itertools.count()
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(where, what, lambda *a, **k: kill(*a, **k) if next(count) == calls else real(*a, **k))
        runs.open_run(ALONE, start_at(tmp_path, 2), *LISTS)
    assert runs.read_metrics(tmp_path) == list(history)
    runs.open_run(ALONE, start_at(tmp_path, 2), *LISTS)
    assert runs.read_metrics(tmp_path) == list(history)
    assert runs.read_log(tmp_path) == (LOG if history else [])
    assert (tmp_path / "train.txt").read_text() == "a.mp4 0\n" and (tmp_path / "val.txt").read_text() == "b.mp4 0\n"


def test_what_a_kill_left_of_a_checkpoint_is_removed_at_the_next_start_and_nothing_else(tmp_path):
    left, kept = [".step_9.pt.123", ".last.pt.77"], ["step_9.pt", ".hidden", "notes.pt.txt"]
    for name in left + kept:
        (tmp_path / name).touch()
    runs.open_run(ALONE, start_at(tmp_path, 0), *LISTS)
    there = {path.name for path in tmp_path.iterdir()}
    assert there == {*kept, "metrics.jsonl", "log.jsonl", "config.json", "train.txt", "val.txt", "classes.csv"}


# --- one run in a folder --------------------------------------------------------------------------
HOLDER = ("import sys; from pathlib import Path; from mote.runtime.run_folder import hold\n"
          "hold(Path(sys.argv[1])); print('held', flush=True); sys.stdin.read()")


def test_a_folder_is_one_runs_until_it_ends_however_it_ends(tmp_path):
    other = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdin=subprocess.PIPE,
                             stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert other.stdout.readline() == "held\n"
    for resume in ("", "auto"):
        with pytest.raises(ValueError, match="another run is writing there; wait for its end, or choose another --out"):
            runs.find_start(str(tmp_path), resume, "", "data")
    other.kill()
    other.wait()
    assert runs.find_start(str(tmp_path), "", "", "data").out == tmp_path    # its lock counts as nothing
    assert runs.find_start(str(tmp_path), "auto", "", "data").resumed is None


def test_a_table_of_an_earlier_end_goes_when_the_run_goes_on(tmp_path):
    (tmp_path / "results.json").write_text("{}")
    runs.open_run(ALONE, start_at(tmp_path, 2), *LISTS)
    assert not (tmp_path / "results.json").exists()


def test_where_only_the_best_checkpoint_is_left_the_run_goes_on_from_it(saved, tmp_path):
    for name, step in (("best", 3), ("last", 6)):
        save_checkpoint(tmp_path / f"{name}.pt", {**saved, "step": step})
    assert newest_checkpoint(tmp_path)["step"] == 6
    (tmp_path / "last.pt").unlink()
    assert newest_checkpoint(tmp_path)["step"] == 3
    (tmp_path / "best.pt").write_bytes(b"damaged")
    with pytest.raises(ValueError, match="there are checkpoints in .* and none can be read"):
        runs.resume_newest(tmp_path)


# --- evaluations ----------------------------------------------------------------------------------
def test_a_skipped_video_is_a_failed_one_in_evaluation_and_what_is_recorded_is_evaluated(world, tmp_path, capsys):
    model, skipped = load_model("tests/golden/official_tiny_checkpoint.pt"), tmp_path / "skipped.txt"
    videos = [(str(path), i) for i, path in enumerate(sorted((world / "toyworld/videos").iterdir())[:3])]
    skipped.write_text(f"{videos[1][0]}\n")
    classes = [f"class {i}" for i in range(12)]
    datasets = {name: Dataset(name, videos, classes, "") for name in ("some", "other")}
    embeddings = dict.fromkeys(datasets, model.finetune_classes)
    conditions, board = Conditions(["{}"], 2, 32, Pixels(), 0), Board(False, tmp_path, 0)
    benchmark = Benchmark(datasets, embeddings, conditions, ALONE, tmp_path, board)
    benchmark.test(model, 3, 1, {}, last=True)
    benchmark.test(model, 6, 2, {})
    result = benchmark.results["some"]
    assert result["failed"] == [videos[1][0]] and (result["videos"], result["decoded"]) == (3, 2)
    assert result["plain"]["top5_failures_wrong"] == pytest.approx(result["plain"]["top5"] * 2 / 3)
    assert runs.evaluated(tmp_path) == {(3, "some"), (3, "other"), (6, "some")}
    assert f"1 of 3 videos could not be decoded: {videos[1][0]}" in capsys.readouterr().out
    skipped.write_text("".join(f"{path}\n" for path, _ in videos))
    with pytest.raises(ValueError, match="none of the 3 videos could be decoded"):
        benchmark.test(model, 9, 3, {})


def test_an_evaluation_that_is_recorded_is_not_repeated_after_a_kill(job, tmp_path, monkeypatch):
    flags = [*job, str(tmp_path), "--eval-every", "1"]
    with monkeypatch.context() as patch, pytest.raises(Killed):
        in_forward(patch, killed, 4)                             # after the first epoch's checkpoint and evaluation
        train.main(flags)
    train.main(flags)
    assert [line["step"] for line in runs.read_metrics(tmp_path)] == [3, 6]


# --- going on -------------------------------------------------------------------------------------
@pytest.mark.parametrize("flags, words", [
    (["--epochs", "1"], "step 6 of the checkpoint is past the 3 steps of --epochs 1"),
    (["--batch", "2"], "trained with another batch (4, now 2)"), ([], "there are checkpoints in")])
def test_a_resume_that_cannot_go_on_is_one_line(straight, job, tmp_path, capsys, flags, words):
    (tmp_path / "last.pt").write_bytes((straight / "last.pt").read_bytes()[:None if flags else 5000])
    with pytest.raises(SystemExit) as stopped:
        train.main([*job, str(tmp_path), *flags])
    error = capsys.readouterr().err
    assert stopped.value.code == 2 and words in error and len(error.strip().splitlines()) == 1
    assert {file.name for file in tmp_path.iterdir()} == {"last.pt", ".lock"}


def test_a_foreign_checkpoint_without_what_a_resume_needs_is_one_line(straight, tmp_path):
    whole = read_checkpoint(straight)
    for key in ("optimizer", "config", "frames", "untrained"):
        save_checkpoint(tmp_path / "x.pt", {name: value for name, value in whole.items() if name != key})
        with pytest.raises(ValueError, match=f"no {key} in it"):
            runs.find_start(str(tmp_path / "new"), str(tmp_path / "x.pt"), "", "toyworld")


def test_the_newest_checkpoint_is_the_one_with_the_most_steps(saved, tmp_path):
    assert newest_checkpoint(tmp_path) is None and newest_checkpoint(tmp_path / "nowhere") is None
    for name, step in (("last", 20), ("step_5", 5), ("step_100", 100), ("step_30", 30)):
        save_checkpoint(tmp_path / f"{name}.pt", {**saved, "step": step})
    assert newest_checkpoint(tmp_path)["step"] == 100


def test_damaged_checkpoints_are_passed_over_and_named(saved, tmp_path, capsys):
    for step in (10, 20, 30):
        save_checkpoint(tmp_path / f"step_{step}.pt", {**saved, "step": step})
    whole = (tmp_path / "step_30.pt").read_bytes()
    (tmp_path / "step_30.pt").write_bytes(whole[:len(whole) // 2])
    (tmp_path / "last.pt").touch()
    assert newest_checkpoint(tmp_path)["step"] == 20
    printed = capsys.readouterr().out
    assert "step_30.pt" in printed and "last.pt" in printed and len(printed.splitlines()) == 2


def test_a_run_of_damaged_checkpoints_has_none(tmp_path):
    (tmp_path / "last.pt").write_text("not a checkpoint")
    assert newest_checkpoint(tmp_path) is None


def test_half_written_files_are_no_checkpoints(saved, tmp_path):
    save_checkpoint(tmp_path / "last.pt", saved)
    shutil.copy(tmp_path / "last.pt", tmp_path / ".step_9.pt.123")           # a kill -9 leaves this
    assert newest_checkpoint(tmp_path)["step"] == 0
    assert read_checkpoint(tmp_path)["step"] == 0
