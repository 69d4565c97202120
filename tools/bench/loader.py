"""
What tools/bench/speed.py compares the training loader with, on one file: three ways to the frames of one clip.

    ours              TrainingClips, whole: decoding and all training transforms                         (mote/data.py)
    decoding alone    torchcodec on the same frames, and nothing else: no loader can be faster
    decord + PIL      as the authors' loader: decord, short side 256 (bicubic), one crop, flip and gray decision per
                      clip, 224 (bilinear), floats. decord is an extra of this benchmark: pip install decord

and three kinds of file: a video, the same prepared by tools/prepare.py, and a folder of that one's frames as JPEGs.
Each way is a function of the pair's number, which seeds the frame indices: the same for all ways of one file.
"""
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mote.data import TrainingClips, random_indices

T, SIZE, SHORT_SIDE, SEED = 8, 224, 256, 0


def generator(pair: int) -> np.random.Generator:
    """As TrainingClips makes it for (epoch, index) = (pair, 0): what it draws first are the frame indices."""
    return np.random.default_rng((SEED, pair, 0))


def ours(path: Path) -> Callable[[int], Tensor]:
    clips = TrainingClips([(str(path), 0)], T, SIZE, SEED)

    def get(pair: int) -> Tensor:
        clip = clips[pair, 0]
        if clip["failed"]:                                       # decoded at the second try, with other frames
            raise ValueError(f"{path}: cannot be decoded every time")
        return clip["frames"]
    return get


def decoding_alone(path: Path) -> Callable[[int], Tensor]:
    from torchcodec.decoders import VideoDecoder, decode_jpeg

    def get(pair: int) -> Tensor:
        if path.is_dir():
            indices = np.unique(random_indices(len(files), T, generator(pair)))
            return torch.stack([decode_jpeg(files[i], mode="RGB") for i in indices])
        decoder = VideoDecoder(path, num_ffmpeg_threads=1)
        return decoder.get_frames_at(np.unique(random_indices(len(decoder), T, generator(pair))).tolist()).data
    files = sorted(path.glob("*.jpg"))
    return get


def decord_and_pil(path: Path) -> Callable[[int], Tensor]:
    """On one thread, its fastest on one core. Raises ImportError without decord, ValueError where it cannot decode."""
    import decord
    from PIL import Image
    from torchvision.transforms import RandomResizedCrop

    def get(pair: int) -> Tensor:
        rng = generator(pair)
        reader = decord.VideoReader(str(path), num_threads=1)
        frames = reader.get_batch(random_indices(len(reader), T, rng)).asnumpy()                    # (T, h, w, 3)
        scale = SHORT_SIDE / min(frames.shape[1:3])
        size = round(frames.shape[2] * scale), round(frames.shape[1] * scale)                       # w, h
        images = [Image.fromarray(frame).resize(size, Image.Resampling.BICUBIC) for frame in frames]
        top, left, h, w = RandomResizedCrop.get_params(images[0], scale=[0.08, 1], ratio=[3 / 4, 4 / 3])
        flip, gray = rng.random(2) < (0.5, 0.2)
        images = [image.crop((left, top, left + w, top + h)) for image in images]
        images = [image.resize((SIZE, SIZE), Image.Resampling.BILINEAR) for image in images]
        if flip:
            images = [image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) for image in images]
        if gray:
            images = [image.convert("L").convert("RGB") for image in images]
        return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous().float() / 255
    try:
        get(0)                                                   # it fails on widths that it pads, for one
    except decord.DECORDError as error:
        raise ValueError(f"decord: {str(error).splitlines()[0][-100:]}") from None
    return get


WAYS = {"ours": ours, "decoding alone": decoding_alone, "decord + PIL": decord_and_pil}


def prepared(video: Path, folder: Path) -> Path:
    """The video as tools/prepare.py writes it. Raises OSError with its last line if it cannot."""
    (folder / "src").mkdir()
    shutil.copy(video, folder / "src")
    done = subprocess.run([sys.executable, Path(__file__).parents[1] / "prepare.py", folder / "src", folder / "dst",
                           "--jobs", "1", "--measure", "0"], capture_output=True, text=True)
    if done.returncode:
        raise OSError(f"tools/prepare.py: {(done.stderr.strip().splitlines() or ['failed'])[-1][-200:]}")
    return folder / "dst" / f"{video.stem}.mp4"


def jpegs(video: Path, folder: Path) -> Path:
    """A folder with all its frames, at PIL's usual quality."""
    from PIL import Image
    from torchcodec.decoders import VideoDecoder

    (folder / "jpegs").mkdir()
    for i, frame in enumerate(VideoDecoder(video, dimension_order="NHWC")):
        Image.fromarray(frame.numpy()).save(folder / "jpegs" / f"{i:06d}.jpg")
    return folder / "jpegs"


def files(video: Path, folder: Path) -> dict[str, Path]:
    """video, prepared, JPEG folder; made in `folder`."""
    short = prepared(video, folder)
    return {"video": video, "prepared": short, "JPEG folder": jpegs(short, folder)}
