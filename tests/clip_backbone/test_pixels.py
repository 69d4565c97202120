"""
Mean, std, resize mode and interpolation are those that the weights were trained with, or they are asked for.

Over every name and tag of open_clip: nothing is downloaded or built.
"""
import open_clip
import pytest
from open_clip.pretrained import get_pretrained_cfg

from mote.clip_backbone import Pixels, load_clip
from mote.files.towers.pixels import find_pixels, read_pixels

NAMES = open_clip.list_models()
OTHERS = Pixels((0.5, 0.4, 0.3), (0.2, 0.3, 0.4), "squash", "bilinear")


def tags(name):
    """Each tag of a name and its pixels, read off open_clip's own entry."""
    found = {}
    for tag in open_clip.list_pretrained_tags_by_model(name):
        entry = get_pretrained_cfg(name, tag)
        found[tag] = Pixels(tuple(entry["mean"]), tuple(entry["std"]), entry["resize_mode"], entry["interpolation"])
    return found


def of_a_file(name, as_tag="", **config):
    return find_pixels(name, config, {}, as_tag, random=False)[0]


@pytest.mark.parametrize("name", NAMES)
def test_a_file_under_a_name_has_the_pixels_on_which_all_its_tags_agree_or_they_are_asked_for(name):
    of_tags = tags(name)
    if len(set(of_tags.values())) == 1:
        assert of_a_file(name) == next(iter(of_tags.values()))
        return
    with pytest.raises(ValueError, match=f"--backbone {name}: .*--as-tag") as raised:
        of_a_file(name)
    assert all(tag in str(raised.value) for tag in of_tags)
    assert len(str(raised.value).splitlines()) == 1


def test_a_tag_gives_its_own_pixels_and_so_does_a_file_as_that_tag():
    for name in NAMES:
        for tag, pixels in tags(name).items():
            assert find_pixels(name, {}, get_pretrained_cfg(name, tag), "", random=False)[0] == pixels
            assert of_a_file(name, tag) == pixels
            assert of_a_file("coca_base", f"{name}/{tag}") == pixels


def test_46_names_have_tags_with_another_mean_or_std_than_openais_and_54_with_anything_else():
    """The numbers of open_clip 3.3.0: a release with more is welcome, one with fewer has lost some."""
    usual = (Pixels.mean, Pixels.std)
    statistics = [name for name in NAMES if any((p.mean, p.std) != usual for p in tags(name).values())]
    anything = [name for name in NAMES if any(p != Pixels() for p in tags(name).values())]
    assert len(statistics) >= 46 and len(anything) >= 54
    assert of_a_file("ViT-B-16-SigLIP-384") == Pixels((0.5,) * 3, (0.5,) * 3, "squash", "bicubic")


def test_a_description_comes_before_the_tags_of_the_name_and_the_users_word_before_both():
    described = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4], "resize_mode": "squash", "interpolation": "bilinear"}
    assert of_a_file("ViT-B-32", preprocess_cfg=described) == OTHERS
    assert of_a_file("ViT-B-32", "openai", preprocess_cfg=described) == Pixels()
    with pytest.raises(ValueError, match="--as-tag"):            # half a description is none
        of_a_file("x.json", preprocess_cfg={"mean": [0.5, 0.4, 0.3]})


@pytest.mark.parametrize("preprocess, pixels", [
    ({}, Pixels()), ({"mean": 0, "std": [1, 1, 1]}, Pixels((0.0,) * 3, (1.0,) * 3)),
    ({"mean": None, "std": 0.5}, Pixels(std=(0.5, 0.5, 0.5))),
    ({"interpolation": "random", "size": 224, "fill_color": 0}, Pixels())])
def test_what_a_description_leaves_open_is_as_open_clip_has_it(preprocess, pixels):
    assert read_pixels(preprocess, "x") == pixels


@pytest.mark.parametrize("preprocess", [{"resize_mode": "longest"}, {"interpolation": "lanczos"}, {"mean": [0.5]},
                                        {"std": [0.5] * 4}, {"std": [0.2, 0, 0.2]}, {"mean": "0.5"},
                                        {"mean": [0.5, None, 0.5]}, {"std": [float("nan")] * 3}, {"mean": {"r": 1}},
                                        {"resize_mode": ["squash"]}, {"interpolation": 3},
                                        {"mean": [123.6, 116.7, 103.5]},
                                        {"std": 10**400}, {"mean": [True] * 3}, {"std": -0.5}])
def test_a_way_to_make_frames_that_is_not_known_is_refused_in_one_line(preprocess):
    with pytest.raises(ValueError, match="--backbone x: its frames are made in a way that is not known here") as raised:
        read_pixels(preprocess, "x")
    assert len(str(raised.value).splitlines()) == 1


def test_random_weights_need_no_answer_and_a_tag_takes_no_second_one():
    assert find_pixels("ViT-L-14", {}, {}, "", random=True)[0] == Pixels()
    with pytest.raises(ValueError, match="--as-tag openai: .*--pretrained names a tag already: leave it out"):
        find_pixels("ViT-L-14", {}, get_pretrained_cfg("ViT-L-14", "openai"), "openai", random=False)


@pytest.mark.parametrize("as_tag, said", [("nonsense", "no tag of ViT-L-14; tags: openai, "),
                                          ("ViT-B-9/openai", "no tag of ViT-B-9; tags: none"),
                                          ("openai", "has GELU, but --as-tag openai was trained with the other "
                                                     "activation: use --backbone ViT-L-14-quickgelu"),
                                          ("ViT-L-14/openai", "was trained with the other activation")])
def test_a_tag_that_does_not_fit_is_refused_before_weights_are_read(tmp_path, as_tag, said):
    file = tmp_path / "w.pt"
    file.write_bytes(b"not read")
    with pytest.raises(ValueError, match=f"{as_tag}.*{said}|{said}"):
        load_clip("ViT-L-14", str(file), as_tag)


def test_a_mistyped_tag_is_named_before_pixels_are_asked_for():
    with pytest.raises(ValueError, match="--pretrained laion2b_s32b_b28k: neither a file nor a tag of ViT-L-14; tags"):
        load_clip("ViT-L-14", "laion2b_s32b_b28k")


def test_a_preprocess_cfg_that_is_no_object_is_refused():
    with pytest.raises(ValueError, match="--backbone x.json: preprocess_cfg must be an object with mean and std, got"):
        of_a_file("x.json", preprocess_cfg=[0.5])
