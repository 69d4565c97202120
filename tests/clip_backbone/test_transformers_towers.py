"""
A CLIPModel or SiglipModel folder of transformers gives the library's own numbers, and what is none is refused in words.

Tiny models with random weights, saved by the library; frames and sentences go through mote's encode_frames and
encode_classes on one side, and through the library's processor and model on the other.
"""
import copy
import json
import pickle
import shutil
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from support import transformers_folders as folders
from support.clips import NAMES
from support.places import ROOT
from support.transformers_folders import (
    LENGTH,
    SENTENCES,
    SIDE,
    read,
    save_json,
)
from torch.testing import assert_close

from mote.clip_backbone import TEMPLATES, encode_classes, encode_frames, text_hash
from mote.files.towers.of_transformers import (
    build_transformers,
    build_transformers_visual,
    is_transformers,
    load_transformers,
    read_transformers,
)

KINDS = {
    "clip": lambda folder: folders.clip_folder(folder),
    "clip before 2023": lambda folder: folders.clip_folder(folder, end=2),
    "siglip": lambda folder: folders.siglip_folder(folder),
    "siglip2": lambda folder: folders.siglip_folder(folder, folders.gemmas),
}
PEOPLE = ["Applying Eye-Makeup", "don't stop!", *NAMES]                  # capitals and punctuation


@pytest.fixture(scope="module", params=KINDS)
def pair(request, tmp_path_factory):
    """A folder, the library's model in it, and ours."""
    folder = tmp_path_factory.mktemp("model")
    model = KINDS[request.param](folder)
    return folder, model, load(folder)


@pytest.fixture
def clip_folder(tmp_path):
    """A folder with a CLIPModel, for tests that change it."""
    folders.clip_folder(tmp_path)
    return tmp_path


def load(folder, name="model.safetensors"):
    clip = build_transformers(read(folder))
    load_transformers(clip, folder / name)
    return clip.eval()


def tokenizer(folder):
    """The tokenizer that a description asks open_clip for."""
    from open_clip.tokenizer import HFTokenizer, SimpleTokenizer

    text = read(folder)["text_cfg"]
    if "hf_tokenizer_name" not in text:
        return SimpleTokenizer(context_length=text["context_length"])
    return HFTokenizer(str(folder), context_length=text["context_length"], **text.get("tokenizer_kwargs", {}))


def of_processor(folder, sentences, **more):
    """What the library's processor makes of sentences, as its documentation has it; SigLIP2's in lower case."""
    from transformers import AutoProcessor

    if (folder / "tokenizer.json").is_file():
        sentences = [sentence.lower() for sentence in sentences]
    processor = AutoProcessor.from_pretrained(str(folder))
    return processor(text=sentences, truncation=True, max_length=LENGTH, return_tensors="pt", **more)


def frames(seed=0):
    return torch.randn(2, 3, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))


def one_line(raised):
    return len(str(raised.value).splitlines()) == 1


# --- the library's numbers -------------------------------------------------------------------------------------------
@torch.no_grad()
def test_frame_features_are_the_librarys(pair):
    _, model, clip = pair
    theirs = model.get_image_features(pixel_values=frames().flatten(0, 1)).pooler_output
    assert theirs.std(dim=0).min() > 1e-3                       # frames that differ have features that do
    assert_close(encode_frames(clip.visual, frames()).flatten(0, 1), theirs, atol=1e-5, rtol=0)


@torch.no_grad()
def test_class_embeddings_are_the_librarys(pair):
    folder, model, clip = pair
    ours = encode_classes(clip, tokenizer(folder), PEOPLE, TEMPLATES)

    sentences = [template.replace("{}", name) for name in PEOPLE for template in TEMPLATES]
    y = model.get_text_features(**of_processor(folder, sentences, padding="max_length")).pooler_output
    theirs = F.normalize(F.normalize(y, dim=-1).unflatten(0, (len(PEOPLE), -1)).mean(dim=1), dim=-1)
    assert (theirs @ theirs.T).fill_diagonal_(0).max() < 0.99999                  # classes that differ differ
    assert_close(ours, theirs, atol=1e-5, rtol=0)


def test_ids_are_the_processors(pair):
    """Capitals, punctuation, and a sentence that is cut; CLIP's pad with 0 here and with the end there."""
    folder, _, _ = pair
    sentences = [*SENTENCES, "A Photo of Applying_Eye-Makeup, don't!", "", "word " * 40]
    ours = tokenizer(folder)(sentences)
    theirs = of_processor(folder, sentences, padding="max_length")["input_ids"]
    assert ours.shape == theirs.shape == (len(sentences), LENGTH)
    if "hf_tokenizer_name" not in read(folder)["text_cfg"]:
        after_the_end = (theirs == 49407).cumsum(dim=1) > 1
        theirs = theirs.masked_fill(after_the_end, 0)
    assert torch.equal(ours, theirs)


@torch.no_grad()
@pytest.mark.parametrize("end", [2, 49407])
def test_what_clip_is_padded_with_is_not_read(tmp_path, end):
    """The processor pads with the end of text and masks it: 0 without a mask gives the same feature."""
    model = folders.clip_folder(tmp_path, end)
    clip = load(tmp_path)
    theirs = of_processor(tmp_path, SENTENCES, padding="longest")
    assert not theirs["attention_mask"].all()
    assert_close(clip.encode_text(tokenizer(tmp_path)(SENTENCES)),
                 model.get_text_features(**theirs).pooler_output, atol=1e-5, rtol=0)


@torch.no_grad()
def test_siglip_sees_its_padding(tmp_path):
    """Its text tower was trained without a mask: with one, the feature is another."""
    model = folders.siglip_folder(tmp_path)
    clip = load(tmp_path)
    ids = tokenizer(tmp_path)(SENTENCES)
    masked = model.get_text_features(input_ids=ids, attention_mask=(ids != 1).long()).pooler_output
    assert (clip.encode_text(ids) - masked).abs().max() > 1e-2


def test_half_precision_on_the_disk_is_float32_here(tmp_path):
    """config.json names the type of its tower's weights, which the library would build them in."""
    folders.clip_folder(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    for part in (config, config["text_config"], config["vision_config"]):
        part["torch_dtype"] = part["dtype"] = "float16"
    save_json(tmp_path, config=config)
    clip = load(tmp_path)
    assert {tensor.dtype for tensor in clip.state_dict().values()} == {torch.float32}
    state = {name: tensor.half() for name, tensor in load_state(tmp_path).items()}
    torch.save(state, tmp_path / "half.bin")
    half = load(tmp_path, "half.bin")
    assert_close(half.visual(frames()[0]), clip.visual(frames()[0]), atol=0.05, rtol=0.05)
    assert half.visual(frames()[0]).dtype == torch.float32


# --- as open_clip's models look --------------------------------------------------------------------------------------
def test_the_description_fits_the_towers(pair):
    folder, model, clip = pair
    config = read(folder)
    assert clip.visual(frames()[0]).shape == (3, config["embed_dim"])
    assert clip.visual.image_size == config["vision_cfg"]["image_size"] == SIDE
    assert config["text_cfg"]["context_length"] == LENGTH
    assert config["text_cfg"]["vocab_size"] == len(clip.text_model.embeddings.token_embedding.weight)
    assert config.get("quick_gelu", False) == (model.config.model_type == "clip")
    assert clip.logit_scale.item() == model.logit_scale.item()
    if model.config.model_type == "clip":
        assert clip.logit_bias is None
    else:
        assert clip.logit_bias.item() == model.logit_bias.item()


def test_the_text_tower_is_what_does_not_begin_with_visual(pair):
    """clip_backbone.text_hash relies on it: the class embeddings of a run are cached under it."""
    _, _, clip = pair
    whole = text_hash(clip)
    of_one = {"text_projection"} if clip.logit_bias is None else {"logit_bias"}
    parts = {"visual", "logit_scale", "text_model"} | of_one
    assert {name.partition(".")[0] for name in clip.state_dict()} == parts
    for part in parts:
        other = copy.deepcopy(clip)
        name = next(name for name, _ in other.named_parameters() if name.startswith(part))
        with torch.no_grad():
            other.get_parameter(name).add_(1)
        assert (text_hash(other) == whole) == (part in ("visual", "logit_scale", "logit_bias")), name


def test_the_visual_tower_is_built_from_the_description_alone(pair, tmp_path):
    """As from a checkpoint: through torch.save, without the folder, and without a path of it in the description."""
    folder, _, clip = pair
    config = json.loads(json.dumps(read_transformers(folder, f"local-dir:{folder}", "words")))
    assert str(folder) not in json.dumps(config)
    torch.save({"config": config, "visual": clip.visual.state_dict()}, tmp_path / "checkpoint.pt")

    saved = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    visual = build_transformers_visual(saved["config"]).eval()
    visual.load_state_dict(saved["visual"])
    assert_close(visual(frames()[0]), clip.visual(frames()[0]), rtol=0, atol=0)
    assert saved["config"] == config                             # building leaves it as it was


def test_the_librarys_defaults_stand_in_the_description(tmp_path):
    """A later version of the library may have others."""
    save_json(tmp_path, config={"model_type": "siglip", "_name_or_path": "/home/me/siglip", "torch_dtype": "float16"})
    described = read(tmp_path)["transformers"]
    assert described["vision_config"] == {
        "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12,
        "hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-6, "attention_dropout": 0.0, "image_size": 224,
        "patch_size": 16, "num_channels": 3, "vision_use_head": True}
    assert described.keys() == {"model_type", "text_config", "vision_config"}


def test_an_old_config_json_is_read_as_the_library_reads_it(tmp_path):
    """Before 2023 sizes stood in text_config_dict too, and what stood there was meant."""
    save_json(tmp_path, config={"model_type": "clip", "projection_dim": 768, "text_config": {"hidden_size": 512},
                                "text_config_dict": {"hidden_size": 768, "num_attention_heads": 12},
                                "vision_config_dict": {"image_size": [336, 336], "patch_size": 14}})
    config = read(tmp_path)
    assert config["transformers"]["text_config"]["hidden_size"] == 768
    assert config["transformers"]["vision_config"]["patch_size"] == 14
    assert config["vision_cfg"]["image_size"] == 336
    assert config["embed_dim"] == 768


def test_copies_and_pickles_compute_the_same(pair):
    _, _, clip = pair
    clip = copy.deepcopy(clip)
    clip.visual.set_grad_checkpointing(True)
    ids = torch.full((2, LENGTH), 1)
    for other in (copy.deepcopy(clip), pickle.loads(pickle.dumps(clip))):
        assert_close(other.visual(frames()[0]), clip.visual(frames()[0]), rtol=0, atol=0)
        assert_close(other.encode_text(ids), clip.encode_text(ids), rtol=0, atol=0)
        assert other.visual.grad_checkpointing


# --- training --------------------------------------------------------------------------------------------------------
def gradients(visual):
    """Of a sum of features, by the parameter's name; and how often a layer was computed."""
    computed = []
    layer = visual.vision_model.encoder.layers[0]
    handle = layer.mlp.register_forward_pre_hook(lambda *_: computed.append(1))
    visual.zero_grad()
    features = visual(frames()[0])
    (features * torch.arange(features.shape[1])).sum().backward()
    handle.remove()
    return {name: parameter.grad.clone() for name, parameter in visual.named_parameters()}, len(computed)


def test_gradients_reach_every_weight_of_the_visual_tower(pair):
    """None is left out: a DistributedDataParallel would wait for it."""
    visual = copy.deepcopy(pair[2].visual).train()
    grads, computed = gradients(visual)
    assert computed == 1
    for name, grad in grads.items():
        if not name.endswith("k_proj.bias"):                     # a shift of all keys alike: softmax does not see it
            assert grad.abs().max() > 0, name


def test_checkpointing_computes_a_layer_again_for_the_same_gradients(pair):
    visual = copy.deepcopy(pair[2].visual).train()
    plain, once = gradients(visual)
    visual.set_grad_checkpointing(True)
    again, twice = gradients(visual)
    assert (once, twice) == (1, 2)
    assert visual.grad_checkpointing                             # clip_backbone.checkpoint_activations looks for it
    assert_close(again, plain, rtol=0, atol=0)

    visual.set_grad_checkpointing(False)
    assert gradients(visual)[1] == 1
    assert not visual.grad_checkpointing


# --- weights ---------------------------------------------------------------------------------------------------------
def load_state(folder):
    from safetensors.torch import load_file
    return load_file(folder / "model.safetensors")


def test_shards_are_put_together(tmp_path):
    model = folders.siglip_folder(tmp_path, max_shard_size="60KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 2
    clip = load(tmp_path, "model.safetensors.index.json")
    assert_close(clip.visual(frames()[0]), model.get_image_features(frames()[0]).pooler_output, atol=1e-5, rtol=0)


def test_a_bin_with_the_positions_of_old_versions_loads(clip_folder):
    state = load_state(clip_folder)
    state["text_model.embeddings.position_ids"] = torch.arange(LENGTH)[None]
    state["vision_model.embeddings.position_ids"] = torch.arange(17)[None]
    torch.save(state, clip_folder / "pytorch_model.bin")
    assert_close(load(clip_folder, "pytorch_model.bin").state_dict(), load(clip_folder).state_dict(), rtol=0, atol=0)


def without_a_name(state):
    state.pop("text_projection.weight")


def with_a_name(state):
    state["text_model.encoder.layers.2.mlp.fc1.bias"] = torch.zeros(64)


def with_another_shape(state):
    state["visual_projection.weight"] = torch.zeros(24, 1)


def with_whole_numbers(state):
    state["visual_projection.weight"] = torch.zeros(24, 48, dtype=torch.int8)


def of_one_tower(state):
    for name in list(state):
        if not name.startswith("vision_model"):
            state.pop(name)


def with_no_tensor(state):
    state["epoch"] = 3


@pytest.mark.parametrize("change, words", [
    (without_a_name, "1 names are missing or too many: text_projection.weight"),
    (with_a_name, "1 names are missing or too many: text_model.encoder.layers.2.mlp.fc1.bias"),
    (with_another_shape, r"visual.visual_projection.weight is \(24, 1\) torch.float32, and must be \(24, 48\)"),
    (with_whole_numbers, "visual.visual_projection.weight is .* torch.int8, and must be .* floating point"),
    (of_one_tower, "the file is of a visual tower of transformers; .* names are missing"),
    (with_no_tensor, "epoch is no tensor, but a int"),
])
def test_weights_that_do_not_fit_are_refused(clip_folder, change, words):
    state = load_state(clip_folder)
    change(state)
    torch.save(state, clip_folder / "pytorch_model.bin")
    clip = build_transformers(read(clip_folder))
    before = copy.deepcopy(clip.state_dict())
    with pytest.raises(ValueError, match=f"--backbone .*pytorch_model.bin: .*{words}") as raised:
        load_transformers(clip, clip_folder / "pytorch_model.bin")
    assert one_line(raised)
    assert_close(clip.state_dict(), before, rtol=0, atol=0)


def test_a_file_of_another_kind_is_named(clip_folder, tmp_path_factory):
    other = tmp_path_factory.mktemp("siglip")
    folders.siglip_folder(other)
    with pytest.raises(ValueError, match="by its names the file is of a transformers' SiglipModel") as raised:
        load_transformers(build_transformers(read(clip_folder)), other / "model.safetensors")
    assert one_line(raised)


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "model.safetensors.index.json"])
@pytest.mark.parametrize("content", [b"", b"{}", b"version https://git-lfs.github.com/spec/v1\n", b"\x80\x04junk"])
def test_damaged_files_are_refused_in_one_line(clip_folder, name, content):
    (clip_folder / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"--backbone .*{name}: truncated, or not a plain state dict") as raised:
        load(clip_folder, name)
    assert one_line(raised)


def test_a_shard_elsewhere_is_not_read(clip_folder, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "model.safetensors"
    shutil.copy(clip_folder / "model.safetensors", elsewhere)
    (clip_folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"x": str(elsewhere)}}))
    with pytest.raises(ValueError, match="a shard must lie beside the index"):
        load(clip_folder, "model.safetensors.index.json")


def test_a_missing_shard_is_named(tmp_path):
    folders.siglip_folder(tmp_path, max_shard_size="60KB")
    missing = sorted(tmp_path.glob("model-*.safetensors"))[0]
    missing.unlink()
    with pytest.raises(ValueError, match=missing.name) as raised:
        load(tmp_path, "model.safetensors.index.json")
    assert one_line(raised)


class Malicious:
    def __reduce__(self):
        return print, ("code from the file runs",)


def test_code_in_a_bin_is_never_run(clip_folder, capfd):
    torch.save({"logit_scale": Malicious()}, clip_folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match="pytorch_model.bin"):
        load(clip_folder, "pytorch_model.bin")
    assert "code from the file runs" not in capfd.readouterr().out


# --- what is refused -------------------------------------------------------------------------------------------------
def test_open_clips_description_goes_first(clip_folder):
    assert is_transformers(clip_folder)
    (clip_folder / "open_clip_config.json").write_text("{}")
    assert not is_transformers(clip_folder)
    (clip_folder / "config.json").unlink()
    assert not is_transformers(clip_folder)


@pytest.mark.parametrize("config, words", [
    ({"model_type": "altclip"}, "a transformers model of type altclip: only models of type clip and siglip are read$"),
    ({"model_type": "chinese_clip"}, "of type chinese_clip: only"),
    ({"model_type": "clipseg"}, "of type clipseg: only"),
    ({"model_type": "blip"}, "of type blip: only"),
    ({"model_type": "bert"}, "of type bert: only"),
    ({"model_type": "siglip2"}, "of type siglip2: only .*NaFlex.*of type siglip, and open_clip has .*ViT-B-16-SigLIP2"),
    ({"model_type": "metaclip_2"}, "of type metaclip_2: only .*open_clip has MetaCLIP 2 as ViT-H-14-worldwide"),
    ({"model_type": "clip_vision_model"}, "one tower of transformers alone, .* of a whole CLIPModel is needed"),
    ({"model_type": "clip_text_model"}, "one tower of transformers alone, .* of a whole CLIPModel is needed"),
    ({"model_type": "siglip_vision_model"}, "one tower of transformers alone, .* of a whole SiglipModel is needed"),
    ({"model_type": "clip", "architectures": ["CLIPForImageClassification"]},
     "a CLIPForImageClassification of type clip: only CLIPModel is read"),
    ({"model_type": "clip", "auto_map": {"AutoModel": "modeling.CLIPModel"}}, "code of its own .auto_map in config"),
    ({"embed_dim": 512, "vision_cfg": {}, "text_cfg": {}}, "open_clip's description: name it open_clip_config.json"),
    ({"architecture": "vit_base_patch16_224"}, "a model of timm .vit_base_patch16_224., .*no text tower"),
    ({}, "config.json has no model_type, so it is none of transformers"),
    ({"model_type": 3}, "config.json has no model_type"),
    ([], "config.json must hold a JSON object, got a list"),
    ("", "config.json must hold a JSON object"),
    ({"model_type": "clip", "text_config": 3}, "transformers cannot read config.json"),
    ({"model_type": "siglip", "vision_config": {"hidden_size": "wide"}}, "transformers cannot read config.json"),
    ({"model_type": "clip", "vision_config": {"hidden_size": 30, "num_attention_heads": 4}}, "cannot read config"),
    ({"model_type": "clip", "vision_config": {"image_size": [224, 448]}}, r"image_size is \[224, 448\], and only"),
    ({"model_type": "clip", "vision_config": {"image_size": None}}, "image_size is None"),
    ({"model_type": "siglip", "vision_config": {"num_channels": 1}}, "its frames have 1 channels, not 3"),
    ({"model_type": "siglip", "vision_config": {"vision_use_head": False}}, "no head .vision_use_head."),
    ({"model_type": "siglip", "text_config": {"projection_size": 512}}, "features of 768 and 512 numbers"),
])
def test_what_is_no_such_model_is_refused_in_words(tmp_path, config, words):
    save_json(tmp_path, config=config)
    assert is_transformers(tmp_path)                             # or nobody would say these words
    with pytest.raises(ValueError, match=f"--backbone local-dir:[^ ]*: .*{words}") as raised:
        read(tmp_path)
    assert one_line(raised)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"<html>"])
def test_a_config_json_that_is_no_json_is_refused(tmp_path, content):
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(ValueError, match="--backbone local-dir:.*: cannot read config.json") as raised:
        read(tmp_path)
    assert one_line(raised)


def test_an_activation_that_nobody_knows_is_refused_in_one_line(tmp_path):
    save_json(tmp_path, config={"model_type": "siglip", "vision_config": {"hidden_act": "wavy"}})
    with pytest.raises(ValueError, match="transformers cannot build this SiglipModel .KeyError: .*wavy") as raised:
        build_transformers_visual(read(tmp_path))
    assert one_line(raised)


def test_transformers_missing_is_said_with_the_remedy(clip_folder, monkeypatch):
    config = read(clip_folder)
    monkeypatch.setitem(sys.modules, "transformers", None)
    remedy = "transformers reads it, and is not installed: pip install transformers"
    with pytest.raises(ValueError, match=f"--backbone .*{clip_folder} holds a .*: {remedy}") as raised:
        read(clip_folder)
    assert one_line(raised)
    with pytest.raises(ValueError, match=f"a tower of transformers' CLIPModel: {remedy}") as raised:
        build_transformers_visual(config)
    assert one_line(raised)


# --- the terminal ----------------------------------------------------------------------------------------------------
LOADS = """
import sys
from pathlib import Path
from mote.files.towers.of_transformers import *

folder = Path(sys.argv[1])
config = read_transformers(folder, "x", "x")
clip = build_transformers(config)
load_transformers(clip, folder / "model.safetensors")
clip.visual.train().set_grad_checkpointing(True)
clip.visual(torch.zeros(1, 3, 32, 32)).sum().backward()
clip.encode_text(torch.ones(1, 16, dtype=torch.long))
build_transformers_visual(config)
"""


def test_the_library_says_nothing_when_all_is_well(tmp_path):
    """It warns of each published SigLIP, that CLIP's ids of special tokens are not in its vocabulary."""
    folders.siglip_folder(tmp_path)
    done = subprocess.run([sys.executable, "-c", LOADS, str(tmp_path)], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_librarys_own_warnings_come_back_after(clip_folder):
    from transformers.utils import logging

    before = logging.get_verbosity()
    assert before < logging.ERROR
    load(clip_folder)
    assert logging.get_verbosity() == before
