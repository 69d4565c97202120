"""
A dataset opened by its name is the side and the split that are meant; training and testing fit together.

For lists, class folders, published splits and toyworld's sets. Checked against the files that were made; the hash of a
list against the one that protocols keep, for any videos (hypothesis).
"""
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.places import ROOT
from support.videos import relative, touch, write

from mote import toyworld
from mote.datasets.dataset import (
    Dataset,
    class_names_of,
    dataset_folder,
    list_hash,
    open_dataset,
    train_and_tests,
)
from mote.datasets.folders import stem
from mote.scoring.protocols import list_digest, mixed_names
from mote.toyworld import class_set


@pytest.fixture
def data(tmp_path, monkeypatch):
    """$MOTE_DATA, empty."""
    monkeypatch.setenv("MOTE_DATA", str(tmp_path))
    return tmp_path


def listed(folder, names, *files):
    """A dataset of one video per class and list, with a class file."""
    for file in files:
        touch(folder, *(f"{Path(file).stem}/{i}.mp4" for i in range(len(names))))
        write(folder / file, "".join(f"{Path(file).stem}/{i}.mp4 {i}\n" for i in range(len(names))))
    write(folder / "classes.csv", "".join(f"{i},{name}\n" for i, name in enumerate(names)))
    return folder


# --- one side ------------------------------------------------------------------------------------------------------
def test_a_side_is_read_from_its_list(data):
    listed(data / "mine", ["catch", "jump"], "train.txt", "val.txt")
    opened = open_dataset("mine", "val")
    assert (opened.name, opened.classes, opened.split) == ("mine", ["catch", "jump"], "")
    assert relative(opened.videos, data / "mine") == [("val/0.mp4", 0), ("val/1.mp4", 1)]


def test_a_dataset_does_not_change(data):
    with pytest.raises(AttributeError):
        Dataset("mine", [], [], "").split = "1"


@pytest.mark.parametrize("given_split, opened_split", [("", "1"), ("1", "1"), ("2", "2"), ("02", "2")])
def test_the_split_is_the_given_or_the_first(data, given_split, opened_split):
    listed(data / "mine", ["catch"], "val1.txt", "val2.txt")
    opened = open_dataset("mine", "val", split=given_split)
    assert opened.split == opened_split
    assert relative(opened.videos, data / "mine") == [(f"val{opened_split}/0.mp4", 0)]


def test_a_folder_a_list_and_class_names_may_be_given(data):
    folder = listed(data / "elsewhere", ["catch", "jump"], "mine1.txt", "mine2.txt")
    names = write(data / "names2.csv", "0,fangen\n1,springen\n")
    opened = open_dataset("any", "train", str(folder), str(folder / "mine{}.txt"), str(names).replace("2", "{}"), "2")
    assert (opened.name, opened.classes, opened.split) == ("any", ["fangen", "springen"], "2")
    assert relative(opened.videos, folder) == [("mine2/0.mp4", 0), ("mine2/1.mp4", 1)]


def test_a_dataset_that_is_not_there_is_named(data):
    with pytest.raises(FileNotFoundError, match="dataset nowhere: no folder at"):
        open_dataset("nowhere", "val")


@pytest.mark.parametrize("write_it", [True, False])
def test_the_writing_rank_says_that_the_split_is_none_of_the_publishers(data, capsys, write_it):
    touch(data / "mine", *(f"catch/{i}.avi" for i in range(5)))
    assert len(open_dataset("mine", "train", write=write_it).videos) == 4
    said = (f"{data / 'mine'}: no lists, no train and val folders: split 80 / 20 within each class, "
            "no published split: 4 for train\n")
    assert capsys.readouterr().out == (said if write_it else "")


def test_nothing_is_said_of_lists_and_of_folders_of_sides(data, capsys):
    listed(data / "mine", ["catch"], "val.txt")
    open_dataset("mine", "val")
    touch(data / "sides", "train/catch/a.avi", "val/catch/b.avi")
    open_dataset("sides", "val")
    touch(data / "classes", "catch/a.avi", "catch/b.avi")
    given_list, names = write(data / "l.txt", "catch/a.avi 0\n"), write(data / "n.csv", "0,catch\n")
    open_dataset("classes", "val", list_file=str(given_list), class_file=str(names))
    assert capsys.readouterr().out == ""


# --- toyworld ------------------------------------------------------------------------------------------------------
@pytest.fixture
def generated(data, monkeypatch):
    """The sets that `toyworld.ready` was asked for, as (folder, name, write); it makes a set of one video."""
    asked = []

    def ready(folder, name, write):
        asked.append((folder, name, write))
        listed(folder, ["star growing"], "train.txt", "val.txt")
    monkeypatch.setattr(toyworld, "ready", ready)
    return asked


@pytest.mark.parametrize("write_it", [True, False])
def test_toyworlds_sets_are_generated_by_the_writing_rank(data, generated, write_it):
    assert dataset_folder("toyworld-novel", write=write_it) == data / "toyworld-novel"
    assert generated == [(data / "toyworld-novel", "toyworld-novel", write_it)]


def test_without_an_environment_they_lie_in_data(data, generated, monkeypatch):
    monkeypatch.chdir(data)
    monkeypatch.setenv("MOTE_DATA", "")
    assert open_dataset("toyworld", "val").classes == ["star growing"]
    monkeypatch.delenv("MOTE_DATA")
    assert open_dataset("toyworld", "val").classes == ["star growing"]
    assert generated == [(Path("data/toyworld"), "toyworld", True)] * 2


def test_nothing_else_is_generated(data, generated):
    listed(data / "mine", ["catch"], "val.txt")
    dataset_folder("mine")
    dataset_folder("toyworld", str(data / "mine"))
    assert generated == []


def test_the_other_ranks_wait_for_the_set(world, data):
    opened = []
    waiting = threading.Thread(target=lambda: opened.append(open_dataset("toyworld-novel", "val", write=False)))
    waiting.start()
    waiting.join(timeout=0.2)
    assert waiting.is_alive() and not opened
    shutil.copytree(world / "toyworld-novel", data / "copy")
    (data / "copy").rename(data / "toyworld-novel")
    waiting.join(timeout=10)
    assert opened[0].classes == [name for name, _ in class_set("toyworld-novel")] and len(opened[0].videos) == 40


# --- training and testing ------------------------------------------------------------------------------------------
def test_a_run_trains_on_one_side_and_tests_on_the_other_and_on_other_sets(data):
    listed(data / "mine", ["catch", "jump"], "train.txt", "val.txt")
    listed(data / "b", ["ride"], "val.txt")
    listed(data / "a", ["sing"], "val1.txt", "val2.txt")
    train, tests = train_and_tests("mine", ["b", "a"])
    assert train == open_dataset("mine", "train")
    assert list(tests.items()) == [(name, open_dataset(name, "val")) for name in ("mine", "b", "a")]


def test_files_and_split_of_a_run_are_not_those_of_its_zero_shot_sets(data):
    folder = listed(data / "mine", ["catch", "jump"], "t1.txt", "t2.txt", "v1.txt", "v2.txt")
    listed(data / "other", ["ride"], "val1.txt", "val2.txt")
    names = write(data / "names.csv", "0,fangen\n1,springen\n")
    train, tests = train_and_tests("any", ["other"], str(folder), str(folder / "t{}.txt"), str(folder / "v{}.txt"),
                                   str(names), "2")
    assert train.classes == tests["any"].classes == ["fangen", "springen"] and train.split == "2"
    assert relative(train.videos, folder)[0] == ("t2/0.mp4", 0)
    assert relative(tests["any"].videos, folder)[0] == ("v2/0.mp4", 0)
    assert tests["other"] == open_dataset("other", "val") and tests["other"].split == "1"


@pytest.mark.parametrize("lists, split, fit", [
    (["train1.txt", "val1.txt"], "", True), (["train.txt", "val.txt"], "", True),
    (["train2.txt", "val1.txt"], "", False),
    (["train1.txt", "val1.txt", "val2.txt"], "", True), (["train.txt", "val1.txt"], "", True),
    (["train2.txt", "val.txt"], "", True)])
def test_training_and_testing_must_be_of_one_published_split(data, lists, split, fit):
    listed(data / "mine", ["catch"], *lists)
    if fit:
        train_and_tests("mine", [], split=split)
    else:
        with pytest.raises(ValueError, match=r"^mine: the classes \(and the official split\) of training and testing"
                                             " must be the same$"):
            train_and_tests("mine", [], split=split)


def test_training_and_testing_must_have_the_same_classes(data):
    folder = listed(data / "mine", ["catch"], "train1.txt", "val1.txt")
    (folder / "classes.csv").unlink()
    write(folder / "classes1.csv", "0,catch\n")
    listing, _ = write(data / "l.txt", "val1/0.mp4 0\n"), write(folder / "classes.csv", "0,catch\n1,jump\n")
    assert open_dataset("mine", "val", list_file=str(listing)).classes == ["catch", "jump"]
    with pytest.raises(ValueError, match=r"^mine: the classes .* must be the same$"):
        train_and_tests("mine", [], val_list=str(listing))


def test_only_the_writing_rank_prints(data, capsys):
    for name in ("mine", "other"):
        touch(data / name, "catch/a.avi", "catch/b.avi")
    train_and_tests("mine", ["other"], write=False)
    assert capsys.readouterr().out == ""
    train_and_tests("mine", ["other"])
    assert [line.split(":")[-1] for line in capsys.readouterr().out.splitlines()] == [
        " 1 for train", " 1 for val", " 1 for val"]


# --- class names alone ---------------------------------------------------------------------------------------------
def test_class_names_need_no_videos(data):
    write(data / "mine" / "classes.csv", "0,jump\n1,catch\n")
    assert class_names_of("mine") == ["jump", "catch"]


def test_class_names_of_all_splits_are_joined_without_duplicates(data):
    groups = [["arguing", "Yo Yo"], ["yo_yo", "yarn spinning"], ["Arguing", "acting"]]
    for n, names in enumerate(groups, 1):
        write(data / "k600" / f"k160_test_split{n}.txt", "gone.mp4 0\n")
        write(data / "k600" / f"k160_labels_split{n}.csv", "".join(f"{i},{name}\n" for i, name in enumerate(names)))
    assert class_names_of("k600") == ["arguing", "Yo Yo", "yarn spinning", "acting"] == mixed_names([], groups)


def test_without_a_class_file_class_names_are_those_of_the_videos(data, capsys):
    touch(data / "mine", *(f"{name}/{i}.avi" for name in ("brush_hair", "catch") for i in "ab"))
    assert class_names_of("mine", write=False) == ["brush hair", "catch"]
    assert capsys.readouterr().out == ""


# --- the hash of a list --------------------------------------------------------------------------------------------
paths = st.builds("{}{}/{}{}".format, st.sampled_from(["", "/a/"]), st.text(max_size=3), st.text(max_size=5),
                  st.sampled_from([".mp4", ".avi", "", ".txt"]))


@given(st.lists(st.tuples(paths, st.integers(0, 400)), max_size=6), st.randoms(use_true_random=False))
def test_the_hash_of_a_list_is_the_one_that_protocols_keep_whatever_the_order(videos, shuffler):
    expected = list_digest([(stem(path), label) for path, label in videos])
    shuffler.shuffle(videos)
    assert list_hash(videos) == expected and len(expected) == 8


def test_the_hash_of_a_list_is_kept_by_a_prepared_copy_and_by_nothing_else():
    videos = [("a/x.avi", 0), ("b/y.mp4", 1)]
    assert list_hash(videos) == list_hash([("/c/y.mkv", 1), ("x.mp4", 0)]) == "8649f6a1"
    assert len({list_hash(other) for other in (videos, videos[:1], [("a/x.avi", 1), videos[1]], [videos[0]] * 2)}) == 4


# --- no torch ------------------------------------------------------------------------------------------------------
def test_datasets_need_no_torch_until_toyworld_is_asked_for(tmp_path):
    """The folder alone, outside the package."""
    shutil.copytree(ROOT / "mote" / "datasets", tmp_path / "datasets", ignore=shutil.ignore_patterns("__pycache__"))
    modules = sorted(file.stem for file in (tmp_path / "datasets").glob("*.py") if file.stem != "__init__")
    code = (f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from datasets import {', '.join(modules)}; "
            "print(*{'torch', 'numpy', 'mote'} & set(sys.modules))")
    done = subprocess.run([sys.executable, "-I", "-c", code], cwd=tmp_path, capture_output=True, text=True,
                          env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    assert "dataset" in modules and done.stdout.split() == []
