"""
What all tests share: how hard hypothesis tries, one torch thread, a cache of their own, seeded tensors, golden numbers.

Hypothesis draws sizes, temperatures and seeds; torch draws tensors from the seed, so that a failure replays exactly.
"""
import os
import tempfile

import pytest
import torch
from hypothesis import settings
from support.places import GOLDEN

# Before any test module imports eval.py or train.py, which read it once: no test writes to the user's cache.
CACHE = tempfile.TemporaryDirectory(prefix="mote-tests-")
os.environ["XDG_CACHE_HOME"] = CACHE.name

pytest_plugins = ["support.clips", "support.hub_cache", "support.equations", "support.skips"]      # fixtures, options

torch.set_num_threads(1)
settings.register_profile("dev", max_examples=50, deadline=None)
settings.register_profile("ci", max_examples=200, deadline=None, derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "dev")   # explicitly: under CI hypothesis loads one of its own


def pytest_configure(config):
    config.addinivalue_line("filterwarnings", r"error:::mote\.")          # a pattern for the start of the module's name


def pytest_unconfigure(config):
    CACHE.cleanup()


@pytest.fixture(scope="session")
def golden() -> dict:
    """What the authors' modules computed from tests/golden/official_tiny_checkpoint.pt. Not to be written to."""
    return torch.load(GOLDEN / "official_tiny_expected.pt", weights_only=True)


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    """$MOTE_DATA with a small toyworld (80 training clips, 40 test clips) and toyworld-novel (40): real mp4 files."""
    from mote import toyworld
    folder = tmp_path_factory.mktemp("data")
    toyworld.generate(folder / "toyworld", "toyworld", clips={"train": 2, "val": 1})
    toyworld.generate(folder / "toyworld-novel", "toyworld-novel", clips={"val": 1})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MOTE_DATA", str(folder))
        yield folder
