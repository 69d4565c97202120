"""
A folder and a list become the videos that are meant, with the labels that are meant; every mistake is one plain line.

For every list format, class file and layout of the user's own, on tiny files that decode; for any text and bytes in the
place of a list (hypothesis). Checked against what the lists were written from. The data sets' own lists are in
test_published_lists.py, where videos lie in test_folders.py.
"""
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image
from support.videos import check, relative, touch, write, write_video

from mote.datasets.folders import read_class_folders
from mote.datasets.lists import (
    find_classes,
    find_lists,
    needs_split,
    read_classes,
    read_split,
    write_split,
)
from mote.datasets.lists import read_list as read_list_and_classes

NAMES = [f"class {i}" for i in range(1000)]


def write_jpegs(folder, label):
    folder.mkdir(parents=True)
    for i in range(4):
        Image.new("RGB", (48, 32), (40 + 100 * label,) * 3).save(folder / f"{i + 1:05d}.jpg")


def read_list(file, folder, num_classes):
    return read_list_and_classes(file, folder, NAMES[:num_classes])[0]


# --- lists ---------------------------------------------------------------------------------------------------------
FORMATS = {
    "two columns": "a.mp4 0\nb.mp4 2\n",
    "three columns": "a.mp4 300 0\nb.mp4 12 2\n",
    "commas": "a.mp4,0\nb.mp4,2\n",
    "commas, three columns": "a.mp4,300,0\nb.mp4,12,2\n",
    "commas and spaces": "a.mp4, 300, 0\nb.mp4, 12, 2\n",
    "tabs": "a.mp4\t0\nb.mp4\t2\n",
    "tabs, three columns": "a.mp4\t300\t0\nb.mp4\t12\t2\n",
    "several spaces": "a.mp4    0\nb.mp4  2\n",
    "carriage returns": "a.mp4 0\r\nb.mp4 2\r\n",
    "a byte order mark": "\ufeffa.mp4 0\nb.mp4 2\n",
    "empty lines": "\n\na.mp4 0\n  \nb.mp4 2\n\n",
    "no newline at the end": "a.mp4 0\nb.mp4 2",
    "spaces around": "  a.mp4 0  \n\tb.mp4 2\t\n",
}


@pytest.mark.parametrize("text", FORMATS.values(), ids=FORMATS)
def test_every_list_format_says_the_same(tmp_path, text):
    videos = read_list(write(tmp_path / "train.txt", text), "/data", 3)
    assert videos == [("/data/a.mp4", 0), ("/data/b.mp4", 2)]


@pytest.mark.parametrize("columns", ["{} 1\n", "{} 25 1\n", "{},1\n", "{},25,1\n", "{}\t1\n"])
@pytest.mark.parametrize("path", ["brush hair/my clip.mp4", "a, b.mp4", "a,b,c.mp4", "clip 7.mp4", "7 8 9.mp4",
                                  "x/v_1 (2).mp4", "1/2.mp4", "名前 ü.mp4"])
def test_a_path_may_hold_spaces_and_commas(tmp_path, path, columns):
    assert relative(read_list(write(tmp_path / "l.txt", columns.format(path)), tmp_path, 2), tmp_path) == [(path, 1)]


def test_one_line_without_frames_means_no_column_of_frames(tmp_path):
    """"clip 7" is a folder of JPEGs here, because the other line cannot have three columns."""
    file = write(tmp_path / "l.txt", "clip 7 1\nother.mp4 0\n")
    assert relative(read_list(file, tmp_path, 2), tmp_path) == [("clip 7", 1), ("other.mp4", 0)]


def test_paths_are_relative_to_the_folder_unless_absolute(tmp_path):
    file = write(tmp_path / "elsewhere" / "l.txt", "a.mp4 0\n/b/c.mp4 1\n")
    assert read_list(file, "/data", 2) == [("/data/a.mp4", 0), ("/b/c.mp4", 1)]


@pytest.mark.parametrize("label", ["3", "-1", "400", "+3"])
def test_a_label_out_of_range_names_the_line_and_the_range(tmp_path, label):
    file = write(tmp_path / "l.txt", f"a.mp4 0\n\nb.mp4 {label}\n")
    said = rf"l.txt, line 3: label {int(label)} is out of range 0..2{': labels start at 0' * (int(label) == 3)}$"
    with pytest.raises(ValueError, match=said):
        read_list(file, "/", 3)


@pytest.mark.parametrize("line", ["a.mp4", "a.mp4 one", "a.mp4 1.5", "0", "a.mp4 0 # why", "a.mp4:0"])
def test_a_line_that_is_no_pair_is_named(tmp_path, line):
    file = write(tmp_path / "l.txt", f"a.mp4 0\n{line}\n")
    with pytest.raises(ValueError, match=r"l.txt, line 2: expected `path label` or `path frames label`, got"):
        read_list(file, "/", 2)


def test_a_label_missing_on_one_line_is_not_taken_from_the_folder(tmp_path):
    file = write(tmp_path / "l.txt", "catch/a.mp4 0\njump/b.mp4\n")
    with pytest.raises(ValueError, match="l.txt, line 2: expected `path label`"):
        read_list_and_classes(file, "/", ["catch", "jump"])


@pytest.mark.parametrize("text", ["", "\n \n", "\ufeff"])
def test_an_empty_list_is_refused(tmp_path, text):
    with pytest.raises(ValueError, match="l.txt: a list with no videos"):
        read_list(write(tmp_path / "l.txt", text), "/", 2)


# --- class names ---------------------------------------------------------------------------------------------------
CLASS_FILES = {
    "plain": "0,brush hair\n1,catch\n",
    "header": "id,name\n0,brush hair\n1,catch\n",
    "any order": "1,catch\n0,brush hair\n",
    "spaces": " 0 , brush hair \n1,\tcatch\n",
    "quotes": '"0","brush hair"\n1,"catch"\n',
    "carriage returns": "0,brush hair\r\n1,catch\r\n",
    "byte order mark": "\ufeff0,brush hair\n1,catch\n",
    "mark and header": "\ufeffid,name\n0,brush hair\n1,catch\n",
    "empty lines": "\n0,brush hair\n\n1,catch\n\n",
}


@pytest.mark.parametrize("text", CLASS_FILES.values(), ids=CLASS_FILES)
def test_every_class_file_says_the_same(tmp_path, text):
    assert read_classes(write(tmp_path / "classes.csv", text)) == ["brush hair", "catch"]


def test_a_name_may_hold_commas_and_quotes(tmp_path):
    text = '0,"cutting, then eating"\n1,reading, then writing\n2,"saying ""no"""\n3,person\'s head\n'
    assert read_classes(write(tmp_path / "c.csv", text)) == [
        "cutting, then eating", "reading, then writing", 'saying "no"', "person's head"]


BAD_CLASSES = {
    "a gap": ("0,a\n2,b\n", "without a gap; 1 is missing"),
    "from one": ("1,a\n2,b\n", "without a gap; 0 is missing"),
    "twice": ("0,a\n1,b\n1,c\n", "id 1 stands there twice"),
    "empty name": ("0,a\n1,\n", "a name that is not empty, got '1,'"),
    "no name": ("0,a\n1\n", "a name that is not empty, got '1,'"),
    "name first": ("0,a\nb,1\n", "expected `id,name`.*, got 'b,1'"),
    "negative": ("0,a\n-1,b\n", "expected `id,name`"),
    "only a header": ("id,name\n", "without a gap; 0 is missing"),
    "nothing": ("", "without a gap; 0 is missing"),
}


@pytest.mark.parametrize("text, rule", BAD_CLASSES.values(), ids=BAD_CLASSES)
def test_a_bad_class_file_is_named_with_its_rule(tmp_path, text, rule):
    with pytest.raises(ValueError, match=rf"classes.csv: .*{rule}"):
        read_classes(write(tmp_path / "classes.csv", text))


def test_a_quote_that_is_never_closed_swallows_no_class(tmp_path):
    """csv reads on to the end of the file: refused, or read as two classes, but not one class of both lines."""
    file = write(tmp_path / "classes.csv", '0,"brush hair\n1,catch\n')
    try:
        assert len(read_classes(file)) == 2
    except ValueError as error:
        assert "classes.csv" in str(error)


# --- any text, any bytes -------------------------------------------------------------------------------------------
WORDS = ["a.mp4", "0", "1", "7", " ", ",", "\t", "\n", "\r", '"', "\ufeff", "\x00", "\x85", "²", "٣", "-", "+"]
words = st.sampled_from(WORDS)
texts = (st.lists(words, max_size=30).map("".join) | st.text(max_size=60)).map(str.encode) | st.binary(max_size=60)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    return tmp_path_factory.mktemp("scratch")


@given(texts)
@example(b"a.mp4 0\n\xff")
def test_any_list_is_read_or_refused_in_one_line(scratch, content):
    try:
        videos = read_list(write(scratch / "l.txt", content), "/data", 3)
    except ValueError as error:
        assert len(str(error).splitlines()) == 1 and "l.txt" in str(error)
    else:
        assert videos and all(path and 0 <= label < 3 for path, label in videos)


@given(texts)
@example(b"0," + b"a" * 200_000)                                 # more than csv takes in one field
@example("²,a\n0,b".encode())
def test_any_class_file_is_read_or_refused_in_one_line(scratch, content):
    try:
        names = read_classes(write(scratch / "c.csv", content))
    except ValueError as error:
        assert len(str(error).splitlines()) == 1 and "c.csv" in str(error)
    else:
        assert names and all(name == name.strip() != "" for name in names)


@given(texts, texts)
def test_any_folder_is_read_or_refused_in_one_line(scratch, listing, classes):
    folder = scratch / "dataset"
    write(folder / "val.txt", listing)
    write(folder / "classes.csv", classes)
    try:
        read_split(folder, "val")
    except (ValueError, FileNotFoundError) as error:
        assert len(str(error).splitlines()) == 1


# --- what a folder means -------------------------------------------------------------------------------------------
@pytest.mark.parametrize("val", ["val", "test", "validation"])
def test_train_and_val_folders_are_taken_as_they_are(tmp_path, val):
    touch(tmp_path, "train/catch/a.avi", "train/jump/b.avi", f"{val}/catch/c.avi", f"{val}/jump/d.avi")
    assert not needs_split(tmp_path)
    for split, folder, files in (("train", "train", "ab"), ("val", val, "cd")):
        videos, classes = read_split(tmp_path, split)
        assert classes == ["catch", "jump"]
        names = [f"{folder}/catch/{files[0]}.avi", f"{folder}/jump/{files[1]}.avi"]
        assert relative(videos, tmp_path) == list(zip(names, (0, 1)))


def test_a_label_means_the_same_class_in_train_and_val(tmp_path):
    """A class without a video in val must not shift the labels of those after it (or is refused)."""
    touch(tmp_path, "train/catch/a.avi", "train/jump/b.avi", "train/run/c.avi", "val/catch/d.avi", "val/run/e.avi")
    _, trained = read_split(tmp_path, "train")
    try:
        videos, tested = read_split(tmp_path, "val")
    except ValueError:
        return
    assert tested == trained and [label for _, label in videos] == [0, 2]


def test_without_lists_and_folders_the_classes_are_split(tmp_path):
    touch(tmp_path, *(f"{name}/{i}.avi" for name in ("catch", "jump") for i in range(5)))
    assert needs_split(tmp_path)
    (train, _), (val, classes) = read_split(tmp_path, "train"), read_split(tmp_path, "val")
    assert len(train) == 8 and len(val) == 2 and classes == ["catch", "jump"] and not {*train} & {*val}


@pytest.mark.parametrize("listing", ["val.txt", "val.csv", "test.txt", "test.csv", "validation.txt"])
@pytest.mark.parametrize("names", ["classes.csv", "labels.csv"])
def test_lists_are_found_under_their_names(tmp_path, listing, names):
    touch(tmp_path, "videos/a.mp4")
    write(tmp_path / listing, "videos/a.mp4 1\n")
    write(tmp_path / names, "0,catch\n1,jump\n")
    assert read_split(tmp_path, "val") == ([(str(tmp_path / "videos/a.mp4"), 1)], ["catch", "jump"])


@pytest.mark.parametrize("split, first, others", [
    ("val", "val.txt", ["lists/val.txt", "val.csv", "val.json", "my_val.txt", "vallist.txt", "test.txt"]),
    ("val", "val.csv", ["my_val.txt", "validation.txt", "lists/val.txt"]),
    ("val", "validation.json", ["test.json", "validate.csv", "val.txt.bak", "val.txt~", "notval.txt", "val10.txt"]),
    ("val", "lists/val.csv", ["test.csv", "labels/val.csv", "elsewhere/val.csv"]),
    ("val", "validate.csv", ["test.csv", "train.csv", "testing.csv"]),
    ("val", "x_test.txt", ["x_train.txt", "train.txt", "test", "1.txt"]),
    ("train", "train.txt", ["trainlist.txt", "x-train.txt", "annotations/train.txt", "val.txt"]),
    ("train", "something-something-v2-train.json", ["train.md", "something-something-v2-test.json"]),
    ("val", "k160_test.txt", ["._k160_test.txt", "._val.txt", ".val.txt"]),
    ("val", "testlist-1.txt", ["test_1.csv", "a_test1.txt"])])
def test_the_first_of_several_lists(tmp_path, split, first, others):
    touch(tmp_path, first, *others)
    assert list(find_lists(tmp_path, split).values()) == [tmp_path / first]


@pytest.mark.parametrize("name, number", [
    ("val.txt", ""), ("val1.txt", "1"), ("val2.csv", "2"), ("val_3.txt", "3"), ("testlist01.txt", "1"),
    ("testlist02-1.txt", "2"), ("vallist_split3.txt", "3"), ("val_split1.csv", "1"), ("hmdb51_test_split2.txt", "2"),
    ("kinetics400_val.csv", "")])
def test_the_digit_in_the_name_is_the_split(tmp_path, name, number):
    touch(tmp_path, name)
    assert find_lists(tmp_path, "val") == {number: tmp_path / name}


@pytest.mark.parametrize("number, first, others", [
    ("", "classes.csv", ["a_labels.csv", "labels2.csv", "lists/classes.csv", "annotations/classes.csv"]),
    ("2", "labels2.csv", ["classes.csv", "labels1.csv"]), ("3", "classes.csv", ["a_labels2.csv", "a_labels.csv"]),
    ("1", "k160_labels_split1.csv", ["k160_labels_split2.csv", "labels.csv"]),
    ("", "lists/labels.csv", ["x_labels.json", "labels.txt", "labels.csv.bak", "classind.txt"]),
    ("1", "labels/classes1.csv", ["ucfTrainTestlist/classInd.txt", "classes.csv"]),
    ("", "ucfTrainTestlist/classInd.txt", ["elsewhere/classes.csv", "classes1.csv"]),
    ("", "something-something-v2-labels.json", ["something-something-v2-train.json"])])
def test_the_first_of_several_class_files(tmp_path, number, first, others):
    touch(tmp_path, first, *others)
    assert find_classes(tmp_path, number) == tmp_path / first


def test_class_files_of_another_split_are_not_taken(tmp_path):
    touch(tmp_path, "labels1.csv", "lists/k160_labels_split2.csv")
    assert find_classes(tmp_path, "3") is None and find_classes(tmp_path, "") is None


def test_two_lists_of_one_split_and_several_classes_are_lists_per_class(tmp_path):
    touch(tmp_path, "a_test_split1.txt", "b_test_split1.txt", "c_test_split2.txt", "lists/vallist_split3.txt",
          "a_test_split3.txt", "b_test_split3.txt", "vallist_split3.txt")
    assert find_lists(tmp_path, "val") == {"1": tmp_path / "*_test_split1.txt", "2": tmp_path / "c_test_split2.txt",
                                           "3": tmp_path / "*_test_split3.txt"}
    assert find_lists(tmp_path, "train") == {n: tmp_path / f"*_test_split{n}.txt" for n in "13"}


def test_there_may_be_no_lists_and_no_class_files(tmp_path):
    assert find_lists(tmp_path, "val") == {} and find_classes(tmp_path, "") is None
    assert find_lists(tmp_path / "gone", "val") == {} and find_classes(tmp_path / "gone", "") is None


def test_a_label_that_contradicts_the_folder_is_refused(tmp_path):
    """A list of one order of classes with the class names of another: each number is in range, and wrong."""
    file = write(tmp_path / "l.txt", "brush_hair/a.mp4 0\nx/y.mp4 0\nkick_ball/b.mp4 1\n")
    assert read_list_and_classes(file, "/", ["brush hair", "kick ball"])[0][2] == ("/kick_ball/b.mp4", 1)
    with pytest.raises(ValueError, match=r"line 3: label 1 is 'kick', but the folder is class 2 in 'kick_ball/b.mp4'"):
        read_list_and_classes(file, "/", ["brush hair", "kick", "Kick Ball"])


def test_videos_that_are_partly_there_are_read(tmp_path):
    """The first classes of a list may not have been downloaded."""
    touch(tmp_path, "videos/x.mp4")
    write(tmp_path / "val.txt", "".join(f"videos/{i}.mp4 0\n" for i in range(100)) + "videos/x.mp4 1\n")
    write(tmp_path / "classes.csv", "0,catch\n1,jump\n")
    assert len(read_split(tmp_path, "val")[0]) == 101


def test_a_mistake_on_the_other_side_is_no_mistake_on_this(tmp_path):
    touch(tmp_path, "a.mp4", "train.txt")
    write(tmp_path / "val.txt", "a.mp4 0\n")
    write(tmp_path / "classes.csv", "0,catch\n")
    assert read_split(tmp_path, "val")[0] == [(str(tmp_path / "a.mp4"), 0)]
    with pytest.raises(ValueError, match="train.txt, line 1: expected"):
        read_split(tmp_path, "train")


def test_a_number_without_lists_is_refused(tmp_path):
    touch(tmp_path, "train/catch/a.avi", "val/catch/a.avi")
    with pytest.raises(FileNotFoundError, match="split 2 needs a list of that number, and there is none"):
        read_split(tmp_path, "val", split="2")


def test_a_label_of_many_digits_is_refused_fast(tmp_path):
    for text in ("a.mp4 " + "1" * 5000, "a.mp4" + " " * 100_000 + "x", "1 " * 50_000 + "x", ", 0", ",,  7"):
        since = time.process_time()
        with pytest.raises(ValueError, match="l.txt, line 1: expected `path label`"):
            read_list(write(tmp_path / "l.txt", text), "/", 2)
        assert time.process_time() - since < 5                   # a quadratic regex takes minutes


def test_a_path_of_nul_bytes_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"line 1: a path must not hold .., got 'a\\x00b.mp4'"):
        read_list(write(tmp_path / "l.txt", "a\0b.mp4 0\n"), "/", 2)


def test_a_list_and_class_names_may_lie_elsewhere(tmp_path):
    folder = touch(tmp_path / "k400", "a.mp4", "train.txt", "classes.csv")
    listing, names = write(tmp_path / "mine.txt", "a.mp4 0\n"), write(tmp_path / "mine.csv", "0,catch\n")
    assert read_split(folder, "train", str(listing), str(names)) == ([(str(folder / "a.mp4"), 0)], ["catch"])


def test_a_list_without_class_names_says_what_is_wanted(tmp_path):
    write(tmp_path / "train.txt", "a.mp4 0\n")
    with pytest.raises(FileNotFoundError, match=r"train.txt needs class names: .*classes.csv with lines `id,name`"):
        read_split(tmp_path, "train")


def test_a_list_of_paths_that_are_not_there_names_one(tmp_path):
    write(tmp_path / "train.txt", "gone/a.mp4 0\n")
    write(tmp_path / "classes.csv", "0,catch\n")
    with pytest.raises(FileNotFoundError, match=r"train.txt: none of its videos exists, for one .*gone/a.mp4"):
        read_split(tmp_path, "train")


@pytest.mark.parametrize("which", ["list_file", "class_file"])
def test_a_missing_list_or_class_file_is_named(tmp_path, which):
    touch(tmp_path, "a.mp4")
    files = {"list_file": write(tmp_path / "l.txt", "a.mp4 0\n"), "class_file": write(tmp_path / "c.csv", "0,catch\n")}
    with pytest.raises(FileNotFoundError, match="no file at .*nowhere"):
        read_split(tmp_path, "train", **{**{k: str(v) for k, v in files.items()}, which: str(tmp_path / "nowhere")})


def test_a_missing_split_is_named(tmp_path):
    touch(tmp_path, "train/catch/a.avi")
    with pytest.raises(FileNotFoundError, match=r"has no val list \(val.txt\) and no folder val"):
        read_split(tmp_path, "val")


# --- a split that is kept ------------------------------------------------------------------------------------------
alphabet = st.characters(categories=("L", "N"), include_characters=" ,.'\"-()")
letters = st.text(alphabet, min_size=1, max_size=12)
stems = letters.map(str.strip).filter(bool)
names_of_classes = st.lists(stems, min_size=1, max_size=5, unique=True)


@given(names_of_classes, st.data())
def test_a_written_split_reads_back_as_it_was(scratch, classes, data):
    files = data.draw(st.lists(st.tuples(stems, st.integers(0, len(classes) - 1)), min_size=1, max_size=6))
    videos = [(f"/data/{stem}.mp4", label) for stem, label in files]
    write_split(scratch, "train", videos, classes)
    assert read_classes(scratch / "classes.csv") == classes
    assert read_list(scratch / "train.txt", ".", len(classes)) == videos


def test_written_class_names_keep_their_quotes_and_commas(tmp_path):
    classes = ['"no"', 'saying "no"', "a, then b", 'a,"b"', "'c'"]
    write_split(tmp_path, "train", [("a.mp4", 0)], classes)
    assert read_classes(tmp_path / "classes.csv") == classes


@pytest.mark.parametrize("names", [["clip 1", "clip 2"], ["clip,1", "clip,2"]])
def test_a_written_split_of_numbered_jpeg_folders_reads_back(tmp_path, names):
    """Their paths end in a number, which must not be taken for a column of frames."""
    touch(tmp_path, *(f"catch/{name}/00001.jpg" for name in names))
    videos, classes = read_class_folders(tmp_path)
    write_split(tmp_path, "val", videos, classes)
    assert read_split(tmp_path, "val") == (videos, classes)


def test_a_written_split_is_found_from_the_run_folder(tmp_path):
    """Absolute paths, or paths from where the run was started: then with --data-root . and the run's lists."""
    touch(tmp_path, *(f"data/{name}/{i}.avi" for name in ("catch", "jump") for i in range(5)))
    run = tmp_path / "run"
    run.mkdir()
    split = {name: read_split(tmp_path / "data", name) for name in ("train", "val")}
    for name, (videos, classes) in split.items():
        write_split(run, name, videos, classes)
    for name in split:
        assert read_split(run, name) == split[name]


# --- the layouts, in miniature, on files that decode ---------------------------------------------------------------
def test_kinetics_layout(tmp_path):
    for split, n in (("train", 2), ("val", 1)):
        rows = [(f"{split}/arm wrestling/{i} x.mp4", 0) for i in range(n)]
        rows += [(f"{split}/yoga/{i}.mkv", 1) for i in range(n)]
        for file, label in rows:
            write_video(tmp_path / file, label)
        write(tmp_path / f"{split}.csv", "".join(f"{file} {label}\n" for file, label in rows))
        write(tmp_path / "labels.csv", "id,name\n0,arm wrestling\n1,yoga\n")
        check(tmp_path, split, ["arm wrestling", "yoga"], rows)


def test_ucf101_layout(tmp_path):
    for label, name in enumerate(("ApplyEyeMakeup", "YoYo")):
        for i in (1, 2):
            write_video(tmp_path / name / f"v_{name}_g0{i}_c01.avi", label)
    train = relative(read_split(tmp_path, "train")[0], tmp_path)
    val = relative(read_split(tmp_path, "val")[0], tmp_path)
    assert len(train) == len(val) == 2 and not set(train) & set(val)
    check(tmp_path, "train", ["Apply Eye Makeup", "Yo Yo"], train)
    check(tmp_path, "val", ["Apply Eye Makeup", "Yo Yo"], val)


def test_jpeg_folders_with_a_list(tmp_path):
    for number, label in ((1, 0), (2, 1)):
        write_jpegs(tmp_path / "frames" / f"{number}", label)
    write(tmp_path / "val.txt", "frames/1 4 0\nframes/2 4 1\n")
    write(tmp_path / "classes.csv", "0,a\n1,b\n")
    check(tmp_path, "val", ["a", "b"], [("frames/1", 0), ("frames/2", 1)])


def test_jpeg_folders_by_class(tmp_path):
    for label, name in enumerate(("brush_hair", "cartwheel")):
        write_jpegs(tmp_path / "val" / name / "clip_1", label)
    check(tmp_path, "val", ["brush hair", "cartwheel"], [("val/brush_hair/clip_1", 0), ("val/cartwheel/clip_1", 1)])
