"""
Whatever becomes of the workers, each batch comes once, in order, and nothing but the guilty video is skipped.

Checked with real workers that are killed, crash or hang, on stubs in place of videos. tests/torture/run.py does it to
whole runs.
"""
import contextlib
import faulthandler
import io
import multiprocessing
import os
import signal
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.faults import raises
from support.runs import ALONE

from mote import load_model
from mote.data import Undecodable
from mote.datasets.dataset import open_dataset
from mote.runtime import watched_loading
from mote.runtime.watched_loading import Watch, watched
from mote.scoring import evaluate as evaluation
from mote.scoring.evaluate import evaluate
from mote.scoring.protocols import protocol_of


@pytest.fixture(autouse=True, scope="module")
def hurry():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(watched_loading, "POLL", 0.1)
        patch.setattr(watched_loading, "HUNG", 2.0)
        yield


# --- stubs ----------------------------------------------------------------------------------------
VIDEOS = [(f"clip {i}.mp4", 0) for i in range(12)]
KEYS = [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9, 10, 11]]


class Toy(torch.utils.data.Dataset):
    """Videos of which some do harm: harm[index]() happens while the video is decoded, after[index]() thereafter."""

    def __init__(self, watch: Watch, harm: dict, after: dict):
        self.watch, self.harm, self.after = watch, harm, after

    def __getitem__(self, index: int) -> dict:
        failed = []
        try:
            with self.watch(index):
                self.harm.get(index, int)()
        except Undecodable:
            failed = [index]
        self.after.get(index, int)()
        return {"frames": torch.full((1,), index), "label": 0, "index": index, "failed": failed}


def stream(watch: Watch, workers: int, harm: dict = {}, after: dict = {}):                            # noqa: B006
    return watched(Toy(watch, harm, after), KEYS, watch, workers)


def end_by(number: int, once: Path | None = None, after: float = 0.0):
    """A worker's end by a signal: at each try, or at the first."""
    def end():
        faulthandler.disable()                                   # pytest's would print where we are
        if once is None or not once.exists():
            if once:
                once.touch()
            time.sleep(after)
            os.kill(os.getpid(), number)
            time.sleep(60)
    return end


def indices(batches) -> list:
    return [batch["index"].tolist() for batch in batches]


KILLERS = {"SIGSEGV": end_by(signal.SIGSEGV), "SIGABRT": end_by(signal.SIGABRT), "exit 3": lambda: os._exit(3),
           "hung 2 s": lambda: time.sleep(60)}


# --- workers that die or hang ---------------------------------------------------------------------
@pytest.mark.parametrize("workers", [0, 1, 2, 3])
def test_batches_of_good_videos_come_in_order_whatever_the_number_of_workers(workers):
    watch = Watch(VIDEOS, workers)
    batches = list(stream(watch, workers))
    assert indices(batches) == KEYS and not watch.skipped and not any(batch["failed"] for batch in batches)


@given(st.integers(0, 11), st.integers(1, 3), st.sampled_from(["SIGSEGV", "SIGABRT", "exit 3"]))
@example(4, 2, "hung 2 s")
@settings(max_examples=5)
def test_a_video_that_kills_or_hangs_is_skipped_alone_and_each_batch_comes_once_in_order(bad, workers, how):
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()) as said:
        watch = Watch(VIDEOS, workers, Path(folder) / "skipped.txt")
        batches = list(stream(watch, workers, {bad: KILLERS[how]}))
        assert watch.file.read_text() == f"clip {bad}.mp4\n"
    assert said.getvalue() == f"skipped from now on: clip {bad}.mp4 (its worker: {how})\n"
    assert indices(batches) == KEYS and watch.skipped == {bad}
    assert [batch["failed"] for batch in batches] == [[bad] * (bad in key) for key in KEYS]


def test_a_worker_that_is_busy_while_another_dies_is_innocent():
    watch = Watch(VIDEOS, 2)
    harm = {0: lambda: time.sleep(0.7), 3: end_by(signal.SIGSEGV)}           # one worker at each
    assert indices(stream(watch, 2, harm)) == KEYS and watch.skipped == {3}


def test_what_happens_between_two_decodes_is_no_videos_fault():
    watch = Watch(VIDEOS, 1)
    with pytest.raises(ZeroDivisionError), watch(5):
        assert watch.at[0, 0] == 5 and watch.oldest() > 0
        raise ZeroDivisionError
    assert watch.at[0, 0] == -1 and watch.oldest() == 0
    with pytest.raises(OSError, match="no video is to blame"):
        list(stream(watch, 1, after={5: end_by(signal.SIGSEGV)}))
    assert not watch.skipped


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_workers_killed_from_outside_are_replaced_without_blame_and_without_a_word_outside_of_next(tmp_path, number):
    watch = Watch(VIDEOS, 2)
    batches = stream(watch, 2, {7: end_by(number, tmp_path / "in a decode")})
    got = [next(batches)]
    assert signal.getsignal(signal.SIGCHLD) == signal.SIG_DFL
    for worker in multiprocessing.active_children():
        os.kill(worker.pid, number)
    time.sleep(0.3)                                              # a training step: torch's handler would raise here
    assert indices([*got, *batches]) == KEYS and not watch.skipped
    assert (tmp_path / "in a decode").exists()


def test_a_handler_that_another_loader_has_left_does_not_raise_in_a_step():
    stock = iter(torch.utils.data.DataLoader(VIDEOS, num_workers=1))         # torch sets its handler once a process
    next(stock)
    assert signal.getsignal(signal.SIGCHLD).__module__.startswith("torch.")
    batches = stream(Watch(VIDEOS, 1), 1, {3: end_by(signal.SIGSEGV)})
    got = [next(batches)]
    time.sleep(1)
    assert indices([*got, *batches]) == KEYS


def test_workers_leave_a_ctrl_c_to_the_main_process():
    watch = Watch(VIDEOS, 1)
    assert indices(stream(watch, 1, {4: lambda: os.kill(os.getpid(), signal.SIGINT)})) == KEYS and not watch.skipped


@pytest.mark.parametrize("error", [RuntimeError("it exited"), ConnectionResetError(), EOFError()], ids=repr)
@pytest.mark.parametrize("alive", [True, False])
def test_a_pipe_that_breaks_is_a_workers_death_only_where_one_is_dead(monkeypatch, error, alive):
    class Loader:
        num_workers, _workers, __next__ = 1, [SimpleNamespace(is_alive=lambda: alive)], raises(error)

        def __iter__(self):
            return self
    monkeypatch.setattr(time, "sleep", lambda _: None)
    with pytest.raises(type(error) if alive else watched_loading.WorkersGone):
        next(watched_loading.polled(Loader(), Watch(VIDEOS, 1)))


def test_workers_that_die_again_and_again_end_the_run_in_one_line(tmp_path):
    watch = Watch(VIDEOS, 1)
    with pytest.raises(OSError) as raised:
        list(stream(watch, 1, {4: end_by(signal.SIGKILL)}))
    assert "died or stalled 3 times in a row and no video is to blame (exit status -9;" in str(raised.value)
    assert len(str(raised.value).splitlines()) == 1 and not watch.skipped


def test_a_batch_in_between_starts_the_count_of_deaths_anew(tmp_path, monkeypatch):
    monkeypatch.setattr(watched_loading, "MAX_DEATHS", 2)
    harm = {i: end_by(signal.SIGKILL, tmp_path / str(i), after=1.0) for i in (1, 4)}         # the batch before has come
    assert indices(stream(Watch(VIDEOS, 1), 1, harm)) == KEYS and len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("text", ["no such frame", "the decoder timed out"])
def test_a_datasets_own_error_comes_through(workers, text):
    watch = Watch(VIDEOS, workers)
    with pytest.raises(RuntimeError, match=text):
        list(stream(watch, workers, {4: raises(RuntimeError(text))}))
    assert not watch.skipped


def test_a_suspended_run_blames_no_video(monkeypatch):
    """SIGSTOP and SIGCONT, as a scheduler may: the clock has gone on, the workers have not hung."""
    watch = Watch([(f"{i}.mp4", 0) for i in range(4)], 1)
    watch.at[0, 0], watch.at[0, 1] = 1, time.monotonic() - 100

    class Suspended:
        num_workers, looks = 0, 0

        def __iter__(self):
            return self

        def __next__(self):
            self.looks += 1
            if self.looks > 1:
                raise StopIteration
            clock.append(50)
            raise RuntimeError("DataLoader timed out after 5 seconds")
    clock, real = [], time.monotonic
    monkeypatch.setattr(watched_loading.time, "monotonic", lambda: real() + sum(clock))
    assert list(watched_loading.polled(Suspended(), watch)) == [] and watch.oldest() < 1
    assert not watch.skipped


# --- the list of skipped videos -------------------------------------------------------------------
def dead(watch: Watch, index: int) -> None:
    """Its only worker dies of SIGSEGV at that video."""
    watch.at[0, 1], watch.at[0, 0] = time.monotonic(), index
    watch.blame([SimpleNamespace(is_alive=lambda: False, exitcode=-11)])


ODD = ["a b.mp4", "'\"`$x.mp4", "# 1 0.mp4", " first, last ", "é\udce9ß.mp4", "..", "皿.mp4", "a\tb\\n.mp4"]
LINES = ["a\u2028b.mp4", "a\x85b.mp4", "a\rb.mp4", "a\x0bb.mp4"]            # which others take for two lines


@pytest.mark.parametrize("name", [*ODD, *LINES], ids=ascii)
def test_the_list_of_skipped_videos_is_read_at_the_next_start_whatever_they_are_called(tmp_path, monkeypatch, name):
    monkeypatch.setattr("builtins.print", lambda *_, **__: None)             # a terminal may not know all letters
    videos, file = [("x.mp4", 0), (name, 1), ("y.mp4", 0), (name, 2)], tmp_path / "skipped.txt"
    watch = Watch(videos, 1, file)
    dead(watch, 3)
    assert watch.skipped == {1, 3}
    again = Watch([*videos[1:], *VIDEOS], 1, file)
    assert again.skipped == {0, 2}
    with pytest.raises(Undecodable, match="skipped, it has killed a worker"), again(2):
        pytest.fail("decoded")
    dead(again, 1)
    assert file.read_bytes() == name.encode(errors="surrogateescape") + b"\ny.mp4\n"         # once, though there twice


def test_a_name_that_cannot_be_printed_is_skipped_all_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.stdout", open(tmp_path / "log", "w", encoding="utf-8", errors="strict"))
    watch = Watch([("caf\udce9.mp4", 0)], 1, tmp_path / "skipped.txt")
    dead(watch, 0)
    assert Watch([("caf\udce9.mp4", 0)], 1, tmp_path / "skipped.txt").skipped == {0}


# --- in evaluation --------------------------------------------------------------------------------
def test_an_evaluation_keeps_no_file_open_for_each_batch(straight, world, monkeypatch):
    """Tensors of a worker are files; a limit of 1,024 is common, a list of 1,250 batches too."""
    data = open_dataset("toyworld-novel", "val")
    model, opened, real = load_model(straight), [], evaluation.view_cosines

    def count(*arguments):
        opened.append(len(os.listdir("/proc/self/fd")))
        return real(*arguments)
    monkeypatch.setattr(evaluation, "view_cosines", count)
    plan = protocol_of(data, ("{}",), frames=2, resize=model.image_size)
    evaluate(model, data.videos, model.finetune_classes, ALONE, plan, batch=1, workers=1)
    assert len(opened) == 40 and max(opened[20:]) <= max(opened[:20]) + 8
