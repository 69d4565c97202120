"""
What fixes a number: draws of half the classes and of K shots, names that join a test set's, fingerprints of protocols.

Checked against the authors' draws (tests/golden/official_protocol.json), numbers worked by hand, and a fingerprint that
stands here: it must not change from one process, machine or version to the next, or old numbers lose their protocol.
"""
import json
from collections import Counter
from dataclasses import asdict, fields, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.places import GOLDEN
from support.tensors import seeds

from mote.clip_backbone import TEMPLATES, Pixels
from mote.datasets.dataset import Dataset
from mote.datasets.folders import stem
from mote.scoring.protocols import (
    NEWER,
    OPENAI_MEAN,
    OPENAI_STD,
    PAPER_VIDEOS,
    Protocol,
    few_shot,
    half_class_draws,
    list_digest,
    mean_and_std,
    mixed_names,
    protocol_of,
    repeated,
)
from mote.toyworld import SETS, class_set
from tools.comparing.protocols import BEFORE

K600 = Protocol("k600", "1", 14119, 14119, "0a1b2c3d", 160, "1b2c3d4e", 28, "2c3d4e5f", 8, clips=3)
OTHERS = {"data": "ucf101", "split": "2", "videos": 14118, "found": 14001, "list": "99999999", "classes": 161,
          "class_names": "88888888", "prompts": 1, "templates": "77777777", "frames": 16, "clips": 4, "crops": 3,
          "resize": 256, "neighbours": 6, "gamma": 0.06, "precision": "bf16", "checkpoint": "66666666",
          "text": "55555555", "clip_weight": 0.99, "mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.4),
          "resize_mode": "squash", "interpolation": "bilinear"}
SHOWN = {"mean": "mean 0.5 0.4 0.3", "std": "std 0.2 0.3 0.4", "resize_mode": "squashed to 224"}
OF_THE_MODEL_OR_A_NAME = ("data", "split", "found", "checkpoint", "text", "clip_weight")
paths = st.lists(st.tuples(st.text("abc", min_size=1, max_size=3), st.integers(0, 3)), max_size=12)


# --- protocols -------------------------------------------------------------------------------------------------------
def test_a_fingerprint_is_the_same_in_every_process_and_version():
    assert K600.fingerprint == "650455a7"
    # printf '[["Mr._Bean_catch_1", 0], ["v_YoYo_g01_c01", 100]]' | sha256sum
    assert list_digest([("v_YoYo_g01_c01", 100), ("Mr._Bean_catch_1", 0)]) == "992452ea"


@pytest.mark.parametrize("field", [f.name for f in fields(Protocol)])
def test_a_fingerprint_changes_with_what_fixes_a_number_and_with_nothing_else(field):
    other = replace(K600, **{field: OTHERS[field]})
    assert other != K600 and (other.fingerprint == K600.fingerprint) == (field in OF_THE_MODEL_OR_A_NAME)


@pytest.mark.parametrize("field", [f.name for f in fields(Protocol)])
def test_every_field_of_a_protocol_is_visible(field):
    other = replace(K600, **{field: OTHERS[field]})
    known, seen = (str(p).replace(p.fingerprint, "") for p in (K600, other))    # else every change would be visible
    assert seen != known and SHOWN.get(field, str(OTHERS[field])) in seen


def test_a_protocol_reads_as_one_line_of_what_and_one_of_how():
    assert str(replace(K600, found=14000, checkpoint="deadbeef", clip_weight=0.99)) == (
        "k600, split 1: 14119 videos (list 0a1b2c3d; the paper's has 14858; 14000 on disk), 160 classes (1b2c3d4e), "
        "28 prompts (2c3d4e5f); checkpoint deadbeef, 0.99 of it mixed with CLIP\n"
        "protocol 650455a7: 8 frames, 3 x 1 views, short side 224, bicubic, OpenAI's mean and std, K 5, gamma 0.05, "
        "fp32")
    plain = str(Protocol("mine", "", 3, 3, "a", 2, "b", 1, "c", 8))
    assert plain.startswith("mine: 3 videos (list a), 2 classes (b), 1 prompts (c)\nprotocol ")


# printf of the JSON of K600 with its keys in order, and with one key more, | sha256sum
@pytest.mark.parametrize("changed, fingerprint", [
    ({}, "650455a7"), ({"mean": (0.5, 0.4, 0.3)}, "0042f5fa"), ({"std": (0.2, 0.3, 0.4)}, "0c857760"),
    ({"resize_mode": "squash"}, "3e2d1c7f"), ({"interpolation": "bilinear"}, "079f9fd0"),
])
def test_how_frames_are_made_is_hashed_where_it_is_not_openais(changed, fingerprint):
    assert replace(K600, **changed).fingerprint == fingerprint


def test_how_frames_are_made_can_be_read_off_a_protocol():
    half = (0.5, 0.5, 0.5)
    siglip = replace(K600, resize=384, mean=half, std=half, resize_mode="squash", interpolation="bilinear")
    assert ", squashed to 384, bilinear, mean 0.5 0.5 0.5, std 0.5 0.5 0.5, K 5, " in str(siglip)
    near = replace(K600, mean=(0.48145467, 0.4578275, 0.40821073))                        # the last digit
    assert "mean 0.48145467 0.4578275 0.40821073, std 0.26862954 0.26130258 0.27577711, K 5, " in str(near)


def test_a_protocol_without_a_word_on_frames_has_openais():
    """What older files lack, where it is written once more: here, beside the model, in tools/compare.py."""
    assert {name: getattr(K600, name) for name in NEWER} == asdict(Pixels())
    assert {name: asdict(K600)[name] for name in NEWER} == {**BEFORE, "mean": OPENAI_MEAN, "std": OPENAI_STD}
    assert (BEFORE["mean"], BEFORE["std"]) == (list(OPENAI_MEAN), list(OPENAI_STD))
    older = {name: value for name, value in K600.as_json().items() if name not in ("fingerprint", *NEWER)}
    assert Protocol(**older) == K600


@pytest.mark.parametrize("data, split, paper", [("k400", "", 19877), ("ucf101", "3", 3696), ("k600", "2", 14750)])
def test_the_papers_number_of_videos_stands_there_only_where_it_differs(data, split, paper):
    of = replace(K600, data=data, split=split)
    assert f"; the paper's has {paper}" in str(replace(of, videos=paper - 1, found=paper - 1))
    assert "paper" not in str(replace(of, videos=paper, found=paper))


def test_the_papers_numbers_of_videos_are_those_of_the_authors_lists():
    counts = {data: list(splits.values()) for data, splits in PAPER_VIDEOS.items()}
    assert counts == {"k400": [19877], "ucf101": [3783, 3734, 3696], "hmdb51": [1530, 1530, 1530],
                      "k600": [14858, 14750, 14874]}
    assert all(list(splits) in ([""], ["1", "2", "3"]) for splits in PAPER_VIDEOS.values())
    assert "paper" not in str(replace(K600, split="4")) and "paper" not in str(replace(K600, data="mine"))


three = st.one_of(st.just(OPENAI_MEAN), st.tuples(*3 * [st.floats(0, 1)]), st.just((0, 0, 0)), st.just([1, 1, 1]))


@given(st.integers(0, 10**6), st.floats(1e-3, 10), st.text(max_size=8), three, three)
def test_a_protocol_survives_json(videos, gamma, name, mean, std):
    """Which has lists for tuples; and a description may say 0 for 0.0."""
    one = replace(K600, data=name, videos=videos, gamma=gamma, mean=mean, std=std)
    read = json.loads(json.dumps(one.as_json()))
    again = Protocol(**{name: value for name, value in read.items() if name != "fingerprint"})
    assert again == one and hash(again) == hash(one) and str(again) == str(one)
    assert again.fingerprint == one.fingerprint == read["fingerprint"] and one.as_json() == read
    floats = replace(one, mean=tuple(map(float, mean)), std=tuple(map(float, std)))
    assert floats.fingerprint == one.fingerprint


# --- lists -----------------------------------------------------------------------------------------------------------
def of_paths(videos):
    return list_digest([(stem(path), label) for path, label in videos])


@given(paths, st.randoms())
def test_a_re_encoded_copy_in_another_order_and_folder_is_the_same_list(videos, random):
    copy = [(f"elsewhere/{path}/{path}.MKV", np.int64(label)) for path, label in videos]
    random.shuffle(copy)
    assert of_paths(copy) == of_paths([(f"data/{path}.mp4", label) for path, label in videos])


@given(paths.filter(len), st.data())
def test_another_label_and_a_video_more_or_less_are_another_list(videos, data):
    i = data.draw(st.integers(0, len(videos) - 1))
    path, label = videos[i]
    for other in ([*videos[:i], (path, label + 1), *videos[i + 1:]], videos[:i] + videos[i + 1:],
                  [*videos, videos[i]], [*videos[:i], (path + "d", label), *videos[i + 1:]]):
        assert of_paths(other) != of_paths(videos)


# --- half the classes ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("classes", ["51", "101", "160"])
def test_half_class_draws_are_the_authors(classes):
    expected = json.loads((GOLDEN / "official_protocol.json").read_text())["half_class_draws"][classes]
    assert [draw.tolist() for draw in half_class_draws(int(classes))] == expected and len(expected) == 10


def test_half_class_draws_leave_numpys_global_generator_alone():
    np.random.seed(7)
    expected = np.random.rand()
    np.random.seed(7)
    half_class_draws(10)
    assert np.random.rand() == expected


def test_the_standard_deviation_divides_by_the_number_of_splits():
    assert mean_and_std([70.0, 73.0, 76.0, 81.0]) == pytest.approx((75.0, 16.5**0.5))    # (25 + 4 + 1 + 36) / 4
    assert mean_and_std([42.0]) == (42.0, 0.0)
    assert all(type(number) is float for number in mean_and_std([1, 2]))      # json writes no numpy number


# --- few-shot --------------------------------------------------------------------------------------------------------
def videos_of(classes: int, each: int) -> list[tuple[str, int]]:
    return [(f"c{label}/{i:02d}.mp4", label) for label in range(classes) for i in range(each)]


@given(seeds, st.integers(1, 4), st.integers(1, 9), st.data(), st.randoms())
def test_few_shot_draws_k_of_each_class_whatever_the_order_of_the_list(seed, classes, each, data, random):
    shots = data.draw(st.integers(1, each))
    videos = videos_of(classes, each)
    drawn = few_shot(videos, shots, seed)
    assert Counter(label for _, label in drawn) == dict.fromkeys(range(classes), shots)
    assert len(set(drawn)) == len(drawn) and set(drawn) <= set(videos)
    random.shuffle(videos)
    assert few_shot(videos, shots, seed) == drawn


@given(seeds, st.data())
def test_the_2_shot_draw_is_part_of_the_4_shot_draw_of_its_seed(seed, data):
    fewer, more = sorted(data.draw(st.lists(st.integers(1, 12), min_size=2, max_size=2)))
    videos = videos_of(3, 12)
    assert set(few_shot(videos, fewer, seed)) <= set(few_shot(videos, more, seed))


def test_seeds_and_classes_draw_differently():
    draws = [few_shot(videos_of(3, 24), 4, seed) for seed in range(10)]
    assert len({tuple(draw) for draw in draws}) == 10 and few_shot(videos_of(3, 24), 4) == draws[0]
    for draw in draws:                                           # not the same places in each class
        places = [{path[-6:] for path, other in draw if other == label} for label in range(3)]
        assert places[0] != places[1] != places[2]


def test_a_class_with_fewer_than_k_videos_is_named_in_one_line():
    with pytest.raises(ValueError, match=r"^--shots 3: class 1 has only 2 training videos$"):
        few_shot([*videos_of(1, 3), ("a.mp4", 1), ("b.mp4", 1), *[(f"{i}.mp4", 2) for i in range(3)]], 3)


@given(st.integers(1, 12), st.integers(0, 50))
def test_a_repeated_list_has_the_length_and_each_video_as_often_but_for_one(n, length):
    videos = videos_of(1, n)
    counts = Counter(repeated(videos, length))
    assert counts.total() == length and set(counts) <= set(videos)
    assert max(counts[video] for video in videos) - min(counts[video] for video in videos) <= 1


# --- names -----------------------------------------------------------------------------------------------------------
words = st.sampled_from(["yo yo", "Yo_Yo", "YoYo", "archery", "Archery", " archery", "juggling", "Straße", "STRASSE"])
names = st.lists(words, max_size=6)


def plain(name: str) -> str:
    return name.replace("_", "").replace(" ", "").casefold()


@given(names, st.lists(names, max_size=4))
def test_mixed_names_keep_the_labels_and_add_each_other_name_once(own, others):
    mixed = mixed_names(own, others)
    added = mixed[len(own):]
    assert mixed[:len(own)] == own                               # label i still means the same class
    assert {plain(name) for name in mixed} == {plain(name) for group in (own, *others) for name in group}
    assert len({plain(name) for name in added}) == len(added) and not set(map(plain, own)) & set(map(plain, added))
    assert mixed == mixed_names(own, [sum(others, [])])          # however the other sets overlap: one set or many,
    for other in others:                                         # or one after the other
        own = mixed_names(own, [other])
    assert mixed == own


def test_mixed_names_keep_the_order_and_leave_the_lists_as_they_were():
    own, others = ["b", "a"], [["d", "A"], ["c", "d"]]
    assert mixed_names(own, others) == ["b", "a", "d", "c"]
    assert (own, others) == (["b", "a"], [["d", "A"], ["c", "d"]])


def test_a_draw_does_not_depend_on_the_endings_of_the_files():
    """clip-2 sorts before clip.mp4, and after clip."""
    names = [f"a/clip{i}" for i in ("", "-2", "-3", "_4", "5")]
    for seed in range(5):
        drawn = few_shot([(name, 0) for name in names], 2, seed)
        assert few_shot([(f"{name}.mp4", 0) for name in names], 2, seed) == [(f"{path}.mp4", 0) for path, _ in drawn]


def test_the_fingerprint_of_the_demos_zero_shot_test_is_the_one_printed_since_the_first_version():
    """toyworld-novel as `make demo` tests it; README shows it. A field more in the hash would change it."""
    classes = [name for name, _ in class_set("toyworld-novel")]
    videos = [(f"videos/val_{name.replace(' ', '_')}_{i}.mp4", label)
              for label, name in enumerate(classes) for i in range(SETS["toyworld-novel"]["val"])]
    protocol = protocol_of(Dataset("toyworld-novel", videos, classes, ""), TEMPLATES, frames=8, resize=40)
    assert (protocol.fingerprint, protocol.videos, protocol.prompts) == ("c54383a4", 320, 28)
