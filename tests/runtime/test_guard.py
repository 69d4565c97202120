"""
What protects training and evaluation: signals, steps that are not finite, videos that kill, writes that are cut short.

Must be true: a refused step leaves no trace but its line; whatever becomes of the workers, each batch comes once, in
order, and nothing but the guilty video is skipped; a run that was stopped goes on bit for bit; nothing recorded is
lost. Checked in this process, on stubs and a toyworld of 12 videos. tests/torture/run.py does it to whole runs.
"""
import contextlib
import faulthandler
import io
import itertools
import json
import math
import multiprocessing
import os
import signal
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.distributed as dist
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import nn
from torch.utils.data._utils import signal_handling
from torture.job import flip, same

import train
from mote import data, load_model
from mote.clip_backbone import class_embeddings, load_clip
from mote.data import Undecodable, decode
from mote.files.decoding import jpeg_size
from mote.runtime import guard, log, watched_loading
from mote.runtime import ranks as processes
from mote.runtime import run_folder as runs
from mote.runtime.checkpoints import read_checkpoint, save_checkpoint
from mote.runtime.errors import one_line_errors
from mote.runtime.guard import BadVideos, agree, finite
from mote.runtime.ranks import Ranks
from mote.runtime.signals import Stop
from mote.runtime.watched_loading import Watch, watched
from mote.scoring import evaluate as evaluation
from mote.scoring.evaluate import evaluate
from mote.scoring.protocols import Protocol

ALONE = Ranks(0, 1, torch.device("cpu"))
NAN, INF = float("nan"), float("inf")


class Killed(BaseException):
    """Stands for the end of a process: nothing catches it."""


def killed(*_, **__):
    raise Killed


@pytest.fixture(autouse=True)
def handlers():
    """A signal's handlers are as they were before a test; torch's of SIGCHLD is not there yet."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD)
    before = {number: signal.getsignal(number) for number in numbers}
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal_handling._SIGCHLD_handler_set = False
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(autouse=True, scope="module")
def hurry():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(watched_loading, "POLL", 0.1)
        patch.setattr(watched_loading, "HUNG", 2.0)
        yield


# --- a signal --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_noted_and_a_ctrl_c_some_seconds_later_stops_at_once(first):
    stop = Stop()
    assert stop.came == ""
    for number in (first, signal.SIGINT, signal.SIGTERM):        # torchrun repeats what it gets
        os.kill(os.getpid(), number)
    assert stop.came == first.name
    stop.since -= 4
    os.kill(os.getpid(), signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)


def one_of_two(rank: int, store: str, number: int, answers) -> None:
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    stop = Stop()
    if rank == 1:
        os.kill(os.getpid(), number)
    answers.put(agree(torch.device("cpu"), bool(stop.came), False, torch.tensor(rank == 0)))
    dist.destroy_process_group()
    stop.leave(3, Ranks(rank, 2, torch.device("cpu")), Path("RUN"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_what_one_rank_notices_all_ranks_agree_on_and_leave_with_143(number, tmp_path, capfd):
    fork = multiprocessing.get_context("fork")
    answers = fork.SimpleQueue()
    ranks = [fork.Process(target=one_of_two, args=(rank, tmp_path / "store", number, answers)) for rank in (0, 1)]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join(60)
    assert [rank.exitcode for rank in ranks] == [143, 143]
    assert [answers.get() for _ in ranks] == [[True, False, True]] * 2
    assert capfd.readouterr().out == "signal to another rank: saved at step 3; --out RUN --resume auto goes on\n"


@pytest.fixture(scope="module")
def job(world, tmp_path_factory):
    """Flags: two epochs of three steps on 12 videos, with a tower that has running statistics."""
    folder = tmp_path_factory.mktemp("job")
    for split, count in (("train", 12), ("val", 2)):
        lines = (world / "toyworld" / f"{split}.txt").read_text().splitlines(keepends=True)
        (folder / f"{split}.txt").write_text("".join(lines[:count]))
    (folder / "norm.json").write_text(json.dumps({
        "embed_dim": 32, "custom_text": True,
        "vision_cfg": {"image_size": 32, "timm_model_name": "test_resnet", "timm_pool": "avg"},
        "text_cfg": {"context_length": 24, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}}))
    torch.save(load_clip(str(folder / "norm.json"), "")[0].state_dict(), folder / "norm.pt")
    return ["--data", "toyworld", "--train-list", str(folder / "train.txt"), "--val-list", str(folder / "val.txt"),
            "--backbone", str(folder / "norm.json"), "--pretrained", str(folder / "norm.pt"), "--zero-shot", "",
            "--device", "cpu", "--threads", "1", "--workers", "0", "--layers", "1", "--frames", "2", "--batch", "4",
            "--epochs", "2", "--eval-every", "2", "--log-every", "6", "--keep", "99", "--resume", "auto", "--out"]


@pytest.fixture(scope="module")
def straight(job, tmp_path_factory):
    """The run that nothing happens to."""
    run = tmp_path_factory.mktemp("runs") / "straight"
    train.main([*job, str(run)])
    return run


def in_forward(monkeypatch, fault, *steps: int) -> None:
    """fault(losses) -> losses, in the forward passes of these steps, counted from 1."""
    forward, count = train.Objective.forward, itertools.count(1)
    monkeypatch.setattr(train.Objective, "forward", lambda self, *inputs: (
        fault(forward(self, *inputs)) if next(count) in steps else forward(self, *inputs)))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_has_the_step_saved_and_the_same_command_goes_on_bit_for_bit(straight, job, tmp_path, monkeypatch,
                                                                              capsys, number):
    before = [signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGINT)]
    run = tmp_path / "run"
    with monkeypatch.context() as patch, pytest.raises(SystemExit) as left:
        in_forward(patch, lambda losses: os.kill(os.getpid(), number) or losses, 2)      # of 3 steps an epoch
        train.main([*job, str(run)])
    assert left.value.code == 143 and read_checkpoint(run)["step"] == 2
    assert f"{number.name}: saved at step 2; --out {run} --resume auto goes on" in capsys.readouterr().out
    train.main([*job, str(run)])
    assert [signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGINT)] == before
    for part in ("model", "optimizer", "step", "meter", "untrained"):
        assert same(read_checkpoint(run)[part], read_checkpoint(straight)[part]), part
    for name in ("metrics.jsonl", "results.json"):
        assert (run / name).read_bytes() == (straight / name).read_bytes()


def test_an_evaluation_that_is_recorded_is_not_repeated_after_a_kill(job, tmp_path, monkeypatch):
    flags = [*job, str(tmp_path), "--eval-every", "1"]
    with monkeypatch.context() as patch, pytest.raises(Killed):
        in_forward(patch, killed, 4)                             # after the first epoch's checkpoint and evaluation
        train.main(flags)
    train.main(flags)
    assert [line["step"] for line in runs.read_metrics(tmp_path)] == [3, 6]


def test_a_video_skipped_at_an_earlier_start_is_not_touched_and_named_once_over_a_resume(job, tmp_path, monkeypatch,
                                                                                         capsys):
    monkeypatch.setattr(guard, "MAX_BAD", 0.1)
    bad = Path(os.environ["MOTE_DATA"]) / "toyworld" / Path(job[3]).read_text().split()[0]
    (tmp_path / "skipped.txt").write_text(f"{bad}\n")
    real = data.decode
    monkeypatch.setattr(data, "decode", lambda path, choose: pytest.fail() if path == str(bad) else real(path, choose))
    with monkeypatch.context() as patch, pytest.raises(Killed):
        in_forward(patch, killed, 4)
        train.main([*job, str(tmp_path)])
    train.main([*job, str(tmp_path)])
    assert capsys.readouterr().out.count(f"cannot decode {bad}: another video is drawn in its place (1 so far)") == 1


# --- NaN or inf in a step --------------------------------------------------------------------------------------------
@pytest.mark.parametrize("loss, gradient, fine", [
    (1.0, 1.0, True), (NAN, 1.0, False), (INF, 1.0, False), (1.0, NAN, False), (1.0, INF, False), (1.0, -INF, False),
    (1.0, 1e19, True), (3e38, 1e20, False)])                     # AdamW keeps squares; their sum may overflow
def test_a_step_is_finite_if_each_loss_and_each_gradient_is(loss, gradient, fine):
    parameters = [nn.Parameter(torch.zeros(9)) for _ in range(3)]           # the last one has no gradient
    parameters[0].grad, parameters[1].grad = torch.zeros(9), torch.full((9,), min(abs(gradient), 1e19))
    parameters[1].grad[4] = gradient
    assert finite([torch.ones(3), torch.tensor([1.0, loss, 1.0])], parameters).item() == fine


def infinite_gradient(losses):
    first = losses[0].clone()
    first.register_hook(lambda gradient: gradient * INF)
    return first, *losses[1:]


@pytest.mark.parametrize("fault", [lambda losses: (losses[0], losses[1] * NAN, losses[2]), infinite_gradient],
                         ids=["loss", "gradient"])
def test_a_refused_step_touches_nothing_and_its_videos_are_written_down(job, tmp_path, monkeypatch, fault):
    in_forward(monkeypatch, fault, 2)
    train.main([*job, str(tmp_path), "--save-every", "1"])
    one, two, three = (read_checkpoint(tmp_path / f"step_{step}.pt") for step in (1, 2, 3))
    assert any("running_mean" in name for name in one["model"])
    assert same(one["model"], two["model"]) and same(one["optimizer"]["state"], two["optimizer"]["state"])
    assert not any(same(two["model"][name], three["model"][name]) for name in two["model"] if "running_" in name)
    refused, = map(json.loads, (tmp_path / "refused.jsonl").read_text().splitlines())
    trained_on = [line.rpartition(" ")[0] for line in (tmp_path / "train.txt").read_text().splitlines()]
    order = np.random.default_rng((0, 0)).permutation(12)[4:8]              # the second batch of MicroBatches
    assert refused["step"] == 2 and refused["videos"] == [trained_on[i] for i in order]
    assert [len(three) for three in refused["losses"]] == [3]
    assert "nan" not in (tmp_path / "metrics.jsonl").read_text().lower()


@pytest.mark.parametrize("steps, stopped_at", [([1, 2, 4, 5], None), ([2, 3, 4], 4)])
def test_a_run_stops_after_some_refused_steps_in_a_row_with_the_last_good_state_saved(
        job, tmp_path, monkeypatch, capsys, steps, stopped_at):
    monkeypatch.setattr(guard, "MAX_REFUSED", 3)
    in_forward(monkeypatch, infinite_gradient, *steps)
    if stopped_at is None:                                       # the accepted third step starts the count anew
        train.main([*job, str(tmp_path)])
        return
    with pytest.raises(SystemExit) as ended:
        train.main([*job, str(tmp_path), "--save-every", "1"])
    error, = capsys.readouterr().err.splitlines()
    assert ended.value.code == 2 and "3 steps in a row with a loss or a gradient that is not finite" in error
    good, last = read_checkpoint(tmp_path / "step_1.pt"), read_checkpoint(tmp_path)
    assert last["step"] == stopped_at and same(good["model"], last["model"])
    assert same(good["optimizer"]["state"], last["optimizer"]["state"])


def test_the_last_good_state_is_saved_though_no_save_was_due(job, tmp_path, monkeypatch):
    monkeypatch.setattr(guard, "MAX_REFUSED", 1)
    in_forward(monkeypatch, infinite_gradient, 2)
    with pytest.raises(SystemExit):
        train.main([*job, str(tmp_path)])
    assert [path.name for path in tmp_path.glob("step_*.pt")] == ["step_2.pt"]


# --- a video that kills ----------------------------------------------------------------------------------------------
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


def raises(error: Exception):
    def harm(*_):
        raise error
    return harm


def indices(batches) -> list:
    return [batch["index"].tolist() for batch in batches]


KILLERS = {"SIGSEGV": end_by(signal.SIGSEGV), "SIGABRT": end_by(signal.SIGABRT), "exit 3": lambda: os._exit(3),
           "hung 2 s": lambda: time.sleep(60)}


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


def test_a_skipped_video_is_a_failed_one_in_evaluation_and_what_is_recorded_is_evaluated(world, tmp_path, capsys):
    model, skipped = load_model("tests/golden/official_tiny_checkpoint.pt"), tmp_path / "skipped.txt"
    videos = [(str(path), i) for i, path in enumerate(sorted((world / "toyworld/videos").iterdir())[:3])]
    skipped.write_text(f"{videos[1][0]}\n")
    plan = Protocol("some", "", 3, 3, "a", 12, "b", 1, "c", 2, resize=32)
    result = evaluate(model, videos, model.finetune_classes, ALONE, plan, skipped=skipped)
    assert result["failed"] == [videos[1][0]] and (result["videos"], result["decoded"]) == (3, 2)
    assert result["plain"]["top5_failures_wrong"] == pytest.approx(result["plain"]["top5"] * 2 / 3)
    for step, name in ((3, "some"), (3, "other"), (6, "some")):
        runs.record(ALONE, tmp_path, {"step": step, "epoch": 1, "data": name, **result})
    assert runs.evaluated(tmp_path) == {(3, "some"), (3, "other"), (6, "some")}
    assert f"1 of 3 videos could not be decoded: {videos[1][0]}" in capsys.readouterr().out
    skipped.write_text("".join(f"{path}\n" for path, _ in videos))
    with pytest.raises(ValueError, match="none of the 3 videos could be decoded"):
        evaluate(model, videos, model.finetune_classes, ALONE, plan, skipped=skipped)


def test_an_undecodable_video_is_named_once_and_counted_over_a_resume():
    videos = [("a", 0), ("b", 0), ("a", 1), ("c", 0)]
    bad = BadVideos(videos)
    bad.new = [0, 2, 0]
    assert bad.report() == ["cannot decode a: another video is drawn in its place (1 so far)"]
    bad.new += [0]
    assert bad.report() == [] == bad.report() and bad.known == ["a"]
    bad = BadVideos(videos, {"undecodable": bad.known})
    bad.new = [2, 3]
    assert bad.report() == ["cannot decode c: another video is drawn in its place (2 so far)"]
    bad.check(40)                                                # 5 per cent
    with pytest.raises(ValueError, match="2 of 39 training videos are undecodable: over 5%"):
        bad.check(39)


# --- what a run writes -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("links", [True, False])
def test_the_newest_checkpoints_are_kept_last_is_the_newest_and_nothing_else_is_deleted(tmp_path, monkeypatch, links):
    mine = ["step_.pt", "step_best.pt", "step_1.5.pt", "step_-1.pt", "step_0.pt.bak", "my_step_0.pt", "best.pt"]
    for name in mine:
        (tmp_path / name).write_text(name)
    if not links:
        monkeypatch.setattr(os, "link", raises(OSError("not here")))
    for step, kept in ((8, [8]), (9, [8, 9]), (10, [8, 9, 10]), (101, [9, 10, 101])):
        runs.save(ALONE, tmp_path, 3, {"step": step})
        there = {path.name for path in tmp_path.iterdir()}
        assert there == {*mine, "last.pt", *(f"step_{n}.pt" for n in kept)}
        assert (tmp_path / "last.pt").read_bytes() == (tmp_path / f"step_{step}.pt").read_bytes()
        assert (tmp_path / "last.pt").samefile(tmp_path / f"step_{step}.pt") == links
    assert all((tmp_path / name).read_text() == name for name in mine)


def test_a_checkpoint_is_kept_beside_damaged_ones_of_more_steps(tmp_path):
    for step in (20, 19):                                        # passed over at the start: the run goes on from 8
        (tmp_path / f"step_{step}.pt").write_bytes(b"damaged")
    runs.save(ALONE, tmp_path, 2, {"step": 9})
    assert (tmp_path / "step_9.pt").exists()


WHOLE = [{"step": 1, "data": "k400", "plain": {"top1": 1.5}}, {"step": 2, "data": "ucf101"}]
LISTS = ([("a.mp4", 0)], [("b.mp4", 0)], ["a class"])


def lines(*metrics: dict) -> bytes:
    return "".join(f"{json.dumps(line)}\n" for line in metrics).encode()


@pytest.mark.parametrize("bad", [b'{"step": 2, "data": "k4', b'{"step": 2, "data": "k400", "plain": {"top1": 3.0}',
                                 b"garbage", b"\0\0\0\0", b'{"data": "\xff\xfe', b"\xff", b"3", b"[1]", b"null", b"{}",
                                 b'{"step": null}', b""])
def test_a_line_of_metrics_that_a_kill_has_cut_is_left_out_and_no_other(tmp_path, bad):
    file = tmp_path / "metrics.jsonl"
    for content in (lines(*WHOLE) + bad, lines(WHOLE[0]) + bad + b"\n" + lines(WHOLE[1])):
        file.write_bytes(content)
        assert runs.evaluated(tmp_path) == {(1, "k400"), (2, "ucf101")}
        runs.open_run(ALONE, tmp_path, 2, *LISTS)
        assert file.read_bytes() == lines(*WHOLE)
    runs.open_run(ALONE, tmp_path, 1, *LISTS)                    # going on from step 1: the others come again
    assert file.read_bytes() == lines(WHOLE[0])


def half_written(path, text, **_):
    path.write_bytes(text[:7].encode())
    raise Killed


@pytest.mark.parametrize("where, what, calls", [
    (Path, "write_text", 0), (os, "replace", 0), (runs, "write_split", 0), (Path, "write_text", 1),
    (runs, "write_split", 1), (Path, "write_text", 2)])
@pytest.mark.parametrize("history", [(), WHOLE])
def test_a_kill_between_the_writes_of_a_start_loses_nothing_and_the_next_start_is_not_refused(
        tmp_path, monkeypatch, where, what, calls, history):
    if history:
        runs.open_run(ALONE, tmp_path, 0, *LISTS)
        (tmp_path / "metrics.jsonl").write_bytes(lines(*history))
    real, kill, count = getattr(where, what), half_written if where is Path else killed, itertools.count()
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(where, what, lambda *a, **k: kill(*a, **k) if next(count) == calls else real(*a, **k))
        runs.open_run(ALONE, tmp_path, 2, *LISTS)
    assert runs.read_metrics(tmp_path) == list(history)
    runs.open_run(ALONE, tmp_path, 2, *LISTS)
    assert runs.read_metrics(tmp_path) == list(history)
    assert (tmp_path / "train.txt").read_text() == "a.mp4 0\n" and (tmp_path / "val.txt").read_text() == "b.mp4 0\n"


def test_what_a_kill_left_of_a_checkpoint_is_removed_at_the_next_start_and_nothing_else(tmp_path):
    left, kept = [".step_9.pt.123", ".last.pt.77"], ["step_9.pt", ".hidden", "notes.pt.txt"]
    for name in left + kept:
        (tmp_path / name).touch()
    runs.open_run(ALONE, tmp_path, 0, *LISTS)
    there = {path.name for path in tmp_path.iterdir()}
    assert there == {*kept, "metrics.jsonl", "train.txt", "val.txt", "classes.csv"}


losses = st.one_of(st.just(0.0), st.floats(2.0**-16, 64, width=32))         # their sums are exact in 53 bits


@given(st.lists(st.tuples(losses, losses, losses, losses, losses, losses), min_size=1, max_size=12),
       st.sets(st.integers(0, 12)), st.integers(1, 2))
def test_means_are_the_same_bit_for_bit_wherever_a_run_is_saved_and_gone_on(steps, saved_before, ranks):
    """Of two ranks, each with three losses a step; `together` stands in for the group they are in."""
    def together(what: str) -> list:
        sums = [meter.sums for meter in meters]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(log, "gather", lambda _: sums)
            return [getattr(meter, what)() for meter in meters]
    places = [Ranks(rank, ranks, torch.device("cpu")) for rank in range(ranks)]
    meters = [log.Meter(place) for place in places]
    for i, six in enumerate(steps):
        if i in saved_before:
            states = together("state")
            assert states == [states[0]] * ranks                 # whichever rank writes it
            meters = [log.Meter(place, {"meter": json.loads(json.dumps(states[0]))}) for place in places]
        for rank, meter in enumerate(meters):
            meter.add([six[3 * rank:3 * rank + 3]], 4)
    together("read")
    exact = [math.fsum(six[3 * rank + k] for six in steps for rank in range(ranks)) for k in range(3)]
    assert all(list(meter.named().values()) == [one / (len(steps) * ranks) for one in exact] for meter in meters)
    assert all(meter.state()["sums"] == [0.0] * 3 and meter.state()["passes"] == 0 for meter in meters)


# --- what is on the disk ---------------------------------------------------------------------------------------------
@given(st.integers(0, 4 * 999))
@settings(max_examples=20)
def test_one_flipped_bit_of_a_weight_is_refused(place):
    tensor = torch.linspace(1, 2, 1000)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "last.pt"
        save_checkpoint(file, {"model": {"w": tensor}})
        whole = file.read_bytes()
        file.write_bytes(flip(whole, whole.index(tensor.numpy().tobytes()) + place))
        torch.load(file, weights_only=True)                      # which does not see it
        with pytest.raises(ValueError, match="last.pt: damaged"):
            read_checkpoint(file)


def test_one_flipped_bit_of_the_cached_class_embeddings_is_computed_anew(tmp_path):
    clip = load_clip("toyworld", "toyworld")
    right = class_embeddings(*clip, ["star", "ring"], ("a {}",), tmp_path)
    file, = tmp_path.iterdir()
    whole = file.read_bytes()
    file.write_bytes(flip(whole, whole.index(right.numpy().tobytes()) + 100))
    assert same(class_embeddings(*clip, ["star", "ring"], ("a {}",), tmp_path), right)
    assert same(torch.load(file, weights_only=True), right)


def test_a_full_disk_is_one_line_that_names_the_file_and_the_old_one_stays(tmp_path, monkeypatch):
    file = tmp_path / "last.pt"
    save_checkpoint(file, {"step": 1})
    before = file.read_bytes()

    def full(_, part):
        part.write(b"half")
        raise RuntimeError("[enforce fail at inline_container.cc:664] . unexpected pos 64 vs 0\nframe #0: somewhere")
    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError) as raised:
        save_checkpoint(file, {"step": 2})
    assert str(raised.value).startswith(f"cannot write {file}: ") and len(str(raised.value).splitlines()) == 1
    assert file.read_bytes() == before and list(tmp_path.iterdir()) == [file]


# --- what a header claims --------------------------------------------------------------------------------------------
def jpeg(h: int, w: int) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.full((h, w, 3), 90, dtype=np.uint8)).save(out, "JPEG")
    return out.getvalue()


def test_a_frame_that_is_too_large_by_its_header_is_not_decoded(world, tmp_path, monkeypatch):
    image, video = jpeg(8, 16), next((world / "toyworld/videos").iterdir())
    at = image.index(b"\xff\xc0")
    (tmp_path / "1.jpg").write_bytes(image)
    (tmp_path / "2.jpg").write_bytes(image[:at + 5] + b"\xf0\x00\xff\xff" + image[at + 9:])
    monkeypatch.setattr("torchcodec.decoders.decode_jpeg", lambda *_, **__: pytest.fail("decoded"))
    with pytest.raises(Undecodable, match="claims 65535 x 61440 pixels: more than 33554432, not decoded"):
        decode(tmp_path, np.arange)
    monkeypatch.setattr("mote.files.decoding.read_frames", lambda *_: pytest.fail("decoded"))
    monkeypatch.setattr("mote.files.decoding.MAX_PIXELS", 48 * 48 - 1)
    with pytest.raises(Undecodable, match="claims 48 x 48 pixels"):
        decode(video, np.arange)


KINDS = st.sampled_from([0xC4, 0xC8, 0xCC, 0xDB, 0xFE, *range(0xE0, 0xF0)])  # tables, comments, APPn


@given(st.integers(1, 300), st.integers(1, 300), st.lists(st.tuples(KINDS, st.binary(max_size=300)), max_size=3),
       st.sampled_from([0xC0, 0xC1, 0xC2, 0xC3, 0xC9, 0xCF]))
def test_the_size_that_a_jpegs_header_claims_is_its_size_whatever_stands_in_front(h, w, segments, kind):
    whole = jpeg(h, w)
    front = b"".join(bytes([0xFF, k]) + (len(some) + 2).to_bytes(2, "big") + some for k, some in segments)
    assert jpeg_size(whole[:2] + front + whole[2:].replace(b"\xff\xc0", bytes([0xFF, kind]), 1)) == (h, w)


def test_bytes_that_fill_up_to_a_segment_are_passed_over():
    whole = jpeg(7, 9)
    assert jpeg_size(whole[:2] + b"\xff\xff" + whole[2:]) == (7, 9)


@given(st.one_of(st.binary(max_size=200), st.binary(max_size=60).map(lambda some: jpeg(5, 6)[:2] + some),
                 st.integers(0, 200).map(lambda length: jpeg(5, 6)[:length])))
def test_garbage_for_a_jpeg_is_undecodable(garbage):
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "1.jpg").write_bytes(garbage)
        with pytest.raises(Undecodable):
            decode(folder, np.arange)


# --- ranks -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("text, group, gone", [
    ("[../gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:33441", True, True),
    ("NCCL communicator was aborted on rank 1", True, True), ("Broken pipe", True, True),
    ("mat1 and mat2 shapes cannot be multiplied", True, False), ("Connection closed by peer", False, False)])
def test_a_peer_that_is_gone_is_one_line_and_any_other_error_comes_through(monkeypatch, capsys, text, group, gone):
    monkeypatch.setattr(dist, "is_initialized", lambda: group)
    monkeypatch.setattr(dist, "destroy_process_group", lambda: None)
    monkeypatch.setenv("RANK", "3")
    with pytest.raises(SystemExit if gone else RuntimeError) as raised, one_line_errors("train.py"):
        raise RuntimeError(text)
    error = capsys.readouterr().err.splitlines()
    assert len(error) == gone and (not gone or raised.value.code == 1)
    assert not gone or error[0].startswith("train.py: error on rank 3: another rank is gone")


@pytest.mark.parametrize("count, here, own", [(None, "2", False), ("0", "2", False), ("1", "2", True), ("2", "2", True),
                                              ("1", "1", False)])
def test_ranks_that_torchrun_restarts_get_a_store_of_their_own_where_they_are_all_on_one_machine(monkeypatch, count,
                                                                                                 here, own):
    groups, store = [], dist.HashStore()
    monkeypatch.setattr(dist, "init_process_group", lambda backend, **more: groups.append((backend, more)))
    monkeypatch.setattr(dist, "rendezvous", lambda url: iter([(store, 1, 2)]))
    monkeypatch.delenv("TORCHELASTIC_RESTART_COUNT", raising=False)
    for name, value in {"TORCHELASTIC_RESTART_COUNT": count, "LOCAL_WORLD_SIZE": here, "WORLD_SIZE": "2"}.items():
        if value is not None:
            monkeypatch.setenv(name, value)
    processes.start(Ranks(1, 2, torch.device("cpu")))
    (backend, more), = groups
    assert backend == "gloo" and ("store" in more) == own and more["timeout"].total_seconds() == 3600
    if own:
        store.set("address", "of the dead")
        assert (more["rank"], more["world_size"]) == (1, 2) and not more["store"].check(["address"])
        more["store"].set("address", "mine")
        assert store.check([f"restart {count}/address"])


# --- what an adversary found ------------------------------------------------------------------------------------------
def test_the_means_are_the_same_on_another_number_of_ranks():
    two = log.Meter(Ranks(0, 2, torch.device("cpu")))
    for _ in range(3):
        two.add([[2.0, 4.0, 6.0]], 1)
    state = {"sums": [12.0, 24.0, 36.0], "passes": two.state()["passes"], "means": [0.0] * 3}    # of both ranks
    one = log.Meter(ALONE, {"meter": state})
    one.add([[2.0, 4.0, 6.0]], 1)
    one.read()
    assert one.means == [2.0, 4.0, 6.0]


def test_a_window_of_refused_steps_alone_keeps_the_means_before_it():
    meter = log.Meter(ALONE)
    meter.add([[1.0, 2.0, 3.0]], 1)
    meter.read(), meter.read()
    assert meter.means == [1.0, 2.0, 3.0]


@pytest.mark.parametrize("flags, words", [
    (["--epochs", "1"], "step 6 of the checkpoint is past the 3 steps of --epochs 1"),
    (["--batch", "2"], "trained with another batch"), ([], "there are checkpoints in")])
def test_a_resume_that_cannot_go_on_is_one_line(straight, job, tmp_path, capsys, flags, words):
    (tmp_path / "last.pt").write_bytes((straight / "last.pt").read_bytes()[:None if flags else 5000])
    with pytest.raises(SystemExit) as stopped:
        train.main([*job, str(tmp_path), *flags])
    error = capsys.readouterr().err
    assert stopped.value.code == 2 and words in error and len(error.strip().splitlines()) == 1
    assert [file.name for file in tmp_path.iterdir()] == ["last.pt"]


def test_a_foreign_checkpoint_without_what_a_resume_needs_is_one_line(straight, tmp_path):
    whole = read_checkpoint(straight)
    for key in ("optimizer", "config", "frames", "untrained"):
        save_checkpoint(tmp_path / "x.pt", {name: value for name, value in whole.items() if name != key})
        with pytest.raises(ValueError, match=f"no {key} in it"):
            runs.find_run(str(tmp_path / "new"), str(tmp_path / "x.pt"), "toyworld")


def test_an_evaluation_keeps_no_file_open_for_each_batch(straight, world, monkeypatch):
    """Tensors of a worker are files; a limit of 1,024 is common, a list of 1,250 batches too."""
    import eval as scripts
    videos, names, _ = scripts.dataset("toyworld-novel", "", "val", ALONE)
    model, opened, real = load_model(straight), [], evaluation.view_cosines

    def count(*arguments):
        opened.append(len(os.listdir("/proc/self/fd")))
        return real(*arguments)
    monkeypatch.setattr(evaluation, "view_cosines", count)
    plan = scripts.protocol("novel", videos, names, "", ("{}",), frames=2, resize=model.image_size)
    evaluate(model, videos, model.finetune_classes, ALONE, plan, batch=1, workers=1)
    assert len(opened) == 40 and max(opened[20:]) <= max(opened[:20]) + 8


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
