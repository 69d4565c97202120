"""
What a dataset's folder means: the videos, labels and class names of its train and val side.

Lists of videos and class files come first; without lists, one folder of videos per class.
Lists are found by their names (finding_lists.py) and read in the formats that people have
(parsing_lists.py) and that the datasets publish (published_lists.py). Their paths are relative to
the dataset's folder, may hold spaces, and are looked for by their stem where they are not there
(folders.py). Absolute paths and links are followed, `..` is refused. A side is "train" or "val"; a
split is the number of a published split, "" where there is one list only.
Every mistake is a ValueError or FileNotFoundError of one line that names the file, the line and
the rule. Copy together with finding_lists.py, parsing_lists.py, published_lists.py and folders.py;
needs the standard library only. Not part of the paper.
"""
import os
from pathlib import Path

try:
    from . import folders
    from .finding_lists import (
        find_classes,
        find_lists,
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
        read_classes,
        read_list,
        write_split,
    )
except ImportError:                                # copied beside them, outside the package
    import folders
    from finding_lists import (
        find_classes,
        find_lists,
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
        read_classes,
        read_list,
        write_split,
    )

__all__ = ["Videos", "find_classes", "find_lists", "needs_split", "published_splits",
           "read_classes", "read_list", "read_split", "write_split"]


def read_split(folder: Path, side: str, list_file: str = "", class_file: str = "",
               split: str = "") -> tuple[Videos, list[str]]:
    """The (path, label) pairs of one side of a dataset, and the class names.

    split: of the published splits; "": the only or the first one. list_file and class_file stand
    in for the folder's; a {} in them becomes the split. A label is a place in the class names, from
    0. Videos that are not on disk stay in the list, so that its hash is the published list's.
    Raises ValueError or FileNotFoundError, one line each.
    """
    folder = Path(folder)
    split = split or published_splits(folder, side, list_file)[0]

    # A list that is given is used for both sides: HMDB-51's lists hold both.
    if list_file:
        given = {split: Path(list_file.replace("{}", split))}
        lists = {each: given for each in SIDES}
    else:
        lists = {each: find_lists(folder, each) for each in SIDES}

    if lists[side]:
        if split not in lists[side]:
            there = ", ".join(str(file) for _, file in sorted(lists[side].items()))
            raise FileNotFoundError(f"{folder}: no {side} list of split {split}, but {there}")
        files = {each: found[split] for each, found in lists.items() if split in found}
        return read_listed(folder, side, files, class_file, split)
    # Class folders have no splits: a number that was asked for must not be passed over in silence.
    if split:
        raise FileNotFoundError(
            f"{folder}: split {split} needs a list of that number, and there is none")
    return read_unlisted(folder, side)


def read_listed(folder: Path, side: str, files: dict[str, Path], class_file: str,
                split: str) -> tuple[Videos, list[str]]:
    """`read_split` where there is a list. files: side -> its list of this split.

    class_file: --class-names, or "" to look for one in the folder, then beside the list. Without
    any, the class names are those in the lists. Raises FileNotFoundError where none of the videos
    exists; some may be missing.
    """
    file = files[side]
    names = Path(class_file.replace("{}", split)) if class_file else None
    names = names or find_classes(folder, split) or find_classes(file.parent, split)

    # UCF-101's own lists: their labels start at 1, so the class folders are read instead.
    by_folder = names is not None and names.name == "classInd.txt"
    by_folder = by_folder or "classInd.txt" in names_in(file.parent)

    if names:
        rows = list_rows(file, side, by_folder)
        classes = read_classes(names)
    else:
        # Labels count the classes of both sides: one side may lack a class.
        both = {each: list_rows(files[each], each, by_folder) for each in files}
        rows = both[side]
        classes = own_classes(file, folder, sum(both.values(), []))

    videos = folders.locate(label_rows(rows, folder, classes), folder)
    if not any(os.path.exists(path) for path, _ in videos):
        raise FileNotFoundError(f"{file}: none of its videos exists, for one "
                                f"{videos[0][0][:200]!r}; its paths are relative to --data-root")
    return videos, classes


def read_unlisted(folder: Path, side: str) -> tuple[Videos, list[str]]:
    """`read_split` where there are no lists: class folders, in a folder per side or split 80 / 20.

    Raises FileNotFoundError where there is a list or a folder for the other side only.
    """
    here = side_folders(folder, side)
    if here:
        # Labels count the classes of all sides: one side may lack a class.
        classes: set[str] = set()
        for each in SIDES:
            for part in side_folders(folder, each):
                classes.update(folders.class_folders(part))
        return folders.read_class_folders(here[0], classes)

    # Never split what somebody has split: a train folder without val is a mistake to report.
    if not needs_split(folder):
        raise FileNotFoundError(
            f"{folder} has no {side} list ({side}.txt) and no folder {side}")
    videos, names = folders.read_class_folders(folder)
    return folders.split_per_class(videos)[side], names
