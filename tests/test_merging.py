"""
mote/merging.py: the weights of a merge, the merge itself, the draw of the temperatures, and the three losses.

Must be true: the weights are Eq. 7's and a merge is the weighted sum, for 1 to 8 experts of any shape and temperatures
in the paper's range; the losses are Eq. 3 and 10, and L_MSE the authors' form. Checked against loops written from the
equations, a table of weights made with the authors' code, and numbers worked by hand.
"""
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import example, given
from hypothesis import strategies as st
from support.tensors import randn, seeds

from mote.merging import (
    classification_loss,
    draw_merging_weights,
    draw_temperatures,
    merge,
    merge_experts,
    merging_weights,
    mse_loss,
    temperatures,
    total_loss,
)
from mote.temporal_experts import TemporalExperts

taus = st.floats(0.05, 20) | st.floats(-20, -0.05) | st.just(math.inf)       # the paper's range, not 1e308
num_experts = st.integers(1, 8)
trailing_shapes = st.lists(st.integers(1, 4), max_size=3)
FLOAT32 = {"rtol": 1e-5, "atol": 1e-6}       # weights are float32 (eps 1.2e-7); a few of them are added up
EXACT = {"rtol": 0, "atol": 0}
PAPER_TAUS = (0.6, 1.2, 2.4, 4.8, 9.6, -0.6, -1.2, -2.4, -4.8, -9.6, math.inf)


# --- merging weights (Eq. 7) ------------------------------------------------------------------------------------------
@given(num_experts, taus)
@example(4, math.inf)
def test_weights_are_a_convex_combination(E, tau):
    weights_E = merging_weights(E, tau)
    assert weights_E.shape == (E,) and weights_E.dtype == torch.float32
    assert (weights_E >= 0).all()
    torch.testing.assert_close(weights_E.sum(), torch.tensor(1.0), **FLOAT32)


@given(num_experts, taus)
def test_weights_agree_with_the_softmax_in_the_paper(E, tau):
    largest = max(i / tau for i in range(1, E + 1))                          # exp(20 / 0.05) would overflow
    parts = [math.exp(i / tau - largest) for i in range(1, E + 1)]
    torch.testing.assert_close(merging_weights(E, tau), torch.tensor([part / sum(parts) for part in parts]), **FLOAT32)


@given(num_experts, taus)
def test_negating_tau_reverses_the_weights(E, tau):
    torch.testing.assert_close(merging_weights(E, -tau), merging_weights(E, tau).flip(0), **FLOAT32)


@given(num_experts)
def test_infinite_tau_is_the_plain_average(E):
    torch.testing.assert_close(merging_weights(E, math.inf), torch.full((E,), 1 / E), **FLOAT32)


@given(st.integers(2, 8), st.floats(0.5, 20))
def test_positive_tau_favours_late_experts(E, tau):
    assert (merging_weights(E, tau).diff() > 0).all()


@given(st.integers(2, 8), st.floats(0.5, 10))
def test_a_higher_tau_is_nearer_to_the_plain_average(E, tau):
    assert merging_weights(E, 2 * tau).max() < merging_weights(E, tau).max()


def test_weights_match_numbers_worked_by_hand():
    # tau = 1 / ln 2:  exp(i / tau) = 2^i, so 2 : 4 : 8 = 1 : 2 : 4
    torch.testing.assert_close(merging_weights(3, 1 / math.log(2)), torch.tensor([1 / 7, 2 / 7, 4 / 7]), **FLOAT32)
    # tau = 2 / ln 3:  exp(i / tau) = 3^(i/2), so 1 : sqrt(3); a squared tau would give another ratio
    torch.testing.assert_close(merging_weights(2, 2 / math.log(3)), torch.tensor([0.3660254, 0.6339746]), **FLOAT32)


@pytest.mark.parametrize("tau, printed", [
    (0.6, [0.0055, 0.0290, 0.1534, 0.8122]),
    (1.2, [0.0481, 0.1107, 0.2548, 0.5863]),
    (2.4, [0.1204, 0.1826, 0.2770, 0.4201]),
    (4.8, [0.1780, 0.2193, 0.2701, 0.3326]),
    (9.6, [0.2124, 0.2357, 0.2616, 0.2903]),
])
def test_weights_of_four_experts_match_a_table_made_with_the_authors_code(tau, printed):
    torch.testing.assert_close(merging_weights(4, tau), torch.tensor(printed), rtol=0, atol=5.1e-5)   # 4 digits printed


@pytest.mark.parametrize("tau", [0, 0.0, -0.0, math.nan])
def test_a_tau_of_zero_or_nan_is_refused(tau):
    with pytest.raises(ValueError, match="tau must be a number other than 0"):
        merging_weights(4, tau)


@pytest.mark.parametrize("E", [0, -1])
def test_weights_for_no_experts_are_refused(E):
    with pytest.raises(ValueError, match=f"at least 1, got {E}"):
        merging_weights(E, 1.0)


# --- merge (Eq. 6, 7) -------------------------------------------------------------------------------------------------
@given(seeds, num_experts, trailing_shapes)
def test_merge_agrees_with_the_sum_in_the_paper(seed, E, shape):
    weights_E, theta_E = randn(seed, E), randn(seed + 1, E, *shape)
    by_hand = torch.zeros(shape, dtype=torch.float64)
    for i in range(E):
        by_hand = by_hand + weights_E[i].item() * theta_E[i]
    torch.testing.assert_close(merge(weights_E, theta_E), by_hand)


def test_merge_matches_numbers_worked_by_hand():
    # 0.1 (10, 20) + 0.2 (30, 40) + 0.7 (50, 60) = (1 + 6 + 35, 2 + 8 + 42)
    theta_E = torch.tensor([[10.0, 20.0], [30.0, 40.0], [50.0, 60.0]])
    torch.testing.assert_close(merge(torch.tensor([0.1, 0.2, 0.7]), theta_E), torch.tensor([42.0, 52.0]))


@given(seeds, num_experts, taus, trailing_shapes)
def test_merging_identical_experts_changes_nothing(seed, E, tau, shape):
    theta = randn(seed, *shape)
    torch.testing.assert_close(merge(merging_weights(E, tau), theta.expand(E, *shape)), theta, **FLOAT32)


@given(seeds, st.data(), num_experts, trailing_shapes)
def test_one_hot_weights_select_that_expert(seed, data, E, shape):
    i = data.draw(st.integers(0, E - 1))
    theta_E = randn(seed, E, *shape).float()
    torch.testing.assert_close(merge(F.one_hot(torch.tensor(i), E).float(), theta_E), theta_E[i], **EXACT)


@given(seeds, num_experts, taus, st.integers(1, 5), st.integers(1, 5))
def test_merging_a_linear_layer_merges_its_outputs(seed, E, tau, D, F_):
    weights_E, x, theta_E = merging_weights(E, tau).double(), randn(seed, 3, D), randn(seed + 1, E, F_, D)
    outputs_E = torch.stack([x @ theta.T for theta in theta_E])
    torch.testing.assert_close(x @ merge(weights_E, theta_E).T, merge(weights_E, outputs_E))


def test_merging_a_two_layer_mlp_does_not_merge_its_outputs():
    # E = 2, one hidden unit, ReLU, x = 1. Up (2, -2), down (3, 5): outputs 3 x 2 = 6 and 5 relu(-2) = 0, on average 3.
    # Merged: up 0, so the output is 0. Merging regularises the weights; it is no ensemble of the experts.
    half, up_E, down_E = torch.tensor([0.5, 0.5]), torch.tensor([2.0, -2.0]), torch.tensor([3.0, 5.0])
    torch.testing.assert_close(merge(half, down_E * F.relu(up_E)), torch.tensor(3.0))
    torch.testing.assert_close(merge(half, down_E) * F.relu(merge(half, up_E)), torch.tensor(0.0))


@given(seeds, num_experts, taus)
def test_the_gradient_of_each_expert_is_its_weight(seed, E, tau):
    weights_E, theta_E = merging_weights(E, tau).double(), randn(seed, E, 3).requires_grad_()
    merge(weights_E, theta_E).sum().backward()
    torch.testing.assert_close(theta_E.grad, weights_E[:, None].expand(E, 3), **EXACT)


@given(seeds, num_experts, taus)
def test_merging_keeps_float32_under_autocast(seed, E, tau):
    weights_E, theta_E = merging_weights(E, tau), randn(seed, E, 5, 7).float()
    with torch.autocast("cpu", torch.bfloat16):
        merged = merge(weights_E, theta_E)
    torch.testing.assert_close(merged, merge(weights_E, theta_E), **EXACT)   # the dtype too; bfloat16 would be 1e-2 off


@pytest.mark.parametrize("weights, theta", [((3,), (4, 2)), ((4,), (3,)), ((1,), (4, 2)), ((4, 1), (4, 2)), ((), (4,))])
def test_a_wrong_number_of_weights_is_refused(weights, theta):
    with pytest.raises(ValueError, match="one weight per expert"):
        merge(torch.ones(weights), torch.ones(theta))


# --- merging a state dict (Eq. 6, 7) ----------------------------------------------------------------------------------
@given(seeds, st.integers(1, 5), taus)
def test_stacked_experts_of_any_state_dict_merge_to_their_weighted_sum(seed, E, tau):
    theta_E, other = randn(seed, E, 3, 2), randn(seed + 1, 4)
    weights_E = merging_weights(E, tau)
    merged = merge_experts({"a.experts.up": theta_E, "norm": other}, weights_E=weights_E)
    assert merged.keys() == {"a.experts.up", "norm"} and merged["norm"] is other
    torch.testing.assert_close(merged["a.experts.up"], merge(weights_E, theta_E), rtol=0, atol=0)


@given(seeds, st.permutations(range(4)))
def test_numbered_experts_merge_as_stacked_ones_in_whatever_order_they_stand(seed, order):
    theta_E = randn(seed, 4, 3, 2)
    listed = {f"layers.1.moe.experts.{i}.fc.weight": theta_E[i] for i in order}
    weights_E = merging_weights(4, 0.6)
    merged = merge_experts(listed, "experts", weights_E)
    assert merged.keys() == {"layers.1.moe.experts.fc.weight"}
    torch.testing.assert_close(merged["layers.1.moe.experts.fc.weight"], merge(weights_E, theta_E), rtol=0, atol=0)


def test_merging_a_state_dict_matches_numbers_worked_by_hand():
    """Two layers of two experts, each layer apart: (1 + 3) / 2 = 2 and (10 + 20) / 2 = 15."""
    state = {f"{layer}.up.{i}.bias": torch.tensor([x]) for layer, i, x in
             (("0", 0, 1.0), ("0", 1, 3.0), ("1", 0, 10.0), ("1", 1, 20.0))}
    merged = merge_experts(state, name="up")
    assert {name: tensor.item() for name, tensor in merged.items()} == {"0.up.bias": 2.0, "1.up.bias": 15.0}


def test_merging_a_layer_of_experts_is_the_layer_merged_at_infinite_tau():
    layer = TemporalExperts(6, 3)
    merged = merge_experts({f"experts.{name}": tensor for name, tensor in layer.state_dict().items()})
    one = TemporalExperts(6, 1)
    one.load_state_dict({name.removeprefix("experts."): tensor[None] for name, tensor in merged.items()})
    x = randn(0, 2, 5, 6).float()
    torch.testing.assert_close(one(x, torch.ones(1)), layer(x, merging_weights(3, math.inf)))


@pytest.mark.parametrize("state, words", [
    ({"blocks.0.mlp.weight": torch.zeros(2, 2)}, "no parameter's path has a part 'experts'"),
    ({"experts": torch.zeros(2, 2)}, "no parameter's path has a part 'experts'"),
    ({"experts.0.w": torch.zeros(2), "experts.2.w": torch.zeros(2)}, r"numbered 0, 1, ..., got \[0, 2\]"),
    ({"experts.count": torch.zeros(2, dtype=torch.int64)}, "whole numbers have no average"),
    ({"experts.0.w": torch.zeros(2), "experts.1.w": torch.zeros(3)}, "experts.w: experts differ in shape"),
    ({"experts.0.w": torch.zeros(2), "experts.1.w": torch.zeros(2), "experts.0.b": torch.zeros(2)},
     "experts.b has 1 experts, and other tensors of its layer have 2"),
    ({"a.experts.w": torch.zeros(2, 3), "a.experts.norm": torch.zeros(3)}, "a.experts.norm has 3 experts"),
    ({"experts.scale": torch.zeros(())}, "experts.scale is one number"),
])
def test_a_state_dict_that_cannot_be_merged_is_refused_in_one_line(state, words):
    with pytest.raises(ValueError, match=words) as raised:
        merge_experts(state)
    assert len(str(raised.value).splitlines()) == 1


# --- the draw of merging weights (Eq. 7, Section 3.3) -----------------------------------------------------------------
@given(seeds, st.integers(0, 4), st.integers(1, 5), st.floats(0.1, 2))
def test_merging_weights_are_drawn_as_the_weights_of_drawn_temperatures(seed, L, E, beta):
    drawn = draw_merging_weights(L, E, torch.Generator().manual_seed(seed), beta)
    taus_L = draw_temperatures(L, torch.Generator().manual_seed(seed), beta)
    assert drawn.shape == (L, E)
    for weights_E, tau in zip(drawn, taus_L):
        torch.testing.assert_close(weights_E, merging_weights(E, tau), rtol=0, atol=0)


# --- temperatures (Section 3.3) ---------------------------------------------------------------------------------------
def test_the_temperatures_are_the_eleven_of_the_paper():
    assert len(temperatures()) == 11
    assert sorted(temperatures()) == pytest.approx(sorted(PAPER_TAUS))


@given(st.floats(0.01, 10))
def test_the_temperatures_are_multiples_of_beta(beta):
    assert sorted(temperatures(beta)) == pytest.approx(sorted(beta * tau / 0.6 for tau in PAPER_TAUS))


@pytest.mark.parametrize("beta", [0, -0.6, math.nan, math.inf])
def test_a_beta_that_is_no_positive_number_is_refused(beta):
    with pytest.raises(ValueError, match="beta must be a positive number"):
        temperatures(beta)
    with pytest.raises(ValueError, match="beta must be a positive number"):
        draw_temperatures(2, torch.Generator(), beta)


@given(seeds, st.integers(0, 6), st.floats(0.1, 2))
def test_a_draw_is_one_temperature_per_layer_out_of_the_set(seed, L, beta):
    drawn = draw_temperatures(L, torch.Generator().manual_seed(seed), beta)
    assert len(drawn) == L and set(drawn) <= set(temperatures(beta))


@given(seeds)
def test_drawing_temperatures_depends_on_the_generator_alone(seed):
    before = torch.get_rng_state()
    first = draw_temperatures(6, torch.Generator().manual_seed(seed))
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(1)
    assert draw_temperatures(6, torch.Generator().manual_seed(seed)) == first


def test_temperatures_are_drawn_uniformly():
    # 11 counts of a binomial (n = 110 000, p = 1/11), each within 5 standard deviations: chance of a false alarm 7e-6.
    n, p = 110_000, 1 / 11
    drawn = torch.tensor(draw_temperatures(n, torch.Generator().manual_seed(0)), dtype=torch.float64)
    for tau in temperatures():
        count = (drawn == tau).sum().item()
        assert abs(count - n * p) < 5 * math.sqrt(n * p * (1 - p)), (tau, count)


def test_temperatures_of_two_layers_are_independent():
    # Equal in 1 of 11 draws: a binomial within 5 standard deviations, chance of a false alarm 6e-7.
    n, p, generator = 5_000, 1 / 11, torch.Generator().manual_seed(0)
    same = sum(first == second for first, second in (draw_temperatures(2, generator) for _ in range(n)))
    assert abs(same - n * p) < 5 * math.sqrt(n * p * (1 - p)), same


# --- losses (Eq. 3, 9, 10) --------------------------------------------------------------------------------------------
def test_classification_loss_matches_a_number_worked_by_hand():
    # Scale ln 3, cosines (1, 0): softmax (3, 1) / 4. Label 0: -ln 3/4 = ln 4/3, label 1: ln 4; mean (ln 16/3) / 2.
    cosine_BN = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    loss = classification_loss(cosine_BN, torch.tensor([0, 1]), torch.tensor(math.log(3)))
    torch.testing.assert_close(loss, torch.tensor(math.log(16 / 3) / 2))


@given(seeds, st.integers(1, 4), st.integers(1, 6), st.floats(0.1, 100))
def test_classification_loss_agrees_with_eq_3_written_out(seed, B, N, scale):
    cosine_BN = F.normalize(randn(seed, B, N), dim=-1).float()
    labels_B = torch.randint(N, (B,), generator=torch.Generator().manual_seed(seed))
    by_hand = 0.0
    for row, label in zip(cosine_BN.tolist(), labels_B.tolist()):
        by_hand -= scale * row[label] - math.log(sum(math.exp(scale * c) for c in row))
    loss = classification_loss(cosine_BN, labels_B, torch.tensor(scale))
    torch.testing.assert_close(loss, torch.tensor(by_hand / B), rtol=1e-5, atol=1e-4)    # logits of 100 in float32


def test_the_logit_scale_is_learned_from_the_classification_loss():
    # d/ds of -ln(e^s / (e^s + 1)) at s = ln 3 is 3/4 - 1
    scale = torch.tensor(math.log(3), requires_grad=True)
    classification_loss(torch.tensor([[1.0, 0.0]]), torch.tensor([0]), scale).backward()
    torch.testing.assert_close(scale.grad, torch.tensor(-0.25))


@given(seeds, st.booleans())
def test_losses_are_computed_in_float32(seed, autocast):
    half, target = randn(seed, 3, 5, 7).bfloat16(), randn(seed + 1, 3, 5, 7).bfloat16()
    labels_B, scale = torch.tensor([0, 1, 2]), torch.tensor(100.0)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        losses = classification_loss(half[:, 0], labels_B, scale), mse_loss(half, target)
    torch.testing.assert_close(losses[0], classification_loss(half[:, 0].float(), labels_B, scale), **EXACT)
    torch.testing.assert_close(losses[1], mse_loss(half.float(), target.float()), **EXACT)


def test_mse_loss_matches_a_number_worked_by_hand():
    # merged - frame = 1, 2, 3, 0:  (1 + 4 + 9 + 0) / 4; B, T and D all count in the mean
    frame_BTD = torch.tensor([[[5.0], [6.0]], [[7.0], [8.0]]])
    torch.testing.assert_close(mse_loss(torch.tensor([[[6.0], [8.0]], [[10.0], [8.0]]]), frame_BTD), torch.tensor(3.5))


@given(seeds, st.integers(1, 3), st.integers(1, 4), st.integers(1, 5))
def test_mse_loss_is_the_mean_square_of_the_temporal_features(seed, B, T, D):
    e_BTD, t_BTD = randn(seed, B, T, D).float(), randn(seed + 1, B, T, D).float()
    loss = mse_loss(e_BTD + t_BTD, e_BTD)
    torch.testing.assert_close(loss, t_BTD.square().mean(), rtol=1e-4, atol=1e-6)            # e + t is rounded


@given(seeds, st.integers(1, 3), st.integers(1, 4), st.integers(1, 5))
def test_the_gradient_of_mse_loss_reaches_the_frame_features_through_the_head_alone(seed, B, T, D):
    head_DD = randn(seed + 1, D, D).float()

    def gradient(loss):
        e_BTD = randn(seed, B, T, D).float().requires_grad_()
        return torch.autograd.grad(loss(e_BTD, e_BTD @ head_DD), e_BTD)[0]
    found = gradient(lambda e_BTD, t_BTD: mse_loss(e_BTD + t_BTD, e_BTD))
    expected = gradient(lambda e_BTD, t_BTD: t_BTD.square().mean())
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)                        # e + t is rounded


def test_the_total_loss_matches_a_number_worked_by_hand():
    assert total_loss(1.0, 20.0, 300.0) == pytest.approx(1 + 10 + 30)        # 1 + 0.5 x 20 + 0.1 x 300
    assert total_loss(1.0, 20.0, 300.0, 2.0, 0.01) == pytest.approx(1 + 40 + 3)


def test_the_total_loss_passes_on_gradients_by_its_weights():
    parts = torch.ones(3, requires_grad=True)
    total_loss(*parts).backward()
    torch.testing.assert_close(parts.grad, torch.tensor([1.0, 0.5, 0.1]))
