"""
A protocol is what fixes a number: the videos, the class names, the prompts, the frames, the views, the modulation.

    full classes    every video of an official split's test list against all its classes; mean and std over the splits
    half classes    ten draws of half the classes, `numpy.random.permutation(C)[:C // 2]` with seeds 0..9 (the authors'
                    test_zeroshot.py, after BIKE; not in the paper), inside one split's test list
    few-shot        K videos of each class drawn for training, repeated to the length of the full list (Appendix B)
    mixed names     the test set's names and those of other sets, without duplicates (Section 3.4)

Published numbers on "K600 zero-shot" are of two disjoint sets of videos; half-class and full-class numbers stand in
one table. So the whole protocol is printed beside each score and kept in eval.py's JSON, with a fingerprint that two
numbers share when they may be compared. Standard deviations: over splits or draws, ddof 0, as in the authors' code.

Dimension key   C classes of a list   K shots
Copy alone: needs numpy only.
"""
import hashlib
import json
import os
from dataclasses import asdict, dataclass

import numpy as np

Videos = list[tuple[str, int]]                                   # (path, label)
# Videos in the authors' test lists, by data set and official split: where a number may differ from the paper's.
PAPER_VIDEOS = {"k400": {"": 19877}, "ucf101": {"1": 3783, "2": 3734, "3": 3696},
                "hmdb51": {"1": 1530, "2": 1530, "3": 1530}, "k600": {"1": 14858, "2": 14750, "3": 14874}}


@dataclass(frozen=True)
class Protocol:
    """What a score was measured on and how. Hashes are 8 hexadecimal digits of a SHA-256.

    list is of the videos' stems and labels, whatever their order, folders and endings: a re-encoded copy elsewhere is
    the same list. class_names and templates are of the texts, in order. checkpoint is of the file's bytes, as sha256sum
    prints it; for CLIP alone, of its visual weights.
    """
    data: str
    split: str               # the official split's number; "" where there is one only
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
    resize: int = 224        # short side before the crop
    neighbours: int = 5      # K of Eq. 11
    gamma: float = 0.05      # of Eq. 11
    precision: str = "fp32"
    checkpoint: str = ""
    text: str = ""           # of the text tower
    clip_weight: float = 1.0

    @property
    def fingerprint(self) -> str:
        """Of what fixes a number but the model: equal for two models that were tested alike."""
        model = ("checkpoint", "text", "clip_weight", "found", "data", "split")      # the last two only name `list`
        return digest({key: value for key, value in asdict(self).items() if key not in model})

    def __str__(self) -> str:
        paper = PAPER_VIDEOS.get(self.data, {}).get(self.split)
        name = f"{self.data}, split {self.split}" if self.split else self.data
        model = f"; checkpoint {self.checkpoint}" if self.checkpoint else ""
        model += f"; text tower {self.text}" if self.text else ""
        mixed = f", {self.clip_weight:g} of it mixed with CLIP" if self.clip_weight < 1 else ""
        return (f"{name}: {self.videos} videos (list {self.list}"
                + (f"; the paper's has {paper}" if paper and paper != self.videos else "")
                + (f"; {self.found} on disk" if self.found < self.videos else "")
                + f"), {self.classes} classes ({self.class_names}), {self.prompts} prompts ({self.templates})"
                f"{model}{mixed}\n"
                f"protocol {self.fingerprint}: {self.frames} frames, {self.clips} x {self.crops} views, short side "
                f"{self.resize}, K {self.neighbours}, gamma {self.gamma:g}, {self.precision}")


def digest(value) -> str:
    """8 hexadecimal digits of a value that json can write."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:8]


def list_digest(stems_and_labels: Videos) -> str:
    """Of a list, whatever its order."""
    return digest(sorted([stem, int(label)] for stem, label in stems_and_labels))


def half_class_draws(num_classes: int) -> list[np.ndarray]:
    """Ten sorted draws of half the classes, (C // 2,) each: the authors' generator and seeds.

    >>> half_class_draws(6)[0]
    array([1, 2, 5])
    """
    return [np.sort(np.random.RandomState(seed).permutation(num_classes)[:num_classes // 2]) for seed in range(10)]


def mean_and_std(numbers: list[float]) -> tuple[float, float]:
    """Over splits or draws; ddof 0, as numpy's default in the authors' code. The paper does not say which.

    >>> mean_and_std([80.0, 82.0, 84.0])
    (82.0, 1.632993161855452)
    """
    return float(np.mean(numbers)), float(np.std(numbers))


def few_shot(videos: Videos, shots: int, seed: int = 0) -> Videos:
    """K videos of each class, drawn by (seed, class), so that the 2-shot draw is part of the 4-shot draw of that seed.

    Raises ValueError for a class with fewer than K. The paper states neither seeds nor how often it drew.
    """
    drawn: Videos = []
    for label in sorted({label for _, label in videos}):
        of_class = sorted((path for path, other in videos if other == label), key=lambda path: (
            os.path.splitext(os.path.basename(path))[0], path))              # by stem: a re-encoded copy draws the same
        if len(of_class) < shots:
            raise ValueError(f"--shots {shots}: class {label} has only {len(of_class)} training videos")
        order = np.random.default_rng((seed, label)).permutation(len(of_class))
        drawn += [(of_class[i], label) for i in order[:shots]]
    return drawn


def repeated(videos: Videos, length: int) -> Videos:
    """The list over and over, cut at `length`: "repeated to the size of the original full set" (Appendix B)."""
    return [videos[i % len(videos)] for i in range(length)]


def mixed_names(names: list[str], others: list[list[str]]) -> list[str]:
    """A test set's class names, its labels unchanged, then those of other sets that are no class yet.

    The authors removed duplicates by hand; here, names equal but for case, spaces and underscores are duplicates.

    >>> mixed_names(["archery", "Yo Yo"], [["Archery", "juggling"], ["yo_yo", "juggling"]])
    ['archery', 'Yo Yo', 'juggling']
    """
    def plain(name: str) -> str:
        return "".join(name.replace("_", " ").split()).casefold()
    mixed, seen = list(names), {plain(name) for name in names}
    for name in (name for other in others for name in other):
        if plain(name) not in seen:
            seen.add(plain(name))
            mixed.append(name)
    return mixed
