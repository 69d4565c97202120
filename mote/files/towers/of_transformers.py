"""
CLIPModel and SiglipModel folders of transformers, through transformers' own modules.

    is_transformers(folder)               a config.json of that library, and none of open_clip
    read_transformers(folder, ...)        what it describes, in the shape of open_clip's config
    build_transformers(config)            a CLIP with random weights, as open_clip's models look
    build_transformers_visual(config)     its visual tower alone
    load_transformers(clip, file)         its weights: safetensors, .bin, or an index of shards

Most people have this format: config.json, model.safetensors, preprocessor_config.json and the files
of a tokenizer. The library's modules compute, so that frame features and class embeddings are its
own; what is added here is the interface, and the checks.

The description holds every number that the towers are built from, the library's defaults written
out. A checkpoint that keeps it builds its visual tower without the folder, and the same one when a
later version of the library has other defaults. No path or name of the user's machine is in it.

Only code of the transformers package is ever run: a folder with code of its own is refused. Every
mistake is a ValueError of one line that names the option, the value and the rule.

Copy together with the rest of this folder: needs torch, transformers and open_clip.
Not part of the paper.
"""
import json
from pathlib import Path

import torch
from torch import Tensor, nn

from .families import family_of
from .hub import in_one_line
from .library import check_installed, quiet
from .transformers_files import read_json, read_preprocessor, read_tokenizer

KINDS = {"clip": "CLIP", "siglip": "Siglip"}    # model_type -> how the library's classes begin

# What a tower is built from. The rest of a config.json is about training, generation or files.
BOTH = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
        "hidden_act", "layer_norm_eps", "attention_dropout")
FIELDS = {
    "clip": {"text_config": (*BOTH, "vocab_size", "max_position_embeddings", "eos_token_id"),
             "vision_config": (*BOTH, "image_size", "patch_size", "num_channels")},
    "siglip": {"text_config": (*BOTH, "vocab_size", "max_position_embeddings", "projection_size"),
               "vision_config": (*BOTH, "image_size", "patch_size", "num_channels",
                                 "vision_use_head")},
}
# Read in their place by the library, from before 2023.
OLD = ("text_config_dict", "vision_config_dict")

# For kinds of models that are not read: what comes near.
INSTEAD = {
    "siglip2": "; it takes frames of any shape (NaFlex): a SigLIP2 for one size is of type siglip, "
               "and open_clip has such as ViT-B-16-SigLIP2",
    "metaclip_2": "; open_clip has MetaCLIP 2 as ViT-H-14-worldwide-quickgelu and others",
}
ONE_TOWER = ("clip_vision_model", "clip_text_model", "siglip_vision_model", "siglip_text_model")


# --- a folder -> its description ------------------------------------------------------------------
def is_transformers(folder: Path) -> bool:
    """Whether a folder is transformers': it has a config.json, and no open_clip_config.json.

    With both it is open_clip's: its description says how frames are made.
    """
    has_theirs = (folder / "open_clip_config.json").is_file()
    return (folder / "config.json").is_file() and not has_theirs


def read_transformers(folder: Path, backbone: str, tokenizer_name: str) -> dict:
    """The description of a CLIPModel or SiglipModel folder, of JSON's types.

    embed_dim, vision_cfg, text_cfg, quick_gelu and preprocess_cfg are as in open_clip's configs;
    "transformers" is what build_transformers needs. backbone: as the user gave it, for messages.
    tokenizer_name: where the folder's own tokenizer is found; it is left out where the words are
    CLIP's. preprocess_cfg is left out where no file says how frames are made. Raises ValueError for
    what is no such model, and where transformers is missing.
    """
    option = f"--backbone {backbone}"
    kind, content = read_kind(folder, option)
    described = describe(kind, content, folder, option)
    check_towers(described, option)

    text, vision = described["text_config"], described["vision_config"]
    config = {
        "embed_dim": described.get("projection_dim", vision["hidden_size"]),
        "vision_cfg": {"image_size": vision["image_size"]},
        "text_cfg": {"context_length": text["max_position_embeddings"],
                     "vocab_size": text["vocab_size"],
                     **read_tokenizer(folder, kind, text, tokenizer_name, option)},
        "transformers": described,
    }
    if vision["hidden_act"] == "quick_gelu":
        config["quick_gelu"] = True
    preprocess = read_preprocessor(folder, KINDS[kind], vision["image_size"], option)
    if preprocess:
        config["preprocess_cfg"] = preprocess
    return config


def read_kind(folder: Path, option: str) -> tuple[str, dict]:
    """model_type and all of config.json. Raises ValueError for any but the two kinds, in words."""
    content = read_json(folder / "config.json", option)
    kind = content.get("model_type")
    if not isinstance(kind, str):
        kind = None
    only = "only models of type clip and siglip are read"

    if kind in ONE_TOWER:
        raise ValueError(f"{option}: one tower of transformers alone, of type {kind}: the folder "
                         f"of a whole {'CLIPModel' if kind[0] == 'c' else 'SiglipModel'} is needed")
    if isinstance(kind, str) and kind not in KINDS:
        raise ValueError(f"{option}: a transformers model of type {kind}: "
                         f"{only}{INSTEAD.get(kind, '')}")
    if kind is None and ("vision_cfg" in content or "model_cfg" in content):
        raise ValueError(f"{option}: its config.json is open_clip's description: name it "
                         "open_clip_config.json")
    if kind is None and "architecture" in content:
        raise ValueError(f"{option}: a model of timm ({content['architecture']}), which has no "
                         f"text tower; {only}")
    if kind not in KINDS:
        raise ValueError(f"{option}: config.json has no model_type, so it is none of transformers; "
                         f"{only}")
    check_class(content, f"{KINDS[kind]}Model", option)
    return kind, content


def check_class(content: dict, needed: str, option: str) -> None:
    """Raise ValueError for another class of the same type: with a head, say, or of other code."""
    classes = content.get("architectures") or [needed]
    if not isinstance(classes, list):
        raise ValueError(f"{option}: architectures in config.json must be a list, got {classes!r}")
    if needed not in classes:
        raise ValueError(f"{option}: a {classes[0]} of type {content['model_type']}: "
                         f"only {needed} is read")
    if "AutoModel" in (content.get("auto_map") or {}):
        raise ValueError(f"{option}: its model is code of its own (auto_map in config.json), and "
                         "only code of the transformers package is run")


def describe(kind: str, content: dict, folder: Path, option: str) -> dict:
    """What the towers are built from: FIELDS, and projection_dim for clip.

    The library reads the file, since it knows its own old formats and its defaults.
    """
    check_installed("transformers", f"{option}: {folder} holds a model of transformers")
    import transformers

    names = ("text_config", "vision_config", "projection_dim", *OLD)
    said = {name: content[name] for name in names if content.get(name) is not None}
    try:
        with quiet():
            read = getattr(transformers, f"{KINDS[kind]}Config")(**said)
    except Exception as error:                                   # whatever its validation raises
        raise ValueError(f"{option}: transformers cannot read config.json "
                         f"({in_one_line(error)})") from None

    described = {"model_type": kind}
    for part, fields in FIELDS[kind].items():
        described[part] = {field: getattr(getattr(read, part), field) for field in fields}
    if kind == "clip":
        described["projection_dim"] = read.projection_dim

    vision = described["vision_config"]
    for name in ("image_size", "patch_size"):                    # one number, or (h, w)
        if isinstance(vision[name], (list, tuple)) and len(set(vision[name])) == 1:
            vision[name] = vision[name][0]
    return described


def check_towers(described: dict, option: str) -> None:
    """Raise ValueError for towers that do not give comparable features of square RGB frames."""
    text, vision = described["text_config"], described["vision_config"]
    for name in ("image_size", "patch_size"):
        if not isinstance(vision[name], int):
            raise ValueError(f"{option}: {name} is {vision[name]}, and only square frames are cut "
                             "here")
    if vision["num_channels"] != 3:
        raise ValueError(f"{option}: its frames have {vision['num_channels']} channels, not 3")
    if not vision.get("vision_use_head", True):
        raise ValueError(f"{option}: its visual tower has no head (vision_use_head), so it gives "
                         "no feature of a frame")
    if text.get("projection_size", vision["hidden_size"]) != vision["hidden_size"]:
        raise ValueError(f"{option}: its towers give features of {vision['hidden_size']} and "
                         f"{text['projection_size']} numbers, which cannot be compared")
    # CLIP's feature is read at the first token of this id; at the first of all, if there is none.
    end = text.get("eos_token_id", 0)
    if not isinstance(end, int) or not 0 <= end < text["vocab_size"]:
        raise ValueError(f"{option}: eos_token_id is {end} in config.json, no token of its "
                         f"{text['vocab_size']}")


# --- its modules ----------------------------------------------------------------------------------
class TransformersVisual(nn.Module):
    """The visual tower of a CLIPModel or SiglipModel, as open_clip's look.

    image_size: pixels of a side. grad_checkpointing: whether activations are recomputed.
    """

    def __init__(self, model: nn.Module):
        super().__init__()
        self.vision_model = model.vision_model
        # SigLIP's pooling ends in the joint space: it has no projection.
        self.visual_projection = getattr(model, "visual_projection", nn.Identity())
        self.image_size = model.config.vision_config.image_size
        self.grad_checkpointing = False

    def forward(self, frames: Tensor) -> Tensor:
        """Normalised (n, 3, h, w) -> (n, D), not of unit length."""
        pooled = self.vision_model(pixel_values=frames).pooler_output
        return self.visual_projection(pooled)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute each layer in the backward pass, while the tower is in training mode."""
        self.grad_checkpointing = enable
        # Version 5 has renamed the two, and warns of the old names.
        renamed = hasattr(self.vision_model, "activation_checkpointing_enable")
        kind = "activation" if renamed else "gradient"
        if enable:
            # The reentrant kind asks for an input with a gradient, and frames have none.
            switch_on = getattr(self.vision_model, f"{kind}_checkpointing_enable")
            switch_on({"use_reentrant": False})
        else:
            getattr(self.vision_model, f"{kind}_checkpointing_disable")()


class TransformersCLIP(nn.Module):
    """A CLIPModel or SiglipModel with the attributes of open_clip's models.

    visual; logit_scale, the logarithm of the factor; logit_bias, None for CLIPModel. The names of
    the state dict are the library's, those of the visual tower under "visual.".
    """

    def __init__(self, model: nn.Module):
        super().__init__()
        self.visual = TransformersVisual(model)
        self.text_model = model.text_model
        self.text_projection = getattr(model, "text_projection", nn.Identity())
        self.logit_scale = model.logit_scale
        self.register_parameter("logit_bias", getattr(model, "logit_bias", None))

    def encode_text(self, token_ids: Tensor) -> Tensor:
        """Token ids (n, context length) -> (n, D), not of unit length.

        Without an attention mask, as SigLIP was trained: it sees the padding. CLIP's processor
        passes one, and it changes nothing: the attention is causal, and what is read is the place
        of the first end of text, before all padding, whatever that is made of.
        """
        pooled = self.text_model(input_ids=token_ids).pooler_output
        return self.text_projection(pooled)


def build_transformers(config: dict) -> nn.Module:
    """A CLIP from read_transformers' dict, in float32, with random weights.

    They are drawn from torch's global generator. Raises ValueError if the library cannot build it.
    """
    return TransformersCLIP(build_model(config["transformers"]))


def build_transformers_visual(config: dict) -> nn.Module:
    """The visual tower alone, with random weights; the names of its state dict are visual's above.

    The text tower that the library builds with it is given no size to speak of, and dropped.
    """
    described = config["transformers"]
    no_words = {**described["text_config"], "vocab_size": 1, "max_position_embeddings": 1,
                "num_hidden_layers": 0}
    return TransformersVisual(build_model({**described, "text_config": no_words}))


def build_model(described: dict) -> nn.Module:
    """The library's own CLIPModel or SiglipModel.

    It is built whole and taken apart, since only its classes of whole models have kept the names of
    their weights over the versions.
    """
    name = KINDS[described["model_type"]]
    check_installed("transformers", f"a tower of transformers' {name}Model")
    import transformers

    # The ids of special tokens are only looked at to warn of them, but for eos_token_id: that is
    # where CLIP reads the feature. SigLIP's defaults are CLIP's ids, outside of its vocabulary.
    unused = {"bos_token_id": None, "pad_token_id": None, "eos_token_id": None}
    towers = {**described, "text_config": {**unused, **described["text_config"]}}
    try:
        with quiet():
            config = getattr(transformers, f"{name}Config")(**towers)
            return getattr(transformers, f"{name}Model")(config)
    except Exception as error:                                   # of its validation, and of torch
        raise ValueError(f"transformers cannot build this {name}Model "
                         f"({in_one_line(error)})") from None


# --- its weights ----------------------------------------------------------------------------------
def load_transformers(clip: nn.Module, file: Path, option: str = "--backbone") -> None:
    """Load a state dict of the library, in which no name may be missing and none too many.

    file: .safetensors, .bin, or the .index.json of either, with all of its shards beside it.
    option: what named the file, for messages. Half precision becomes float32. No code from a file
    is run. Raises ValueError.
    """
    try:
        state = read_state(file)
    except Exception as error:                  # of pickle, zip, safetensors, json and the disk
        raise ValueError(f"{option} {file}: truncated, or not a plain state dict "
                         f"({in_one_line(error)})") from None

    here = clip.state_dict()
    renamed = {our_name(name): tensor for name, tensor in state.items() if not is_position(name)}
    wrong = sorted(here.keys() ^ renamed.keys())
    if wrong:
        family = family_of(state)
        what = f"by its names the file is of a {family}; " if family else ""
        raise ValueError(f"{option} {file}: not the weights of this config.json: {what}"
                         f"{len(wrong)} names are missing or too many: {', '.join(wrong)[:200]}")
    for name, tensor in renamed.items():
        # Whole numbers are quantised weights, which mean nothing without their scales.
        if tensor.shape != here[name].shape or not tensor.is_floating_point():
            raise ValueError(f"{option} {file}: not the weights of this config.json: {name} is "
                             f"{tuple(tensor.shape)} {tensor.dtype}, and must be "
                             f"{tuple(here[name].shape)} of floating point")
    clip.load_state_dict(renamed)


def read_state(file: Path) -> dict[str, Tensor]:
    """Names and tensors of a file, or of all shards that an index names; the names are theirs."""
    if file.name.endswith(".index.json"):
        shards = set(json.loads(file.read_text())["weight_map"].values())
        state = {}
        for shard in sorted(shards):
            if Path(shard).name != shard:
                raise ValueError(f"a shard must lie beside the index, not at {shard}")
            state.update(read_state(file.with_name(shard)))
        return state
    if file.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(file)
    state = torch.load(file, map_location="cpu", weights_only=True)
    for name, tensor in state.items():
        if not isinstance(tensor, Tensor):
            raise ValueError(f"{name} is no tensor, but a {type(tensor).__name__}")
    return state


def our_name(name: str) -> str:
    """The library's name of a weight -> ours: one tower must be told from the other by its name."""
    of_visual = name.startswith(("vision_model.", "visual_projection."))
    return f"visual.{name}" if of_visual else name


def is_position(name: str) -> bool:
    """0, 1, 2, ...: versions before 4.31 saved the numbers of the positions as if learned."""
    return name.endswith(".embeddings.position_ids")
