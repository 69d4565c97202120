"""
The lists and class names of a folder are those of the dataset, of all its classes; what is left out or lost is said.

For the authors' folder lists/ copied whole, base-to-novel and few-shot lists beside the published ones, class folders
that lost their brackets, and files that are not read. Checked against the files that were made.
"""
import itertools
import os
import re

import pytest
from support.videos import relative, touch, write

from mote.datasets.dataset import class_names_of, list_hash, open_dataset, train_and_tests
from mote.datasets.finding_lists import own_places
from mote.datasets.folders import read_class_folders
from mote.datasets.lists import (
    find_classes,
    find_lists,
    needs_split,
    published_splits,
    read_split,
)


# --- the authors' folder lists/, copied whole ------------------------------------------------------------------------
def authors_lists(folder):
    """Four datasets in one folder, each list with a video and names of its own."""
    for place, lists, names in [("hmdb51", ["trainlist_split1.txt", "vallist_split1.txt", "vallist_split2.txt"],
                                 "hmdb51_labels.csv"),
                                ("k400", ["vallist.txt", "testlist.txt"], "kinetics_400_labels.csv"),
                                ("k600_test", ["k160_test_split1.txt", "k160_test_split2.txt"], ""),
                                ("ucf101", ["trainlist01-1.txt", "testlist01-1.txt", "testlist02-1.txt"],
                                 "ucf_labels.csv")]:
        for file in lists:
            write(folder / "lists" / place / file, f"{file[:-4]}.mp4 0\n")
            touch(folder / "videos", f"{file[:-4]}.mp4")
        write(folder / "lists" / place / (names or "k160_labels_split1.csv"), f"0,class of {place}\n")
    write(folder / "lists/k600_test/k160_labels_split2.csv", "0,class of k600_test\n")
    touch(folder, "lists/ucf101/ucf101_testlist_relabel.py")
    return folder


FOUND = {"ucf101": ("ucf101", "testlist01-1"), "UCF-101": ("ucf101", "testlist01-1"),
         "hmdb51": ("hmdb51", "vallist_split1"), "HMDB": ("hmdb51", "vallist_split1"), "k400": ("k400", "vallist"),
         "kinetics400": ("k400", "vallist"), "Kinetics-600": ("k600_test", "k160_test_split1"),
         "k600": ("k600_test", "k160_test_split1")}


@pytest.mark.parametrize("name", FOUND)
@pytest.mark.parametrize("by", ["folder", "name"])
def test_the_lists_of_the_dataset_are_found_in_the_authors_folder(tmp_path, name, by):
    folder = authors_lists(tmp_path / (name if by == "folder" else "some folder"))
    data = open_dataset(name if by == "name" else "some name", "val", str(folder))
    place, file = FOUND[name]
    assert (data.classes, relative(data.videos, folder)) == ([f"class of {place}"], [(f"videos/{file}.mp4", 0)])
    assert not needs_split(folder, name)


def test_all_splits_of_the_authors_folder_are_found(tmp_path):
    folder = authors_lists(tmp_path / "data")
    assert published_splits(folder, "val", name="ucf101") == ["1", "2"]
    assert published_splits(folder, "train", name="ucf101") == ["1"]
    assert read_split(folder, "val", split="2", name="k600")[1] == ["class of k600_test"]
    train, tests = train_and_tests("ucf101", [], str(folder))
    assert train.videos[0][0].endswith("trainlist01-1.mp4") and train.classes == tests["ucf101"].classes


def test_lists_of_other_datasets_alone_are_not_taken(tmp_path):
    folder = authors_lists(tmp_path / "mine")
    assert find_lists(folder, "val") == {} and find_classes(folder, "") is None
    assert own_places(folder) == []


def test_class_names_are_those_beside_the_lists_of_the_dataset(tmp_path, monkeypatch):
    folder = authors_lists(tmp_path / "ucf101")
    write(folder / "lists/kinetics_400_labels.csv", "0,a class of another dataset\n")
    assert find_classes(folder, "1") == folder / "lists/ucf101/ucf_labels.csv"
    assert read_split(folder, "val")[1] == ["class of ucf101"]
    monkeypatch.setenv("MOTE_DATA", str(tmp_path))
    assert class_names_of("ucf101") == ["class of ucf101"]


def test_one_folder_of_lists_is_taken_whatever_its_name(tmp_path):
    write(tmp_path / "lists" / "all" / "val.txt", "a.mp4 0\n")
    assert find_lists(tmp_path, "val") == {"": tmp_path / "lists" / "all" / "val.txt"}


def test_the_datasets_own_lists_come_before_the_authors(tmp_path):
    folder = authors_lists(tmp_path / "ucf101")
    touch(folder, "lists/trainlist01.txt", "ucf_labels.csv")
    assert find_lists(folder, "train") == {"1": folder / "lists/trainlist01.txt"} and find_lists(folder, "val") == {}
    assert find_classes(folder, "1") == folder / "ucf_labels.csv"


# --- lists of some classes or videos ---------------------------------------------------------------------------------
PARTS = ["base_val.txt", "novel_val.txt", "hmdb_base_val.txt", "hmdb_novel_val.txt", "hmdb51-base-val.csv",
         "fs_val.txt", "few_shot_val.txt", "16shot_val.txt", "Novel_val.txt", "base2novel_val.txt"]


@pytest.mark.parametrize("place", ["", "lists", "annotations"])
@pytest.mark.parametrize("part", PARTS)
def test_a_list_of_some_classes_or_videos_is_never_found(tmp_path, place, part):
    touch(tmp_path / place, part, part.replace("val", "train"))
    assert find_lists(tmp_path, "val") == find_lists(tmp_path, "train") == {}
    touch(tmp_path, "lists/vallist_split1.txt")
    assert published_splits(tmp_path, "val") == ["1"]


@pytest.mark.parametrize("name", ["database_val.txt", "baseball_val.txt", "offs_val.txt", "fsd_val.txt"])
def test_words_that_only_hold_those_letters_are_no_parts(tmp_path, name):
    touch(tmp_path, name)
    assert find_lists(tmp_path, "val") == {"": tmp_path / name}


MMACTION = {"kinetics400_train_list_videos.txt": ("train", ""), "kinetics400_val_list_videos.txt": ("val", ""),
            "ucf101_val_split_1_videos.txt": ("val", "1"), "hmdb51_train_split_2_rawframes.txt": ("train", "2"),
            "sthv2_val_list_rawframes.txt": ("val", ""), "val_list.csv": ("val", "")}


@pytest.mark.parametrize("name", MMACTION)
def test_the_lists_of_mmaction_are_found(tmp_path, name):
    touch(tmp_path, name)
    side, split = MMACTION[name]
    assert find_lists(tmp_path, side) == {split: tmp_path / name}


ALMOST = ["VAL.TXT", "val.tsv", "val.list", "val_old.txt", "val (1).txt", "val - Copy.csv", "k400_rgb_val_se320.txt"]


@pytest.mark.parametrize("name", ALMOST)
@pytest.mark.parametrize("place", ["", "annotations"])
def test_a_list_that_is_called_otherwise_is_named_as_not_taken(tmp_path, capsys, name, place):
    touch(tmp_path, "catch/a.mp4", "catch/b.mp4", os.path.join(place, name))
    if place:                                                                # which is no class folder either
        with pytest.raises(ValueError, match=rf"; {re.escape(place + '/' + name)} is called otherwise than train.txt"):
            open_dataset("mine", "val", str(tmp_path))
    else:
        open_dataset("mine", "val", str(tmp_path))
        assert f"not taken, since it is called otherwise than train.txt or val.txt: {name}\n" in capsys.readouterr().out


def test_lists_of_other_datasets_are_named_where_none_is_this_ones(tmp_path):
    touch(tmp_path, "lists/ucf101/testlist01-1.txt", "lists/hmdb51/vallist_split1.txt", "x/1.mp4", "x/2.mp4")
    with pytest.raises(ValueError, match="lists/hmdb51/vallist_split1.txt is of another dataset, by its folder"):
        read_split(tmp_path, "val", name="ssv2")


def test_what_is_no_list_by_its_name_is_not_said(tmp_path, capsys):
    touch(tmp_path, "catch/a.mp4", "catch/b.mp4", "training_log.txt", "notval.txt", "values.csv", "val.py")
    open_dataset("mine", "val", str(tmp_path))
    assert "not taken" not in capsys.readouterr().out


def test_a_missing_list_names_the_one_that_was_passed_over(tmp_path):
    write(tmp_path / "train.txt", "a.mp4 0\n")
    touch(tmp_path, "lists/base_val.txt")
    with pytest.raises(FileNotFoundError, match="has no val list.*; lists/base_val.txt is of some classes or videos"):
        read_split(tmp_path, "val")


@pytest.mark.parametrize("beside", ["lists", ""])
def test_a_list_of_base_classes_counts_the_base_classes(tmp_path, beside):
    """Labels count from 0 within the base classes: with all names each of them would be in range, and wrong."""
    touch(tmp_path, "videos/a.avi")
    given = str(write(tmp_path / "lists" / "hmdb_base_val.txt", "a.avi 0\n"))
    write(tmp_path / "lists" / "hmdb_novel_val.txt", "a.avi 0\n")
    write(tmp_path / "classes.csv", "0,brush hair\n1,pour\n")
    with pytest.raises(FileNotFoundError, match="hmdb_base_val.txt needs the names of its base classes"):
        read_split(tmp_path, "val", given)
    write(tmp_path / beside / "hmdb_51_base_labels.csv", "id,name\n0,pour\n")
    other = write(tmp_path / beside / "hmdb_51_novel_labels.csv", "id,name\n0,brush hair\n")
    assert read_split(tmp_path, "val", given)[1] == ["pour"]
    assert read_split(tmp_path, "val", given.replace("hmdb_base", "hmdb_novel"))[1] == ["brush hair"]
    with pytest.raises(ValueError, match="hmdb_51_novel_labels.csv is not of the base classes of"):
        read_split(tmp_path, "val", given, str(other))


def test_class_files_of_some_classes_are_never_those_of_all(tmp_path):
    touch(tmp_path, "hmdb_51_base_labels.csv", "hmdb_51_novel_labels.csv", "labels/base_classes.csv")
    assert find_classes(tmp_path, "") is None
    touch(tmp_path, "lists/hmdb_51_labels.csv")
    assert find_classes(tmp_path, "") == tmp_path / "lists/hmdb_51_labels.csv"


# --- class folders and their names -----------------------------------------------------------------------------------
NAMES = ["massaging person's head", "passing football (in game)", "passing football (not in game)", "yoga"]
WAYS = {
    "mmaction2": lambda name: name.replace(" ", "_").replace("(", "-").replace(")", "-"),
    "without marks": lambda name: "".join(c for c in name.replace(" ", "_") if c.isalnum() or c == "_"),
    "without spaces": lambda name: "".join(filter(str.isalnum, name)),
    "capitals": lambda name: "".join(filter(str.isalnum, name.title())),
    "marks as lines": lambda name: "".join(c if c.isalnum() else "_" for c in name),
    "spaces only": lambda name: "".join(c for c in name if c.isalnum() or c == " "),
    "as they are": str,
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("sides", [True, False])
def test_class_folders_get_the_names_of_the_class_file(tmp_path, way, sides):
    given = [NAMES[2], NAMES[0], NAMES[3], NAMES[1]]
    write(tmp_path / "classes.csv", "".join(f"{i},{name}\n" for i, name in enumerate(given)))
    places = ["train/", "val/"] if sides else [""]
    for name, place in itertools.product(NAMES, places):
        touch(tmp_path, *(f"{place}{way(name)}/{i}.mp4" for i in "12345"))
    videos, classes = read_split(tmp_path, "val")
    assert classes == given
    assert {(os.path.basename(os.path.dirname(path)), label) for path, label in videos} == {
        (way(name), i) for i, name in enumerate(given)}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_lists_of_class_folders_get_the_names_of_the_class_file(tmp_path, way):
    write(tmp_path / "classes.csv", "".join(f"{i},{name}\n" for i, name in enumerate(NAMES)))
    write(tmp_path / "val.txt", "".join(f"{way(name)}/a.mp4\n" for name in NAMES))
    touch(tmp_path, *(f"{way(name)}/a.mp4" for name in NAMES))
    videos, classes = read_split(tmp_path, "val")
    assert classes == NAMES and [label for _, label in videos] == [0, 1, 2, 3]


def test_class_names_given_for_class_folders_are_used(tmp_path):
    touch(tmp_path, "val/a_b/1.mp4", "val/c/1.mp4")
    names = write(tmp_path / "elsewhere" / "names.csv", '0,c\n1,"a (b)"\n')
    videos, classes = read_split(tmp_path, "val", class_file=str(names))
    assert (relative(videos, tmp_path), classes) == ([("val/a_b/1.mp4", 1), ("val/c/1.mp4", 0)], ["c", "a (b)"])


def test_a_class_folder_that_the_class_file_does_not_name_is_named(tmp_path):
    touch(tmp_path, "val/catch/1.mp4", "val/wave/1.mp4")
    write(tmp_path / "classes.csv", "0,catch\n1,waves\n")
    with pytest.raises(ValueError, match="val/wave: not the folder of one of the 2 classes"):
        read_split(tmp_path, "val")


def test_two_folders_of_one_class_and_two_classes_of_one_folder_are_refused(tmp_path):
    touch(tmp_path, "a_b/1.mp4", "a-b/1.mp4")
    with pytest.raises(ValueError, match="each folder must name a class of its own"):
        read_class_folders(tmp_path, own_names=["a (b)"])
    with pytest.raises(ValueError, match="not the folder of one of the 3 classes"):
        read_class_folders(tmp_path, own_names=["a (b)", "a, b", "c"])


@pytest.mark.parametrize("name", ["passing_football_-in_game-", "passing_football_in_game", "PassingFootballInGame",
                                  "passing football in game"])
def test_names_that_may_have_lost_something_are_said_once(tmp_path, capsys, name):
    touch(tmp_path, *(f"{side}/{folder}/1.mp4" for side in ("train", "val") for folder in (name, "yoga")))
    train_and_tests("mine", [], str(tmp_path))
    said = capsys.readouterr().out
    assert said.count("\n") == 1 and said.count(f"no class file: folders say the class names, {name!r} says ") == 1
    assert "brackets and other marks that a folder's name lacks are lost" in said
    open_dataset("mine", "val", str(tmp_path), write=False)
    assert capsys.readouterr().out == ""


def test_nothing_is_said_where_nothing_can_be_lost(tmp_path, capsys):
    touch(tmp_path, "train/catch/1.mp4", "val/catch/1.mp4")
    train_and_tests("mine", [], str(tmp_path))
    touch(tmp_path, "brackets/val/passing football (in game)/1.mp4", "brackets/val/arm wrestling/1.mp4")
    open_dataset("mine", "val", str(tmp_path / "brackets"))
    touch(tmp_path, "named/val/arm_wrestling/1.mp4")
    write(tmp_path / "named/classes.csv", "0,arm wrestling\n")
    open_dataset("mine", "val", str(tmp_path / "named"))
    assert capsys.readouterr().out == ""


# --- files that are not read -----------------------------------------------------------------------------------------
@pytest.mark.parametrize("sides", [True, False])
def test_files_of_other_endings_are_counted_once_and_three_are_named(tmp_path, capsys, sides):
    names = ["a.MTS", "b.VOB", "c.ogv", "d.gif", "e"]
    here = ["train/catch", "val/catch"] if sides else ["catch"]
    touch(tmp_path, *(f"{folder}/{i}.mp4" for folder in here for i in "12"), *(f"{here[-1]}/{name}" for name in names),
          f"{here[0]}/.hidden.MTS", f"{here[0]}/frames/1.jpg")
    train_and_tests("mine", [], str(tmp_path))
    paths = ", ".join(f"{tmp_path}/{here[-1]}/{name}" for name in names[:3])
    said = capsys.readouterr().out.splitlines()
    assert said[0] == f"{tmp_path}: 5 files of other endings are not read: {paths}, ..."
    assert sum("not read" in line for line in said) == 1


def test_one_file_of_another_ending_is_named(tmp_path, capsys):
    touch(tmp_path, "val/catch/a.mp4", "val/catch/b.MTS")
    open_dataset("mine", "val", str(tmp_path))
    assert capsys.readouterr().out == (
        f"{tmp_path}: 1 file of another ending is not read: {tmp_path}/val/catch/b.MTS\n")


def test_a_list_says_itself_what_is_read(tmp_path, capsys):
    touch(tmp_path, "arm_wrestling/a.MTS", "arm_wrestling/b.gif")
    write(tmp_path / "val.txt", "arm_wrestling/a.MTS\n")
    assert relative(open_dataset("mine", "val", str(tmp_path)).videos, tmp_path) == [("arm_wrestling/a.MTS", 0)]
    assert capsys.readouterr().out == ""


def test_lists_that_were_passed_over_are_said(tmp_path, capsys):
    touch(tmp_path, "val/catch/a.mp4", "lists/base_val.txt")
    open_dataset("mine", "val", str(tmp_path))
    assert "not taken, since it is of some classes or videos: lists/base_val.txt" in capsys.readouterr().out


# --- a second ending -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("listed, there", [("a.mp4", "a.mp4.mkv"), ("a.mp4", "a.mkv.mp4"), ("a.mp4", "a.mp4.mp4"),
                                           ("a.mp4.mkv", "a.mp4"), ("a.avi", "a.mp4.webm.mkv"), ("a.MP4", "a.mp4.MKV"),
                                           ("a.vob", "a.mp4"), ("a", "a.avi.mp4")])
@pytest.mark.parametrize("moved", ["catch/", "videos/catch/"])
def test_a_video_with_a_second_ending_is_found_by_its_stem(tmp_path, listed, there, moved):
    touch(tmp_path, f"{moved}{there}", "catch/b.mp4", "jump/a.mp4")
    write(tmp_path / "val.txt", f"catch/{listed} 0\ncatch/b.mp4 0\njump/a.mp4 1\n")
    write(tmp_path / "classes.csv", "0,catch\n1,jump\n")
    assert relative(read_split(tmp_path, "val")[0], tmp_path)[0] == (f"{moved}{there}", 0)


@pytest.mark.parametrize("there", [("a.mp4.mkv", "a.mkv.mp4"), ("a.mp4.mkv", "a.mkv.webm")])
def test_two_second_endings_are_no_answer_and_the_stem_comes_first(tmp_path, there):
    touch(tmp_path, *(f"catch/{name}" for name in there), "catch/b.mp4")
    write(tmp_path / "val.txt", "catch/a.mp4 0\ncatch/b.mp4 0\n")
    write(tmp_path / "classes.csv", "0,catch\n")
    assert relative(read_split(tmp_path, "val")[0], tmp_path)[0] == ("catch/a.mp4", 0)
    touch(tmp_path, "catch/a.avi")
    assert relative(read_split(tmp_path, "val")[0], tmp_path)[0] == ("catch/a.avi", 0)


def test_hashes_and_splits_that_exist_do_not_change():
    """Two endings are one name and one ending there, as when the first hashes were kept."""
    assert list_hash([("a/x.avi.mp4", 0), ("b/y.mp4", 1)]) != list_hash([("a/x.avi", 0), ("b/y.mp4", 1)])
    assert list_hash([("a/x.avi", 0), ("b/y.mp4", 1)]) == "8649f6a1"
