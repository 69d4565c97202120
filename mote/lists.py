"""
A dataset is a folder plus a list: which videos there are, their labels, and the names of the classes.

    list        lines `path label` or `path frames label`, comma or space; paths relative to the folder, spaces allowed
    classes     a csv of `id,name`, ids 0..N-1
    no list     one folder per class, in FOLDER/train and FOLDER/val if they are there, else split 80 / 20 per class

Looked for as train.txt | train.csv, val.txt | val.csv (or test.*), and classes.csv | labels.csv inside the folder.
Every mistake is a ValueError or FileNotFoundError of one line that names the file, the line and the rule.
Copy alone: needs the standard library only. Not part of the paper.
"""
import csv
import os
import random
import re
from pathlib import Path

VIDEO_ENDINGS = (".mp4", ".avi", ".mkv", ".webm", ".mov", ".m4v", ".mpg", ".mpeg", ".flv", ".wmv", ".3gp", ".ts")
JPEG_ENDINGS = (".jpg", ".jpeg")
SPLITS = {"train": ("train",), "val": ("val", "test", "validation")}                    # a split's names on disk
PLAIN = re.compile(r"(.+?)[\s,]+([+-]?\d+)")                       # path, label
WITH_FRAMES = re.compile(r"(.+?)[\s,]+\d+[\s,]+([+-]?\d+)")       # path, frames, label
Videos = list[tuple[str, int]]


def find_folder(name: str, data_root: str = "") -> Path:
    """Where a dataset lies: data_root, else $MOTE_DATA/name, else data/name. Raises FileNotFoundError naming both."""
    places = [Path(data_root)] if data_root else [
        *([Path(os.environ["MOTE_DATA"]) / name] if os.environ.get("MOTE_DATA") else []), Path("data") / name]
    for place in places:
        if place.is_dir():
            return place
    raise FileNotFoundError(f"dataset {name}: no folder at {' or '.join(map(str, places))}; wanted: a folder with "
                            "train.txt, val.txt and classes.csv, or one folder of videos per class "
                            "(--data-root DIR says where)")


def read_split(folder: Path, split: str, list_file: str = "", class_file: str = "") -> tuple[Videos, list[str]]:
    """The (path, label) pairs of a split and the class names. split: "train" or "val"."""
    folder = Path(folder)
    found = [folder / f"{name}{end}" for name in SPLITS[split] for end in (".txt", ".csv")]
    listing = Path(list_file) if list_file else next((file for file in found if file.is_file()), None)
    if listing is not None:
        csvs = [folder / "classes.csv", folder / "labels.csv"]
        names = Path(class_file) if class_file else next((file for file in csvs if file.is_file()), None)
        if names is None:
            raise FileNotFoundError(f"{listing} needs class names: {csvs[0]} with lines `id,name` "
                                    "(or --class-names FILE)")
        classes = read_classes(names)
        videos = read_list(listing, folder, len(classes))
        if not any(os.path.exists(path) for path, _ in videos[:20]):
            raise FileNotFoundError(f"{listing}: none of its first videos exists, for one {videos[0][0]}; "
                                    "its paths are relative to --data-root")
        return videos, classes
    parts = [folder / name for names in SPLITS.values() for name in names if (folder / name).is_dir()]
    for part in parts:
        if part.name in SPLITS[split]:                           # a class may be missing on one side: labels count all
            return read_class_folders(part, {name for side in parts for name in class_folders(side)})
    if not needs_split(folder):
        raise FileNotFoundError(f"{folder} has no {split} list ({split}.txt) and no folder {split}")
    videos, classes = read_class_folders(folder)
    return split_per_class(videos)[split], classes


def needs_split(folder: Path) -> bool:
    """Whether a folder has neither lists nor a folder of any split: then its classes are split 80 / 20."""
    names = [name for split in SPLITS.values() for name in split]
    return not any((folder / f"{name}{end}").exists() for name in names for end in ("", ".txt", ".csv"))


def read_list(file: str | Path, folder: str | Path, num_classes: int) -> Videos:
    """Parse a list; see the top of this file. The frames column is taken as one only if every line has it."""
    lines = [(n, line.strip()) for n, line in enumerate(read_text(file).splitlines(), 1) if line.strip()]
    if not lines:
        raise ValueError(f"{file}: a list with no videos")
    pattern = WITH_FRAMES if all(WITH_FRAMES.fullmatch(line) for _, line in lines) else PLAIN
    videos = []
    for n, line in lines:
        match = pattern.fullmatch(line)
        if not match:
            raise ValueError(f"{file}, line {n}: expected `path label` or `path frames label`, got {line[:80]!r}")
        path, label = match[1], int(match[2])
        if not 0 <= label < num_classes:
            raise ValueError(f"{file}, line {n}: label {label} is out of range 0..{num_classes - 1}")
        videos.append((os.path.join(folder, path), label))
    return videos


def write_split(folder: Path, split: str, videos: Videos, classes: list[str]) -> None:
    """Keep a split as this module reads it (with --data-root .), so that nobody has to guess a run's videos."""
    lines = [f"{path} {label}" for path, label in videos]
    if all(WITH_FRAMES.fullmatch(line) for line in lines):       # paths that end in a number: say that it is no count
        lines = [f"{path} 0 {label}" for path, label in videos]
    (folder / f"{split}.txt").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    with open(folder / "classes.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(enumerate(classes))


def read_classes(file: str | Path) -> list[str]:
    """Class names from a csv of `id,name`, with or without a header line; a name may hold commas."""
    names: dict[int, str] = {}
    try:
        rows = [row for row in csv.reader(read_text(file).splitlines(), strict=True) if row]
    except csv.Error as error:
        raise ValueError(f"{file}: not a csv ({error})") from None
    if rows and not rows[0][0].strip().isdecimal():
        rows = rows[1:]
    for row in rows:
        number, name = row[0].strip(), ",".join(row[1:]).strip()
        if not number.isdecimal() or not name:
            raise ValueError(f"{file}: expected `id,name` with a number and a name that is not empty, "
                             f"got {','.join(row)[:80]!r}")
        if int(number) in names:
            raise ValueError(f"{file}: id {int(number)} stands there twice")
        names[int(number)] = name
    if not names or sorted(names) != list(range(len(names))):
        missing = next((i for i in range(len(names)) if i not in names), 0)
        raise ValueError(f"{file}: ids must be 0..{max(len(names) - 1, 0)} without a gap; {missing} is missing")
    return [names[i] for i in range(len(names))]


def class_folders(folder: Path) -> list[str]:
    """Names of the folders inside, but hidden ones."""
    return [entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith(".")]


def read_class_folders(folder: Path, everywhere: set[str] = frozenset()) -> tuple[Videos, list[str]]:
    """One folder per class, holding video files or folders of JPEGs. Labels follow the sorted folder names: of this
    folder, or of `everywhere`, the folder names of all splits, so that a label means the same class in each.
    """
    here = class_folders(folder)
    if not here:
        raise ValueError(f"{folder}: neither a list nor a folder per class")
    names = sorted(everywhere or here)
    classes = [class_name(name) for name in names]
    wrong = [name for name, words in zip(names, classes) if not words or classes.count(words) > 1]
    if wrong:
        raise ValueError(f"{folder}: each folder must name a class of its own; {wrong[0]!r} does not")
    videos: Videos = []
    for name in sorted(here):
        label, entry = names.index(name), folder / name
        inside = sorted(file for file in entry.iterdir() if not file.name.startswith(".") and (
            any(f.suffix.lower() in JPEG_ENDINGS for f in file.iterdir()) if file.is_dir()
            else file.suffix.lower() in VIDEO_ENDINGS))
        if not inside:
            raise ValueError(f"{entry}: a class with no videos (endings: {' '.join(VIDEO_ENDINGS)}, "
                             "or folders of JPEGs)")
        videos += [(str(file), label) for file in inside]
    return videos, classes


def split_per_class(videos: Videos, part: float = 0.8, seed: int = 0) -> dict[str, Videos]:
    """80 / 20 within each class, by its own seed, so that every run and eval.py agree. Both sides get one of each."""
    split: dict[str, Videos] = {"train": [], "val": []}
    for label in sorted({label for _, label in videos}):
        of_class = sorted(path for path, other in videos if other == label)
        if len(of_class) < 2:
            raise ValueError(f"{Path(of_class[0]).parent}: one video cannot be split in two; add another, "
                             "or FOLDER/train and FOLDER/val")
        random.Random(f"{seed} {label}").shuffle(of_class)
        cut = min(max(1, round(part * len(of_class))), len(of_class) - 1)
        split["train"] += [(path, label) for path in of_class[:cut]]
        split["val"] += [(path, label) for path in of_class[cut:]]
    return split


def class_name(folder: str) -> str:
    """Words of a folder's name.

    >>> class_name("brush_hair"), class_name("ApplyEyeMakeup"), class_name("YoYo")
    ('brush hair', 'Apply Eye Makeup', 'Yo Yo')
    """
    words = folder.replace("_", " ").strip()
    return words if " " in words else re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", words)


def read_text(file: str | Path) -> str:
    """A text file, with or without a byte order mark. Raises FileNotFoundError or ValueError."""
    if not Path(file).is_file():
        raise FileNotFoundError(f"no file at {file}")
    try:
        return Path(file).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{file}: not UTF-8 text ({error.reason} at byte {error.start})") from None
