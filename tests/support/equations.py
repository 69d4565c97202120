"""
pytest --equations: ends with a table of the paper's equations and of what was checked of each.

A group is what stands below one ruler of a test file, and the ruler names the equations:

    # --- merging weights (Eq. 7) ---

The right column comes from the outcomes of the tests that ran: a group has passed when each of its tests did, with all
of its parameters. What failed, was skipped or did not run is counted.
"""
import ast
import math
import re
from dataclasses import dataclass, field
from pathlib import Path

import pytest

RULER = re.compile(r"# --- (?P<title>.+?)(?: \((?P<source>(?:Eq\.|Section|Table|Appendix|Fig\.) .+)\))? -{3,}")
ORDER = ("passed", "skipped", "failed")          # the last of a test's outcomes counts: one of its parameters failed


@dataclass
class Group:
    source: str                                  # "Eq. 7", or empty
    title: str
    file: str
    tests: list[str] = field(default_factory=list)


def groups_of(file: str, source: str) -> list[Group]:
    """Tests of a file's top level by the ruler above them. Rulers without a test are left out."""
    rulers = {}
    for number, line in enumerate(source.splitlines(), start=1):
        if match := RULER.fullmatch(line):
            rulers[number] = Group(match["source"] or "", match["title"], file)

    groups = {0: Group("", "", file), **rulers}
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            above = max(number for number in groups if number < node.lineno)
            groups[above].tests.append(node.name)
    return [group for group in groups.values() if group.tests]


def equations(source: str) -> list[int]:
    """"Eq. 3, 7-9, Section 3.3" -> [3, 7, 8, 9]"""
    numbers = []
    for part in source.removeprefix("Eq. ").split(", "):
        if re.fullmatch(r"\d+(-\d+)?", part):
            first, _, last = part.partition("-")
            numbers += range(int(first), int(last or first) + 1)
    return numbers


def how_many(tests: list[str]) -> str:
    return "1 property" if len(tests) == 1 else f"{len(tests)} properties"


class EquationTable:
    """Listens to a run of pytest."""

    def __init__(self, root: Path):
        self.root = root
        self.outcomes: dict[tuple[str, str], str] = {}           # (file, test) -> the last in ORDER of its outcomes
        self.files: dict[str, None] = {}                         # in the order they were collected

    def pytest_collectreport(self, report):
        if report.nodeid.endswith(".py"):
            self.files[report.nodeid] = None

    def pytest_runtest_logreport(self, report):
        file, _, name = report.nodeid.partition("::")
        key = file, name.partition("[")[0]
        self.outcomes[key] = max(self.outcomes.get(key, "passed"), report.outcome, key=ORDER.index)

    def pytest_terminal_summary(self, terminalreporter):
        terminalreporter.section("the paper's equations")
        for row in self.rows():
            terminalreporter.write_line(row)

    def rows(self) -> list[str]:
        groups = []
        for file in self.files:
            groups += groups_of(file, (self.root / file).read_text())
        groups.sort(key=lambda group: equations(group.source)[:1] or [math.inf])     # stable: else as in the files
        cells = [(group.source or "-", group.title, group.file, how_many(group.tests), self.result(group))
                 for group in groups]
        widths = [max(map(len, column)) for column in zip(*cells)]
        return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in cells]

    def result(self, group: Group) -> str:
        """"passed", or how many passed, failed, were skipped, did not run."""
        outcomes = [self.outcomes.get((group.file, test), "not run") for test in group.tests]
        if set(outcomes) == {"passed"}:
            return "passed"
        counts = [(outcomes.count(outcome), outcome) for outcome in ("failed", "skipped", "not run", "passed")]
        return ", ".join(f"{count} {outcome}" for count, outcome in counts if count)


def pytest_addoption(parser):
    parser.addoption("--equations", action="store_true", help="end with a table of what was checked of each equation")


@pytest.hookimpl(trylast=True)
def pytest_configure(config):
    if config.getoption("--equations"):
        config.pluginmanager.register(EquationTable(config.rootpath))
