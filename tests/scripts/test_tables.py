"""
docs/results.md is true: toyworld's table is current; every command of the paper's numbers runs, as written.

Checked on miniatures of the datasets, each in its own official layout and list format, with a tiny CLIP, and the
authors' tiny checkpoint under the released ones' names. What a command says (frames, layers, loss weights, views,
splits) is kept; only what it leaves to defaults is made small. Sizes are counted in full: they need no memory. The
paper's numbers themselves are held against one another where it computes some from others (Table 4).
"""
import json
import re
import shlex
import shutil
import statistics
import tempfile

import pytest
import torch
from support.clips import OPENAI
from support.places import ROOT
from support.readme import RESULTS, is_accounted_for
from torchcodec.encoders import VideoEncoder

import eval as evaluation
import train
from mote.clip_backbone import load_clip
from tools import compare, size
from tools.toyworld import table as toyworld_table

TABLE = RESULTS.partition("## The paper's numbers")[2].partition("\n## ")[0]
ROWS = [[cell.strip() for cell in line.strip("|").split(" | ")]
        for line in TABLE.splitlines() if line.startswith("|") and "`python" in line]
COMMANDS = {row[0]: re.search(r"`(python [^`]+)`", row[1])[1] for row in ROWS}
EVALUATIONS = {title: command for title, command in COMMANDS.items() if "eval.py" in command}
TRAININGS = {title: command for title, command in COMMANDS.items() if "train.py" in command}
TRADE_OFFS = {title: command for title, command in COMMANDS.items() if "--trade-off" in command}
SIZES = {title: command for title, command in COMMANDS.items() if "size.py" in command}
CLASSES = {"k400": ["abseiling", "air drumming", "yoga"], "k600": ["acting in play", "alligator wrestling", "zumba"],
           "ucf101": ["ApplyEyeMakeup", "HandstandPushups", "YoYo"], "hmdb51": ["brush_hair", "kick", "kick_ball"],
           "ssv2": ["Holding something", "Pushing something from left to right", "Tearing something into two pieces"]}
TINY = {"embed_dim": 128, "quick_gelu": True, "preprocess_cfg": OPENAI,
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
        "vision_cfg": {"image_size": 32, "patch_size": 16, "width": 64, "layers": 2, "head_width": 64}}
SMALL = {"--layers": "1", "--frames": "2", "--epochs": "1", "--batch": "24", "--workers": "0", "--threads": "1"}


def write(file, text):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    """Bytes of a video of 20 frames that get brighter, in the containers of the datasets."""
    folder, frames = tmp_path_factory.mktemp("video"), torch.arange(20, dtype=torch.uint8) * 10
    codecs = {".mp4": "libx264", ".avi": "mpeg4", ".webm": "libvpx-vp9"}
    for ending, codec in codecs.items():
        VideoEncoder(frames.view(-1, 1, 1, 1).expand(-1, 3, 32, 40).contiguous(), frame_rate=10).to_file(
            folder / f"video{ending}", codec=codec, extra_options={"threads": 1})
    return lambda ending: (folder / f"video{ending}").read_bytes()


@pytest.fixture(scope="module")
def datasets(video, tmp_path_factory):
    """$MOTE_DATA with k400, k600, ucf101, hmdb51 and ssv2: 16 training and 2 test videos of each of 3 classes."""
    data = tmp_path_factory.mktemp("data")

    def add(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(video(file.suffix))
    k400, k600, ucf, hmdb, ssv2 = (data / name for name in ("k400", "k600", "ucf101", "hmdb51", "ssv2"))

    write(k400 / "kinetics_400_labels.csv", "id,name\n" + "".join(f"{i},{n}\n" for i, n in enumerate(CLASSES["k400"])))
    for split, n in (("train", 16), ("val", 2)):
        files = [(f"{name}/{split}_{i}_000001_000011.mp4", c)
                 for c, name in enumerate(CLASSES["k400"]) for i in range(n)]
        write(k400 / f"{split}list.txt", "".join(f"{file} {c}\n" for file, c in files))
        for file, _ in files:
            add(k400 / split / file)                             # in a folder that the lists do not name
    for split in "123":                                          # other classes in every split
        names = CLASSES["k600"][int(split) - 1:] + [f"{name} {split}" for name in CLASSES["k600"][:int(split)]]
        write(k600 / f"k160_labels_split{split}.csv", "id,name\n" + "".join(f"{i},{n}\n" for i, n in enumerate(names)))
        write(k600 / f"k160_test_split{split}.txt",
              "".join(f"{name}/{name[:4]}_{split}.mp4 {i}\n" for i, name in enumerate(names)))
        for name in names:
            add(k600 / name / f"{name[:4]}_{split}.mp4")

    write(ucf / "ucfTrainTestlist/classInd.txt", "".join(f"{i + 1} {n}\n" for i, n in enumerate(CLASSES["ucf101"])))
    for split in "123":
        for part, n in (("train", 16), ("test", 2)):
            files = [(f"{name}/v_{name}_g{split}{i:02d}_c{part[1]}.avi", c + 1)
                     for c, name in enumerate(CLASSES["ucf101"]) for i in range(n)]
            write(ucf / f"ucfTrainTestlist/{part}list0{split}.txt",
                  "".join(f"{file} {c}\r\n" if part == "train" else f"{file}\r\n" for file, c in files))
            for file, _ in files:
                add(ucf / "UCF-101" / file)
    for name in CLASSES["hmdb51"]:
        files = {f"a (b)#{i}_{name}_f_cm_np1_ba_goo_{i}.avi": 1 + (i > 15) for i in range(18)}
        for split in "123":
            write(hmdb / f"testTrainMulti_7030_splits/{name}_test_split{split}.txt",
                  "".join(f"{file} {part} \n" for file, part in files.items()) + f"unused_{name}.avi 0 \n")
        for file in files:
            add(hmdb / name / file)

    write(ssv2 / "labels.json", json.dumps({name: str(i) for i, name in enumerate(CLASSES["ssv2"])}))
    for split, start, n in (("train", 100, 16), ("validation", 900, 2)):
        items = [{"id": str(start + n * c + i), "label": "holding a cup", "placeholders": ["a cup"],
                  "template": name.replace("something", "[something]")}
                 for c, name in enumerate(CLASSES["ssv2"]) for i in range(n)]
        write(ssv2 / f"{split}.json", json.dumps(items))
        for item in items:
            add(ssv2 / "20bn-something-something-v2" / f"{item['id']}.webm")
    write(ssv2 / "test.json", json.dumps([{"id": "5"}]))         # no labels: never read
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MOTE_DATA", str(data))
        yield data


@pytest.fixture(scope="module")
def place(datasets, tmp_path_factory):
    """A folder with checkpoints of the released names, a tiny CLIP, a trained RUN."""
    folder = tmp_path_factory.mktemp("clone")
    for name in ("MoTE_B16.pt", "MoTE_L14.pt"):
        shutil.copy(ROOT / "tests/golden/official_tiny_checkpoint.pt", folder / name)
    write(folder / "tiny.json", json.dumps(TINY))
    torch.manual_seed(0)
    clip, _ = load_clip(str(folder / "tiny.json"), "")
    torch.save(clip.state_dict(), folder / "tiny.pt")
    (folder / "tools").symlink_to(ROOT / "tools")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.syspath_prepend(str(ROOT / "tools"))
        run("python train.py --data k400 --out RUN")
        yield folder


def run(command):
    """Run a command's script in this process, made small where the command leaves it open. -> what main() returns"""
    words = shlex.split(command)[1:]
    script = next(word for word in words if word in ("train.py", "eval.py"))
    small = SMALL if script == "train.py" else {"--workers": "0"}
    out = ["--out", tempfile.mkdtemp(dir=".")] if script == "train.py" and "--out" not in words else []
    words += [word for flag, value in small.items() if flag not in words for word in (flag, value)] + out
    words += ["--backbone", "tiny.json", "--pretrained", "tiny.pt"]
    if words[0] == "tools/ablations.py":
        import ablations
        return ablations.main(words[1:])
    return {"train.py": train.main, "eval.py": evaluation.main}[script](words[1:])


def test_every_table_and_figure_of_the_paper_that_has_numbers_has_a_row():
    names = "1 2a 2b 2c 2d 2e 2f 3 4 5 6 7a 7b 7c 7e 7f".split()
    missing = [name for name in names if not any(f"Table {name}:" in title for title in COMMANDS)]
    assert not missing and any(title.startswith("Figure 1b") for title in COMMANDS)
    assert len(COMMANDS) == len(ROWS) == sum(map(len, (EVALUATIONS, TRAININGS, TRADE_OFFS, SIZES)))


@pytest.mark.parametrize("row", [row for row in ROWS if row[0] not in SIZES], ids=lambda row: row[0])
def test_a_row_says_not_run_or_gives_a_number_with_its_log_or_protocol(row):
    assert is_accounted_for(row[-1]), f"{row[0]}: {row[-1]}"


@pytest.mark.parametrize("cell, accounted", [
    ("not run", True),
    ("not run: K400, weights", True),
    ("81.6 / 96.1 (results/k400.jsonl)", True),
    ("83.2 +- 0.7, [log](results/ucf101.log)", True),
    ("81.6 / 96.1, protocol 0123abcd", True),
    ("81.6", False),
    ("81.6 / 96.1, protocol unknown", False),
    ("about 80 (results/k400.jsonl)", False),
    ("results/k400.jsonl", False),
    ("", False),
])
def test_a_number_needs_its_log_or_protocol(cell, accounted):
    assert is_accounted_for(cell) == accounted


@pytest.mark.parametrize("title", EVALUATIONS)
def test_the_evaluation_runs_under_the_protocol_of_its_row(title, place, capsys):
    command = EVALUATIONS[title]
    result, printed = run(command), capsys.readouterr().out
    splits, asked = result["splits"], evaluation.parse_config(shlex.split(command.partition("eval.py ")[2]))
    assert [one["split"] for one in splits] == (["1", "2", "3"] if asked.split == "all" else [splits[0]["split"]])
    for one in splits:
        protocol = one["protocol"]
        assert protocol["data"] == asked.data and f"protocol {protocol['fingerprint']}" in printed
        assert one["videos"] == one["decoded"] == protocol["found"] == (4 if asked.data == "k600" else 6)
        assert (protocol["clips"], protocol["crops"], protocol["gamma"]) == (asked.clips, asked.crops, asked.gamma)
        k600 = asked.data == "k600"                              # 4 classes a split, 9 over all three
        assert protocol["classes"] == (4 if k600 else 3) + (6 if k600 else 12) * bool(asked.mix_names)
        assert protocol["prompts"] == 28 and protocol["clip_weight"] == asked.clip_weight
    if views := re.search(r"(\d) x (\d)", title):
        assert (str(asked.clips), str(asked.crops)) == views.groups()
    assert ("standard deviation of 3 splits" in printed) == (asked.split == "all")
    assert ("10 draws" in printed) == ("half" in title)


@pytest.mark.parametrize("title", TRAININGS)
def test_the_training_runs_as_its_row_says(title, place, capsys):
    command = TRAININGS[title]
    rows, printed = run(command), capsys.readouterr().out
    asked = train.parse_config(shlex.split(command.partition("train.py ")[2]))
    assert list(rows["trained"]) == [asked.data, *filter(None, asked.zero_shot.split(","))]
    few = "6 training videos repeated to 48, 3 classes" if "--shots 2" in command else "48 training videos, 3 classes"
    assert "2 steps per epoch" in printed and few in printed
    assert asked.layers == int((re.search(r"--layers (\d)", command) or [0, 6 if "ViT-L" in command else 4])[1])
    assert (asked.lr, asked.clip_lr, asked.batch) == (5e-5, 3e-6, 144)
    k400 = 20 if "ViT-L" in command else 30
    assert asked.epochs == {"hmdb51": 10, "ucf101": 10, "ssv2": 2, "k400": k400}[asked.data]
    if alternatives := re.search(r"\(`(--[\w-]+)` ([\d., ]+)\)", title):
        for value in alternatives[2].split(", "):
            train.parse_config([*shlex.split(command.partition("train.py ")[2]), alternatives[1], value])


@pytest.mark.parametrize("data", ["hmdb51", "ucf101", "ssv2"])
def test_few_shot_trains_on_16_of_each_class(data, place):
    command = next(command for command in TRAININGS.values() if f"--data {data} --shots 2" in command)
    run(command.replace("--shots 2", "--shots 16 --out " + f"few-{data}"))
    lines = (place / f"few-{data}" / "train.txt").read_text().splitlines()
    assert len(lines) == len(set(lines)) == 3 * 16


# --- rules that the page gives once -------------------------------------------------------------------------------
@pytest.mark.parametrize("title", EVALUATIONS)
def test_only_the_authors_checkpoints_are_mixed_with_clip(title):
    asked = evaluation.parse_config(shlex.split(EVALUATIONS[title].partition("eval.py ")[2].partition(" --json")[0]))
    assert asked.clip_weight == (0.99 if asked.checkpoint.startswith("MoTE_") else 1.0)


@pytest.mark.parametrize("title", TRAININGS)
def test_every_training_draws_three_times_a_step_and_large_ones_checkpoint_activations(title):
    asked = train.parse_config(shlex.split(TRAININGS[title].partition("train.py ")[2]))
    assert asked.accumulate == 3
    assert asked.checkpoint_activations == (asked.data == "k400" or asked.backbone.startswith("ViT-L-14"))


# --- Table 4's other columns --------------------------------------------------------------------------------------
FILES = {re.search(r"--json (\S+)", command)[1]: command for command in EVALUATIONS.values() if "--json" in command}


def top1_of(file: str) -> dict[str, float]:
    """Top-1 with and without modulation in a file that a row writes; it is written if no test has done it yet."""
    try:
        with open(file) as written:
            result = json.load(written)
    except FileNotFoundError:
        result = run(FILES[file])
    return {score: result[score]["top1"] for score in ("plain", "modulated")}


def test_every_evaluation_writes_a_file_of_its_own():
    assert len(FILES) == sum("--json" in command for command in EVALUATIONS.values())
    read = {file for command in TRADE_OFFS.values() for file in command.split()[-4:]}
    assert read == set(FILES)


@pytest.mark.parametrize("title", TRADE_OFFS)
@pytest.mark.parametrize("score", ["modulated", "plain"])
def test_the_trade_off_is_of_the_files_that_the_rows_write(title, score, place, capsys):
    args = shlex.split(TRADE_OFFS[title])[2:]
    k400, *zero_shot = (top1_of(file)[score] for file in args[-4:])
    capsys.readouterr()
    compare.main([*args, "--score", score])
    printed = capsys.readouterr().out
    assert "warning" not in printed
    harmonic = statistics.harmonic_mean(zero_shot)
    assert re.search(rf"^HM_ZS +{harmonic:.1f} ", printed, flags=re.M)
    assert re.search(rf"^trade-off +{statistics.harmonic_mean([harmonic, k400]):.1f} ", printed, flags=re.M)


@pytest.mark.parametrize("title", TRADE_OFFS)
def test_the_papers_trade_offs_are_those_of_its_other_numbers(title):
    """Of the rows whose files a trade-off takes; a column of a table with several models by itself."""
    cells = {row[0]: row[2:-1] for row in ROWS}
    rows = [next(row for row, command in COMMANDS.items() if command.endswith(f"--json {file}"))
            for file in TRADE_OFFS[title].split()[-4:]]
    for column, printed in enumerate(cells[title]):
        numbers = [cells[row][column].split()[0] for row in rows]
        if "not" in numbers:                                     # not printed
            continue
        k400, *zero_shot = map(float, numbers)
        harmonic = statistics.harmonic_mean(zero_shot)
        assert printed == f"{harmonic:.1f}, {statistics.harmonic_mean([harmonic, k400]):.1f}"


@pytest.mark.parametrize("title", SIZES)
def test_a_size_is_what_its_command_prints(title):
    found = size.main(shlex.split(SIZES[title])[2:])
    tested, (ours,) = found["both, as tested"], [row[-1] for row in ROWS if row[0] == title]
    assert ours == ", ".join(f"{number:.1f}" for number in tested)
    if "size of MoTE, L/14" in title:                           # Table 2c, in words
        merged, all_experts = found["temporal transformer, experts merged"], found["temporal transformer, 4 experts"]
        words = " ".join(TABLE.split())
        assert f"{merged[0]:.1f} million parameters in the temporal transformer with merged experts" in words
        assert f"{all_experts[0]:.1f} with four" in words


def test_two_evaluations_are_compared(place, capsys):
    top1_of("b16-ucf101.json")
    shutil.copy("b16-ucf101.json", "A.json")
    shutil.copy("b16-ucf101.json", "B.json")
    compare.main(["A.json", "B.json"])
    assert "0.0" in capsys.readouterr().out


# --- toyworld -----------------------------------------------------------------------------------------------------
def test_the_table_of_toyworld_is_what_its_command_prints():
    assert toyworld_table.main([]) in RESULTS


def test_a_recipe_of_toyworld_has_the_flags_that_the_page_gives():
    section = RESULTS.partition("| recipe | flags |")[2].partition("\n\n")[0]
    rows = re.findall(r"^\| (.+) \| (`(.+)`|none) \|$", section, flags=re.M)
    assert len(rows) == 4
    for name, _, flags in rows:
        for rate, suffix in (("", ""), (" --lr 6e-3", ", `--lr 6e-3`")):
            asked = train.parse_config(shlex.split(flags + rate))
            recipe = {flag: getattr(asked, flag) for flag in toyworld_table.RECIPE}
            assert toyworld_table.name_of(recipe) == name + suffix
