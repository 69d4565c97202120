"""
How a frame becomes what a tower was trained on: size, interpolation, mean, standard deviation.

Weights do not carry this, and a wrong choice changes a score without a word. Not part of the paper.
"""
from dataclasses import dataclass

OPENAI_MEAN = (0.48145466, 0.4578275, 0.40821073)
OPENAI_STD = (0.26862954, 0.26130258, 0.27577711)
RESIZE_MODES = ("shortest", "squash")
INTERPOLATIONS = ("bicubic", "bilinear")


@dataclass(frozen=True)
class Pixels:
    """The defaults are those of OpenAI's CLIP, and of open_clip where a training sets no others.

    mean, std: red, green, blue, in 0..1. resize_mode, of a frame that is tested: "shortest" brings
    the short side to the size and crops; "squash" brings both sides to it, whatever the shape was.
    interpolation: bicubic or bilinear.
    """
    mean: tuple[float, ...] = OPENAI_MEAN
    std: tuple[float, ...] = OPENAI_STD
    resize_mode: str = "shortest"
    interpolation: str = "bicubic"
