"""
tests/torture/run.py: what it says holds, and it does not say so of what does not.

Must be true: a failed trial, a torture that breaks and one without a trial do not hold; two ends of
a run are the same only bit for bit; the kept rows are of every torture, and hold. That mote itself
survives is the slow test. That docs/reliability.md shows the rows: tests/docs/test_pages.py.
"""
import contextlib
import json
import random
import shutil
import sys
import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))
from torture import job as torture_job  # noqa: E402
from torture import run as torture  # noqa: E402
from torture.damaged_videos import damage  # noqa: E402
from torture.job import Trial  # noqa: E402

from mote.clip_backbone import clip_config  # noqa: E402
from mote.datasets.lists import read_classes, read_split  # noqa: E402
from mote.runtime.checkpoints import read_checkpoint, save_checkpoint  # noqa: E402
from mote.runtime.run_folder import evaluated  # noqa: E402
from mote.runtime.watched_loading import Watch  # noqa: E402


# --- what holds, and what does not ----------------------------------------------------------------
def good(job, options):
    yield Trial("a", "")
    yield Trial("b", "")


def bad(job, options):
    yield Trial("a", "")
    yield Trial("b", "c")


def none(job, options):
    return []


def broken(job, options):
    yield Trial("first", "")
    raise RuntimeError("the torture itself")


TRIALS = {"good": good, "none": none, "broken": broken, "bad": bad}


@pytest.fixture
def tortures(monkeypatch, tmp_path):
    """Four tortures that take no time, in place of the real ones, and a file for their rows."""
    quick = {name: (f"what {name} is", trials) for name, trials in TRIALS.items()}
    monkeypatch.setattr(torture, "TORTURES", quick)
    monkeypatch.setattr(torture, "Job", lambda folder: None)
    file = tmp_path / "rows.jsonl"
    return ["--file", str(file)], file


@pytest.mark.parametrize("name, tried, failed",
                         [("good", 2, 0), ("bad", 2, 1), ("none", 0, 0), ("broken", 2, 1)])
def test_what_fails_breaks_or_tries_nothing_does_not_hold(tortures, name, tried, failed, capsys):
    flags, file = tortures
    assert torture.main([*flags, name]) == (0 if name == "good" else 1)
    row, = map(json.loads, file.read_text().splitlines())
    assert (row["tried"], row["failed"], row["holds"]) == (tried, failed, name == "good")
    assert ("DOES NOT HOLD" in capsys.readouterr().out) == (name != "good")


def test_the_first_failure_is_kept_and_a_quick_run_keeps_nothing(tortures):
    flags, file = tortures
    assert torture.main([*flags, "--quick"]) == 1 and not file.exists()
    torture.main([*flags, "bad"])
    assert json.loads(file.read_text())["first_failure"] == "b: c"


def test_the_table_has_the_newest_row_of_each_torture(tortures, capsys):
    flags, file = tortures
    torture.main([*flags, "bad", "good"])
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    lines.append({**lines[0], "failed": 0, "tried": 77})
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    capsys.readouterr()
    torture.main([*flags, "--table"])
    printed = capsys.readouterr().out
    assert "| bad | what bad is | 77 | 0 |" in printed
    assert "| good | what good is | 2 | 0 |" in printed


@pytest.mark.parametrize("flags, words", [
    (["nothing"], "no torture nothing"), (["--minutes", "0"], "--minutes must"),
    (["--videos", "/nowhere"], "--videos /nowhere: no such folder")])
def test_a_mistake_is_one_line(flags, words, capsys):
    with pytest.raises(SystemExit) as stopped:
        torture.main(flags)
    error = capsys.readouterr().err
    assert stopped.value.code == 2 and words in error and len(error.strip().splitlines()) == 1


# --- what tortures compare and do -----------------------------------------------------------------
def test_two_ends_are_the_same_bit_for_bit_only(tmp_path):
    authors = read_checkpoint(ROOT / "tests/golden/official_tiny_checkpoint.pt")
    optimizer = {"state": {0: {"step": torch.tensor(3.0)}}}
    a, b = tmp_path / "a", tmp_path / "b"
    a.mkdir()
    save_checkpoint(a / "last.pt", {**authors, "optimizer": optimizer})
    (a / "metrics.jsonl").write_text('{"step": 5}\n')
    (a / "results.json").write_text("{}\n")
    shutil.copytree(a, b)
    assert torture_job.difference(a, b) == ""
    (b / "metrics.jsonl").write_text('{"step": 5.0}\n')
    assert torture_job.difference(a, b) == "other metrics"
    shutil.copy(a / "metrics.jsonl", b)
    state = torch.load(b / "last.pt", weights_only=True)
    scale = state["model"]["logit_scale"]
    state["model"]["logit_scale"] = torch.nextafter(scale, torch.tensor(9.0))
    state["optimizer"]["state"][0]["step"] += 1
    save_checkpoint(b / "last.pt", state)
    assert torture_job.difference(a, b) == "other weights, other optimiser"
    (b / "results.json").unlink()
    assert torture_job.difference(a, b).startswith("no end: ")


def test_damage_changes_a_file_in_every_way(tmp_path):
    whole, other = bytes(range(256)) * 20, b"x" * 5000
    seen = {damage(whole, other, random.Random(seed)) for seed in range(40)}
    assert whole not in seen and len(seen) == 40
    assert any(len(one) < 5120 and whole.startswith(one) for one in seen)                # cut
    assert any(one.endswith(b"x" * 5) and len(one) != len(whole) for one in seen)        # spliced
    as_long = [one for one in seen if len(one) == len(whole)]
    assert any(sum(a != b for a, b in zip(one, whole)) < 300 for one in as_long)         # flipped


READERS = {"val.txt": lambda file: read_split(file.parent, "val"),
           "testlist01.txt": lambda file: read_split(file.parent, "val"),
           "classes.csv": read_classes, "labels.json": read_classes, "classInd.txt": read_classes,
           "model.json": lambda file: clip_config(str(file)), "last.pt": read_checkpoint,
           "metrics.jsonl": lambda file: evaluated(file.parent),
           "skipped.txt": lambda file: Watch([("a.mp4", 0)], 1, file)}
TEXT = st.text("0123456789 ,/.\"{}[]:abmp\n\r\t", max_size=80).map(str.encode)


@pytest.mark.parametrize("name", READERS)
@given(st.one_of(st.binary(max_size=200), TEXT, TEXT.map(lambda text: b"PK\x03\x04" + text)))
def test_any_bytes_are_read_or_refused(name, content):
    """In a ValueError or an OSError, which scripts print as one line; hypothesis shows others."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / name).write_bytes(content)
        with contextlib.suppress(ValueError, OSError):
            READERS[name](Path(folder) / name)


# --- the rows that are kept, and mote itself ------------------------------------------------------
def test_every_kept_row_holds_and_none_is_missing():
    rows = [json.loads(line) for line in (ROOT / "results/torture.jsonl").read_text().splitlines()]
    newest = {row["name"]: row for row in rows}
    assert list(newest) and set(newest) == set(torture.TORTURES)
    assert all(row["holds"] and not row["quick"] for row in newest.values())


@pytest.mark.slow
def test_mote_survives_a_few_of_each(capsys):
    """Five to ten minutes."""
    assert torture.main(["--quick"]) == 0, capsys.readouterr().out
