"""
CLIP, through open_clip: frames to frame features, class names to class embeddings.

    e_1..e_T = f(V | theta_v)        y = g(C | theta_c)                              (paper Eq. 1)

f is CLIP's visual tower, applied to each frame alone and fine-tuned; g is its text tower, frozen. A
class embedding is the mean over 28 sentences about the class (Table 8), each of unit length,
brought back to unit length; float32.

Dimension key   B clips   T frames per clip   D CLIP joint embedding   N classes   P templates
Copy together with files/weights.py and files/towers/: keep the folder, or put both on sys.path.
Needs open_clip (which brings torchvision, ftfy and regex).
Differs from the authors' code: any open_clip model; no activation checkpointing unless asked; bf16,
not fp16.
"""
import hashlib
import itertools
import json
import os
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

try:
    from .files import towers, weights
except ImportError:                             # copied beside them, outside the package
    import towers
    import weights


# --- Eq. 1, f: frames -----------------------------------------------------------------------------
def normalise(frames: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """uint8 (..., 3, h, w) as the loader sends it -> float32 as CLIP was trained to see it."""
    return (frames.float() / 255 - mean.view(3, 1, 1)) / std.view(3, 1, 1)


def encode_frames(visual: nn.Module, frames: Tensor) -> Tensor:
    """Eq. 1, f: each frame alone through the visual tower.

    Normalised (B, T, 3, h, w) -> (B, T, D), not of unit length.
    """
    B, T = frames.shape[:2]
    features = visual(frames.flatten(0, 1))
    if isinstance(features, tuple):                              # CoCa's: with one for each token
        features = features[0]
    return features.unflatten(0, (B, T))


# --- Eq. 1, g: class names ------------------------------------------------------------------------
# Table 8, as printed there and in the authors' code ("a example" sic).
STARTS = ("a photo of", "a video of", "a example of", "a demonstration of")
ENDS = ("{}.", "a person {}.", "a person using {}.", "a person doing {}.", "a person during {}.",
        "a person performing {}.", "a person practicing {}.")
TEMPLATES = tuple(f"{start} {end}" for start, end in itertools.product(STARTS, ENDS))
BATCH = 256                                     # sentences at a time through the text tower


@torch.no_grad()
def class_embeddings(
    clip: nn.Module, tokenizer: "Tokenizer", names: list[str],
    templates: tuple[str, ...] = TEMPLATES, cache: str | Path | None = None,
    progress: Callable = iter,
) -> Tensor:
    """Eq. 1, g, with prompt ensembling (Table 8): N names -> (N, D), unit length, float32.

    The result is on the CPU. cache: a folder. The name of the file in it is a hash of weights,
    names and templates, so that nothing stale is ever found. progress: wraps the batches' range,
    as tqdm does. Warns of words
    that the text tower has never seen. Raises ValueError for a template without exactly one {}.
    """
    check_templates(templates)
    tokenizer.warn_of_unknown(names)
    if cache is None:
        return encode_classes(clip, tokenizer, names, templates, progress).cpu()

    file = cache_file(cache, clip, names, templates)
    embeddings_ND = read_cache(file)
    if embeddings_ND is None:
        embeddings_ND = encode_classes(clip, tokenizer, names, templates, progress).cpu()
        write_cache(file, embeddings_ND)
    return embeddings_ND


def encode_classes(
    clip: nn.Module, tokenizer: "Tokenizer", names: list[str], templates: tuple[str, ...],
    progress: Callable = iter,
) -> Tensor:
    """What class_embeddings computes, without cache and checks -> (N, D), on clip's device."""
    sentences = []
    for name in names:
        sentences += [template.replace("{}", name) for template in templates]

    sentence_features = []
    for i in progress(range(0, len(sentences), BATCH)):
        tokens = tokenizer(sentences[i:i + BATCH]).to(clip.logit_scale.device)
        y = clip.encode_text(tokens).float()
        sentence_features.append(F.normalize(y, dim=-1))

    y_NPD = torch.cat(sentence_features).unflatten(0, (len(names), len(templates)))
    return F.normalize(y_NPD.mean(dim=1), dim=-1)


def check_templates(templates: tuple[str, ...]) -> None:
    """Raise ValueError unless there are templates, each with exactly one {} for the class name."""
    for template in templates or ("",):
        if template.count("{}") != 1:
            raise ValueError("a template needs exactly one {} for the class name, "
                             f"got {template!r}")


class Tokenizer:
    """Sentences -> token ids (n, context length), for the text tower of a clip_config.

    backbone: whose config it is. folder: the user's own copy of the tokenizer, "" for open_clip's.
    name: which one it is, in words. Raises ValueError or OSError, one line, where it cannot be had.
    """

    def __init__(self, backbone: str, config: dict, folder: str = ""):
        text = config["text_cfg"]
        own = towers.tokenizer_folder(backbone)
        self.encode = towers.find_tokenizer(backbone, text, own, folder)
        self.name = folder or text.get("hf_tokenizer_name") or "CLIP's"
        self.known: set[int] | None = None                       # the full vocabulary

    def limit_vocabulary(self, token_ids: Tensor | None) -> None:
        """Warn of all other tokens from now on: the text tower was trained on these only."""
        if token_ids is not None:
            self.known = {0, *token_ids.tolist()}                # 0 pads

    def __call__(self, sentences: list[str]) -> Tensor:
        return self.encode(sentences)

    def warn_of_unknown(self, names: list[str]) -> None:
        """Warn, in one line, of words that hold an unknown token. Silent for a full vocabulary."""
        if self.known is None:
            return
        words = sorted(set(" ".join(names).lower().split()))
        unknown = [word for word in words if not self.known.issuperset(self([word])[0].tolist())]
        if unknown:
            warnings.warn(f"this CLIP has never seen the words: {', '.join(unknown)}", stacklevel=3)


# --- the cache of class embeddings ----------------------------------------------------------------
def text_hash(clip: nn.Module) -> str:
    """A hash of the text tower: its configuration, and every weight that is not the visual tower's
    or the logit's. Part of checkpoints and protocols: the same tower must keep its hash.
    """
    config = json.dumps(getattr(clip, "text_config", ""), sort_keys=True)
    digest = hashlib.sha256(config.encode())
    for name, tensor in sorted(clip.state_dict().items()):
        if not name.startswith(("visual.", "logit_")):
            digest.update(name.encode() + tensor.cpu().float().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def cache_file(
    folder: str | Path, clip: nn.Module, names: list[str], templates: tuple[str, ...]
) -> Path:
    """Where the embeddings of these names, in these templates, by this text tower are cached."""
    key = json.dumps([text_hash(clip), list(names), list(templates)])
    return Path(folder) / f"classes-{hashlib.sha256(key.encode()).hexdigest()[:20]}.pt"


def read_cache(file: Path) -> Tensor | None:
    """Cached embeddings (N, D); None where there are none, or where the file is damaged.

    They are then computed again, and the damaged file is replaced.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            whole = archive.testzip() is None                    # torch.load looks at no checksum
        return torch.load(file, weights_only=True) if whole else None
    except Exception:                                            # of zipfile, pickle and torch
        return None


def write_cache(file: Path, embeddings_ND: Tensor) -> None:
    """Write a whole file or none: several ranks may write at once. Where it fails, only warn."""
    part = file.with_name(f"{file.name}.{os.getpid()}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        torch.save(embeddings_ND, part)
        os.replace(part, file)
    except (OSError, RuntimeError) as error:
        warnings.warn(f"class embeddings not cached: {error}", stacklevel=3)


# --- a CLIP with its weights ----------------------------------------------------------------------
SHIPPED = Path(__file__).parent / "toyworld"    # a CLIP in this package: toyworld.json, toyworld.pt

# Reachable here too, since they are used with load_clip.
Pixels = towers.Pixels
has_own_weights = towers.has_own_weights
SIZES = weights.SIZES
is_torchscript = weights.is_torchscript
load_weights = weights.load_weights


class Source(NamedTuple):
    """What is known of a CLIP before any weights are read: `find_clip`."""
    config: dict
    tag: dict                                   # open_clip's description of the weights; {} of none
    file: Path | None                           # None: a tag's, which may be downloaded, or random
    pixels: towers.Pixels
    known_from: str                             # what says the pixels, in words
    tokenizer: Tokenizer


def find_clip(
    backbone: str, pretrained: str | None = None, as_tag: str = "", tokenizer: str = "",
) -> Source:
    """All that a user can get wrong of a CLIP, but for damaged weights and a broken download.

    The arguments are load_clip's. A mistake shows in a second here, and a wrong guess would only
    show as a worse score. Raises ValueError or OSError, one line each.
    """
    from open_clip.pretrained import get_pretrained_cfg

    # The description of the architecture, and the weights that are meant: a tag or a file. Neither
    # says all of it, so where both do, they must agree.
    pretrained = towers.which_weights(backbone, pretrained)
    config = clip_config(backbone)
    tag, file = {}, None
    if towers.has_own_weights(backbone):
        file = towers.own_weights(backbone)
    elif pretrained:
        tag = get_pretrained_cfg(backbone, pretrained)           # {} for a file
        file = None if tag else weights.local_file(backbone, pretrained, SHIPPED)
    if tag:
        weights.check_activation(backbone, f"--pretrained {pretrained}", config, tag)

    # Pixels and tokens, which weights do not carry.
    is_random = not tag and file is None
    pixels, known_from = towers.find_pixels(backbone, config, tag, as_tag, is_random)
    of_another = as_tag.rpartition("/")[0] not in ("", backbone)
    if as_tag and not of_another:               # another model's tag lends its pixels only
        weights.check_activation(backbone, f"--as-tag {as_tag}", config,
                                 towers.tag_of(backbone, as_tag))
    return Source(config, tag, file, pixels, known_from, Tokenizer(backbone, config, tokenizer))


def load_clip(
    backbone: str = "ViT-B-16-quickgelu", pretrained: str | None = None, as_tag: str = "",
    tokenizer: str = "",
) -> tuple[nn.Module, Tokenizer]:
    """A CLIP, in evaluation mode, and its tokenizer.

    backbone: as clip_config takes it. pretrained: an open_clip tag (downloaded), a local file, or
    "" for random weights; "openai" if it is not given. A local-dir: or hf-hub: has weights of its
    own. as_tag: the tag whose weights a file holds; it says how frames are made. tokenizer: a
    folder with the tokenizer. Both are needed only where nothing else says it.

    The activation is part of the architecture, and the same weights load into either without a
    word: OpenAI's need QuickGELU, x sigmoid(1.702 x); open_clip's plain names have GELU. A tag that
    disagrees is refused; a file says nothing about it, so the activation is printed. The clip has
    an attribute `pixels`, for MoTE. Raises ValueError or OSError, one line each.
    """
    source = find_clip(backbone, pretrained, as_tag, tokenizer)
    file = source.file
    if source.tag:
        file = weights.download(pretrained or "openai", source.tag)

    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)                   # the same weights on all ranks
        clip = build_clip(source.config)
    activation = weights.activation(source.config)
    if file is not None:
        own = towers.has_own_weights(backbone)
        changes = load_weights(clip, file, f"--backbone {backbone}:" if own else "--pretrained")
        unchecked = not source.tag and file.parent != SHIPPED
        if unchecked and os.environ.get("RANK", "0") == "0":
            print(f"{file}: loaded into {backbone}, activation {activation}; pixels: "
                  f"{source.pixels}, {source.known_from}; tokenizer: {source.tokenizer.name}",
                  *changes, sep="; ")

    clip.pixels = source.pixels
    # What the weights alone do not say of the text tower; text_hash needs it.
    clip.text_config = [activation, *towers.describe_text(source.config, source.tokenizer.encode)]
    source.tokenizer.limit_vocabulary(getattr(clip, "token_ids", None))
    return clip.eval(), source.tokenizer


def checkpoint_activations(visual: nn.Module, on: bool) -> None:
    """Recompute activations in the backward pass: less memory, more time, the same numbers.

    Raises ValueError for a tower without it: open_clip's ResNets, and any of timm's that lack it,
    would ignore the call.
    """
    visual.set_grad_checkpointing(on)
    if on and not any(getattr(part, "grad_checkpointing", False) for part in visual.modules()):
        raise ValueError("--checkpoint-activations: this visual tower, a "
                         f"{type(visual).__name__}, does not support it")


# --- its architecture -----------------------------------------------------------------------------
def clip_config(backbone: str) -> dict:
    """open_clip's description of an architecture.

    backbone: open_clip's name, a .json file, a folder (local-dir:DIR), a repository of the hub
    (hf-hub:ORG/NAME), or toyworld. Raises ValueError for an unknown name, with the nearest ones,
    for a file that describes no model and for a tower whose frames are not square;
    FileNotFoundError for a missing file.
    """
    shipped = SHIPPED / f"{backbone}.json"
    config = towers.read_config(str(shipped) if shipped.is_file() else backbone)
    config["vision_cfg"].pop("timm_model_pretrained", None)      # --pretrained's to say

    check_image_size(backbone, config["vision_cfg"].get("image_size", 224))
    return config


def check_image_size(backbone: str, size: object) -> None:
    """Raise ValueError unless it is a number of pixels, or two equal ones: frames are square."""
    sides = size if isinstance(size, list) and len(size) == 2 else [size]
    if not all(type(side) is int and side > 0 for side in sides):
        raise ValueError(f"--backbone {backbone}: image_size must be a number of pixels, or two, "
                         f"got {size!r}")
    if len(set(sides)) > 1:
        raise ValueError(f"--backbone {backbone}: its frames are {sides[0]} x {sides[1]} pixels, "
                         "and only square ones are cut here")


def build_clip(config: dict) -> nn.Module:
    """An open_clip model with random weights, from clip_config's dict, which is not changed.

    They are drawn from torch's global generator. A text tower of transformers is built from its
    config alone, without the weights of its own training: CLIP's hold all of it. Raises ValueError
    if the model cannot be built, OSError where that config cannot be had.
    """
    import open_clip

    if "transformers" in config:
        return towers.build_transformers(config)
    config = json.loads(json.dumps(config))                      # a copy: open_clip edits it
    config.pop("preprocess_cfg", None)
    text = config["text_cfg"]
    if text.get("hf_model_name"):
        text["hf_model_name"] = towers.text_config_folder(text["hf_model_name"])
        text["hf_model_pretrained"] = False
    custom_text = config.pop("custom_text", False) or "hf_model_name" in text

    kind = open_clip.CLIP
    if custom_text:
        kind = open_clip.CoCa if "multimodal_cfg" in config else open_clip.CustomTextCLIP
    try:
        return kind(**config)
    except Exception as error:           # of its assertions, its layers, torch and transformers
        raise ValueError("--backbone: open_clip cannot build this model "
                         f"({towers.in_one_line(error)})") from None


def build_visual(config: dict) -> nn.Module:
    """The visual tower alone, with random weights.

    The text tower that open_clip builds with it is given no size to speak of, and dropped.
    """
    if "transformers" in config:
        return towers.build_transformers_visual(config)
    text = {"context_length": 1, "vocab_size": 1, "width": 64, "heads": 1, "layers": 1}
    without_words = {name: part for name, part in config.items()
                     if name not in ("multimodal_cfg", "custom_text")}
    return build_clip({**without_words, "text_cfg": text}).visual
