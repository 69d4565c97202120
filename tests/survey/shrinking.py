"""
open_clip's models, made small: a layer or two, width 64, frames of 32 or 64 pixels, the same parts.

    shrink(name, folder)           the description of a model by its name, with other numbers
    standing_in(name, config)      for a while, open_clip's name means this description
    hub_of_tiny_files(cache)       for a while, the hub's cache has tiny text towers and tokenizers

What makes a tower what it is stays: the classes of its modules (`kinds`), pooling, projections,
activation, context length, the kind of tokenizer. A model of timm is made by timm's own function of
that name, with fewer and narrower layers. Vocabularies shrink with their tokenizers
(tests/support/tokenizers.py); CLIP's own is whole.
"""
import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

from support import hub_cache, tokenizers
from torch import nn

WIDTH = 64
HEADS = 2
IMAGE = 32                                       # pixels; patches of 16
VOCABULARY = 1024                                # more than any tiny tokenizer has

# What stands in the place of timm's numbers, by the beginning of the name of the model: the first
# that fits. Two kinds keep their width, which is no argument of theirs: vit_base_mci and vitamin.
VIT = {"img_size": IMAGE, "patch_size": 16, "embed_dim": WIDTH, "depth": 2, "num_heads": HEADS}
STAGES = {"layers": [1, 1, 1, 1], "embed_dims": [16, 32, 64, 64]}
FIVE_STAGES = {"layers": [1, 1, 1, 1, 1], "embed_dims": [16, 32, 64, 64, 64]}
TRUNKS = {
    "vit_base_mci": {"img_size": IMAGE, "depth": 2, "mlp_ratio": 0.5},
    "vitamin": {"img_size": IMAGE, "depth": 2, "mlp_ratio": 0.5},
    "vit": VIT,
    "eva": VIT,
    "convnext": {"depths": [1, 1, 1, 1], "dims": [16, 32, 48, 64]},
    "swin": {"img_size": IMAGE, "window_size": 4, "embed_dim": 16, "depths": [1, 1, 1, 1],
             "num_heads": [1, 2, 4, 8]},
    "fastvit_mci3": FIVE_STAGES,
    "fastvit_mci4": FIVE_STAGES,
    "fastvit": STAGES,
}

# The config.json of the repositories that text towers of transformers are built from.
ROBERTA = {"hidden_size": WIDTH, "num_hidden_layers": 1, "num_attention_heads": HEADS,
           "intermediate_size": 2 * WIDTH, "vocab_size": VOCABULARY, "type_vocab_size": 1,
           "max_position_embeddings": 514, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
MT5 = {"model_type": "mt5", "is_encoder_decoder": True, "d_model": WIDTH, "d_kv": WIDTH // HEADS,
       "num_heads": HEADS, "num_layers": 1, "num_decoder_layers": 1, "d_ff": 2 * WIDTH,
       "feed_forward_proj": "gated-gelu", "vocab_size": VOCABULARY, "pad_token_id": 0,
       "eos_token_id": 1, "decoder_start_token_id": 0, "tie_word_embeddings": False}
NLLB = {"model_type": "m2m_100", "is_encoder_decoder": True, "d_model": WIDTH, "encoder_layers": 1,
        "decoder_layers": 1, "encoder_attention_heads": HEADS, "decoder_attention_heads": HEADS,
        "encoder_ffn_dim": 2 * WIDTH, "decoder_ffn_dim": 2 * WIDTH, "vocab_size": VOCABULARY,
        "max_position_embeddings": 1024, "scale_embedding": True, "pad_token_id": 1,
        "bos_token_id": 0, "eos_token_id": 2, "decoder_start_token_id": 2}
TEXT_TOWERS = {
    "roberta-base": {"model_type": "roberta", **ROBERTA},
    "xlm-roberta-base": {"model_type": "xlm-roberta", **ROBERTA},
    "xlm-roberta-large": {"model_type": "xlm-roberta", **ROBERTA},
    "google/mt5-base": MT5,
    "google/mt5-xl": MT5,
    "facebook/nllb-200-distilled-600M": NLLB,
    "facebook/nllb-200-distilled-1.3B": NLLB,
}


# --- a description --------------------------------------------------------------------------------
def shrink(name: str, folder: Path) -> dict:
    """open_clip's description of a model, small. Under `folder` lies what timm reads of it."""
    import open_clip

    config = open_clip.get_model_config(name)
    config["embed_dim"] = WIDTH
    config["vision_cfg"] |= small_vision(config["vision_cfg"], folder / name)
    config["text_cfg"] |= small_text(config["text_cfg"])
    if "multimodal_cfg" in config:               # CoCa's captions, which no score needs
        config["multimodal_cfg"] |= {"width": WIDTH, "heads": HEADS, "layers": 1}
    return config


def small_vision(vision: dict, folder: Path) -> dict:
    """What replaces parts of vision_cfg. folder: of timm's description of the same."""
    if "timm_model_name" in vision:
        model = vision["timm_model_name"]
        image = 2 * IMAGE if model.startswith("fastvit") else IMAGE          # it halves it 5 times
        folder.mkdir(parents=True, exist_ok=True)
        # timm's own way to keep a model's arguments with its name.
        (folder / "config.json").write_text(json.dumps({
            "architecture": model, "model_args": trunk_arguments(model), "pretrained_cfg": {}}))
        return {"timm_model_name": f"local-dir:{folder}", "image_size": image}
    if isinstance(vision["layers"], list):       # ResNet: its width is that of the stem
        return {"layers": [1, 1, 1, 1], "width": 8, "image_size": 2 * IMAGE}
    return {"layers": 1, "width": WIDTH, "head_width": WIDTH // HEADS, "patch_size": 16,
            "image_size": IMAGE}


def trunk_arguments(model: str) -> dict:
    """What timm's function of this name gets. Raises KeyError for a kind that TRUNKS lacks."""
    for begin, arguments in TRUNKS.items():
        if model.startswith(begin):
            return arguments
    raise KeyError(f"no small numbers for {model} of timm: see TRUNKS")


def small_text(text: dict) -> dict:
    """What replaces parts of text_cfg. A tower of transformers is small by its config.json."""
    if "hf_model_name" in text:
        return {}
    small = {"width": WIDTH, "heads": HEADS, "layers": 1}
    if "hf_tokenizer_name" in text:
        small["vocab_size"] = VOCABULARY
    return small


@contextlib.contextmanager
def standing_in(name: str, config: dict) -> Iterator[None]:
    """While it is open, open_clip has this description under this name, for whoever asks it."""
    import open_clip.factory

    with mock.patch.dict(open_clip.factory._MODEL_CONFIGS, {name: config}):
        yield


def kinds(model: nn.Module) -> set[str]:
    """The classes of its modules, without containers: what must not change when it shrinks."""
    containers = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
    return {type(part).__name__ for part in model.modules() if not isinstance(part, containers)}


# --- a hub's cache --------------------------------------------------------------------------------
@contextlib.contextmanager
def hub_of_tiny_files(cache: Path, *names: str) -> Iterator[None]:
    """While it is open, the hub is offline, and its cache has what these models read of it."""
    import open_clip
    from huggingface_hub import constants

    for name in names:
        text = open_clip.get_model_config(name)["text_cfg"]
        for key in ("hf_model_name", "hf_tokenizer_name"):
            if key in text:
                hub_cache.put_into_cache(cache, text[key], tiny_repository(text[key]))
    # The library reads the environment once, when it is imported.
    with (mock.patch.dict("os.environ", {"HF_HUB_CACHE": str(cache), "HF_HUB_OFFLINE": "1"}),
          mock.patch.object(constants, "HF_HUB_CACHE", str(cache)),
          mock.patch.object(constants, "HF_HUB_OFFLINE", True)):
        yield


def tiny_repository(repository: str) -> dict[str, bytes]:
    """The files of a repository that open_clip names: its tokenizer, and a config.json."""
    files = dict(tokenizers.of(repository))
    if repository in TEXT_TOWERS:
        files["config.json"] = json.dumps(TEXT_TOWERS[repository]).encode()
    return files
