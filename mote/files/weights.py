"""
Files that describe a CLIP and fill it: which one is meant, is it safe to load, does it fit.

    read_config(backbone)           an open_clip model config, a .json file
    check_activation(...)           a tag's weights in a model with another activation are refused
    find_weights(...)               an open_clip tag or a local file -> the file
    download(pretrained, tag)       a tag's file, cached or downloaded; seconds without a network
    load_weights(clip, file)        open_clip's, OpenAI's (a plain state dict) or safetensors
    stands_in(file)                 what was downloaded in place of weights: a pointer, a web page

The weights themselves are read as plain tensors: no code from a file is ever run. Every mistake is
a ValueError or OSError of one line that names the flag, the value and the rule.

Copy alone: needs torch and open_clip. Not part of the paper.
"""
import json
import os
import re
import shlex
import ssl
import threading
import urllib.error
import urllib.request
import zipfile
from pathlib import Path
from urllib.parse import urlsplit

import torch
from torch import Tensor, nn

SIZES = {"input_resolution", "context_length", "vocab_size"}   # no weights, in OpenAI's state dicts
ANSWER = 4.0              # seconds that a server may take before a download from it is given up


# --- the description of an architecture -----------------------------------------------------------
def read_config(path: Path, backbone: str) -> dict:
    """open_clip's description of an architecture, from a model config or an open_clip_config.json.

    backbone: what the user asked for, named in the messages. Raises FileNotFoundError, and
    ValueError for a file that describes no model.
    """
    if not path.is_file():
        raise FileNotFoundError(f"--backbone {backbone}: no such file")
    try:
        config = json.loads(path.read_text())
        if "model_cfg" in config:                                # an open_clip_config.json
            preprocess = config.get("preprocess_cfg") or {}
            config = {**config["model_cfg"], "preprocess_cfg": preprocess}

        towers = all(isinstance(config[key], dict) for key in ("vision_cfg", "text_cfg"))
        if not towers or not config["embed_dim"]:
            raise ValueError("vision_cfg and text_cfg must be objects")
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"--backbone {backbone}: not an open_clip model config, which has "
                         "embed_dim, vision_cfg and text_cfg "
                         f"({type(error).__name__}: {error})") from None
    return config


def activation(config: dict) -> str:
    """The name of the activation of both towers, of a model config or of a pretrained tag's."""
    return "QuickGELU" if config.get("quick_gelu") else "GELU"


def check_activation(backbone: str, pretrained: str, config: dict, tag: dict) -> None:
    """Raise ValueError if a tag's weights were trained with another activation than the model's.

    They would load without a word. open_clip has two names for such a model: with -quickgelu at
    the end, and without. tag: open_clip's description of the pretrained weights.
    """
    if activation(tag) == activation(config):
        return
    right = backbone.removesuffix("-quickgelu")
    if tag.get("quick_gelu"):
        right += "-quickgelu"
    raise ValueError(f"--backbone {backbone} has {activation(config)}, but --pretrained "
                     f"{pretrained} was trained with the other activation: use --backbone {right}")


# --- which file -----------------------------------------------------------------------------------
def find_weights(backbone: str, pretrained: str, tag: dict) -> Path:
    """The weights file of an open_clip tag, which is downloaded, or a local file.

    tag: open_clip's description of the tag, empty if `pretrained` is none of this backbone's.
    Raises OSError without a network, and ValueError, with the tags there are, for neither.
    """
    import open_clip

    if tag:
        return download(pretrained, tag)

    if not Path(pretrained).is_file():
        tags = ", ".join(open_clip.list_pretrained_tags_by_model(backbone)) or "none"
        raise ValueError(f"--pretrained {pretrained}: neither a file nor a tag of {backbone}; "
                         f"tags: {tags}")
    return Path(pretrained)


def download(pretrained: str, tag: dict) -> Path:
    """The weights file of an open_clip tag: from the cache without a network, else downloaded.

    Raises OSError, which names the file and its repository, where it cannot be had. The server is
    asked for an answer first: without a network, the hub's client tries for a minute and urllib,
    which open_clip gives no time limit, for as long as it may take.
    """
    import open_clip
    from huggingface_hub import hf_hub_url, try_to_load_from_cache

    if tag.get("hf_hub"):                                        # open_clip prefers it to the url
        repository, _, name = tag["hf_hub"].rpartition("/")
        names = [name.rpartition(".")[0] + ".safetensors", name]
        if not name:
            names = ["open_clip_model.safetensors", "open_clip_pytorch_model.bin"]
        for name in names:
            cached = try_to_load_from_cache(repository, name)
            if isinstance(cached, str):
                return Path(cached)
        url = hf_hub_url(repository, names[0])
        ask_first = True
    else:
        url = tag["url"]
        repository, _, name = url.rpartition("/")
        names = [name]
        ask_first = not Path("~/.cache/clip", name).expanduser().is_file()

    reason = why_no_answer(url) if ask_first else ""
    if not reason:
        try:
            return Path(open_clip.download_pretrained(tag))
        except Exception as error:                               # whatever the hub's client raises
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    raise OSError(f"--pretrained {pretrained}: cannot fetch {' or '.join(names)} of {repository} "
                  f"from {urlsplit(url).netloc} ({reason}); fetch it where there is a network and "
                  "give --pretrained FILE")


def why_no_answer(url: str) -> str:
    """Why the server of a URL cannot be reached, after at most ANSWER seconds; "" if it can.

    Any answer will do, also that it has no such page: the download says what is wrong then. So will
    a certificate that urllib does not know but the hub's client may. A proxy of the environment is
    used, as both clients do. In a thread, because looking up a name has no time limit.
    """
    if os.environ.get("HF_HUB_OFFLINE", "0").upper() in ("1", "ON", "YES", "TRUE"):
        return "HF_HUB_OFFLINE is set, and it is not in the cache"
    reasons = [f"no answer in {ANSWER:.0f} s; on a slow network, try again"]

    def ask() -> None:
        try:
            root = "{0.scheme}://{0.netloc}/".format(urlsplit(url))
            request = urllib.request.Request(root, method="HEAD")
            urllib.request.urlopen(request, timeout=ANSWER).close()
            reasons.append("")
        except urllib.error.HTTPError:
            reasons.append("")
        except Exception as error:                               # of sockets, proxies, certificates
            reason = getattr(error, "reason", error)
            reasons.append("" if isinstance(reason, ssl.SSLCertVerificationError) else str(reason))

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(ANSWER)
    return reasons[-1]


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
def load_weights(clip: nn.Module, file: Path) -> None:
    """Load open_clip, OpenAI (state dict) or safetensors weights. Raises ValueError, with the file.

    OpenAI publishes TorchScript archives, and loading one runs code from it: it is refused before
    that. A file with `token_ids` holds only some rows of the token embedding: see load_token_rows.
    """
    from open_clip.factory import load_state_dict

    if is_torchscript(file):
        command = ["python", "tools/convert.py", str(file), f"{file.stem}-weights.pt"]
        raise ValueError(f"--pretrained {file}: a TorchScript archive, as OpenAI publishes them, "
                         "and loading one runs code from it; if you trust it, convert it once: "
                         f"{shlex.join(command)}")
    other = stands_in(file)
    if other:
        raise ValueError(f"--pretrained {file}: {other}")
    try:
        state = load_state_dict(str(file))
        if "token_ids" in state:
            load_token_rows(clip, state)
        else:
            load_all_names(clip, file)
    except Exception as error:               # pickle, zip, key and shape errors of three libraries
        begin = begin_of(file)
        reason = " ".join(str(error).split()) or type(error).__name__
        if begin:                            # such as "Entry not found"
            reason = f"a text, it begins with {begin[:40]!r}"
        raise ValueError(f"--pretrained {file}: not weights of this architecture, truncated, or "
                         f"not a plain state dict ({reason[:200]})") from None


def is_torchscript(file: str | Path) -> bool:
    """Was it written by torch.jit.save?

    Read from the zip's table of contents: nothing in the file is loaded or run.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            return any(name.split("/")[1:] == ["constants.pkl"] for name in archive.namelist())
    except Exception:                        # no zip, or a damaged one: weights_only=True decides
        return False


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
