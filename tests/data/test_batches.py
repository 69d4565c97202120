"""
A training clip is a function of seed, epoch and index, a batch of seed and step, whoever loads them.

For any number of videos, ranks and micro-batches (hypothesis), for video files and folders of JPEGs written here.
Checked against videos whose frame t has brightness 20 + 4 t, so that the index of a frame can be read off it.
"""
import random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.ramps import frame_numbers, write_jpegs
from support.tensors import seeds
from torch.testing import assert_close

from mote import data
from mote.data import MicroBatches, TestViews, TrainingClips, Undecodable


# --- training clips --------------------------------------------------------------------------------------------------
def training(videos, names, **options):
    settings = {"T": 4, "size": 16, "seed": 0, **options}
    return TrainingClips([(str(videos / name), label) for label, name in enumerate(names)], **settings)


def test_a_training_clip_is_uint8_of_the_models_size(videos):
    sample = training(videos, ["ramp.mp4"], T=5, size=24)[0, 0]
    assert sample["frames"].dtype == torch.uint8 and sample["frames"].shape == (5, 3, 24, 24)
    assert sample["label"] == 0 and sample["failed"] == []


def test_a_training_clip_keeps_the_order_of_time(videos):
    for epoch in range(5):
        numbers = frame_numbers(training(videos, ["ramp.mp4"])[epoch, 0]["frames"])
        assert all(i * 12.5 - 2 < number < (i + 1) * 12.5 for i, number in enumerate(numbers))


def test_one_decision_per_clip(videos):
    """Identical frames in, identical frames out, whatever crop, flip and gray are drawn."""
    clips = training(videos, ["picture"])
    for epoch in range(30):
        frames = clips[epoch, 0]["frames"]
        assert_close(frames, frames[:1].expand_as(frames), rtol=0, atol=0)


def mirrored(clips, epochs):
    """In how many epochs the dark side of the picture is on the right."""
    halves = (clips[epoch, 0]["frames"].float().mean(dim=(0, 1, 2)) for epoch in range(epochs))
    return sum(bool(columns[:8].mean() > columns[8:].mean()) for columns in halves)


@pytest.fixture
def dark_left(tmp_path):
    frame = torch.linspace(20, 230, 48).to(torch.uint8).expand(1, 3, 36, 48).contiguous()
    write_jpegs(tmp_path / "dark_left", frame)
    return tmp_path


def test_no_flip_where_left_and_right_are_classes(dark_left):
    assert mirrored(training(dark_left, ["dark_left"], flip=False), 60) == 0


def test_half_of_the_clips_are_flipped_otherwise(dark_left):
    """Binomial(60, 1/2): outside 10..50 with a chance of 1e-7."""
    assert 10 <= mirrored(training(dark_left, ["dark_left"], flip=True), 60) <= 50


def test_a_fifth_of_the_clips_are_grey(videos):
    """Binomial(200, 0.2): outside 15..70 with a chance of 1e-5."""
    clips = training(videos, ["picture"])
    grey = sum(bool((frames[:, 0] == frames[:, 1]).all()) for frames in (clips[e, 0]["frames"] for e in range(200)))
    assert 15 <= grey <= 70


def test_no_clip_is_grey_where_colours_are_kept(videos):
    clips = training(videos, ["picture"], gray=False)
    coloured = training(videos, ["picture"])
    for epoch in range(30):
        frames, other = clips[epoch, 0]["frames"], coloured[epoch, 0]["frames"]
        assert not (frames[:, 0] == frames[:, 1]).all()
        if not (other[:, 0] == other[:, 1]).all():               # the crops and the flips are drawn as before
            assert_close(frames, other, rtol=0, atol=0)


def test_all_batches_have_one_memory_layout(videos):
    """Grey or not, of files or of folders, of test videos that fail: else --compile would compile anew for each."""
    clips = training(videos, ["ramp.mp4", "picture", "text.mp4"])
    tests = TestViews([(str(videos / name), 0) for name in ("ramp.mp4", "picture", "text.mp4")], 4, 16)
    greys = set()
    for epoch in range(40):
        for batch in ([(epoch, 0)], [(epoch, 1)], [(epoch, 0), (epoch, 1), (epoch, 2)]):
            samples = [clips[key] for key in batch]
            greys.add(sum(bool((one["frames"][:, 0] == one["frames"][:, 1]).all()) for one in samples))
            frames = data.collate(samples)["frames"]
            assert frames.stride() == (4 * 3 * 256, 3 * 256, 256, 16, 1) and frames.is_contiguous()
    assert {0, 1} <= greys
    for batch in ([0], [1], [2], [0, 1], [0, 1, 2]):
        assert data.collate([tests[i] for i in batch])["frames"].stride() == (3 * 256, 256, 16, 1)


def test_crops_are_no_smaller_than_min_area(dark_left):
    """A crop of the whole area shows the whole ramp, one of 8 % at most a fraction of it."""
    def span(min_area):
        clips = training(dark_left, ["dark_left"], flip=False, min_area=min_area)
        columns = [clips[epoch, 0]["frames"].float().mean(dim=(0, 1, 2)) for epoch in range(20)]
        return min((c[-1] - c[0]).item() for c in columns)
    assert span(1.0) > 150 > 110 > span(0.08)


def test_a_clip_is_a_function_of_seed_epoch_and_index(videos):
    names = ["picture", "ramp.mp4", "picture"]
    once, again = training(videos, names), training(videos, names)
    keys = [(e, i) for e in range(3) for i in range(3)]
    right = {key: once[key]["frames"] for key in keys}
    for key in reversed(keys):                                   # in another order, too
        assert_close(again[key]["frames"], right[key], rtol=0, atol=0)


@pytest.mark.parametrize("other", [((0, 0), 1), ((1, 0), 0), ((0, 2), 0)], ids=["seed", "epoch", "index"])
def test_another_seed_epoch_or_index_gives_another_clip(videos, other):
    names, (key, seed) = ["picture", "ramp.mp4", "picture"], other
    first, second = training(videos, names)[0, 0]["frames"], training(videos, names, seed=seed)[key]["frames"]
    assert not torch.equal(first, second)


def test_frames_are_drawn_anew_each_epoch(videos):
    clips = training(videos, ["ramp.mp4"])
    assert len({tuple(frame_numbers(clips[epoch, 0]["frames"])) for epoch in range(10)}) > 5


def test_global_generators_are_neither_used_nor_touched(videos):
    clips = training(videos, ["picture"])
    right = clips[0, 0]["frames"]
    torch.manual_seed(1)
    np.random.seed(1)
    random.seed(1)
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    assert_close(clips[0, 0]["frames"], right, rtol=0, atol=0)
    assert_close(torch.get_rng_state(), before[0], rtol=0, atol=0)
    assert (np.random.get_state()[1] == before[1]).all() and random.getstate() == before[2]


def test_workers_do_not_change_the_batches(videos):
    clips = training(videos, ["picture", "ramp.mp4", "text.mp4", "jpegs"])
    batches = MicroBatches(4, batch=2, epochs=2, seed=0)

    def load(workers):
        loader = torch.utils.data.DataLoader(clips, batch_sampler=batches, collate_fn=data.collate, num_workers=workers)
        return list(loader)
    right = load(0)
    for workers in (1, 2):
        for batch, other in zip(right, load(workers), strict=True):
            assert_close(other["frames"], batch["frames"], rtol=0, atol=0)
            assert_close(other["label"], batch["label"], rtol=0, atol=0)
            assert other["failed"] == batch["failed"] and batch["frames"].dtype == torch.uint8


def test_a_bad_video_is_replaced_and_reported(videos):
    names = ["text.mp4", "ramp.mp4", "picture"]
    sample = training(videos, names)[0, 0]
    assert sample["failed"] and set(sample["failed"]) == {0} and sample["label"] in (1, 2)
    is_ramp = bool(sample["frames"][:, 0].float().std(dim=(1, 2)).max() < 2)     # its frames are of one colour
    assert is_ramp == (sample["label"] == 1)


def test_the_replacement_is_the_same_every_time_but_not_the_same_video(videos):
    names = ["text.mp4", *["ramp.mp4"] * 20]
    labels = [training(videos, names)[epoch, 0]["label"] for epoch in range(8)]
    assert labels == [training(videos, names)[epoch, 0]["label"] for epoch in range(8)] and len(set(labels)) > 2


def test_a_dataset_without_a_good_video_is_undecodable(videos):
    with pytest.raises(Undecodable, match="could not be decoded"):
        training(videos, ["text.mp4", "missing.mp4"])[0, 0]


# --- batches of test views -------------------------------------------------------------------------------------------
def test_a_batch_lists_all_that_failed(videos):
    names = ["text.mp4", "ramp.mp4", "zero.mp4"]
    views = TestViews([(str(videos / name), i) for i, name in enumerate(names)], T=2, size=16)
    batch = data.collate([views[i] for i in range(3)])
    assert batch["failed"] == [0, 2] and batch["label"].tolist() == batch["index"].tolist() == [0, 1, 2]
    assert batch["frames"].shape == (4, 3, 16, 16) and batch["frames"].dtype == torch.uint8        # 1 + 2 + 1 of them
    assert batch["places"].tolist() == [[[0, 0]], [[1, 2]], [[3, 3]]]


# --- micro-batches ---------------------------------------------------------------------------------------------------
def steps(num_videos, batch, epochs, seed, world, accumulate, start=0):
    """The global batch of each step, its micro-batches in order: number m is rank m % world's, draw m // world."""
    size = (num_videos, batch, epochs, seed)
    ranks = [list(MicroBatches(*size, rank, world, accumulate, start)) for rank in range(world)]
    count, micro = len(ranks[0]) // accumulate, range(world * accumulate)
    return [[ranks[m % world][step * accumulate + m // world] for m in micro] for step in range(count)]


quarters = st.integers(1, 6)                                     # the batch is 4 of these
spares = st.integers(0, 40)


@given(quarters, spares, st.integers(0, 3), seeds)
def test_the_global_batch_does_not_depend_on_ranks_and_accumulation(quarter, spare, epochs, seed):
    size = (4 * quarter + spare, 4 * quarter, epochs, seed)
    right = [sum(micro, []) for micro in steps(*size, 1, 1)]
    for world, accumulate in ((2, 1), (1, 2), (4, 1), (2, 2), (1, 4)):
        assert [sum(micro, []) for micro in steps(*size, world, accumulate)] == right


@given(quarters, spares, st.sampled_from([(1, 1), (2, 1), (1, 2), (4, 1), (2, 2)]), seeds)
def test_a_video_comes_at_most_once_per_epoch(quarter, spare, ranks, seed):
    num_videos, batch = 4 * quarter + spare, 4 * quarter
    drawn = [key for micro in steps(num_videos, batch, 3, seed, *ranks) for part in micro for key in part]
    assert len(set(drawn)) == len(drawn) == 3 * (num_videos // batch) * batch
    assert {epoch for epoch, _ in drawn} == {0, 1, 2} and {index for _, index in drawn} <= set(range(num_videos))


@given(quarters, spares, st.sampled_from([(1, 1), (2, 1), (1, 2), (4, 1), (2, 2)]), seeds, st.data())
def test_start_resumes_exactly(quarter, spare, ranks, seed, data):
    size = (4 * quarter + spare, 4 * quarter, 3, seed)
    whole = steps(*size, *ranks)
    start = data.draw(st.integers(0, len(whole) + 1))
    assert steps(*size, *ranks, start=start) == whole[start:]


def test_epochs_and_seeds_have_orders_of_their_own():
    first, second = steps(40, 40, 2, 0, 1, 1)
    other = steps(40, 40, 1, 1, 1, 1)[0]
    orders = [[index for _, index in micro[0]] for micro in (first, second, other)]
    assert all(sorted(order) == list(range(40)) for order in orders)
    assert len({tuple(order) for order in orders} | {tuple(range(40))}) == 4


@pytest.mark.parametrize("batch, world, accumulate", [(6, 4, 1), (6, 1, 4), (6, 2, 2), (5, 2, 1)])
def test_a_batch_that_does_not_divide_is_refused(batch, world, accumulate):
    with pytest.raises(ValueError, match=rf"--batch {batch} must be a multiple of .* = {world} x {accumulate}"):
        MicroBatches(100, batch, 1, 0, 0, world, accumulate)


@pytest.mark.parametrize("batch", [9, 1000, 0, -8])
def test_a_batch_larger_than_the_dataset_or_empty_is_refused(batch):
    with pytest.raises(ValueError, match=rf"--batch {batch} .* number of training videos, 8"):
        MicroBatches(8, batch, 1, 0)
