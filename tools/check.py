"""
What is wrong with a dataset, before a training or an evaluation: its lists, its class names, its files.

    python tools/check.py --data hmdb51                                          # all its splits -> runs/check-hmdb51
    python tools/check.py --data k400 --data-root DIR --jobs 16 --decode all     # every frame, not nine of each video
    python tools/check.py --data ucf101 --list test.txt --class-names classes.csv --decode none        # headers only

Looks where eval.py looks. A video that crashes the decoder or hangs is named and the rest goes on. OUT/checked.jsonl
keeps what was seen of each video: after Ctrl-C the same command opens only the others, and what changed. OUT also gets
findings.json, and lists without the videos that cannot be used (train.txt, val.txt, classes.csv; train1.txt, ... of
official splits). No label and no name is changed there.
Exit status: 0 nothing found, 1 findings, 2 a mistake in the command.
"""
import argparse
import json
import os
import sys
from collections import Counter, defaultdict
from pathlib import Path

from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).parents[1]))
from mote.data import require_decoder  # noqa: E402
from mote.datasets.folders import SPLITS, class_folders, find_folder, folders_of_videos, stem  # noqa: E402
from mote.datasets.lists import find_lists, needs_split, published_splits, read_split, write_split  # noqa: E402
from mote.runtime.errors import one_line_errors  # noqa: E402
from mote.runtime.options import plain_errors  # noqa: E402
from tools.checks.lists import Findings, Lists, check_labels, check_same  # noqa: E402
from tools.checks.videos import DEPTHS, examine_all  # noqa: E402

SHORT = 8                                                        # frames
KINDS = {        # kind -> what to do about it; the good lists do without the videos of kinds with a *
    "list refused": "correct that line; the rest of the list was not looked at",
    "classes differ": "a label must mean the same in both: give both one class file (--class-names)",
    "duplicate class name": "no model can tell the two apart: merge them, or correct the class file",
    "class without videos": "look for its videos, or take the class out and number the labels anew",
    "misnamed class": "look at some of its videos; correct the name in the class file, or the labels in the list",
    "misnamed video": "look at the video; correct its label, or leave it if only the file's name is odd",
    "two labels": "keep the line that is right (the good lists have neither)",
    "in train and val": "take it out of train (so do the good lists): testing on it tests nothing",
    "listed twice": "keep one line (so do the good lists)",
    "missing": "*download it, or take the line out",
    "two candidates": "*neither was taken: remove or rename one of them, or give the path in the list",
    "empty file": "*download it again",
    "absurd size": "*not decoded; look at it, download it again",
    "undecodable": "*download it again, or re-encode it: ffmpeg -i IN OUT.mp4",
    "decoder crashed": "*download it again, or re-encode it: ffmpeg -i IN OUT.mp4",
    "decoder hung": "*re-encode it, or give it longer: --timeout",
    "fewer frames than claimed": "*cut off or damaged, or its end does not decode: download or re-encode it",
    "no duration": "its time stamps are damaged, its frames are not: nothing to do for mote",
    "short video": f"fewer than {SHORT} frames: clips repeat them; leave it out if the action is not in them",
}


def number_of(name: str) -> str:
    return name.removeprefix("train").removeprefix("val")


# --- lists ------------------------------------------------------------------------------------------------------------
def read_lists(folder: Path, options: argparse.Namespace, findings: Findings) -> Lists:
    """Every list of every split that there is; one that is refused becomes a finding."""
    if not options.list and needs_split(folder) and not class_folders(folder):
        raise FileNotFoundError(f"{folder}: neither lists (train.txt, val.txt) nor a folder per class")
    lists, absent, refused = {}, [], False
    for split in ("val",) if options.list else SPLITS:
        found = find_lists(folder, split)
        parts = needs_split(folder) or any((folder / name).is_dir() for name in SPLITS[split])
        for number in [options.split] if options.split else published_splits(folder, split, options.list):
            name = f"{split}{number}"
            try:
                lists[name] = read_split(folder, split, options.list, options.class_names, number)
            except FileNotFoundError as error:
                absent += [error]
                if number in found or (parts and not found):     # else there is no such list: nothing to check
                    findings.add("list refused", str(error), [name])
            except ValueError as error:
                refused = True
                findings.add("list refused", str(error), [name])
    if not lists and not refused:
        raise absent[0]
    return lists


# --- files ------------------------------------------------------------------------------------------------------------
def check_files(lists: Lists, folder: Path, options: argparse.Namespace, findings: Findings) -> dict[str, dict]:
    """Path -> record (checks/videos.py) of every video that is there; what is wrong with files is found."""
    where = defaultdict(list)
    for name, (videos, _) in lists.items():
        for path, _ in videos:
            where[path] += [] if name in where[path] else [name]
    there = {path: os.path.isdir(path) or os.path.getsize(path) for path in where if os.path.exists(path)}
    stems = defaultdict(list)
    for parent in folders_of_videos(str(folder)) if len(there) < len(where) else ():
        for name in os.listdir(parent):
            stems[stem(name).casefold()].append(os.path.join(parent, name))
    for path in where.keys() - there.keys():
        near = sorted(stems[stem(path).casefold()])
        findings.add("two candidates" if len(near) > 1 else "missing",
                     path + (f", but there is {' and '.join(near)}" if near else ""), where[path], [path])
    for path in (path for path, size in there.items() if not size):
        findings.add("empty file", path, where[path], [path])

    sizes, seen = Counter(size for size in there.values() if size is not True), {}
    same = {path for path, size in there.items() if size is not True and sizes[size] > 1}    # True: a folder of JPEGs
    todo = [path for path, size in there.items() if size]
    for path, record in tqdm(examine_all(todo, options.decode, same, Path(options.out) / "checked.jsonl", options.jobs,
                                         options.timeout), total=len(todo), unit="video", disable=None):
        seen[path] = record
        if "problem" in record:
            findings.add(record["problem"][0], f"{path}: {record['problem'][1]}", where[path], [path])
        elif record.get("frames", SHORT) < SHORT:
            findings.add("short video", f"{path}: {record['frames']} frames", where[path], [path])
        if "problem" not in record and not (record.get("seconds", 1) or 0) > 0:
            findings.add("no duration", f"{path}: {record['seconds']} s", where[path], [path])
    return seen


# --- what comes out ---------------------------------------------------------------------------------------------------
def write_lists(out: Path, lists: Lists, unusable: set[str], drop: set[tuple[str, int]]) -> dict[str, int]:
    """The lists without unusable videos and dropped lines, readable with --data-root . -> their lengths"""
    for file in [*out.glob("train*.txt"), *out.glob("val*.txt"), *out.glob("classes*.csv")]:
        file.unlink()
    lengths = {}
    for name, (videos, classes) in lists.items():
        good = [video for i, video in enumerate(videos) if video[0] not in unusable and (name, i) not in drop]
        if good:
            write_split(out, name, good, classes)
            (out / "classes.csv").replace(out / f"classes{number_of(name)}.csv")
            lengths[name] = len(good)
    return lengths


def summary(findings: Findings, examples: int = 3) -> str:
    """Counts, examples and what to do, for each kind."""
    out = []
    for kind, advice in KINDS.items():
        mine = [entry for entry in findings.values() if entry["kind"] == kind]
        if mine:
            out += ["", f"{len(mine)} x {kind}: {advice.lstrip('*')}"]
            for entry in mine[:examples]:
                example = [f"; for one {path}" for path in entry["videos"][:1] if path not in entry["what"]]
                out += [f"    {', '.join(entry['lists'])}: {entry['what']}{''.join(example)}"]
            out += [f"    ... {len(mine) - examples} more in findings.json"] if len(mine) > examples else []
    return "\n".join(out)


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = plain_errors(argparse.ArgumentParser("check.py", description=__doc__,
                                                  formatter_class=argparse.RawDescriptionHelpFormatter))
    add = parser.add_argument
    add("--data", default="", help="a dataset: $MOTE_DATA/NAME or data/NAME")
    add("--data-root", default="", help="the dataset's folder, wherever it is")
    add("--list", default="", help="check this list alone, in place of the folder's")
    add("--class-names", default="", help="a csv of id,name in place of the folder's")
    add("--split", default="", help="number of an official split; none: all of them")
    add("--jobs", type=int, default=os.cpu_count() or 1, help="processes that open videos")
    add("--decode", default="some", choices=DEPTHS, help="frames of each video: none, the first, nine, or all")
    add("--timeout", type=float, default=60, help="seconds for one video")
    add("--out", default="", help="the folder for results; empty: runs/check-NAME")
    options = parser.parse_args(argv)
    if not (options.data or options.data_root):
        parser.error("give --data NAME, or --data-root DIR")
    if options.jobs < 1 or not options.timeout > 0:
        parser.error(f"--jobs must be at least 1 and --timeout above 0, got {options.jobs}, {options.timeout:g}")
    options.data = options.data or Path(options.data_root).absolute().name
    options.out = options.out or f"runs/check-{options.data}"
    return options


def check(options: argparse.Namespace) -> int:
    """All checks, from the quick ones to the slow one. -> exit status"""
    out, folder, findings = Path(options.out), find_folder(options.data, options.data_root), Findings()
    if out.exists() and not (out.is_dir() and ((out / "checked.jsonl").exists() or not any(out.iterdir()))):
        raise ValueError(f"--out {out} holds something else: choose a new folder, or one of this tool")
    require_decoder()
    lists = read_lists(folder, options, findings)
    out.mkdir(parents=True, exist_ok=True)
    (out / "checked.jsonl").touch()
    notes = check_labels(lists, findings)
    for name, (videos, classes) in lists.items():
        print(f"{name}: {len(videos)} videos, {len(classes)} classes")
    seen = check_files(lists, folder, options, findings)
    drop = set()
    for number in dict.fromkeys(number_of(name) for name in lists):
        drop |= check_same({name: of for name, of in lists.items() if number_of(name) == number}, seen, findings)

    unusable = {path for entry in findings.values() if KINDS[entry["kind"]][0] == "*" for path in entry["videos"]}
    lengths = write_lists(out, lists, unusable, drop)
    (out / "findings.json").write_text(json.dumps(
        {"data": options.data, "folder": str(folder), "lists": {name: len(of[0]) for name, of in lists.items()},
         "good": lengths, "notes": notes, "findings": list(findings.values())}, indent=1))
    print("\n".join([*notes, summary(findings) or "nothing found"]))
    print(f"\n{out}/findings.json; good lists: " + ", ".join(f"{n}.txt ({length})" for n, length in lengths.items()))
    for name in [name for name in lengths if name.startswith("train") and name.replace("train", "val") in lengths][:1]:
        n = number_of(name)
        print(f"python train.py --data {options.data} --data-root . --train-list {out}/train{n}.txt "
              f"--val-list {out}/val{n}.txt --class-names {out}/classes{n}.csv")
    return 1 if findings else 0


def main(argv: list[str] | None = None) -> int:
    with one_line_errors("tools/check.py"):
        try:
            return check(parse(argv))
        except KeyboardInterrupt:
            print("stopped; the same command goes on from here", file=sys.stderr)
            return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
