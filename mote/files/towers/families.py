"""
Whose weights a file holds, by the names in it: so that a message can say what the file is.

    family_of(names)          "transformers' SiglipModel", "OpenCLIP", ...; "" where it is not known

Nothing is loaded for this: the names of a state dict are enough. Copy alone: needs nothing. Not
part of the paper.
"""
from collections.abc import Iterable

# A name of each, or how one begins. The first family all of whose marks are there is meant, so what
# has more marks stands above what has fewer: a CLIPModel has the names of both of its towers.
# Each mark was read off a model of that family (tests/clip_backbone/test_families.py builds them).
MARKS = (
    ("MoTE checkpoint", ("model", "clip", "classes")),           # the file as it is saved
    ("MoTE checkpoint", ("visual.", "temporal.", "finetune_classes")),                # its "model"
    ("checkpoint of MoTE's authors", ("model_state_dict", "fusion_model_state_dict")),

    ("transformers' CLIPSegForImageSegmentation", ("clip.vision_model.", "decoder.")),
    ("transformers' BLIP", ("vision_model.encoder.layers.0.self_attn.qkv.",)),
    ("transformers' AltCLIPModel", ("text_model.roberta.", "vision_model.")),
    ("transformers' ChineseCLIPModel", ("text_model.encoder.layer.", "vision_model.")),
    ("transformers' CLIPModel", ("text_model.embeddings.", "vision_model.embeddings.",
                                 "visual_projection.", "text_projection.")),
    ("transformers' SiglipModel", ("text_model.head.", "vision_model.head.probe", "logit_bias")),
    ("visual tower of transformers", ("vision_model.embeddings.",)),
    ("text tower of transformers", ("text_model.embeddings.",)),
    ("visual tower of transformers", ("embeddings.patch_embedding.", "encoder.layers.")),
    ("text tower of transformers", ("embeddings.token_embedding.", "encoder.layers.")),
    ("BERT of transformers", ("embeddings.word_embeddings.",)),
    ("BERT of transformers", ("bert.embeddings.word_embeddings.",)),

    # Below the library's: of these some have "visual." too. The text tower lies in the open, as
    # OpenAI has it, or under "text."; a tower alone is no CLIP.
    ("OpenCLIP", ("visual.", "transformer.resblocks.")),
    ("OpenCLIP", ("visual.", "text.")),
    ("visual tower of OpenCLIP", ("visual.",)),
    ("visual tower of OpenCLIP", ("conv1.weight", "class_embedding", "transformer.resblocks.")),
    ("timm tower", ("patch_embed.", "blocks.")),
    ("timm tower", ("stem.", "stages.")),
    ("ResNet of timm or torchvision", ("conv1.weight", "bn1.weight", "layer1.0.")),
)
WRAPPERS = ("module.", "_orig_mod.")            # of DDP and torch.compile, before all names


def family_of(names: Iterable[str]) -> str:
    """Whose state dict has these names, in words for a message; "" if none that is known here.

    The keys of a whole checkpoint will do as well, where a family has a format of its own.
    """
    names = sorted(names)
    for _ in WRAPPERS:                                           # one may stand inside the other
        for prefix in WRAPPERS:
            if names and all(name.startswith(prefix) for name in names):
                names = [name.removeprefix(prefix) for name in names]

    for family, marks in MARKS:
        if all(has_mark(names, mark) for mark in marks):
            return family
    return ""


def has_mark(names: list[str], mark: str) -> bool:
    """A mark that ends with a dot is the beginning of a name; any other is a whole one."""
    if mark.endswith("."):
        return any(name.startswith(mark) for name in names)
    return mark in names
