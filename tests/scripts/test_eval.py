"""
eval.py as a user runs it.

Must be true: every video counts once on any number of ranks and none is replaced; a score does not depend on batch
size, workers or views being computed together; one's own video gets ranked classes; mistakes are one line. Checked
against the model called by hand, and against other runs of the script.
"""
import json
import shutil
import warnings

import pytest
import torch
from support.clips import OPENAI
from support.places import ROOT
from support.runs import SMALL, torchrun

import eval as evaluation
import mote
import train
from mote.clip_backbone import load_clip
from mote.data import TestViews
from mote.datasets.dataset import open_dataset
from mote.runtime.ranks import find_ranks

CLIP = ["--backbone", "toyworld", "--pretrained", "toyworld", "--workers", "0"]


@pytest.fixture(scope="session")
def trained(world, tmp_path_factory):
    run = tmp_path_factory.mktemp("eval") / "run"
    train.main([*SMALL, "--epochs", "1", "--zero-shot", "", "--out", str(run)])
    return run


@pytest.fixture(scope="session")
def damaged(world, tmp_path_factory):
    """The novel set, 3 of its 40 videos broken in three ways."""
    copy = tmp_path_factory.mktemp("damaged") / "novel"
    shutil.copytree(world / "toyworld-novel", copy)
    files = (copy / "val.txt").read_text().split()[::2]
    (copy / files[0]).write_bytes(b"not a video")
    (copy / files[1]).write_bytes((copy / files[1]).read_bytes()[:700])
    (copy / files[2]).unlink()
    return copy, files[:3]


def test_scores_equal_the_model_called_video_by_video(world, trained):
    result = evaluation.main(["--checkpoint", str(trained), "--data", "toyworld-novel", "--workers", "0",
                              "--clips", "2", "--crops", "3", "--resize", "48"])
    data = open_dataset("toyworld-novel", "val")
    videos = data.videos
    options = evaluation.parse_config(["--checkpoint", str(trained), "--data", "toyworld-novel"])
    loaded = evaluation.load(options, data.classes, find_ranks("cpu"))
    model, T, classes = loaded.model, loaded.frames, loaded.embed(tuple(data.classes))
    right = torch.zeros(2, 2)
    with torch.no_grad():
        for sample in TestViews(videos, T, 40, 48, clips=2, crops=3):
            both = []
            for modulate in (False, True):                                    # views are averaged as cosines
                views = sample["frames"][sample["places"]]
                each = [model(model.normalise(view[None]), classes, modulate) for view in views]
                both.append(torch.stack(each).mean(dim=0)[0])
            for i, cosines in enumerate(both):
                best = cosines.topk(5).indices.tolist()
                right[i] += torch.tensor([best[0] == sample["label"], sample["label"] in best])
    one = result["splits"][0]
    assert one["protocol"]["clips"] * one["protocol"]["crops"] == 6 and one["videos"] == len(videos) == 40
    for i, name in enumerate(("plain", "modulated")):
        assert [result[name]["top1"], result[name]["top5"]] == pytest.approx((100 * right[i] / 40).tolist())


@pytest.mark.parametrize("flags", [["--batch", "1"], ["--batch", "7", "--workers", "2"], ["--batch", "1000"]])
def test_scores_do_not_depend_on_batch_size_or_workers(world, trained, flags):
    args = ["--checkpoint", str(trained), "--data", "toyworld"]
    assert evaluation.main([*args, *flags]) == evaluation.main([*args, "--workers", "0"])


def test_any_number_of_ranks_counts_every_video_once(world, trained, damaged, tmp_path):
    folder, _ = damaged
    args = ["--checkpoint", str(trained), "--data-root", str(folder), "--workers", "0", "--json"]
    evaluation.main([*args, str(tmp_path / "1.json")])
    done = torchrun(3, "eval.py", *args, str(tmp_path / "3.json"), "--device", "cpu")          # 40 = 14 + 13 + 13
    assert done.returncode == 0, done.stderr
    one, three = (json.loads((tmp_path / name).read_text()) for name in ("1.json", "3.json"))
    assert one == three and one["splits"][0]["videos"] == 40 and one["splits"][0]["decoded"] == 37


def test_undecodable_videos_are_named_counted_and_scored_both_ways(world, trained, damaged, capsys):
    folder, broken = damaged
    result = evaluation.main(["--checkpoint", str(trained), "--data-root", str(folder), "--workers", "0"])
    printed = capsys.readouterr().out
    assert "3 of 40 videos could not be decoded" in printed and all(name in printed for name in broken)
    assert "37 decoded; the failures counted as wrong" in printed
    for scores in (result["plain"], result["modulated"]):
        assert scores["top1_failures_wrong"] == pytest.approx(scores["top1"] * 37 / 40)
        assert scores["top5_failures_wrong"] == pytest.approx(scores["top5"] * 37 / 40)


def test_a_set_without_one_good_video_has_no_score(world, trained, tmp_path, capsys):
    copy = tmp_path / "novel"
    shutil.copytree(world / "toyworld-novel", copy)
    for file in (copy / "videos").iterdir():
        file.write_bytes(b"")
    with pytest.raises(SystemExit):
        evaluation.main(["--checkpoint", str(trained), "--data-root", str(copy), "--workers", "0"])
    assert "none of the 40 videos could be decoded, such as" in capsys.readouterr().err


def test_clip_alone_is_the_mean_of_its_frames_with_and_without_modulation(world):
    result = evaluation.main([*CLIP, "--data", "toyworld-novel"])
    assert result["plain"] == result["modulated"] and result["plain"]["top1"] > 5


def test_the_training_classes_are_not_modulated(world, trained):
    result = evaluation.main(["--checkpoint", str(trained), "--data", "toyworld", "--workers", "0"])
    assert result["plain"] == result["modulated"]


def test_ones_own_video_gets_ranked_classes_with_probabilities(world, trained, capsys):
    video = world / "toyworld" / "videos" / "val_star_moving_left_0.mp4"
    names = "star moving left, star moving right,star spinning, , red heart, star moving left"
    ranked = evaluation.main(["--checkpoint", str(trained), "--video", str(video), "--classes", names])["ranked"]
    lines = capsys.readouterr().out.splitlines()
    assert {name for _, _, name in ranked} == {"star moving left", "star moving right", "star spinning", "red heart"}
    assert sum(p for p, _, _ in ranked) == pytest.approx(1, abs=1e-5)
    assert [p for p, _, _ in ranked] == sorted((p for p, _, _ in ranked), reverse=True)
    assert lines[-4].split()[-1] == ranked[0][2].split()[-1] and "%" in lines[-4]


def test_a_folder_of_jpegs_is_a_video_too(world, trained, tmp_path):
    from PIL import Image
    from torchcodec.decoders import VideoDecoder
    file = world / "toyworld" / "videos" / "val_star_moving_left_0.mp4"
    (tmp_path / "star").mkdir()
    for i, frame in enumerate(VideoDecoder(file)):
        Image.fromarray(frame.permute(1, 2, 0).numpy()).save(tmp_path / "star" / f"{i:03d}.jpg", quality=95)
    args = ["--checkpoint", str(trained), "--classes", "star moving left, ring growing", "--video"]
    a, b = (evaluation.main([*args, str(place)])["ranked"] for place in (file, tmp_path / "star"))
    assert a[0][2] == b[0][2] and a[0][0] == pytest.approx(b[0][0], abs=0.05)             # JPEG is lossy


def test_the_authors_checkpoint_evaluates_with_a_text_tower_of_its_width(world, tmp_path):
    text = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}
    config = {"embed_dim": 128, "quick_gelu": True, "text_cfg": text, "preprocess_cfg": OPENAI,
              "vision_cfg": {"image_size": 32, "patch_size": 16, "width": 64, "layers": 2, "head_width": 64}}
    (tmp_path / "tiny.json").write_text(json.dumps(config))
    clip, _ = load_clip(str(tmp_path / "tiny.json"), "")
    torch.save(clip.state_dict(), tmp_path / "tiny.pt")
    official = ["--checkpoint", str(ROOT / "tests/golden/official_tiny_checkpoint.pt"), "--data", "toyworld-novel",
                "--workers", "0", "--backbone", str(tmp_path / "tiny.json"), "--pretrained", str(tmp_path / "tiny.pt")]
    assert evaluation.main(official)["splits"][0]["videos"] == 40


def test_clip_weight_mixes_the_original_back_in_and_says_so(world, trained, capsys):
    args = ["--checkpoint", str(trained), "--data", "toyworld-novel", "--workers", "0"]
    evaluation.main([*args, "--clip-weight", "0.99"])
    assert "visual tower: 0.99 x fine-tuned + 0.01 x original CLIP" in capsys.readouterr().out
    evaluation.main(args)
    assert "fine-tuned" not in capsys.readouterr().out
    original, _ = load_clip("toyworld", "toyworld")
    mixed = mote.load_model(trained, clip_weight=0.0).visual.state_dict()
    for name, tensor in original.visual.state_dict().items():
        torch.testing.assert_close(mixed[name], tensor, rtol=0, atol=0)


def test_the_templates_of_training_are_used_unless_others_are_given(world, trained, tmp_path, monkeypatch):
    seen = []
    real = evaluation.class_embeddings
    monkeypatch.setattr(evaluation, "class_embeddings", lambda c, t, n, templates, **k: seen.append(templates) or real(
        c, t, n, templates, **k))
    saved = torch.load(trained / "last.pt", weights_only=True)
    torch.save({**saved, "templates": ["a photo of {}."]}, tmp_path / "one.pt")
    (tmp_path / "two.txt").write_text("{}\na video of {}.\n")
    args = ["--data", "toyworld", "--workers", "0", "--checkpoint"]
    evaluation.main([*args, str(tmp_path / "one.pt")])
    evaluation.main([*args, str(trained), "--templates", str(tmp_path / "two.txt")])
    assert seen == [("a photo of {}.",), ("{}", "a video of {}.")]


def test_bf16_changes_little(world, trained):
    args = ["--checkpoint", str(trained), "--data", "toyworld", "--workers", "0", "--precision"]
    fp32, bf16 = (evaluation.main([*args, name])["plain"]["top5"] for name in ("fp32", "bf16"))
    assert abs(fp32 - bf16) <= 10                                             # 4 of 40 videos


MISTAKES = {
    "nothing to evaluate": ([], "give either --data"),
    "data and video": (["--data", "toyworld", "--video", "a.mp4"], "give either --data"),
    "video without classes": (["--video", "a.mp4"], "--video needs --classes"),
    "missing video": (["--video", "none.mp4", "--classes", "a, b"], "--video none.mp4: no such file"),
    "unreadable video": (["--video", "{text}", "--classes", "a, b"], "--video "),
    "missing checkpoint": (["--checkpoint", "none.pt", "--data", "toyworld"], "no checkpoint at none.pt"),
    "no pickle": (["--checkpoint", "{text}", "--data", "toyworld"], "damaged, or not a checkpoint"),
    "other classes file": (["--data", "toyworld", "--list", "{list}", "--class-names", "{text}"], "expected `id,name`"),
    "crops": (["--data", "toyworld", "--crops", "2"], "invalid choice"),
    "resize below the image": (["--data", "toyworld", "--resize", "20"], "resize at least the model's 40"),
    "resize, in a worker": (["--data", "toyworld", "--resize", "20", "--workers", "1"], "crops must be 1"),
    "clip weight": (["--data", "toyworld", "--clip-weight", "5"],
                    "--clip-weight must be a number of at least 0 and at most 1"),
    "half a checkpoint": (["--checkpoint", "{half}", "--data", "toyworld"], "is neither a checkpoint of train.py"),
    "no clips": (["--data", "toyworld", "--clips", "0"], "--clips must be a number of at least 1"),
    "frames": (["--data", "toyworld", "--frames", "100"], "--frames 100: the table of frame positions"),
    "gamma": (["--data", "toyworld", "--gamma", "0"], "--gamma must be a number above 0"),
    "backbone of another width": (["--data", "toyworld", "--backbone", "{wide}"], "not weights of this architecture"),
    "unwritable json": (["--data", "toyworld", "--json", "/nowhere/a.json"], "/nowhere"),
    "authors' file, no text tower": (["--checkpoint", "{official}", "--data", "toyworld"], "does not say which CLIP"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_that_names_it_and_status_2(mistake, world, trained, tmp_path, capsys):
    (tmp_path / "text.txt").write_text("hello, world\nhow, are you\n")
    config = json.loads((ROOT / "mote/toyworld/toyworld.json").read_text())
    (tmp_path / "wide.json").write_text(json.dumps({**config, "embed_dim": 32}))
    places = {"text": tmp_path / "text.txt", "list": world / "toyworld/val.txt", "wide": tmp_path / "wide.json",
              "official": ROOT / "tests/golden/official_tiny_checkpoint.pt"}
    whole = torch.load(trained / "last.pt", weights_only=True)
    torch.save({**whole, "model": {"logit_scale": whole["model"]["logit_scale"]}}, tmp_path / "half.pt")
    places["half"] = tmp_path / "half.pt"
    args, expected = MISTAKES[mistake]
    args = [str(places[a[1:-1]]) if a.startswith("{") else a for a in args]
    with warnings.catch_warnings(), pytest.raises(SystemExit) as stopped:
        warnings.simplefilter("ignore")                          # "b" is a word that toyworld's CLIP does not know
        evaluation.main([*([] if "--checkpoint" in args else ["--checkpoint", str(trained)]), "--workers", "0", *args])
    error = capsys.readouterr().err.strip().splitlines()
    assert stopped.value.code == 2
    assert expected in error[-1] and len(error) == 1


def test_a_model_that_gives_nan_has_no_score(world, trained, tmp_path, capsys):
    saved = torch.load(trained / "last.pt", weights_only=True)
    saved["model"]["temporal.positions"].fill_(float("nan"))
    torch.save(saved, tmp_path / "nan.pt")
    with pytest.raises(SystemExit):
        evaluation.main(["--checkpoint", str(tmp_path / "nan.pt"), "--data", "toyworld-novel", "--workers", "0"])
    assert "not finite" in capsys.readouterr().err


def test_an_interrupt_is_one_line(trained, capsys, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt
    monkeypatch.setattr(evaluation, "open_dataset", interrupt)
    with pytest.raises(SystemExit) as stopped:
        evaluation.main(["--checkpoint", str(trained), "--data", "toyworld-novel"])
    assert stopped.value.code == 130 and capsys.readouterr().err.strip() == "eval.py: stopped"


def test_an_unwritable_json_and_a_split_without_its_list_are_said_before_anything_is_loaded(capsys, monkeypatch):
    monkeypatch.setattr(evaluation, "find_ranks", lambda *_: pytest.fail("too late"))
    for flags, said in ((["--json", "/proc/none/x.json"], "/proc/none/x.json"),
                        (["--list", "a.txt", "--split", "3"], "--split 3 needs a {} in --list a.txt")):
        with pytest.raises(SystemExit):
            evaluation.main([*CLIP, "--data", "toyworld", *flags])
        assert said in capsys.readouterr().err
