"""
Which frames a clip has: one of each segment, in training and in testing, for any length and T (hypothesis).
"""
import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st
from support.tensors import seeds

from mote.data import random_indices, segment_indices

lengths, frame_counts = st.integers(1, 20_000), st.integers(1, 77)


# --- training --------------------------------------------------------------------------------------------------------
@given(lengths, frame_counts, seeds)
def test_random_indices_take_one_frame_of_each_segment(n, T, seed):
    indices = random_indices(n, T, np.random.default_rng(seed))
    assert indices.shape == (T,)
    for i, index in enumerate(indices.tolist()):                 # segment i is [i n / T, (i + 1) n / T)
        assert i * n // T <= index <= -(-(i + 1) * n // T) - 1


@given(lengths, frame_counts, seeds)
def test_random_indices_are_sorted(n, T, seed):
    assert (np.diff(random_indices(n, T, np.random.default_rng(seed))) >= 0).all()


class Extreme:
    """A generator that draws the same number every time."""

    def __init__(self, number):
        self.number = number

    def random(self, T):
        return np.full(T, self.number)


@given(lengths, frame_counts, st.sampled_from([0.0, np.nextafter(1, 0)]))
@example(3, 49, np.nextafter(1, 0))
@example(1, 2, np.nextafter(1, 0))                               # 1 + 0.999.. rounds to 2: a frame that is not there
def test_random_indices_survive_the_largest_draw_that_rounds_up(n, T, draw):
    indices = random_indices(n, T, Extreme(draw))
    assert 0 <= indices.min() and indices.max() <= n - 1 and (np.diff(indices) >= 0).all()


@given(st.integers(1, 38), seeds)
def test_short_videos_repeat_frames_and_miss_none(n, seed):
    """With T >= 2 n every frame holds a whole segment."""
    assert set(random_indices(n, 2 * n, np.random.default_rng(seed)).tolist()) == set(range(n))


def test_random_indices_reach_every_frame():
    """A frame is drawn with chance 1/3 a time: the false alarm is under 12 (2/3)^300, or 1e-51."""
    drawn = {i for seed in range(300) for i in random_indices(12, 4, np.random.default_rng(seed)).tolist()}
    assert drawn == set(range(12))


# --- testing ---------------------------------------------------------------------------------------------------------
@given(lengths, frame_counts, st.integers(1, 12))
def test_segment_indices_are_in_range(n, T, clips):
    indices = segment_indices(n, T, clips)
    assert indices.shape == (clips, T) and 0 <= indices.min() and indices.max() < n


@given(frame_counts, st.integers(1, 12), st.data())
def test_segment_indices_are_sorted_where_the_video_is_long_enough(T, clips, data):
    n = data.draw(st.integers(T, 20_000))
    assert (np.diff(segment_indices(n, T, clips)) >= 0).all()


def test_segment_indices_match_numbers_worked_by_hand():
    """20 frames, T = 4: segments of 5; two clips start at 0 and at 5 - 1."""
    assert segment_indices(20, 4, 2).tolist() == [[0, 5, 10, 15], [4, 9, 14, 19]]
