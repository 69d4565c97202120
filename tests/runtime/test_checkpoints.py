"""
A checkpoint is written whole or not at all, runs no code, and becomes the model that was saved; or one line says why.

For checkpoints of train.py: truncated, malicious, foreign ones, with a bit flipped. Checked against the tensors that
were saved. In the authors' format: test_authors_format.py; which one a run goes on from: test_run_folder.py.
"""
import json
import os
import pickle
import tempfile
import warnings
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.checkpoints import new_checkpoint
from support.clips import save_archive
from torch.testing import assert_close
from torture.job import flip

from mote import load_model
from mote.clip_backbone import Pixels, clip_config, load_clip
from mote.runtime.checkpoints import build_model, interpolate, read_checkpoint, save_checkpoint


@pytest.fixture
def frames():
    return torch.randn(2, 3, 3, 40, 40, generator=torch.Generator().manual_seed(1))


# --- writing --------------------------------------------------------------------------------------
def test_what_is_saved_is_read(saved, tmp_path):
    save_checkpoint(tmp_path / "last.pt", saved)
    assert list(tmp_path.iterdir()) == [tmp_path / "last.pt"]
    read = read_checkpoint(tmp_path / "last.pt")
    assert {k: v for k, v in read.items() if k != "model"} == {k: v for k, v in saved.items() if k != "model"}
    assert_close(read["model"], dict(saved["model"]), rtol=0, atol=0)


def test_a_checkpoint_loads_without_running_code(saved, tmp_path):
    save_checkpoint(tmp_path / "last.pt", saved)
    assert torch.load(tmp_path / "last.pt", weights_only=True).keys() == saved.keys()


@pytest.mark.parametrize("when", ["while writing", "while syncing", "before renaming"])
def test_a_kill_while_saving_leaves_the_old_checkpoint(saved, tmp_path, monkeypatch, when):
    save_checkpoint(tmp_path / "last.pt", saved)
    before = (tmp_path / "last.pt").read_bytes()

    def dies(*args, **kwargs):
        if when == "while writing":
            args[1].write(b"half a checkpoint")
        raise KeyboardInterrupt
    with monkeypatch.context() as patch:
        patch.setattr(*{"while writing": (torch, "save"), "while syncing": (os, "fsync"),
                        "before renaming": (os, "replace")}[when], dies)
        with pytest.raises(KeyboardInterrupt):
            save_checkpoint(tmp_path / "last.pt", new_checkpoint(seed=1))
    assert (tmp_path / "last.pt").read_bytes() == before
    assert list(tmp_path.iterdir()) == [tmp_path / "last.pt"]    # nothing half-written is left beside it


def test_the_file_is_synced_before_it_is_renamed(tmp_path, monkeypatch):
    done = []
    sync, rename = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda f: done.append("sync") or sync(f))
    monkeypatch.setattr(os, "replace", lambda a, b: done.append("rename") or rename(a, b))
    save_checkpoint(tmp_path / "x.pt", {"step": 1})
    assert done[:2] == ["sync", "rename"]


def test_a_full_disk_is_an_error_not_a_checkpoint(tmp_path):
    with pytest.raises(OSError):
        save_checkpoint(tmp_path / "nowhere" / "x.pt", {"step": 1})


def test_a_full_disk_is_one_line_that_names_the_file_and_the_old_one_stays(tmp_path, monkeypatch):
    file = tmp_path / "last.pt"
    save_checkpoint(file, {"step": 1})
    before = file.read_bytes()

    def full(_, part):
        part.write(b"half")
        raise RuntimeError("[enforce fail at inline_container.cc:664] . unexpected pos 64 vs 0\nframe #0: somewhere")
    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError) as raised:
        save_checkpoint(file, {"step": 2})
    assert str(raised.value).startswith(f"cannot write {file}: ") and len(str(raised.value).splitlines()) == 1
    assert file.read_bytes() == before and list(tmp_path.iterdir()) == [file]


# --- reading --------------------------------------------------------------------------------------
class Bomb:
    """Runs code when unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def refused(path, kind=ValueError):
    with pytest.raises(kind) as raised:
        load_model(path)
    message = str(raised.value)
    assert len(message.splitlines()) == 1 and str(path) in message
    return message


@pytest.mark.parametrize("path", ["nowhere.pt", "."])
def test_a_missing_checkpoint_is_named(tmp_path, path):
    assert "no checkpoint at" in refused(tmp_path / path, FileNotFoundError)


def test_a_run_folder_means_its_last_checkpoint(saved, tmp_path):
    save_checkpoint(tmp_path / "last.pt", {**saved, "step": 7})
    save_checkpoint(tmp_path / "step_9.pt", {**saved, "step": 9})
    assert read_checkpoint(tmp_path)["step"] == read_checkpoint(str(tmp_path))["step"] == 7


@pytest.mark.parametrize("content, said", [
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:4\nsize 3\n", "a Git LFS pointer, not the file itself"),
    (b"<!DOCTYPE html><html>", "a saved web page, not the file itself"),
    (b"Entry not found", "damaged, or not a checkpoint: a text, it begins with 'Entry not found'")])
def test_what_stands_in_place_of_a_checkpoint_is_named(tmp_path, content, said):
    (tmp_path / "MoTE_B16.pt").write_bytes(content)
    assert f"cannot read {tmp_path / 'MoTE_B16.pt'}: {said}" in refused(tmp_path / "MoTE_B16.pt")


@pytest.mark.parametrize("part", [0, 0.01, 0.5, 0.999])
def test_a_truncated_checkpoint_is_refused(saved, tmp_path, part):
    save_checkpoint(tmp_path / "last.pt", saved)
    whole = (tmp_path / "last.pt").read_bytes()
    (tmp_path / "last.pt").write_bytes(whole[:int(part * len(whole))])
    assert "damaged, or not a checkpoint" in refused(tmp_path / "last.pt")


@given(st.integers(0, 4 * 999))
@settings(max_examples=20)
def test_one_flipped_bit_of_a_weight_is_refused(place):
    tensor = torch.linspace(1, 2, 1000)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "last.pt"
        save_checkpoint(file, {"model": {"w": tensor}})
        whole = file.read_bytes()
        file.write_bytes(flip(whole, whole.index(tensor.numpy().tobytes()) + place))
        torch.load(file, weights_only=True)                      # which does not see it
        with pytest.raises(ValueError, match="last.pt: damaged"):
            read_checkpoint(file)


@pytest.mark.parametrize("how", ["torch", "pickle"])
def test_a_checkpoint_that_needs_code_is_refused_and_not_run(saved, tmp_path, how):
    file, marker = tmp_path / "last.pt", tmp_path / "marker"
    if how == "torch":
        torch.save({**saved, "more": Bomb(marker)}, file)
    else:
        file.write_bytes(pickle.dumps({"model": Bomb(marker)}, protocol=2))
    assert "needs code to unpickle, which is never run" in refused(file)
    assert not marker.exists()


def test_a_torchscript_archive_is_no_checkpoint(tmp_path):
    save_archive({"visual.proj": torch.ones(3)}, tmp_path / "x.pt", talks=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")                           # torch.load would warn before it refuses
        assert "a TorchScript archive, not a checkpoint" in refused(tmp_path / "x.pt")


@pytest.mark.parametrize("content", [{"a": 1}, [1, 2], torch.zeros(3), {"model": {}, "clip": {}}], ids=repr)
def test_a_file_of_something_else_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "x.pt")
    assert "neither a checkpoint of train.py nor in the authors' format" in refused(tmp_path / "x.pt")


# --- building -------------------------------------------------------------------------------------
def test_the_architecture_is_read_off_the_shapes(tmp_path):
    for layers, experts in ((0, 1), (1, 1), (2, 3), (3, 4)):
        save_checkpoint(tmp_path / "x.pt", new_checkpoint(layers=layers, experts=experts))
        temporal = load_model(tmp_path / "x.pt", keep_experts=True).temporal
        assert len(temporal.blocks) == layers and (layers == 0 or temporal.num_experts == experts)


def test_the_tensors_are_those_saved(saved, tmp_path):
    save_checkpoint(tmp_path / "x.pt", saved)
    model = load_model(tmp_path / "x.pt", keep_experts=True)
    assert_close(dict(model.state_dict()), dict(saved["model"]), rtol=0, atol=0)
    assert_close(model.image_mean, torch.tensor([0.5, 0.4, 0.3]))
    assert_close(model.image_std, torch.tensor([0.2, 0.3, 0.4]))
    assert model.image_size == 40 and not model.training


@torch.no_grad()
def test_experts_are_merged_into_one_unless_kept(saved, tmp_path, frames):
    """Merging before or inside the pass: 1e-5, a mean of three float32 products rounds differently."""
    save_checkpoint(tmp_path / "x.pt", saved)
    merged, kept = load_model(tmp_path / "x.pt"), load_model(tmp_path / "x.pt", keep_experts=True)
    assert merged.temporal.num_experts == 1 and kept.temporal.num_experts == 3
    up = "blocks.1.experts.up_weight"
    assert_close(merged.temporal.state_dict()[up][0], kept.temporal.state_dict()[up].mean(dim=0), atol=1e-7, rtol=1e-5)
    assert_close(merged(frames, merged.finetune_classes), kept(frames, kept.finetune_classes), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name, change", [
    ("temporal.blocks.1.ln_2.bias", lambda t: t[:-1]),
    ("visual.transformer.resblocks.0.attn.out_proj.weight", lambda t: t.repeat(2, 1)),
    ("temporal.blocks.0.experts.down_weight", lambda t: t[:2]),
    ("visual.ln_post.bias", None)], ids=["temporal", "tower", "experts", "missing"])
def test_another_architecture_is_named_by_its_parameter(saved, tmp_path, name, change):
    model = {**saved["model"]}
    if change:
        model[name] = change(model[name])
    else:
        del model[name]
    save_checkpoint(tmp_path / "x.pt", {**saved, "model": model})
    with pytest.raises(ValueError) as raised:
        load_model(tmp_path / "x.pt")
    there, here = tuple(model[name].shape) if change else "missing", tuple(saved["model"][name].shape)
    assert str(raised.value) == f"a checkpoint of another architecture: {name} is {there} there, {here} here"


def test_a_parameter_too_many_is_named(saved):
    with pytest.raises(ValueError, match=r"another architecture: visual.extra is \(3,\) there, missing here"):
        build_model({**saved, "model": {**saved["model"], "visual.extra": torch.zeros(3)}})


# --- the original CLIP mixed in -------------------------------------------------------------------
@pytest.fixture(scope="module")
def clip():
    return load_clip("toyworld", "toyworld")[0]


@pytest.fixture
def toy_saved(saved):
    """Trained on the pixels of toyworld's CLIP: with others, nothing is mixed in."""
    return {**saved, "clip": {**saved["clip"], **asdict(Pixels())}}


def visual_of(checkpoint):
    return {name: tensor for name, tensor in checkpoint["model"].items() if name.startswith("visual.")}


def original_visual(clip):
    return {f"visual.{name}": tensor for name, tensor in clip.visual.state_dict().items()}


def test_a_clip_weight_of_one_changes_nothing(toy_saved, clip):
    assert_close(dict(interpolate(toy_saved, clip, 1.0)["model"]), dict(toy_saved["model"]), rtol=0, atol=0)


def test_a_clip_weight_of_zero_is_the_original_clip(toy_saved, clip):
    mixed = interpolate(toy_saved, clip, 0.0)
    assert_close(visual_of(mixed), original_visual(clip), rtol=0, atol=0)
    assert_close(mixed["model"]["logit_scale"], clip.logit_scale.detach(), rtol=0, atol=0)


def test_a_clip_weight_between_is_the_weighted_mean(toy_saved, clip):
    """0.75 a + 0.25 b, in float64 beside float32: a few units of its last place."""
    mixed, original = visual_of(interpolate(toy_saved, clip, 0.75)), original_visual(clip)
    for name, tensor in visual_of(toy_saved).items():
        right = 0.75 * tensor.double() + 0.25 * original[name].double()
        assert_close(mixed[name].double(), right, atol=1e-6, rtol=1e-6)


def test_interpolation_leaves_temporal_transformer_classes_and_checkpoint_alone(clip):
    saved = {**new_checkpoint(), "clip": {**new_checkpoint()["clip"], **asdict(Pixels())}}
    before = {name: tensor.clone() for name, tensor in saved["model"].items()}
    mixed = interpolate(saved, clip, 0.3)
    for name, tensor in before.items():
        if not name.startswith("visual.") and name != "logit_scale":
            assert_close(mixed["model"][name], tensor, rtol=0, atol=0)
    assert_close(dict(saved["model"]), before, rtol=0, atol=0)
    assert mixed["classes"] == saved["classes"] and mixed["step"] == saved["step"]


def test_interpolation_prints_what_it_does(toy_saved, clip, capsys):
    interpolate(toy_saved, clip, 0.99)
    assert capsys.readouterr().out == "visual tower: 0.99 x fine-tuned + 0.01 x original CLIP\n"


def test_loading_interpolates_only_if_asked(toy_saved, clip, tmp_path, capsys):
    save_checkpoint(tmp_path / "x.pt", toy_saved)
    plain = load_model(tmp_path / "x.pt")
    assert capsys.readouterr().out == ""
    mixed = load_model(tmp_path / "x.pt", clip_weight=0)         # the CLIP that the checkpoint names
    assert "original CLIP" in capsys.readouterr().out
    assert_close(plain.visual.conv1.weight, toy_saved["model"]["visual.conv1.weight"], rtol=0, atol=0)
    assert_close(mixed.visual.conv1.weight, clip.visual.conv1.weight, rtol=0, atol=0)


@pytest.mark.parametrize("vision", [{"width": 64}, {"layers": 4}, {"layers": 2}], ids=str)
def test_a_clip_of_another_architecture_is_not_mixed_in(toy_saved, tmp_path, vision):
    config = clip_config("toyworld")
    config["vision_cfg"] = {**config["vision_cfg"], **vision}
    (tmp_path / "other.json").write_text(json.dumps(config))
    other, _ = load_clip(str(tmp_path / "other.json"), "")
    with pytest.raises(ValueError) as raised:
        interpolate(toy_saved, other, 0.5)
    assert len(str(raised.value).splitlines()) == 1
