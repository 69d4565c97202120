"""
CLIP, through open_clip: frames to frame features, class names to class embeddings.

    e_1..e_T = f(V | theta_v)        y = g(C | theta_c)                                               (paper Eq. 1)

f is CLIP's visual tower, applied to each frame alone and fine-tuned; g is its text tower, frozen. A class embedding is
the mean over 28 sentences about the class (paper Table 8), each of unit length, brought back to unit length; float32.

Dimension key   B clips   T frames per clip   D CLIP joint embedding   N classes
Copy alone: needs open_clip (which brings torchvision, ftfy and regex).
Differs from the authors' code: any open_clip model; no activation checkpointing unless asked; bf16, not fp16.
"""
import difflib
import hashlib
import json
import os
import shlex
import warnings
import zipfile
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

BATCH = 256                                                       # sentences at a time through the text tower
SIZES = {"input_resolution", "context_length", "vocab_size"}      # no weights, but in OpenAI's state dicts

# Table 8, as printed there and in the authors' code ("a example" sic).
TEMPLATES = tuple(f"{start} {rest}" for start in ("a photo of", "a video of", "a example of", "a demonstration of")
                  for rest in ("{}.", "a person {}.", "a person using {}.", "a person doing {}.", "a person during {}.",
                               "a person performing {}.", "a person practicing {}."))


def clip_config(backbone: str) -> dict:
    """open_clip's description of an architecture, by its name, from a .json file, or from a .json beside this module.

    Raises ValueError for an unknown name (with the nearest ones) and FileNotFoundError for a missing file.
    """
    import open_clip

    beside = Path(__file__).parent / "toyworld" / f"{backbone}.json"         # toyworld.json
    path = beside if beside.is_file() else Path(backbone)
    if path.suffix == ".json":
        if not path.is_file():
            raise FileNotFoundError(f"--backbone {backbone}: no such file")
        try:
            config = json.loads(path.read_text())
            if "model_cfg" in config:                             # an open_clip_config.json
                config = {**config["model_cfg"], "preprocess_cfg": config.get("preprocess_cfg") or {}}
            if not all(isinstance(config[key], dict) for key in ("vision_cfg", "text_cfg")) or not config["embed_dim"]:
                raise ValueError("vision_cfg and text_cfg must be objects")
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"--backbone {backbone}: not an open_clip model config, which has embed_dim, vision_cfg "
                             f"and text_cfg ({type(error).__name__}: {error})") from None
    else:
        config = open_clip.get_model_config(backbone) if ":" not in backbone else None
        if config is None:
            near = difflib.get_close_matches(backbone, open_clip.list_models(), n=3, cutoff=0.4)
            raise ValueError(f"--backbone {backbone}: open_clip has no such model; near: {', '.join(near) or 'none'} "
                             "(or give a .json file)")
    config["vision_cfg"].pop("timm_model_pretrained", None)       # the weights are --pretrained's to give
    return config


def build_clip(config: dict) -> nn.Module:
    """An open_clip model, random weights, from clip_config's dict. Raises ValueError if open_clip cannot build it."""
    import open_clip

    config = json.loads(json.dumps(config))                       # a copy: open_clip's create_model edits its config
    config.pop("preprocess_cfg", None)
    custom_text = config.pop("custom_text", False) or "hf_model_name" in config["text_cfg"]
    try:
        return (open_clip.CustomTextCLIP if custom_text else open_clip.CLIP)(**config)
    except (TypeError, KeyError, RuntimeError, AssertionError) as error:
        raise ValueError(f"open_clip cannot build this model: {str(error).splitlines()[0]}") from None


def build_visual(config: dict) -> nn.Module:
    """The visual tower alone, with random weights: the text tower is built with no size to speak of, and dropped."""
    text = {"context_length": 1, "vocab_size": 1, "width": 64, "heads": 1, "layers": 1}
    return build_clip({**config, "text_cfg": text}).visual


def load_clip(backbone: str = "ViT-B-16-quickgelu", pretrained: str = "openai") -> tuple[nn.Module, "Tokenizer"]:
    """A CLIP and its tokenizer. pretrained: an open_clip tag (downloaded), a local file, or "" for random weights.

    The activation is part of the architecture, and the same weights load into either without a word: OpenAI's need
    QuickGELU, x sigmoid(1.702 x), open_clip's plain names have GELU. A tag that disagrees is refused; for a file, which
    cannot be checked, the activation is printed. Raises ValueError or OSError, one line each.
    """
    import open_clip
    from open_clip.pretrained import get_pretrained_cfg

    config = clip_config(backbone)
    activation = "QuickGELU" if config.get("quick_gelu") else "GELU"
    beside = Path(__file__).parent / "toyworld" / f"{pretrained}.pt"         # toyworld.pt
    file = beside if beside.is_file() else Path(pretrained)
    tag = get_pretrained_cfg(backbone, pretrained)
    if tag and bool(tag.get("quick_gelu")) != bool(config.get("quick_gelu")):
        right = backbone.removesuffix("-quickgelu") + ("-quickgelu" if tag.get("quick_gelu") else "")
        raise ValueError(f"--backbone {backbone} has {activation}, but --pretrained {pretrained} was trained with the "
                         f"other activation: use --backbone {right}")
    if pretrained and tag:
        try:
            file = Path(open_clip.download_pretrained(tag))
        except Exception as error:                                # whatever the hub's client raises without a network
            raise OSError(f"--pretrained {pretrained}: cannot download it ({type(error).__name__}); fetch the weights "
                          "where there is a network and pass the file: --pretrained FILE") from None
    elif pretrained and not file.is_file():
        tags = open_clip.list_pretrained_tags_by_model(backbone)
        raise ValueError(f"--pretrained {pretrained}: neither a file nor a tag of {backbone}; "
                         f"tags: {', '.join(tags) or 'none'}")
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)                    # random weights are the same ones on every rank
        clip = build_clip(config)
    if pretrained:
        load_weights(clip, file)
        if not tag and file != beside and os.environ.get("RANK", "0") == "0":
            print(f"{file}: loaded into {backbone}, activation {activation}")
    mean, std = open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD
    preprocess = tag or config.get("preprocess_cfg", {})
    clip.image_mean, clip.image_std = preprocess.get("mean", mean), preprocess.get("std", std)
    clip.text_config = [activation, config["text_cfg"]]           # what the weights alone do not say
    return clip.eval(), Tokenizer(backbone, config, getattr(clip, "token_ids", None))


def load_weights(clip: nn.Module, file: Path) -> None:
    """Load open_clip, OpenAI (state dict) or safetensors weights. Raises ValueError, naming the file.

    OpenAI publishes TorchScript archives, and to load one is to run code from it: refused before that.
    A file with `token_ids` holds only those rows of the token embedding (a small vocabulary makes a small file):
    they are put in their places in the full table, and the model remembers which words it knows.
    """
    from open_clip.factory import load_checkpoint, load_state_dict

    if is_torchscript(file):
        command = shlex.join(["python", "tools/convert.py", str(file), f"{file.stem}-weights.pt"])
        raise ValueError(f"--pretrained {file}: a TorchScript archive, as OpenAI publishes them, and loading one runs "
                         f"code from it; if you trust it, convert it once: {command}")
    try:
        state = load_state_dict(str(file))
        if "token_ids" in state:
            clip.token_ids = state.pop("token_ids")
            rows, full = state["token_embedding.weight"].float(), torch.zeros_like(clip.token_embedding.weight)
            state["token_embedding.weight"] = full.index_copy_(0, clip.token_ids, rows)
            clip.load_state_dict(state)
        else:
            found = load_checkpoint(clip, str(file), strict=False)           # open_clip translates some names
            if wrong := [*found.missing_keys, *sorted(set(found.unexpected_keys) - SIZES)]:
                raise ValueError(f"{len(wrong)} names are missing or too many: {', '.join(wrong)}")
    except Exception as error:                                    # pickle, zip, key and shape errors of three libraries
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"--pretrained {file}: not weights of this architecture, truncated, or not a plain state dict "
                         f"({reason[:200]})") from None


def is_torchscript(file: str | Path) -> bool:
    """Was it written by torch.jit.save? Read off the zip's table of contents: nothing in the file is loaded or run."""
    try:
        with zipfile.ZipFile(file) as archive:
            return any(name.split("/")[1:] == ["constants.pkl"] for name in archive.namelist())
    except Exception:                                             # no zip, or a damaged one: weights_only=True decides
        return False


class Tokenizer:
    """Sentences -> token ids (n, context length). Names the words that the text tower has never seen, once each."""

    def __init__(self, backbone: str, config: dict, token_ids: Tensor | None = None):
        import open_clip

        length = config["text_cfg"].get("context_length", 77)
        if config["text_cfg"].get("hf_tokenizer_name") or "siglip" in backbone.lower():
            self.encode = open_clip.get_tokenizer(backbone, context_length=length)
        else:
            self.encode = open_clip.SimpleTokenizer(context_length=length)
        self.known = None if token_ids is None else set(token_ids.tolist()) | {0}

    def __call__(self, sentences: list[str]) -> Tensor:
        return self.encode(sentences)

    def warn_of_unknown(self, names: list[str]) -> None:
        """One line that names the words without a row in the token table; silent for a full vocabulary."""
        if self.known is not None:
            words = sorted({word for name in names for word in name.lower().split()})
            unknown = [word for word in words if not set(self([word])[0].tolist()) <= self.known]
            if unknown:
                warnings.warn(f"this CLIP has never seen the words: {', '.join(unknown)}", stacklevel=3)


def encode_frames(visual: nn.Module, frames: Tensor) -> Tensor:
    """Eq. 1, f: each frame alone through the visual tower. Normalised (B, T, 3, h, w) -> (B, T, D), not unit length."""
    B, T = frames.shape[:2]
    return visual(frames.flatten(0, 1)).unflatten(0, (B, T))


def normalise(frames: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """uint8 (..., 3, h, w) as the loader sends it -> float32 as CLIP was trained to see it, on the frames' device."""
    return (frames.float() / 255 - mean.view(3, 1, 1)) / std.view(3, 1, 1)


def check_templates(templates: tuple[str, ...]) -> None:
    """Raise ValueError unless there are templates, each with exactly one {} for the class name."""
    for template in templates or ("",):
        if template.count("{}") != 1:
            raise ValueError(f"a template needs exactly one {{}} for the class name, got {template!r}")


@torch.no_grad()
def class_embeddings(clip: nn.Module, tokenizer: Tokenizer, names: list[str], templates: tuple[str, ...] = TEMPLATES,
                     cache: str | Path | None = None) -> Tensor:
    """Eq. 1, g, with prompt ensembling (Table 8): (N names) -> (N, D), unit length, float32.

    cache: a folder; the file's name is a hash of weights, names and templates, so that nothing stale is ever found.
    Raises ValueError for a template without exactly one {}.
    """
    check_templates(templates)
    tokenizer.warn_of_unknown(names)
    file = None
    if cache is not None:
        key = json.dumps([text_hash(clip), list(names), list(templates)])
        file = Path(cache) / f"classes-{hashlib.sha256(key.encode()).hexdigest()[:20]}.pt"
        try:
            if zipfile.ZipFile(file).testzip() is None:           # torch.load does not look at checksums
                return torch.load(file, weights_only=True)
        except Exception:                                         # not there yet, or damaged: compute it
            pass
    sentences = [template.replace("{}", name) for name in names for template in templates]
    parts = [tokenizer(sentences[i:i + BATCH]).to(clip.logit_scale.device) for i in range(0, len(sentences), BATCH)]
    each = torch.cat([F.normalize(clip.encode_text(part).float(), dim=-1) for part in parts])
    embeddings = F.normalize(each.unflatten(0, (len(names), len(templates))).mean(dim=1), dim=-1).cpu()
    if file is not None:
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            part = file.with_name(f"{file.name}.{os.getpid()}")   # renamed when whole: ranks may write at once
            torch.save(embeddings, part)
            os.replace(part, file)
        except (OSError, RuntimeError) as error:                  # a cache is a convenience: go on without it
            warnings.warn(f"class embeddings not cached: {error}", stacklevel=2)
    return embeddings


def text_hash(clip: nn.Module) -> str:
    """A hash of the text tower: its configuration, and every weight that is not the visual tower's or the logit's."""
    digest = hashlib.sha256(json.dumps(getattr(clip, "text_config", ""), sort_keys=True).encode())
    for name, tensor in sorted(clip.state_dict().items()):
        if not name.startswith(("visual.", "logit_")):
            digest.update(name.encode() + tensor.cpu().float().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
