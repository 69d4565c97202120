"""
Files that fill a CLIP: which one is meant, is it safe to load, does it fit.

    check_activation(...)           a tag's weights in a model with another activation are refused
    local_file(...)                 the file that --pretrained names
    download(pretrained, tag)       a tag's file, cached or downloaded; seconds without a network
    load_weights(clip, file)        open_clip's, OpenAI's (a plain state dict) or safetensors
    stands_in(file)                 what was downloaded in place of weights: a pointer, a web page

The weights themselves are read as plain tensors: no code from a file is ever run. Every mistake is
a ValueError or OSError of one line that names the flag, the value and the rule.

Copy together with towers/: it needs torch and open_clip. Not part of the paper.
"""
import re
import shlex
import zipfile
from pathlib import Path
from urllib.parse import urlsplit

import torch
from torch import Tensor, nn

try:
    from . import towers
    from .towers import hub
except ImportError:                             # copied beside towers/, outside the package
    import towers
    from towers import hub

FOLDER = ": give its folder, with config.json, as --backbone local-dir:DIR"
# Where weights of another family than open_clip's belong (towers/families.py has their names).
BELONGS = {"transformers' CLIPModel": FOLDER, "transformers' SiglipModel": FOLDER,
           "MoTE checkpoint": ": give it to eval.py as --checkpoint, to train.py as --init",
           "checkpoint of MoTE's authors": ": give it to eval.py as --checkpoint"}
SIZES = {"input_resolution", "context_length", "vocab_size"}   # no weights, in OpenAI's state dicts


# --- the activation -----------------------------------------------------------------------------
def activation(config: dict) -> str:
    """QuickGELU or GELU: open_clip's quick_gelu, of a model config or of a pretrained tag.

    A tower with an activation of its own, ResNet's or timm's, takes no notice of it.
    """
    return "QuickGELU" if config.get("quick_gelu") else "GELU"


def check_activation(backbone: str, option: str, config: dict, tag: dict) -> None:
    """Raise ValueError if a tag's weights were trained with another activation than the model's.

    They would load without a word. open_clip has two names for such a model: with -quickgelu at
    the end, and without. Where it has one alone, such as roberta-ViT-B-32, its description stands,
    whatever the tag says. tag: open_clip's description of the weights. option: what names it.
    """
    import open_clip

    if activation(tag) == activation(config):
        return
    right = backbone.removesuffix("-quickgelu")
    if tag.get("quick_gelu"):
        right += "-quickgelu"
    if right != backbone and right in open_clip.list_models():
        raise ValueError(f"--backbone {backbone} has {activation(config)}, but {option} "
                         f"was trained with the other activation: use --backbone {right}")


# --- which file -----------------------------------------------------------------------------------
def local_file(backbone: str, pretrained: str, shipped: Path) -> Path:
    """The weights file that --pretrained names, which is no tag; in `shipped` it has a short name.

    Raises ValueError where it is no file, with the tags that there are.
    """
    file = shipped / f"{pretrained}.pt"
    if file.is_file():
        return file
    file = Path(pretrained)
    if file.is_file():
        return file
    if file.is_dir():
        raise ValueError(f"--pretrained {pretrained}: a folder; if it holds a model, "
                         f"give --backbone local-dir:{pretrained} and no --pretrained")
    raise ValueError(f"--pretrained {pretrained}: neither a file nor "
                     + not_its_tag(backbone, pretrained))


def not_its_tag(backbone: str, pretrained: str) -> str:
    """Words for a tag that a backbone does not have: the tags it has, and whose tag it is."""
    import open_clip

    tags = ", ".join(open_clip.list_pretrained_tags_by_model(backbone)) or "none"
    words = f"a tag of {backbone}; tags: {tags}"
    owners = open_clip.list_pretrained_models_by_tag(pretrained)
    if owners:
        more = ", ..." if len(owners) > 4 else ""
        words += f" ({pretrained} is a tag of {', '.join(owners[:4])}{more})"
    return words


def download(pretrained: str, tag: dict) -> Path:
    """The weights file of an open_clip tag: from the cache without a network, else downloaded.

    Raises OSError, which names the file and its repository, where it cannot be had. The server is
    asked for an answer first: without a network urllib, which open_clip uses for a plain URL, tries
    for as long as it may take.
    """
    import open_clip

    option = f"--pretrained {pretrained}"
    instead = "fetch it where there is a network and give --pretrained FILE"
    if tag.get("hf_hub"):                                        # open_clip prefers it to the url
        repository, _, name = tag["hf_hub"].rpartition("/")
        names = [name.rpartition(".")[0] + ".safetensors", name]
        if not name:
            names = ["open_clip_model.safetensors", "open_clip_pytorch_model.bin"]
        return hub.fetch(repository, names, option, instead)

    url = tag["url"]
    place, _, name = url.rpartition("/")
    is_cached = Path("~/.cache/clip", name).expanduser().is_file()
    reason = "" if is_cached else hub.why_no_answer(url)
    if not reason:
        try:
            return Path(open_clip.download_pretrained(tag))
        except Exception as error:                               # of urllib, and its own checks
            reason = hub.in_one_line(error)
    raise OSError(f"{option}: cannot fetch {name} of {place} from {urlsplit(url).netloc} "
                  f"({reason}); {instead}")


def stands_in(file: str | Path) -> str:
    """What a file is that stands where weights should be, and what to do; "" for any other file.

    A clone without Git LFS leaves a pointer of three lines, a browser or wget saves the page around
    the download.
    """
    with open(file, "rb") as opened:
        begin = opened.read(512)
    if begin.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer, not the file itself: run `git lfs pull` where it was cloned"
    if b"annex/objects/" in begin.partition(b"\n")[0] and b"\0" not in begin:
        return "a git-annex pointer, not the file itself: run `git annex get` where it was cloned"
    if re.match(rb"(\xef\xbb\xbf)?\s*<[!?A-Za-z][^\0]*$", begin):
        return "a saved web page, not the file itself: download it with the page's download link"
    return ""


def begin_of(file: str | Path) -> str:
    """The first 512 bytes of a file where they are text; "" where they are not."""
    with open(file, "rb") as opened:
        begin = opened.read(512)
    text = begin.decode("utf-8", errors="replace").lstrip("\ufeff \t\r\n")
    # The last character may have been cut in two.
    is_text = "".join(text[:-1].split()).isprintable() and "\ufffd" not in text[:-1]
    return text if is_text else ""


# --- its weights ----------------------------------------------------------------------------------
def load_weights(clip: nn.Module, file: Path, option: str = "--pretrained") -> list[str]:
    """Load open_clip, OpenAI (state dict) or safetensors weights -> what was changed, in words.

    OpenAI publishes TorchScript archives, and loading one runs code from it: it is refused before
    that. A file with `token_ids` holds only some rows of the token embedding: see load_token_rows.
    option: what named the file. Raises ValueError, with the file.
    """
    from open_clip.factory import load_state_dict

    if is_torchscript(file):
        command = ["python", "tools/convert.py", str(file), f"{file.stem}-weights.pt"]
        raise ValueError(f"{option} {file}: a TorchScript archive, as OpenAI publishes them, "
                         "and loading one runs code from it; if you trust it, convert it once: "
                         f"{shlex.join(command)}")
    other = stands_in(file)
    if other:
        raise ValueError(f"{option} {file}: {other}")
    if isinstance(clip, towers.TransformersCLIP):
        towers.load_transformers(clip, file, option)
        return []
    state: dict[str, Tensor] = {}
    try:
        state = load_state_dict(str(file))
        if "token_ids" in state:
            load_token_rows(clip, state)
            return []
        check_floating(clip, state)
        changes = [*adopt_logit_bias(clip, state), *resized_positions(clip, state)]
        load_all_names(clip, file)           # it reads the file again
        return changes
    except Exception as error:               # pickle, zip, key and shape errors of three libraries
        raise ValueError(f"{option} {file}: {why_not_loaded(error, file, state)}") from None


def why_not_loaded(error: Exception, file: Path, state: dict[str, Tensor]) -> str:
    """What a file is that does not fit, in words. state: what could be read of it."""
    family = towers.family_of(state)
    if family and family != "OpenCLIP":
        return f"not weights of this architecture: by its names, {family}{BELONGS.get(family, '')}"
    begin = begin_of(file)
    reason = " ".join(str(error).split()) or type(error).__name__
    if begin:                                # such as "Entry not found"
        reason = f"a text, it begins with {begin[:40]!r}"
    return ("not weights of this architecture, truncated, or not a plain state dict "
            f"({reason[:200]})")


def is_torchscript(file: str | Path) -> bool:
    """Was it written by torch.jit.save?

    Read from the zip's table of contents: nothing in the file is loaded or run.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            return any(name.split("/")[1:] == ["constants.pkl"] for name in archive.namelist())
    except Exception:                        # no zip, or a damaged one: weights_only=True decides
        return False


def check_floating(clip: nn.Module, state: dict[str, Tensor]) -> None:
    """Raise ValueError for whole numbers in place of weights: quantised, they need their scales."""
    for name, tensor in clip.state_dict().items():
        plain = name.removeprefix("text.")                       # OpenAI's, which open_clip renames
        found = state.get(name, state.get(plain, tensor))
        if tensor.is_floating_point() and not found.is_floating_point():
            raise ValueError(f"{name} is {found.dtype}, and must be of floating point")


def adopt_logit_bias(clip: nn.Module, state: dict[str, Tensor]) -> list[str]:
    """Make room for a logit bias that the description does not name -> words, [] for no change.

    A training with SigLIP's loss leaves one behind. It shifts the logits of all classes alike.
    """
    if "logit_bias" in state and clip.logit_bias is None:
        clip.logit_bias = nn.Parameter(torch.zeros_like(state["logit_bias"]))
        return ["its logit bias, which the description lacks, is loaded: no score depends on it"]
    if "logit_bias" not in state and clip.logit_bias is not None:
        return ["it has no logit bias, which the description has: 0, and no score depends on it"]
    return []


def resized_positions(clip: nn.Module, state: dict[str, Tensor]) -> list[str]:
    """Words for the position tables that open_clip will resize: of another image or text length."""
    here = clip.state_dict()
    words = []
    for name in ("visual.positional_embedding", "positional_embedding",
                 "text.positional_embedding"):
        if name not in state:
            continue
        table = here.get(name, here.get(f"text.{name}"))
        if table is not None and len(table) != len(state[name]):
            words.append(f"{name} is resized from {len(state[name])} to {len(table)} positions")
    return words


def load_all_names(clip: nn.Module, file: Path) -> None:
    """Load a file in which no name may be missing, and none too many but OpenAI's SIZES."""
    from open_clip.factory import load_checkpoint

    found = load_checkpoint(clip, str(file), strict=False)       # open_clip translates some names
    wrong = [*found.missing_keys, *sorted(set(found.unexpected_keys) - SIZES)]
    if wrong:
        raise ValueError(f"{len(wrong)} names are missing or too many: {', '.join(wrong)}")


def load_token_rows(clip: nn.Module, state: dict[str, Tensor]) -> None:
    """Load weights with a small vocabulary, which makes a small file.

    `token_ids` says where in the full table its rows stand. The other rows are zero, and the model
    remembers which tokens it knows, as clip.token_ids.
    """
    clip.token_ids = state.pop("token_ids")
    rows = state["token_embedding.weight"].float()
    full = torch.zeros_like(clip.token_embedding.weight)
    state["token_embedding.weight"] = full.index_copy_(0, clip.token_ids, rows)
    clip.load_state_dict(state)
