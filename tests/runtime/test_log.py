"""
The means in the log are exact: the same bit for bit wherever a run is saved and gone on, and on any number of ranks.
"""
import json
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.runs import ALONE

from mote.runtime import log
from mote.runtime.ranks import Ranks

losses = st.one_of(st.just(0.0), st.floats(2.0**-16, 64, width=32))         # their sums are exact in 53 bits


@given(st.lists(st.tuples(losses, losses, losses, losses, losses, losses), min_size=1, max_size=12),
       st.sets(st.integers(0, 12)), st.integers(1, 2))
def test_means_are_the_same_bit_for_bit_wherever_a_run_is_saved_and_gone_on(steps, saved_before, ranks):
    """Of two ranks, each with three losses a step; `together` stands in for the group they are in."""
    def together(what: str) -> list:
        sums = [meter.sums for meter in meters]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(log, "gather", lambda _: sums)
            return [getattr(meter, what)() for meter in meters]
    places = [Ranks(rank, ranks, torch.device("cpu")) for rank in range(ranks)]
    meters = [log.Meter(place) for place in places]
    for i, six in enumerate(steps):
        if i in saved_before:
            states = together("state")
            assert states == [states[0]] * ranks                 # whichever rank writes it
            meters = [log.Meter(place, {"meter": json.loads(json.dumps(states[0]))}) for place in places]
        for rank, meter in enumerate(meters):
            meter.add([six[3 * rank:3 * rank + 3]], 4)
    together("read")
    exact = [math.fsum(six[3 * rank + k] for six in steps for rank in range(ranks)) for k in range(3)]
    assert all(list(meter.named().values()) == [one / (len(steps) * ranks) for one in exact] for meter in meters)
    assert all(meter.state()["sums"] == [0.0] * 3 and meter.state()["passes"] == 0 for meter in meters)


def test_the_means_are_the_same_on_another_number_of_ranks():
    two = log.Meter(Ranks(0, 2, torch.device("cpu")))
    for _ in range(3):
        two.add([[2.0, 4.0, 6.0]], 1)
    state = {"sums": [12.0, 24.0, 36.0], "passes": two.state()["passes"], "means": [0.0] * 3}    # of both ranks
    one = log.Meter(ALONE, {"meter": state})
    one.add([[2.0, 4.0, 6.0]], 1)
    one.read()
    assert one.means == [2.0, 4.0, 6.0]


def test_a_window_of_refused_steps_alone_keeps_the_means_before_it():
    meter = log.Meter(ALONE)
    meter.add([[1.0, 2.0, 3.0]], 1)
    meter.read(), meter.read()
    assert meter.means == [1.0, 2.0, 3.0]
