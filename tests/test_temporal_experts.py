"""
mote/temporal_experts.py: the draw of the experts, their initial weights, one forward for sampled and merged passes.

Must be true: h is a pre-norm transformer whose feed-forward weights are weighted sums of the experts', for any number
of clips, frames and experts; what is drawn comes from the generator alone. Checked against the same network in plain
loops, torch's nn.MultiheadAttention, the paper's probabilities and parameter counts, and numbers worked by hand.
"""
import copy
import math
import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from support.tensors import randn, seeds
from torch import nn

from mote.merging import merge, merging_weights, temperatures
from mote.temporal_experts import (
    POSITIONS,
    Attention,
    Block,
    TemporalExperts,
    TemporalTransformer,
    draw_experts,
    quick_gelu,
    routing_probabilities,
)

B, T, H, D, E, L = 2, 3, 5, 35, 7, 2         # sizes that no two axes share: one mistaken for another raises
EXACT = {"rtol": 0, "atol": 0}
ALL_TAUS = pytest.mark.parametrize("tau", temperatures())


def filled(module: nn.Module, seed: int) -> nn.Module:
    """The module in float64 with no parameter left at 0 or 1, so that a forgotten bias or norm shows."""
    with torch.no_grad():
        for i, (name, parameter) in enumerate(module.double().named_parameters()):
            parameter.copy_(0.3 * randn(seed + i, *parameter.shape) + ("ln_" in name and "weight" in name))
    return module


def head(seed: int = 0, dim: int = D, layers: int = L, experts: int = E, heads: int = H) -> TemporalTransformer:
    return filled(TemporalTransformer(dim, layers, experts, heads), seed)


def named(name: str):
    return lambda message: f"{name}: {message}"


def merging_rows(tau: float, layers: int = L, experts: int = E) -> torch.Tensor:
    return merging_weights(experts, tau).expand(layers, experts)


# --- routing (Eq. 5) --------------------------------------------------------------------------------------------------
def test_multinomial_routing_has_the_probabilities_of_the_paper():
    printed = torch.tensor([0.0321, 0.0871, 0.2369, 0.6439])                                 # Eq. 5 for four experts
    torch.testing.assert_close(routing_probabilities(4), printed, rtol=0, atol=5.1e-5)


@given(st.integers(1, 8))
def test_multinomial_routing_agrees_with_eq_5_written_out(E):
    parts = [math.exp(i) for i in range(1, E + 1)]
    torch.testing.assert_close(routing_probabilities(E), torch.tensor([part / sum(parts) for part in parts]))


@given(st.integers(1, 8))
def test_uniform_routing_gives_every_expert_the_same_chance(E):
    torch.testing.assert_close(routing_probabilities(E, "uniform"), torch.full((E,), 1 / E))


@given(st.integers(1, 8), st.integers(1, 6), seeds)
def test_fixed_routing_always_takes_the_last_expert(E, L, seed):
    expected = torch.tensor([0.0] * (E - 1) + [1.0])
    torch.testing.assert_close(routing_probabilities(E, "fixed"), expected, **EXACT)
    drawn = draw_experts(L, E, torch.Generator().manual_seed(seed), "fixed")
    torch.testing.assert_close(drawn, expected.expand(L, E), **EXACT)


def test_an_unknown_routing_is_refused():
    with pytest.raises(ValueError, match="routing must be one of multinomial, uniform, fixed, got 'learned'"):
        routing_probabilities(4, "learned")
    with pytest.raises(ValueError, match="'learned'"):
        draw_experts(2, 4, torch.Generator(), "learned")


@given(seeds, st.integers(0, 6), st.integers(1, 8), st.sampled_from(["multinomial", "uniform"]))
def test_a_draw_is_one_expert_per_layer(seed, L, E, routing):
    drawn_LE = draw_experts(L, E, torch.Generator().manual_seed(seed), routing)
    assert drawn_LE.shape == (L, E) and drawn_LE.dtype == torch.float32
    assert ((drawn_LE == 0) | (drawn_LE == 1)).all() and (drawn_LE.sum(dim=1) == 1).all()


@given(seeds)
def test_drawing_experts_depends_on_the_generator_alone(seed):
    before = torch.get_rng_state()
    first_LE = draw_experts(6, 4, torch.Generator().manual_seed(seed))
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(1)
    torch.testing.assert_close(draw_experts(6, 4, torch.Generator().manual_seed(seed)), first_LE, **EXACT)


@pytest.mark.parametrize("routing, expected", [
    ("multinomial", [0.0321, 0.0871, 0.2369, 0.6439]),
    ("uniform", [0.25, 0.25, 0.25, 0.25]),
])
def test_experts_are_drawn_as_often_as_they_should(routing, expected):
    # 4 counts of a binomial (n = 20 000), each within 5 standard deviations: chance of a false alarm 3e-6.
    n = 20_000
    counts = draw_experts(n, 4, torch.Generator().manual_seed(0), routing).sum(dim=0).tolist()
    for count, p in zip(counts, expected):
        assert abs(count - n * p) < 5 * math.sqrt(n * p * (1 - p)), (count, n * p)


def test_experts_of_two_layers_and_of_two_steps_are_independent():
    # The same in sum p^2 = 0.479 of all pairs: 2 binomials within 5 standard deviations, chance of a false alarm 2e-6.
    n, p, generator = 5_000, 0.0321**2 + 0.0871**2 + 0.2369**2 + 0.6439**2, torch.Generator().manual_seed(0)
    drawn_SLE = torch.stack([draw_experts(2, 4, generator) for _ in range(n)])
    of_layers = (drawn_SLE[:, 0] * drawn_SLE[:, 1]).sum().item()
    of_steps = (drawn_SLE[:, 0] * drawn_SLE[:, 0].roll(1, 0)).sum().item()
    for same in (of_layers, of_steps):
        assert abs(same - n * p) < 5 * math.sqrt(n * p * (1 - p)), (same, n * p)


# --- sizes and initial weights ----------------------------------------------------------------------------------------
@pytest.mark.parametrize("dim, layers, experts, millions", [
    (768, 6, 4, 127.590), (768, 6, 1, 42.586), (512, 4, 1, 12.649),         # ViT-L/14, merged; ViT-B/16, merged
])
def test_the_number_of_parameters_is_the_papers(dim, layers, experts, millions):
    with torch.device("meta"):                                               # shapes alone
        count = sum(p.numel() for p in TemporalTransformer(dim, layers, experts).parameters())
    assert count / 1e6 == pytest.approx(millions, abs=5.1e-4)


@pytest.mark.parametrize("dim, heads", [(768, 12), (512, 8), (128, 2), (32, 1)])
def test_heads_are_64_wide_unless_told_otherwise(dim, heads):
    assert TemporalTransformer(dim, 0).heads == heads
    assert TemporalTransformer(dim, 0, heads=2).heads == 2


@pytest.mark.parametrize("layers, experts, heads", [(-1, 4, 5), (2, 0, 5), (2, 4, 3)])
def test_impossible_sizes_are_refused(layers, experts, heads):
    with pytest.raises(ValueError, match=f"got {layers}, {experts} and {heads} for D = 35"):
        TemporalTransformer(35, layers, experts, heads)


@pytest.fixture(scope="module")
def fresh() -> TemporalTransformer:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return TemporalTransformer(D, L, E, H)


def test_every_expert_starts_from_weights_of_its_own(fresh):
    weights = [w for block in fresh.blocks for w in (*block.experts.up_weight, *block.experts.down_weight)]
    flat = F.normalize(torch.stack([w.detach().flatten() for w in weights]), dim=-1)
    # 4900 numbers each: cosines of independent ones have a standard deviation of 0.014; 6 of them, 378 pairs: 8e-7
    torch.testing.assert_close(flat @ flat.T, torch.eye(len(flat)), rtol=0, atol=6 / math.sqrt(4 * D * D))


def test_linear_layers_and_positions_start_with_a_standard_deviation_of_0_02(fresh):
    linear = [w for b in fresh.blocks for w in (b.attn.out_proj.weight, b.experts.up_weight, b.experts.down_weight)]
    for weight in (*linear, fresh.positions):
        n = weight.numel()                                                   # 1225 at least; false alarm 1e-5
        assert abs(weight.mean().item()) < 5 * 0.02 / math.sqrt(n)
        assert abs(weight.std().item() - 0.02) < 5 * 0.02 / math.sqrt(2 * n)


def test_attention_starts_xavier_uniform(fresh):
    bound = math.sqrt(6 / (3 * D + D))                                       # fan in D, fan out 3 D
    for block in fresh.blocks:
        weight = block.attn.in_proj_weight
        assert 0.99 * bound < weight.abs().max() <= bound                    # 3675 numbers: 0.99^3675 = 1e-16
        # the mean of n uniform squares has a variance of 4/45 bound^4 / n; 5 standard deviations, false alarm 1e-6
        assert abs(weight.square().mean() - bound**2 / 3) < 5 * bound**2 * math.sqrt(4 / 45 / weight.numel())


def test_biases_start_at_0_and_norms_at_1(fresh):
    biases = [name for name, _ in fresh.named_parameters() if "bias" in name]
    assert len(biases) == 6 * L                                              # in, out, up, down, two norms
    for name, parameter in fresh.named_parameters():
        if "bias" in name or "ln_" in name:
            expected = torch.full_like(parameter, float("weight" in name))
            torch.testing.assert_close(parameter.detach(), expected, **EXACT, msg=named(name))


# --- a layer of experts by itself -------------------------------------------------------------------------------------
def test_a_layer_of_experts_initialises_itself_and_no_two_layers_alike():
    torch.manual_seed(0)
    first, second = TemporalExperts(40, E), TemporalExperts(40, E)
    for name in ("up_weight", "down_weight"):
        one, two = getattr(first, name), getattr(second, name)
        assert abs(one.std() - 0.02) < 0.002 and not torch.equal(one, two)
        assert not any(torch.equal(one[i], one[j]) for i in range(E) for j in range(i))
    for layer in (first, second):
        assert not layer.up_bias.any() and not layer.down_bias.any()


def test_blocks_and_attention_by_themselves_are_initialised_and_differ_too():
    torch.manual_seed(0)
    first, second = Block(40, H, E), Block(40, H, E)
    for name, parameter in first.named_parameters():
        assert parameter.isfinite().all(), name
        if "bias" not in name and "ln_" not in name:
            assert parameter.std() > 0.01 and not torch.equal(parameter, dict(second.named_parameters())[name]), name


def test_a_seed_gives_the_transformer_that_it_always_gave():
    """Sums of the weights of seed 0 before the layers initialised themselves: toyworld's table depends on them."""
    torch.manual_seed(0)
    temporal = TemporalTransformer(64, 2, 3)
    assert temporal.positions.double().sum().item() == pytest.approx(-2.1166559894809325, abs=1e-6)
    assert temporal.blocks[1].experts.down_weight.double().sum().item() == pytest.approx(-4.256909864922733, abs=1e-6)


@given(seeds, st.integers(1, 4), st.integers(1, 9))
def test_hidden_size_and_activation_are_the_users(seed, num_experts, hidden):
    layer = filled(TemporalExperts(5, num_experts, hidden, activation=torch.relu), seed)
    x, weights_E = randn(seed, 2, 3, 5), merging_weights(num_experts, 0.6).double()
    up = F.linear(x, merge(weights_E, layer.up_weight), merge(weights_E, layer.up_bias))
    right = F.linear(up.clamp(min=0), merge(weights_E, layer.down_weight), merge(weights_E, layer.down_bias))
    assert layer.up_weight.shape == (num_experts, hidden, 5)
    torch.testing.assert_close(layer(x, weights_E), right)


# --- forward, against networks written another way (Eq. 2) ------------------------------------------------------------
def test_quick_gelu_matches_numbers_worked_by_hand():
    # x = ln 3 / 1.702: sigmoid(1.702 x) = 3/4, sigmoid(-1.702 x) = 1/4
    x = math.log(3) / 1.702
    torch.testing.assert_close(quick_gelu(torch.tensor([x, -x, 0.0])), torch.tensor([0.75 * x, -0.25 * x, 0.0]))


def test_quick_gelu_differs_from_gelu_by_0_02():
    x = torch.linspace(-6, 6, 12001)
    torch.testing.assert_close((quick_gelu(x) - F.gelu(x)).abs().max(), torch.tensor(0.0203), rtol=0, atol=1e-4)


def in_plain_python(model: TemporalTransformer, clip: list, weights: list) -> list:
    """h of one clip from Eq. 2, 4 and 7, with loops over every index: lists (T, D) and (L, E) -> (T, D)."""
    p = {name: tensor.tolist() for name, tensor in model.state_dict().items()}

    def linear(x, weight, bias):
        return [sum(w * v for w, v in zip(row, x)) + b for row, b in zip(weight, bias)]

    def norm(x, weight, bias):
        mean = sum(x) / len(x)
        spread = math.sqrt(sum((v - mean) ** 2 for v in x) / len(x) + 1e-12)                 # the authors' eps
        return [(v - mean) / spread * w + b for v, w, b in zip(x, weight, bias)]

    def attention(frames, name):
        width = len(frames[0])
        each = width // model.heads
        qkv = [linear(x, p[name + "in_proj_weight"], p[name + "in_proj_bias"]) for x in frames]
        out = [[] for _ in frames]
        for h in range(model.heads):
            q, k, v = ([x[i * width + h * each:i * width + (h + 1) * each] for x in qkv] for i in range(3))
            for t, query in enumerate(q):
                chance = [math.exp(sum(a * b for a, b in zip(query, key)) / math.sqrt(each)) for key in k]
                out[t] += [sum(c * value[d] for c, value in zip(chance, v)) / sum(chance) for d in range(each)]
        return [linear(x, p[name + "out_proj.weight"], p[name + "out_proj.bias"]) for x in out]

    def merged(name, weights_E):
        def add(parts):
            if isinstance(parts[0], list):
                return [add(part) for part in zip(*parts)]
            return sum(w * part for w, part in zip(weights_E, parts))
        return add(p[name])

    frames = [[v + position for v, position in zip(x, row)] for x, row in zip(clip, p["positions"])]
    for layer, weights_E in enumerate(weights):
        name = f"blocks.{layer}."
        attended = attention([norm(x, p[name + "ln_1.weight"], p[name + "ln_1.bias"]) for x in frames], name + "attn.")
        frames = [[a + b for a, b in zip(x, y)] for x, y in zip(frames, attended)]
        up, up_bias, down, down_bias = (merged(name + "experts." + part, weights_E) for part in
                                        ("up_weight", "up_bias", "down_weight", "down_bias"))
        for t, x in enumerate(frames):
            hidden = linear(norm(x, p[name + "ln_2.weight"], p[name + "ln_2.bias"]), up, up_bias)
            hidden = [v / (1 + math.exp(-1.702 * v)) for v in hidden]
            frames[t] = [a + b for a, b in zip(x, linear(hidden, down, down_bias))]
    return frames


@settings(max_examples=10)                   # slow: every product is a Python loop
@given(seeds, st.integers(1, 4), st.integers(0, 2), st.integers(1, 3), st.sampled_from([(2, 1), (4, 2), (6, 3)]))
def test_forward_agrees_with_the_equations_in_plain_python(seed, T, L, E, width):
    dim, heads = width
    model, x_BTD, weights_LE = head(seed, dim, L, E, heads), randn(seed, 2, T, dim), randn(seed + 1, L, E)
    if L == 0:
        expected = torch.zeros_like(x_BTD)
    else:
        expected = [in_plain_python(model, clip, weights_LE.tolist()) for clip in x_BTD.tolist()]
        expected = torch.tensor(expected, dtype=torch.float64)
    torch.testing.assert_close(model(x_BTD, weights_LE), expected)


@given(seeds, st.integers(1, 3), st.integers(1, 5))
def test_attention_is_torchs(seed, B, T):
    ours, torchs = filled(Attention(6, 3), seed), nn.MultiheadAttention(6, 3, batch_first=True).double()
    torchs.load_state_dict(ours.state_dict())                                # the same names
    x = randn(seed, B, T, 6)
    torch.testing.assert_close(ours(x), torchs(x, x, x)[0])


def test_one_expert_is_the_plain_transformer():
    model, x = head(experts=1), randn(1, B, T, D)
    expected = x + model.positions[:T]
    for block in model.blocks:
        attention = nn.MultiheadAttention(D, H, batch_first=True).double()
        attention.load_state_dict(block.attn.state_dict())
        y = F.layer_norm(expected, (D,), block.ln_1.weight, block.ln_1.bias, eps=1e-12)
        expected = expected + attention(y, y, y)[0]
        up, down = nn.Linear(D, 4 * D).double(), nn.Linear(4 * D, D).double()
        up.load_state_dict({"weight": block.experts.up_weight[0], "bias": block.experts.up_bias[0]})
        down.load_state_dict({"weight": block.experts.down_weight[0], "bias": block.experts.down_bias[0]})
        y = up(F.layer_norm(expected, (D,), block.ln_2.weight, block.ln_2.bias, eps=1e-12))
        expected = expected + down(y * torch.sigmoid(1.702 * y))
    torch.testing.assert_close(model(x, torch.ones(L, 1)), expected)


@given(seeds, st.floats(0.05, 20) | st.just(math.inf))
def test_sampled_and_merged_passes_agree_when_there_is_one_expert(seed, tau):
    model, x = head(seed, 6, 2, 1, 3), randn(seed, B, T, 6)
    sampled = draw_experts(2, 1, torch.Generator().manual_seed(seed))
    torch.testing.assert_close(model(x, sampled), model(x, merging_rows(tau, 2, 1)), **EXACT)


def test_the_experts_match_a_number_worked_by_hand():
    # D = 1, E = 2, weights 3/4 and 1/4. Up 3/4 (4, 0, 0, 0) + 1/4 (-4, 0, 0, 0) = (2, 0, 0, 0), its bias
    # 1/4 (0, 4, 0, 0) = (0, 1, 0, 0): with g for QuickGELU and x = 1, hidden g(2), g(1), 0, 0.
    # Down 3/4 (8, 0, 0, 0) + 1/4 (0, 8, 0, 0) = (6, 2, 0, 0), its bias 3/4 x 4 = 3: 6 g(2) + 2 g(1) + 3.
    experts = TemporalExperts(1, 2)
    with torch.no_grad():
        experts.up_weight.copy_(torch.tensor([[4.0, 0, 0, 0], [-4, 0, 0, 0]]).unsqueeze(2))
        experts.up_bias.copy_(torch.tensor([[0.0, 0, 0, 0], [0, 4, 0, 0]]))
        experts.down_weight.copy_(torch.tensor([[8.0, 0, 0, 0], [0, 8, 0, 0]]).unsqueeze(1))
        experts.down_bias.copy_(torch.tensor([[4.0], [0.0]]))
    expected = 6 * 2 / (1 + math.exp(-3.404)) + 2 * 1 / (1 + math.exp(-1.702)) + 3
    found = experts(torch.ones(1, 1, 1), torch.tensor([0.75, 0.25]))
    torch.testing.assert_close(found.detach(), torch.tensor([[[expected]]]))


# --- routing is merging with a one-hot vector (Eq. 5, 8) --------------------------------------------------------------
@pytest.mark.parametrize("chosen", [(0, 6), (3, 3), (6, 1)])
def test_a_one_hot_pass_is_exactly_the_selected_expert(chosen):
    model, x = head().float(), randn(1, B, T, D).float()
    alone = TemporalTransformer(D, L, 1, H)
    alone.load_state_dict({
        name: tensor[chosen[int(name.split(".")[1])]][None] if ".experts." in name else tensor
        for name, tensor in model.state_dict().items()})
    one_hot_LE = F.one_hot(torch.tensor(chosen), E).float()
    torch.testing.assert_close(model(x, one_hot_LE), alone(x, torch.ones(L, 1)), **EXACT)


def expert_gradients(weights_LE: torch.Tensor):
    """(layer, name, gradients (E, ...)) of every stack of weights, after a backward through all outputs."""
    model = head().float()
    (model(randn(1, B, T, D).float(), weights_LE) * randn(2, B, T, D).float()).sum().backward()
    for layer, block in enumerate(model.blocks):
        for name, parameter in block.experts.named_parameters():
            assert parameter.grad is not None, (layer, name)                 # DDP would wait for it
            yield layer, name, parameter.grad


def test_an_unselected_expert_gets_a_gradient_of_zero_and_not_none():
    chosen = (2, 5)
    for layer, name, gradient_E in expert_gradients(F.one_hot(torch.tensor(chosen), E).float()):
        for i, gradient in enumerate(gradient_E):
            assert bool(gradient.any()) == (i == chosen[layer]), (layer, name, i)


@ALL_TAUS
def test_every_expert_receives_gradient_from_the_merged_pass(tau):
    for layer, name, gradient_E in expert_gradients(merging_rows(tau)):
        for i, gradient in enumerate(gradient_E):
            assert gradient.any(), (layer, name, i)


# --- frames (Eq. 2) ---------------------------------------------------------------------------------------------------
@given(seeds, st.permutations(range(5)))
def test_frame_permutation_permutes_outputs_without_position_embedding(seed, order):
    model, x, weights_LE = head(seed, 6, 2, 3, 3), randn(seed, B, 5, 6), randn(seed + 1, 2, 3)
    nn.init.zeros_(model.positions)
    torch.testing.assert_close(model(x[:, order], weights_LE), model(x, weights_LE)[:, order])


def test_with_positions_the_order_of_frames_matters():
    # A clip of one frame repeated: without positions all T outputs would be the same.
    model, x = head(), randn(1, B, 1, D).expand(B, T, D)
    h_BTD = model(x, model.uniform_weights())
    assert (h_BTD - h_BTD.flip(1)).abs().amax(dim=(0, 2))[0] > 0.1


@given(seeds, st.integers(1, POSITIONS))
def test_frame_i_gets_row_i_of_the_positions(seed, T):
    model, x, weights_LE = head(seed, 4, 1, 2, 2), randn(seed, 1, T, 4), randn(seed + 1, 1, 2)
    without = copy.deepcopy(model)
    nn.init.zeros_(without.positions)
    torch.testing.assert_close(model(x, weights_LE), without(x + model.positions[:T], weights_LE), **EXACT)


def test_more_frames_than_positions_are_refused():
    model = head(dim=4, layers=2, experts=2, heads=2)
    assert model(randn(1, 1, 77, 4), model.uniform_weights()).shape == (1, 77, 4)
    with pytest.raises(ValueError, match="78 frames per clip, but the table of frame positions has 77 rows"):
        model(randn(1, 1, 78, 4), model.uniform_weights())


@given(seeds, st.integers(1, 4))
def test_each_clip_is_processed_alone(seed, B):
    model, x, weights_LE = head(seed, 6, 2, 3, 3), randn(seed, B, 5, 6), randn(seed + 1, 2, 3)
    alone = torch.cat([model(clip[None], weights_LE) for clip in x])
    torch.testing.assert_close(model(x, weights_LE), alone)


# --- residuals, layers, weights ---------------------------------------------------------------------------------------
@given(seeds, st.integers(1, 4), st.integers(1, 5))
def test_zero_output_projections_make_a_block_the_identity(seed, B, T):
    block, x = filled(Block(6, 3, 2), seed), randn(seed, B, T, 6)
    for last in (*block.attn.out_proj.parameters(), block.experts.down_weight, block.experts.down_bias):
        nn.init.zeros_(last)
    torch.testing.assert_close(block(x, torch.tensor([0.3, 0.7])), x, **EXACT)


def test_without_layers_any_number_of_frames_is_fine():
    assert head(dim=4, layers=0, experts=2, heads=2)(randn(1, 1, 78, 4), torch.zeros(0, 2)).shape == (1, 78, 4)


@given(seeds, st.integers(1, 4), st.integers(1, 5), st.integers(1, 4))
def test_without_layers_there_are_no_temporal_features(seed, B, T, E):
    model = head(seed, 6, 0, E, 3)
    for of in (model, model.merged()):
        torch.testing.assert_close(of(randn(seed, B, T, 6), torch.zeros(0, E)), torch.zeros(B, T, 6).double(), **EXACT)
    assert not [name for name, parameter in model.named_parameters() if parameter.requires_grad]


@given(st.integers(0, 4), st.integers(1, 8))
def test_uniform_weights_are_one_over_e(L, E):
    weights_LE = TemporalTransformer(2, L, E).uniform_weights()
    torch.testing.assert_close(weights_LE, torch.full((L, E), 1 / E), **EXACT)


@pytest.mark.parametrize("rows", [0, 1, 3])
def test_expert_weights_for_another_number_of_layers_are_refused(rows):
    with pytest.raises(ValueError, match=f"2 layers need as many rows of mixing weights, got {rows}"):
        head()(randn(1, B, T, D), torch.ones(rows, E))


def test_weights_for_another_number_of_experts_are_refused():
    with pytest.raises(ValueError, match="one weight per expert"):
        head()(randn(1, B, T, D), torch.ones(L, E + 1))


# --- the inference merge (Eq. 6) --------------------------------------------------------------------------------------
@given(seeds, st.integers(0, 3), st.integers(1, 5))
def test_the_merged_head_is_the_pass_at_infinite_tau(seed, L, E):
    model, x = head(seed, 6, L, E, 3), randn(seed, B, T, 6)
    found = model.merged()(x, torch.ones(L, 1))
    # float32 weights 1/E on both sides
    torch.testing.assert_close(found, model(x, merging_rows(math.inf, L, E)), rtol=1e-6, atol=1e-6)


@given(seeds, st.lists(st.sampled_from(["drawn step", "merged step", "load", "merge", "double", "float"]), max_size=6))
def test_the_merged_head_follows_any_steps_and_loads(seed, events):
    """Nothing is kept from an earlier merge: merged() is of the weights as they are now."""
    torch.manual_seed(seed)
    h = TemporalTransformer(8, 2, 3, heads=2)
    x, optimizer = torch.randn(2, 3, 8), torch.optim.SGD(h.parameters(), lr=1e-3)
    for i, event in enumerate(events):
        if event.endswith("step"):
            weights_LE = draw_experts(2, 3, torch.Generator().manual_seed(i)) if event == "drawn step" else (
                merging_weights(3, -1.2).expand(2, 3))
            optimizer.zero_grad()
            h(x.to(h.positions), weights_LE).square().mean().backward()
            optimizer.step()
        elif event == "load":
            h.load_state_dict({name: 0.3 * torch.randn_like(tensor) for name, tensor in h.state_dict().items()})
        elif event == "merge":
            h.merged()
        else:
            getattr(h, event)()
    x, one = x.to(h.positions), h.merged()
    at_infinity = h(x, merging_weights(3, math.inf).expand(2, 3))
    torch.testing.assert_close(one(x, one.uniform_weights()), at_infinity, rtol=1e-4, atol=1e-5)


def test_merged_weights_are_the_mean_of_the_experts():
    model = head()
    for block, merged in zip(model.blocks, model.merged().blocks):
        for name, parameter in block.experts.named_parameters():
            found, mean = merged.experts.get_parameter(name), parameter.mean(dim=0, keepdim=True)
            torch.testing.assert_close(found, mean, rtol=1e-6, atol=1e-6)    # 1/E in float32


def test_the_merged_head_has_one_expert_and_all_else_alike():
    model = head()
    merged = model.merged()
    assert (merged.num_experts, merged.heads, len(merged.blocks), merged.positions.dtype) == (1, H, L, torch.float64)
    assert {len(block.experts.up_weight) for block in merged.blocks} == {1}
    for name, tensor in model.state_dict().items():
        if ".experts." not in name:
            torch.testing.assert_close(merged.state_dict()[name], tensor, **EXACT, msg=named(name))


@pytest.mark.parametrize("experts", [1, E])
def test_merging_does_not_change_or_share_the_original(experts):
    model = head(experts=experts)
    before = copy.deepcopy(model.state_dict())
    with torch.no_grad():
        for parameter in model.merged().parameters():
            parameter.fill_(7)
    assert model.num_experts == experts
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(tensor, before[name], **EXACT, msg=named(name))


@pytest.mark.parametrize("training", [True, False])
def test_the_merged_head_stays_in_training_or_evaluation_mode(training):
    assert head().train(training).merged().training == training


# --- precision and side effects ---------------------------------------------------------------------------------------
def test_the_residual_stream_stays_float32_under_autocast():
    model, x = head().float(), randn(1, B, T, D).float()
    with torch.autocast("cpu", torch.bfloat16):
        under_autocast = model(x, merging_rows(1.2))
    # assert_close compares dtypes too. A bfloat16 is 4e-3 off, and outputs reach 18: 0.09 was seen.
    torch.testing.assert_close(under_autocast, model(x, merging_rows(1.2)), rtol=0, atol=0.3)


def test_experts_are_merged_in_float32_under_autocast(monkeypatch):
    seen = []
    monkeypatch.setattr(F, "linear", lambda x, weight, bias: seen.append((weight, bias)) or x @ weight.T + bias)
    experts, x, weights_E = head().float().blocks[0].experts, randn(1, B, T, D).float(), merging_weights(E, 1.2)
    experts(x, weights_E)
    with torch.autocast("cpu", torch.bfloat16):
        experts(x, weights_E)
    torch.testing.assert_close(seen[2:], seen[:2], **EXACT)


@pytest.mark.parametrize("training", [True, False])
def test_forward_draws_nothing(training):
    model, x, weights_LE = head().train(training), randn(1, B, T, D), merging_rows(1.2)
    before = torch.get_rng_state(), random.getstate(), str(np.random.get_state())
    first = model(x, weights_LE)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (random.getstate(), str(np.random.get_state())) == before[1:]
    torch.manual_seed(1)
    torch.testing.assert_close(model(x, weights_LE), first, **EXACT)


@pytest.mark.parametrize("training", [True, False])
def test_forward_stores_nothing(training):
    def everything():
        return {name: {key: dict(value) if isinstance(value, dict) else value for key, value in vars(module).items()}
                for name, module in model.named_modules()}
    model = head().train(training)
    before, state = everything(), copy.deepcopy(model.state_dict())
    model(randn(1, B, T, D), merging_rows(1.2))
    after = everything()
    assert after.keys() == before.keys()
    for name in before:
        assert after[name].keys() == before[name].keys(), name
        for key, value in before[name].items():
            new, old = ((d.values() if isinstance(d, dict) else [d]) for d in (after[name][key], value))
            assert len(new) == len(old) and all(a is b for a, b in zip(new, old)), (name, key)
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(tensor, state[name], **EXACT, msg=named(name))
