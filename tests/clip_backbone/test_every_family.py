"""
Every family of towers that open_clip describes goes the whole way: features, classes, a training step, a checkpoint.

One or more models of each, made small (tests/survey/shrinking.py), with random weights from a file, beside open_clip's
own model of the same file. All 144 names: `python tests/survey/run.py`, whose tables are in docs/towers.md.
"""
import json
import re

import pytest
import torch
from support.clips import NAMES
from survey import examining, tables
from survey import run as survey
from survey.shrinking import hub_of_tiny_files, kinds, standing_in
from torch.testing import assert_close

import train
from mote.clip_backbone import class_embeddings, encode_frames
from mote.model import MoTE
from mote.runtime.checkpoints import build_model, read_checkpoint, save_checkpoint
from mote.runtime.run_folder import describe_clip
from mote.temporal_experts import TemporalTransformer

# By family, those that differ in code: pooling, projection, stages, tokens.
MODELS = ["ViT-B-32-quickgelu", "ViT-M-16-alt", "RN50", "convnext_base", "convnext_large_d",
          "swin_base_patch4_window7_224", "vit_medium_patch16_gap_256", "vit_relpos_medium_patch16_cls_224",
          "ViT-L-14-CLIPA", "EVA01-g-14", "EVA02-L-14", "ViTamin-S", "MobileCLIP2-S0", "MobileCLIP2-S4",
          "MobileCLIP-B", "MobileCLIP2-L-14", "PE-Core-B-16", "PE-Core-bigG-14-448", "ViT-B-16-SigLIP",
          "ViT-SO400M-16-SigLIP-i18n-256", "ViT-B-16-SigLIP2", "ViT-H-14-worldwide-quickgelu", "ViT-L-14-worldwide",
          "roberta-ViT-B-32", "xlm-roberta-base-ViT-B-32", "mt5-base-ViT-B-32", "nllb-clip-base",
          "nllb-clip-base-siglip", "coca_ViT-B-32", "coca_base", "coca_roberta-ViT-B-32"]


def one_of_each_family_first(names):
    """The first of each family in the default run, the others in the slow one."""
    seen = set()
    for name in names:
        family = tables.family_of(name)
        yield pytest.param(name, marks=[pytest.mark.slow] if family in seen else [])
        seen.add(family)


@pytest.fixture(scope="module", params=one_of_each_family_first(MODELS))
def both(request, tmp_path_factory):
    """The same weights in mote and in open_clip, under the model's own name."""
    pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("tower")
    with hub_of_tiny_files(folder / "hub", request.param):
        yield examining.load_both(request.param, folder, next(iter(examining.tags_to_name(request.param))))


def test_every_family_has_a_model_here():
    assert {tables.family_of(name) for name in MODELS} == set(tables.FAMILIES)


def test_every_name_of_open_clip_is_of_one_family():
    import open_clip
    for name in open_clip.list_models():
        tables.family_of(name)


# --- what a clip gives --------------------------------------------------------------------------------------------
def test_frame_features_are_open_clips(both):
    assert examining.features_off(both) <= 1e-6
    with torch.no_grad():
        features = encode_frames(both.clip.visual, examining.frames_for(both.clip.visual)).flatten(0, 1)
    assert torch.pdist(features / features.norm(dim=1, keepdim=True)).min() > 1e-2    # or it would say nothing


def test_class_embeddings_are_open_clips(both):
    assert examining.same_ids(both)
    assert examining.classes_off(both) <= 1e-6
    assert torch.pdist(class_embeddings(both.clip, both.words, NAMES, examining.SENTENCES)).min() > 1e-3


# --- a training ---------------------------------------------------------------------------------------------------
@pytest.fixture
def model(both):
    """A MoTE of this tower with three classes. The tower is as it was loaded, whatever a test before has done."""
    both.clip.load_state_dict(both.theirs.state_dict())
    torch.manual_seed(0)
    classes = class_embeddings(both.clip, both.words, NAMES[:3], examining.SENTENCES)
    made = MoTE(both.clip.visual, TemporalTransformer(classes.shape[1], 1, 2), classes, both.clip.logit_scale,
                both.clip.pixels)
    yield made
    both.clip.eval()


def test_a_training_step_moves_every_weight(model):
    """Both passes. Some towers draw in training (drop path), and batch norms see the batch: it is train()."""
    config = train.parse_config(["--experts", "2", "--layers", "1", "--clip-lr", "1e-3", "--lr", "1e-3"])
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    side = model.image_size
    frames = torch.randint(256, (4, 2, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    batch = {"frames": frames, "label": torch.tensor([0, 1, 2, 0])}

    optimizer = train.build_optimizer(model.train(), config)
    train.set_learning_rates(optimizer, 5, config)
    losses = train.micro_batch(train.Objective(model, True), batch, config, 0, 0, torch.device("cpu"))
    optimizer.step()

    assert set(losses) == {"L_TE", "L_WMR", "L_MSE"} and all(loss.isfinite() for loss in losses.values())
    experts = re.compile(r"temporal\..*experts")                 # of those, not all are drawn
    still = [name for name, parameter in model.named_parameters()
             if torch.equal(parameter, before[name]) and not experts.match(name)]
    assert not still


def test_a_checkpoint_gives_the_model_back_without_the_hub(both, model, tmp_path):
    name = both.file.stem
    options = {"backbone": name, "pretrained": str(both.file), "as_tag": "", "tokenizer": ""}
    with standing_in(name, both.config):
        about = describe_clip(both.clip, options)
    save_checkpoint(tmp_path / "x.pt", {"model": model.state_dict(), "clip": about, "step": 0, "frames": 2})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "nothing"))
        again = build_model(read_checkpoint(tmp_path / "x.pt"))
    frames = examining.frames_for(model.visual)
    with torch.no_grad():
        right = model.eval().merged()(frames, model.finetune_classes)
        assert_close(again(frames, again.finetune_classes), right, rtol=0, atol=0)
    assert kinds(again.visual) == kinds(both.clip.visual)


def test_activation_checkpointing_is_there_or_is_refused(both):
    """ValueError where checkpoint_activations says otherwise than what happens."""
    assert examining.recomputes(both.clip.visual) == (not both.file.stem.startswith("RN"))


def test_every_parameter_of_the_visual_tower_has_a_gradient(both):
    """Else several ranks could not train it: they wait for the gradient of each."""
    assert examining.without_gradient(both.clip.visual) == []


# --- small, but the same ------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["ViT-S-32", "RN50", "EVA02-B-16", "MobileCLIP2-S0", "coca_ViT-B-32",
                                  "PE-Core-T-16-384", "convnext_tiny", "swin_base_patch4_window7_224", "ViTamin-S"])
def test_a_small_tower_has_the_parts_of_the_real_one(name, tmp_path):
    small = examining.load_both(name, tmp_path, next(iter(examining.tags_to_name(name))))
    about = examining.full_size(name)
    assert sorted(kinds(small.clip.visual)) == about["kinds"]
    assert examining.count(small.clip.visual) < about["visual_parameters"]


# --- the survey of all names --------------------------------------------------------------------------------------
def test_the_survey_fills_a_row_and_says_what_fails(tmp_path, monkeypatch, capsys):
    file = tmp_path / "towers.jsonl"
    assert survey.main(["RN50", "ViT-L-14", "--file", str(file)]) == 0
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert [row["name"] for row in rows] == ["RN50", "ViT-L-14"] and not any(row["failed"] for row in rows)
    assert rows[0]["visual_parameters"] == 38_316_896 and rows[0]["checkpointing"] is False
    assert len(rows[1]["pixels"]) == 2 and rows[1]["size"] == 224 and rows[1]["activation"] == "GELU"

    monkeypatch.setattr(examining, "features_off", lambda both: 2e-6)
    assert survey.main(["RN50", "--file", str(file)]) == 1
    assert "FAILED: ValueError: features" in capsys.readouterr().out
    assert "| 0 of 1 |" in tables.families([json.loads(file.read_text().splitlines()[-1])])


def test_a_name_that_open_clip_has_not_is_one_line(capsys):
    with pytest.raises(SystemExit) as ended:
        survey.main(["ViT-X-99"])
    assert ended.value.code == 2 and capsys.readouterr().err.count("\n") == 1


def test_every_name_stands_in_the_shipped_rows_and_none_failed():
    import open_clip
    rows = tables.newest(survey.read(survey.ROOT / "results" / "towers.jsonl"))
    assert not [row["name"] for row in rows if row["failed"]]
    if rows[0]["versions"]["open_clip_torch"] == survey.version("open_clip_torch"):
        assert {row["name"] for row in rows} == set(open_clip.list_models())
