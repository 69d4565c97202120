"""
README.md is true: its commands run, its Python prints what it says, its names exist, its numbers come back.

Commands are run as written, but for what would take hours or a download: those get a tiny model and a miniature of the
dataset appended to the same flags. `make demo` and `make test` are .ci/run's. The slow test is the demo in full.
"""
import contextlib
import importlib
import io
import re
import shlex
import shutil
from pathlib import Path

import pytest
from support.checkpoints import expressible
from support.clips import TINY as TINY_CLIP
from support.clips import openai_state_dict, save_archive
from support.places import ROOT
from support.readme import README

import eval as evaluation
import train
from mote.clip_backbone import build_clip
from mote.runtime.checkpoints import save_checkpoint

BLOCKS = re.findall(r"```(\w*)\n(.*?)```", README, flags=re.S)
COMMANDS = [line for kind, text in BLOCKS if kind == "sh" for line in text.splitlines() if line]
TINY = ["--backbone", "toyworld", "--pretrained", "toyworld", "--threads", "1", "--workers", "0", "--device", "cpu"]
SPREAD = 12              # points that an accuracy of the demo may move by, as README.md says


def text_after(command: str) -> str:
    """The output that the README shows below a command."""
    i = next(i for i, (kind, text) in enumerate(BLOCKS) if kind == "sh" and command in text)
    assert BLOCKS[i + 1][0] == "text", f"no output is shown after {command}"
    return BLOCKS[i + 1][1]


def cells(table: str) -> dict[str, list[float]]:
    """Rows of the table at a run's end: name -> numbers."""
    rows = re.findall(r"^(untrained CLIP.*?|trained.*?)  +([\d. ]+)$", table, flags=re.M)
    return {name: [float(x) for x in numbers.split()] for name, numbers in rows}


@pytest.fixture(scope="module")
def place(world, tmp_path_factory):
    """A folder like a fresh clone after a (much shorter) `make demo`, with miniatures of the datasets named."""
    folder = tmp_path_factory.mktemp("clone")
    (folder / "data").symlink_to(world)
    for name in ("tools", "mote"):
        (folder / name).symlink_to(ROOT / name)
    shutil.copytree(world / "toyworld", folder / "DIR")
    videos = world / "toyworld" / "videos"
    shutil.copy(videos / "val_star_moving_left_0.mp4", videos / "val_star_moving_left_3.mp4")
    shutil.copy(videos / "val_star_moving_left_0.mp4", folder / "CLIP.mp4")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for run in ("runs/demo", "RUN"):
            train.main([*TINY, "--data", "toyworld", "--zero-shot", "toyworld-novel", "--epochs", "1", "--batch", "16",
                        "--layers", "1", "--out", run])
        yield folder


def test_every_command_is_known_to_these_tests():
    scripts = {re.sub(r"^torchrun --nproc-per-node \d+ ", "python ", c).split()[1] for c in COMMANDS}
    assert scripts == {"demo", "test", "eval.py", "train.py", "tools/toyworld/pretrain.py", "tools/picture.py",
                       "tools/toyworld/table.py", "tools/check.py", "tools/prepare.py", "tools/convert.py",
                       "tools/compare.py", "tools/bench/speed.py", "tools/doctor.py", "tests/torture/run.py"}
    assert {"make demo", "make test"} <= set(COMMANDS)
    ci = (ROOT / ".ci/run").read_text()
    assert re.search("^make demo", ci, flags=re.M) and re.search("^make test$", ci, flags=re.M)


@pytest.mark.parametrize("command", [c for c in COMMANDS if not c.startswith("make")])
def test_the_command_runs(command, place, world, monkeypatch, tmp_path):
    monkeypatch.chdir(place)
    words = shlex.split(re.sub(r"^torchrun --nproc-per-node \d+ ", "python ", command))
    script, args = words[1], words[2:]
    if "openai" in args:
        assert evaluation.parse_config(args).pretrained == "openai"           # a download: its flags are read, no more
    elif script == "eval.py":
        assert evaluation.main([*args, "--workers", "0", "--device", "cpu"])
    elif script == "train.py":
        if args == ["--data-root", "DIR"] or not args:
            assert train.parse_config(args).data == ("DIR" if args else "toyworld")
        small = ["--epochs", "1", "--layers", "1", "--batch", "16", "--zero-shot", "", "--out", str(tmp_path / "run")]
        rows = train.main([*args, *TINY, *small])
        assert list(rows) == ["untrained CLIP, frames averaged", "trained", "trained, with modulation"]
    else:
        if script.endswith("picture.py"):
            pytest.importorskip("matplotlib")
        extra = prepare_for(script, tmp_path, monkeypatch)
        module_of(script).main([*args, *extra])
        made = {"tools/picture.py": "runs/demo/results.png", "tools/toyworld/pretrain.py": tmp_path / "clip.pt",
                "tools/convert.py": args[-1] if args else "", "tools/prepare.py": "PREPARED/val.txt",
                "tools/check.py": tmp_path / "findings.json"}.get(script)
        assert not made or Path(made).stat().st_size > 0


def module_of(script: str):
    """The module of a script below tools/ or tests/, which is a package of files there."""
    return importlib.import_module(script.removeprefix("tests/").removesuffix(".py").replace("/", "."))


def prepare_for(tool, tmp_path, monkeypatch) -> list[str]:
    """What a tool's command of README.md needs to be there, made small. -> flags to add"""
    if tool == "tools/convert.py":                               # toyworld's tower is none that the authors' code has
        monkeypatch.chdir(tmp_path)
        (tmp_path / "RUN").mkdir()
        save_checkpoint(tmp_path / "RUN" / "last.pt", expressible(classes=5))
        save_archive(openai_state_dict(build_clip(TINY_CLIP)), tmp_path / "ViT-B-16.pt")
    if tool == "tools/compare.py":
        for file in ("A.json", "B.json"):
            evaluation.main(["--checkpoint", "RUN", "--data", "toyworld", "--workers", "0", "--json", file])
    return {"tools/toyworld/pretrain.py": ["--steps", "1", "--batch", "20", "--out", str(tmp_path / "clip.pt")],
            "tools/check.py": ["--out", str(tmp_path)], "tests/torture/run.py": ["sizes", "--quick"],
            "tools/doctor.py": TINY[:4]}.get(tool, [])


def test_the_method_in_a_dozen_lines_prints_what_is_shown():
    (code, shown), = [(text, BLOCKS[i + 1][1]) for i, (kind, text) in enumerate(BLOCKS) if kind == "python"]
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, "README.md", "exec"), {})
    assert printed.getvalue() == shown


def test_every_file_and_name_that_the_readme_mentions_exists():
    for path in re.findall(r"\b((?:mote|tools|tests|results)/[\w./]+\.(?:py|jsonl|json|pt))", README):
        assert (ROOT / path).is_file(), path
    for file, name in re.findall(r"\((\w+)\.py `(\w+)`", README):
        source = next(p for p in (ROOT / f"{file}.py", *(ROOT / "mote").rglob(f"{file}.py")) if p.is_file())
        assert re.search(rf"\b{name}\b", source.read_text()), f"{file}.py {name}"
    for test in re.findall(r"`(test_\w+)`", README):
        assert any(f"def {test}(" in p.read_text() for p in (ROOT / "tests").rglob("*.py")), test


def test_the_table_of_results_is_what_its_command_prints():
    assert module_of("tools/toyworld/table.py").main([]) in README


def test_the_table_of_speeds_is_what_its_command_prints(capsys):
    module_of("tools/bench/speed.py").main(["--table"])
    assert capsys.readouterr().out.strip() in README


@pytest.mark.slow
def test_the_demo_gives_the_numbers_shown_within_the_spread_stated(tmp_path, monkeypatch, capsys):
    """The job of `make demo`, three minutes; also what toyworld must show."""
    monkeypatch.delenv("MOTE_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    train.main(["--out", "runs/demo"])
    printed = capsys.readouterr().out
    got, shown = cells(printed), cells(text_after("make demo"))
    assert f"within {SPREAD} points" in README and list(got) == list(shown) and len(got) == 3
    for row, numbers in shown.items():
        for here, there in zip(got[row], numbers):
            assert abs(here - there) <= SPREAD, (row, got[row], numbers)
    assert got["trained"][2] <= got["untrained CLIP, frames averaged"][2] - 5             # what specialising costs
    line = next(line for line in printed.splitlines() if line.startswith("step "))
    shown = next(text for kind, text in BLOCKS if text.startswith("step "))
    assert re.sub(r"[\d.e+-]+", "#", line.strip()) == re.sub(r"[\d.e+-]+", "#", shown.strip())
    evaluation.main(["--checkpoint", "runs/demo", "--data", "toyworld-novel"])
    got, shown = (re.sub("checkpoint [0-9a-f]{8}", "", text).splitlines() for text in (
        capsys.readouterr().out, text_after("eval.py --checkpoint runs/demo --data toyworld-novel")))
    assert got[:2] == shown[:2]                                               # the protocol, to the digit
    for here, there in zip(got[2:], shown[2:], strict=True):
        pairs = zip(re.findall(r"[\d.]+", here), re.findall(r"[\d.]+", there), strict=True)
        assert all(abs(float(a) - float(b)) <= SPREAD for a, b in pairs if "." in a)
