"""
`make maths` ends with a table of equations (tests/support/equations.py): it shows what ran, and each equation is in it.
"""
import os
import subprocess
import sys

import pytest
from support.equations import equations, groups_of
from support.places import ROOT

SAMPLE = '''
import pytest

# --- sums (Eq. 1, 2) -----------------------------------------
def test_one(): pass

@pytest.mark.parametrize("x", [1, 2])
def test_two(x): pass

# --- the last parameter fails (Eq. 3) ------------------------
@pytest.mark.parametrize("x", [0, 1, 2])
def test_three(x): assert x < 2

def test_four(): pass

# --- does not start (Section 4) ------------------------------
@pytest.fixture
def broken(): raise ValueError

def test_five(broken): pass

# --- skips itself (Eq. 4) ------------------------------------
def test_six(): pytest.skip("no reason")

# --- no equation ---------------------------------------------
def test_seven(): pass

# --- no test (Eq. 5) -----------------------------------------
'''


def table(folder, *options) -> dict[str, list[str]]:
    """The table of a run over test_sample.py: title -> equation, properties, result."""
    done = subprocess.run([sys.executable, "-m", "pytest", "-q", "-p", "support.equations", "-p", "no:cacheprovider",
                           "--equations", *options, "test_sample.py"], cwd=folder, capture_output=True, text=True,
                          env={**os.environ, "PYTHONPATH": str(ROOT / "tests")})
    shown = done.stdout.partition("the paper's equations")[2].splitlines()
    rows = [[cell.strip() for cell in line.split("  ") if cell] for line in shown if "test_sample.py  " in line]
    return {row[1]: [row[0], *row[3:]] for row in rows}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sample")
    (folder / "test_sample.py").write_text(SAMPLE)
    return folder


def test_a_group_has_passed_when_all_of_it_did(folder):
    assert table(folder) == {
        "sums": ["Eq. 1, 2", "2 properties", "passed"],
        "the last parameter fails": ["Eq. 3", "2 properties", "1 failed, 1 passed"],
        "skips itself": ["Eq. 4", "1 property", "1 skipped"],
        "does not start": ["Section 4", "1 property", "1 failed"],
        "no equation": ["-", "1 property", "passed"],
    }


def test_what_did_not_run_has_not_passed(folder):
    shown = table(folder, "-k", "test_one or test_seven")
    assert shown["sums"] == ["Eq. 1, 2", "2 properties", "1 not run, 1 passed"]
    assert shown["skips itself"][-1] == "1 not run"
    assert shown["no equation"][-1] == "passed"


def test_a_file_that_cannot_be_read_has_not_passed(folder, tmp_path):
    (tmp_path / "test_sample.py").write_text("import nowhere_to_be_found\n" + SAMPLE)
    assert {row[-1] for row in table(tmp_path).values()} == {"2 not run", "1 not run"}


def test_equations_of_a_ruler_are_read():
    assert equations("Eq. 7") == [7]
    assert equations("Eq. 1-3, 6, 11") == [1, 2, 3, 6, 11]
    assert equations("Eq. 5, Section 3.3") == [5]
    assert equations("Section 3.3") == equations("") == []


def test_every_equation_of_the_paper_stands_over_a_group_of_tests():
    checked = set()
    for file in (ROOT / "tests").glob("test_*.py"):
        for group in groups_of(file.name, file.read_text()):
            checked.update(equations(group.source))
    assert checked == set(range(1, 12))
