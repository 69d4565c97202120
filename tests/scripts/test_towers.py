"""
train.py and eval.py on a model that lies in a folder, and on a file that does not say how its frames are made.

Checked on toyworld's CLIP in a folder: the scores are those of the shipped one. Mistakes are one line, before videos.
"""
import json
import shutil

import pytest
import torch
from support.clips import TINY
from support.places import ROOT
from support.runs import SMALL, checkpoint

import eval as evaluation
import train
from mote import load_model
from mote.clip_backbone import build_clip, load_clip

SHIPPED = ROOT / "mote/toyworld"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """toyworld's CLIP as open_clip's folders are."""
    folder = tmp_path_factory.mktemp("place") / "model"
    folder.mkdir()
    model = json.loads((SHIPPED / "toyworld.json").read_text())
    pixels = model.pop("preprocess_cfg")
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": model, "preprocess_cfg": pixels}))
    shutil.copy(SHIPPED / "toyworld.pt", folder / "open_clip_pytorch_model.bin")
    return folder


def plain(flags):
    result = evaluation.main([*flags, "--data", "toyworld-novel", "--workers", "0"])
    return [row["plain"] for row in result["splits"][0]["per_video"]]


def test_a_folder_is_the_model_that_lies_in_it_in_training_and_in_tests(world, folder, tmp_path):
    place = ["--backbone", f"local-dir:{folder}"]
    assert plain(place) == plain(["--backbone", "toyworld", "--pretrained", "toyworld"])

    out = tmp_path / "run"
    train.main([*SMALL, "--epochs", "1", "--zero-shot", "", *place, "--out", str(out)])
    about = checkpoint(out)["clip"]
    assert (about["backbone"], about["pretrained"]) == (f"local-dir:{folder}", "")
    assert len(plain(["--checkpoint", str(out)])) == 40          # the checkpoint says where the text tower lies
    moved = shutil.copytree(folder, tmp_path / "moved")
    assert plain(["--checkpoint", str(out), "--backbone", f"local-dir:{moved}"]) == plain(["--checkpoint", str(out)])


def test_the_tag_that_a_file_was_trained_as_travels_in_the_checkpoint(world, tmp_path):
    """A file without a description: asked for in training, and not again in a test."""
    config = json.loads((SHIPPED / "toyworld.json").read_text())
    del config["preprocess_cfg"]
    (tmp_path / "bare.json").write_text(json.dumps(config))
    bare = ["--backbone", str(tmp_path / "bare.json"), "--pretrained", "toyworld"]
    out = tmp_path / "run"
    with pytest.raises(SystemExit, match="2"):
        train.main([*SMALL, *bare, "--zero-shot", "", "--out", str(tmp_path / "asked")])
    train.main([*SMALL, "--epochs", "1", *bare, "--as-tag", "ViT-L-14/laion2b_s32b_b82k", "--zero-shot", "",
                "--out", str(out)])
    about = checkpoint(out)["clip"]
    assert about["as_tag"] == "ViT-L-14/laion2b_s32b_b82k" and tuple(about["mean"]) == (0.5, 0.5, 0.5)
    assert len(plain(["--checkpoint", str(out)])) == 40


@pytest.mark.parametrize("flags, said", [
    (["--checkpoint-activations"], "--checkpoint-activations: this visual tower, a ModifiedResNet, does not"),
    (["--tokenizer", "nowhere"], "--tokenizer nowhere"),
    (["--as-tag", "nothing"], "--as-tag nothing: no tag of "),
    (["--pretrained", "openai"], "neither a file nor a tag of "),
])
def test_what_does_not_fit_a_tower_is_one_line_before_any_video(world, tmp_path, capsys, monkeypatch, flags, said):
    for decoder in ("decode", "decode_distinct"):
        monkeypatch.setattr(f"mote.data.{decoder}", lambda *_: pytest.fail("a video was decoded"))
    vision = {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8, "patch_size": None}
    (tmp_path / "resnet.json").write_text(json.dumps({**TINY, "vision_cfg": vision}))
    torch.save(build_clip({**TINY, "vision_cfg": vision}).state_dict(), tmp_path / "resnet.pt")
    resnet = ["--backbone", str(tmp_path / "resnet.json"), "--pretrained", str(tmp_path / "resnet.pt")]
    with pytest.raises(SystemExit, match="2"):
        train.main([*SMALL, *resnet, "--zero-shot", "", "--out", str(tmp_path / "run"), *flags])
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("train.py: error: ") and said in last


def test_of_another_text_tower_the_checkpoint_says_so(world, folder, tmp_path, capsys):
    out = tmp_path / "run"
    train.main([*SMALL, "--epochs", "1", "--zero-shot", "", "--out", str(out)])
    other = shutil.copytree(folder, tmp_path / "other")
    clip, _ = load_clip("toyworld", "toyworld")
    with torch.no_grad():
        clip.text_projection.mul_(1.5)
    torch.save(clip.state_dict(), other / "open_clip_pytorch_model.bin")
    with pytest.raises(SystemExit, match="2"):
        evaluation.main(["--checkpoint", str(out), "--backbone", f"local-dir:{other}", "--data", "toyworld-novel"])
    assert f"--backbone local-dir:{other}: its text tower is not the one" in capsys.readouterr().err


def test_a_tag_that_speaks_against_the_checkpoint_is_refused(world, folder, tmp_path, capsys):
    """The checkpoint's model is tested on the pixels that it was trained on: another answer would be ignored."""
    out = tmp_path / "run"
    train.main([*SMALL, "--epochs", "1", "--zero-shot", "", "--out", str(out)])
    with pytest.raises(SystemExit, match="2"):
        evaluation.main(["--checkpoint", str(out), "--as-tag", "ViT-B-16-SigLIP/webli", "--data", "toyworld-novel"])
    said = f"--as-tag ViT-B-16-SigLIP/webli: {out} was trained on other pixels"
    assert said in capsys.readouterr().err.splitlines()[-1]


def test_a_tower_that_has_moved_since_the_training_is_said_with_the_remedy(world, folder, tmp_path, capsys):
    place, out = shutil.copytree(folder, tmp_path / "place"), tmp_path / "run"
    train.main([*SMALL, "--epochs", "1", "--zero-shot", "", "--backbone", f"local-dir:{place}", "--out", str(out)])
    place.rename(tmp_path / "elsewhere")
    with pytest.raises(SystemExit, match="2"):
        evaluation.main(["--checkpoint", str(out), "--data", "toyworld-novel"])
    said = rf"no such folder (so was {out} trained; if it has moved, give --backbone, --pretrained or --tokenizer)"
    assert said in capsys.readouterr().err.splitlines()[-1]


def test_init_says_what_its_weights_were_not_trained_with(world, folder, tmp_path, capsys):
    first, other = tmp_path / "first", shutil.copytree(folder, tmp_path / "other")
    train.main([*SMALL, "--epochs", "1", "--zero-shot", "", "--out", str(first)])
    assert "--init:" not in capsys.readouterr().out
    config = json.loads((other / "open_clip_config.json").read_text())
    config["preprocess_cfg"] = {"mean": [0.5] * 3, "std": [0.5] * 3}
    (other / "open_clip_config.json").write_text(json.dumps(config))
    clip, _ = load_clip("toyworld", "toyworld")
    with torch.no_grad():
        clip.text_projection.mul_(1.5)
    torch.save(clip.state_dict(), other / "open_clip_pytorch_model.bin")
    train.main([*SMALL, "--epochs", "1", "--zero-shot", "", "--backbone", f"local-dir:{other}", "--init", str(first),
                "--out", str(tmp_path / "second")])
    printed = capsys.readouterr().out
    assert "--init: trained on pixels with OpenAI's mean and std, " in printed
    assert ", now mean 0.5 0.5 0.5, std 0.5 0.5 0.5, " in printed
    assert "--init: trained towards the class embeddings of another text tower: " in printed


def test_a_clip_of_other_pixels_or_without_weights_is_not_mixed_in(world, folder, tmp_path):
    out, other = tmp_path / "run", shutil.copytree(folder, tmp_path / "other")
    place = ["--backbone", f"local-dir:{folder}"]
    train.main([*SMALL, "--epochs", "1", "--zero-shot", "", *place, "--out", str(out)])
    config = json.loads((other / "open_clip_config.json").read_text())
    config["preprocess_cfg"] = {"mean": [0.5] * 3, "std": [0.5] * 3}
    (other / "open_clip_config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="cannot mix in a CLIP that was trained on other pixels"):
        load_model(out, clip_weight=0.5, backbone=f"local-dir:{other}")
    with pytest.raises(ValueError, match="--backbone toyworld: give --pretrained too"):
        load_model(out, clip_weight=0.5, backbone="toyworld")
    load_model(out, clip_weight=0.5, backbone="toyworld", pretrained="toyworld")
