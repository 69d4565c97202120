"""
A video is the one that is meant or none: found by its stem where it was moved or re-encoded, never another of its name.

For class folders, folders of JPEGs, links and loops of links, any tree (hypothesis), the 80 / 20 split, and the places
where a dataset may lie. Checked against the trees that were made, and by counting how often a folder is listed.
"""
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.videos import relative, touch, write

from mote.datasets.folders import (
    class_name,
    find_folder,
    folders_of_videos,
    is_video,
    locate,
    plain,
    read_class_folders,
    read_text,
    split_per_class,
    stem,
)
from mote.datasets.lists import read_split


def found(folder, *listed):
    """Where the listed paths are found, relative to the folder; None where they are not."""
    videos = [(str(folder / path), label) for label, path in enumerate(listed)]
    located = locate(videos, folder)
    assert [label for _, label in located] == list(range(len(listed)))
    there = [os.path.relpath(new, folder) if os.path.exists(new) else None for new, _ in located]
    assert all(new == old for (new, _), (old, _), path in zip(located, videos, there) if path is None)     # unchanged
    return there


# --- stems ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("path, name", [
    ("a/x.mp4", "x"), ("x.AVI", "x"), ("x.y.webm", "x.y"), ("x", "x"), ("x.txt", "x.txt"), ("x.mp4.part", "x.mp4.part"),
    ("Mr._Bean_(1)", "Mr._Bean_(1)"), (".mp4", ".mp4"), ("-abc_1.mkv", "-abc_1")])
def test_a_stem_is_the_name_without_the_ending_of_a_video(path, name):
    assert stem(path) == name


@pytest.mark.parametrize("one, other, same", [
    ("HandStandPushups", "Handstand Pushups", True), ("brush_hair", "brush hair", True), ("YoYo", "Yo Yo", True),
    ("kick", "kick ball", False), ("TaiChi", "tai  chi ", True)])
def test_spellings_of_one_class_are_one_class(one, other, same):
    assert (plain(one) == plain(other)) is same


def test_videos_are_files_of_a_video_ending_and_folders_of_jpegs(tmp_path):
    touch(tmp_path, "a.MP4", "a.txt", "a", "frames/1.JPG", "notes/readme.txt", "dir.mp4/readme.txt")
    assert [name for name in sorted(os.listdir(tmp_path)) if is_video(str(tmp_path / name))] == ["a.MP4", "frames"]


# --- beside the listed path ----------------------------------------------------------------------------------------
def test_a_video_at_its_path_is_taken_whatever_else_has_its_name(tmp_path):
    touch(tmp_path, "catch/x.avi", "catch/x.mp4", "more/catch/x.avi", "catch/y.txt")
    assert found(tmp_path, "catch/x.avi", "catch/y.txt") == ["catch/x.avi", "catch/y.txt"]


@pytest.mark.parametrize("there", ["x.mp4", "x.MKV", "x.webm", "x/00001.jpg"])
def test_a_video_with_another_ending_is_found(tmp_path, there):
    touch(tmp_path, f"catch/{there}", "catch/other.mp4")
    assert found(tmp_path, "catch/x.avi") == [f"catch/{Path(there).parts[0]}"]


@pytest.mark.parametrize("there", ["x.txt", "x.avi.part", "x", "x/readme.txt", "._x.avi", "X.mp4", "xx.mp4", "x .mp4"])
def test_what_is_no_video_of_that_name_is_not_taken(tmp_path, there):
    touch(tmp_path, f"catch/{there}", f"more/catch/{there}")
    assert found(tmp_path, "catch/x.avi") == [None]


def test_a_folder_of_jpegs_may_be_listed_and_be_a_file_now(tmp_path):
    touch(tmp_path, "frames/catch/7.mp4")
    assert found(tmp_path, "frames/catch/7") == ["frames/catch/7.mp4"]


def test_two_candidates_beside_the_path_are_not_taken_nor_one_elsewhere(tmp_path):
    touch(tmp_path, "catch/x.mp4", "catch/x.mkv", "more/catch/x.avi")
    assert found(tmp_path, "catch/x.avi") == [None]


# --- elsewhere in the folder ---------------------------------------------------------------------------------------
@pytest.mark.parametrize("listed, there", {
    "a folder more": ("catch/x.avi", "UCF-101/catch/x.avi"), "a folder less": ("UCF-101/catch/x.avi", "catch/x.avi"),
    "two more, another ending": ("catch/x.avi", "a/b/catch/x.mp4"), "in one folder": ("catch/x.avi", "videos/x.avi"),
    "at the top": ("catch/x.avi", "x.avi"), "flat list": ("x.avi", "catch/x.avi"),
    "spelt otherwise": ("arm_wrestling/x.mp4", "videos/arm wrestling/x.mp4")}.values())
def test_a_video_is_found_under_other_folders(tmp_path, listed, there):
    touch(tmp_path, there, "catch/other.avi")
    assert found(tmp_path, listed) == [there]


def test_a_video_of_that_name_in_another_class_is_not_taken(tmp_path):
    touch(tmp_path, "jump/x.avi", "catch/y.avi")
    assert found(tmp_path, "catch/x.avi", "jump/z.avi", "catch/y.avi") == [None, None, "catch/y.avi"]


def test_the_class_folder_decides_between_two_of_one_name(tmp_path):
    touch(tmp_path, "all/catch/1.mp4", "all/jump/1.mp4", "all/other/1.mp4")
    assert found(tmp_path, "catch/1.mp4", "jump/1.mp4") == ["all/catch/1.mp4", "all/jump/1.mp4"]


@pytest.mark.parametrize("there", [("a/catch/x.avi", "b/catch/x.avi"), ("a/x.avi", "b/x.avi"), ("a/x.mp4", "b/x.mkv")])
def test_two_candidates_elsewhere_are_not_taken(tmp_path, there):
    touch(tmp_path, *there)
    assert found(tmp_path, "catch/x.avi") == [None]


def test_of_videos_and_their_frames_the_listed_ending_is_meant(tmp_path):
    touch(tmp_path, "videos/x.webm", "frames/x/00001.jpg", "videos/y.mp4", "frames/y/00001.jpg")
    assert found(tmp_path, "x.webm", "y.webm") == ["videos/x.webm", None]
    assert found(tmp_path, "x") == ["frames/x"]


@pytest.mark.parametrize("side", ["train", "test", "validation"])
def test_a_video_missing_on_one_side_is_not_taken_from_another(tmp_path, side):
    """Numbered files: val/1.mp4 is not train/1.mp4."""
    touch(tmp_path, f"{side}/1.mp4", f"{side}/catch/3.mp4", "val/2.mp4", "more/val/catch/5.mp4", "all/catch/6.mp4")
    assert found(tmp_path, "val/1.mp4", "val/2.mp4", "val/catch/3.mp4") == [None, "val/2.mp4", None]
    assert found(tmp_path, "val/catch/5.mp4", "val/catch/6.mp4") == ["more/val/catch/5.mp4", "all/catch/6.mp4"]
    assert found(tmp_path, "catch/3.mp4") == [f"{side}/catch/3.mp4"]
    (tmp_path / "val" / "data").mkdir()
    touch(tmp_path / "val" / "data", "train/catch/7.mp4", "catch/8.mp4")
    assert found(tmp_path / "val" / "data", "val/catch/7.mp4", "train/catch/8.mp4") == [None, "catch/8.mp4"]


def test_hidden_folders_and_videos_inside_folders_of_jpegs_are_passed_over(tmp_path):
    touch(tmp_path, ".trash/x.avi", "frames/00001.jpg", "frames/x.avi")
    assert found(tmp_path, "catch/x.avi") == [None]


def test_an_absolute_path_is_taken_or_found_by_its_name(tmp_path):
    touch(tmp_path, "elsewhere/catch/x.avi", "data/catch/y.avi")
    videos = [(f"{tmp_path}/elsewhere/catch/x.avi", 0), (f"{tmp_path}/gone/catch/y.avi", 1)]
    assert locate(videos, tmp_path / "data") == [videos[0], (f"{tmp_path}/data/catch/y.avi", 1)]


def test_linked_folders_and_files_are_followed(tmp_path):
    touch(tmp_path, "disk/catch/x.avi", "disk/y.avi")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "videos").symlink_to(tmp_path / "disk")
    (tmp_path / "data" / "catch").mkdir()
    (tmp_path / "data" / "catch" / "z.avi").symlink_to(tmp_path / "disk" / "y.avi")
    assert found(tmp_path / "data", "catch/x.avi", "catch/z.mp4") == ["videos/catch/x.avi", "catch/z.avi"]


def test_loops_of_links_end_and_a_folder_linked_twice_is_one(tmp_path):
    touch(tmp_path, "a/catch/x.avi")
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    (tmp_path / "again").symlink_to(tmp_path / "a")
    (tmp_path / "self").symlink_to(tmp_path / "self")
    (tmp_path / "dead").symlink_to(tmp_path / "gone")
    assert found(tmp_path, "catch/x.avi")[0] in ("a/catch/x.avi", "again/catch/x.avi")
    assert len(folders_of_videos(str(tmp_path))) == 3


def test_an_unreadable_folder_is_passed_over(tmp_path, monkeypatch):
    """As lost+found at the root of a disk."""
    touch(tmp_path, "lost+found/y.avi", "videos/x.avi")
    scandir = os.scandir

    def refuses(path):
        if str(path).endswith("lost+found"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)
    monkeypatch.setattr(os, "scandir", refuses)
    assert found(tmp_path, "catch/x.avi") == ["videos/x.avi"]


names = st.sampled_from(["a", "b", "x", "train", "val"])
files = st.builds("/".join, st.lists(names, max_size=3).map(lambda parts: [*parts, "x.mp4"]))


@settings(max_examples=30)
@given(st.sets(files, max_size=4), st.lists(files, min_size=1, max_size=3))
def test_in_any_tree_a_video_is_itself_or_the_only_one_that_may_be_it(tmp_path_factory, there, listed):
    """The rules written out for files that are all called x.mp4."""
    folder = touch(tmp_path_factory.mktemp("tree"), *there)
    classes = [Path(folder / path).parent.name for path in listed]
    for path, taken, own in zip(listed, found(folder, *listed), classes):
        side = {"train", "val"} & {*Path(path).parts}
        sides = {file: {"train", "val"} & {*Path(file).parts} for file in there}
        other = [file for file in there if not side or not sides[file] or side & sides[file]]
        mine = [file for file in other if Path(folder / file).parent.name == own]
        free = [file for file in other if Path(folder / file).parent.name not in classes]
        candidates = [path] if path in there else mine or free
        assert taken == (os.path.normpath(candidates[0]) if len(candidates) == 1 else None)


def test_each_folder_is_listed_a_few_times_at_most(tmp_path, monkeypatch):
    """However many videos are listed and missing, and however many JPEGs a folder has."""
    for c in range(20):
        for i in range(30):
            touch(tmp_path, f"class {c}/v{c}_{i}.mp4")
    touch(tmp_path, *(f"frames/{i}.jpg" for i in range(50)))
    listings, entries, scandir, listdir = [], [], os.scandir, os.listdir

    class Counted:
        def __init__(self, path):
            listings.append(str(path))
            self.entries = scandir(path)

        def __enter__(self):
            return self

        def __exit__(self, *error):
            self.entries.close()

        def __iter__(self):
            return (entries.append(entry) or entry for entry in self.entries)
    monkeypatch.setattr(os, "scandir", Counted)
    monkeypatch.setattr(os, "listdir", lambda path: listings.append(str(path)) or listdir(path))
    whole = [(f"{tmp_path}/class {c}/v{c}_{i}.mp4", c) for c in range(20) for i in range(30)]
    with monkeypatch.context() as patch:                         # nothing missing: no walk, no look at each video
        patch.setattr("mote.datasets.folders.is_video", None)
        assert locate(whole, tmp_path) == whole and len(listings) == 20
    listings.clear()
    missing = [(f"{tmp_path}/class {c}/gone{i}.mp4", c) for c in range(20) for i in range(30)]
    assert locate(whole + missing, tmp_path) == whole + missing
    assert max(map(listings.count, listings)) <= 3
    assert sum(str(tmp_path / "frames") in entry.path for entry in entries) <= 2


# --- class folders -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("folder, name", [
    ("brush_hair", "brush hair"), ("ApplyEyeMakeup", "Apply Eye Makeup"), ("YoYo", "Yo Yo"), ("catch", "catch"),
    ("golfSwing", "golf Swing"), ("TaiChi", "Tai Chi"), ("arm wrestling", "arm wrestling"), ("ABCDance", "ABC Dance"),
    ("swing_baseball", "swing baseball"), ("Sit-ups", "Sit-ups"), ("laughing_", "laughing")])
def test_class_names_are_the_words_of_the_folder(folder, name):
    assert class_name(folder) == name


def test_class_folders_hold_videos_and_folders_of_jpegs(tmp_path):
    touch(tmp_path, "catch/b.avi", "catch/a.MP4", "brush_hair/clip/00001.jpg", "brush_hair/clip/00002.jpg")
    videos, classes = read_class_folders(tmp_path)
    assert classes == ["brush hair", "catch"]
    assert relative(videos, tmp_path) == [("brush_hair/clip", 0), ("catch/a.MP4", 1), ("catch/b.avi", 1)]


def test_what_is_no_video_and_what_is_hidden_is_passed_over(tmp_path):
    touch(tmp_path, "catch/a.avi", "catch/a.avi.txt", "catch/.b.avi", "catch/._a.avi", "catch/notes/readme.txt",
          "catch/.hidden/00001.jpg", ".git/x.avi", "readme.md")
    videos, classes = read_class_folders(tmp_path)
    assert classes == ["catch"] and relative(videos, tmp_path) == [("catch/a.avi", 0)]


def test_a_class_with_no_videos_is_named(tmp_path):
    touch(tmp_path, "catch/a.avi", "jump/readme.txt")
    with pytest.raises(ValueError, match=r"jump: a class with no videos"):
        read_class_folders(tmp_path)


def test_two_folders_of_one_name_are_refused(tmp_path):
    touch(tmp_path, "brush_hair/a.avi", "brush hair/a.avi", "catch/a.avi")
    with pytest.raises(ValueError, match="each folder must name a class of its own; '.*' does not"):
        read_class_folders(tmp_path)


def test_a_folder_of_nothing_is_refused(tmp_path):
    touch(tmp_path, "a.avi")
    with pytest.raises(ValueError, match="neither a list nor a folder per class"):
        read_split(tmp_path, "train")


# --- the 80 / 20 split ---------------------------------------------------------------------------------------------
def pairs(*counts):
    return [(f"class {label}/{i}.mp4", label) for label, count in enumerate(counts) for i in range(count)]


@given(st.lists(st.integers(2, 40), min_size=1, max_size=5))
def test_the_split_is_disjoint_and_covers_everything(counts):
    split = split_per_class(pairs(*counts))
    assert sorted(split["train"] + split["val"]) == sorted(pairs(*counts))


@given(st.lists(st.integers(2, 40), min_size=1, max_size=5))
def test_four_fifths_of_each_class_are_for_training(counts):
    split = split_per_class(pairs(*counts))
    for label, count in enumerate(counts):
        sizes = [sum(other == label for _, other in split[name]) for name in ("train", "val")]
        assert min(sizes) >= 1 and abs(sizes[0] - 0.8 * count) <= max(0.5, 0.8 * count - (count - 1))


@given(st.lists(st.integers(2, 12), min_size=1, max_size=4), st.randoms(use_true_random=False))
def test_the_split_does_not_depend_on_the_order_of_the_listing(counts, shuffler):
    videos = pairs(*counts)
    shuffler.shuffle(videos)
    assert split_per_class(videos) == split_per_class(pairs(*counts))


def test_the_split_is_drawn_not_cut():
    """The last fifth of each class in order of name would be one scene or one group: not a sample."""
    chosen = [path for path, _ in split_per_class(pairs(50))["val"]]
    assert chosen != sorted(path for path, _ in pairs(50))[-10:]
    other = {path for path, _ in split_per_class(pairs(50), seed=1)["val"]}
    assert len(other) == 10 and other != set(chosen)


def test_a_class_of_one_video_cannot_be_split(tmp_path):
    touch(tmp_path, "catch/a.avi", "jump/a.avi", "jump/b.avi")
    with pytest.raises(ValueError, match="catch: one video cannot be split in two"):
        read_split(tmp_path, "train")


# --- where a dataset lies ------------------------------------------------------------------------------------------
@pytest.fixture
def places(tmp_path, monkeypatch):
    """ucf101 under data_root, $MOTE_DATA and data/."""
    for place in ("root", "env/ucf101", "data/ucf101"):
        (tmp_path / place).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MOTE_DATA", str(tmp_path / "env"))
    return tmp_path


def test_data_root_comes_first(places):
    assert find_folder("ucf101", str(places / "root")) == places / "root"


def test_then_the_environment(places):
    assert find_folder("ucf101") == places / "env" / "ucf101"


def test_then_data(places, monkeypatch):
    (places / "env" / "ucf101").rmdir()
    assert find_folder("ucf101") == Path("data/ucf101")
    monkeypatch.delenv("MOTE_DATA")
    assert find_folder("ucf101") == Path("data/ucf101")


def test_a_missing_folder_names_every_place_looked_at(places):
    with pytest.raises(FileNotFoundError) as raised:
        find_folder("hmdb51")
    message = str(raised.value)
    assert str(places / "env" / "hmdb51") in message and str(Path("data/hmdb51")) in message
    assert "classes.csv" in message and "--data-root" in message and len(message.splitlines()) == 1


def test_a_missing_data_root_is_the_only_place_looked_at(places):
    with pytest.raises(FileNotFoundError, match="dataset ucf101: no folder at .*nowhere; wanted"):
        find_folder("ucf101", str(places / "nowhere"))


# --- text files ----------------------------------------------------------------------------------------------------
def test_text_is_read_with_or_without_a_mark_and_with_any_line_ends(tmp_path):
    assert read_text(write(tmp_path / "a.txt", "\ufeffa\r\nb\rü\n")) == "a\nb\nü\n"


def test_what_is_no_text_file_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"a.txt: not UTF-8 text \(.* at byte 2\)"):
        read_text(write(tmp_path / "a.txt", b"ab\xff"))
    for name in (".", "gone.txt", "a.txt/b", "a\0b"):
        with pytest.raises(FileNotFoundError, match="no file at "):
            read_text(tmp_path / name)


@pytest.mark.parametrize("side", ["Train", "train_256", "videos"])
def test_a_folder_of_class_folders_is_not_only_called_empty(tmp_path, side):
    touch(tmp_path, f"{side}/catch/1.mp4", f"{side}/catch/2.mp4")
    with pytest.raises(ValueError, match=rf"{side}: a class with no videos .*; 'catch' lies inside, but a class"):
        read_class_folders(tmp_path)


# --- splits that stay put ------------------------------------------------------------------------------------------
@pytest.mark.parametrize("train, val", [("train_256", "val_256"), ("train-videos", "test-videos"), ("Train", "Val")])
def test_a_missing_test_video_is_never_a_training_video(tmp_path, train, val):
    touch(tmp_path, f"{train}/catch/1.mp4", f"{train}/catch/2.mp4", f"{val}/catch/1.mp4")
    assert locate([(f"{tmp_path}/{val}/catch/2.mp4", 0)], tmp_path) == [(f"{tmp_path}/{val}/catch/2.mp4", 0)]


def test_a_video_more_moves_no_other_across_the_split():
    names = [(f"a/{i}.mp4", 0) for i in range(20)]
    before, after = split_per_class(names), split_per_class([*names, ("a/new.avi", 0)])
    prepared = split_per_class([(path.replace("a/", "b/").replace(".mp4", ".mkv"), 0) for path, _ in names])
    moved = {path for side in before for path, _ in before[side]} - {
        path for side in before for path, _ in {*before[side]} & {*after[side]}}
    assert len(moved) <= 1                                       # the cut itself may move by one
    assert [path[2:-4] for path, _ in prepared["val"]] == [path[2:-4] for path, _ in before["val"]]


def test_frames_beside_their_video_are_not_a_second_video(tmp_path):
    touch(tmp_path, "a/1.mp4", "a/1/00001.jpg", "a/2/00001.jpg", "b/3.mp4")
    videos, _ = read_class_folders(tmp_path)
    assert [(Path(path).relative_to(tmp_path).as_posix(), label) for path, label in videos] == [
        ("a/1.mp4", 0), ("a/2", 0), ("b/3.mp4", 1)]


def test_a_stray_jpeg_hides_no_dataset(tmp_path):
    touch(tmp_path, "overview.jpg", "clips/a.mp4")
    assert locate([(f"{tmp_path}/a.mp4", 0)], tmp_path) == [(f"{tmp_path}/clips/a.mp4", 0)]
