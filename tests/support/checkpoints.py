"""Small checkpoints in our format and in the authors'."""
import torch

from mote.clip_backbone import Pixels, build_visual, clip_config
from mote.files.towers.pixels import OPENAI_MEAN, OPENAI_STD
from mote.model import MoTE
from mote.temporal_experts import TemporalTransformer


def new_checkpoint(seed=0, step=0, layers=2, experts=3):
    """As train.py writes it: toyworld's visual tower, a head of 2 layers and 3 experts, 4 classes."""
    torch.manual_seed(seed)
    clip = {"backbone": "toyworld", "pretrained": "toyworld", "config": clip_config("toyworld"),
            "mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.4)}
    model = MoTE(build_visual(clip["config"]), TemporalTransformer(64, layers, experts), torch.randn(4, 64),
                 torch.tensor(2.5), Pixels(clip["mean"], clip["std"]))
    return {"model": model.state_dict(), "clip": clip, "classes": ["a", "b", "c", "d"], "step": step, "frames": 8}


def bits(state):
    """Names to types and bytes: what `equal` says of 0 and -0, or of nan, does not matter here."""
    return {name: (tensor.dtype, tensor.shape, tensor.contiguous().numpy().tobytes()) for name, tensor in state.items()}


def expressible(seed=0, layers=2, experts=3, classes=4, **vision):
    """A checkpoint of train.py with OpenAI's kind of visual tower, as small as it gets; every tensor drawn anew."""
    generator = torch.Generator().manual_seed(seed)
    tower = {"image_size": 16, "layers": 1, "width": 64, "patch_size": 8, **vision}
    config = {"embed_dim": 8, "quick_gelu": True, "vision_cfg": tower,
              "text_cfg": {"context_length": 8, "vocab_size": 49408, "width": 8, "heads": 1, "layers": 1}}
    model = MoTE(build_visual(config), TemporalTransformer(8, layers, experts), torch.zeros(classes, 8),
                 torch.tensor(2.5), Pixels())
    state = {name: torch.randn(tensor.shape, generator=generator) for name, tensor in model.state_dict().items()}
    return {"model": state, "step": 7, "frames": 16, "classes": ["a"] * classes, "clip": {
        "backbone": "", "pretrained": "", "config": config, "mean": OPENAI_MEAN, "std": OPENAI_STD}}
