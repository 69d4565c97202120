"""
train.py as a user runs it: on a small toyworld, in this process where that is possible.

Must be true: a run ends with its table and a checkpoint that anyone can load; killed and resumed it is the same run,
bit for bit; two ranks are one rank with two accumulation steps; every mistake is one line and exit status 2. Checked
against other runs of the same script.
"""
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from support.clips import OPENAI
from support.places import ROOT
from support.runs import SMALL, assert_same_weights, checkpoint, metrics, torchrun

import mote
import train
from mote.clip_backbone import class_embeddings, load_clip
from mote.data import TrainingClips, collate
from mote.datasets.dataset import open_dataset
from mote.model import MoTE
from mote.temporal_experts import TemporalTransformer


@pytest.fixture(scope="session")
def straight(world, tmp_path_factory):
    """An uninterrupted run: 5 steps an epoch, 2 epochs, a checkpoint every 3 steps."""
    run = tmp_path_factory.mktemp("runs") / "straight"
    rows = train.main([*SMALL, "--out", str(run), "--save-every", "3"])
    return run, rows


def test_a_run_ends_with_a_table_of_every_dataset_for_the_untrained_and_the_trained_model(straight):
    run, rows = straight
    assert json.loads((run / "results.json").read_text()) == rows
    assert [list(row) for row in rows.values()] == [["toyworld", "toyworld-novel"]] * 3
    assert all(0 <= top1 <= 100 for row in rows.values() for top1 in row.values())


def test_metrics_hold_one_line_per_evaluation_with_counts_views_and_losses(straight):
    run, _ = straight
    lines = metrics(run)
    assert [(line["data"], line["step"]) for line in lines] == [("toyworld", 10), ("toyworld-novel", 10)]
    assert all(line["videos"] == line["decoded"] == 40 and line["protocol"]["frames"] == 8 for line in lines)
    assert all(line["L_TE"] > 0 and line["L_WMR"] > 0 and line["L_MSE"] > 0 for line in lines)


def test_a_checkpoint_loads_without_running_code_and_as_a_merged_model(straight):
    run, _ = straight
    assert checkpoint(run)["step"] == 10 and checkpoint(run)["classes"][0] == "circle moving right"
    model = mote.load_model(run)
    assert model.temporal.num_experts == 1 and not model.training
    assert mote.load_model(run, keep_experts=True).temporal.num_experts == 4
    frames = torch.zeros(2, 3, 3, 40, 40)                                     # fewer frames than in training are fine
    assert model(frames, model.finetune_classes).shape == (2, 40)


def test_every_trained_weight_moves_and_the_classes_do_not(straight):
    run, _ = straight
    early, late = checkpoint(run, "step_3.pt")["model"], checkpoint(run)["model"]
    unmoved = {name for name in early if torch.equal(early[name], late[name])}
    assert unmoved == {"finetune_classes"}


@pytest.mark.parametrize("stopped_at", ["step_3.pt", "step_6.pt"])            # mid-epoch, both
def test_resuming_matches_an_uninterrupted_run_bit_for_bit(straight, tmp_path, stopped_at):
    run, rows = straight
    again = tmp_path / "again"
    again.mkdir()
    shutil.copy(run / stopped_at, again)
    shutil.copy(run / "metrics.jsonl", again)                                 # lines from a future that is run again
    assert train.main([*SMALL, "--out", str(again), "--resume", "auto", "--save-every", "3"]) == rows
    a, b = checkpoint(run), checkpoint(again)
    assert_same_weights(a, b, rtol=0, atol=0)
    for key, state in a["optimizer"]["state"].items():
        torch.testing.assert_close(state, b["optimizer"]["state"][key], rtol=0, atol=0)
    assert metrics(run) == metrics(again)


def test_a_killed_run_resumes_to_the_same_weights(straight, tmp_path):
    run, _ = straight
    out = tmp_path / "killed"
    command = [sys.executable, "train.py", *SMALL, "--out", str(out), "--save-every", "1"]
    process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (out / "step_2.pt").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert (out / "step_2.pt").exists() and not (out / "results.json").exists()
    train.main([*SMALL, "--out", str(out), "--resume", "auto"])
    assert_same_weights(checkpoint(run), checkpoint(out), rtol=0, atol=0)


def test_resume_auto_passes_over_a_damaged_checkpoint_and_starts_afresh_without_one(straight, tmp_path, capsys):
    run, _ = straight
    out = tmp_path / "damaged"
    out.mkdir()
    shutil.copy(run / "step_9.pt", out)
    (out / "last.pt").write_bytes((run / "last.pt").read_bytes()[:5000])
    train.main([*SMALL, "--out", str(out), "--resume", "auto"])
    printed = capsys.readouterr().out
    assert "passed over: cannot read" in printed and "from step 9" in printed
    train.main([*SMALL, "--epochs", "1", "--out", str(tmp_path / "none"), "--resume", "auto"])
    assert "from step 0" in capsys.readouterr().out


def test_going_back_in_a_folder_with_later_checkpoints_is_refused(straight, capsys):
    run, _ = straight
    with pytest.raises(SystemExit):
        train.main([*SMALL, "--resume", str(run / "step_3.pt")])
    assert "already goes on to step 10; choose another --out" in capsys.readouterr().err


def test_resuming_a_checkpoint_in_another_folder_is_the_same_run(straight, tmp_path):
    run, rows = straight
    assert train.main([*SMALL, "--resume", str(run / "step_6.pt"), "--out", str(tmp_path / "other")]) == rows


def test_resuming_with_other_templates_or_parts_is_refused(straight, tmp_path, capsys):
    run, _ = straight
    (tmp_path / "templates.txt").write_text("{}\n")
    other = ["--templates", str(tmp_path / "templates.txt")]
    for flags, word in ((other, "templates"), (["--clip-lr", "0"], "--clip-lr")):
        with pytest.raises(SystemExit):
            train.main([*SMALL, "--resume", str(run / "step_6.pt"), "--out", str(tmp_path / "x"), *flags])
        assert word in capsys.readouterr().err


def test_resuming_with_another_zero_shot_set_fills_the_table(straight, tmp_path):
    run, rows = straight
    again = train.main([*SMALL, "--zero-shot", "", "--resume", str(run / "step_9.pt"), "--out", str(tmp_path / "x")])
    assert again == {row: {"toyworld": top1["toyworld"]} for row, top1 in rows.items()}


def test_resuming_is_bit_exact_for_a_tower_with_dropout(world, tmp_path):
    config = json.loads((ROOT / "mote/toyworld/toyworld.json").read_text())
    config["vision_cfg"]["patch_dropout"] = 0.5
    (tmp_path / "drop.json").write_text(json.dumps(config))
    flags = [*SMALL, "--epochs", "1", "--backbone", str(tmp_path / "drop.json"), "--zero-shot", "", "--save-every", "2"]
    train.main([*flags, "--out", str(tmp_path / "a")])
    train.main([*flags, "--resume", str(tmp_path / "a" / "step_2.pt"), "--out", str(tmp_path / "b")])
    assert_same_weights(checkpoint(tmp_path / "a"), checkpoint(tmp_path / "b"), rtol=0, atol=0)


def test_a_datasets_own_lists_are_never_overwritten(world, tmp_path, capsys):
    copy = tmp_path / "own"
    shutil.copytree(world / "toyworld", copy)
    before = (copy / "train.txt").read_text()
    with pytest.raises(SystemExit):
        train.main([*SMALL, "--data-root", str(copy), "--out", str(copy), "--resume", "auto"])
    assert "own lists would be overwritten" in capsys.readouterr().err and (copy / "train.txt").read_text() == before


DRIVER = """
import hashlib, os, sys
import train
from mote.scoring import benchmark
real = benchmark.evaluate
def spy(model, *rest, **named):
    digest = hashlib.sha256(b"".join(t.numpy().tobytes() for t in model.state_dict().values())).hexdigest()
    with open(f"{sys.argv[1]}.rank{os.environ['RANK']}", "a") as file:
        file.write(digest + "\\n")
    return real(model, *rest, **named)
benchmark.evaluate = spy
train.main(sys.argv[2:])
"""


def test_two_ranks_match_one_rank_with_two_accumulation_steps(world, tmp_path):
    two, one = tmp_path / "two", tmp_path / "one"
    (tmp_path / "driver.py").write_text(DRIVER)
    done = torchrun(2, str(tmp_path / "driver.py"), str(tmp_path / "digest"), *SMALL, "--out", str(two))
    assert done.returncode == 0, done.stderr
    train.main([*SMALL, "--out", str(one), "--accumulate", "2"])
    digests = [(tmp_path / f"digest.rank{rank}").read_text() for rank in range(2)]
    assert digests[0] == digests[1]                              # the ranks' parameters, at every evaluation
    for a, b in zip(metrics(one), metrics(two)):
        assert (a["videos"], a["decoded"]) == (b["videos"], b["decoded"]) == (40, 40)
        for loss in ("L_TE", "L_WMR", "L_MSE"):
            assert a[loss] == pytest.approx(b[loss], rel=1e-5)                # float32 sums in another order
    assert_same_weights(checkpoint(one), checkpoint(two), rtol=1e-3, atol=2e-4)     # Adam divides by small numbers


def test_accumulation_changes_the_draws_but_not_the_batches(straight, world, tmp_path, monkeypatch):
    seen = []
    real = train.draw_weights
    monkeypatch.setattr(train, "draw_weights", lambda config, step, m: seen.append((step, m)) or real(config, step, m))
    train.main([*SMALL, "--epochs", "1", "--out", str(tmp_path / "a"), "--accumulate", "2"])
    assert seen == [(step, m) for step in range(5) for m in range(2)]         # one draw per step and micro-batch


def test_a_frozen_clip_keeps_its_weights_and_needs_no_backward(world, tmp_path, monkeypatch):
    needed = []
    real = train.mse_loss
    monkeypatch.setattr(train, "mse_loss", lambda merged, e: needed.append(e.requires_grad) or real(merged, e))
    out = tmp_path / "frozen"
    train.main([*SMALL, "--epochs", "1", "--clip-lr", "0", "--out", str(out)])
    clip, _ = load_clip("toyworld", "toyworld")
    saved = checkpoint(out)["model"]
    for name, tensor in clip.visual.state_dict().items():
        torch.testing.assert_close(saved[f"visual.{name}"], tensor, rtol=0, atol=0)
    torch.testing.assert_close(saved["logit_scale"], clip.logit_scale.detach(), rtol=0, atol=0)
    assert needed and not any(needed)


@pytest.mark.parametrize("flags, passes", [
    ([], 2), (["--experts", "1"], 1), (["--weight-merged", "0", "--weight-mse", "0"], 1),
    (["--experts", "1", "--weight-merged", "0.5"], 2)])
def test_the_second_pass_runs_where_it_is_asked_for(world, tmp_path, monkeypatch, flags, passes):
    calls = []
    real = TemporalTransformer.forward

    def spy(self, x, weights_LE):
        calls.append(self.training)
        return real(self, x, weights_LE)
    monkeypatch.setattr(TemporalTransformer, "forward", spy)
    train.main([*SMALL, "--epochs", "1", "--out", str(tmp_path / "run"), *flags])
    assert sum(calls) == 5 * passes                              # 5 steps; evaluation is not in training mode


def test_a_frozen_tower_keeps_its_running_statistics(world, tmp_path):
    config = {"embed_dim": 32, "custom_text": True, "vision_cfg": {"image_size": 32, "timm_model_name": "test_resnet",
                                                                   "timm_pool": "avg"},
              "text_cfg": {"context_length": 24, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
        "preprocess_cfg": OPENAI}
    (tmp_path / "norm.json").write_text(json.dumps(config))
    flags = ["--backbone", str(tmp_path / "norm.json"), "--pretrained", "", "--zero-shot", "", "--layers", "1"]
    for clip_lr in ("0", "1e-5"):
        train.main([*SMALL, "--epochs", "1", *flags, "--clip-lr", clip_lr, "--out", str(tmp_path / clip_lr)])
    before = load_clip(str(tmp_path / "norm.json"), "")[0].visual.state_dict()
    means = [name for name in before if name.endswith("running_mean")]
    frozen, trained = (checkpoint(tmp_path / clip_lr)["model"] for clip_lr in ("0", "1e-5"))
    assert means and all(torch.equal(frozen[f"visual.{name}"], before[name]) for name in means)
    assert not any(torch.equal(trained[f"visual.{name}"], before[name]) for name in means)


def test_no_temporal_layers_train_clip_with_frames_averaged(world, tmp_path):
    out = tmp_path / "mean"
    train.main([*SMALL, "--epochs", "1", "--layers", "0", "--out", str(out)])
    model = mote.load_model(out)
    e = torch.randn(2, 3, 64)
    torch.testing.assert_close(model.temporal_features(e), torch.zeros_like(e))


def test_loss_falls_on_a_tiny_fixed_batch(world):
    torch.manual_seed(0)
    clip, tokenizer = load_clip("toyworld", "toyworld")
    data = open_dataset("toyworld", "train")
    videos, names = data.videos, data.classes
    config = train.parse_config(["--layers", "1", "--weight-decay", "0"])
    classes = class_embeddings(clip, tokenizer, names)
    model = MoTE(clip.visual, TemporalTransformer(64, 1), classes, clip.logit_scale, clip.pixels)
    batch = collate([TrainingClips(videos[:8], 4, 40, 0)[0, i] for i in range(8)])
    objective, optimizer = train.Objective(model, True), train.build_optimizer(model, config)
    for group in optimizer.param_groups:
        group["lr"] = 3e-4
    history = []
    for step in range(30):
        losses = objective(batch["frames"], batch["label"], *train.draw_weights(config, step, 0))
        optimizer.zero_grad()
        train.weighted_sum(losses, config).backward()
        optimizer.step()
        history.append(losses["L_TE"].item())
    assert sum(history[-5:]) < 0.5 * sum(history[:5])


def gradients(model, batch, objective):
    model.zero_grad()
    config = train.parse_config(["--layers", "1"])
    losses = objective(batch["frames"], batch["label"], *train.draw_weights(config, 0, 0))
    train.weighted_sum(losses, config).backward()
    detached = {name: loss.detach() for name, loss in losses.items()}
    return detached, {name: p.grad.clone() for name, p in model.named_parameters()}


@pytest.fixture(scope="module")
def fixed_batch(world):
    clip, tokenizer = load_clip("toyworld", "toyworld")
    data = open_dataset("toyworld", "train")
    videos, names = data.videos, data.classes
    torch.manual_seed(0)
    model = MoTE(clip.visual, TemporalTransformer(64, 1), class_embeddings(clip, tokenizer, names),
                       clip.logit_scale, clip.pixels)
    clips = TrainingClips(videos[:4], 4, 40, 0)
    return model.train(), collate([clips[0, i] for i in range(4)]), clips


def test_checkpointed_activations_give_the_same_gradients(fixed_batch):
    model, batch, _ = fixed_batch
    plain = gradients(model, batch, train.Objective(model, True))
    model.visual.set_grad_checkpointing(True)
    again = gradients(model, batch, train.Objective(model, True))
    model.visual.set_grad_checkpointing(False)
    assert model.visual.transformer.grad_checkpointing is False
    torch.testing.assert_close(again, plain, rtol=0, atol=0)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_a_compiled_step_is_the_eager_one_and_compiles_once(fixed_batch):
    """Half a minute of compiling. The order of sums differs: 1e-4 of the largest gradient.

    Batches with gray clips, none and some among them come one after the other.
    """
    model, batch, clips = fixed_batch
    samples = [clips[epoch, i] for epoch in range(1, 9) for i in range(4)]
    gray = [bool((one["frames"][:, 0] == one["frames"][:, 1]).all()) for one in samples]
    of_kind = [[one for one, is_gray in zip(samples, gray) if is_gray == kind] for kind in (True, False)]
    others = [of_kind[0][:4], of_kind[1][:4], of_kind[0][:2] + of_kind[1][:2]]
    eager = gradients(model, batch, train.Objective(model, True))
    with torch._dynamo.config.patch(error_on_recompile=True):
        compiled = torch.compile(train.Objective(model, True), dynamic=False)
        for other in others:
            gradients(model, collate(other), compiled)
        losses, grads = gradients(model, batch, compiled)
    torch.testing.assert_close(losses, eager[0], rtol=1e-4, atol=1e-5)
    for name, gradient in eager[1].items():
        torch.testing.assert_close(grads[name], gradient, rtol=1e-3, atol=1e-4 * gradient.abs().max().item() + 1e-7)


@pytest.mark.parametrize("flag", ["--checkpoint-activations", "--precision=tf32"])
def test_a_flag_for_memory_or_speed_leaves_the_run_as_it_was(straight, tmp_path, flag):
    """On a CPU, where tf32 is float32: the same weights, bit for bit."""
    run, rows = straight
    assert train.main([*SMALL, "--out", str(tmp_path / "run"), flag]) == rows
    assert_same_weights(checkpoint(run), checkpoint(tmp_path / "run"), rtol=0, atol=0)


def test_init_starts_from_another_runs_weights(straight, tmp_path):
    run, _ = straight
    out = tmp_path / "init"
    train.main([*SMALL, "--epochs", "1", "--init", str(run), "--lr", "1e-30", "--clip-lr", "1e-30", "--out", str(out)])
    assert_same_weights(checkpoint(run), checkpoint(out), rtol=0, atol=0)


def test_any_folder_of_videos_trains_with_its_split_printed_and_kept(world, tmp_path, capsys, monkeypatch):
    folder = tmp_path / "my videos"
    for line in (world / "toyworld" / "train.txt").read_text().splitlines()[:16]:
        path, label = line.split()
        target = folder / f"class_{int(label) % 4}" / f"clip {label}.mp4"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(world / "toyworld" / path, target)
    clip = ["--backbone", "toyworld", "--pretrained", "toyworld", "--threads", "1", "--workers", "0", "--batch", "4"]
    run = tmp_path / "run"
    with pytest.warns(UserWarning, match="never seen the words: .*class"):
        train.main(["--data-root", str(folder), *clip, "--epochs", "1", "--layers", "1", "--out", str(run)])
    assert "split 80 / 20 within each class" in capsys.readouterr().out
    kept = {split: (run / f"{split}.txt").read_text().splitlines() for split in ("train", "val")}
    assert len(kept["train"]) == 12 and len(kept["val"]) == 4 and not set(kept["train"]) & set(kept["val"])
    assert (run / "classes.csv").read_text().splitlines() == [f"{i},class {i}" for i in range(4)]


def test_an_undecodable_video_is_named_once_and_another_drawn(world, tmp_path, capsys):
    copy = tmp_path / "toyworld"
    shutil.copytree(world / "toyworld", copy)
    broken = (copy / "train.txt").read_text().split()[0]
    (copy / broken).write_bytes(b"not a video")
    train.main([*SMALL, "--data-root", str(copy), "--zero-shot", "", "--out", str(tmp_path / "run")])
    printed = capsys.readouterr().out
    assert printed.count(f"{broken}: another video is drawn in its place (1 so far)") == 1


def test_more_than_a_twentieth_undecodable_stops_the_run_in_one_line(world, tmp_path, capsys):
    copy = tmp_path / "toyworld"
    shutil.copytree(world / "toyworld", copy)
    for path in (copy / "train.txt").read_text().split()[:20:2]:
        (copy / path).write_bytes(b"not a video")
    with pytest.raises(SystemExit) as stopped:
        train.main([*SMALL, "--log-every", "99", "--data-root", str(copy), "--zero-shot", "",
                    "--out", str(tmp_path / "r")])
    assert stopped.value.code == 2
    assert "over 5%" in capsys.readouterr().err
    assert checkpoint(tmp_path / "r")["step"] == 5                            # the epoch that found them is not lost


def test_a_timm_tower_with_a_custom_text_tower_and_a_logit_bias_trains_and_evaluates(world, tmp_path):
    import eval as evaluation
    config = {"embed_dim": 32, "custom_text": True, "init_logit_bias": -10,
              "vision_cfg": {"image_size": 32, "timm_model_name": "test_convnext", "timm_pool": "avg"},
              "text_cfg": {"context_length": 24, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
        "preprocess_cfg": OPENAI}
    (tmp_path / "tiny.json").write_text(json.dumps(config))
    out = tmp_path / "run"
    clip, _ = load_clip(str(tmp_path / "tiny.json"), "")
    torch.save(clip.state_dict(), tmp_path / "tiny.pt")
    tiny = ["--backbone", str(tmp_path / "tiny.json"), "--pretrained", str(tmp_path / "tiny.pt")]
    train.main([*SMALL, "--epochs", "1", *tiny, "--zero-shot", "", "--out", str(out)])
    result = evaluation.main(["--checkpoint", str(out), "--data", "toyworld-novel", "--workers", "0"])
    assert result["splits"][0]["videos"] == 40


def test_help_shows_the_papers_numbers_in_force(capsys):
    config = train.parse_config(["--data", "k400"])
    assert (config.batch, config.lr, config.clip_lr, config.epochs, config.layers) == (144, 5e-5, 3e-6, 30, 4)
    assert (config.warmup, config.weight_decay, config.min_area, config.flip) == (5, 0.2, 0.08, True)
    config = train.parse_config(["--data", "k400", "--backbone", "ViT-L-14-quickgelu", "--lr", "1"])
    assert (config.epochs, config.layers, config.lr) == (20, 6, 1.0)
    assert train.parse_config(["--data", "ssv2"]).flip is False and train.parse_config(["--no-flip"]).flip is False
    with pytest.raises(SystemExit):
        train.parse_config(["--data", "k400", "--help"])
    assert "(default: 144)" in capsys.readouterr().out


MISTAKES = {                                                                  # arguments -> part of the one line
    "unknown dataset": (["--data", "nothing"], "dataset nothing: no folder at"),
    "missing folder": (["--data-root", "/nowhere/at/all"], "no folder at /nowhere/at/all"),
    "missing list": (["--train-list", "none.txt"], "no file at none.txt"),
    "missing csv": (["--train-list", "{list}", "--class-names", "none.csv"], "no file at none.csv"),
    "label out of range": (["--train-list", "{bad}"], "label 40 is out of range 0..39"),
    "list with no videos": (["--train-list", "{empty}"], "a list with no videos"),
    "class with no videos": (["--data-root", "{hollow}"], "a class with no videos"),
    "unknown backbone": (["--backbone", "ViT-B-17"], "open_clip has no such model; near: ViT-B-16"),
    "plain name with OpenAI's tag": (["--backbone", "ViT-B-16", "--pretrained", "openai"],
                                     "use --backbone ViT-B-16-quickgelu"),
    "unknown tag": (["--backbone", "ViT-B-16", "--pretrained", "closedai"], "neither a file nor a tag of ViT-B-16"),
    "batch that does not divide": (["--batch", "7", "--accumulate", "2"], "--batch 7 must be a multiple of"),
    "batch too large": (["--batch", "1000"], "at most the number of training videos, 80"),
    "no frames": (["--frames", "0"], "--frames must be a number of at least 1, got 0"),
    "too many frames": (["--frames", "78"], "--frames 78: the table of frame positions has 77 rows"),
    "negative rate": (["--lr", "-1"], "--lr must be a number of at least 0"),
    "a rate that is no number": (["--lr", "nan"], "--lr must be a number"),
    "zero beta": (["--beta", "0"], "--beta must be a number of at least 1e-06"),
    "area": (["--min-area", "0"], "--min-area must be a number above 0 and at most 1"),
    "unknown routing": (["--routing", "gated"], "invalid choice: 'gated'"),
    "nothing to train": (["--layers", "0", "--clip-lr", "0"], "nothing to train"),
    "missing checkpoint": (["--resume", "none.pt"], "no checkpoint at none.pt"),
    "missing init": (["--init", "none.pt"], "no checkpoint at none.pt"),
    "truncated checkpoint": (["--init", "{truncated}"], "damaged, or not a checkpoint"),
    "other architecture": (["--init", "{run}", "--layers", "3"], "of another architecture: temporal.blocks.2."),
    "authors' file to resume": (["--resume", "{official}"], "no optimizer in it"),
    "resume auto without a folder": (["--resume", "auto"], "--resume auto needs --out"),
    "a run folder in use": (["--out", "{run}"], "exists and is not an empty folder"),
    "template without a place": (["--templates", "{bad}"], "a template needs exactly one {}"),
    "device": (["--device", "tpu9"], "--device tpu9"),
    "zero-shot on the training set": (["--zero-shot", "toyworld"], "--zero-shot toyworld is what the run trains on"),
    "a folder under a file": (["--out", "{bad}/run"], "bad.txt"),
    "unknown zero-shot set": (["--zero-shot", "nothing"], "dataset nothing: no folder at"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_that_names_it_and_status_2(mistake, straight, world, tmp_path, capsys):
    run, _ = straight
    places = {"list": world / "toyworld" / "train.txt", "run": run,
              "official": ROOT / "tests/golden/official_tiny_checkpoint.pt"}
    for name, text in {"bad": "videos/a.mp4 40\n", "empty": "\n\n"}.items():
        places[name] = tmp_path / f"{name}.txt"
        places[name].write_text(text)
    places["truncated"] = tmp_path / "truncated.pt"
    places["truncated"].write_bytes((run / "last.pt").read_bytes()[:9999])
    (tmp_path / "hollow" / "jumping").mkdir(parents=True)
    places["hollow"] = tmp_path / "hollow"
    args, expected = MISTAKES[mistake]
    args = [a.format(**places) if a.startswith("{") else a for a in args]
    before = set(Path(run).iterdir())
    with pytest.raises(SystemExit) as stopped:
        out = [] if {"--out", "--resume"} & set(args) else ["--out", str(tmp_path / "out")]
        train.main([*(SMALL if "--data-root" not in args else SMALL[2:]), *out, *args])
    error = capsys.readouterr().err.strip().splitlines()
    assert stopped.value.code == 2
    assert expected in error[-1] and len(error) == 1
    assert set(Path(run).iterdir()) == before and not (tmp_path / "out" / "last.pt").exists()


@pytest.mark.slow
def test_under_torchrun_rank_0_alone_prints_the_mistake(world):
    done = torchrun(2, "train.py", "--data", "nothing", "--device", "cpu")
    assert done.returncode != 0
    assert done.stderr.count("train.py: error:") == 1 and "no folder at" in done.stderr


def test_missing_ffmpeg_says_what_to_install(world, monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", None)             # importing it raises ImportError
    with pytest.raises(SystemExit) as stopped:
        train.main([*SMALL, "--out", str(tmp_path / "out")])
    assert stopped.value.code == 2 and "apt-get install ffmpeg" in capsys.readouterr().err


@pytest.mark.parametrize("flags", [["--shots", "1"], ["--val-list", "{other}"]])
def test_a_run_does_not_go_on_with_other_videos(straight, world, tmp_path, capsys, flags):
    run, _ = straight
    again = tmp_path / "again"
    again.mkdir()
    shutil.copy(run / "step_3.pt", again)
    lines = (world / "toyworld/val.txt").read_text().splitlines(keepends=True)
    (tmp_path / "other.txt").write_text("".join(lines[1:]))
    flags = [flag.format(other=tmp_path / "other.txt") for flag in flags]
    with pytest.raises(SystemExit):
        train.main([*SMALL, "--out", str(again), "--resume", "auto", *flags])
    assert "--resume: the checkpoint was trained with another list of videos" in capsys.readouterr().err


def test_training_and_testing_on_different_official_splits_is_refused(world, tmp_path, capsys):
    shutil.copytree(world / "toyworld", tmp_path / "data")
    for old, new in (("train.txt", "train2.txt"), ("val.txt", "val1.txt")):
        (tmp_path / "data" / old).rename(tmp_path / "data" / new)
    with pytest.raises(SystemExit):
        train.main([*SMALL, "--data-root", str(tmp_path / "data"), "--out", str(tmp_path / "run")])
    assert "the classes (and the official split) of training and testing must be the same" in capsys.readouterr().err
