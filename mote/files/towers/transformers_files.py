"""
What lies beside the weights in a folder of transformers: how frames and sentences are made.

    read_preprocessor(...)      preprocessor_config.json, or processor_config.json of version 5
    read_tokenizer(...)         tokenizer.json, vocab.json, tokenizer_config.json

A way to make frames that is not known here is refused: to ignore it would move a score without a
word. Every mistake is a ValueError of one line. Copy together with pixels.py: needs open_clip, for
CLIP's vocabulary. Not part of the paper.
"""
import json
import re
from pathlib import Path

from .pixels import OPENAI_MEAN, OPENAI_STD

# --- frames ---------------------------------------------------------------------------------------
# What each class of the library does where its file says nothing.
STEPS = {"do_resize": True, "do_rescale": True, "do_normalize": True, "rescale_factor": 1 / 255,
         "resample": 3}
DEFAULTS = {
    "CLIP": {**STEPS, "size": {"shortest_edge": 224}, "do_center_crop": True, "crop_size": 224,
             "image_mean": list(OPENAI_MEAN), "image_std": list(OPENAI_STD)},
    "Siglip": {**STEPS, "size": {"height": 224, "width": 224}, "do_center_crop": False,
               "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]},
}
# A class may end with how it is written; feature extractors are image processors of before 2023.
CLASS = re.compile(r"(CLIP|Siglip)(?:ImageProcessor|FeatureExtractor)(?:Fast|Pil)?")
INTERPOLATIONS = {2: "bilinear", 3: "bicubic"}  # Pillow's numbers


def read_preprocessor(folder: Path, model: str, image_size: int, option: str) -> dict:
    """mean, std, resize_mode, interpolation of a folder, as in open_clip's preprocess_cfg; or {}.

    model: "CLIP" or "Siglip", where the file does not say whose class it is of. image_size: the
    side that the visual tower takes, in pixels. Raises ValueError for frames that are made in a way
    that is not known here.
    """
    said, name = find_preprocessor(folder, option)
    if not said:
        return {}
    try:
        return pixels_of(said, model, image_size)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        reason = error if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        raise ValueError(f"{option}: {name} makes frames in a way that is not known here: "
                         f"{reason}") from None


def pixels_of(said: dict, model: str, image_size: int) -> dict:
    """What read_preprocessor returns, from what the file says. Raises ValueError with the rule."""
    kind = said.get("image_processor_type") or said.get("feature_extractor_type")
    known = CLASS.fullmatch(kind or f"{model}ImageProcessor")
    if not known:
        raise ValueError(f"its class is {kind}; known are CLIP's and Siglip's")
    steps = {**DEFAULTS[known[1]], **said}                       # null is a value: no such step
    if not steps["do_resize"] or not steps["do_rescale"] or steps.get("do_pad"):
        raise ValueError("do_resize and do_rescale must be true, do_pad false")
    if abs(steps["rescale_factor"] * 255 - 1) > 1e-6:
        raise ValueError(f"rescale_factor is {steps['rescale_factor']}, not 1/255")
    if steps["resample"] not in INTERPOLATIONS:
        raise ValueError(f"resample is {steps['resample']}; known are 2, bilinear, and 3, bicubic")

    mean, std = steps["image_mean"], steps["image_std"]
    if not steps["do_normalize"]:
        mean, std = [0.0, 0.0, 0.0], [1.0, 1.0, 1.0]
    if len(mean) != 3 or len(std) != 3:
        raise ValueError("image_mean and image_std must have 3 numbers each")
    return {"mean": mean, "std": std, "resize_mode": resize_mode(steps, image_size),
            "interpolation": INTERPOLATIONS[steps["resample"]]}


def find_preprocessor(folder: Path, option: str) -> tuple[dict, str]:
    """The steps that the library would take, and the name of the file they stand in; ({}, "")."""
    file = folder / "processor_config.json"
    if file.is_file():
        nested = read_json(file, option).get("image_processor")
        if nested:                                               # only version 5 has it there
            return nested, file.name
    file = folder / "preprocessor_config.json"
    if file.is_file():
        return read_json(file, option), file.name
    return {}, ""


def resize_mode(steps: dict, image_size: int) -> str:
    """open_clip's word for how a frame comes to its size. Raises ValueError for any other way."""
    square = {"height": image_size, "width": image_size}
    size = as_dict(steps["size"], "shortest_edge")
    crop = as_dict(steps["crop_size"], "height", "width") if steps["do_center_crop"] else None
    if size == {"shortest_edge": image_size} and crop == square:
        return "shortest"
    if size == square and crop in (None, square):
        return "squash"
    raise ValueError(f"size is {size} and the crop {crop}; known for this tower are "
                     f"shortest_edge {image_size} with a crop of {image_size} x {image_size}, and "
                     f"{image_size} x {image_size} without one")


def as_dict(size: int | dict | list, *sides: str) -> dict:
    """A size as the library writes it now. A number: what old files have for these sides."""
    if isinstance(size, int):
        return dict.fromkeys(sides, size)
    if isinstance(size, list):
        return dict(zip(("height", "width"), size))
    return {side: number for side, number in size.items() if number is not None}


# --- sentences ------------------------------------------------------------------------------------
VOCABULARY = 49408                             # of OpenAI's CLIP: the last two begin and end a text
OLD_END = 2                                     # eos_token_id of old config.json files: see below


def read_tokenizer(folder: Path, kind: str, text: dict, name: str, option: str) -> dict:
    """hf_tokenizer_name, tokenizer_kwargs of open_clip's text_cfg; {} where the words are CLIP's.

    kind: the model's type. text: the description of its text tower. name: where the folder's own
    tokenizer is found. A CLIPModel with CLIP's number of tokens has CLIP's words, unless a
    vocabulary lies beside it that is another one.

    The fast tokenizer of SigLIP2 (Gemma's) takes no notice of do_lower_case, which its own
    tokenizer_config.json sets, for it was trained on lower case: so it is done before. SigLIP's
    lowers and strips the punctuation itself. (github.com/huggingface/transformers/issues/43054)
    """
    if kind == "clip" and text["vocab_size"] == VOCABULARY and has_clips_words(folder, option):
        # The library reads the feature at the first token of this id; at 2, of which old files are
        # full, at the highest id, which is the same place for CLIP's words.
        if text["eos_token_id"] not in (OLD_END, VOCABULARY - 1):
            raise ValueError(f"{option}: eos_token_id is {text['eos_token_id']} in config.json, "
                             f"but CLIP's words end with {VOCABULARY - 1}")
        return {}

    settings = {}
    file = folder / "tokenizer_config.json"
    if file.is_file() and read_json(file, option).get("do_lower_case"):
        settings["tokenizer_kwargs"] = {"clean": "lower"}
    return {"hf_tokenizer_name": name, **settings}


def has_clips_words(folder: Path, option: str) -> bool:
    """Is the vocabulary beside the weights OpenAI's? True where there is none."""
    found = None
    if (folder / "tokenizer.json").is_file():
        model = read_json(folder / "tokenizer.json", option).get("model") or {}
        found = model.get("vocab") if isinstance(model, dict) else []
    elif (folder / "vocab.json").is_file():
        found = read_json(folder / "vocab.json", option)
    if found is None:
        return True
    if not isinstance(found, dict):                              # a list, of another kind of model
        return False
    if not all(isinstance(number, int) for number in found.values()):
        return False

    from open_clip.tokenizer import SimpleTokenizer

    # Both write bytes alike, but not the two tokens that begin and end a text. A token's number
    # says when it was merged: the same numbers are the same merges.
    theirs = {token: number for token, number in found.items() if number < VOCABULARY - 2}
    clips = SimpleTokenizer().encoder.items()
    return theirs == {token: number for token, number in clips if number < VOCABULARY - 2}


def read_json(file: Path, option: str) -> dict:
    """The object in a file. Raises ValueError where there is none."""
    try:
        content = json.loads(file.read_text(encoding="utf-8-sig"))
    except (ValueError, OSError, RecursionError) as error:       # of json, of utf-8, of the disk
        raise ValueError(f"{option}: cannot read {file.name} "
                         f"({type(error).__name__}: {str(error)[:100]})") from None
    if not isinstance(content, dict):
        raise ValueError(f"{option}: {file.name} must hold a JSON object, got a "
                         f"{type(content).__name__}")
    return content
