"""
What lies beside the weights in a folder of transformers is read as the library reads it: how frames and words are made.

The library's own image processor is the judge of the frames; what cannot be done here is refused, and never ignored.
"""
import json

import pytest
import torch
import torch.nn.functional as F
from support import transformers_folders as folders
from support.transformers_folders import CLIP_PIXELS, LENGTH, SIDE, SIGLIP_PIXELS, read, save_json
from torch.testing import assert_close


@pytest.fixture
def clip_folder(tmp_path):
    """A folder with a CLIPModel and its vocabulary, for tests that change it."""
    folders.clip_folder(tmp_path)
    return tmp_path


def one_line(raised):
    return len(str(raised.value).splitlines()) == 1


# --- frames ----------------------------------------------------------------------------------------------------------
def pixels(folder, content, file="preprocessor_config"):
    save_json(folder, config={"model_type": "siglip", "vision_config": {"image_size": SIDE}}, **{file: content})
    return read(folder).get("preprocess_cfg")


def test_pixels_are_read_as_they_are_published(tmp_path):
    assert pixels(tmp_path, CLIP_PIXELS) == {
        "mean": [0.48145466, 0.4578275, 0.40821073], "std": [0.26862954, 0.26130258, 0.27577711],
        "resize_mode": "shortest", "interpolation": "bicubic"}
    assert pixels(tmp_path, SIGLIP_PIXELS) == {
        "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "resize_mode": "squash", "interpolation": "bilinear"}


def test_no_preprocessor_says_nothing_of_pixels(tmp_path):
    save_json(tmp_path, config={"model_type": "siglip"})
    assert "preprocess_cfg" not in read(tmp_path)


def test_the_processors_of_version_5_lie_in_one_file(tmp_path):
    """Where both files are there, the library takes the new one; without an image processor, the old one."""
    save_json(tmp_path, preprocessor_config=SIGLIP_PIXELS)
    assert pixels(tmp_path, {"processor_class": "CLIPProcessor"}, "processor_config")["resize_mode"] == "squash"
    assert pixels(tmp_path, {"image_processor": CLIP_PIXELS}, "processor_config")["resize_mode"] == "shortest"


@pytest.mark.parametrize("change, key, value", [
    ({"size": SIDE, "crop_size": SIDE, "image_processor_type": None, "feature_extractor_type": "CLIPFeatureExtractor",
      "do_rescale": None, "rescale_factor": None}, "resize_mode", "shortest"),              # of 2021
    ({"image_processor_type": "CLIPImageProcessorFast"}, "resize_mode", "shortest"),
    ({"size": {"height": SIDE, "width": SIDE}}, "resize_mode", "squash"),                   # the crop cuts nothing
    ({"size": {"height": SIDE, "width": SIDE}, "do_center_crop": False}, "resize_mode", "squash"),
    ({"size": [SIDE, SIDE]}, "resize_mode", "squash"),
    ({"size": {"shortest_edge": SIDE, "longest_edge": None}}, "resize_mode", "shortest"),
    ({"resample": 2}, "interpolation", "bilinear"),
    ({"resample": None}, "interpolation", "bicubic"),
    ({"image_mean": None}, "mean", CLIP_PIXELS["image_mean"]),
    ({"image_processor_type": "SiglipImageProcessor", "image_mean": None, "size": {"height": SIDE, "width": SIDE}},
     "mean", [0.5, 0.5, 0.5]),
    ({"do_normalize": False}, "std", [1.0, 1.0, 1.0]),
    ({"do_normalize": False}, "mean", [0.0, 0.0, 0.0]),
])
def test_pixels_are_those_of_the_librarys_class(tmp_path, change, key, value):
    """The library's own class is the judge. None: the file says nothing."""
    content = {name: said for name, said in {**CLIP_PIXELS, **change}.items() if said is not None}
    assert pixels(tmp_path, content)[key] == value
    if content["do_normalize"]:
        assert_close(as_the_library(tmp_path, content), by_hand(pixels(tmp_path, content)), atol=0.02, rtol=0)


def as_the_library(folder, content):
    """A frame of 48 x 80 through the image processor that the file asks for -> (3, SIDE, SIDE)."""
    from transformers import AutoImageProcessor

    save_json(folder, preprocessor_config=content)
    return AutoImageProcessor.from_pretrained(str(folder))(frame(), return_tensors="pt")["pixel_values"][0]


def by_hand(said):
    """The same by torch's own operators, from what was read."""
    size = (SIDE, SIDE) if said["resize_mode"] == "squash" else (SIDE, SIDE * 80 // 48)
    image = F.interpolate(frame()[None].float(), size, mode=said["interpolation"], antialias=True)[0]
    left = (image.shape[2] - SIDE) // 2
    image = image.clamp(0, 255)[:, :, left:left + SIDE] / 255
    return (image - torch.tensor(said["mean"]).view(3, 1, 1)) / torch.tensor(said["std"]).view(3, 1, 1)


def frame():
    """Smooth, with another course in each colour and direction: uint8 (3, 48, 80)."""
    y, x = torch.arange(48)[:, None], torch.arange(80)[None]
    return torch.stack([x * 3 + y * 0, x * 0 + y * 5, x + y]).to(torch.uint8)


@pytest.mark.parametrize("change, words", [
    ({"size": {"shortest_edge": 36}}, "size is .'shortest_edge': 36.*known for this tower are shortest_edge 32"),
    ({"crop_size": 36}, "the crop .'height': 36"),
    ({"crop_size": {"height": 32, "width": 24}}, "'width': 24"),
    ({"size": {"height": 32, "width": 48}, "do_center_crop": False}, "'width': 48"),
    ({"do_center_crop": False}, "the crop None"),
    ({"size": {"shortest_edge": 32, "longest_edge": 64}}, "'longest_edge': 64"),
    ({"do_resize": False}, "do_resize"),
    ({"do_rescale": False}, "do_rescale"),
    ({"do_rescale": None}, "do_rescale"),                        # null is a value, also for the library
    ({"image_mean": None}, "TypeError"),
    ({"image_std": [0.5]}, "3 numbers each"),
    ({"do_pad": True}, "do_pad"),
    ({"rescale_factor": 1 / 127.5}, "rescale_factor is 0.0078.*not 1/255"),
    ({"resample": 0}, "resample is 0; known are 2, bilinear, and 3, bicubic"),
    ({"resample": [3]}, "TypeError"),
    ({"size": "32"}, "AttributeError"),
    ({"image_processor_type": "Siglip2ImageProcessor"}, "its class is Siglip2ImageProcessor; known are CLIP's and"),
    ({"image_processor_type": "ViTImageProcessor"}, "its class is ViTImageProcessor"),
])
def test_frames_made_in_another_way_are_refused(tmp_path, change, words):
    unknown = "preprocessor_config.json makes frames in a way that is not known here: "
    with pytest.raises(ValueError, match=rf"--backbone local-dir:.*{unknown}.*{words}") as raised:
        pixels(tmp_path, {**CLIP_PIXELS, **change})
    assert one_line(raised)


# --- words -----------------------------------------------------------------------------------------------------------
def test_clips_own_words_need_no_tokenizer_in_the_folder(clip_folder):
    for name in ("vocab.json", "merges.txt", "tokenizer_config.json"):
        (clip_folder / name).unlink()
    assert read(clip_folder)["text_cfg"] == {"context_length": LENGTH, "vocab_size": 49408}


@pytest.mark.parametrize("file", ["vocab.json", "tokenizer.json"])
def test_another_vocabulary_of_clips_size_is_the_folders_own(clip_folder, file):
    """Two tokens change places: the same number of them, and other ids."""
    vocabulary = json.loads((clip_folder / "vocab.json").read_text())
    (clip_folder / "vocab.json").unlink()

    def save(content):
        whole = content if file == "vocab.json" else {"model": {"vocab": content}}
        (clip_folder / file).write_text(json.dumps(whole))

    save(vocabulary)
    assert "hf_tokenizer_name" not in read(clip_folder)["text_cfg"]
    vocabulary["cat</w>"], vocabulary["dog</w>"] = vocabulary["dog</w>"], vocabulary["cat</w>"]
    save(vocabulary)
    assert read(clip_folder)["text_cfg"]["hf_tokenizer_name"] == "the folder's own"


def test_a_clip_of_another_number_of_words_has_the_folders_own(tmp_path):
    save_json(tmp_path, config={"model_type": "clip", "text_config": {"vocab_size": 100, "eos_token_id": 1}})
    assert read(tmp_path)["text_cfg"]["hf_tokenizer_name"] == "the folder's own"


@pytest.mark.parametrize("text, words", [
    ({"eos_token_id": 7}, "eos_token_id is 7 in config.json, but CLIP's words end with 49407"),
    ({"eos_token_id": 49408}, "eos_token_id is 49408 in config.json, no token of its 49408"),
    ({"eos_token_id": [2, 3]}, r"eos_token_id is \[2, 3\]"),
    ({"vocab_size": 100}, "eos_token_id is 49407 in config.json, no token of its 100"),
])
def test_a_feature_read_at_the_wrong_token_is_refused(tmp_path, text, words):
    """The library would read all sentences at their first token, which is the same in all."""
    save_json(tmp_path, config={"model_type": "clip", "text_config": text})
    with pytest.raises(ValueError, match=f"--backbone local-dir:.*{words}") as raised:
        read(tmp_path)
    assert one_line(raised)
