"""
A clip holds the frames that were asked for, and a damaged video is named, not silently used.

For video files and folders of JPEGs written here, and for damaged ones of every kind seen. Checked against videos whose
frame t has brightness 20 + 4 t, so that the index of a frame can be read off it; against ffmpeg's own decoding; and,
where $MOTE_TEST_VIDEOS is set, on real files of seven codecs and containers.
"""
import platform
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
import torchcodec.decoders
from PIL import Image
from support.ramps import REAL, frame_numbers, needs_real, ramp, write_jpegs
from torch.testing import assert_close

from mote.data import Undecodable, decode, segment_indices
from mote.files import decoding

needs_ffmpeg = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="no ffmpeg program to write this file with")


# --- decoding --------------------------------------------------------------------------------------------------------
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


@pytest.mark.parametrize("name", ["frame ({}).jpg", "frame({}).jpg", "frame [{}].jpg", "{} copy.jpg", "a2-{}_rgb.JPG",
                                  "frame_{}.jpeg", "{}.jpg"])
def test_the_last_number_of_a_name_is_the_frames(tmp_path, name):
    """Windows numbers files so: frame (1).jpg."""
    for i, file in enumerate(sorted(write_jpegs(tmp_path / "clip", ramp(12)).iterdir())):
        file.rename(tmp_path / "clip" / name.format(i))
    assert frame_numbers(decode(tmp_path / "clip", np.arange)) == list(range(12))


@pytest.mark.parametrize("name", ["frame (1) copy of flow.jpg", "a3-1_rgb.jpg", "frame.jpg", "frame (1) (1).jpg"])
def test_a_name_that_differs_in_more_than_its_last_number_is_of_another_kind(tmp_path, name):
    folder = write_jpegs(tmp_path / "clip", ramp(3))
    for i, file in enumerate(sorted(folder.iterdir())):
        file.rename(folder / (f"frame ({i}).jpg" if "frame" in name else f"a2-{i}_rgb.jpg"))
    shutil.copy(next(folder.iterdir()), folder / name)
    with pytest.raises(Undecodable, match="several kinds"):
        decode(folder, np.arange)


@pytest.mark.parametrize("name", ["12:30/1.mp4", "a:b.mp4", "file:x.mp4", "http:/x.mp4", "-x:y.mp4", "concat:1.mp4"])
def test_a_colon_in_a_relative_path_is_no_protocol(videos, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    Path(name).parent.mkdir(exist_ok=True)
    shutil.copy(videos / "ramp.mp4", name)
    assert frame_numbers(decode(name, choose(4, 9))) == [4, 9]
    write_jpegs(Path("1:2"), ramp(3))
    assert frame_numbers(decode("1:2", np.arange)) == [0, 1, 2]


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


@needs_ffmpeg
@pytest.mark.skipif(platform.machine() != "x86_64", reason="decord has no wheel for this machine")
def test_decord_and_torchcodec_agree_within_two_levels(tmp_path):
    """The authors' decoder and ours, on 8-bit H.264 with B-frames: docs/differences.md says so."""
    decord = pytest.importorskip("decord")
    file = tmp_path / "x.mp4"
    subprocess.run("ffmpeg -v error -f lavfi -i testsrc2=size=320x240:rate=25:duration=2 -threads 1 -c:v libx264 "
                   "-pix_fmt yuv420p -g 12 -bf 2".split() + [file], check=True)
    indices = np.array([0, 7, 20, 33, 49])
    theirs = torch.from_numpy(decord.VideoReader(str(file), num_threads=1).get_batch(indices).asnumpy())
    assert_close(decode(file, lambda n: indices), theirs.permute(0, 3, 1, 2), atol=2, rtol=0)


# --- what cannot be decoded ------------------------------------------------------------------------------------------
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
    def fail(self, *indices):
        raise error("first line\nsecond line")
    monkeypatch.setattr(torchcodec.decoders.VideoDecoder, "get_frames_at", fail)
    monkeypatch.setattr("mote.files.decoding.InOrder.get", fail)
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


def test_frames_of_several_kinds_are_refused(tmp_path):
    """Optical flow beside its frames is no frame."""
    write_jpegs(tmp_path / "flow", ramp(3))
    for file in list((tmp_path / "flow").iterdir()):
        shutil.copy(file, tmp_path / "flow" / f"flow_x_{file.stem}.jpg")
    with pytest.raises(Undecodable, match="several kinds"):
        decode(tmp_path / "flow", np.arange)


@pytest.mark.parametrize("lost", [20, 47, 49])
def test_a_frame_that_cannot_be_sought_is_read_in_order(videos, monkeypatch, lost):
    """Open GOPs end so."""
    get = torchcodec.decoders.VideoDecoder.get_frames_at

    def without(self, indices):
        if lost in indices:
            raise RuntimeError("no more frames")
        return get(self, indices)
    monkeypatch.setattr(torchcodec.decoders.VideoDecoder, "get_frames_at", without)
    assert frame_numbers(decode(videos / "ramp.mp4", choose(3, lost, 49))) == [3, lost, 49]


# --- real files ------------------------------------------------------------------------------------------------------
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


def test_a_video_without_a_single_frame_is_undecodable_and_no_index_is_asked_of_it(videos, monkeypatch):
    monkeypatch.setattr(decoding, "open_video", lambda path, look: [])
    with pytest.raises(Undecodable, match="ramp.mp4: no frame in it"):
        decode(videos / "ramp.mp4", lambda n: pytest.fail("no index of none"))
