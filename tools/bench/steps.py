"""
What tools/bench/speed.py takes the time of, the memory of, or counts.

    the step      train.Objective, forward and backward, from uint8 frames; the optimiser left out
    the floor     open_clip's visual tower alone, on the same frames normalised; backward of a mean square
    the head      the step again, with frame features given                                                  (`Given`)

Weights are random. Memory and ranks need processes of their own: `python tools/bench/steps.py JSON`.

Dimension key   B clips   T frames   D embedding   N classes   E experts   L layers
"""
import contextlib
import functools
import io
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from argparse import Namespace
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))
import train  # noqa: E402
from eval import protocol  # noqa: E402
from mote import toyworld  # noqa: E402
from mote.clip_backbone import TEMPLATES, build_visual, clip_config, load_clip  # noqa: E402
from mote.model import MoTE  # noqa: E402
from mote.modulation import GAMMA, NEIGHBOURS  # noqa: E402
from mote.runtime.precision import autocast  # noqa: E402
from mote.runtime.ranks import Ranks, find_ranks, start  # noqa: E402
from mote.scoring.evaluate import evaluate, view_cosines  # noqa: E402
from mote.temporal_experts import TemporalTransformer  # noqa: E402
from tools.bench.pairs import interleave  # noqa: E402

L, E, T, N = 4, 4, 8, 400                                        # the paper's ViT-B/16 on Kinetics-400


def settle_for(device: torch.device) -> Callable:
    return functools.partial(torch.cuda.synchronize, device) if device.type == "cuda" else lambda: None


# --- 1. steps. o: the options of tools/bench/speed.py -----------------------------------------------------------------------
class Given(nn.Module):
    """A visual tower that takes no time: frame features that are there already, with a gradient. Frames: 1 pixel."""
    image_size = 1

    def __init__(self, o: Namespace, frames: int):
        super().__init__()
        self.features = nn.Parameter(torch.randn(frames, clip_config(o.backbone)["embed_dim"]))

    def forward(self, _: Tensor) -> Tensor:
        return self.features


@functools.cache
def load(backbone: str, device: torch.device):
    clip, tokenizer = load_clip(backbone, "")
    return clip.to(device), tokenizer


def new_model(o: Namespace, visual: nn.Module, layers: int = L, experts: int = E, classes: int = N) -> MoTE:
    torch.manual_seed(0)
    dim, half = clip_config(o.backbone)["embed_dim"], (0.5, 0.5, 0.5)
    names_ND = F.normalize(torch.randn(classes, dim), dim=-1)
    return MoTE(visual, TemporalTransformer(dim, layers, experts), names_ND, torch.tensor(4.6), half, half).to(o.device)


def frames_for(o: Namespace, model: MoTE, *shape: int) -> Tensor:
    return torch.randint(256, (*shape, 3, model.image_size, model.image_size), dtype=torch.uint8, device=o.device)


def training_step(o: Namespace, visual: nn.Module, frames: int = T, precision: str = "fp32", **sizes):
    """train.Objective, and a function that runs its forward and backward with newly drawn experts."""
    model = new_model(o, visual, **sizes).train()
    config = train.Config(layers=len(model.temporal.blocks), experts=model.temporal.num_experts)
    uint8, labels = frames_for(o, model, o.clips, frames), torch.zeros(o.clips, dtype=torch.long, device=o.device)
    objective = train.Objective(model, True)

    def step(i: int, objective: nn.Module = objective) -> None:
        with autocast(o.device, precision):
            losses = objective(uint8, labels, *(weights.to(o.device) for weights in train.draws(config, i, 0)))
        train.L_ALL(*losses).backward()
        objective.zero_grad()
    return objective, step


def floor_step(o: Namespace, visual: nn.Module, frames: int = T, precision: str = "fp32", backward: bool = True):
    """A function that runs the visual tower alone, forwards, or the backward of a mean square too."""
    model = new_model(o, visual).train(backward)
    normalised = model.normalise(frames_for(o, model, o.clips * frames))

    def step(_: int) -> None:
        with torch.set_grad_enabled(backward), autocast(o.device, precision):
            features = visual(normalised)
        if backward:
            features.float().square().mean().backward()
            visual.zero_grad()
    return step


def evaluation_step(o: Namespace, visual: nn.Module, precision: str) -> Callable:
    """A function that runs mote.scoring.evaluate.view_cosines, experts merged, one view per video."""
    model = new_model(o, visual).eval()
    model.temporal, frames = model.temporal.merged(), frames_for(o, model, o.clips * T)
    places_BVT = torch.arange(o.clips * T, device=o.device).view(o.clips, 1, T)

    def step(_: int) -> None:
        with torch.no_grad(), autocast(o.device, precision):
            view_cosines(model, frames, places_BVT, model.finetune_classes, NEIGHBOURS, GAMMA)
    return step


# --- 2. counts and shares ---------------------------------------------------------------------------------------------
def count_views(length: int, clips: int, crops: int) -> Counter:
    """Frames "decoded" and "encoded" by `evaluate` for a video of so many frames. On toyworld's CLIP: counts only."""
    from torchcodec.decoders import VideoDecoder
    from torchcodec.encoders import VideoEncoder
    o, counts, get = Namespace(backbone="toyworld", device=torch.device("cpu")), Counter(), VideoDecoder.get_frames_at
    visual = load(o.backbone, o.device)[0].visual
    model = new_model(o, visual, layers=1, experts=1, classes=5)

    def decoded(self, indices, *rest, **options):
        counts["decoded"] += len(indices)
        return get(self, indices, *rest, **options)
    hook = visual.register_forward_pre_hook(lambda _, inputs: counts.update(encoded=len(inputs[0])))
    with tempfile.TemporaryDirectory() as folder, patch.object(VideoDecoder, "get_frames_at", decoded):
        square, video = toyworld.make_clip("star", "red", "moving left", (0,), frames=length), f"{folder}/wide.mp4"
        VideoEncoder(torch.cat([square, square.flip(-1)], -1), frame_rate=12).to_file(video)     # three crops differ
        plan = protocol("views", [(video, 0)], list("abcde"), "", TEMPLATES, frames=T, clips=clips, crops=crops,
                        resize=model.image_size)
        evaluate(model, [(video, 0)], model.finetune_classes, Ranks(0, 1, o.device), plan)
    hook.remove()
    return counts


def first_step(o: Namespace, folder: str, i: int) -> None:
    """train.py's toyworld job, in a process of its own, until it has made a step."""
    process = subprocess.Popen(
        [sys.executable, "train.py", "--log-every", "1", "--workers", "0", "--device", str(o.device),
         "--threads", str(o.threads), "--out", f"{folder}/{i}"], cwd=ROOT, text=True, stdout=subprocess.PIPE,
        env={**os.environ, "MOTE_DATA": f"{folder}/data", "XDG_CACHE_HOME": f"{folder}/cache"})
    if not any(line.startswith("step 1/") for line in process.stdout):
        raise RuntimeError("train.py ended before its first step")
    process.kill()
    process.communicate()


def demo_seconds(arguments: list[str]) -> Counter:
    """Where train.py's toyworld job, in this process, spends its time: its functions timed, the rest as "all else"."""
    spent, last = Counter(), [0.0]

    def timed(function: Callable, part: Callable | str) -> Callable:
        @functools.wraps(function)
        def run(*args, **options):
            begin = time.perf_counter()
            result = function(*args, **options)
            last[0] = time.perf_counter()
            spent[part if isinstance(part, str) else part(*args)] += last[0] - begin
            return result
        return run

    def stepped(*_) -> None:
        spent["training steps"] += time.perf_counter() - last[0]                 # since the batch came
    places = ((toyworld, "ready", "generating videos"), (train, "class_embeddings", "class embeddings"),
              (train, "evaluate", lambda model, *_: "evaluation" if model.temporal.blocks else "untrained evaluation"),
              (train.Meter, "wait_for", "waiting for data"), (train, "save", "saving"))
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        for owner, name, part in places:
            stack.enter_context(patch.object(owner, name, timed(getattr(owner, name), part)))
        stack.enter_context(patch.object(train, "CACHE", Path(folder) / "cache"))
        stack.enter_context(patch.dict(os.environ, {"MOTE_DATA": f"{folder}/data"}))
        stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
        stack.callback(register_optimizer_step_post_hook(stepped).remove)
        begin = time.perf_counter()
        train.main(["--out", f"{folder}/run", *arguments])
        total = time.perf_counter() - begin
    return spent + Counter({"all else": total - spent.total()})


# --- 3. what runs in processes of its own -----------------------------------------------------------------------------
def run_python(*arguments: str, **environment: str) -> str:
    """Run it in the project's folder. -> what it printed."""
    done = subprocess.run([sys.executable, *arguments], cwd=ROOT, env={**os.environ, **environment},
                          capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(arguments)}:\n{done.stderr}")
    return done.stdout


def worker(o: Namespace, what: str, **case) -> list[str]:
    """A command line: this file, running a worker with the options of `o` and of `case`."""
    about = {"backbone": o.backbone, "device": str(o.device), "threads": o.threads, "clips": o.clips, "pairs": o.pairs}
    return [str(Path(__file__).resolve()), json.dumps({**about, "what": what, **case})]


def peak_memory(device: torch.device) -> int:
    """Bytes. On Linux VmHWM: ru_maxrss of a child starts at what its parent had."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    with contextlib.suppress(OSError):
        return 1024 * int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def memory_worker(o: Namespace) -> int:
    """Bytes that two steps, or two of the floor, take at their peak over what the imports took."""
    o.device = find_ranks(o.device, o.threads).device
    config = clip_config(o.backbone)                             # imports open_clip
    before = peak_memory(o.device)
    visual = build_visual(config).to(o.device)
    visual.set_grad_checkpointing(o.checkpoint)
    step = floor_step(o, visual, o.frames) if o.floor else training_step(o, visual, o.frames)[1]
    step(0)
    step(1)                                                      # weights, gradients and activations all there
    return peak_memory(o.device) - before


def ranks_worker(o: Namespace) -> list[list[float]] | None:
    """Seconds of a step on all ranks, of one without communication, of one on rank 0 while the others wait."""
    ranks = find_ranks(o.device.partition(":")[0], threads=1)
    o.device, synchronise = ranks.device, settle_for(ranks.device)
    start(ranks)
    objective, step = training_step(o, load(o.backbone, o.device)[0].visual)
    ddp = nn.parallel.DistributedDataParallel(objective)

    def silent(i: int) -> None:
        with ddp.no_sync():
            step(i, ddp)
    columns = interleave([lambda i: step(i, ddp), silent, step if ranks.first else lambda _: None], o.pairs,
                         lambda: (synchronise(), dist.barrier()))
    dist.destroy_process_group()
    return columns if ranks.first else None


if __name__ == "__main__":
    options = Namespace(**json.loads(sys.argv[1]))
    answer = {"memory": memory_worker, "ranks": ranks_worker}[options.what](options)
    if answer is not None:
        print(json.dumps(answer))
