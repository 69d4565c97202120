"""Videos for the tests of mote/data.py: good ones and damaged ones of every kind seen."""
import pytest
import torch
from PIL import Image
from support.ramps import ramp, write_jpegs, write_video


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
