"""
What tools/bench/speed.py takes the time and the memory of.

    the step     train.Objective, forward and backward, from uint8 frames; without the optimiser
    the floor    open_clip's visual tower alone, on the same frames normalised; backward of a mean
                 square
    the head     the step again, with frame features given: all but the visual tower    (`Given`)

Weights are random. `options` are those of tools/bench/speed.py.

Dimension key   B clips   T frames   D embedding   N classes   E experts   L layers
"""
import contextlib
import functools
import resource
import sys
from argparse import Namespace
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import train
from mote import toyworld
from mote.clip_backbone import TEMPLATES, Pixels, clip_config, load_clip
from mote.datasets.dataset import Dataset
from mote.model import MoTE
from mote.modulation import GAMMA, NEIGHBOURS
from mote.runtime import prompts, run_folder
from mote.runtime.precision import autocast
from mote.runtime.ranks import Ranks
from mote.scoring import benchmark
from mote.scoring.evaluate import evaluate, view_cosines
from mote.scoring.protocols import protocol_of
from mote.temporal_experts import TemporalTransformer

# The paper's ViT-B/16 on Kinetics-400.
L = 4
E = 4
T = 8
N = 400


# --- 1. what is measured: all that the benchmark takes from train.py, eval.py and mote.scoring ----
def objective_of(model: MoTE) -> nn.Module:
    """What a training step runs: both passes, and the three losses."""
    return train.Objective(model, True)


def backward_of(objective: nn.Module, model: MoTE, frames: Tensor, labels_B: Tensor, step: int,
                precision: str) -> None:
    """Forward and backward of a step, with experts and temperatures drawn for its number.

    objective: of the model; or what wraps it, such as a DistributedDataParallel.
    """
    config = train.Config(layers=len(model.temporal.blocks), experts=model.temporal.num_experts,
                          precision=precision)
    batch = {"frames": frames, "label": labels_B}
    train.micro_batch(objective, batch, config, step, 0, frames.device)


def optimizer_of(model: MoTE) -> torch.optim.AdamW:
    """The fused AdamW of a training."""
    return train.build_optimizer(model, train.Config())


def cosines_of(model: MoTE, frames: Tensor, places_BVT: Tensor) -> None:
    """What an evaluation computes of decoded frames."""
    view_cosines(model, frames, places_BVT, model.finetune_classes, NEIGHBOURS, GAMMA)


def evaluate_one(model: MoTE, video: str, clips: int, crops: int) -> None:
    """An evaluation, on the CPU, of a list of one video with clips x crops views."""
    videos = [(video, 0)]
    data = Dataset("views", videos, list("abcde"), split="")
    plan = protocol_of(data, TEMPLATES, frames=T, clips=clips, crops=crops,
                       resize=model.image_size, **asdict(model.pixels))
    ranks = Ranks(0, 1, torch.device("cpu"))
    evaluate(model, videos, model.finetune_classes, ranks, plan)


def run_train(arguments: list[str]) -> None:
    """A whole run of train.py, in this process."""
    train.main(arguments)


def parts_of_a_run() -> list[tuple]:
    """(owner, name of a function of it, part): the functions that a run of train.py spends its time
    in, but for the training steps. A part may be a function of the call's arguments.
    """
    def which_evaluation(model: MoTE, *_) -> str:
        return "evaluation" if model.temporal.blocks else "untrained evaluation"

    return [(toyworld, "ready", "generating videos"),
            (prompts, "class_embeddings", "class embeddings"),
            (benchmark, "evaluate", which_evaluation),
            (train.Meter, "wait_for", "waiting for data"),
            (run_folder, "save", "saving")]


def owner_of_the_cache():
    """The module whose CACHE is the folder in which a run of train.py keeps class embeddings."""
    return prompts


# --- 2. models and frames -------------------------------------------------------------------------
class Given(nn.Module):
    """A visual tower that takes no time: its frame features are there, with a gradient.

    Frames are of one pixel: making and normalising them takes no time either.
    """
    image_size = 1

    def __init__(self, options: Namespace, frames: int):
        super().__init__()
        dim = clip_config(options.backbone)["embed_dim"]
        self.features = nn.Parameter(torch.randn(frames, dim))

    def forward(self, _: Tensor) -> Tensor:
        """(B T, 3, 1, 1), not looked at -> (B T, D)."""
        return self.features


@functools.cache
def load(backbone: str, device: torch.device):
    """CLIP with random weights, and its tokenizer. Making one is slow, so all sections share it."""
    clip, tokenizer = load_clip(backbone, "")
    return clip.to(device), tokenizer


def new_model(options: Namespace, visual: nn.Module, layers: int = L, experts: int = E,
              classes: int = N) -> MoTE:
    """A model of these sizes around a visual tower; the same weights at every call."""
    torch.manual_seed(0)
    dim = clip_config(options.backbone)["embed_dim"]
    classes_ND = F.normalize(torch.randn(classes, dim), dim=-1)
    temporal = TemporalTransformer(dim, layers, experts)
    # Mean and std of the pixels, and CLIP's logit scale: none of them changes the time.
    model = MoTE(visual, temporal, classes_ND, torch.tensor(4.6), Pixels())
    return model.to(options.device)


def frames_for(options: Namespace, model: MoTE, *shape: int) -> Tensor:
    """Random frames, uint8 (*shape, 3, h, w) of the model's image size."""
    size = model.image_size
    return torch.randint(256, (*shape, 3, size, size), dtype=torch.uint8, device=options.device)


# --- 3. steps -------------------------------------------------------------------------------------
def training_step(options: Namespace, visual: nn.Module, frames: int = T, precision: str = "fp32",
                  **sizes: int) -> tuple[nn.Module, Callable]:
    """The objective, and a function that runs its forward and backward for a step's number.

    The function takes what wraps the objective as a second argument. sizes: of `new_model`.
    """
    model = new_model(options, visual, **sizes).train()
    uint8 = frames_for(options, model, options.clips, frames)
    labels_B = torch.zeros(options.clips, dtype=torch.long, device=options.device)
    objective = objective_of(model)

    def step(i: int, objective: nn.Module = objective) -> None:
        backward_of(objective, model, uint8, labels_B, i, precision)
        objective.zero_grad()

    return objective, step


def floor_step(options: Namespace, visual: nn.Module, frames: int = T, precision: str = "fp32",
               backward: bool = True) -> Callable:
    """A function that runs the visual tower alone: forward, and backward if asked to."""
    model = new_model(options, visual).train(backward)
    normalised = model.normalise(frames_for(options, model, options.clips * frames))

    def step(_: int) -> None:
        with torch.set_grad_enabled(backward), autocast(options.device, precision):
            features = visual(normalised)
        if backward:
            # Any scalar of all features would do; a sum alone would have a constant gradient.
            features.float().square().mean().backward()
            visual.zero_grad()

    return step


def evaluation_step(options: Namespace, visual: nn.Module, precision: str) -> Callable:
    """A function that computes the cosines of an evaluation: experts merged, one view per video."""
    model = new_model(options, visual).eval()
    model.temporal = model.temporal.merged()
    frames = frames_for(options, model, options.clips * T)
    places_BVT = torch.arange(options.clips * T, device=options.device).view(options.clips, 1, T)

    def step(_: int) -> None:
        with torch.no_grad(), autocast(options.device, precision):
            cosines_of(model, frames, places_BVT)

    return step


# --- 4. clocks and memory -------------------------------------------------------------------------
def settle_for(device: torch.device) -> Callable:
    """A function that returns when the device is idle: launching a kernel does not wait for it."""
    if device.type == "cuda":
        return functools.partial(torch.cuda.synchronize, device)
    return lambda: None


def peak_memory(device: torch.device) -> int:
    """The most memory that this process has had so far, in bytes; on a GPU, that of its tensors.

    On Linux it is VmHWM, because ru_maxrss of a child starts at what its parent had.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)

    with contextlib.suppress(OSError):
        status = Path("/proc/self/status").read_text()
        return 1024 * int(status.partition("VmHWM:")[2].split()[0])

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else 1024 * most
