"""
The paper's ablations of structure: train.py or eval.py with a function or class of the library replaced.

    python tools/ablations.py --list                                              # the variants and what each replaces
    python tools/ablations.py VARIANT train.py --data k400 ...
    torchrun --nproc-per-node 8 tools/ablations.py VARIANT train.py --data k400 ...
    python tools/ablations.py VARIANT eval.py --checkpoint RUN --data ucf101 ...

What is a number (experts, layers, routing, loss weights, beta, gamma, neighbours) is a flag of the scripts themselves.
The variant's name is printed first, and kept in the config of a checkpoint and in every result (metrics.jsonl, --json).

Dimension key   B clips (views)   V views per video   T frames   D embedding   N classes   E experts   L layers
"""
import argparse
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
from mote.merging import classification_loss, draw_temperatures, merge, mse_loss, temperatures  # noqa: E402
from mote.model import MoTE, cosine, video_embedding  # noqa: E402
from mote.runtime.checkpoints import build_model  # noqa: E402
from mote.runtime.errors import one_line_errors  # noqa: E402
from mote.runtime.options import plain_errors  # noqa: E402
from mote.runtime.run_folder import check_resumed  # noqa: E402
from mote.scoring.evaluate import evaluate, view_cosines  # noqa: E402
from mote.temporal_experts import TemporalExperts, TemporalTransformer, draw_experts, quick_gelu  # noqa: E402
from train import Config, Objective, draws, opt  # noqa: E402

reset_parameters, uniform_weights = TemporalTransformer.reset_parameters, TemporalTransformer.uniform_weights


# --- Table 2a: initialisation and data of the experts -----------------------------------------------------------------
@torch.no_grad()
def same_init(temporal: TemporalTransformer) -> None:
    """Every expert of a layer starts as the first one (biases are 0 anyway)."""
    reset_parameters(temporal)
    for block in temporal.blocks:
        for weight in (block.experts.up_weight, block.experts.down_weight):
            weight[1:] = weight[0]


class Passes(Objective):
    """`train.Objective`, two of its choices as methods: what L_TE runs through, and what L_WMR compares."""

    def routed(self, expert_LE: Tensor) -> list[Tensor]:
        return [expert_LE]

    def loss_merged(self, z_BD: Tensor, drawn_BD: Tensor, labels_B: Tensor, scale: Tensor) -> Tensor:
        return classification_loss(cosine(z_BD, self.model.finetune_classes), labels_B, scale)

    def forward(self, frames: Tensor, labels_B: Tensor, expert_LE: Tensor, merging_LE: Tensor) -> tuple[Tensor, ...]:
        model, classes, scale = self.model, self.model.finetune_classes, self.model.logit_scale.exp()
        e_BTD = model.frame_features(model.normalise(frames))
        drawn = [video_embedding(e_BTD, model.temporal(e_BTD, weights_LE)) for weights_LE in self.routed(expert_LE)]
        loss_expert = sum(classification_loss(cosine(z_BD, classes), labels_B, scale) for z_BD in drawn) / len(drawn)
        if not self.second_pass:
            return loss_expert, torch.zeros_like(loss_expert), torch.zeros_like(loss_expert)
        t_BTD = model.temporal(e_BTD, merging_LE)
        loss_merged = self.loss_merged(video_embedding(e_BTD, t_BTD), drawn[0].detach(), labels_B, scale)
        return loss_expert, loss_merged, mse_loss(e_BTD + t_BTD, e_BTD)


class AllData(Passes):
    """No routing: L_TE is the mean over i of the loss with expert i in every layer, all on the same frame features."""

    def routed(self, expert_LE: Tensor) -> list[Tensor]:
        return [one_E.expand_as(expert_LE) for one_E in torch.eye(expert_LE.shape[1], device=expert_LE.device)]


# --- Table 2c: how the experts are used at test time ------------------------------------------------------------------
def random_weights(temporal: TemporalTransformer) -> Tensor:
    """Experts drawn as in training (Eq. 5), per layer and batch of views; seeded with the rank, anew for each model."""
    generator = vars(temporal).setdefault("generator", torch.Generator().manual_seed(int(os.environ.get("RANK", "0"))))
    return draw_experts(len(temporal.blocks), temporal.num_experts, generator).to(temporal.positions.device)


def averaged_logits(model: MoTE, frames: Tensor, places_BVT: Tensor, classes_ND: Tensor, k: int,
                    gamma: float) -> tuple[Tensor, Tensor]:
    """`view_cosines` of an ensemble: expert i in every layer, for every i; then the mean of the E cosines."""
    B, V, _ = places_BVT.shape
    e_BTD = model.frame_features(model.normalise(frames)[None])[0][places_BVT.flatten(0, 1)]
    rho_B = model.modulation(e_BTD, classes_ND, k, gamma)
    one_hot = torch.eye(model.temporal.num_experts, device=e_BTD.device)
    each = [model.temporal(e_BTD, one_E.expand(len(model.temporal.blocks), -1)) for one_E in one_hot]     # E (B, T, D)
    both = (sum(cosine(video_embedding(e_BTD, t, rho), classes_ND) for t in each) / len(each) for rho in (1, rho_B))
    return tuple(c.unflatten(0, (B, V)).mean(dim=1) for c in both)


# --- Tables 2e, 7f: the temperatures of the merged pass ---------------------------------------------------------------
def away_from_zero(taus: Tensor) -> list[float]:
    """Eq. 7 divides by tau. Below 0.009 its weights are one-hot in float32 anyway: stopping at 0.005 changes none."""
    return [math.copysign(max(abs(tau), 0.005), tau) for tau in taus.tolist()]


def tau_normal(num_layers: int, generator: torch.Generator, beta: float) -> list[float]:
    """tau ~ N(0, 1), whatever beta."""
    return away_from_zero(torch.randn(num_layers, generator=generator))


def tau_uniform(num_layers: int, generator: torch.Generator, beta: float) -> list[float]:
    """tau ~ U(-16 beta, 16 beta), the span of the discrete set: -9.6 to 9.6. The paper does not state the range."""
    return away_from_zero(max(temperatures(beta)[:-1]) * (2 * torch.rand(num_layers, generator=generator) - 1))


# --- Table 7a: which projection is an expert --------------------------------------------------------------------------
def up_and_down(experts: TemporalExperts, x: Tensor, weights: Tensor | tuple) -> Tensor:
    """`TemporalExperts.forward` with weights for each projection: (2, E) of `two_draws`; (E,) of Eq. 6 is for both."""
    up_E, down_E = (weights, weights) if isinstance(weights, Tensor) and weights.ndim == 1 else weights
    hidden = quick_gelu(F.linear(x, merge(up_E, experts.up_weight), merge(up_E, experts.up_bias)))
    return F.linear(hidden, merge(down_E, experts.down_weight), merge(down_E, experts.down_bias))


def two_draws(config: Config, step: int, m: int) -> tuple[Tensor, Tensor]:
    """`draws` as (L, 2, E): the up and the down projection of a layer each have their expert and temperature."""
    both = draws(replace(config, layers=2 * config.layers), step, m)
    return tuple(weights.view(config.layers, 2, config.experts) for weights in both)


class UpOnly(TemporalExperts):
    """E up projections, one down projection for all of them.

    In a state dict that one stands E times, so a checkpoint is one of E experts: whoever reads it has the same head.
    """
    shared = "down_weight", "down_bias"

    def __init__(self, dim: int, num_experts: int):
        super().__init__(dim, num_experts)
        for name in self.shared:
            setattr(self, name, nn.Parameter(getattr(self, name)[:1].detach().clone()))

        def repeat(_, state: dict, prefix: str, *__) -> None:
            for name in self.shared:
                state[prefix + name] = state[prefix + name].expand(num_experts, *getattr(self, name).shape[1:])

        def take_one(_, state: dict, prefix: str, *__) -> None:
            for name in self.shared:
                if (state[prefix + name] != state[prefix + name][0]).any():
                    raise ValueError(f"{prefix}{name} differs between experts: not a checkpoint of this variant")
                state[prefix + name] = state[prefix + name][:1]
        self.register_state_dict_post_hook(repeat)
        self.register_load_state_dict_pre_hook(take_one)

    def forward(self, x: Tensor, weights_E: Tensor) -> Tensor:
        one = weights_E.new_ones(1)
        return up_and_down(self, x, (one, weights_E) if "up_weight" in self.shared else (weights_E, one))


class DownOnly(UpOnly):
    """E down projections, one up projection for all of them; otherwise as UpOnly."""
    shared = "up_weight", "up_bias"


# --- Table 7c: what the merged pass is compared with, in place of the labels ------------------------------------------
# The L_TE pass is a detached target (the paper does not say): else the two could agree by making the better one worse.
class KL(Passes):
    """KL(p_TE || p_merged) over the classes, its mean over clips: Eq. 8 with p_TE for the one-hot label."""

    def loss_merged(self, z_BD: Tensor, drawn_BD: Tensor, labels_B: Tensor, scale: Tensor) -> Tensor:
        log_merged_BN = F.log_softmax(scale * cosine(z_BD, self.model.finetune_classes), dim=-1)
        log_drawn_BN = F.log_softmax(scale.detach() * cosine(drawn_BD, self.model.finetune_classes), dim=-1)
        return F.kl_div(log_merged_BN, log_drawn_BN, reduction="batchmean", log_target=True)


class MSEFeature(Passes):
    """The mean over all B D numbers of the squared difference of the video embeddings; a mean as `mse_loss` has."""

    def loss_merged(self, z_BD: Tensor, drawn_BD: Tensor, labels_B: Tensor, scale: Tensor) -> Tensor:
        return F.mse_loss(z_BD.float(), drawn_BD.float())


# --- the variants: table, meaning, the library's function, method or class -> what stands in its place ----------------
KEPT = {build_model: lambda checkpoint: build_model(checkpoint, keep_experts=True)}
SCRIPTS = {"2c": ("eval.py",), "7a": ("train.py", "eval.py")}                 # of the others: train.py
VARIANTS = {
    "same-init": ("2a", "the experts of a layer start the same", {reset_parameters: same_init}),
    "all-data": ("2a", "every expert sees every batch", {Objective: AllData}),
    "same-init-all-data": ("2a", "both", {reset_parameters: same_init, Objective: AllData}),
    "random-routing": ("2c", "experts drawn at test time", {**KEPT, uniform_weights: random_weights}),
    "averaged-logits": ("2c", "the mean of the experts' cosines", {**KEPT, view_cosines: averaged_logits}),
    "point": ("2e", "L_WMR at the uniform average alone", {draw_temperatures: lambda L, *_: [math.inf] * L}),
    "up-only": ("7a", "only the up projection is an expert", {TemporalExperts: UpOnly}),
    "down-only": ("7a", "only the down projection is an expert", {TemporalExperts: DownOnly}),
    "up-and-down": ("7a", "both are, drawn independently", {TemporalExperts.forward: up_and_down, draws: two_draws}),
    "kl": ("7c", "L_WMR is the KL divergence from the L_TE pass", {Objective: KL}),
    "mse-feature": ("7c", "L_WMR is the MSE to the L_TE pass's video embedding", {Objective: MSEFeature}),
    "tau-normal": ("7f", "tau ~ N(0, 1)", {draw_temperatures: tau_normal}),
    "tau-uniform": ("7f", "tau ~ U(-16 beta, 16 beta)", {draw_temperatures: tau_uniform}),
}
# Eq. 7's weights would pull equal experts apart: L_TE alone, as for the baseline, whose numbers the paper gives.
FLAGS = {"same-init-all-data": ["--weight-merged", "0", "--weight-mse", "0"]}                  # before the user's


def describe(name: str) -> str:
    table, meaning, by = VARIANTS[name]
    replaces = ", ".join(f"{old.__module__}.{old.__qualname__}" for old in by)
    return f"{name:19s} Table {table}: {' '.join([meaning, *FLAGS.get(name, [])])}; replaces {replaces}"


def labels(name: str) -> dict:
    """What keeps the name with a run: --variant in its config, "variant" in its results. Resuming compares it."""
    named = [("variant", str, opt(name, "what tools/ablations.py replaces", choices=(name,)))]
    return {Config: make_dataclass("Config", named, bases=(Config,), frozen=True),
            evaluate: lambda *args, **kwargs: {**evaluate(*args, **kwargs), "variant": name},
            check_resumed: lambda resumed, **now: check_resumed(
                {**resumed, "variant": resumed["config"].get("variant")}, variant=name, **now)}


@contextmanager
def replaced(by: dict) -> Iterator[None]:
    """Put the new in place of the old: a method in its class, all else wherever mote and the scripts have it. Undo."""
    modules = [module for name, module in sys.modules.items() if name.partition(".")[0] in ("mote", "train", "eval")]
    with ExitStack() as undo:
        for old, new in by.items():
            owner = old.__qualname__.rpartition(".")[0]
            for place in [getattr(sys.modules[old.__module__], owner)] if owner else modules:
                for name in [name for name, value in vars(place).items() if value is old]:
                    undo.enter_context(patch.object(place, name, new))
        yield


def main(argv: list[str] | None = None) -> dict | None:
    with one_line_errors("tools/ablations.py"):
        parser = plain_errors(argparse.ArgumentParser("tools/ablations.py", description=__doc__,
                                                      formatter_class=argparse.RawDescriptionHelpFormatter))
        parser.add_argument("--list", action="version", version="\n".join(map(describe, VARIANTS)),
                            help="show the variants")
        parser.add_argument("variant", choices=VARIANTS, metavar="VARIANT")
        parser.add_argument("script", help="train.py or eval.py")
        parser.add_argument("arguments", nargs=argparse.REMAINDER, help="those of the script")
        options = parser.parse_args(argv)
        name = options.variant
        scripts = SCRIPTS.get(VARIANTS[name][0], ("train.py",))
        if options.script not in scripts:
            parser.error(f"{name} is a variant of {' and '.join(scripts)}, got {options.script}")
        if os.environ.get("RANK", "0") == "0":
            print(f"variant {describe(name)}", flush=True)
        with replaced({**VARIANTS[name][2], **labels(name)}):
            return sys.modules[options.script.removesuffix(".py")].main([*FLAGS.get(name, []), *options.arguments])


if __name__ == "__main__":
    main(sys.argv[1:])
