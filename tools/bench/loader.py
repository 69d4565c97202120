"""
Three ways to the frames of a clip: the training loader, and what speed.py compares it with.

    ours             TrainingClips: decoding and all training transforms             (mote/data.py)
    decoding alone   torchcodec on the same frames, and nothing else: no loader can be faster
    decord + PIL     as the authors' loader: decord; short side 256 (bicubic); one crop, one
                     decision on flip and one on gray per clip; 224 (bilinear); floats. decord is
                     an extra of this benchmark: pip install decord

Beside them, "a look" at the file's bytes, which tells whether torchcodec's seeks are right.

There are three kinds of file: a video, the same prepared by tools/prepare.py, and a folder with
the frames of the prepared one as JPEGs.

Each way is a function of the pair's number. The number seeds the frame indices, so that all ways
read the same frames of a file.
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
from mote.files.containers import Look, examine

T = 8
SIZE = 224
SHORT_SIDE = 256
SEED = 0


# --- 1. three ways to the frames of a clip --------------------------------------------------------
def generator(pair: int) -> np.random.Generator:
    """As TrainingClips makes it for (epoch, index) = (pair, 0). It draws frame indices first."""
    return np.random.default_rng((SEED, pair, 0))


def ours(path: Path) -> Callable[[int], Tensor]:
    """Frames (T, 3, SIZE, SIZE), uint8. Raises ValueError if a file does not decode every time."""
    clips = TrainingClips([(str(path), 0)], T, SIZE, SEED)

    def get(pair: int) -> Tensor:
        clip = clips[pair, 0]
        if clip["failed"]:                            # decoded at the second try, with other frames
            raise ValueError(f"{path}: cannot be decoded every time")
        return clip["frames"]

    return get


def decoding_alone(path: Path) -> Callable[[int], Tensor]:
    """The distinct frames, uint8, in the size of the file; of a folder, its JPEGs."""
    from torchcodec.decoders import VideoDecoder, decode_jpeg

    pictures = sorted(path.glob("*.jpg"))

    def from_folder(pair: int) -> Tensor:
        indices = np.unique(random_indices(len(pictures), T, generator(pair)))
        return torch.stack([decode_jpeg(pictures[i], mode="RGB") for i in indices])

    def from_video(pair: int) -> Tensor:
        decoder = VideoDecoder(path, num_ffmpeg_threads=1)
        indices = np.unique(random_indices(len(decoder), T, generator(pair)))
        return decoder.get_frames_at(indices.tolist()).data

    return from_folder if path.is_dir() else from_video


def decord_and_pil(path: Path) -> Callable[[int], Tensor]:
    """Frames (T, 3, SIZE, SIZE), floats in [0, 1]. On one thread, which is its fastest on one core.

    Raises ImportError without decord, and ValueError where decord cannot decode the file.
    """
    import decord
    from PIL import Image

    def get(pair: int) -> Tensor:
        rng = generator(pair)
        reader = decord.VideoReader(str(path), num_threads=1)
        frames = reader.get_batch(random_indices(len(reader), T, rng)).asnumpy()     # (T, h, w, 3)
        images = authors_transforms([Image.fromarray(frame) for frame in frames], rng)
        frames = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)
        return frames.contiguous().float() / 255

    # decord fails on some files, for one on widths that it pads: find out before anything is timed.
    try:
        get(0)
    except decord.DECORDError as error:
        raise ValueError(f"decord: {str(error).splitlines()[0][-100:]}") from None
    return get


def authors_transforms(images: list, rng: np.random.Generator) -> list:
    """PIL images, one per frame, after the authors' training transforms: SIZE x SIZE each."""
    from PIL import Image
    from torchvision.transforms import RandomResizedCrop

    # Their order: the whole frame is scaled first, although most of it is cropped away after.
    w, h = images[0].size
    scale = SHORT_SIDE / min(w, h)
    size = round(w * scale), round(h * scale)
    images = [image.resize(size, Image.Resampling.BICUBIC) for image in images]

    # One draw for all frames of the clip, or the object would seem to jump.
    top, left, h, w = RandomResizedCrop.get_params(images[0], scale=[0.08, 1], ratio=[3 / 4, 4 / 3])
    images = [image.crop((left, top, left + w, top + h)) for image in images]
    images = [image.resize((SIZE, SIZE), Image.Resampling.BILINEAR) for image in images]

    flip, gray = rng.random(2) < (0.5, 0.2)
    if flip:
        images = [image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) for image in images]
    if gray:
        images = [image.convert("L").convert("RGB") for image in images]
    return images


def a_look(path: Path) -> Callable[[int], Look]:
    """What the file's bytes say of it. No frame is decoded."""
    def get(_: int) -> Look:
        return examine(path)

    return get


WAYS = {"ours": ours, "decoding alone": decoding_alone, "a look": a_look,
        "decord + PIL": decord_and_pil}


# --- 2. who decodes: workers on the CPU, or the GPU -----------------------------------------------
CLIPS = 64                                            # decoded in a round, T sparse frames of each


class SparseFrames(torch.utils.data.Dataset):
    """Clip i of a round -> its frames (T, 3, h, w), uint8, on a device; no transforms."""

    def __init__(self, path: Path, device: str = "cpu"):
        self.path = path
        self.device = device

    def __len__(self) -> int:
        return CLIPS

    def __getitem__(self, i: int) -> Tensor:
        from torchcodec.decoders import VideoDecoder

        # A decoder a clip, as in training, where each clip is another file.
        decoder = VideoDecoder(self.path, num_ffmpeg_threads=1, device=self.device)
        indices = np.unique(random_indices(len(decoder), T, generator(i)))
        return decoder.get_frames_at(indices.tolist()).data


def by_workers(path: Path, workers: int) -> Callable[[int], int]:
    """A round by processes that stay from one round to the next. -> frames decoded"""
    loader = torch.utils.data.DataLoader(SparseFrames(path), batch_size=None, num_workers=workers,
                                         persistent_workers=workers > 0)

    def decode(_: int) -> int:
        return sum(len(frames) for frames in loader)

    return decode


def by_device(path: Path, device: str) -> Callable[[int], int]:
    """A round by one process, on a GPU's decoder for cuda. -> frames decoded"""
    clips = SparseFrames(path, device)

    def decode(_: int) -> int:
        return sum(len(clips[i]) for i in range(CLIPS))

    return decode


# --- 3. three kinds of file -----------------------------------------------------------------------
def prepared(video: Path, folder: Path) -> Path:
    """The video as tools/prepare.py writes it. Raises OSError with its last line if it cannot."""
    source = folder / "src"
    target = folder / "dst"
    source.mkdir()
    shutil.copy(video, source)

    script = Path(__file__).parents[1] / "prepare.py"
    command = [sys.executable, script, source, target, "--jobs", "1", "--measure", "0"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["failed"]
        raise OSError(f"tools/prepare.py: {lines[-1][-200:]}")
    return target / f"{video.stem}.mp4"


def jpegs(video: Path, folder: Path) -> Path:
    """A folder with all frames of the video, at PIL's usual quality."""
    from PIL import Image
    from torchcodec.decoders import VideoDecoder

    made = folder / "jpegs"
    made.mkdir()
    for i, frame in enumerate(VideoDecoder(video, dimension_order="NHWC")):
        Image.fromarray(frame.numpy()).save(made / f"{i:06d}.jpg")
    return made


def files(video: Path, folder: Path) -> dict[str, Path]:
    """The video, prepared, and as a folder of JPEGs; the last two are made in `folder`."""
    short = prepared(video, folder)
    return {"video": video, "prepared": short, "JPEG folder": jpegs(short, folder)}
