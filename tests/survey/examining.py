"""
A model of open_clip in mote beside the same weights in open_clip itself: what differs, what works.

    full_size(name)                 the model as it is: built without memory, on torch's meta device
    load_both(name, folder, tag)    the small one, with random weights from a file, in both
    write_small, load_ours          its two halves
    features_off, classes_off, same_ids    what differs between the two
    pixels_by_tag, tags_to_name            how frames are made
    without_gradient, recomputes           what a training needs to know
"""
import contextlib
import io
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from support.clips import NAMES
from survey.shrinking import kinds, shrink, standing_in
from torch import Tensor, nn

from mote.clip_backbone import (
    TEMPLATES,
    Pixels,
    Tokenizer,
    build_clip,
    build_visual,
    checkpoint_activations,
    class_embeddings,
    clip_config,
    encode_frames,
    load_clip,
)

SENTENCES = TEMPLATES[:4]                        # of the 28: enough to tell sentences apart
# Longer than any context, with letters that tokenizers treat in their own ways.
HARD = ["Déjà vu,  at the café &amp; a bar!", "a b c " * 40, "踊る", ""]


# --- as it is -------------------------------------------------------------------------------------
def full_size(name: str) -> dict:
    """Sizes and parts of a model, with a frame of its size sent through. No memory is needed.

    A text tower of transformers takes its size from a file of the hub: it is not counted.
    """
    config = clip_config(name)
    text = config["text_cfg"]
    with torch.device("meta"):
        clip = build_visual(config) if "hf_model_name" in text else build_clip(config)
        visual = getattr(clip, "visual", clip).eval()
        size = side(visual)
        features = encode_frames(visual, torch.zeros(1, 1, 3, size, size))

    about = {"size": size, "dim": features.shape[-1], "visual": words_for(visual),
             "visual_parameters": count(visual), "kinds": sorted(kinds(visual)),
             "activation": "QuickGELU" if config.get("quick_gelu") else "GELU",
             "logit_bias": "init_logit_bias" in config,
             "tokenizer": text.get("hf_tokenizer_name", ""),
             "context": text.get("context_length", 77), "text": text.get("hf_model_name", "")}
    if clip is not visual:
        tower = getattr(clip, "text", None)      # else the parts of it are the model's own
        others = count(clip) - count(visual)
        about["text_parameters"] = count(tower) if tower is not None else others
    return about


def side(visual: nn.Module) -> int:
    """Pixels of one side of a frame."""
    size = visual.image_size
    return size if isinstance(size, int) else size[0]


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def words_for(visual: nn.Module) -> str:
    """The class of a tower; of timm's, of what is in it."""
    return type(getattr(visual, "trunk", visual)).__name__


# --- small, in mote and in open_clip --------------------------------------------------------------
class Both(NamedTuple):
    """The same weights twice: clip, words by mote; theirs, their_words by open_clip."""
    clip: nn.Module
    words: Tokenizer
    theirs: nn.Module
    their_words: Callable
    config: dict
    file: Path


def load_both(name: str, folder: Path, as_tag: str = "") -> Both:
    """Random weights under a name of open_clip: written to a file in `folder`, loaded by both."""
    import open_clip

    config, file = write_small(name, folder)
    clip, words = load_ours(name, config, file, as_tag)
    with standing_in(name, config):
        theirs = open_clip.create_model(name, pretrained=str(file)).eval()
        their_words = open_clip.get_tokenizer(name)
    return Both(clip, words, theirs, their_words, config, file)


def write_small(name: str, folder: Path) -> tuple[dict, Path]:
    """The small description of a name, and a file with random weights for it."""
    config = shrink(name, folder)
    file = folder / f"{name}.pt"
    with standing_in(name, config):
        torch.save(at_random(build_clip(clip_config(name))), file)
    return config, file


def load_ours(name: str, config: dict, file: Path, as_tag: str) -> tuple[nn.Module, Tokenizer]:
    """What load_clip gives for a file under a name; ValueError where it wants another as_tag."""
    with standing_in(name, config), contextlib.redirect_stdout(io.StringIO()):
        return load_clip(name, str(file), as_tag)                # it prints what was loaded


def at_random(model: nn.Module, seed: int = 7) -> dict[str, Tensor]:
    """A state for it with noise on every number: nothing is left at 0 or 1.

    As built, a weight that is not loaded may go unseen: biases are 0, and batch norms untouched.
    These then see some frames, or all frames would look alike to a tower with many of them.
    """
    generator = torch.Generator().manual_seed(seed)
    for tensor in model.state_dict().values():
        if tensor.is_floating_point():
            noise = torch.rand(tensor.shape, generator=generator) - 0.5
            tensor += noise * (0.2 if tensor.ndim > 1 else 1.0)

    for part in model.visual.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            part.momentum = 1.0                  # running statistics are those of the last batch
    with torch.no_grad():
        encode_frames(model.visual.train(), frames_for(model.visual))
    return model.state_dict()


def frames_for(visual: nn.Module) -> Tensor:
    """Two clips of three normalised frames, (2, 3, 3, h, w)."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, 3, 3, side(visual), side(visual), generator=generator)


# --- what differs ---------------------------------------------------------------------------------
@torch.no_grad()
def features_off(both: Both) -> float:
    """The largest difference between frame features of unit length."""
    frames = frames_for(both.clip.visual)
    ours = F.normalize(encode_frames(both.clip.visual, frames), dim=-1)
    right = [both.theirs.encode_image(clip, normalize=True) for clip in frames]
    return (ours - torch.stack(right)).abs().max().item()


@torch.no_grad()
def classes_off(both: Both) -> float:
    """The largest difference between class embeddings; open_clip's are made one class at a time."""
    ours = class_embeddings(both.clip, both.words, NAMES, SENTENCES)
    right = []
    for name in NAMES:
        tokens = both.their_words([sentence.replace("{}", name) for sentence in SENTENCES])
        right.append(F.normalize(both.theirs.encode_text(tokens, normalize=True).mean(0), dim=0))
    return (ours - torch.stack(right)).abs().max().item()


def same_ids(both: Both) -> bool:
    """Whether sentences have the same token ids, hard ones too."""
    sentences = [*HARD, *(sentence.replace("{}", NAMES[0]) for sentence in SENTENCES)]
    return torch.equal(both.words(sentences), both.their_words(sentences))


# --- how frames are made --------------------------------------------------------------------------
ANY_TAG = "ViT-B-32/openai"                      # for a name without tags: its file is the user's


def pixels_by_tag(name: str) -> dict[Pixels, list[str]]:
    """The tags of a name, by how open_clip itself makes the frames that go with them."""
    from open_clip import list_pretrained_tags_by_model
    from open_clip.pretrained import get_pretrained_cfg
    from open_clip.transform import PreprocessCfg, merge_preprocess_dict

    found: dict[Pixels, list[str]] = {}
    for tag in list_pretrained_tags_by_model(name):
        tag_says = get_pretrained_cfg(name, tag)
        said = merge_preprocess_dict(asdict(PreprocessCfg()), tag_says)
        pixels = Pixels(tuple(said["mean"]), tuple(said["std"]), said["resize_mode"],
                        said["interpolation"])
        found.setdefault(pixels, []).append(tag)
    return found


def tags_to_name(name: str) -> dict[str, Pixels]:
    """--as-tag of a file with this name's weights -> how its frames must be made then.

    "" alone where the tags agree; else one tag for each way, but tags of the other activation,
    which are refused. ANY_TAG where there are no tags.
    """
    from open_clip import get_model_config
    from open_clip.pretrained import get_pretrained_cfg

    found = pixels_by_tag(name)
    if not found:
        return {ANY_TAG: Pixels()}
    if len(found) == 1:
        return dict.fromkeys([""], *found)

    quick = get_model_config(name).get("quick_gelu", False)
    named = {}
    for pixels, tags in found.items():
        fitting = [tag for tag in tags
                   if get_pretrained_cfg(name, tag).get("quick_gelu", False) == quick]
        if fitting:
            named[fitting[0]] = pixels
    return named


# --- what a training needs to know ----------------------------------------------------------------
def without_gradient(visual: nn.Module) -> list[str]:
    """Parameters that frame features do not depend on. ValueError for one that is not finite."""
    visual.zero_grad()
    encode_frames(visual, frames_for(visual)).square().sum().backward()
    unused = []
    for name, parameter in visual.named_parameters():
        if parameter.grad is None:
            unused.append(name)
        elif not parameter.grad.isfinite().all():
            raise ValueError(f"the gradient of {name} is not finite")
    return unused


def recomputes(visual: nn.Module) -> bool:
    """Whether a backward pass can run modules again, in place of keeping what they gave.

    What `checkpoint_activations` says is held against what happens. ValueError where they differ.
    """
    before = forward_calls(visual)
    try:
        checkpoint_activations(visual, True)
        says = True
    except ValueError:
        says = False
    does = forward_calls(visual) > before
    visual.set_grad_checkpointing(False)
    if says != does:
        raise ValueError(f"checkpoint_activations says {says}, and modules ran again: {does}")
    return does


def forward_calls(visual: nn.Module) -> int:
    """How many modules run in a forward and a backward pass, counted each time that they do."""
    calls = []
    hooks = [part.register_forward_hook(lambda *_: calls.append(1)) for part in visual.modules()]
    encode_frames(visual, frames_for(visual)).sum().backward()
    for hook in hooks:
        hook.remove()
    return len(calls)
