"""
Two results of `eval.py --json`: is A better than B? Four: HM_ZS and trade-off of Table 4.

    python tools/compare.py A.json B.json                           # top-1 with modulation
    python tools/compare.py A.json B.json --score plain --top 5
    python tools/compare.py A.json B.json --anyway                  # the protocols differ
    python tools/compare.py --trade-off K400.json UCF101.json HMDB51.json K600.json

Two files. First what differs in the two protocols is listed. Numbers under two protocols are not
comparable: a difference that moves the number is refused, unless --anyway. Then the difference is
taken on the videos that both results have: paired by split, stem (x.avi re-encoded as x.mp4 is the
same) and label. A video that A or B could not decode is left out for both, and counted. The
interval is over videos: it says what other videos of the kind would show, not what another
training seed would.

Four files, with --trade-off: one model, evaluated on K400, UCF-101, HMDB-51 and K600. The harmonic
means are printed beside the paper's. Of the options it takes --score alone.
"""
import argparse
import os
import sys
from pathlib import Path

# No import of mote: it imports torch, which takes seconds, for a table of a few numbers.
sys.path.insert(0, str(Path(__file__).parents[1]))
from tools.comparing import trade_off  # noqa: E402
from tools.comparing.paired_difference import keyed, measure, pair  # noqa: E402
from tools.comparing.protocols import REQUIRED, differences  # noqa: E402
from tools.comparing.results import SCORES, read_videos  # noqa: E402

# Options that a comparison has and a trade-off has not, with their defaults.
OF_A_COMPARISON = {"top": 1, "samples": 10000, "seed": 0, "anyway": False}


# --- 1. the comparison ----------------------------------------------------------------------------
def compare(options: argparse.Namespace) -> dict[str | None, dict]:
    """Print everything; the rows of the table by split, and of all splits under None if several.

    Raises ValueError, one line, for two datasets, and for protocols that make the two numbers
    incomparable; OSError for a file that cannot be read.
    """
    file_a, file_b = options.files
    a = read_videos(file_a, options.score, REQUIRED)
    b = read_videos(file_b, options.score, REQUIRED)
    if a["data"] != b["data"]:
        raise ValueError(f"{file_a} is {a['data']}, {file_b} is {b['data']}: no pairs of videos to "
                         "compare")

    modulation = "without" if options.score == "plain" else "with"
    print(f"{a['data']}, top-{options.top}, {modulation} modulation")
    print_result("A", file_a, a)
    print_result("B", file_b, b)
    moving = print_differences(a, b, options.score)
    if moving and not options.anyway:
        raise ValueError(f"the protocols differ in {', '.join(moving)}: the numbers are not "
                         "comparable (--anyway compares on the videos of both)")

    table = measure_splits(a, b, options)
    print_table(table)
    print_conclusion(table, options)
    if moving:
        print("But the protocols differ: this is no verdict on the models.")
    return table


def measure_splits(a: dict, b: dict, options: argparse.Namespace) -> dict[str | None, dict]:
    """The rows of the table. Prints which videos are left out of each split.

    Raises ValueError where a split has no video in common, or A and B no split.
    """
    table = {}
    pooled = []
    for name in a["splits"]:
        if name not in b["splits"]:
            continue
        videos_a = keyed(a["splits"][name], options.score)
        videos_b = keyed(b["splits"][name], options.score)
        pairs, left_out = pair(videos_a, videos_b, options.top)

        of_split = f" of split {name}" if name else ""       # a dataset of one split: no name
        reasons = [f"{count} {reason}" for reason, count in left_out.items() if count]
        if reasons:
            print(f"left out{of_split}: {', '.join(reasons)}")
        if not pairs:
            raise ValueError(f"no video{of_split} was decoded by both with one label")

        table[name] = measure(pairs, options.samples, options.seed)
        pooled += pairs

    if not table:
        raise ValueError("A and B have no split in common")
    if len(table) > 1:
        # Splits share videos: by_stem draws a video with all its rows.
        table[None] = measure(pooled, options.samples, options.seed, by_stem=True)
    return table


# --- 2. what is printed ---------------------------------------------------------------------------
def print_result(letter: str, file: str, result: dict) -> None:
    """Which model, and under which protocols."""
    splits = result["splits"].values()
    prints = dict.fromkeys(str(split["protocol"].get("fingerprint")) for split in splits)
    model = result.get("checkpoint") or "CLIP alone"
    print(f"{letter}  {file}: {model}, protocol {', '.join(prints)}")


def print_differences(a: dict, b: dict, score: str) -> list[str]:
    """What differs in the two protocols; the fields, each once, that move the number."""
    common = a["splits"].keys() & b["splits"].keys()
    moving = []
    for difference, splits in differences(a, b, score).items():
        field = difference.field
        where = "" if len(splits) == len(common) else f" of split {', '.join(splits)}"
        meaning = difference.meaning
        if not difference.moves:
            meaning += "; not counted"
        elif field not in moving:
            moving.append(field)
        print(f"differs  {field}{where}: A {difference.a}, B {difference.b} ({meaning})")
    return moving


def print_table(table: dict[str | None, dict]) -> None:
    """A line for each row; accuracies in per cent, differences in points."""
    print(f"\n{'':10}{'videos':>7} {'A':>7} {'B':>7} {'A - B':>7}  {'95 % interval':17} "
          "only A  only B  McNemar p")
    for name, row in table.items():
        label = f"split {name}" if name else "all"
        accuracies = f"{row['a']:7.2f} {row['b']:7.2f} {row['difference']:+7.2f}"
        between = f"[{row['low']:+.2f}, {row['high']:+.2f}]"
        print(f"{label:10}{row['n']:7} {accuracies}  {between:17} "
              f"{row['only_a']:6}  {row['only_b']:6}  {p_as_text(row['p']):>9}")


def p_as_text(p: float | None) -> str:
    """A p-value; below 1e-4 its magnitude, which 0.0000 would hide. None has no text."""
    if p is None:
        return ""
    if p < 1e-4:
        return f"{p:.0e}"
    return f"{p:.4f}"


def print_conclusion(table: dict[str | None, dict], options: argparse.Namespace) -> None:
    """How the numbers were made, and in one sentence what the last row says."""
    last = list(table.values())[-1]
    print(f"\nInterval: percentile bootstrap over videos, {options.samples} samples, "
          f"seed {options.seed}. p: exact, from the videos that only one has right.")
    if len(table) > 1:
        print(f"all: {last['n']} answers on {last['videos']} distinct videos, each drawn with all "
              "its splits. No p: it would need independent videos.")

    if last["low"] <= 0 <= last["high"]:
        print("The interval includes 0: these videos do not tell A from B.")
        return
    better = "A" if last["low"] > 0 else "B"
    points = abs(last["difference"])
    print(f"The interval excludes 0: {better} is better on such videos, here by {points:.2f} "
          "points.")


# --- 3. the command -------------------------------------------------------------------------------
def parse(argv: list[str] | None) -> argparse.Namespace:
    """The options. ValueError, one line, for those that do not go together."""
    parser = argparse.ArgumentParser("compare.py", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)

    def error(message: str):         # one line, without the usage
        raise ValueError(message)
    parser.error = error

    # Options of a comparison that were not given are left out of the namespace, so that
    # --trade-off can refuse those that were.
    absent = argparse.SUPPRESS
    add = parser.add_argument
    add("files", nargs="*", metavar="FILE.json",
        help="A and B; with --trade-off, results on K400, UCF101, HMDB51, K600: datasets under "
             "other names go by this order")
    add("--trade-off", action="store_true", help="HM_ZS and trade-off of four results")
    add("--score", default="modulated", choices=SCORES)
    add("--top", type=int, default=absent, choices=(1, 5))
    add("--samples", type=int, default=absent, help="bootstrap samples (10000)")
    add("--seed", type=int, default=absent, help="of the bootstrap (0)")
    add("--anyway", action="store_true", default=absent, help="compare under different protocols")
    options = parser.parse_intermixed_args(argv)     # A.json --top 5 B.json is well-formed too

    check(options)
    for name, default in OF_A_COMPARISON.items():
        if name not in options:
            setattr(options, name, default)
    if options.samples < 100 or options.seed < 0:
        raise ValueError("--samples must be at least 100 and --seed not negative, got "
                         f"{options.samples}, {options.seed}")
    return options


def check(options: argparse.Namespace) -> None:
    """The number of files, and the options that --trade-off does not go with."""
    files = len(options.files)
    if not options.trade_off:
        if files != 2:
            raise ValueError("a comparison takes exactly two files, A.json B.json (four go with "
                             f"--trade-off), got {files}")
        return

    # Those that were given: an option left out is not in the namespace.
    others = [f"--{name}" for name in OF_A_COMPARISON if name in options]
    if others:
        raise ValueError(f"--trade-off goes with --score alone, got {', '.join(others)}")
    if files != 4:
        raise ValueError("--trade-off takes exactly four files, K400.json UCF101.json HMDB51.json "
                         f"K600.json, got {files}")


def main(argv: list[str] | None = None) -> dict[str | None, dict] | tuple[float, float]:
    """The table of two results by split, or (HM_ZS, trade-off) of four. A mistake is one line."""
    try:                             # as mote.runtime.errors does, which imports torch
        options = parse(argv)
        if options.trade_off:
            return trade_off.report(options.files, options.score)
        return compare(options)
    except (ValueError, OSError) as error:
        if os.environ.get("MOTE_TRACEBACK") == "1":
            raise
        print(f"tools/compare.py: error: {' '.join(str(error).split())}", file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main(sys.argv[1:])
