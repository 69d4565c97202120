"""Toyworld: generated videos of a moving shape, and a tiny CLIP. Not part of the paper."""
from .generator import (
    COLOURS,
    FPS,
    FRAMES,
    MOTIONS,
    NOVEL_SHAPES,
    SETS,
    SHAPES,
    SIZE,
    TRAINED_SHAPES,
    class_set,
    generate,
    inside,
    make_clip,
    poses,
    ready,
    render,
)

__all__ = ["COLOURS", "FPS", "FRAMES", "MOTIONS", "NOVEL_SHAPES", "SETS", "SHAPES", "SIZE",
           "TRAINED_SHAPES", "class_set", "generate", "inside", "make_clip", "poses", "ready",
           "render"]
