"""Seeded tensors: hypothesis draws a seed, torch the numbers, so that a failure replays exactly."""
import torch
from hypothesis import strategies as st

seeds = st.integers(0, 2**31 - 1)


def randn(seed: int, *shape: int) -> torch.Tensor:
    """Normal numbers from a seed, float64: what is an identity on paper then holds to 1e-12."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def flat(views_BVT: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Views (B, V, T, 3, h, w) as `view_cosines` (mote/scoring) takes them: frames (n, 3, h, w), places (B, V, T)."""
    B, V, T = views_BVT.shape[:3]
    return views_BVT.flatten(0, 2), torch.arange(B * V * T).view(B, V, T)
