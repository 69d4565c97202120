"""
Lists of videos and of class names, in the formats that people have.

    list      `path label` or `path frames label`, comma or space: the authors', BIKE, Text4Vis, PySlowFast, ViFi-CLIP;
              and as UCF-101, HMDB-51, Something-Something and Kinetics publish theirs (published_lists.py)
    classes   a csv of `id,name`, ids 0..N-1; UCF-101's classInd.txt; Something-Something's json

Inside the dataset's folder, or in one of PLACES below it, lists are found by their names: train.txt, val2.csv,
testlist01.txt, vallist_split1.txt, something-something-v2-validation.json; the digit is the official split. Paths are
relative to the folder, may hold spaces, and are looked for by their stem where they are not there (folders.py).
Absolute ones and links are followed, `..` is refused. Every mistake is a ValueError or FileNotFoundError of one line
that names the file, the line and the rule.
Copy together with folders.py and published_lists.py; needs the standard library only. Not part of the paper.
"""
import csv
import os
import re
from collections import Counter
from pathlib import Path

try:
    from . import folders
    from . import published_lists as published
except ImportError:                                              # copied beside them, outside the package
    import folders
    import published_lists as published

Videos = folders.Videos
PLACES = ("", "lists", "labels", "annotations", "ucfTrainTestlist", "testTrainMulti_7030_splits")
ENDINGS = ("txt", "csv", "json")
NUMBER = r"(?:list)?(?:[-_]?split)?[-_]?0?(\d?)"                  # official splits: val2, testlist01, vallist_split1
SIDES = "|".join(name for names in folders.SPLITS.values() for name in names)
LIST = re.compile(rf"(?:[\w.-]+[-_])?({SIDES}){NUMBER}(?:-1)?\.(?:{'|'.join(ENDINGS)})")
CLASSES = re.compile(rf"(?:[\w.-]+[-_])?(?:classes|labels){NUMBER}\.(?:csv|json)|classInd\.txt")
PLAIN = re.compile(r"(.*[^\s,])[\s,]+([+-]?\d{1,9})")                       # path, label
WITH_FRAMES = re.compile(r"(.*[^\s,])[\s,]+\d+[\s,]+([+-]?\d{1,9})")       # path, frames, label


def read_split(folder: Path, split: str, list_file: str = "", class_file: str = "",
               number: str = "") -> tuple[Videos, list[str]]:
    """The (path, label) pairs of a split and the class names.

    split: "train" or "val". number: of an official split; "": the only or the first one. list_file and class_file stand
    in for the folder's; a {} in them becomes the number.
    """
    folder = Path(folder)
    number = number or published_splits(folder, split, list_file)[0]
    lists = {side: {number: Path(list_file.replace("{}", number))} if list_file else find_lists(folder, side)
             for side in folders.SPLITS}
    if lists[split]:
        if number not in lists[split]:
            there = ", ".join(str(file) for _, file in sorted(lists[split].items()))
            raise FileNotFoundError(f"{folder}: no {split} list of split {number}, but {there}")
        file = lists[split][number]
        names = Path(class_file.replace("{}", number)) if class_file else (
            find_classes(folder, number) or find_classes(file.parent, number))
        by_folder = "classInd.txt" in (names.name if names else "", *list_dir(file.parent))       # UCF-101's own lists
        rows = {side: list_rows(files[number], side, by_folder) for side, files in lists.items()
                if side == split or (number in files and not names)}
        # A class may be missing on one side: then labels count those of both.
        classes = read_classes(names) if names else own_classes(file, folder, sum(rows.values(), []))
        videos = folders.locate(label_rows(rows[split], folder, classes), folder)
        if not any(os.path.exists(path) for path, _ in videos):
            raise FileNotFoundError(f"{file}: none of its videos exists, for one {videos[0][0][:200]!r}; "
                                    "its paths are relative to --data-root")
        return videos, classes
    if number:
        raise FileNotFoundError(f"{folder}: split {number} needs a list of that number, and there is none")
    parts = [folder / name for names in folders.SPLITS.values() for name in names if (folder / name).is_dir()]
    for part in parts:
        if part.name in folders.SPLITS[split]:                   # a class may be missing on one side: labels count all
            return folders.read_class_folders(part, {name for side in parts for name in folders.class_folders(side)})
    if not needs_split(folder):
        raise FileNotFoundError(f"{folder} has no {split} list ({split}.txt) and no folder {split}")
    videos, classes = folders.read_class_folders(folder)
    return folders.split_per_class(videos)[split], classes


def needs_split(folder: Path) -> bool:
    """Whether a folder has neither lists nor a folder of any split: then its classes are split 80 / 20."""
    parts = any((folder / name).is_dir() for names in folders.SPLITS.values() for name in names)
    return not parts and not any(find_lists(folder, split) for split in folders.SPLITS)


def published_splits(folder: Path, split: str, list_file: str = "") -> list[str]:
    """The numbers of the official splits that there are lists of: ["1", "2", "3"]; [""] for one list or none."""
    if "{}" in list_file:
        lists = {n: list_file.replace("{}", n) for n in "123456789"}
        return [n for n, file in lists.items() if Path(file).is_file() or published.hmdb_files(Path(file))] or ["1"]
    return [""] if list_file else sorted(find_lists(folder, split)) or [""]


def list_dir(folder: Path) -> list[str]:
    return sorted(name for name in os.listdir(folder) if not name.startswith(".")) if folder.is_dir() else []


def find_lists(folder: Path, split: str) -> dict[str, Path]:
    """Number of the split ("" for none) -> its list, by the names of files in the folder and PLACES."""
    found: dict[str, list[tuple]] = {}
    for p, place in enumerate(PLACES):
        names = list_dir(folder / place)
        hmdb = Counter(match[2] for match in map(published.HMDB.fullmatch, names) if match)
        for n in (n for n, files in hmdb.items() if files > 1):  # one alone is a list by itself: k160_test_split1.txt
            found.setdefault(n, []).append(((0, p), folder / place / f"*_test_split{n}.txt"))
        for match in filter(None, map(LIST.fullmatch, names)):
            name, (stem, ending) = match[0], os.path.splitext(match[0])
            if match[1] in folders.SPLITS[split]:
                rank = (folders.SPLITS[split].index(match[1]), p, not stem.endswith("-1"), len(stem),
                        ENDINGS.index(ending[1:]), name)         # testlist01-1.txt is testlist01.txt with labels from 0
                found.setdefault(match[2], []).append((rank, folder / place / name))
    return {n: min(lists)[1] for n, lists in found.items()}


def find_classes(folder: Path, number: str) -> Path | None:
    """The file of class names for a split: one of its number, else one without; classes.csv and labels.csv first."""
    found: dict[tuple, list[Path]] = {}
    for p, place in enumerate(PLACES):
        for match in filter(None, map(CLASSES.fullmatch, list_dir(folder / place))):
            if (match[1] or "") in (number, ""):
                rank = (match[1] or "") != number, match[0] not in ("classes.csv", "labels.csv"), p
                found.setdefault(rank, []).append(folder / place / match[0])
    best = found[min(found)] if found else [None]
    if len(best) > 1 and len({tuple(map(folders.plain, read_classes(file))) for file in best}) > 1:
        raise ValueError(f"{best[0]} and {best[1].name} name different classes: choose one (--class-names FILE)")
    return best[0]


def read_list(file: Path, folder: str | Path, classes: list[str] | None, split: str = "val",
              by_folder: bool = False) -> tuple[Videos, list[str]]:
    """Parse a list of any format named at the top of this file. -> (path, label) pairs, class names

    classes: the names that labels count, None if they are to be the list's own, sorted. by_folder: take each label from
    the folder that the video lies in, whatever number stands there. split: which rows of HMDB-51's lists are meant.
    """
    rows = list_rows(file, split, by_folder)
    classes = own_classes(file, folder, rows) if classes is None else classes
    return label_rows(rows, folder, classes), classes


def list_rows(file: Path, split: str, by_folder: bool) -> published.Rows:
    """Where each line stands, its path, and its label, or class name where the format has names."""
    if "*" in Path(file).name:
        rows = published.hmdb_rows(Path(file), split)
    elif Path(file).suffix == ".json":
        rows = published.something_rows(file)
    else:
        text = folders.read_text(file)
        if "youtube_id" in text.partition("\n")[0].replace('"', "").split(","):
            rows = published.kinetics_rows(file, text)
        else:
            rows = published.ucf_rows(file, text) if by_folder else text_rows(file, text)
    if not rows:
        raise ValueError(f"{file}: a list with no videos")
    return rows


def own_classes(file: Path, folder: str | Path, rows: published.Rows) -> list[str]:
    if any(isinstance(label, int) for _, _, label in rows):
        raise FileNotFoundError(f"{file} needs class names: {Path(folder) / 'classes.csv'} with lines `id,name`, "
                                "or classInd.txt, or --class-names FILE")
    names = {folders.class_name(label) for _, _, label in rows}
    if "" in names:
        raise ValueError(f"{file}: a class without a name")
    return sorted(names)


def label_rows(rows: published.Rows, folder: str | Path, classes: list[str]) -> Videos:
    """Class names become labels; paths and labels are checked, also against the folder where it is named as a class."""
    numbers, times = {folders.plain(name): i for i, name in enumerate(classes)}, Counter(map(folders.plain, classes))
    videos = []
    for where, path, label in rows:
        if ".." in Path(path).parts or "\0" in path:
            raise ValueError(f"{where}: a path must not hold .., got {path[:80]!r}")
        if isinstance(label, str):
            if times[folders.plain(label)] != 1:
                raise ValueError(f"{where}: {label[:80]!r} is not one of the {len(classes)} class names")
            label = numbers[folders.plain(label)]
        if not 0 <= label < len(classes):
            raise ValueError(f"{where}: label {label} is out of range 0..{len(classes) - 1}"
                             + ": labels start at 0" * (label == len(classes)))
        parent = folders.plain(Path(path).parent.name)
        if parent in numbers and parent != folders.plain(classes[label]):
            raise ValueError(f"{where}: label {label} is {classes[label][:80]!r}, but the folder is class "
                             f"{numbers[parent]} in {path[:80]!r}: other class names, or labels that start at 1")
        videos.append((os.path.join(folder, path), label))
    return videos


def text_rows(file: Path, text: str) -> published.Rows:
    """Lines `path label` or `path frames label` (a column of frames is one only if every line has it); CLASS/video."""
    lines = [(n, line.strip()) for n, line in enumerate(text.splitlines(), 1) if line.strip()]
    if lines and not any(PLAIN.fullmatch(line) for _, line in lines) and all(Path(one).parent.name for _, one in lines):
        return published.ucf_rows(file, text)
    pattern = WITH_FRAMES if all(WITH_FRAMES.fullmatch(line) for _, line in lines) else PLAIN
    rows: published.Rows = []
    for n, line in lines:
        match = pattern.fullmatch(line)
        if not match:
            raise ValueError(f"{file}, line {n}: expected `path label` or `path frames label`, got {line[:80]!r}")
        rows.append((f"{file}, line {n}", match[1], int(match[2])))
    return rows


def write_split(folder: Path, split: str, videos: Videos, classes: list[str]) -> None:
    """Keep a split as this module reads it (with --data-root .), so that nobody has to guess a run's videos."""
    lines = [f"{os.path.abspath(path) if '..' in Path(path).parts else path} {label}" for path, label in videos]
    if all(WITH_FRAMES.fullmatch(line) for line in lines):       # paths that end in a number: say that it is no count
        lines = [f"{line.rpartition(' ')[0]} 0 {label}" for line, (_, label) in zip(lines, videos)]
    (folder / f"{split}.txt").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    with open(folder / "classes.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(enumerate(classes))


def read_classes(file: str | Path) -> list[str]:
    """Class names from a csv of `id,name`, with or without a header, commas in names or not; or official ones."""
    text = folders.read_text(file)
    if Path(file).suffix == ".json":
        rows = published.something_classes(file, text)
    elif Path(file).name == "classInd.txt":
        rows = published.ucf_classes(text)
    else:
        try:
            table = [row for row in csv.reader(text.splitlines(), strict=True) if row]
        except csv.Error as error:
            raise ValueError(f"{file}: not a csv ({error})") from None
        rows = [(row[0].strip(), ",".join(row[1:]).strip()) for row in table]
        rows = rows[1:] if rows and not rows[0][0].isdecimal() else rows
    names: dict[int, str] = {}
    for number, name in rows:
        if not number.isdecimal() or len(number) > 9 or not name:
            raise ValueError(f"{file}: expected `id,name` with a number and a name that is not empty, "
                             f"got {f'{number},{name}'[:80]!r}")
        if int(number) in names:
            raise ValueError(f"{file}: id {int(number)} stands there twice")
        names[int(number)] = name
    if not names or sorted(names) != list(range(len(names))):
        missing = next((i for i in range(len(names)) if i not in names), 0)
        raise ValueError(f"{file}: ids must be 0..{max(len(names) - 1, 0)} without a gap; {missing} is missing")
    return [names[i] for i in range(len(names))]
