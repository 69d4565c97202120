"""
A tower's own pixels, from its description to every number: train.py and eval.py on a tower that is not OpenAI's.

Its frames are squashed and bilinear, its mean and standard deviation are its own. Checked on videos that are twice as
wide as high, against the model called by hand on frames made here.
"""
import json
import re

import pytest
import torch
import torch.nn.functional as F
from support.places import ROOT
from support.ramps import write_video
from support.runs import SMALL, checkpoint, metrics
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as vision

import eval as evaluation
import train
from mote import load_model
from mote.data import decode, segment_indices
from mote.datasets.dataset import open_dataset
from mote.files.towers.pixels import OPENAI_MEAN, OPENAI_STD
from mote.runtime.ranks import find_ranks
from mote.toyworld import MOTIONS, generate, make_clip

OPENAI = {"mean": list(OPENAI_MEAN), "std": list(OPENAI_STD), "resize_mode": "shortest", "interpolation": "bicubic"}
OWN = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4], "resize_mode": "squash", "interpolation": "bilinear"}
LINE = ", squashed to 40, bilinear, mean 0.5 0.4 0.3, std 0.2 0.3 0.4, K 5, "


def tower(folder, **pixels) -> list[str]:
    """The options of toyworld's CLIP, its frames made as described."""
    folder.mkdir(parents=True, exist_ok=True)
    config = json.loads((ROOT / "mote/toyworld/toyworld.json").read_text())
    (folder / "tower.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {**OPENAI, **pixels}}))
    return ["--backbone", str(folder / "tower.json"), "--pretrained", "toyworld"]


@pytest.fixture(scope="module")
def squashing(tmp_path_factory):
    return tower(tmp_path_factory.mktemp("squashing"), **OWN)


@pytest.fixture(scope="module")
def trained(world, squashing, tmp_path_factory):
    run = tmp_path_factory.mktemp("pixels") / "run"
    train.main([*SMALL, *squashing, "--epochs", "1", "--zero-shot", "", "--out", str(run)])
    return run


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """A dataset of six motions, one video of each, 96 x 48."""
    folder = tmp_path_factory.mktemp("wide")
    for i, motion in enumerate(MOTIONS):
        frames = make_clip("star", "red", motion, (0, i)).float()
        wider = F.interpolate(frames, (48, 96), mode="bilinear").round().to(torch.uint8)
        write_video(folder / f"{i}.mp4", wider.contiguous())
    (folder / "val.txt").write_text("".join(f"{i}.mp4 {i}\n" for i in range(len(MOTIONS))))
    (folder / "classes.csv").write_text("".join(f"{i},star {motion}\n" for i, motion in enumerate(MOTIONS)))
    return folder


def answers(result: dict) -> list[list[int]]:
    return [row["plain"] for row in result["splits"][0]["per_video"]]


# --- a checkpoint -------------------------------------------------------------------------------------------------
def test_a_checkpoint_of_a_tower_that_squashes_is_tested_on_squashed_frames(trained, wide, capsys):
    """By eval.py, later, without a word on it: the checkpoint says how."""
    result = evaluation.main(["--checkpoint", str(trained), "--data-root", str(wide), "--workers", "0"])
    assert LINE in capsys.readouterr().out

    data = open_dataset("wide", "val", str(wide))
    loaded = evaluation.load(evaluation.parse_config(["--checkpoint", str(trained), "--data-root", str(wide)]),
                             data.classes, find_ranks("cpu"))
    model, classes = load_model(trained), loaded.embed(tuple(data.classes))
    expected = []
    for path, _ in data.videos:
        frames = decode(path, lambda n: segment_indices(n, 8)[0])
        frames = vision.resize(frames, [40, 40], interpolation=InterpolationMode.BILINEAR, antialias=True)
        mean, std = (torch.tensor(OWN[name])[:, None, None] for name in ("mean", "std"))
        with torch.no_grad():
            cosine = model(((frames / 255 - mean) / std)[None], classes, modulate=False)
        expected.append(cosine[0].topk(5).indices.tolist())
    assert answers(result) == expected


def test_ones_own_video_is_squashed_too(trained, wide, monkeypatch):
    seen = []
    real = evaluation.view_cosines
    monkeypatch.setattr(evaluation, "view_cosines", lambda model, frames, *rest: seen.append(frames) or real(
        model, frames, *rest))
    evaluation.main(["--checkpoint", str(trained), "--video", str(wide / "0.mp4"), "--classes", "star growing, star"])
    frames = decode(wide / "0.mp4", lambda n: segment_indices(n, 8)[0])
    frames = vision.resize(frames, [40, 40], interpolation=InterpolationMode.BILINEAR, antialias=True)
    torch.testing.assert_close(seen[0], frames, rtol=0, atol=0)


def test_train_tests_and_keeps_the_pixels_of_its_tower(trained):
    clip = checkpoint(trained)["clip"]
    assert {name: list(clip[name]) if name in ("mean", "std") else clip[name] for name in OWN} == OWN
    for line in metrics(trained):
        assert {name: line["protocol"][name] for name in OWN} == OWN and line["protocol"]["resize"] == 40


def test_resuming_with_another_mean_or_std_is_refused(trained, tmp_path, capsys):
    """A file of weights does not say them: the same options may find others one day."""
    for name in ("mean", "std"):
        flags = tower(tmp_path, **{**OWN, name: [0.25, 0.25, 0.25]})
        with pytest.raises(SystemExit):
            train.main([*SMALL, *flags, "--resume", str(trained / "last.pt"), "--out", str(tmp_path / "out")])
        said = capsys.readouterr().err
        assert "--resume: the checkpoint was trained with mean (0.5, 0.4, 0.3) and std (0.2, 0.3, 0.4)" in said
        assert "(0.25, 0.25, 0.25)" in said and len(said.strip().splitlines()) == 1


# --- what a tower that squashes refuses ---------------------------------------------------------------------------
@pytest.mark.parametrize("option, value", [("--crops", "3"), ("--resize", "48"), ("--resize", "40")])
@pytest.mark.parametrize("which", ["CLIP", "a checkpoint", "a checkpoint, and CLIP for its words"])
@pytest.mark.parametrize("own", [True, False], ids=["video", "dataset"])
def test_a_part_of_a_squashed_frame_is_refused_before_any_work(
        squashing, trained, wide, option, value, which, own, capsys, monkeypatch):
    """The tower's own pixels count: the CLIP that lends a checkpoint its text tower may crop."""
    for name in ("TestViews", "evaluate", "class_embeddings"):
        monkeypatch.setattr(evaluation, name, lambda *_, **__: pytest.fail("too late"))
    model, said_of = squashing, squashing[3]
    if which != "CLIP":
        model, said_of = ["--checkpoint", str(trained)], trained
    if "words" in which:
        model = [*model, "--backbone", "toyworld", "--pretrained", "toyworld"]
    tested = ["--video", str(wide / "0.mp4"), "--classes", "a, b"] if own else ["--data-root", str(wide)]
    with pytest.raises(SystemExit) as stopped:
        evaluation.main([*model, *tested, option, value])
    said = capsys.readouterr().err.strip().splitlines()
    assert stopped.value.code == 2 and len(said) == 1
    assert f"{option} {value}: the tower of {said_of} squashes the whole frame" in said[0]
    assert said[0].endswith(f"leave {option} out")


def test_a_tower_that_crops_takes_both_whatever_its_other_pixels(tmp_path, wide, capsys):
    flags = tower(tmp_path, **{**OWN, "resize_mode": "shortest"})
    evaluation.main([*flags, "--data-root", str(wide), "--workers", "0", "--crops", "3", "--resize", "44"])
    assert " 1 x 3 views, short side 44, bilinear, mean 0.5 0.4 0.3, std 0.2 0.3 0.4, " in capsys.readouterr().out


# --- what a number says of itself ---------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def appearances(tmp_path_factory):
    """toyworld-appearance, and a list of ten of its videos."""
    folder = generate(tmp_path_factory.mktemp("data") / "set", "toyworld-appearance", clips={"val": 1})
    lines = (folder / "val.txt").read_text().splitlines(keepends=True)
    (folder / "few.txt").write_text("".join(lines[::6]))
    return ["--data-root", str(folder), "--list", str(folder / "few.txt"), "--workers", "0"]


@pytest.mark.parametrize("wrong", [{"mean": [0.0, 0.0, 0.0]}, {"std": [1.0, 1.0, 1.0]}, {"resize_mode": "squash"},
                                   {"interpolation": "bilinear"}], ids=lambda wrong: next(iter(wrong)))
def test_wrong_pixels_are_seen_in_the_protocol_and_its_fingerprint(tmp_path, appearances, wrong, capsys):
    """The same weights, videos and classes: what is left to differ is how the frames are made."""
    results, lines = [], []
    for flags in (["--backbone", "toyworld", "--pretrained", "toyworld"], tower(tmp_path / "right"),
                  tower(tmp_path / "wrong", **wrong)):
        results.append(evaluation.main([*flags, *appearances])["splits"][0])
        lines += re.findall("^protocol .*", capsys.readouterr().out, flags=re.M)
    shipped, right, other = (result["protocol"] for result in results)
    assert shipped == right and lines[0] == lines[1] != lines[2]
    assert right["fingerprint"] != other["fingerprint"] and lines[2].startswith(f"protocol {other['fingerprint']}: ")
    assert {name for name in right if right[name] != other[name]} == {"fingerprint", *wrong}
    assert results[0]["per_video"] == results[1]["per_video"]
    if "mean" in wrong or "std" in wrong:                        # squares stay squares, and 48 to 40 pixels is little
        assert results[1]["per_video"] != results[2]["per_video"]
