"""
--tensorboard writes the numbers of log.jsonl and metrics.jsonl, and none twice after a resume.

Without the package it is one line, before anything else.
"""
import importlib.util

import pytest
from support.faults import Killed, in_forward, killed

import train
from mote.runtime.board import Board
from mote.runtime.run_folder import read_log, read_metrics


def points(run, tag: str) -> list[tuple[int, float]]:
    """(step, number) of a curve, as TensorBoard shows it."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    curves = EventAccumulator(str(run / "tensorboard"), purge_orphaned_data=True)
    curves.Reload()
    return [(event.step, event.value) for event in curves.Scalars(tag)]


def test_a_killed_run_shows_each_number_of_its_log_once(job, tmp_path, monkeypatch):
    pytest.importorskip("tensorboard")
    flags = [*job, str(tmp_path), "--log-every", "1", "--save-every", "2", "--tensorboard"]
    with monkeypatch.context() as patch, pytest.raises(Killed):
        in_forward(patch, killed, 6)                             # step 5 is logged, step 4 is saved
        train.main(flags)
    train.main(flags)
    log = read_log(tmp_path)
    for name in ("loss", "L_TE", "lr_clip", "lr_temporal"):
        assert points(tmp_path, name) == [(line["step"], pytest.approx(line[name])) for line in log]
    line, = read_metrics(tmp_path)
    for tag, score in (("top-1", line["plain"]["top1"]), ("top-5 with modulation", line["modulated"]["top5"])):
        assert points(tmp_path, f"toyworld/{tag}") == [(6, pytest.approx(score))]


def test_a_number_can_be_read_at_once(tmp_path):
    """A kill may come next."""
    pytest.importorskip("tensorboard")
    board = Board(True, tmp_path, 0)
    board.add(1, {"loss": 2.5})
    board.add(2, {"loss": 1.5})                                  # the first one is flushed in any case
    assert points(tmp_path, "loss") == [(1, 2.5), (2, 1.5)]
    board.writer.close()


def test_nothing_is_written_unless_asked_for(tmp_path):
    Board(False, tmp_path, 0).add(1, {"loss": 1.0})
    assert not list(tmp_path.iterdir())


def test_without_the_package_it_is_one_line_before_any_work(tmp_path, monkeypatch, capsys):
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "tensorboard" else real(name))
    with pytest.raises(SystemExit) as stopped:
        train.main(["--tensorboard", "--data-root", str(tmp_path / "nowhere"), "--out", str(tmp_path / "run")])
    error = capsys.readouterr().err.splitlines()
    assert stopped.value.code == 2 and len(error) == 1 and "needs the package tensorboard" in error[0]
    assert not (tmp_path / "run").exists()
