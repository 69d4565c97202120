"""
What is installed is what stands in mote/: a wheel is built, installed in a folder of its own, and used from there.

Without a network, and from a copy: a build leaves build/ and mote_video.egg-info beside the sources.
"""
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.places import ROOT

PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]

# -I: neither the current folder nor PYTHONPATH nor an editable installation comes before the folder given.
USE_IT = """
import importlib, pkgutil, sys

sys.path.insert(0, sys.argv[1])
import mote

for module in pkgutil.walk_packages(mote.__path__, "mote."):
    importlib.import_module(module.name)

from mote.clip_backbone import load_clip

load_clip("toyworld", "toyworld")
print(mote.__file__)
"""


def litter() -> set[Path]:
    """What a build leaves beside the sources, or `pip install -e .` did."""
    return {*ROOT.glob("build"), *ROOT.glob("*.egg-info")}


def copy_of_the_sources(folder: Path) -> Path:
    for file in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, folder)
    shutil.copytree(ROOT / "mote", folder / "mote", ignore=shutil.ignore_patterns("__pycache__", ".*"))
    return folder


def install(sources: Path, folder: Path) -> Path:
    """Build a wheel and install it alone. -> the folder it is in"""
    wheels, installed = folder / "wheels", folder / "installed"
    build = ["wheel", str(sources), "--no-deps", "--no-index", "--no-build-isolation", "-w", str(wheels)]
    subprocess.run([*PIP, *build], check=True, cwd=folder)

    wheel, = wheels.glob("mote_video-*.whl")
    put = ["install", str(wheel), "--no-deps", "--no-index", "--target", str(installed)]
    subprocess.run([*PIP, *put], check=True, cwd=folder)
    return installed


def files_below(package: Path) -> set[str]:
    return {file.relative_to(package).as_posix() for file in package.rglob("*")
            if file.is_file() and "__pycache__" not in file.parts}


def use(installed: Path) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-I", "-c", USE_IT, str(installed)], cwd=installed,
                          capture_output=True, text=True)


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    return copy_of_the_sources(tmp_path_factory.mktemp("sources"))


@pytest.fixture(scope="module")
def installed(sources, tmp_path_factory):
    before = litter()
    folder = install(sources, tmp_path_factory.mktemp("wheel"))
    assert litter() == before
    return folder


def test_every_module_and_data_file_is_in_the_wheel(installed, sources):
    assert files_below(installed / "mote") == files_below(sources / "mote")


def test_the_wheel_brings_what_it_needs(installed):
    for file in ("py.typed", "toyworld/toyworld.json", "toyworld/toyworld.pt"):
        assert (installed / "mote" / file).is_file(), file
    assert not any((installed / folder).exists() for folder in ("tests", "tools", "train.py", "eval.py"))


def test_the_installed_package_imports_and_loads_toyworlds_model(installed):
    done = use(installed)
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).is_relative_to(installed)


@pytest.mark.slow
@pytest.mark.parametrize("kept, dropped", [
    ('include = ["mote", "mote.*"]', 'include = ["mote"]'),
    ('"mote.toyworld" = ["toyworld.json", "toyworld.pt"]', '"mote.toyworld" = ["toyworld.json"]'),
], ids=["subpackages", "a data file"])
def test_what_a_wheel_lacks_is_noticed(kept, dropped, tmp_path):
    """Both mistakes build and install without a word."""
    (tmp_path / "sources").mkdir()
    sources = copy_of_the_sources(tmp_path / "sources")
    project = (sources / "pyproject.toml").read_text()
    assert kept in project
    (sources / "pyproject.toml").write_text(project.replace(kept, dropped))

    installed = install(sources, tmp_path)
    assert files_below(installed / "mote") < files_below(sources / "mote")
    assert use(installed).returncode != 0
