"""
A folder and a list become the videos that are meant, with the labels that are meant; every mistake is one plain line.

For every list format, class file and folder layout that the README promises (Kinetics, UCF101, HMDB51 and
Something-Something in miniature, folders of JPEGs), on tiny files that decode; for any text and bytes in the place of a
list (hypothesis). Checked against what the lists were written from.
"""
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image
from torchcodec.encoders import VideoEncoder

from mote.data import TestViews, decode
from mote.folders import class_name, find_folder, read_class_folders, split_per_class
from mote.lists import needs_split, read_classes, read_split, write_split
from mote.lists import read_list as read_list_and_classes

NAMES = [f"class {i}" for i in range(1000)]
CODECS = {".mp4": "libx264", ".avi": "mpeg4", ".mkv": "libx264", ".webm": "libvpx-vp9"}


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def write_video(path, brightness):
    """Four frames of one brightness, in the codec that goes with the ending."""
    path.parent.mkdir(parents=True, exist_ok=True)
    frames = torch.full((4, 3, 32, 48), brightness, dtype=torch.uint8)
    VideoEncoder(frames, frame_rate=10).to_file(path, codec=CODECS[path.suffix], extra_options={"threads": 1})


def write_jpegs(folder, brightness):
    folder.mkdir(parents=True)
    for i in range(4):
        Image.new("RGB", (48, 32), (brightness,) * 3).save(folder / f"{i + 1:05d}.jpg")


def read_list(file, folder, num_classes):
    return read_list_and_classes(file, folder, NAMES[:num_classes])[0]


def touch(folder, *names):
    for name in names:
        write(folder / name, b"x")
    return folder


def relative(videos, folder):
    return [(Path(path).relative_to(folder).as_posix(), label) for path, label in videos]


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
    with pytest.raises(ValueError, match=rf"l.txt, line 3: label {int(label)} is out of range 0..2$"):
        read_list(file, "/", 3)


@pytest.mark.parametrize("line", ["a.mp4", "a.mp4 one", "a.mp4 1.5", "0", "a.mp4 0 # why", "a.mp4:0"])
def test_a_line_that_is_no_pair_is_named(tmp_path, line):
    file = write(tmp_path / "l.txt", f"a.mp4 0\n{line}\n")
    with pytest.raises(ValueError, match=r"l.txt, line 2: expected `path label` or `path frames label`, got"):
        read_list(file, "/", 2)


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
    with pytest.raises(FileNotFoundError, match=r"train.txt: none of its first videos exists, for one .*gone/a.mp4"):
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
def check(folder, split, classes, names):
    """The classes, and that each video is the one of its label: brightness 40 for label 0, 140 for label 1, ..."""
    videos, found = read_split(folder, split)
    assert found == classes and sorted(relative(videos, folder)) == sorted(names)
    views = TestViews(videos, T=2, size=16)
    for i, (path, label) in enumerate(videos):
        assert abs(views[i]["frames"].float().mean() - (40 + 100 * label)) < 3, path     # codecs are 1 or 2 levels off
        assert views[i]["failed"] == [] and len(decode(path, np.arange)) == 4


def test_kinetics_layout(tmp_path):
    for split, n in (("train", 2), ("val", 1)):
        rows = [(f"{split}/arm wrestling/{i} x.mp4", 0) for i in range(n)]
        rows += [(f"{split}/yoga/{i}.mkv", 1) for i in range(n)]
        for file, label in rows:
            write_video(tmp_path / file, 40 + 100 * label)
        write(tmp_path / f"{split}.csv", "".join(f"{file} {label}\n" for file, label in rows))
        write(tmp_path / "labels.csv", "id,name\n0,arm wrestling\n1,yoga\n")
        check(tmp_path, split, ["arm wrestling", "yoga"], rows)


def test_ucf101_layout(tmp_path):
    for label, name in enumerate(("ApplyEyeMakeup", "YoYo")):
        for i in (1, 2):
            write_video(tmp_path / name / f"v_{name}_g0{i}_c01.avi", 40 + 100 * label)
    train = relative(read_split(tmp_path, "train")[0], tmp_path)
    val = relative(read_split(tmp_path, "val")[0], tmp_path)
    assert len(train) == len(val) == 2 and not set(train) & set(val)
    check(tmp_path, "train", ["Apply Eye Makeup", "Yo Yo"], train)
    check(tmp_path, "val", ["Apply Eye Makeup", "Yo Yo"], val)


def test_hmdb51_layout(tmp_path):
    for split in ("train", "test"):
        for label, name in enumerate(("brush_hair", "cartwheel")):
            write_video(tmp_path / split / name / f"April_09_{name}_u_nm_np1_ba_goo_0.avi", 40 + 100 * label)
    for split, folder in (("train", "train"), ("val", "test")):
        check(tmp_path, split, ["brush hair", "cartwheel"],
              [(f"{folder}/{name}/April_09_{name}_u_nm_np1_ba_goo_0.avi", label)
               for label, name in enumerate(("brush_hair", "cartwheel"))])


def test_something_something_layout(tmp_path):
    for number, label in ((78687, 0), (42326, 1)):
        write_video(tmp_path / "20bn-something-something-v2" / f"{number}.webm", 40 + 100 * label)
    write(tmp_path / "val.txt", "20bn-something-something-v2/78687.webm 0\n20bn-something-something-v2/42326.webm 1\n")
    write(tmp_path / "classes.csv", '0,"Pushing something from left to right"\n1,"Putting something, then taking it"\n')
    check(tmp_path, "val", ["Pushing something from left to right", "Putting something, then taking it"],
          [("20bn-something-something-v2/78687.webm", 0), ("20bn-something-something-v2/42326.webm", 1)])


def test_jpeg_folders_with_a_list(tmp_path):
    for number, label in ((1, 0), (2, 1)):
        write_jpegs(tmp_path / "frames" / f"{number}", 40 + 100 * label)
    write(tmp_path / "val.txt", "frames/1 4 0\nframes/2 4 1\n")
    write(tmp_path / "classes.csv", "0,a\n1,b\n")
    check(tmp_path, "val", ["a", "b"], [("frames/1", 0), ("frames/2", 1)])


def test_jpeg_folders_by_class(tmp_path):
    for label, name in enumerate(("brush_hair", "cartwheel")):
        write_jpegs(tmp_path / "val" / name / "clip_1", 40 + 100 * label)
    check(tmp_path, "val", ["brush hair", "cartwheel"], [("val/brush_hair/clip_1", 0), ("val/cartwheel/clip_1", 1)])
