"""Tiny CLIPs, as configs, as state dicts and as archives."""
import json
import warnings

import pytest
import torch
from torch import nn

from mote.clip_backbone import SIZES, TEMPLATES, build_clip, class_embeddings, encode_frames

NAMES = ["red star", "circle growing", "blue heart", "cross moving left", "ring"]
OPENAI = {"mean": [0.48145466, 0.4578275, 0.40821073], "std": [0.26862954, 0.26130258, 0.27577711]}
TIMM = {"embed_dim": 32, "init_logit_bias": -10, "custom_text": True,
        "vision_cfg": {"image_size": 32, "timm_model_name": "test_vit", "timm_model_pretrained": False, "timm_pool": "",
                       "timm_proj": "linear"},
        "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
        "preprocess_cfg": OPENAI}
TINY = {"embed_dim": 32, "quick_gelu": True,
        "vision_cfg": {"image_size": 16, "patch_size": 8, "width": 64, "layers": 1},
        "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
        "preprocess_cfg": OPENAI}


@pytest.fixture
def config_file(tmp_path):
    """TINY and TIMM as files, and the path of one of them."""
    for name, config in (("tiny", TINY), ("timm", TIMM)):
        (tmp_path / f"{name}.json").write_text(json.dumps(config))
    return lambda name: str(tmp_path / f"{name}.json")


@torch.no_grad()
def features_and_classes(clip, tokenizer):
    """What a CLIP makes of two clips of three frames, and of NAMES in two templates."""
    frames = torch.randn(2, 3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    return encode_frames(clip.visual, frames), class_embeddings(clip, tokenizer, NAMES, TEMPLATES[:2])


def openai_state_dict(clip):
    """As OpenAI's: half precision, and three numbers that are no weights (a visual tower's size among them)."""
    state = {name: tensor.half() for name, tensor in clip.state_dict().items()}
    return {**state, "input_resolution": torch.tensor(16), "context_length": torch.tensor(16),
            "vocab_size": torch.tensor(49408)}


@pytest.fixture(scope="module")
def original():
    """A CLIP of TINY with weights of its own, not load_clip's seed 0."""
    torch.manual_seed(5)
    return build_clip(TINY).eval()


@pytest.fixture(scope="module")
def halved(original):
    """What is left of it in half precision."""
    clip = build_clip(TINY).eval()
    clip.load_state_dict({name: tensor.half().float() for name, tensor in original.state_dict().items()})
    return clip


class Talks(nn.Module):
    """Its code runs when the archive is loaded, and says so."""

    def __init__(self):
        super().__init__()
        self.said = 0

    @torch.jit.export
    def __getstate__(self) -> int:
        return self.said

    @torch.jit.export
    def __setstate__(self, state: int):
        print("code from the archive runs")
        self.said = state
        self.training = False


def save_archive(state, file, talks=False):
    """torch.jit.save of modules that hold these tensors under these names, as in OpenAI's archives."""
    root = nn.Module()
    for name, tensor in state.items():
        *path, last = name.split(".")
        module = root
        for part in path:
            if part not in module._modules:
                module.add_module(part, nn.Module())
            module = module._modules[part]
        if name in SIZES:
            module.register_buffer(last, tensor)
        else:
            module.register_parameter(last, nn.Parameter(tensor))
    if talks:
        root.add_module("talks", Talks())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        torch.jit.save(torch.jit.script(root), file)
