"""
Checkpoints: plain dicts of tensors and builtins, written whole or not at all.

    model   (state dict), clip (architecture and where its text tower comes from), classes, step, optimizer, ...

The sizes of the head are read off the shapes. The authors' released format is translated (official.py). Loading never
runs code from a file (`weights_only=True`).
"""
import hashlib
import os
import zipfile
from pathlib import Path

import torch
from torch import Tensor

from ..clip_backbone import build_visual, is_torchscript, load_clip
from ..model import MoTE
from ..temporal_experts import TemporalTransformer
from .authors_format import from_official, is_official


def save_checkpoint(path: str | Path, checkpoint: dict) -> None:
    """Write to a temporary file beside path, sync, rename: a kill at any moment leaves the old file or the new one."""
    path = Path(path)
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(part, "wb") as file:
            torch.save(checkpoint, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except RuntimeError as error:                                # torch's zip writer, where the disk is full
        raise OSError(f"cannot write {path}: {str(error).splitlines()[0]}") from None
    except OSError as error:
        raise OSError(f"cannot write {path}: {error.strerror or error}") from None
    finally:
        part.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)                   # the rename itself must reach the disk too
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def read_file(path: Path):
    """What torch saved at path, whatever it is. Runs no code. Raises FileNotFoundError or ValueError, one line."""
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint at {path}")
    if is_torchscript(path):
        raise ValueError(f"cannot read {path}: a TorchScript archive, not a checkpoint")
    try:
        if zipfile.is_zipfile(path) and (damaged := zipfile.ZipFile(path).testzip()):
            raise ValueError(f"{damaged} is not what was written")          # torch.load does not look at checksums
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:                                   # torch raises its own, pickle's, zip's and IO errors
        with open(path, "rb") as file:                           # a zip, or torch's older format; else any file at all
            pickled = file.read(1) in (b"P", b"\x80")
        needs_code = pickled and "weights_only" in str(error) and "Unsupported" in str(error)
        reason = "it needs code to unpickle, which is never run" if needs_code else "damaged, or not a checkpoint"
        raise ValueError(f"cannot read {path}: {reason}") from None


def model_hash(checkpoint: str, model: MoTE) -> str:
    """8 digits: of the checkpoint's file, as sha256sum prints them, or of the visual tower's weights of CLIP alone."""
    hashed = hashlib.sha256()
    if checkpoint:
        path = Path(checkpoint)
        with open(path / "last.pt" if path.is_dir() else path, "rb") as file:
            while part := file.read(1 << 24):
                hashed.update(part)
    else:
        for name, tensor in sorted(model.visual.state_dict().items()):
            hashed.update(name.encode() + tensor.cpu().float().contiguous().numpy().tobytes())
    return hashed.hexdigest()[:8]


def read_checkpoint(path: str | Path) -> dict:
    """A checkpoint in our format, converted if it is the authors'. A run's folder means its last.pt.

    Raises FileNotFoundError or ValueError, one line, for what is missing, truncated, in need of code or else wrong.
    """
    path = Path(path)
    path = path / "last.pt" if path.is_dir() else path
    return in_our_format(read_file(path), path)


def in_our_format(checkpoint, path: Path) -> dict:
    """What read_file gave -> a checkpoint in our format. Raises ValueError, naming the path, if it is in neither."""
    try:
        if is_official(checkpoint):
            checkpoint = from_official(checkpoint)
        tensors = checkpoint["model"]["temporal.positions"], checkpoint["model"]["finetune_classes"]
        whole = all(isinstance(tensor, Tensor) for tensor in [*checkpoint["model"].values(), *tensors])
        whole = whole and isinstance(checkpoint["step"], int) and {"config", "mean", "std"} <= checkpoint["clip"].keys()
    except (KeyError, TypeError, AttributeError, IndexError):
        whole = False
    if not whole:
        raise ValueError(f"{path} is neither a checkpoint of train.py nor in the authors' format")
    return checkpoint


def build_model(checkpoint: dict, keep_experts: bool = False) -> MoTE:
    """The model of a checkpoint, in eval mode, its experts merged into one (Eq. 6) unless they are to be kept.

    Raises ValueError where the weights do not fit the architecture that the checkpoint names.
    """
    state, clip = checkpoint["model"], checkpoint["clip"]
    dim = state["temporal.positions"].shape[1]
    up = [tensor for name, tensor in state.items() if name.endswith("experts.up_weight")]
    temporal = TemporalTransformer(dim, len(up), len(up[0]) if up else 1)
    model = MoTE(build_visual(clip["config"]), temporal, torch.zeros_like(state["finetune_classes"]),
                 state["logit_scale"], clip["mean"], clip["std"])
    check_weights(model, state)
    model.load_state_dict(state)
    if not keep_experts:
        model.temporal = temporal.merged()
    return model.eval()


def check_weights(model: torch.nn.Module, state: dict[str, Tensor]) -> None:
    """load_state_dict complains on many lines; this on one: ValueError with the first parameter that differs."""
    ours = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    theirs = {name: tuple(tensor.shape) for name, tensor in state.items()}
    if ours != theirs:
        name = sorted(name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name))[0]
        raise ValueError(f"a checkpoint of another architecture: {name} is {theirs.get(name, 'missing')} there, "
                         f"{ours.get(name, 'missing')} here")


def interpolate(checkpoint: dict, clip: torch.nn.Module, clip_weight: float) -> dict:
    """clip_weight x fine-tuned + (1 - clip_weight) x original, for the visual tower and the logit scale.

    The authors' test scripts use 0.99; the paper does not mention it. The head is left alone. Prints what it does.
    """
    original = {f"visual.{name}": tensor for name, tensor in clip.visual.state_dict().items()}
    original["logit_scale"] = clip.logit_scale.detach().reshape(())
    model = dict(checkpoint["model"])
    if extra := sorted(name for name in model if name.startswith("visual.") and name not in original):
        raise ValueError(f"cannot mix in another architecture: it has no {extra[0]}")
    for name, tensor in original.items():
        if name not in model or model[name].shape != tensor.shape:
            here = tuple(model[name].shape) if name in model else "missing"
            raise ValueError(f"cannot mix in another architecture: {name} is {tuple(tensor.shape)} there, {here} here")
        if tensor.is_floating_point():                           # a counter of batches cannot be mixed
            model[name] = clip_weight * model[name] + (1 - clip_weight) * tensor.cpu()
    if os.environ.get("RANK", "0") == "0":
        print(f"visual tower: {clip_weight:g} x fine-tuned + {1 - clip_weight:.4g} x original CLIP")
    return {**checkpoint, "model": model}


def load_model(path: str | Path, keep_experts: bool = False, clip_weight: float = 1.0, backbone: str = "",
               pretrained: str = "") -> MoTE:
    """A checkpoint of train.py (or a run's folder, or the authors' file) -> MoTE in eval mode, on the CPU.

    keep_experts: do not merge them. clip_weight < 1: mix the original CLIP back in, from backbone and pretrained, or
    from what the checkpoint names. Raises FileNotFoundError or ValueError, one line each.

    >>> model = load_model("tests/golden/official_tiny_checkpoint.pt")
    >>> model(torch.zeros(2, 5, 3, 32, 32), model.finetune_classes).shape     # 2 clips of 5 frames, 12 classes
    torch.Size([2, 12])
    """
    checkpoint = read_checkpoint(path)
    if clip_weight != 1:
        backbone, pretrained = (given or checkpoint["clip"][name]
                                for name, given in (("backbone", backbone), ("pretrained", pretrained)))
        if not backbone:
            raise ValueError(f"{path} does not say which CLIP it came from: clip_weight needs backbone and pretrained")
        clip, _ = load_clip(backbone, pretrained)
        checkpoint = interpolate(checkpoint, clip, clip_weight)
    return build_model(checkpoint, keep_experts)
