"""
The names in a file say whose weights it holds. Each family is built, on the meta device: names, and no numbers.
"""
import open_clip
import pytest
import torch
from support.clips import TIMM, TINY

from mote.clip_backbone import build_clip
from mote.files.towers.families import family_of

THEIRS = {
    "CLIPModel": "transformers' CLIPModel",
    "SiglipModel": "transformers' SiglipModel",
    "CLIPSegForImageSegmentation": "transformers' CLIPSegForImageSegmentation",
    "BlipForConditionalGeneration": "transformers' BLIP",
    "BlipForImageTextRetrieval": "transformers' BLIP",
    "AltCLIPModel": "transformers' AltCLIPModel",
    "ChineseCLIPModel": "transformers' ChineseCLIPModel",
    "CLIPVisionModel": "visual tower of transformers",
    "CLIPVisionModelWithProjection": "visual tower of transformers",
    "SiglipVisionModel": "visual tower of transformers",
    "CLIPTextModel": "text tower of transformers",
    "CLIPTextModelWithProjection": "text tower of transformers",
    "SiglipTextModel": "text tower of transformers",
    "BertModel": "BERT of transformers",
    "BertForMaskedLM": "BERT of transformers",
}


def names_of(build):
    with torch.device("meta"):
        return list(build().state_dict())


@pytest.mark.parametrize("name", THEIRS)
def test_models_of_transformers_are_known(name):
    import transformers

    kind = getattr(transformers, name)
    assert family_of(names_of(lambda: kind(kind.config_class()))) == THEIRS[name]


@pytest.mark.parametrize("name", ["ViT-B-32", "RN50", "ViT-B-16-SigLIP", "coca_base", "convnext_base", "ViTamin-S",
                                  "EVA02-B-16", "MobileCLIP-S1"])
def test_models_of_open_clip_are_known(name):
    assert family_of(names_of(lambda: open_clip.create_model(name, load_weights=False, device="meta"))) == "OpenCLIP"


@pytest.mark.parametrize("config", [TINY, TIMM])
def test_a_visual_tower_of_open_clip_is_told_from_a_whole_model(config):
    names = [name for name in names_of(lambda: build_clip(config)) if name.startswith("visual.")]
    assert family_of(names) == "visual tower of OpenCLIP"


def test_openais_vit_alone_is_known():
    assert family_of(names_of(lambda: build_clip(TINY).visual)) == "visual tower of OpenCLIP"


@pytest.mark.parametrize("name, family", [("vit_base_patch16_224", "timm tower"), ("convnext_tiny", "timm tower"),
                                          ("resnet50", "ResNet of timm or torchvision")])
def test_towers_of_timm_are_known(name, family):
    import timm

    assert family_of(names_of(lambda: timm.create_model(name))) == family


def test_a_checkpoint_of_mote_is_known_whole_and_by_its_weights():
    state = ["logit_scale", "finetune_classes", "visual.conv1.weight", "visual.transformer.resblocks.0.ln_1.bias",
             "temporal.positions"]
    assert family_of(["model", "clip", "classes", "step"]) == "MoTE checkpoint"
    assert family_of(state) == "MoTE checkpoint"
    assert family_of(["model_state_dict", "fusion_model_state_dict", "epoch"]) == "checkpoint of MoTE's authors"


def test_a_wrapper_before_all_names_is_left_out():
    names = names_of(lambda: build_clip(TINY))
    for prefix in ("module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."):
        assert family_of(prefix + name for name in names) == "OpenCLIP"
    assert family_of(f"student.{name}" for name in names) == ""


@pytest.mark.parametrize("names", [[], ["a"], ["weight", "bias"], ["model"], ["state_dict", "epoch"]])
def test_what_is_not_known_is_not_guessed(names):
    assert family_of(names) == ""
