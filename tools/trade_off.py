"""
One model, four datasets: HM_ZS and trade-off of Table 4, from results of `eval.py --json`, beside the paper's.

    python tools/trade_off.py K400.json UCF101.json HMDB51.json K600.json
    python tools/trade_off.py K400.json UCF101.json HMDB51.json K600.json --score plain

    HM_ZS     = 3 / (1 / UCF + 1 / HMDB + 1 / K600)          zero-shot, each the mean top-1 over its 3 splits
    trade-off = 2 / (1 / K400 + 1 / HM_ZS)                   K400 is what the model was trained on

The harmonic mean is drawn to the lowest number: a model good at one end only has a low trade-off.
"""
import argparse
import json
import os
import re
import sys
from pathlib import Path

SPLITS = {"k400": 1, "ucf101": 3, "hmdb51": 3, "k600": 3}                    # the datasets, in the arguments' order
PAPER = {        # Tables 3 and 4: K400 top-1, then zero-shot top-1 and its std over splits
    "B/16 1x1": (81.8, (83.4, 0.7), (55.8, 0.9), (70.2, 0.6)),
    "B/16 4x3": (83.0, (83.4, 0.7), (55.8, 0.9), (70.2, 0.6)),
    "L/14 4x3": (86.8, (88.7, 0.6), (61.4, 1.3), (78.4, 0.9))}
MUST_AGREE = {"checkpoint": "not one unified model", "clip_weight": "not one unified model",
              **dict.fromkeys(("frames", "templates", "precision", "neighbours", "gamma"), "not one setting")}


def harmonic_mean(*numbers: float) -> float:
    """n / (1 / a + 1 / b + ...); 0 if one of them is, its limit."""
    return len(numbers) / sum(1 / x for x in numbers) if all(numbers) else 0.0


def trade_off(k400: float, ucf101: float, hmdb51: float, k600: float) -> tuple[float, float]:
    """(HM_ZS, trade-off) of four top-1 accuracies."""
    zero_shot = harmonic_mean(ucf101, hmdb51, k600)
    return zero_shot, harmonic_mean(k400, zero_shot)


def read(file: str, score: str) -> dict:
    """The result in a file, with all that this tool reads of it checked. ValueError, one line, for anything else."""
    def constant(name: str):
        raise ValueError(f"{name} is not a number")
    try:
        result = json.loads(Path(file).read_text(encoding="utf-8"), parse_constant=constant)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file}: not JSON ({error})") from None
    if not (isinstance(result, dict) and isinstance(result.get("data"), str) and isinstance(result.get(score), dict)
            and isinstance(result.get("splits"), list) and result["splits"]):
        raise ValueError(f"{file}: not what eval.py --data NAME --json FILE writes: no data, no {score} or no splits")
    for name in ("top1", "top1_std"):
        number = result[score].get(name)
        if type(number) not in (int, float) or not 0 <= number <= 100:
            raise ValueError(f"{file}: {score} {name} must be a number in 0..100, got {number!r}")
    for split in result["splits"]:
        if not (isinstance(split, dict) and isinstance(split.get("split"), str)
                and isinstance(split.get("protocol"), dict)
                and all(type(split.get(name)) is int for name in ("videos", "decoded"))):
            raise ValueError(f"{file}: a split without its name, protocol, videos or decoded")
        lacking = [field for field in (*MUST_AGREE, "clips", "crops") if field not in split["protocol"]]
        if lacking:
            raise ValueError(f"{file}: the protocol of split {split['split']!r} lacks {', '.join(lacking)}")
    return result


def warnings(results: dict[str, dict], score: str) -> list[str]:
    """What makes these four not a row of Table 4."""
    lines = []
    for field, what in MUST_AGREE.items():
        values = {name: sorted({str(split["protocol"][field]) for split in result["splits"]})
                  for name, result in results.items()}
        unused = score == "plain" and field in ("neighbours", "gamma")                 # of Eq. 11
        if len(set().union(*values.values())) > 1 and not unused:
            each = ", ".join(f"{' and '.join(value)} ({name})" for name, value in values.items())
            lines.append(f"{what}: {field} is {each}")
    for name, result in results.items():
        splits = len({split["split"] for split in result["splits"]})
        if splits < SPLITS[name]:
            lines.append(f"{name} has {splits} of its {SPLITS[name]} splits")
        failed = sum(split["videos"] - split["decoded"] for split in result["splits"])
        if failed:
            lines.append(f"{name}: {failed} videos were not decoded, top-1 is over the others")
    return lines


def report(options: argparse.Namespace) -> tuple[float, float]:
    """Print the table; HM_ZS and trade-off."""
    results = {}
    for i, (name, file) in enumerate(zip(SPLITS, options.files), start=1):
        results[name] = read(file, options.score)
        data = re.sub("[^a-z0-9]", "", results[name]["data"].lower())            # UCF-101 is ucf101
        if data in SPLITS and data != name:
            raise ValueError(f"{file} is {data}, and file {i} must be {name}: the order is {' '.join(SPLITS)}")
    scores = [result[options.score] for result in results.values()]
    means = trade_off(*(score["top1"] for score in scores))
    theirs = {column: trade_off(k400, *(top1 for top1, _ in rest)) for column, (k400, *rest) in PAPER.items()}

    def line(name: str, about: str, ours: str, papers: list[str]) -> str:
        return f"{name:10}{about:32}{ours:>11}  |" + "".join(f"{text:>11}" for text in papers)

    print(f"top-1, per cent, {'without' if options.score == 'plain' else 'with'} modulation")
    print(line("", "data, splits, videos, views", "here", [f"{'the paper: MoTE':>33}"]))
    print(line("", "", "", list(PAPER)))
    for i, (name, result) in enumerate(results.items()):
        splits, protocol = result["splits"], result["splits"][0]["protocol"]
        about = (f"{result['data']}, {len(splits)}, {sum(s['videos'] for s in splits)}, "
                 f"{protocol.get('clips')}x{protocol.get('crops')}")
        spread = f" ±{scores[i]['top1_std']:.1f}" if len(splits) > 1 else ""
        papers = [f"{row[i]:.1f}" if i == 0 else "{:.1f} ±{:.1f}".format(*row[i]) for row in PAPER.values()]
        print(line(name, about, f"{scores[i]['top1']:.1f}{spread}", papers))
    for i, name in enumerate(("HM_ZS", "trade-off")):
        print(line(name, "", f"{means[i]:.1f}", [f"{both[i]:.1f}" for both in theirs.values()]))
    print("\nThe paper's are from its Tables 3 and 4, not run here: 8 frames, K400 in the views shown, the others "
          "3x1;\nits K600 has 14,858, 14,750 and 14,874 videos. ± is the std over splits.")
    for text in warnings(results, options.score):
        print(f"warning: {text}")
    return means


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("trade_off.py", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)

    def error(message: str):
        raise ValueError(message)
    parser.error = error                                         # one line, without the usage
    parser.add_argument("files", nargs=4, metavar="FILE.json",
                        help="results on K400, UCF101, HMDB51, K600; datasets under other names go by this order")
    parser.add_argument("--score", default="modulated", choices=("plain", "modulated"))
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> tuple[float, float]:
    try:                             # mote.processes has this, but imports torch: seconds for a table of two numbers
        return report(parse(argv))
    except (ValueError, OSError) as error:
        if os.environ.get("MOTE_TRACEBACK") == "1":
            raise
        print(f"tools/trade_off.py: error: {' '.join(str(error).split())}", file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main(sys.argv[1:])
