"""
tools/ablations.py: each variant is what its table in the paper says, trains and evaluates, and leaves nothing behind.

Must be true: a variant differs from the library in what it replaces alone; its name stays with the run; a checkpoint of
it gives the same scores with the tool and without. Checked against the library called by hand, numbers worked out, and
runs of the scripts on a handful of toyworld's videos.
"""
import math
import shutil
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from support.runs import assert_same_weights, checkpoint, metrics, torchrun
from support.tensors import flat, seeds
from torch.testing import assert_close

import eval as evaluation
import mote
import train
from mote import merging
from mote.clip_backbone import Pixels, build_visual, clip_config
from mote.merging import merging_weights
from mote.model import MoTE
from mote.scoring.evaluate import view_cosines
from mote.temporal_experts import TemporalExperts, TemporalTransformer, draw_experts
from tools import ablations

EXACT = {"rtol": 0, "atol": 0}
TRAINED = [name for name, (table, *_) in ablations.VARIANTS.items() if table != "2c"]
L, E = 2, 3


def variant(name: str):
    return ablations.replaced(ablations.VARIANTS[name][2])


def new_model(experts: int = E, layers: int = L, noise: float = 0.1) -> MoTE:
    """toyworld's visual tower with random weights, 5 classes; noise so that experts differ and no bias is 0."""
    torch.manual_seed(0)
    visual, temporal = build_visual(clip_config("toyworld")), TemporalTransformer(64, layers, experts)
    with torch.no_grad():
        for block in temporal.blocks:
            for parameter in block.experts.parameters():
                parameter.add_(noise * torch.randn_like(parameter))
    classes = torch.nn.functional.normalize(torch.randn(5, 64), dim=-1)
    return MoTE(visual, temporal, classes, torch.tensor(2.0), Pixels((0.5, 0.5, 0.5), (0.2, 0.2, 0.2)))


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (2, 3, 3, 40, 40), generator=generator, dtype=torch.uint8), torch.tensor([1, 4])


def one_hot(*experts: int, of: int = E) -> torch.Tensor:
    """Rows of expert weights, one layer each."""
    return torch.nn.functional.one_hot(torch.tensor(experts), of).float()


def expert(model: MoTE, i: int) -> MoTE:
    """The model that has expert i alone."""
    state = {name: t[i:i + 1] if ".experts." in name else t for name, t in model.state_dict().items()}
    alone = new_model(1, len(model.temporal.blocks))
    alone.load_state_dict(state)
    return alone


def classes_of(model: MoTE) -> tuple:
    """The rest of view_cosines' arguments: classes, K, gamma."""
    return model.finetune_classes, 5, 0.05


# --- runs -------------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def tiny(world, tmp_path_factory):
    """Flags of a run of 2 steps."""
    lists = tmp_path_factory.mktemp("lists")
    for split, n in (("train", 8), ("val", 4)):
        lines = (world / "toyworld" / f"{split}.txt").read_text().splitlines(keepends=True)
        (lists / f"{split}.txt").write_text("".join(lines[::len(lines) // n][:n]))
    data = ["--data", "toyworld", "--train-list", f"{lists}/train.txt", "--val-list", f"{lists}/val.txt"]
    sizes = ["--batch", "4", "--frames", "3", "--layers", "1", "--epochs", "1", "--warmup", "0", "--save-every", "1"]
    return [*data, *sizes, "--zero-shot", "", "--threads", "1", "--workers", "0", "--device", "cpu"]


@pytest.fixture(scope="module")
def runs(tiny, tmp_path_factory):
    """The run of a variant, or of train.py itself by its own name: trained once, when first asked for."""
    folder = tmp_path_factory.mktemp("runs")

    def run(name: str) -> Path:
        if not (folder / name).exists():
            flags = [*tiny, "--out", str(folder / name)]
            train.main(flags) if name == "train.py" else ablations.main([name, "train.py", *flags])
        return folder / name
    return run


def scores(run: Path, tiny: list[str], *names: str) -> dict:
    """eval.py, as a variant if one is named."""
    flags = ["--checkpoint", str(run), "--data", "toyworld", "--list", tiny[5], "--workers", "0", "--threads", "1"]
    return ablations.main([*names, "eval.py", *flags]) if names else evaluation.main(flags)


@pytest.mark.parametrize("name", TRAINED)
def test_a_variant_trains_otherwise_than_train_py_keeps_its_name_and_leaves_nothing_behind(name, runs, capsys):
    before = [dict(vars(place)) for place in (train, evaluation, TemporalExperts, TemporalTransformer)]
    run = runs(name)
    assert [dict(vars(place)) for place in (train, evaluation, TemporalExperts, TemporalTransformer)] == before
    assert capsys.readouterr().out.startswith(f"variant {name} ")
    saved, plain = checkpoint(run), checkpoint(runs("train.py"))
    assert saved["config"] == {**plain["config"], "variant": name, "out": str(run),
                               **({"weight_merged": 0.0, "weight_mse": 0.0} if name == "same-init-all-data" else {})}
    assert [line["variant"] for line in metrics(run)] == [name]
    assert any(not torch.equal(tensor, plain["model"][key]) for key, tensor in saved["model"].items())
    assert mote.load_model(run).temporal.num_experts == 1        # without the tool


@pytest.mark.parametrize("name", ablations.VARIANTS)
def test_what_a_variant_replaces_is_in_the_library_and_replaced_everywhere(name):
    replaces = ablations.VARIANTS[name][2]
    modules = [m for key, m in sys.modules.items() if key.partition(".")[0] in ("mote", "train", "eval")]
    for old, new in replaces.items():
        owner, _, attribute = old.__qualname__.rpartition(".")
        home = getattr(sys.modules[old.__module__], owner) if owner else sys.modules[old.__module__]
        users = [home] if owner else [m for m in modules if vars(m).get(attribute) is old]
        assert home in users and getattr(home, attribute) is old
        with variant(name):
            assert all(getattr(user, attribute) is new for user in users)
        assert all(getattr(user, attribute) is old for user in users)


def test_a_patch_is_undone_when_the_run_fails(tiny, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SystemExit):
        ablations.main(["kl", "train.py", *tiny, "--out", str(tmp_path / "file")])
    assert train.Objective is ablations.Objective and train.Config is ablations.Config


@pytest.mark.parametrize("name", ["up-only", "down-only", "up-and-down"])
def test_a_variants_checkpoint_scores_the_same_with_the_tool_and_without(name, runs, tiny):
    with_tool, without = scores(runs(name), tiny, name), scores(runs(name), tiny)
    assert with_tool["splits"][0].pop("variant") == name
    assert with_tool == without


@pytest.mark.parametrize("name", ["up-only", "up-and-down"])
def test_a_variant_resumed_is_the_same_run_bit_for_bit(name, runs, tiny, tmp_path):
    run, again = runs(name), tmp_path / "again"
    again.mkdir()
    shutil.copy(run / "step_1.pt", again)
    ablations.main([name, "train.py", *tiny, "--out", str(again), "--resume", "auto"])
    assert_same_weights(checkpoint(run), checkpoint(again), **EXACT)
    for key, state in checkpoint(run)["optimizer"]["state"].items():
        assert_close(state, checkpoint(again)["optimizer"]["state"][key], **EXACT)


@pytest.mark.slow
def test_two_ranks_of_a_variant_match_one_rank_with_two_accumulation_steps(tiny, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    done = torchrun(2, "tools/ablations.py", "up-only", "train.py", *tiny, "--out", str(two))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("variant up-only") == 1
    ablations.main(["up-only", "train.py", *tiny, "--out", str(one), "--accumulate", "2"])
    assert_same_weights(checkpoint(one), checkpoint(two), rtol=1e-3, atol=2e-4)     # Adam divides by small numbers


# --- Table 2a ---------------------------------------------------------------------------------------------------------
def experts_of(state: dict) -> list[torch.Tensor]:
    return [tensor for name, tensor in state.items() if ".experts." in name]


def test_same_init_starts_every_expert_as_the_librarys_first_one():
    heads = []
    for name in ("same-init", "all-data"):                                    # the latter starts as the library does
        with variant(name):
            torch.manual_seed(0)
            heads.append(dict(TemporalTransformer(64, L, E).state_dict()))
    same, library = heads
    for name, tensor in library.items():
        assert_close(same[name], tensor[:1].expand_as(tensor) if ".experts." in name else tensor, **EXACT)
    assert any((tensor != tensor[:1]).any() for tensor in experts_of(library))


def test_same_init_experts_part_when_routed(runs):
    state = checkpoint(runs("same-init"))["model"]
    assert all((tensor != tensor[:1]).any() for tensor in experts_of(state))


def test_all_data_is_the_mean_of_the_losses_with_each_expert_in_every_layer(batch):
    model, merging_LE = new_model(), merging_weights(E, 0.6).expand(L, E)
    each = [train.Objective(model, True)(*batch, one_hot(i, i), merging_LE) for i in range(E)]
    losses = ablations.AllData(model, True)(*batch, one_hot(0, 1), merging_LE)
    assert_close(losses["L_TE"], torch.stack([one["L_TE"] for one in each]).mean())
    for name in ("L_WMR", "L_MSE"):                              # the merged pass is the library's
        assert_close(losses[name], each[0][name], **EXACT)
    assert losses["L_TE"] != each[0]["L_TE"]


def test_all_data_encodes_the_frames_once(batch, monkeypatch):
    model, calls = new_model(), []
    monkeypatch.setattr(model, "frame_features", lambda frames: calls.append(1) or MoTE.frame_features(model, frames))
    ablations.AllData(model, True)(*batch, one_hot(0, 1), one_hot(0, 1))
    assert len(calls) == 1


def test_same_init_all_data_keeps_experts_identical_and_merged_into_each(runs):
    first, last = (experts_of(checkpoint(runs("same-init-all-data"), f"step_{n}.pt")["model"]) for n in (1, 2))
    for tensor, before in zip(last, first):
        assert_close(tensor, tensor[:1].expand_as(tensor), rtol=0, atol=1e-7)
        assert not torch.equal(tensor, before)
    line = metrics(runs("same-init-all-data"))[0]
    assert "L_TE" in line and "L_WMR" not in line and "L_MSE" not in line


def test_same_init_all_data_has_the_plain_transformers_loss_and_gradient(batch):
    """Its E experts share the gradient: the sum is that of the one."""
    with variant("same-init-all-data"):
        model = new_model(noise=0)
    plain = expert(model, 0)
    weights = one_hot(1, 2), one_hot(1, 2)
    loss = ablations.AllData(model, False)(*batch, *weights)["L_TE"]
    plain_loss = train.Objective(plain, False)(*batch, torch.ones(L, 1), torch.ones(L, 1))["L_TE"]
    assert_close(loss, plain_loss)
    loss.backward(), plain_loss.backward()
    gradients = dict(plain.named_parameters())
    for name, parameter in model.named_parameters():
        shared = parameter.grad.sum(dim=0, keepdim=True) if ".experts." in name else parameter.grad
        assert_close(shared, gradients[name].grad, rtol=1e-3, atol=1e-6, msg=lambda m, name=name: f"{name}: {m}")


# --- Table 2c ---------------------------------------------------------------------------------------------------------
def test_random_routing_draws_one_expert_per_layer_and_batch_and_repeats_for_a_new_model():
    generator = torch.Generator().manual_seed(0)
    expected = [draw_experts(L, E, generator) for _ in range(20)]
    with variant("random-routing"):
        for _ in range(2):
            head = TemporalTransformer(64, L, E)
            drawn = [head.uniform_weights() for _ in range(20)]
            assert_close(drawn, expected, **EXACT)
    assert len({tuple(weights.flatten().tolist()) for weights in drawn}) > 3


def test_random_routing_draws_other_experts_on_another_rank(monkeypatch):
    draws = []
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        draws.append(ablations.random_weights(TemporalTransformer(64, 9, 9)))
    assert (draws[0] != draws[1]).any()


def test_random_routing_with_one_expert_is_the_plain_evaluation(batch):
    model, frames = new_model(1), batch[0][:, None]
    plain = view_cosines(model, *flat(frames), *classes_of(model))
    with variant("random-routing"):
        assert_close(view_cosines(model, *flat(frames), *classes_of(model)), plain, **EXACT)


def test_random_routing_evaluates_the_expert_that_was_drawn(batch):
    model, frames = new_model(layers=1), batch[0][:, None]
    singles = torch.stack([view_cosines(expert(model, i), *flat(frames), *classes_of(model))[0] for i in range(E)])
    generator = torch.Generator().manual_seed(0)
    with variant("random-routing"):
        for _ in range(8):
            drawn = draw_experts(1, E, generator)[0].argmax()
            assert_close(view_cosines(model, *flat(frames), *classes_of(model))[0], singles[drawn])
    assert (singles[0] - singles[1]).abs().max() > 1e-3


def test_averaged_logits_are_the_mean_cosines_of_the_models_with_one_expert_each(batch):
    model, views = new_model(), batch[0].repeat(2, 2, 1, 1, 1).unflatten(0, (2, 2)).flip(1)      # 2 videos of 2 views
    others = torch.nn.functional.normalize(torch.randn(7, 64), dim=-1)        # other classes than of fine-tuning
    both = ablations.averaged_logits(model, *flat(views), others, 5, 0.5)
    singles = [view_cosines(expert(model, i), *flat(views), others, 5, 0.5) for i in range(E)]
    for average, each in zip(both, zip(*singles)):
        assert_close(average, torch.stack(each).mean(dim=0))
    assert (both[0] - both[1]).abs().max() > 1e-3                # with modulation is something else


def test_averaged_logits_of_identical_experts_are_the_merged_evaluation(batch):
    with variant("same-init"):
        model = new_model(noise=0)
    assert_close(ablations.averaged_logits(model, *flat(batch[0][:, None]), *classes_of(model)),
                 view_cosines(model, *flat(batch[0][:, None]), *classes_of(model)))


@pytest.mark.parametrize("name", ["random-routing", "averaged-logits"])
def test_a_test_time_variant_keeps_the_experts_repeats_itself_and_is_named(name, runs, tiny, monkeypatch):
    run, kept, real = runs("all-data"), [], MoTE.frame_features
    monkeypatch.setattr(MoTE, "frame_features", lambda *a: kept.append(a[0].temporal.num_experts) or real(*a))
    first = scores(run, tiny, name)
    assert set(kept) == {4} and first["splits"][0]["variant"] == name and first["splits"][0]["videos"] == 4
    assert scores(run, tiny, name) == first


# --- Tables 2e, 7f ----------------------------------------------------------------------------------------------------
CONFIG = train.parse_config(["--layers", "2", "--experts", "3"])


def test_point_merges_uniformly_and_draws_the_librarys_experts():
    with variant("point"):
        drawn = [train.draw_weights(CONFIG, step, 0) for step in range(9)]
    for step, (expert_LE, merging_LE) in enumerate(drawn):
        assert_close(merging_LE, torch.full((2, 3), 1 / 3))
        assert_close(expert_LE, train.draw_weights(CONFIG, step, 0)[0], **EXACT)


def test_normal_temperatures_are_of_mean_0_and_deviation_1():
    taus = torch.tensor(ablations.tau_normal(20_000, torch.Generator().manual_seed(0), 0.6))
    assert abs(taus.mean()) < 0.04 and abs(taus.std() - 1) < 0.03             # over 5 standard errors


@pytest.mark.parametrize("beta", [0.6, 2.0])
def test_uniform_temperatures_span_the_discrete_set_evenly(beta):
    taus = torch.tensor(ablations.tau_uniform(20_000, torch.Generator().manual_seed(0), beta)) / (16 * beta)
    assert taus.abs().max() <= 1 and (taus.abs() > 0.99).any()
    assert torch.histc(taus, 4, -1, 1).sub(5000).abs().max() < 310            # 5 standard deviations of a count
    assert max(tau for tau in merging.draw_temperatures(99, torch.Generator(), beta) if tau < math.inf) == 16 * beta


@given(seeds)
def test_continuous_temperatures_give_weights_and_come_from_the_generator_alone(seed):
    for name in ("tau-normal", "tau-uniform"):
        draw = ablations.VARIANTS[name][2][ablations.draw_temperatures]
        first, again = (draw(6, torch.Generator().manual_seed(seed), 0.6) for _ in range(2))
        assert first == again and len(set(first)) >= 5          # two of them may both be held away from 0
        for tau in first:
            assert tau != 0 and merging_weights(4, tau).sum() == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("name, zero", [("tau-normal", "randn"), ("tau-uniform", "rand")])
def test_a_temperature_of_0_is_moved_away_and_means_the_last_expert(name, zero, monkeypatch):
    monkeypatch.setattr(torch, zero, lambda n, generator: torch.full((n,), 0.0 if zero == "randn" else 0.5))
    taus = ablations.VARIANTS[name][2][ablations.draw_temperatures](2, torch.Generator(), 0.6)
    assert_close(merging_weights(4, taus[0]), one_hot(3, of=4)[0], **EXACT)


@pytest.mark.parametrize("tau", [0.009, 0.0051, 1e-4, -0.009, -1e-4])
def test_moving_a_temperature_away_from_0_changes_no_weight(tau):
    moved, = ablations.away_from_zero(torch.tensor([tau], dtype=torch.float64))
    assert_close(merging_weights(4, moved), merging_weights(4, tau), **EXACT)


def test_other_temperatures_are_left_as_they_are():
    taus = torch.tensor([0.006, -0.6, 9.6, -0.01], dtype=torch.float64)
    assert ablations.away_from_zero(taus) == taus.tolist()


# --- Table 7a ---------------------------------------------------------------------------------------------------------
SHARED = {"up-only": "down", "down-only": "up"}


def one_sided(name: str) -> TemporalExperts:
    experts = ablations.VARIANTS[name][2][TemporalExperts](4, E)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in experts.parameters():
            parameter.copy_(torch.randn_like(parameter))
    return experts


@pytest.mark.parametrize("name", SHARED)
def test_one_projection_is_one_layer_and_the_other_has_experts(name):
    for parameter, tensor in one_sided(name).named_parameters():
        assert len(tensor) == (1 if parameter.startswith(SHARED[name]) else E)


@pytest.mark.parametrize("name", SHARED)
def test_its_state_is_that_of_experts_which_share_a_projection_and_computes_the_same(name):
    ours, library = one_sided(name), TemporalExperts(4, E)
    library.load_state_dict(ours.state_dict())
    x = torch.randn(2, 5, 4)
    for weights in (*one_hot(0, 1, 2), merging_weights(E, -1.2), merging_weights(E, math.inf)):
        assert_close(ours(x, weights), library(x, weights))
    copy = type(ours)(4, E)
    copy.load_state_dict(ours.state_dict())
    for a, b in zip(ours.parameters(), copy.parameters()):
        assert_close(a, b, **EXACT)


@pytest.mark.parametrize("name", SHARED)
def test_the_shared_projection_learns_from_every_draw(name):
    experts = one_sided(name)
    experts(torch.randn(2, 5, 4), one_hot(1)[0]).sum().backward()
    for parameter, tensor in experts.named_parameters():
        rows = [row for row in range(len(tensor)) if tensor.grad[row].any()]
        assert rows == ([0] if parameter.startswith(SHARED[name]) else [1])


@pytest.mark.parametrize("name", SHARED)
def test_merging_averages_the_experts_and_keeps_the_shared_projection(name, runs):
    with variant(name):
        torch.manual_seed(0)
        head = TemporalTransformer(64, L, E)
        merged = head.merged()
    for block, one in zip(head.blocks, merged.blocks):
        for parameter, tensor in block.experts.named_parameters():
            assert_close(one.experts.get_parameter(parameter), tensor.mean(dim=0, keepdim=True), rtol=1e-6, atol=1e-8)
    state = checkpoint(runs(name))["model"]
    for parameter, tensor in state.items():
        if ".experts." in parameter:
            same = (tensor == tensor[:1]).all().item()
            assert len(tensor) == 4 and same == parameter.rpartition(".")[2].startswith(SHARED[name])


@pytest.mark.parametrize("name", SHARED)
def test_a_checkpoint_without_a_shared_projection_is_refused_in_one_line(name, runs, tiny, capsys):
    with pytest.raises(SystemExit) as stopped:
        scores(runs("train.py"), tiny, name)
    error, = capsys.readouterr().err.strip().splitlines()
    parameter = f"temporal.blocks.0.experts.{SHARED[name]}_weight"
    assert stopped.value.code == 2
    assert error == f"eval.py: error: {parameter} differs between experts: not a checkpoint of this variant"


def test_up_and_down_projections_have_weights_of_their_own():
    torch.manual_seed(0)
    head = TemporalTransformer(64, 1, E)
    experts, x = head.blocks[0].experts, torch.randn(2, 5, 64)
    for up in range(E):
        for down in range(E):
            chosen = TemporalExperts(64, 1)
            chosen.load_state_dict({name: t[[up if name.startswith("up") else down]]
                                    for name, t in experts.state_dict().items()})
            expected = chosen(x, torch.ones(1))
            assert_close(ablations.up_and_down(experts, x, one_hot(up, down)), expected)
    assert_close(ablations.up_and_down(experts, x, one_hot(1)[0]), experts(x, one_hot(1)[0]), **EXACT)


def test_up_and_down_experts_and_temperatures_are_drawn_independently():
    drawn = [ablations.two_draws(CONFIG, step, 0) for step in range(200)]
    assert all(weights.shape == (2, 2, 3) for both in drawn for weights in both)
    assert_close(drawn[7], ablations.two_draws(CONFIG, 7, 0), **EXACT)
    experts = torch.stack([expert_LPE.argmax(dim=-1) for expert_LPE, _ in drawn])            # (200, L, up and down)
    chance = torch.softmax(torch.arange(1.0, 4), dim=0)
    together = (experts[..., 0] == experts[..., 1]).float().mean()
    assert abs(together - chance.square().sum()) < 0.12          # 400 pairs: 5 standard errors
    assert any((merging[:, 0] != merging[:, 1]).any() for _, merging in drawn)


# --- Table 7c ---------------------------------------------------------------------------------------------------------
def distance(objective: type, merged: list, drawn: list, scale: float = 1.0) -> float:
    """L_WMR between video embeddings, for classes that are the axes of a plane."""
    model = new_model()
    model.finetune_classes = torch.eye(2)
    rows = (torch.tensor(x, dtype=torch.float32) for x in (merged, drawn))
    return objective(model, True).merged_loss(*rows, None, torch.tensor(scale)).item()


def test_kl_matches_numbers_worked_by_hand():
    """Scale ln 3: the target (1, 0) is p = (3/4, 1/4), the merged (1, 1) is (1/2, 1/2); the other clip is equal."""
    by_hand = (0.75 * math.log(1.5) + 0.25 * math.log(0.5)) / 2
    assert distance(ablations.KL, [[5, 5], [2, 0]], [[3, 0], [1, 0]], math.log(3)) == pytest.approx(by_hand, abs=1e-6)
    assert by_hand == pytest.approx(0.0654, abs=1e-4)


def test_the_scale_of_the_kl_target_is_detached_too():
    """The merged cosines are equal: no scale changes that side."""
    model, scale = new_model(), torch.tensor(1.0, requires_grad=True)
    model.finetune_classes = torch.eye(2)
    ablations.KL(model, True).merged_loss(torch.ones(1, 2), torch.tensor([[1.0, 0.0]]), None, scale).backward()
    assert abs(scale.grad) < 1e-6


def test_mse_feature_is_the_mean_over_clips_and_dimensions():
    assert distance(ablations.MSEFeature, [[1, 2], [0, 0]], [[0, 0], [0, 4]]) == (1 + 4 + 16) / 4


@pytest.mark.parametrize("objective", [ablations.KL, ablations.MSEFeature])
def test_the_merged_pass_is_compared_with_the_drawn_one(objective, batch):
    model, drawn = new_model(), one_hot(0, 2)
    same = objective(model, True)(*batch, drawn, drawn)
    other = objective(model, True)(*batch, drawn, merging_weights(E, 0.6).expand(L, E))
    library = train.Objective(model, True)(*batch, drawn, merging_weights(E, 0.6).expand(L, E))
    assert abs(same["L_WMR"]) < 1e-6 < other["L_WMR"]
    assert_close(other["L_TE"], library["L_TE"])
    assert_close(other["L_MSE"], library["L_MSE"])
    assert_close(objective(model, False)(*batch, drawn, drawn), {"L_TE": library["L_TE"]})


@pytest.mark.parametrize("objective", [ablations.KL, ablations.MSEFeature])
def test_the_drawn_pass_is_a_target_and_not_taught_by_the_comparison(objective, batch):
    model = new_model()
    objective(model, True)(*batch, one_hot(0, 0), one_hot(2, 2))["L_WMR"].backward()
    for block in model.temporal.blocks:
        for tensor in block.experts.parameters():
            assert tensor.grad[2].any() and not tensor.grad[:2].any()


# --- mistakes ---------------------------------------------------------------------------------------------------------
MISTAKES = {
    "nothing": ([], "the following arguments are required: VARIANT, script"),
    "unknown variant": (["gated", "train.py"], "invalid choice: 'gated'"),
    "unknown script": (["kl", "tools/picture.py"], "kl is a variant of train.py, got tools/picture.py"),
    "test-time variant in training": (["random-routing", "train.py"], "random-routing is a variant of eval.py"),
    "training variant at test time": (["point", "eval.py"], "point is a variant of train.py, got eval.py"),
    "another name": (["kl", "train.py", "--variant", "point"], "argument --variant: invalid choice: 'point'"),
    "the script's own": (["kl", "train.py", "--lr", "-1"], "--lr must be a number of at least 0"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_and_status_2(mistake, capsys):
    arguments, expected = MISTAKES[mistake]
    with pytest.raises(SystemExit) as stopped:
        ablations.main(arguments)
    error, = capsys.readouterr().err.strip().splitlines()
    assert stopped.value.code == 2 and expected in error


@pytest.mark.parametrize("run, name", [("kl", "point"), ("train.py", "kl")])
def test_a_run_does_not_go_on_as_another_variant(run, name, runs, tiny, tmp_path, capsys):
    again = ["--resume", str(runs(run) / "step_1.pt"), "--out", str(tmp_path / "again")]
    capsys.readouterr()
    with pytest.raises(SystemExit):
        ablations.main([name, "train.py", *tiny, *again])
    assert capsys.readouterr().err.count("the checkpoint was trained with another variant") == 1


def test_the_list_names_every_variant_its_table_and_what_it_replaces(capsys):
    with pytest.raises(SystemExit) as stopped:
        ablations.main(["--list"])
    lines = capsys.readouterr().out.splitlines()
    assert stopped.value.code == 0 and len(lines) == len(ablations.VARIANTS)
    for line, (name, (table, _, replaces)) in zip(lines, ablations.VARIANTS.items()):
        assert line.startswith(f"{name} ") and f"Table {table}:" in line
        assert all(f"{old.__module__}.{old.__qualname__}" in line for old in replaces)
