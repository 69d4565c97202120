"""
Checkpoints: how they are written, read, checked and turned into a model.

A checkpoint is a plain dict of tensors and builtins:

    model       the state dict of MoTE, the experts of each layer stacked (E, ...)
    clip        the CLIP it came from: backbone, pretrained, config, and mean and std of pixels
    classes, step, frames, optimizer, ...       what train.py needs to go on

What this protects from:

    a kill while writing      a file is written whole or not at all (`save_checkpoint`)
    code in a file            never run (`weights_only=True`)
    damage, another format    one line that names the file, and what stands in its place

The sizes of the temporal transformer are read off the shapes of its weights. authors_format.py
translates the authors' released format; run_folder.py decides which checkpoints a run keeps and
which one it goes on from. Not part of the paper.
"""
import hashlib
import os
import shutil
import zipfile
from pathlib import Path

import torch
from torch import Tensor

from ..clip_backbone import Pixels, build_visual, has_own_weights, is_torchscript, load_clip
from ..files.weights import begin_of, stands_in
from ..model import MoTE
from ..temporal_experts import TemporalTransformer
from .authors_format import from_authors, is_authors


# --- writing --------------------------------------------------------------------------------------
def save_checkpoint(path: str | Path, checkpoint: dict) -> None:
    """Write to a temporary file beside path, sync it, then rename it.

    A kill at any moment leaves the old file or the new one, both whole. Raises OSError, one line
    that names path, where the disk is full or the folder cannot be written to.
    """
    path = Path(path)
    part = path.with_name(f".{path.name}.{os.getpid()}")

    try:
        with open(part, "wb") as file:
            torch.save(checkpoint, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except RuntimeError as error:      # of torch's zip writer, where the disk is full
        raise OSError(f"cannot write {path}: {str(error).splitlines()[0]}") from None
    except OSError as error:
        raise OSError(f"cannot write {path}: {error.strerror or error}") from None
    finally:
        part.unlink(missing_ok=True)

    sync_folder(path.parent)


def name_again(file: Path, name: Path) -> None:
    """Give a file a second name, in place of what has it. A kill leaves the old one or the new.

    A hard link: it costs no space, and the file stays when its first name is removed.
    """
    if name.exists() and name.samefile(file):
        return
    link = name.with_name(f".{name.name}.{os.getpid()}")
    try:
        os.link(file, link)
    except OSError:                                              # a file system without links
        shutil.copyfile(file, link)
    os.replace(link, name)


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk: a rename is lost without this."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


# --- reading --------------------------------------------------------------------------------------
def read_file(path: Path):
    """What torch saved at path, whatever it is. No code from the file is run.

    Raises FileNotFoundError or ValueError, one line that names path.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint at {path}")
    if is_torchscript(path):
        raise ValueError(f"cannot read {path}: a TorchScript archive, not a checkpoint")
    other = stands_in(path)
    if other:
        raise ValueError(f"cannot read {path}: {other}")

    try:
        check_checksums(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:         # torch raises its own, pickle's, zip's and the disk's errors
        raise ValueError(f"cannot read {path}: {reason_of(error, path)}") from None


def check_checksums(path: Path) -> None:
    """Raise ValueError where a part of a zip file has changed: torch.load does not look."""
    if not zipfile.is_zipfile(path):   # torch's older format has no checksums
        return
    with zipfile.ZipFile(path) as archive:
        damaged = archive.testzip()
    if damaged:
        raise ValueError(f"{damaged} is not what was written")


def reason_of(error: Exception, path: Path) -> str:
    """Why torch.load failed: the file needs code, or it is damaged or something else.

    torch says "Unsupported" for both: of a file that is no pickle at all, it takes the first
    bytes for unsupported instructions. So look at what the file begins with.
    """
    with open(path, "rb") as file:
        first = file.read(1)
    pickled = first in (b"P", b"\x80")                           # a zip, or torch's older format

    text = str(error)
    if pickled and "weights_only" in text and "Unsupported" in text:
        return "it needs code to unpickle, which is never run"
    begin = begin_of(path)
    if begin:                                                    # such as "Entry not found"
        return f"damaged, or not a checkpoint: a text, it begins with {begin[:40]!r}"
    return "damaged, or not a checkpoint"


def read_checkpoint(path: str | Path) -> dict:
    """A checkpoint in our format, converted if it is the authors'. A run's folder: its last.pt.

    Raises FileNotFoundError or ValueError, one line each, for a file that is missing, truncated,
    in need of code or in neither format.
    """
    path = Path(path)
    if path.is_dir():
        path = path / "last.pt"
    return in_our_format(read_file(path), path)


def in_our_format(checkpoint, path: Path) -> dict:
    """What `read_file` gave -> a checkpoint in our format.

    Raises ValueError: naming path where it is in neither format, and as `from_authors` does.
    """
    try:
        if is_authors(checkpoint):
            checkpoint = from_authors(checkpoint)
        whole = is_whole(checkpoint)
    except (KeyError, TypeError, AttributeError, IndexError):    # something else that torch saved
        whole = False

    if not whole:
        raise ValueError(f"{path} is neither a checkpoint of train.py nor in the authors' format")
    return checkpoint


def is_whole(checkpoint: dict) -> bool:
    """Has it all that `build_model` reads, in the right types? Raises KeyError and its like."""
    weights = checkpoint["model"]
    needed = [weights["temporal.positions"], weights["finetune_classes"]]
    if not all(isinstance(tensor, Tensor) for tensor in [*weights.values(), *needed]):
        return False
    if not isinstance(checkpoint["step"], int):
        return False
    return {"config", "mean", "std"} <= checkpoint["clip"].keys()


def model_hash(checkpoint: str, model: MoTE) -> str:
    """Eight hexadecimal digits that say which weights were evaluated.

    Of a checkpoint, or a run's folder: its file's sha256, as sha256sum prints it. Without one
    ("", CLIP alone): the sha256 of the visual tower's weights.
    """
    digest = hashlib.sha256()

    if checkpoint:
        path = Path(checkpoint)
        if path.is_dir():
            path = path / "last.pt"
        with open(path, "rb") as file:
            while part := file.read(1 << 24):
                digest.update(part)
    else:
        for name, tensor in sorted(model.visual.state_dict().items()):
            numbers = tensor.cpu().float().contiguous().numpy()
            digest.update(name.encode() + numbers.tobytes())

    return digest.hexdigest()[:8]


# --- from a checkpoint to a model -----------------------------------------------------------------
def load_model(path: str | Path, keep_experts: bool = False, clip_weight: float = 1.0,
               backbone: str = "", pretrained: str = "") -> MoTE:
    """A checkpoint of train.py, a run's folder or the authors' file -> MoTE, on the CPU.

    The model is in eval mode, its experts merged (Eq. 6) unless keep_experts. clip_weight < 1
    mixes the original CLIP back in: the one that backbone and pretrained name, or else the
    checkpoint. Raises FileNotFoundError or ValueError, one line each.

    >>> model = load_model("tests/golden/official_tiny_checkpoint.pt")
    >>> clips = torch.zeros(2, 5, 3, 32, 32)                     # 2 clips of 5 frames
    >>> model(clips, model.finetune_classes).shape               # 12 classes
    torch.Size([2, 12])
    """
    checkpoint = read_checkpoint(path)

    if clip_weight != 1:
        tower = original_clip(checkpoint, backbone, pretrained)
        if not tower["backbone"]:
            raise ValueError(f"{path} does not say which CLIP it came from: "
                             "clip_weight needs backbone and pretrained")
        clip, _ = load_clip(**tower)
        checkpoint = interpolate(checkpoint, clip, clip_weight)

    return build_model(checkpoint, keep_experts)


def original_clip(checkpoint: dict | None, backbone: str = "", pretrained: str = "",
                  as_tag: str = "", tokenizer: str = "") -> dict[str, str]:
    """What `load_clip` takes, of the CLIP that a checkpoint came from, or of another that is given.

    What is not given is the checkpoint's, unless what is given leaves nothing to say: a folder has
    weights of its own, and a tag its pixels. "" where neither says anything.
    """
    given = {"backbone": backbone, "pretrained": pretrained, "as_tag": as_tag,
             "tokenizer": tokenizer}
    if backbone and has_own_weights(backbone):
        return given
    about = checkpoint["clip"] if checkpoint else {}
    if backbone and not pretrained and has_own_weights(about.get("backbone", "")):
        raise ValueError(f"--backbone {backbone}: give --pretrained too, its weights; the "
                         f"checkpoint's lie in {about['backbone']}")
    tower = {name: value or about.get(name, "") for name, value in given.items()}
    if pretrained and not Path(pretrained).is_file():
        tower["as_tag"] = as_tag
    return tower


def build_model(checkpoint: dict, keep_experts: bool = False) -> MoTE:
    """The model of a checkpoint, in eval mode.

    Its experts are merged into one (Eq. 6) unless keep_experts. Raises ValueError where the
    weights do not fit the architecture that the checkpoint names.
    """
    state = checkpoint["model"]
    clip = checkpoint["clip"]

    # The sizes stand in the shapes: positions (77, D), and one stack of E experts for each layer.
    dim = state["temporal.positions"].shape[1]
    stacks = [tensor for name, tensor in state.items() if name.endswith("experts.up_weight")]
    num_experts = len(stacks[0]) if stacks else 1
    temporal = TemporalTransformer(dim, len(stacks), num_experts)

    model = MoTE(build_visual(clip["config"]), temporal,
                 torch.zeros_like(state["finetune_classes"]), state["logit_scale"],
                 pixels_of(clip))
    check_weights(model, state)
    model.load_state_dict(state)

    if not keep_experts:
        model.temporal = temporal.merged()                       # Eq. 6
    return model.eval()


def pixels_of(clip: dict) -> Pixels:
    """How a checkpoint's frames are made. clip: its entry; an older one names no way to resize."""
    return Pixels(tuple(clip["mean"]), tuple(clip["std"]),
                  clip.get("resize_mode", Pixels.resize_mode),
                  clip.get("interpolation", Pixels.interpolation))


def check_weights(model: torch.nn.Module, state: dict[str, Tensor]) -> None:
    """Raise ValueError, one line, with the first parameter whose name or shape differs.

    load_state_dict would say the same on many lines.
    """
    here = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    there = {name: tuple(tensor.shape) for name, tensor in state.items()}

    for name in sorted(here.keys() | there.keys()):
        if here.get(name) != there.get(name):
            raise ValueError(f"a checkpoint of another architecture: "
                             f"{name} is {there.get(name, 'missing')} there, "
                             f"{here.get(name, 'missing')} here")


# --- mixing the original CLIP back in -------------------------------------------------------------
def interpolate(checkpoint: dict, clip: torch.nn.Module, clip_weight: float) -> dict:
    """clip_weight x fine-tuned + (1 - clip_weight) x original -> a new checkpoint.

    For the visual tower and the logit scale; the temporal transformer is left alone. The authors'
    test scripts use 0.99; the paper does not mention it. Rank 0 prints what is done. Raises
    ValueError, one line, where clip has another architecture.
    """
    check_same_statistics(pixels_of(checkpoint["clip"]), clip.pixels)
    fine_tuned = checkpoint["model"]
    original = {f"visual.{name}": tensor for name, tensor in clip.visual.state_dict().items()}
    original["logit_scale"] = clip.logit_scale.detach().reshape(())
    check_same_tower(fine_tuned, original)

    mixed = dict(fine_tuned)
    for name, tensor in original.items():
        if tensor.is_floating_point():                           # not a batch norm's counter
            mixed[name] = clip_weight * fine_tuned[name] + (1 - clip_weight) * tensor.cpu()

    if os.environ.get("RANK", "0") == "0":
        print(f"visual tower: {clip_weight:g} x fine-tuned + {1 - clip_weight:.4g} x original CLIP")
    return {**checkpoint, "model": mixed}


def check_same_statistics(fine_tuned: Pixels, original: Pixels) -> None:
    """Raise ValueError for two towers whose frames have another mean or std: no mix fits both."""
    if (fine_tuned.mean, fine_tuned.std) != (original.mean, original.std):
        raise ValueError("cannot mix in a CLIP that was trained on other pixels: the checkpoint's "
                         f"have {fine_tuned}, this one's {original}")


def check_same_tower(fine_tuned: dict[str, Tensor], original: dict[str, Tensor]) -> None:
    """Raise ValueError with the first weight that only one has or whose shape differs."""
    extra = [name for name in fine_tuned if name.startswith("visual.") and name not in original]
    if extra:
        raise ValueError(f"cannot mix in another architecture: it has no {min(extra)}")

    for name, tensor in original.items():
        here: str | tuple = "missing"
        if name in fine_tuned:
            here = tuple(fine_tuned[name].shape)
        if here != tuple(tensor.shape):
            raise ValueError(f"cannot mix in another architecture: "
                             f"{name} is {tuple(tensor.shape)} there, {here} here")
