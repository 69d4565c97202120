"""
load_clip on a folder of transformers, or a repository of it in the cache: as transformers computes it, words included.

The models are tiny and random, laid out as the published ones are.
"""
import json
import shutil

import open_clip
import pytest
import torch
import torch.nn.functional as F
from support import transformers_folders as folders

from mote.clip_backbone import class_embeddings, clip_config, encode_frames, load_clip, text_hash
from mote.files.towers.pixels import Pixels

NAMES = ["Archery", "juggling balls", "apply eye make-up"]
KINDS = {"clip": folders.clip_folder, "siglip": folders.siglip_folder,
         "siglip2": lambda folder: folders.siglip_folder(folder, folders.gemmas)}


@pytest.fixture(scope="module", params=KINDS)
def made(request, tmp_path_factory):
    """The kind, a folder, and the library's own model in it."""
    folder = tmp_path_factory.mktemp("of") / "model"
    folder.mkdir()
    return request.param, folder, KINDS[request.param](folder)


def pooled(output):
    return output if isinstance(output, torch.Tensor) else output.pooler_output


@torch.no_grad()
def theirs(kind, folder, model, frames):
    """Features of frames, and class embeddings in one template, through transformers alone."""
    from transformers import AutoTokenizer
    sentences = [f"a video of {name}." for name in NAMES]
    words = AutoTokenizer.from_pretrained(folder)
    ids = words([text.lower() for text in sentences] if kind == "siglip2" else sentences, padding="max_length",
                truncation=True, max_length=folders.LENGTH, return_tensors="pt").input_ids
    features = pooled(model.get_image_features(pixel_values=frames.flatten(0, 1)))
    return features.unflatten(0, frames.shape[:2]), F.normalize(pooled(model.get_text_features(input_ids=ids)), dim=-1)


def ours(backbone):
    clip, tokenizer = load_clip(backbone)
    frames = torch.randn(2, 3, 3, folders.SIDE, folders.SIDE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        features = encode_frames(clip.visual, frames)
    return clip, frames, (features, class_embeddings(clip, tokenizer, NAMES, ("a video of {}.",)))


def test_a_folder_gives_the_features_the_class_embeddings_and_the_pixels_of_transformers(made):
    kind, folder, model = made
    clip, frames, found = ours(f"local-dir:{folder}")
    torch.testing.assert_close(found, theirs(kind, folder, model, frames), atol=1e-5, rtol=0)
    assert clip.pixels == (Pixels() if kind == "clip" else Pixels((0.5,) * 3, (0.5,) * 3, "squash", "bilinear"))
    assert not clip.training


def test_the_place_leaves_no_mark_on_the_description_nor_on_the_hash_of_the_text_tower(made, hub_cache, tmp_path):
    """So that a checkpoint goes on with the same model in another folder, or in the cache."""
    _, folder, _ = made
    moved = shutil.copytree(folder, tmp_path / "moved")
    hub_cache("somebody/model", {file.name: file.read_bytes() for file in folder.iterdir()})
    places = [f"local-dir:{folder}", f"local-dir:{moved}", "hf-hub:somebody/model"]
    assert clip_config(places[0]) == clip_config(places[1]) == clip_config(places[2])
    assert str(folder) not in str(clip_config(places[0]))
    clips = [load_clip(place)[0] for place in places]
    assert len({text_hash(clip) for clip in clips}) == 1


def test_shards_of_a_repository_in_the_cache_are_found(hub_cache, tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    folders.clip_folder(folder, max_shard_size="200KB")
    assert (folder / "model.safetensors.index.json").is_file()
    files = {file.name: file.read_bytes() for file in folder.iterdir()}
    hub_cache("somebody/shards", files)
    in_cache, _, found = ours("hf-hub:somebody/shards")
    torch.testing.assert_close(found, ours(f"local-dir:{folder}")[2], atol=0, rtol=0)
    shard = next(name for name in files if name.startswith("model-00002"))
    hub_cache("somebody/lacks", {name: content for name, content in files.items() if name != shard})
    with pytest.raises(OSError, match=f"--backbone hf-hub:somebody/lacks: cannot fetch {shard}"):
        load_clip("hf-hub:somebody/lacks")


def test_pixels_that_no_file_beside_the_weights_says_are_asked_for(tmp_path):
    folders.clip_folder(tmp_path)
    (tmp_path / "preprocessor_config.json").unlink()
    with pytest.raises(ValueError, match="--backbone local-dir:.*--as-tag NAME/TAG"):
        load_clip(f"local-dir:{tmp_path}")
    assert load_clip(f"local-dir:{tmp_path}", as_tag="ViT-B-32-quickgelu/openai")[0].pixels == Pixels()


def test_the_file_alone_under_a_name_of_open_clip_says_where_it_belongs(made):
    kind, folder, _ = made
    family = "transformers' CLIPModel" if kind == "clip" else "transformers' SiglipModel"
    name = "ViT-B-32" if kind == "clip" else "ViT-B-16-SigLIP"
    said = f"--pretrained .*model.safetensors: .*by its names, {family}: give its folder.*--backbone local-dir:DIR"
    with pytest.MonkeyPatch.context() as patch:
        tiny = open_clip.get_model_config("ViT-B-32") | {"vision_cfg": {"image_size": 32, "patch_size": 16, "width": 64,
                                                                        "layers": 1}}
        tiny["text_cfg"] = {"context_length": 16, "width": 32, "heads": 1, "layers": 1}
        patch.setattr("mote.files.towers.read_config", lambda backbone: tiny)
        with pytest.raises(ValueError, match=said) as raised:
            load_clip(name, str(folder / "model.safetensors"))
    assert len(str(raised.value).splitlines()) == 1


def test_a_pointer_in_place_of_the_weights_is_named(tmp_path):
    folders.clip_folder(tmp_path)
    (tmp_path / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 3\n")
    with pytest.raises(ValueError, match="--backbone local-dir:.*model.safetensors: a Git LFS pointer"):
        load_clip(f"local-dir:{tmp_path}")


@pytest.mark.parametrize("kind", ["siglip", "siglip2"])
def test_words_that_are_missing_are_named_before_weights_are_read(tmp_path, kind):
    KINDS[kind](tmp_path)
    for words in ("spiece.model", "tokenizer.json"):
        (tmp_path / words).unlink(missing_ok=True)
    (tmp_path / "model.safetensors").write_bytes(b"not read")
    with pytest.raises(ValueError, match="--backbone local-dir:.*its tokenizer, in the same folder: there is no tok"):
        load_clip(f"local-dir:{tmp_path}")


@pytest.mark.parametrize("content", ['{"weight_map": {"a": "../../x"}}', '{"weight_map": {"a": 5}}', "{}", "[]", "{"])
def test_a_damaged_index_of_shards_is_one_line(hub_cache, tmp_path, content):
    folder = tmp_path / "model"
    folder.mkdir()
    folders.clip_folder(folder)
    (folder / "model.safetensors").rename(folder / "model.safetensors.index.json")
    (folder / "model.safetensors.index.json").write_text(content)
    hub_cache("somebody/shards", {file.name: file.read_bytes() for file in folder.iterdir()})
    said = "--backbone hf-hub:somebody/shards: model.safetensors.index.json is damaged"
    with pytest.raises(ValueError, match=said) as raised:
        load_clip("hf-hub:somebody/shards")
    assert len(str(raised.value).splitlines()) == 1


@pytest.mark.parametrize("change, said", [({"model_type": ["clip"]}, "config.json has no model_type"),
                                          ({"architectures": 3}, "architectures in config.json must be a list, got 3")])
def test_a_config_of_other_types_is_one_line(tmp_path, change, said):
    folders.clip_folder(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(ValueError, match=f"--backbone local-dir:.*{said}"):
        load_clip(f"local-dir:{tmp_path}")
