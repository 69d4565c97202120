"""
What --backbone names: a description of a tower, and where its own weights lie, if it has any.

    ViT-B-16-quickgelu     open_clip's name; the weights are --pretrained's
    model.json             open_clip's description of an architecture; likewise
    local-dir:DIR          a folder: the description and the weights, of open_clip or transformers
    hf-hub:ORG/NAME        a repository of the hub: likewise; from the cache, else downloaded

Every mistake is a ValueError or OSError of one line that names the option, the value and the rule.
Not part of the paper.
"""
import difflib
import functools
import json
from pathlib import Path

from . import hub
from .of_transformers import is_transformers, read_transformers

LOCAL = "local-dir:"
HUB = "hf-hub:"
INSTEAD = f"fetch the repository where there is a network and give --backbone {LOCAL}DIR"

# Where a folder has several, the first of these is meant: open_clip's order, then transformers'
# indices of shards.
WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors",
           "open_clip_pytorch_model.bin", "open_clip_pytorch_model.pth", "model.safetensors",
           "pytorch_model.bin", "pytorch_model.pth", "model.pth", "model.safetensors.index.json",
           "pytorch_model.bin.index.json")
IN_THE_HUB = {"open_clip_config.json": ["open_clip_model.safetensors",
                                        "open_clip_pytorch_model.bin"],
              "config.json": ["model.safetensors", "pytorch_model.bin",
                              "model.safetensors.index.json", "pytorch_model.bin.index.json"]}
# What a folder of transformers has beside them, and need not have: pixels, words.
BESIDE = ("preprocessor_config.json", "processor_config.json", "tokenizer_config.json",
          "tokenizer.json", "vocab.json", "merges.txt", "spiece.model", "special_tokens_map.json")
ITSELF = "in the same folder"                     # the name of a tokenizer beside its model


# --- a description --------------------------------------------------------------------------------
def read_config(backbone: str) -> dict:
    """open_clip's description of an architecture: embed_dim, vision_cfg, text_cfg, ...

    Beside them "preprocess_cfg", how its frames are made, where the file says so, and
    "transformers" for a model of that library (of_transformers.py). Raises ValueError for an
    unknown name, with the nearest ones, and for a file that describes no model; OSError for a
    file that is not there.
    """
    if backbone.startswith(LOCAL):
        folder = folder_of(backbone)
        if is_transformers(folder):
            return read_transformers(folder, backbone, ITSELF)
        return read_json(folder / "open_clip_config.json", backbone)
    if backbone.startswith(HUB):
        file = config_in_hub(backbone)
        if file.name == "config.json":
            return read_transformers(file.parent, backbone, ITSELF)
        return read_json(file, backbone)
    if backbone.endswith(".json"):
        return read_json(Path(backbone), backbone)
    return named_config(backbone)


def read_json(path: Path, backbone: str) -> dict:
    """A model config of open_clip, or an open_clip_config.json, which says more.

    The first is what open_clip keeps for each of its names: an architecture, and no word on frames.
    The second lies beside weights, and has the first in it as "model_cfg".
    """
    if not path.is_file():
        raise FileNotFoundError(f"--backbone {backbone}: no such file"
                                if str(path) == backbone else
                                f"--backbone {backbone}: no {path.name} in it, and no config.json "
                                "of transformers")
    try:
        config = json.loads(path.read_text(encoding="utf-8-sig"))
        if "model_cfg" in config:                                # an open_clip_config.json
            preprocess = config.get("preprocess_cfg") or {}
            config = {**config["model_cfg"], "preprocess_cfg": preprocess}

        towers = all(isinstance(config[key], dict) for key in ("vision_cfg", "text_cfg"))
        if not towers or not config["embed_dim"]:
            raise ValueError("vision_cfg and text_cfg must be objects")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError(f"--backbone {backbone}: not an open_clip model config, which has "
                         "embed_dim, vision_cfg and text_cfg "
                         f"({type(error).__name__}: {error})") from None
    return config


def named_config(backbone: str) -> dict:
    """An architecture by open_clip's name for it. Raises ValueError, with what may be meant.

    A folder or a repository without its prefix is the usual mistake.
    """
    import open_clip

    config = None
    if ":" not in backbone:                                      # open_clip would ask a hub
        config = open_clip.get_model_config(backbone)
    if config is not None:
        return config
    if Path(backbone).is_dir():
        raise ValueError(f"--backbone {backbone}: a folder; if it holds a model, "
                         f"give --backbone {LOCAL}{backbone}")
    if backbone.count("/") == 1:
        raise ValueError(f"--backbone {backbone}: open_clip has no such model; if it is a "
                         f"repository of the hub, give --backbone {HUB}{backbone}")
    names = difflib.get_close_matches(backbone, open_clip.list_models(), n=3, cutoff=0.4)
    near = ", ".join(names) or "none"
    raise ValueError(f"--backbone {backbone}: open_clip has no such model; near: {near} "
                     "(or give a .json file)")


# --- its own weights ------------------------------------------------------------------------------
def has_own_weights(backbone: str) -> bool:
    """Whether the weights lie beside the description: --pretrained has nothing to say then."""
    return backbone.startswith((LOCAL, HUB))


def which_weights(backbone: str, pretrained: str | None) -> str:
    """--pretrained, or what stands for it: "openai", and "" for a backbone with weights of its own.

    Raises ValueError where both are given: one of them would be ignored.
    """
    if pretrained is None:
        return "" if has_own_weights(backbone) else "openai"
    if pretrained and has_own_weights(backbone):
        raise ValueError(f"--pretrained {pretrained}: --backbone {backbone} has weights of its "
                         "own: leave --pretrained out")
    return pretrained


def own_weights(backbone: str) -> Path:
    """The weights of local-dir:DIR or hf-hub:NAME. Raises ValueError or OSError for none.

    A folder with several files of weights, none of a usual name, is refused: which is meant cannot
    be told.
    """
    if backbone.startswith(HUB):
        return weights_in_hub(backbone)

    folder = folder_of(backbone)
    for name in WEIGHTS:
        if (folder / name).is_file():
            return folder / name
    others = sorted(file for file in folder.iterdir()
                    if file.suffix in (".safetensors", ".bin", ".pth", ".pt") and file.is_file())
    if not others:
        raise FileNotFoundError(f"--backbone {backbone}: no weights in it, such as {WEIGHTS[0]}")
    if len(others) > 1:
        names = ", ".join(file.name for file in others)
        raise ValueError(f"--backbone {backbone}: which weights are meant? It has {names}; "
                         f"name one of them {WEIGHTS[0].partition('.')[0]}{others[0].suffix}")
    return others[0]


def weights_in_hub(backbone: str) -> Path:
    """The weights of hf-hub:NAME, in the cache: a file, or the index of shards, all fetched."""
    repository = backbone.removeprefix(HUB)
    option = f"--backbone {backbone}"
    names = IN_THE_HUB[config_in_hub(backbone).name]
    file = hub.fetch(repository, names, option, INSTEAD)
    if file.name.endswith(".index.json"):
        for shard in shards_of(file, option):
            hub.fetch(repository, [shard], option, INSTEAD)
    return file


def shards_of(index: Path, option: str) -> list[str]:
    """The files that an index of shards names. Raises ValueError for what is no index."""
    try:
        shards = sorted(set(json.loads(index.read_text())["weight_map"].values()))
        is_index = all(Path(shard).name == shard for shard in shards)
    except (ValueError, KeyError, TypeError, AttributeError):
        is_index = False
    if not is_index:
        raise ValueError(f"{option}: {index.name} is damaged: it must name files beside it")
    return shards


# --- where it lies --------------------------------------------------------------------------------
def folder_of(backbone: str) -> Path:
    """The folder of local-dir:DIR, relative to where the user stands.

    Raises FileNotFoundError where there is none.
    """
    folder = Path(backbone.removeprefix(LOCAL))
    if not folder.is_dir() or backbone == LOCAL:
        raise FileNotFoundError(f"--backbone {backbone}: no such folder")
    return folder


def config_in_hub(backbone: str) -> Path:
    """The description of hf-hub:NAME, in the cache: open_clip's, else transformers'.

    With transformers' comes what is read beside it, its pixels and its tokenizer.
    """
    repository = backbone.removeprefix(HUB)
    option = f"--backbone {backbone}"
    file = hub.fetch(repository, list(IN_THE_HUB), option, INSTEAD)
    if file.name == "config.json":
        complete(repository, option)
    return file


@functools.cache                                 # the place is looked up several times in a start
def complete(repository: str, option: str) -> None:
    hub.fetch_beside(repository, BESIDE, option, INSTEAD)


def tokenizer_folder(backbone: str) -> Path | None:
    """The folder with a model's own tokenizer, unless that is CLIP's. None: it has a name.

    Of local-dir:DIR, as open_clip has it, and of a model of transformers.
    """
    if backbone.startswith(LOCAL):
        return folder_of(backbone)
    if backbone.startswith(HUB):
        file = config_in_hub(backbone)
        return file.parent if file.name == "config.json" else None
    return None


def text_config_folder(name: str) -> str:
    """A folder with transformers' config of a text tower, of a repository's name: in the cache.

    transformers would ask the hub again, and without a network wait for it. Raises OSError.
    """
    if not isinstance(name, str):
        raise ValueError(f"--backbone: hf_model_name of text_cfg must be a name, got {name!r}")
    if Path(name).is_dir():
        return name
    instead = ("fetch it where there is a network, and let hf_model_name name its folder in a "
               ".json or an open_clip_config.json")
    option = f"--backbone: its text tower, {name} of transformers"
    file = hub.fetch(name, ["config.json"], option, instead)
    return str(file.parent)
