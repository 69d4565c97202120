"""
Merge the experts of a layer into one, in weight space, and the losses that keep such merges good.

    theta~ = (1/E) sum_i theta_i                                                     inference merge (paper Eq. 6)
    phi    = sum_i w_i theta_i ,    w = softmax([1, 2, ..., E] / tau)                training merge  (Eq. 7)
    tau    drawn uniformly from {+-2^n beta : n = 0..4} and infinity, beta = 0.6     (Section 3.3)
    L_ALL  = L_TE + 0.5 L_WMR + 0.1 L_MSE                                            (Eq. 10)

tau > 0 favours late experts, tau < 0 early ones; tau = inf is the plain average, so Eq. 6 is Eq. 7 at tau = inf, and
choosing one expert is merging with a one-hot vector. Pure functions, no parameters.

Dimension key   E experts   L layers of the temporal transformer   B clips   T frames   D embedding   N classes
Copy alone: needs torch only.
Differs from the paper: L_MSE, see `mse_loss`. Same numbers as the authors' code: tests/test_golden.py.
"""
import math

import torch
import torch.nn.functional as F
from torch import Tensor

BETA, LAMBDA, ETA = 0.6, 0.5, 0.1                                # Section 4.1; lambda and eta weigh Eq. 10


def temperatures(beta: float = BETA) -> tuple[float, ...]:
    """The set that tau is drawn from (Section 3.3): 11 values. Raises ValueError unless beta is a positive number."""
    if not 0 < beta < math.inf:
        raise ValueError(f"beta must be a positive number, got {beta}")
    return tuple(sign * beta * 2**n for sign in (1, -1) for n in range(5)) + (math.inf,)


def draw_temperatures(num_layers: int, generator: torch.Generator, beta: float = BETA) -> list[float]:
    """One tau per layer, each uniform over `temperatures(beta)` ("merged using different tau in each layer")."""
    taus = temperatures(beta)
    return [taus[i] for i in torch.randint(len(taus), (num_layers,), generator=generator).tolist()]


def merging_weights(num_experts: int, tau: float) -> Tensor:
    """w of Eq. 7: softmax([1, ..., E] / tau) -> (E,), float32. Raises ValueError for tau = 0 or nan, or E < 1.

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
    """sum_i w_i theta_i (Eq. 6, 7): (E,) and (E, ...) -> (...). Raises ValueError if the two E differ.

    >>> merge(torch.tensor([0.25, 0.75]), torch.tensor([[0.0, 4.0], [8.0, 0.0]]))
    tensor([6., 1.])
    """
    if weights_E.ndim != 1 or weights_E.shape != theta_E.shape[:1]:
        raise ValueError(f"merge needs one weight per expert, got {tuple(weights_E.shape)} for {tuple(theta_E.shape)}")
    # Multiply and sum, not einsum: autocast would run a matmul in bfloat16 and round the weights (error 1e-2).
    return (weights_E.to(theta_E).view(-1, *[1] * (theta_E.ndim - 1)) * theta_E).sum(dim=0)


def classification_loss(cosine_BN: Tensor, labels_B: Tensor, logit_scale: Tensor) -> Tensor:
    """L of Eq. 3, which is L_TE (Eq. 4) or L_WMR (Eq. 8) by the experts that made the cosine: (B, N), (B,) -> ().

    The paper does not write the scale: CLIP's learned exp(logit_scale), about 100 after pre-training and never clamped
    here (as in the authors' code). Without it a softmax over cosines in [-1, 1] could hardly leave 1/N. Float32.
    """
    return F.cross_entropy(logit_scale.float() * cosine_BN.float(), labels_B)


def mse_loss(merged_BTD: Tensor, frame_features_BTD: Tensor) -> Tensor:
    """L_MSE: the features of the merged pass (frame + temporal) should stay near the frame features. -> ()

    In the form of the authors' code: the mean over all B T D numbers, before pooling, the target not detached. Since
    merged = frame + temporal, this is mean(temporal^2), and its gradient reaches the frame features only through the
    head. Eq. 9 instead pools over frames first and takes the squared norm, a sum over D: with eta = 0.1 read literally
    there, the penalty would be hundreds of times stronger.
    """
    return F.mse_loss(merged_BTD.float(), frame_features_BTD.float())


def total_loss(loss_expert, loss_merged, loss_mse, weight_merged: float = LAMBDA, weight_mse: float = ETA):
    """L_ALL = L_TE + lambda L_WMR + eta L_MSE (Eq. 10).

    >>> total_loss(1.0, 2.0, 3.0)
    2.3
    """
    return loss_expert + weight_merged * loss_merged + weight_mse * loss_mse
