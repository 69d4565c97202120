"""
What the scripts need for class embeddings: the sentences of --templates, and a cache on disk.

Not part of the paper; its 28 sentences are TEMPLATES of mote/clip_backbone.py.
"""
import functools
import os
from pathlib import Path

from torch import Tensor, nn

from ..clip_backbone import TEMPLATES, Tokenizer, check_templates, class_embeddings
from ..datasets.dataset import Dataset
from ..datasets.folders import read_text
from .progress import progress
from .ranks import Ranks, from_rank_0

# Shared by all runs of a user. A file's name is a hash of all that its content depends on, so that
# it may be deleted at any time and never gets stale (`class_embeddings`).
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "mote"


def read_templates(file: str) -> tuple[str, ...]:
    """--templates FILE: a sentence a line, {} for the class name; without a file the paper's 28.

    Empty lines do not count, and the order matters: it is part of a protocol's hash. Raises
    FileNotFoundError, or ValueError for a sentence without exactly one {} and for an empty file.
    """
    if not file:
        return TEMPLATES
    lines = [line.strip() for line in read_text(file).splitlines()]
    templates = tuple(line for line in lines if line)
    check_templates(templates)
    return templates


def embed_datasets(clip: nn.Module, tokenizer: Tokenizer, datasets: dict[str, Dataset],
                   templates: list[str], ranks: Ranks) -> dict[str, Tensor]:
    """{dataset: class embeddings (N, D)} of Eq. 1, computed on rank 0 alone. All ranks call it.

    They are float32, of unit length, on the CPU. Rank 0 sends them to the others, so all ranks have
    the same bits and write no cache file at the same time.
    """
    embeddings = {}
    if ranks.first:
        for name, data in datasets.items():
            bar = functools.partial(progress, what=f"class embeddings of {name}")
            embeddings[name] = class_embeddings(clip, tokenizer, data.classes, templates, CACHE,
                                                bar)
    return from_rank_0(embeddings)
