"""
Merge the experts of a layer into one, in weight space, and the losses that keep such merges good.

    theta~ = (1/E) sum_i theta_i                                        inference merge  (Eq. 6)
    phi    = sum_i w_i theta_i ,   w = softmax([1, 2, ..., E] / tau)    training merge   (Eq. 7)
    tau    uniform over {+-2^n beta : n = 0..4} and infinity, beta = 0.6           (Section 3.3)
    L_ALL  = L_TE + 0.5 L_WMR + 0.1 L_MSE                                               (Eq. 10)

tau > 0 favours late experts, tau < 0 early ones; tau = inf is the plain average. So Eq. 6 is Eq. 7
at tau = inf, and choosing one expert is merging with a one-hot vector. Pure functions.

Dimension key   E experts (the paper's N)   L layers   B clips   T frames   D embedding   F hidden
                N classes
Copy alone: needs torch only.
Differs from the paper: L_MSE (`mse_loss`), and a factor on the cosine (`classification_loss`).
Same numbers as the authors' code: tests/test_golden.py.
"""
import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

BETA = 0.6                                                       # Section 4.1
LAMBDA = 0.5                                                     # weighs L_WMR in Eq. 10
ETA = 0.1                                                        # weighs L_MSE in Eq. 10
Loss = Tensor | float


# --- merging: one set of weights out of E --------------------------------------------------------
def merging_weights(num_experts: int, tau: float) -> Tensor:
    """w of Eq. 7: softmax([1, ..., E] / tau) -> (E,), float32.

    Raises ValueError for tau = 0 or nan, and for E < 1.

    >>> merging_weights(3, 1 / math.log(2))              # 2^1 : 2^2 : 2^3
    tensor([0.1429, 0.2857, 0.5714])
    """
    if num_experts < 1:
        raise ValueError(f"num_experts must be at least 1, got {num_experts}")
    if tau == 0 or math.isnan(tau):
        raise ValueError(f"tau must be a number other than 0, got {tau}")
    ranks = torch.arange(1, num_experts + 1, dtype=torch.float64)
    return torch.softmax(ranks / tau, dim=0).float()


def merge(weights_E: Tensor, theta_E: Tensor) -> Tensor:
    """sum_i w_i theta_i (Eq. 6, 7): (E,) and (E, ...) -> (...). ValueError if the two E differ.

    >>> merge(torch.tensor([0.25, 0.75]), torch.tensor([[0.0, 4.0], [8.0, 0.0]]))
    tensor([6., 1.])
    """
    if weights_E.ndim != 1 or weights_E.shape != theta_E.shape[:1]:
        raise ValueError(f"merge needs one weight per expert, got {tuple(weights_E.shape)} "
                         f"for {tuple(theta_E.shape)}")
    # Multiply and sum, not einsum: autocast would run a matmul in bfloat16 (error 1e-2).
    weights_E = weights_E.to(theta_E).view(-1, *[1] * (theta_E.ndim - 1))
    return (weights_E * theta_E).sum(dim=0)


def merge_experts(state: dict[str, Tensor], name: str = "experts",
                  weights_E: Tensor | None = None) -> dict[str, Tensor]:
    """Merge the experts of any state dict (Eq. 6, or Eq. 7 with weights_E). -> a new state dict

    name: the part of a parameter's path that names the experts (its first occurrence counts):
        stacked     blocks.0.experts.up_weight (E, F, D)   -> blocks.0.experts.up_weight (F, D)
        numbered    mlp.experts.0.weight, mlp.experts.1.weight, ... (F, D)  -> mlp.experts.weight
    weights_E: (E,), the same for every layer; None for the plain average. All other tensors are
    passed on as they are. Stacked tensors keep their names: to load them into a layer of one
    expert, TemporalExperts(dim, 1), give each the axis of experts, tensor[None], and call the layer
    with weights_E = torch.ones(1).
    Three traps. name must lead to experts alone: a plain layer of that name is taken for a stack. A
    number right behind name is an expert's: where it is a layer's, as in a ModuleList of layers
    called "experts", merge with name="experts.0", then "experts.1". And do not merge twice: the
    second merge averages over F, without a word where all tensors of a layer agree in it.
    Raises ValueError where no path has that part, where experts are missing or differ in number or
    shape, and for a tensor of whole numbers, which has no average.

    >>> state = {"up.0.bias": torch.tensor([1.0]), "up.1.bias": torch.tensor([3.0])}
    >>> merge_experts(state, name="up")
    {'up.bias': tensor([2.])}
    """
    others, stacked = stack_experts(state, name)
    merged = dict(others)
    for path, theta_E in stacked.items():
        if not theta_E.is_floating_point():
            raise ValueError(f"{path} is {theta_E.dtype}: whole numbers have no average")
        E = len(theta_E)
        uniform_E = torch.full((E,), 1 / E, device=theta_E.device)
        merged[path] = merge(uniform_E if weights_E is None else weights_E, theta_E)
    return merged


def stack_experts(state: dict[str, Tensor],
                  name: str) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """A state dict in two: what is no expert's, and the experts' tensors, stacked (E, ...)."""
    others: dict[str, Tensor] = {}
    stacked: dict[str, Tensor] = {}
    numbered: dict[str, dict[int, Tensor]] = {}                  # path without number -> experts
    for path, tensor in state.items():
        before, found, behind = f".{path}".partition(f".{name}.")
        number, _, rest = behind.partition(".")
        if not found:
            others[path] = tensor
        elif number.isdecimal():
            without = f"{before}.{name}.{rest}".strip(".")
            numbered.setdefault(without, {})[int(number)] = tensor
        elif tensor.ndim:
            stacked[path] = tensor
        else:
            raise ValueError(f"{path} is one number, not a stack of experts")
    for path, listed in numbered.items():
        if sorted(listed) != list(range(len(listed))):
            raise ValueError(f"{path}: experts must be numbered 0, 1, ..., got {sorted(listed)}")
        if len({tensor.shape for tensor in listed.values()}) > 1:
            raise ValueError(f"{path}: experts differ in shape")
        stacked[path] = torch.stack([listed[i] for i in range(len(listed))])
    if not stacked:
        raise ValueError(f"no parameter's path has a part {name!r}, as in blocks.0.{name}.weight")
    check_numbers(stacked, name)
    return others, stacked


def check_numbers(stacked: dict[str, Tensor], name: str) -> None:
    """Raise ValueError where the tensors of one layer are of different numbers of experts."""
    first: dict[str, int] = {}                                   # layer -> E
    for path, theta_E in stacked.items():
        layer = f".{path}.".partition(f".{name}.")[0]
        E = first.setdefault(layer, len(theta_E))
        if len(theta_E) != E:
            raise ValueError(f"{path} has {len(theta_E)} experts, and other tensors of its layer "
                             f"have {E}")


# --- the temperatures of training -----------------------------------------------------------------
def temperatures(beta: float = BETA) -> tuple[float, ...]:
    """The 11 values that tau is drawn from (Section 3.3). ValueError unless beta is positive."""
    if not 0 < beta < math.inf:
        raise ValueError(f"beta must be a positive number, got {beta}")
    late = [beta * 2**n for n in range(5)]
    early = [-tau for tau in late]
    return (*late, *early, math.inf)


def draw_temperatures(num_layers: int, generator: torch.Generator,
                      beta: float = BETA) -> list[float]:
    """One tau per layer, each uniform over `temperatures(beta)`.

    "merged using different tau in each layer" (Section 3.3).
    """
    taus = temperatures(beta)
    drawn = torch.randint(len(taus), (num_layers,), generator=generator)
    return [taus[i] for i in drawn.tolist()]


def draw_merging_weights(num_layers: int, num_experts: int, generator: torch.Generator,
                         beta: float = BETA) -> Tensor:
    """w of Eq. 7 at a drawn temperature for each layer -> (L, E)."""
    taus = draw_temperatures(num_layers, generator, beta)
    if not taus:
        return torch.zeros(0, num_experts)
    return torch.stack([merging_weights(num_experts, tau) for tau in taus])


# --- the losses -----------------------------------------------------------------------------------
def classification_loss(cosine_BN: Tensor, labels_B: Tensor, logit_scale: Tensor) -> Tensor:
    """L of Eq. 3: (B, N), (B,) -> (). L_TE (Eq. 4) of drawn experts, L_WMR (Eq. 8) of merged ones.

    logit_scale is the factor, exp(MoTE.logit_scale), about 100 after pre-training. The paper does
    not write it, and the authors' code never clamps it. Without it, no class of 400 could reach a
    probability above 0.02, since cosines are in [-1, 1]. For logits of a linear layer in place of
    cosines it is torch.ones(()). Float32, also under autocast.
    """
    return F.cross_entropy(logit_scale.float() * cosine_BN.float(), labels_B)


def mse_loss(merged_BTD: Tensor, frame_features_BTD: Tensor) -> Tensor:
    """L_MSE: features of the merged pass, e + h(e), stay near the frame features e. -> ()

    h(e) is all that the temporal transformer gives out, its input included, and Eq. 2 adds e once
    more. In a model of your own, pass what its head takes: input + output where it adds the input
    again, else the output alone, or this loss pulls it to 0. It is the form of the authors' code:
    the mean over all B T D numbers, before pooling, the target not detached. So it is mean(h(e)^2),
    and its gradient reaches e only through the temporal transformer. Eq. 9 pools over frames first
    and takes the squared norm, a sum over D: read literally, eta = 0.1 would weigh it up to D times
    more (512 or 768).
    """
    return F.mse_loss(merged_BTD.float(), frame_features_BTD.float())


def total_loss(loss_expert: Loss, loss_merged: Loss, loss_mse: Loss,
               weight_merged: float = LAMBDA, weight_mse: float = ETA) -> Any:
    """L_ALL = L_TE + lambda L_WMR + eta L_MSE (Eq. 10), of tensors or of numbers.

    >>> total_loss(1.0, 2.0, 3.0)
    2.3
    """
    return loss_expert + weight_merged * loss_merged + weight_mse * loss_mse
