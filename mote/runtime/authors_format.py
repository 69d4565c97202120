"""
The authors' checkpoint format, to ours and back, bit for bit, so that either code reads a model.

    theirs   model_state_dict          visual.* (OpenAI's names) and logit_scale
             fusion_model_state_dict   the temporal transformer, each expert apart (mlp.fc_up.i,
                                       mlp.fc_dn.i), its mote_fusion_weight, the positions
                                       (frame_position_embeddings), and the class embeddings of
                                       fine-tuning (spe_cls_feature)
             epoch, optimizer_state_dict
             names may begin with module. (saved inside a DDP): it is left out
    ours     model                     experts stacked (E, ...)
             clip                      the architecture, which theirs leaves to a config file

Their mote_fusion_weight is never trained: softmax(0, ..., 0) is the uniform merge of Eq. 6. Their
code has OpenAI's ViT only, frames as OpenAI makes them (mean, std, crop, bicubic), and at least one
layer. One expert (E = 1) is a mixture of one expert there. What they cannot express raises an error
here rather than give a file that computes something else in their code.

checkpoints.py reads and writes the files, tools/convert.py is the command. Not part of the paper.

Dimension key   E experts   D embedding   F feed-forward hidden   M fine-tuning classes
"""
import re
from dataclasses import asdict

import torch
from torch import Tensor

from ..clip_backbone import Pixels, clip_config

OPENAI = ("ViT-B-16-quickgelu", "ViT-L-14-quickgelu", "ViT-B-32-quickgelu",
          "ViT-L-14-336-quickgelu")

THEIR_BLOCKS = "transformer.resblocks."
OUR_BLOCKS = "temporal.blocks."
THEIR_EXPERT = re.compile(r"transformer\.resblocks\.(\d+)\.mlp\.fc_(up|dn)\.(\d+)\.(weight|bias)")

Stacks = dict[str, dict[int, Tensor]]      # our name of a stack -> its experts, by their number


def is_authors(checkpoint: object) -> bool:
    """Is it in the authors' format, by its keys?"""
    if not isinstance(checkpoint, dict):
        return False
    return {"model_state_dict", "fusion_model_state_dict"} <= checkpoint.keys()


# --- theirs to ours -------------------------------------------------------------------------------
def from_authors(authors: dict) -> dict:
    """The authors' checkpoint -> ours. Their epoch is kept; step is 0, for they count none.

    Raises ValueError, one line, for a temporal transformer without experts, with an expert missing
    or with trained fusion weights, and for a visual tower that is not CLIP's ViT.
    """
    model = {}
    for name, tensor in without_wrapper(authors["model_state_dict"]).items():
        if is_of_clip(name):
            model[name] = tensor.float()

    shared, stacks = split_experts(without_wrapper(authors["fusion_model_state_dict"]))
    model.update(shared)
    if not stacks or "finetune_classes" not in model:
        raise ValueError("the authors' format, but without experts (mlp.fc_up.*) "
                         "or class embeddings (spe_cls_feature)")
    model.update(stack_experts(stacks))

    config = vision_config(model)
    backbone = openai_backbone(config)
    pretrained = "openai" if backbone else ""
    clip = {"backbone": backbone, "pretrained": pretrained, "config": config,
            **asdict(Pixels())}
    return {"model": model, "clip": clip, "classes": [], "step": 0, "frames": 8,
            "epoch": authors.get("epoch", 0)}


def without_wrapper(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A state dict without the prefix that a wrapper gives all names: DDP, or torch.compile."""
    for prefix in ("module.", "_orig_mod.", "module."):
        if state and all(name.startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    return state


def is_of_clip(name: str) -> bool:
    """Does a parameter belong to the part of CLIP that a checkpoint keeps? In either format."""
    return name.startswith("visual.") or name == "logit_scale"


def split_experts(temporal: dict[str, Tensor]) -> tuple[dict[str, Tensor], Stacks]:
    """Their fusion_model_state_dict -> what experts share, under our names, and the experts.

    Raises ValueError for fusion weights that are not constant, for then the experts are not merged
    uniformly.
    """
    shared: dict[str, Tensor] = {}
    stacks: Stacks = {}

    for name, tensor in temporal.items():
        expert = THEIR_EXPERT.fullmatch(name)
        if expert:
            layer, direction, index, kind = expert.groups()
            direction = direction.replace("dn", "down")
            ours = f"{OUR_BLOCKS}{layer}.experts.{direction}_{kind}"
            stacks.setdefault(ours, {})[int(index)] = tensor
        elif name.endswith("mote_fusion_weight"):
            if tensor.unique().numel() > 1:                      # softmax of a constant is 1/E
                raise ValueError(f"{name} is not constant: "
                                 "these experts are not merged uniformly (Eq. 6)")
        elif name == "spe_cls_feature":
            shared["finetune_classes"] = tensor                  # (M, D)
        elif name == "frame_position_embeddings.weight":
            shared["temporal.positions"] = tensor                # (77, D)
        else:
            shared[name.replace(THEIR_BLOCKS, OUR_BLOCKS)] = tensor

    return shared, stacks


def stack_experts(stacks: Stacks) -> dict[str, Tensor]:
    """Each stack's experts -> one tensor (E, ...), in the order of their numbers.

    Raises ValueError where a number is missing: the others would move up without a word.
    """
    stacked = {}
    for name, experts in stacks.items():
        numbers = sorted(experts)
        if numbers != list(range(len(numbers))):
            raise ValueError("the authors' format, but experts are missing: "
                             f"{name} has {numbers} only")
        stacked[name] = torch.stack([experts[number] for number in numbers])
    return stacked


# --- ours to theirs -------------------------------------------------------------------------------
def to_authors(checkpoint: dict) -> dict:
    """Ours -> the authors' checkpoint.

    What theirs has no place for (class names, prompts, the optimizer) is left out. epoch is theirs
    where it came from them, else 0, for train.py counts steps. Raises ValueError, one line, for
    what their code cannot compute: a temporal transformer without layers, another visual tower or
    frames made otherwise than OpenAI's ViT.
    """
    model = checkpoint["model"]
    if not any(".experts." in name for name in model):
        raise ValueError("the authors' code cannot express a temporal transformer without layers: "
                         "it would still add its positions")
    check_expressible(model, checkpoint["clip"])

    vision, temporal = {}, {}
    for name, tensor in model.items():
        if is_of_clip(name):
            vision[name] = tensor
        elif name == "finetune_classes":
            temporal["spe_cls_feature"] = tensor
        elif name == "temporal.positions":
            temporal["frame_position_embeddings.weight"] = tensor
        elif ".experts." in name:
            temporal.update(unstack_experts(name, tensor))
        else:
            temporal[name.replace(OUR_BLOCKS, THEIR_BLOCKS)] = tensor

    return {"epoch": checkpoint.get("epoch", 0), "model_state_dict": vision,
            "fusion_model_state_dict": temporal, "optimizer_state_dict": {}}


def unstack_experts(name: str, experts: Tensor) -> dict[str, Tensor]:
    """One of our stacks (E, ...) -> each expert under its name of theirs, and fusion weights.

    temporal.blocks.3.experts.down_bias -> transformer.resblocks.3.mlp.fc_dn.0.bias, .1.bias, ...
    The fusion weights are zeros (E,), one tensor a layer: each stack of a layer gives the same.
    """
    block, _, part = name.replace(OUR_BLOCKS, THEIR_BLOCKS).partition(".experts.")
    direction, kind = part.replace("down", "dn").split("_")

    theirs = {f"{block}.mlp.fc_{direction}.{i}.{kind}": expert.clone()
              for i, expert in enumerate(experts)}
    theirs[f"{block}.mlp.mote_fusion_weight"] = torch.zeros(len(experts))
    return theirs


# --- the visual tower -----------------------------------------------------------------------------
def check_expressible(state: dict[str, Tensor], clip: dict) -> None:
    """Raise ValueError with the first thing in which a visual tower is not OpenAI's ViT.

    state gives the shapes, which theirs has too; clip says what the tower computes with them.
    """
    theirs = described(vision_config(state), asdict(Pixels()))
    ours = described(clip["config"], clip)

    for name, value in theirs.items():
        if ours[name] != value:
            raise ValueError(f"the authors' code cannot express {name} = {ours[name]}: "
                             f"OpenAI's ViT has {value}")


def described(config: dict, pixels: dict) -> dict:
    """What a visual tower computes, its weights aside: open_clip's defaults are filled in.

    pixels: the fields of Pixels; a checkpoint from before resize_mode and interpolation has not
    all of them, and means OpenAI's.
    """
    from open_clip.model import CLIPVisionCfg

    vision = asdict(CLIPVisionCfg(**config["vision_cfg"]))
    quick_gelu = bool(config.get("quick_gelu"))
    made = {name: pixels.get(name, default) for name, default in asdict(Pixels()).items()}
    made["mean"] = tuple(made["mean"])
    made["std"] = tuple(made["std"])
    return {**vision, "quick_gelu": quick_gelu, **made}


def vision_config(state: dict[str, Tensor]) -> dict:
    """open_clip's description of an OpenAI visual tower, from the shapes of its weights.

    Attention heads of 64 and QuickGELU leave no trace in a shape: OpenAI's ViTs have both. Raises
    ValueError where the weights are not those of CLIP's ViT.
    """
    try:
        width, _, _, patch = state["visual.conv1.weight"].shape
        blocks = [name for name in state if name.startswith("visual.transformer.resblocks.")]
        layers = len({name.split(".")[3] for name in blocks})
        grid = round((len(state["visual.positional_embedding"]) - 1) ** 0.5)     # less the class's
        embed_dim = state["visual.proj"].shape[1]
    except (KeyError, ValueError) as error:
        raise ValueError("the authors' format has room for CLIP's ViT only, "
                         f"and the visual tower is not CLIP's ViT ({error})") from None

    vision = {"image_size": grid * patch, "layers": layers, "width": width, "patch_size": patch,
              "head_width": 64}
    return {"embed_dim": embed_dim, "quick_gelu": True, "vision_cfg": vision, "text_cfg": {}}


def openai_backbone(config: dict) -> str:
    """open_clip's name of OpenAI's model with this visual tower; "" if there is none.

    The name stands for the text tower too, which the authors' checkpoint does not hold.
    """
    for name in OPENAI:
        known = clip_config(name)
        same_tower = {**known["vision_cfg"], "head_width": 64} == config["vision_cfg"]
        if same_tower and known["embed_dim"] == config["embed_dim"]:
            return name
    return ""
