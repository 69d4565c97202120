"""
Checkpoints: plain dicts of tensors and builtins, written whole or not at all, and the authors' released format.

    ours      model (state dict), clip (architecture and where its text tower comes from), classes, step, optimizer, ...
    authors'  model_state_dict (OpenAI names), fusion_model_state_dict (the head), nothing about the architecture

The sizes of the head and, for the authors', of the visual tower are read off the shapes. Loading never runs code from a
file (`weights_only=True`).

Dimension key   E experts   D embedding   F feed-forward hidden   M fine-tuning classes
"""
import os
import re
from pathlib import Path

import torch
from torch import Tensor

from .clip_backbone import build_visual, clip_config, load_clip
from .model import MoTE
from .temporal_experts import TemporalTransformer

OPENAI = ("ViT-B-16-quickgelu", "ViT-L-14-quickgelu", "ViT-B-32-quickgelu", "ViT-L-14-336-quickgelu")
OPENAI_MEAN, OPENAI_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def save_checkpoint(path: str | Path, checkpoint: dict) -> None:
    """Write to a temporary file beside path, sync, rename: a kill at any moment leaves the old file or the new one."""
    path = Path(path)
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(part, "wb") as file:
            torch.save(checkpoint, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)                   # the rename itself must reach the disk too
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def read_checkpoint(path: str | Path) -> dict:
    """A checkpoint in our format, converted if it is the authors'. A run's folder means its last.pt.

    Raises FileNotFoundError or ValueError, one line, for what is missing, truncated, in need of code or else wrong.
    """
    path = Path(path)
    path = path / "last.pt" if path.is_dir() else path
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint at {path}")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:                                   # torch raises its own, pickle's, zip's and IO errors
        needs_code = "weights_only" in str(error) and "Unsupported" in str(error)
        reason = "it needs code to unpickle, which is never run" if needs_code else "truncated, or not a checkpoint"
        raise ValueError(f"cannot read {path}: {reason}") from None
    try:
        if isinstance(checkpoint, dict) and {"model_state_dict", "fusion_model_state_dict"} <= checkpoint.keys():
            checkpoint = from_official(checkpoint)
        tensors = checkpoint["model"]["temporal.positions"], checkpoint["model"]["finetune_classes"]
        whole = all(isinstance(tensor, Tensor) for tensor in [*checkpoint["model"].values(), *tensors])
        whole = whole and isinstance(checkpoint["step"], int) and {"config", "mean", "std"} <= checkpoint["clip"].keys()
    except (KeyError, TypeError, AttributeError, IndexError):
        whole = False
    if not whole:
        raise ValueError(f"{path} is neither a checkpoint of train.py nor in the authors' format")
    return checkpoint


def from_official(official: dict) -> dict:
    """The authors' checkpoint -> ours. Raises ValueError for a head without experts or with trained fusion weights."""
    head, vision = official["fusion_model_state_dict"], official["model_state_dict"]
    model = {name: tensor.float() for name, tensor in vision.items()
             if name.startswith("visual.") or name == "logit_scale"}
    stacks: dict[str, dict[int, Tensor]] = {}
    for name, tensor in head.items():
        expert = re.fullmatch(r"transformer\.resblocks\.(\d+)\.mlp\.fc_(up|dn)\.(\d+)\.(weight|bias)", name)
        if expert:
            layer, direction, index, kind = expert.groups()
            direction = {"up": "up", "dn": "down"}[direction]
            stacks.setdefault(f"temporal.blocks.{layer}.experts.{direction}_{kind}", {})[int(index)] = tensor
        elif name.endswith("mote_fusion_weight"):                # softmax(0) = 1/E: the uniform merge, never trained
            if tensor.unique().numel() > 1:
                raise ValueError(f"{name} is not constant: these experts are not merged uniformly (Eq. 6)")
        elif name == "spe_cls_feature":
            model["finetune_classes"] = tensor
        elif name == "frame_position_embeddings.weight":
            model["temporal.positions"] = tensor
        else:
            model[name.replace("transformer.resblocks.", "temporal.blocks.")] = tensor
    if not stacks or "finetune_classes" not in model:
        raise ValueError("the authors' format, but without experts (mlp.fc_up.*) or class embeddings (spe_cls_feature)")
    model.update({name: torch.stack([parts[i] for i in sorted(parts)]) for name, parts in stacks.items()})
    config = vision_config(model)
    same = [name for name in OPENAI if {**clip_config(name)["vision_cfg"], "head_width": 64} == config["vision_cfg"]]
    clip = {"backbone": same[0] if same else "", "pretrained": "openai" if same else "", "config": config,
            "mean": OPENAI_MEAN, "std": OPENAI_STD}
    return {"model": model, "clip": clip, "classes": [], "step": 0, "frames": 8}


def vision_config(state: dict[str, Tensor]) -> dict:
    """open_clip's description of an OpenAI visual tower, from the shapes of its weights."""
    try:
        width, _, _, patch = state["visual.conv1.weight"].shape
        layers = len({name.split(".")[3] for name in state if name.startswith("visual.transformer.resblocks.")})
        grid = round((len(state["visual.positional_embedding"]) - 1) ** 0.5)
        vision = {"image_size": grid * patch, "layers": layers, "width": width, "patch_size": patch, "head_width": 64}
        return {"embed_dim": state["visual.proj"].shape[1], "quick_gelu": True, "vision_cfg": vision, "text_cfg": {}}
    except (KeyError, ValueError) as error:
        raise ValueError(f"the authors' format, but the visual tower is not CLIP's ViT ({error})") from None


def build_model(checkpoint: dict, keep_experts: bool = False) -> MoTE:
    """The model of a checkpoint, in eval mode, its experts merged into one (Eq. 6) unless they are to be kept.

    Raises ValueError where the weights do not fit the architecture that the checkpoint names.
    """
    state, clip = checkpoint["model"], checkpoint["clip"]
    dim = state["temporal.positions"].shape[1]
    up = [tensor for name, tensor in state.items() if name.endswith("experts.up_weight")]
    temporal = TemporalTransformer(dim, len(up), len(up[0]) if up else 1)
    model = MoTE(build_visual(clip["config"]), temporal, torch.zeros_like(state["finetune_classes"]),
                 state["logit_scale"], clip["mean"], clip["std"])
    check_weights(model, state)
    model.load_state_dict(state)
    if not keep_experts:
        model.temporal = temporal.merged()
    return model.eval()


def check_weights(model: torch.nn.Module, state: dict[str, Tensor]) -> None:
    """load_state_dict complains on many lines; this on one: ValueError with the first parameter that differs."""
    ours = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    theirs = {name: tuple(tensor.shape) for name, tensor in state.items()}
    if ours != theirs:
        name = sorted(name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name))[0]
        raise ValueError(f"a checkpoint of another architecture: {name} is {theirs.get(name, 'missing')} there, "
                         f"{ours.get(name, 'missing')} here")


def interpolate(checkpoint: dict, clip: torch.nn.Module, clip_weight: float) -> dict:
    """clip_weight x fine-tuned + (1 - clip_weight) x original, for the visual tower and the logit scale.

    The authors' test scripts use 0.99; the paper does not mention it. The head is left alone. Prints what it does.
    """
    original = {f"visual.{name}": tensor for name, tensor in clip.visual.state_dict().items()}
    original["logit_scale"] = clip.logit_scale.detach().reshape(())
    model = dict(checkpoint["model"])
    if extra := sorted(name for name in model if name.startswith("visual.") and name not in original):
        raise ValueError(f"cannot mix in another architecture: it has no {extra[0]}")
    for name, tensor in original.items():
        if name not in model or model[name].shape != tensor.shape:
            here = tuple(model[name].shape) if name in model else "missing"
            raise ValueError(f"cannot mix in another architecture: {name} is {tuple(tensor.shape)} there, {here} here")
        if tensor.is_floating_point():                           # a counter of batches cannot be mixed
            model[name] = clip_weight * model[name] + (1 - clip_weight) * tensor.cpu()
    if os.environ.get("RANK", "0") == "0":
        print(f"visual tower: {clip_weight:g} x fine-tuned + {1 - clip_weight:.4g} x original CLIP")
    return {**checkpoint, "model": model}


def load_model(path: str | Path, keep_experts: bool = False, clip_weight: float = 1.0, backbone: str = "",
               pretrained: str = "") -> MoTE:
    """A checkpoint of train.py (or a run's folder, or the authors' file) -> MoTE in eval mode, on the CPU.

    keep_experts: do not merge them. clip_weight < 1: mix the original CLIP back in, from backbone and pretrained, or
    from what the checkpoint names. Raises FileNotFoundError or ValueError, one line each.

    >>> model = load_model("tests/golden/official_tiny_checkpoint.pt")
    >>> model(torch.zeros(2, 5, 3, 32, 32), model.finetune_classes).shape     # 2 clips of 5 frames, 12 classes
    torch.Size([2, 12])
    """
    checkpoint = read_checkpoint(path)
    if clip_weight != 1:
        clip, _ = load_clip(backbone or checkpoint["clip"]["backbone"], pretrained or checkpoint["clip"]["pretrained"])
        checkpoint = interpolate(checkpoint, clip, clip_weight)
    return build_model(checkpoint, keep_experts)
