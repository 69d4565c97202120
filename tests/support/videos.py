"""Small video files, and lists and folders of them."""
import functools
from pathlib import Path

import numpy as np
import torch
from torchcodec.encoders import VideoEncoder

from mote.data import TestViews, decode
from mote.datasets.lists import read_split

CODECS = {".mp4": "libx264", ".avi": "mpeg4", ".mkv": "libx264", ".webm": "libvpx-vp9"}


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@functools.cache
def video(ending, brightness):
    """Four frames of one brightness, in the codec that goes with the ending."""
    frames = torch.full((4, 3, 32, 48), brightness, dtype=torch.uint8)
    format = {".mkv": "matroska"}.get(ending, ending[1:])
    encoded = VideoEncoder(frames, frame_rate=10).to_tensor(format, codec=CODECS[ending], extra_options={"threads": 1})
    return bytes(encoded.numpy())


def write_video(path, label):
    write(path, video(path.suffix, 40 + 100 * label))


def touch(folder, *names):
    for name in names:
        write(folder / name, b"x")
    return folder


def relative(videos, folder):
    return [(Path(path).relative_to(folder).as_posix(), label) for path, label in videos]


def check(folder, side, classes, names, **options):
    """The classes, and that each video is the one of its label: brightness 40 for label 0, 140 for label 1, ..."""
    videos, found = read_split(folder, side, **options)
    assert found == classes and sorted(relative(videos, folder)) == sorted(names)
    views = TestViews(videos, T=2, size=16)
    for i, (path, label) in enumerate(videos):
        assert abs(views[i]["frames"].float().mean() - (40 + 100 * label)) < 3, path     # codecs are 1 or 2 levels off
        assert views[i]["failed"] == [] and len(decode(path, np.arange)) == 4
