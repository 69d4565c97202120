"""
What a forward pass computes in: float32, TF32 or bfloat16 autocast. Not part of the paper.
"""
import contextlib

import torch

PRECISIONS = ("fp32", "tf32", "bf16")
TRAINING_PRECISIONS = ("auto", *PRECISIONS)


def autocast(device: torch.device, precision: str):
    """What a forward pass runs in: bf16 autocast; tf32: float32 with matmuls that a GPU rounds to 10 bits; fp32."""
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    return torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else contextlib.nullcontext()


def dtype_for(device: torch.device, wanted: str) -> str:
    """auto: bf16 on GPUs that have it (not emulated), else fp32. Half precision with a scaler is not offered."""
    if wanted != "auto":
        return wanted
    native = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return "bf16" if native else "fp32"
