"""
The temporal transformer, its feed-forward layers mixtures of experts drawn at random.

    z = AvgPool([e_1..e_T] + h(e_1..e_T | theta_tem))                                                 (paper Eq. 2)
    each block of h:   x = x + Attention(LN(x)) ;   x = x + FFN(LN(x) | sum_i w_i theta_i)
    training: w is one-hot, drawn per layer with P(w_i = 1) = exp(i) / sum_i' exp(i')                 (Eq. 4, 5)
    WMR pass: w = softmax([1..E] / tau);  inference: w = 1/E                                          (Eq. 7, 6)

Only the feed-forward layers have experts; attention, norms and frame positions are shared. No gate is learned and no
balance loss is needed: all frames of a batch go through the expert that was drawn, and the draw does not look at them.
The experts lie stacked, (E, ...), so routing is merging with a one-hot vector: one forward(x, weights), no modes.
An expert that was not drawn gets a zero gradient, not none: AdamW decays it all the same, as in the authors' code.

Dimension key   B clips   T frames per clip   D embedding   E experts   F feed-forward hidden, 4 D   H heads   L layers
Copy together with merging.py; needs torch only.
Differs from the authors' code: stacked tensors; draws are arguments. Same numbers: tests/test_golden.py.
"""
import torch
import torch.nn.functional as F
from torch import Tensor, nn

try:
    from .merging import merge
except ImportError:                                              # copied beside merging.py, outside the package
    from merging import merge

POSITIONS = 77       # rows of the frame position table: CLIP's context length, kept so that the released weights load
ROUTINGS = ("multinomial", "uniform", "fixed")


def routing_probabilities(num_experts: int, routing: str = "multinomial") -> Tensor:
    """P(expert i) -> (E,). multinomial: exp(i) / sum exp (Eq. 5); uniform: 1/E; fixed: always the last (Table 2d).

    Raises ValueError for another name.
    """
    if routing == "multinomial":
        return torch.softmax(torch.arange(1.0, num_experts + 1), dim=0)
    if routing == "uniform":
        return torch.full((num_experts,), 1 / num_experts)
    if routing == "fixed":
        return F.one_hot(torch.tensor(num_experts - 1), num_experts).float()
    raise ValueError(f"routing must be one of {', '.join(ROUTINGS)}, got {routing!r}")


def draw_experts(num_layers: int, num_experts: int, generator: torch.Generator, routing: str = "multinomial") -> Tensor:
    """One expert per layer, as one-hot weights (L, E), for all clips of a batch (Eq. 5)."""
    chance = routing_probabilities(num_experts, routing).expand(num_layers, num_experts)
    if num_layers == 0:
        return torch.zeros(0, num_experts)
    drawn = torch.multinomial(chance, 1, generator=generator).squeeze(1)
    return F.one_hot(drawn, num_experts).float()


def quick_gelu(x: Tensor) -> Tensor:
    """x sigmoid(1.702 x), OpenAI CLIP's activation; differs from nn.GELU by up to 0.02."""
    return x * torch.sigmoid(1.702 * x)


class Attention(nn.Module):
    """Multi-head self-attention of all frames with all frames, no mask. Parameter names as in nn.MultiheadAttention."""

    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * dim, dim))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * dim))
        self.out_proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        B, T, D = x.shape
        qkv = F.linear(x, self.in_proj_weight, self.in_proj_bias)
        q, k, v = qkv.view(B, T, 3, self.heads, D // self.heads).permute(2, 0, 3, 1, 4)      # (B, H, T, D / H) each
        x = F.scaled_dot_product_attention(q, k, v)
        return self.out_proj(x.transpose(1, 2).reshape(B, T, D))


class TemporalExperts(nn.Module):
    """E feed-forward networks D -> F -> D of one structure, used as a weighted sum of their weights (Eq. 4, 6, 7)."""

    def __init__(self, dim: int, num_experts: int):
        super().__init__()
        self.up_weight = nn.Parameter(torch.empty(num_experts, 4 * dim, dim))
        self.up_bias = nn.Parameter(torch.zeros(num_experts, 4 * dim))
        self.down_weight = nn.Parameter(torch.empty(num_experts, dim, 4 * dim))
        self.down_bias = nn.Parameter(torch.zeros(num_experts, dim))

    def forward(self, x: Tensor, weights_E: Tensor) -> Tensor:
        def linear(x: Tensor, weight_E: Tensor, bias_E: Tensor) -> Tensor:
            if len(weight_E) == len(weights_E) == 1:             # the merged head: scale what comes out, not the matrix
                out = F.linear(x, weight_E[0], bias_E[0])
                return weights_E.to(out) * out
            return F.linear(x, merge(weights_E, weight_E), merge(weights_E, bias_E))
        return linear(quick_gelu(linear(x, self.up_weight, self.up_bias)), self.down_weight, self.down_bias)


class Block(nn.Module):
    """Pre-norm transformer block. The eps of 1e-12 is the authors' (float32 only: half precision rounds it to 0)."""

    def __init__(self, dim: int, heads: int, num_experts: int):
        super().__init__()
        self.ln_1 = nn.LayerNorm(dim, eps=1e-12)
        self.attn = Attention(dim, heads)
        self.ln_2 = nn.LayerNorm(dim, eps=1e-12)
        self.experts = TemporalExperts(dim, num_experts)

    def forward(self, x: Tensor, weights_E: Tensor) -> Tensor:
        x = x + self.attn(self.ln_1(x))
        return x + self.experts(self.ln_2(x), weights_E)


class TemporalTransformer(nn.Module):
    """h of Eq. 2: frame features (B, T, D) and expert weights (L, E) -> temporal features (B, T, D), to be added.

    The paper's sizes: L = 6 for ViT-L/14 (D = 768), 4 for ViT-B/16 (D = 512), E = 4 (Section 4.1). num_experts=1 is the
    plain transformer, the paper's baseline; num_layers=0 gives zeros, so that z is the mean of the frame features.
    Raises ValueError for sizes below that or a D that the heads do not divide, and for more than 77 frames.
    """

    def __init__(self, dim: int, num_layers: int, num_experts: int = 4, heads: int | None = None):
        super().__init__()
        heads = heads or max(1, dim // 64)                       # the authors' rule
        if num_layers < 0 or num_experts < 1 or dim % heads:
            raise ValueError(f"need layers >= 0, experts >= 1 and heads that divide D, "
                             f"got {num_layers}, {num_experts} and {heads} for D = {dim}")
        self.num_experts, self.heads = num_experts, heads
        # Without a block there is nothing to add positions for: a table that DDP would wait for in vain is not trained.
        self.positions = nn.Parameter(torch.empty(POSITIONS, dim), requires_grad=num_layers > 0)
        self.blocks = nn.ModuleList(Block(dim, heads, num_experts) for _ in range(num_layers))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """N(0, 0.02) for linear layers and the positions, each expert its own draw (Table 2a); biases 0 (App. B)."""
        nn.init.normal_(self.positions, std=0.02)
        for block in self.blocks:
            nn.init.xavier_uniform_(block.attn.in_proj_weight)   # a bare parameter: the authors' init does not reach it
            for weight in (block.attn.out_proj.weight, block.experts.up_weight, block.experts.down_weight):
                nn.init.normal_(weight, std=0.02)
            nn.init.zeros_(block.attn.out_proj.bias)

    def forward(self, x: Tensor, weights_LE: Tensor) -> Tensor:
        B, T, D = x.shape
        if not self.blocks:
            return torch.zeros_like(x)
        if T > POSITIONS:
            raise ValueError(f"{T} frames per clip, but the table of frame positions has {POSITIONS} rows")
        if len(weights_LE) != len(self.blocks):
            raise ValueError(f"{len(self.blocks)} layers need as many rows of expert weights, got {len(weights_LE)}")
        x = x + self.positions[:T]
        for block, weights_E in zip(self.blocks, weights_LE):
            x = block(x, weights_E)
        return x

    def uniform_weights(self) -> Tensor:
        """Expert weights of the inference merge (Eq. 6): (L, E), all 1/E."""
        return torch.full((len(self.blocks), self.num_experts), 1 / self.num_experts, device=self.positions.device)

    @torch.no_grad()
    def merged(self) -> "TemporalTransformer":
        """The same head with its experts merged uniformly into one (Eq. 6): a copy, with E = 1."""
        one = TemporalTransformer(self.positions.shape[1], len(self.blocks), 1, self.heads).to(self.positions)
        uniform = self.uniform_weights()
        state = {name: merge(uniform[0], tensor)[None] if ".experts." in name else tensor
                 for name, tensor in self.state_dict().items()}
        one.load_state_dict(state)
        return one.train(self.training)
