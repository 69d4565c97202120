"""
What a tower needs beside its weights: a description, pixels, words, and the place where they lie.

    pixels.py     how a frame becomes what the tower was trained on

Copy the folder together with weights.py. Not part of the paper.
"""
from .pixels import Pixels

__all__ = ["Pixels"]
