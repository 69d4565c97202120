"""
May two results be compared? What differs in their protocols, and whether it moves the number.

A field of the protocol that this file does not know counts as one that moves the number: a new
setting must be put into a table below before it can be passed over.
"""
from typing import NamedTuple

# Fields that say which model was evaluated: what a comparison is about, no reason to refuse it.
MODEL = {
    "checkpoint": "the model",
    "text": "the model: its text tower",
    "clip_weight": "the model: share of the fine-tuned tower",
}
# Fields that mean nothing to the plain score.
MODULATION = {
    "neighbours": "K of Eq. 11",
    "gamma": "gamma of Eq. 11",
}
MEANING = {
    **MODEL,
    **MODULATION,
    "data": "not the same dataset",
    "split": "not the same split",
    "videos": "not the same number of videos",
    "found": "videos on disk, of those listed: the others count as not decoded",
    "list": "not the same videos, or not the same labels",
    "classes": "not the same number of classes",
    "class_names": "the names shown to the text tower differ",
    "templates": "the sentences around the names differ",
    "frames": "frames per view",
    "clips": "clips per video",
    "crops": "crops per clip",
    "resize": "short side before the crop",
    "precision": "rounding inside the model",
    "mean": "frames are normalised with another mean",
    "std": "frames are normalised with another standard deviation",
    "resize_mode": "frames are cropped in one and squashed in the other",
    "interpolation": "how frames are resized",
}
# Fields that files from before 2026-11-27 lack, and what they are taken to say: frames were made so
# whatever the weights were, but for mean and std, which followed a tag. Their fingerprints say the
# same. They are written once more because an import from mote would import torch.
BEFORE = {
    "mean": [0.48145466, 0.4578275, 0.40821073],
    "std": [0.26862954, 0.26130258, 0.27577711],
    "resize_mode": "shortest",
    "interpolation": "bicubic",
}
REQUIRED = [field for field in MEANING if field not in BEFORE]


class Difference(NamedTuple):
    """A field in which two protocols differ, its values as text, and what that means."""
    field: str
    a: str
    b: str
    meaning: str
    moves: bool                      # whether it moves the number


def differences(a: dict, b: dict, score: str) -> dict[Difference, list[str]]:
    """Each difference, and the names of the splits in which two results differ so.

    a, b: from `results.read_videos`. score: "plain" does not depend on the settings of Eq. 11.
    """
    common = [name for name in a["splits"] if name in b["splits"]]
    # One entry for all splits that differ alike: three equal lines would say no more than one.
    found = {}
    if set(a["splits"]) != set(b["splits"]):
        names_a = ", ".join(map(repr, a["splits"]))
        names_b = ", ".join(map(repr, b["splits"]))
        found[Difference("splits", names_a, names_b, "not the same splits", True)] = common

    for name in common:
        protocol_a = {**BEFORE, **a["splits"][name]["protocol"]}
        protocol_b = {**BEFORE, **b["splits"][name]["protocol"]}
        for field in dict.fromkeys([*protocol_a, *protocol_b]):
            if same(field, protocol_a, protocol_b):
                continue
            difference = Difference(field, shown(field, protocol_a), shown(field, protocol_b),
                                    MEANING.get(field, "a setting unknown to this tool"),
                                    moves_the_number(field, score))
            found.setdefault(difference, []).append(name)
    return found


def same(field: str, a: dict, b: dict) -> bool:
    """Whether two protocols agree in a field that at least one of them has."""
    if field == "fingerprint":       # a hash of the other fields
        return True
    return field in a and field in b and a[field] == b[field]


def shown(field: str, protocol: dict) -> str:
    """A field's value as text; "missing" in a file of an older eval.py that had no such field."""
    value = str(protocol.get(field, "missing"))
    if field == "found":
        return f"{value} of {protocol.get('videos')}"
    return value


def moves_the_number(field: str, score: str) -> bool:
    """Whether a difference in this field makes two numbers incomparable.

    Videos that are not on disk do not: they are left out for both. The model does not either: it
    is what the comparison is about.
    """
    if score == "plain" and field in MODULATION:
        return False
    return field != "found" and field not in MODEL
