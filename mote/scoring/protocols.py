"""
A protocol is what fixes a number: videos, class names, prompts, frames, views, modulation.

    full classes    every video of a published split's test list against all its classes;
                    mean and std over the splits
    half classes    ten draws of half the classes, `numpy.random.permutation(C)[:C // 2]` with
                    seeds 0..9 (the authors' test_zeroshot.py, after BIKE; not in the paper),
                    inside one split's test list
    few-shot        K videos of each class drawn for training, repeated to the length of the
                    full list (Appendix B)
    mixed names     the test set's names and those of other sets, without duplicates (Section 3.4)

Published numbers on "K600 zero-shot" come from two disjoint sets of videos, and half-class and
full-class numbers stand in one table. So the whole protocol is printed beside each score and kept
in eval.py's JSON, with a fingerprint: two numbers may be compared where they share it. How frames
are made goes with the tower, and fixes a number too: it stands there as well.
Standard deviations are over splits or draws, ddof 0, as in the authors' code.

Dimension key   C classes of a list   K shots
Copy alone: needs numpy only.
"""
import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass

import numpy as np

Videos = list[tuple[str, int]]                                               # (path, label)

# Videos in the authors' test lists, by dataset and split: another count may be another number.
PAPER_VIDEOS = {
    "k400": {"": 19877},
    "ucf101": {"1": 3783, "2": 3734, "3": 3696},
    "hmdb51": {"1": 1530, "2": 1530, "3": 1530},
    "k600": {"1": 14858, "2": 14750, "3": 14874},
}


# Of OpenAI's CLIP: what frames are normalised with where a protocol says nothing else.
# As in files/towers/pixels.py: here too, because this file copies alone.
OPENAI_MEAN = (0.48145466, 0.4578275, 0.40821073)
OPENAI_STD = (0.26862954, 0.26130258, 0.27577711)

# Fields that the first protocols did not have. The fingerprint leaves each out where it has its
# default, which is what those protocols stood for: so every fingerprint printed since stays.
NEWER = ("mean", "std", "resize_mode", "interpolation")


# --- what a score was measured on, and how -------------------------------------------------------
@dataclass(frozen=True)
class Protocol:
    """What a score was measured on and how. Hashes are 8 hexadecimal digits of a SHA-256.

    list is of the videos' stems and labels, whatever their order, folders and endings: a re-encoded
    copy elsewhere is the same list. class_names and templates are of the texts, in order.
    checkpoint is of the file's bytes, as sha256sum prints it; of CLIP alone, its visual weights.
    The last four fields go with the tower's weights: the Pixels of mote/files/towers.
    """
    data: str
    split: str               # the published split's number; "" where there is one only
    videos: int              # expected: lines of the list
    found: int               # of them on disk
    list: str
    classes: int
    class_names: str
    prompts: int
    templates: str
    frames: int
    clips: int = 1
    crops: int = 1
    resize: int = 224        # short side before the crop; of a frame that is squashed, both sides
    neighbours: int = 5      # K of Eq. 11
    gamma: float = 0.05      # of Eq. 11
    precision: str = "fp32"
    checkpoint: str = ""
    text: str = ""           # of the text tower
    clip_weight: float = 1.0
    mean: tuple[float, ...] = OPENAI_MEAN
    std: tuple[float, ...] = OPENAI_STD
    resize_mode: str = "shortest"
    interpolation: str = "bicubic"

    def __post_init__(self):
        # JSON has lists, and a description may say 0 for 0.0: one protocol, so one fingerprint.
        object.__setattr__(self, "mean", tuple(float(number) for number in self.mean))
        object.__setattr__(self, "std", tuple(float(number) for number in self.std))

    @property
    def fingerprint(self) -> str:
        """Of what fixes a number but the model: equal for two models that were tested alike."""
        model = ("checkpoint", "text", "clip_weight")
        beside = ("found", "data", "split")                      # the last two only name `list`
        fixed = {}
        for name, value in asdict(self).items():
            as_ever = name in NEWER and value == getattr(Protocol, name)
            if name not in model + beside and not as_ever:
                fixed[name] = value
        return digest(fixed)

    def as_json(self) -> dict:
        """The fingerprint and all fields, as a JSON file gives them back: lists, no tuples."""
        return json.loads(json.dumps({"fingerprint": self.fingerprint, **asdict(self)}))

    def __str__(self) -> str:
        """Two lines: what was tested, and how."""
        name = f"{self.data}, split {self.split}" if self.split else self.data
        videos = f"{self.videos} videos (list {self.list}{self.what_the_list_lacks()})"
        classes = f"{self.classes} classes ({self.class_names})"
        prompts = f"{self.prompts} prompts ({self.templates})"
        return (f"{name}: {videos}, {classes}, {prompts}{self.which_model()}\n"
                f"protocol {self.fingerprint}: {self.frames} frames, "
                f"{self.clips} x {self.crops} views, {self.how_frames_are_made()}, "
                f"K {self.neighbours}, gamma {self.gamma:g}, {self.precision}")

    def what_the_list_lacks(self) -> str:
        """Where the list is not the paper's, or not all on disk."""
        text = ""
        paper = PAPER_VIDEOS.get(self.data, {}).get(self.split)
        if paper and paper != self.videos:
            text += f"; the paper's has {paper}"
        if self.found < self.videos:
            text += f"; {self.found} on disk"
        return text

    def how_frames_are_made(self) -> str:
        """Size, interpolation, statistics: "squashed to 384, bilinear, mean 0.5 0.5 0.5, ..."."""
        size = f"short side {self.resize}"
        if self.resize_mode == "squash":
            size = f"squashed to {self.resize}"
        statistics = f"mean {in_words(self.mean)}, std {in_words(self.std)}"
        if (self.mean, self.std) == (OPENAI_MEAN, OPENAI_STD):
            statistics = "OpenAI's mean and std"
        return f"{size}, {self.interpolation}, {statistics}"

    def which_model(self) -> str:
        """Hashes of the weights. They are no part of the fingerprint: see there."""
        text = ""
        if self.checkpoint:
            text += f"; checkpoint {self.checkpoint}"
        if self.clip_weight < 1:
            text += f", {self.clip_weight:g} of it mixed with CLIP"
        if self.text:
            text += f"; text tower {self.text}"
        return text


def protocol_of(data, templates: tuple[str, ...], **views) -> Protocol:
    """The protocol of a mote.datasets `Dataset` to test on. views: frames, clips, crops, ...

    `**asdict(model.pixels)` belongs to the views: without it the frames are made as OpenAI's. It
    looks for every video on disk, so that a partial copy of a dataset shows in what is printed.
    """
    from ..datasets.dataset import list_hash  # here: this file copies alone

    found = sum(os.path.exists(path) for path, _ in data.videos)
    return Protocol(data.name, data.split, len(data.videos), found, list_hash(data.videos),
                    len(data.classes), digest(data.classes), len(templates),
                    digest(list(templates)), **views)


def digest(value) -> str:
    """8 hexadecimal digits of a value that json can write."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:8]


def in_words(numbers: Iterable[float]) -> str:
    """(0.5, 0.4, 0.3) -> 0.5 0.4 0.3, with as many digits as OpenAI's have."""
    return " ".join(f"{number:.8g}" for number in numbers)


def list_digest(stems_and_labels: Videos) -> str:
    """Of a list, whatever its order."""
    return digest(sorted([stem, int(label)] for stem, label in stems_and_labels))


# --- draws and means -----------------------------------------------------------------------------
def half_class_draws(num_classes: int) -> list[np.ndarray]:
    """Ten sorted draws of half the classes, (C // 2,) each: the authors' generator and seeds.

    >>> half_class_draws(6)[0]
    array([1, 2, 5])
    """
    draws = []
    for seed in range(10):
        order = np.random.RandomState(seed).permutation(num_classes)
        draws.append(np.sort(order[:num_classes // 2]))
    return draws


def mean_and_std(numbers: list[float]) -> tuple[float, float]:
    """Over splits or draws; ddof 0, numpy's default, as in the authors' code. The paper is silent.

    >>> mean_and_std([80.0, 82.0, 84.0])
    (82.0, 1.632993161855452)
    """
    return float(np.mean(numbers)), float(np.std(numbers))


# --- few-shot ------------------------------------------------------------------------------------
def few_shot(videos: Videos, shots: int, seed: int = 0) -> Videos:
    """K videos of each class, drawn by (seed, class): the 2-shot draw is part of the 4-shot one.

    Raises ValueError for a class with fewer than K. The paper states neither seeds nor how often
    it drew.
    """
    drawn: Videos = []
    for label in sorted({label for _, label in videos}):
        of_class = [path for path, other in videos if other == label]
        of_class.sort(key=stem_and_path)
        if len(of_class) < shots:
            raise ValueError(f"--shots {shots}: class {label} has only {len(of_class)} "
                             "training videos")
        order = np.random.default_rng((seed, label)).permutation(len(of_class))
        drawn += [(of_class[i], label) for i in order[:shots]]
    return drawn


def stem_and_path(path: str) -> tuple[str, str]:
    """Order by stem: a re-encoded copy in another place draws the same videos."""
    return os.path.splitext(os.path.basename(path))[0], path


def repeated(videos: Videos, length: int) -> Videos:
    """The list over and over: "repeated to the size of the original full set" (Appendix B)."""
    return [videos[i % len(videos)] for i in range(length)]


# --- mixed names ---------------------------------------------------------------------------------
def mixed_names(names: list[str], others: list[list[str]]) -> list[str]:
    """A test set's class names, its labels unchanged, then those of other sets that are new.

    The authors removed duplicates by hand. Here, names that are equal but for case, spaces and
    underscores are duplicates.

    >>> mixed_names(["archery", "Yo Yo"], [["Archery", "juggling"], ["yo_yo", "juggling"]])
    ['archery', 'Yo Yo', 'juggling']
    """
    mixed = list(names)
    seen = {plain(name) for name in names}
    for other in others:
        for name in other:
            if plain(name) not in seen:
                seen.add(plain(name))
                mixed.append(name)
    return mixed


def plain(name: str) -> str:
    """What two spellings of one class name have in common."""
    return "".join(name.replace("_", " ").split()).casefold()
