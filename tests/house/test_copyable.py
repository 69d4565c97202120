"""
Each concept is one short file that can be lifted out and read: it imports alone, with nothing heavy.

Checked in an interpreter that sees nothing else of this project (python -I), against sys.modules and the imports that
stand in the file.
"""
import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from support.places import ROOT
from support.style import imported_modules

MOTE = ROOT / "mote"


class Needs(NamedTuple):
    packages: set[str] = set()                   # that it may name, also inside functions
    beside: tuple[str, ...] = ()                 # what of mote/ to copy with it, as its docstring says


COPYABLE = {
    "merging": Needs({"torch"}),
    "modulation": Needs({"torch"}),
    "temporal_experts": Needs({"torch"}, beside=("merging",)),
    "clip_backbone": Needs({"torch", "open_clip"}, beside=("files/weights", "files/towers")),
    "data": Needs({"torch", "numpy", "torchvision", "torchcodec"}, beside=("files/decoding", "files/containers")),
    "files/decoding": Needs({"torch", "numpy", "torchcodec"}, beside=("files/containers",)),
    "files/containers": Needs({"numpy"}),
    "files/towers": Needs({"torch", "open_clip", "huggingface_hub", "safetensors", "transformers"}),
    "datasets/lists": Needs(beside=("datasets/finding_lists", "datasets/parsing_lists", "datasets/class_files",
                                    "datasets/published_lists", "datasets/folders")),
    "datasets/folders": Needs(),
    "scoring/protocols": Needs({"numpy"}),
}
HEAVY = {"open_clip", "torchvision", "torchcodec", "timm", "ftfy", "regex", "transformers", "PIL", "matplotlib"}
VAGUE = {"utils", "util", "helpers", "common", "misc"}


def file(name: str) -> Path:
    """The file of this name, or the folder."""
    return MOTE / name if (MOTE / name).is_dir() else MOTE / f"{name}.py"


def sources(name: str) -> list[str]:
    """The module's source, or those of all files of a folder."""
    found = file(name)
    return [path.read_text() for path in (sorted(found.glob("*.py")) if found.is_dir() else [found])]


def copy(name: str, folder: Path) -> None:
    if file(name).is_dir():
        shutil.copytree(file(name), folder / stem(name))
    else:
        shutil.copy(file(name), folder)


def stem(name: str) -> str:
    """datasets/lists -> lists: its name where it is copied to."""
    return Path(name).name


def loaded_by(module: str, folder: Path) -> set[str]:
    """Top-level names that `import module` adds where only `folder` is found; torch's are left out for mote itself."""
    code = (f"import sys; sys.path.insert(0, {str(folder)!r})\n"
            f"{'import torch' if module == 'mote' else ''}\n"
            f"before = set(sys.modules); import {module}\n"
            "print(*{name.partition('.')[0] for name in set(sys.modules) - before})")
    done = subprocess.run([sys.executable, "-I", "-c", code], cwd=folder, capture_output=True, text=True,
                          env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


@pytest.mark.parametrize("name", COPYABLE)
def test_the_module_imports_alone(name, tmp_path):
    packages, beside = COPYABLE[name]
    for copied in (name, *beside):
        copy(copied, tmp_path)

    loaded = loaded_by(stem(name), tmp_path)
    assert stem(name) in loaded
    assert "mote" not in loaded
    assert not loaded & HEAVY                                    # heavy imports happen where they are used
    if not packages:
        assert not loaded & {"torch", "numpy"}


@pytest.mark.parametrize("name", COPYABLE)
def test_the_module_names_no_package_but_those_it_may(name):
    packages, beside = COPYABLE[name]
    for source in sources(name):
        imported = imported_modules(source, Path("package/folder/file.py"))            # "package": relative imports
        others = {module.partition(".")[0] for module in imported} - set(sys.stdlib_module_names) - {"package"}
        assert others <= packages | {stem(copied) for copied in beside}


@pytest.mark.parametrize("name", COPYABLE)
def test_what_the_module_needs_beside_it_stands_in_its_docstring(name):
    docstring = ast.get_docstring(ast.parse(sources(name)[0]))
    for copied in COPYABLE[name].beside:
        assert f"{stem(copied)}{'/' if file(copied).is_dir() else '.py'}" in docstring


def test_importing_mote_loads_nothing_heavy_beyond_torch():
    loaded = loaded_by("mote", ROOT)
    assert "mote" in loaded
    assert not loaded & HEAVY


def test_every_module_begins_with_a_docstring():
    files = [ROOT / "train.py", ROOT / "eval.py", *MOTE.rglob("*.py"), *(ROOT / "tools").rglob("*.py"),
             *(ROOT / "tests").rglob("*.py")]
    for file in files:
        assert ast.get_docstring(ast.parse(file.read_text())), file


def test_no_file_has_a_name_that_says_nothing():
    files = {file for folder in ("mote", "tests", "tools") for file in (ROOT / folder).rglob("*.py")}
    assert not {file.stem for file in files} & VAGUE
