"""
tools/check.py: each defect, planted by itself, is found and named, and nothing else is; clean datasets stay clean.

On miniature datasets in the layouts of UCF-101, HMDB-51 and Kinetics, with videos generated here (and real ones where
$MOTE_TEST_VIDEOS names a folder); on all class names of HMDB-51 and UCF-101, with file names like theirs. Decoders that
die or hang are put in the place of mote.data.decode.
"""
import itertools
import json
import multiprocessing
import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchcodec.encoders import VideoEncoder

import train
from mote.data import Undecodable, decode
from mote.datasets.folders import class_name
from mote.datasets.lists import read_split
from tools import check
from tools.checks import lists as check_lists
from tools.checks import videos as check_videos

ROOT = Path(__file__).parents[2]
HMDB = """brush_hair cartwheel catch chew clap climb climb_stairs dive draw_sword dribble drink eat fall_floor fencing
flic_flac golf handstand hit hug jump kick kick_ball kiss laugh pick pour pullup punch push pushup ride_bike ride_horse
run shake_hands shoot_ball shoot_bow shoot_gun sit situp smile smoke somersault stand swing_baseball sword
sword_exercise talk throw turn walk wave""".split()
UCF = """ApplyEyeMakeup ApplyLipstick Archery BabyCrawling BalanceBeam BandMarching BaseballPitch Basketball
BasketballDunk BenchPress Biking Billiards BlowDryHair BlowingCandles BodyWeightSquats Bowling BoxingPunchingBag
BoxingSpeedBag BreastStroke BrushingTeeth CleanAndJerk CliffDiving CricketBowling CricketShot CuttingInKitchen Diving
Drumming Fencing FieldHockeyPenalty FloorGymnastics FrisbeeCatch FrontCrawl GolfSwing Haircut Hammering HammerThrow
HandstandPushups HandstandWalking HeadMassage HighJump HorseRace HorseRiding HulaHoop IceDancing JavelinThrow
JugglingBalls JumpingJack JumpRope Kayaking Knitting LongJump Lunges MilitaryParade Mixing MoppingFloor Nunchucks
ParallelBars PizzaTossing PlayingCello PlayingDaf PlayingDhol PlayingFlute PlayingGuitar PlayingPiano PlayingSitar
PlayingTabla PlayingViolin PoleVault PommelHorse PullUps Punch PushUps Rafting RockClimbingIndoor RopeClimbing Rowing
SalsaSpin ShavingBeard Shotput SkateBoarding Skiing Skijet SkyDiving SoccerJuggling SoccerPenalty StillRings
SumoWrestling Surfing Swing TableTennisShot TaiChi TennisSwing ThrowDiscus TrampolineJumping Typing UnevenBars
VolleyballSpiking WalkingWithDog WallPushups WritingOnBoard YoYo""".split()


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """video(ending, number) -> a file of nine frames, other content for every number, made once."""
    folder = tmp_path_factory.mktemp("videos")

    def video(ending: str = ".mp4", number: int = 0, frames: int = 9) -> Path:
        path = folder / f"{number}-{frames}{ending}"
        if not path.exists():
            content = torch.randint(256, (frames, 3, 16, 16), generator=torch.Generator().manual_seed(number))
            VideoEncoder(content.to(torch.uint8), frame_rate=10).to_file(
                path, codec="mpeg4" if ending == ".avi" else "libx264", extra_options={"threads": 1})
        return path
    return video


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def fill(folder: Path, paths: list[str], video) -> None:
    for number, path in enumerate(paths):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(video(Path(path).suffix, number), folder / path)


def ucf(folder: Path, video) -> Path:
    """Two official splits in the lists of UCF-101's authors."""
    names = ["ApplyEyeMakeup", "HandstandPushups", "PushUps"]
    paths = [f"{name}/v_{name.replace('stand', 'Stand')}_g{group:02d}_c01.avi" for name in names for group in range(4)]
    fill(folder, paths, video)
    write(folder / "ucfTrainTestlist/classInd.txt", "".join(f"{i} {name}\n" for i, name in enumerate(names, 1)))
    for n, test in ((1, "g00"), (2, "g01")):
        write(folder / f"ucfTrainTestlist/testlist0{n}.txt", "".join(f"{p}\n" for p in paths if test in p))
        write(folder / f"ucfTrainTestlist/trainlist0{n}.txt", "".join(
            f"{p} {names.index(p.partition('/')[0]) + 1}\n" for p in paths if test not in p))
    return folder


def hmdb(folder: Path, video) -> Path:
    """All videos in one folder, lists `path label` and a class file, as the peers keep HMDB-51."""
    names = ["catch", "kick", "kick ball", "sword", "sword exercise"]
    paths = [f"videos/Movie_{'abcd'[i]}_{name.replace(' ', '_')}_f_cm_np1_ba_med_{i}.avi"
             for name in names for i in range(4)]
    fill(folder, paths, video)
    lines = [f"{path} {label // 4}\n" for label, path in enumerate(paths)]
    write(folder / "train.txt", "".join(line for line in lines if "_d_" not in line))
    write(folder / "val.txt", "".join(line for line in lines if "_d_" in line))
    write(folder / "classes.csv", "id,name\n" + "".join(f"{i},{name}\n" for i, name in enumerate(names)))
    return folder


def kinetics(folder: Path, video) -> Path:
    """train/CLASS/ID.mp4, ids that hold a class by chance; and numbers that start anew in each folder."""
    names = ["playing guitar", "kick", "walking the dog"]
    fill(folder, [f"train/{name}/{stem}.mp4" for name in names for stem in ("1", "clip_2", f"{name[:3]}-kick_3X_0010")]
         + [f"val/{name}/{stem}.mp4" for name in names for stem in ("1", f"{name[:3]}Yv_q")], video)
    return folder


LAYOUTS = {"ucf": ucf, "hmdb": hmdb, "kinetics": kinetics}


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """run(*arguments) -> exit status, findings, what was printed. On tmp_path/data, into tmp_path/out."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str):
        status = check.main(["--data-root", "data", "--out", "out", "--jobs", "2", *arguments])
        return status, json.loads(Path("out/findings.json").read_text())["findings"], capsys.readouterr().out
    return run


def kinds(findings: list[dict]) -> list[str]:
    return sorted(finding["kind"] for finding in findings)


def good_list(split: str, number: str = "") -> tuple[list, list]:
    """As `train.py --data-root . --train-list out/train.txt` reads it."""
    videos, classes = read_split(Path("."), split, f"out/{split}{number}.txt", f"out/classes{number}.csv")
    return [(os.path.normpath(path), label) for path, label in videos], classes


# --- clean ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("depth", check_videos.DEPTHS)
def test_a_clean_dataset_has_no_findings_and_its_good_lists_are_its_own(tmp_path, run, videos, layout, depth):
    LAYOUTS[layout](tmp_path / "data", videos)
    status, findings, printed = run("--decode", depth)
    assert (status, findings) == (0, [])
    assert "nothing found" in printed
    for split, number in itertools.product(("train", "val"), "12" if layout == "ucf" else [""]):
        assert good_list(split, number) == read_split(Path("data"), split, split=number)


@pytest.mark.parametrize("arguments", [("--split", "2"), ("--list", "data/ucfTrainTestlist/testlist02.txt")])
def test_one_split_or_one_list_alone_is_checked(tmp_path, run, videos, arguments):
    ucf(tmp_path / "data", videos)
    (tmp_path / "data/ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi").unlink()
    assert kinds(run(*arguments)[1]) == ["missing"]
    (tmp_path / "data/ucfTrainTestlist/testlist01.txt").write_text("PushUps/nowhere.avi\n" * 2)
    assert kinds(run(*arguments)[1]) == ["missing"]


def test_without_train_lists_the_test_set_is_checked(tmp_path, run, videos):
    hmdb(tmp_path / "data", videos)
    (tmp_path / "data/train.txt").unlink()
    assert run()[:2] == (0, [])
    assert not (tmp_path / "out/train.txt").exists()


# --- lists and names --------------------------------------------------------------------------------------------------
def edit(file: Path, old: str, new: str, count: int = 1) -> None:
    text = file.read_text()
    assert text.count(old) >= 1, f"nothing to plant: {old} in {file}"
    file.write_text(text.replace(old, new, count))


FIRST = "videos/Movie_a_catch_f_cm_np1_ba_med_0.avi"
SECOND = "videos/Movie_b_catch_f_cm_np1_ba_med_1.avi"
LAST = "videos/Movie_d_catch_f_cm_np1_ba_med_3.avi"               # of the val list


def out_of_range(data):
    edit(data / "train.txt", f"{SECOND} 0", f"{SECOND} 5")


def no_videos(data):
    edit(data / "classes.csv", "4,sword exercise", "4,sword exercise\n5,wave")


def no_videos_in_train(data):
    write(data / "train.txt", "".join(f"{line}\n" for line in (data / "train.txt").read_text().splitlines()
                                      if line[-1] != "3"))


def one_name_twice(data):
    edit(data / "classes.csv", "0,catch", "0,Kick_Ball")


def two_names_swapped(data):
    edit(data / "classes.csv", "1,kick\n2,kick ball\n", "1,kick ball\n2,kick\n")


def names_from_another_number(data):
    write(data / "classes.csv", "0,wave\n1,catch\n2,kick\n3,kick ball\n4,sword\n5,sword exercise\n")


def one_label_wrong(data):
    edit(data / "train.txt", f"{FIRST} 0", f"{FIRST} 2")


def one_line_twice(data):
    edit(data / "train.txt", f"{FIRST} 0\n", f"{FIRST} 0\n" * 2)


def one_stem_twice(data):
    (data / "more").mkdir()
    (data / "more" / Path(FIRST).name).write_bytes((data / FIRST).read_bytes() + b"another size")
    edit(data / "train.txt", f"{FIRST} 0\n", f"{FIRST} 0\n{FIRST.replace('videos', 'more')} 0\n")


def one_content_twice(data):
    shutil.copy(data / FIRST, data / SECOND)


def one_path_with_two_labels(data):
    edit(data / "train.txt", f"{FIRST} 0\n", f"{FIRST} 0\n{FIRST} 1\n")


def one_path_in_train_and_val(data):
    edit(data / "train.txt", FIRST, LAST)


def one_stem_in_train_and_val(data):
    (data / "videos" / Path(FIRST).name).rename(data / Path(LAST).name)
    edit(data / "train.txt", FIRST, Path(LAST).name)


def one_content_in_train_and_val(data):
    shutil.copy(data / FIRST, data / LAST)


PLANTED = {       # what is done to `hmdb`, 15 and 5 videos -> kinds found, a part of what is said, what is left
    out_of_range: (["list refused"], "train.txt, line 2: label 5 is out of range 0..4", (0, 5)),
    no_videos: (["class without videos"], "label 5, 'wave'", (15, 5)),
    no_videos_in_train: (["class without videos"], "label 3, 'sword'", (12, 5)),
    one_name_twice: (["duplicate class name"], "labels 0 and 2: 'Kick_Ball' and 'kick ball'", (15, 5)),
    two_names_swapped: (["misnamed class"] * 2, "label 1 is 'kick ball', but its videos name 'kick', label 2 (the two "
                        "look swapped)", (15, 5)),
    names_from_another_number: (["class without videos", "misnamed class"], "5 labels seem shifted by -1", (15, 5)),
    one_label_wrong: (["misnamed video"], f"{FIRST} has label 2, 'kick ball', but names 'catch'", (15, 5)),
    one_line_twice: (["listed twice"], FIRST, (15, 5)),
    one_stem_twice: (["listed twice"], "(same name)", (15, 5)),
    one_content_twice: (["listed twice"], "(same content)", (14, 5)),
    one_path_with_two_labels: (["misnamed video", "two labels"], f"{FIRST}: labels 0, 1", (14, 5)),
    one_path_in_train_and_val: (["in train and val"], LAST, (14, 5)),
    one_stem_in_train_and_val: (["in train and val"], "(same name)", (14, 5)),
    one_content_in_train_and_val: (["in train and val"], "(same content)", (14, 5)),
}


def check_planted(plant, expected, text, lengths, data, run):
    """Found, named, with what to do; nothing else; and gone from the good lists."""
    plant(data)
    status, findings, printed = run()
    assert (status, kinds(findings)) == (1, expected), findings
    assert any(text in finding["what"] for finding in findings), findings
    assert text in printed
    for kind in expected:
        assert f"x {kind}: {check.KINDS[kind]}\n" in printed
    for split, length in zip(("train", "val"), lengths):
        assert (len(good_list(split)[0]) if Path(f"out/{split}.txt").exists() else 0) == length
    if plant not in (out_of_range, no_videos, no_videos_in_train, one_name_twice, two_names_swapped,
                     names_from_another_number, one_label_wrong):
        write_good = ["--list", "out/train.txt", "--class-names", "out/classes.csv"]
        assert check.main(["--data-root", ".", "--out", "again", "--jobs", "1", *write_good]) == 0


@pytest.mark.parametrize("plant", PLANTED, ids=lambda plant: plant.__name__)
def test_a_defect_of_the_lists_is_named_and_nothing_else(tmp_path, run, videos, plant):
    check_planted(plant, *PLANTED[plant], hmdb(tmp_path / "data", videos), run)


@pytest.mark.parametrize("names,what", [(["hug", "wave"], "label 1 is 'kick' in train2, 'wave' in val2"),
                                        (["hug"], "2 and 1 classes")])
def test_train_and_val_must_have_the_same_classes(names, what):
    train, val = [("x/1.mp4", 0), ("x/2.mp4", 1)], [("y/1.mp4", label) for label in range(len(names))]
    lists, findings = {"train2": (train, ["hug", "kick"]), "val2": (val, names)}, check_lists.Findings()
    notes = check_lists.check_labels(lists, findings)
    assert [(f["kind"], f["what"], f["lists"]) for f in findings.values()] == [
        ("classes differ", what, ["train2", "val2"])]
    assert notes[0] == "train2: no evidence in the file names for 2 of 2 classes"


@pytest.mark.parametrize("sides", [True, False])
def test_files_that_class_folders_leave_out_are_counted_and_three_are_named(tmp_path, run, videos, sides):
    folders = ["data/train/catch", "data/val/catch"] if sides else ["data/catch"]
    for n, folder in enumerate(folders):
        fill(tmp_path / folder, [f"{n}a.mp4", f"{n}b.mp4"], lambda ending, number, n=n: videos(ending, 2 * n + number))
    others = [f"{folders[-1]}/{name}" for name in ("a.MTS", "c.VOB", "d.ogv", "e.gif")]
    for name in others:
        write(tmp_path / name, "x")
    status, findings, printed = run()
    what = f"4 files of other endings are not read: {', '.join(others[:3])}, ..."
    assert (status, [(entry["kind"], entry["what"]) for entry in findings]) == (1, [("other ending", what)])
    assert printed.count(what) == 1 and f"1 x other ending: {check.KINDS['other ending']}" in printed


@pytest.mark.parametrize("sides", [True, False])
def test_videos_below_or_beside_class_folders_are_counted_and_named(tmp_path, run, videos, sides):
    folders = ["data/train/catch", "data/val/catch"] if sides else ["data/catch"]
    for n, folder in enumerate(folders):
        fill(tmp_path / folder, [f"{n}a.mp4", f"{n}b.mp4"], lambda ending, number, n=n: videos(ending, 2 * n + number))
    beside = f"{Path(folders[-1]).parent}/z.mp4"
    below = f"{folders[-1]}/phone/x.mp4"
    for name in (beside, below, f"{folders[-1]}/phone/.hidden.mp4", f"{folders[-1]}/phone/notes.txt"):
        write(tmp_path / name, "x")
    status, findings, printed = run()
    what = f"2 videos are not read, since a class folder holds its videos itself: {', '.join(sorted((beside, below)))}"
    assert (status, [(entry["kind"], entry["what"]) for entry in findings]) == (1, [("misplaced", what)])
    assert printed.count(what) == 1


@pytest.mark.parametrize("sides", [True, False])
def test_what_to_do_about_class_folders_speaks_of_no_lines(tmp_path, run, videos, sides):
    """Two copies of one video, in the folders of two classes: there is no list, so no line to keep."""
    places = [f"data/train/{name}" if sides else f"data/{name}" for name in ("catch", "wave")]
    for n, place in enumerate(places):
        fill(tmp_path / place, ["1.mp4", "2.mp4", "3.mp4"], lambda ending, number, n=n: videos(ending, 3 * n + number))
    if sides:
        fill(tmp_path / "data/val/catch", ["4.mp4"], lambda ending, number: videos(ending, 9))
    shutil.copy(tmp_path / places[0] / "1.mp4", tmp_path / places[1] / "copy.mp4")
    status, findings, printed = run()
    assert status == 1 and "two labels" in kinds(findings)
    for kind in set(kinds(findings)):
        assert f"x {kind}: {check.KINDS_OF_FOLDERS[kind]}\n" in printed
    assert " line" not in printed and "in the list" not in printed


def test_a_class_folder_that_is_refused_is_no_line_to_correct(tmp_path, run, videos):
    fill(tmp_path / "data", ["train/catch/1.mp4", "val/catch/2.mp4"], videos)
    (tmp_path / "data/val/wave").mkdir()
    _, findings, printed = run()
    assert "list refused" in kinds(findings)
    assert f"x list refused: {check.KINDS_OF_FOLDERS['list refused']}\n" in printed


@pytest.mark.parametrize("name", ["data", "my videos", "it's"])
def test_the_printed_command_is_taken_by_the_shell_and_its_batch_fits(tmp_path, run, capsys, videos, name):
    """Fifteen videos for training are fewer than K400's batch, which train.py would refuse."""
    hmdb(tmp_path / name, videos)
    assert check.main(["--data-root", name, "--out", f"out of {name}", "--jobs", "1"]) == 0
    command = shlex.split(capsys.readouterr().out.splitlines()[-1])
    config = train.parse_config(command[2:])
    assert command[:2] == ["python", "train.py"] and (config.data, config.data_root, config.batch) == (name, ".", 15)
    for file in (config.train_list, config.val_list, config.class_names):
        assert Path(file).is_file() and Path(file).parent == Path(f"out of {name}")


def test_a_list_that_fills_a_batch_keeps_the_datasets_own():
    for data, own in (("mine", 144), ("toyworld", 32)):
        for length, words in ((own, []), (own - 1, ["--batch", "16"]), (3, ["--batch", "3"])):
            command = shlex.split(check.training_command(data, Path("out"), {"train2": length, "val2": 1}))
            assert command[12:] == words


def test_class_names_that_folders_say_are_noted(tmp_path, run, videos):
    fill(tmp_path / "data", [f"tying_knot_-not_on_a_tie-/{i}.mp4" for i in range(5)], videos)
    status, findings, printed = run()
    assert (status, findings) == (0, [])
    assert "'tying_knot_-not_on_a_tie-' says 'tying knot -not on a tie-'" in printed
    assert printed.count("no class file") == 1


def test_a_missing_video_names_the_file_that_was_not_taken_for_its_ending(tmp_path, run, videos):
    hmdb(tmp_path / "data", videos)
    (tmp_path / "data" / FIRST).rename((tmp_path / "data" / FIRST).with_suffix(".MTS"))
    _, findings, _ = run()
    assert [entry["what"] for entry in findings] == [
        f"data/{FIRST}, but there is data/{Path(FIRST).with_suffix('.MTS')}"]


def test_the_authors_lists_are_checked_for_the_dataset_of_that_name(tmp_path, run, videos):
    fill(tmp_path / "data", ["videos/a.mp4"], videos)
    for place in ("ucf101", "hmdb51"):
        write(tmp_path / f"data/lists/{place}/vallist_split1.txt", "a.mp4 0\n")
        write(tmp_path / f"data/lists/{place}/labels.csv", f"0,a class of {place}\n")
    assert run("--data", "hmdb51")[:2] == (0, [])
    assert good_list("val", "1")[1] == ["a class of hmdb51"]


# --- all names of HMDB-51 and UCF-101 ---------------------------------------------------------------------------------
def hmdb_paths(name: str, folder: bool) -> list[str]:
    return [f"hmdb51/{name if folder else 'all'}/{title}_{name}_f_cm_np1_ba_med_0.avi"
            for title in ("50_FIRST_DATES", "prelinger_HabitPat1954")]


def ucf_paths(name: str, folder: bool) -> list[str]:
    return [f"{name if folder else 'all'}/v_{name.replace('Handstand', 'HandStand')}_g{i:02d}_c01.avi" for i in (1, 2)]


NAMED = {"hmdb": (HMDB, hmdb_paths), "ucf": (UCF, ucf_paths)}


def labelled(dataset: str, folder: bool) -> tuple[list[tuple[str, int]], list[str]]:
    names, paths = NAMED[dataset]
    return [(path, i) for i, name in enumerate(names) for path in paths(name, folder)], [class_name(n) for n in names]


@pytest.mark.parametrize("folder", [True, False])
@pytest.mark.parametrize("dataset,count", [("hmdb", 51), ("ucf", 101)])
def test_the_names_of_hmdb51_and_ucf101_are_no_false_alarm(dataset, count, folder):
    videos, classes = labelled(dataset, folder)
    assert len(classes) == count
    assert check_lists.check_names(videos, classes) == ({}, [], set())


@pytest.mark.parametrize("dataset", NAMED)
def test_any_two_names_swapped_are_caught_and_no_other(dataset):
    """All 1275 pairs of HMDB-51; of UCF-101 those with a word in common, or next to each other."""
    videos, classes = labelled(dataset, False)
    pairs = [(a, b) for a, b in itertools.combinations(range(len(classes)), 2) if dataset == "hmdb" or a + 1 == b
             or set(classes[a].split()) & set(classes[b].split())]
    assert len(pairs) > 100
    for a, b in pairs:
        swapped = list(classes)
        swapped[a], swapped[b] = classes[b], classes[a]
        misnamed, single, _ = check_lists.check_names(videos, swapped)
        assert {label: named for label, (named, _) in misnamed.items()} == {a: b, b: a}, (classes[a], classes[b])
        assert not single


@given(st.data())
def test_one_wrong_label_is_caught_and_no_other(data):
    dataset, folder = data.draw(st.sampled_from(sorted(NAMED))), data.draw(st.booleans())
    videos, classes = labelled(dataset, folder)
    i = data.draw(st.integers(0, len(videos) - 1))
    path, right = videos[i]
    wrong = data.draw(st.integers(0, len(classes) - 1).filter(lambda label: label != right))
    videos[i] = path, wrong
    assert check_lists.check_names(videos, classes)[:2] == ({}, [(path, wrong, right)])


NO_EVIDENCE = {
    "numbers": (["0", "1"], [("x/1_0.mp4", 0), ("x/0_1.mp4", 1)]),
    "one folder that is called like a class": (["walk", "run"], [("walk/a.mp4", 0), ("walk/b.mp4", 1)]),
    "one title for all": (["walk", "run"], [("x/walk_1.mp4", 0), ("x/walk_2.mp4", 1)]),
    "part of a word": (["art", "run"], [("x/runner.mp4", 0), ("x/party.mp4", 1)]),
}


@pytest.mark.parametrize("names,videos", NO_EVIDENCE.values(), ids=NO_EVIDENCE)
def test_what_proves_nothing_is_no_evidence(names, videos):
    assert check_lists.check_names(videos, names) == ({}, [], {0, 1})


def test_folders_name_classes_where_stems_do_not():
    videos = [(f"{name}/{i}.mp4", label) for label, name in enumerate(("hug", "kick_ball", "wave")) for i in range(3)]
    misnamed, single, _ = check_lists.check_names(videos + [("hug/7.mp4", 2)], ["kick ball", "hug", "wave"])
    assert {label: named for label, (named, _) in misnamed.items()} == {0: 1, 1: 0}
    assert single == [("hug/7.mp4", 2, 1)]


def test_a_word_of_another_class_is_no_alarm_where_names_do_not_tell_classes():
    videos = [(f"x/{i}a{label}.mp4", label) for label in (0, 1) for i in range(4)]
    videos += [("x/kick_off.mp4", 0), ("x/hug_3.mp4", 1)]
    assert check_lists.check_names(videos, ["hug", "kick"])[:2] == ({}, [])


def test_a_title_with_a_word_of_another_class_is_no_alarm():
    videos = [(f"x/kick_{i}_hug_f.avi", 0) for i in range(3)] + [(f"x/hug_{i}_kick_f.avi", 1) for i in range(3)]
    assert check_lists.check_names(videos, ["hug", "kick"])[:2] == ({}, [])


# --- files ------------------------------------------------------------------------------------------------------------
def missing(data, video):
    (data / FIRST).unlink()


def missing_but_for_capitals(data, video):
    (data / FIRST).rename(data / FIRST.replace("catch", "Catch"))


def two_candidates(data, video):
    for ending in (".mp4", ".mkv"):
        shutil.copy(data / FIRST, (data / FIRST).with_suffix(ending))
    (data / FIRST).unlink()


def empty(data, video):
    (data / FIRST).write_bytes(b"")


def no_video(data, video):
    (data / FIRST).write_bytes(b"<html>404</html>")


def sound_with_a_cover(data, video):
    """An .mp4 whose only track is turned into one of sound, with a cover among its tags."""
    content = video(".mp4", 0).read_bytes().replace(b"vide", b"soun").replace(b"udta", b"covr")
    (data / FIRST).write_bytes(content)


def cut_off_avi(data, video):
    whole = video(".avi", 0, 40).read_bytes()
    (data / FIRST).write_bytes(whole[:len(whole) // 2])


def cut_off_mp4(data, video):
    (data / FIRST).write_bytes(video(".mp4", 0).read_bytes()[:-200])


def cut_off_mkv(data, video):
    whole = video(".mkv", 0, 40).read_bytes()
    (data / FIRST).with_suffix(".mkv").write_bytes(whole[:len(whole) // 2])
    (data / FIRST).unlink()


def cut_off_mkv_at_nine_tenths(data, video):
    whole = video(".mkv", 0, 40).read_bytes()
    (data / FIRST).with_suffix(".mkv").write_bytes(whole[:len(whole) * 9 // 10])
    (data / FIRST).unlink()


def cut_off_at_nine_tenths(data, video):
    whole = video(".avi", 0, 40).read_bytes()
    (data / FIRST).write_bytes(whole[:len(whole) * 9 // 10])


def short(data, video):
    shutil.copy(video(".avi", 0, 7), data / FIRST)


def an_empty_folder(data, video):
    (data / FIRST).unlink()
    (data / FIRST).mkdir()


FILES = {       # what is done to the first video of `hmdb` -> kind found, a part of what is said, what is left of train
    missing: ("missing", FIRST, 14),
    missing_but_for_capitals: ("missing", f"{FIRST}, but there is data/videos/Movie_a_Catch_f", 14),
    two_candidates: ("two candidates", f"{FIRST[:-4]}.mkv and data/{FIRST[:-4]}.mp4", 14),
    empty: ("empty file", FIRST, 14),
    no_video: ("not a video", f"{FIRST}: its bytes are of no known container, they begin with b'<html>404", 14),
    sound_with_a_cover: ("no video", f"{FIRST}: sound with a picture, no video", 14),
    cut_off_avi: ("fewer frames than claimed", f"{FIRST}: the header claims 40 frames, the file holds ", 14),
    cut_off_at_nine_tenths: ("fewer frames than claimed", f"{FIRST}: the header claims 40 frames, the file", 14),
    cut_off_mkv: ("fewer frames than claimed", f"{FIRST[:-4]}.mkv: the header claims 4.0 s, its ", 14),
    cut_off_mkv_at_nine_tenths: ("cut off", f"{FIRST[:-4]}.mkv: cut off: ", 14),
    cut_off_mp4: ("cut off", f"{FIRST}: cut off: ", 14),
    short: ("short video", f"{FIRST}: 7 frames", 15),
    an_empty_folder: ("undecodable", f"{FIRST}: a folder without", 14),
}


@pytest.mark.parametrize("plant", FILES, ids=lambda plant: plant.__name__)
def test_a_defect_of_a_file_is_named_and_nothing_else(tmp_path, run, videos, plant):
    kind, text, length = FILES[plant]
    plant(hmdb(tmp_path / "data", videos), videos)
    status, findings, printed = run()
    assert (status, kinds(findings)) == (1, [kind]), findings
    assert text in findings[0]["what"] and text in printed
    assert findings[0]["lists"] == ["train"]
    assert f"1 x {kind}: {check.KINDS[kind]}\n" in printed
    assert len(good_list("train")[0]) == length
    assert len(good_list("val")[0]) == 5


def test_an_absurd_size_is_flagged_and_not_decoded(tmp_path, run, videos, monkeypatch):
    hmdb(tmp_path / "data", videos)
    content = torch.zeros(9, 3, 32, 48, dtype=torch.uint8)
    VideoEncoder(content, frame_rate=10).to_file(tmp_path / "data" / FIRST, codec="mpeg4")
    monkeypatch.setattr(check_videos, "MAX_PIXELS", 47 * 32)
    monkeypatch.setattr(check_videos, "decode", lambda path, choose: os._exit(1) if FIRST in path else
                        decode(path, choose))
    _, findings, _ = run()
    assert [(f["kind"], f["what"]) for f in findings] == [("absurd size", f"data/{FIRST}: 48 x 32 pixels")]


@pytest.mark.parametrize("depth,found", [("first", None), ("some", 8), ("all", 5)])
def test_frames_that_do_not_decode_are_found_as_deep_as_asked(tmp_path, run, videos, monkeypatch, depth, found):
    """Of nine frames the sixth and the last are broken; "some" asks for 0..7 but the sixth, and the last."""
    def damaged(path, choose):
        indices = choose(9)
        if FIRST in path and {5, 8} & set(indices.flatten().tolist()):
            raise Undecodable(f"{path}: no such packet")
        return decode(path, lambda n: indices)
    hmdb(tmp_path / "data", videos)
    monkeypatch.setattr(check_videos, "decode", damaged)
    monkeypatch.setattr(check_videos, "segment_indices", lambda n, T: torch.tensor([[0, 1, 2, 3, 4, 6, 7, 7]]).numpy())
    what = [finding["what"] for finding in run("--decode", depth)[1]]
    assert what == ([] if found is None else
                    [f"data/{FIRST}: frame {found} of 9 does not decode (no such packet)"])


def test_no_advice_is_to_download_what_is_there():
    assert {kind for kind, advice in check.KINDS.items() if "download" in advice} == {"missing"}


@pytest.mark.parametrize("depth, expected", [("none", []), ("some", ["wrong frames"])])
def test_frames_that_seeking_misses_are_found_on_a_sample_of_each_container(tmp_path, run, videos, monkeypatch, depth,
                                                                           expected):
    """A decoder that finds the frame before, in .mkv alone, where it seeks: one of the three in the sample is told."""
    def late(path, choose):
        if path.endswith("Movie_a_catch_f_cm_np1_ba_med_0.mkv"):
            return decode(path, lambda n: (choose(n) - 1).clip(0))
        return decode(path, choose)
    data = hmdb(tmp_path / "data", videos)
    for number in range(3):
        stem = f"Movie_{'abc'[number]}_catch_f_cm_np1_ba_med_{number}"
        shutil.copy(videos(".mkv", number), data / f"videos/{stem}.mkv")
        (data / f"videos/{stem}.avi").unlink()
    monkeypatch.setattr(check_videos, "decode", late)
    findings = run("--decode", depth)[1]
    assert kinds(findings) == expected
    if expected:
        assert findings[0]["what"] == (f"data/{FIRST[:-4]}.mkv: frame 1, sought, is not frame 1, read in order")
        assert len(good_list("train")[0]) == 14


def test_three_videos_of_each_container_are_compared(tmp_path, run, videos, monkeypatch):
    compared = []
    monkeypatch.setattr(check, "compare_all", lambda paths, *_: compared.extend(paths) or iter([]))
    data = hmdb(tmp_path / "data", videos)
    shutil.copy(videos(".mkv", 0), data / FIRST)                 # its name is no matter
    run()
    assert len(compared) == 4 and f"data/{FIRST}" in compared


@pytest.mark.skipif(not shutil.which("ffmpeg"), reason="needs the command ffmpeg")
def test_what_is_read_in_order_and_what_has_another_name_is_noted_and_no_finding(tmp_path, run, videos):
    data = hmdb(tmp_path / "data", videos)
    for name, options in ((FIRST, "-f mpegts"), (SECOND, "-f mp4")):
        subprocess.run(["ffmpeg", "-v", "error", "-y", "-f", "lavfi", "-i", "testsrc2=size=64x48:rate=25:duration=1",
                        "-c:v", "libx264", *options.split(), data / name], check=True)
    status, findings, printed = run()
    assert (status, findings) == (0, [])
    assert f"1 videos are read in order: torchcodec's seeks in mpegts are not exact (data/{FIRST})" in printed
    assert f"2 videos have the name of another container, which mote does not mind: data/{FIRST} is mpegts" in printed
    assert f"data/{SECOND} is mp4" in printed


@pytest.mark.skipif(not shutil.which("ffmpeg"), reason="needs the command ffmpeg")
def test_a_clip_that_was_cut_without_decoding_is_good(tmp_path, run):
    """As Kinetics is cut: the header counts frames from before the cut, back to a key frame, which nobody shows."""
    content = torch.randint(256, (60, 3, 16, 16), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    VideoEncoder(content, frame_rate=10).to_file(tmp_path / "whole.mp4", codec="libx264")
    (tmp_path / "data").mkdir()
    for ending in ("mp4", "mkv"):
        subprocess.run(["ffmpeg", "-v", "error", "-ss", "2.5", "-i", tmp_path / "whole.mp4", "-c", "copy",
                        tmp_path / f"data/{ending}.{ending}"], check=True)
    write(tmp_path / "data/val.txt", "mp4.mp4 0\nmkv.mkv 0\n")
    write(tmp_path / "data/classes.csv", "0,action\n")
    assert run("--decode", "all")[:2] == (0, [])
    records = map(json.loads, (tmp_path / "out/checked.jsonl").read_text().splitlines())
    assert [record["frames"] < 40 for record in records if record["path"].endswith("mp4")] == [True]


def test_all_means_every_frame_once(videos, monkeypatch):
    asked = []
    monkeypatch.setattr(check_videos, "decode", lambda path, choose: asked.extend(choose(70).tolist()))
    assert check_videos.examine(str(videos()), "all", False)["frames"] == 70
    assert asked == [0, *range(70)]


def test_no_duration_is_told_and_the_video_kept(tmp_path, run, videos, monkeypatch):
    hmdb(tmp_path / "data", videos)
    monkeypatch.setattr(check, "examine_all", lambda paths, *_: iter(
        (path, {"frames": 9, "seconds": 0.0 if FIRST in path else 0.9}) for path in paths))
    assert [(f["kind"], f["what"]) for f in run()[1]] == [("no duration", f"data/{FIRST}: 0.0 s")]
    assert len(good_list("train")[0]) == 15


def test_folders_of_jpegs_are_checked(tmp_path, run):
    from PIL import Image
    for i, (split, name) in enumerate(itertools.product(("train", "val"), ("hug", "kick"))):
        for j in range(9):
            (tmp_path / f"data/{split}/{name}/v{i}_q").mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (16, 16), (10 * i, j, 0)).save(tmp_path / f"data/{split}/{name}/v{i}_q/{j}.jpg")
    assert run()[:2] == (0, [])
    (tmp_path / "data/train/kick/v1_q/8.jpg").write_bytes(b"")
    assert run("--decode", "first")[1] == []                     # it is not new to the run before: the last frame is
    (tmp_path / "data/train/kick/v1_q/9.jpg").touch()
    findings = run()[1]
    assert kinds(findings) == ["fewer frames than claimed"]
    assert "frame 8 of 10 does not decode" in findings[0]["what"]


@pytest.mark.skipif("MOTE_TEST_VIDEOS" not in os.environ, reason="needs $MOTE_TEST_VIDEOS")
def test_real_videos(tmp_path, run):
    """Codecs and containers of all kinds are good; the one that is corrupted and those of 3 and 4 frames are told."""
    videos = sorted(p for p in Path(os.environ["MOTE_TEST_VIDEOS"]).iterdir() if p.suffix != ".md")
    (tmp_path / "data").mkdir()
    write(tmp_path / "data/val.txt", "".join(f"{path} 0\n" for path in videos))
    write(tmp_path / "data/classes.csv", "0,action\n")
    status, findings, _ = run("--decode", "all")
    told = {Path(path).name: finding["kind"] for finding in findings for path in finding["videos"]}
    assert told == {"corrupted.mp4": "fewer frames than claimed", "rotated_90.mov": "short video",
                    "unordered_pts.mov": "short video"}
    assert len(good_list("val")[0]) == len(videos) - 1


# --- workers, going on ------------------------------------------------------------------------------------------------
def crash(path):
    os._exit(7)


def hang(path):
    time.sleep(60)


def raise_what_nobody_expects(path):
    sys.stderr = open(os.devnull, "w")
    raise MemoryError


@pytest.mark.parametrize("fail,kind,text", [(crash, "decoder crashed", "exit status 7"),
                                            (raise_what_nobody_expects, "decoder crashed", "exit status 1"),
                                            (hang, "decoder hung", "no answer in 0.7 s")])
@pytest.mark.parametrize("jobs", ["1", "3"])
def test_a_worker_that_fails_marks_its_file_and_nothing_else(tmp_path, run, videos, monkeypatch, fail, kind, text,
                                                             jobs):
    hmdb(tmp_path / "data", videos)
    bad = ("Movie_a_kick_f", "Movie_d_sword_exercise")
    monkeypatch.setattr(check_videos, "decode", lambda path, choose: fail(path) if any(b in path for b in bad) else
                        decode(path, choose))
    start = time.monotonic()
    findings = run("--jobs", jobs, "--timeout", "0.7")[1]
    assert time.monotonic() - start < 10
    assert [(f["kind"], text in f["what"], len(f["videos"])) for f in findings] == [(kind, True, 1)] * 2
    assert {b for b in bad for f in findings if b in f["what"]} == set(bad)
    assert (len(good_list("train")[0]), len(good_list("val")[0])) == (14, 4)
    assert not multiprocessing.active_children()


@pytest.fixture
def opened(monkeypatch) -> list[str]:
    """The videos that are opened, and not taken from checked.jsonl."""
    paths, really = [], check_videos.examine_anew

    def examine_anew(tasks, *arguments):
        paths.extend(Path(path).name for path, *_ in tasks)
        return really(tasks, *arguments)
    monkeypatch.setattr(check_videos, "examine_anew", examine_anew)
    return paths


def test_a_second_run_opens_only_what_changed(tmp_path, run, videos, opened):
    hmdb(tmp_path / "data", videos)
    no_video(tmp_path / "data", videos)
    first = run()
    assert len(opened) == len(set(opened)) == 20
    opened.clear()
    assert run() == first
    assert run("--decode", "none")[1] == first[1]
    assert opened == []
    os.utime(tmp_path / "data" / SECOND, (1, 1))
    shutil.copy(videos(".avi", 99), tmp_path / "data" / LAST)
    assert run()[1] == first[1]
    assert set(opened) == {Path(SECOND).name, Path(LAST).name}
    opened.clear()
    run("--decode", "all")
    assert len(opened) == 20


def test_a_hanging_video_is_tried_again_only_when_given_longer(tmp_path, run, videos, monkeypatch, opened):
    hmdb(tmp_path / "data", videos)
    monkeypatch.setattr(check_videos, "decode", lambda path, choose: hang(path) if FIRST in path else
                        decode(path, choose))
    run("--timeout", "0.5")
    opened.clear()
    assert kinds(run("--timeout", "0.5")[1]) == ["decoder hung"]
    assert opened == []
    monkeypatch.setattr(check_videos, "decode", decode)
    assert run("--timeout", "9")[1] == []
    assert opened == [Path(FIRST).name]


def test_ctrl_c_loses_nothing(tmp_path, run, videos, monkeypatch, opened, capsys):
    hmdb(tmp_path / "data", videos)

    def interrupted(*arguments):
        for i, pair in enumerate(check_videos.examine_all(*arguments)):
            if i == 12:
                raise KeyboardInterrupt
            yield pair
    with monkeypatch.context() as patch:
        patch.setattr(check, "examine_all", interrupted)
        assert check.main(["--data-root", "data", "--out", "out", "--jobs", "2"]) == 130
    assert capsys.readouterr().err.endswith("stopped; the same command goes on from here\n")
    assert not multiprocessing.active_children()
    kept = (tmp_path / "out/checked.jsonl").read_text().splitlines()
    assert len(kept) == 13
    opened.clear()
    assert run()[:2] == (0, [])
    assert len(opened) == 7


@pytest.mark.parametrize("end", ['{"path": "data/vid', "\0\0\0", '{"path": 3}\n', "[]\n", "{}"])
def test_a_record_that_was_half_written_is_made_again(tmp_path, run, videos, opened, end):
    hmdb(tmp_path / "data", videos)
    run()
    records = (tmp_path / "out/checked.jsonl").read_text().splitlines(keepends=True)
    write(tmp_path / "out/checked.jsonl", "".join(records[:-1]) + end)
    opened.clear()
    assert run()[:2] == (0, [])
    assert run()[:2] == (0, [])
    assert opened == [Path(json.loads(records[-1])["path"]).name]


# --- the command ------------------------------------------------------------------------------------------------------
def test_as_a_user_runs_it(tmp_path, videos):
    """From another folder, without installation; the folder by $MOTE_DATA; results in runs/check-NAME."""
    two_names_swapped(hmdb(tmp_path / "hmdb51", videos))
    done = subprocess.run([sys.executable, ROOT / "tools/check.py", "--data", "hmdb51", "--jobs", "1"], text=True,
                          cwd=tmp_path, env={**os.environ, "MOTE_DATA": str(tmp_path)}, capture_output=True)
    assert (done.returncode, done.stderr) == (1, "")
    assert "2 x misnamed class" in done.stdout
    assert (tmp_path / "runs/check-hmdb51/findings.json").exists()


MISTAKES = {
    "no dataset": (["--data-root", "nowhere"], "no folder at nowhere"),
    "nothing named": ([], "give --data NAME, or --data-root DIR"),
    "no lists": (["--data-root", "bare"], "bare: neither lists (train.txt, val.txt) nor a folder per class"),
    "no such list": (["--data-root", "data", "--list", "no.txt"], "no file at no.txt"),
    "no such split": (["--data-root", "data", "--split", "7"], "no train list of split 7"),
    "no such depth": (["--data-root", "data", "--decode", "deep"], "invalid choice"),
    "no jobs": (["--data-root", "data", "--jobs", "0"], "--jobs must be at least 1"),
    "no time": (["--data-root", "data", "--timeout", "nan"], "--timeout above 0"),
    "another's folder": (["--data-root", "data", "--out", "data"], "--out data holds something else"),
}


@pytest.mark.parametrize("arguments,text", MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_one_line(tmp_path, monkeypatch, videos, capsys, arguments, text):
    monkeypatch.chdir(tmp_path)
    hmdb(tmp_path / "data", videos)
    (tmp_path / "bare").mkdir()
    with pytest.raises(SystemExit) as ended:
        check.main(arguments)
    error = capsys.readouterr().err
    assert ended.value.code == 2
    assert error.startswith("tools/check.py: error: ") and text in error and error.count("\n") == 1
    assert not (tmp_path / "runs").exists()
