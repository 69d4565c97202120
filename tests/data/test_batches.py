"""
A clip holds the right frames of the right video, whoever loads it; a damaged video is named, not silently trained on.

For any length and T (hypothesis), for video files and folders of JPEGs written here, and for damaged ones of every kind
seen. Checked against videos whose frame t has brightness 20 + 4 t, so that the index of a frame can be read off it;
against ffmpeg's own decoding; and, where $MOTE_TEST_VIDEOS is set, on real files of seven codecs and containers.
"""
import os
import random
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
import torchcodec.decoders
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image
from torch.testing import assert_close
from torchcodec.encoders import VideoEncoder
from torchvision.transforms.v2 import functional as vision

from mote import data
from mote.data import MicroBatches, TestViews, TrainingClips, Undecodable, decode, random_indices, segment_indices

lengths, frame_counts, seeds = st.integers(1, 20_000), st.integers(1, 77), st.integers(0, 2**31 - 1)
REAL = Path(os.environ.get("MOTE_TEST_VIDEOS") or "-")
needs_real = pytest.mark.skipif(not REAL.is_dir(), reason="$MOTE_TEST_VIDEOS names no folder of real videos")
needs_ffmpeg = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="no ffmpeg program to write this file with")


def write_video(path, frames, **options):
    """uint8 (n, 3, h, w) -> a small H.264 file."""
    extra = {"codec": "libx264", "crf": 16, "preset": "veryfast", "extra_options": {"threads": 1}}
    VideoEncoder(frames, frame_rate=10).to_file(path, **{**extra, **options})
    return path


def write_jpegs(folder, frames):
    folder.mkdir(parents=True)
    for i, frame in enumerate(frames):
        Image.fromarray(frame.permute(1, 2, 0).numpy()).save(folder / f"img_{i:05d}.jpg", quality=95)
    return folder


def ramp(n, h=32, w=48):
    """Frame t has brightness 20 + 4 t everywhere."""
    return (20 + 4 * torch.arange(n)).to(torch.uint8).view(n, 1, 1, 1).expand(n, 3, h, w).contiguous()


def frame_numbers(frames):
    """Of a ramp's frames (..., 3, h, w): H.264 is 1 or 2 grey levels off, half a step is 2."""
    return ((frames.float().mean(dim=(-3, -2, -1)) - 20) / 4).round().int().tolist()


@pytest.fixture(scope="session")
def videos(tmp_path_factory):
    """A folder with ramps of 50 frames (mp4), 40 (JPEGs) and 3 (mp4), one coloured noise picture, and damaged ones."""
    folder = tmp_path_factory.mktemp("videos")
    write_video(folder / "ramp.mp4", ramp(50))
    write_video(folder / "short.mp4", ramp(3))
    write_jpegs(folder / "jpegs", ramp(40))
    blocks = torch.randint(0, 256, (1, 3, 6, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    write_jpegs(folder / "picture", blocks.repeat_interleave(6, 2).repeat_interleave(6, 3))
    (folder / "text.mp4").write_text("this is not a video\n")
    (folder / "truncated.mp4").write_bytes((folder / "ramp.mp4").read_bytes()[:1500])
    (folder / "zero.mp4").touch()
    (folder / "empty").mkdir()
    write_jpegs(folder / "cut_jpeg", ramp(2))
    (folder / "cut_jpeg" / "img_00001.jpg").write_bytes((folder / "cut_jpeg" / "img_00001.jpg").read_bytes()[:100])
    write_jpegs(folder / "two_sizes", ramp(2))
    Image.new("RGB", (16, 16)).save(folder / "two_sizes" / "img_00001.jpg")
    return folder


# --- which frames --------------------------------------------------------------------------------------------------
@given(lengths, frame_counts, seeds)
def test_random_indices_take_one_frame_of_each_segment(n, T, seed):
    indices = random_indices(n, T, np.random.default_rng(seed))
    assert indices.shape == (T,)
    for i, index in enumerate(indices.tolist()):                 # segment i is [i n / T, (i + 1) n / T)
        assert i * n // T <= index <= -(-(i + 1) * n // T) - 1


@given(lengths, frame_counts, seeds)
def test_random_indices_are_sorted(n, T, seed):
    assert (np.diff(random_indices(n, T, np.random.default_rng(seed))) >= 0).all()


class Extreme:
    """A generator that draws the same number every time."""

    def __init__(self, number):
        self.number = number

    def random(self, T):
        return np.full(T, self.number)


@given(lengths, frame_counts, st.sampled_from([0.0, np.nextafter(1, 0)]))
@example(3, 49, np.nextafter(1, 0))
@example(1, 2, np.nextafter(1, 0))                               # 1 + 0.999.. rounds to 2: a frame that is not there
def test_random_indices_survive_the_largest_draw_that_rounds_up(n, T, draw):
    indices = random_indices(n, T, Extreme(draw))
    assert 0 <= indices.min() and indices.max() <= n - 1 and (np.diff(indices) >= 0).all()


@given(st.integers(1, 38), seeds)
def test_short_videos_repeat_frames_and_miss_none(n, seed):
    """With T >= 2 n every frame holds a whole segment."""
    assert set(random_indices(n, 2 * n, np.random.default_rng(seed)).tolist()) == set(range(n))


def test_random_indices_reach_every_frame():
    """A frame is drawn with chance 1/3 a time: the false alarm is under 12 (2/3)^300, or 1e-51."""
    drawn = {i for seed in range(300) for i in random_indices(12, 4, np.random.default_rng(seed)).tolist()}
    assert drawn == set(range(12))


@given(lengths, frame_counts, st.integers(1, 12))
def test_segment_indices_are_in_range(n, T, clips):
    indices = segment_indices(n, T, clips)
    assert indices.shape == (clips, T) and 0 <= indices.min() and indices.max() < n


@given(frame_counts, st.integers(1, 12), st.data())
def test_segment_indices_are_sorted_where_the_video_is_long_enough(T, clips, data):
    n = data.draw(st.integers(T, 20_000))
    assert (np.diff(segment_indices(n, T, clips)) >= 0).all()


def test_segment_indices_match_numbers_worked_by_hand():
    """20 frames, T = 4: segments of 5; two clips start at 0 and at 5 - 1."""
    assert segment_indices(20, 4, 2).tolist() == [[0, 5, 10, 15], [4, 9, 14, 19]]


# --- decoding ------------------------------------------------------------------------------------------------------
@pytest.fixture
def spied(monkeypatch):
    """Every decoder's keywords and the frames asked of it."""
    made, asked = [], []

    class Spy(torchcodec.decoders.VideoDecoder):
        def __init__(self, *args, **kwargs):
            made.append(kwargs)
            super().__init__(*args, **kwargs)

        def get_frames_at(self, indices):
            asked.append(list(indices))
            return super().get_frames_at(indices)

    monkeypatch.setattr(torchcodec.decoders, "VideoDecoder", Spy)
    return made, asked


def choose(*indices):
    return lambda n: np.array(indices)


def test_only_distinct_frames_are_asked_for_in_one_sorted_call(videos, spied):
    decode(videos / "ramp.mp4", choose(30, 7, 7, 0, 30))
    assert spied[1] == [[0, 7, 30]]


def test_the_decoder_has_one_ffmpeg_thread(videos, spied):
    decode(videos / "ramp.mp4", choose(0))
    assert [kwargs.get("num_ffmpeg_threads") for kwargs in spied[0]] == [1]


@pytest.mark.parametrize("name, n", [("ramp.mp4", 50), ("jpegs", 40)])
def test_frames_come_back_in_the_order_asked_for(videos, name, n):
    for order in ([30, 7, 7, 0, 39], list(range(n)), list(reversed(range(n)))):
        frames = decode(videos / name, lambda count, order=order: np.array(order))
        assert frames.shape == (len(order), 3, 32, 48) and frame_numbers(frames) == order


@pytest.mark.parametrize("name, n", [("ramp.mp4", 50), ("jpegs", 40)])
def test_the_number_of_frames_is_the_videos(videos, name, n):
    counts = []
    decode(videos / name, lambda count: counts.append(count) or np.array([0]))
    assert counts == [n]


@pytest.mark.parametrize("name", ["ramp.mp4", "jpegs"])
def test_the_shape_of_the_indices_is_kept(videos, name):
    indices = np.array([[3, 1, 2], [9, 3, 30]])
    frames = decode(videos / name, lambda n: indices)
    assert frames.shape == (2, 3, 3, 32, 48) and frames.dtype == torch.uint8
    assert frame_numbers(frames) == indices.tolist()


def test_a_path_may_be_a_string(videos):
    assert frame_numbers(decode(str(videos / "ramp.mp4"), choose(4))) == [4]


def test_jpeg_frames_are_rgb_and_other_files_of_the_folder_are_no_frames(videos, tmp_path):
    folder = write_jpegs(tmp_path / "clip", ramp(2))
    Image.new("L", (48, 32), 200).save(folder / "img_00002.JPEG")            # grey: one channel
    (folder / "thumbs.db").write_text("not a frame")
    frames = decode(folder, np.arange)
    assert frames.shape == (3, 3, 32, 48) and frame_numbers(frames) == [0, 1, 45]


def test_jpeg_frames_are_in_order_of_their_numbers(tmp_path):
    """img_2 before img_10, padded with zeros or not."""
    padded, plain = write_jpegs(tmp_path / "padded", ramp(12)), tmp_path / "plain"
    plain.mkdir()
    for i, file in enumerate(sorted(padded.iterdir())):
        shutil.copy(file, plain / f"img_{i}.jpg")
    assert frame_numbers(decode(padded, np.arange)) == frame_numbers(decode(plain, np.arange)) == list(range(12))


@needs_ffmpeg
def test_an_avi_with_b_frames_gives_the_frames_asked_for(tmp_path):
    """torchcodec alone finds the frame before, wherever it seeks, and raises for the last: that one, and only that one,
    may come as the one before it."""
    file = tmp_path / "x.avi"
    subprocess.run("ffmpeg -v error -f lavfi -i testsrc=size=64x48:rate=25:duration=2 -threads 1 -c:v mpeg4 -vtag XVID "
                   "-bf 2 -g 300".split() + [file], check=True)
    command = ["ffmpeg", "-v", "error", "-i", file, *"-f rawvideo -pix_fmt rgb24 -".split()]
    raw = np.frombuffer(subprocess.run(command, check=True, capture_output=True).stdout, np.uint8)
    right = torch.from_numpy(raw.copy()).view(50, 48, 64, 3).permute(0, 3, 1, 2)

    frames = decode(file, np.arange)
    assert frames.shape == right.shape
    assert_close(frames[:-1], right[:-1], atol=2, rtol=0)        # two conversions from YUV may round differently
    assert min((frames[-1].float() - right[i].float()).abs().mean() for i in (-1, -2)) < 0.1
    for indices in ([30], [3, 17, 40], [48, 20]):
        assert_close(decode(file, lambda n: np.array(indices)), right[indices], atol=2, rtol=0)    # noqa: B023


# --- what cannot be decoded ----------------------------------------------------------------------------------------
DAMAGED = ["missing.mp4", "text.mp4", "truncated.mp4", "zero.mp4", "empty", "cut_jpeg", "two_sizes"]


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_video_is_undecodable(videos, name):
    with pytest.raises(Undecodable, match=name):
        decode(videos / name, lambda n: segment_indices(n, 4))


@pytest.mark.parametrize("name", DAMAGED)
def test_the_reason_is_one_line_without_source_paths(videos, name):
    with pytest.raises(Undecodable) as raised:
        decode(videos / name, lambda n: segment_indices(n, 4))
    message = str(raised.value)
    assert len(message.splitlines()) == 1 and ".cpp" not in message and "__w/" not in message
    assert len(message.removeprefix(f"{videos / name}: ")) > 10              # it says something


@pytest.mark.parametrize("error", [RuntimeError, ValueError, IndexError])
def test_whatever_the_decoder_raises_is_undecodable(videos, monkeypatch, error):
    def fail(self, indices):
        raise error("first line\nsecond line")
    monkeypatch.setattr(torchcodec.decoders.VideoDecoder, "get_frames_at", fail)
    with pytest.raises(Undecodable) as raised:
        decode(videos / "ramp.mp4", choose(0, 5))
    assert str(raised.value) == f"{videos / 'ramp.mp4'}: first line"


def test_a_reason_with_a_comma_is_kept_whole(videos, monkeypatch):
    def fail(self, indices):
        raise ValueError("expected 3 channels, got 4")
    monkeypatch.setattr(torchcodec.decoders.VideoDecoder, "get_frames_at", fail)
    with pytest.raises(Undecodable, match="expected 3 channels, got 4"):
        decode(videos / "ramp.mp4", choose(0, 5))


def test_a_frame_that_is_not_there_is_undecodable(videos):
    with pytest.raises(Undecodable):
        decode(videos / "ramp.mp4", choose(0, 50))


def test_fewer_frames_than_asked_for_is_undecodable(videos, monkeypatch):
    whole = torchcodec.decoders.VideoDecoder.get_frames_at

    def one_less(self, indices):
        return whole(self, indices[:-1])
    monkeypatch.setattr(torchcodec.decoders.VideoDecoder, "get_frames_at", one_less)
    with pytest.raises(Undecodable, match="asked for 3 frames, got 2"):
        decode(videos / "ramp.mp4", choose(0, 5, 5, 9))


# --- training clips ------------------------------------------------------------------------------------------------
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


# --- test views ----------------------------------------------------------------------------------------------------
@pytest.fixture(scope="session")
def gradients(tmp_path_factory):
    """Landscape and portrait: brighter to the right, darker with time. 80 x 64 becomes 40 x 32: crops at 0, 4 and 8."""
    folder = tmp_path_factory.mktemp("gradients")
    across = torch.linspace(20, 200, 80).expand(64, 80)
    landscape = torch.stack([across - 0.25 * t for t in range(40)])[:, None].expand(40, 3, 64, 80).to(torch.uint8)
    write_video(folder / "landscape.mp4", landscape.contiguous())
    write_video(folder / "portrait.mp4", landscape.mT.contiguous())
    return folder


def seen(sample):
    """(V, T, 3, s, s): each frame in its places."""
    return sample["frames"][sample["places"]]


def views(folder, name, **options):
    sample = TestViews([(str(folder / name), 7)], **{"T": 4, "size": 32, **options})[0]
    return {**sample, "frames": seen(sample)}


def test_there_are_clips_times_crops_views_of_uint8(gradients):
    sample = views(gradients, "landscape.mp4", clips=2, crops=3)
    assert sample["frames"].shape == (6, 4, 3, 32, 32) and sample["frames"].dtype == torch.uint8
    assert (sample["label"], sample["index"], sample["failed"]) == (7, 0, [])


def test_the_views_of_one_clip_stand_together(gradients):
    """V = clips x crops, clip by clip: the first three views are the crops of the first clip."""
    both = views(gradients, "landscape.mp4", clips=2, crops=3)["frames"]
    assert_close(both[:3], views(gradients, "landscape.mp4", clips=1, crops=3)["frames"], rtol=0, atol=0)
    assert_close(both[2::3], views(gradients, "landscape.mp4", clips=2, crops=1)["frames"], rtol=0, atol=0)
    assert not torch.equal(both[0], both[3])


def test_a_frame_that_views_share_is_there_once(videos):
    """36 frames are asked for, 3 clips of 12, of a video of 50 frames and of one of 3."""
    for name, n in (("ramp.mp4", 50), ("short.mp4", 3)):
        sample = TestViews([(str(videos / name), 0)], T=12, size=16, clips=3, crops=1)[0]
        asked = segment_indices(n, 12, 3)
        assert len(sample["frames"]) == len(np.unique(asked)) and sample["places"].shape == (3, 12)
        assert frame_numbers(seen(sample)) == asked.tolist()
    assert len(TestViews([(str(videos / "short.mp4"), 0)], 12, 16, clips=3, crops=3)[0]["frames"]) == 3 * 3


def test_three_crops_are_left_right_centre_of_a_landscape_video(gradients):
    left, right, centre = views(gradients, "landscape.mp4", crops=3)["frames"].float().mean(dim=(1, 2, 3, 4)).tolist()
    assert left + 5 < centre < right - 5                         # 4 of 40 columns are 4.5 x 2 grey levels


def test_three_crops_are_equal_on_a_portrait_video(gradients):
    frames = views(gradients, "portrait.mp4", crops=3)["frames"]
    assert_close(frames, frames[:1].expand_as(frames), rtol=0, atol=0)


def test_a_larger_resize_shows_less_of_the_video(gradients):
    def span(resize):
        columns = views(gradients, "landscape.mp4", resize=resize)["frames"].float().mean(dim=(0, 1, 2, 3))
        return (columns[-1] - columns[0]).item()
    assert span(None) == span(32) > 1.5 * span(64)               # 32 of 40 columns against 32 of 80


def test_crops_of_one_colour_stay_that_colour(videos):
    sample = TestViews([(str(videos / "ramp.mp4"), 0)], T=4, size=16, clips=2, crops=1)[0]
    assert frame_numbers(seen(sample)) == segment_indices(50, 4, 2).tolist()


@pytest.mark.parametrize("crops, resize", [(2, 32), (0, 32), (1, 31)])
def test_other_crops_and_a_resize_below_the_size_are_refused(crops, resize):
    with pytest.raises(ValueError, match="crops must be 1 or 3 and resize at least"):
        data.view_crops(ramp(2), 32, resize, crops)


def test_a_bad_test_video_is_never_replaced(videos):
    views = TestViews([(str(videos / "ramp.mp4"), 0), (str(videos / "text.mp4"), 5)], T=4, size=16, clips=2, crops=3)
    bad = views[1]
    assert bad["failed"] == [1] and bad["index"] == 1 and bad["label"] == 5
    assert_close(seen(bad), torch.zeros(6, 4, 3, 16, 16, dtype=torch.uint8))
    assert seen(views[0]).shape == seen(bad).shape               # so that the two can be batched


def test_a_batch_lists_all_that_failed(videos):
    names = ["text.mp4", "ramp.mp4", "zero.mp4"]
    views = TestViews([(str(videos / name), i) for i, name in enumerate(names)], T=2, size=16)
    batch = data.collate([views[i] for i in range(3)])
    assert batch["failed"] == [0, 2] and batch["label"].tolist() == batch["index"].tolist() == [0, 1, 2]
    assert batch["frames"].shape == (4, 3, 16, 16) and batch["frames"].dtype == torch.uint8        # 1 + 2 + 1 of them
    assert batch["places"].tolist() == [[[0, 0]], [[1, 2]], [[3, 3]]]


# --- batches -------------------------------------------------------------------------------------------------------
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


# --- real files ----------------------------------------------------------------------------------------------------
SHAPES = {"arm_wrestling.mp4": (280, 256, 340), "flipping_a_pancake.mkv": (310, 240, 426),
          "test_mpeg4.avi": (164, 240, 320), "h265.mp4": (10, None, None), "av1.mkv": (125, None, None),
          "h264_10bit.mp4": (30, None, None),
          "rotated_90.mov": (3, 568, 320), "unordered_pts.mov": (4, None, None)}


@needs_real
@pytest.mark.parametrize("name", SHAPES)
def test_a_real_file_decodes_to_its_shape(name):
    count, h, w = SHAPES[name]
    counts = []
    frames = decode(REAL / name, lambda n: counts.append(n) or segment_indices(n, 8, 3))
    assert counts == [count] and frames.shape[:3] == (3, 8, 3) and frames.dtype == torch.uint8
    assert h is None or frames.shape[3:] == (h, w)               # rotated_90 is portrait once turned
    assert name == "unordered_pts.mov" or frames.float().std() > 5           # a picture (that one is all white)


@needs_real
def test_the_mpeg4_of_ucf101_decodes_whole():
    assert decode(REAL / "test_mpeg4.avi", np.arange).shape == (164, 3, 240, 320)


@needs_real
def test_a_corrupted_file_is_undecodable():
    with pytest.raises(Undecodable, match="corrupted.mp4"):
        decode(REAL / "corrupted.mp4", lambda n: segment_indices(n, 8))


@needs_real
def test_a_rotated_file_has_three_equal_crops():
    frames = seen(TestViews([(str(REAL / "rotated_90.mov"), 0)], T=2, size=32, crops=3)[0])
    assert_close(frames, frames[:1].expand_as(frames), rtol=0, atol=0)
    assert_close(frames[0], vision.center_crop(vision.resize(
        decode(REAL / "rotated_90.mov", lambda n: segment_indices(n, 2))[0], [32],
        interpolation=vision.InterpolationMode.BICUBIC, antialias=True), [32, 32]), rtol=0, atol=0)


def test_frames_of_several_kinds_and_containers_that_torchcodec_mistakes_are_refused(tmp_path, videos):
    """Optical flow beside its frames is no frame; in MPEG-TS, torchcodec finds other frames than those asked for."""
    write_jpegs(tmp_path / "flow", ramp(3))
    for file in list((tmp_path / "flow").iterdir()):
        shutil.copy(file, tmp_path / "flow" / f"flow_x_{file.stem}.jpg")
    with pytest.raises(Undecodable, match="several kinds"):
        decode(tmp_path / "flow", np.arange)
    shutil.copy(videos / "ramp.mp4", tmp_path / "a.ts")
    with pytest.raises(Undecodable, match="re-encode"):
        decode(tmp_path / "a.ts", np.arange)


def test_a_last_frame_that_cannot_be_reached_is_the_one_before(videos, monkeypatch):
    """Open GOPs end so. Only the last: a failure elsewhere is one."""
    from torchcodec.decoders import VideoDecoder
    get = VideoDecoder.get_frames_at

    def without(lost):
        return lambda self, indices: get(self, [*indices]) if lost not in indices else (_ for _ in ()).throw(
            RuntimeError("no more frames"))
    monkeypatch.setattr(VideoDecoder, "get_frames_at", without(49))
    assert frame_numbers(decode(videos / "ramp.mp4", lambda n: np.array([3, 49]))) == [3, 48]
    monkeypatch.setattr(VideoDecoder, "get_frames_at", without(20))
    with pytest.raises(Undecodable):
        decode(videos / "ramp.mp4", lambda n: np.array([3, 20, 49]))
