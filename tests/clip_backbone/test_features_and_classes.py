"""
Eq. 1: any CLIP that open_clip can build gives frame features and class embeddings that are CLIP's.

For the shipped tiny CLIP and for a custom-text model with a timm tower, without a network. Checked against naive loops
over frames and sentences and against numbers worked by hand; a cached class set is the right one or none.
"""
import itertools
import json
import math
import warnings
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.clips import NAMES
from torch import nn
from torch.testing import assert_close

from mote import clip_backbone
from mote.clip_backbone import TEMPLATES, class_embeddings, encode_frames, load_clip, normalise


# --- frame features --------------------------------------------------------------------------------------------------
def test_each_frame_goes_through_the_tower_alone_and_back_to_its_place():
    """B = 2, T = 3: the tower is the mean of the pixels, channel by channel."""
    frames = torch.randn(2, 3, 3, 5, 7, generator=torch.Generator().manual_seed(0))
    features = encode_frames(lambda x: x.mean(dim=(2, 3)), frames)
    assert features.shape == (2, 3, 3)
    for b, t in itertools.product(range(2), range(3)):
        assert_close(features[b, t], frames[b, t].mean(dim=(1, 2)))


@pytest.fixture(scope="module")
def frames():
    return torch.randn(3, 2, 3, 40, 40, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def test_frame_features_do_not_depend_on_batch_mates(toy, frames):
    """1e-5 of features of length about 10: float32 products of another size add up in another order."""
    together = encode_frames(toy[0].visual, frames)
    assert together.shape == (3, 2, 64)
    for b in range(3):
        assert_close(encode_frames(toy[0].visual, frames[b:b + 1])[0], together[b], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_frame_features_are_open_clips_image_embeddings(toy, frames):
    right = torch.stack([toy[0].encode_image(clip) for clip in frames])
    assert_close(encode_frames(toy[0].visual, frames), right, atol=1e-5, rtol=1e-5)


def test_normalise_matches_numbers_worked_by_hand():
    """(51 / 255 - 0.5) / 0.25 = -1.2 in the first channel, (255 / 255 - 0.5) / 0.5 = 1 in the second, then -2."""
    frames = torch.tensor([51, 255, 0], dtype=torch.uint8).view(1, 3, 1, 1).expand(2, 3, 4, 5)
    right = torch.tensor([-1.2, 1.0, -2.0]).view(1, 3, 1, 1).expand(2, 3, 4, 5)
    assert_close(normalise(frames, torch.tensor([0.5, 0.5, 0.5]), torch.tensor([0.25, 0.5, 0.25])), right)


# --- templates -------------------------------------------------------------------------------------------------------
def test_the_templates_are_the_papers_28():
    """Table 8: four beginnings, seven endings, "a example" sic."""
    assert len(TEMPLATES) == len(set(TEMPLATES)) == 28
    assert TEMPLATES[0] == "a photo of {}." and TEMPLATES[-1] == "a demonstration of a person practicing {}."
    beginnings = ["a photo of", "a video of", "a example of", "a demonstration of"]
    endings = ["{}.", "a person {}.", "a person using {}.", "a person doing {}.", "a person during {}.",
               "a person performing {}.", "a person practicing {}."]
    assert sorted(TEMPLATES) == sorted(f"{start} {end}" for start, end in itertools.product(beginnings, endings))


# --- class embeddings ------------------------------------------------------------------------------------------------
@torch.no_grad()
def naive(clip, tokenizer, name, templates):
    """One sentence at a time, lengths by hand."""
    total = torch.zeros(clip.text_projection.shape[1], dtype=torch.float64)
    for template in templates:
        y = clip.encode_text(tokenizer([template.replace("{}", name)]))[0].double()
        total += y / math.sqrt((y * y).sum())
    total /= len(templates)
    return total / math.sqrt((total * total).sum())


def test_class_embeddings_are_of_unit_length_in_float32(toy):
    classes = class_embeddings(*toy, NAMES)
    assert classes.shape == (5, 64) and classes.dtype == torch.float32 and not classes.requires_grad
    assert_close(classes.norm(dim=1), torch.ones(5), atol=1e-6, rtol=0)      # a few units of float32's last place


def test_class_embeddings_are_the_normalised_mean_of_normalised_sentences(toy):
    """1e-5: a sentence alone or with 27 others goes through differently blocked float32 products."""
    right = torch.stack([naive(*toy, name, TEMPLATES) for name in NAMES])
    assert_close(class_embeddings(*toy, NAMES).double(), right, atol=1e-5, rtol=0)


def test_sentences_of_unequal_length_count_alike():
    """By hand: sentences along (3, 0) and (0, 4) give (1, 1) / sqrt 2, not (3, 4) / 5."""
    class Clip(nn.Module):
        logit_scale = torch.zeros(())

        def encode_text(self, sentences):
            return torch.tensor([[3.0, 0.0], [0.0, 4.0]])

    class Words:
        def __call__(self, sentences):
            return torch.zeros(len(sentences), 1, dtype=torch.long)

        def warn_of_unknown(self, names):
            pass

    assert_close(class_embeddings(Clip(), Words(), ["x"], ("a {}", "b {}")), torch.full((1, 2), 0.5 ** 0.5))


def test_one_template_is_that_sentence(toy):
    sentence = "a photo of red star."
    with torch.no_grad():
        y = toy[0].encode_text(toy[1]([sentence]))
    classes = class_embeddings(*toy, ["red star"], ("a photo of {}.",))
    assert_close(classes, y / y.norm(), atol=1e-6, rtol=0)


@given(st.permutations(range(5)))
@settings(max_examples=5)
def test_a_class_does_not_depend_on_the_other_names(toy, order):
    right = class_embeddings(*toy, NAMES, TEMPLATES[:3])
    assert_close(class_embeddings(*toy, [NAMES[i] for i in order], TEMPLATES[:3]), right[list(order)], rtol=0, atol=0)


@pytest.mark.parametrize("templates", [("a photo.",), ("{} and {}",), ("a photo of {}.", ""), (), ("a {0}",)], ids=str)
def test_a_template_without_exactly_one_place_is_refused(toy, templates):
    with pytest.raises(ValueError) as raised:
        class_embeddings(*toy, ["star"], templates)
    assert len(str(raised.value).splitlines()) == 1


def test_braces_in_names_and_other_braces_in_templates_are_left_alone(toy):
    with pytest.warns(UserWarning, match="never seen"):
        right = class_embeddings(*toy, ["a {} b {x}"], ("a {}.",))
    with pytest.warns(UserWarning, match="never seen"):
        assert_close(class_embeddings(*toy, ["a {} b"], ("a {} {x}.",)), right)


# --- the cache -------------------------------------------------------------------------------------------------------
@pytest.fixture
def counted(toy, monkeypatch):
    """How often the text tower ran."""
    calls, encode = [], toy[0].encode_text
    monkeypatch.setattr(toy[0], "encode_text", lambda *a, **k: calls.append(1) or encode(*a, **k))
    return calls


def test_a_cached_class_set_does_not_run_the_text_tower(toy, counted, tmp_path):
    first = class_embeddings(*toy, NAMES, cache=tmp_path / "new" / "folder")
    assert counted
    counted.clear()
    assert_close(class_embeddings(*toy, NAMES, cache=tmp_path / "new" / "folder"), first, rtol=0, atol=0)
    assert not counted


@pytest.mark.parametrize("names, templates", [
    (NAMES[::-1], TEMPLATES), (NAMES[:4], TEMPLATES), (NAMES, TEMPLATES[:27]), (NAMES, TEMPLATES[::-1])],
    ids=["order", "fewer", "templates", "template order"])
def test_other_names_or_templates_are_computed_anew(toy, counted, tmp_path, names, templates):
    class_embeddings(*toy, NAMES, cache=tmp_path)
    counted.clear()
    found = class_embeddings(*toy, names, templates, cache=tmp_path)
    assert counted and len(list(tmp_path.iterdir())) == 2
    assert_close(found, class_embeddings(*toy, names, templates), rtol=0, atol=0)


def test_names_cannot_be_mistaken_for_other_names(toy, tmp_path):
    """The same letters, cut elsewhere."""
    for names in (["red", "star"], ["red star"], ["redstar", ""], ["red, star"]):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            class_embeddings(*toy, names, TEMPLATES[:1], cache=tmp_path)
    assert len(list(tmp_path.iterdir())) == 4


@pytest.mark.parametrize("name", ["token_embedding.weight", "transformer.resblocks.1.mlp.c_fc.bias", "text_projection",
                                  "ln_final.weight", "positional_embedding"])
def test_other_text_weights_are_computed_anew(tmp_path, name):
    clip, tokenizer = load_clip("toyworld", "toyworld")
    before = class_embeddings(clip, tokenizer, NAMES, cache=tmp_path)
    parameter = dict(clip.named_parameters())[name]
    with torch.no_grad():                                        # one number, that the sentences do use
        parameter.data.view(-1)[-1 if name != "positional_embedding" else 0] += 0.5
    after = class_embeddings(clip, tokenizer, NAMES, cache=tmp_path)
    assert len(list(tmp_path.iterdir())) == 2
    assert_close(after, class_embeddings(clip, tokenizer, NAMES), rtol=0, atol=0)
    assert not torch.equal(before, after)


def test_visual_weights_do_not_matter_to_the_cache(counted, toy, tmp_path):
    class_embeddings(*toy, NAMES, cache=tmp_path)
    counted.clear()
    weight = toy[0].visual.conv1.weight
    with torch.no_grad():
        weight += 1
        class_embeddings(*toy, NAMES, cache=tmp_path)
        weight -= 1
    assert not counted


@pytest.mark.parametrize("damage", [b"", b"not a tensor", None], ids=["empty", "text", "cut"])
def test_a_damaged_cache_file_is_computed_anew_and_repaired(toy, counted, tmp_path, damage):
    right = class_embeddings(*toy, NAMES, cache=tmp_path)
    file, = tmp_path.iterdir()
    whole = file.read_bytes()
    file.write_bytes(whole[:len(whole) // 2] if damage is None else damage)
    assert_close(class_embeddings(*toy, NAMES, cache=tmp_path), right, rtol=0, atol=0)
    assert list(tmp_path.iterdir()) == [file]
    assert_close(torch.load(file, weights_only=True), right, rtol=0, atol=0)


def test_a_cache_that_cannot_be_written_only_warns(toy, tmp_path):
    (tmp_path / "file").touch()
    with pytest.warns(UserWarning, match="class embeddings not cached"):
        classes = class_embeddings(*toy, NAMES, cache=tmp_path / "file" / "folder")
    assert_close(classes, class_embeddings(*toy, NAMES), rtol=0, atol=0)


def test_the_cache_knows_the_weights_of_a_custom_text_tower(config_file, tmp_path):
    for change in range(2):
        clip, tokenizer = load_clip(config_file("timm"), "")
        with torch.no_grad():
            clip.text.ln_final.weight += change
        class_embeddings(clip, tokenizer, NAMES, TEMPLATES[:1], cache=tmp_path / "cache")
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_the_text_hash_tells_towers_apart_that_have_the_same_weights(tmp_path):
    """Heads and activation are in no weight: without them a cache would give one tower's embeddings to the other."""
    config = json.loads((Path(__file__).parents[2] / "mote/toyworld/toyworld.json").read_text())
    hashes = set()
    for heads, quick in ((2, True), (1, True), (2, False)):
        text = {**config["text_cfg"], "heads": heads}
        (tmp_path / "c.json").write_text(json.dumps({**config, "quick_gelu": quick, "text_cfg": text}))
        hashes.add(clip_backbone.text_hash(load_clip(str(tmp_path / "c.json"), "")[0]))
    assert len(hashes) == 3


# --- the tokenizer ---------------------------------------------------------------------------------------------------
def test_a_full_vocabulary_knows_every_word(config_file):
    clip, tokenizer = load_clip(config_file("tiny"), "")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tokenizer.warn_of_unknown(["zebra", "archaeopteryx"])
