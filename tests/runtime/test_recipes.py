"""
The defaults of train.py: by dataset, then by backbone, then for the baselines; what the user says wins.

Checked against Table 6, Section 4.1 and Appendix B of the paper.
"""
import pytest

import train
from mote.runtime.recipes import BACKBONES, DATASETS, check_recipe, in_proportion

L14 = ["--backbone", "ViT-L-14-quickgelu"]


def config(*argv: str) -> train.Config:
    return train.parse_config(list(argv))


# --- datasets -------------------------------------------------------------------------------------
@pytest.mark.parametrize("argv", [[], ["--data", "toyworld"], ["--data", "toyworld", "--data-root", "anywhere"]])
def test_toyworlds_recipe_is_for_toyworld_and_for_no_dataset(argv):
    toyworld = config(*argv)
    assert toyworld.data == "toyworld"
    assert {name: getattr(toyworld, name) for name in DATASETS["toyworld"]} == DATASETS["toyworld"]


@pytest.mark.parametrize("argv, epochs, flip", [
    (["--data", "k400"], 30, True), (["--data", "ucf101"], 10, True), (["--data", "hmdb51"], 10, True),
    (["--data", "ssv2"], 2, False), (["--data", "ssv2", "--data-root", "x"], 2, False),
    (["--data", "mine"], 30, True)])
def test_a_dataset_has_the_epochs_and_the_flips_of_the_paper(argv, epochs, flip):
    assert (config(*argv).epochs, config(*argv).flip) == (epochs, flip)


@pytest.mark.parametrize("name", [*DATASETS, "k400", "mine"])
def test_the_rate_of_every_recipe_reaches_its_peak_and_falls(name):
    recipe = config("--data", name)
    peak = train.learning_rate(recipe.warmup, 1.0, recipe.epochs, recipe.warmup)
    last = train.learning_rate(recipe.epochs, 1.0, recipe.epochs, recipe.warmup)
    assert recipe.warmup <= recipe.epochs / 2 and peak == 1.0 and abs(last) < 1e-12


def test_ssv2_keeps_colours_and_left_and_right_and_warms_up_for_half_an_epoch():
    ssv2 = config("--data", "ssv2")
    assert (ssv2.gray, ssv2.flip, ssv2.warmup) == (False, False, 0.5)
    assert config("--data", "k400").gray


@pytest.mark.parametrize("name", [*DATASETS, "mine"])
def test_a_folder_named_after_a_dataset_takes_no_recipe_of_it(tmp_path, monkeypatch, name):
    (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / name)
    for root in (str(tmp_path / name), f"{tmp_path / name}/", "."):
        by_path = config("--data-root", root)
        plain = config("--data", "k400", "--data-root", root)
        assert by_path.data == name
        assert {**vars(by_path), "data": ""} == {**vars(plain), "data": ""}


# --- backbones ------------------------------------------------------------------------------------
@pytest.mark.parametrize("argv, layers, epochs", [
    (["--data", "k400"], 4, 30), (["--data", "k400", "--backbone", "ViT-B-32-quickgelu"], 4, 30),
    (["--data", "k400", *L14], 6, 20), (["--data-root", "x", *L14], 6, 20),
    (["--data", "k400", "--backbone", "RN50-quickgelu"], 4, 30)])            # of no recipe
def test_a_backbone_has_the_layers_and_the_epochs_of_the_paper(argv, layers, epochs):
    assert (config(*argv).layers, config(*argv).epochs) == (layers, epochs)


@pytest.mark.parametrize("data, epochs", [("ucf101", 10), ("hmdb51", 10), ("ssv2", 2)])
def test_a_backbones_epochs_lose_to_the_datasets_and_its_layers_stay(data, epochs):
    few = config("--data", data, *L14)
    assert (few.layers, few.epochs) == (6, epochs)


def test_a_datasets_backbone_has_its_recipe_unless_another_is_given():
    assert config("--data", "toyworld").layers == 3
    other = config("--data", "toyworld", *L14)
    assert (other.layers, other.epochs, other.backbone) == (3, 16, L14[1])   # both are toyworld's own


def test_what_the_user_says_wins_over_dataset_and_backbone():
    mine = config("--data", "ucf101", *L14, "--epochs", "3", "--layers", "2", "--no-flip")
    assert (mine.epochs, mine.layers, mine.flip) == (3, 2, False)


# --- baselines ------------------------------------------------------------------------------------
@pytest.mark.parametrize("argv", [["--experts", "1"], ["--layers", "0"], ["--experts", "1", "--layers", "0"]])
@pytest.mark.parametrize("data", ["toyworld", "k400", "ssv2"])
def test_baselines_have_no_second_loss(argv, data):
    baseline = config("--data", data, *argv)
    assert (baseline.weight_merged, baseline.weight_mse, baseline.second_pass) == (0, 0, False)


def test_experts_have_the_papers_weights_and_a_second_pass():
    mote = config("--data", "k400")
    assert (mote.weight_merged, mote.weight_mse, mote.second_pass) == (0.5, 0.1, True)


@pytest.mark.parametrize("argv, second_pass", [
    (["--experts", "1", "--weight-merged", "0.5"], True), (["--layers", "0", "--weight-mse", "0.1"], True),
    (["--weight-merged", "0", "--weight-mse", "0"], False), (["--weight-merged", "0"], True)])
def test_weights_that_the_user_gives_decide_on_the_second_pass(argv, second_pass):
    assert config("--data", "k400", *argv).second_pass == second_pass


# --- short runs -----------------------------------------------------------------------------------
@pytest.mark.parametrize("argv, warmup", [
    (["--data", "k400"], 5), (["--data", "k400", "--epochs", "60"], 5),
    (["--data", "k400", "--epochs", "15"], 2.5), (["--data", "k400", "--epochs", "1"], 1 / 6),
    (["--data", "k400", *L14, "--epochs", "10"], 2.5), (["--data", "k400", *L14, "--epochs", "20"], 5),
    (["--data", "ucf101", "--epochs", "4"], 2), (["--data", "ucf101", *L14, "--epochs", "4"], 2),
    (["--data", "ssv2", "--epochs", "1"], 0.25), (["--epochs", "4"], 0.25),
    (["--data", "k400", "--epochs", "15", "--warmup", "4"], 4)])
def test_fewer_epochs_shrink_the_warm_up_in_proportion_unless_it_is_given(argv, warmup):
    assert config(*argv).warmup == pytest.approx(warmup)


@pytest.mark.parametrize("argv, words", [
    (["--data", "k400", "--epochs", "15"], ", in proportion to the recipe's 5 of 30"),
    (["--data", "ssv2", "--epochs", "1"], ", in proportion to the recipe's 0.5 of 2"),
    (["--data", "k400"], ""), (["--data", "k400", "--epochs", "15", "--warmup", "5"], "")])
def test_the_header_says_that_a_warm_up_was_shrunk(argv, words):
    assert in_proportion(vars(config(*argv))) == words


def test_no_recipe_has_more_epochs_than_the_configurations_default():
    """`of_short_run` takes the default for "not given"."""
    epochs = [recipe["epochs"] for recipe in (*DATASETS.values(), *BACKBONES.values()) if "epochs" in recipe]
    assert max(epochs) <= train.Config().epochs == 30 and train.Config().warmup == 5


@pytest.mark.parametrize("epochs, warmup", [("2", "5"), ("2", "2"), ("1", "1.5")])
def test_a_warm_up_that_is_not_shorter_than_the_epochs_is_refused(epochs, warmup):
    with pytest.raises(ValueError, match=f"--warmup {warmup} must be shorter than --epochs {epochs}: the learning"):
        config("--data", "k400", "--epochs", epochs, "--warmup", warmup)


# --- what does not go together --------------------------------------------------------------------
@pytest.mark.parametrize("frames, layers, lr, clip_lr", [
    (77, 4, 5e-5, 3e-6), (78, 0, 5e-5, 3e-6),                    # mean pooling has no positions
    (8, 4, 5e-5, 0.0), (8, 4, 0.0, 3e-6), (8, 0, 5e-5, 3e-6), (8, 0, 0.0, 3e-6)])
def test_a_recipe_that_trains_something_is_fine(frames, layers, lr, clip_lr):
    check_recipe(frames, layers, lr, clip_lr, 30, 5.0)


@pytest.mark.parametrize("frames, layers, lr, clip_lr, words", [
    (78, 1, 5e-5, 3e-6, "--frames 78: the table of frame positions has 77 rows"),
    (8, 4, 0.0, 0.0, "nothing to train: --clip-lr 0 freezes CLIP"),
    (8, 0, 5e-5, 0.0, "nothing to train: --clip-lr 0 freezes CLIP")])
def test_a_recipe_that_cannot_train_is_one_line(frames, layers, lr, clip_lr, words):
    with pytest.raises(ValueError, match=words) as raised:
        check_recipe(frames, layers, lr, clip_lr, 30, 5.0)
    assert len(str(raised.value).splitlines()) == 1


@pytest.mark.parametrize("argv", [["--data", "k400"], ["--data", "toyworld"], []])
def test_a_folder_or_a_repository_has_weights_of_its_own(argv):
    for backbone in ("local-dir:somewhere", "hf-hub:somebody/something"):
        assert train.parse_config([*argv, "--backbone", backbone]).pretrained == ""
    assert train.parse_config([*argv, "--backbone", "ViT-B-32", "--pretrained", "w.pt"]).pretrained == "w.pt"
