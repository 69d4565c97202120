"""
Test views hold the right crops of the right frames, each frame once, whatever the shape of the video.

Checked against videos whose brightness tells left from right and one frame from the next; against open_clip's own
transform of PIL images, in each way that it has to resize; and, where $MOTE_TEST_VIDEOS is set, on a rotated file.
"""
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from open_clip.transform import image_transform
from PIL import Image
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


# --- as the tower was trained to see a frame -------------------------------------------------------------------------
WAYS = [(mode, interpolation) for mode in ("shortest", "squash") for interpolation in ("bicubic", "bilinear")]
SHAPES = {"landscape": (257, 401), "portrait": (320, 240), "small": (37, 90)}             # the last is enlarged


def picture(height, width):
    """uint8 (3, h, w): shades from coarse to fine, as in a photograph, and a saturated rectangle with hard edges."""
    generator = torch.Generator().manual_seed(0)
    shades = torch.zeros(1, 3, height, width)
    for grid in (4, 9, 20, 60, 200):
        coarse = torch.rand(1, 3, grid, grid, generator=generator)
        shades += F.interpolate(coarse, (height, width), mode="bilinear") * grid**-0.5
    shades = 255 * (shades - shades.min()) / (shades.max() - shades.min())
    shades[..., height // 3:height // 2, width // 4:width // 2] = torch.tensor([255., 0, 40])[:, None, None]
    return shades[0].to(torch.uint8)


def levels_apart(image, size, ours, theirs):
    """Of 255: |our one crop - open_clip's inference transform of the same PIL image|. ours, theirs: of WAYS."""
    transform = image_transform(size, is_train=False, mean=(0, 0, 0), std=(1, 1, 1), resize_mode=theirs[0],
                                interpolation=theirs[1])
    expected = 255 * transform(Image.fromarray(image.permute(1, 2, 0).numpy()))
    return (data.view_crops(image[None], size, size, 1, *ours)[0, 0] - expected).abs()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("shape", SHAPES)
def test_a_view_is_what_open_clips_inference_transform_makes_of_the_frame(shape, way):
    """99 % within a level of 255, 0.25 levels in the mean: PIL rounds between two passes, in an order of its own."""
    image = picture(*SHAPES[shape])
    for size in (32, 224):
        apart = levels_apart(image, size, way, way)
        assert apart.mean() < 0.25 and apart.quantile(0.99) < 1.001
        for other in WAYS:
            assert other == way or levels_apart(image, size, way, other).mean() > 0.5


def test_a_squashed_view_has_the_whole_frame_whatever_its_shape(gradients):
    """A crop loses a tenth of the gradient at either end; it runs across or down, as the frame stands."""
    def span(name, axis, **how):
        line = views(gradients, name, **how)["frames"].float().mean(dim=(0, 1, 2, axis))
        return (line[-1] - line[0]).item()
    for name, axis in (("landscape.mp4", 3), ("portrait.mp4", 4)):
        squashed, cropped = span(name, axis, resize_mode="squash"), span(name, axis)
        assert squashed == pytest.approx(180 * 31 / 32, abs=5) and cropped == pytest.approx(180 * 31 / 40, abs=5)


def test_squashed_views_are_clips_of_one_crop_each(gradients):
    sample = views(gradients, "portrait.mp4", clips=3, resize_mode="squash", interpolation="bilinear")
    assert sample["frames"].shape == (3, 4, 3, 32, 32) and sample["frames"].dtype == torch.uint8
    frames = decode(gradients / "portrait.mp4", lambda n: segment_indices(n, 4, 3)[2])
    expected = vision.resize(frames, [32, 32], interpolation=vision.InterpolationMode.BILINEAR, antialias=True)
    assert_close(sample["frames"][2], expected, rtol=0, atol=0)


@pytest.mark.parametrize("crops, resize", [(3, 32), (1, 48), (2, 32)])
def test_a_squashed_frame_leaves_nothing_to_crop(crops, resize):
    with pytest.raises(ValueError, match=f"a squashed frame is whole: .* model's 32, got {crops} and {resize}"):
        data.view_crops(ramp(2), 32, resize, crops, "squash")


@pytest.mark.parametrize("mode, interpolation", [("longest", "bicubic"), ("squash", "nearest"), ("", "bilinear")])
def test_other_ways_to_resize_are_refused(mode, interpolation):
    with pytest.raises(ValueError, match=f"shortest or squash, bicubic or bilinear, got {mode} and {interpolation}"):
        data.view_crops(ramp(2), 32, 32, 1, mode, interpolation)
