"""
mote/modulation.py, and what mote/model.py does with it: rho of Eq. 11, the video embedding, its cosine, views.

Must be true: rho follows the overlap of the two class sets near a clip, for any number of clips, classes, neighbours;
the embedding is e + rho t. Checked against loops written from the equation, examples worked by hand (one where the
order of maximum and mean matters), and what Eq. 11 promises: 1 for the same classes, less the further they are apart.
"""
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given
from hypothesis import strategies as st
from support.tensors import randn, seeds

from mote.model import cosine, probabilities, video_embedding
from mote.modulation import class_similarity, modulation

sizes = st.integers(1, 12)
dims = st.integers(3, 9)                     # in 1 dimension all classes tie, and any of them may be the near ones
gammas = st.floats(0.04, 1)                  # the paper tries 0.04 to 0.07
FLOAT32 = {"rtol": 1e-5, "atol": 1e-5}       # cosines in float32, 3 to 9 products each


def unit(seed, *shape):
    return F.normalize(randn(seed, *shape), dim=-1).float()


def scene(seed, B, N, M, D, k=5):
    """Clips (B, D), test classes (N, D), fine-tuning classes (M, D), but none where rounding decides which are near."""
    x_BD, test_ND, finetune_MD = randn(seed, B, D).float(), unit(seed + 1, N, D), unit(seed + 2, M, D)
    for classes in (test_ND, finetune_MD):
        ranked = (F.normalize(x_BD, dim=-1) @ classes.T).sort(descending=True).values
        assume(k >= len(classes) or (ranked[:, k - 1] - ranked[:, k] > 1e-6).all())
    return x_BD, test_ND, finetune_MD


def rho(x_BD, test_ND, finetune_MD, k=5, gamma=0.05):
    return modulation(class_similarity(x_BD, test_ND, finetune_MD, k), gamma)


# --- similarity (Eq. 11) ----------------------------------------------------------------------------------------------
@given(seeds, st.integers(1, 4), sizes, sizes, dims, st.integers(1, 7))
def test_similarity_agrees_with_eq_11_written_out(seed, B, N, M, D, k):
    x_BD, test_ND, finetune_MD = scene(seed, B, N, M, D, k)

    def dot(a, b):
        return sum(p * q for p, q in zip(a.tolist(), b.tolist()))

    expected = []
    for x in x_BD:
        near_test = sorted(test_ND, key=lambda y, x=x: -dot(x, y))[:k]
        near_finetune = sorted(finetune_MD, key=lambda y, x=x: -dot(x, y))[:k]
        best = [max(dot(y_t, y_f) for y_f in near_finetune) for y_t in near_test]
        expected.append(min(1.0, sum(best) / len(best)))
    torch.testing.assert_close(class_similarity(x_BD, test_ND, finetune_MD, k), torch.tensor(expected), **FLOAT32)


def test_similarity_is_the_maximum_then_the_mean_not_the_mean_then_the_maximum():
    # Cosines: test class (1, 0): 1 and 0; test class (0.6, 0.8): 0.6 and -0.8.  Best matches 1 and 0.6, their mean 0.8.
    # The other order gives max((1 + 0) / 2, (0.6 - 0.8) / 2) = 0.5, and so do the fine-tuning classes' best matches.
    test_ND, finetune_MD = torch.tensor([[1.0, 0.0], [0.6, 0.8]]), torch.tensor([[1.0, 0.0], [0.0, -1.0]])
    similarity_B = class_similarity(torch.tensor([[2.0, 1.0]]), test_ND, finetune_MD)
    torch.testing.assert_close(similarity_B, torch.tensor([0.8]))
    torch.testing.assert_close(modulation(similarity_B), torch.tensor([math.exp(-4)]))               # 0.2 / 0.05 = 4


def test_similarity_looks_only_at_the_classes_near_the_clip():
    # k = 1. The clip points along the first axis: its nearest classes there are (0.8, 0.6) and (0.6, 0.8), cosine 0.96,
    # although both sets hold a far class in common, (-1, 0).
    test_ND, finetune_MD = torch.tensor([[-1.0, 0.0], [0.8, 0.6]]), torch.tensor([[0.6, 0.8], [-1.0, 0.0]])
    similarity_B = class_similarity(torch.tensor([[3.0, 0.0]]), test_ND, finetune_MD, 1)
    torch.testing.assert_close(similarity_B, torch.tensor([0.96]))


@given(seeds, st.integers(1, 4), st.integers(1, 5), st.integers(1, 5), dims, st.integers(5, 50))
def test_k_is_clipped_to_the_number_of_classes(seed, B, N, M, D, k):
    x_BD, test_ND, finetune_MD = scene(seed, B, N, M, D, k)
    everyone = (test_ND @ finetune_MD.T).amax(dim=1).mean().clamp(max=1)
    torch.testing.assert_close(class_similarity(x_BD, test_ND, finetune_MD, k), everyone.expand(B), **FLOAT32)


@given(seeds, sizes, sizes, dims)
def test_class_order_does_not_matter(seed, N, M, D):
    x_BD, test_ND, finetune_MD = scene(seed, 3, N, M, D)
    shuffle = torch.Generator().manual_seed(seed)
    orders = torch.randperm(N, generator=shuffle), torch.randperm(M, generator=shuffle)
    shuffled = class_similarity(x_BD, test_ND[orders[0]], finetune_MD[orders[1]])
    torch.testing.assert_close(shuffled, class_similarity(x_BD, test_ND, finetune_MD), **FLOAT32)


@given(seeds, sizes, sizes, dims, st.floats(1e-3, 1e3))
def test_clip_scale_does_not_matter(seed, N, M, D, scale):
    x_BD, test_ND, finetune_MD = scene(seed, 3, N, M, D)
    scaled = class_similarity(scale * x_BD, test_ND, finetune_MD)
    torch.testing.assert_close(scaled, class_similarity(x_BD, test_ND, finetune_MD), **FLOAT32)


@given(seeds, sizes, sizes, dims)
def test_each_clip_is_judged_alone(seed, N, M, D):
    x_BD, test_ND, finetune_MD = scene(seed, 3, N, M, D)
    alone = torch.cat([class_similarity(x_D[None], test_ND, finetune_MD) for x_D in x_BD])
    torch.testing.assert_close(class_similarity(x_BD, test_ND, finetune_MD), alone, **FLOAT32)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_similarity_is_float32_whatever_comes_in(dtype):
    embeddings = [unit(seed, 6, 8).to(dtype) for seed in range(3)]
    expected_B = class_similarity(*(tensor.float() for tensor in embeddings))
    torch.testing.assert_close(class_similarity(*embeddings), expected_B, rtol=0, atol=0)


@given(seeds)
def test_similarity_is_float32_under_autocast(seed):
    embeddings = [unit(seed + i, 6, 8) for i in range(3)]
    with torch.autocast("cpu", torch.bfloat16):
        under_autocast = class_similarity(*embeddings)
    torch.testing.assert_close(under_autocast, class_similarity(*embeddings), rtol=0, atol=0)


@pytest.mark.parametrize("k", [0, -1])
def test_fewer_than_one_neighbour_is_refused(k):
    with pytest.raises(ValueError, match=f"neighbours must be at least 1, got {k}"):
        class_similarity(torch.ones(2, 3), torch.ones(4, 3), torch.ones(4, 3), k)


# --- rho (Eq. 11) -----------------------------------------------------------------------------------------------------
@given(seeds, st.integers(1, 4), sizes, sizes, dims, st.integers(1, 7), gammas)
def test_the_factor_lies_above_0_and_at_most_at_1(seed, B, N, M, D, k, gamma):
    rho_B = rho(*scene(seed, B, N, M, D, k), k, gamma)
    assert rho_B.shape == (B,) and rho_B.dtype == torch.float32
    assert (rho_B > 0).all() and (rho_B <= 1).all()


def test_rounding_never_lifts_the_factor_above_1():
    # Embeddings of "unit" length 1 + 1e-6, more than float32 makes of them: cosines of 1 + 2e-6 with themselves.
    classes_ND = unit(0, 20, 8) * (1 + 1e-6)
    assert classes_ND.square().sum(dim=1).min() > 1
    torch.testing.assert_close(rho(randn(1, 7, 8), classes_ND, classes_ND), torch.ones(7), rtol=0, atol=0)


@given(seeds, sizes, st.integers(3, 64), st.integers(1, 7))
def test_the_same_class_set_gives_one(seed, N, D, k):
    x_BD, classes_ND, _ = scene(seed, 3, N, 1, D, k)
    rho_B = rho(x_BD, classes_ND, classes_ND.flip(0), k)
    torch.testing.assert_close(rho_B, torch.ones(3), rtol=0, atol=1e-5)      # 1e-5 in rho is 5e-7 in the cosine


@given(st.integers(1, 6), st.floats(0, 1.5), st.floats(0, 1.5), st.integers(1, 6))
def test_the_factor_rises_with_the_overlap(M, one_angle, other_angle, k):
    # Fine-tuning class i is axis i; test class i is turned away from it by an angle, towards an axis of its own. The
    # clip is nearest to class M on both sides, then to class M - 1, ...: so the similarity is the cosine of the angle.
    axes = torch.eye(2 * M)
    x_BD = torch.arange(1.0, M + 1).repeat(2)[None]

    def at(angle):
        return rho(x_BD, math.cos(angle) * axes[:M] + math.sin(angle) * axes[M:], axes[:M], k)
    near, far = sorted((one_angle, other_angle))
    assert at(near) >= at(far)
    torch.testing.assert_close(at(far), torch.tensor([math.exp((math.cos(far) - 1) / 0.05)]), rtol=1e-4, atol=1e-5)


@given(st.floats(-1, 1), st.floats(-1, 1), gammas)
def test_the_factor_rises_with_the_similarity(one, other, gamma):
    low, high = modulation(torch.tensor(sorted((one, other)), dtype=torch.float64), gamma)
    assert low <= high


@pytest.mark.parametrize("similarity, printed", [
    (0.99, 0.819), (0.95, 0.368), (0.90, 0.135), (0.85, 0.050), (0.80, 0.018),
])
def test_the_factor_matches_a_table_worked_out_for_the_papers_gamma(similarity, printed):
    torch.testing.assert_close(modulation(torch.tensor(similarity)), torch.tensor(printed), rtol=0, atol=5.1e-4)


def test_the_factor_matches_a_number_worked_by_hand():
    # (1 - 0.5) / 0.25 = 2
    torch.testing.assert_close(modulation(torch.tensor(0.5), gamma=0.25), torch.tensor(math.exp(-2)))


@pytest.mark.parametrize("gamma", [0, -0.05, math.nan])
def test_a_gamma_that_is_not_positive_is_refused(gamma):
    with pytest.raises(ValueError, match="gamma must be positive"):
        modulation(torch.ones(2), gamma)


# --- the video embedding and its cosine, mote/model.py (Eq. 2, 3, 11) -------------------------------------------------
def test_the_video_embedding_matches_a_number_worked_by_hand():
    # Means over 2 frames: e = (1 + 3) / 2 = 2, t = (10 + 30) / 2 = 20.  2 + 0.1 x 20 = 4; rho on e would give 20.2.
    e_BTD, t_BTD = torch.tensor([[[1.0], [3.0]]]), torch.tensor([[[10.0], [30.0]]])
    torch.testing.assert_close(video_embedding(e_BTD, t_BTD, torch.tensor([0.1])), torch.tensor([[4.0]]))


@given(seeds, st.integers(1, 4), st.integers(1, 5), st.integers(1, 6))
def test_the_video_embedding_agrees_with_eq_11_written_out(seed, B, T, D):
    e_BTD, t_BTD, rho_B = randn(seed, B, T, D), randn(seed + 1, B, T, D), randn(seed + 2, B)
    expected = torch.zeros(B, D, dtype=torch.float64)
    for b in range(B):
        for frame in range(T):
            expected[b] += (e_BTD[b, frame] + rho_B[b] * t_BTD[b, frame]) / T
    torch.testing.assert_close(video_embedding(e_BTD, t_BTD, rho_B), expected)


@given(seeds, st.integers(1, 4), st.integers(1, 5), st.integers(1, 6))
def test_without_a_factor_the_residual_is_pooled(seed, B, T, D):
    e_BTD, t_BTD = randn(seed, B, T, D), randn(seed + 1, B, T, D)
    torch.testing.assert_close(video_embedding(e_BTD, t_BTD), (e_BTD + t_BTD).mean(dim=1))


@given(seeds, st.integers(1, 4), st.integers(1, 5), st.integers(1, 6))
def test_a_factor_of_0_falls_back_to_the_mean_of_the_frame_features(seed, B, T, D):
    e_BTD, t_BTD = randn(seed, B, T, D), randn(seed + 1, B, T, D)
    torch.testing.assert_close(video_embedding(e_BTD, t_BTD, torch.zeros(B)), e_BTD.mean(dim=1))


def test_the_cosine_matches_a_number_worked_by_hand():
    # (3, 4) has length 5: 3/5 with the first axis, 4/5 with the second
    torch.testing.assert_close(cosine(torch.tensor([[3.0, 4.0]]), torch.eye(2)), torch.tensor([[0.6, 0.8]]))


@given(seeds)
def test_the_cosine_is_float32_under_autocast(seed):
    z_BD, classes_ND = randn(seed, 3, 16).float(), unit(seed + 1, 4, 16)
    with torch.autocast("cpu", torch.bfloat16):
        under_autocast = cosine(z_BD, classes_ND)
    torch.testing.assert_close(under_autocast, cosine(z_BD, classes_ND), rtol=0, atol=0)


def test_probabilities_match_a_number_worked_by_hand():
    # Two views, cosines (1, 0) and (0, 0): mean (1/2, 0), times a scale of 2 ln 3: softmax(ln 3, 0) = (3, 1) / 4.
    # The mean of the two softmaxes would be (0.9 + 0.5) / 2 = 0.7.
    cosine_BVN = torch.tensor([[[1.0, 0.0], [0.0, 0.0]]])
    found = probabilities(cosine_BVN, torch.tensor(2 * math.log(3)).log())
    torch.testing.assert_close(found, torch.tensor([[0.75, 0.25]]))
