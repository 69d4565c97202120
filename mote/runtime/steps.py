"""
What follows from the number of a step: a seed, and whether something is due.

Not part of the paper.
"""
import numpy as np


def seed_of(*key: int) -> int:
    """One seed from several numbers, such as (seed of the run, step, micro-batch)."""
    return int(np.random.SeedSequence(key).generate_state(1)[0])


def is_due(step: int, every: int) -> bool:
    """Whether it is time, after `step` steps, for what happens every so many; 0: never.

    >>> is_due(0, 5), is_due(10, 5), is_due(10, 0)
    (False, True, False)
    """
    return every > 0 and step > 0 and step % every == 0
