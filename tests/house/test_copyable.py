"""
Each concept is one short file that can be lifted out and read: it imports alone, with nothing heavy.

For every module that says it can be copied, in an interpreter that sees nothing else of this project (python -I); for
all scripts and modules, their length. Checked against sys.modules and against the caps of the project.
"""
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULES = ("merging", "modulation", "temporal_experts", "clip_backbone", "data", "datasets/lists", "datasets/folders",
           "scoring/protocols")
NEEDS = {"temporal_experts": ["merging"], "data": ["files/decoding"], "clip_backbone": ["files/weights"],
         "datasets/lists": ["datasets/finding_lists", "datasets/parsing_lists", "datasets/published_lists", "datasets/folders"]}        # as their docstrings say
HEAVY = {"open_clip", "torchvision", "torchcodec", "timm", "ftfy", "regex", "transformers", "PIL", "matplotlib"}
ALLOWED = {"merging": {"torch"}, "modulation": {"torch"}, "temporal_experts": {"torch"},
           "clip_backbone": {"torch", "open_clip"}, "data": {"torch", "numpy", "torchvision", "torchcodec"},
           "datasets/lists": set(), "datasets/folders": set(), "scoring/protocols": {"numpy"}}


def in_a_fresh_interpreter(code, cwd):
    """Nothing of this project can be found but what the code adds; one thread."""
    done = subprocess.run([sys.executable, "-I", "-c", code], cwd=cwd, capture_output=True, text=True,
                          env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.parametrize("name", MODULES)
def test_module_imports_alone(name, tmp_path):
    for file in (name, *NEEDS.get(name, ())):
        shutil.copy(ROOT / "mote" / f"{file}.py", tmp_path)
    loaded = set(in_a_fresh_interpreter(
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); before = set(sys.modules); import {Path(name).name}; "
        "print(*{m.partition('.')[0] for m in set(sys.modules) - before})", tmp_path))
    assert Path(name).name in loaded and "mote" not in loaded
    assert not loaded & HEAVY                                    # heavy imports happen where they are used
    assert ALLOWED[name] or not loaded & {"torch", "numpy"}


@pytest.mark.parametrize("name", MODULES)
def test_module_names_no_package_but_those_it_may(name):
    imports = {line.split()[1].partition(".")[0] for line in (ROOT / "mote" / f"{name}.py").read_text().splitlines()
               if line.strip().startswith(("import ", "from "))}
    others = {word for word in imports if word and word not in sys.stdlib_module_names}
    assert others <= ALLOWED[name] | {Path(other).name for other in NEEDS.get(name, ())}


def test_what_a_module_needs_beside_it_stands_in_its_docstring():
    for name, needs in NEEDS.items():
        docstring = (ROOT / "mote" / f"{name}.py").read_text().split('"""')[1]
        assert all(f"{Path(other).name}.py" in docstring for other in needs)


def test_importing_mote_loads_nothing_heavy_beyond_torch():
    loaded = set(in_a_fresh_interpreter(
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); import torch; before = set(sys.modules); import mote; "
        "print(*{m.partition('.')[0] for m in set(sys.modules) - before})", ROOT))
    assert "mote" in loaded and not loaded & HEAVY


def test_every_module_begins_with_a_docstring():
    modules = [*(ROOT / "mote").glob("*.py"), *(ROOT / "tests").glob("test_*.py")]
    for file in [ROOT / "train.py", ROOT / "eval.py", *modules]:
        assert file.read_text().startswith('"""'), file


def test_no_file_is_named_utils():
    names = {file.name for folder in ("mote", "tests", "tools") for file in (ROOT / folder).rglob("*.py")}
    assert not names & {"utils.py", "util.py", "helpers.py", "common.py", "misc.py"}
