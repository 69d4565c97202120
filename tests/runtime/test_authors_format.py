"""
The authors' checkpoints come to our format and back bit for bit, and what theirs cannot hold is refused.

Checked against the tensors of their file (what they compute: tests/test_golden.py; at the true sizes:
tests/scripts/test_true_shapes.py).
"""
import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.checkpoints import bits, expressible, new_checkpoint
from support.clips import OPENAI
from support.places import OFFICIAL
from support.tensors import seeds
from torch.testing import assert_close

import eval as evaluation
from mote import load_model
from mote.clip_backbone import Pixels, build_clip
from mote.runtime.authors_format import from_authors, openai_backbone, to_authors
from mote.runtime.checkpoints import build_model, pixels_of
from mote.runtime.ranks import find_ranks


# --- theirs to ours -------------------------------------------------------------------------------
@torch.no_grad()
def test_the_authors_checkpoint_loads_with_all_that_it_holds():
    authors = torch.load(OFFICIAL, weights_only=True)
    model = load_model(OFFICIAL, keep_experts=True)
    temporal = authors["fusion_model_state_dict"]
    experts = {name: tensor for name, tensor in temporal.items() if ".mlp.fc_up." in name and name.endswith("weight")}
    layers = {name.split(".")[2] for name in experts}
    assert len(model.temporal.blocks) == len(layers)
    assert model.temporal.num_experts == len(experts) // len(layers)
    for name, tensor in experts.items():
        _, _, layer, _, _, expert, _ = name.split(".")
        assert_close(model.temporal.blocks[int(layer)].experts.up_weight[int(expert)], tensor.float(), rtol=0, atol=0)
    assert_close(model.finetune_classes, temporal["spe_cls_feature"], rtol=0, atol=0)
    assert_close(model.logit_scale, authors["model_state_dict"]["logit_scale"].float(), rtol=0, atol=0)


def test_the_authors_checkpoint_merges_its_experts():
    assert load_model(OFFICIAL).temporal.num_experts == 1


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
@pytest.mark.parametrize("parts", [("model_state_dict", "fusion_model_state_dict"), ("model_state_dict",),
                                   ("fusion_model_state_dict",)])
def test_a_checkpoint_saved_inside_a_wrapper_is_the_one_without(tmp_path, prefix, parts):
    authors = torch.load(OFFICIAL, weights_only=True)
    for part in parts:
        authors[part] = {prefix + name: tensor for name, tensor in authors[part].items()}
    torch.save(authors, tmp_path / "x.pt")
    wrapped, plain = load_model(tmp_path / "x.pt").state_dict(), load_model(OFFICIAL).state_dict()
    assert wrapped.keys() == plain.keys()
    assert_close(dict(wrapped), dict(plain), rtol=0, atol=0)


def authors_without(pattern):
    authors = torch.load(OFFICIAL, weights_only=True)
    for part in ("model_state_dict", "fusion_model_state_dict"):
        authors[part] = {name: tensor for name, tensor in authors[part].items() if pattern not in name}
    return authors


@pytest.mark.parametrize("pattern, rule", [
    ("mlp.fc_up", "without experts|another architecture"), ("spe_cls_feature", "class embeddings"),
    ("visual.proj", "not CLIP's ViT"), ("visual.conv1", "not CLIP's ViT"), ("attn.in_proj_weight", "architecture")])
def test_an_incomplete_checkpoint_of_the_authors_is_refused(tmp_path, pattern, rule):
    torch.save(authors_without(pattern), tmp_path / "x.pt")
    with pytest.raises(ValueError, match=rule) as raised:
        load_model(tmp_path / "x.pt")
    assert len(str(raised.value).splitlines()) == 1


def test_trained_fusion_weights_are_refused(tmp_path):
    authors = torch.load(OFFICIAL, weights_only=True)
    temporal = authors["fusion_model_state_dict"]
    name = next(name for name in temporal if name.endswith("mote_fusion_weight"))
    temporal[name] = temporal[name] + torch.arange(temporal[name].numel()).view_as(temporal[name])
    torch.save(authors, tmp_path / "x.pt")
    with pytest.raises(ValueError, match="not constant: these experts are not merged uniformly"):
        load_model(tmp_path / "x.pt")


@pytest.mark.parametrize("classes", [1, 12, 101, 400])
def test_the_authors_checkpoint_loads_with_any_number_of_classes(tmp_path, classes):
    authors = torch.load(OFFICIAL, weights_only=True)
    authors["fusion_model_state_dict"]["spe_cls_feature"] = torch.nn.functional.normalize(torch.randn(classes, 128))
    torch.save(authors, tmp_path / "x.pt")
    model = load_model(tmp_path / "x.pt")
    assert model.finetune_classes.shape == (classes, 128)
    with torch.no_grad():                                        # on the classes of fine-tuning modulation is 1
        both = [model(torch.ones(1, 3, 3, 32, 32), model.finetune_classes, modulate) for modulate in (True, False)]
    assert both[0].shape == (1, classes)
    assert_close(*both, rtol=0, atol=1e-5)


def test_a_missing_expert_is_not_closed_up(tmp_path):
    torch.save(authors_without(".1.weight"), tmp_path / "x.pt")
    with pytest.raises(ValueError, match=r"experts are missing: temporal.blocks.0.experts.up_weight has \[0, 2\] only"):
        load_model(tmp_path / "x.pt")


def test_a_tower_is_taken_for_openais_only_with_its_width_of_embeddings():
    vision = {"image_size": 224, "layers": 12, "width": 768, "patch_size": 16, "head_width": 64}
    assert openai_backbone({"embed_dim": 512, "vision_cfg": vision}) == "ViT-B-16-quickgelu"
    assert openai_backbone({"embed_dim": 768, "vision_cfg": vision}) == ""
    assert openai_backbone({"embed_dim": 512, "vision_cfg": {**vision, "layers": 11}}) == ""


# --- there and back -------------------------------------------------------------------------------
def test_the_authors_checkpoint_comes_back_as_it_was():
    """All names, types and bits of both state dicts, so their loaders find what they look for; and the epoch."""
    authors = torch.load(OFFICIAL, weights_only=True)
    back = to_authors(from_authors(authors))
    assert back.keys() == authors.keys() and back["epoch"] == authors["epoch"] == 3
    for part in ("model_state_dict", "fusion_model_state_dict"):
        assert bits(back[part]) == bits(authors[part])
    assert back["optimizer_state_dict"] == {}


@given(seeds, st.integers(1, 12), st.integers(1, 12), st.integers(1, 5))
@settings(max_examples=15)
def test_ours_comes_back_from_the_authors_format_as_it_was(seed, layers, experts, classes):
    """Up to 12 layers and experts: as text, 10 comes before 2. One expert is the plain transformer."""
    ours = expressible(seed, layers, experts, classes)
    back = from_authors(to_authors(ours))
    assert bits(back["model"]) == bits(ours["model"])
    assert pixels_of(back["clip"]) == Pixels()
    restored, original = (build_model(one, keep_experts=True) for one in (back, ours))
    frames = torch.randn(1, 3, 3, 16, 16, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():                                        # so the architecture came back, too
        assert_close(restored.frame_features(frames), original.frame_features(frames), rtol=0, atol=0)


# --- ours to theirs -------------------------------------------------------------------------------
def test_the_authors_fusion_weights_are_zeros_one_per_expert():
    temporal = to_authors(expressible(layers=2, experts=5))["fusion_model_state_dict"]
    for layer in range(2):
        assert_close(temporal[f"transformer.resblocks.{layer}.mlp.mote_fusion_weight"], torch.zeros(5), rtol=0, atol=0)
    assert sum("mote_fusion_weight" in name for name in temporal) == 2


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
    "mean": (lambda: with_clip(expressible(), mean=[0.5, 0.5, 0.5]), r"mean = \(0.5, 0.5, 0.5\): OpenAI's ViT has"),
    "std": (lambda: with_clip(expressible(), std=(0.5, 0.5, 0.5)), r"std = \(0.5, 0.5, 0.5\): OpenAI's ViT has"),
    "squash": (lambda: with_clip(expressible(), resize_mode="squash"), "resize_mode = squash: .* has shortest"),
    "bilinear": (lambda: with_clip(expressible(), interpolation="bilinear"), "interpolation = bilinear: .* bicubic"),
}


@pytest.mark.parametrize("case", INEXPRESSIBLE)
def test_what_the_authors_code_cannot_compute_is_not_written_for_it(case):
    make, message = INEXPRESSIBLE[case]
    with pytest.raises(ValueError, match=message) as raised:
        to_authors(make())
    assert len(str(raised.value).splitlines()) == 1


# --- the original CLIP mixed in -------------------------------------------------------------------
@pytest.fixture
def tiny_clip(tmp_path):
    """A CLIP with the golden checkpoint's visual tower, its weights another's: the flags that name it, and itself."""
    text = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}
    config = {"embed_dim": 128, "quick_gelu": True, "text_cfg": text, "preprocess_cfg": OPENAI,
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
    from_eval = evaluation.load(options, ["a star", "a ring"], find_ranks("cpu")).model
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
