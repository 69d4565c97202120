"""
The statistics of tools/bench/speed.py: from two sides, timed, to a ratio and its interval.

Both sides of a ratio run in turns, so that a slow minute of the machine meets both. The ratio is
the median of the ratios of these pairs.

Its interval lies between two of the ordered ratios. They are chosen so that the interval holds the
true median with a chance of at least 95 %, whatever the distribution:
1 - 2 P(Bin(n, 1/2) < low rank). A target is met if the interval reaches it.
"""
import math
import statistics
import time
from collections.abc import Callable


# --- 1. two sides, timed in turns -----------------------------------------------------------------
def nothing() -> None:
    """A CPU is idle when a function returns: there is nothing to wait for."""


def interleave(functions: list[Callable], pairs: int,
               settle: Callable = nothing) -> list[list[float]]:
    """Seconds of each function, one column each: all in turns, backwards every other time.

    A function gets the number of its round. Round 0 warms up and is not in the columns.
    settle: runs before the clock starts and before it stops.
    """
    columns: list[list[float]] = [[] for _ in functions]

    for i in range(pairs + 1):
        turns = list(zip(functions, columns))
        if i % 2 == 0:
            turns.reverse()
        for function, column in turns:
            settle()
            begin = time.perf_counter()
            function(i)
            settle()
            column.append(time.perf_counter() - begin)

    return [column[1:] for column in columns]


# --- 2. the interval of a median ------------------------------------------------------------------
def interval_ranks(n: int, coverage: float = 0.95) -> tuple[int, int, float]:
    """Ranks (from 1) of the two values of n that end the interval, and the chance that it holds the
    median. Below 6 values no two reach 95 %: the smallest and the largest.

    >>> interval_ranks(10)
    (2, 9, 0.978515625)
    """
    def chance_between_ends(low: int) -> float:
        below = sum(math.comb(n, k) for k in range(low))
        return 1 - 2 * below / 2**n

    lows = range(1, (n + 1) // 2 + 1)
    wide_enough = [low for low in lows if chance_between_ends(low) >= coverage]
    low = max(wide_enough, default=1)
    return low, n + 1 - low, chance_between_ends(low)


def holds(target: str, low: float, high: float) -> bool | None:
    """Does the interval reach the target: "<= 1.05", ">= 5", "= 1"? None without a target."""
    if not target:
        return None
    sign, number = target.split()
    limit = float(number)
    if sign == "<=":
        return low <= limit
    if sign == ">=":
        return high >= limit
    if sign == "=":
        return low == limit and high == limit
    raise ValueError(f"target {target!r}: must start with <=, >= or =")


# --- 3. rows --------------------------------------------------------------------------------------
def row(name: str, values: list[float], target: str = "", beside: str = "", note: str = "") -> dict:
    """One figure: the median of the values of its pairs, or the one value of a count or of one run.

    beside: what the figure comes from; note: what to compare it with. Both are only printed.
    """
    first, last, chance = interval_ranks(len(values))
    ordered = sorted(values)
    low = ordered[first - 1]
    high = ordered[last - 1]
    ranks = ""
    if len(values) > 1:
        ranks = f"{first} to {last} of {len(values)}, {100 * chance:.1f} %"
    return {"name": name, "ratio": statistics.median(values), "low": low, "high": high,
            "target": target, "holds": holds(target, low, high), "pairs": len(values),
            "beside": beside, "note": note, "reason": "", "ranks": ranks}


def ratio(name: str, a: list[float], b: list[float], target: str = "", note: str = "",
          unit: str = "s") -> dict:
    """A row of the pairs' a / b; beside it the median of each.

    a, b: one value per pair, in `unit`. The ratio of the medians may differ from the row's figure,
    which is the median of the ratios.
    """
    beside = f"{statistics.median(a):.3g} {unit} / {statistics.median(b):.3g} {unit}"
    return row(name, [x / y for x, y in zip(a, b)], target, beside, note)


def count(name: str, a: int, b: int, target: str = "") -> dict:
    """A row of two numbers that were counted: they have no interval.

    A target is met only by the number itself, since low = high = a / b.
    """
    return row(name, [a / b], target, f"{a} / {b}")


def not_run(name: str, why: str, target: str = "") -> dict:
    """A row without a figure, with the reason why there is none."""
    return {**row(name, [math.nan]), "ratio": None, "low": None, "high": None, "target": target,
            "pairs": 0, "reason": f"not run: {why}"}
