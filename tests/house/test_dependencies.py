"""
Arrows go one way: scripts -> scoring, runtime, datasets -> model -> concepts.

Read off the imports of every file, also those inside functions. mote/__init__.py, which offers what a user needs, may
import anything of mote.
"""
import subprocess
import sys
from pathlib import Path

import pytest
from support.places import ROOT
from support.style import imported_modules

CONCEPTS = {"mote.merging", "mote.modulation", "mote.temporal_experts", "mote.clip_backbone", "mote.data"}
COMPANIONS = {"mote.clip_backbone": {"mote.files.weights", "mote.files.towers"}, "mote.data": {"mote.files.decoding"},
              "mote.temporal_experts": {"mote.merging"}}

# What a module may import of this project: names of modules and of packages. The longest fitting name counts.
MAY_IMPORT = {
    **{concept: COMPANIONS.get(concept, set()) for concept in CONCEPTS},
    "mote.files": {"mote.files"},
    "mote.datasets": {"mote.datasets", "mote.files"},
    "mote.datasets.dataset": {"mote.datasets", "mote.toyworld"},             # toyworld's sets are generated when opened
    "mote.model": CONCEPTS,
    "mote": {"mote"},
    "train": {"mote"},
    "eval": {"mote"},
    "tools": {"mote", "tools", "train", "eval"},
}
FILES = [*sorted((ROOT / "mote").rglob("*.py")), *sorted((ROOT / "tools").rglob("*.py")),
         ROOT / "train.py", ROOT / "eval.py"]


def dotted(file: Path) -> str:
    """mote/datasets/lists.py -> mote.datasets.lists, mote/datasets/__init__.py -> mote.datasets"""
    return ".".join(file.with_suffix("").parts).removesuffix(".__init__")


def is_within(module: str, package: str) -> bool:
    return module == package or module.startswith(package + ".")


def of_this_project(module: str) -> str:
    """The module's file, as a dotted name: a name that stands in a module is cut off. Empty for other packages."""
    path = ROOT.joinpath(*module.split("."))
    if path.is_dir() or path.with_suffix(".py").is_file():
        top = module.partition(".")[0]
        return module if top in ("mote", "tools", "tests", "train", "eval") else ""
    return ""


def against_the_arrows(source: str, file: Path) -> list[str]:
    """What a file imports and may not. file: its path from the root, which says what it may."""
    module = dotted(file)
    rule = max((name for name in MAY_IMPORT if is_within(module, name)), key=len)
    allowed = MAY_IMPORT[rule]
    imported = {of_this_project(name) for name in imported_modules(source, file)} - {""}
    packages = {".".join(name.split(".")[:-1]) for name in imported}          # `import a.b` gives a as well
    return sorted(name for name in imported - packages if not any(is_within(name, other) for other in allowed))


@pytest.mark.parametrize("file, source, offence", [
    ("mote/merging.py", "from .modulation import modulation", "mote.modulation"),
    ("mote/merging.py", "def f():\n    import mote.model", "mote.model"),
    ("mote/modulation.py", "from mote import merging", "mote.merging"),
    ("mote/temporal_experts.py", "from .model import MoTE", "mote.model"),
    ("mote/model.py", "from .runtime.checkpoints import load_model", "mote.runtime.checkpoints"),
    ("mote/datasets/lists.py", "from ..data import decode", "mote.data"),
    ("mote/datasets/lists.py", "from ..scoring.protocols import digest", "mote.scoring.protocols"),
    ("mote/datasets/__init__.py", "from .. import model", "mote.model"),
    ("mote/runtime/checkpoints.py", "import train", "train"),
    ("mote/scoring/evaluate.py", "from tools import check", "tools.check"),
    ("train.py", "from eval import dataset", "eval"),
    ("eval.py", "import train", "train"),
    ("train.py", "from tools.check import examine", "tools.check"),
])
def test_an_import_against_the_arrows_is_caught(file, source, offence):
    assert against_the_arrows(source, Path(file)) == [offence]


@pytest.mark.parametrize("file, source", [
    ("mote/merging.py", "import torch\nfrom torch import nn"),
    ("mote/temporal_experts.py", "from .merging import merge"),
    ("mote/model.py", "from .clip_backbone import normalise\nfrom .modulation import GAMMA"),
    ("mote/datasets/lists.py", "from .folders import stem\nfrom . import published_lists"),
    ("mote/runtime/checkpoints.py", "from ..model import MoTE\nfrom mote.scoring.evaluate import describe"),
    ("mote/__init__.py", "from .runtime.checkpoints import load_model"),
    ("tools/check.py", "import train\nimport eval\nfrom tools.prepare import main\nimport mote.data"),
    ("train.py", "import json\nfrom mote.model import MoTE"),
])
def test_an_import_along_the_arrows_passes(file, source):
    assert against_the_arrows(source, Path(file)) == []


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.relative_to(ROOT).as_posix())
def test_the_file_imports_along_the_arrows(file):
    path = file.relative_to(ROOT)
    offences = against_the_arrows(file.read_text(), path)
    assert not offences, f"{path} imports {', '.join(offences)}: against the arrows, see the head of this test"


ONLY_THE_DATASETS = """
import importlib, pkgutil, sys, types

mote = types.ModuleType("mote")
mote.__path__ = [sys.argv[1]]
sys.modules["mote"] = mote

import mote.datasets

for module in pkgutil.walk_packages(mote.datasets.__path__, "mote.datasets."):
    importlib.import_module(module.name)
print(*sys.modules)
"""


def test_the_datasets_need_no_torch(tmp_path):
    """mote/__init__.py loads torch: an empty package in its place shows what mote/datasets itself needs."""
    done = subprocess.run([sys.executable, "-I", "-c", ONLY_THE_DATASETS, str(ROOT / "mote")], cwd=tmp_path,
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    loaded = set(done.stdout.split())
    assert "mote.datasets.lists" in loaded
    assert not loaded & {"torch", "torchvision", "torchcodec", "open_clip"}
