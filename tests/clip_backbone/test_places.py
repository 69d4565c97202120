"""
Whoever has a model on disk uses it as it is: a folder, a repository in the hub's cache; or is told what is missing.

With open_clip's files. Those of transformers: test_transformers_towers.py.
"""
import json

import huggingface_hub
import open_clip
import pytest
import torch
from support.clips import TINY, features_and_classes

from mote import clip_backbone
from mote.clip_backbone import build_clip, checkpoint_activations, load_clip, text_hash
from mote.files.towers import hub, places

PIXELS = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4], "resize_mode": "squash", "interpolation": "bilinear"}
NAME = "somebody/tiny-clip"


def one_line(raised):
    return len(str(raised.value).splitlines()) == 1


def write_model(folder, clip, *names, pixels=PIXELS):
    """A folder as open_clip's push_to_hf_hub writes it, its weights under these names."""
    folder.mkdir(parents=True, exist_ok=True)
    model = {name: part for name, part in TINY.items() if name != "preprocess_cfg"}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": model, "preprocess_cfg": pixels}))
    for name in names:
        if name.endswith(".safetensors"):
            from safetensors.torch import save_file
            save_file(clip.state_dict(), folder / name)
        else:
            torch.save(clip.state_dict(), folder / name)


@pytest.fixture
def cache(monkeypatch, tmp_path):
    """The hub's cache, empty, and no hub."""
    places.complete.cache_clear()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return tmp_path / "hub"


def snapshot(cache):
    repository = cache / ("models--" + NAME.replace("/", "--"))
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("c0ffee")
    return repository / "snapshots" / "c0ffee"


# --- local-dir:DIR ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["open_clip_model.safetensors", "open_clip_pytorch_model.bin", "epoch_30.pt"])
def test_a_folder_gives_the_description_the_pixels_and_the_weights(original, tmp_path, capsys, name):
    write_model(tmp_path / "model", original, name)
    clip, tokenizer = load_clip(f"local-dir:{tmp_path / 'model'}")
    found, expected = (features_and_classes(model, tokenizer) for model in (clip, original))
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    assert clip.pixels == clip_backbone.Pixels((0.5, 0.4, 0.3), (0.2, 0.3, 0.4), "squash", "bilinear")
    assert "mean 0.5 0.4 0.3, std 0.2 0.3 0.4, squashed, bilinear, of its description" in capsys.readouterr().out


def test_of_several_files_in_a_folder_open_clips_own_name_is_meant(original, halved, tmp_path):
    write_model(tmp_path, halved, "a.safetensors")
    write_model(tmp_path, original, "open_clip_pytorch_model.bin")
    clip, _ = load_clip(f"local-dir:{tmp_path}")
    assert torch.equal(clip.visual.conv1.weight, original.visual.conv1.weight)


def test_which_of_two_files_is_meant_is_asked(original, tmp_path):
    write_model(tmp_path, original, "epoch_1.pt", "epoch_2.pt")
    said = r"--backbone local-dir:.*which weights are meant.*epoch_1.pt, epoch_2.pt"
    with pytest.raises(ValueError, match=said) as raised:
        load_clip(f"local-dir:{tmp_path}")
    assert one_line(raised)


@pytest.mark.parametrize("content, said", [
    (None, "no such folder"), ([], "no open_clip_config.json in it, and no config.json of transformers"),
    (["open_clip_config.json"], "no weights in it, such as open_clip_model.safetensors")])
def test_a_folder_without_a_model_is_one_line(original, tmp_path, content, said):
    folder = tmp_path / "model"
    if content is not None:
        write_model(folder, original)
        if not content:
            (folder / "open_clip_config.json").unlink()
    with pytest.raises(FileNotFoundError, match=f"--backbone local-dir:{folder}: {said}") as raised:
        load_clip(f"local-dir:{folder}")
    assert one_line(raised)


def test_a_prefix_without_a_folder_is_not_the_folder_where_the_user_stands(original, tmp_path, monkeypatch):
    write_model(tmp_path, original, "model.pth")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match="^--backbone local-dir:: no such folder$"):
        load_clip("local-dir:")
    assert torch.equal(load_clip("local-dir:.")[0].visual.conv1.weight, original.visual.conv1.weight)


def test_damaged_weights_of_a_folder_name_the_folder_and_not_pretrained(original, tmp_path):
    write_model(tmp_path, original)
    (tmp_path / "model.pth").write_bytes(b"\x80\x02 cut")
    with pytest.raises(ValueError, match=f"^--backbone local-dir:{tmp_path}: .*model.pth: not weights") as raised:
        load_clip(f"local-dir:{tmp_path}")
    assert one_line(raised)


# --- hf-hub:NAME -----------------------------------------------------------------------------------------------------
def test_a_repository_in_the_cache_is_used_without_a_network(original, cache):
    write_model(snapshot(cache), original, "open_clip_model.safetensors")
    clip, _ = load_clip(f"hf-hub:{NAME}")
    assert torch.equal(clip.visual.conv1.weight, original.visual.conv1.weight) and clip.pixels.mean == (0.5, 0.4, 0.3)


@pytest.mark.parametrize("has_config, missing", [(False, "open_clip_config.json or config.json"),
                                                 (True, "open_clip_model.safetensors or open_clip_pytorch_model.bin")])
def test_what_the_cache_lacks_is_named_in_one_line(original, cache, has_config, missing):
    if has_config:
        write_model(snapshot(cache), original)
    with pytest.raises(OSError, match=rf"--backbone hf-hub:{NAME}: cannot fetch {missing} of {NAME} from .*"
                                      "HF_HUB_OFFLINE is set.*give --backbone local-dir:DIR$") as raised:
        load_clip(f"hf-hub:{NAME}")
    assert one_line(raised)


def test_what_is_no_name_of_a_repository_is_said(cache):
    with pytest.raises(ValueError, match="--backbone hf-hub:a/b/c: 'a/b/c' is not the name of a repository.*ORG/NAME"):
        load_clip("hf-hub:a/b/c")


@pytest.mark.parametrize("error, said", [(ConnectionError("reset\nby peer"), "ConnectionError: reset by peer"),
                                         (huggingface_hub.errors.LocalEntryNotFoundError("no\nroute"), "no route")])
def test_a_download_that_breaks_off_is_one_line(cache, monkeypatch, error, said):
    def fails(*_):
        raise error
    monkeypatch.setattr(hub, "why_no_answer", lambda url: "")
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fails)
    line = f"--pretrained x: cannot fetch a.bin of {NAME} .*{said}.*; do without$"
    with pytest.raises(OSError, match=line) as raised:
        hub.fetch(NAME, ["a.bin"], "--pretrained x", "do without")
    assert one_line(raised)


def test_with_transformers_description_all_that_is_read_beside_it_is_downloaded(cache, monkeypatch, tmp_path):
    """Pixels and words: without them the next start, without a network, would ask for them."""
    asked = []

    def downloads(repository, name):
        asked.append(name)
        if name in ("open_clip_config.json", "processor_config.json"):
            raise huggingface_hub.errors.EntryNotFoundError(name)
        (tmp_path / name).write_text("{}")
        return str(tmp_path / name)
    monkeypatch.setattr(hub, "why_no_answer", lambda url: "")
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", downloads)
    with pytest.raises(ValueError, match=f"--backbone hf-hub:{NAME}: config.json has no model_type"):
        load_clip(f"hf-hub:{NAME}")
    assert asked == ["open_clip_config.json", "config.json", *places.BESIDE]


def test_a_half_downloaded_model_is_completed_and_never_read_as_another(cache, monkeypatch):
    """CLIP's vocabulary size, and a vocabulary that is not there yet: not CLIP's words."""
    folder = snapshot(cache)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    monkeypatch.setattr(hub, "why_no_answer", lambda url: "")

    def fails(repository, name):
        raise ConnectionError("503")
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fails)
    said = f"--backbone hf-hub:{NAME}: cannot fetch preprocessor_config.json of {NAME} .ConnectionError: 503.; fetch"
    with pytest.raises(OSError, match=said) as raised:
        load_clip(f"hf-hub:{NAME}")
    assert one_line(raised)


def test_a_tokenizer_lies_in_the_folder_of_transformers_model_and_elsewhere_for_open_clips(original, cache):
    folder = snapshot(cache)
    write_model(folder, original)
    assert places.tokenizer_folder(f"hf-hub:{NAME}") is None
    (folder / "open_clip_config.json").rename(folder / "config.json")
    assert places.tokenizer_folder(f"hf-hub:{NAME}") == folder


# --- what was meant --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("backbone, pretrained, said", [
    ("{folder}", "", "--backbone {folder}: a folder; if it holds a model, give --backbone local-dir:{folder}"),
    ("ViT-B-32", "{folder}", "--pretrained {folder}: a folder; .*--backbone local-dir:{folder} and no --pretrained"),
    ("openai/clip-vit-base-patch32", "", "if it is a repository of the hub, give --backbone hf-hub:openai/clip-vit"),
    ("ViT-B-32", "laion2b_s32b_b82k", r"neither a file nor a tag of ViT-B-32; tags: .*\(.* is a tag of ViT-L-14\)"),
    ("local-dir:{folder}", "openai", "--pretrained openai: --backbone local-dir:{folder} has weights of its own"),
])
def test_a_mistake_names_what_was_probably_meant(original, tmp_path, backbone, pretrained, said):
    write_model(tmp_path, original, "model.pth")
    with pytest.raises(ValueError, match=said.format(folder=tmp_path)) as raised:
        load_clip(backbone.format(folder=tmp_path), pretrained.format(folder=tmp_path))
    assert one_line(raised)


def test_a_name_that_open_clip_has_once_keeps_its_activation_whatever_the_tag_says():
    """roberta-ViT-B-32 has QuickGELU, its tag says nothing, and there is no roberta-ViT-B-32-quickgelu."""
    from open_clip.pretrained import get_pretrained_cfg

    config = open_clip.get_model_config("roberta-ViT-B-32")
    tag = get_pretrained_cfg("roberta-ViT-B-32", "laion2b_s12b_b32k")
    assert config["quick_gelu"] and not tag.get("quick_gelu")
    clip_backbone.weights.check_activation("roberta-ViT-B-32", "--pretrained laion2b_s12b_b32k", config, tag)


# --- said, not ignored -----------------------------------------------------------------------------------------------
def loaded(tmp_path, state, capsys, **changes):
    """What load_clip makes of these weights and TINY with changes, and what it prints."""
    (tmp_path / "tiny.json").write_text(json.dumps({**TINY, **changes}))
    torch.save(state, tmp_path / "w.pt")
    clip, _ = load_clip(str(tmp_path / "tiny.json"), str(tmp_path / "w.pt"))
    return clip, capsys.readouterr().out


def test_a_logit_bias_that_the_description_lacks_is_loaded_and_said(original, tmp_path, capsys):
    clip, printed = loaded(tmp_path, {**original.state_dict(), "logit_bias": torch.tensor(-7.0)}, capsys)
    assert clip.logit_bias.item() == -7 and "its logit bias, which the description lacks, is loaded" in printed
    assert text_hash(clip) == text_hash(loaded(tmp_path, original.state_dict(), capsys)[0])


def test_a_logit_bias_that_only_the_description_has_is_0_and_said(original, tmp_path, capsys):
    clip, printed = loaded(tmp_path, original.state_dict(), capsys, init_logit_bias=-10)
    assert clip.logit_bias.item() == 0 and "it has no logit bias, which the description has" in printed


def test_position_tables_that_are_resized_are_said(tmp_path, capsys):
    """3 x 3 patches and the class token are 10 positions; 2 x 2 are 5. 20 words become 16."""
    other = build_clip({**TINY, "vision_cfg": {**TINY["vision_cfg"], "image_size": 24},
                        "text_cfg": {**TINY["text_cfg"], "context_length": 20}})
    _, printed = loaded(tmp_path, other.state_dict(), capsys)
    assert "visual.positional_embedding is resized from 10 to 5 positions" in printed
    assert "; positional_embedding is resized from 20 to 16 positions" in printed


def test_what_fits_is_not_commented(original, tmp_path, capsys):
    _, printed = loaded(tmp_path, original.state_dict(), capsys)
    pixels = "pixels: OpenAI's mean and std, short side resized, bicubic, of its description"
    assert printed.rstrip().endswith(f"{pixels}; tokenizer: CLIP's")


def test_frames_that_are_not_square_are_refused(tmp_path):
    vision = {**TINY["vision_cfg"], "image_size": [16, 24]}
    (tmp_path / "wide.json").write_text(json.dumps({**TINY, "vision_cfg": vision}))
    said = "--backbone .*wide.json: its frames are 16 x 24 pixels.*only square"
    with pytest.raises(ValueError, match=said) as raised:
        load_clip(str(tmp_path / "wide.json"), "")
    assert one_line(raised)


@pytest.mark.parametrize("size", [0, -16, "16", 16.0, [16], [], None, [16, -16]])
def test_an_image_size_that_is_no_number_of_pixels_is_refused(tmp_path, size):
    vision = {**TINY["vision_cfg"], "image_size": size}
    (tmp_path / "odd.json").write_text(json.dumps({**TINY, "vision_cfg": vision}))
    with pytest.raises(ValueError, match="--backbone .*odd.json: image_size must be a number of pixels") as raised:
        load_clip(str(tmp_path / "odd.json"), "")
    assert one_line(raised)


@pytest.mark.parametrize("custom_text, whole", [(False, ""), (True, ""), (True, "transformer."), (False, "visual.")])
def test_weights_of_whole_numbers_are_refused(original, tmp_path, custom_text, whole):
    """Quantised: copied into the tower as they are, they would give a score, and a wrong one."""
    (tmp_path / "tiny.json").write_text(json.dumps({**TINY, "custom_text": custom_text}))
    state = {name: (100 * tensor).to(torch.int8) if name.startswith(whole) else tensor
             for name, tensor in original.state_dict().items()}
    torch.save(state, tmp_path / "w.pt")
    with pytest.raises(ValueError, match="is torch.int8, and must be of floating point") as raised:
        load_clip(str(tmp_path / "tiny.json"), str(tmp_path / "w.pt"))
    assert one_line(raised)


def test_activation_checkpointing_that_a_tower_does_not_have_is_refused():
    resnet = build_clip({**TINY, "vision_cfg": {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8}}).visual
    checkpoint_activations(resnet, False)
    with pytest.raises(ValueError, match="--checkpoint-activations: this .* a ModifiedResNet, does not support it"):
        checkpoint_activations(resnet, True)
    vit = build_clip(TINY).visual
    checkpoint_activations(vit, True)
    assert vit.transformer.grad_checkpointing
