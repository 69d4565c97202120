"""
MoTE: frames -> frame features -> temporal features -> video embedding -> cosine with class embeddings (paper Fig. 2).

    e = CLIP(frames) ;  t = h(e) ;  z = mean(e) + rho mean(t) ;  cosine = z . y / |z| |y|            (Eq. 1, 2, 11, 3)

Each concept is touched once, in the order of the figure; the concepts are in the modules named in the imports. This
file only evaluates: what a training step computes stands in train.py (`Objective`).

Dimension key   B clips   T frames   D embedding   N test classes   M fine-tuning classes
"""
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .clip_backbone import encode_frames, normalise
from .modulation import GAMMA, NEIGHBOURS, class_similarity, modulation
from .temporal_experts import TemporalTransformer


class MoTE(nn.Module):
    """CLIP's visual tower, the temporal head, CLIP's logit scale and the class embeddings of fine-tuning (M, D).

    finetune_classes are what Eq. 11 compares the test classes with; they travel in the checkpoint (as in the authors').
    logit_scale is the logarithm, as CLIP learns it. A logit bias (SigLIP) would shift all classes alike: not kept.
    """

    def __init__(self, visual: nn.Module, temporal: TemporalTransformer, finetune_classes: Tensor, logit_scale: Tensor,
                 image_mean: tuple, image_std: tuple):
        super().__init__()
        self.visual, self.temporal = visual, temporal
        self.logit_scale = nn.Parameter(logit_scale.detach().clone().float().reshape(()))
        self.register_buffer("finetune_classes", finetune_classes)
        self.register_buffer("image_mean", torch.tensor(image_mean), persistent=False)
        self.register_buffer("image_std", torch.tensor(image_std), persistent=False)

    @property
    def image_size(self) -> int:
        """Pixels a side of the visual tower's input."""
        size = self.visual.image_size
        return size if isinstance(size, int) else size[0]

    def normalise(self, frames: Tensor) -> Tensor:
        """uint8 (..., 3, h, w) from the loader -> what `frame_features` takes."""
        return normalise(frames, self.image_mean, self.image_std)

    def frame_features(self, frames: Tensor) -> Tensor:
        """e of Eq. 1: normalised frames (B, T, 3, h, w) -> (B, T, D), float32."""
        return encode_frames(self.visual, frames).float()

    def temporal_features(self, e_BTD: Tensor) -> Tensor:
        """h(e) of Eq. 2 with the experts merged uniformly (Eq. 6): (B, T, D) -> (B, T, D)."""
        return self.temporal(e_BTD, self.temporal.uniform_weights())

    def modulation(self, e_BTD: Tensor, class_embeddings: Tensor, k: int = NEIGHBOURS, gamma: float = GAMMA) -> Tensor:
        """rho of Eq. 11 for each clip: (B, T, D) and the test classes (N, D) -> (B,)."""
        return modulation(class_similarity(e_BTD.mean(dim=1), class_embeddings, self.finetune_classes, k), gamma)

    def forward(self, frames: Tensor, class_embeddings: Tensor, modulate: bool = True) -> Tensor:
        """Normalised frames (B, T, 3, h, w), unit class embeddings (N, D) -> cosine similarity (B, N)."""
        e_BTD = self.frame_features(frames)
        t_BTD = self.temporal_features(e_BTD)
        rho_B = self.modulation(e_BTD, class_embeddings) if modulate else 1
        return cosine(video_embedding(e_BTD, t_BTD, rho_B), class_embeddings)


def video_embedding(e_BTD: Tensor, t_BTD: Tensor, rho_B: Tensor | float = 1) -> Tensor:
    """z = e + rho t, both averaged over frames, neither normalised (Eq. 2 at rho = 1, Eq. 11). -> (B, D)"""
    if isinstance(rho_B, Tensor):
        rho_B = rho_B.unsqueeze(-1)
    return e_BTD.mean(dim=1) + rho_B * t_BTD.mean(dim=1)


def cosine(z_BD: Tensor, class_embeddings: Tensor) -> Tensor:
    """sim(z, y) of Eq. 3: (B, D) and unit (N, D) -> (B, N), float32, also under autocast."""
    with torch.autocast(z_BD.device.type, enabled=False):
        return F.normalize(z_BD.float(), dim=-1) @ class_embeddings.float().T


def probabilities(cosine_BVN: Tensor, logit_scale: Tensor) -> Tensor:
    """Views of a video are combined as the mean of their cosines; then softmax(exp(logit_scale) . mean). -> (B, N)"""
    return torch.softmax(logit_scale.exp() * cosine_BVN.mean(dim=1), dim=-1)
