"""
Lists and class files are found by their names, in the dataset's folder or in PLACES below it.

    lists     train.txt, val2.csv, testlist01.txt, vallist_split1.txt, HMDB-51's *_test_split1.txt,
              something-something-v2-validation.json
    classes   classes.csv, labels.csv, k160_labels_split1.csv, classInd.txt,
              something-something-v2-labels.json

The digit in a name is the published split. A side is "train" or "val". What the files hold is read
in parsing_lists.py. Copy together with parsing_lists.py, published_lists.py and folders.py; needs
the standard library only. Not part of the paper.
"""
import os
import re
from collections import Counter
from pathlib import Path

try:
    from .folders import SIDE_NAMES, SIDES, plain
    from .parsing_lists import read_classes
    from .published_lists import HMDB, hmdb_files
except ImportError:                                # copied beside them, outside the package
    from folders import SIDE_NAMES, SIDES, plain
    from parsing_lists import read_classes
    from published_lists import HMDB, hmdb_files

# Where lists are looked for: the dataset's own folder first, then these below it.
PLACES = ("", "lists", "labels", "annotations", "ucfTrainTestlist", "testTrainMulti_7030_splits")
ENDINGS = ("txt", "csv", "json")

SIDE = "|".join(SIDE_NAMES)
SPLIT = r"(?:list)?(?:[-_]?split)?[-_]?0?(\d?)"    # of val2, testlist01, vallist_split1
LIST = re.compile(rf"(?:[\w.-]+[-_])?({SIDE}){SPLIT}(?:-1)?\.(?:{'|'.join(ENDINGS)})")
CLASSES = re.compile(rf"(?:[\w.-]+[-_])?(?:classes|labels){SPLIT}\.(?:csv|json)|classInd\.txt")


def names_in(folder: Path) -> list[str]:
    """The sorted names in a folder, without hidden ones; none where there is no folder."""
    if not folder.is_dir():
        return []
    return sorted(name for name in os.listdir(folder) if not name.startswith("."))


# --- lists ----------------------------------------------------------------------------------------
def find_lists(folder: Path, side: str) -> dict[str, Path]:
    """Split -> the list of a side; the split is "" where the list's name has no digit.

    Of several lists of one split, the one with the lowest `rank` is taken. HMDB-51's many files
    of a split are one list, FOLDER/*_test_splitN.txt, which holds both sides.
    """
    found: dict[str, list[tuple[tuple, Path]]] = {}
    for p, place in enumerate(PLACES):
        names = names_in(folder / place)

        # A single file of that name is an ordinary list: k160_test_split1.txt.
        hmdb = Counter(match[2] for match in map(HMDB.fullmatch, names) if match)
        for split, files in hmdb.items():
            if files > 1:
                pattern = folder / place / f"*_test_split{split}.txt"
                found.setdefault(split, []).append(((0, p), pattern))

        for match in filter(None, map(LIST.fullmatch, names)):
            if match[1] in SIDES[side]:
                entry = (rank(match, side, p), folder / place / match[0])
                found.setdefault(match[2], []).append(entry)
    return {split: min(lists)[1] for split, lists in found.items()}


def rank(match: re.Match, side: str, place: int) -> tuple:
    """A list's place among those of its side and split, compared item by item, the lowest first.

    1. val before validation before test; 2. the order of PLACES; 3. testlist01-1.txt, which has
    labels from 0, before testlist01.txt; 4. short names first; 5. txt before csv before json;
    6. the alphabet.
    """
    name, ending = os.path.splitext(match[0])
    word = SIDES[side].index(match[1])
    labels_from_0 = name.endswith("-1")
    return (word, place, not labels_from_0, len(name), ENDINGS.index(ending[1:]), match[0])


def published_splits(folder: Path, side: str, list_file: str = "") -> list[str]:
    """The published splits that there are lists of: ["1", "2", "3"]; [""] for one list or none.

    list_file, if given, stands in for the folder's lists; a {} in it becomes the split.
    """
    if "{}" in list_file:
        files = {split: Path(list_file.replace("{}", split)) for split in "123456789"}
        there = [split for split, file in files.items() if file.is_file() or hmdb_files(file)]
        return there or ["1"]
    if list_file:
        return [""]
    return sorted(find_lists(folder, side)) or [""]


# --- class files, and folders without lists -------------------------------------------------------
def find_classes(folder: Path, split: str) -> Path | None:
    """The class file of a split: one with its digit, else one without; None if there is neither.

    Then classes.csv and labels.csv come first, and PLACES in their order. Raises ValueError where
    two files of equal rank name different classes.
    """
    found: dict[tuple, list[Path]] = {}
    for p, place in enumerate(PLACES):
        for match in filter(None, map(CLASSES.fullmatch, names_in(folder / place))):
            digit = match[1] or ""
            if digit in (split, ""):
                usual = match[0] in ("classes.csv", "labels.csv")
                order = (digit != split, not usual, p)
                found.setdefault(order, []).append(folder / place / match[0])
    if not found:
        return None

    best = found[min(found)]
    if len(best) > 1:
        meanings = {tuple(map(plain, read_classes(file))) for file in best}
        if len(meanings) > 1:
            raise ValueError(f"{best[0]} and {best[1].name} name different classes: "
                             "choose one (--class-names FILE)")
    return best[0]


def side_folders(folder: Path, side: str) -> list[Path]:
    """Those folders of a side that exist, such as FOLDER/val; the most usual name first."""
    return [folder / name for name in SIDES[side] if (folder / name).is_dir()]


def needs_split(folder: Path) -> bool:
    """Whether a folder has neither lists nor a folder of any side: classes are split 80 / 20."""
    return not any(side_folders(folder, side) or find_lists(folder, side) for side in SIDES)
