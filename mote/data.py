"""
Videos to clips: which frames, how they are decoded, cropped and batched. What leaves here is uint8; CLIP normalises.

    training    T equal segments, one random frame of each; one crop, flip, gray decision per clip   (App. B, Table 6)
    testing     the first frame of each segment, `clips` times shifted; 1 or 3 crops: V = clips x crops views

A clip is a function of (seed, epoch, index of the video) and a batch of (seed, step): workers, ranks and resuming never
change what is trained on. A video that cannot be decoded is replaced and reported in training, and reported in testing.

Dimension key   V views per video   T frames per clip   c h w pixels (only here)   s the model's image size
Copy alone: needs torch, numpy, torchvision and torchcodec (which needs FFmpeg's libraries).
Differs from the authors' code: no resize before the random crop; segments do not overlap; torchcodec, not decord.
"""
import contextlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

MAX_TRIES = 10            # videos tried for one training clip: in a folder without a single good one, stop
MAX_PIXELS = 2**25        # of a frame, 8K: a damaged header may claim any size, and decoding would ask for the memory
# Containers without presentation times: with B-frames in them, as UCF-101's and HMDB-51's .avi, torchcodec 0.17 finds
# a frame before the one asked for, whenever it seeks. In .ts it finds others even in order.
IN_ORDER, WRONG = (".avi", ".divx", ".mpg", ".mpeg"), (".ts",)


class Undecodable(ValueError):
    """A video that raises, or that gives fewer frames than were asked for."""


def segment_indices(num_frames: int, T: int, clips: int = 1) -> np.ndarray:
    """Test frames: the first of each of T segments, for each of `clips` evenly shifted starts -> (clips, T), 0-based.

    As the authors' loader, its wrap-around in videos shorter than T included (a start of -1 wraps to the last frame).

    >>> segment_indices(100, 4, clips=3)
    array([[ 0, 25, 50, 75],
           [12, 37, 62, 87],
           [24, 49, 74, 99]])
    """
    tick = num_frames / T
    starts = np.linspace(0, tick - 1, num=clips, dtype=int)      # an integer linspace rounds down, also below 0
    return np.array([[int(start + tick * i) % num_frames for i in range(T)] for start in starts])


def random_indices(num_frames: int, T: int, rng: np.random.Generator) -> np.ndarray:
    """Training frames: one of each of T equal segments -> (T,), sorted, 0-based; short videos repeat frames."""
    drawn = ((np.arange(T) + rng.random(T)) * (num_frames / T)).astype(int)
    return drawn.clip(max=num_frames - 1)                        # (T - 1 + .999..) may round up to T


def decode(path: str | Path, choose: Callable[[int], np.ndarray]) -> Tensor:
    """Frames choose(how many) of a file or a folder of JPEGs -> uint8 (*indices.shape, 3, h, w). Raises Undecodable."""
    frames, places = decode_distinct(path, choose)
    return frames[places]


def decode_distinct(path: str | Path, choose: Callable[[int], np.ndarray]) -> tuple[Tensor, Tensor]:
    """Each distinct frame once, uint8 (n, 3, h, w), and where in them each index finds its own. Raises Undecodable."""
    path = Path(path)
    try:
        if path.is_dir():
            from torchcodec.decoders import decode_jpeg
            files = [f for f in path.iterdir() if f.suffix.lower() in (".jpg", ".jpeg") and f.name[0] != "."]
            files.sort(key=lambda file: (len(file.stem), file.stem))        # 2 before 10, padded with zeros or not
            kinds = sorted({re.sub(r"\d+$", "", file.stem) for file in files})      # img_00001, flow_x_00001
            if len(kinds) != 1:
                raise ValueError(f"a folder without .jpg or .jpeg files, or with several kinds of them: {kinds[:3]}")
            indices = choose(len(files))
            distinct, back = np.unique(indices, return_inverse=True)
            check_size(*np.max([jpeg_size(files[i].read_bytes()) for i in distinct], axis=0))
            frames = torch.stack([decode_jpeg(files[i], mode="RGB") for i in distinct])
        else:
            from torchcodec.decoders import VideoDecoder
            # Made in the worker: a decoder does not survive a fork. More threads in a worker only slow it.
            decoder = VideoDecoder(path, num_ffmpeg_threads=1)
            check_size(decoder.metadata.height, decoder.metadata.width)
            indices = choose(len(decoder))
            distinct, back = np.unique(indices, return_inverse=True)
            frames = read_frames(path, decoder, distinct.tolist())
    except (RuntimeError, ValueError, IndexError, OSError, ZeroDivisionError) as error:      # all seen on damaged files
        reason = re.sub(r"^.*\.cpp:\d+, ", "", (str(error).splitlines() or [type(error).__name__])[0])   # its own file
        raise Undecodable(f"{path}: {reason}"[:300]) from None
    if len(frames) != len(distinct) or not len(frames):
        raise Undecodable(f"{path}: asked for {len(distinct)} frames, got {len(frames)}")
    return frames, torch.from_numpy(back.reshape(np.shape(indices)))


def check_size(h: int | None, w: int | None) -> None:
    if (h or 0) * (w or 0) > MAX_PIXELS:
        raise ValueError(f"the header claims {w} x {h} pixels: more than {MAX_PIXELS}, not decoded")


def jpeg_size(file: bytes) -> tuple[int, int]:
    """h, w as its header says, which stands behind segments of ff, kind, length, ... Raises IndexError without one."""
    at = 2
    while not 0xC0 <= file[at + 1] <= 0xCF or file[at + 1] in (0xC4, 0xC8, 0xCC):
        at += 1 if file[at + 1] == 0xFF else 2 + int.from_bytes(file[at + 2:at + 4], "big")      # ff may fill up
    return tuple(int.from_bytes(file[at + i:at + i + 2], "big") for i in (5, 7))


def read_frames(path: Path, decoder, distinct: list[int]) -> Tensor:
    """Frames of a sorted list. For the last one or two that torchcodec cannot reach, the one before stands in."""
    from torchcodec.decoders import VideoDecoder
    last, frames = len(decoder) - 1, []
    if path.suffix.lower() in WRONG:
        raise ValueError("torchcodec mistakes the frames of this container: re-encode it (tools/prepare.py)")
    if path.suffix.lower() not in IN_ORDER:
        try:
            return decoder.get_frames_at(distinct).data
        except RuntimeError:
            if distinct[-1] < last or last < 1:
                raise
            return VideoDecoder(path, num_ffmpeg_threads=1).get_frames_at([min(i, last - 1) for i in distinct]).data
    for i in range(distinct[-1] + 1):                            # all from the first on: it never seeks
        try:
            frame = decoder.get_frame_at(i).data
        except RuntimeError:
            if i < max(1, last - 1):
                raise
        frames += [frame] * (i in distinct)
    return torch.stack(frames)


def view_crops(frames: Tensor, size: int, resize: int, crops: int = 1) -> Tensor:
    """uint8 (..., 3, h, w) -> (crops, ..., 3, size, size): short side to `resize`, bicubic, then 1 or 3 crops.

    One crop: the centre. Three: left, right, centre, where the authors' stand, quirks included: on a portrait video all
    three are the centre. Raises ValueError for another number of crops or resize < size.
    """
    from torchvision.transforms.v2 import InterpolationMode
    from torchvision.transforms.v2 import functional as vision

    if crops not in (1, 3) or resize < size:
        raise ValueError(f"crops must be 1 or 3 and resize at least the model's {size}, got {crops} and {resize}")
    frames = vision.resize(frames, [resize], interpolation=InterpolationMode.BICUBIC, antialias=True)
    if crops == 1:
        return vision.center_crop(frames, [size, size])[None]
    h, w = frames.shape[-2:]
    down, right = (h - size) // 4, (w - size) // 4               # the authors count in quarters, rounded down
    return torch.stack([vision.crop(frames, 2 * down, left, size, size) for left in (0, 4 * right, 2 * right)])


class TrainingClips(torch.utils.data.Dataset):
    """(epoch, index) -> {frames (T, 3, s, s) uint8, label, index of the video, failed: indices of undecodable ones}."""

    def __init__(self, videos: list[tuple[str, int]], T: int, size: int, seed: int, flip: bool = True,
                 min_area: float = 0.08, watch: Callable = contextlib.nullcontext):
        from torchvision.transforms import v2
        self.videos, self.T, self.seed, self.watch = videos, T, seed, watch
        self.transform = v2.Compose([                            # on (T, 3, h, w): one decision for a whole clip
            v2.RandomResizedCrop(size, scale=(min_area, 1), ratio=(3 / 4, 4 / 3), antialias=True),
            v2.RandomHorizontalFlip(0.5 if flip else 0),         # not where left and right are classes
            v2.RandomGrayscale(0.2),
        ])

    def __len__(self) -> int:
        return len(self.videos)

    def __getitem__(self, key: tuple[int, int]) -> dict:
        (epoch, index), failed = key, []
        rng = np.random.default_rng((self.seed, epoch, index))
        for _ in range(MAX_TRIES):
            path, label = self.videos[index]
            try:
                with self.watch(index):                          # of mote/runtime/guard.py, or nothing
                    frames = decode(path, lambda n: random_indices(n, self.T, rng))
            except Undecodable:
                failed.append(index)
                index = int(rng.integers(len(self.videos)))
                continue
            with torch.random.fork_rng(devices=[]):              # torchvision draws from the global generator
                torch.default_generator.manual_seed(int(rng.integers(2**63)))
                return {"frames": self.transform(frames), "label": label, "index": index, "failed": failed}
        raise Undecodable(f"{MAX_TRIES} videos in a row could not be decoded, the last: {self.videos[failed[-1]][0]}")


class TestViews(torch.utils.data.Dataset):
    """index -> {frames (n, 3, s, s) uint8, places (V, T), label, index, failed}; V = clips x crops, clip by clip.

    Frame t of view v is frames[places[v, t]]: what views share is there once. No video is ever replaced.
    """
    __test__ = False                                             # its name is not a test's, whatever pytest thinks

    def __init__(self, videos: list[tuple[str, int]], T: int, size: int, resize: int | None = None, clips: int = 1,
                 crops: int = 1, watch: Callable = contextlib.nullcontext):
        self.videos, self.T, self.size, self.resize = videos, T, size, resize or size
        self.clips, self.crops, self.watch = clips, crops, watch

    def __len__(self) -> int:
        return len(self.videos)

    def __getitem__(self, index: int) -> dict:
        path, label = self.videos[index]
        try:
            with self.watch(index):
                frames, places, failed = *self.views(path), []
        except Undecodable:
            frames = torch.zeros(1, 3, self.size, self.size, dtype=torch.uint8)
            places, failed = torch.zeros(self.clips * self.crops, self.T, dtype=torch.int64), [index]
        return {"frames": frames, "places": places, "label": label, "index": index, "failed": failed}

    def views(self, path: str | Path) -> tuple[Tensor, Tensor]:
        """frames and places of any video. Raises Undecodable."""
        frames, places = decode_distinct(path, lambda n: segment_indices(n, self.T, self.clips))       # (clips, T)
        crops = view_crops(frames, self.size, self.resize, self.crops)                                 # (crops, n, ...)
        firsts = len(frames) * torch.arange(self.crops)[:, None]                                       # of each crop
        return crops.flatten(0, 1), (places[:, None] + firsts).flatten(0, 1)


def collate(samples: list[dict]) -> dict:
    """A list of samples -> one batch; `failed` is one list of all that failed, test frames one row of all frames."""
    batch = {**{key: torch.tensor([s[key] for s in samples]) for key in ("label", "index")},
             "failed": [index for s in samples for index in s["failed"]]}
    if "places" not in samples[0]:
        return {"frames": torch.stack([s["frames"] for s in samples]), **batch}
    firsts = np.cumsum([0, *(len(s["frames"]) for s in samples)]).tolist()
    return {"frames": torch.cat([s["frames"] for s in samples]), **batch,
            "places": torch.stack([s["places"] + first for s, first in zip(samples, firsts)])}


class MicroBatches:
    """A batch sampler for TrainingClips: for each step from `start` on, this rank's micro-batches of the global batch.

    The global batch of a step is a function of (seed, step): a slice of the epoch's permutation, cut into
    world x accumulate micro-batches; rank r has number r, r + world, ... What fills no batch at an epoch's end is left.
    """

    def __init__(self, num_videos: int, batch: int, epochs: int, seed: int, rank: int = 0, world: int = 1,
                 accumulate: int = 1, start: int = 0):
        if batch % (world * accumulate):
            raise ValueError(f"--batch {batch} must be a multiple of ranks x accumulation = {world} x {accumulate}")
        if batch > num_videos or batch < 1:
            raise ValueError(f"--batch {batch} must be at least 1 and at most the number of training videos, "
                             f"{num_videos}")
        self.steps_per_epoch, self.stop = num_videos // batch, num_videos // batch * epochs
        self.num_videos, self.batch, self.seed, self.start = num_videos, batch, seed, start
        self.mine, self.micro = range(rank, world * accumulate, world), batch // (world * accumulate)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for step in range(self.start, self.stop):
            epoch, part = divmod(step, self.steps_per_epoch)
            if part == 0 or step == self.start:
                order = np.random.default_rng((self.seed, epoch)).permutation(self.num_videos).tolist()
            batch = order[part * self.batch:(part + 1) * self.batch]
            for m in self.mine:
                yield [(epoch, index) for index in batch[m * self.micro:(m + 1) * self.micro]]


def require_decoder() -> None:
    """Raise OSError, saying what to install, where torchcodec cannot load FFmpeg's libraries."""
    try:
        import torchcodec.decoders
        if getattr(torchcodec, "ffmpeg_major_version", 0) is None:           # since 0.16 importing it says nothing
            torchcodec.decoders.VideoDecoder(b"")                # raises, with the reason
    except (ImportError, RuntimeError, OSError) as error:
        raise OSError("torchcodec cannot load FFmpeg's shared libraries (versions 4 to 9): apt-get install ffmpeg, or "
                      f"brew install ffmpeg ({str(error).strip().splitlines()[0][:100]})") from None
