"""
A cache of Hugging Face's hub, laid out on disk, for tests without a network.

    def test_something(hub_cache):
        folder = hub_cache("org/name", {"open_clip_config.json": b"...", "open_clip_model.safetensors": b"..."})
        load_clip("hf-hub:org/name")

What tokenizers need is in support/tokenizers.py: hub_cache("roberta-base", roberta()).
"""
import functools
from pathlib import Path

import pytest

COMMIT = "c0ffee" + 34 * "0"


@pytest.fixture
def hub_cache(tmp_path, monkeypatch):
    """A function that puts a repository into an empty cache: (name, files by name) -> the folder of its files.

    The hub is offline, in this process and in those that it starts.
    """
    from huggingface_hub import constants
    cache = tmp_path / "hub"
    cache.mkdir()
    monkeypatch.setenv("HF_HUB_CACHE", str(cache))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    # Both were read when huggingface_hub was imported.
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return functools.partial(put_into_cache, cache)


def put_into_cache(cache: Path, repository: str, files: dict[str, bytes]) -> Path:
    """As the hub's client lays it out, with a note of what transformers has asked for in vain.

    Where a note is missing (note_of(folder, name)), the client cannot know that there is no such file.
    """
    folder = cache / f"models--{repository.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True, exist_ok=True)
    (folder / "refs" / "main").write_text(COMMIT)
    put = write_files(folder / "snapshots" / COMMIT, files)
    asked_for = ("config.json", "tokenizer_config.json")
    write_files(note_of(put, ""), {name: b"" for name in asked_for if name not in files})
    return put


def note_of(folder: Path, name: str) -> Path:
    """Where the cache notes that a repository does not have this file. folder: of its files."""
    return folder.parents[1] / ".no_exist" / folder.name / name


def write_files(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder
