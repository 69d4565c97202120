"""
A's accuracy less B's on the same videos: the pairs, the interval, the test.

The interval is over videos: it says what other videos of the kind would show, not what another
training seed would.
"""
import re
from collections import Counter
from typing import NamedTuple

import numpy as np

ENDING = re.compile(r"\.(mp4|avi|mkv|webm|mov|m4v|mpe?g|flv|wmv|3gp)$", re.IGNORECASE)


# --- 1. pairs -------------------------------------------------------------------------------------
class Pair(NamedTuple):
    """A video, as its label and stem, and whether A and B have it right.

    What both have right, or both wrong, says nothing of which is better; the others decide.
    """
    video: str
    a: bool
    b: bool


def keyed(split: dict, score: str) -> dict[tuple[str, int, int], list[int]]:
    """(stem, label, k) -> best classes, none for a video that was not decoded.

    The stem is without the folder and without the ending of a video file: x.avi re-encoded as x.mp4
    is the same. k counts the videos of one class with one stem, in the order of their paths.
    """
    videos = {}
    seen = Counter()
    for row in sorted(split["per_video"], key=lambda row: row["video"]):
        stem = ENDING.sub("", row["video"].rpartition("/")[2])
        label = row["label"]
        videos[stem, label, seen[stem, label]] = row[score]
        seen[stem, label] += 1
    return videos


def pair(a: dict, b: dict, top: int) -> tuple[list[Pair], dict[str, int]]:
    """The pairs of videos that both decoded, in one order, and why how many others were left out.

    a, b: from `keyed`. top: a video is right if its label is among so many best classes.
    """
    # The label is part of the key: a video with two labels is in only_a and in only_b.
    only_a = a.keys() - b.keys()
    only_b = b.keys() - a.keys()
    both = sorted(a.keys() & b.keys())       # sorted: a set's order changes with the hash seed

    pairs = []
    for stem, label, k in both:
        classes_a = a[stem, label, k]
        classes_b = b[stem, label, k]
        if classes_a and classes_b:
            video = f"{label} {stem}"
            pairs.append(Pair(video, label in classes_a[:top], label in classes_b[:top]))

    relabelled = {stem for stem, *_ in only_a} & {stem for stem, *_ in only_b}
    left_out = {
        "of another label in A and B": sum(stem in relabelled for stem, *_ in only_a),
        "only in A": sum(stem not in relabelled for stem, *_ in only_a),
        "only in B": sum(stem not in relabelled for stem, *_ in only_b),
        "not decoded by A or B": len(both) - len(pairs),
    }
    return pairs, left_out


# --- 2. what they say -----------------------------------------------------------------------------
def mcnemar(only_a: int, only_b: int) -> float:
    """Exact two-sided p-value of McNemar's test.

    only_a, only_b: how many videos only A, and only B, has right. The p-value is the probability
    that only_a + only_b throws of a fair coin come out as unevenly, or more so.
    """
    n = only_a + only_b
    tail = 0
    term = 1                         # n choose i, an integer: thousands of videos do not overflow
    for i in range(min(only_a, only_b) + 1):
        tail += term
        term = term * (n - i) // (i + 1)
    return min(1.0, 2 * tail / 2**n)


def interval(wins: np.ndarray, rows: np.ndarray, samples: int, seed: int) -> tuple[float, float]:
    """95 % percentile bootstrap of 100 sum(wins) / sum(rows), in points.

    wins: of each video, how often A alone had it right less how often B alone had. rows: in how
    many splits the video is. Videos are drawn with replacement, each with all its rows.
    """
    generator = np.random.default_rng(seed)
    n = len(wins)
    points = np.empty(samples)
    for i in range(samples):
        drawn = generator.integers(n, size=n)
        points[i] = 100 * wins[drawn].sum() / rows[drawn].sum()
    points.sort()

    k = samples // 40                # the same from both ends: swapping A and B changes only signs
    return points[k], points[-1 - k]


def measure(pairs: list[Pair], samples: int, seed: int, by_stem: bool = False) -> dict:
    """One row of the table: accuracies and their difference in per cent, the interval, the test.

    by_stem: pairs of one name are one video, in several splits. Then there is no p-value, which
    would need independent videos.
    """
    right_a = np.array([pair.a for pair in pairs], dtype=np.int64)
    right_b = np.array([pair.b for pair in pairs], dtype=np.int64)
    names = range(len(pairs))
    if by_stem:
        names = [pair.video for pair in pairs]

    # Rows of one video are drawn together: their wins add up.
    _, video = np.unique(names, return_inverse=True)
    rows = np.bincount(video)
    wins = np.zeros(len(rows), dtype=np.int64)
    np.add.at(wins, video, right_a - right_b)
    low, high = interval(wins, rows, samples, seed)

    n = len(pairs)
    a = int(right_a.sum())
    b = int(right_b.sum())
    only_a = int((right_a > right_b).sum())
    only_b = int((right_a < right_b).sum())
    p = None
    if not by_stem:
        p = mcnemar(only_a, only_b)
    return {"n": n, "videos": len(wins), "a": 100 * a / n, "b": 100 * b / n,
            "difference": 100 * (a - b) / n, "low": float(low), "high": float(high),
            "only_a": only_a, "only_b": only_b, "p": p}
