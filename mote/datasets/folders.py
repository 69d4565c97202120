"""
A dataset's folder: where it lies, one folder per class, and videos found by their stem.

    FOLDER/train/CLASS/x.mp4, FOLDER/val/CLASS/y.mp4      one folder per class, or
    FOLDER/CLASS/x.mp4                                    the same, split 80 / 20 within each class by us

A video is a file or a folder of JPEGs. Lists are read in lists.py. Every mistake is a ValueError or FileNotFoundError
of one line. Copy alone: needs the standard library only. Not part of the paper.
"""
import functools
import hashlib
import os
import re
from pathlib import Path

VIDEO_ENDINGS = (".mp4", ".avi", ".mkv", ".webm", ".mov", ".m4v", ".mpg", ".mpeg", ".flv", ".wmv", ".3gp", ".ts")
JPEG_ENDINGS = (".jpg", ".jpeg")
SPLITS = {"train": ("train",), "val": ("val", "validation", "validate", "test")}        # a split's names on disk
Videos = list[tuple[str, int]]


def find_folder(name: str, data_root: str = "") -> Path:
    """Where a dataset lies: data_root, else $MOTE_DATA/name, else data/name. Raises FileNotFoundError naming both."""
    places = [Path(data_root)] if data_root else [
        *([Path(os.environ["MOTE_DATA"]) / name] if os.environ.get("MOTE_DATA") else []), Path("data") / name]
    for place in places:
        if place.is_dir():
            return place
    raise FileNotFoundError(f"dataset {name}: no folder at {' or '.join(map(str, places))}; wanted: a folder with "
                            "train.txt, val.txt and classes.csv, the dataset's own lists, or one folder of videos per "
                            "class (--data-root DIR says where)")


def stem(path: str) -> str:
    """A video's name without folders and without the ending of a video file: what re-encoding does not change.

    >>> stem("catch/Mr._Bean_catch_1.avi"), stem("frames/78687")
    ('Mr._Bean_catch_1', '78687')
    """
    name, ending = os.path.splitext(os.path.basename(path))
    return name if ending.lower() in VIDEO_ENDINGS else name + ending


def is_video(path: str) -> bool:
    """A file with the ending of a video, or a folder of JPEGs."""
    if not os.path.isdir(path):
        return path.lower().endswith(VIDEO_ENDINGS)
    with os.scandir(path) as entries:
        return any(entry.name.lower().endswith(JPEG_ENDINGS) for entry in entries)


def locate(videos: Videos, folder: str | Path) -> Videos:
    """Each video where it is on disk: at its path, else at the one path of its stem; where there is none, unchanged.

    Looked for beside its path (re-encoded files change their ending), then in the whole folder, walked once: where the
    class folder has the same name (official archives unpack into a folder of their own), or is none of the list's
    (some people keep all videos in one folder); but not in train where val is listed. Of several, the only one of the
    listed ending is meant (some people keep frames beside videos); otherwise two files of one stem are no answer.
    """
    @functools.cache
    def stems(parent: str) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for name in os.listdir(parent) if os.path.isdir(parent) else ():
            found.setdefault(stem(name), []).append(os.path.join(parent, name))
        return found

    @functools.cache
    def everywhere() -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for parent in folders_of_videos(str(folder)):
            for name, paths in stems(parent).items():
                found.setdefault(name, []).extend(paths)
        return found

    def class_of(path: str) -> str:
        return plain(os.path.basename(os.path.dirname(path)))

    owned = {class_of(path) for path, _ in videos}

    def sides(path: str) -> set[str]:
        words = re.split(r"[^a-z]+", os.path.dirname(path).removeprefix(str(folder)).lower())      # train_256, val_mp4
        return {name for names in SPLITS.values() for name in names if name in words}

    def place(path: str) -> str:
        here = stems(os.path.dirname(path)).get(stem(path), [])
        if path in here:
            return path
        found = [other for other in here if is_video(other)]
        if not found:
            mine = sides(path)
            others = [other for other in everywhere().get(stem(path), []) if is_video(other)
                      and (not mine or not sides(other) or mine & sides(other))]
            found = ([other for other in others if class_of(other) == class_of(path)]
                     or [other for other in others if class_of(other) not in owned])
        same = [other for other in found if os.path.basename(other) == os.path.basename(path)]
        found = same or found
        return found[0] if len(found) == 1 else path

    return [(place(path), label) for path, label in videos]


def folders_of_videos(folder: str) -> list[str]:
    """A folder and all folders below it, but hidden and unreadable ones and folders of JPEGs, which are videos. Links
    are followed.
    """
    seen, found, todo = set(), [], [folder]
    while todo:
        parent = todo.pop()
        real = os.path.realpath(parent)
        try:
            if real in seen or (parent != folder and is_video(parent)):          # a stray .jpg hides no dataset
                continue
            names = os.listdir(parent)
        except OSError:                                          # as lost+found at the root of a disk
            continue
        seen.add(real)                                           # a link to a folder above must not go round for ever
        found.append(parent)
        paths = (os.path.join(parent, name) for name in sorted(names) if not name.startswith("."))
        todo += [path for path in paths if os.path.isdir(path)]
    return found


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
        inside = sorted(file for file in entry.iterdir() if not file.name.startswith(".") and is_video(str(file)))
        # Frames kept beside their video are not a second one: it would stand on both sides of a split.
        inside = sorted({stem(str(file)): file for file in sorted(inside, key=Path.is_file)}.values())
        if not inside:
            raise ValueError(f"{entry}: a class with no videos (endings: {' '.join(VIDEO_ENDINGS)}, "
                             "or folders of JPEGs)")
        videos += [(str(file), label) for file in inside]
    return videos, classes


def split_per_class(videos: Videos, part: float = 0.8, seed: int = 0) -> dict[str, Videos]:
    """80 / 20 within each class, both sides with one of each, in the order of a hash of the seed and the video's stem:
    a video more or less moves no other across, and a prepared copy is split as the original.
    """
    split: dict[str, Videos] = {"train": [], "val": []}
    for label in sorted({label for _, label in videos}):
        of_class = sorted((path for path, other in videos if other == label), key=lambda path: hashlib.sha256(
            f"{seed} {stem(path)}".encode()).digest())
        if len(of_class) < 2:
            raise ValueError(f"{Path(of_class[0]).parent}: one video cannot be split in two; add another, "
                             "or FOLDER/train and FOLDER/val")
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


@functools.cache
def plain(name: str) -> str:
    """What two spellings of one class, or a class and its folder, have in common.

    >>> plain("HandStandPushups") == plain("Handstand Pushups"), plain("brush_hair") == plain("brush hair")
    (True, True)
    """
    return "".join(name.replace("_", " ").split()).casefold()


def read_text(file: str | Path) -> str:
    """A text file, with or without a byte order mark. Raises FileNotFoundError or ValueError."""
    if not Path(file).is_file():
        raise FileNotFoundError(f"no file at {file}")
    try:
        return Path(file).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{file}: not UTF-8 text ({error.reason} at byte {error.start})") from None
