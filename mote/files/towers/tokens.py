"""
How a sentence becomes the numbers that a text tower was trained on: open_clip's tokenizer for it.

    find_tokenizer(...)      sentences -> token ids; refused where they cannot be this tower's
    tokens_hash(encode)      a hash of what it makes of PROBES; "" for CLIP's own BPE

Most towers have CLIP's BPE. Others name a repository of Hugging Face's hub (hf_tokenizer_name), and
transformers reads it. The classes are open_clip's own, SimpleTokenizer and HFTokenizer, chosen as
its factory.get_tokenizer does. That function is not called: it knows no .json file, writes into the
description that it finds, and waits for a network.

No code of a repository is ever run. Every mistake is a ValueError or OSError of one line that names
the option, the value and the rule. Copy together with hub.py and library.py: needs torch and
open_clip, and transformers for a tokenizer that is not CLIP's. Not part of the paper.
"""
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from torch import Tensor

from . import hub
from .library import INSTALL, check_installed, quiet

# One of these holds the words. Without any, transformers makes up a vocabulary of special tokens
# alone and says nothing.
VOCABULARY = ("tokenizer.json", "spiece.model", "sentencepiece.bpe.model", "tokenizer.model",
              "vocab.txt", "vocab.json")
# These say which class reads them, on which side it pads, with which token. A repository need not
# have both.
CLASS = ("config.json", "tokenizer_config.json")
BESIDE = ("merges.txt", "special_tokens_map.json", "added_tokens.json")

INSTEAD = ("give --tokenizer DIR, a local folder with its files (tokenizer.json or the like, "
           "tokenizer_config.json, config.json)")

# What tokenizers treat differently: capitals, digits, punctuation, hyphens, underscores, spaces,
# HTML, accents, scripts, and a sentence longer than any tower reads. Never to be changed: a hash of
# what becomes of them is part of checkpoints.
PROBES = (
    "a photo of a person playing violin.", "A video of a Person doing Archery.", "BLOWING CANDLES",
    "applying eye make-up", "high-jump, long-jump and triple-jump", "playing Daf / playing_dhol",
    "3 of 5", "10,000 meters in 26:17.53", "Kinetics-400, UCF101 & HMDB51", "(softly) 'yes' \"no\"",
    "it's what they've said; we'll see...", "what?! #wow @home 100% $5 + 2 = 7", "a  b\tc\nd ",
    "Déjà vu, naïve café", "São Paulo, Füße, Łódź", "e\u0301 and é, \ufb01 and fi",
    "“quoted” — dash …", "rock &amp; roll &lt;3", "танец", "跳舞 ダンス 춤", "رقص", "नृत्य", "χορός",
    "❤️ 💃", "pneumonoultramicroscopicsilicovolcanoconiosis", "zzzz qwxk vbnm", "clean and jerk",
    "tai chi", "a", "",
    " ".join(["a person juggling soccer balls, then brushing teeth and 7 zebras;"] * 12),
)
FEWEST = 20               # different ids in all of PROBES; special tokens alone are less than ten


# --- which tokenizer ------------------------------------------------------------------------------
def find_tokenizer(backbone: str, text_cfg: dict, folder: Path | None = None,
                   given: str = "") -> Callable[[list[str]], Tensor]:
    """The tokenizer of a text tower: sentences -> token ids (n, context length), int64.

    backbone: what --backbone names, for messages. text_cfg: open_clip's description of the tower,
    which is not changed. folder: of local-dir:DIR; where text_cfg names a tokenizer of the hub, the
    one in this folder is meant, as open_clip has it. given: --tokenizer DIR, which wins; a tower
    with CLIP's own BPE takes it too, since a CLIP of transformers may have been trained with other
    words, if the ids fit the tower and the highest of them ends each sentence.

    Raises ValueError for a tokenizer that is damaged, or not this tower's, or lacks a package that
    reads it; FileNotFoundError for a folder that is not there, OSError for a repository that is not
    on disk and cannot be downloaded. All of it is known before any weights are read.

    open_clip gives T5's words to a built-in name with "siglip" that names no repository; in 3.3
    each of them names one.
    """
    option = f"--backbone {backbone}: its tokenizer"
    check_types(text_cfg, option)
    name = text_cfg.get("hf_tokenizer_name") or ""
    if given:
        option = f"--tokenizer {given}"
        check_installed("transformers", option)
        encode = read_folder(given_folder(given), text_cfg, option)
    elif name:
        option = f"{option}, {name}"
        check_installed("transformers", option)
        encode = read_folder(folder or repository_folder(name, option), text_cfg, option)
    else:
        option = f"{option}, CLIP's own BPE"
        encode = clips_own(text_cfg, option)

    try:
        ids = encode(list(PROBES))
    except Exception as error:               # whatever transformers raises, such as for no padding
        raise ValueError(f"{option}: cannot be used ({hub.in_one_line(error)})") from None
    check_ids(ids, text_cfg, option)
    if given and not name:
        check_end(ids, text_cfg, option)
    return encode


def check_types(text_cfg: dict, option: str) -> None:
    """Raise ValueError for a description with a value that no tokenizer can be made of."""
    for key, kind in (("hf_tokenizer_name", str), ("tokenizer_kwargs", dict),
                      ("context_length", int), ("vocab_size", int)):
        value = text_cfg.get(key)
        if value is not None and not isinstance(value, kind):
            raise ValueError(f"{option}: {key} of text_cfg must be {kind.__name__}, got {value!r}")


def clips_own(text_cfg: dict, option: str) -> Callable[[list[str]], Tensor]:
    """CLIP's BPE at this context length. Raises ValueError for tokenizer_kwargs that it refuses."""
    from open_clip import SimpleTokenizer

    kwargs = text_cfg.get("tokenizer_kwargs") or {}
    try:
        if kwargs.get("reduction_mask"):
            raise ValueError("reduction_mask draws which words of a long sentence are kept")
        return SimpleTokenizer(context_length=text_cfg.get("context_length", 77), **kwargs)
    except Exception as error:
        raise ValueError(f"{option}: cannot be made with the tokenizer_kwargs {kwargs} "
                         f"({hub.in_one_line(error)})") from None


# --- where it lies --------------------------------------------------------------------------------
def given_folder(given: str) -> Path:
    """The folder of --tokenizer DIR. Raises FileNotFoundError or ValueError where it is none."""
    folder = Path(given)
    if folder.is_file():
        raise ValueError(f"--tokenizer {given}: a file; give the folder that holds the tokenizer's "
                         "files")
    if not folder.is_dir():
        raise FileNotFoundError(f"--tokenizer {given}: no such folder")
    return folder


def repository_folder(name: str, option: str) -> Path:
    """The folder of a repository's tokenizer, in the cache; it is downloaded where it is not there.

    name: may also be a local folder, as transformers has it. Raises OSError where there is neither
    the tokenizer nor a network.
    """
    from huggingface_hub import hf_hub_url

    if Path(name).is_dir():
        return Path(name)
    folder = cached_folder(name, option)
    if folder is not None:
        return folder

    url = hf_hub_url(name, VOCABULARY[0])
    reason = hub.why_no_answer(url)
    if not reason:
        hub.fetch(name, list(VOCABULARY), option, INSTEAD)
        hub.fetch_beside(name, (*CLASS, *VOCABULARY, *BESIDE), option, INSTEAD)
        folder = cached_folder(name, option)
        reason = "the download broke off"
    if folder is None:
        raise OSError(f"{option}: cannot fetch it from {urlsplit(url).netloc} ({reason}); "
                      f"{INSTEAD}")
    return folder


def cached_folder(name: str, option: str) -> Path | None:
    """The folder of a repository in the cache, if the whole tokenizer is there; else None.

    Its words alone are not enough: without tokenizer_config.json Gemma's, for one, would pad on the
    other side. The cache also remembers which files a repository does not have.
    """
    from huggingface_hub import try_to_load_from_cache

    words = hub.cached(name, list(VOCABULARY), option)
    if words is None or None in [try_to_load_from_cache(name, file) for file in CLASS]:
        return None
    return words.parent


# --- what reads it --------------------------------------------------------------------------------
def read_folder(folder: Path, text_cfg: dict, option: str) -> Callable[[list[str]], Tensor]:
    """open_clip's HFTokenizer of a folder. Raises ValueError for none, or one that is damaged."""
    from open_clip.tokenizer import HFTokenizer

    words = [file for file in VOCABULARY if (folder / file).is_file()]
    if not words:
        raise ValueError(f"{option}: there is no tokenizer in {folder}, none of "
                         f"{', '.join(VOCABULARY)}; {INSTEAD}")
    if words[0].endswith(".model"):          # transformers would take it for one of tiktoken
        check_installed("sentencepiece", option)
        check_installed("google.protobuf", option)

    # Last, so that no description can ask for the repository's code; None would ask the user.
    kwargs = {**(text_cfg.get("tokenizer_kwargs") or {}), "trust_remote_code": False}
    try:
        with quiet():
            return HFTokenizer(str(folder), context_length=text_cfg.get("context_length", 77),
                               tokenizer_mode=text_cfg.get("tokenizer_mode"), **kwargs)
    except ImportError as error:
        raise ValueError(f"{option}: a package that reads it is missing: {INSTALL} "
                         f"({hub.in_one_line(error)})") from None
    except Exception as error:               # of transformers, json, tokenizers, sentencepiece
        raise ValueError(f"{option}: cannot read {words[0]} and its companions in {folder}: "
                         f"damaged, or for another library ({hub.in_one_line(error)})") from None


# --- whether it is this tower's -------------------------------------------------------------------
def check_ids(ids: Tensor, text_cfg: dict, option: str) -> None:
    """Raise ValueError if a tokenizer has no words, or more than the tower has rows for.

    ids (n, context length): of PROBES. The size of the vocabulary says less: those of T5 have a
    hundred tokens at the end that no sentence gives, and SigLIP's towers have no rows for them. A
    text tower of transformers has a table of its own, which text_cfg does not describe.
    """
    different = len(ids.unique())
    if different < FEWEST:
        raise ValueError(f"{option}: its words were not found: {len(PROBES)} varied sentences give "
                         f"{different} different tokens")
    rows = text_cfg.get("vocab_size")
    highest = int(ids.max())
    if rows and not text_cfg.get("hf_model_name") and highest >= rows:
        raise ValueError(f"{option}: the tokenizer of another model: it gives token {highest}, and "
                         f"the vocab_size of this text tower is {rows}; {INSTEAD}")


def check_end(ids: Tensor, text_cfg: dict, option: str) -> None:
    """Raise ValueError unless the highest id is the same in all sentences, as CLIP's end of text.

    CLIP's text tower gives the feature at this position (pool_type argmax).
    """
    if text_cfg.get("pool_type", "argmax") == "argmax" and len(ids.amax(dim=1).unique()) > 1:
        raise ValueError(f"{option}: the tokenizer of another model: this text tower reads a "
                         "sentence at its highest token, which must be the one that ends it")


def tokens_hash(encode: Callable[[list[str]], Tensor]) -> str:
    """16 hex digits that stand for a tokenizer; "" for one that does what CLIP's own BPE does.

    It goes into the hash of a text tower, so that hashes from before other tokenizers stay.
    """
    from open_clip import tokenize

    ids = encode(list(PROBES))
    if ids.equal(tokenize(list(PROBES), context_length=ids.shape[1])):
        return ""
    return hashlib.sha256(json.dumps(ids.tolist()).encode()).hexdigest()[:16]


def describe_text(config: dict, encode: Callable[[list[str]], Tensor]) -> list:
    """What fixes class embeddings beside weights: text_cfg, the tokenizer, transformers' numbers.

    CLIP's own tokenizer leaves no mark, so that hashes from before other tokenizers stay. config:
    of the whole tower. Entries that do not apply are left out.
    """
    described: list = [config["text_cfg"]]
    tokens = tokens_hash(encode)
    if tokens:
        described.append(tokens)
    if "transformers" in config:
        described.append([config["transformers"]["model_type"],
                          config["transformers"]["text_config"]])
    return described
