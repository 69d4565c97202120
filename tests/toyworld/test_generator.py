"""
Toyworld shows what its words say, is the same on every machine, and cannot be told apart frame by frame.

For every shape, colour and motion and any seed (hypothesis). Checked against measurements on the pictures (where the
object is, how large); against what was drawn before encoding; the shipped CLIP against the accuracy it must have.
"""
import itertools
import os
import threading
import time
import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close
from torchcodec.decoders import VideoDecoder

from mote.clip_backbone import class_embeddings, encode_frames, load_clip, normalise
from mote.data import decode, segment_indices
from mote.data import view_crops as crops_of
from mote.toyworld import COLOURS, MOTIONS, SETS, SHAPES, class_set, generate, make_clip, ready
from mote.toyworld import generator as toyworld

PAIRS = [("moving right", "moving left"), ("moving up", "moving down"), ("growing", "shrinking")]
any_shape, any_colour, any_motion = (st.sampled_from(list(words)) for words in (SHAPES, COLOURS, MOTIONS))
seeds = st.tuples(st.integers(0, 2**31 - 1), st.integers(0, 5))


# --- clips ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("forwards, backwards", PAIRS)
@given(any_shape, any_colour, seeds)
@settings(max_examples=10)
def test_opposite_motions_are_time_reversals(forwards, backwards, shape, colour, seed):
    clip, reverse = make_clip(shape, colour, forwards, seed), make_clip(shape, colour, backwards, seed)
    assert_close(reverse, clip.flip(0), rtol=0, atol=0)
    assert not torch.equal(reverse, clip)


@given(any_shape, any_colour, any_motion, seeds, st.sampled_from([2, 5, 16]), st.sampled_from([24, 48]))
@settings(max_examples=20)
def test_a_clip_is_a_function_of_its_arguments(shape, colour, motion, seed, frames, size):
    torch.manual_seed(seed[0])
    before = torch.get_rng_state()
    clip = make_clip(shape, colour, motion, seed, frames, size)
    assert clip.shape == (frames, 3, size, size) and clip.dtype == torch.uint8
    assert_close(torch.get_rng_state(), before, rtol=0, atol=0)              # nothing drawn from the global generator
    torch.manual_seed(seed[0] + 1)
    assert_close(make_clip(shape, colour, motion, seed, frames, size), clip, rtol=0, atol=0)


@pytest.mark.parametrize("other", [(1, 0), (0, 1)])
def test_another_seed_is_another_clip(other):
    assert not torch.equal(make_clip("star", "red", "growing", other), make_clip("star", "red", "growing", (0, 0)))


def measure(motion, seed, shape="square"):
    """How column, row (downwards) and area of a white object change from the first frame to the last."""
    clip = make_clip(shape, "white", motion, seed).float().mean(dim=1)
    rows = []
    for frame in (clip[0], clip[-1]):
        y, x = torch.nonzero(frame > 165, as_tuple=True)         # backgrounds stay below 130, noise and all
        rows.append((x.float().mean().item(), y.float().mean().item(), len(x)))
    return np.array(rows[1]) - np.array(rows[0])


@pytest.mark.parametrize("motion, which, sign", [
    ("moving right", 0, 1), ("moving left", 0, -1), ("moving down", 1, 1), ("moving up", 1, -1), ("growing", 2, 1),
    ("shrinking", 2, -1)])
def test_the_object_does_what_the_word_says(motion, which, sign):
    """At least 0.3 of 48 pixels' width from side to side (14), and an area that grows from 0.4^2 to 1.6^2."""
    for seed in range(5):
        change = measure(motion, (seed,))
        assert sign * change[which] > (100 if which == 2 else 12)
        assert all(abs(change[other]) < 3 for other in {0, 1} - {which})


def test_blinking_is_bright_and_dark_in_turn():
    bright = (make_clip("square", "white", "blinking", (3,)).float().mean(dim=1) > 165).sum(dim=(1, 2)) > 0
    assert 6 <= bright.sum() <= 10 and (bright[1:] != bright[:-1]).sum() >= 6


@pytest.mark.parametrize("shape", SHAPES)
def test_a_mark_makes_spinning_visible(shape):
    """Also of a circle. The noise has a deviation of 8: a difference of 70 is 6 deviations of the difference of two."""
    for seed in range(3):
        clip = make_clip(shape, "white", "spinning", (seed,)).float()
        changed = ((clip[1:] - clip[:1]).abs().amin(dim=1) > 70).sum(dim=(1, 2))
        assert changed.max() >= 12                               # the mark covers about 14 pixels at the least


def test_the_ten_shapes_look_different():
    grid = torch.linspace(-1, 1, 48)
    masks = [toyworld.inside(shape, grid.view(1, 48), -grid.view(48, 1)) > 0 for shape in SHAPES]
    for one, other in itertools.combinations(masks, 2):
        assert (one & other).sum() / (one | other).sum() < 0.9
    assert all(0.1 < mask.float().mean() < 0.8 for mask in masks)


# --- class sets ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name, count", [("toyworld", 40), ("toyworld-novel", 40), ("toyworld-appearance", 60)])
def test_sets_have_their_number_of_classes(name, count):
    names = [name for name, _ in class_set(name)]
    assert len(names) == len(set(names)) == count


def test_novel_shapes_are_not_trained_on():
    trained, novel = ({about["shape"] for _, about in class_set(name)} for name in ("toyworld", "toyworld-novel"))
    assert len(trained) == len(novel) == 5 and trained | novel == set(SHAPES)
    assert not {name for name, _ in class_set("toyworld")} & {name for name, _ in class_set("toyworld-novel")}


def test_colour_names_no_class_but_appearances():
    assert not any(colour in name for colour in COLOURS for set_name in ("toyworld", "toyworld-novel")
                   for name, _ in class_set(set_name))
    assert {about["colour"] for _, about in class_set("toyworld-appearance")} == set(COLOURS)


def test_only_toyworld_is_trained_on():
    assert [name for name, splits in SETS.items() if "train" in splits] == ["toyworld"]
    assert all("val" in splits for splits in SETS.values())


# --- files ---------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A small toyworld on disk, and the clips as they were before encoding, in order of writing."""
    folder, drawn = tmp_path_factory.mktemp("toys") / "toyworld", []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(toyworld, "make_clip", lambda *a, **k: drawn.append((k, make_clip(*a, **k))) or drawn[-1][1])
        assert generate(folder, "toyworld", clips={"train": 1, "val": 1}) == folder
    return folder, drawn


def listed(folder, split):
    lines = [line.split() for line in (folder / f"{split}.txt").read_text().splitlines()]
    return [(folder / file, int(label)) for file, label in lines]


def test_the_files_are_h264_mp4(written):
    file, _ = listed(written[0], "train")[0]
    about = VideoDecoder(file).metadata
    assert file.suffix == ".mp4" and about.codec == "h264"
    assert (about.num_frames, about.width, about.height) == (16, 48, 48)


def test_the_files_decode_close_to_what_was_drawn(written):
    """H.264 halves colour's resolution and smooths noise of deviation 8: 6 to 8 grey levels; another clip is 25 off."""
    folder, drawn = written
    files = listed(folder, "train") + listed(folder, "val")
    assert len(files) == len(drawn) == 80
    for (file, _), (_, clip) in list(zip(files, drawn))[::7]:
        frames = decode(file, np.arange)
        assert (frames.float() - clip.float()).abs().mean() < 10, file


def test_each_file_shows_its_class(written):
    folder, drawn = written
    for (file, label), (about, _) in zip(listed(folder, "train") + listed(folder, "val"), drawn):
        assert f"{about['shape']} {about['motion']}" == class_set("toyworld")[label][0]
        assert "_".join([about["shape"], *about["motion"].split()]) in file.name


def test_training_and_test_clips_differ_and_colours_vary(written):
    folder, drawn = written
    assert len({about["seed"] for about, _ in drawn}) == 80
    assert {about["colour"] for about, _ in drawn} == set(COLOURS)


def test_the_class_names_are_written_in_order_of_label(written):
    rows = (written[0] / "classes.csv").read_text().splitlines()
    assert rows == [f"{i},{name}" for i, (name, _) in enumerate(class_set("toyworld"))]


def test_two_machines_draw_the_same_set(written, tmp_path):
    again = generate(tmp_path / "again", "toyworld", clips={"train": 1, "val": 1})
    for (one, label), (two, other) in zip(listed(written[0], "val"), listed(again, "val")):
        assert one.name == two.name and label == other
        assert_close(decode(one, np.arange), decode(two, np.arange), rtol=0, atol=0)


def contents(folder):
    return {file.relative_to(folder): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_a_set_that_is_there_is_left_alone(written, monkeypatch):
    folder, _ = written
    before, times = contents(folder), [file.stat().st_mtime_ns for file in sorted(folder.rglob("*"))]
    monkeypatch.setattr(toyworld, "make_clip", None)             # nothing is drawn
    generate(folder, "toyworld", seed=5)
    assert contents(folder) == before and [file.stat().st_mtime_ns for file in sorted(folder.rglob("*"))] == times


@pytest.fixture
def small(monkeypatch):
    """Sets of two classes: enough where only the folder matters."""
    monkeypatch.setattr(toyworld, "class_set", lambda name: class_set(name)[:2])
    monkeypatch.setattr(toyworld, "SETS", {name: {"val": 1} for name in SETS})


def test_a_killed_run_leaves_no_half_set(small, tmp_path, monkeypatch):
    calls = []

    def killed(**about):
        calls.append(about)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return make_clip(**about)
    monkeypatch.setattr(toyworld, "make_clip", killed)
    with pytest.raises(KeyboardInterrupt):
        generate(tmp_path / "toyworld")
    assert not (tmp_path / "toyworld").exists()


def test_what_a_killed_run_left_behind_is_no_obstacle(small, tmp_path):
    """In a container the next run may well have the same process number."""
    left = tmp_path / f".toyworld.{os.getpid()}" / "videos"
    left.mkdir(parents=True)
    (left / "half.mp4").write_bytes(b"")
    folder = generate(tmp_path / "toyworld")
    assert len(listed(folder, "val")) == 2 and not (folder / "videos" / "half.mp4").exists()


def test_an_empty_folder_is_filled(small, tmp_path):
    (tmp_path / "toyworld").mkdir()
    assert len(listed(generate(tmp_path / "toyworld"), "val")) == 2


def test_a_folder_of_something_else_is_neither_taken_nor_destroyed(small, tmp_path):
    (tmp_path / "toyworld").mkdir()
    (tmp_path / "toyworld" / "thesis.txt").write_text("keep me")
    with pytest.raises(OSError):
        generate(tmp_path / "toyworld")
    assert contents(tmp_path) == {(tmp_path / "toyworld" / "thesis.txt").relative_to(tmp_path): b"keep me"}


def test_of_two_processes_at_once_the_second_takes_the_firsts_set(small, tmp_path, monkeypatch):
    """The second finishes while the first is about to; both end with one whole set and nothing beside it."""
    folder, inner = tmp_path / "toyworld", []

    def overtaken(**about):
        if not inner:
            inner.append(None)
            generate(folder)
            inner[0] = contents(folder)
        return make_clip(**about)
    monkeypatch.setattr(toyworld, "make_clip", overtaken)
    assert generate(folder) == folder
    assert contents(folder) == inner[0] and len(listed(folder, "val")) == 2
    assert [entry.name for entry in tmp_path.iterdir()] == ["toyworld"]


def test_the_other_ranks_wait_until_the_set_is_whole(small, tmp_path):
    folder = tmp_path / "toyworld"
    done = []
    waiting = threading.Thread(target=lambda: done.append(ready(folder, "toyworld", write=False, patience=30)))
    waiting.start()
    time.sleep(0.25)
    assert waiting.is_alive() and not folder.exists()            # it neither writes nor goes on
    ready(folder, "toyworld", write=True)
    waiting.join(timeout=10)
    assert done == [folder]


def test_waiting_ends(tmp_path):
    with pytest.raises(OSError, match=r"toyworld was not generated within 0 s"):
        ready(tmp_path / "toyworld", "toyworld", write=False, patience=0.01)


# --- the CLIP that goes with it ------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def toy_clip():
    return load_clip("toyworld", "toyworld")


@torch.no_grad()
def zero_shot_accuracy(clip, tokenizer, name, per_class, T=4):
    """Per cent, of clips that no training saw (another seed), on the mean of the frame features."""
    classes = class_set(name)
    classes_ND = class_embeddings(clip, tokenizer, [name for name, _ in classes])
    mean, std = torch.tensor(clip.pixels.mean), torch.tensor(clip.pixels.std)
    right = 0
    for i in range(per_class):
        clips = []
        for label, (_, about) in enumerate(classes):
            pick = np.random.default_rng((2024, i, label))
            drawn = {"shape": SHAPES, "colour": list(COLOURS), "motion": list(MOTIONS)}
            drawn = {word: pick.choice(options) for word, options in drawn.items()}
            frames = make_clip(**{**drawn, **about}, seed=(2024, i, label))
            clips.append(crops_of(frames[segment_indices(len(frames), T)[0]], 40, 40)[0])
        e_BTD = encode_frames(clip.visual, normalise(torch.stack(clips), mean, std))
        best = (F.normalize(e_BTD.mean(dim=1), dim=-1) @ classes_ND.T).argmax(dim=1)
        right += (best == torch.arange(len(classes))).sum().item()
    return 100 * right / (per_class * len(classes))


def test_the_shipped_clip_knows_appearances(toy_clip):
    assert zero_shot_accuracy(*toy_clip, "toyworld-appearance", per_class=2) >= 95


@pytest.mark.parametrize("name", ["toyworld", "toyworld-novel"])
def test_the_shipped_clip_cannot_tell_motions(toy_clip, name):
    """Who knows the shape but not the motion gets 1 of 8 (12.5 %); 2.5 % would be not to know the shape either."""
    assert 8 <= zero_shot_accuracy(*toy_clip, name, per_class=4) <= 25


def test_the_shipped_file_is_small_and_in_half_precision():
    file = toyworld.Path(toyworld.__file__).with_name("toyworld.pt")
    assert file.stat().st_size < 2e6
    state = torch.load(file, weights_only=True)
    assert all(tensor.dtype == torch.float16 for tensor in state.values() if tensor.is_floating_point())
    assert len(state["token_ids"]) == len(state["token_embedding.weight"]) < 200


def test_the_shipped_clip_runs_in_single_precision(toy_clip):
    assert {p.dtype for p in toy_clip[0].parameters()} == {torch.float32}


def test_every_class_name_is_known_to_the_shipped_clip(toy_clip):
    names = [name for set_name in SETS for name, _ in class_set(set_name)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        toy_clip[1].warn_of_unknown(names)


def test_unknown_words_are_named_in_one_line(toy_clip):
    with pytest.warns(UserWarning) as caught:
        class_embeddings(*toy_clip, ["red zebra", "Zebra dancing", "star growing"])
    assert [str(warning.message) for warning in caught] == ["this CLIP has never seen the words: dancing, zebra"]
