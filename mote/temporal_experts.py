"""
The temporal transformer, its feed-forward layers mixtures of experts drawn at random.

    z = AvgPool([e_1..e_T] + h(e_1..e_T | theta_tem))                                    (Eq. 2)
    each block of h:   x = x + Attention(LN(x)) ;   x = x + FFN(LN(x) | sum_i w_i theta_i)
    first pass: w is one-hot, drawn per layer: P(w_i = 1) = exp(i) / sum_i' exp(i')      (Eq. 5)
    second pass: w = softmax([1..E] / tau);  inference: w = 1/E                       (Eq. 7, 6)

Only the feed-forward layers have experts; attention, norms and frame positions are shared. No gate
is learned and no balance loss is needed: all frames of a micro-batch go through the expert that
was drawn, and the draw does not look at them. On several GPUs each draws its own, so give their
generators different seeds. The experts lie stacked, (E, ...), so routing is merging with a one-hot
vector: one forward(x, weights), no modes. Each micro-batch of a training step runs both passes,
adds their losses (Eq. 10, merging.py), and goes backward once.

The second pass (Eq. 8, 9) gives every expert a gradient. Without it, an expert that was not drawn
has the gradient zero: AdamW still decays it, and its momentum still moves it. There the authors'
code differs: the gradient is None, and AdamW leaves that expert alone.

Dimension key   B clips   T frames   D embedding   E experts (the paper's N)   F hidden
                H attention heads   L layers
Copy together with merging.py; needs torch only.
Differs from the authors' code: stacked tensors; what was drawn is an argument of `forward`.
Same numbers: tests/test_golden.py.
"""
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

try:
    from .merging import merge, merge_experts
except ImportError:                                  # copied beside merging.py, outside the package
    from merging import merge, merge_experts

# Rows of the frame position table: CLIP's context length, kept so that the released weights load.
POSITIONS = 77
ROUTINGS = ("multinomial", "uniform", "fixed")


# --- routing --------------------------------------------------------------------------------------
def routing_probabilities(num_experts: int, routing: str = "multinomial") -> Tensor:
    """P(expert i) -> (E,). Raises ValueError for an unknown routing.

    multinomial: exp(i) / sum exp (Eq. 5); uniform: 1/E; fixed: one expert, the last (Table 2d).
    """
    if routing == "multinomial":
        return torch.softmax(torch.arange(1.0, num_experts + 1), dim=0)
    if routing == "uniform":
        return torch.full((num_experts,), 1 / num_experts)
    if routing == "fixed":
        return F.one_hot(torch.tensor(num_experts - 1), num_experts).float()
    raise ValueError(f"routing must be one of {', '.join(ROUTINGS)}, got {routing!r}")


def draw_experts(num_layers: int, num_experts: int, generator: torch.Generator,
                 routing: str = "multinomial") -> Tensor:
    """One expert per layer, as one-hot weights (L, E), for all clips of one forward (Eq. 5)."""
    chance_E = routing_probabilities(num_experts, routing)
    if num_layers == 0:
        return torch.zeros(0, num_experts)
    chance_LE = chance_E.expand(num_layers, num_experts)
    drawn_L = torch.multinomial(chance_LE, 1, generator=generator).squeeze(1)
    return F.one_hot(drawn_L, num_experts).float()


# --- the experts of one layer ---------------------------------------------------------------------
def quick_gelu(x: Tensor) -> Tensor:
    """x sigmoid(1.702 x), OpenAI CLIP's activation; differs from nn.GELU by up to 0.02."""
    return x * torch.sigmoid(1.702 * x)


class TemporalExperts(nn.Module):
    """E feed-forward networks D -> F -> D, used as a weighted sum of their weights (Eq. 5-7).

    It replaces the feed-forward layer of any transformer. The block hands it one argument more,
    weights_E (E,), how much each expert counts: the layer's row of the (L, E) that draw_experts or
    draw_merging_weights returns. hidden is F, 4 D by default, and activation is what lies between
    the two projections. It initialises itself as the paper does.
    Raises ValueError for a size below 1.

    >>> layer = TemporalExperts(dim=8, num_experts=3)
    >>> x = torch.zeros(2, 5, 8)                                  # 2 clips of 5 frames
    >>> generator = torch.Generator().manual_seed(0)              # make it once, draw each time
    >>> layer(x, draw_experts(1, 3, generator)[0]).shape          # training, first pass, Eq. 5
    torch.Size([2, 5, 8])
    >>> from mote.merging import draw_merging_weights             # a copy: from merging import ...
    >>> layer(x, draw_merging_weights(1, 3, generator)[0]).shape  # training, second pass, Eq. 7
    torch.Size([2, 5, 8])
    >>> layer(x, torch.full((3,), 1 / 3)).shape                   # inference, Eq. 6
    torch.Size([2, 5, 8])
    """

    def __init__(self, dim: int, num_experts: int, hidden: int | None = None,
                 activation: Callable[[Tensor], Tensor] = quick_gelu):
        super().__init__()
        hidden = 4 * dim if hidden is None else hidden
        if min(dim, num_experts, hidden) < 1:
            raise ValueError(f"need dim, num_experts and hidden of at least 1, "
                             f"got {dim}, {num_experts} and {hidden}")
        self.activation = activation
        self.up_weight = nn.Parameter(torch.empty(num_experts, hidden, dim))
        self.up_bias = nn.Parameter(torch.empty(num_experts, hidden))
        self.down_weight = nn.Parameter(torch.empty(num_experts, dim, hidden))
        self.down_bias = nn.Parameter(torch.empty(num_experts, dim))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """N(0, 0.02), each expert a draw of its own (Table 2a); biases 0 (Appendix B)."""
        nn.init.normal_(self.up_weight, std=0.02)
        nn.init.normal_(self.down_weight, std=0.02)
        nn.init.zeros_(self.up_bias)
        nn.init.zeros_(self.down_bias)

    def forward(self, x: Tensor, weights_E: Tensor) -> Tensor:
        """(..., D) and how much each expert counts, (E,) -> (..., D)."""
        hidden = merged_linear(x, weights_E, self.up_weight, self.up_bias)           # (..., F)
        return merged_linear(self.activation(hidden), weights_E, self.down_weight, self.down_bias)


def merged_linear(x: Tensor, weights_E: Tensor, weight_EOI: Tensor, bias_EO: Tensor) -> Tensor:
    """x through the weighted sum of the experts' linear layers: (..., I) -> (..., O)."""
    if len(weight_EOI) == 1 and len(weights_E) == 1:
        # One expert, such as the merged one of Eq. 6: scaling what comes out is cheaper than
        # scaling the matrix, and the same.
        out = F.linear(x, weight_EOI[0], bias_EO[0])
        return weights_E.to(out) * out
    return F.linear(x, merge(weights_E, weight_EOI), merge(weights_E, bias_EO))


# --- the temporal transformer ---------------------------------------------------------------------
class Attention(nn.Module):
    """Self-attention of all frames with all frames, no mask.

    Parameters are named as in nn.MultiheadAttention, and so in the authors' checkpoints.
    """

    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * dim, dim))
        self.in_proj_bias = nn.Parameter(torch.empty(3 * dim))
        self.out_proj = nn.Linear(dim, dim)
        # This draw is for an Attention used by itself: TemporalTransformer draws all blocks again.
        # So it must not move torch's global generator, or toyworld's published numbers change.
        with torch.random.fork_rng(devices=[]):
            self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """N(0, 0.02), biases 0 (Appendix B), but for the projections of q, k and v.

        in_proj_weight is a bare parameter, which the authors' initialisation misses: it keeps the
        Xavier init of nn.MultiheadAttention.
        """
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.normal_(self.out_proj.weight, std=0.02)
        nn.init.zeros_(self.in_proj_bias)
        nn.init.zeros_(self.out_proj.bias)

    def forward(self, x: Tensor) -> Tensor:
        B, T, D = x.shape
        qkv = F.linear(x, self.in_proj_weight, self.in_proj_bias)
        qkv = qkv.view(B, T, 3, self.heads, D // self.heads).permute(2, 0, 3, 1, 4)
        q, k, v = qkv                                                        # (B, H, T, D / H) each
        x = F.scaled_dot_product_attention(q, k, v)
        return self.out_proj(x.transpose(1, 2).reshape(B, T, D))


class Block(nn.Module):
    """Pre-norm transformer block. The eps of its norms is the authors'."""

    def __init__(self, dim: int, heads: int, num_experts: int):
        super().__init__()
        self.ln_1 = nn.LayerNorm(dim, eps=1e-12)
        self.attn = Attention(dim, heads)
        self.ln_2 = nn.LayerNorm(dim, eps=1e-12)
        # As in Attention: its own draw must not move torch's global generator.
        with torch.random.fork_rng(devices=[]):
            self.experts = TemporalExperts(dim, num_experts)

    def forward(self, x: Tensor, weights_E: Tensor) -> Tensor:
        x = x + self.attn(self.ln_1(x))
        return x + self.experts(self.ln_2(x), weights_E)


class TemporalTransformer(nn.Module):
    """h of Eq. 2: frame features (B, T, D) and mixing weights (L, E) -> temporal features.

    Temporal features (B, T, D) are to be added to the frame features. The paper's sizes (Section
    4.1): L = 6 for ViT-L/14 (D = 768), 4 for ViT-B/16 (D = 512), E = 4. num_experts=1 is the plain
    transformer, the paper's baseline. num_layers=0 gives zeros, so that z is the mean of the frame
    features.
    Raises ValueError for num_layers below 0, for num_experts below 1, for a D that the attention
    heads do not divide, and for more than 77 frames.
    """

    def __init__(self, dim: int, num_layers: int, num_experts: int = 4, heads: int | None = None):
        super().__init__()
        heads = heads or max(1, dim // 64)                                    # the authors' rule
        if num_layers < 0 or num_experts < 1 or dim % heads:
            raise ValueError(f"need layers >= 0, experts >= 1 and heads that divide D, "
                             f"got {num_layers}, {num_experts} and {heads} for D = {dim}")
        self.num_experts = num_experts
        self.heads = heads
        # Without a block nothing adds the positions: DDP would wait for their gradient in vain.
        self.positions = nn.Parameter(torch.empty(POSITIONS, dim), requires_grad=num_layers > 0)
        self.blocks = nn.ModuleList(Block(dim, heads, num_experts) for _ in range(num_layers))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """N(0, 0.02) for the positions, as in the authors' code; each layer as it says."""
        nn.init.normal_(self.positions, std=0.02)
        for block in self.blocks:
            block.attn.reset_parameters()
            block.experts.reset_parameters()

    def forward(self, x: Tensor, weights_LE: Tensor) -> Tensor:
        B, T, D = x.shape
        if not self.blocks:
            return torch.zeros_like(x)
        if T > POSITIONS:
            raise ValueError(f"{T} frames per clip, but the table of frame positions has "
                             f"{POSITIONS} rows")
        if len(weights_LE) != len(self.blocks):
            raise ValueError(f"{len(self.blocks)} layers need as many rows of mixing weights, "
                             f"got {len(weights_LE)}")
        x = x + self.positions[:T]
        for block, weights_E in zip(self.blocks, weights_LE):
            x = block(x, weights_E)
        return x

    def uniform_weights(self) -> Tensor:
        """Mixing weights of the inference merge (Eq. 6): (L, E), all 1/E."""
        L, E = len(self.blocks), self.num_experts
        return torch.full((L, E), 1 / E, device=self.positions.device)

    @torch.no_grad()
    def merged(self) -> "TemporalTransformer":
        """The same transformer, its experts merged uniformly into one (Eq. 6): a copy, E = 1."""
        dim = self.positions.shape[1]
        one = TemporalTransformer(dim, len(self.blocks), 1, self.heads).to(self.positions)
        state = self.state_dict()
        if self.blocks:
            state = merge_experts(state, "experts")
        for name, tensor in state.items():
            if ".experts." in name:
                state[name] = tensor[None]                                    # (1, ...): one expert
        one.load_state_dict(state)
        return one.train(self.training)
