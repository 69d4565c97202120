"""
What looking at a video file gives, and what a damaged header raises.

Part of containers/. Not part of the paper.
"""
import struct
from typing import NamedTuple

# What reading a damaged header raised. RecursionError: boxes nested too deep.
DAMAGED = (struct.error, IndexError, KeyError, ValueError, OverflowError, RecursionError)


class Look(NamedTuple):
    """What a file's bytes say."""
    container: str
    in_order: str = ""
    front: int = 0
    mirrored: tuple[int, ...] = ()
    instead: str = ""
