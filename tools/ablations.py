"""
The paper's ablations of structure: train.py or eval.py with a function or class replaced.

    python tools/ablations.py --list                          # the variants, what each replaces
    python tools/ablations.py VARIANT train.py --data k400 ...
    torchrun --nproc-per-node 8 tools/ablations.py VARIANT train.py --data k400 ...
    python tools/ablations.py VARIANT eval.py --checkpoint RUN --data ucf101 ...

What is a number (experts, layers, routing, loss weights, beta, gamma, neighbours) is an option of
the scripts themselves. The variant's name is printed first, and kept in the config of a checkpoint
and in every result (metrics.jsonl, --json).

Dimension key   B clips (views)   V views per video   T frames   D embedding   N test classes
                M fine-tuning classes   E experts   L layers
"""
import argparse
import importlib
import math
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import make_dataclass, replace
from pathlib import Path
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1]))
from mote.merging import (  # noqa: E402
    classification_loss,
    draw_temperatures,
    merge,
    mse_loss,
    temperatures,
)
from mote.model import MoTE, cosine, video_embedding  # noqa: E402
from mote.runtime.checkpoints import build_model  # noqa: E402
from mote.runtime.errors import one_line_errors  # noqa: E402
from mote.runtime.options import option, plain_errors  # noqa: E402
from mote.runtime.run_folder import check_resumed  # noqa: E402
from mote.scoring.evaluate import evaluate, mean_over_views, view_cosines  # noqa: E402
from mote.temporal_experts import (  # noqa: E402
    TemporalExperts,
    TemporalTransformer,
    draw_experts,
    quick_gelu,
)
from train import Config, Objective, draw_weights  # noqa: E402

reset_parameters = TemporalTransformer.reset_parameters
uniform_weights = TemporalTransformer.uniform_weights


# --- Table 2a: initialisation and data of the experts --------------------------------------------
@torch.no_grad()
def same_init(temporal: TemporalTransformer) -> None:
    """Every expert of a layer starts as the first one (biases are 0 anyway).

    The draws are those of a usual start: all else in the model has the same weights as without.
    """
    reset_parameters(temporal)
    for block in temporal.blocks:
        for weight in (block.experts.up_weight, block.experts.down_weight):
            weight[1:] = weight[0]


class Passes(Objective):
    """`train.Objective`, two of its choices as methods: what L_TE runs through, what L_WMR is."""

    def routed(self, expert_LE: Tensor) -> list[Tensor]:
        """The mixing weights of each pass that L_TE is the mean of."""
        return [expert_LE]

    def merged_loss(self, z_BD: Tensor, drawn_BD: Tensor, labels_B: Tensor,
                    scale: Tensor) -> Tensor:
        """L_WMR of the merged pass's video embedding. drawn: that of the first L_TE pass."""
        cosine_BM = cosine(z_BD, self.model.finetune_classes)
        return classification_loss(cosine_BM, labels_B, scale)

    def forward(self, frames: Tensor, labels_B: Tensor, expert_LE: Tensor,
                merging_LE: Tensor) -> dict[str, Tensor]:
        """As `Objective.forward`: uint8 frames, labels, mixing weights -> {name: loss}."""
        model = self.model
        scale = model.logit_scale.exp()
        losses = {}
        e_BTD = model.frame_features(model.normalise(frames))

        # First pass, or several: each is a whole forward of the temporal transformer.
        drawn, each = [], []
        for weights_LE in self.routed(expert_LE):
            t_BTD = model.temporal_features(e_BTD, weights_LE)
            cosine_BM = model.similarity(e_BTD, t_BTD, model.finetune_classes)
            each.append(classification_loss(cosine_BM, labels_B, scale))
            drawn.append(t_BTD)
        losses["L_TE"] = sum(each) / len(each)
        if not self.second_pass:
            return losses

        # Second pass. The drawn embedding is a target, not a thing to train: hence detach.
        t_merged_BTD = model.temporal_features(e_BTD, merging_LE)
        z_BD = video_embedding(e_BTD, t_merged_BTD)
        drawn_BD = video_embedding(e_BTD, drawn[0]).detach()
        losses["L_WMR"] = self.merged_loss(z_BD, drawn_BD, labels_B, scale)
        losses["L_MSE"] = mse_loss(e_BTD + t_merged_BTD, e_BTD)
        return losses


class AllData(Passes):
    """No routing: L_TE is the mean over i of the loss with expert i in every layer."""

    def routed(self, expert_LE: Tensor) -> list[Tensor]:
        """E passes in place of one: the drawn experts (L, E) only lend their shape and device."""
        one_hot = torch.eye(expert_LE.shape[1], device=expert_LE.device)
        return [one_E.expand_as(expert_LE) for one_E in one_hot]


# --- Table 2c: how the experts are used at test time ---------------------------------------------
def random_weights(temporal: TemporalTransformer) -> Tensor:
    """Experts drawn as in training (Eq. 5), per layer and batch of views.

    The generator is seeded with the rank, anew for each model.
    """
    if not hasattr(temporal, "generator"):
        rank = int(os.environ.get("RANK", "0"))
        temporal.generator = torch.Generator().manual_seed(rank)
    expert_LE = draw_experts(len(temporal.blocks), temporal.num_experts, temporal.generator)
    return expert_LE.to(temporal.positions.device)


def averaged_logits(model: MoTE, frames: Tensor, places_BVT: Tensor, classes_ND: Tensor, k: int,
                    gamma: float) -> tuple[Tensor, Tensor]:
    """`view_cosines` of an ensemble: the mean over i of the cosines with expert i in all layers."""
    B, V, _ = places_BVT.shape
    e_BTD = model.frame_features(model.normalise(frames)[None])[0][places_BVT.flatten(0, 1)]
    # rho depends on frame features and classes alone, so all experts share it.
    rho_B = model.modulation(e_BTD, classes_ND, k, gamma)
    plain, modulated = [], []
    for one_E in torch.eye(model.temporal.num_experts, device=e_BTD.device):
        t_BTD = model.temporal_features(e_BTD, one_E.expand(len(model.temporal.blocks), -1))
        plain.append(model.similarity(e_BTD, t_BTD, classes_ND))
        modulated.append(model.similarity(e_BTD, t_BTD, classes_ND, rho_B))
    plain_BN = sum(plain) / len(plain)
    modulated_BN = sum(modulated) / len(modulated)
    return mean_over_views(plain_BN, B, V), mean_over_views(modulated_BN, B, V)


# --- Tables 2e, 7f: the temperatures of the merged pass ------------------------------------------
def tau_point(num_layers: int, generator: torch.Generator, beta: float) -> list[float]:
    """The plain average alone."""
    return [math.inf] * num_layers


def tau_normal(num_layers: int, generator: torch.Generator, beta: float) -> list[float]:
    """tau ~ N(0, 1), whatever beta."""
    return away_from_zero(torch.randn(num_layers, generator=generator))


def tau_uniform(num_layers: int, generator: torch.Generator, beta: float) -> list[float]:
    """tau ~ U(-16 beta, 16 beta), the span of the discrete set: -9.6 to 9.6.

    The paper does not state the range.
    """
    largest = max(temperatures(beta)[:-1])                       # but for infinity
    return away_from_zero(largest * (2 * torch.rand(num_layers, generator=generator) - 1))


def away_from_zero(taus: Tensor) -> list[float]:
    """Eq. 7 divides by tau. Below 0.009 its weights are one-hot in float32: 0.005 changes none."""
    return [math.copysign(max(abs(tau), 0.005), tau) for tau in taus.tolist()]


# --- Table 7a: which projection is an expert -----------------------------------------------------
def up_and_down(experts: TemporalExperts, x: Tensor, weights: Tensor | tuple) -> Tensor:
    """`TemporalExperts.forward` with weights for each projection.

    weights: (2, E) as `two_draws` makes them, or two of (E,); one (E,), of Eq. 6, is for both.
    """
    if isinstance(weights, Tensor) and weights.ndim == 1:
        weights = (weights, weights)
    up_E, down_E = weights
    up = F.linear(x, merge(up_E, experts.up_weight), merge(up_E, experts.up_bias))
    hidden = quick_gelu(up)
    return F.linear(hidden, merge(down_E, experts.down_weight), merge(down_E, experts.down_bias))


def two_draws(config: Config, step: int, m: int) -> tuple[Tensor, Tensor]:
    """`draw_weights` as (L, 2, E): both projections of a layer have draws of their own."""
    expert, merging = draw_weights(replace(config, layers=2 * config.layers), step, m)
    shape = (config.layers, 2, config.experts)
    return expert.view(shape), merging.view(shape)


class UpOnly(TemporalExperts):
    """E up projections, one down projection for all of them.

    In a state dict that one stands E times, so a checkpoint is one of E experts: whoever reads it
    without this tool has the same transformer.
    """
    shared = ("down_weight", "down_bias")

    def __init__(self, dim: int, num_experts: int):
        super().__init__(dim, num_experts)
        self.copies = num_experts
        for name in self.shared:
            one = getattr(self, name)[:1].detach().clone()
            setattr(self, name, nn.Parameter(one))
        self.register_state_dict_post_hook(repeat_shared)
        self.register_load_state_dict_pre_hook(take_one_of_shared)

    def forward(self, x: Tensor, weights_E: Tensor) -> Tensor:
        one = weights_E.new_ones(1)
        if "up_weight" in self.shared:
            return up_and_down(self, x, (one, weights_E))
        return up_and_down(self, x, (weights_E, one))


class DownOnly(UpOnly):
    """E down projections, one up projection for all of them; otherwise as UpOnly."""
    shared = ("up_weight", "up_bias")


def repeat_shared(experts: UpOnly, state: dict, prefix: str, *_) -> None:
    """After state_dict(): what is shared, once per expert."""
    for name in experts.shared:
        one = state[prefix + name]
        state[prefix + name] = one.expand(experts.copies, *one.shape[1:])


def take_one_of_shared(experts: UpOnly, state: dict, prefix: str, *_) -> None:
    """Before load_state_dict(): of equal copies the first. ValueError where they differ."""
    for name in experts.shared:
        copies = state[prefix + name]
        if (copies != copies[0]).any():
            raise ValueError(f"{prefix}{name} differs between experts: "
                             "not a checkpoint of this variant")
        state[prefix + name] = copies[:1]


# --- Table 7c: what the merged pass is compared with, in place of the labels ---------------------
# The L_TE pass is a detached target (the paper does not say): else the two could agree by making
# the better one worse.
class KL(Passes):
    """KL(p_TE || p_merged) over classes, the mean over clips: Eq. 8 with p_TE for the labels."""

    def merged_loss(self, z_BD: Tensor, drawn_BD: Tensor, labels_B: Tensor,
                    scale: Tensor) -> Tensor:
        classes_MD = self.model.finetune_classes
        log_merged_BM = F.log_softmax(scale * cosine(z_BD, classes_MD), dim=-1)
        log_drawn_BM = F.log_softmax(scale.detach() * cosine(drawn_BD, classes_MD), dim=-1)
        return F.kl_div(log_merged_BM, log_drawn_BM, reduction="batchmean", log_target=True)


class MSEFeature(Passes):
    """The mean over B D numbers of the squared difference of the video embeddings.

    A mean, as `mse_loss` has.
    """

    def merged_loss(self, z_BD: Tensor, drawn_BD: Tensor, labels_B: Tensor,
                    scale: Tensor) -> Tensor:
        return F.mse_loss(z_BD.float(), drawn_BD.float())


# --- the variants: table, meaning, what is replaced -> what stands in its place -------------------
def build_with_experts(checkpoint: dict) -> MoTE:
    """`build_model`, the experts not merged."""
    return build_model(checkpoint, keep_experts=True)


KEPT = {build_model: build_with_experts}
SCRIPTS = {"2c": ("eval.py",), "7a": ("train.py", "eval.py")}                 # others: train.py
VARIANTS = {
    "same-init": (
        "2a", "the experts of a layer start the same", {reset_parameters: same_init}),
    "all-data": (
        "2a", "every expert sees every batch", {Objective: AllData}),
    "same-init-all-data": (
        "2a", "both", {reset_parameters: same_init, Objective: AllData}),
    "random-routing": (
        "2c", "experts drawn at test time", {**KEPT, uniform_weights: random_weights}),
    "averaged-logits": (
        "2c", "the mean of the experts' cosines", {**KEPT, view_cosines: averaged_logits}),
    "point": (
        "2e", "L_WMR at the uniform average alone", {draw_temperatures: tau_point}),
    "up-only": (
        "7a", "only the up projection is an expert", {TemporalExperts: UpOnly}),
    "down-only": (
        "7a", "only the down projection is an expert", {TemporalExperts: DownOnly}),
    "up-and-down": (
        "7a", "both are, drawn independently",
        {TemporalExperts.forward: up_and_down, draw_weights: two_draws}),
    "kl": (
        "7c", "L_WMR is the KL divergence from the L_TE pass", {Objective: KL}),
    "mse-feature": (
        "7c", "L_WMR is the MSE to the L_TE pass's video embedding", {Objective: MSEFeature}),
    "tau-normal": (
        "7f", "tau ~ N(0, 1)", {draw_temperatures: tau_normal}),
    "tau-uniform": (
        "7f", "tau ~ U(-16 beta, 16 beta)", {draw_temperatures: tau_uniform}),
}
# Eq. 7's weights would pull equal experts apart: L_TE alone, as for the baseline, whose numbers
# the paper gives. These options come before the user's.
FLAGS = {"same-init-all-data": ["--weight-merged", "0", "--weight-mse", "0"]}


def describe(name: str) -> str:
    """A line on a variant: its table, its meaning and options, and what it replaces."""
    table, meaning, by = VARIANTS[name]
    words = " ".join([meaning, *FLAGS.get(name, [])])
    replaces = ", ".join(f"{old.__module__}.{old.__qualname__}" for old in by)
    return f"{name:19s} Table {table}: {words}; replaces {replaces}"


# --- running a script with them ------------------------------------------------------------------
def labels(name: str) -> dict:
    """What keeps the name with a run: in its config and its results. Resuming compares it."""
    variant = option(name, "what tools/ablations.py replaces", choices=(name,))
    named = make_dataclass("Config", [("variant", str, variant)], bases=(Config,), frozen=True)

    def evaluate_variant(*args, **kwargs) -> dict:
        return {**evaluate(*args, **kwargs), "variant": name}

    def check_resumed_variant(resumed: dict, **now) -> None:
        labelled = {**resumed, "variant": resumed["config"].get("variant")}
        check_resumed(labelled, variant=name, **now)

    return {Config: named, evaluate: evaluate_variant, check_resumed: check_resumed_variant}


@contextmanager
def replaced(by: dict) -> Iterator[None]:
    """Put the new in place of the old wherever mote and the scripts have it; then undo it.

    A method is replaced in its class.
    """
    packages = ("mote", "train", "eval")
    # `from x import f` binds f anew in each module: all of these names must be replaced.
    modules = [module for name, module in sys.modules.items() if name.split(".")[0] in packages]
    with ExitStack() as undo:
        for old, new in by.items():
            owner = old.__qualname__.rpartition(".")[0]
            places = [getattr(sys.modules[old.__module__], owner)] if owner else modules
            for place in places:
                names = [name for name, value in vars(place).items() if value is old]
                for name in names:
                    undo.enter_context(patch.object(place, name, new))
        yield


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The variant, the script, and its options as they are. ValueError where they do not fit."""
    parser = argparse.ArgumentParser("tools/ablations.py", description=__doc__)
    parser = plain_errors(parser)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--list", action="version", help="show the variants",
                        version="\n".join(describe(name) for name in VARIANTS))
    parser.add_argument("variant", choices=VARIANTS, metavar="VARIANT")
    parser.add_argument("script", help="train.py or eval.py")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="those of the script")
    options = parser.parse_args(argv)
    # A variant of the training would leave eval.py as it is, without a word.
    table = VARIANTS[options.variant][0]
    scripts = SCRIPTS.get(table, ("train.py",))
    if options.script not in scripts:
        raise ValueError(f"{options.variant} is a variant of {' and '.join(scripts)}, "
                         f"got {options.script}")
    return options


def main(argv: list[str] | None = None) -> dict | None:
    """Run the script with the variant in place. -> what its own main returns"""
    with one_line_errors("tools/ablations.py"):
        options = parse(argv)
        name = options.variant
        if os.environ.get("RANK", "0") == "0":
            print(f"variant {describe(name)}", flush=True)
        # Imported before names are replaced, so that `replaced` finds it among the modules.
        script = importlib.import_module(options.script.removesuffix(".py"))
        with replaced({**VARIANTS[name][2], **labels(name)}):
            return script.main([*FLAGS.get(name, []), *options.arguments])


if __name__ == "__main__":
    main(sys.argv[1:])
