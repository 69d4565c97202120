"""
What a tower needs beside its weights: a description, pixels, words, and the place where they lie.

    places.py                 what --backbone names: its description, and its own weights, if any
    pixels.py                 how a frame becomes what the tower was trained on
    tokens.py                 how a sentence becomes the numbers that the text tower was trained on
    of_transformers.py        CLIPModel and SiglipModel folders of transformers
    transformers_files.py     how they make frames and sentences: the files beside their weights
    families.py               whose weights a file holds, by the names in it
    library.py                transformers itself: is it there, is it quiet
    hub.py                    files of Hugging Face's hub, from the cache or downloaded

Copy the folder together with weights.py: it needs torch and open_clip, and for other words than
CLIP's own, transformers. Not part of the paper.
"""
from .families import family_of
from .hub import in_one_line
from .of_transformers import (
    TransformersCLIP,
    build_transformers,
    build_transformers_visual,
    load_transformers,
)
from .pixels import Pixels, find_pixels, tag_of
from .places import (
    has_own_weights,
    own_weights,
    read_config,
    text_config_folder,
    tokenizer_folder,
    which_weights,
)
from .tokens import describe_text, find_tokenizer

__all__ = ["build_transformers", "build_transformers_visual", "describe_text", "family_of",
           "find_pixels", "find_tokenizer", "has_own_weights", "in_one_line", "load_transformers",
           "own_weights", "Pixels", "read_config", "tag_of", "text_config_folder",
           "tokenizer_folder", "TransformersCLIP", "which_weights"]
