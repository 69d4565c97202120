"""
HM_ZS and trade-off of Table 4, of one model on four datasets, beside the paper's.

    HM_ZS     = 3 / (1 / UCF + 1 / HMDB + 1 / K600)    zero-shot, each the mean top-1 over 3 splits
    trade-off = 2 / (1 / K400 + 1 / HM_ZS)             K400 is what the model was trained on

The harmonic mean is drawn to the lowest number: a model good at one end only has a low trade-off.
"""
import re

from tools.comparing.protocols import MODULATION
from tools.comparing.results import read_averages

SPLITS = {"k400": 1, "ucf101": 3, "hmdb51": 3, "k600": 3}    # the datasets, in the files' order

# Tables 3 and 4: K400 top-1, then zero-shot top-1 and its std over splits.
PAPER = {
    "B/16 1x1": (81.8, (83.4, 0.7), (55.8, 0.9), (70.2, 0.6)),
    "B/16 4x3": (83.0, (83.4, 0.7), (55.8, 0.9), (70.2, 0.6)),
    "L/14 4x3": (86.8, (88.7, 0.6), (61.4, 1.3), (78.4, 0.9)),
}
# Fields of the protocol that must be the same on all four datasets, and what it means if not.
MUST_AGREE = {
    "checkpoint": "not one unified model",
    "clip_weight": "not one unified model",
    "frames": "not one setting",
    "templates": "not one setting",
    "precision": "not one setting",
    "neighbours": "not one setting",
    "gamma": "not one setting",
}
SOURCE = (
    "The paper's are from its Tables 3 and 4, not run here: 8 frames, K400 in the views shown, "
    "the others 3x1;\nits K600 has 14,858, 14,750 and 14,874 videos. ± is the std over splits.")


# --- 1. the two numbers ---------------------------------------------------------------------------
def harmonic_mean(*numbers: float) -> float:
    """n / (1 / a + 1 / b + ...); 0 if one of them is 0, its limit."""
    if 0 in numbers:
        return 0.0
    return len(numbers) / sum(1 / x for x in numbers)


def trade_off(k400: float, ucf101: float, hmdb51: float, k600: float) -> tuple[float, float]:
    """(HM_ZS, trade-off) of four top-1 accuracies, in per cent, as the results are."""
    zero_shot = harmonic_mean(ucf101, hmdb51, k600)
    return zero_shot, harmonic_mean(k400, zero_shot)


# --- 2. the four results --------------------------------------------------------------------------
def read_four(files: list[str], score: str) -> dict[str, dict]:
    """{dataset: its result}. ValueError, one line, for a file of another dataset than its place."""
    results = {}
    for i, (name, file) in enumerate(zip(SPLITS, files, strict=True), start=1):
        result = read_averages(file, score, [*MUST_AGREE, "clips", "crops"])
        data = re.sub("[^a-z0-9]", "", result["data"].lower())       # UCF-101 is ucf101
        if data in SPLITS and data != name:
            raise ValueError(f"{file} is {data}, and file {i} must be {name}: the order is "
                             f"{' '.join(SPLITS)}")
        results[name] = result
    return results


def values_of(field: str, result: dict) -> list[str]:
    """A protocol's field, as text, in all splits of a result, each value once."""
    return sorted({str(split["protocol"][field]) for split in result["splits"]})


def warnings(results: dict[str, dict], score: str) -> list[str]:
    """What makes these four not a row of Table 4: a line each, printed below the table.

    Warnings, not errors: a row of one split each is of use before the others are evaluated.
    """
    lines = []
    for field, what in MUST_AGREE.items():
        if score == "plain" and field in MODULATION:
            continue
        values = {name: values_of(field, result) for name, result in results.items()}
        if len(set().union(*values.values())) > 1:
            each = [f"{' and '.join(value)} ({name})" for name, value in values.items()]
            lines.append(f"{what}: {field} is {', '.join(each)}")

    # A mean over fewer splits, or top-1 on fewer videos, is another number than Table 4's.
    for name, result in results.items():
        splits = len({split["split"] for split in result["splits"]})
        if splits < SPLITS[name]:
            lines.append(f"{name} has {splits} of its {SPLITS[name]} splits")

        failed = sum(split["videos"] - split["decoded"] for split in result["splits"])
        if failed:
            lines.append(f"{name}: {failed} videos were not decoded, top-1 is over the others")
    return lines


# --- 3. the table ---------------------------------------------------------------------------------
def line(name: str, about: str, ours: str, papers: list[str]) -> str:
    """One line of the table: what was evaluated, its number here, the paper's numbers."""
    return f"{name:10}{about:32}{ours:>11}  |" + "".join(f"{text:>11}" for text in papers)


def describe(result: dict) -> str:
    """A result's dataset, number of splits and of videos, and views."""
    splits = result["splits"]
    protocol = splits[0]["protocol"]
    videos = sum(split["videos"] for split in splits)
    return f"{result['data']}, {len(splits)}, {videos}, {protocol['clips']}x{protocol['crops']}"


def top1_here(result: dict, score: str) -> str:
    """Top-1, and with several splits its std."""
    top1 = f"{result[score]['top1']:.1f}"
    if len(result["splits"]) > 1:
        return f"{top1} ±{result[score]['top1_std']:.1f}"
    return top1


def top1_in_the_paper(dataset: str) -> list[str]:
    """The paper's numbers on a dataset, a column each; K400 has one split, and no std."""
    place = list(SPLITS).index(dataset)
    numbers = [column[place] for column in PAPER.values()]
    if dataset == "k400":
        return [f"{top1:.1f}" for top1 in numbers]
    return [f"{top1:.1f} ±{std:.1f}" for top1, std in numbers]


def report(files: list[str], score: str) -> tuple[float, float]:
    """Print the table of four results; HM_ZS and trade-off.

    files: on K400, UCF-101, HMDB-51 and K600, in this order. score: "plain" or "modulated".
    """
    results = read_four(files, score)
    means = trade_off(*(result[score]["top1"] for result in results.values()))
    # Computed from the paper's own columns: the table prints them by the same formula as ours.
    paper_means = []
    for k400, *zero_shot in PAPER.values():
        paper_means.append(trade_off(k400, *(top1 for top1, _ in zero_shot)))

    modulation = "without" if score == "plain" else "with"
    print(f"top-1, per cent, {modulation} modulation")
    print(line("", "data, splits, videos, views", "here", [f"{'the paper: MoTE':>33}"]))
    print(line("", "", "", list(PAPER)))
    for name, result in results.items():
        here = top1_here(result, score)
        print(line(name, describe(result), here, top1_in_the_paper(name)))
    for i, name in enumerate(("HM_ZS", "trade-off")):
        print(line(name, "", f"{means[i]:.1f}", [f"{both[i]:.1f}" for both in paper_means]))
    print(f"\n{SOURCE}")

    for text in warnings(results, score):
        print(f"warning: {text}")
    return means
