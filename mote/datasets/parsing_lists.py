"""
Lists of videos and class files are read, in the formats that people have, and written.

    list      `path label` or `path frames label`, comma or space: the authors', BIKE, Text4Vis,
              PySlowFast, ViFi-CLIP; and as UCF-101, HMDB-51, Something-Something and Kinetics
              publish theirs (published_lists.py)
    classes   a csv of `id,name`, ids 0..N-1; UCF-101's classInd.txt; Something-Something's json

A list is first read into rows of (where it stands, path, label or class name); the rows are then
checked and become pairs (path, label). Every mistake is a ValueError or FileNotFoundError of one
line that names the file, the line and the rule. A new format is added in `list_rows`, a new class
file in `class_rows`.
Copy together with published_lists.py and folders.py; needs the standard library only. Not part of
the paper.
"""
import csv
import os
import re
from collections import Counter
from pathlib import Path

try:
    from . import published_lists as published
    from .folders import Videos, class_name, plain, read_text
except ImportError:                                # copied beside them, outside the package
    import published_lists as published
    from folders import Videos, class_name, plain, read_text

# A path may hold spaces and commas, so the columns are counted from the right. A sign is accepted
# here so that a negative label is refused as a label out of range, and not as a strange line.
PLAIN = re.compile(r"(.*[^\s,])[\s,]+([+-]?\d{1,9})")                      # path, label
WITH_FRAMES = re.compile(r"(.*[^\s,])[\s,]+\d+[\s,]+([+-]?\d{1,9})")       # path, frames, label


# --- lists of videos ------------------------------------------------------------------------------
def read_list(file: Path, folder: str | Path, classes: list[str] | None, side: str = "val",
              by_folder: bool = False) -> tuple[Videos, list[str]]:
    """The (path, label) pairs of a list in any format named above, and the class names.

    folder: paths are relative to it. classes: the names that labels count; None: the list's own,
    sorted. side: which rows of HMDB-51's lists are meant. by_folder: take each label from the
    folder that the video lies in, whatever number stands there.
    """
    rows = list_rows(file, side, by_folder)
    if classes is None:
        classes = own_classes(file, folder, rows)
    return label_rows(rows, folder, classes), classes


def list_rows(file: Path, side: str, by_folder: bool) -> published.Rows:
    """The rows of a list of any format, told by its name and its first line.

    side, by_folder: as in `read_list`. A new format is one more branch here. Raises ValueError for
    a list without videos, and FileNotFoundError.
    """
    if "*" in Path(file).name:
        rows = published.hmdb_rows(Path(file), side)
    elif Path(file).suffix == ".json":
        rows = published.something_rows(file)
    else:
        text = read_text(file)
        header = text.partition("\n")[0].replace('"', "").split(",")
        if "youtube_id" in header:
            rows = published.kinetics_rows(file, text)
        elif by_folder:
            rows = published.ucf_rows(file, text)
        else:
            rows = text_rows(file, text)
    if not rows:
        raise ValueError(f"{file}: a list with no videos")
    return rows


def text_rows(file: Path, text: str) -> published.Rows:
    """The rows of lines `path label` or `path frames label`; or CLASS/video without any label.

    There is a column of frames only if every line has one: "clip 7 1" may be the path "clip 7".
    Raises ValueError with the number of the first line that is neither.
    """
    lines = [(n, line.strip()) for n, line in enumerate(text.splitlines(), 1) if line.strip()]
    labelled = any(PLAIN.fullmatch(line) for _, line in lines)
    in_folders = all(Path(line).parent.name for _, line in lines)
    if lines and in_folders and not labelled:
        return published.ucf_rows(file, text)

    with_frames = all(WITH_FRAMES.fullmatch(line) for _, line in lines)
    pattern = WITH_FRAMES if with_frames else PLAIN
    rows: published.Rows = []
    for n, line in lines:
        match = pattern.fullmatch(line)
        if not match:
            raise ValueError(f"{file}, line {n}: expected `path label` or `path frames label`, "
                             f"got {line[:80]!r}")
        rows.append((f"{file}, line {n}", match[1], int(match[2])))
    return rows


def own_classes(file: Path, folder: str | Path, rows: published.Rows) -> list[str]:
    """The sorted class names of rows that have names, made into words by `class_name`.

    Raises FileNotFoundError, which says what to add, for rows that have numbers: a number alone
    has no meaning for CLIP's text tower.
    """
    labels = [label for _, _, label in rows]
    if any(isinstance(label, int) for label in labels):
        raise FileNotFoundError(f"{file} needs class names: {Path(folder) / 'classes.csv'} with "
                                "lines `id,name`, or classInd.txt, or --class-names FILE")
    names = {class_name(str(label)) for label in labels}
    if "" in names:
        raise ValueError(f"{file}: a class without a name")
    return sorted(names)


def label_rows(rows: published.Rows, folder: str | Path, classes: list[str]) -> Videos:
    """Rows become (path, label) pairs; paths are joined to the folder, class names numbered.

    Raises ValueError for a path with `..`, a name that is no class, a label out of range, and a
    label that contradicts the class folder that the path names.
    """
    numbers = {plain(name): i for i, name in enumerate(classes)}
    times = Counter(plain(name) for name in classes)
    videos: Videos = []
    for where, path, label in rows:
        if ".." in Path(path).parts or "\0" in path:
            raise ValueError(f"{where}: a path must not hold .., got {path[:80]!r}")

        if isinstance(label, str):
            if times[plain(label)] != 1:
                raise ValueError(f"{where}: {label[:80]!r} is not one of the {len(classes)} "
                                 "class names")
            label = numbers[plain(label)]
        if not 0 <= label < len(classes):
            hint = ": labels start at 0" if label == len(classes) else ""
            raise ValueError(
                f"{where}: label {label} is out of range 0..{len(classes) - 1}{hint}")

        # Class names of another list give each label in range a wrong meaning. The folder tells.
        parent = plain(Path(path).parent.name)
        if parent in numbers and parent != plain(classes[label]):
            raise ValueError(f"{where}: label {label} is {classes[label][:80]!r}, but the folder "
                             f"is class {numbers[parent]} in {path[:80]!r}: other class names, "
                             "or labels that start at 1")
        videos.append((os.path.join(folder, path), label))
    return videos


# --- class names ----------------------------------------------------------------------------------
def read_classes(file: str | Path) -> list[str]:
    """Class names, in order of label, from a class file of any format named above.

    Raises FileNotFoundError, or ValueError unless the ids are 0..N-1, each once and with a name.
    """
    names: dict[int, str] = {}
    for number, name in class_rows(file):
        if not number.isdecimal() or len(number) > 9 or not name:
            got = f"{number},{name}"[:80]
            raise ValueError(f"{file}: expected `id,name` with a number and a name that is not "
                             f"empty, got {got!r}")
        if int(number) in names:
            raise ValueError(f"{file}: id {int(number)} stands there twice")
        names[int(number)] = name

    if not names or max(names) >= len(names):
        missing = next((i for i in range(len(names)) if i not in names), 0)
        last = max(len(names) - 1, 0)
        raise ValueError(f"{file}: ids must be 0..{last} without a gap; {missing} is missing")
    return [names[i] for i in range(len(names))]


def class_rows(file: str | Path) -> list[tuple[str, str]]:
    """The pairs (number, name) of a class file, unchecked, both as text.

    `read_classes` checks them all in one place. Raises ValueError for a file that is no csv.
    """
    text = read_text(file)
    if Path(file).suffix == ".json":
        return published.something_classes(file, text)
    if Path(file).name == "classInd.txt":
        return published.ucf_classes(text)

    try:
        table = [row for row in csv.reader(text.splitlines(), strict=True) if row]
    except csv.Error as error:
        raise ValueError(f"{file}: not a csv ({error})") from None
    # Commas in a name need no quotes: all columns after the first are the name.
    rows = [(row[0].strip(), ",".join(row[1:]).strip()) for row in table]
    if rows and not rows[0][0].isdecimal():
        del rows[0]                                # a header
    return rows


# --- writing --------------------------------------------------------------------------------------
def write_split(folder: Path, side: str, videos: Videos, classes: list[str]) -> None:
    """Keep the videos of a side in folder/SIDE.txt and folder/classes.csv: a record of a run.

    This module reads them as they were, with --data-root set to where the run was started. The two
    sides of a run have the same classes, so classes.csv is written twice with one content.
    """
    lines = []
    for path, label in videos:
        if ".." in Path(path).parts:               # refused in a list
            path = os.path.abspath(path)
        lines.append(f"{path} {label}")

    # Where every path ends in a number, it would be read as a column of frames: write that column.
    if all(WITH_FRAMES.fullmatch(line) for line in lines):
        lines = [f"{line.rpartition(' ')[0]} 0 {line.rpartition(' ')[2]}" for line in lines]

    text = "".join(f"{line}\n" for line in lines)
    (folder / f"{side}.txt").write_text(text, encoding="utf-8")
    with open(folder / "classes.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(enumerate(classes))
