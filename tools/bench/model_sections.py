"""
Sections of tools/bench/speed.py on the model: training, evaluation, optimiser, growth.

Each takes the command's options and yields rows (tools/bench/pairs.py). CLIP's visual tower is the
yardstick: whoever uses CLIP pays for it anyway, and what mote adds is what it costs.
"""
import itertools
from argparse import Namespace
from collections.abc import Callable, Iterator

import torch

from mote.runtime.guard import agree, finite
from tools.bench.pairs import interleave, ratio, row
from tools.bench.steps import (
    E,
    Given,
    T,
    evaluation_step,
    floor_step,
    load,
    new_model,
    optimizer_of,
    training_step,
)

# Peak of a GPU in bf16, dense, floating-point operations per second.
PEAKS = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "4090": 165e12}

# Size that grows -> its values, and why the time should grow at most in proportion.
GROWTH = {
    "frames": ((8, 16, 32),
               "at most linear: what weights cost does not depend on T, the rest is linear"),
    "experts": ((1, 2, 4, 8),
                "at most linear: merging is, the matmuls do not depend on E"),
    "layers": ((1, 2, 4, 8),
               "at most linear: the layers are, the losses do not depend on L"),
    "classes": ((100, 1000),
                "at most linear: the cosines are, the layers do not depend on N"),
}


def visual_tower(options: Namespace) -> torch.nn.Module:
    """CLIP's visual tower, which all sections share."""
    return load(options.backbone, options.device)[0].visual


def training(options: Namespace) -> Iterator[dict]:
    """A training step beside CLIP's visual tower, and what of it is not the tower's."""
    visual = visual_tower(options)
    features = Given(options, options.clips * T)

    for precision, tail in options.precisions:
        # Three sides, each on as many frames: the whole step, the tower alone, all but the tower.
        _, step = training_step(options, visual, precision=precision)
        _, head = training_step(options, features, precision=precision)
        floor = floor_step(options, visual, precision=precision)
        whole, clip, alone = interleave([step, floor, head], options.pairs, options.settle)

        yield ratio(f"training step / CLIP's visual tower{tail}", whole, clip, "<= 1.05",
                    "the authors' step: 1.31, without activation checkpointing 1.14")
        yield ratio(f"step of the head, features given / visual tower{tail}", alone, clip)

        # What a GPU's users compare: clips in a second, and the part of its peak that is used.
        if options.device.type == "cuda":
            yield row(f"clips/s{tail}", [options.clips / seconds for seconds in whole])
        if precision == "bf16":
            yield from flops_used(options.device, f"MFU{tail}", step, whole)


def flops_used(device: torch.device, name: str, step: Callable, seconds: list[float]
               ) -> Iterator[dict]:
    """The part of a known GPU's peak that a step reaches in bf16. No row for other GPUs.

    seconds: of the step, one per pair. Its operations are counted once, forward and backward.
    """
    from torch.utils.flop_counter import FlopCounterMode

    # Names hold more than the chip, such as its memory: NVIDIA H100 80GB HBM3.
    gpu = torch.cuda.get_device_name(device)
    peaks = [peak for known, peak in PEAKS.items() if known in gpu]
    if peaks:
        with FlopCounterMode(display=False) as counter:
            step(0)
        flops = counter.get_total_flops()
        yield row(name, [flops / one / peaks[0] for one in seconds])


@torch.no_grad()
def evaluation(options: Namespace) -> Iterator[dict]:
    """An evaluation beside CLIP's visual tower; experts merged once beside merged every time.

    Experts merged once are a plain transformer (Eq. 6): it costs what one expert costs.
    """
    visual = visual_tower(options)
    features = Given(options, options.clips * T)

    for precision, tail in options.precisions:
        steps = [evaluation_step(options, visual, precision),
                 floor_step(options, visual, T, precision, backward=False),
                 evaluation_step(options, features, precision)]
        whole, floor, alone = interleave(steps, options.pairs, options.settle)
        yield ratio(f"evaluation / CLIP's visual tower{tail}", whole, floor, "<= 1.02",
                    "the authors': 1.25")
        yield ratio(f"the head, features given / visual tower{tail}", alone, floor)

    # The temporal transformer alone: in a whole evaluation the tower would hide the difference.
    experts = new_model(options, features).temporal
    merged = experts.merged()
    e_BTD = features.features.unflatten(0, (options.clips, T))

    def merge_every_time(_: int) -> None:
        experts(e_BTD, experts.uniform_weights())

    def merged_once(_: int) -> None:
        merged(e_BTD, merged.uniform_weights())

    columns = interleave([merge_every_time, merged_once], options.pairs, options.settle)
    yield ratio(f"{E} experts merged in every forward / merged once", *columns, ">= 5",
                "the head alone")


def optimiser(options: Namespace) -> Iterator[dict]:
    """AdamW fused and not, and the look for NaN, beside a training step.

    The sides take turns, so a whole step is the sum of the fused update and of a step without one.
    """
    objective, step = training_step(options, visual_tower(options))
    fused = optimizer_of(objective.model)
    groups = [{"params": group["params"]} for group in fused.param_groups]
    # The same parameters: rates of 0 keep both optimisers from changing what the other one sees.
    plain = torch.optim.AdamW(groups, lr=0.0, weight_decay=0.2, fused=False)
    parameters = list(itertools.chain.from_iterable(group["params"] for group in groups))
    gradients = [torch.randn_like(p) for p in parameters]

    def update(optimizer: torch.optim.Optimizer) -> None:
        for p, gradient in zip(parameters, gradients):
            p.grad = gradient
        optimizer.step()
        optimizer.zero_grad()                             # or the training step would add to them

    # Parameters of their own: the training step drops the gradients of the model's.
    losses = torch.zeros(3, device=options.device)
    given = [torch.nn.Parameter(torch.zeros_like(p)) for p in parameters]
    for p, gradient in zip(given, gradients):
        p.grad = gradient

    def look_for_nan(_: int) -> None:
        agree((~finite(losses, given)).float()[None], losses)

    sides = [lambda _: update(plain), lambda _: update(fused), look_for_nan, step]
    plain_s, fused_s, look_s, step_s = interleave(sides, options.pairs, options.settle)
    whole_s = [a + b for a, b in zip(fused_s, step_s)]
    yield ratio("AdamW step, fused / not fused", fused_s, plain_s, "<= 1")
    yield ratio("fused AdamW step / whole training step", fused_s, whole_s)
    yield ratio("looking for NaN in losses and gradients / whole training step", look_s, whole_s)


def growth(options: Namespace) -> Iterator[dict]:
    """The step without the tower, where one size grows.

    Where all of the time is proportional to a size, the ratio is that of the sizes: the target.
    """
    for size, (numbers, law) in GROWTH.items():
        heads = []
        for n in numbers:
            frames = n if size == "frames" else T         # given features are as many as frames
            features = Given(options, options.clips * frames)
            _, head = training_step(options, features, **{size: n})
            # All sizes are built before any is timed, so that they can take turns.
            heads.append(head)

        first, *rest = interleave(heads, options.pairs, options.settle)
        for n, column in zip(numbers[1:], rest):
            target = f"<= {n / numbers[0]:g}"
            yield ratio(f"step of the head: {n} {size} / {numbers[0]}", column, first, target, law)
