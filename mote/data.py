"""
Videos to clips: which frames, which crops, in which batches. uint8 throughout; CLIP normalises.

    training    T equal segments, one random frame of each;                     (App. B, Table 6)
                one crop, flip and gray decision per clip
    testing     the first frame of each segment, `clips` times shifted;
                1 or 3 crops: V = clips x crops views; resized as the tower was trained to see it

A clip is a function of (seed, epoch, index of the video), a batch of (seed, step). So the number of
workers or ranks, or resuming, never changes what is trained on. A video that cannot be decoded is
replaced and reported in training, and only reported in testing.

Dimension key   V views per video   T frames per clip   c h w pixels (only here)   s image size
Copy together with files/decoding.py and files/containers/: keep the folders as they are, or put
the three side by side on sys.path. Needs torch, numpy, torchvision and torchcodec (and FFmpeg).
Differs from the authors' code: no resize before the random crop; segments do not overlap.
"""
import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

try:
    from .files.decoding import MAX_PIXELS, Undecodable, decode, decode_distinct, require_decoder
except ImportError:                             # copied beside decoding.py, outside the package
    from decoding import MAX_PIXELS, Undecodable, decode, decode_distinct, require_decoder

__all__ = [
    "segment_indices", "random_indices", "view_crops", "TrainingClips", "TestViews", "collate",
    "MicroBatches", "MAX_PIXELS", "Undecodable", "decode", "decode_distinct", "require_decoder",
]

MAX_TRIES = 10            # videos tried for one clip: in a folder without a single good one, stop


# --- which frames ---------------------------------------------------------------------------------
def random_indices(num_frames: int, T: int, rng: np.random.Generator) -> np.ndarray:
    """Training frames: one of each of T equal segments -> (T,), sorted, 0-based.

    Short videos repeat frames. num_frames: at least 1. rng: T numbers are drawn from it.
    """
    positions = np.arange(T) + rng.random(T)                     # in segments
    drawn = (positions * (num_frames / T)).astype(int)
    return drawn.clip(max=num_frames - 1)                        # T - 1 + .999.. may round up to T


def segment_indices(num_frames: int, T: int, clips: int = 1) -> np.ndarray:
    """Test frames: the first of each of T segments, for each of `clips` evenly shifted starts.

    -> (clips, T), 0-based. The same as the authors' loader, including its wrap-around in videos
    shorter than T: a start of -1 wraps to the last frame.

    >>> segment_indices(100, 4, clips=3)
    array([[ 0, 25, 50, 75],
           [12, 37, 62, 87],
           [24, 49, 74, 99]])
    """
    segment = num_frames / T                                     # its length in frames, not whole
    starts = np.linspace(0, segment - 1, num=clips, dtype=int)   # rounds down, also below 0
    positions = starts[:, None] + segment * np.arange(T)
    return positions.astype(int) % num_frames                    # rounds towards 0


# --- which pixels ---------------------------------------------------------------------------------
def view_crops(frames: Tensor, size: int, resize: int, crops: int = 1,
               resize_mode: str = "shortest", interpolation: str = "bicubic") -> Tensor:
    """uint8 (..., 3, h, w) -> (crops, ..., 3, size, size), as open_clip's inference transform.

    resize_mode: "shortest" brings the short side to `resize`, then crops. "squash" brings both
    sides to `size`, whatever the shape was: nothing is left to crop. interpolation: "bicubic" or
    "bilinear". Both belong to the tower's weights.

    One crop: the centre. Three: left, right, centre, where the authors' stand, including a quirk:
    on a portrait video all three are the centre. Raises ValueError for another number of crops,
    resize < size, a squash with other than one crop and resize = size, and other names.
    """
    from torchvision.transforms.v2 import InterpolationMode
    from torchvision.transforms.v2 import functional as vision

    check_views(size, resize, crops, resize_mode, interpolation)
    # Without antialias a tensor would be sampled at points, unlike the PIL images of open_clip.
    how = {"interpolation": InterpolationMode(interpolation), "antialias": True}
    if resize_mode == "squash":
        return vision.resize(frames, [size, size], **how)[None]

    frames = vision.resize(frames, [resize], **how)
    if crops == 1:
        return vision.center_crop(frames, [size, size])[None]

    h, w = frames.shape[-2:]
    quarter_h = (h - size) // 4                                  # the authors count in quarters,
    quarter_w = (w - size) // 4                                  # rounded down
    top = 2 * quarter_h
    lefts = (0, 4 * quarter_w, 2 * quarter_w)
    return torch.stack([vision.crop(frames, top, left, size, size) for left in lefts])


def check_views(size: int, resize: int, crops: int, resize_mode: str, interpolation: str) -> None:
    """Raise ValueError, one line, for what `view_crops` cannot do."""
    if resize_mode not in ("shortest", "squash") or interpolation not in ("bicubic", "bilinear"):
        raise ValueError("frames are resized by shortest or squash, bicubic or bilinear, "
                         f"got {resize_mode} and {interpolation}")
    if resize_mode == "squash" and (crops != 1 or resize != size):
        raise ValueError(f"a squashed frame is whole: crops must be 1 and resize the model's "
                         f"{size}, got {crops} and {resize}")
    if crops not in (1, 3) or resize < size:
        raise ValueError(f"crops must be 1 or 3 and resize at least the model's {size}, "
                         f"got {crops} and {resize}")


def training_transform(size: int, min_area: float, flip: bool, gray: bool = True
                       ) -> Callable[[Tensor], Tensor]:
    """(T, 3, h, w) -> (T, 3, size, size), one decision for all T, from torch's global generator.

    size: in pixels. min_area: of the crop, as a fraction of the frame. gray: one clip in five. One
    decision for a clip, or crops that jump from frame to frame would look like motion.
    Bilinear for every tower, and never squashed: the random crop is the recipe's, not the tower's.
    """
    from torchvision.transforms import v2

    return v2.Compose([
        v2.RandomResizedCrop(size, scale=(min_area, 1), ratio=(3 / 4, 4 / 3), antialias=True),
        v2.RandomHorizontalFlip(0.5 if flip else 0),
        v2.RandomGrayscale(0.2 if gray else 0),
    ])


# --- clips and views ------------------------------------------------------------------------------
class TrainingClips(torch.utils.data.Dataset):
    """(epoch, index) -> a training clip, as a dict:

        frames   uint8 (T, 3, s, s), contiguous
        label    of the video that was decoded
        index    of that video
        failed   the indices of those that could not be decoded, in whose place it stands

    videos: (path, label) pairs. flip: False if classes tell left from right. gray: whether one clip
    in five loses its colours. min_area: of a crop, as a fraction of the frame. watch: `with
    watch(index):` stands around each decode (see runtime/watched_loading.py).
    """

    def __init__(
        self, videos: list[tuple[str, int]], T: int, size: int, seed: int, flip: bool = True,
        min_area: float = 0.08, watch: Callable = contextlib.nullcontext, gray: bool = True,
    ):
        self.videos = videos
        self.T = T
        self.seed = seed
        self.watch = watch
        self.transform = training_transform(size, min_area, flip, gray)

    def __len__(self) -> int:
        return len(self.videos)

    def __getitem__(self, key: tuple[int, int]) -> dict:
        """Raises Undecodable if MAX_TRIES videos in a row cannot be decoded."""
        epoch, index = key
        rng = np.random.default_rng((self.seed, epoch, index))   # all that is drawn for this clip
        failed: list[int] = []
        for _ in range(MAX_TRIES):
            path, label = self.videos[index]
            try:
                with self.watch(index):
                    frames = decode(path, lambda n: random_indices(n, self.T, rng))
            except Undecodable:
                failed.append(index)
                index = int(rng.integers(len(self.videos)))
                continue

            # torchvision draws from the global generator: seed it for this clip, then put it back.
            with torch.random.fork_rng(devices=[]):
                torch.default_generator.manual_seed(int(rng.integers(2**63)))
                frames = self.transform(frames)
            # Colour frames come with their channels last, gray ones not. One layout for all: a
            # compiled model would be compiled anew for each, and mixed ones are slow to stack.
            return {"frames": frames.contiguous(), "label": label, "index": index, "failed": failed}

        last = self.videos[failed[-1]][0]
        raise Undecodable(f"{MAX_TRIES} videos in a row could not be decoded, the last: {last}")


class TestViews(torch.utils.data.Dataset):
    """index -> all views of a test video, V = clips x crops, clip by clip, as a dict:

        frames   uint8 (n, 3, s, s), contiguous: frame t of view v is frames[places[v, t]], so that
                 a frame that several views share is there once
        places   (V, T)
        label    of the video
        index    of the video
        failed   [index] if it could not be decoded (then its frames are black), else []

    No video is ever replaced. resize: of the short side before cropping, `size` if it is not given.
    resize_mode, interpolation: of the tower, as in `view_crops`. watch: as in TrainingClips.
    """
    __test__ = False                                             # only the name looks like a test

    def __init__(
        self, videos: list[tuple[str, int]], T: int, size: int, resize: int | None = None,
        clips: int = 1, crops: int = 1, watch: Callable = contextlib.nullcontext,
        resize_mode: str = "shortest", interpolation: str = "bicubic",
    ):
        self.videos = videos
        self.T = T
        self.size = size
        self.resize = resize or size
        self.clips = clips
        self.crops = crops
        self.watch = watch
        self.resize_mode = resize_mode
        self.interpolation = interpolation

    def __len__(self) -> int:
        return len(self.videos)

    def __getitem__(self, index: int) -> dict:
        path, label = self.videos[index]
        failed = []
        try:
            with self.watch(index):
                frames, places = self.views(path)
        except Undecodable:
            frames = torch.zeros(1, 3, self.size, self.size, dtype=torch.uint8)
            places = torch.zeros(self.clips * self.crops, self.T, dtype=torch.int64)
            failed = [index]
        sample = {"label": label, "index": index, "failed": failed}
        return {"frames": frames, "places": places, **sample}

    def views(self, path: str | Path) -> tuple[Tensor, Tensor]:
        """frames and places of any video. Raises Undecodable."""
        frames, places = decode_distinct(path, lambda n: segment_indices(n, self.T, self.clips))
        crops = view_crops(frames, self.size, self.resize, self.crops, self.resize_mode,
                           self.interpolation)

        # (n, 3, h, w) became (crops, n, 3, s, s): the n frames of crop c begin at c n.
        firsts = len(frames) * torch.arange(self.crops)
        places = places[:, None] + firsts[:, None]               # (clips, crops, T)
        return crops.flatten(0, 1).contiguous(), places.flatten(0, 1)


# --- batches --------------------------------------------------------------------------------------
def collate(samples: list[dict]) -> dict:
    """Samples of TrainingClips or TestViews -> one batch.

    `failed` is one list of all that failed. Training frames are stacked; test frames stand in one
    row, all videos' one after the other, and `places` counts in that row.
    """
    frames = [sample["frames"] for sample in samples]
    batch = {
        "label": torch.tensor([sample["label"] for sample in samples]),
        "index": torch.tensor([sample["index"] for sample in samples]),
        "failed": [],
    }
    for sample in samples:
        batch["failed"] += sample["failed"]

    if "places" not in samples[0]:
        batch["frames"] = torch.stack(frames)
        return batch

    places = []
    first = 0                                                    # where this video's frames begin
    for sample in samples:
        places.append(sample["places"] + first)
        first += len(sample["frames"])
    batch["frames"] = torch.cat(frames)
    batch["places"] = torch.stack(places)
    return batch


class MicroBatches:
    """A batch sampler for TrainingClips: this rank's micro-batches, step by step from `start` on.

    The global batch of a step is a function of (seed, step): a slice of the epoch's permutation. It
    is cut into world_size x accumulate micro-batches, of which rank r has number r,
    r + world_size, ... Videos that fill no batch at the end of an epoch are left out.
    """

    def __init__(
        self, num_videos: int, batch: int, epochs: int, seed: int, rank: int = 0,
        world_size: int = 1, accumulate: int = 1, start: int = 0,
    ):
        parts = world_size * accumulate
        if batch % parts:
            raise ValueError(f"--batch {batch} must be a multiple of ranks x accumulation = "
                             f"{world_size} x {accumulate}")
        if batch > num_videos or batch < 1:
            raise ValueError(f"--batch {batch} must be at least 1 and at most the number of "
                             f"training videos, {num_videos}")
        self.num_videos = num_videos
        self.batch = batch
        self.seed = seed

        self.steps_per_epoch = num_videos // batch
        self.start = start
        self.stop = self.steps_per_epoch * epochs

        self.mine = range(rank, parts, world_size)               # the numbers of our micro-batches
        self.micro = batch // parts                              # videos in each

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        """Yields lists of (epoch, index), `accumulate` of them for each step."""
        for step in range(self.start, self.stop):
            epoch, part = divmod(step, self.steps_per_epoch)
            if part == 0 or step == self.start:
                rng = np.random.default_rng((self.seed, epoch))
                order = rng.permutation(self.num_videos).tolist()

            batch = order[part * self.batch:(part + 1) * self.batch]
            for m in self.mine:
                micro_batch = batch[m * self.micro:(m + 1) * self.micro]
                yield [(epoch, index) for index in micro_batch]
