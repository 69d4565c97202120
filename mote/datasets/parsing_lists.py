"""
Lists of videos are read, in the formats that people have, and written.

    list      `path label` or `path frames label`; separated by spaces, tabs or one of , ; |, with
              or without quotes and a header: the authors', BIKE, Text4Vis, PySlowFast, ViFi-CLIP,
              pandas; a class name may stand in place of a label; and as UCF-101, HMDB-51,
              Something-Something and Kinetics publish theirs (published_lists.py)

A list is first read into rows of (where it stands, path, label or class name); the rows are then
checked and become pairs (path, label). Columns are counted from the right, because a path may hold
anything. All lines of a list have the same columns: a line that differs from most is refused.
Every mistake is a ValueError or FileNotFoundError of one line that names the file, the line and
the rule. A new format is added in `list_rows`.
Copy together with published_lists.py and folders.py; needs the standard library only. Not part of
the paper.
"""
import csv
import os
import re
from pathlib import Path
from typing import NamedTuple

try:
    from . import published_lists as published
    from .folders import (
        OTHER_ENDINGS,
        VIDEO_ENDINGS,
        Videos,
        class_finder,
        class_name,
        has_video_ending,
        plain,
        read_text,
    )
except ImportError:                                # copied beside them, outside the package
    import published_lists as published
    from folders import (
        OTHER_ENDINGS,
        VIDEO_ENDINGS,
        Videos,
        class_finder,
        class_name,
        has_video_ending,
        plain,
        read_text,
    )

SEPARATORS = r"\s,;|"
SEP = f"[{SEPARATORS}]+"
# pandas writes 1.0 where a label is missing elsewhere. A sign is accepted here so that a negative
# label is refused as a label out of range, and not as a strange line. A quote counts only with its
# pair.
NUMBER = r'(?P<quote>"?)(?P<label>[+-]?\d{1,9})(?:\.0+)?(?P=quote)'
FRAMES = r'(?P<mark>"?)\d+(?:\.0+)?(?P=mark)'
PATH = rf"(.*[^{SEPARATORS}])"
ENDING = "|".join(re.escape(ending) for ending in VIDEO_ENDINGS + OTHER_ENDINGS)

PLAIN = re.compile(PATH + SEP + NUMBER)                                    # path, label
WITH_FRAMES = re.compile(PATH + SEP + FRAMES + SEP + NUMBER)               # path, frames, label
FRAMES_BEHIND = re.compile(PATH + SEP + FRAMES)                            # path, frames
COUNTED = re.compile(r"(\d{1,9})[,;|\t]\s*(.+)")                            # 0, all the rest
LABEL_FIRST = re.compile(rf"(\d+){SEP}(.+)")                                # 0 all the rest
NO_FRAMES = re.compile(r'[\s,;|]"?0+(?:\.0+)?"?$')                          # path, 0
TRAILING = re.compile(rf"(?<![{SEPARATORS}]){SEP}$")
ENDS_INSIDE = re.compile(rf"(.*(?:{ENDING})['\"]?){SEP}(.*)", re.I)        # path.mp4, all the rest

# What people call the columns of a csv, in small letters, without spaces and underscores.
PATH_COLUMNS = ("path", "video", "videopath", "videofile", "videoname", "videoid", "filename",
                "filepath", "file", "clip", "clippath", "clipname")
# Of several label columns, the one that comes first here counts, wherever it stands in the csv.
LABEL_COLUMNS = ("label", "labelid", "labelidx", "labelindex", "class", "classid", "classidx",
                 "classindex", "classlabel", "target", "category", "categoryid", "action",
                 "actionid", "classname", "labelname", "labels", "y")


class Line(NamedTuple):
    """What a line of a list says by itself."""
    n: int                                         # its number in the file, from 1
    text: str
    path: str
    label: int | str | None                        # a number, a class name, or nothing
    shorter: str = ""                              # the path, if the number behind it counts frames
    sure: bool = False                             # the number cannot be a part of the path


# --- lists of videos ------------------------------------------------------------------------------
def read_list(file: Path, folder: str | Path, classes: list[str] | None, side: str = "val",
              by_folder: bool = False) -> tuple[Videos, list[str]]:
    """The (path, label) pairs of a list in any format named above, and the class names.

    folder: paths are relative to it. classes: the names that labels count; None: the list's own,
    sorted. side: which rows of HMDB-51's lists are meant. by_folder: take each label from the
    folder that the video lies in, whatever number stands there.
    """
    rows = list_rows(file, side, by_folder, folder, classes)
    if classes is None:
        classes = own_classes(file, folder, rows)
    return label_rows(rows, folder, classes), classes


def list_rows(file: Path, side: str, by_folder: bool, folder: str | Path = "",
              classes: list[str] | None = None, may_be_empty: bool = False) -> published.Rows:
    """The rows of a list of any format, told by its name and its first line.

    side, by_folder, folder, classes: as in `read_list`. A new format is one more branch here.
    Raises ValueError for a list without videos unless it `may_be_empty`, and FileNotFoundError.
    """
    if "*" in Path(file).name or is_one_of_hmdb(Path(file).name, classes):
        rows = published.hmdb_rows(Path(file), side)
    elif Path(file).suffix == ".json":
        rows = published.something_rows(file)
    else:
        text = read_text(file)
        if published.is_kinetics(text.lstrip().partition("\n")[0]):
            rows = published.kinetics_rows(file, text, side)
        else:
            lines = split_lines(file, text, side, folder, classes)
            # Only numbers count from 1 there: a class name means what it says.
            if by_folder and not all(isinstance(line.label, str) for line in lines):
                rows = published.ucf_rows(file, paths_without_frames(file, lines, folder))
            else:
                rows = text_rows(file, lines, folder, classes)
    if not rows and not may_be_empty:
        raise ValueError(f"{file}: a list with no videos for {side}")
    return rows


def is_one_of_hmdb(name: str, classes: list[str] | None) -> bool:
    """Whether a file alone is HMDB-51's of one class: its numbers say sides and are no labels."""
    match = published.HMDB.fullmatch(name)
    return bool(match) and class_finder(classes or [])(match[1]) is not None


def text_rows(file: Path, lines: list[Line], folder: str | Path,
              classes: list[str] | None) -> published.Rows:
    """The rows of lines that all have a label, or a class name, or else a path CLASS/video alone.

    `catch/x.mp4 3` becomes (.., "catch/x.mp4", 3), `catch/x.mp4 brush hair` has the label
    "brush hair", and `catch/x.mp4` alone has "catch", its folder. The three are never mixed: a line
    whose label was lost would get its folder's class, and nobody would see it.
    Raises ValueError with the number of a line that is not as most lines are.
    """
    numbers = [line for line in lines if isinstance(line.label, int)]
    names = [line for line in lines if isinstance(line.label, str)]
    paths = [line for line in lines if line.label is None]
    if numbers:
        odd = names + paths
        if len(odd) > len(numbers):
            raise unlike_others(file, numbers[0], len(odd), "no number")
        if odd:
            raise not_a_pair(file, min(odd), classes)
        return pairs(file, lines, folder)

    if len(paths) > len(names):
        if names:
            raise unlike_others(file, names[0], len(paths), "no class name")
        return unlabelled_rows(file, lines, folder, classes)
    if paths:
        raise not_a_pair(file, paths[0], classes)
    find = class_finder(classes or [])
    for line in names:
        if classes is not None and find(str(line.label)) is None:
            raise not_a_pair(file, line, classes)
    return pairs(file, lines, folder)


def pairs(file: Path, lines: list[Line], folder: str | Path) -> published.Rows:
    """The rows of lines that all have a label or a class name."""
    paths = paths_without_frames(file, lines, folder)
    check_path_first(file, lines, [path for _, path in paths], folder, COUNTED)
    rows: published.Rows = []
    for line, (n, path) in zip(lines, paths):
        rows.append((f"{file}, line {n}", path, line.label if line.label is not None else ""))
    return rows


def unlabelled_rows(file: Path, lines: list[Line], folder: str | Path,
                    classes: list[str] | None) -> published.Rows:
    """The rows of lines `CLASS/video` without any label: the class is the folder.

    Raises ValueError for lines without a folder, or with a label before the path.
    """
    homeless = [line for line in lines if not Path(line.path).parent.name]
    if homeless:
        raise not_a_pair(file, homeless[0], classes)

    for line in lines:
        check_nothing_behind(file, line, line.path, folder)
    check_path_first(file, lines, [line.path for line in lines], folder, LABEL_FIRST)
    rows = published.ucf_rows(file, [(line.n, line.path) for line in lines])
    find = class_finder(classes or [])
    for where, path, name in rows:
        if classes is not None and find(str(name)) is None:
            raise ValueError(f"{where}: {name[:40]!r} is not one of the {len(classes)} class "
                             "names: expected `path label`, or the folder of a class, "
                             f"got {path[:60]!r}")
    return rows


def check_path_first(file: Path, lines: list[Line], paths: list[str], folder: str | Path,
                     label_first: re.Pattern) -> None:
    """Raise ValueError where labels stand before the paths.

    They would be taken for a part of the folder's name, as in `3 catch/x.mp4` of a class "3 catch",
    and a number of frames behind the path for the label. What is on disk tells, or, where none of
    the first paths is, that each fits `label_first`.
    """
    all_numbers = all(map(label_first.fullmatch, paths))
    all_numbers = all_numbers and not any(is_there(path, folder) for path in paths[:20])
    for line, path in zip(lines[:20], paths):
        parts = re.split(SEP, path, maxsplit=1)
        first = len(parts) == 2 and is_there(parts[1], folder)
        if (first or all_numbers) and not is_there(path, folder):
            raise ValueError(f"{file}, line {line.n}: expected `path label`, the path first, "
                             f"got {line.text[:80]!r}")


# --- the lines of a list --------------------------------------------------------------------------
def split_lines(file: Path, text: str, side: str, folder: str | Path,
                classes: list[str] | None) -> list[Line]:
    """Each line of a list, with a header or without one, split into path and label.

    A column that only counts the lines, as pandas writes it, is left out. Raises ValueError for a
    line that has not the columns of the header.
    """
    lines = [(n, line.strip()) for n, line in enumerate(text.splitlines(), 1) if line.strip()]
    header = header_of(lines[0][1]) if lines else None
    if header:
        return table_lines(file, lines, side, folder, classes, *header)

    known = {plain(name) for name in classes or []}
    # Only where a label is left in each line: `0, catch/x.mp4` may be a label before its path.
    counted = [split_line(n, line, folder, known) for n, line in without_counts(lines)]
    if counted and all(line.label is not None for line in counted):
        return counted
    return [split_line(n, line, folder, known) for n, line in lines]


def without_counts(lines: list[tuple[int, str]]) -> list[tuple[int, str]]:
    """The lines without a first column of 0, 1, 2, ... or 1, 2, 3, ...; [] where there is none.

    One line alone counts nothing. A space does not end the column, since paths may hold spaces.

    >>> without_counts([(1, "0,a.mp4,3"), (2, "1,b.mp4,4")])
    [(1, 'a.mp4,3'), (2, 'b.mp4,4')]
    """
    for first in (0, 1):
        cut = []
        for i, (n, line) in enumerate(lines, first):
            match = COUNTED.fullmatch(line)
            if not match or int(match[1]) != i:
                break
            cut.append((n, match[2]))
        if len(cut) == len(lines) > 1:
            return cut
    return []


def split_line(n: int, text: str, folder: str | Path, known: set[str]) -> Line:
    """One line without a header. known: the class names, as `plain` compares them.

    One line cannot tell whether the number before the label counts frames, so both paths are kept
    for `paths_without_frames`. A line that has no sure label gets None; nothing is raised here.

    >>> split_line(1, "x.mp4,120,3", "", set())
    Line(n=1, text='x.mp4,120,3', path='x.mp4,120', label=3, shorter='x.mp4', sure=True)
    """
    line = TRAILING.sub("", text)
    if line.startswith('"') and line.count('"') % 2:
        return Line(n, text, line, None)           # a quote that is never closed

    plain_line = PLAIN.fullmatch(line)
    if plain_line:
        path = slashes(unquoted(plain_line[1]), folder)
        with_frames = WITH_FRAMES.fullmatch(line)
        shorter = slashes(unquoted(with_frames[1]), folder) if with_frames else ""
        return Line(n, text, path, int(plain_line["label"]), shorter, has_video_ending(shorter))

    path, name = split_name(line, known)
    counted = FRAMES_BEHIND.fullmatch(path) if name else None
    path = slashes(unquoted(path), folder)
    shorter = slashes(unquoted(counted[1]), folder) if counted else ""
    return Line(n, text, path, unquoted(name) or None, shorter, has_video_ending(shorter))


def split_name(line: str, known: set[str]) -> tuple[str, str]:
    """Path and class name of a line that ends in no number; (line, "") where no name is sure.

    A name is sure behind the ending of a video, and where it is known and no other name fits.

    >>> split_name("frames/x brush hair", {"brushhair"})
    ('frames/x', 'brush hair')
    >>> split_name("frames/x brush hair", {"brushhair", "hair"})
    ('frames/x brush hair', '')
    """
    ends_inside = ENDS_INSIDE.fullmatch(line)
    # Only so far from the end as names are long: a line may be of any length.
    longest = max(map(len, known), default=0)
    fits = []
    for match in re.finditer(SEP, line[-2 * longest - 9:]):
        name = line[-2 * longest - 9:][match.end():]
        if plain(unquoted(name)) in known:
            fits.append((line[:len(line) - len(name)], name))
    if len(fits) == 1:
        return TRAILING.sub("", fits[0][0]), fits[0][1]
    # In `x.mp4 120 catch` the frames would become a part of the name: there it must be known.
    if ends_inside and is_name(ends_inside[2]) and not ends_inside[2][0].isdecimal():
        return ends_inside[1], ends_inside[2]
    return line, ""


def is_name(text: str) -> bool:
    """Whether a text may be a class name: it has a letter, and is no path and no number."""
    if "/" in text or "\\" in text or has_video_ending(unquoted(text)):
        return False
    whole = text.startswith('"') or not PLAIN.fullmatch(text)
    return whole and any(map(str.isalpha, text))


def unquoted(text: str) -> str:
    """A column without the quotes around it, double ones or single ones.

    Single ones go only around a video with an ending: a folder's name may have them as its own.
    """
    text = text.strip()
    if len(text) > 1 and text[0] == text[-1] == '"':
        return text[1:-1].replace('""', '"')
    if len(text) > 1 and text[0] == text[-1] == "'" and has_video_ending(text[1:-1]):
        return text[1:-1]
    return text


def slashes(path: str, folder: str | Path) -> str:
    r"""A path as Windows or a shell writes it, with this system's slashes and plain spaces.

    A file that is called so with its backslashes keeps them.

    >>> slashes(r"catch\x.mp4", ""), slashes(r"catch/a\ b.mp4", "")
    ('catch/x.mp4', 'catch/a b.mp4')
    """
    if "\\" not in path or is_there(path, folder):
        return path
    return path.replace("\\ ", " ").replace("\\", "/")


# --- which columns a list has ---------------------------------------------------------------------
def paths_without_frames(file: Path, lines: list[Line],
                         folder: str | Path) -> list[tuple[int, str]]:
    """(Number of the line, path) of each line, without the column of frames, if there is one.

    "clip 7 1" may be the path "clip 7". So either all lines have that column or none; where only
    some may have it, or no path without it is there, what is on disk decides. Raises ValueError for
    the lines that are fewer, and for a count of 0, which is a label in the wrong column.
    """
    longer = [line for line in lines if line.shorter]
    others = [line for line in lines if not line.shorter]
    if longer and others and not any(is_there(line.path, folder) for line in longer):
        # Folders of frames beside files: their names may end in a number.
        files = all(has_video_ending(line.path) for line in others)
        in_names = files and len(longer) <= len(others) and not any(line.sure for line in longer)
        if not in_names or any(is_there(line.shorter, folder) for line in longer):
            if len(longer) < len(others):
                raise unlike_others(file, longer[0], len(others), "no column of frames")
            raise unlike_others(file, others[0], len(longer), "a column of frames")

    in_paths = bool(others)
    if not others and not any(line.sure for line in lines):
        without = any(is_there(line.shorter, folder) for line in lines)
        in_paths = not without and any(is_there(line.path, folder) for line in lines)
    # A class name is sure whatever stands before it. `write_split` has 0 in all lines.
    numbers = [line for line in lines if isinstance(line.label, int)]
    empty = [line for line in numbers if NO_FRAMES.search(line.path)]
    if not in_paths and 0 < len(empty) < len(lines):
        raise ValueError(f"{file}, line {empty[0].n}: expected `path frames label`, the label "
                         f"last, got 0 frames: "
                         f"{empty[0].text[:80]!r}")

    paths = []
    for line in lines:
        path = line.path if in_paths else line.shorter
        check_nothing_behind(file, line, path, folder)
        paths.append((line.n, path))
    return paths


def is_there(path: str, folder: str | Path) -> bool:
    """Whether a path of a list is on disk, below the folder or, where it is absolute, anywhere."""
    return os.path.exists(os.path.join(folder, path.replace("\0", "")))


def check_nothing_behind(file: Path, line: Line, path: str, folder: str | Path) -> None:
    """Raise ValueError where more columns stand behind a video's name than lists have.

    `x.mp4 1 2 3` would become the path "x.mp4 1", which is only one more video that is missing.
    """
    inside = ENDS_INSIDE.fullmatch(path)
    number = FRAMES_BEHIND.fullmatch(path)
    behind = inside and not has_video_ending(path) or number and is_there(number[1], folder)
    if behind and not is_there(path, folder):
        raise not_a_pair(file, line, None)


def not_a_pair(file: Path, line: Line, classes: list[str] | None) -> ValueError:
    """The error for a line without a label that can be read."""
    hint = ""
    if isinstance(line.label, str):
        hint = ": the label is no number"
        if classes is not None and class_finder(classes)(line.label) is None:
            hint += f" and not one of the {len(classes)} class names"
    return ValueError(f"{file}, line {line.n}: expected `path label` or `path frames label`, "
                      f"got {line.text[:80]!r}{hint}")


def unlike_others(file: Path, line: Line, others: int, what: str) -> ValueError:
    """The error for a line that differs from the others, which have `what`."""
    return ValueError(f"{file}, line {line.n}: differs from the other lines, {others} of which "
                      f"have {what}: {line.text[:80]!r}")


# --- csv with a header ----------------------------------------------------------------------------
def header_of(line: str) -> tuple[str, list[str]] | None:
    """The delimiter and the columns of a header, in small letters; None where a line is none.

    A header names a path and a label at least. Any other first line is read as a video.

    >>> header_of("Video Path;Class ID"), header_of("catch/x.mp4 3")
    ((';', ['videopath', 'classid']), None)
    """
    delimiter = next((each for each in ",;\t|" if each in line), " ")
    columns = [re.sub(r"[\s_\"'-]", "", word).lower() for word in line.split(delimiter)]
    named = set(columns) & set(PATH_COLUMNS) and set(columns) & set(LABEL_COLUMNS)
    return (delimiter, columns) if named else None


def table_lines(file: Path, lines: list[tuple[int, str]], side: str, folder: str | Path,
                classes: list[str] | None, delimiter: str, columns: list[str]) -> list[Line]:
    """The lines below a header, which says where path and label stand.

    Where a column says the side of each row, the rows of other sides are left out; "test" is val.
    Raises ValueError for a line with more or fewer columns, a side that is no known word, and a
    number beside the name of another class.
    """
    path_at = next(i for i, name in enumerate(columns) if name in PATH_COLUMNS)
    labels_at = [columns.index(name) for name in LABEL_COLUMNS if name in columns]
    label_at = labels_at[0]
    sides_at = [i for i, name in enumerate(columns) if name in published.SIDE_COLUMNS]
    find = class_finder(classes or [])

    found = []
    for n, text in lines[1:]:
        row = table_row(text, delimiter, len(columns), path_at)
        if len(row) != len(columns) or not row[path_at]:
            names = delimiter.join(columns)
            raise ValueError(f"{file}, line {n}: expected the columns {names[:80]!r}, "
                             f"got {text[:80]!r}")
        if published.side_of(f"{file}, line {n}", [row[i] for i in sides_at]) not in ("", side):
            continue
        number = re.fullmatch(NUMBER, row[label_at])
        label: int | str | None = row[label_at] if is_name(row[label_at]) else None
        if number:
            label = int(number["label"])
            named = [row[i] for i in labels_at if is_name(row[i])]
            others = [name for name in named if find(name) not in (None, label)]
            if others:
                raise ValueError(f"{file}, line {n}: label {label}, but {others[0][:80]!r} is "
                                 f"class {find(others[0])}: other class names, or labels that "
                                 "start at 1")
        found.append(Line(n, text, slashes(row[path_at], folder), label))
    return found


def table_row(text: str, delimiter: str, columns: int, path_at: int) -> list[str]:
    """The columns of one line; [] where quotes are wrong. A first path may hold the delimiter.

    `a,b.mp4,3` below `path,label` becomes ["a,b.mp4", "3"].
    """
    words = text.split() if delimiter == " " else text.split(delimiter)
    if '"' not in text and len(words) >= columns and path_at == 0:
        row = text.rsplit(None if delimiter == " " else delimiter, columns - 1)
    else:
        try:
            row = next(csv.reader([text], delimiter=delimiter, strict=True, skipinitialspace=True))
        except csv.Error:
            return []
    return [column.strip() for column in row]


# --- what rows mean -------------------------------------------------------------------------------
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
    find = class_finder(classes)
    videos: Videos = []
    for where, path, label in rows:
        if ".." in Path(path).parts or "\0" in path:
            raise ValueError(f"{where}: a path must not hold .., got {path[:80]!r}")

        if isinstance(label, str):
            place = find(label)
            if place is None:
                raise ValueError(f"{where}: {label[:80]!r} is not one of the {len(classes)} "
                                 "class names")
            label = place
        # Python would take label -1 for the last class, without a word.
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

    # Where a path ends in a number, it might be read as a column of frames: write that column.
    # `clip 7 1` becomes `clip 7 0 1`, and so do all other lines: none or all have that column.
    if any(WITH_FRAMES.fullmatch(line) for line in lines):
        lines = [f"{line.rpartition(' ')[0]} 0 {line.rpartition(' ')[2]}" for line in lines]

    text = "".join(f"{line}\n" for line in lines)
    (folder / f"{side}.txt").write_text(text, encoding="utf-8")
    with open(folder / "classes.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(enumerate(classes))
