"""
A dataset's folder: where it lies, its class folders, and videos found by their stem.

    FOLDER/train/CLASS/x.mp4, FOLDER/val/CLASS/y.mp4      one folder per class, or
    FOLDER/CLASS/x.mp4                                    the same, split 80 / 20 within each class

A video is a file or a folder of JPEGs. A stem is a video's file name without the ending. A side
is "train" or "val". Lists of videos are read in lists.py. Every mistake is a ValueError or
FileNotFoundError of one line. What is no mistake, but worth a line, is a note: files that are not
read, and class names that only folders say.
Copy alone: needs the standard library only. Not part of the paper.
"""
import functools
import hashlib
import os
import re
from collections.abc import Callable
from pathlib import Path

VIDEO_ENDINGS = (".mp4", ".avi", ".mkv", ".webm", ".mov", ".m4v", ".mpg", ".mpeg", ".flv", ".wmv",
                 ".3gp", ".ts")
# Videos too, as lists may name them. A class folder's are not read: that would move old splits.
OTHER_ENDINGS = (".mts", ".m2ts", ".vob", ".ogv", ".ogg", ".gif", ".asf", ".f4v", ".m2v", ".rmvb",
                 ".divx", ".mp4v", ".qt")
JPEG_ENDINGS = (".jpg", ".jpeg")
# The names that a side has on disk, the most usual one first.
SIDES = {"train": ("train",), "val": ("val", "validation", "validate", "test")}
SIDE_NAMES = SIDES["train"] + SIDES["val"]
Videos = list[tuple[str, int]]                                    # path, label


# --- names ----------------------------------------------------------------------------------------
def stem(path: str) -> str:
    """A video's name without its folders and its ending: the part that re-encoding keeps.

    >>> stem("catch/Mr._Bean_catch_1.avi"), stem("frames/78687")
    ('Mr._Bean_catch_1', '78687')
    """
    name, ending = os.path.splitext(os.path.basename(path))
    if ending.lower() in VIDEO_ENDINGS:
        return name
    return name + ending


def bare_stem(path: str) -> str:
    """A name without any ending of a video: downloads and re-uploads add a second one.

    Videos are found by it, and by `stem` before it. Splits and hashes know `stem` alone: they must
    not change.

    >>> bare_stem("catch/x.mp4.mkv"), stem("catch/x.mp4.mkv")
    ('x', 'x.mp4')
    """
    name = os.path.basename(path)
    while has_video_ending(name):
        name = os.path.splitext(name)[0]
    return name


def has_video_ending(path: str) -> bool:
    """Whether a name ends as a video's, also one that is read where a list names it alone."""
    return os.path.splitext(path)[1].lower() in VIDEO_ENDINGS + OTHER_ENDINGS


def class_name(folder: str) -> str:
    """The words of a folder's name.

    >>> class_name("brush_hair"), class_name("ApplyEyeMakeup"), class_name("YoYo")
    ('brush hair', 'Apply Eye Makeup', 'Yo Yo')
    """
    words = folder.replace("_", " ").strip()
    if " " in words:
        return words
    return re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", words)


@functools.cache
def plain(name: str) -> str:
    """What two spellings of one class, or a class and its folder, have in common.

    >>> plain("HandStandPushups") == plain("Handstand Pushups")
    True
    >>> plain("brush_hair") == plain("brush hair")
    True
    """
    return "".join(name.replace("_", " ").split()).casefold()


@functools.cache
def letters(name: str) -> str:
    """The letters and digits of a class: what every way to write a folder's name keeps.

    >>> letters("passing_football_-in_game-") == letters("passing football (in game)")
    True
    """
    return "".join(filter(str.isalnum, name)).casefold()


def class_finder(classes: list[str]) -> Callable[[str], int | None]:
    """A function from a spelling of a class to its place in `classes`; None: no class, or several.

    Spellings that are `plain` alike come first, then those of the same letters and digits.

    >>> find = class_finder(["catch", "tying knot (not on a tie)"])
    >>> find("Catch"), find("tying_knot_-not_on_a_tie-"), find("throw")
    (0, 1, None)
    """
    alike: dict[str, list[int]] = {}
    similar: dict[str, list[int]] = {}
    for i, name in enumerate(classes):
        alike.setdefault(plain(name), []).append(i)
        similar.setdefault(letters(name), []).append(i)
    similar.pop("", None)                          # of names without any letter

    def find(name: str) -> int | None:
        places = alike.get(plain(name)) or similar.get(letters(name), [])
        return places[0] if len(places) == 1 else None
    return find


# --- files and folders ----------------------------------------------------------------------------
def find_folder(name: str, data_root: str = "") -> Path:
    """Where a dataset lies: data_root, else $MOTE_DATA/name, else data/name.

    Raises FileNotFoundError, which names every place that was looked at.
    """
    places = [Path("data") / name]
    if os.environ.get("MOTE_DATA"):
        places.insert(0, Path(os.environ["MOTE_DATA"]) / name)
    # A mistyped --data-root must not end at another copy of the dataset.
    if data_root:
        places = [Path(data_root)]

    for place in places:
        if place.is_dir():
            return place
    raise FileNotFoundError(
        f"dataset {name}: no folder at {' or '.join(map(str, places))}; wanted: a folder with "
        "train.txt, val.txt and classes.csv, the dataset's own lists, or one folder of videos per "
        "class (--data-root DIR says where)")


def read_text(file: str | Path) -> str:
    """A text file in UTF-8, with or without a byte order mark, or in UTF-16 with one, as Windows
    writes it. Raises FileNotFoundError, or ValueError for what is no text or stands in its place.
    """
    if not Path(file).is_file():
        raise FileNotFoundError(f"no file at {file}")
    with open(file, "rb") as opened:
        begin = opened.read(512)
    instead = stands_for_text(begin)
    if instead:
        raise ValueError(f"{file}: {instead}")
    utf_16 = begin[:2] in (b"\xff\xfe", b"\xfe\xff")
    # A mark that is left in (plain "utf-8") would become a part of the first path or id.
    try:
        return Path(file).read_text(encoding="utf-16" if utf_16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        reason = f"line {line}: {error.reason} at byte {error.start}"
        raise ValueError(f"{file}: not UTF-8 text ({reason})") from None


def stands_for_text(begin: bytes) -> str:
    """What stands in the place of a list or class file, by its first bytes; "" for a text file.

    >>> stands_for_text(b"catch/x.mp4 3"), stands_for_text("catch".encode("utf-16-le"))
    ('', 'not UTF-8 text (UTF-16 without a byte order mark, or UTF-32)')
    """
    if begin.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer, not the file itself: run `git lfs pull` where it was cloned"
    if re.match(rb"(\xef\xbb\xbf)?\s*<(!|\?xml|html)", begin, re.IGNORECASE):
        return "a saved web page, not the file itself: download it with the page's download link"
    # One alone is left to the reader of the list, who names its line.
    if begin[:4].count(0) > 1:
        return "not UTF-8 text (UTF-16 without a byte order mark, or UTF-32)"
    return ""


def is_video(path: str) -> bool:
    """Whether a path is a file with the ending of a video, or a folder of JPEGs."""
    if not os.path.isdir(path):
        return path.lower().endswith(VIDEO_ENDINGS)
    with os.scandir(path) as entries:
        return any(entry.name.lower().endswith(JPEG_ENDINGS) for entry in entries)


def folders_of_videos(folder: str) -> list[str]:
    """A folder and all folders below it. Links are followed.

    Left out: hidden folders, unreadable ones (lost+found at the root of a disk), and folders of
    JPEGs, which are videos.
    """
    # Real paths: a link to a folder above must not go round for ever.
    seen: set[str] = set()
    found: list[str] = []
    todo = [folder]
    while todo:
        parent = todo.pop()
        real = os.path.realpath(parent)
        if real in seen:
            continue
        try:
            # Not asked of the dataset's folder itself: a stray .jpg must not hide a dataset.
            if parent != folder and is_video(parent):
                continue
            names = os.listdir(parent)
        except OSError:
            continue
        seen.add(real)
        found.append(parent)

        paths = [os.path.join(parent, name) for name in sorted(names) if not name.startswith(".")]
        todo += [path for path in paths if os.path.isdir(path)]
    return found


# --- videos that are not where the list says ------------------------------------------------------
def locate(videos: Videos, folder: str | Path) -> Videos:
    """Each video where it is on disk: at its path, else at the one path that has its stem.

    A video is looked for by its stem, then by its bare stem
    1. beside its path, because re-encoding changes the ending;
    2. in the whole folder, in class folders of the same name, because official archives unpack
       into a folder of their own;
    3. in the whole folder, in folders that are no class of the list, because some people keep
       all videos in one folder.
    The whole folder is walked once at most. A video that val lists is never taken from train, nor
    the other way round. Where several paths have the stem, the only one with the listed ending is
    taken, because some people keep frames beside videos. Otherwise two paths are no answer.
    A video that is not found keeps its path.
    """
    paths_in = functools.cache(paths_by_stem)                     # each folder is listed once
    classes = {class_folder(path) for path, _ in videos}

    @functools.cache
    def everywhere() -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for parent in folders_of_videos(str(folder)):
            for name, paths in paths_in(parent).items():
                found.setdefault(name, []).extend(paths)
        return found

    def beside(path: str, name: str) -> list[str]:
        return [other for other in paths_in(os.path.dirname(path)).get(name, []) if is_video(other)]

    def elsewhere(path: str, name: str) -> list[str]:
        same_stem = [other for other in everywhere().get(name, []) if is_video(other)]
        others = [other for other in same_stem if may_share_side(path, other, str(folder))]
        same_class = [other for other in others if class_folder(other) == class_folder(path)]
        return same_class or [other for other in others if class_folder(other) not in classes]

    def place(path: str) -> str:
        if path in paths_in(os.path.dirname(path)).get(stem(path), []):
            return path
        found: list[str] = []
        for look in (beside, elsewhere):
            for name in (stem(path), BARE + bare_stem(path)):
                found = found or look(path, name)

        name = os.path.basename(path)
        same_ending = [other for other in found if os.path.basename(other) == name]
        found = same_ending or found
        if len(found) == 1:
            return found[0]
        return path

    return [(place(path), label) for path, label in videos]


# Before a bare stem, where stems are keys too. No file's name holds a slash.
BARE = "/"


def paths_by_stem(folder: str) -> dict[str, list[str]]:
    """Stem, and BARE + bare stem -> the paths in a folder that have it, videos or not.

    {} where there is no folder.
    """
    found: dict[str, list[str]] = {}
    if os.path.isdir(folder):
        for name in os.listdir(folder):
            path = os.path.join(folder, name)
            found.setdefault(stem(name), []).append(path)
            found.setdefault(BARE + bare_stem(name), []).append(path)
    return found


def class_folder(path: str) -> str:
    """The folder that a video lies in, as `plain` compares class names."""
    return plain(os.path.basename(os.path.dirname(path)))


def may_share_side(path: str, other: str, folder: str) -> bool:
    """False if the folders of two paths name sides, as train_256 and val_mp4 do, and no common one.

    Only names below `folder` count.

    >>> may_share_side("D/train_256/a/x.mp4", "D/val_mp4/a/x.mp4", "D")
    False
    >>> may_share_side("D/train_256/a/x.mp4", "D/a/x.mp4", "D")
    True
    """
    def sides(path: str) -> set[str]:
        below = os.path.dirname(path).removeprefix(folder)
        words = re.split(r"[^a-z]+", below.lower())
        return {word for word in words if word in SIDE_NAMES}

    mine = sides(path)
    theirs = sides(other)
    return not mine or not theirs or bool(mine & theirs)


# --- one folder per class -------------------------------------------------------------------------
def class_folders(folder: Path) -> list[str]:
    """Names of the folders inside, without hidden ones, in no order."""
    folders = [entry.name for entry in folder.iterdir() if entry.is_dir()]
    return [name for name in folders if not name.startswith(".")]


def read_class_folders(folder: Path, everywhere: set[str] | None = None,
                       own_names: list[str] | None = None) -> tuple[Videos, list[str]]:
    """Videos and class names of a folder that holds one folder of videos per class.

    Labels follow the sorted folder names: those of this folder or, where given, of `everywhere`,
    the folder names of all sides, so that a label means the same class on each side. own_names:
    the dataset's class names, from its class file; labels are places in it then. Raises ValueError
    without any folder, where two folders name one class, as a_b and "a b" do, and for a folder
    that is none of own_names.
    """
    here = sorted(class_folders(folder))
    if not here:
        raise ValueError(f"{folder}: neither a list nor a folder per class")

    names = sorted(everywhere or here)
    classes = own_names or [class_name(name) for name in names]
    labels = labels_of_folders(folder, names, own_names)
    videos: Videos = []
    for name in here:
        videos += [(path, labels[name]) for path in videos_of_class(folder / name)]
    return videos, classes


def labels_of_folders(folder: Path, names: list[str],
                      own_names: list[str] | None) -> dict[str, int]:
    """Folder name -> label, as `read_class_folders` says, which says what is raised too."""
    if own_names:
        find = class_finder(own_names)
        places = [find(name) for name in names]
    else:
        words = [class_name(name) for name in names]
        # Two folders of one class get one place, and the second is refused below.
        places = [words.index(each) if each else None for each in words]

    labels: dict[str, int] = {}
    for name, place in zip(names, places):
        if own_names and place is None:
            raise ValueError(f"{folder / name}: not the folder of one of the {len(own_names)} "
                             "classes that the class file names")
        if place is None or place in labels.values():
            raise ValueError(
                f"{folder}: each folder must name a class of its own; {name!r} does not")
        labels[name] = place
    return labels


def videos_of_class(folder: Path) -> list[str]:
    """The sorted paths of a class folder's videos. Raises ValueError where there are none."""
    entries = sorted(file for file in folder.iterdir() if not file.name.startswith("."))
    videos = [file for file in entries if is_video(str(file))]
    if not videos:
        endings = " ".join(VIDEO_ENDINGS)
        inside = [file for file in entries if file.is_dir()]
        hint = ""
        if inside:
            hint = (f"; {inside[0].name!r} lies inside, but a class folder holds its videos "
                    "itself, and the folder of a side is called train or val")
        raise ValueError(f"{folder}: a class with no videos (endings: {endings}, "
                         f"or folders of JPEGs){hint}")

    # Frames kept beside their video are not a second one: it would stand on both sides of a split.
    # Files come after folders here, so of one stem the file stays.
    by_stem = {stem(str(file)): file for file in sorted(videos, key=Path.is_file)}
    return [str(file) for file in sorted(by_stem.values())]


def files_not_read(folders: list[Path]) -> list[str]:
    """The sorted paths of files in class folders that do not end as videos do; no hidden ones."""
    files = []
    for folder in folders:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_file() and not entry.name.startswith("."):
                    files.append(entry.path)
    return sorted(file for file in files if not file.lower().endswith(VIDEO_ENDINGS))


def note_on_files(folders: list[Path]) -> str:
    """One line that counts `files_not_read` and names the first three; "" where there are none."""
    files = files_not_read(folders)
    if not files:
        return ""
    count = "1 file of another ending is" if len(files) == 1 else (
        f"{len(files)} files of other endings are")
    more = ", ..." if len(files) > 3 else ""
    return f"{count} not read: {', '.join(files[:3])}{more}"


def misplaced_videos(folders: list[Path]) -> list[str]:
    """The sorted paths of video files below class folders, or beside them, where nobody looks.

    folders: the class folders. Frames of a video, in a folder of JPEGs, are none.
    """
    places = {str(folder.parent) for folder in folders}
    for folder in folders:
        places.update(folders_of_videos(str(folder))[1:])        # the first is the class folder
    files = []
    for place in places - {str(folder) for folder in folders}:
        with os.scandir(place) as entries:
            for entry in entries:
                hidden = entry.name.startswith(".")
                if entry.is_file() and not hidden and is_video(entry.path):
                    files.append(entry.path)
    return sorted(files)


def note_on_places(folders: list[Path]) -> str:
    """One line that counts `misplaced_videos` and names the first three; "" for none."""
    files = misplaced_videos(folders)
    if not files:
        return ""
    count = "1 video is" if len(files) == 1 else f"{len(files)} videos are"
    more = ", ..." if len(files) > 3 else ""
    return (f"{count} not read, since a class folder holds its videos itself: "
            f"{', '.join(files[:3])}{more}")


def note_on_names(names: list[str]) -> str:
    """One line where class names come from folders that may have lost brackets and other marks.

    People write "tying knot (not on a tie)" as tying_knot_-not_on_a_tie-, and without any mark too.
    "" where no name has two words, or where some folder's name holds such a mark: nothing is lost.
    """
    of_words = [name for name in sorted(names) if " " in class_name(name)]
    if not of_words or any(re.search(r"[(),']", name) for name in names):
        return ""
    # The name that shows best what was lost.
    traces = [name for name in of_words if re.search(r"[_-]{2}|[_-]$", name)]
    name = (traces or of_words)[0]
    return (f"no class file: folders say the class names, {name!r} says {class_name(name)!r}; "
            "brackets and other marks that a folder's name lacks are lost (a classes.csv with "
            "lines `id,name` gives them back)")


def split_per_class(videos: Videos, part: float = 0.8, seed: int = 0) -> dict[str, Videos]:
    """{"train": videos, "val": videos}, split 80 / 20 within each class; both have one of each.

    Videos are ordered by a hash of the seed and their stem. So adding a video moves at most one
    other, the one at the cut, and a re-encoded copy is split as the original is. part: the share of
    the training side. Raises ValueError for a class with one video.
    """
    def drawn_place(path: str) -> bytes:
        return hashlib.sha256(f"{seed} {stem(path)}".encode()).digest()

    of_class: dict[int, list[str]] = {}
    for path, label in videos:
        of_class.setdefault(label, []).append(path)

    sides: dict[str, Videos] = {"train": [], "val": []}
    for label, paths in sorted(of_class.items()):
        if len(paths) < 2:
            raise ValueError(f"{Path(paths[0]).parent}: one video cannot be split in two; "
                             "add another, or FOLDER/train and FOLDER/val")
        paths = sorted(paths, key=drawn_place)
        cut = max(1, round(part * len(paths)))
        cut = min(cut, len(paths) - 1)
        sides["train"] += [(path, label) for path in paths[:cut]]
        sides["val"] += [(path, label) for path in paths[cut:]]
    return sides
