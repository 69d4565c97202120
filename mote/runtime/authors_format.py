"""
The authors' checkpoint format, to ours and back, bit for bit, so that models can be compared in either code.

    theirs   model_state_dict          visual.* (OpenAI's names) and logit_scale
             fusion_model_state_dict   the head: each expert apart (mlp.fc_up.i, mlp.fc_dn.i), mote_fusion_weight,
                                       frame_position_embeddings, and the classes of fine-tuning: spe_cls_feature
             epoch, optimizer_state_dict
    ours     model                     experts stacked (E, ...); clip: the architecture, which theirs leaves to a config

Their mote_fusion_weight is never trained: softmax(0, ..., 0) is the uniform merge of Eq. 6. Their code has OpenAI's ViT
only, its mean and standard deviation of pixels, and at least one layer; E = 1 is a mixture of one expert there.

Dimension key   E experts   D embedding   F feed-forward hidden   M fine-tuning classes
"""
import re
from dataclasses import asdict

import torch
from torch import Tensor

from ..clip_backbone import clip_config

OPENAI = ("ViT-B-16-quickgelu", "ViT-L-14-quickgelu", "ViT-B-32-quickgelu", "ViT-L-14-336-quickgelu")
OPENAI_MEAN, OPENAI_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def is_official(checkpoint: object) -> bool:
    """Is it in the authors' format, by its keys?"""
    return isinstance(checkpoint, dict) and {"model_state_dict", "fusion_model_state_dict"} <= checkpoint.keys()


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
    if gaps := [name for name, parts in stacks.items() if sorted(parts) != list(range(len(parts)))]:
        raise ValueError(f"the authors' format, but experts are missing: {gaps[0]} has {sorted(stacks[gaps[0]])} only")
    model.update({name: torch.stack([parts[i] for i in range(len(parts))]) for name, parts in stacks.items()})
    config = vision_config(model)
    backbone = openai_backbone(config)
    clip = {"backbone": backbone, "pretrained": "openai" if backbone else "", "config": config,
            "mean": OPENAI_MEAN, "std": OPENAI_STD}
    return {"model": model, "clip": clip, "classes": [], "step": 0, "frames": 8, "epoch": official.get("epoch", 0)}


def to_official(checkpoint: dict) -> dict:
    """Ours -> the authors' checkpoint. What theirs has no place for (class names, prompts, optimizer) is left out.

    epoch is theirs where it came from them, else 0: train.py counts steps. Raises ValueError, one line, for what their
    code cannot compute: a head without layers, another visual tower or other pixel statistics than OpenAI's ViT.
    """
    model, clip = checkpoint["model"], checkpoint["clip"]
    if not any(".experts." in name for name in model):
        raise ValueError("the authors' code cannot express a head without layers: it would still add its positions")
    check_expressible(model, clip)
    vision, head = {}, {}
    for name, tensor in model.items():
        theirs = name.replace("temporal.blocks.", "transformer.resblocks.")
        if name.startswith("visual.") or name == "logit_scale":
            vision[name] = tensor
        elif name == "finetune_classes":
            head["spe_cls_feature"] = tensor
        elif name == "temporal.positions":
            head["frame_position_embeddings.weight"] = tensor
        elif ".experts." in name:
            block, _, part = theirs.partition(".experts.")
            direction, kind = part.replace("down", "dn").split("_")
            for i, expert in enumerate(tensor):
                head[f"{block}.mlp.fc_{direction}.{i}.{kind}"] = expert.clone()
            head[f"{block}.mlp.mote_fusion_weight"] = torch.zeros(len(tensor))
        else:
            head[theirs] = tensor
    return {"epoch": checkpoint.get("epoch", 0), "model_state_dict": vision, "fusion_model_state_dict": head,
            "optimizer_state_dict": {}}


def check_expressible(state: dict[str, Tensor], clip: dict) -> None:
    """Raise ValueError with the first thing in which a visual tower is not OpenAI's ViT of the same shapes."""
    from open_clip.model import CLIPVisionCfg

    def described(vision_cfg: dict, quick_gelu: bool, mean: tuple, std: tuple) -> dict:
        return {**asdict(CLIPVisionCfg(**vision_cfg)), "quick_gelu": quick_gelu, "mean": tuple(mean), "std": tuple(std)}
    theirs = described(vision_config(state)["vision_cfg"], True, OPENAI_MEAN, OPENAI_STD)
    ours = described(clip["config"]["vision_cfg"], bool(clip["config"].get("quick_gelu")), clip["mean"], clip["std"])
    for name, value in theirs.items():
        if ours[name] != value:
            raise ValueError(f"the authors' code cannot express {name} = {ours[name]}: OpenAI's ViT has {value}")


def vision_config(state: dict[str, Tensor]) -> dict:
    """open_clip's description of an OpenAI visual tower, from the shapes of its weights."""
    try:
        width, _, _, patch = state["visual.conv1.weight"].shape
        layers = len({name.split(".")[3] for name in state if name.startswith("visual.transformer.resblocks.")})
        grid = round((len(state["visual.positional_embedding"]) - 1) ** 0.5)
        vision = {"image_size": grid * patch, "layers": layers, "width": width, "patch_size": patch, "head_width": 64}
        return {"embed_dim": state["visual.proj"].shape[1], "quick_gelu": True, "vision_cfg": vision, "text_cfg": {}}
    except (KeyError, ValueError) as error:
        raise ValueError(f"the authors' format has room for CLIP's ViT only, and the visual tower is not CLIP's ViT "
                         f"({error})") from None


def openai_backbone(config: dict) -> str:
    """open_clip's name of OpenAI's model with this visual tower, whose text tower goes with it; "" if there is none."""
    for name in OPENAI:
        known = clip_config(name)
        if {**known["vision_cfg"], "head_width": 64} == config["vision_cfg"] \
                and known["embed_dim"] == config["embed_dim"]:
            return name
    return ""
