"""
Test views hold the right crops of the right frames, each frame once, whatever the shape of the video.

Checked against videos whose brightness tells left from right and one frame from the next; and, where $MOTE_TEST_VIDEOS
is set, on a rotated file.
"""
import numpy as np
import pytest
import torch
from support.ramps import REAL, frame_numbers, needs_real, ramp, write_video
from torch.testing import assert_close
from torchvision.transforms.v2 import functional as vision

from mote import data
from mote.data import TestViews, decode, segment_indices


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


@needs_real
def test_a_rotated_file_has_three_equal_crops():
    frames = seen(TestViews([(str(REAL / "rotated_90.mov"), 0)], T=2, size=32, crops=3)[0])
    assert_close(frames, frames[:1].expand_as(frames), rtol=0, atol=0)
    assert_close(frames[0], vision.center_crop(vision.resize(
        decode(REAL / "rotated_90.mov", lambda n: segment_indices(n, 2))[0], [32],
        interpolation=vision.InterpolationMode.BICUBIC, antialias=True), [32, 32]), rtol=0, atol=0)
