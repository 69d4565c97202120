"""
best.pt is the checkpoint whose test had the highest close-set top-1, whatever is kept, killed or gone on with.
"""
import json
from pathlib import Path

import pytest
from support.runs import ALONE

import train
from mote.runtime import run_folder as runs
from mote.runtime.best import forget_best, name_best, read_best
from mote.runtime.checkpoints import read_checkpoint


def result_of(step: int, top1: float, precision: str = "fp32") -> dict:
    return {"step": step, "data": "k400", "plain": {"top1": top1}, "protocol": {"precision": precision}}


def best_of(out: Path, *results: dict) -> int:
    """Name the best of these tests, one after the other. -> the step whose checkpoint best.pt is"""
    for result in results:
        (out / f"step_{result['step']}.pt").write_text(str(result["step"]))
        name_best(ALONE, out, result)
    step = int((out / "best.pt").read_text())
    assert read_best(out)["step"] == step
    return step


@pytest.mark.parametrize("top1s, best", [([50, 60, 55], 2), ([50, 50], 1), ([0], 1), ([60, 50, 60, 61], 4)])
def test_best_is_the_highest_top1_and_ties_go_to_the_earlier(tmp_path, top1s, best):
    assert best_of(tmp_path, *[result_of(step, top1) for step, top1 in enumerate(top1s, 1)]) == best


def test_best_survives_when_its_checkpoint_is_no_longer_kept(tmp_path):
    assert best_of(tmp_path, result_of(1, 90.0)) == 1
    (tmp_path / "step_1.pt").unlink()
    assert best_of(tmp_path, result_of(2, 80.0)) == 1
    assert best_of(tmp_path, result_of(3, 95.0)) == 3
    assert not list(tmp_path.glob(".*"))


def test_numbers_of_two_precisions_are_not_compared_and_that_is_said(tmp_path, capsys):
    assert best_of(tmp_path, result_of(1, 90.0, "bf16"), result_of(2, 60.0), result_of(3, 50.0)) == 2
    assert capsys.readouterr().out == ("--keep-best: tests are in fp32 now, and were in bf16: best.pt begins anew\n")


def test_a_checkpoint_that_lies_elsewhere_is_said_and_stands_in_nobodys_way(tmp_path, capsys):
    name_best(ALONE, tmp_path, result_of(1, 90.0))
    assert capsys.readouterr().out == f"--keep-best: no {tmp_path / 'step_1.pt'}, so it cannot become best.pt\n"
    assert not list(tmp_path.iterdir())
    assert best_of(tmp_path, result_of(2, 80.0)) == 2


@pytest.mark.parametrize("damage", ["", "[]", "{}", '{"step": 1}', "7"])
def test_a_damaged_note_means_that_there_is_no_best_yet(tmp_path, damage):
    best_of(tmp_path, result_of(1, 90.0))
    (tmp_path / "best.json").write_text(damage)
    assert read_best(tmp_path) is None and best_of(tmp_path, result_of(2, 10.0)) == 2


def test_a_best_of_steps_that_are_made_again_is_forgotten_and_no_other(tmp_path):
    best_of(tmp_path, result_of(6, 90.0))
    forget_best(tmp_path, 6)
    assert read_best(tmp_path)["step"] == 6
    forget_best(tmp_path, 5)
    assert not (tmp_path / "best.pt").exists() and not (tmp_path / "best.json").exists()
    forget_best(tmp_path, 5)


def test_a_run_keeps_its_best_and_one_that_goes_on_does_too(job, tmp_path):
    flags = [*job, str(tmp_path), "--keep", "1", "--eval-every", "1", "--keep-best"]
    for epochs in ("3", "4"):
        train.main([*flags, "--epochs", epochs])
        lines = runs.read_metrics(tmp_path)
        best = max(lines, key=lambda line: (line["plain"]["top1"], -line["step"]))
        assert read_checkpoint(tmp_path / "best.pt")["step"] == best["step"]
        assert json.loads((tmp_path / "best.json").read_text()) == {
            "step": best["step"], "precision": "fp32", "top1": best["plain"]["top1"]}


def test_a_run_that_is_opened_at_an_earlier_step_forgets_a_later_best(tmp_path):
    best_of(tmp_path, result_of(6, 90.0))
    lists = [("a.mp4", 0)], [("b.mp4", 0)], ["a class"]
    for step, there in ((6, True), (3, False)):
        runs.open_run(ALONE, runs.Start(tmp_path, resumed={"step": step}), *lists, {})
        assert (tmp_path / "best.pt").exists() == there


def test_a_file_that_has_the_name_already_leaves_no_second_one(tmp_path):
    (tmp_path / "step_1.pt").write_text("1")
    for _ in range(2):                                           # as where a test is made again after a kill
        name_best(ALONE, tmp_path, result_of(1, 90.0))
        (tmp_path / "best.json").unlink()
    assert {file.name for file in tmp_path.iterdir()} == {"step_1.pt", "best.pt"}
