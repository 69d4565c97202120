"""
What a forward pass computes in: float32, TF32 or bfloat16 autocast.

Weights, gradients and AdamW's moments are float32 in every case. float16 is not offered, for it
needs a loss scaler; bfloat16 has float32's range. Where bfloat16 is not native, as on the CPU and
on older GPUs, "auto" is float32. Not part of the paper.
"""
import contextlib

import torch

PRECISIONS = ("fp32", "tf32", "bf16")
TRAINING_PRECISIONS = ("auto", *PRECISIONS)


def autocast(device: torch.device, precision: str):
    """The context in which a forward pass runs, for one of PRECISIONS.

    tf32 is float32 whose matmuls and convolutions a GPU rounds to 10 bits of mantissa. torch allows
    it for convolutions unless told not to. Both are settings of the whole process, which stay as
    the last call left them.
    """
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    torch.backends.cudnn.allow_tf32 = precision == "tf32"
    if precision == "bf16":
        return torch.autocast(device.type, torch.bfloat16)
    return contextlib.nullcontext()


def dtype_for(device: torch.device, wanted: str) -> str:
    """One of PRECISIONS for --precision. auto: bf16 on GPUs that have it natively, else fp32."""
    if wanted != "auto":
        return wanted
    native = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return "bf16" if native else "fp32"
