"""
The lists that data sets and other people's repositories publish say here what they say there, in the layouts they have.

For UCF-101, HMDB-51, Kinetics, Something-Something, the authors' lists and those of BIKE, PySlowFast and ViFi-CLIP,
each in miniature with files that decode; for any bytes and any json in the place of a list (hypothesis). Checked
against the brightness of the videos, which is their label.
"""
import json
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from support.videos import check, relative, touch, write, write_video

from mote.datasets.lists import (
    find_classes,
    find_lists,
    published_splits,
    read_classes,
    read_list,
    read_split,
)


def write_videos(folder, videos):
    for path, label in videos:
        write_video(folder / path, label)


def refuses(folder, side="val", **options):
    with pytest.raises((ValueError, OSError)) as raised:
        read_split(folder, side, **options)
    assert len(str(raised.value).splitlines()) == 1
    return str(raised.value)


# --- UCF-101 -------------------------------------------------------------------------------------------------------
UCF = ["ApplyEyeMakeup", "HandstandPushups", "YoYo"]
UCF_NAMES = ["Apply Eye Makeup", "Handstand Pushups", "YoYo"]            # as the authors' ucf_labels.csv


def ucf_video(label, group):
    """The files of the second class are called as its folder is not: S for s."""
    return f"{UCF[label]}/v_{UCF[label].replace('dst', 'dSt')}_g{group:02d}_c01.avi"


def ucf(folder, inside="UCF-101", newline="\r\n"):
    """Group n is for testing in split n and for training in the others. The lists' directory, and the videos."""
    lists = folder / "ucfTrainTestlist"
    write(lists / "classInd.txt", "".join(f"{i + 1} {name}{newline}" for i, name in enumerate(UCF)))
    for n in (1, 2, 3):
        train = [(ucf_video(label, g), label) for label in range(3) for g in (1, 2, 3) if g != n]
        write(lists / f"trainlist0{n}.txt", "".join(f"{path} {label + 1}{newline}" for path, label in train))
        write(lists / f"testlist0{n}.txt", "".join(f"{ucf_video(label, n)}{newline}" for label in range(3)))
    write_videos(folder / inside, [(ucf_video(label, g), label) for label in range(3) for g in (1, 2, 3)])
    return lists


@pytest.mark.parametrize("inside", ["UCF-101", ".", "a/b"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_ucf101(tmp_path, inside, newline):
    ucf(tmp_path, inside, newline)
    assert published_splits(tmp_path, "train") == published_splits(tmp_path, "val") == ["1", "2", "3"]
    for number in ("", "1", "2", "3"):
        n = int(number or 1)
        test = [((Path(inside) / ucf_video(label, n)).as_posix(), label) for label in range(3)]
        train = [((Path(inside) / ucf_video(label, g)).as_posix(), label) for label in range(3) for g in (1, 2, 3)
                 if g != n]
        check(tmp_path, "val", UCF_NAMES, test, split=number)
        check(tmp_path, "train", UCF_NAMES, train, split=number)


def test_ucf101_with_the_folder_and_its_files_spelt_alike(tmp_path):
    ucf(tmp_path)
    (tmp_path / "UCF-101" / "HandstandPushups").rename(tmp_path / "UCF-101" / "HandStandPushups")
    check(tmp_path, "val", UCF_NAMES, [(f"UCF-101/{ucf_video(label, 1)}".replace("/Handst", "/HandSt"), label)
                                       for label in range(3)])


@pytest.mark.parametrize("names", ["", "csv"])
def test_ucf101_lists_given_by_name(tmp_path, names):
    lists = ucf(tmp_path / "ucf")
    data = (tmp_path / "ucf" / "UCF-101")
    names = str(write(tmp_path / "n.csv", "0,Apply Eye Makeup\n1,Handstand Pushups\n2,YoYo\n")) if names else ""
    for split, kind, groups in (("val", "test", [2]), ("train", "train", [1, 3])):
        pattern = str(lists / f"{kind}list0{{}}.txt")
        assert published_splits(data, split, pattern) == ["1", "2", "3"]
        check(data, split, [*UCF_NAMES[:2], "YoYo"] if names else UCF_NAMES,
              [(ucf_video(label, g), label) for label in range(3) for g in groups],
              list_file=pattern, class_file=names, split="2")


def test_a_split_that_is_not_there_is_named(tmp_path):
    lists = ucf(tmp_path)
    assert "no val list of split 4, but " in (message := refuses(tmp_path, split="4")) and "testlist02.txt" in message
    assert "no file at" in refuses(tmp_path, list_file=str(lists / "testlist0{}.txt"), split="4")
    assert published_splits(tmp_path, "val", "nowhere/{}.txt") == ["1"]
    assert published_splits(tmp_path, "val", "x") == [""]


def test_ucf101_labels_from_one_are_never_taken_for_labels_from_zero(tmp_path):
    """Without classInd.txt nothing says so: the folder's name does."""
    write(tmp_path / "trainlist01.txt", "".join(f"{ucf_video(label, 1)} {label + 1}\n" for label in range(2)))
    write(tmp_path / "classes.csv", "0,Apply Eye Makeup\n1,Handstand Pushups\n2,Yo Yo\n")
    assert "line 1: label 1 is 'Handstand Pushups', but the folder is class 0" in refuses(tmp_path, "train")


@pytest.mark.parametrize("line", ["v_YoYo_g01_c01.avi", "v_YoYo_g01_c01.avi 3"])
def test_a_list_beside_classind_needs_class_folders(tmp_path, line):
    lists = ucf(tmp_path)
    write(lists / "testlist01.txt", line + "\n")
    assert "testlist01.txt, line 1: expected `CLASS/video`" in refuses(tmp_path)


def test_a_class_that_classind_does_not_name_is_refused(tmp_path):
    lists = ucf(tmp_path)
    write(lists / "testlist01.txt", f"{ucf_video(0, 1)}\nJuggling/x.avi\n")
    assert "testlist01.txt, line 2: 'Juggling' is not one of the 3 class names" in refuses(tmp_path)


@pytest.mark.parametrize("text", ["0 A\n1 B\n", "1 A\n3 B\n", "1 A\n1 B\n", "A 1\n", "1\n", f"1 A\n{'9' * 5000} B\n"])
def test_a_classind_that_does_not_count_from_one_is_refused(tmp_path, text):
    with pytest.raises(ValueError, match="classInd.txt: "):
        read_classes(write(tmp_path / "classInd.txt", text))


def test_class_names_beside_classind_mean_what_they_say(tmp_path):
    """Only the numbers of UCF-101's lists count from 1."""
    lists = ucf(tmp_path)
    touch(tmp_path, "videos/a.avi")
    write(lists / "testlist01.txt", "videos/a.avi YoYo\n")
    check_labels = [label for _, label in read_split(tmp_path, "val")[0]]
    assert check_labels == [2]
    write(lists / "testlist01.txt", f"{ucf_video(0, 1)} YoYo\n")
    assert "testlist01.txt, line 1: label 2 is 'YoYo', but the folder is class 0" in refuses(tmp_path)


# --- HMDB-51 -------------------------------------------------------------------------------------------------------
HMDB = ["brush_hair", "cartwheel", "catch"]
HMDB_NAMES = ["brush hair", "cartwheel", "catch"]
ODD = ["#2_Gum", "Chanta!____THAT_IS", "Radschl_ge___;-)", "Mama's", "(HQ)_[_NEW_AUDIO_]", "jenny_~_rad", "T&J_50%"]


def hmdb(folder, videos=""):
    """Of each class and split n, video n is for testing, the two next ones for training, the others for neither."""
    lists = folder / "testTrainMulti_7030_splits"
    for name in HMDB:
        for n in (1, 2, 3):
            part = {n: 2, n + 1: 1, n + 2: 1}
            write(lists / f"{name}_test_split{n}.txt",
                  "".join(f"{odd}_{name}_{i}.avi {part.get(i, 0)} \n" for i, odd in enumerate(ODD)))
    write_videos(folder / videos, hmdb_videos(range(7)))
    return lists


def hmdb_videos(numbers):
    return [(f"{name}/{ODD[i]}_{name}_{i}.avi", label) for label, name in enumerate(HMDB) for i in numbers]


@pytest.mark.parametrize("number", ["", "1", "2", "3"])
def test_hmdb51(tmp_path, number):
    hmdb(tmp_path)
    n = int(number or 1)
    assert published_splits(tmp_path, "train") == published_splits(tmp_path, "val") == ["1", "2", "3"]
    check(tmp_path, "val", HMDB_NAMES, hmdb_videos([n]), split=number)
    check(tmp_path, "train", HMDB_NAMES, hmdb_videos([n + 1, n + 2]), split=number)


def test_hmdb51_lists_given_by_a_pattern(tmp_path):
    """The folder's name is taken as it is, though it looks like a pattern."""
    lists = hmdb(tmp_path / "lists [1]", "../data")
    pattern = str(lists / "*_test_split{}.txt")
    assert published_splits(tmp_path / "data", "val", pattern) == ["1", "2", "3"]
    check(tmp_path / "data", "val", HMDB_NAMES, hmdb_videos([3]), list_file=pattern, split="3")
    check(tmp_path / "data", "train", HMDB_NAMES, hmdb_videos([2, 3]), list_file=pattern.replace("{}", "1"))


def test_hmdb51_with_the_class_names_of_others(tmp_path):
    hmdb(tmp_path)
    write(tmp_path / "hmdb51_labels.csv", "id,name\n0,Catch\n1,cartwheel\n2,brush hair\n")
    videos, classes = read_split(tmp_path, "val")
    assert classes == ["Catch", "cartwheel", "brush hair"] and [label for _, label in videos] == [2, 1, 0]


def test_a_class_that_one_side_lacks_shifts_no_label(tmp_path):
    lists = hmdb(tmp_path)
    write(lists / "brush_hair_test_split1.txt", f"{ODD[2]}_brush_hair_2.avi 1\n")
    check(tmp_path, "val", HMDB_NAMES, hmdb_videos([1])[1:])
    check(tmp_path, "val", HMDB_NAMES, hmdb_videos([1])[1:], list_file=str(lists / "*_test_split1.txt"))


@pytest.mark.parametrize("line", ["x.avi", "x.avi 3", "1", " 2 ", "x.avi one", "x.avi,1"])
def test_a_line_that_hmdb51_does_not_have_is_refused(tmp_path, line):
    write(hmdb(tmp_path) / "catch_test_split1.txt", f"a.avi 0 \n\n{line}\n")
    assert "catch_test_split1.txt, line 3: expected `video 0`, 1 or 2" in refuses(tmp_path)


def test_a_pattern_of_other_files_is_refused(tmp_path):
    lists = hmdb(tmp_path)
    write(lists / "readme.txt", "x\n")
    assert "readme.txt: expected CLASS_test_splitN.txt" in refuses(tmp_path, list_file=str(lists / "*.txt"))
    assert "a list with no videos" in refuses(tmp_path, list_file=str(lists / "nothing*.txt"))


def test_an_entry_that_is_none_is_named(tmp_path):
    file = write(tmp_path / "val.json", json.dumps([{"id": "1", "template": "Holding [something]"}, {"id": "2"}]))
    with pytest.raises(ValueError, match=r"val.json: expected a json list of .*, got {'id': '2'} as entry 2"):
        read_list(file, tmp_path, None)


# --- Kinetics ------------------------------------------------------------------------------------------------------
IDS = ["-3B32lodo2M", "_YP1_fRAGIY", "0wR5jVB-WPk"]
KINETICS = ["abseiling", "massaging person's head", "tai chi"]


def annotations(rows, header="label,youtube_id,time_start,time_end,split,is_cc"):
    return f"{header}\n" + "".join(f'"{KINETICS[label]}",{IDS[label]},{start},{start + 10},val,0\n'
                                   for label, start in rows)


@pytest.mark.parametrize("listing", ["annotations/val.csv", "val.csv", "annotations/validate.csv", "k400_val.csv",
                                     "k400/annotations/val.csv"])
@pytest.mark.parametrize("layout", ["val/{id}", "{name}/{id}", "k/val/{name}/{id}"])
def test_kinetics_as_cvdf_publishes_it(tmp_path, layout, listing):
    write(tmp_path / listing, annotations([(0, 10), (1, 7), (2, 1234)]))
    given = {"list_file": str(tmp_path / listing)} if listing.startswith("k400") else {}
    videos = [(layout.format(id=f"{IDS[label]}_{start:06d}_{start + 10:06d}.mp4",
                             name=KINETICS[label].replace(" ", "_")), label)
              for label, start in ((0, 10), (1, 7), (2, 1234))]
    write_videos(tmp_path, videos)
    check(tmp_path, "val", KINETICS, videos, **given)


def test_a_class_that_is_not_tested_shifts_no_label(tmp_path):
    write(tmp_path / "annotations" / "train.csv", annotations([(0, 1), (1, 2), (2, 3)]))
    write(tmp_path / "annotations" / "val.csv", annotations([(2, 4)]))
    videos = [(f"val/{IDS[2]}_000004_000014.mp4", 2)]
    write_videos(tmp_path, videos)
    check(tmp_path, "val", KINETICS, videos)


@pytest.mark.parametrize("row", [",a,1,2", "yoga,,1,2", "yoga,a,x,2", "yoga,a,1", "yoga", '"yoga,a,1,2', "yoga,a,1,2.5",
                                 "_,a,1,2", "yoga,../a,1,2", "yoga,a\0,1,2", "yoga,a,1," + "9" * 5000])
def test_a_row_that_kinetics_does_not_have_is_refused(tmp_path, row):
    file = write(tmp_path / "val.csv", f"label,youtube_id,time_start,time_end\nyoga,b,1,2\n{row}\n")
    with pytest.raises(ValueError, match="val.csv"):
        read_list(file, tmp_path, None)


def test_the_authors_kinetics(tmp_path):
    """vallist.txt is the one to test on, testlist.txt another."""
    videos = [("abseiling/-3B32lodo2M_000059_000069.mp4", 0), ("tai_chi/_YP1_fRAGIY_000001_000011.mp4", 1)]
    write_videos(tmp_path, videos)
    write(tmp_path / "lists" / "vallist.txt", "".join(f"{path} {label}\n" for path, label in videos))
    write(tmp_path / "lists" / "testlist.txt", "abseiling/gone.mp4 0\n")
    write(tmp_path / "kinetics_400_labels.csv", "id,name\n0,abseiling\n1,tai chi\n")
    assert published_splits(tmp_path, "val") == [""]
    check(tmp_path, "val", ["abseiling", "tai chi"], videos)


@pytest.mark.parametrize("place", [".", "lists"])
def test_k600_has_other_classes_in_each_split(tmp_path, place):
    videos = {n: [(f"videos/{name}/{IDS[label]}_{n}.mp4", label) for label, name in enumerate(names)]
              for n, names in {"1": ["acting_in_play", "arguing"], "2": ["arguing", "yarn_spinning"]}.items()}
    for n, pairs in videos.items():
        write_videos(tmp_path, pairs)
        write(tmp_path / place / f"k160_test_split{n}.txt",
              "".join(f"{path.removeprefix('videos/')} {label}\n" for path, label in pairs))
    write(tmp_path / place / "k160_labels_split1.csv", "id,name\n0,acting in play\n1,arguing\n")
    write(tmp_path / place / "k160_labels_split2.csv", "id,name\n0,arguing\n1,yarn spinning\n")
    assert published_splits(tmp_path, "val") == ["1", "2"]
    check(tmp_path, "val", ["acting in play", "arguing"], videos["1"])
    check(tmp_path, "val", ["arguing", "yarn spinning"], videos["2"], split="2")
    touch(tmp_path / place, "._k160_test_split2.txt", "._k160_labels_split2.csv")      # a Mac was here
    check(tmp_path, "val", ["arguing", "yarn spinning"], videos["2"], split="2")
    given = {"list_file": str(tmp_path / place / "k160_test_split{}.txt"), "split": "2"}
    assert published_splits(tmp_path, "val", given["list_file"]) == ["1", "2"]
    check(tmp_path, "val", ["arguing", "yarn spinning"], videos["2"], **given)
    given["class_file"] = str(tmp_path / place / "k160_labels_split{}.csv")
    check(tmp_path, "val", ["arguing", "yarn spinning"], videos["2"], **given)
    given["class_file"] = str(tmp_path / place / "k160_labels_split1.csv")
    assert "other class names, or labels that start at 1" in refuses(tmp_path, **given)


def test_one_file_of_hmdb51_has_no_labels(tmp_path):
    """Its 0, 1 and 2 say sides, and would all be labels in range."""
    touch(tmp_path, "brush_hair/a.avi", "brush_hair/b.avi")
    write(tmp_path / "classes.csv", "0,brush hair\n1,cartwheel\n2,catch\n")
    file = write(tmp_path / "brush_hair_test_split1.txt", "a.avi 1\nb.avi 2\nc.avi 0\n")
    for side, name in (("train", "a"), ("val", "b")):
        assert relative(read_split(tmp_path, side, str(file))[0], tmp_path) == [(f"brush_hair/{name}.avi", 0)]
    assert relative(read_split(tmp_path, "val")[0], tmp_path) == [("brush_hair/b.avi", 0)]


# --- Something-Something -------------------------------------------------------------------------------------------
SOMETHING = ["Pushing something from left to right", "Putting something, then taking it", "Holding something"]


def something(folder, prefix, place="."):
    templates = [name.replace("something", "[something]") for name in SOMETHING]

    def entry(label, video):
        return {"id": video, "label": "pushing a can", "template": templates[label], "placeholders": ["a can"]}
    write(folder / place / f"{prefix}train.json", json.dumps([entry(label, str(label + 10)) for label in (2, 0, 1)]))
    write(folder / place / f"{prefix}validation.json", json.dumps([entry(label, str(label + 20)) for label in (1, 2)]))
    write(folder / place / f"{prefix}test.json", json.dumps([{"id": "99"}]))
    write(folder / place / f"{prefix}labels.json", json.dumps({SOMETHING[i]: str(i) for i in (1, 0, 2)}))
    write_videos(folder / "20bn-something-something-v2", [(f"{label + 10}.webm", label) for label in range(3)])
    write_videos(folder / "20bn-something-something-v2", [(f"{label + 20}.webm", label) for label in (1, 2)])


@pytest.mark.parametrize("prefix, place", [("something-something-v2-", "."), ("", "."), ("", "labels"),
                                           ("something-something-v2-", "annotations")])
def test_something_something(tmp_path, prefix, place):
    something(tmp_path, prefix, place)
    folder = "20bn-something-something-v2"
    check(tmp_path, "val", SOMETHING, [(f"{folder}/21.webm", 1), (f"{folder}/22.webm", 2)])
    check(tmp_path, "train", SOMETHING, [(f"{folder}/1{label}.webm", label) for label in range(3)])


def test_something_something_without_labels_counts_the_names_of_both_sides(tmp_path):
    something(tmp_path, "")
    (tmp_path / "labels.json").unlink()
    _, classes = read_split(tmp_path, "val")
    assert classes == sorted(SOMETHING)


@pytest.mark.parametrize("items", [
    {}, "a", 7, None, [7], [{"id": "1"}], [{"template": "a"}], [{"id": None, "template": "a"}],
    [{"id": "1", "template": 7}], [{"id": "1", "template": "[]"}], [{"id": "../1", "template": "a"}],
    [{"id": "1\0", "template": "a"}], [{"id": ["\n"], "template": "a"}], [{"id": "a\n/../b", "template": "a"}], []])
def test_what_is_no_list_of_something_something_is_refused(tmp_path, items):
    write(tmp_path / "val.json", json.dumps(items))
    assert "val.json" in refuses(tmp_path)


@pytest.mark.parametrize("labels", [[], "a", {"a": "1"}, {"a": "0", "b": "0"}, {"a": None}, {"a": 0.0}, {" ": "0"}, {}])
def test_what_are_no_labels_of_something_something_is_refused(tmp_path, labels):
    with pytest.raises(ValueError, match="labels.json: "):
        read_classes(write(tmp_path / "labels.json", json.dumps(labels)))


def test_labels_of_something_something_may_be_numbers(tmp_path):
    assert read_classes(write(tmp_path / "labels.json", '{"b": 1, "a": 0}')) == ["a", "b"]


# --- other people's lists ------------------------------------------------------------------------------------------
@pytest.mark.parametrize("listing, line", {
    "BIKE, Text4Vis": ("val.txt", "{path} 300 {label}"), "PySlowFast": ("val.csv", "{path} {label}"),
    "PySlowFast, test": ("test.csv", "{path} {label}"), "X-CLIP": ("val.txt", "{path} {label}"),
    "commas": ("val.csv", "{path},{label}")}.values())
def test_lists_of_other_repositories(tmp_path, listing, line):
    videos = [("brush_hair/a 1.mp4", 0), ("catch/b, c.mp4", 1)]
    write_videos(tmp_path, videos)
    write(tmp_path / listing, "".join(line.format(path=path, label=label) + "\n" for path, label in videos))
    write(tmp_path / "labels" / "hmdb51_labels.csv", "id,name\n0,brush hair\n1,catch\n")
    check(tmp_path, "val", ["brush hair", "catch"], videos)


@pytest.mark.parametrize("separator", [" ", ","])
def test_flat_lists_of_vifi_clip_find_videos_in_class_folders(tmp_path, separator):
    for n in (1, 2, 3):
        write(tmp_path / f"val{n}.txt", "".join(f"{Path(path).name}{separator}{label}\n"
                                                for path, label in hmdb_videos([n])))
        write(tmp_path / f"train{n}_few_shot_2.txt", "x.avi 0\n")
    write(tmp_path / "train1.txt", "".join(f"{Path(path).name}{separator}{label}\n"
                                           for path, label in hmdb_videos([0])))
    write(tmp_path / "hmdb_51_labels.csv", "id,name\n0,brush hair\n1,cartwheel\n2,catch\n")
    write_videos(tmp_path, hmdb_videos(range(7)))
    assert published_splits(tmp_path, "val") == ["1", "2", "3"] and published_splits(tmp_path, "train") == ["1"]
    check(tmp_path, "val", HMDB_NAMES, hmdb_videos([2]), split="2")
    check(tmp_path, "train", HMDB_NAMES, hmdb_videos([0]))


@pytest.mark.parametrize("beside", [False, True])
def test_the_authors_ucf101(tmp_path, beside):
    """testlist01-1.txt, made from testlist01.txt, which may lie beside it; so may the training list, from 1."""
    lists = ucf(tmp_path)
    (lists / "classInd.txt").unlink()
    for n in (1, 2, 3):
        for kind, groups in (("train", {1, 2, 3} - {n}), ("test", {n})):
            text = "".join(f"{ucf_video(label, g)} {label}\n" for label in range(3) for g in groups)
            write(lists / f"{kind}list0{n}-1.txt", text)
            if not beside:
                (lists / f"{kind}list0{n}.txt").unlink()
    write(lists / "ucf_labels.csv", "id,name\n0,Apply Eye Makeup\n1,Handstand Pushups\n2,YoYo\n")
    assert published_splits(tmp_path, "train") == published_splits(tmp_path, "val") == ["1", "2", "3"]
    for split, groups in (("val", [2]), ("train", [1, 3])):
        check(tmp_path, split, [*UCF_NAMES[:2], "YoYo"],
              [(f"UCF-101/{ucf_video(label, g)}", label) for label in range(3) for g in groups], split="2")
        given = str(lists / f"{'test' if split == 'val' else split}list0{{}}-1.txt")
        assert published_splits(tmp_path, split, given) == ["1", "2", "3"]
        check(tmp_path / "UCF-101", split, [*UCF_NAMES[:2], "YoYo"],           # class names lie beside the list
              [(ucf_video(label, g), label) for label in range(3) for g in groups], split="2", list_file=given)


def test_the_authors_hmdb51(tmp_path):
    hmdb(tmp_path)
    for n in (1, 2, 3):
        for kind, numbers in (("train", [n + 1, n + 2]), ("val", [n])):
            write(tmp_path / "lists" / f"{kind}list_split{n}.txt",
                  "".join(f"{path} {label}\n" for path, label in hmdb_videos(numbers)))
    write(tmp_path / "lists" / "hmdb51_labels.csv", "id,name\n0,brush hair\n1,cartwheel\n2,catch\n")
    assert find_lists(tmp_path, "val")["2"] == tmp_path / "lists" / "vallist_split2.txt"
    for split, numbers in (("val", [2]), ("train", [3, 4])):
        assert published_splits(tmp_path, split) == ["1", "2", "3"]
        check(tmp_path, split, HMDB_NAMES, hmdb_videos(numbers), split="2")


# --- any bytes, any json -------------------------------------------------------------------------------------------
WORDS = ["label,youtube_id,time_start,time_end\n", "a/b.avi", "x.avi", "1", "2", "10", ",", '"', " ", "\n", "\r",
         "\ufeff", "\0", "\x85", "..", "/", "-", "_", "[", "9" * 5000, " " * 3000]
texts = (st.lists(st.sampled_from(WORDS), max_size=25).map("".join).map(str.encode) | st.binary(max_size=60)
         | st.lists(st.sampled_from(WORDS), max_size=12).map(lambda words: (WORDS[0] + "".join(words)).encode()))
strings = st.sampled_from(["", "1", "[a]", "..", "a\nb", "\ud800"])
leaves = st.none() | st.booleans() | st.integers() | st.floats() | strings
values = st.recursive(leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
    st.sampled_from(["id", "template", "a", ""]), inner, max_size=3), max_leaves=8)
items = st.lists(st.fixed_dictionaries({"id": leaves, "template": leaves}), max_size=3)
jsons = (values | items).map(json.dumps).map(str.encode)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    return touch(tmp_path_factory.mktemp("scratch"), "a/b.avi")


def read_or_refused(read, *arguments, **options):
    """None where it was refused; in one line that can be printed, and is not longer than a screen."""
    try:
        return read(*arguments, **options)
    except (ValueError, OSError) as error:
        assert len(str(error).splitlines()) == 1 and len(str(error).encode()) < 600
        return None


@pytest.mark.parametrize("name", ["l.txt", "l.csv", "a_test_split1.txt", "l.json"])
@given(content=texts | jsons, split=st.sampled_from(["train", "val"]), by_folder=st.booleans())
@example(content=b"[" * 100_000, split="val", by_folder=False)
@example(content=b'{"a":' * 100_000, split="val", by_folder=False)
@example(content=b'[{"id": ' + b"1" * 5000 + b', "template": "a"}]', split="val", by_folder=False)
@example(content=b"a/b.avi" + b" " * 50_000 + b"x 1", split="train", by_folder=True)      # a quadratic regex hangs
@example(content=b"1 " * 50_000 + b"x", split="train", by_folder=False)
@example(content=b"\n/ /,", split="val", by_folder=True)
def test_any_list_is_read_or_refused_in_one_line(scratch, name, content, split, by_folder):
    file = write(scratch / "lists" / name, content)
    file = file.with_name("*_test_split1.txt") if "split" in name else file
    for classes in (None, ["a", "b"]):
        result = read_or_refused(read_list, file, scratch, classes, split, by_folder)
        if result:
            videos, found = result
            assert videos and found and all(found) and (classes is None or found == classes)
            for path, label in videos:
                assert 0 <= label < len(found) and "\0" not in path and ".." not in Path(path).parts
                assert scratch in Path(path).parents or path.startswith("/")


@pytest.mark.parametrize("name", ["c.csv", "c.json", "classInd.txt"])
@given(content=texts | jsons)
@example(content=b"[" * 100_000)
@example(content=b"1" * 5000 + b",a")
@example(content=b'{"a": ' + b"1" * 5000 + b"}")
def test_any_class_file_is_read_or_refused_in_one_line(scratch, name, content):
    found = read_or_refused(read_classes, write(scratch / name, content))
    assert found is None or found and all(name.strip() == name != "" for name in found)


@given(texts | jsons, texts | jsons, st.sampled_from(["val.txt", "val.csv", "val.json", "testlist01.txt"]),
       st.sampled_from(["classes.csv", "labels.json", "classInd.txt"]))
def test_any_folder_is_read_or_refused_in_one_line(tmp_path_factory, listing, classes, name, names):
    folder = touch(tmp_path_factory.mktemp("any"), "a/b.avi")
    write(folder / name, listing)
    write(folder / names, classes)
    result = read_or_refused(read_split, folder, "val")
    assert result is None or any(Path(path).exists() for path, _ in result[0])


@pytest.mark.parametrize("name", ["val.txt", "val.json", "val.csv", "classes.csv", "labels.json"])
def test_a_folder_in_the_place_of_a_file_is_refused(tmp_path, name):
    write(tmp_path / "val.txt", "a 0\n") if "val" not in name else write(tmp_path / "classes.csv", "0,a\n")
    (tmp_path / name).mkdir()
    assert f"no file at {tmp_path / name}" in refuses(tmp_path)


@pytest.mark.parametrize("name, text", [
    ("val.txt", "{} 0\n"), ("val.txt", "{} 3 0\n"), ("val.csv", "{},0\n"), ("testlist01.txt", "{}\n"),
    ("val.csv", "label,youtube_id,time_start,time_end\na,{},1,2\n"), ("val.json", '[{{"id": "{}", "template": "a"}}]')])
@pytest.mark.parametrize("path", ["a/../../x.mp4", "../a/x.mp4"])
def test_a_path_to_a_folder_above_is_refused_in_every_format(tmp_path, name, text, path):
    write(tmp_path / name, text.format(path))
    write(tmp_path / ("classInd.txt" if "test" in name else "classes.csv"), "1 a\n" if "test" in name else "0,a\n")
    assert "a path must not hold .." in refuses(tmp_path)


def test_a_path_to_a_folder_above_is_refused_in_hmdb51(tmp_path):
    write(hmdb(tmp_path) / "catch_test_split1.txt", "../x.avi 2\n")
    assert "catch_test_split1.txt, line 1: a path must not hold .." in refuses(tmp_path)


def test_class_names_that_may_be_of_two_sets_are_not_guessed(tmp_path):
    write(tmp_path / "labels" / "kinetics_400_labels.csv", "0,abseiling\n1,yoga\n")
    write(tmp_path / "labels" / "hmdb_51_labels.csv", "0,brush hair\n1,catch\n")
    with pytest.raises(ValueError, match=r"hmdb_51_labels.csv and kinetics_400_labels.csv name different classes"):
        find_classes(tmp_path, "")
    write(tmp_path / "labels" / "hmdb_51_labels.csv", "0,Abseiling\n1,yoga\n")
    assert find_classes(tmp_path, "") in (tmp_path / "labels").iterdir()
    assert relative([(str(find_classes(tmp_path, "1")), 0)], tmp_path)[0][0].startswith("labels/")
