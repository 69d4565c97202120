"""
From cosines to scores, per-video results, splits and what is printed; eval.py and train.py on protocols of the paper.

Checked against numbers worked by hand, loops written here, and the model called view by view. eval.py returns, and
writes with --json:

    {data, checkpoint, plain, modulated: means and standard deviations over the splits,
     splits: [{split, protocol: {fingerprint, and the fields of Protocol}, videos, decoded, failed: [path, ..],
               plain, modulated: {top1, top5, top1_failures_wrong, top5_failures_wrong},
               half_classes: {plain, modulated: {top1, top1_std}},
               per_video: [{video, label, plain, modulated: the five best labels, best first}, ..]}, ..]}
"""
import hashlib
import json
import shutil
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.tensors import flat, seeds

import eval as evaluation
import mote.scoring.evaluate
import train
from mote import load_model
from mote.clip_backbone import Pixels, class_embeddings, clip_config, load_clip, text_hash
from mote.data import TestViews, TrainingClips
from mote.datasets.dataset import Dataset, open_dataset
from mote.datasets.lists import read_classes, read_list
from mote.model import MoTE, cosine, video_embedding
from mote.runtime.checkpoints import save_checkpoint
from mote.runtime.ranks import Ranks
from mote.scoring.evaluate import (
    describe,
    evaluate,
    half_class_scores,
    over_splits,
    scores,
    view_cosines,
)
from mote.scoring.protocols import Protocol, digest, protocol_of
from mote.temporal_experts import TemporalTransformer

ALONE = Ranks(0, 1, torch.device("cpu"))
TEMPLATES = ["a video of {}."]
K600 = {"1": range(0, 16), "2": range(8, 26), "3": range(20, 40)}             # toyworld-novel's classes of each split


@pytest.fixture(scope="module")
def clip():
    return load_clip("toyworld", "toyworld")


@pytest.fixture(scope="module")
def checkpoint(world, clip, tmp_path_factory):
    """A head of noise, so that modulation changes answers; toyworld's classes are those of fine-tuning."""
    names = read_classes(world / "toyworld" / "classes.csv")
    torch.manual_seed(0)
    head = TemporalTransformer(64, 1, 2)
    for parameter in head.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    model = MoTE(clip[0].visual, head, class_embeddings(*clip, names, TEMPLATES), clip[0].logit_scale,
                 clip[0].pixels)
    file = tmp_path_factory.mktemp("checkpoint") / "noise.pt"
    save_checkpoint(file, {
        "model": model.state_dict(), "classes": names, "templates": TEMPLATES, "step": 0, "frames": 4,
        "text_hash": text_hash(clip[0]), "clip": {
            "backbone": "toyworld", "pretrained": "toyworld", "config": clip_config("toyworld"),
            **asdict(clip[0].pixels)}})
    return file


@pytest.fixture(scope="module")
def k600(world, tmp_path_factory):
    """Three official splits that name their classes each for itself, as the authors' lists of K600 do."""
    folder = tmp_path_factory.mktemp("sets") / "k600"
    folder.mkdir()
    videos, names = read_list(world / "toyworld-novel" / "val.txt", world / "toyworld-novel",
                              read_classes(world / "toyworld-novel" / "classes.csv"))
    for n, classes in K600.items():
        lines = [f"{path} {classes.index(label)}\n" for path, label in videos if label in classes]
        (folder / f"k160_test_split{n}.txt").write_text("".join(lines))
        (folder / f"k160_labels_split{n}.csv").write_text(
            "id,name\n" + "".join(f"{i},{names[label]}\n" for i, label in enumerate(classes)))
    return folder


@pytest.fixture(scope="module")
def novel(world, clip):
    """toyworld-novel's 40 videos in another order, 5 of them broken, and the embeddings of its classes."""
    data = open_dataset("toyworld-novel", "val")
    videos, names = data.videos, data.classes
    videos = [videos[i] for i in np.random.default_rng(0).permutation(40)]
    for i in (0, 3, 4, 11, 39):
        videos[i] = (f"nowhere/{i}.mp4", videos[i][1])
    return videos, class_embeddings(*clip, names, TEMPLATES)


def plan(videos, classes=40, frames=4, **views):
    return Protocol("some", "", len(videos), len(videos), "a", classes, "b", 1, "c", frames, resize=40, **views)


def by_hand(model, videos, classes_ND, **flags):
    """Cosines without and with modulation, (n, 2, N), one video and one view at a time."""
    def cosines(sample):
        view = model.normalise(sample["frames"][sample["places"]])
        return torch.stack([model(view, classes_ND, modulate=m)[0] for m in (False, True)])
    with torch.no_grad():
        return torch.stack([cosines(sample) for sample in TestViews(videos, 4, 40)])


# --- scores ----------------------------------------------------------------------------------------------------------
def test_scores_of_five_videos_by_hand():
    best = torch.tensor([[2, 0, 1], [1, 2, 0], [0, 1, 2], [0, 2, 3], [1, 0, 3]])
    labels, decoded = torch.tensor([2, 0, 0, 1, 3]), torch.tensor([True, True, False, True, True])
    # first: best; second: third best; third: best, but not decoded; fourth: not among them; fifth: third best
    assert scores(best, labels, decoded) == {"top1": 25, "top5": 75, "top1_failures_wrong": 20,
                                             "top5_failures_wrong": 60}


@pytest.mark.parametrize("n", [0, 3])
def test_without_one_decoded_video_every_score_is_zero(n):
    none = scores(torch.zeros(n, 1, dtype=torch.long), torch.zeros(n, dtype=torch.long), torch.zeros(n) > 0)
    assert list(none.values()) == [0, 0, 0, 0]


def test_half_class_scores_of_four_classes_by_hand():
    # the draws: 23 23 23 13 01 01 03 12 12 13; the video of class 0 is right in 01 01, wrong in 03; that of class 3 is
    # right in 23 23 23 03, wrong in 13 13; 12 12 have neither. In halves, per draw: 2 2 2 0 2 2 1 - - 0
    cosines = torch.tensor([[0.3, 0.1, 0.2, 0.4], [0.1, 0.9, 0.2, 0.5]])
    expected = {"top1": 100 * 11 / 16, "top1_std": 50 * (21 / 8 - (11 / 8)**2)**0.5}
    assert half_class_scores(cosines, torch.tensor([0, 3])) == pytest.approx(expected)


@given(seeds, st.integers(2, 9), st.integers(1, 12))
def test_half_class_scores_equal_a_loop(seed, N, B):
    generator = torch.Generator().manual_seed(seed)
    cosines, labels = torch.randn(B, N, generator=generator), torch.randint(N, (B,), generator=generator)
    accuracies = []
    for draw in range(10):
        kept = np.random.RandomState(draw).permutation(N)[:N // 2].tolist()
        inside = [b for b in range(B) if labels[b] in kept]
        right = [max(kept, key=lambda c, b=b: cosines[b, c].item()) == labels[b] for b in inside]
        accuracies += [100 * sum(right) / len(right)] if right else []
    expected = {"top1": np.mean(accuracies), "top1_std": np.std(accuracies)} if accuracies else {}
    assert half_class_scores(cosines, labels) == pytest.approx(expected)


def test_half_class_scores_are_empty_where_nothing_can_be_drawn():
    assert half_class_scores(torch.ones(2, 1), torch.tensor([0, 0])) == {}
    assert half_class_scores(torch.ones(0, 4), torch.tensor([], dtype=torch.long)) == {}


def test_over_splits_by_hand():
    def split(top1, top5):
        one = {"top1": top1, "top5": top5, "top1_failures_wrong": top1 / 2, "top5_failures_wrong": top5 / 2}
        return {"plain": one, "modulated": {key: value + 1 for key, value in one.items()}, "videos": 7}
    means = over_splits([split(70.0, 90.0), split(73.0, 90.0), split(76.0, 96.0)])
    std = {"top1_std": 6**0.5, "top5_std": 8**0.5}
    assert means["plain"] == pytest.approx(
        {"top1": 73, "top5": 92, "top1_failures_wrong": 36.5, "top5_failures_wrong": 46, **std})
    assert means["modulated"] == pytest.approx(
        {"top1": 74, "top5": 93, "top1_failures_wrong": 37.5, "top5_failures_wrong": 47, **std})
    assert list(means) == ["plain", "modulated"] and over_splits([split(70.0, 90.0)])["plain"]["top1_std"] == 0


# --- evaluate --------------------------------------------------------------------------------------------------------
def test_views_are_averaged_as_cosines_each_with_its_own_rho(checkpoint, clip):
    torch.manual_seed(0)
    model, classes = load_model(checkpoint), torch.nn.functional.normalize(torch.randn(6, 64), dim=-1)
    frames = torch.randint(256, (2, 3, 4, 3, 40, 40), dtype=torch.uint8)
    expected, rhos = torch.zeros(2, 2, 6), []
    for b in range(2):
        for v in range(3):
            e = model.frame_features(model.normalise(frames[b, v][None]))
            rhos.append(model.modulation(e, classes, 2, 0.5))
            for i, rho in enumerate((1, rhos[-1])):
                expected[i, b] += cosine(video_embedding(e, model.temporal_features(e), rho), classes)[0] / 3
    torch.testing.assert_close(torch.stack(view_cosines(model, *flat(frames), classes, 2, 0.5)), expected)
    assert len({round(rho.item(), 6) for rho in rhos}) > 1


@pytest.mark.parametrize("batch, workers", [(1, 0), (7, 0), (64, 1)])
def test_each_videos_best_labels_stand_in_the_order_of_the_list(checkpoint, novel, batch, workers):
    videos, classes = novel
    model = load_model(checkpoint)
    result = evaluate(model, videos, classes, ALONE, plan(videos), batch, workers)
    best = by_hand(model, videos, classes).topk(5, dim=2).indices.tolist()
    assert len(result["per_video"]) == 40
    for i, ((path, label), one) in enumerate(zip(videos, result["per_video"])):
        there = "nowhere" not in path
        assert one == {"video": "/".join(path.split("/")[-2:]), "label": label,
                       "plain": best[i][0] * there, "modulated": best[i][1] * there}
    assert any(plain != modulated for plain, modulated in best)
    assert (result["videos"], result["decoded"]) == (40, 35)
    assert result["failed"] == [videos[i][0] for i in (0, 3, 4, 11, 39)]


def test_scores_are_those_of_the_per_video_results_also_where_classes_tie(checkpoint, novel):
    videos, classes = novel
    model, twice = load_model(checkpoint), torch.cat([classes, classes])      # each class ties with its copy
    result = evaluate(model, videos, twice, ALONE, plan(videos, 80))
    for name in ("plain", "modulated"):
        rows = [(one[name], one["label"]) for one in result["per_video"] if one[name]]
        right = sum(best[0] == label for best, label in rows), sum(label in best for best, label in rows)
        assert len(rows) == 35 and all(len(set(best)) == 5 for best, _ in rows)
        assert list(result[name].values()) == pytest.approx([100 * n / of for of in (35, 40) for n in right])
    cosines, decoded = by_hand(model, videos, twice), torch.tensor(["nowhere" not in path for path, _ in videos])
    labels = torch.tensor([label for _, label in videos])
    for i, name in enumerate(("plain", "modulated")):            # half classes: of the decoded videos alone
        assert result["half_classes"][name] == pytest.approx(half_class_scores(cosines[decoded, i], labels[decoded]))


def test_with_fewer_than_five_classes_all_of_them_are_the_best(checkpoint, novel):
    videos = [(path, label % 3) for path, label in novel[0]]
    result = evaluate(load_model(checkpoint), videos, novel[1][:3], ALONE, plan(videos, 3))
    assert result["plain"]["top5"] == 100 and result["plain"]["top5_failures_wrong"] == pytest.approx(100 * 35 / 40)
    assert all(sorted(one["plain"]) in ([0, 1, 2], []) for one in result["per_video"])


def test_evaluate_does_what_the_protocol_says(checkpoint, novel, monkeypatch):
    seen, made = [], []

    def spy(model, frames, places, classes_ND, k, gamma):
        seen.append((tuple(places.shape), k, gamma, torch.is_autocast_enabled("cpu"), torch.is_grad_enabled(),
                     model.training))
        return torch.zeros(len(places), 40), torch.zeros(len(places), 40)
    monkeypatch.setattr(mote.scoring.evaluate, "view_cosines", spy)
    monkeypatch.setattr(mote.scoring.evaluate, "TestViews", lambda *args: made.append(args) or TestViews(*args))
    videos, model = novel[0][:4], load_model(checkpoint)
    model.pixels = Pixels(interpolation="bilinear")
    for precision, batch in (("fp32", 12), ("bf16", 5)):          # 6 views a video: 2 videos at a time, then 1, never 0
        p = Protocol("some", "", 4, 4, "a", 40, "b", 1, "c", 3, 2, 3, 48, 7, 0.25, precision, interpolation="bilinear")
        result = evaluate(model.train(), videos, novel[1], ALONE, p, batch)
        assert result["protocol"] == p.as_json()
    assert seen == [((n, 6, 3), 7, 0.25, n == 1, False, False) for n in (2, 2, 1, 1, 1, 1)]
    assert [args[:6] + args[7:] for args in made] == [(videos, 3, 40, 48, 2, 3, "shortest", "bilinear")] * 2


@pytest.mark.parametrize("other, said", [
    ({"mean": (0.5, 0.4, 0.3)}, "mean 0.5 0.4 0.3"), ({"std": (0.5, 0.4, 0.3)}, "std 0.5 0.4 0.3"),
    ({"resize_mode": "squash"}, "squashed to 40"), ({"interpolation": "bilinear"}, "bilinear"),
])
def test_a_protocol_of_other_frames_than_the_models_gives_no_score(checkpoint, novel, other, said):
    """It would stand beside a number that it does not describe."""
    with pytest.raises(ValueError, match=f"protocol has frames with .*{said}.*, the model's are made with short side "):
        evaluate(load_model(checkpoint), novel[0][:4], novel[1], ALONE, replace(plan(novel[0][:4]), **other))


# --- what is printed -------------------------------------------------------------------------------------------------
def a_result(failed=0):
    p, one = plan(range(50)), {"top1": 12.345, "top5": 50.0, "top1_failures_wrong": 6.0, "top5_failures_wrong": 25.0}
    return p, {"protocol": p.as_json(), "videos": 50, "decoded": 50 - failed,
               "failed": [f"v{i}.mp4" for i in range(failed)], "plain": one, "modulated": {**one, "top1": 99.0},
               "half_classes": {"plain": {"top1": 80.5, "top1_std": 1.25}, "modulated": {}}}


def test_a_result_prints_as_its_protocol_and_its_scores():
    p, result = a_result()
    lines = ["without modulation   top-1  12.35   top-5  50.00", "with modulation      top-1  99.00   top-5  50.00"]
    assert describe(result).split("\n") == [*str(p).split("\n"), *lines]
    lines[0] += "   half of the classes, 10 draws: top-1 80.50 +- 1.25"            # {}: nothing could be drawn
    assert describe(result, half_classes=True).split("\n") == [*str(p).split("\n"), *lines]


def test_failed_videos_are_counted_and_the_first_twenty_named_once():
    few, many = (describe(a_result(n)[1]).split("\n") for n in (20, 21))
    assert few[2] == "20 of 50 videos could not be decoded: " + ", ".join(f"v{i}.mp4" for i in range(20))
    assert many[2] == few[2].replace("20 of", "21 of") + ", ..."
    assert few[3].endswith("50.00   (30 decoded; the failures counted as wrong: top-1 6.00, top-5 25.00)")
    assert few[4].count("failures counted as wrong") == 1 and len(few) == 5


# --- eval.py ---------------------------------------------------------------------------------------------------------
def run(checkpoint, k600, *flags):
    return evaluation.main(["--checkpoint", str(checkpoint), "--data-root", str(k600), "--workers", "0", *flags])


@pytest.fixture(scope="module")
def splits(checkpoint, k600, tmp_path_factory):
    """All three splits at once: what eval.py returned and what it wrote."""
    file = tmp_path_factory.mktemp("json") / "all.json"
    return run(checkpoint, k600, "--split", "all", "--json", str(file)), json.loads(file.read_text())


def test_json_is_what_is_returned_in_the_schema_above(splits, checkpoint, k600):
    result, written = splits
    assert written == result and list(result) == ["data", "checkpoint", "plain", "modulated", "splits"]
    four = ["top1", "top5", "top1_failures_wrong", "top5_failures_wrong"]
    assert result["data"] == "k600" and result["checkpoint"] == str(checkpoint)
    for name in ("plain", "modulated"):
        assert list(result[name]) == [*four, "top1_std", "top5_std"]
    for n, one in zip("123", result["splits"]):
        assert list(one) == ["split", "protocol", "videos", "decoded", "failed", "plain", "modulated", "half_classes",
                             "per_video"]
        assert one["split"] == one["protocol"]["split"] == n and one["failed"] == []
        assert one["protocol"]["checkpoint"] == hashlib.sha256(checkpoint.read_bytes()).hexdigest()[:8]
        assert all(list(one[name]) == four and list(one["half_classes"][name]) == ["top1", "top1_std"]
                   for name in ("plain", "modulated"))


def test_each_split_is_scored_against_its_own_names_and_they_are_averaged(splits, checkpoint, k600, clip):
    model, means = load_model(checkpoint), []
    for n, one in zip("123", splits[0]["splits"]):
        names = read_classes(k600 / f"k160_labels_split{n}.csv")
        videos, _ = read_list(k600 / f"k160_test_split{n}.txt", k600, names)
        assert one["videos"] == one["protocol"]["videos"] == one["protocol"]["classes"] == len(names) == len(K600[n])
        best = by_hand(model, videos, class_embeddings(*clip, names, TEMPLATES)).topk(5, dim=2).indices.tolist()
        assert [[v["plain"], v["modulated"]] for v in one["per_video"]] == best
        means.append([100 * np.mean([b[i][0] == label for b, (_, label) in zip(best, videos)]) for i in (0, 1)])
    assert len({one["protocol"]["fingerprint"] for one in splits[0]["splits"]}) == 3
    for i, name in enumerate(("plain", "modulated")):
        column = [mean[i] for mean in means]
        assert len(set(column)) > 1 and splits[0][name]["top1"] == pytest.approx(sum(column) / 3)
        assert splits[0][name]["top1_std"] == pytest.approx((sum((x - sum(column) / 3)**2 for x in column) / 3)**0.5)


def test_all_splits_are_three_runs_of_one(splits, checkpoint, k600, capsys):
    alone = [run(checkpoint, k600, "--split", n) for n in "123"]
    assert [one["splits"] for one in alone] == [[one] for one in splits[0]["splits"]]
    for name in ("plain", "modulated"):
        for key in ("top1", "top5"):
            numbers = [one[name][key] for one in alone]
            assert splits[0][name][key] == np.mean(numbers) and splits[0][name][f"{key}_std"] == np.std(numbers)
    printed = capsys.readouterr().out
    assert "k600, split 3: 20 videos" in printed and "the paper's has 14874" in printed
    assert "half of the classes" not in printed and "mean and standard deviation" not in printed


def test_all_splits_end_with_their_mean_and_half_classes_are_printed_where_asked(checkpoint, k600, capsys):
    result = run(checkpoint, k600, "--split", "all", "--half-classes")
    lines = capsys.readouterr().out.splitlines()
    assert "\n".join(lines[:-3]) == "\n".join(describe(one, True) for one in result["splits"])
    assert lines[-3] == "k600, mean and standard deviation of 3 splits:"
    assert lines[-1] == ("with modulation      top-1 {top1:6.2f} +- {top1_std:.2f}   top-5 {top5:6.2f} +- "
                         "{top5_std:.2f}".format(**result["modulated"]))
    assert "\n".join(lines).count("half of the classes, 10 draws: top-1") == 6


def test_mixed_names_join_the_labels_stay_and_the_task_gets_harder(splits, checkpoint, k600, clip, world):
    result = run(checkpoint, k600, "--mix-names", "toyworld, toyworld-novel", "--split", "1")
    own = read_classes(k600 / "k160_labels_split1.csv")
    trained, novel = (read_classes(world / name / "classes.csv") for name in ("toyworld", "toyworld-novel"))
    names = own + trained + [name for name in novel if name not in own]       # 16 + 40 + 24
    one, before = result["splits"][0], splits[0]["splits"][0]
    assert one["protocol"]["classes"] == 80 and one["protocol"]["class_names"] == digest(names)
    assert one["protocol"]["list"] == before["protocol"]["list"]
    assert one["protocol"]["fingerprint"] != before["protocol"]["fingerprint"]
    videos, _ = read_list(k600 / "k160_test_split1.txt", k600, own)
    best = by_hand(load_model(checkpoint), videos, class_embeddings(*clip, names, TEMPLATES)).topk(5, dim=2).indices
    assert [[v["plain"], v["modulated"]] for v in one["per_video"]] == best.tolist()
    assert [v["label"] for v in one["per_video"]] == [v["label"] for v in before["per_video"]]
    assert result["plain"]["top1"] <= before["plain"]["top1"] and result["plain"]["top5"] < before["plain"]["top5"]


@pytest.mark.parametrize("flags, expected", [(["--split", "4"], "no val list of split 4"),
                                             (["--mix-names", "nothing"], "dataset nothing: no folder at")])
def test_a_split_or_a_set_that_is_not_there_is_one_line(checkpoint, k600, capsys, flags, expected):
    with pytest.raises(SystemExit) as stopped:
        run(checkpoint, k600, *flags)
    error = capsys.readouterr().err.strip().splitlines()
    assert stopped.value.code == 2 and len(error) == 1 and expected in error[0]


def test_a_copy_elsewhere_re_encoded_and_in_part_has_the_same_fingerprint(k600, tmp_path):
    videos, names = read_list(k600 / "k160_test_split1.txt", k600, read_classes(k600 / "k160_labels_split1.csv"))
    copy = [(str(tmp_path / f"{path.rpartition('/')[2][:-4]}.avi"), label) for path, label in reversed(videos)]
    for (path, _), (target, _) in list(zip(reversed(videos), copy))[:11]:
        shutil.copy(path, target)
    one, other = (protocol_of(Dataset("k600", v, names, "1"), TEMPLATES, frames=4) for v in (videos, copy))
    assert (one.found, other.found) == (16, 11) and one.fingerprint == other.fingerprint


# --- train.py --shots ------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def shapes(world, tmp_path_factory):
    """toyworld's 80 training videos in 5 classes of 16, one for each shape, and 5 to test on."""
    folder = tmp_path_factory.mktemp("shapes")
    for split, keep in (("train", 1), ("val", 8)):
        rows = (line.split() for line in (world / "toyworld" / f"{split}.txt").read_text().splitlines()[::keep])
        (folder / f"{split}.txt").write_text(
            "".join(f"{world / 'toyworld' / path} {int(label) // 8}\n" for path, label in rows))
    (folder / "classes.csv").write_text("".join(f"{i},{shape}\n" for i, shape in enumerate(
        ("circle", "square", "triangle", "star", "cross"))))
    return folder


def few_shot_run(shapes, out, *flags):
    train.main(["--data-root", str(shapes), "--backbone", "toyworld", "--pretrained", "toyworld", "--layers", "1",
                "--epochs", "1", "--batch", "20", "--frames", "2", "--threads", "1", "--workers", "0",
                "--out", str(out), *flags])
    return (out / "train.txt").read_text().splitlines()


def test_a_few_shot_run_trains_on_its_draw_alone_for_as_many_steps_as_the_full_list(shapes, tmp_path, monkeypatch,
                                                                                    capsys):
    seen = []
    monkeypatch.setattr(train, "TrainingClips", lambda videos, *rest: seen.append(videos) or TrainingClips(videos,
                                                                                                           *rest))
    kept = few_shot_run(shapes, tmp_path / "a", "--shots", "2")
    assert "videos repeated to 80, 5 classes, 4 steps per epoch" in capsys.readouterr().out
    assert torch.load(tmp_path / "a" / "last.pt", weights_only=True)["step"] == 4
    assert set(kept) <= set((shapes / "train.txt").read_text().splitlines())
    assert sorted(int(line.split()[-1]) for line in kept) == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4] and len(set(kept)) == 10
    assert [f"{path} {label}" for path, label in seen[0]] == kept * 8
    assert few_shot_run(shapes, tmp_path / "b", "--shots", "2") == kept
    assert few_shot_run(shapes, tmp_path / "c", "--shots", "2", "--seed", "1") != kept


def test_more_shots_than_there_are_videos_is_one_line(shapes, tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        few_shot_run(shapes, tmp_path / "run", "--shots", "17")
    error = capsys.readouterr().err.strip().splitlines()
    assert stopped.value.code == 2 and len(error) == 1
    assert "--shots 17: class 0 has only 16 training videos" in error[0]
