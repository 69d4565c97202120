"""
What follows from the number of a step is the same in every process and version, or a resumed run would be another run.
"""
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mote.runtime.steps import is_due, seed_of

small = st.integers(0, 10**6)


def test_seeds_are_the_same_in_every_process_and_version():
    seeds = [seed_of(0, 0, 0), seed_of(0, 5, 1), seed_of(0, 5, 1, 1), seed_of(3)]
    assert seeds == [2968811710, 1565899405, 3318158144, 1576890651]


@given(small, small, small)
def test_each_step_each_micro_batch_and_each_purpose_has_a_seed_of_its_own(seed, step, m):
    others = [(seed + 1, step, m), (seed, step + 1, m), (seed, step, m + 1), (seed, step, m, 1)]
    mine = seed_of(seed, step, m)
    assert mine == seed_of(seed, step, m) and 0 <= mine < 2**32
    assert mine not in [seed_of(*key) for key in others]


@pytest.mark.parametrize("step, every, due", [
    (0, 5, False), (1, 5, False), (4, 5, False), (5, 5, True), (6, 5, False), (10, 5, True), (1, 1, True),
    (0, 1, False), (0, 0, False), (7, 0, False)])                # 0: never
def test_what_happens_every_so_many_steps_is_due_after_them(step, every, due):
    assert is_due(step, every) is due
