"""
The weights that were asked for are loaded into the model that they were trained in, and wrong ones are refused.

For the shipped tiny CLIP and for a custom-text model with a timm tower and a logit bias, built from a json; for
damaged, foreign and malicious weights; without a network.
"""
import json
import pickle
import warnings
from pathlib import Path

import open_clip
import pytest
import torch
from open_clip.transformer import QuickGELU
from support.clips import NAMES, TIMM, TINY, features_and_classes, openai_state_dict, save_archive
from torch import nn
from torch.testing import assert_close

from mote import clip_backbone
from mote.clip_backbone import (
    Tokenizer,
    build_clip,
    build_visual,
    class_embeddings,
    clip_config,
    encode_frames,
    is_torchscript,
    load_clip,
    load_weights,
)
from mote.files.weights import stands_in


def one_line(raised):
    return len(str(raised.value).splitlines()) == 1


# --- the activation --------------------------------------------------------------------------------------------------
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


# --- architectures ---------------------------------------------------------------------------------------------------
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


@pytest.mark.parametrize("tower", ["vision_cfg", "text_cfg"])
def test_a_bare_assertion_of_open_clip_is_one_line_too(config_file, tower):
    Path(config_file("tiny")).write_text(json.dumps({**TINY, tower: {**TINY[tower], "pool_type": "nonsense"}}))
    with pytest.raises(ValueError, match="--backbone: open_clip cannot build this model .AssertionError") as raised:
        load_clip(config_file("tiny"), "")
    assert one_line(raised)


def test_a_json_may_be_an_open_clip_hub_config(tmp_path):
    """{"model_cfg", "preprocess_cfg"}: the second says how pixels are normalised."""
    pixels = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4]}
    model = {name: part for name, part in TINY.items() if name != "preprocess_cfg"}
    (tmp_path / "x.json").write_text(json.dumps({"model_cfg": model, "preprocess_cfg": pixels}))
    assert model.items() <= clip_config(str(tmp_path / "x.json")).items()
    clip, _ = load_clip(str(tmp_path / "x.json"), "")
    assert clip.token_embedding.weight.shape == (49408, 32)
    assert (list(clip.pixels.mean), list(clip.pixels.std)) == (pixels["mean"], pixels["std"])


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


# --- weights ---------------------------------------------------------------------------------------------------------
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
    assert_close(torch.tensor(toy[0].pixels.mean), torch.tensor(open_clip.OPENAI_DATASET_MEAN))
    assert_close(torch.tensor(toy[0].pixels.std), torch.tensor(open_clip.OPENAI_DATASET_STD))


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


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 353976522\n"
IN_PLACE = {
    "pointer": (POINTER.encode(), "a Git LFS pointer, not the file itself: run `git lfs pull`"),
    "annex": (b"/annex/objects/SHA256E-s353976522--4d7a.pt\n", "a git-annex pointer, not the file itself"),
    "page": (b"<!DOCTYPE html>\n<html><title>Sign in</title>", "a saved web page, not the file itself"),
    "old page": (b"\xef\xbb\xbf\r\n <HTML><body>\xe9t\xe9", "a saved web page, not the file itself"),
    "denied": (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "a saved web page"),
    "comment": (b"<!-- saved from url=(0014) --><html>" + b" " * 2000, "a saved web page"),
    "sentence": (b"Entry not found", "a text, it begins with 'Entry not found'"),
    "json": (b'{"error": "Repository not found"}', "a text, it begins with '{\"error\""),
    "long": ("weights é ".encode() * 200, "a text, it begins with 'weights"),
}


@pytest.mark.parametrize("content, said", IN_PLACE.values(), ids=IN_PLACE)
def test_what_stands_in_place_of_weights_is_named(config_file, tmp_path, content, said):
    file = tmp_path / "w.pt"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r"--pretrained .*w.pt: ") as raised:
        load_clip(config_file("tiny"), str(file))
    assert one_line(raised) and said in str(raised.value)


@pytest.mark.parametrize("begin", [b"<h\x00\x00\x00\x00\x00\x00{", b"PK\x03\x04<html>", b"\x80\x02}", b"", b"\xff\xfe"])
def test_weights_are_never_taken_for_a_page_or_a_pointer(tmp_path, begin):
    (tmp_path / "w.pt").write_bytes(begin + b"\x00" * 100)
    assert stands_in(tmp_path / "w.pt") == ""


def test_a_tag_is_loaded_from_the_file_that_was_downloaded(monkeypatch, tmp_path):
    seen = []
    monkeypatch.setattr("mote.files.weights.download", lambda name, tag: seen.append(tag) or tmp_path / "w.pt")
    monkeypatch.setattr(clip_backbone, "build_clip", lambda config: nn.Linear(1, 1))
    monkeypatch.setattr(clip_backbone, "load_weights", lambda clip, file, option: seen.append(file) or [])
    clip, _ = load_clip("ViT-B-16-quickgelu", "openai")
    assert seen[1] == tmp_path / "w.pt" and seen[0]["quick_gelu"]
    assert_close(torch.tensor(clip.pixels.mean), torch.tensor(open_clip.OPENAI_DATASET_MEAN))


# --- a small vocabulary ----------------------------------------------------------------------------------------------
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


# --- the shipped weights ---------------------------------------------------------------------------------------------
def test_shipped_weights_are_found_beside_the_module_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load_clip("toyworld", "toyworld")[0].token_ids.numel() > 30


def test_shipped_weights_load_by_their_path_too(toy):
    here = Path(clip_backbone.__file__).parent / "toyworld"
    clip, _ = load_clip(str(here / "toyworld.json"), str(here / "toyworld.pt"))
    assert_close(clip.token_embedding.weight, toy[0].token_embedding.weight, rtol=0, atol=0)
