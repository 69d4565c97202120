"""
A list says what its lines say, however it was written, or one line names the line that is odd: never a wrong label.

For csv as pandas and Excel write it, names in place of labels, paths of Windows, and one odd line at any place among
others (hypothesis). Checked against the rows that each list was written from. Lists without oddities: test_lists.py.
"""
import itertools
import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.videos import relative, touch, write

from mote.datasets.dataset import open_dataset
from mote.datasets.lists import read_classes, read_list, read_split, write_split

CLASSES = ["abseiling", "skateboarding", "arm wrestling"]
ROWS = [("val/arm wrestling, final.mp4", 2), ("val/a.mp4", 0), ("val/b c.mp4", 1)]


def read(folder, text, name="val.txt", classes=CLASSES, side="val"):
    """The list's rows, relative to the folder, and the class names."""
    videos, found = read_list(write(folder / name, text), folder, classes, side)
    return relative(videos, folder), found


def refusal(folder, text, **options):
    with pytest.raises((ValueError, OSError)) as raised:
        read(folder, text, **options)
    message = str(raised.value)
    assert len(message.splitlines()) == 1
    return message


# --- one odd line ----------------------------------------------------------------------------------------------------
# Of each format: lines that are right, and lines that are not as they are.
FORMATS = {
    "frames": (["abseiling/v_10 250 0", "skateboarding/w_3 12 1", "abseiling/x 9 0"],
               ["skateboarding/w_148 1", "skateboarding/w_148", "skateboarding/w.mp4 1", "w.mp4 1", "w.mp4", "junk x",
                "skateboarding/w_148 250 one", "a.mp4 1 2 3 1"]),
    "frames of files": (["abseiling/v.mp4 250 0", "w 3.mp4 12 1", "x.avi 9 0"],
                        ["skateboarding/w.mp4 1", "w.mp4 250", "w.mp4", "w.mp4 1.5", "skateboarding/w_148 1",
                         "w.mp4 250 300 1", "w.mp4 abseiling 1", "w.mp4 250 abseiling", "w.mp4 0 1"]),
    "csv with frames": (["abseiling/v,250,0", "skateboarding/w,12,1", '"x, y",9,0'],
                        ["skateboarding/w,1", "skateboarding/w,,1", "skateboarding/w,1,", '"w",1', "w,12,one", '"w,1']),
    "path and label": (["abseiling/v.mp4 0", "skateboarding/w 3.mp4 1", "x.avi 0"],
                       ["w.mp4 250 1", "w.mp4 250.0 1.0", "w.mp4", "w.mp4 skateboarding", "# w.mp4 1 #", "w.mp4 1 # y",
                        "w.mp4:1", "w.mp4 -", "w.mp4 nan", "w.mp4 0 abseiling", "w.mp4 abseiling 0"]),
    "csv": (["abseiling/v.mp4,0", '"skateboarding/w, 3.mp4",1', "x.avi,0"],
            ["w.mp4,250,1", "w.mp4", "w.mp4,", "w.mp4,one", '"w.mp4,1', 'w.mp4,""', "w.mp4,nan", "0,w.mp4",
             '"w.mp4","0,1"', '"w.mp4,1"']),
    "class names": (["videos/v.mp4 abseiling", "videos/w 3.mp4 arm wrestling", "x.avi Abseiling"],
                    ["videos/w.mp4 1", "videos/w.mp4", "videos/w.mp4 juggling", "videos/w.mp4 1 abseiling"]),
    "class folders": (["abseiling/v.mp4", "arm wrestling/w 3.mp4", "abseiling/x.avi"],
                      ["w.mp4", "skateboarding/w.mp4 1", "juggling/w.mp4", "skateboarding/w.mp4 skateboarding"]),
}
CASES = [(right, odd) for right, odds in FORMATS.values() for odd in odds]


@given(st.sampled_from(CASES), st.integers(3, 12), st.data())
@settings(max_examples=300)
@example((FORMATS["frames"][0], "skateboarding/w_148 1"), 5, None)       # a count became part of every path
def test_one_odd_line_is_named_wherever_it_stands(tmp_path_factory, case, others, data):
    right, odd = case
    lines = list(itertools.islice(itertools.cycle(right), others))
    place = data.draw(st.integers(0, others)) if data else others
    lines.insert(place, odd)
    message = refusal(tmp_path_factory.mktemp("odd"), "".join(f"{line}\n" for line in lines))
    assert f"val.txt, line {place + 1}: " in message
    assert odd.replace('"', "")[:20].split(",")[0] in message


@pytest.mark.parametrize("right", [right for right, _ in FORMATS.values()], ids=FORMATS)
def test_the_lines_beside_the_odd_one_are_read(tmp_path, right):
    assert len(read(tmp_path, "".join(f"{line}\n" for line in right * 3))[0]) == 9


@pytest.mark.parametrize("header", ["", "path,label\n"])
@pytest.mark.parametrize("odd", ["b.mp4", '"b.mp4', "b.mp4,1,2,3,4"])
def test_an_odd_line_of_a_csv_is_named_below_a_header_too(tmp_path, header, odd):
    message = refusal(tmp_path, header + "a.mp4,0\n" * 3 + odd + "\na.mp4,0\n", name="val.csv")
    assert f"val.csv, line {4 + bool(header)}: " in message or "out of range" in message


def test_a_number_at_the_end_of_a_path_is_kept_where_it_is_on_disk(tmp_path):
    """Folders of JPEGs: "clip 7" is one, and no count of 7 frames, for it is there."""
    touch(tmp_path, "clip 7/1.jpg", "clip 8/1.jpg", "other/1.jpg")
    assert read(tmp_path, "clip 7 1\nclip 8 0\nother 2\n")[0] == [("clip 7", 1), ("clip 8", 0), ("other", 2)]
    touch(tmp_path, "w/1.jpg")
    for others in ("a 0\n", "a.mp4 0\n"):
        assert "val.txt, line 4: " in refusal(tmp_path, others * 3 + "w 250 1\n")


def test_a_written_list_of_which_one_path_ends_in_a_number_reads_back_anywhere(tmp_path):
    videos = [("/gone/clip 1", 0), ("/gone/clip 2", 1), ("/gone/clip", 1)]
    write_split(tmp_path, "val", videos, ["a", "b"])
    assert read_list(tmp_path / "val.txt", ".", ["a", "b"])[0] == videos


def test_a_folder_whose_name_ends_in_a_number_needs_no_line_beside_it_that_has_none(tmp_path):
    """All lines may be read as `path frames label`: then too what is on disk is meant."""
    text = "clip 7 1\nclip 8 0\n"
    assert read(tmp_path, text)[0] == [("clip", 1), ("clip", 0)]
    touch(tmp_path, "clip 7/1.jpg")                                          # some may be gone
    assert read(tmp_path, text)[0] == [("clip 7", 1), ("clip 8", 0)]
    touch(tmp_path, "clip/1.jpg")
    assert read(tmp_path, text)[0] == [("clip", 1), ("clip", 0)]


@pytest.mark.parametrize("text", ["flat/a 1 30 0\nflat/b 1 60 1\n", "flat/a 0 30 0\nflat/b 0 60 1\n"])
def test_a_first_and_a_last_frame_never_become_a_part_of_a_folder(tmp_path, text):
    touch(tmp_path, "flat/a/1.jpg", "flat/b/1.jpg")
    assert "val.txt, line 1: expected `path label` or `path frames label`" in refusal(tmp_path, text)


@pytest.mark.parametrize("text", ["a.mp4 0 2\nb.mp4 1 1\n", "b.mp4,1,2\na.mp4,0,1\n", '"a.mp4",0.0,1\n"b.mp4",1,2\n'])
def test_labels_before_the_frames_or_two_labels_are_refused_by_their_0(tmp_path, text):
    assert "expected `path frames label`, the label last, got 0 frames" in refusal(tmp_path, text)
    assert read(tmp_path, "a.mp4 0 1\nb.mp4 0 2\n")[0] == [("a.mp4", 1), ("b.mp4", 2)]    # as `write_split` writes


def test_a_number_before_a_class_name_is_not_asked(tmp_path):
    assert read(tmp_path, "a.mp4,0,abseiling\nb.mp4,1,skateboarding\n")[0] == [("a.mp4", 0), ("b.mp4", 1)]


def test_a_number_among_names_is_no_reason_to_deny_the_names(tmp_path):
    message = refusal(tmp_path, "a.mp4 abseiling\nb.mp4 1\n")
    assert message.endswith("got 'a.mp4 abseiling': the label is no number")


# --- csv -------------------------------------------------------------------------------------------------------------
def quoted(text):
    return '"' + text.replace('"', '""') + '"'


def table(rows, separator=",", quote=quoted, header="", newline="\n", index=False):
    """What pandas' to_csv and Excel write."""
    lines = [header] if header else []
    for i, (path, label) in enumerate(rows):
        columns = [str(i)] * index + [quote(path), str(label)]
        lines.append(separator.join(columns))
    return newline.join(lines) + newline


WRITTEN = {
    "quoted": table(ROWS),
    "quoted where needed": table(ROWS, quote=lambda text: quoted(text) if "," in text else text),
    "all quoted": "".join(f'"{path}","{label}"\n' for path, label in ROWS),
    "the label alone quoted": "".join(f'{path},"{label}"\n' for path, label in ROWS),
    "with a count of frames": "".join(f'"{path}",{i + 9},{label}\n' for i, (path, label) in enumerate(ROWS)),
    "with floats": table([(path, f"{label}.0") for path, label in ROWS]),
    "with zeros before": table([(path, f"0{label}") for path, label in ROWS]),
    "with an index": table(ROWS, index=True),
    "with an index from 1": "".join(f"{i},{quoted(path)},{label}\n" for i, (path, label) in enumerate(ROWS, 1)),
    "a header": table(ROWS, header="path,label"),
    "a header and an index": table(ROWS, header=",path,label", index=True),
    "a header of capitals": table(ROWS, header="Video_Path,Class ID"),
    "a header, no quotes": table(ROWS, quote=str, header="filename,label"),
    "label first": "label,path\n" + "".join(f"{label},{quoted(path)}\n" for path, label in ROWS),
    "more columns": "path,fps,label,note\n" + "".join(f"{quoted(path)},25,{label},\n" for path, label in ROWS),
    "semicolons": table(ROWS, ";"),
    "semicolons, header, CRLF": table(ROWS, ";", header="path;label", newline="\r\n"),
    "semicolons, no quotes": table(ROWS, ";", quote=str),
    "tabs": table(ROWS, "\t"),
    "tabs, header": table(ROWS, "\t", quote=str, header="path\tlabel"),
    "bars": table(ROWS, "|", quote=str),
    "spaces after commas": table(ROWS, ", "),
    "spaces": table(ROWS, " "),
    "a header of words": table(ROWS, " ", quote=str, header="path label"),
    "single quotes": table(ROWS, quote=lambda text: f"'{text}'"),
    "mark and CRLF": "\ufeff" + table(ROWS, header="path,label", newline="\r\n"),
    "UTF-16": table(ROWS, header="path,label", newline="\r\n").encode("utf-16"),
    "trailing commas": "".join(f"{quoted(path)},{label},\n" for path, label in ROWS),
    "names": table([(path, CLASSES[label]) for path, label in ROWS], header="path,label"),
    "names, no header": table([(path, CLASSES[label]) for path, label in ROWS]),
    "names quoted": table([(path, quoted(CLASSES[label])) for path, label in ROWS]),
    "names with frames": "".join(f'"{path}",{i + 9},{CLASSES[label]}\n' for i, (path, label) in enumerate(ROWS)),
}


@pytest.mark.parametrize("name", ["val.csv", "val.txt"])
@pytest.mark.parametrize("text", WRITTEN.values(), ids=WRITTEN)
def test_a_csv_is_read_as_csv_however_it_was_written(tmp_path, text, name):
    assert read(tmp_path, text, name=name) == (ROWS, CLASSES)


def test_a_quote_inside_a_path_is_read_as_csv_writes_it(tmp_path):
    rows = [('a "b", c.mp4', 0), ("d'e.mp4", 1)]
    assert read(tmp_path, table(rows))[0] == rows


def test_rows_of_another_side_are_left_out(tmp_path):
    text = "path,label,split\na.mp4,0,train\nb.mp4,1,val\nc.mp4,2,TEST\n"
    assert read(tmp_path, text)[0] == [("b.mp4", 1), ("c.mp4", 2)]
    assert read(tmp_path, text, side="train")[0] == [("a.mp4", 0)]


@pytest.mark.parametrize("word", ["holdout", "trian", "1", "", "valid", "A"])
@pytest.mark.parametrize("column", ["split", "subset", "Set", "partition"])
def test_a_row_of_an_unknown_side_is_named(tmp_path, word, column):
    text = f"path,label,{column}\na.mp4,0,train\nb.mp4,1,val\nc.mp4,2,{word}\n"
    for side in ("train", "val"):
        assert f"val.txt, line 4: {word!r} says no side" in refusal(tmp_path, text, side=side)
    assert f"val.txt, line 2: {word!r}" in refusal(tmp_path, f"path,label,{column}\na.mp4,0,{word}\n")


def test_a_row_of_two_sides_is_named(tmp_path):
    assert "line 2: two sides, 'train and val'" in refusal(tmp_path, "path,label,split,set\na.mp4,0,train,val\n")


def test_training_and_testing_are_sides_too(tmp_path):
    text = "path,label,subset\na.mp4,0,Training\nb.mp4,1,testing\nc.mp4,2,validation\n"
    assert read(tmp_path, text)[0] == [("b.mp4", 1), ("c.mp4", 2)]
    assert read(tmp_path, text, side="train")[0] == [("a.mp4", 0)]


def test_a_given_list_of_one_side_needs_no_rows_of_the_other(tmp_path):
    touch(tmp_path, "a.mp4", "b.mp4")
    given = str(write(tmp_path / "mine.csv", "path,label,split\na.mp4,yoga,val\nb.mp4,abseiling,val\n"))
    assert read_split(tmp_path, "val", given)[1] == ["abseiling", "yoga"]
    with pytest.raises(ValueError, match="mine.csv: a list with no videos for train"):
        read_split(tmp_path, "train", given)


@pytest.mark.parametrize("columns", ["label,label_name", "label,class_name", "class_id,class_name", "action,label"])
def test_a_label_that_contradicts_the_name_beside_it_is_refused(tmp_path, columns):
    turn = -1 if columns == "action,label" else 1
    rows = [("0", "abseiling"), ("2", "Arm_Wrestling"), ("1", "something else")]
    text = f"path,{columns}\n" + "".join(f"x.mp4,{','.join(row[::turn])}\n" for row in rows)
    assert [label for _, label in read(tmp_path, text)[0]] == [0, 2, 1]
    odd = text + f"y.mp4,{','.join(('2', 'skateboarding')[::turn])}\n"
    assert "val.txt, line 5: label 2, but 'skateboarding' is class 1" in refusal(tmp_path, odd)


@pytest.mark.parametrize("word", ["youtube_id/a.mp4 0", "x/youtube_ids, all/a.mp4,0", "my youtube_id/a.mp4\t0"])
def test_a_path_that_holds_a_column_of_kinetics_is_a_path(tmp_path, word):
    assert [label for _, label in read(tmp_path, word + "\n")[0]] == [0]


def test_a_header_of_unknown_words_is_named(tmp_path):
    assert "val.txt, line 1: expected `path label`" in refusal(tmp_path, "one,two\n" + table(ROWS))


def test_kinetics_csv_is_read_however_it_was_written(tmp_path):
    row = ["abseiling", "-3B32lodo2M", "10", "20", "val"]
    header = ["label", "youtube_id", "time_start", "time_end", "split"]
    for separator, seconds, newline, order in itertools.product(",;\t", ("", ".0"), ("\n", "\r\n"), (1, -1)):
        cells = [cell + seconds * cell.isdecimal() for cell in row]
        text = separator.join(header[::order]) + newline + separator.join(cells[::order]) + newline
        for before in ("", "\n", "\ufeff"):
            assert read(tmp_path, before + text)[0] == [("-3B32lodo2M_000010_000020.mp4", 0)]
    assert "val.txt, line 4: " in refusal(tmp_path, "\n\n" + ",".join(header) + "\nyoga,,1,2,val\n")


def test_a_kinetics_csv_of_all_sides_gives_the_rows_of_one(tmp_path):
    head = "label,youtube_id,time_start,time_end,split\n"
    text = head + "abseiling,a,1,2,train\nabseiling,b,1,2,validate\nskateboarding,c,1,2,test\n"
    assert read(tmp_path, text)[0] == [("b_000001_000002.mp4", 0), ("c_000001_000002.mp4", 1)]
    assert read(tmp_path, text, side="train")[0] == [("a_000001_000002.mp4", 0)]
    # Of one side alone, the file's name or the option says what it is for.
    assert read(tmp_path, head + "abseiling,a,1,2,train\n")[0] == [("a_000001_000002.mp4", 0)]
    assert "val.txt, line 5: 'holdout' says no side" in refusal(tmp_path, text + "abseiling,d,1,2,holdout\n")


# --- names in place of labels ----------------------------------------------------------------------------------------
@pytest.mark.parametrize("paths", [["videos/a.mp4", "videos/b c.mp4", "x.webm"], ["videos/a", "videos/b c", "x"]])
@pytest.mark.parametrize("names", [CLASSES, ["Abseiling", "SKATEBOARDING", "Arm_Wrestling"]])
@pytest.mark.parametrize("separator", [" ", ",", "\t", "  "])
def test_class_names_stand_for_labels(tmp_path, paths, names, separator):
    text = "".join(f"{path}{separator}{name}\n" for path, name in zip(paths, names))
    assert read(tmp_path, text)[0] == [(path, label) for label, path in enumerate(paths)]


def test_without_a_class_file_the_names_of_a_list_are_the_class_names(tmp_path):
    touch(tmp_path, "videos/a.mp4", "videos/b.mp4")
    write(tmp_path / "val.txt", "videos/a.mp4 skateboarding\nvideos/b.mp4 arm wrestling\n")
    videos, classes = read_split(tmp_path, "val")
    assert (relative(videos, tmp_path), classes) == ([("videos/a.mp4", 1), ("videos/b.mp4", 0)],
                                                     ["arm wrestling", "skateboarding"])


def test_without_a_class_file_a_count_never_becomes_a_part_of_a_name(tmp_path):
    touch(tmp_path, "videos/a.mp4")
    assert "line 1: expected `path label`" in refusal(tmp_path, "videos/a.mp4 250 abseiling\n" * 3, classes=None)


def test_a_name_that_is_no_class_says_that_a_label_was_expected(tmp_path):
    message = refusal(tmp_path, "videos/a.mp4 juggling\n")
    assert "expected `path label`" in message and message.endswith(
        "got 'videos/a.mp4 juggling': the label is no number and not one of the 3 class names")


def test_a_name_that_fits_in_two_ways_is_not_guessed(tmp_path):
    assert "line 1: 'videos' is not one of the 2 class names: expected `path label`" in refusal(
        tmp_path, "videos/a kick ball\n", classes=["ball", "kick ball"])
    assert read(tmp_path, "videos/a.mp4 kick ball\n", classes=["ball", "kick ball"])[0] == [("videos/a.mp4", 1)]


@pytest.mark.parametrize("text", ["0 abseiling/a.mp4\n1 x/b.mp4\n", "1,x/a.mp4\n", "abseiling val/a.mp4\n",
                                  "abseiling,val/a.mp4\n", "0,abseiling/a.mp4\n1,x/b.mp4\n", "5 gone/a.mp4\n"])
@pytest.mark.parametrize("classes", [None, CLASSES])
def test_a_label_before_the_path_never_becomes_a_folder(tmp_path, text, classes):
    touch(tmp_path, "val/a.mp4", "abseiling/a.mp4", "x/b.mp4", "x/a.mp4")
    assert "val.txt, line 1: expected `path label`, the path first" in refusal(tmp_path, text, classes=classes)


@pytest.mark.parametrize("text", ["0,x/a.mp4,2\n1,x/b.mp4,1\n", "2,x/b.mp4,0\n0,x/a.mp4,1\n", "abseiling,x/a.mp4,2\n",
                                  "2,gone/a.mp4,1\n0,gone/b.mp4,1\n", "0 x/a.mp4 2\n1 x/b.mp4 1\n"])
def test_a_label_before_the_path_never_gives_its_place_to_a_number_behind(tmp_path, text):
    """`label,path,frames`: the frames would be the label wherever a class has that number."""
    touch(tmp_path, "x/a.mp4", "x/b.mp4")
    if text.startswith("0,"):                                                # an index of pandas: it counts the lines
        assert read(tmp_path, text)[0] == [("x/a.mp4", 2), ("x/b.mp4", 1)]
    else:
        assert "val.txt, line 1: expected `path label`, the path first" in refusal(tmp_path, text)


@pytest.mark.parametrize("folder", ["7,5 kg", "12 angry men", "001 walking"])
def test_a_folder_that_begins_with_a_number_is_no_label(tmp_path, folder):
    touch(tmp_path, f"{folder}/a.mp4")
    assert read(tmp_path, f"{folder}/a.mp4 0\n{folder}/gone.mp4 1\n")[0][0] == (f"{folder}/a.mp4", 0)


# --- paths of other machines -----------------------------------------------------------------------------------------
@pytest.mark.parametrize("listed", [r"val\abseiling\a.mp4", r"val\abseiling/a.mp4", r"D:\data\val\abseiling\a.mp4",
                                    "D:/data/val/abseiling/a.mp4", r"\\server\share\abseiling\a.mp4",
                                    r".\val\abseiling\a.mp4", r"c:\abseiling\a.avi"])
@pytest.mark.parametrize("line", ["{} 0", '"{}",0', "{},250,0", "{} 0.0", "{} abseiling", "{}"])
def test_a_path_of_windows_is_found(tmp_path, listed, line):
    touch(tmp_path, "val/abseiling/a.mp4", "val/skateboarding/a.mp4")
    write(tmp_path / "val.csv", line.format(listed) + "\n")
    write(tmp_path / "classes.csv", "0,abseiling\n1,skateboarding\n")
    (path, label), = read_split(tmp_path, "val")[0]
    assert (tmp_path / "val/abseiling/a.mp4").samefile(path) and label == 0


def test_a_space_that_a_shell_has_escaped_is_a_space(tmp_path):
    assert read(tmp_path, "val/arm\\ wrestling/a\\ b.mp4 2\n")[0] == [("val/arm wrestling/a b.mp4", 2)]


def test_a_file_that_is_called_so_keeps_its_backslash(tmp_path):
    touch(tmp_path, "a\\b.mp4")
    assert read(tmp_path, "a\\b.mp4 0\n")[0] == [("a\\b.mp4", 0)]


@pytest.mark.parametrize("listed, place", [(r"D:\data\gone\x.mp4", "D:"), ("s3://bucket/x.mp4", "s3:")])
def test_a_place_on_another_machine_is_named_as_the_cause(tmp_path, listed, place):
    write(tmp_path / "val.txt", f"{listed} 0\n")
    write(tmp_path / "classes.csv", "0,abseiling\n")
    with pytest.raises(FileNotFoundError, match=f"{place}' is a place on another machine"):
        read_split(tmp_path, "val")


def test_an_absolute_path_that_is_not_there_is_called_so(tmp_path):
    write(tmp_path / "val.txt", "/gone/x.mp4 0\n")
    write(tmp_path / "classes.csv", "0,abseiling\n")
    with pytest.raises(FileNotFoundError, match="none of its videos .* its paths are absolute, and no video of these"):
        read_split(tmp_path, "val")


def test_a_path_of_windows_must_not_lead_out_either(tmp_path):
    assert "a path must not hold .." in refusal(tmp_path, "..\\a.mp4 0\n")


# --- class files -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("text", ["0;abseiling\n1;arm wrestling\n", "id;name\r\n0;abseiling\r\n1;arm wrestling\r\n",
                                  "0\tabseiling\n1\tarm wrestling\n", "0.0,abseiling\n1.0,arm wrestling\n",
                                  "0 abseiling\n1 arm wrestling\n", "0|abseiling\n1|arm wrestling\n",
                                  '"0";"abseiling"\n"1";"arm wrestling"\n'])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_class_file_is_read_however_it_was_written(tmp_path, text, encoding):
    write(tmp_path / "classes.csv", text.encode(encoding))
    touch(tmp_path, "a.mp4")
    write(tmp_path / "val.txt", "a.mp4 1\n")
    assert read_split(tmp_path, "val")[1] == ["abseiling", "arm wrestling"]


def test_a_long_list_takes_linear_time(tmp_path):
    """A line is of any length, and any number of names may fit: no quadratic search."""
    since = time.process_time()
    for text in ("a.mp4 " * 30_000 + "x", "1 " * 60_000 + "x", '"' * 60_001, '"a"' + ", " * 60_000 + "x",
                 "a.mp4" + "," * 100_000 + "x"):
        assert "line 1" in refusal(tmp_path, text, classes=["y"])
    assert time.process_time() - since < 5


@pytest.mark.parametrize("text", ["id,name,count\n0,abseiling,9\n1,yoga,7\n", "id;name;n\n0;abseiling;9\n1;yoga;7\n"])
def test_a_further_column_never_becomes_a_part_of_a_class_name(tmp_path, text):
    with pytest.raises(ValueError, match="classes.csv: expected the columns `id,name`, got 'id.name.*'"):
        read_classes(write(tmp_path / "classes.csv", text))
    assert read_classes(write(tmp_path / "c.csv", "id,name,\n0,hop, skip\n")) == ["hop, skip"]


@pytest.mark.parametrize("text", ['{"abseiling": "0", "arm wrestling": "1"}', '{"arm wrestling": 1, "abseiling": 0}',
                                  '{"0": "abseiling", "1": "arm wrestling"}',
                                  r'{"\"arm wrestling\"": 1, "abseiling": 0}'])
def test_a_class_file_of_json_is_read_whichever_comes_first(tmp_path, text):
    assert read_classes(write(tmp_path / "labels.json", text)) == ["abseiling", "arm wrestling"]


# --- lines that contradict each other --------------------------------------------------------------------------------
@pytest.mark.parametrize("text, said", [
    ("a.mp4 0\nb.mp4 1\na.mp4 1\n",
     "videos on several lines: 1, with several labels: 1; for one {}/a.mp4, labels 0, 1"),
    ("b.mp4 1\nb.mp4 1\na.mp4 0\n./a.mp4 2\n",
     "videos on several lines: 2, with several labels: 1; for one {}/a.mp4, labels 0, 2"),
    ("a.mp4 0\na.mp4 0\n", "videos on several lines: 1, with several labels: 0; for one {}/a.mp4, labels 0, 0"),
    ("a.mp4 0\nb.mp4 0\n", "")])
def test_a_video_on_several_lines_is_said(tmp_path, capsys, text, said):
    touch(tmp_path, "a.mp4", "b.mp4")
    write(tmp_path / "val.txt", text)
    write(tmp_path / "classes.csv", "0,abseiling\n1,skateboarding\n2,yoga\n")
    open_dataset("mine", "val", str(tmp_path))
    assert capsys.readouterr().out == (f"{tmp_path}, val: {said.format(tmp_path)}\n" if said else "")


# --- what stands in place of a list ----------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["val.txt", "val.csv", "val.json", "classes.csv", "labels.json", "classInd.txt"])
@pytest.mark.parametrize("content, what", [
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:4\nsize 3\n", "a Git LFS pointer, not the file itself"),
    (b"\n<!DOCTYPE html>\n<html><body>0</body></html>\n", "a saved web page, not the file itself"),
    (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "a saved web page, not the file itself"),
    ("a.mp4 0\n".encode("utf-16-le"), "not UTF-8 text (UTF-16 without a byte order mark, or UTF-32)"),
    ("a.mp4 0\n".encode("utf-32"), "not UTF-8 text (UTF-16 without a byte order mark, or UTF-32)"),
    ("a.mp4 0\ncafé.mp4 1\n".encode("latin-1"), "not UTF-8 text (line 2: ")])
def test_what_stands_in_place_of_a_list_or_class_file_is_named(tmp_path, name, content, what):
    file = write(tmp_path / name, content)
    with pytest.raises(ValueError) as raised:
        if name.startswith("val"):
            read_list(file, tmp_path, CLASSES)
        else:
            read_classes(file)
    assert str(raised.value).startswith(f"{file}: {what}")
