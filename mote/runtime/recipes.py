"""
Defaults of train.py that are not those of ViT-B/16 on K400: by dataset, by backbone, for baselines.

From the paper's Table 6, Section 4.1 and Appendix B; toyworld's are our own. A recipe is a function
from the options given so far to defaults; of two recipes, the earlier one's defaults stand
(mote/runtime/options.py, `parse`).
"""
from argparse import Namespace
from pathlib import Path

from ..clip_backbone import has_own_weights
from ..temporal_experts import POSITIONS

# By the name given to --data. What a recipe does not name stays as train.py's Config has it.
DATASETS = {
    "toyworld": {"backbone": "toyworld", "pretrained": "toyworld", "layers": 3, "epochs": 16,
                 "warmup": 1.0, "batch": 32, "lr": 3e-3, "clip_lr": 4e-4, "min_area": 0.5,
                 "flip": False, "eval_every": 4,
                 "zero_shot": "toyworld-novel,toyworld-appearance"},
    "ucf101": {"epochs": 10},                        # the few-shot recipe (Appendix B)
    "hmdb51": {"epochs": 10},
    # "From left to right" is a class there, and the authors leave the colours. The paper states no
    # warm-up: with K400's 5 epochs of it the rate would never reach its peak.
    "ssv2": {"epochs": 2, "warmup": 0.5, "flip": False, "gray": False},
}
# By the kind of ViT. Any other backbone gets the defaults of train.py's Config.
BACKBONES = {
    "ViT-B": {"layers": 4, "epochs": 30},
    "ViT-L": {"layers": 6, "epochs": 20},
}


def of_dataset(given: Namespace) -> dict:
    """The dataset's name, and its own defaults. A folder that is given by its path has none.

    With --data-root alone, the folder's name is the dataset's. With neither, it is toyworld, so
    that `python train.py` runs as it stands.
    """
    if given.data:
        return DATASETS.get(given.data, {})
    if given.data_root:
        return {"data": Path(given.data_root).resolve().name}
    return {"data": "toyworld", **DATASETS["toyworld"]}


def of_backbone(given: Namespace) -> dict:
    """Defaults by the kind of ViT, the first five letters of --backbone: "ViT-B", "ViT-L".

    It comes after `of_dataset`, which may name the backbone and whose epochs then stand.
    """
    return BACKBONES.get(given.backbone[:5], {})


def of_place(given: Namespace) -> dict:
    """A folder or a repository has weights of its own, and --pretrained has nothing to name.

    It comes before `of_dataset`, which names toyworld's.
    """
    return {"pretrained": ""} if has_own_weights(given.backbone) else {}


def of_baseline(given: Namespace) -> dict:
    """One expert or no layers: the paper's baselines, which have L_TE alone.

    Merging one expert gives that expert, so the second pass of Eq. 8 and 9 would only cost time.
    """
    if given.experts == 1 or given.layers == 0:
        return {"weight_merged": 0.0, "weight_mse": 0.0}
    return {}


def of_short_run(given: Namespace) -> dict:
    """With fewer --epochs than the recipe's, the warm-up is the same part of them.

    Otherwise a short run would never leave it. It comes first, for of_dataset's warm-up is of its
    own number of epochs. Without --epochs it is train.py's 30, and no recipe has more.
    """
    epochs, warmup = usual_length(given)
    return {"warmup": warmup * given.epochs / epochs} if given.epochs < epochs else {}


def usual_length(given: Namespace) -> tuple[int, float]:
    """The recipe's epochs and its warm-up."""
    usual = {"epochs": 30, "warmup": 5.0, **of_backbone(given), **of_dataset(given)}
    return usual["epochs"], usual["warmup"]


def in_proportion(config: dict) -> str:
    """Words for a warm-up that fewer epochs have shrunk; "" for any other. config: the options."""
    given = Namespace(**config)
    epochs, warmup = usual_length(given)
    if of_short_run(given) != {"warmup": given.warmup}:
        return ""
    return f", in proportion to the recipe's {warmup:g} of {epochs}"


RECIPES = (of_short_run, of_place, of_dataset, of_backbone, of_baseline)


def check_recipe(frames: int, layers: int, lr: float, clip_lr: float, epochs: int, warmup: float
                 ) -> None:
    """Raise ValueError for options that do not go together.

    More frames than positions, nothing to train, a rate that never reaches its peak. options.py
    checks the range of each option alone.
    """
    if warmup >= epochs:
        raise ValueError(f"--warmup {warmup:g} must be shorter than --epochs {epochs}: "
                         "the learning rate would never reach its peak")
    if frames > POSITIONS and layers > 0:
        raise ValueError(f"--frames {frames}: the table of frame positions has {POSITIONS} rows")
    if clip_lr == 0 and (layers == 0 or lr == 0):
        raise ValueError("nothing to train: --clip-lr 0 freezes CLIP, "
                         "and no temporal layer has an --lr above 0")
