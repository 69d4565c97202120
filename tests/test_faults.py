"""
What protects training and evaluation: signals, steps with NaN, videos that kill a worker, files that a kill has cut.

Must be true: a refused step leaves no trace, a video is skipped if and only if it did harm, every batch comes once and
in order whatever becomes of the workers, and nothing recorded is lost. tools/torture.py does the same to whole runs.
"""
import faulthandler
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_train import ROOT, SMALL, assert_same_weights, checkpoint, metrics, straight, torchrun  # noqa: F401
from torch import nn

import train
from mote import data, evaluation, faults, processes, runs
from mote.checkpoint import load_model, read_checkpoint, save_checkpoint
from mote.data import TestViews, Undecodable, decode, jpeg_size
from mote.faults import BadVideos, Refused, Stop, Watch, finite, watched
from mote.processes import Process, one_line_errors

ALONE = Process(0, 1, torch.device("cpu"))


# --- signals ----------------------------------------------------------------------------------------------------------
@pytest.fixture
def handlers():
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_noted_and_a_second_one_at_once_changes_nothing(sent, handlers):
    stop = Stop()
    assert stop.came == ""
    os.kill(os.getpid(), sent)
    os.kill(os.getpid(), signal.SIGINT)
    assert stop.came == signal.Signals(sent).name


def test_a_second_interrupt_some_seconds_later_stops_at_once(handlers):
    stop = Stop()
    os.kill(os.getpid(), signal.SIGTERM)
    stop.since -= 4
    os.kill(os.getpid(), signal.SIGTERM)                         # a scheduler repeats itself
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(1)


@pytest.mark.parametrize("step", [3, 5])                         # 5: the end of an epoch
def test_a_signal_ends_the_run_its_step_saved_and_the_same_command_goes_on(straight, world, tmp_path,  # noqa: F811
                                                                           monkeypatch, capsys, step):
    run, rows = straight
    before, count, real = signal.getsignal(signal.SIGTERM), [], train.draws

    def draws_and_signal(*arguments):
        count.append(1)
        if len(count) == step:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(*arguments)
    monkeypatch.setattr(train, "draws", draws_and_signal)
    flags = [*SMALL, "--out", str(tmp_path / "run"), "--resume", "auto"]
    with pytest.raises(SystemExit) as stopped:
        train.main(flags)
    assert stopped.value.code == 143 and checkpoint(tmp_path / "run")["step"] == step
    assert f"SIGTERM: saved at step {step}" in capsys.readouterr().out
    assert signal.getsignal(signal.SIGTERM) == before
    assert train.main(flags) == rows
    assert_same_weights(checkpoint(run), checkpoint(tmp_path / "run"), rtol=0, atol=0)
    assert metrics(run) == metrics(tmp_path / "run")


AGREE = """
import sys
import torch
from mote.faults import agree
from mote.processes import start, stop, this_process
process = this_process("cpu", 1)
start(process)
first = torch.tensor(process.rank == 0)
answers = [agree(process.device, process.rank == 1, False), agree(process.device, first, True)]
open(f"{sys.argv[1]}.{process.rank}", "w").write(repr(answers))
stop()
"""


def test_a_flag_raised_on_one_rank_is_raised_on_all(tmp_path):
    (tmp_path / "agree.py").write_text(AGREE)
    done = torchrun(2, str(tmp_path / "agree.py"), str(tmp_path / "said"))
    assert done.returncode == 0, done.stderr
    assert {(tmp_path / f"said.{rank}").read_text() for rank in (0, 1)} == {"[[True, False], [True, True]]"}


# --- NaN or inf in a step ---------------------------------------------------------------------------------------------
@given(st.sampled_from([1.0, float("nan"), float("inf"), -float("inf"), 1e21]), st.booleans(), st.integers(0, 2))
def test_finite_means_every_loss_and_every_gradient(value, in_loss, place):
    losses = [torch.ones(3), torch.ones(3)]
    parameters = [nn.Parameter(torch.zeros(4)) for _ in range(3)]
    for p in parameters:
        p.grad = torch.full((4,), 1.5e19)                        # the sum of whose squares overflows
    (losses[1] if in_loss else parameters[place].grad)[place] = value
    limit = float("inf") if in_loss else 1e20                    # its square is kept by AdamW
    assert finite(losses, [*parameters, nn.Parameter(torch.zeros(1))]).item() == (abs(value) < limit)


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_a_refused_step_leaves_weights_and_optimiser_as_they_were(world, tmp_path, monkeypatch, where, capsys):
    calls, real = [], train.mse_loss

    def poisoned(merged, e):
        calls.append(1)
        bad = len(calls) == 3
        loss = real(merged, e)
        return loss * float("nan") if bad and where == "loss" else Infinite.apply(loss) if bad else loss
    monkeypatch.setattr(train, "mse_loss", poisoned)
    run = tmp_path / "run"
    train.main([*SMALL, "--epochs", "1", "--save-every", "1", "--out", str(run)])
    two, three, four = (checkpoint(run, f"step_{step}.pt") for step in (2, 3, 4))
    assert_same_weights(two, three, rtol=0, atol=0)
    assert str(two["optimizer"]["state"]) == str(three["optimizer"]["state"])
    assert not torch.equal(three["model"]["logit_scale"], four["model"]["logit_scale"])
    line, = map(json.loads, (run / "refused.jsonl").read_text().splitlines())
    assert line["step"] == 3 and len(line["videos"]) == 16 and all(Path(video).is_file() for video in line["videos"])
    assert "step 3: a loss or a gradient is not finite: refused" in capsys.readouterr().out
    assert all(np.isfinite(one[name]) for one in metrics(run) for name in ("loss_expert", "loss_merged", "loss_mse"))


class Infinite(torch.autograd.Function):
    """The identity; its gradient is infinite."""

    @staticmethod
    def forward(_, x):
        return x.clone()

    @staticmethod
    def backward(_, gradient):
        return gradient * float("inf")


def test_refused_steps_in_a_row_end_the_run_with_the_weights_before_them_saved(world, tmp_path, monkeypatch, capsys):
    calls, real = [], train.mse_loss
    monkeypatch.setattr(train, "mse_loss", lambda *a: calls.append(1) or real(*a) * (float("nan") if len(calls) > 2
                                                                                     else 1))
    run = tmp_path / "run"
    with pytest.raises(SystemExit) as stopped:
        train.main([*SMALL, "--out", str(run), "--save-every", "1"])
    assert stopped.value.code == 2 and "5 steps in a row" in capsys.readouterr().err
    assert checkpoint(run)["step"] == 7
    assert_same_weights(checkpoint(run, "step_2.pt"), checkpoint(run), rtol=0, atol=0)


def test_an_accepted_step_starts_the_count_anew(tmp_path):
    refused = Refused(tmp_path / "refused.jsonl", ALONE)
    refused.remember(nn.Linear(1, 1))
    for step in (1, 2, 3, 4, 6, 7, 8, 9):
        refused.write_down(step, [torch.ones(3)], [])
        refused.check()
    refused.write_down(10, [torch.ones(3)], [])
    with pytest.raises(ValueError, match="5 steps in a row"):
        refused.check()


def test_running_statistics_of_a_refused_step_are_taken_back(tmp_path):
    tower, refused = nn.BatchNorm1d(3), Refused(tmp_path / "refused.jsonl", ALONE)
    tower(torch.randn(4, 3))
    before = {name: buffer.clone() for name, buffer in tower.named_buffers()}
    refused.remember(tower)
    tower(torch.full((4, 3), float("nan")))
    assert tower.running_mean.isnan().all()
    refused.write_down(1, [torch.ones(3)], [])
    torch.testing.assert_close(dict(tower.named_buffers()), before, rtol=0, atol=0)


# --- videos that kill -------------------------------------------------------------------------------------------------
class Videos(torch.utils.data.Dataset):
    """index -> a sample; bad: index -> what its decoding does to its worker."""

    def __init__(self, watch, bad):
        self.watch, self.bad = watch, bad

    def __getitem__(self, index):
        failed = []
        try:
            with self.watch(index):
                harm = self.bad.get(index)
                if isinstance(harm, int):
                    faulthandler.disable()                       # pytest's would print a page
                    os.kill(os.getpid(), harm)
                    time.sleep(60)
                if harm == "exits":
                    os._exit(3)
                if harm == "hangs":
                    time.sleep(60)
                if harm == "slow":
                    time.sleep(1.5)
                if isinstance(harm, Exception):
                    raise harm
        except Undecodable:
            failed = [index]
        return {"frames": torch.zeros(1), "label": index, "index": index, "failed": failed}


@pytest.fixture
def hurried(monkeypatch):
    monkeypatch.setattr(faults, "HUNG", 4.0)
    monkeypatch.setattr(faults, "POLL", 0.3)


def run_through(n, bad, workers, file=None, watch=None):
    watch = watch or Watch([(f"{i}.mp4", 0) for i in range(n)], workers, file)
    keys = [list(range(i, min(i + 2, n))) for i in range(0, n, 2)]
    batches = list(watched(Videos(watch, bad), keys, watch, workers))
    return [i for b in batches for i in b["index"].tolist()], [i for b in batches for i in b["failed"]], watch


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_every_batch_comes_once_and_in_order(workers):
    order, failed, _ = run_through(9, {}, workers)
    assert order == list(range(9)) and failed == []


@pytest.mark.parametrize("workers, bad, harm", [(1, 0, signal.SIGSEGV), (2, 5, signal.SIGSEGV), (2, 8, signal.SIGABRT),
                                                (2, 3, "exits"), (1, 4, "hangs"), (2, 7, "hangs")])
def test_the_video_that_did_it_is_skipped_and_all_batches_come_once_in_order(tmp_path, hurried, workers, bad, harm,
                                                                             capsys):
    file = tmp_path / "skipped.txt"
    order, failed, watch = run_through(9, {bad: harm, (bad + 3) % 9: "slow"}, workers, file)
    assert order == list(range(9)) and failed == [bad]            # the slow one next to it is not blamed
    assert watch.skipped == {bad} and file.read_text() == f"{bad}.mp4\n"
    assert capsys.readouterr().out.count(f"skipped from now on: {bad}.mp4 (its worker: ") == 1


def test_what_is_skipped_is_skipped_at_the_next_start_wherever_it_stands(tmp_path, hurried):
    file, odd = tmp_path / "new" / "skipped.txt", "a 'b' \udcff.mp4"
    videos = [("x.mp4", 0), (odd, 0), ("y.mp4", 0), (odd, 0)]
    _, failed, _ = run_through(4, {1: signal.SIGSEGV}, 1, watch=Watch(videos, 1, file))
    assert failed == [1, 3]
    assert Watch(list(reversed(videos)), 1, file).skipped == {0, 2}


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM])
def test_workers_killed_from_outside_are_replaced_and_no_video_is_blamed(tmp_path, hurried, sent):
    once = tmp_path / "once"

    class Once(Videos):
        def __getitem__(self, index):
            with self.watch(index):
                if index == 3 and not once.exists():
                    once.touch()
                    os.kill(os.getpid(), sent)
                    time.sleep(60)
            return super().__getitem__(index)
    watch = Watch([(f"{i}.mp4", 0) for i in range(8)], 1)
    batches = list(watched(Once(watch, {}), [[i] for i in range(8)], watch, 1))
    assert [b["label"].item() for b in batches] == list(range(8)) and not watch.skipped


def test_workers_that_die_again_and_again_without_a_video_to_blame_end_in_one_line(hurried):
    with pytest.raises(OSError, match="3 times in a row and no video is to blame .*-9") as raised:
        run_through(4, {1: signal.SIGKILL}, 1)
    assert len(str(raised.value).splitlines()) == 1


@pytest.mark.parametrize("text", ["some of its own", "a socket timed out"])
def test_an_error_of_the_dataset_comes_through(hurried, text):
    with pytest.raises(RuntimeError, match=text):
        run_through(4, {1: RuntimeError(text)}, 1)


def test_a_workers_death_is_noticed_at_the_next_batch_and_nowhere_else(hurried):
    watch = Watch([(f"{i}.mp4", 0) for i in range(30)], 1)
    stream = watched(Videos(watch, {2: signal.SIGSEGV}), [[i] for i in range(30)], watch, 1)
    assert next(stream)["label"].item() == 0
    time.sleep(1.5)                                              # it dies now; torch's handler would raise here
    assert [b["label"].item() for b in stream] == list(range(1, 30)) and watch.skipped == {2}


def test_a_skipped_video_counts_as_failed_in_an_evaluation(straight, world, tmp_path):  # noqa: F811
    import eval as scripts
    videos, names, _ = scripts.dataset("toyworld-novel", "", "val", ALONE)
    (tmp_path / "skipped.txt").write_text(f"{videos[3][0]}\n")
    model = load_model(straight[0])
    plan = scripts.protocol("novel", videos, names, "", ("{}",), frames=4, resize=model.image_size)
    result = evaluation.evaluate(model, videos, model.finetune_classes, ALONE, plan, skipped=tmp_path / "skipped.txt")
    assert result["failed"] == [videos[3][0]] and result["decoded"] == len(videos) - 1
    with pytest.raises(ValueError, match="none of the 2 videos could be decoded, such as /gone/a.mp4"):
        evaluation.evaluate(model, [("/gone/a.mp4", 0), ("/gone/b.mp4", 0)], model.finetune_classes, ALONE, plan)


def test_bad_videos_are_named_once_counted_over_a_resume_and_limited():
    videos = [(f"{i}.mp4", 0) for i in range(40)]
    bad = BadVideos(videos, {"undecodable": ["7.mp4"]})
    bad.new = [7, 3, 3]
    assert bad.report() == ["cannot decode 3.mp4: another video is drawn in its place (2 so far)"]
    assert bad.report() == [] and bad.known == ["3.mp4", "7.mp4"]
    bad.check(40)                                                # 5 %: not more
    with pytest.raises(ValueError, match="2 of 39 training videos are undecodable: over 5%"):
        bad.check(39)


# --- headers ----------------------------------------------------------------------------------------------------------
def jpeg(h: int, w: int) -> bytes:
    from PIL import Image
    out = io.BytesIO()
    Image.fromarray(np.zeros((h, w, 3), dtype=np.uint8)).save(out, "JPEG")
    return out.getvalue()


@given(st.integers(1, 70), st.integers(1, 70), st.binary(max_size=40))
def test_the_size_in_a_jpegs_header_is_its_size(h, w, comment):
    file = jpeg(h, w)
    app = b"\xff\xe1" + (2 + len(comment)).to_bytes(2, "big") + comment
    assert jpeg_size(file) == jpeg_size(file[:2] + app + file[2:]) == (h, w)


def test_an_absurd_size_is_refused_before_decoding(world, tmp_path, monkeypatch):
    file = bytearray(jpeg(8, 8))
    at = file.index(b"\xff\xc0")
    file[at + 5:at + 9] = b"\xff\xff\xff\xff"
    (tmp_path / "1.jpg").write_bytes(file)
    with pytest.raises(Undecodable, match="claims 65535 x 65535 pixels"):
        decode(tmp_path, np.arange)
    video = next((world / "toyworld/videos").iterdir())
    monkeypatch.setattr(data, "MAX_PIXELS", 48 * 48 - 1)
    monkeypatch.setattr(data, "read_frames", lambda *_: pytest.fail("decoded"))
    with pytest.raises(Undecodable, match="claims 48 x 48 pixels"):
        decode(video, np.arange)


# --- files that a kill has cut ----------------------------------------------------------------------------------------
@pytest.fixture
def small():
    return read_checkpoint(ROOT / "tests/golden/official_tiny_checkpoint.pt")


def test_the_newest_are_kept_and_nothing_else_is_deleted(small, tmp_path):
    (tmp_path / "step_best.pt").write_text("mine")
    for step in (9, 10, 11):
        runs.save(ALONE, tmp_path, 2, {**small, "step": step})
    assert sorted(file.name for file in tmp_path.iterdir()) == ["last.pt", "step_10.pt", "step_11.pt", "step_best.pt"]
    assert (tmp_path / "last.pt").samefile(tmp_path / "step_11.pt")


def test_without_links_last_is_a_copy(small, tmp_path, monkeypatch):
    def no_links(*_):
        raise OSError("not supported")
    monkeypatch.setattr(os, "link", no_links)
    runs.save(ALONE, tmp_path, 2, {**small, "step": 3})
    assert (tmp_path / "last.pt").read_bytes() == (tmp_path / "step_3.pt").read_bytes()
    assert len(list(tmp_path.iterdir())) == 2


def test_one_flipped_bit_of_a_weight_is_seen(small, tmp_path):
    save_checkpoint(tmp_path / "x.pt", small)
    whole = bytearray((tmp_path / "x.pt").read_bytes())
    whole[len(whole) // 2] ^= 1
    (tmp_path / "x.pt").write_bytes(whole)
    torch.load(tmp_path / "x.pt", weights_only=True)              # torch does not see it
    with pytest.raises(ValueError, match="cannot read .*x.pt: damaged"):
        read_checkpoint(tmp_path / "x.pt")


def test_one_flipped_bit_of_a_cache_is_computed_again(tmp_path):
    clip, tokenizer = train.load_clip("toyworld", "toyworld")
    right = train.class_embeddings(clip, tokenizer, ["star"], cache=tmp_path)
    file, = tmp_path.iterdir()
    whole = bytearray(file.read_bytes())
    whole[whole.index(right.numpy().tobytes()[:8]) + 3] ^= 1
    file.write_bytes(whole)
    torch.testing.assert_close(train.class_embeddings(clip, tokenizer, ["star"], cache=tmp_path), right, rtol=0, atol=0)


def test_a_full_disk_is_one_line_and_leaves_the_old_file(small, tmp_path, monkeypatch):
    save_checkpoint(tmp_path / "x.pt", small)
    before = (tmp_path / "x.pt").read_bytes()

    def full(*_):
        raise RuntimeError("[enforce fail at inline_container.cc:1] . PytorchStreamWriter failed\nmore lines")
    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="cannot write .*x.pt: ") as raised:
        save_checkpoint(tmp_path / "x.pt", small)
    assert len(str(raised.value).splitlines()) == 1 and (tmp_path / "x.pt").read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("tail", ['{"step": 2, "data": "b", "plain": {"top1": 1}', '{"step": 2, "da', '{"step": 2}',
                                  "7", "null", "\udcff"])
def test_a_cut_line_of_the_metrics_costs_that_line_alone(tmp_path, tail):
    whole = '{"step": 1, "data": "a", "plain": {"top1": 1}}\n'
    (tmp_path / "metrics.jsonl").write_bytes(whole.encode() + tail.encode(errors="surrogateescape"))
    assert runs.evaluated(tmp_path) == {(1, "a")}
    runs.open_run(ALONE, tmp_path, 5, [("x.mp4", 0)], [("y.mp4", 0)], ["a"])
    assert (tmp_path / "metrics.jsonl").read_text() == whole


@pytest.mark.parametrize("killed_in", ["write_split", "os.replace"])
def test_a_kill_between_the_writes_of_a_new_run_loses_nothing_and_bars_nothing(tmp_path, monkeypatch, killed_in):
    def kill(*_):
        raise KeyboardInterrupt
    lists = [("x.mp4", 0)], [("y.mp4", 0)], ["a"]
    for history in ("", '{"step": 1, "data": "a"}\n'):
        folder = tmp_path / f"run{len(history)}"
        folder.mkdir()
        if history:
            (folder / "metrics.jsonl").write_text(history)
            (folder / "train.txt").write_text("x.mp4 0\n")
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(runs if killed_in == "write_split" else os, killed_in.removeprefix("os."), kill)
            runs.open_run(ALONE, folder, 5, *lists)
        (folder / ".step_9.pt.123").touch()
        runs.open_run(ALONE, folder, 5, *lists)
        assert (folder / "metrics.jsonl").read_text() == history and not (folder / ".step_9.pt.123").exists()


@given(st.lists(st.lists(st.floats(0, 100, width=32), min_size=3, max_size=3), min_size=1, max_size=12),
       st.integers(0, 12))
def test_the_means_are_the_same_bit_for_bit_wherever_a_window_is_interrupted(losses, place):
    whole, first = runs.Meter(ALONE), runs.Meter(ALONE)
    for three in losses:
        whole.add([three], 1)
    for three in losses[:place]:
        first.add([three], 1)
    second = runs.Meter(ALONE, {"meter": first.state()})
    for three in losses[place:]:
        second.add([three], 1)
    whole.read(), second.read()
    assert whole.means == second.means and whole.state()["sums"] == [0, 0, 0]


def test_the_means_are_the_same_on_another_number_of_ranks():
    two = runs.Meter(Process(0, 2, torch.device("cpu")))
    for _ in range(3):
        two.add([[2.0, 4.0, 6.0]], 1)
    state = {"sums": [12.0, 24.0, 36.0], "passes": two.state()["passes"], "means": [0.0] * 3}    # of both ranks
    one = runs.Meter(ALONE, {"meter": state})
    one.add([[2.0, 4.0, 6.0]], 1)
    one.read()
    assert one.means == [2.0, 4.0, 6.0]


def test_a_window_of_refused_steps_alone_keeps_the_means_before_it():
    meter = runs.Meter(ALONE)
    meter.add([[1.0, 2.0, 3.0]], 1)
    meter.read(), meter.read()
    assert meter.means == [1.0, 2.0, 3.0]


@pytest.mark.parametrize("flags, words", [
    (["--epochs", "1"], "step 10 of the checkpoint is past the 5 steps of --epochs 1"),
    (["--batch", "8"], "trained with another batch"), ([], "there are checkpoints in")])
def test_a_resume_that_cannot_go_on_is_one_line(straight, world, tmp_path, capsys, flags, words):  # noqa: F811
    (tmp_path / "last.pt").write_bytes((straight[0] / "last.pt").read_bytes()[:None if flags else 5000])
    with pytest.raises(SystemExit) as stopped:
        train.main([*SMALL, *flags, "--out", str(tmp_path), "--resume", "auto"])
    error = capsys.readouterr().err
    assert stopped.value.code == 2 and words in error and len(error.strip().splitlines()) == 1
    assert [file.name for file in tmp_path.iterdir()] == ["last.pt"]


def test_a_foreign_checkpoint_without_what_a_resume_needs_is_one_line(straight, tmp_path):  # noqa: F811
    whole = checkpoint(straight[0])
    for key in ("optimizer", "config", "frames", "untrained"):
        save_checkpoint(tmp_path / "x.pt", {name: value for name, value in whole.items() if name != key})
        with pytest.raises(ValueError, match=f"no {key} in it"):
            runs.find_run(str(tmp_path / "new"), str(tmp_path / "x.pt"), "toyworld")


def test_later_checkpoints_that_could_not_be_read_do_not_push_out_good_ones(small, tmp_path):
    (tmp_path / "step_99.pt").write_text("damaged")
    for step in (3, 4, 5):
        runs.save(ALONE, tmp_path, 1, {**small, "step": step})
    assert sorted(file.name for file in tmp_path.iterdir()) == ["last.pt", "step_5.pt", "step_99.pt"]


def test_an_evaluation_keeps_no_file_open_for_each_batch(straight, world, monkeypatch):  # noqa: F811
    """Tensors of a worker are files; a limit of 1,024 is common, a list of 1,250 batches too."""
    import eval as scripts
    videos, names, _ = scripts.dataset("toyworld-novel", "", "val", ALONE)
    model, opened, real = load_model(straight[0]), [], evaluation.view_cosines

    def count(*arguments):
        opened.append(len(os.listdir("/proc/self/fd")))
        return real(*arguments)
    monkeypatch.setattr(evaluation, "view_cosines", count)
    plan = scripts.protocol("novel", videos, names, "", ("{}",), frames=2, resize=model.image_size)
    evaluation.evaluate(model, videos, model.finetune_classes, ALONE, plan, batch=1, workers=1)
    assert len(opened) == 40 and max(opened[20:]) <= max(opened[:20]) + 8


def test_a_suspended_run_blames_no_video(hurried, monkeypatch):
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
    monkeypatch.setattr(faults.time, "monotonic", lambda: real() + sum(clock))
    assert list(faults.polled(Suspended(), watch)) == [] and watch.oldest() < 1
    assert not watch.skipped


# --- processes --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("text, there, status", [("[gloo] Connection closed by peer", True, 1),
                                                 ("[gloo] Connection closed by peer", False, None),
                                                 ("shapes differ", True, None)])
def test_a_lost_peer_is_one_line_and_nothing_else_is(monkeypatch, capsys, text, there, status):
    monkeypatch.setattr(processes.dist, "is_initialized", lambda: there)
    monkeypatch.setattr(processes.dist, "destroy_process_group", lambda: None)
    with pytest.raises(SystemExit if status else RuntimeError) as ended, one_line_errors("x.py"):
        raise RuntimeError(text)
    said = capsys.readouterr().err
    assert (ended.value.code, len(said.splitlines())) == (1, 1) if status else said == ""


@pytest.mark.parametrize("restarts, machines, own", [("0", 1, False), ("1", 1, True), ("2", 2, False)])
def test_a_restart_on_one_machine_gets_a_part_of_the_store_of_its_own(monkeypatch, restarts, machines, own):
    given_to = []
    monkeypatch.setattr(processes.dist, "init_process_group", lambda *_, **named: given_to.append(named))
    monkeypatch.setattr(processes.dist, "rendezvous", lambda _: iter([(torch.distributed.HashStore(), 1, 2)]))
    for name, value in (("TORCHELASTIC_RESTART_COUNT", restarts), ("WORLD_SIZE", "2"),
                        ("LOCAL_WORLD_SIZE", str(2 // machines))):
        monkeypatch.setenv(name, value)
    processes.start(Process(1, 2, torch.device("cpu")))
    assert [sorted(named) for named in given_to] == [["rank", "store", "timeout", "world_size"] if own else ["timeout"]]


def test_views_and_clips_say_where_they_are(world):
    seen = []

    class Spy:
        def __init__(self, index):
            seen.append(index)

        def __enter__(self):
            pass

        def __exit__(self, *_):
            pass
    videos = [(str(path), 0) for path in sorted((world / "toyworld/videos").iterdir())[:3]]
    TestViews(videos, 2, 40, watch=Spy)[2]
    sample = data.TrainingClips([*videos, ("/gone.mp4", 0)], 2, 40, 0, watch=Spy)[0, 3]
    assert seen[:2] == [2, 3] and seen[-1] == sample["index"] and sample["failed"] == seen[1:-1]


def test_a_folder_that_is_no_run_is_one_line(tmp_path):
    done = subprocess.run([sys.executable, "train.py", "--out", "/proc/none/run"], cwd=ROOT, capture_output=True,
                          text=True)
    assert done.returncode == 2 and len(done.stderr.strip().splitlines()) == 1 and "Traceback" not in done.stderr
