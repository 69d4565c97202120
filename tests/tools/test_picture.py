"""
tools/picture.py says in words what the table has in numbers, and draws whatever a run has written so far.
"""
import json
import re

import pytest
import torch
from support.pages import block_after
from support.readme import README

from tools import picture

UNTRAINED, TRAINED, MODULATED = "untrained CLIP, frames averaged", "trained", "trained, with modulation"
ROWS = {UNTRAINED: {"k400": 15.0, "ucf101": 16.6, "hmdb51": 50.04},
        TRAINED: {"k400": 79.4, "ucf101": 4.6, "hmdb51": 50.01},
        MODULATED: {"k400": 79.4, "ucf101": 20.0, "hmdb51": 49.0}}


# --- the sentences --------------------------------------------------------------------------------
def test_the_three_sentences_of_a_table_by_hand():
    assert picture.sentences(ROWS) == [
        "On test videos of k400, the dataset that the model was trained on, top-1 rose from 15.0 to 79.4 per cent.",
        "On datasets that it was not trained on, top-1 fell from 16.6 to 4.6 (ucf101) and stayed at 50.0 (hmdb51).",
        "With modulation (Eq. 11), which shrinks the temporal feature the further the test classes are from the "
        "training classes, top-1 stayed at "
        "79.4 (k400), rose from 4.6 to 20.0 (ucf101) and fell from 50.0 to 49.0 (hmdb51)."]


def test_a_table_of_one_dataset_has_three_sentences_too():
    rows = {row: {"k400": top1["k400"]} for row, top1 in ROWS.items()}
    first, second, third = picture.sentences(rows)
    assert first == picture.sentences(ROWS)[0] and "no other dataset" in second
    assert third.endswith("top-1 stayed at 79.4 (k400).")


def test_the_readme_shows_the_sentences_of_the_table_that_it_shows():
    shown = block_after(README, "make demo").splitlines()
    names = shown[0].split()[3:]
    rows = {}
    for line in shown[1:4]:
        row, numbers = re.fullmatch(r"(.*?)  +([\d. ]+)", line).groups()
        rows[row] = dict(zip(names, map(float, numbers.split()), strict=True))
    assert shown[4:7] == picture.sentences(rows)


# --- the picture ----------------------------------------------------------------------------------
@pytest.fixture
def drawn(monkeypatch):
    """The figures that are saved, with what is on them; they would be closed."""
    pytest.importorskip("matplotlib")
    import matplotlib.pyplot as plt
    figures = []
    monkeypatch.setattr(plt, "close", figures.append)
    yield figures
    monkeypatch.undo()
    plt.close("all")


def folder(place, epochs: int, rows=ROWS, loss: float = 4.0):
    """A run's folder, a log line and an evaluation an epoch; no video."""
    place.mkdir()
    numbers = {"loss": loss, "L_TE": 2.0, "L_NEW": 1.0, "lr_clip": 1e-5, "lr_temporal": 1e-3}
    log = [{"step": 10 * n, "epoch": float(n), **numbers} for n in range(1, epochs + 1)]
    tests = [{"step": 10 * n, "epoch": n, "data": "k400", "plain": {"top1": 40.0 + n}} for n in range(1, epochs + 1)]
    for name, lines in (("log", log), ("metrics", tests)):
        (place / f"{name}.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    if rows:
        (place / "results.json").write_text(json.dumps(rows))
    return place


def panel(figure, title: str, run: int = 0) -> dict:
    """What is drawn on an axis, by its label: (x, y) of each curve."""
    axes = [one for one in figure.subfigs[run].axes if one.get_ylabel() == title and one.lines]
    return {line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in axes[0].lines}


def test_the_curves_are_the_lines_of_the_log_and_of_the_metrics(drawn, tmp_path):
    out = picture.main([str(folder(tmp_path / "run", 2))])
    assert out == tmp_path / "run" / "results.png" and out.stat().st_size > 0
    figure, = drawn
    assert panel(figure, "loss") == {"loss": ([1, 2], [4, 4]), "L_TE": ([1, 2], [2, 2]), "L_NEW": ([1, 2], [1, 1])}
    assert panel(figure, "learning rate") == {"CLIP": ([1, 2], [1e-5] * 2),
                                              "temporal transformer": ([1, 2], [1e-3] * 2)}
    assert panel(figure, "top-1, per cent") == {"k400": ([0, 1, 2], [15, 41, 42])}       # from the untrained CLIP on


def test_several_runs_stand_side_by_side_on_the_same_axes(drawn, tmp_path):
    runs = [folder(tmp_path / "a", 2), folder(tmp_path / "b", 5, loss=9.0)]
    assert picture.main([*map(str, runs), "--out", str(tmp_path / "both.png")]) == tmp_path / "both.png"
    figure, = drawn
    assert len(figure.subfigs) == 2 and panel(figure, "loss", run=1)["loss"] == ([1, 2, 3, 4, 5], [9] * 5)
    for title in ("loss", "learning rate"):
        pair = [[axes for axes in part.axes if axes.get_ylabel() == title][0] for part in figure.subfigs]
        assert pair[0].get_xlim() == pair[1].get_xlim() and pair[0].get_ylim() == pair[1].get_ylim()


def test_a_run_that_has_not_ended_has_curves_and_no_sentences(drawn, tmp_path, capsys):
    out = picture.main([str(folder(tmp_path / "run", 1, rows=None))])
    assert capsys.readouterr().out == f"{out}\n"
    assert panel(drawn[0], "top-1, per cent") == {"k400": ([1], [41])}


def test_a_run_of_before_log_jsonl_has_a_table(drawn, tmp_path, capsys):
    run = folder(tmp_path / "run", 1)
    (run / "log.jsonl").unlink()
    assert picture.main([str(run)]).exists()
    assert capsys.readouterr().out.splitlines()[:3] == picture.sentences(ROWS)


def test_the_strip_has_the_frames_of_the_first_test_video_in_their_order(world, tmp_path):
    run = folder(tmp_path / "run", 1)
    video = world / "toyworld/videos/val_circle_moving_right_0.mp4"
    (run / "val.txt").write_text(f"{video} 1\n")
    (run / "classes.csv").write_text("id,name\n0,no\n1,moving right\n")
    read = picture.read_run(run)
    frames = picture.decode(video, lambda n: picture.segment_indices(n, picture.FRAMES)[0])
    width = read.strip.shape[1] // picture.FRAMES
    parts = read.strip.unflatten(1, (picture.FRAMES, width))[:, :, :frames.shape[3]]
    assert read.words == "moving right" and torch.equal(parts.permute(1, 3, 0, 2), frames)


def test_a_folder_with_nothing_to_draw_is_one_line(tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        picture.main([str(tmp_path)])
    assert stopped.value.code == 2 and "not a run" in capsys.readouterr().err
