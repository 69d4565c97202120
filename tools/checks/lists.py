"""
What is wrong with lists of videos, from names alone: swapped class names, one video on two lines. Used by tools/check.py.

Every video votes for its own class if the name of its folder (or, apart from that, its stem) holds that class's name,
else for the longest class name in it. Names are compared as words, joined: HandstandPushups is HandStandPushups, and
kick is not in kick_ball. A class is misnamed if most of its videos vote for one other; where at least half vote for
their own class, the few that vote for another are wrong by themselves.
"""
import functools
import os
import re
from collections import Counter, defaultdict
from pathlib import Path

from mote.datasets.folders import Videos, class_name, stem

Lists = dict[str, tuple[Videos, list[str]]]                      # "train1", "val", ... -> videos, class names


class Findings(dict):
    """(kind, what) -> {kind, what, lists, videos}: the same in three official splits is one finding."""

    def add(self, kind: str, what: str, lists: list[str], videos: list[str] = ()) -> None:
        entry = self.setdefault((kind, what), {"kind": kind, "what": what, "lists": [], "videos": []})
        entry["lists"] += [name for name in lists if name not in entry["lists"]]
        entry["videos"] += [path for path in videos if path not in entry["videos"]]


# --- class names --------------------------------------------------------------------------------------------------
def words(text: str) -> list[str]:
    """Lower-case words of a name: cut at spaces, signs, digits and capitals.

    >>> words("v_HandStandPushups_g01"), words("Playing Guitar")
    (['v', 'hand', 'stand', 'pushups', 'g', '01'], ['playing', 'guitar'])
    """
    parts = [part for token in re.findall(r"[^\W_]+", text) for part in class_name(token).split()]
    return [word.casefold() for part in parts for word in re.findall(r"\d+|\D+", part)]


@functools.lru_cache(maxsize=1 << 16)
def joined(name: str) -> str:
    """What two names of one class have in common: "kickball" of Kick_Ball."""
    return "".join(words(name))


@functools.lru_cache(maxsize=1 << 16)
def classes_in(text: str, keys: frozenset[str]) -> frozenset[str]:
    """Those of the joined class names that stand in a text as whole words, but not inside a longer one.

    >>> sorted(classes_in("Faith_kick_ball_f_cm", frozenset({"kick", "kickball", "catch"})))
    ['kickball']
    """
    parts = words(text)
    runs = [(i, j) for i in range(len(parts)) for j in range(i + 1, len(parts) + 1) if "".join(parts[i:j]) in keys]
    return frozenset("".join(parts[i:j]) for i, j in runs
                     if not any((a, b) != (i, j) and a <= i and j <= b for a, b in runs))


def check_names(videos: Videos, classes: list[str]) -> tuple[
        dict[int, tuple[int, list[str]]], list[tuple[str, int, int]], set[int]]:
    """-> {label: (the label its videos name, those videos)}, [(single video, its label, the one it names)],
    labels that no name says anything about.
    """
    keys = [joined(name) for name in classes]
    telling = frozenset(key for key in keys if sum(c.isalpha() for c in key) > 2)          # "3", "go" may mean anything
    misnamed, single, silent = {}, [], set(range(len(classes)))
    for source in (lambda path: Path(path).parent.name, stem):
        votes: dict[int, dict[str, str]] = defaultdict(dict)     # label -> path -> joined name, "" for none
        for path, label in videos:
            found = classes_in(source(path), telling)
            votes[label][path] = keys[label] if keys[label] in found else max(sorted(found), key=len, default="")
        if len({vote for of_label in votes.values() for vote in of_label.values()} - {""}) < 2:
            continue                                             # one folder or title for all says nothing of labels
        for label, of_label in votes.items():
            count = Counter(of_label.values())
            silent -= {label} if set(count) - {""} else set()
            others = {path: keys.index(vote) for path, vote in of_label.items() if vote not in ("", keys[label])}
            other, most = next(iter(Counter(others.values()).most_common(1)), (-1, 0))
            if 2 * most > len(of_label):
                misnamed.setdefault(label, (other, [path for path, vote in others.items() if vote == other]))
            elif 2 * count[keys[label]] >= len(of_label):
                single += [(path, label, vote) for path, vote in others.items()]
    return misnamed, list(dict.fromkeys(single)), silent


def check_labels(lists: Lists, findings: Findings) -> list[str]:
    """Class names, labels, and the names of files. -> notes, which are no findings"""
    notes = []
    for where, (videos, classes) in lists.items():
        for label in sorted(set(range(len(classes))) - {label for _, label in videos}):
            findings.add("class without videos", f"label {label}, {classes[label]!r}", [where])
        keys = [joined(name) or name for name in classes]
        for label, key in enumerate(keys):
            if keys.index(key) < label:
                findings.add("duplicate class name", f"labels {keys.index(key)} and {label}: "
                             f"{classes[keys.index(key)]!r} and {classes[label]!r}", [where])
        other = where.replace("train", "val")
        if other in lists and classes != lists[other][1]:
            i = next((i for i, (a, b) in enumerate(zip(classes, lists[other][1])) if a != b), None)
            findings.add("classes differ", f"{len(classes)} and {len(lists[other][1])} classes" if i is None else
                         f"label {i} is {classes[i]!r} in {where}, {lists[other][1][i]!r} in {other}", [where, other])

        misnamed, single, silent = check_names(videos, classes)
        shifts = {named - label for label, (named, _) in misnamed.items()}
        if len(misnamed) > 2 and len(shifts) == 1:
            findings.add("misnamed class", f"{len(misnamed)} labels seem shifted by {-shifts.pop()}: do list and "
                         "class file count from the same number?", [where])
            misnamed = {}
        for label, (named, paths) in misnamed.items():
            swapped = " (the two look swapped)" if misnamed.get(named, [None])[0] == label else ""
            findings.add("misnamed class", f"label {label} is {classes[label]!r}, but its videos name "
                         f"{classes[named]!r}, label {named}{swapped}", [where], paths)
        for path, label, named in single:
            findings.add("misnamed video", f"{path} has label {label}, {classes[label]!r}, but names "
                         f"{classes[named]!r}", [where], [path])
        if silent:
            notes.append(f"{where}: no evidence in the file names for {len(silent)} of {len(classes)} classes")
    return notes


# --- one video on several lines --------------------------------------------------------------------------------------
def numbered(path: str, name: str) -> bool:
    """Whether a stem is but a number, "clip_3" or its class with a number: such may stand in several folders."""
    rest = [word for word in words(stem(path)) if not word.isdigit()]
    return "".join(rest) in {"", joined(name), *"v vid video clip img image frame sample train val test".split()}


def check_same(lists: Lists, seen: dict[str, dict], findings: Findings) -> set[tuple[str, int]]:
    """One video on several lines of a split: by path, by stem, by content. -> (list, line) to do without"""
    rows = [(name, i, path, label) for name, (videos, _) in lists.items() for i, (path, label) in enumerate(videos)]
    drop, known = set(), set()
    for how in ("path", "name", "content"):
        groups = defaultdict(list)
        for row in rows:
            name, _, path, label = row
            same = os.path.realpath(path) if how == "path" else seen.get(path, {}).get("sha256")
            if how == "name":
                same = None if numbered(path, lists[name][1][label]) else stem(path)
            groups[same].append(row)
        for same, group in groups.items():
            if same is None or len(group) < 2 or tuple(group) in known:
                continue
            known.add(tuple(group))
            paths, labels = list(dict.fromkeys(row[2] for row in group)), sorted({row[3] for row in group})
            what = " = ".join(paths) + (f" (same {how})" if len(paths) > 1 else "")
            if len(labels) > 1:
                findings.add("two labels", f"{what}: labels {', '.join(map(str, labels))}", [row[0] for row in group],
                             paths)
                drop |= {row[:2] for row in group}
            if len({row[0] for row in group}) > 1:
                findings.add("in train and val", what, [row[0] for row in group], paths)
                drop |= {row[:2] for row in group if row[0].startswith("train")}
            for name in lists:
                again = [row[:2] for row in group if row[0] == name][1:]
                if again and len(labels) == 1:
                    findings.add("listed twice", what, [name], paths)
                    drop |= set(again)
    return drop
