"""
Any CLIP that open_clip can build gives frame features and class embeddings that are CLIP's, and a wrong one is refused.

For the shipped tiny CLIP and for a custom-text model with a timm tower and a logit bias, built from a json; for
damaged, foreign and malicious weights; without a network. Checked against naive loops over frames and sentences and
against numbers worked by hand.
"""
import itertools
import json
import math
import pickle
import socket
import warnings
from pathlib import Path

import open_clip
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from open_clip.transformer import QuickGELU
from support.clips import NAMES, TIMM, TINY, features_and_classes, openai_state_dict, save_archive
from torch import nn
from torch.testing import assert_close

from mote import clip_backbone
from mote.clip_backbone import (
    TEMPLATES,
    Tokenizer,
    build_clip,
    build_visual,
    class_embeddings,
    clip_config,
    encode_frames,
    is_torchscript,
    load_clip,
    load_weights,
    normalise,
)


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """No test here may leave the machine."""
    def refuse(*args):
        raise AssertionError("this test wants a network")
    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture(scope="module")
def toy():
    return load_clip("toyworld", "toyworld")


def one_line(raised):
    return len(str(raised.value).splitlines()) == 1


# --- templates -----------------------------------------------------------------------------------------------------
def test_the_templates_are_the_papers_28():
    """Table 8: four beginnings, seven endings, "a example" sic."""
    assert len(TEMPLATES) == len(set(TEMPLATES)) == 28
    assert TEMPLATES[0] == "a photo of {}." and TEMPLATES[-1] == "a demonstration of a person practicing {}."
    beginnings = ["a photo of", "a video of", "a example of", "a demonstration of"]
    endings = ["{}.", "a person {}.", "a person using {}.", "a person doing {}.", "a person during {}.",
               "a person performing {}.", "a person practicing {}."]
    assert sorted(TEMPLATES) == sorted(f"{start} {end}" for start, end in itertools.product(beginnings, endings))


# --- class embeddings ----------------------------------------------------------------------------------------------
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
    assert one_line(raised)


def test_braces_in_names_and_other_braces_in_templates_are_left_alone(toy):
    with pytest.warns(UserWarning, match="never seen"):
        right = class_embeddings(*toy, ["a {} b {x}"], ("a {}.",))
    with pytest.warns(UserWarning, match="never seen"):
        assert_close(class_embeddings(*toy, ["a {} b"], ("a {} {x}.",)), right)


# --- the cache -----------------------------------------------------------------------------------------------------
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


# --- frame features ------------------------------------------------------------------------------------------------
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


# --- the activation ------------------------------------------------------------------------------------------------
def test_quick_gelu_matches_a_number_worked_by_hand():
    """1 / (1 + exp(-1.702)) = 1 / 1.18232 = 0.84580; the exact GELU has 0.84134 there."""
    assert_close(QuickGELU()(torch.tensor(1.0)), torch.tensor(0.84580), atol=1e-5, rtol=0)


@pytest.mark.parametrize("quick, kind", [(True, QuickGELU), (False, nn.GELU)])
def test_the_config_decides_the_activation_of_both_towers(quick, kind):
    clip = build_clip({**TINY, "quick_gelu": quick})
    found = {type(module) for module in clip.modules() if isinstance(module, (QuickGELU, nn.GELU))}
    assert found == {kind}


@pytest.mark.parametrize("backbone", ["ViT-B-16", "ViT-B-32", "ViT-L-14"])
def test_openais_weights_in_a_model_with_gelu_are_refused(monkeypatch, backbone):
    monkeypatch.setattr(clip_backbone, "build_clip", lambda config: None)    # 150 million numbers nobody looks at
    with pytest.raises(ValueError, match=f"--backbone {backbone} has GELU.*use --backbone {backbone}-quickgelu$"):
        load_clip(backbone, "openai")


def test_weights_trained_with_gelu_are_refused_with_quick_gelu(monkeypatch):
    monkeypatch.setattr(clip_backbone, "build_clip", lambda config: None)
    tags = open_clip.list_pretrained_tags_by_model("ViT-B-16-quickgelu")
    gelu = [tag for tag in open_clip.list_pretrained_tags_by_model("ViT-B-16") if tag not in tags]
    with pytest.raises(ValueError, match="--pretrained|activation"):
        load_clip("ViT-B-16-quickgelu", gelu[0])


# --- architectures -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("backbone, near", [("ViT-B16", "ViT-B-16"), ("vit-l-14-quickgelu", "ViT-L-14-quickgelu"),
                                            ("RN-50", "RN50")])
def test_an_unknown_backbone_names_near_ones(backbone, near):
    with pytest.raises(ValueError, match=rf"--backbone {backbone}: .*no such model; near: .*{near}") as raised:
        load_clip(backbone, "")
    assert one_line(raised)


def test_a_missing_json_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"--backbone .*nowhere.json: no such file"):
        clip_config(str(tmp_path / "nowhere.json"))


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "{}", '{"embed_dim": 1, "vision_cfg": {}}', "\x00",
                                  '{"embed_dim": 1, "vision_cfg": [], "text_cfg": {}}'], ids=repr)
def test_a_json_that_describes_no_model_is_refused(tmp_path, text):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(ValueError, match=r"--backbone .*x.json: ") as raised:
        clip_config(str(tmp_path / "x.json"))
    assert one_line(raised)


def test_sizes_that_open_clip_cannot_build_are_refused_in_one_line(config_file):
    Path(config_file("tiny")).write_text(json.dumps({**TINY, "text_cfg": {**TINY["text_cfg"], "colour": "red"}}))
    with pytest.raises(ValueError, match="open_clip cannot build this model") as raised:
        load_clip(config_file("tiny"), "")
    assert one_line(raised)


def test_a_json_may_be_an_open_clip_hub_config(tmp_path):
    """{"model_cfg", "preprocess_cfg"}: the second says how pixels are normalised."""
    pixels = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4]}
    (tmp_path / "x.json").write_text(json.dumps({"model_cfg": TINY, "preprocess_cfg": pixels}))
    assert TINY.items() <= clip_config(str(tmp_path / "x.json")).items()
    clip, _ = load_clip(str(tmp_path / "x.json"), "")
    assert clip.token_embedding.weight.shape == (49408, 32)
    assert (list(clip.image_mean), list(clip.image_std)) == (pixels["mean"], pixels["std"])


def test_the_visual_tower_alone_is_that_of_the_whole_model():
    for config in (TINY, TIMM):
        config = json.loads(json.dumps(config))
        config["vision_cfg"].pop("timm_model_pretrained", None)
        shapes = {name: tensor.shape for name, tensor in build_clip(config).visual.state_dict().items()}
        assert {name: tensor.shape for name, tensor in build_visual(config).state_dict().items()} == shapes


@torch.no_grad()
def test_a_custom_text_model_with_a_timm_tower_and_a_logit_bias_loads(config_file, tmp_path):
    original, _ = load_clip(config_file("timm"), "")
    original.logit_bias.fill_(-7)
    torch.save(original.state_dict(), tmp_path / "weights.pt")
    clip, tokenizer = load_clip(config_file("timm"), str(tmp_path / "weights.pt"))
    assert clip.logit_bias.item() == -7 and not hasattr(clip, "token_embedding")
    images = torch.randn(2, 3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    features = encode_frames(clip.visual, images)
    assert features.shape == (2, 3, 32)
    assert_close(features, encode_frames(original.eval().visual, images), rtol=0, atol=0)
    classes = class_embeddings(clip, tokenizer, NAMES)
    assert_close(classes.norm(dim=1), torch.ones(5), atol=1e-6, rtol=0)
    sentence = clip.encode_text(tokenizer(["a photo of ring."]))
    assert tokenizer(["a photo of ring."]).shape == (1, 16)      # the model's context length, not 77
    assert_close(class_embeddings(clip, tokenizer, ["ring"], ("a photo of {}.",)), sentence / sentence.norm())


def test_the_cache_knows_the_weights_of_a_custom_text_tower(config_file, tmp_path):
    for change in range(2):
        clip, tokenizer = load_clip(config_file("timm"), "")
        with torch.no_grad():
            clip.text.ln_final.weight += change
        class_embeddings(clip, tokenizer, NAMES, TEMPLATES[:1], cache=tmp_path / "cache")
    assert len(list((tmp_path / "cache").iterdir())) == 2


# --- weights -------------------------------------------------------------------------------------------------------
def test_a_local_file_loads_and_prints_its_activation(config_file, tmp_path, capsys):
    original = build_clip(TINY)
    torch.save(original.state_dict(), tmp_path / "w.pt")
    clip, _ = load_clip(config_file("tiny"), str(tmp_path / "w.pt"))
    printed = capsys.readouterr().out
    assert "activation QuickGELU" in printed and "w.pt" in printed and len(printed.splitlines()) == 1
    for name, tensor in original.state_dict().items():
        assert_close(clip.state_dict()[name], tensor, rtol=0, atol=0)


def test_a_training_checkpoint_of_open_clip_loads(config_file, tmp_path):
    original = build_clip(TINY)
    state = {f"module.{name}": tensor for name, tensor in original.state_dict().items()}
    torch.save({"epoch": 3, "state_dict": state}, tmp_path / "w.pt")
    clip, _ = load_clip(config_file("tiny"), str(tmp_path / "w.pt"))
    assert_close(clip.visual.conv1.weight, original.visual.conv1.weight, rtol=0, atol=0)


@pytest.mark.parametrize("wrapped", [False, True], ids=["plain", "state_dict, module."])
def test_openais_state_dict_in_half_precision_loads(original, halved, wrapped, config_file, tmp_path):
    """The same numbers, to the bit, as their halves in float32; those of the original to 5e-3: a half has 11 bits, and
    2^-11 of features of length 5 is 2.4e-3 (1.1e-3 was seen)."""
    state = openai_state_dict(original)
    if wrapped:
        state = {"epoch": 1, "state_dict": {f"module.{name}": tensor for name, tensor in state.items()}}
    torch.save(state, tmp_path / "w.pt")
    clip, tokenizer = load_clip(config_file("tiny"), str(tmp_path / "w.pt"))
    assert {p.dtype for p in clip.parameters()} == {torch.float32}
    found = features_and_classes(clip, tokenizer)
    assert_close(found, features_and_classes(halved, tokenizer), rtol=0, atol=0)
    assert_close(found, features_and_classes(original, tokenizer), rtol=0, atol=5e-3)


def test_safetensors_load(original, config_file, tmp_path):
    from safetensors.torch import save_file
    save_file(original.state_dict(), tmp_path / "w.safetensors")
    clip, tokenizer = load_clip(config_file("tiny"), str(tmp_path / "w.safetensors"))
    assert_close(features_and_classes(clip, tokenizer), features_and_classes(original, tokenizer), rtol=0, atol=0)


@pytest.mark.parametrize("change", ["a name too many", "a name too few"])
def test_only_openais_three_sizes_may_be_too_many(original, change, config_file, tmp_path):
    state = openai_state_dict(original)
    if change == "a name too many":
        state["visual.extra"] = torch.zeros(3)
    else:
        del state["ln_final.bias"]
    torch.save(state, tmp_path / "w.pt")
    name = "visual.extra" if "many" in change else "ln_final.bias"
    with pytest.raises(ValueError, match=rf"not weights of this architecture.*1 names are missing or too many: {name}"):
        load_clip(config_file("tiny"), str(tmp_path / "w.pt"))


def test_a_torchscript_archive_is_refused_before_its_code_runs(original, config_file, tmp_path, capfd):
    file = tmp_path / "ViT-B-16.pt"
    save_archive(openai_state_dict(original), file, talks=True)
    capfd.readouterr()
    with warnings.catch_warnings():
        warnings.simplefilter("error")                           # torch.load would warn before it refuses
        with pytest.raises(ValueError, match=r"--pretrained .*ViT-B-16.pt: a TorchScript archive") as raised:
            load_clip(config_file("tiny"), str(file))
    assert one_line(raised) and "code from the archive runs" not in capfd.readouterr().out
    assert str(raised.value).endswith(f"python tools/convert.py {file} ViT-B-16-weights.pt")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.load(str(file))                                # so the test would have seen it
    assert "code from the archive runs" in capfd.readouterr().out


def test_only_archives_of_torchscript_are_taken_for_such(original, tmp_path):
    save_archive(openai_state_dict(original), tmp_path / "jit.pt")
    torch.save({"w": torch.zeros(3), "constants.pkl": 1}, tmp_path / "zip.pt")
    torch.save({"w": torch.zeros(3)}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    (tmp_path / "cut.pt").write_bytes((tmp_path / "jit.pt").read_bytes()[:-100])
    (tmp_path / "empty.pt").touch()
    found = {file.name for file in tmp_path.iterdir() if is_torchscript(file)}
    assert found == {"jit.pt"} and not is_torchscript(tmp_path / "nowhere.pt")


def test_what_is_loaded_is_in_evaluation_mode_and_knows_its_pixels(toy):
    assert not toy[0].training
    assert_close(torch.tensor(toy[0].image_mean), torch.tensor(open_clip.OPENAI_DATASET_MEAN))
    assert_close(torch.tensor(toy[0].image_std), torch.tensor(open_clip.OPENAI_DATASET_STD))


def test_a_file_that_is_not_there_names_the_tags(tmp_path):
    with pytest.raises(ValueError, match=r"--pretrained nonsense: neither a file nor a tag of toyworld; tags: none"):
        load_clip("toyworld", "nonsense")
    with pytest.raises(ValueError, match=r"--pretrained .*nowhere.pt: neither a file nor a tag of toyworld"):
        load_clip("toyworld", str(tmp_path / "nowhere.pt"))


class Bomb:
    """Runs code when unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def write_weights(file, how, marker):
    whole = build_clip({**TINY, "embed_dim": 16} if how == "another architecture" else TINY).state_dict()
    torch.save({"w": Bomb(marker)} if how == "code" else whole, file)
    if how == "plain pickle with code":
        file.write_bytes(pickle.dumps({"w": Bomb(marker)}, protocol=2))
    if how == "truncated":
        file.write_bytes(file.read_bytes()[:-1000])
    if how in ("text", "empty"):
        file.write_text("weights" if how == "text" else "")
    if how == "a list":
        torch.save([1, 2], file)
    if how == "fewer tensors":
        torch.save(dict(list(whole.items())[:-3]), file)


@pytest.mark.parametrize("how", ["another architecture", "code", "plain pickle with code", "truncated", "text", "empty",
                                 "a list", "fewer tensors"])
def test_a_file_that_is_not_these_weights_is_refused_in_one_line(config_file, tmp_path, how):
    file, marker = tmp_path / "w.pt", tmp_path / "marker"
    write_weights(file, how, marker)
    with pytest.raises(ValueError, match=r"--pretrained .*w.pt: not weights of this architecture") as raised:
        load_clip(config_file("tiny"), str(file))
    assert one_line(raised) and not marker.exists()


def test_without_a_network_the_message_says_how_to_pass_a_file(monkeypatch):
    def offline(*args, **kwargs):
        raise ConnectionError("Max retries exceeded\nwith url")
    monkeypatch.setattr(open_clip, "download_pretrained", offline)
    monkeypatch.setattr(clip_backbone, "build_clip", lambda config: None)
    with pytest.raises(OSError, match="--pretrained openai: cannot download it.*--pretrained FILE") as raised:
        load_clip("ViT-B-16-quickgelu", "openai")
    assert one_line(raised)


def test_a_tag_is_loaded_from_the_file_that_was_downloaded(monkeypatch, tmp_path):
    seen = []
    monkeypatch.setattr(open_clip, "download_pretrained", lambda tag: seen.append(tag) or str(tmp_path / "w.pt"))
    monkeypatch.setattr(clip_backbone, "build_clip", lambda config: nn.Linear(1, 1))
    monkeypatch.setattr(clip_backbone, "load_weights", lambda clip, file: seen.append(file))
    clip, _ = load_clip("ViT-B-16-quickgelu", "openai")
    assert seen[1] == tmp_path / "w.pt" and seen[0]["quick_gelu"]
    assert_close(torch.tensor(clip.image_mean), torch.tensor(open_clip.OPENAI_DATASET_MEAN))


# --- a small vocabulary --------------------------------------------------------------------------------------------
@torch.no_grad()
def test_token_rows_are_put_back_in_their_places(tmp_path):
    """Saved: only the rows of the tokens in use. Sentences of those words are encoded as before."""
    original = build_clip(TINY).eval()
    tokens = Tokenizer("tiny", TINY)(["a red star", "moving left"])
    ids = tokens.unique()
    state = {**original.state_dict(), "token_embedding.weight": original.token_embedding.weight[ids], "token_ids": ids}
    torch.save(state, tmp_path / "rows.pt")
    clip = build_clip(TINY).eval()
    load_weights(clip, tmp_path / "rows.pt")
    assert_close(clip.encode_text(tokens), original.encode_text(tokens), rtol=0, atol=0)
    others = torch.ones(49408, dtype=torch.bool).index_fill_(0, ids, False)
    assert_close(clip.token_embedding.weight[others], torch.zeros(int(others.sum()), 32))


def test_a_full_vocabulary_knows_every_word(config_file):
    clip, tokenizer = load_clip(config_file("tiny"), "")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tokenizer.warn_of_unknown(["zebra", "archaeopteryx"])


def test_shipped_weights_are_found_beside_the_module_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load_clip("toyworld", "toyworld")[0].token_ids.numel() > 30


def test_shipped_weights_load_by_their_path_too(toy):
    here = Path(clip_backbone.__file__).parent / "toyworld"
    clip, _ = load_clip(str(here / "toyworld.json"), str(here / "toyworld.pt"))
    assert_close(clip.token_embedding.weight, toy[0].token_embedding.weight, rtol=0, atol=0)


def test_the_text_hash_tells_towers_apart_that_have_the_same_weights(tmp_path):
    """Heads and activation are in no weight: without them a cache would give one tower's embeddings to the other."""
    config = json.loads((Path(__file__).parents[2] / "mote/toyworld/toyworld.json").read_text())
    hashes = set()
    for heads, quick in ((2, True), (1, True), (2, False)):
        text = {**config["text_cfg"], "heads": heads}
        (tmp_path / "c.json").write_text(json.dumps({**config, "quick_gelu": quick, "text_cfg": text}))
        hashes.add(clip_backbone.text_hash(load_clip(str(tmp_path / "c.json"), "")[0]))
    assert len(hashes) == 3
