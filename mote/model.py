"""
MoTE, the paper's Figure 2: frame features -> temporal features -> video embedding -> cosine.

    e = CLIP(frames) ;  t = h(e) ;  z = mean(e) + rho mean(t) ;  cosine = z . y / (|z| |y|)
    Eq. 1               Eq. 2       Eq. 11 (Eq. 2 at rho = 1)    Eq. 3

Each step is a method of `MoTE`, written once: training (train.py, `Objective`), evaluation
(mote/scoring/evaluate.py) and the ablations all call these.

Dimension key   B clips   T frames   D embedding   N test classes   M fine-tuning classes
                V views   L temporal layers   E experts (the paper's N)
"""
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .clip_backbone import Pixels, encode_frames, normalise
from .modulation import GAMMA, NEIGHBOURS, class_similarity, modulation
from .temporal_experts import TemporalTransformer


class MoTE(nn.Module):
    """CLIP's visual tower, the temporal transformer, and what their output is compared with.

    finetune_classes (M, D): class embeddings of fine-tuning. The losses use them, and Eq. 11
    compares the test classes with them; they travel in the checkpoint, as in the authors'.
    logit_scale: the logarithm of the factor, as CLIP learns it. A logit bias (SigLIP) is not kept:
    it would shift all classes alike.
    pixels: how its frames are made: `normalise` applies the mean and the standard deviation, the
    loader of test views (mote/data.py) the rest.
    """
    finetune_classes: Tensor
    image_mean: Tensor
    image_std: Tensor

    def __init__(self, visual: nn.Module, temporal: TemporalTransformer, finetune_classes: Tensor,
                 logit_scale: Tensor, pixels: Pixels):
        super().__init__()
        self.visual = visual
        self.temporal = temporal
        self.pixels = pixels
        self.logit_scale = nn.Parameter(logit_scale.detach().clone().float().reshape(()))
        self.register_buffer("finetune_classes", finetune_classes)
        self.register_buffer("image_mean", torch.tensor(pixels.mean), persistent=False)
        self.register_buffer("image_std", torch.tensor(pixels.std), persistent=False)

    @property
    def image_size(self) -> int:
        """Pixels a side of the visual tower's input."""
        size: Any = self.visual.image_size                                # one number, or (h, w)
        return size if isinstance(size, int) else size[0]

    # --- Figure 2, step by step -------------------------------------------------------------------
    def normalise(self, frames: Tensor) -> Tensor:
        """uint8 (..., 3, h, w) from the loader -> what `frame_features` takes."""
        return normalise(frames, self.image_mean, self.image_std)

    def frame_features(self, frames: Tensor) -> Tensor:
        """e of Eq. 1: normalised frames (B, T, 3, h, w) -> (B, T, D), float32."""
        return encode_frames(self.visual, frames).float()

    def temporal_features(self, e_BTD: Tensor, weights_LE: Tensor | None = None) -> Tensor:
        """t = h(e) of Eq. 2: (B, T, D) and mixing weights (L, E) -> (B, T, D).

        One-hot weights choose experts (Eq. 5), softmax weights merge them (Eq. 7). Without weights
        they are merged uniformly, as for every test (Eq. 6).
        """
        if weights_LE is None:
            weights_LE = self.temporal.uniform_weights()
        return self.temporal(e_BTD, weights_LE)

    def modulation(self, e_BTD: Tensor, class_embeddings: Tensor, k: int = NEIGHBOURS,
                   gamma: float = GAMMA) -> Tensor:
        """rho of Eq. 11 for each clip: (B, T, D) and the test classes (N, D) -> (B,)."""
        similarity_B = class_similarity(e_BTD.mean(dim=1), class_embeddings,
                                        self.finetune_classes, k)
        return modulation(similarity_B, gamma)

    def similarity(self, e_BTD: Tensor, t_BTD: Tensor, class_embeddings: Tensor,
                   rho_B: Tensor | float = 1) -> Tensor:
        """sim(z, y) of Eq. 3, z the video embedding of Eq. 2 (rho = 1) or 11. -> (B, N)

        class_embeddings: (N, D), of unit length.
        """
        return cosine(video_embedding(e_BTD, t_BTD, rho_B), class_embeddings)

    def forward(self, frames: Tensor, class_embeddings: Tensor, modulate: bool = True) -> Tensor:
        """Normalised frames (B, T, 3, h, w), unit class embeddings (N, D) -> cosines (B, N)."""
        e_BTD = self.frame_features(frames)                                    # Eq. 1
        t_BTD = self.temporal_features(e_BTD)                                  # Eq. 2: h; Eq. 6
        rho_B = self.modulation(e_BTD, class_embeddings) if modulate else 1    # Eq. 11: rho
        return self.similarity(e_BTD, t_BTD, class_embeddings, rho_B)          # Eq. 11: z; Eq. 3

    # --- the same model with another temporal transformer -----------------------------------------
    def with_temporal(self, temporal: TemporalTransformer) -> "MoTE":
        """This model with another temporal transformer.

        The visual tower is shared, the logit scale is copied.
        """
        other = MoTE(self.visual, temporal, self.finetune_classes, self.logit_scale,
                     self.pixels)
        return other.to(self.finetune_classes.device)

    def merged(self) -> "MoTE":
        """This model with the experts of each layer merged into one (Eq. 6), to be tested."""
        return self.with_temporal(self.temporal.merged())


def video_embedding(e_BTD: Tensor, t_BTD: Tensor, rho_B: Tensor | float = 1) -> Tensor:
    """z = e + rho t, both averaged over frames, neither normalised (Eq. 11; Eq. 2 at rho = 1)."""
    if isinstance(rho_B, Tensor):
        rho_B = rho_B.unsqueeze(-1)
    return e_BTD.mean(dim=1) + rho_B * t_BTD.mean(dim=1)                           # (B, D)


def cosine(z_BD: Tensor, class_embeddings: Tensor) -> Tensor:
    """sim(z, y) of Eq. 3: (B, D) and unit (N, D) -> (B, N), float32, also under autocast."""
    with torch.autocast(z_BD.device.type, enabled=False):
        return F.normalize(z_BD.float(), dim=-1) @ class_embeddings.float().T


def probabilities(cosine_BVN: Tensor, logit_scale: Tensor) -> Tensor:
    """softmax(exp(logit_scale) mean cosine): views of a video are averaged first. -> (B, N)"""
    return torch.softmax(logit_scale.exp() * cosine_BVN.mean(dim=1), dim=-1)
