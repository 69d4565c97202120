"""
A dataset is opened by its name: its folder is found, and a side of it read.

    open_dataset("ucf101", "val", split="2")      one side of a dataset
    train_and_tests("k400", ["ucf101"])           what a training run needs: one to train on, some
                                                  to test on
    class_names_of("hmdb51")                      class names alone; the videos need not be there

A side is "train" or "val"; a split is the number of a published split. toyworld's sets are
generated where they are not there yet. Needs torch for that only. Not part of the paper.

`write`, an argument of each function, is true on one rank of a run: that rank generates and
prints. The other ranks wait for what it generates.
"""
import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

from .folders import Videos, find_folder, plain, stem
from .lists import (
    find_classes,
    needs_split,
    notes,
    published_splits,
    read_classes,
    read_split,
)


@dataclass(frozen=True)
class Dataset:
    """One side of a dataset: its videos as (path, label), and the class names that labels count."""
    name: str
    videos: Videos
    classes: list[str]
    split: str                                     # the published split; "" where there is one list


def open_dataset(name: str, side: str, data_root: str = "", list_file: str = "",
                 class_file: str = "", split: str = "", write: bool = True) -> Dataset:
    """A side of a dataset. split: the given one, else the only or the first one.

    data_root stands in for the folder that the name says, list_file and class_file for the files
    in it; a {} in them becomes the split. Raises ValueError or FileNotFoundError of one line.
    """
    data, lines = open_with_notes(name, side, data_root, list_file, class_file, split, write)
    if write:
        print(*lines, sep="\n", end="\n" if lines else "")
    return data


def open_with_notes(name: str, side: str, data_root: str, list_file: str, class_file: str,
                    split: str, write: bool) -> tuple[Dataset, list[str]]:
    """`open_dataset`, and what it prints: one line for each thing that a user should know."""
    folder = dataset_folder(name, data_root, write)
    split = split.lstrip("0") or published_splits(folder, side, list_file, name)[0]
    videos, classes = read_split(folder, side, list_file, class_file, split, name)
    lines = notes(folder, side, list_file, class_file, name)
    again = note_on_lines(videos)
    if again:
        lines.append(f"{folder}, {side}: {again}")
    if not list_file and needs_split(folder, name):
        lines.append(f"{folder}: no lists, no train and val folders: split 80 / 20 within each "
                     f"class, no published split: {len(videos)} for {side}")
    return Dataset(name, videos, classes, split), lines


def note_on_lines(videos: Videos) -> str:
    """One line where videos stand on several lines of a list; "" where each has a line of its own.

    >>> note_on_lines([("a.mp4", 0), ("b.mp4", 1), ("./a.mp4", 2)])
    'videos on several lines: 1, with several labels: 1; for one a.mp4, labels 0, 2'
    """
    labels: dict[str, list[int]] = {}
    for path, label in videos:
        labels.setdefault(os.path.normpath(path), []).append(label)
    again = [path for path, found in labels.items() if len(found) > 1]
    if not again:
        return ""
    unsure = [path for path in again if len(set(labels[path])) > 1]
    path = (unsure or again)[0]
    return (f"videos on several lines: {len(again)}, with several labels: {len(unsure)}; for one "
            f"{path}, labels {', '.join(map(str, labels[path]))}")


def dataset_folder(name: str, data_root: str = "", write: bool = True) -> Path:
    """Where a dataset lies: see `find_folder`. toyworld's sets are generated if not there."""
    if not data_root:
        # Imported here, because it needs torch.
        from .. import toyworld
        if name in toyworld.SETS:
            data = Path(os.environ.get("MOTE_DATA") or "data")
            toyworld.ready(data / name, name, write=write)
    return find_folder(name, data_root)


def train_and_tests(name: str, zero_shot: list[str], data_root: str = "", train_list: str = "",
                    val_list: str = "", class_file: str = "", split: str = "",
                    write: bool = True) -> tuple[Dataset, dict[str, Dataset]]:
    """The training set, and name -> test set: first the same dataset's, then the zero-shot ones.

    The arguments after zero_shot are for the dataset `name`; zero-shot sets are opened by their
    names alone. Raises ValueError for a zero-shot set that is the training set's, and unless
    training and testing have the same classes and, where both have published splits, the same.
    """
    if name in zero_shot:
        raise ValueError(f"--zero-shot {name} is what the run trains on: it is tested anyway")
    train, lines = open_with_notes(name, "train", data_root, train_list, class_file, split, write)
    test, more = open_with_notes(name, "val", data_root, val_list, class_file, split, write)
    tests = {name: test}
    if write:
        for line in dict.fromkeys(lines + more):   # both sides may say the same
            print(line)
    for other in zero_shot:
        tests[other] = open_dataset(other, "val", write=write)

    two_splits = train.split and test.split and train.split != test.split
    if train.classes != test.classes or two_splits:
        raise ValueError(f"{name}: the classes (and the official split) of training and testing "
                         "must be the same")
    return train, tests


def class_names_of(name: str, write: bool = True) -> list[str]:
    """The class names of a dataset without duplicates, those of all its splits together.

    They come from its class files, so the videos need not be there; without class files, from its
    lists or folders as `open_dataset` reads them. K600 has other classes in each split.
    """
    folder = dataset_folder(name, write=write)
    splits = published_splits(folder, "val", name=name)
    found = [find_classes(folder, split, name) for split in splits]
    files = [file for file in found if file]
    if len(files) < len(splits):
        return open_dataset(name, "val", write=write).classes

    names: dict[str, str] = {}                     # as compared -> as the first file spells it
    for file in files:
        for class_name in read_classes(file):
            names.setdefault(plain(class_name), class_name)
    return list(names.values())


def list_hash(videos: Videos) -> str:
    """8 hexadecimal digits of the videos' stems and labels, whatever their order and folders.

    So a re-encoded copy of a dataset has the hash of the original. Protocols and checkpoints keep
    it: how it is computed must not change.
    """
    pairs = sorted([stem(path), int(label)] for path, label in videos)
    return hashlib.sha256(json.dumps(pairs).encode()).hexdigest()[:8]
