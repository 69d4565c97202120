"""
Lists as the datasets themselves publish them, each read into rows of (where, path, class name).

    UCF-101              `CLASS/video.avi`, in train lists `CLASS/video.avi 1`;
                         classInd.txt: `1 CLASS`
    HMDB-51              51 files CLASS_test_split1.txt of `video.avi 1` for training, 2 for
                         testing, 0 for neither
    Something-Something  json: [{"id": "78687", "template": "Holding [something]", ..}, ..];
                         labels: {"name": "id", ..}
    Kinetics             csv of label, youtube_id, time_start, time_end; the videos are called
                         ID_000010_000020.mp4

finding_lists.py finds the files; parsing_lists.py calls these functions and turns class names into
labels. A mistake is a ValueError of one line that says where it stands. Copy together with
folders.py; needs the standard library only. Not part of the paper.
"""
import csv
import glob
import json
import os
import re
from pathlib import Path

try:
    from .folders import SIDE_NAMES, SIDES, class_name, read_text
except ImportError:                                # copied beside folders.py, outside the package
    from folders import SIDE_NAMES, SIDES, class_name, read_text

HMDB = re.compile(r"(.+)_test_split(\d)\.txt")
# What a side is called in HMDB-51's files. A 0 there is a video of neither side.
HMDB_PARTS = {"train": "1", "val": "2"}
# A csv of several sides says in one of these columns which one a row is of.
SIDE_COLUMNS = ("split", "subset", "set", "partition")
Rows = list[tuple[str, str, int | str]]            # where it stands, path, label or class name


# --- UCF-101 --------------------------------------------------------------------------------------
def ucf_rows(file: Path, lines: list[tuple[int, str]]) -> Rows:
    """The rows of UCF-101's lists. The class is the folder's name, whatever number followed.

    Its train lists number the classes from 1, other people's lists from 0. lines: (number of the
    line, path). Raises ValueError for a path without a folder.
    """
    rows: Rows = []
    for n, path in lines:
        name = Path(path).parent.name
        if not name:
            raise ValueError(f"{file}, line {n}: expected `CLASS/video` as in UCF-101's lists, "
                             f"got {path[:80]!r}")
        rows.append((f"{file}, line {n}", path, name))
    return rows


def ucf_classes(text: str) -> list[tuple[str, str]]:
    """Pairs (number from 0, name) of classInd.txt, which has `1 ApplyEyeMakeup` a line, from 1.

    The names are, to the letter, those of the authors' list. A number that is none is left as it
    is, for the caller to refuse.
    """
    pairs = []
    for line in text.splitlines():
        if not line.strip():
            continue
        number, _, name = line.strip().partition(" ")
        if number.isdecimal() and len(number) < 10:
            number = str(int(number) - 1)
        if name != "YoYo":                         # one word in the authors' list
            name = class_name(name)
        pairs.append((number, name))
    return pairs


# --- HMDB-51 --------------------------------------------------------------------------------------
def hmdb_files(pattern: Path) -> list[Path]:
    """The files of a pattern such as FOLDER/*_test_split1.txt; the folder is taken literally."""
    literal = glob.escape(str(pattern.parent))
    return sorted(Path(file) for file in glob.glob(os.path.join(literal, pattern.name)))


def hmdb_rows(pattern: Path, side: str) -> Rows:
    """The rows of one side, "train" or "val", in all files of the pattern *_test_splitN.txt.

    Each file is of one class and names its videos without a folder: the class is the folder.
    Raises ValueError for a line that ends in another number than 0, 1 or 2.
    """
    rows: Rows = []
    for file in hmdb_files(pattern):
        match = HMDB.fullmatch(file.name)
        if not match:
            raise ValueError(f"{file}: expected CLASS_test_splitN.txt")
        name = match[1]
        for n, line in enumerate(read_text(file).splitlines(), 1):
            if not line.strip():
                continue
            video, _, part = line.strip().rpartition(" ")
            if part not in ("0", "1", "2") or not video.strip():
                raise ValueError(
                    f"{file}, line {n}: expected `video 0`, 1 or 2, got {line[:80]!r}")
            if part == HMDB_PARTS[side]:
                rows.append((f"{file}, line {n}", f"{name}/{video.strip()}", name))
    return rows


# --- Something-Something --------------------------------------------------------------------------
def something_rows(file: Path) -> Rows:
    """The rows of Something-Something's lists; a video is called id.webm.

    The class is the template without its brackets: "Holding [something]" is "Holding something".
    Raises ValueError for json of another form.
    """
    text = read_text(file)
    expected = f'{file}: expected a json list of {{"id": .., "template": ..}}'
    try:
        items = list(json.loads(text))
    except (ValueError, TypeError, RecursionError):
        raise ValueError(expected) from None

    rows: Rows = []
    for n, item in enumerate(items, 1):
        try:
            rows.append(something_row(file, item))
        except (TypeError, KeyError):
            raise ValueError(f"{expected}, got {item!r:.80} as entry {n}") from None
    return rows


def something_row(file: Path, item: dict) -> tuple[str, str, str]:
    """One video's row. Raises TypeError or KeyError for what is no entry."""
    video = item["id"]
    if not isinstance(video, str | int):
        raise TypeError
    name = re.sub(r"[\[\]]", "", item["template"]).strip()
    return f"{file}, video {video!r:.80}", f"{video}.webm", name


def something_classes(file: str | Path, text: str) -> list[tuple[str, str]]:
    """Pairs (number, name) of Something-Something's labels: json of name -> number as text.

    Its names have no brackets, as those of `something_row`. Kinetics' json, which has quotes in its
    names, and number -> name are read too. Raises ValueError for another form.
    """
    try:
        pairs = [(str(number), name) for name, number in json.loads(text).items()]
    except (ValueError, AttributeError, RecursionError):
        raise ValueError(f'{file}: expected json of {{"name": "id", ..}}') from None
    if all(name.isdecimal() for _, name in pairs):
        pairs = [(name, number) for number, name in pairs]
    return [(number, re.sub('^"(.*)"$', r"\1", name.strip())) for number, name in pairs]


# --- Kinetics -------------------------------------------------------------------------------------
def is_kinetics(header: str) -> bool:
    """Whether a first line has a column youtube_id; it may also stand in the path of a video."""
    return re.search(r"(?:^|[,;\t])[\s\"]*youtube_id[\s\"]*(?:[,;\t]|$)", header) is not None


def kinetics_rows(file: Path, text: str, side: str) -> Rows:
    """The rows of Kinetics' annotations; videos are called as in CVDF's archives.

    The path has no folder, for some copies have class folders and some have none: `locate` of
    folders.py finds a video by its stem. Where the rows are of both sides, those of the other one
    are left out. Raises ValueError with the line that cannot be read.
    """
    found = []
    lines = text.lstrip().splitlines()
    blank = len(text.splitlines()) - len(lines)    # before the header
    delimiter = next((each for each in ",;\t" if each in lines[0]), ",")
    table = csv.DictReader(lines, delimiter=delimiter, strict=True, skipinitialspace=True)
    try:
        table.fieldnames = [name.strip() for name in table.fieldnames or []]
        sides_in = [name for name in table.fieldnames if name.lower() in SIDE_COLUMNS]
        for row in table:
            name = row["label"].strip()
            video = row["youtube_id"].strip()
            if not name or not video:
                raise ValueError
            start, end = (whole_number(row[key]) for key in ("time_start", "time_end"))
            path = f"{video}_{start:06d}_{end:06d}.mp4"
            where = f"{file}, line {blank + table.line_num}"
            found.append((where, path, name, [row[column] or "" for column in sides_in]))
    except (csv.Error, KeyError, TypeError, ValueError, AttributeError):
        raise ValueError(f"{file}, line {blank + table.line_num}: expected a csv of label, "
                         "youtube_id, time_start, time_end (seconds)") from None

    sides = [side_of(where, words) for where, _, _, words in found]
    rows: Rows = [(where, path, name) for where, path, name, _ in found]
    if len(set(sides)) < 2:                        # else the file's name alone says its side
        return rows
    return [row for row, of_side in zip(rows, sides) if of_side == side]


def side_of(where: str, words: list[str]) -> str:
    """The side that a row says in its columns `split`, `subset`, ...; "" where it has none.

    Raises ValueError for another word, since the row may be of either side, and for two sides.

    >>> side_of("x.csv, line 2", ["Validate"]), side_of("x.csv, line 2", ["training"])
    ('val', 'train')
    """
    found = set()
    for word in words:
        short = word.strip().lower().removesuffix("ing")         # training, testing
        named = [side for side, names in SIDES.items() if short in names]
        if not named:
            raise ValueError(f"{where}: {word[:40]!r} says no side in a column called "
                             f"{', '.join(SIDE_COLUMNS)}: expected one of {', '.join(SIDE_NAMES)}")
        found.update(named)
    if len(found) > 1:
        raise ValueError(f"{where}: two sides, {' and '.join(words)[:80]!r}")
    return found.pop() if found else ""


def whole_number(text: str) -> int:
    """A number of seconds, which pandas writes as 10.0. Raises ValueError for another text."""
    return int(re.sub(r"\.0+$", "", text.strip()))
