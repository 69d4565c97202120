"""
What is wrong with lists of videos, as far as their names tell. Used by tools/check.py.

Two kinds of mistakes are found: classes and videos that seem to have the wrong name (check_labels),
and one video on several lines (check_same).

Every video votes for a class: for its own if the name of its folder holds that class's name, else
for the longest class name that the folder's name holds. Then all vote again, by their stems. Names
are compared as joined words: HandstandPushups equals HandStandPushups, kick is not in kick_ball.
A class is misnamed if most of its videos vote for one and the same other class. Where at least half
of its videos vote for their own class, the few that vote for another are misnamed one by one.
"""
import functools
import itertools
import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from mote.datasets.folders import Videos, class_name, stem

Lists = dict[str, tuple[Videos, list[str]]]      # "train1", "val", ... -> videos, class names
NO_TITLES = set("v vid video clip img image frame sample train val test".split())


class Findings(dict):
    """(kind, what) -> {kind, what, lists, videos}. The same in three splits is one finding."""

    def add(self, kind: str, what: str, lists: list[str], videos: list[str] = ()) -> None:
        """Note a finding, or the lists and videos that are new to it.

        kind: one of KINDS in tools/check.py. what: a line for the user. lists: names of lists.
        """
        entry = {"kind": kind, "what": what, "lists": [], "videos": []}
        entry = self.setdefault((kind, what), entry)
        entry["lists"] += [name for name in lists if name not in entry["lists"]]
        entry["videos"] += [path for path in videos if path not in entry["videos"]]


# --- names as words -------------------------------------------------------------------------------
def words(text: str) -> list[str]:
    """Lower-case words of a name: cut at spaces, signs, digits and capitals.

    >>> words("v_HandStandPushups_g01"), words("Playing Guitar")
    (['v', 'hand', 'stand', 'pushups', 'g', '01'], ['playing', 'guitar'])
    """
    found = []
    for token in re.findall(r"[^\W_]+", text):
        for part in class_name(token).split():
            found += re.findall(r"\d+|\D+", part)
    return [word.casefold() for word in found]


@functools.lru_cache(maxsize=1 << 16)
def joined(name: str) -> str:
    """What two spellings of one class have in common: "kickball" of Kick_Ball."""
    return "".join(words(name))


@functools.lru_cache(maxsize=1 << 16)
def classes_in(text: str, keys: frozenset[str]) -> frozenset[str]:
    """Those of the joined class names that a text holds as whole words, not inside a longer one.

    >>> sorted(classes_in("Faith_kick_ball_f_cm", frozenset({"kick", "kickball", "catch"})))
    ['kickball']
    """
    parts = words(text)
    ends = itertools.combinations(range(len(parts) + 1), 2)      # parts[i:j] for every (i, j)
    runs = [(i, j) for i, j in ends if "".join(parts[i:j]) in keys]
    longest = [run for run in runs if not inside_another(run, runs)]
    return frozenset("".join(parts[i:j]) for i, j in longest)


def inside_another(run: tuple[int, int], runs: list[tuple[int, int]]) -> bool:
    """Whether a run of words (first, end) lies within another one of the runs."""
    first, end = run
    others = [other for other in runs if other != run]
    return any(a <= first and end <= b for a, b in others)


# --- votes for classes ----------------------------------------------------------------------------
class NameEvidence(NamedTuple):
    """What the names of videos say about their labels."""
    misnamed: dict[int, tuple[int, list[str]]]   # label -> the label its videos name, those videos
    single: list[tuple[str, int, int]]           # a video, its label, the label that it names
    silent: set[int]                             # labels that no name says anything about


def check_names(videos: Videos, classes: list[str]) -> NameEvidence:
    """Compare each label with the class names in the folders and stems of its videos.

    classes: the class names, by label. Two votes are held, as at the top of this file.
    """
    keys = [joined(name) for name in classes]
    evidence = NameEvidence({}, [], set(range(len(classes))))

    for name_of in (folder_name, stem):
        votes = collect_votes(videos, keys, name_of)
        if not tell_classes_apart(votes):
            continue
        for label, of_label in votes.items():
            weigh_votes(label, of_label, keys, evidence)

    once = list(dict.fromkeys(evidence.single))                  # folder and stem may agree
    return evidence._replace(single=once)


def folder_name(path: str) -> str:
    """The name of the folder that a video lies in."""
    return Path(path).parent.name


def collect_votes(videos: Videos, keys: list[str], name_of: Callable[[str], str]
                  ) -> dict[int, dict[str, str]]:
    """label -> path -> the joined class name that the path votes for, "" for none.

    keys: the joined class names, by label. name_of: path -> the name that is looked at.
    """
    telling = frozenset(key for key in keys if has_letters(key))
    votes: dict[int, dict[str, str]] = defaultdict(dict)
    for path, label in videos:
        found = classes_in(name_of(path), telling)
        if keys[label] in found:
            votes[label][path] = keys[label]
        else:                                    # the first by the alphabet of the longest
            votes[label][path] = max(sorted(found), key=len, default="")
    return votes


def has_letters(key: str) -> bool:
    """Whether a class name has three letters or more: "3" or "go" may mean anything.

    In a file name they are more often a number of a clip or a part of a word.
    """
    return sum(letter.isalpha() for letter in key) > 2


def tell_classes_apart(votes: dict[int, dict[str, str]]) -> bool:
    """Whether two classes get votes: one folder or title for all says nothing of labels."""
    named: set[str] = set()
    for of_label in votes.values():
        named.update(of_label.values())
    return len(named - {""}) > 1


def weigh_votes(label: int, of_label: dict[str, str], keys: list[str], evidence: NameEvidence
                ) -> None:
    """Add to the evidence what the votes of one label's videos say.

    of_label: path -> joined class name, "" for none. Where neither most videos agree on another
    class nor half of them on their own, the names tell nothing, and no video is suspected.
    """
    own = keys[label]
    if any(of_label.values()):
        evidence.silent.discard(label)

    others = {path: keys.index(vote) for path, vote in of_label.items() if vote not in ("", own)}
    favourite, most = -1, 0
    if others:
        favourite, most = Counter(others.values()).most_common(1)[0]
    right = sum(vote == own for vote in of_label.values())

    if 2 * most > len(of_label):
        paths = [path for path, named in others.items() if named == favourite]
        evidence.misnamed.setdefault(label, (favourite, paths))  # the folders' verdict goes first
    elif 2 * right >= len(of_label):
        evidence.single.extend((path, label, named) for path, named in others.items())


# --- class names, labels and names of files -------------------------------------------------------
def check_labels(lists: Lists, findings: Findings) -> list[str]:
    """Check the class names, the labels and the names of files. -> notes, which are no findings"""
    notes = []
    for where, (videos, classes) in lists.items():
        find_classes_without_videos(where, videos, classes, findings)
        find_duplicate_names(where, classes, findings)
        find_differing_classes(where, lists, findings)

        evidence = check_names(videos, classes)
        find_misnamed_classes(where, classes, evidence.misnamed, findings)
        for path, label, named in evidence.single:
            findings.add("misnamed video", f"{path} has label {label}, {classes[label]!r}, "
                         f"but names {classes[named]!r}", [where], [path])
        if evidence.silent:
            notes.append(f"{where}: no evidence in the file names for {len(evidence.silent)} of "
                         f"{len(classes)} classes")
    return notes


def find_classes_without_videos(where: str, videos: Videos, classes: list[str],
                                findings: Findings) -> None:
    """Classes that no line of the list has as its label.

    They are ranked all the same, and can only be wrong answers.
    """
    used = {label for _, label in videos}
    for label in range(len(classes)):
        if label not in used:
            findings.add("class without videos", f"label {label}, {classes[label]!r}", [where])


def find_duplicate_names(where: str, classes: list[str], findings: Findings) -> None:
    """Two labels whose class names are spellings of one.

    Their class embeddings would be almost equal, and every answer a toss between the two.
    """
    keys = [joined(name) or name for name in classes]            # a name of signs only stays itself
    for label, key in enumerate(keys):
        first = keys.index(key)
        if first < label:
            findings.add("duplicate class name", f"labels {first} and {label}: "
                         f"{classes[first]!r} and {classes[label]!r}", [where])


def find_differing_classes(where: str, lists: Lists, findings: Findings) -> None:
    """A train list whose class names are not those of the val list of the same split."""
    other = where.replace("train", "val")
    if other not in lists:
        return
    ours, theirs = lists[where][1], lists[other][1]
    if ours == theirs:
        return

    what = f"{len(ours)} and {len(theirs)} classes"
    differing = [label for label, pair in enumerate(zip(ours, theirs)) if pair[0] != pair[1]]
    if differing:
        label = differing[0]
        what = f"label {label} is {ours[label]!r} in {where}, {theirs[label]!r} in {other}"
    findings.add("classes differ", what, [where, other])


def find_misnamed_classes(where: str, classes: list[str],
                          misnamed: dict[int, tuple[int, list[str]]], findings: Findings) -> None:
    """One finding for each misnamed class.

    If all labels are off by one number, list and class file count from different ones: that is one
    mistake and one finding.
    """
    shifts = {named - label for label, (named, _) in misnamed.items()}
    if len(misnamed) > 2 and len(shifts) == 1:
        findings.add("misnamed class", f"{len(misnamed)} labels seem shifted by {-shifts.pop()}: "
                     "do list and class file count from the same number?", [where])
        return

    for label, (named, paths) in misnamed.items():
        what = (f"label {label} is {classes[label]!r}, but its videos name {classes[named]!r}, "
                f"label {named}")
        if named in misnamed and misnamed[named][0] == label:
            what += " (the two look swapped)"
        findings.add("misnamed class", what, [where], paths)


# --- one video on several lines -------------------------------------------------------------------
class Row(NamedTuple):
    """A line of a list, counted from 0."""
    name: str                                                    # of the list: "train1"
    line: int
    path: str
    label: int


def check_same(lists: Lists, seen: dict[str, dict], findings: Findings) -> set[tuple[str, int]]:
    """Find videos on several lines of one split, by path, by stem and by content.

    lists: those of one split. seen: path -> record (checks/videos.py), with a sha256 where files
    may be equal. -> (list, line) of the lines that the good lists do without
    """
    rows = []
    for name, (videos, _) in lists.items():
        rows += [Row(name, line, path, label) for line, (path, label) in enumerate(videos)]

    drop: set[tuple[str, int]] = set()
    known = set()                                                # a group is told once
    for how in ("path", "name", "content"):
        for group in same_rows(rows, how, lists, seen):
            if group not in known:
                known.add(group)
                drop |= judge_group(group, how, list(lists), findings)
    return drop


def same_rows(rows: list[Row], how: str, lists: Lists, seen: dict[str, dict]
              ) -> list[tuple[Row, ...]]:
    """Groups of two rows and more that have the same path, name or content.

    how: "path", "name" (the stem) or "content" (the sha256). A row for which that is not known is
    in no group.
    """
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        same: str | None = None                                  # nothing known that could be equal
        if how == "path":
            same = os.path.realpath(row.path)
        elif how == "content":
            same = seen.get(row.path, {}).get("sha256")
        elif not numbered(row.path, lists[row.name][1][row.label]):
            same = stem(row.path)
        if same is not None:
            groups[same].append(row)
    return [tuple(group) for group in groups.values() if len(group) > 1]


def numbered(path: str, name: str) -> bool:
    """Whether a stem is only a number, "clip_3", or its class with a number.

    Such stems may stand in several folders and mean different videos.
    """
    rest = "".join(word for word in words(stem(path)) if not word.isdigit())
    return rest in {"", joined(name)} | NO_TITLES


def judge_group(group: tuple[Row, ...], how: str, names: list[str], findings: Findings
                ) -> set[tuple[str, int]]:
    """Say what is wrong with rows that are one video. -> (list, line) to do without

    how: what the rows have in common. names: all lists of the split. Of two labels neither is kept;
    of train and val, val is; of several lines in one list, the first.
    """
    paths = list(dict.fromkeys(row.path for row in group))
    labels = sorted({row.label for row in group})
    where = [row.name for row in group]
    what = " = ".join(paths)
    if len(paths) > 1:
        what += f" (same {how})"

    drop = set()
    if len(labels) > 1:
        numbers = ", ".join(map(str, labels))
        findings.add("two labels", f"{what}: labels {numbers}", where, paths)
        drop |= {(row.name, row.line) for row in group}
    if len(set(where)) > 1:
        findings.add("in train and val", what, where, paths)
        drop |= {(row.name, row.line) for row in group if row.name.startswith("train")}
    if len(labels) == 1:
        for name in names:
            again = [(row.name, row.line) for row in group if row.name == name][1:]
            if again:
                findings.add("listed twice", what, [name], paths)
                drop |= set(again)
    return drop
