"""
tools/convert.py as a user runs it: between our format and the authors', and from OpenAI's archives to plain weights.

Must be true: what comes out loads and computes what went in; nothing is written over, nothing is left half-written;
mistakes are one line. Checked against the tensors that went in, and against the CLIP that the archive was made from.
"""
import re
import shlex
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from support.checkpoints import bits, expressible, new_checkpoint
from support.clips import features_and_classes, openai_state_dict, save_archive
from support.places import OFFICIAL
from torch.testing import assert_close

import mote
from mote.clip_backbone import SIZES, load_clip
from mote.runtime.checkpoints import read_checkpoint, save_checkpoint

ROOT = Path(mote.__file__).parents[1]


@pytest.fixture
def convert(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    return __import__("convert").main


def load(file):
    return torch.load(file, weights_only=True)


# --- the authors' format -------------------------------------------------------------------------------------------
def test_the_authors_file_becomes_ours_and_comes_back_as_it_was(convert, tmp_path, capsys):
    convert([str(OFFICIAL), str(tmp_path / "ours.pt")])
    assert "its visual tower is none of OpenAI's" in capsys.readouterr().out
    convert([str(tmp_path / "ours.pt"), str(tmp_path / "theirs.pt")])
    assert "temporal_layer: 2, num_experts: 3; 12 classes" in capsys.readouterr().out
    theirs, before = load(tmp_path / "theirs.pt"), load(OFFICIAL)
    assert theirs.keys() == before.keys() and theirs["epoch"] == before["epoch"]
    for part in ("model_state_dict", "fusion_model_state_dict"):
        assert bits(theirs[part]) == bits(before[part])
    frames = torch.randn(1, 4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    a, b = (mote.load_model(file) for file in (OFFICIAL, tmp_path / "ours.pt"))
    with torch.no_grad():
        assert_close(a(frames, a.finetune_classes), b(frames, b.finetune_classes), rtol=0, atol=0)


@pytest.mark.parametrize("classes, note", [(400, False), (5, True)])
def test_a_run_becomes_the_authors_file_and_comes_back_as_it_was(convert, tmp_path, capsys, classes, note):
    (tmp_path / "run").mkdir()
    ours = expressible(classes=classes)
    save_checkpoint(tmp_path / "run" / "last.pt", ours)
    convert([str(tmp_path / "run"), str(tmp_path / "theirs.pt")])
    assert ("so their test scripts need a change" in capsys.readouterr().out) == note    # they are written for 400
    assert load(tmp_path / "theirs.pt").keys() == load(OFFICIAL).keys()
    convert([str(tmp_path / "theirs.pt"), str(tmp_path / "back.pt")])
    assert bits(load(tmp_path / "back.pt")["model"]) == bits(ours["model"])
    assert bits(read_checkpoint(tmp_path / "theirs.pt")["model"]) == bits(ours["model"])
    assert sorted(file.name for file in tmp_path.iterdir()) == ["back.pt", "run", "theirs.pt"]


# --- OpenAI's archive ----------------------------------------------------------------------------------------------
def test_the_command_in_the_refusal_makes_weights_that_load(convert, config_file, original, halved,  # noqa: F811
                                                            tmp_path, monkeypatch, capsys):
    """Bit for bit the archive's halves; the original to 5e-3 (see test_weights.py). A name with a space."""
    archive = tmp_path / "their CLIP.pt"
    save_archive(openai_state_dict(original), archive)
    with pytest.raises(ValueError, match="TorchScript archive") as raised:
        load_clip(config_file("tiny"), str(archive))
    python, script, *args = shlex.split(str(raised.value).partition("convert it once: ")[2])
    assert (python, script) == ("python", "tools/convert.py")
    monkeypatch.chdir(tmp_path)
    weights = convert(args)
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 2 and "torch.jit.load, which runs code from it" in printed[0]
    state = load(weights)
    assert not SIZES & state.keys() and {tensor.dtype for tensor in state.values()} == {torch.float16}
    clip, tokenizer = load_clip(config_file("tiny"), str(weights))
    found = features_and_classes(clip, tokenizer)
    assert_close(found, features_and_classes(halved, tokenizer), rtol=0, atol=0)
    assert_close(found, features_and_classes(original, tokenizer), rtol=0, atol=5e-3)


def test_nothing_else_in_the_project_opens_archives_that_run_code():
    sources = [*ROOT.glob("*.py"), *(ROOT / "mote").glob("*.py"), *(ROOT / "tools").glob("*.py")]
    assert [file.name for file in sources if re.search(r"jit\s*\.\s*load\(", file.read_text())] == ["convert.py"]
    for file in sources:
        for call in re.findall(r"torch\.load\(.*", file.read_text()):
            assert "weights_only=True" in call, (file.name, call)


# --- what goes wrong -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("there", ["file", "folder", "link to nowhere"])
def test_what_exists_is_not_written_over(convert, tmp_path, capsys, there):
    file = tmp_path / "there.pt"
    {"file": file.touch, "folder": file.mkdir, "link to nowhere": lambda: file.symlink_to("nowhere")}[there]()
    with pytest.raises(SystemExit) as stopped:
        convert([str(OFFICIAL), str(file)])
    assert stopped.value.code == 2 and "exists and is not written over" in capsys.readouterr().err
    assert [path.name for path in tmp_path.rglob("*")] == ["there.pt"]
    assert there != "file" or file.stat().st_size == 0


def test_a_kill_while_writing_leaves_nothing(convert, tmp_path, monkeypatch):
    def dies(content, file):
        file.write(b"half a checkpoint")
        raise KeyboardInterrupt
    monkeypatch.setattr(torch, "save", dies)
    with pytest.raises(SystemExit):
        convert([str(OFFICIAL), str(tmp_path / "ours.pt")])
    assert list(tmp_path.iterdir()) == []


MISTAKES = {
    "no arguments": ([], "the following arguments are required"),
    "nothing there": (["none.pt", "x.pt"], "no checkpoint at none.pt"),
    "a folder without a checkpoint": (["folder", "x.pt"], "no checkpoint at folder/last.pt"),
    "text": (["text.pt", "x.pt"], "cannot read text.pt: damaged, or not a checkpoint"),
    "something else": (["list.pt", "x.pt"], "neither a checkpoint of train.py nor in the authors' format"),
    "no folder to write to": (["theirs.pt", "nowhere/x.pt"], "nowhere/x.pt: no such folder"),
    "weights already": (["weights.pt", "x.pt"], "plain weights already, which --pretrained takes"),
    "open_clip's": (["open_clip.pt", "x.pt"], "plain weights already, which --pretrained takes"),
    "toyworld": (["toyworld.pt", "x.pt"], "the authors' code cannot express head_width = 32"),
    "weights of another shape": (["odd.pt", "x.pt"], "a checkpoint of another architecture: temporal.blocks.0.ln_1."),
    "another archive": (["linear.pt", "x.pt"], "a TorchScript archive, but not of CLIP"),
    "a damaged archive": (["damaged.pt", "x.pt"], "torch.jit.load fails"),
}


@pytest.fixture
def files(tmp_path, monkeypatch, original):  # noqa: F811
    """One file for each mistake, in the current folder."""
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    Path("text.pt").write_text("hello")
    shutil.copy(OFFICIAL, "theirs.pt")
    state = original.state_dict()
    odd = expressible()
    odd["model"]["temporal.blocks.0.ln_1.weight"] = torch.ones(3)
    for name, content in {"list": [1, 2], "weights": state, "open_clip": {"state_dict": state},
                          "toyworld": new_checkpoint(), "odd": odd}.items():
        torch.save(content, f"{name}.pt")
    save_archive({"weight": torch.ones(3)}, "linear.pt")
    Path("damaged.pt").write_bytes(Path("linear.pt").read_bytes().replace(b"/data.pkl", b"/date.pkl"))
    return tmp_path


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_and_status_2(mistake, convert, files, capsys):
    args, expected = MISTAKES[mistake]
    before = sorted(files.rglob("*"))
    with warnings.catch_warnings(), pytest.raises(SystemExit) as stopped:
        warnings.simplefilter("error")
        convert(args)
    error = capsys.readouterr().err.strip().splitlines()
    assert stopped.value.code == 2 and len(error) == 1 and expected in error[0]
    assert error[0].startswith("tools/convert.py: error: ") and sorted(files.rglob("*")) == before


def test_the_script_runs_from_any_folder(tmp_path):
    command = [sys.executable, str(ROOT / "tools" / "convert.py"), str(OFFICIAL), "ours.pt"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith("ours.pt: a checkpoint like train.py's") and not done.stderr
    assert mote.load_model(tmp_path / "ours.pt", keep_experts=True).temporal.num_experts == 3
