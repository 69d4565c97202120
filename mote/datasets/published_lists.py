"""
Lists as the datasets themselves publish them, each turned into rows of (where it stands, path, class name).

    UCF-101              `CLASS/video.avi`, in train lists `CLASS/video.avi 1`; classInd.txt: `1 CLASS`
    HMDB-51              51 files CLASS_test_split1.txt of `video.avi 1` for training, 2 for testing, 0 for neither
    Something-Something  json: [{"id": "78687", "template": "Holding [something]", ..}, ..]; labels: {"name": "id", ..}
    Kinetics             csv of label, youtube_id, time_start, time_end; videos in ID_000010_000020.mp4

Called by lists.py, which finds the files and turns class names into labels. ValueError of one line for a mistake.
Copy together with lists.py and folders.py; needs the standard library only. Not part of the paper.
"""
import csv
import glob
import json
import os
import re
from pathlib import Path

try:
    from .folders import class_name, read_text
except ImportError:                                              # copied beside folders.py, outside the package
    from folders import class_name, read_text

HMDB = re.compile(r"(.+)_test_split(\d)\.txt")
Rows = list[tuple[str, str, int | str]]                          # where it stands, path, label or class name


def ucf_rows(file: Path, text: str) -> Rows:
    """UCF-101's lists. The folder is the class: its train lists number the classes from 1, other people's from 0."""
    rows: Rows = []
    for n, line in enumerate(text.splitlines(), 1):
        labelled = re.fullmatch(r"(.*\S)\s+\d+", line.strip())
        path = labelled[1] if labelled else line.strip()
        if path and not Path(path).parent.name:
            raise ValueError(f"{file}, line {n}: expected `CLASS/video` as in UCF-101's lists, got {line[:80]!r}")
        rows += [(f"{file}, line {n}", path, Path(path).parent.name)] if path else []
    return rows


def ucf_classes(text: str) -> list[tuple[str, str]]:
    """classInd.txt: `1 ApplyEyeMakeup` a line, from 1. -> (number from 0, name), to the letter as the authors' list."""
    pairs = [line.strip().partition(" ") for line in text.splitlines() if line.strip()]
    return [(str(int(n) - 1) if n.isdecimal() and len(n) < 10 else n,
             name if name == "YoYo" else class_name(name)) for n, _, name in pairs]


def hmdb_files(pattern: Path) -> list[Path]:
    """The files of a pattern such as FOLDER/*_test_split1.txt; the folder is taken literally."""
    return sorted(map(Path, glob.glob(os.path.join(glob.escape(str(pattern.parent)), pattern.name))))


def hmdb_rows(pattern: Path, split: str) -> Rows:
    """The pattern *_test_splitN.txt -> the rows of all its files that are meant. split: "train" or "val"."""
    rows: Rows = []
    for file in hmdb_files(pattern):
        name = HMDB.fullmatch(file.name)
        if not name:
            raise ValueError(f"{file}: expected CLASS_test_splitN.txt")
        for n, line in enumerate(read_text(file).splitlines(), 1):
            video, _, part = line.strip().rpartition(" ")
            if line.strip() and (part not in ("0", "1", "2") or not video.strip()):
                raise ValueError(f"{file}, line {n}: expected `video 0`, 1 or 2, got {line[:80]!r}")
            if part == {"train": "1", "val": "2"}[split]:
                rows.append((f"{file}, line {n}", f"{name[1]}/{video.strip()}", name[1]))
    return rows


def something_rows(file: Path) -> Rows:
    """Something-Something's lists; a video lies in its id.webm."""
    try:
        items = json.loads(read_text(file))
        rows = [(f"{file}, video {item['id']!r:.80}", f"{item['id']}.webm",
                 re.sub(r"[\[\]]", "", item["template"]).strip()) for item in items]
        if not all(isinstance(item["id"], str | int) for item in items):
            raise ValueError
        return rows
    except (ValueError, TypeError, KeyError, RecursionError):
        raise ValueError(f'{file}: expected a json list of {{"id": .., "template": ..}}') from None


def something_classes(file: Path, text: str) -> list[tuple[str, str]]:
    """Something-Something's labels: json of name -> number."""
    try:
        return [(str(number), name.strip()) for name, number in json.loads(text).items()]
    except (ValueError, AttributeError, RecursionError):
        raise ValueError(f'{file}: expected json of {{"name": "id", ..}}') from None


def kinetics_rows(file: Path, text: str) -> Rows:
    """Kinetics' annotations; the names of the files are those of CVDF's archives."""
    rows, table = [], csv.DictReader(text.splitlines(), strict=True)
    try:
        for row in table:
            name, video = row["label"].strip(), row["youtube_id"].strip()
            if not name or not video:
                raise ValueError
            file_name = f"{video}_{int(row['time_start']):06d}_{int(row['time_end']):06d}.mp4"
            rows.append((f"{file}, line {table.line_num}", file_name, name))
        return rows
    except (csv.Error, KeyError, TypeError, ValueError, AttributeError):
        raise ValueError(f"{file}, line {table.line_num}: expected a csv of label, youtube_id, time_start, time_end "
                         "(seconds)") from None
