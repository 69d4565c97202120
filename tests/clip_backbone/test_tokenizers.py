"""
Each text tower gets open_clip's own tokenizer: equal ids for every one that its 144 descriptions name, or one line.

The tokenizers are tiny (support/tokenizers.py), their classes and files are those of the repositories. No network.
"""
import copy
import hashlib
import http.server
import json
import os
import socket
import subprocess
import sys
import threading
import time

import open_clip
import pytest
import torch
from huggingface_hub import constants
from support import tokenizers
from support.clips import TINY
from support.hub_cache import COMMIT, note_of, write_files
from support.places import ROOT
from support.tokenizers import as_json

from mote.clip_backbone import Tokenizer, clip_config
from mote.files.towers import hub
from mote.files.towers.tokens import PROBES, find_tokenizer, tokens_hash

SENTENCES = [*PROBES, "a video of a person doing high-jump.", "A PHOTO of tango_dancing, 10 times!"]
SIGLIP = {"hf_tokenizer_name": "timm/ViT-B-16-SigLIP", "context_length": 16, "vocab_size": 32000,
          "tokenizer_kwargs": {"clean": "canonicalize"}, "width": 32, "heads": 2, "layers": 1}
ROBERTA = {"hf_tokenizer_name": "roberta-base"}
CLIPS = {"context_length": 16, "vocab_size": 49408}


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """No test here may leave this machine."""
    connect = socket.socket.connect

    def connect_here(this, address):
        assert address[0] == "127.0.0.1", "this test wants a network"
        return connect(this, address)
    monkeypatch.setattr(socket.socket, "connect", connect_here)


def text_of(name: str) -> dict:
    return open_clip.get_model_config(name)["text_cfg"]


def one_of_each() -> list[str]:
    """For each way in which text towers of open_clip want their sentences, the first name."""
    wanted = ("hf_tokenizer_name", "tokenizer_kwargs", "tokenizer_mode", "context_length")
    names = {}
    for name in sorted(open_clip.list_models()):
        names.setdefault(json.dumps([text_of(name).get(key) for key in wanted]), name)
    return list(names.values())


def refused(kind: type[Exception], *arguments, **options) -> str:
    """What find_tokenizer says, in one line."""
    with pytest.raises(kind) as raised:
        find_tokenizer(*arguments, **options)
    text = str(raised.value)
    assert len(text.splitlines()) == 1, text
    return text


# --- open_clip's own ------------------------------------------------------------------------------
@pytest.mark.parametrize("name", one_of_each())
def test_ids_are_those_of_open_clips_get_tokenizer(hub_cache, name):
    text = text_of(name)
    if "hf_tokenizer_name" in text:
        hub_cache(text["hf_tokenizer_name"], tokenizers.of(text["hf_tokenizer_name"]))

    ids = find_tokenizer(name, text)(SENTENCES)
    assert ids.shape == (len(SENTENCES), text.get("context_length", 77)) and ids.dtype == torch.int64
    assert ids.equal(open_clip.get_tokenizer(name)(SENTENCES))
    assert text == text_of(name)                                 # get_tokenizer itself writes into what it is given


def test_every_name_with_siglip_names_a_repository():
    """open_clip would otherwise give it T5's tokenizer, from a server that is asked each time."""
    for name in open_clip.list_models():
        assert text_of(name).get("hf_tokenizer_name") or "siglip" not in name.lower(), name


@pytest.mark.parametrize("place", ["file", "folder"])
def test_a_description_of_ones_own_gets_the_tokenizer_that_it_names(hub_cache, tmp_path, place):
    description = tmp_path / ("open_clip_config.json" if place == "folder" else "own.json")
    description.write_text(json.dumps({"model_cfg": {**TINY, "text_cfg": SIGLIP},
                                       "preprocess_cfg": {}}))
    hub_cache("timm/ViT-B-16-SigLIP", tokenizers.siglip())
    backbone = str(description)
    if place == "folder":                                        # the one in there, though the cache has its name
        write_files(tmp_path, tokenizers.roberta())
        backbone = f"local-dir:{tmp_path}"

    source = tmp_path if place == "folder" else "timm/ViT-B-16-SigLIP"
    own = open_clip.tokenizer.HFTokenizer(str(source), context_length=16, clean="canonicalize")
    ids = Tokenizer(backbone, clip_config(backbone))(SENTENCES)
    assert ids.equal(own(SENTENCES))
    if place == "folder":
        assert ids.equal(open_clip.get_tokenizer(backbone)(SENTENCES))


def test_the_name_may_be_a_local_folder(tmp_path):
    folder = str(write_files(tmp_path / "words", tokenizers.siglip_of_transformers()))
    ids = find_tokenizer("x.json", {**SIGLIP, "hf_tokenizer_name": folder, "tokenizer_kwargs": {}})(SENTENCES)
    assert ids.equal(open_clip.tokenizer.HFTokenizer(folder, context_length=16)(SENTENCES))


@pytest.mark.parametrize("kwargs", [{"clean": "canonicalize"}, {"additional_special_tokens": ["person"]}])
def test_clips_own_takes_the_kwargs_of_the_description(kwargs):
    encode = find_tokenizer("x.json", {**CLIPS, "vocab_size": 49409, "tokenizer_kwargs": kwargs})
    assert encode(SENTENCES).equal(open_clip.SimpleTokenizer(context_length=16, **copy.deepcopy(kwargs))(SENTENCES))
    assert not encode(SENTENCES).equal(open_clip.SimpleTokenizer(context_length=16)(SENTENCES))


def test_the_mode_of_the_description_is_open_clips(hub_cache):
    folder = hub_cache("org/name", {**tokenizers.bert(), "tokenizer_config.json": as_json(
        bos_token="[CLS]", eos_token="[SEP]", cls_token="[CLS]", pad_token="[PAD]", unk_token="[UNK]")})
    text = {"hf_tokenizer_name": "org/name", "tokenizer_mode": "clips", "context_length": 16}
    own = open_clip.tokenizer.HFTokenizer(str(folder), context_length=16, tokenizer_mode="clips")
    assert find_tokenizer("x.json", text)(SENTENCES).equal(own(SENTENCES))


# --- its hash -------------------------------------------------------------------------------------
def test_clips_own_words_leave_no_hash_at_any_length_and_others_do(hub_cache):
    assert {tokens_hash(open_clip.SimpleTokenizer(context_length=length)) for length in (16, 32, 72, 77)} == {""}
    hub_cache("roberta-base", tokenizers.roberta())
    hub_cache("timm/ViT-B-16-SigLIP", tokenizers.siglip())
    texts = [ROBERTA, SIGLIP, {**SIGLIP, "tokenizer_kwargs": {}},
             {**CLIPS, "tokenizer_kwargs": {"clean": "whitespace"}}]
    hashes = [tokens_hash(find_tokenizer("x.json", text)) for text in texts]
    assert len({*hashes, ""}) == 5 and all(len(text) == 16 and int(text, 16) for text in hashes)


HASHES = """
import json, sys
from pathlib import Path
from mote.files.towers.tokens import find_tokenizer, tokens_hash
for text in json.loads(sys.argv[1]):
    print(tokens_hash(find_tokenizer("x.json", text)))
"""


def test_another_process_gives_the_same_hash_and_is_silent(hub_cache):
    """SigLIP's own class is among them: transformers warns of its default config as it reads one."""
    made = {"roberta-base": tokenizers.roberta(), "google/mt5-base": tokenizers.mt5(),
            "org/siglip": tokenizers.siglip_of_transformers(), "timm/ViT-B-16-SigLIP2": tokenizers.siglip2()}
    for repository, files in made.items():
        hub_cache(repository, files)
    texts = [{"hf_tokenizer_name": repository} for repository in made]
    here = [tokens_hash(find_tokenizer("x.json", text)) for text in texts]

    done = subprocess.run([sys.executable, "-c", HASHES, json.dumps(texts)], cwd=ROOT, capture_output=True, text=True,
                          env={**os.environ, "PYTHONHASHSEED": "7"})
    assert done.stdout.split() == here and done.stderr == ""


def test_transformers_warns_as_before_afterwards(hub_cache):
    from transformers.utils import logging
    logging.set_verbosity_info()
    try:
        hub_cache("roberta-base", tokenizers.roberta())
        find_tokenizer("x.json", ROBERTA)
        hub_cache("roberta-base", {"tokenizer.json": b"{"})
        refused(ValueError, "x.json", ROBERTA)
        assert logging.get_verbosity() == logging.INFO
    finally:
        logging.set_verbosity_warning()


# --- what is not there ----------------------------------------------------------------------------
def test_without_transformers_one_line_says_that_it_is_the_tokenizer_and_which(hub_cache, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    text = refused(ValueError, "roberta-ViT-B-32", ROBERTA)
    assert text == ("--backbone roberta-ViT-B-32: its tokenizer, roberta-base: transformers reads it, and is not "
                    'installed: pip install transformers, or pip install "mote-video[towers]"')
    given = refused(ValueError, "roberta-ViT-B-32", ROBERTA, given="words")
    assert given == text.replace("--backbone roberta-ViT-B-32: its tokenizer, roberta-base", "--tokenizer words")


@pytest.mark.parametrize("module, package", [("sentencepiece", "sentencepiece"), ("google.protobuf", "protobuf"),
                                             ("google", "protobuf")])
def test_sentencepiece_and_protobuf_are_asked_for_where_there_is_no_tokenizer_json_and_only_there(
        hub_cache, monkeypatch, module, package):
    hub_cache("google/mt5-base", tokenizers.mt5())
    hub_cache("timm/ViT-B-16-SigLIP", tokenizers.siglip())
    monkeypatch.delitem(sys.modules, "google.protobuf")
    monkeypatch.setitem(sys.modules, module, None)
    text = refused(ValueError, "mt5-base-ViT-B-32", text_of("mt5-base-ViT-B-32"))
    assert "its tokenizer, google/mt5-base" in text and f"pip install {package}, or" in text
    find_tokenizer("ViT-B-16-SigLIP", SIGLIP)


def test_a_class_that_needs_sentencepiece_all_the_same_says_so(hub_cache, monkeypatch):
    def lacks(*_, **__):
        raise ImportError("\nSiglipTokenizer requires the SentencePiece library but it was not found")
    monkeypatch.setattr(open_clip.tokenizer, "HFTokenizer", lacks)
    hub_cache("roberta-base", tokenizers.roberta())
    text = refused(ValueError, "x.json", ROBERTA)
    assert 'pip install "mote-video[towers]" (ImportError: SiglipTokenizer requires the SentencePiece' in text


def test_a_tokenizer_that_is_not_on_disk_is_named_with_the_option_that_takes_a_folder(hub_cache):
    text = refused(OSError, "ViT-B-16-SigLIP", SIGLIP)
    assert text.startswith("--backbone ViT-B-16-SigLIP: its tokenizer, timm/ViT-B-16-SigLIP: cannot fetch it")
    assert "HF_HUB_OFFLINE" in text and "give --tokenizer DIR" in text


def test_weights_in_the_cache_are_no_tokenizer(hub_cache):
    hub_cache("timm/ViT-B-16-SigLIP", {"open_clip_config.json": b"{}", "open_clip_model.safetensors": b""})
    assert "cannot fetch it" in refused(OSError, "ViT-B-16-SigLIP", SIGLIP)


@pytest.mark.parametrize("absent", ["tokenizer_config.json", "config.json"])
def test_a_cache_that_may_lack_a_part_is_not_believed(hub_cache, tmp_path, absent):
    """Gemma's class pads on the left unless tokenizer_config.json says otherwise."""
    files = {**tokenizers.siglip2(), "config.json": as_json(model_type="gemma")}
    del files[absent]
    folder = hub_cache("timm/ViT-B-16-SigLIP2", files)
    note_of(folder, absent).unlink()
    assert "cannot fetch it" in refused(OSError, "ViT-B-16-SigLIP2", text_of("ViT-B-16-SigLIP2"))


def test_what_is_no_name_of_a_repository_is_refused(hub_cache):
    text = refused(ValueError, "x.json", {"hf_tokenizer_name": "a/b/c"})
    assert text.startswith("--backbone x.json: its tokenizer, a/b/c: 'a/b/c' is not the name of a repository")


def test_a_folder_with_a_description_and_no_tokenizer_is_refused(tmp_path):
    text = refused(ValueError, f"local-dir:{tmp_path}", SIGLIP, tmp_path)
    assert f"there is no tokenizer in {tmp_path}" in text and "give --tokenizer DIR" in text


# --- from the hub ---------------------------------------------------------------------------------
class Hub(http.server.BaseHTTPRequestHandler):
    """Answers as the hub does: for the files of roberta-base, and that it has no others."""
    files: dict[str, bytes] = {}

    def do_HEAD(self) -> bytes | None:
        content = self.files.get(self.path.removeprefix("/roberta-base/resolve/main/"))
        self.send_response(404 if content is None else 200)
        for name, value in {"ETag": f'"{self.path}"', "X-Repo-Commit": COMMIT, "X-Error-Code": "EntryNotFound",
                            "Content-Length": str(len(content or b""))}.items():
            self.send_header(name, value)
        self.end_headers()
        return content

    def do_GET(self):
        self.wfile.write(self.do_HEAD() or b"")

    def log_message(self, *_):
        pass


@pytest.fixture
def online(hub_cache, monkeypatch, request):
    """hub_cache, and a hub on this machine; the parameter says which files it has."""
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(Hub, "files", request.param)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        threading.Thread(target=server.serve_forever, args=[0.01], daemon=True).start()
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE",
                            f"http://127.0.0.1:{server.server_port}/{{repo_id}}/resolve/{{revision}}/{{filename}}")
        yield hub_cache
        server.shutdown()


def without(files: dict, *names: str) -> dict:
    return {name: content for name, content in files.items() if name not in names}


IN_TWO_FILES = without(tokenizers.roberta(), "tokenizer.json", "tokenizer_config.json")


@pytest.mark.parametrize("online", [IN_TWO_FILES], indirect=True)
def test_what_is_downloaded_once_is_there_without_a_network(online, monkeypatch):
    ids = find_tokenizer("roberta-ViT-B-32", ROBERTA)(SENTENCES)
    monkeypatch.setattr(hub, "why_no_answer", lambda url: pytest.fail("a server was asked"))
    assert find_tokenizer("roberta-ViT-B-32", ROBERTA)(SENTENCES).equal(ids)


@pytest.mark.parametrize("online", [tokenizers.roberta()], indirect=True)
def test_the_rest_of_a_half_downloaded_tokenizer_is_fetched(online):
    online("roberta-base", {"vocab.json": tokenizers.roberta()["vocab.json"]})
    folder = online("roberta-base", {})
    for name in ("config.json", "tokenizer_config.json"):
        note_of(folder, name).unlink()
    assert len(find_tokenizer("roberta-ViT-B-32", ROBERTA)(SENTENCES).unique()) > 100


@pytest.mark.parametrize("online", [{}], indirect=True)
def test_a_repository_without_a_tokenizer_is_named(online):
    assert "of roberta-base from 127.0.0.1" in refused(OSError, "roberta-ViT-B-32", ROBERTA)


def test_a_server_without_an_answer_is_given_up_within_seconds(hub_cache, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub, "ANSWER", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE",
                            f"http://127.0.0.1:{silent.getsockname()[1]}/{{repo_id}}/{{revision}}/{{filename}}")
        started = time.monotonic()
        text = refused(OSError, "roberta-ViT-B-32", ROBERTA)
    assert time.monotonic() - started < 2
    assert "its tokenizer, roberta-base: cannot fetch it from 127.0.0.1" in text and "give --tokenizer DIR" in text


# --- --tokenizer DIR ------------------------------------------------------------------------------
def test_a_given_folder_wins_over_the_name_and_over_the_folder_of_the_weights(tmp_path):
    given = write_files(tmp_path / "given", tokenizers.siglip())
    other = write_files(tmp_path / "other", tokenizers.roberta())
    own = open_clip.tokenizer.HFTokenizer(str(given), context_length=16, clean="canonicalize")
    for folder in (None, other):
        assert find_tokenizer("ViT-B-16-SigLIP", SIGLIP, folder, str(given))(SENTENCES).equal(own(SENTENCES))


def test_a_tower_with_clips_own_words_takes_a_given_folder_that_fits(tmp_path):
    given = write_files(tmp_path / "given", tokenizers.clip())
    ids, own = find_tokenizer("ViT-B-32", CLIPS, given=str(given))(SENTENCES), open_clip.tokenize(SENTENCES, 16)
    read = own != 0                                              # it pads with another token, after the end of text
    assert ids[read].equal(own[read]) and not ids.equal(own)


@pytest.mark.parametrize("text, reason", [
    (CLIPS, "this text tower reads a sentence at its highest token, which must be the one that ends it"),
    ({**SIGLIP, "vocab_size": 60}, "it gives token [0-9]+, and the vocab_size of this text tower is 60;"),
])
def test_a_given_folder_of_another_model_is_refused(tmp_path, text, reason):
    given = write_files(tmp_path / "given", tokenizers.roberta())
    with pytest.raises(ValueError, match=f"^--tokenizer {given}: the tokenizer of another model: {reason}"):
        find_tokenizer("x.json", text, given=str(given))


@pytest.mark.parametrize("name, rows", [("siglip", 60), ("", 32000)])
def test_more_tokens_than_rows_are_refused_and_a_tower_of_transformers_knows_its_own(hub_cache, name, rows):
    hub_cache("timm/ViT-B-16-SigLIP", tokenizers.siglip())
    text = {**SIGLIP, "vocab_size": rows}
    if not name:
        text.pop("hf_tokenizer_name")
    said = refused(ValueError, "x.json", text)
    assert f"the vocab_size of this text tower is {rows};" in said and "give --tokenizer DIR" in said
    find_tokenizer("x.json", {**text, "hf_model_name": "google/mt5-base"})


def test_a_folder_that_is_not_there_is_a_file_or_is_empty_is_named(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    for name, kind, reason in [("nowhere", FileNotFoundError, "no such folder"), ("file", ValueError, "a file; give"),
                               ("empty", ValueError, "there is no tokenizer in")]:
        text = refused(kind, "ViT-B-32", CLIPS, given=str(tmp_path / name))
        assert text.startswith(f"--tokenizer {tmp_path / name}: {reason}")


DAMAGED = {
    "tokenizer.json is cut": {**tokenizers.roberta(), "tokenizer.json": tokenizers.roberta()["tokenizer.json"][:3000]},
    "spiece.model is cut": {**tokenizers.mt5(), "spiece.model": tokenizers.mt5()["spiece.model"][:3000]},
    "tokenizer_config.json is cut": {**tokenizers.roberta(), "tokenizer_config.json": b'{"a'},
    "config.json is cut": {**tokenizers.roberta(), "config.json": b'{"model_type'},
    "a pointer of Git LFS": {**tokenizers.mt5(), "spiece.model": b"version https://git-lfs.github.com/spec/v1\n"},
    "no merges": without(tokenizers.roberta(), "tokenizer.json", "merges.txt"),
    "no padding": without(tokenizers.siglip2(), "tokenizer_config.json", "special_tokens_map.json"),
    "words of another class": {**without(tokenizers.xlm_v(), "sentencepiece.bpe.model"), "vocab.txt": b"a\nb"},
}


@pytest.mark.parametrize("files", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_tokenizer_is_one_line(tmp_path, files):
    folder = write_files(tmp_path / "given", files)
    text = refused(ValueError, "ViT-B-16-SigLIP", SIGLIP, given=str(folder))
    assert text.startswith(f"--tokenizer {folder}: ") and len(text) < 600


def test_a_vocabulary_that_transformers_makes_up_is_noticed(tmp_path):
    folder = write_files(tmp_path / "given", DAMAGED["words of another class"])
    assert len(open_clip.tokenizer.HFTokenizer(str(folder))(SENTENCES).unique()) < 6           # without a word
    assert "its words were not found" in refused(ValueError, "ViT-B-16-SigLIP", SIGLIP, given=str(folder))


# --- what a description or a repository may not do ------------------------------------------------
@pytest.mark.parametrize("kwargs", [{}, {"trust_remote_code": True}])
def test_no_code_of_a_repository_runs_and_nobody_is_asked(hub_cache, monkeypatch, tmp_path, kwargs):
    code = f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Own: pass\n".encode()
    config = as_json(auto_map={"AutoTokenizer": ["own.Own", "own.Own"]})
    folder = hub_cache("org/own", {**tokenizers.siglip(), "own.py": code, "tokenizer_config.json": config})
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("the user was asked"))
    for given in ("", str(folder)):
        text = refused(ValueError, "x.json", {"hf_tokenizer_name": "org/own", "tokenizer_kwargs": kwargs}, given=given)
        assert "contains custom code" in text
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("kwargs, reason", [
    ({"reduction_mask": "random"}, "reduction_mask draws which words"), ({"clean": "odd"}, "Invalid clean function"),
    ({"odd": 1}, "unexpected keyword argument 'odd'")])
def test_kwargs_that_clips_own_refuses_or_that_draw_at_random_are_one_line(kwargs, reason):
    text = refused(ValueError, "x.json", {**CLIPS, "tokenizer_kwargs": kwargs})
    assert text.startswith("--backbone x.json: its tokenizer, CLIP's own BPE: cannot be made") and reason in text


@pytest.mark.parametrize("kwargs", [{"clean": "odd"}, {"tokenizer_name": "other"}])
def test_kwargs_that_transformers_refuses_are_one_line(hub_cache, kwargs):
    hub_cache("roberta-base", tokenizers.roberta())
    refused(ValueError, "x.json", {**ROBERTA, "tokenizer_kwargs": kwargs})


@pytest.mark.parametrize("key, value, kind", [("hf_tokenizer_name", 5, "str"), ("tokenizer_kwargs", "odd", "dict"),
                                              ("context_length", "16", "int"), ("vocab_size", [49408], "int")])
def test_a_value_of_another_type_is_named(key, value, kind):
    text = refused(ValueError, "x.json", {**CLIPS, key: value})
    assert text == f"--backbone x.json: its tokenizer: {key} of text_cfg must be {kind}, got {value!r}"


def test_probes_never_change():
    """A hash of what becomes of them is part of checkpoints."""
    assert hashlib.sha256(json.dumps(PROBES).encode()).hexdigest()[:16] == "3721194459f6e2ed"
