"""
The tests' own ground: what tests/conftest.py promises, checked by breaking each promise.
"""
import os
import tempfile
import warnings
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from support.tensors import randn

from mote.runtime.prompts import CACHE


def test_a_warning_from_mote_is_an_error():
    with pytest.raises(UserWarning, match="something odd"):
        warnings.warn_explicit("something odd", UserWarning, "model.py", 1, module="mote.model")


def test_the_cache_of_a_test_run_is_a_temporary_folder():
    assert CACHE == Path(os.environ["XDG_CACHE_HOME"]) / "mote"
    assert CACHE.is_relative_to(tempfile.gettempdir())


def test_hypothesis_runs_with_our_profile():
    assert settings.default.deadline is None
    assert settings.default.max_examples == (200 if os.environ.get("CI") else 50)


def test_a_seed_gives_the_same_tensor_whatever_was_drawn_before():
    first = randn(3, 2, 5)
    torch.rand(1)
    torch.testing.assert_close(randn(3, 2, 5), first, rtol=0, atol=0)
