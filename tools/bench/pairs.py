"""
The statistics of tools/bench/speed.py: both sides of a ratio run in turns, and the median of the ratios of these pairs.

The interval of a median lies between two of the ordered ratios, so chosen that it holds the true median with a chance
of at least 95 %, whatever the distribution: 1 - 2 P(Bin(n, 1/2) < low rank). A target is met if the interval reaches
it.
"""
import math
import statistics
import time
from collections.abc import Callable


def interleave(functions: list[Callable], pairs: int, settle: Callable = lambda: None) -> list[list[float]]:
    """Seconds of each function, one column each: all in turns, backwards every other time. One round goes before.

    A function gets the number of its round. settle: runs before the clock starts and before it stops.
    """
    columns: list[list[float]] = [[] for _ in functions]
    for i in range(pairs + 1):
        for j in range(len(functions)) if i % 2 else reversed(range(len(functions))):
            settle()
            begin = time.perf_counter()
            functions[j](i)
            settle()
            columns[j].append(time.perf_counter() - begin)
    return [column[1:] for column in columns]


def interval_ranks(n: int, coverage: float = 0.95) -> tuple[int, int, float]:
    """Ranks (from 1) of the two values that end the interval of n, and its chance. Below 6 no two reach 95 %: the ends.

    >>> interval_ranks(10)
    (2, 9, 0.978515625)
    """
    chances = [1 - 2 * sum(math.comb(n, k) for k in range(low)) / 2**n for low in range(1, (n + 1) // 2 + 1)]
    low = max((low for low, chance in enumerate(chances, 1) if chance >= coverage), default=1)
    return low, n + 1 - low, chances[low - 1]


def holds(target: str, low: float, high: float) -> bool | None:
    """Does the interval reach the target: "<= 1.05", ">= 5", "= 1"? None without one."""
    sign, number = target.split() if target else ("", 0)
    return {"": None, "<=": low <= float(number), ">=": high >= float(number), "=": low == float(number) == high}[sign]


def row(name: str, values: list[float], target: str = "", beside: str = "", note: str = "") -> dict:
    """One figure, from the values of its pairs; or a single number, that of a count or of one run."""
    first, last, chance = interval_ranks(len(values))
    low, high = sorted(values)[first - 1], sorted(values)[last - 1]
    return {"name": name, "ratio": statistics.median(values), "low": low, "high": high, "target": target,
            "holds": holds(target, low, high), "pairs": len(values), "beside": beside, "note": note, "reason": "",
            "ranks": f"{first} to {last} of {len(values)}, {100 * chance:.1f} %" if len(values) > 1 else ""}


def ratio(name: str, a: list[float], b: list[float], target: str = "", note: str = "", unit: str = "s") -> dict:
    """A row of the pairs' a / b; beside it the median of each."""
    beside = f"{statistics.median(a):.3g} {unit} / {statistics.median(b):.3g} {unit}"
    return row(name, [x / y for x, y in zip(a, b)], target, beside, note)


def count(name: str, a: int, b: int, target: str = "") -> dict:
    return row(name, [a / b], target, f"{a} / {b}")


def not_run(name: str, why: str, target: str = "") -> dict:
    """A row without a figure, that says what it would need."""
    return {**row(name, [math.nan]), "ratio": None, "low": None, "high": None, "target": target, "pairs": 0,
            "reason": f"not run: {why}"}
