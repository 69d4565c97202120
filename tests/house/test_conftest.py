"""
The tests' own ground: what tests/conftest.py promises, checked by breaking each promise.
"""
import os
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from support.places import ROOT
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


SKIPS = {
    "a package is missing": "def test_it(): pytest.importorskip('nowhere_to_be_found')",
    "a package is missing at the head": "pytest.importorskip('nowhere_to_be_found')\ndef test_it(): pass",
    "a mark": "@pytest.mark.skipif(True, reason='no ffmpeg program')\ndef test_it(): pass",
}
MAY_SKIP = {
    "real videos": "@pytest.mark.skipif(True, reason='needs $MOTE_TEST_VIDEOS')\ndef test_it(): pass",
    "an expected failure": "@pytest.mark.xfail\ndef test_it(): assert False",
}


def exit_status(test, folder, no_skips):
    """Of pytest over one file with this test."""
    (folder / "test_it.py").write_text("import pytest\n" + test)
    return subprocess.run([sys.executable, "-m", "pytest", "-q", "-p", "support.skips", "-p", "no:cacheprovider"],
                          cwd=folder, stdout=subprocess.DEVNULL,
                          env={**os.environ, "PYTHONPATH": str(ROOT / "tests"), "MOTE_NO_SKIPS": no_skips}).returncode


@pytest.mark.parametrize("test", SKIPS.values(), ids=SKIPS)
def test_a_skip_fails_where_skips_are_forbidden(test, tmp_path):
    assert exit_status(test, tmp_path, no_skips="1") in (1, 2)                # a test failed, or a file did
    assert exit_status(test, tmp_path, no_skips="") in (0, 5)                 # passed, or there was no test


@pytest.mark.parametrize("test", MAY_SKIP.values(), ids=MAY_SKIP)
def test_what_cannot_be_installed_may_skip(test, tmp_path):
    assert exit_status(test, tmp_path, no_skips="1") == 0
