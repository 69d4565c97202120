"""
mote/model.py: Figure 2, each step a method that training, evaluation, --video and the ablations use.

Must be true: forward is the steps in their order; z is Eq. 2 without modulation and Eq. 11 with it; a merged or an
untrained copy shares the visual tower and carries the logit scale of the moment. Checked against the equations in
plain loops, numbers worked by hand, and by making each method raise: whoever should use it then fails.
"""
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.places import OFFICIAL
from support.tensors import randn, seeds
from torch import nn

import eval as evaluation
import mote
import train
from mote.clip_backbone import Pixels
from mote.merging import merging_weights
from mote.model import MoTE, cosine, probabilities, video_embedding
from mote.temporal_experts import TemporalTransformer
from tools import ablations

B, T, D, N, M, L, E = 2, 3, 64, 5, 7, 2, 4


class MeanColour(nn.Module):
    """A visual tower of one layer: the mean colour of a frame, in D dimensions."""
    image_size = 8

    def __init__(self):
        super().__init__()
        self.proj = nn.Linear(3, D)

    def forward(self, frames):
        return self.proj(frames.mean(dim=(2, 3)))


@pytest.fixture
def model() -> MoTE:
    torch.manual_seed(0)
    log_scale = torch.tensor(math.log(10))
    return MoTE(MeanColour(), TemporalTransformer(D, L, E), unit(1, M), log_scale, Pixels((0.5,) * 3, (0.2,) * 3))


def unit(seed: int, n: int) -> torch.Tensor:
    """n class embeddings, of unit length."""
    return nn.functional.normalize(randn(seed, n, D).float(), dim=-1)


# --- the steps (Eq. 1, 2, 3, 11) --------------------------------------------------------------------------------------
@given(seeds, st.floats(0, 1))
def test_the_video_embedding_is_the_mean_over_frames_of_e_plus_rho_t(seed, rho):
    e_BTD, t_BTD = randn(seed, B, T, D), randn(seed + 1, B, T, D)
    right = torch.zeros(B, D, dtype=torch.float64)
    for b in range(B):
        for t in range(T):
            right[b] += (e_BTD[b, t] + rho * t_BTD[b, t]) / T
    torch.testing.assert_close(video_embedding(e_BTD, t_BTD, torch.full((B,), rho)), right)


def test_the_similarity_matches_a_number_worked_by_hand(model):
    """One frame: e = (3, 0), t = (0, 8), rho = 1/2: z = (3, 4), and the cosines with the axes are 3/5 and 4/5."""
    e_BTD, t_BTD = torch.zeros(1, 1, D), torch.zeros(1, 1, D)
    e_BTD[..., 0], t_BTD[..., 1] = 3, 8
    found = model.similarity(e_BTD, t_BTD, torch.eye(D)[:2], torch.tensor([0.5]))
    torch.testing.assert_close(found, torch.tensor([[0.6, 0.8]]))


@pytest.mark.parametrize("modulate", [True, False])
def test_forward_is_the_steps_of_figure_2_in_their_order(model, modulate):
    frames, classes_ND = randn(2, B, T, 3, 8, 8).float(), unit(3, N)
    e_BTD = model.frame_features(frames)
    t_BTD = model.temporal(e_BTD, torch.full((L, E), 1 / E))
    rho_B = model.modulation(e_BTD, classes_ND) if modulate else torch.ones(B)
    right = cosine(video_embedding(e_BTD, t_BTD, rho_B), classes_ND)
    torch.testing.assert_close(model(frames, classes_ND, modulate), right)


def test_without_weights_the_experts_are_merged_uniformly(model):
    e_BTD = randn(4, B, T, D).float()
    uniform_LE = merging_weights(E, math.inf).expand(L, E)
    torch.testing.assert_close(model.temporal_features(e_BTD), model.temporal_features(e_BTD, uniform_LE))


def test_probabilities_average_cosines_over_views_before_the_softmax():
    """Views (1, 0) and (0, 0), scale ln 9: mean (1/2, 0), so exp(ln 9 / 2) : 1 = 3 : 1."""
    cosine_BVN = torch.tensor([[[1.0, 0.0], [0.0, 0.0]]])
    found = probabilities(cosine_BVN, torch.tensor(math.log(math.log(9))))
    torch.testing.assert_close(found, torch.tensor([[0.75, 0.25]]))


# --- copies of the model (Eq. 6) --------------------------------------------------------------------------------------
def test_a_merged_model_computes_the_same_with_one_expert(model):
    frames, classes_ND = randn(5, B, T, 3, 8, 8).float(), unit(6, N)
    merged = model.merged()
    assert merged.temporal.num_experts == 1
    torch.testing.assert_close(merged(frames, classes_ND), model(frames, classes_ND), rtol=1e-5, atol=1e-6)


def test_a_copy_shares_the_visual_tower_and_carries_the_logit_scale_of_the_moment(model):
    with torch.no_grad():
        model.logit_scale.fill_(1.25)
    for copy in (model.merged(), model.with_temporal(TemporalTransformer(D, 0))):
        assert copy.visual is model.visual
        assert copy.logit_scale.item() == 1.25 and copy.logit_scale is not model.logit_scale
        torch.testing.assert_close(copy.image_mean, model.image_mean, rtol=0, atol=0)
        torch.testing.assert_close(copy.image_std, model.image_std, rtol=0, atol=0)


def test_a_model_evaluated_in_training_has_the_trained_logit_scale(world, tmp_path, monkeypatch):
    from mote.scoring import benchmark
    seen, real = [], benchmark.evaluate

    def evaluate(model, *rest, **more):
        seen.append(model.logit_scale.item())
        return real(model, *rest, **more)
    monkeypatch.setattr(benchmark, "evaluate", evaluate)
    run = tmp_path / "run"
    train.main([*small_run(tmp_path), "--out", str(run)])
    untrained, trained = seen
    assert trained == torch.load(run / "last.pt", weights_only=True)["model"]["logit_scale"].item() != untrained


# --- who uses the methods ---------------------------------------------------------------------------------------------
def small_run(folder) -> list[str]:
    """Options of train.py for one step on toyworld."""
    return ["--data", "toyworld", "--zero-shot", "", "--epochs", "1", "--batch", "80", "--layers", "1", "--frames", "2",
            "--warmup", "0",
            "--workers", "0", "--threads", "1", "--device", "cpu"]


def a_training_step(world, folder):
    model = mote.load_model(OFFICIAL, keep_experts=True)
    frames = torch.zeros(2, 2, 3, 32, 32, dtype=torch.uint8)
    weights_LE = torch.full((2, 3), 1 / 3)
    train.Objective(model, second_pass=True)(frames, torch.zeros(2, dtype=torch.long), weights_LE, weights_LE)


def an_evaluation(world, folder):
    evaluation.main([*clip_alone(), "--data", "toyworld-novel"])


def one_video(world, folder):
    video = next((world / "toyworld/videos").glob("val_*.mp4"))
    evaluation.main([*clip_alone(), "--video", str(video), "--classes", "star growing, circle moving left"])


def an_ablation(world, folder):
    model = mote.load_model(OFFICIAL, keep_experts=True)
    frames = torch.zeros(2, 2, 3, 32, 32, dtype=torch.uint8)
    weights_LE = torch.full((2, 3), 1 / 3)
    ablations.AllData(model, second_pass=True)(frames, torch.zeros(2, dtype=torch.long), weights_LE, weights_LE)


def clip_alone() -> list[str]:
    return ["--backbone", "toyworld", "--pretrained", "toyworld", "--workers", "0", "--threads", "1", "--device", "cpu"]


USES = {
    "normalise": (a_training_step, an_evaluation, one_video, an_ablation),
    "frame_features": (a_training_step, an_evaluation, one_video, an_ablation),
    "temporal_features": (a_training_step, an_evaluation, one_video, an_ablation),
    "similarity": (a_training_step, an_evaluation, one_video, an_ablation),
    "modulation": (an_evaluation, one_video),
}


class Raised(Exception):
    """Of a method that was made to raise."""


@pytest.mark.parametrize("method", USES)
@pytest.mark.parametrize("use", [a_training_step, an_evaluation, one_video, an_ablation])
def test_a_step_of_figure_2_is_written_once_whoever_uses_it(use, method, world, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise Raised
    monkeypatch.setattr(MoTE, method, fail)
    if use in USES[method]:
        with pytest.raises(Raised):
            use(world, tmp_path)
    else:
        use(world, tmp_path)


def test_each_step_of_figure_2_is_among_those_tried():
    steps = {name for name, value in vars(MoTE).items() if callable(value) and name[0] != "_"}
    assert steps - {"forward", "with_temporal", "merged"} == set(USES)
