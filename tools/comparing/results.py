"""
What `eval.py --json` wrote, read and checked, so that whatever else a file holds is one line.

`read` checks what the comparison and the trade-off both need; the two functions after it check
what one of them needs besides.
"""
import json
from collections.abc import Iterable
from pathlib import Path

SCORES = ("plain", "modulated")
WRITTEN_BY = "eval.py --data NAME --json FILE"


# --- 1. what both need ----------------------------------------------------------------------------
def read(file: str, fields: Iterable[str]) -> dict:
    """The result in a file, with its dataset, and splits that have a name and a protocol.

    fields: what each protocol must hold. Raises ValueError, one line that names the file, for any
    other content, and OSError for a file that cannot be read.
    """
    result = parse(file)
    is_result = isinstance(result, dict) and isinstance(result.get("data"), str)
    if not is_result or not isinstance(result.get("splits"), list) or not result["splits"]:
        raise ValueError(f"{file}: not what {WRITTEN_BY} writes: no data, or no splits")

    for split in result["splits"]:
        is_split = isinstance(split, dict) and isinstance(split.get("split"), str)
        if not is_split or not isinstance(split.get("protocol"), dict):
            raise ValueError(f"{file}: a split without its name or its protocol")

        lacking = [field for field in fields if field not in split["protocol"]]
        if lacking:
            name = split["split"]
            raise ValueError(f"{file}: the protocol of split {name!r} lacks {', '.join(lacking)}")
    return result


def parse(file: str):
    """The JSON in a file. NaN and Infinity, which Python would take, are refused.

    Raises ValueError for what is not JSON, also for lists nested so deep that Python gives up.
    """
    def refuse(name: str):
        raise ValueError(f"{name} is not a number")

    if Path(file).is_dir():
        raise ValueError(f"{file}: a folder; give the file that eval.py --json wrote")
    try:
        return json.loads(Path(file).read_text(encoding="utf-8"), parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file}: not JSON ({error})") from None


# --- 2. what a comparison needs -------------------------------------------------------------------
def read_videos(file: str, score: str, fields: Iterable[str]) -> dict:
    """As `read`, with every video's best classes. "splits" is {split's name: its entry}.

    score: "plain" or "modulated". Raises ValueError as `read` does, and for a split that stands
    twice or has no videos.
    """
    result = read(file, fields)
    splits = {}
    for split in result["splits"]:
        name = split["split"]
        if name in splits:
            raise ValueError(f"{file}: split {name!r} stands twice")

        rows = split.get("per_video")
        if not isinstance(rows, list) or not rows:
            raise ValueError(f"{file}: split {name!r} has no per_video: nothing to pair")

        for i, row in enumerate(rows):
            if not is_video(row, score):
                raise ValueError(f"{file}: split {name!r}, per_video[{i}]: expected a video, its "
                                 f"label and a list of classes as {score}")
        splits[name] = split
    return {**result, "splits": splits}


def is_video(row, score: str) -> bool:
    """Whether a row of per_video has a path, a label, and under `score` a list of classes."""
    if not isinstance(row, dict) or not isinstance(row.get("video"), str):
        return False
    if not is_integer(row.get("label")) or not isinstance(row.get(score), list):
        return False
    return all(is_integer(c) for c in row[score])


def is_integer(value) -> bool:
    """Whether a value was an integer in JSON. To Python, True and False are integers too."""
    return type(value) is int


# --- 3. what a trade-off needs --------------------------------------------------------------------
def read_averages(file: str, score: str, fields: Iterable[str]) -> dict:
    """As `read`, with the mean and std of top-1 over splits, and the counts of each split.

    Accuracies are in per cent. Raises ValueError as `read` does, and for other numbers.
    """
    result = read(file, fields)
    if not isinstance(result.get(score), dict):
        raise ValueError(f"{file}: not what {WRITTEN_BY} writes: no {score}")

    for name in ("top1", "top1_std"):
        number = result[score].get(name)
        if type(number) not in (int, float) or not 0 <= number <= 100:
            raise ValueError(f"{file}: {score} {name} must be a number in 0..100, got {number!r}")

    for split in result["splits"]:
        if not is_integer(split.get("videos")) or not is_integer(split.get("decoded")):
            raise ValueError(f"{file}: split {split['split']!r} is without its videos or decoded")
    return result
