"""
How large a model is, and what a view costs: the parameters and GFLOPs of the paper's Table 4.

    python tools/size.py                                            # ViT-B/16, 8 frames
    python tools/size.py --backbone ViT-L-14-quickgelu --frames 16
    python tools/size.py --backbone ViT-L-14-quickgelu --experts 1  # the baseline

The text tower is not counted: it is frozen, and class names are embedded once. A view is one clip
of --frames frames, tested with merged experts. GFLOPs are 10^9 multiply-accumulates, as the paper
counts: one for a product and the sum it goes into. Matrix products and convolutions are counted,
norms, softmax and activations are not.

The model has shapes and no numbers (torch's meta device), so this needs no memory and no weights.
"""
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).parents[1]))
import train  # noqa: E402
from mote.clip_backbone import Pixels, build_visual, clip_config  # noqa: E402
from mote.model import MoTE  # noqa: E402
from mote.runtime.errors import one_line_errors  # noqa: E402
from mote.runtime.options import option, parse, positive  # noqa: E402
from mote.runtime.recipes import DATASETS  # noqa: E402
from mote.temporal_experts import TemporalTransformer  # noqa: E402


@dataclass(frozen=True)
class Config:
    backbone: str = option("ViT-B-16-quickgelu", "open_clip model, .json, local-dir:, hf-hub:")
    frames: int = positive(8, "T, frames per view")
    layers: int = option(4, "L, layers of the temporal transformer")
    experts: int = positive(4, "E, experts per layer in training")


def as_trained(given) -> dict:
    """train.py's defaults for a backbone: on K400, or on the dataset that the backbone is for."""
    data = given.backbone if given.backbone in DATASETS else "k400"
    config = train.parse_config(["--data", data, "--backbone", given.backbone])
    return {"frames": config.frames, "layers": config.layers, "experts": config.experts}


def build(cfg: Config) -> tuple[MoTE, TemporalTransformer]:
    """The model as it is tested; its temporal transformer as it is trained, with all experts."""
    clip = clip_config(cfg.backbone)
    dim = clip["embed_dim"]
    with torch.device("meta"):
        visual = build_visual(clip)
        trained = TemporalTransformer(dim, cfg.layers, cfg.experts)
        merged = trained.merged()
        # No classes: the cosines are not counted (0.0003 GFLOPs with K400's 400).
        model = MoTE(visual, merged, torch.empty(0, dim), torch.empty(()), Pixels())
    return model.eval(), trained


def millions(module: nn.Module) -> float:
    """Its parameters, in millions."""
    return sum(parameter.numel() for parameter in module.parameters()) / 1e6


def gflops(model: MoTE, frames: int) -> tuple[float, float]:
    """10^9 multiply-accumulates of a view: of the visual tower, and of the temporal transformer."""
    size = model.image_size
    view = torch.empty(1, frames, 3, size, size, device="meta")
    # Not under no_grad, where the counter fails on timm's attention pooling (ViT-B-16-SigLIP).
    with FlopCounterMode(display=False) as visual:
        e_BTD = model.frame_features(view)
    with FlopCounterMode(display=False) as temporal:
        model.temporal_features(e_BTD)
    # torch counts a multiply-accumulate as two operations.
    return visual.get_total_flops() / 2e9, temporal.get_total_flops() / 2e9


def report(cfg: Config) -> dict[str, tuple[float, ...]]:
    """Print the table. -> {row: (M parameters, GFLOPs)}; in training, parameters alone."""
    model, trained = build(cfg)
    visual = millions(model.visual)
    temporal = millions(model.temporal)
    of_visual, of_temporal = gflops(model, cfg.frames)
    rows: dict[str, tuple[float, ...]] = {
        "visual tower": (visual, of_visual),
        "temporal transformer, experts merged": (temporal, of_temporal),
        "both, as tested": (visual + temporal, of_visual + of_temporal),
    }
    if cfg.experts > 1:
        rows[f"temporal transformer, {cfg.experts} experts"] = (millions(trained),)
        rows["both, as trained"] = (visual + millions(trained),)

    print(f"{cfg.backbone}, {cfg.frames} frames, {cfg.layers} layers")
    print(f"{'':38}{'M parameters':>14}{'GFLOPs a view':>16}")
    for name, numbers in rows.items():
        print(f"{name:38}{numbers[0]:14.1f}" + "".join(f"{x:16.1f}" for x in numbers[1:]))
    return rows


def main(argv: list[str] | None = None) -> dict[str, tuple[float, ...]]:
    """What `python tools/size.py` does: a mistake is one line and exit status 2."""
    with one_line_errors("tools/size.py"):
        return report(parse(Config, "tools/size.py", __doc__, (as_trained,), argv))


if __name__ == "__main__":
    main()
