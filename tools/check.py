"""
What is wrong with a dataset, before a training or an evaluation: its lists, class names and files.

    python tools/check.py --data hmdb51                  # all its splits -> runs/check-hmdb51
    python tools/check.py --data k400 --data-root DIR --jobs 16 --decode all
                                                         # every frame, not nine of each video
    python tools/check.py --data ucf101 --list test.txt --class-names classes.csv --decode none
                                                         # headers only

It looks where eval.py looks. A video that crashes the decoder or hangs is named, and the others are
checked nevertheless. OUT/checked.jsonl keeps what was seen of each video: after Ctrl-C the same
command opens only those that are left or have changed. OUT also gets findings.json, and lists
without the videos that cannot be used (train.txt, val.txt, classes.csv; for a dataset of several
splits train1.txt, ...). No label and no name is changed there.

Exit status: 0 nothing found, 1 findings, 2 a mistake in the command.
"""
import argparse
import json
import os
import shlex
import sys
from collections import Counter, defaultdict
from pathlib import Path

from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).parents[1]))
from mote.data import require_decoder  # noqa: E402
from mote.datasets.folders import (  # noqa: E402
    SIDES,
    bare_stem,
    class_folders,
    find_folder,
    folders_of_videos,
    note_on_files,
    note_on_places,
)
from mote.datasets.lists import (  # noqa: E402
    find_lists,
    needs_split,
    published_splits,
    read_split,
    unlisted_folders,
    write_split,
)
from mote.datasets.lists import notes as notes_on_folders  # noqa: E402
from mote.runtime.errors import one_line_errors  # noqa: E402
from mote.runtime.options import plain_errors  # noqa: E402
from tools.checks.lists import Findings, Lists, check_labels, check_same  # noqa: E402
from tools.checks.videos import DEPTHS, compare_all, examine_all  # noqa: E402

SHORT = 8                                        # frames; clips of a shorter video repeat some
EXAMPLES = 3                                     # findings of each kind that are printed
SAMPLE = 3                                       # videos of each container, sought and in order
SMALL_BATCH = 16                                 # clips, where a list is shorter than a batch
# Endings -> the container that they promise. Others promise nothing.
PROMISED = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mp4", ".3gp": "mp4", ".mkv": "mkv",
            ".webm": "mkv", ".avi": "avi", ".mpg": "mpeg", ".mpeg": "mpeg", ".ts": "mpegts",
            ".flv": "flv", ".wmv": "asf"}

# Kind of finding -> what to do about it, in the order in which they are printed.
KINDS = {
    "list refused": "correct that line; the rest of the list was not looked at",
    "classes differ":
        "a label must mean the same in both: give both one class file (--class-names)",
    "duplicate class name":
        "no model can tell the two apart: merge them, or correct the class file",
    "class without videos":
        "look for its videos, or take the class out and number the labels anew",
    "misnamed class": "look at some of its videos; correct the name in the class file, "
                      "or the labels in the list",
    "misnamed video":
        "look at the video; correct its label, or leave it if only the file's name is odd",
    "two labels": "keep the line that is right (the good lists have neither)",
    "in train and val":
        "take it out of train (so do the good lists): testing on it tests nothing",
    "listed twice": "keep one line (so do the good lists)",
    "other ending":
        "class folders are read by the endings of files: re-encode a video (ffmpeg -i IN OUT.mp4) "
        "or name it in a list; there is nothing to do about other files",
    "misplaced": "move it into the folder of its class, or name it in a list",
    "missing": "where another file is named, give it that path or write its own into the list; "
               "else download it, or take the line out",
    "two candidates":
        "neither was taken: remove or rename one of them, or give the path in the list",
    "empty file": "it holds nothing: another copy is needed",
    "absurd size": "not decoded; look at it: its header may be damaged",
    "no video": "take the line out: there is nothing to see but a cover",
    "not a video": "something else has a video's name: look at it, find the video",
    "cut off": "its end is missing: find a whole copy; tools/prepare.py keeps what can be read",
    "undecodable": "tools/prepare.py re-encodes what ffmpeg can read of it",
    "decoder crashed": "re-encode it: tools/prepare.py, or ffmpeg -i IN OUT.mp4",
    "decoder hung": "re-encode it (tools/prepare.py), or give it longer: --timeout",
    "fewer frames than claimed": "cut off or damaged, or its end does not decode: "
                                 "tools/prepare.py keeps the frames that do",
    "wrong frames": "seeking misses the frames asked for, in others of its kind too: "
                    "re-encode them with tools/prepare.py",
    "no duration": "its time stamps are damaged, its frames are not: nothing to do for mote",
    "short video":
        f"fewer than {SHORT} frames: clips repeat them; leave it out if the action is not in them",
}
# The same where class folders stand in place of lists, and no line can be corrected.
KINDS_OF_FOLDERS = {
    "list refused": "correct that folder; the rest of that side was not looked at",
    "class without videos":
        "look for its videos, or take its folder out of the other side (or its name out of the "
        "class file)",
    "misnamed class": "look at some of its videos; correct the name of the folder, or the name in "
                      "the class file",
    "misnamed video": "look at the video; move it into the folder of its class, or leave it if "
                      "only the file's name is odd",
    "two labels": "keep the copy in the folder of its class (the good lists have neither)",
    "in train and val": "keep one of the files (the good lists take it out of train): testing on "
                        "it tests nothing",
    "listed twice": "keep one of the files (so do the good lists)",
    "no video": "take the file out: there is nothing to see but a cover",
}
# The good lists leave out the videos of these kinds.
UNUSABLE = {
    "missing", "two candidates", "empty file", "absurd size", "no video", "not a video", "cut off",
    "undecodable", "decoder crashed", "decoder hung", "fewer frames than claimed", "wrong frames",
}


def split_of(name: str) -> str:
    """The number of the split that a list belongs to.

    >>> split_of("train1"), split_of("val")
    ('1', '')
    """
    return name.removeprefix("train").removeprefix("val")


# --- lists ----------------------------------------------------------------------------------------
def read_lists(folder: Path, options: argparse.Namespace, findings: Findings) -> Lists:
    """Every list of every split that there is, as eval.py would read it.

    A list that is refused becomes a finding, and the others are read. Raises FileNotFoundError
    where there is no list at all.
    """
    # A mistake in the command, most likely a wrong folder: not a finding for each list.
    if not options.list and needs_split(folder, options.data) and not class_folders(folder):
        raise FileNotFoundError(f"{folder}: neither lists (train.txt, val.txt) nor a folder per "
                                "class")
    lists: Lists = {}
    absent = []
    refused = False
    for side, split in lists_to_read(folder, options):
        name = f"{side}{split}"
        try:
            lists[name] = read_split(folder, side, options.list, options.class_names, split,
                                     options.data)
        except FileNotFoundError as error:
            absent.append(error)
            if is_expected(folder, side, split, options.data):
                findings.add("list refused", str(error), [name])
        except ValueError as error:
            refused = True
            findings.add("list refused", str(error), [name])

    if not lists and not refused:
        raise absent[0]
    return lists


def lists_to_read(folder: Path, options: argparse.Namespace) -> list[tuple[str, str]]:
    """(side, split) of each list that may be there: ("train", "1"), ..., ("val", "")."""
    wanted = []
    for side in SIDES:
        if options.list and side != "val":       # a list alone is read as a test list
            continue
        splits = [options.split]
        if not options.split:
            splits = published_splits(folder, side, options.list, options.data)
        wanted += [(side, split) for split in splits]
    return wanted


def find_unread(folder: Path, options: argparse.Namespace, findings: Findings) -> list[str]:
    """Find what class folders leave out. -> what train.py says of them, but for that

    Only of sides without a list: a list says itself what is read.
    """
    sides = [side for side in SIDES if not find_lists(folder, side, options.data)]
    if options.list or not sides:
        return []
    classes = unlisted_folders(folder)
    left_out = {"other ending": note_on_files(classes), "misplaced": note_on_places(classes)}
    told = [what for what in left_out.values() if what]
    for kind, what in left_out.items():
        if what:
            findings.add(kind, what, sides)
    lines = notes_on_folders(folder, sides[0], "", options.class_names, options.data)
    return [line for line in lines if not any(what in line for what in told)]


def is_expected(folder: Path, side: str, split: str, name: str) -> bool:
    """Whether a list that could not be read should have been readable.

    Some datasets have test lists only, or fewer train lists than test lists: that is no finding.
    """
    found = find_lists(folder, side, name)
    if found:
        return split in found
    # Without lists the classes are folders: those of all videos, or those of this side.
    return needs_split(folder, name) or any((folder / name).is_dir() for name in SIDES[side])


# --- files ----------------------------------------------------------------------------------------
def check_files(lists: Lists, folder: Path, options: argparse.Namespace, findings: Findings
                ) -> dict[str, dict]:
    """Find what is wrong with the files that the lists name.

    -> path -> record (checks/videos.py) of every video that was opened
    """
    where = names_of_lists(lists)
    there = [path for path in where if os.path.exists(path)]
    sizes = {path: os.path.getsize(path) for path in there if not os.path.isdir(path)}

    find_missing(where, set(there), folder, findings)
    for path, size in sizes.items():
        if size == 0:
            findings.add("empty file", path, where[path], [path])

    # Only files of one size can have one content. Folders of JPEGs have no size: not hashed.
    times = Counter(sizes.values())
    hashed = {path for path, size in sizes.items() if times[size] > 1}
    # A folder of JPEGs is opened too.
    todo = [path for path in there if sizes.get(path) != 0]
    file = Path(options.out) / "checked.jsonl"
    records = examine_all(todo, options.decode, hashed, file, options.jobs, options.timeout)

    seen = {}
    for path, record in tqdm(records, total=len(todo), unit="video", disable=None):
        seen[path] = record
        judge_record(path, record, where[path], findings)

    sample = [] if options.decode == "none" else sample_of_each(seen)
    for path, record in compare_all(sample, options.jobs, options.timeout):
        judge_record(path, record, where[path], findings)
    return seen


def sample_of_each(seen: dict[str, dict]) -> list[str]:
    """The first SAMPLE good videos of each container in which frames are sought."""
    of_kind: dict[str, list[str]] = defaultdict(list)
    for path, record in sorted(seen.items()):
        sought = record.get("container") and not record["in_order"]
        if sought and "problem" not in record:
            of_kind[record["container"]].append(path)
    sample = []
    for paths in of_kind.values():
        sample += paths[:SAMPLE]
    return sample


def describe_reading(seen: dict[str, dict]) -> list[str]:
    """Lines on what is no fault: videos read in order, and names that promise another container."""
    slow: dict[str, list[str]] = defaultdict(list)
    misnamed = []
    for path, record in sorted(seen.items()):
        if "problem" in record or not record.get("container"):
            continue
        if record["in_order"]:
            slow[record["in_order"]].append(path)
        promised = PROMISED.get(os.path.splitext(path)[1].lower())
        if promised and promised != record["container"]:
            misnamed.append(f"{path} is {record['container']}")

    lines = []
    for why, paths in slow.items():
        lines.append(f"{len(paths)} videos are read in order: {why} ({paths[0]}); right, but slow "
                     "where videos are long: tools/prepare.py")
    if misnamed:
        lines.append(f"{len(misnamed)} videos have the name of another container, which mote does "
                     f"not mind: {', '.join(misnamed[:EXAMPLES])}")
    return lines


def names_of_lists(lists: Lists) -> dict[str, list[str]]:
    """Path -> the lists that it stands in, each once. A file in three splits is opened once."""
    where: dict[str, list[str]] = defaultdict(list)
    for name, (videos, _) in lists.items():
        for path, _ in videos:
            if name not in where[path]:
                where[path].append(name)
    return where


def find_missing(where: dict[str, list[str]], there: set[str], folder: Path, findings: Findings
                 ) -> None:
    """Videos that are not at their paths.

    Files of the same stem are named, wherever they are in the dataset's folder: one was not taken
    if there are several, if only the capitals differ, or for its ending.
    """
    missing = [path for path in where if path not in there]
    if not missing:
        return

    # The folder is walked only now: a complete dataset of a million videos need not wait for it.
    stems: dict[str, list[str]] = defaultdict(list)
    for parent in folders_of_videos(str(folder)):
        for name in os.listdir(parent):
            stems[bare_stem(name).casefold()].append(os.path.join(parent, name))

    for path in missing:
        near = sorted(stems[bare_stem(path).casefold()])
        kind = "two candidates" if len(near) > 1 else "missing"
        what = path
        if near:
            what += f", but there is {' and '.join(near)}"
        findings.add(kind, what, where[path], [path])


def judge_record(path: str, record: dict, names: list[str], findings: Findings) -> None:
    """Turn what was seen of a video into findings.

    names: the lists that it stands in. A video with a problem has no other finding: what its header
    says may be wrong.
    """
    if "problem" in record:
        kind, what = record["problem"]
        findings.add(kind, f"{path}: {what}", names, [path])
        return
    if record.get("frames", SHORT) < SHORT:
        findings.add("short video", f"{path}: {record['frames']} frames", names, [path])
    # A folder of JPEGs has no duration in its record. "not >" is also true of nan.
    if "seconds" in record and not (record["seconds"] or 0) > 0:
        findings.add("no duration", f"{path}: {record['seconds']} s", names, [path])


# --- what comes out -------------------------------------------------------------------------------
def write_lists(out: Path, lists: Lists, unusable: set[str], drop: set[tuple[str, int]]
                ) -> dict[str, int]:
    """Write the good lists, readable with --data-root . -> name -> number of videos

    unusable: paths to leave out. drop: (list, line) to leave out. A list without a good video is
    not written.
    """
    # Those of an earlier run, which may have had other splits.
    for file in [*out.glob("train*.txt"), *out.glob("val*.txt"), *out.glob("classes*.csv")]:
        file.unlink()

    lengths = {}
    for name, (videos, classes) in lists.items():
        # In the order of the list, so that a diff with it shows what was left out.
        good = []
        for line, video in enumerate(videos):
            if video[0] not in unusable and (name, line) not in drop:
                good.append(video)
        if good:
            # It writes classes.csv; each split may have class names of its own.
            write_split(out, name, good, classes)
            (out / "classes.csv").replace(out / f"classes{split_of(name)}.csv")
            lengths[name] = len(good)
    return lengths


def write_findings(out: Path, folder: Path, data: str, lists: Lists, lengths: dict[str, int],
                   notes: list[str], findings: Findings) -> None:
    """Keep everything that was found, for other programs to read.

    lengths: the good lists' numbers of videos. notes: what is worth a line, but no finding.
    """
    content = {
        "data": data,
        "folder": str(folder),
        "lists": {name: len(videos) for name, (videos, _) in lists.items()},
        "good": lengths,
        "notes": notes,
        "findings": list(findings.values()),
    }
    (out / "findings.json").write_text(json.dumps(content, indent=1))


def summary(findings: Findings, of_folders: bool) -> str:
    """Of each kind: how many, what to do about them, and some examples.

    of_folders: whether class folders were read, and no list.
    """
    advices = {**KINDS, **KINDS_OF_FOLDERS} if of_folders else KINDS
    lines = []
    for kind, advice in advices.items():
        entries = [entry for entry in findings.values() if entry["kind"] == kind]
        if not entries:
            continue
        lines += ["", f"{len(entries)} x {kind}: {advice}"]
        for entry in entries[:EXAMPLES]:
            line = f"    {', '.join(entry['lists'])}: {entry['what']}"
            # A finding about a class says nothing of single videos: give one to look at.
            videos = entry["videos"]
            if videos and videos[0] not in entry["what"]:
                line += f"; for one {videos[0]}"
            lines.append(line)
        if len(entries) > EXAMPLES:
            lines.append(f"    ... {len(entries) - EXAMPLES} more in findings.json")
    return "\n".join(lines)


def training_command(data: str, out: Path, lengths: dict[str, int]) -> str:
    """The command that trains on the good lists of the first split that has both.

    It has a --batch where the dataset's own is larger than the list, which train.py refuses.
    "" if there is no such split.
    """
    # Here, because it loads open_clip.
    import train

    for name, length in lengths.items():
        split = split_of(name)
        if not name.startswith("train") or f"val{split}" not in lengths:
            continue
        words = ["python", "train.py", "--data", data, "--data-root", ".",
                 "--train-list", f"{out}/train{split}.txt", "--val-list", f"{out}/val{split}.txt",
                 "--class-names", f"{out}/classes{split}.csv"]
        if length < train.parse_config(["--data", data]).batch:
            words += ["--batch", str(min(length, SMALL_BATCH))]
        return shlex.join(words)
    return ""


# --- the command ----------------------------------------------------------------------------------
def parse(argv: list[str] | None) -> argparse.Namespace:
    """The command line, checked, with --data and --out filled in."""
    parser = plain_errors(argparse.ArgumentParser("check.py", description=__doc__))
    add = parser.add_argument
    add("--data", default="", help="a dataset: $MOTE_DATA/NAME or data/NAME")
    add("--data-root", default="", help="the dataset's folder, wherever it is")
    add("--list", default="", help="check this list alone, in place of the folder's")
    add("--class-names", default="", help="a csv of id,name in place of the folder's")
    add("--split", default="", help="number of a published split; none: all of them")
    add("--jobs", type=int, default=os.cpu_count() or 1, help="processes that open videos")
    add("--decode", default="some", choices=DEPTHS,
        help="frames of each video: none, the first, nine, or all")
    add("--timeout", type=float, default=60, help="seconds for one video")
    add("--out", default="", help="the folder for results; empty: runs/check-NAME")
    options = parser.parse_args(argv)

    if not (options.data or options.data_root):
        parser.error("give --data NAME, or --data-root DIR")
    if options.jobs < 1 or not options.timeout > 0:              # nan is refused too
        parser.error("--jobs must be at least 1 and --timeout above 0, "
                     f"got {options.jobs}, {options.timeout:g}")
    options.data = options.data or Path(options.data_root).absolute().name
    options.out = options.out or f"runs/check-{options.data}"
    return options


def refuse_foreign(out: Path) -> None:
    """Raise ValueError for a folder with other things in it: lists in it would be deleted."""
    if not out.exists():
        return
    ours = out.is_dir() and ((out / "checked.jsonl").exists() or not any(out.iterdir()))
    if not ours:
        raise ValueError(f"--out {out} holds something else: choose a new folder, "
                         "or one of this tool")


def check(options: argparse.Namespace) -> int:
    """All checks, from the quick ones to the slow one. -> exit status

    Raises ValueError or OSError for what keeps it from checking anything.
    """
    out = Path(options.out)
    folder = find_folder(options.data, options.data_root)
    findings = Findings()
    refuse_foreign(out)
    require_decoder()

    lists = read_lists(folder, options, findings)
    out.mkdir(parents=True, exist_ok=True)
    (out / "checked.jsonl").touch()              # from now on the folder is ours
    notes = check_labels(lists, findings)
    of_folders = find_unread(folder, options, findings)
    for name, (videos, classes) in lists.items():
        print(f"{name}: {len(videos)} videos, {len(classes)} classes")

    # A video may be in the train list of one split and in the val list of another: only what
    # stands twice in one split is wrong.
    seen = check_files(lists, folder, options, findings)
    drop: set[tuple[str, int]] = set()
    for split in dict.fromkeys(split_of(name) for name in lists):
        of_split = {name: content for name, content in lists.items() if split_of(name) == split}
        drop |= check_same(of_split, seen, findings)

    notes += describe_reading(seen)
    unusable: set[str] = set()
    for entry in findings.values():
        if entry["kind"] in UNUSABLE:
            unusable.update(entry["videos"])
    lengths = write_lists(out, lists, unusable, drop)
    write_findings(out, folder, options.data, lists, lengths, notes + of_folders, findings)

    has_lists = any(find_lists(folder, side, options.data) for side in SIDES)
    found = summary(findings, of_folders=not options.list and not has_lists)
    print("\n".join([*notes, found or "nothing found", *of_folders]))
    good = ", ".join(f"{name}.txt ({length})" for name, length in lengths.items())
    print(f"\n{out}/findings.json; good lists: {good}")
    command = training_command(options.data, out, lengths)
    if command:
        print(command)
    return 1 if findings else 0


def main(argv: list[str] | None = None) -> int:
    """-> exit status: 0 nothing found, 1 findings, 130 after Ctrl-C"""
    with one_line_errors("tools/check.py"):
        try:
            return check(parse(argv))
        except KeyboardInterrupt:
            print("stopped; the same command goes on from here", file=sys.stderr)
            return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
