"""
Lists and class files are found by their names, in the dataset's folder or in PLACES below it.

    lists     train.txt, val2.csv, testlist01.txt, vallist_split1.txt, HMDB-51's *_test_split1.txt,
              something-something-v2-validation.json, mmaction's ucf101_val_split_1_videos.txt
    classes   classes.csv, labels.csv, k160_labels_split1.csv, classInd.txt,
              something-something-v2-labels.json

The digit in a name is the published split. A side is "train" or "val". Where PLACES hold no list,
the authors' folder lists/ may have been copied whole: then lists/NAME is looked at, where NAME is
the dataset's. A list called base_, novel_ or fs_ is of some classes or videos: it is never found,
only given. What the files hold is read in parsing_lists.py and class_files.py.
Copy together with class_files.py, published_lists.py and folders.py; needs the standard library
only. Not part of the paper.
"""
import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

try:
    from .class_files import read_classes
    from .folders import SIDE_NAMES, SIDES, plain
    from .published_lists import HMDB, hmdb_files
except ImportError:                                # copied beside them, outside the package
    from class_files import read_classes
    from folders import SIDE_NAMES, SIDES, plain
    from published_lists import HMDB, hmdb_files

# Where lists are looked for: the dataset's own folder first, then these below it.
PLACES = ("", "lists", "labels", "annotations", "ucfTrainTestlist", "testTrainMulti_7030_splits")
ENDINGS = ("txt", "csv", "json")

SIDE = "|".join(SIDE_NAMES)
SPLIT = r"(?:[-_]?list)?(?:[-_]?split)?[-_]?0?(\d?)"     # of val2, testlist01, vallist_split1
KIND = r"(?:-1|[-_](?:videos|rawframes))?"         # labels from 0, or what mmaction's paths are
ENDING = "|".join(ENDINGS)
LIST = re.compile(rf"(?:[\w.-]+[-_])?({SIDE}){SPLIT}{KIND}\.(?:{ENDING})")
# As a list might be called that is not found: VAL.TXT, val.tsv, val (1).txt, val_old.csv.
ALMOST = re.compile(
    rf"(?:.*[^a-z])?(?:{SIDE})(?:list)?(?![a-z]).*\.(?:{ENDING}|tsv|list|lst)", re.IGNORECASE)
CLASSES = re.compile(rf"(?:[\w.-]+[-_])?(?:classes|labels){SPLIT}\.(?:csv|json)|classInd\.txt")

# In a file's name: some of the classes (base-to-novel), or a few videos of each (few-shot).
CLASS_PART = re.compile(r"(?:^|[^a-z])(base|novel)(?![a-z])")
PART = re.compile(r"(?:^|[^a-z])(?:base|novel|fs|few|few-?shot)(?![a-z])|\d[-_]?shot")


def names_in(folder: Path) -> list[str]:
    """The sorted names in a folder, without hidden ones; none where there is no folder."""
    if not folder.is_dir():
        return []
    return sorted(name for name in os.listdir(folder) if not name.startswith("."))


def is_part(name: str) -> bool:
    """Whether a file is of some classes or videos, by its name: hmdb_fs_base_s1_train.txt."""
    return PART.search(name.lower()) is not None


def class_part(name: str) -> str:
    """"base" or "novel" where a file's name says so: labels count these classes alone; else ""."""
    found = CLASS_PART.search(name.lower())
    return found[1] if found else ""


# --- places ---------------------------------------------------------------------------------------
def own_places(folder: Path, name: str = "") -> list[str]:
    """The folders lists/NAME that are the dataset's: of a name like `name`, or like its folder's.

    lists/k600_test is k600's. A single folder with lists in it is taken whatever its name.
    """
    inside = []
    for place in names_in(folder / "lists"):
        if any(LIST.fullmatch(file) for file in names_in(folder / "lists" / place)):
            inside.append(place)
    for dataset in filter(None, (name, folder.absolute().name)):
        own = [place for place in inside if same_dataset(place, dataset)]
        if own:
            return [f"lists/{place}" for place in own]
    return [f"lists/{place}" for place in inside[:1] if len(inside) == 1]


def same_dataset(place: str, dataset: str) -> bool:
    """Whether two names mean one dataset, such as k600_test and K600, kinetics400 and k400.

    Letters must be the same; digits too, unless one name has none.
    """
    def parts(name: str) -> tuple[str, str]:
        name = name.lower().replace("kinetics", "k")
        letters = re.sub(r"(test|train|val|splits?|lists?)$", "", re.sub(r"[^a-z]", "", name))
        return letters, re.sub(r"\D", "", name)

    letters, digits = parts(place)
    other_letters, other_digits = parts(dataset)
    return letters == other_letters and (digits == other_digits or not (digits and other_digits))


# --- lists ----------------------------------------------------------------------------------------
def find_lists(folder: Path, side: str, name: str = "") -> dict[str, Path]:
    """Split -> the list of a side; the split is "" where the list's name has no digit.

    name: the dataset's, where it is not its folder's. lists/NAME is looked at where no other place
    has a list of either side. Of several lists of one split, the one with the lowest `rank` is
    taken. HMDB-51's many files of a split are one list, FOLDER/*_test_splitN.txt, which holds both
    sides.
    """
    if any(lists_in(folder, each, PLACES) for each in SIDES):
        return lists_in(folder, side, PLACES)
    return lists_in(folder, side, own_places(folder, name))


def lists_in(folder: Path, side: str, places: Sequence[str]) -> dict[str, Path]:
    """`find_lists` in these places below a folder."""
    found: dict[str, list[tuple[tuple, Path]]] = {}
    for p, place in enumerate(places):
        names = names_in(folder / place)

        # A single file of that name is an ordinary list: k160_test_split1.txt.
        hmdb = Counter(match[2] for match in map(HMDB.fullmatch, names) if match)
        for split, files in hmdb.items():
            if files > 1:
                pattern = folder / place / f"*_test_split{split}.txt"
                found.setdefault(split, []).append(((0, p), pattern))

        for match in filter(None, map(LIST.fullmatch, names)):
            if match[1] in SIDES[side] and not is_part(match[0]):
                entry = (rank(match, side, p), folder / place / match[0])
                found.setdefault(match[2], []).append(entry)
    return {split: min(lists)[1] for split, lists in found.items()}


def lists_passed_over(folder: Path, name: str = "") -> list[tuple[str, str]]:
    """What may be a list but is not found, only given: (path below the folder, what it is).

    Lists of some classes or videos (see `is_part`) come first. name: as in `find_lists`.
    """
    own = own_places(folder, name)
    others = [f"lists/{place}" for place in names_in(folder / "lists")]
    parts = []
    passed = []
    for place in [*PLACES, *others]:
        for file in filter(ALMOST.fullmatch, names_in(folder / place)):
            path = os.path.join(place, file)
            if is_part(file):
                parts.append((path, "of some classes or videos"))
            elif not LIST.fullmatch(file):
                passed.append((path, "called otherwise than train.txt or val.txt"))
            elif place not in [*PLACES, *own]:
                passed.append((path, "of another dataset, by its folder"))
    return parts + passed


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


def published_splits(folder: Path, side: str, list_file: str = "", name: str = "") -> list[str]:
    """The published splits that there are lists of: ["1", "2", "3"]; [""] for one list or none.

    name: as in `find_lists`. list_file, if given, stands in for the folder's lists; a {} in it
    becomes the split.
    """
    if "{}" in list_file:
        files = {split: Path(list_file.replace("{}", split)) for split in "123456789"}
        there = [split for split, file in files.items() if file.is_file() or hmdb_files(file)]
        return there or ["1"]
    if list_file:
        return [""]
    return sorted(find_lists(folder, side, name)) or [""]


# --- class files, and folders without lists -------------------------------------------------------
def find_classes(folder: Path, split: str, name: str = "", part: str = "") -> Path | None:
    """The class file of a split: one with its digit, else one without; None if there is neither.

    Then classes.csv and labels.csv come first, and PLACES in their order, behind lists/NAME where
    the lists lie there. name: as in `find_lists`. part: "base" or "novel", of a list of these
    classes alone, which has a class file of its own. Raises ValueError where two files of equal
    rank name different classes.
    """
    places: Sequence[str] = PLACES
    if not any(lists_in(folder, each, PLACES) for each in SIDES):
        places = [*own_places(folder, name), *PLACES]

    found: dict[tuple, list[Path]] = {}
    for p, place in enumerate(places):
        for match in filter(None, map(CLASSES.fullmatch, names_in(folder / place))):
            digit = match[1] or ""
            if digit in (split, "") and class_part(match[0]) == part:
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


def needs_split(folder: Path, name: str = "") -> bool:
    """Whether a folder has neither lists nor a folder of any side: classes are split 80 / 20."""
    return not any(side_folders(folder, side) or find_lists(folder, side, name) for side in SIDES)
