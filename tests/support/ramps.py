"""Videos whose frames can be told apart, videos and folders of JPEGs to write, and where real ones lie."""
import os
from pathlib import Path

import pytest
import torch
from PIL import Image
from torchcodec.encoders import VideoEncoder

REAL = Path(os.environ.get("MOTE_TEST_VIDEOS") or "-")
needs_real = pytest.mark.skipif(not REAL.is_dir(), reason="$MOTE_TEST_VIDEOS names no folder of real videos")


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
