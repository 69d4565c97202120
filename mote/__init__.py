"""MoTE: a mixture of temporal experts that carries CLIP to video (NeurIPS 2024). See README.md."""
from .runtime.checkpoints import load_model

__all__ = ["load_model"]
