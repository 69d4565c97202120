"""
Is A better than B? The paired difference of two results of `eval.py --json`, on the same videos.

    python tools/compare.py A.json B.json                           # top-1 with modulation
    python tools/compare.py A.json B.json --score plain --top 5
    python tools/compare.py A.json B.json --anyway                  # the protocols differ: on the videos of both

First it lists what differs in the two protocols. Numbers under two protocols are not comparable: a difference that
moves the number is refused, unless --anyway. Videos are paired by split, stem (x.avi re-encoded as x.mp4 is the same)
and label; one that A or B could not decode is left out for both, and counted.

The interval is over videos: it says what other videos of the kind would show, not what another training seed would.
"""
import argparse
import json
import os
import re
import sys
from collections import Counter
from pathlib import Path

import numpy as np

ENDING = re.compile(r"\.(mp4|avi|mkv|webm|mov|m4v|mpe?g|flv|wmv|3gp)$", re.IGNORECASE)
MODEL = {"checkpoint": "the model", "text": "the model: its text tower",
         "clip_weight": "the model: share of the fine-tuned tower"}
MODULATION = {"neighbours": "K of Eq. 11", "gamma": "gamma of Eq. 11"}                 # nothing to the plain score
MEANING = {**MODEL, **MODULATION,
           "data": "not the same dataset", "split": "not the same split", "videos": "not the same number of videos",
           "found": "videos on disk, of those listed: the others count as not decoded",
           "list": "not the same videos, or not the same labels", "classes": "not the same number of classes",
           "class_names": "the names shown to the text tower differ",
           "templates": "the sentences around the names differ", "frames": "frames per view",
           "clips": "clips per video", "crops": "crops per clip", "resize": "short side before the crop",
           "precision": "rounding inside the model"}


def read(file: str, score: str) -> dict:
    """The result in a file, {split's name: its entry} under "splits". ValueError, one line, for any other content."""
    def constant(name: str):
        raise ValueError(f"{name} is not a number")
    try:
        result = json.loads(Path(file).read_text(encoding="utf-8"), parse_constant=constant)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file}: not JSON ({error})") from None
    if not (isinstance(result, dict) and isinstance(result.get("data"), str)
            and isinstance(result.get("splits"), list) and result["splits"]):
        raise ValueError(f"{file}: not what eval.py --data NAME --json FILE writes: no data, or no splits")
    splits = {}
    for split in result["splits"]:
        if not (isinstance(split, dict) and isinstance(split.get("split"), str)
                and isinstance(split.get("protocol"), dict) and split["split"] not in splits):
            raise ValueError(f"{file}: a split without its name or protocol, or one that stands twice")
        lacking = [field for field in MEANING if field not in split["protocol"]]
        if lacking:
            raise ValueError(f"{file}: the protocol of split {split['split']!r} lacks {', '.join(lacking)}")
        rows = split.get("per_video")
        if not isinstance(rows, list) or not rows:
            raise ValueError(f"{file}: split {split['split']!r} has no per_video: nothing to pair")
        for i, row in enumerate(rows):
            if not (isinstance(row, dict) and isinstance(row.get("video"), str) and type(row.get("label")) is int
                    and isinstance(row.get(score), list) and all(type(c) is int for c in row[score])):
                raise ValueError(f"{file}: split {split['split']!r}, per_video[{i}]: expected a video, its label and "
                                 f"a list of classes as {score}")
        splits[split["split"]] = split
    return {**result, "splits": splits}


def differences(a: dict, b: dict, score: str) -> dict[tuple[str, str, str, str, bool], list[str]]:
    """(field, A's value, B's, what it means, whether it moves the number) -> the splits in which it differs so."""
    rows, common = {}, [name for name in a["splits"] if name in b["splits"]]
    if set(a["splits"]) != set(b["splits"]):
        ours, theirs = (", ".join(map(repr, r["splits"])) for r in (a, b))
        rows["splits", ours, theirs, "not the same splits", True] = common
    free = {"found", *MODEL, *(MODULATION if score == "plain" else ())}
    for name in common:
        ours, theirs = a["splits"][name]["protocol"], b["splits"][name]["protocol"]
        for field in dict.fromkeys([*ours, *theirs]):
            if field == "fingerprint" or (field in ours) == (field in theirs) and ours[field] == theirs[field]:
                continue                                         # the fingerprint is a hash of the other fields
            values = [str(p.get(field, "missing")) + (f" of {p.get('videos')}" if field == "found" else "")
                      for p in (ours, theirs)]
            row = (field, *values, MEANING.get(field, "a setting unknown to this tool"), field not in free)
            rows.setdefault(row, []).append(name)
    return rows


def keyed(split: dict, score: str) -> dict[tuple[str, int, int], list[int]]:
    """(stem, label, k) -> best classes; k counts videos of one class with one stem, in the order of their paths."""
    videos, seen = {}, Counter()
    for row in sorted(split["per_video"], key=lambda row: row["video"]):
        key = ENDING.sub("", row["video"].rpartition("/")[2]), row["label"]
        videos[(*key, seen[key])] = row[score]
        seen[key] += 1
    return videos


def pair(a: dict, b: dict, top: int) -> tuple[list[tuple[str, bool, bool]], dict[str, int]]:
    """(stem, A right, B right) of the videos that both decoded, in one order; why how many others were left out."""
    both = sorted(a.keys() & b.keys())
    only_a, only_b = a.keys() - b.keys(), b.keys() - a.keys()
    relabelled = {key[0] for key in only_a} & {key[0] for key in only_b}
    decoded = [key for key in both if a[key] and b[key]]
    left_out = {"of another label in A and B": sum(key[0] in relabelled for key in only_a),
                "only in A": sum(key[0] not in relabelled for key in only_a),
                "only in B": sum(key[0] not in relabelled for key in only_b),
                "not decoded by A or B": len(both) - len(decoded)}
    return [(f"{key[1]} {key[0]}", key[1] in a[key][:top], key[1] in b[key][:top]) for key in decoded], left_out


def mcnemar(only_a: int, only_b: int) -> float:
    """Exact two-sided p-value: only_a heads in only_a + only_b throws of a fair coin, or something as uneven."""
    n, tail, term = only_a + only_b, 0, 1                        # term: n choose i, as integers
    for i in range(min(only_a, only_b) + 1):
        tail, term = tail + term, term * (n - i) // (i + 1)
    return min(1.0, 2 * tail / 2**n)


def interval(wins: np.ndarray, rows: np.ndarray, samples: int, seed: int) -> tuple[float, float]:
    """95 % percentile bootstrap of 100 sum(wins) / sum(rows), videos drawn with replacement, each with all its rows."""
    generator, n = np.random.default_rng(seed), len(wins)
    points = np.empty(samples)
    for i in range(samples):
        drawn = generator.integers(n, size=n)
        points[i] = 100 * wins[drawn].sum() / rows[drawn].sum()
    points.sort()
    k = samples // 40                # counted from both ends alike: with A and B swapped only the sign changes
    return points[k], points[-1 - k]


def measure(pairs: list[tuple[str, bool, bool]], samples: int, seed: int, by_stem: bool = False) -> dict:
    """One line of the table; by_stem: rows of one stem are one video, in several splits."""
    right = np.array([(a, b) for _, a, b in pairs], dtype=np.int64)
    stems = [stem for stem, _, _ in pairs] if by_stem else range(len(pairs))
    _, video = np.unique(stems, return_inverse=True)
    wins = np.zeros(video.max() + 1, dtype=np.int64)
    np.add.at(wins, video, right[:, 0] - right[:, 1])
    n, (a, b) = len(pairs), right.sum(axis=0).tolist()
    only_a, only_b = int((right[:, 0] > right[:, 1]).sum()), int((right[:, 0] < right[:, 1]).sum())
    low, high = interval(wins, np.bincount(video), samples, seed)
    return {"n": n, "videos": len(wins), "a": 100 * a / n, "b": 100 * b / n, "difference": 100 * (a - b) / n,
            "low": float(low), "high": float(high), "only_a": only_a, "only_b": only_b,
            "p": None if by_stem else mcnemar(only_a, only_b)}


def compare(options: argparse.Namespace) -> dict[str | None, dict]:
    """Print everything; returns the table's lines by split, and where there are several, of all under None."""
    a, b = read(options.a, options.score), read(options.b, options.score)
    if a["data"] != b["data"]:
        raise ValueError(f"{options.a} is {a['data']}, {options.b} is {b['data']}: no pairs of videos to compare")
    print(f"{a['data']}, top-{options.top}, {'without' if options.score == 'plain' else 'with'} modulation")
    for letter, file, result in (("A", options.a, a), ("B", options.b, b)):
        prints = dict.fromkeys(str(s["protocol"].get("fingerprint")) for s in result["splits"].values())
        print(f"{letter}  {file}: {result.get('checkpoint') or 'CLIP alone'}, protocol {', '.join(prints)}")
    differing = differences(a, b, options.score)
    for (field, ours, theirs, meaning, moves), splits in differing.items():
        where = "" if len(splits) == len(a["splits"].keys() & b["splits"].keys()) else f" of split {', '.join(splits)}"
        print(f"differs  {field}{where}: A {ours}, B {theirs} ({meaning}{'' if moves else '; not counted'})")
    moving = list(dict.fromkeys(field for field, *_, moves in differing if moves))
    if moving and not options.anyway:
        raise ValueError(f"the protocols differ in {', '.join(moving)}: the numbers are not comparable "
                         "(--anyway compares on the videos of both)")
    table, pooled = {}, []
    for name in (name for name in a["splits"] if name in b["splits"]):
        pairs, left_out = pair(*(keyed(r["splits"][name], options.score) for r in (a, b)), options.top)
        reasons = [f"{count} {reason}" for reason, count in left_out.items() if count]
        if reasons:
            print(f"left out{f' of split {name}' if name else ''}: {', '.join(reasons)}")
        if not pairs:
            raise ValueError(f"no video{f' of split {name}' if name else ''} was decoded by both with one label")
        table[name] = measure(pairs, options.samples, options.seed)
        pooled += pairs
    if not table:
        raise ValueError("A and B have no split in common")
    if len(table) > 1:
        table[None] = measure(pooled, options.samples, options.seed, by_stem=True)

    print(f"\n{'':10}{'videos':>7} {'A':>7} {'B':>7} {'A - B':>7}  {'95 % interval':17} only A  only B  McNemar p")
    for name, row in table.items():
        label = f"split {name}" if name else "all"
        chance = "" if row["p"] is None else f"{row['p']:.4f}" if row["p"] >= 1e-4 else f"{row['p']:.0e}"
        between = f"[{row['low']:+.2f}, {row['high']:+.2f}]"
        print(f"{label:10}{row['n']:7} {row['a']:7.2f} {row['b']:7.2f} {row['difference']:+7.2f}  {between:17} "
              f"{row['only_a']:6}  {row['only_b']:6}  {chance:>9}")
    last = list(table.values())[-1]
    print(f"\nInterval: percentile bootstrap over videos, {options.samples} samples, seed {options.seed}. p: exact, "
          "from the videos that only one has right.")
    if len(table) > 1:
        print(f"all: {last['n']} answers on {last['videos']} distinct videos, each drawn with all its splits. No p: it "
              "would need independent videos.")
    if last["low"] <= 0 <= last["high"]:
        print("The interval includes 0: these videos do not tell A from B.")
    else:
        print(f"The interval excludes 0: {'A' if last['low'] > 0 else 'B'} is better on such videos, here by "
              f"{abs(last['difference']):.2f} points.")
    if moving:
        print("But the protocols differ: this is no verdict on the models.")
    return table


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("compare.py", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)

    def error(message: str):
        raise ValueError(message)
    parser.error = error                                         # one line, without the usage
    parser.add_argument("a", metavar="A.json")
    parser.add_argument("b", metavar="B.json")
    parser.add_argument("--score", default="modulated", choices=("plain", "modulated"))
    parser.add_argument("--top", type=int, default=1, choices=(1, 5))
    parser.add_argument("--samples", type=int, default=10000, help="bootstrap samples")
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap")
    parser.add_argument("--anyway", action="store_true", help="compare under different protocols")
    options = parser.parse_args(argv)
    if options.samples < 100 or options.seed < 0:
        parser.error(f"--samples must be at least 100 and --seed not negative, got {options.samples}, {options.seed}")
    return options


def main(argv: list[str] | None = None) -> dict[str | None, dict]:
    try:                             # mote.processes has this, but imports torch: seconds for a table of two numbers
        return compare(parse(argv))
    except (ValueError, OSError) as error:
        if os.environ.get("MOTE_TRACEBACK") == "1":
            raise
        print(f"tools/compare.py: error: {' '.join(str(error).split())}", file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main(sys.argv[1:])
