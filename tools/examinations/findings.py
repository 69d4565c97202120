"""
What an examination finds, and how numbers are said and read. No import of torch or mote here.

An examination takes the doctor's options and yields findings. Beside what was given on the command
line, options hold

    config, clip, side     train.Config; the configuration of its CLIP; the side of a frame, pixels
    arguments              the options of train.py, as they were given
    device, cores          found by machine.py's `device` and `threads`, for those that come later
"""
import re
from collections.abc import Iterator
from typing import NamedTuple


class Finding(NamedTuple):
    """good: nothing to do. advice and level are of one that is not good; level: WRONG or warn."""
    good: bool
    found: str
    advice: str = ""
    level: str = "WRONG"


Findings = Iterator[Finding]


def size(n: float) -> str:
    """A number of bytes, as text: in units of 10^9 or 10^6, as disks are sold."""
    if n >= 1e9:
        return f"{n / 1e9:.1f} GB"
    return f"{n / 1e6:.0f} MB"


def numbers(text: str) -> list[int]:
    """The whole numbers in a text: "2.11" has two.

    Lists of them compare as versions do: [2, 9] < [2, 11]. Signs are not read.
    """
    return [int(digits) for digits in re.findall(r"\d+", text)]
