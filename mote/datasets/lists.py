"""
What a dataset's folder means: the videos, labels and class names of its train and val side.

Lists of videos and class files come first; without lists, one folder of videos per class.
Lists are found by their names (finding_lists.py) and read in the formats that people have
(parsing_lists.py, class_files.py) and that the datasets publish (published_lists.py). Their paths
are relative to the dataset's folder, may hold spaces, and are looked for by their stem where they
are not there (folders.py). Absolute paths and links are followed, `..` is refused. A side is
"train" or "val"; a split is the number of a published split, "" where there is one list only. What
a folder without lists leaves unread or unsaid is in its `notes`.
Every mistake is a ValueError or FileNotFoundError of one line that names the file, the line and
the rule. Copy together with finding_lists.py, parsing_lists.py, class_files.py,
published_lists.py and folders.py; needs the standard library only. Not part of the paper.
"""
import os
import re
from pathlib import Path

try:
    from . import folders
    from .class_files import read_classes
    from .finding_lists import (
        class_part,
        find_classes,
        find_lists,
        lists_passed_over,
        names_in,
        needs_split,
        published_splits,
        side_folders,
    )
    from .folders import SIDES, Videos
    from .parsing_lists import (
        label_rows,
        list_rows,
        own_classes,
        read_list,
        write_split,
    )
except ImportError:                                # copied beside them, outside the package
    import folders
    from class_files import read_classes
    from finding_lists import (
        class_part,
        find_classes,
        find_lists,
        lists_passed_over,
        names_in,
        needs_split,
        published_splits,
        side_folders,
    )
    from folders import SIDES, Videos
    from parsing_lists import (
        label_rows,
        list_rows,
        own_classes,
        read_list,
        write_split,
    )

__all__ = ["Videos", "find_classes", "find_lists", "needs_split", "notes", "published_splits",
           "read_classes", "read_list", "read_split", "write_split"]


def read_split(folder: Path, side: str, list_file: str = "", class_file: str = "",
               split: str = "", name: str = "") -> tuple[Videos, list[str]]:
    """The (path, label) pairs of one side of a dataset, and the class names.

    split: of the published splits; "": the only or the first one. list_file and class_file stand
    in for the folder's; a {} in them becomes the split. name: the dataset's, where it is not its
    folder's. A label is a place in the class names, from 0. Videos that are not on disk stay in the
    list, so that its hash is the published list's. Raises ValueError or FileNotFoundError, one line
    each.
    """
    folder = Path(folder)
    split = split or published_splits(folder, side, list_file, name)[0]

    # A list that is given is used for both sides: HMDB-51's lists hold both.
    if list_file:
        given = {split: Path(list_file.replace("{}", split))}
        lists = {each: given for each in SIDES}
    else:
        lists = {each: find_lists(folder, each, name) for each in SIDES}

    if lists[side]:
        if split not in lists[side]:
            there = ", ".join(str(file) for _, file in sorted(lists[side].items()))
            raise FileNotFoundError(f"{folder}: no {side} list of split {split}, but {there}")
        files = {each: found[split] for each, found in lists.items() if split in found}
        names = class_names_for(folder, files[side], class_file, split, name)
        return read_listed(folder, side, files, names)
    # Class folders have no splits: a number that was asked for must not be passed over in silence.
    if split:
        raise FileNotFoundError(
            f"{folder}: split {split} needs a list of that number, and there is none")
    return read_unlisted(folder, side, class_file, name)


def class_names_for(folder: Path, file: Path, class_file: str, split: str,
                    name: str) -> Path | None:
    """The class file of a list: the given one, else the folder's, else one beside the list.

    A list of base or novel classes needs one of the same classes: labels in range would have
    another meaning in any other. Raises ValueError where the given one is of the other classes.
    """
    part = class_part(file.name)
    if class_file:
        given = Path(class_file.replace("{}", split))
        if part and class_part(given.name) not in ("", part):
            raise ValueError(f"--class-names {given} is not of the {part} classes of {file}")
        return given
    return find_classes(folder, split, name, part) or find_classes(file.parent, split, part=part)


def read_listed(folder: Path, side: str, files: dict[str, Path],
                names: Path | None) -> tuple[Videos, list[str]]:
    """`read_split` where there is a list. files: side -> its list of this split.

    names: its class file. Without one, the class names are those in the lists. Raises
    FileNotFoundError where none of the videos exists; some may be missing.
    """
    file = files[side]

    # UCF-101's own lists: their labels start at 1, so the class folders are read instead.
    by_folder = names is not None and names.name == "classInd.txt"
    by_folder = by_folder or "classInd.txt" in names_in(file.parent)

    if names:
        classes = read_classes(names)
        rows = list_rows(file, side, by_folder, folder, classes)
    else:
        # Labels count the classes of both sides: one side may lack a class.
        both = {}
        for each in files:
            same = each != side and files[each] == file          # a given list may be of one side
            both[each] = list_rows(files[each], each, by_folder, folder, may_be_empty=same)
        rows = both[side]
        part = class_part(file.name)
        if part and any(isinstance(label, int) for _, _, label in rows):
            raise FileNotFoundError(f"{file} needs the names of its {part} classes: "
                                    f"{part}_labels.csv in the same folder, or --class-names FILE")
        classes = own_classes(file, folder, sum(both.values(), []))

    videos = folders.locate(label_rows(rows, folder, classes), folder)
    # Some may be gone, as from YouTube. Where all are, the folder is wrong.
    if not any(os.path.exists(path) for path, _ in videos):
        raise FileNotFoundError(f"{file}: none of its videos exists, for one "
                                f"{videos[0][0][:200]!r}; {where_paths_count_from(rows[0][1])}")
    return videos, classes


def where_paths_count_from(path: str) -> str:
    """Why a path of a list may lead nowhere: its last part of an error.

    >>> where_paths_count_from("catch/x.mp4")
    'its paths are relative to --data-root'
    >>> where_paths_count_from("D:/catch/x.mp4").startswith("'D:' is a place on another machine")
    True
    """
    drive = re.match(r"([A-Za-z]:)[/\\]|([A-Za-z][A-Za-z0-9+.-]+:)//", path)
    if drive:
        return (f"{drive[1] or drive[2]!r} is a place on another machine, and no video of these "
                "names is below --data-root")
    if os.path.isabs(path):
        return "its paths are absolute, and no video of these names is below --data-root"
    return "its paths are relative to --data-root"


def read_unlisted(folder: Path, side: str, class_file: str = "",
                  name: str = "") -> tuple[Videos, list[str]]:
    """`read_split` where there are no lists: class folders, in a folder per side or split 80 / 20.

    The class names are those of the class file, if there is one: folders may be named otherwise.
    Raises FileNotFoundError where there is a list or a folder for the other side only.
    """
    names = Path(class_file) if class_file else find_classes(folder, "", name)
    own_names = read_classes(names) if names else None
    here = side_folders(folder, side)
    if here:
        # Labels count the classes of all sides: one side may lack a class.
        classes = {part.name for part in unlisted_folders(folder)}
        return folders.read_class_folders(here[0], classes, own_names)

    # Never split what somebody has split: a train folder without val is a mistake to report.
    if not needs_split(folder, name):
        raise FileNotFoundError(f"{folder} has no {side} list ({side}.txt) and no folder {side}"
                                f"{hint_on_lists(folder, name)}")
    try:
        videos, classes = folders.read_class_folders(folder, own_names=own_names)
    except ValueError as error:
        raise ValueError(f"{error}{hint_on_lists(folder, name)}") from None
    return folders.split_per_class(videos)[side], classes


def hint_on_lists(folder: Path, name: str) -> str:
    """The last part of an error where there is no list: what might be one; "" without such."""
    passed = lists_passed_over(folder, name)
    return f"; {passed[0][0]} is {passed[0][1]}: give it as a list" if passed else ""


def unlisted_folders(folder: Path) -> list[Path]:
    """The class folders of a dataset without lists, those of all sides.

    D/train/catch and D/val/catch are both returned; without sides, D/catch. In no order.
    """
    sides: list[Path] = []
    for each in SIDES:
        sides += side_folders(folder, each)
    found: list[Path] = []
    for part in sides or [folder]:
        found += [part / name for name in folders.class_folders(part)]
    return found


def notes(folder: Path, side: str, list_file: str = "", class_file: str = "",
          name: str = "") -> list[str]:
    """What a user should know of a side that class folders say, one line each; [] for a list.

    Files and videos that are not read, class names that folders say, and lists passed over.
    """
    # A list names its videos itself: what else lies in the folders is not meant.
    if list_file or find_lists(folder, side, name):
        return []
    classes = unlisted_folders(folder)
    found = [folders.note_on_files(classes), folders.note_on_places(classes)]
    if not (class_file or find_classes(folder, "", name)):
        found.append(folders.note_on_names([part.name for part in classes]))
    passed = lists_passed_over(folder, name)
    for why in dict.fromkeys(why for _, why in passed):
        files = [file for file, reason in passed if reason == why]
        found.append(f"not taken, since it is {why}: {', '.join(files[:3])}")
    return [f"{folder}: {note}" for note in found if note]
