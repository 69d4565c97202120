"""
A checkpoint is written whole or not at all, runs no code, and becomes the model that was saved; or one line says why.

For checkpoints of train.py and in the authors' format, which is read and written; truncated, malicious, foreign ones.
Checked against the tensors that were saved and, for the authors' format, the tensors of their file (what they compute:
tests/test_golden.py; at the true sizes: tests/test_shapes.py).
"""
import json
import os
import pickle
import shutil
import warnings
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.checkpoints import bits, expressible, new_checkpoint
from support.clips import save_archive
from support.places import OFFICIAL
from support.tensors import seeds
from torch.testing import assert_close

import eval as evaluation
from mote import load_model
from mote.clip_backbone import build_clip, clip_config, load_clip
from mote.runtime import checkpoints as checkpoint
from mote.runtime.authors_format import OPENAI_MEAN, OPENAI_STD, from_authors, openai_backbone, to_authors
from mote.runtime.checkpoints import build_model, interpolate, read_checkpoint, save_checkpoint
from mote.runtime.ranks import find_ranks
from mote.runtime.run_folder import newest_checkpoint


@pytest.fixture(scope="module")
def saved():
    return new_checkpoint()


@pytest.fixture
def frames():
    return torch.randn(2, 3, 3, 40, 40, generator=torch.Generator().manual_seed(1))


# --- saving --------------------------------------------------------------------------------------------------------
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


# --- reading -------------------------------------------------------------------------------------------------------
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


@pytest.mark.parametrize("part", [0, 0.01, 0.5, 0.999])
def test_a_truncated_checkpoint_is_refused(saved, tmp_path, part):
    save_checkpoint(tmp_path / "last.pt", saved)
    whole = (tmp_path / "last.pt").read_bytes()
    (tmp_path / "last.pt").write_bytes(whole[:int(part * len(whole))])
    assert "damaged, or not a checkpoint" in refused(tmp_path / "last.pt")


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


# --- building ------------------------------------------------------------------------------------------------------
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
    ("visual.ln_post.bias", None)], ids=["head", "tower", "experts", "missing"])
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


# --- the authors' format -------------------------------------------------------------------------------------------
@torch.no_grad()
def test_the_authors_checkpoint_loads_with_all_that_it_holds():
    official = torch.load(OFFICIAL, weights_only=True)
    model = load_model(OFFICIAL, keep_experts=True)
    head = official["fusion_model_state_dict"]
    experts = {name: tensor for name, tensor in head.items() if ".mlp.fc_up." in name and name.endswith("weight")}
    layers = {name.split(".")[2] for name in experts}
    assert len(model.temporal.blocks) == len(layers)
    assert model.temporal.num_experts == len(experts) // len(layers)
    for name, tensor in experts.items():
        _, _, layer, _, _, expert, _ = name.split(".")
        assert_close(model.temporal.blocks[int(layer)].experts.up_weight[int(expert)], tensor.float(), rtol=0, atol=0)
    assert_close(model.finetune_classes, head["spe_cls_feature"], rtol=0, atol=0)
    assert_close(model.logit_scale, official["model_state_dict"]["logit_scale"].float(), rtol=0, atol=0)


def test_the_authors_checkpoint_merges_its_experts():
    assert load_model(OFFICIAL).temporal.num_experts == 1


def official_without(pattern):
    official = torch.load(OFFICIAL, weights_only=True)
    for part in ("model_state_dict", "fusion_model_state_dict"):
        official[part] = {name: tensor for name, tensor in official[part].items() if pattern not in name}
    return official


@pytest.mark.parametrize("pattern, rule", [
    ("mlp.fc_up", "without experts|another architecture"), ("spe_cls_feature", "class embeddings"),
    ("visual.proj", "not CLIP's ViT"), ("visual.conv1", "not CLIP's ViT"), ("attn.in_proj_weight", "architecture")])
def test_an_incomplete_checkpoint_of_the_authors_is_refused(tmp_path, pattern, rule):
    torch.save(official_without(pattern), tmp_path / "x.pt")
    with pytest.raises(ValueError, match=rule) as raised:
        load_model(tmp_path / "x.pt")
    assert len(str(raised.value).splitlines()) == 1


def test_trained_fusion_weights_are_refused(tmp_path):
    official = torch.load(OFFICIAL, weights_only=True)
    head = official["fusion_model_state_dict"]
    name = next(name for name in head if name.endswith("mote_fusion_weight"))
    head[name] = head[name] + torch.arange(head[name].numel()).view_as(head[name])
    torch.save(official, tmp_path / "x.pt")
    with pytest.raises(ValueError, match="not constant: these experts are not merged uniformly"):
        load_model(tmp_path / "x.pt")


@pytest.mark.parametrize("classes", [1, 12, 101, 400])
def test_the_authors_checkpoint_loads_with_any_number_of_classes(tmp_path, classes):
    official = torch.load(OFFICIAL, weights_only=True)
    official["fusion_model_state_dict"]["spe_cls_feature"] = torch.nn.functional.normalize(torch.randn(classes, 128))
    torch.save(official, tmp_path / "x.pt")
    model = load_model(tmp_path / "x.pt")
    assert model.finetune_classes.shape == (classes, 128)
    with torch.no_grad():                                        # on the classes of fine-tuning modulation is 1
        both = [model(torch.ones(1, 3, 3, 32, 32), model.finetune_classes, modulate) for modulate in (True, False)]
    assert both[0].shape == (1, classes)
    assert_close(*both, rtol=0, atol=1e-5)


def test_a_missing_expert_is_not_closed_up(tmp_path):
    torch.save(official_without(".1.weight"), tmp_path / "x.pt")
    with pytest.raises(ValueError, match=r"experts are missing: temporal.blocks.0.experts.up_weight has \[0, 2\] only"):
        load_model(tmp_path / "x.pt")


def test_the_authors_checkpoint_comes_back_as_it_was():
    """All names, types and bits of both state dicts, so their loaders find what they look for; and the epoch."""
    official = torch.load(OFFICIAL, weights_only=True)
    back = to_authors(from_authors(official))
    assert back.keys() == official.keys() and back["epoch"] == official["epoch"] == 3
    for part in ("model_state_dict", "fusion_model_state_dict"):
        assert bits(back[part]) == bits(official[part])
    assert back["optimizer_state_dict"] == {}


@given(seeds, st.integers(1, 12), st.integers(1, 12), st.integers(1, 5))
@settings(max_examples=15)
def test_ours_comes_back_from_the_authors_format_as_it_was(seed, layers, experts, classes):
    """Up to 12 layers and experts: as text, 10 comes before 2. One expert is the plain transformer."""
    ours = expressible(seed, layers, experts, classes)
    back = from_authors(to_authors(ours))
    assert bits(back["model"]) == bits(ours["model"])
    assert [tuple(back["clip"][name]) for name in ("mean", "std")] == [OPENAI_MEAN, OPENAI_STD]
    restored, original = (build_model(one, keep_experts=True) for one in (back, ours))
    frames = torch.randn(1, 3, 3, 16, 16, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():                                        # so the architecture came back, too
        assert_close(restored.frame_features(frames), original.frame_features(frames), rtol=0, atol=0)


def test_the_authors_fusion_weights_are_zeros_one_per_expert():
    head = to_authors(expressible(layers=2, experts=5))["fusion_model_state_dict"]
    for layer in range(2):
        assert_close(head[f"transformer.resblocks.{layer}.mlp.mote_fusion_weight"], torch.zeros(5), rtol=0, atol=0)
    assert sum("mote_fusion_weight" in name for name in head) == 2


def with_clip(ours, **changes):
    return {**ours, "clip": {**ours["clip"], **changes}}


TIMM = {"image_size": 32, "timm_model_name": "test_vit", "timm_pool": "", "timm_proj": "linear"}
INEXPRESSIBLE = {
    "no layers": (lambda: expressible(layers=0), "a temporal transformer without layers"),
    "toyworld, with its heads of 32": (new_checkpoint, "head_width = 32: OpenAI's ViT has 64"),
    "timm": (lambda: expressible(**TIMM), "the visual tower is not CLIP's ViT"),
    "ResNet": (lambda: {**expressible(), "model": {"visual.conv1.weight": torch.zeros(4, 3, 3, 3),
                                                   "temporal.blocks.0.experts.up_weight": torch.zeros(1, 4, 1)}},
               "the visual tower is not CLIP's ViT"),
    "GELU": (lambda: with_clip(expressible(), config={**expressible()["clip"]["config"], "quick_gelu": False}),
             "quick_gelu = False: OpenAI's ViT has True"),
    "mean pooling": (lambda: expressible(pool_type="avg"), "pool_type = avg: OpenAI's ViT has tok"),
    "pixels": (lambda: with_clip(expressible(), mean=[0.5, 0.5, 0.5]), r"mean = \(0.5, 0.5, 0.5\): OpenAI's ViT has"),
}


@pytest.mark.parametrize("case", INEXPRESSIBLE)
def test_what_the_authors_code_cannot_compute_is_not_written_for_it(case):
    make, message = INEXPRESSIBLE[case]
    with pytest.raises(ValueError, match=message) as raised:
        to_authors(make())
    assert len(str(raised.value).splitlines()) == 1


def test_a_tower_is_taken_for_openais_only_with_its_width_of_embeddings():
    vision = {"image_size": 224, "layers": 12, "width": 768, "patch_size": 16, "head_width": 64}
    assert openai_backbone({"embed_dim": 512, "vision_cfg": vision}) == "ViT-B-16-quickgelu"
    assert openai_backbone({"embed_dim": 768, "vision_cfg": vision}) == ""
    assert openai_backbone({"embed_dim": 512, "vision_cfg": {**vision, "layers": 11}}) == ""


@pytest.fixture
def tiny_clip(tmp_path):
    """A CLIP with the golden checkpoint's visual tower, its weights another's: the flags that name it, and itself."""
    text = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}
    config = {"embed_dim": 128, "quick_gelu": True, "text_cfg": text,
              "vision_cfg": {"image_size": 32, "patch_size": 16, "width": 64, "layers": 2, "head_width": 64}}
    (tmp_path / "tiny.json").write_text(json.dumps(config))
    torch.manual_seed(3)
    clip = build_clip(config)
    torch.save(clip.state_dict(), tmp_path / "tiny.pt")
    return {"backbone": str(tmp_path / "tiny.json"), "pretrained": str(tmp_path / "tiny.pt")}, clip


def test_a_clip_weight_of_099_mixes_the_original_clip_into_the_authors_checkpoint(tiny_clip):
    """Exactly 0.99 a + 0.01 b on the visual tower and the logit scale, as in their test scripts, and nowhere else."""
    flags, clip = tiny_clip
    options = evaluation.parse_config(["--checkpoint", str(OFFICIAL), "--data", "toyworld", "--clip-weight", "0.99",
                                *(word for name, value in flags.items() for word in (f"--{name}", value))])
    from_eval = evaluation.load(options, ["a star", "a ring"], find_ranks("cpu"))[0]
    fine_tuned = torch.load(OFFICIAL, weights_only=True)["model_state_dict"]
    original = {name: tensor for name, tensor in clip.state_dict().items() if name in fine_tuned}
    assert original.keys() == fine_tuned.keys()
    plain = load_model(OFFICIAL)
    for mixed in (from_eval, load_model(OFFICIAL, clip_weight=0.99, **flags)):
        state = mixed.state_dict()
        for name, tensor in fine_tuned.items():
            assert_close(state.pop(name), 0.99 * tensor + 0.01 * original[name], rtol=0, atol=0)
        assert_close(state, {name: plain.state_dict()[name] for name in state}, rtol=0, atol=0)
        assert "finetune_classes" in state and "temporal.positions" in state


def test_a_tower_of_no_known_clip_says_so_only_where_the_original_is_needed(tiny_clip):
    load_model(OFFICIAL)
    with pytest.raises(ValueError, match="does not say which CLIP it came from: clip_weight needs backbone and"):
        load_model(OFFICIAL, clip_weight=0.99)


# --- interpolation with the original CLIP --------------------------------------------------------------------------
@pytest.fixture(scope="module")
def clip():
    return load_clip("toyworld", "toyworld")[0]


def visual_of(checkpoint):
    return {name: tensor for name, tensor in checkpoint["model"].items() if name.startswith("visual.")}


def original_visual(clip):
    return {f"visual.{name}": tensor for name, tensor in clip.visual.state_dict().items()}


def test_a_clip_weight_of_one_changes_nothing(saved, clip):
    assert_close(dict(interpolate(saved, clip, 1.0)["model"]), dict(saved["model"]), rtol=0, atol=0)


def test_a_clip_weight_of_zero_is_the_original_clip(saved, clip):
    mixed = interpolate(saved, clip, 0.0)
    assert_close(visual_of(mixed), original_visual(clip), rtol=0, atol=0)
    assert_close(mixed["model"]["logit_scale"], clip.logit_scale.detach(), rtol=0, atol=0)


def test_a_clip_weight_between_is_the_weighted_mean(saved, clip):
    """0.75 a + 0.25 b, in float64 beside float32: a few units of its last place."""
    mixed, original = visual_of(interpolate(saved, clip, 0.75)), original_visual(clip)
    for name, tensor in visual_of(saved).items():
        right = 0.75 * tensor.double() + 0.25 * original[name].double()
        assert_close(mixed[name].double(), right, atol=1e-6, rtol=1e-6)


def test_interpolation_leaves_head_classes_and_checkpoint_alone(clip):
    saved = new_checkpoint()
    before = {name: tensor.clone() for name, tensor in saved["model"].items()}
    mixed = interpolate(saved, clip, 0.3)
    for name, tensor in before.items():
        if not name.startswith("visual.") and name != "logit_scale":
            assert_close(mixed["model"][name], tensor, rtol=0, atol=0)
    assert_close(dict(saved["model"]), before, rtol=0, atol=0)
    assert mixed["classes"] == saved["classes"] and mixed["step"] == saved["step"]


def test_interpolation_prints_what_it_does(saved, clip, capsys):
    interpolate(saved, clip, 0.99)
    assert capsys.readouterr().out == "visual tower: 0.99 x fine-tuned + 0.01 x original CLIP\n"


def test_loading_interpolates_only_if_asked(saved, clip, tmp_path, capsys):
    save_checkpoint(tmp_path / "x.pt", saved)
    plain = load_model(tmp_path / "x.pt")
    assert capsys.readouterr().out == ""
    mixed = load_model(tmp_path / "x.pt", clip_weight=0)         # the CLIP that the checkpoint names
    assert "original CLIP" in capsys.readouterr().out
    assert_close(plain.visual.conv1.weight, saved["model"]["visual.conv1.weight"], rtol=0, atol=0)
    assert_close(mixed.visual.conv1.weight, clip.visual.conv1.weight, rtol=0, atol=0)


@pytest.mark.parametrize("vision", [{"width": 64}, {"layers": 4}, {"layers": 2}], ids=str)
def test_a_clip_of_another_architecture_is_not_mixed_in(saved, tmp_path, vision):
    config = clip_config("toyworld")
    config["vision_cfg"] = {**config["vision_cfg"], **vision}
    (tmp_path / "other.json").write_text(json.dumps(config))
    other, _ = load_clip(str(tmp_path / "other.json"), "")
    with pytest.raises(ValueError) as raised:
        interpolate(saved, other, 0.5)
    assert len(str(raised.value).splitlines()) == 1


# --- the newest checkpoint of a run --------------------------------------------------------------------------------
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
    assert checkpoint.read_checkpoint(tmp_path)["step"] == 0
