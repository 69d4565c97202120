"""
A bar shows how far something is, on a terminal alone, and never shares a line with what is printed.

Checked on a terminal of text: what it would show is worked out from what was written to it.
"""
import contextlib
import io
import math
import re
import sys
import time

import pytest
import torch
from support.faults import Killed, in_forward, killed

import train
from mote import load_model, toyworld
from mote.datasets.dataset import Dataset
from mote.runtime import log, prompts
from mote.runtime.errors import one_line_errors
from mote.runtime.progress import Bar, progress
from mote.runtime.ranks import Ranks, print_line
from mote.scoring import evaluate
from mote.scoring.protocols import protocol_of
from mote.toyworld import generator


class Terminal(io.StringIO):
    """Says that it is a terminal, and keeps what is written."""

    def isatty(self) -> bool:
        return True

    def screen(self) -> list[str]:
        """The lines that are left on it, without empty ones."""
        rows, row, column = [[]], 0, 0
        for part in re.findall(r"\x1b\[A|.|\n|\r", self.getvalue()):
            if part == "\x1b[A":
                row -= 1
            elif part == "\n":
                row += 1
                rows += [[]] if row == len(rows) else []
            elif part == "\r":
                column = 0
            else:
                rows[row] += [" "] * (column + 1 - len(rows[row]))
                rows[row][column] = part
                column += 1
        lines = ["".join(row).rstrip() for row in rows]
        return [line for line in lines if line]


@contextlib.contextmanager
def terminal():
    """stdout and stderr are one terminal, of 100 columns. pytest sets both anew for each test: no fixture can."""
    one = Terminal()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", "100")
        with contextlib.redirect_stdout(one), contextlib.redirect_stderr(one):
            yield one


def test_a_bar_shows_what_is_done_and_the_time_that_the_rest_takes():
    with terminal() as shown:
        for _ in progress(range(4), "k400", seconds_left=lambda n: 1000 * (4 - n)):
            time.sleep(0.15)                                     # tqdm draws ten times a second at most
    assert "k400  25 %|" in shown.getvalue() and "left 0:50:00" in shown.getvalue()
    assert shown.screen() == []                                  # an ended bar is cleared


def test_without_more_knowledge_the_time_left_follows_from_the_mean_speed():
    with terminal():
        bar = progress(range(100), "k400", done=50, total=100)
        bar.n = 60                                               # ten in this process
        bar.start_t, bar._time = 0.0, lambda: 30.0
        assert bar.format_dict["left"] == "0:02:00"
        bar.n = 50
        assert bar.format_dict["left"] == "?"
        bar.close()


def test_what_is_printed_has_lines_of_its_own_under_two_bars():
    with terminal() as shown:
        for i in progress(range(2), "training"):
            for j in progress(range(2), "k400"):
                print_line(f"line {i} {j}", sys.stdout)
    assert shown.screen() == ["line 0 0", "line 0 1", "line 1 0", "line 1 1"]


def test_an_error_leaves_its_line_and_no_bar():
    with terminal() as shown, pytest.raises(SystemExit), one_line_errors("train.py"):
        for _ in progress(range(9), "training"):
            raise ValueError("no such thing")
    assert shown.screen() == ["train.py: error: no such thing"]


def test_a_file_gets_no_bar_and_neither_does_a_rank_that_shows_none():
    with terminal() as shown:
        assert list(progress(range(3), "k400", shown=False)) == [0, 1, 2]
        with contextlib.redirect_stderr(io.StringIO()) as file:
            assert list(progress(range(3), "k400")) == [0, 1, 2]
    assert shown.getvalue() == file.getvalue() == ""


def test_a_bar_starts_no_thread_and_takes_no_lock_between_processes():
    """The loader's workers are forked while it is shown."""
    with terminal():
        progress(range(3), "k400").close()
    assert "monitor" not in vars(Bar) and not hasattr(Bar._lock, "mp_lock")


@pytest.mark.parametrize("seconds", [math.nan, math.inf])
def test_a_time_that_is_not_known_is_a_question_mark(seconds):
    with terminal():
        bar = progress(range(3), "k400", seconds_left=lambda n: seconds)
        assert bar.format_dict["left"] == "?"
        bar.close()


# --- where there is one ---------------------------------------------------------------------------
@pytest.fixture
def asked(monkeypatch):
    """{what: (how many, of how many, shown)} of the bars that are asked for, in each module that shows some."""
    bars = {}

    def note(items, what, total=None, shown=True, done=0, seconds_left=None):
        items = list(items)
        bars[what] = (len(items), len(items) if total is None else total, shown)
        return items
    for module in (log, evaluate, generator, prompts):
        monkeypatch.setattr(module, "progress", note)
    return bars


def test_training_evaluations_and_class_embeddings_have_bars(asked, job, tmp_path, monkeypatch):
    monkeypatch.setattr(prompts, "CACHE", tmp_path / "cache")
    train.main([*job, str(tmp_path / "run")])
    assert asked["toyworld"] == (1, 1, True)                     # two videos in one batch
    assert asked["class embeddings of toyworld"] == (5, 5, True)             # 40 x 28 sentences, 256 at a time
    assert asked["training"] == (7, 6, True)                     # the last turn only tests


def test_a_side_of_toyworld_has_a_bar_while_it_is_generated(asked, tmp_path):
    toyworld.generate(tmp_path / "set", "toyworld-novel", clips={"val": 1})
    assert asked == {"toyworld-novel, val": (40, 40, True)}


def test_another_rank_than_the_first_shows_no_bar_of_an_evaluation(asked, world):
    model = load_model("tests/golden/official_tiny_checkpoint.pt")
    videos = [(str(path), 0) for path in sorted((world / "toyworld/videos").iterdir())[:3]]
    data = Dataset("some", videos, ["a class"] * 12, "")
    protocol = protocol_of(data, ["{}"], frames=2, resize=32)
    second = Ranks(1, 2, torch.device("cpu"))
    evaluate.all_cosines(model.eval(), videos, model.finetune_classes, second, protocol, 16, 0, None)
    assert asked == {"some": (1, 1, False)}


def test_a_resumed_training_has_a_bar_that_starts_where_it_goes_on(job, tmp_path, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(Killed):
        in_forward(patch, killed, 5)                             # the first epoch, 3 steps, is saved
        train.main([*job, str(tmp_path)])
    begun = []
    real = log.progress
    monkeypatch.setattr(log, "progress", lambda *a: begun.append(a[4]) or real(*a))
    train.main([*job, str(tmp_path)])
    assert begun == [3]
