"""
What README.md says of itself alone is true: its dozen lines print what they show, the demo gives the numbers shown.

That its commands run, its names exist and its links resolve, as those of every page: tests/docs/test_pages.py. The slow
test is the demo in full.
"""
import contextlib
import io
import re

import pytest
from support.pages import block_after, blocks, commands, parse_command
from support.readme import README

import eval as evaluation
import train

SPREAD = 12              # points that an accuracy of the demo may move by, as README.md says


def cells(table: str) -> dict[str, list[float]]:
    """Rows of the table at a run's end: name -> numbers."""
    rows = re.findall(r"^(untrained CLIP.*?|trained.*?)  +([\d. ]+)$", table, flags=re.M)
    return {name: [float(x) for x in numbers.split()] for name, numbers in rows}


def test_the_two_commands_are_there():
    assert {"make demo", "make test"} <= set(commands(README))


def test_the_method_in_a_dozen_lines_prints_what_is_shown():
    found = blocks(README)
    (code, shown), = [(text, found[i + 1][1]) for i, (kind, text) in enumerate(found) if kind == "python"]
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, "README.md", "exec"), {})
    assert printed.getvalue() == shown


@pytest.mark.slow
def test_the_demo_gives_the_numbers_shown_within_the_spread_stated(tmp_path, monkeypatch, capsys):
    """The job of `make demo`, three minutes; also what toyworld must show."""
    monkeypatch.delenv("MOTE_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    train.main(["--out", "runs/demo"])
    printed = capsys.readouterr().out
    got, shown = cells(printed), cells(block_after(README, "make demo"))
    assert f"within {SPREAD} points" in README and list(got) == list(shown) and len(got) == 3
    for row, numbers in shown.items():
        for here, there in zip(got[row], numbers):
            assert abs(here - there) <= SPREAD, (row, got[row], numbers)
    assert got["trained"][2] <= got["untrained CLIP, frames averaged"][2] - 5             # what specialising costs
    evaluation.main(["--checkpoint", "runs/demo", "--data", "toyworld-novel"])
    got, shown = (re.sub("checkpoint [0-9a-f]{8}", "", text).splitlines() for text in (
        capsys.readouterr().out, block_after(README, "eval.py --checkpoint runs/demo --data toyworld-novel")))
    assert got[:2] == shown[:2]                                               # the protocol, to the digit
    for here, there in zip(got[2:], shown[2:], strict=True):
        pairs = zip(re.findall(r"[\d.]+", here), re.findall(r"[\d.]+", there), strict=True)
        assert all(abs(float(a) - float(b)) <= SPREAD for a, b in pairs if "." in a)

    command, = (command for command in commands(README) if "--video data/toyworld" in command)
    evaluation.main(parse_command(command).args)
    got, shown = capsys.readouterr().out, block_after(README, command.partition(" --classes")[0])
    classes = [[line.rpartition("   ")[2] for line in text.splitlines()] for text in (got, shown)]
    assert classes[0][0] == classes[1][0] and set(classes[0]) == set(classes[1])          # the heading; the classes
    assert classes[0][1] == classes[1][1] == "star moving left"
