"""
README.md and each page in docs/ are true: commands run, files and names exist, links lead somewhere, tables are new.

Commands are run as written, but for what would take hours or a download: those get a tiny model and a miniature of the
dataset appended to the same flags. A command that several pages have is run once. `make demo` and `make test` are
.ci/run's. What README.md alone says: tests/scripts/test_readme.py; the commands in the tables of the paper's numbers:
tests/scripts/test_tables.py; the Slurm script: test_clusters.py; the commands for each kind of tower: test_towers.py.
"""
import contextlib
import importlib
import io
import re
import shutil
from dataclasses import fields
from pathlib import Path

import pytest
from support.checkpoints import expressible
from support.clips import TINY as TINY_CLIP
from support.clips import openai_state_dict, save_archive
from support.pages import PAGES, anchors, block_after, blocks, commands, links, parse_command, prose
from support.places import ROOT

import eval as evaluation
import train
from mote.clip_backbone import build_clip
from mote.datasets.finding_lists import PLACES
from mote.datasets.folders import SIDES, VIDEO_ENDINGS
from mote.runtime.checkpoints import save_checkpoint
from mote.runtime.options import flag

COMMANDS = list(dict.fromkeys(command for text in PAGES.values() for command in commands(text)))
# On tiny files of the kinds that they name: test_towers.py.
TOWERS = [command for command in commands(PAGES["docs/towers.md"]) if " --data-root " in command]
RUN_HERE = [command for command in COMMANDS
            if not command.startswith(("make ", "sbatch ", "pip ")) and command not in TOWERS]
SCRIPTS = {"eval.py", "train.py", "tools/toyworld/pretrain.py", "tools/picture.py", "tools/toyworld/table.py",
           "tools/check.py", "tools/prepare.py", "tools/convert.py", "tools/compare.py", "tools/bench/speed.py",
           "tools/doctor.py", "tools/size.py", "tests/torture/run.py", "tests/support/footage.py",
           "tests/survey/run.py"}
TINY = ["--backbone", "toyworld", "--pretrained", "toyworld", "--threads", "1", "--workers", "0", "--device", "cpu"]
# Command -> the page that must show what it prints. None: whichever page has the command.
TABLES = {"python tools/bench/speed.py --table": "docs/speed.md",
          "python tests/torture/run.py --table": "docs/reliability.md",
          "python tests/support/footage.py": "docs/data.md",
          "python tests/survey/run.py --table families": "docs/towers.md",
          "python tests/survey/run.py --table pixels": "docs/towers.md",
          "python tools/toyworld/table.py": None}
NUMBER = r"[\d.]+(e[+-]\d+)?"


@pytest.fixture(scope="module")
def place(world, tmp_path_factory):
    """A folder like a fresh clone after a (much shorter) `make demo`, with miniatures of the datasets named.

    Its log.txt is what the training printed.
    """
    folder = tmp_path_factory.mktemp("clone")
    (folder / "data").symlink_to(world)
    for name in ("tools", "mote"):
        (folder / name).symlink_to(ROOT / name)
    shutil.copytree(world / "toyworld", folder / "DIR")
    videos = world / "toyworld" / "videos"
    shutil.copy(videos / "val_star_moving_left_0.mp4", videos / "val_star_moving_left_3.mp4")
    shutil.copy(videos / "val_star_moving_left_0.mp4", folder / "CLIP.mp4")
    copy_own_clips(sorted(videos.glob("train_*.mp4")), folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            train.main([*TINY, "--data", "toyworld", "--zero-shot", "toyworld-novel", "--epochs", "1", "--batch", "16",
                        "--layers", "1", "--out", "RUN"])
        Path("log.txt").write_text(printed.getvalue())
        for run in ("runs/demo", "runs/mine"):
            shutil.copytree("RUN", run)
        yield folder


def copy_own_clips(videos: list[Path], folder: Path) -> None:
    """Make the folder of clips that docs/data.md shows, from videos of which no two are alike."""
    shown = re.findall(r"^(\S+)/(\d+)(\.\w+) \.\.\. (\d+)\.\w+$", PAGES["docs/data.md"], flags=re.M)
    for place, first, ending, last in shown:
        (folder / place).mkdir(parents=True)
        for number in range(int(first), int(last) + 1):
            shutil.copy(videos.pop(), folder / place / f"{number:0{len(first)}d}{ending}")


# --- commands -------------------------------------------------------------------------------------
def test_every_command_is_known_to_these_tests():
    assert {parse_command(command).script for command in RUN_HERE} <= SCRIPTS
    made = {command for command in COMMANDS if command.startswith("make ")}
    ci = (ROOT / ".ci/run").read_text()
    for command in made:
        assert re.search(f"^{re.escape(command)}( |$)", ci, flags=re.M), f"{command} is not in .ci/run"
    for command in COMMANDS:
        if command.startswith("sbatch "):
            assert command in PAGES["docs/clusters.md"]                       # test_clusters.py runs its script
        if command.startswith("pip "):                                        # .ci/run's make does, with the extras
            assert command in ("pip install -e .", 'pip install -e ".[towers]"')
            assert 'pip install --quiet -e ".[dev]"' in (ROOT / "Makefile").read_text()
            assert re.search(r"^dev = .*[\[,]towers[\],]", (ROOT / "pyproject.toml").read_text(), flags=re.M)


@pytest.mark.parametrize("command", RUN_HERE)
def test_the_command_runs(command, place, world, monkeypatch, tmp_path):
    monkeypatch.chdir(place)
    _, _, script, args = parse_command(command)
    if "openai" in args:
        assert evaluation.parse_config(args).pretrained == "openai"           # a download: its flags are read, no more
    elif script == "eval.py":
        assert evaluation.main([*args, "--workers", "0", "--device", "cpu"])
    elif script == "train.py":
        run_training(args, tmp_path / "run")
    elif f"python {script} {' '.join(args)}".strip() in TABLES:
        pass                                                                  # below, with what it prints
    else:
        run_tool(script, args, tmp_path, monkeypatch)


def run_training(args: list[str], out: Path) -> None:
    """Whatever a command says of accumulation and datasets is kept; its batch must divide as it does there."""
    asked = train.parse_config(args)
    if "--data" not in args:
        assert asked.data == (Path(asked.data_root).name or "toyworld")
    parts = asked.accumulate
    assert asked.batch % parts == 0
    batch = str(parts * max(1, 16 // parts))
    small = ["--epochs", "1", "--layers", "1", "--batch", batch, "--zero-shot", "", "--out", str(out)]
    rows = train.main([*args, *TINY, *small])
    assert list(rows) == ["untrained CLIP, frames averaged", "trained", "trained, with modulation"]


def run_tool(script: str, args: list[str], tmp_path: Path, monkeypatch) -> None:
    if script == "tools/picture.py":
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


def prepare_for(tool: str, tmp_path: Path, monkeypatch) -> list[str]:
    """What a tool's command needs to be there, made small. -> flags to add"""
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
            "tests/survey/run.py": ["RN50", "--file", str(tmp_path / "towers.jsonl")],
            "tools/bench/speed.py": ["views", "--quick"], "tools/doctor.py": TINY[:4]}.get(tool, [])


def test_torchrun_divides_the_batch_of_every_training():
    """On as many ranks as the page says, which no test here has."""
    for command in RUN_HERE:
        _, launcher, script, args = parse_command(command)
        if script == "train.py" and launcher:
            options = dict(zip(launcher[::2], launcher[1::2]))
            ranks = int(options.get("--nnodes", 1)) * int(options["--nproc-per-node"])
            asked = train.parse_config(args)
            assert asked.batch % (ranks * asked.accumulate) == 0, command


# --- what is shown --------------------------------------------------------------------------------
@pytest.mark.parametrize("command", [
    pytest.param(command, marks=pytest.mark.slow if "footage" in command else ()) for command in TABLES])
def test_a_table_is_what_its_command_prints_on_the_page_that_has_the_command(command, capsys):
    _, _, script, args = parse_command(command)
    returned = module_of(script).main(args)
    printed = capsys.readouterr().out.strip() or returned.strip()
    shown = [page for page, text in PAGES.items() if command in commands(text)]
    assert TABLES[command] in shown if TABLES[command] else shown
    for page in shown:
        assert printed and printed in PAGES[page], f"{page}: other than what {command} prints"


def test_the_walk_through_twenty_clips_prints_what_the_page_shows(place, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(place)
    page = PAGES["docs/data.md"]
    check, = (command for command in commands(page) if "check.py --data-root my-" in command)
    assert module_of("tools/check.py").main([*parse_command(check).args, "--out", str(tmp_path / "checked")]) == 0
    printed = [line for line in capsys.readouterr().out.splitlines() if line]
    assert printed[:3] == block_after(page, check).splitlines()

    training, = (command for command in commands(page) if "train.py --data-root my-" in command)
    args = parse_command(training).args
    out = args[args.index("--out") + 1]
    train.main([*args, *TINY, "--epochs", "1", "--layers", "1", "--out", str(tmp_path / "run")])
    printed = capsys.readouterr().out.replace(str(tmp_path / "run"), out).splitlines()
    assert set(block_after(page, training).splitlines()) <= set(printed)


def test_the_log_line_that_is_explained_has_the_form_of_one_that_is_printed(place):
    shown, = {line for text in PAGES.values() for _, block in blocks(text) for line in block.splitlines()
              if line.startswith("step ")}
    printed = next(line for line in (place / "log.txt").read_text().splitlines() if line.startswith("step "))
    assert re.sub(NUMBER, "#", printed) == re.sub(NUMBER, "#", shown)


def test_the_files_of_a_runs_folder_are_those_that_the_page_names(place):
    row = re.findall(r"^\| ((?:`[\w.]+`(?:, )?)+) \|", PAGES["docs/reliability.md"], flags=re.M)
    named = {name for names in row for name in re.findall(r"`(\w+\.\w+)`", names)}
    files = {re.sub(r"step_\d+", "step_N", file.name) for file in (place / "RUN").iterdir()}
    written = files - {"results.png", ".lock"}
    assert written | {"best.pt", "best.json", "skipped.txt", "refused.jsonl"} == named


# --- names ----------------------------------------------------------------------------------------
@pytest.mark.parametrize("page", PAGES)
def test_every_file_that_a_page_mentions_exists(page):
    mentioned = re.findall(r"(?<![\w/.])((?:mote|tools|tests|results|docs)/[\w./]*\w\.(?:py|md|svg|jsonl|json|pt|txt))",
                           PAGES[page])
    for path in mentioned:
        assert (ROOT / path).is_file(), f"{page}: {path}"


@pytest.mark.parametrize("page", PAGES)
def test_every_name_that_a_page_gives_with_its_file_is_in_that_file(page):
    """As in: merging.py `merging_weights`, `merge`. A test's name may stand alone."""
    sources = source_files()
    for file, names in re.findall(r"(?<![\w/])(?:[\w/]+/)?(\w+\.py) ((?:`\w+`(?:, | and )?)+)", prose(PAGES[page])):
        for name in re.findall(r"\w+", names.replace(" and ", " ")):
            texts = [source.read_text() for source in sources if source.name == file]
            assert any(re.search(rf"\b{name}\b", text) for text in texts), f"{page}: {file} {name}"
    for test in re.findall(r"`(test_\w+)`", PAGES[page]):
        assert any(f"def {test}(" in source.read_text() for source in sources), f"{page}: {test}"


def source_files() -> list[Path]:
    return [ROOT / "train.py", ROOT / "eval.py",
            *(file for folder in ("mote", "tools", "tests") for file in (ROOT / folder).rglob("*.py"))]


@pytest.mark.parametrize("page", PAGES)
def test_every_option_that_a_page_names_is_one_of_a_script_or_of_torchrun(page):
    from torch.distributed.run import get_args_parser
    known = {flag(one.name) for config in (train.Config, evaluation.Config) for one in fields(config)}
    known |= {option for action in get_args_parser()._actions for option in action.option_strings}
    known |= {"--help", "--device"}
    for file in (ROOT / "tools").rglob("*.py"):
        known |= set(re.findall(r"[\"'](--[a-z][\w-]+)[\"']", file.read_text()))
    known |= set(re.findall(r"#SBATCH (--[\w-]+)", PAGES["docs/clusters.md"]))
    known |= set(re.findall(r"\"(--[a-z][\w-]+)\"", (ROOT / "tests/torture/run.py").read_text()))
    for code in re.findall(r"`([^`\n]+)`", prose(PAGES[page])):
        for option in re.findall(r"(?<![\w-])--[a-z][\w-]*", code):
            plain = option.replace("--no-", "--")
            assert option in known or plain in known, f"{page}: {option}"


def test_the_page_on_data_names_every_place_ending_and_side_that_the_code_looks_for():
    page = PAGES["docs/data.md"]
    for name in (*filter(None, PLACES), *VIDEO_ENDINGS, *SIDES["train"], *SIDES["val"]):
        assert f"`{name}`" in page or f"/{name}/" in page, name


# --- links ----------------------------------------------------------------------------------------
@pytest.mark.parametrize("page", PAGES)
def test_every_relative_link_of_a_page_resolves_and_so_does_its_anchor(page):
    for target in links(PAGES[page]):
        path, _, anchor = target.partition("#")
        file = (ROOT / page).parent / path if path else ROOT / page
        assert file.exists(), f"{page}: {target}"
        if anchor:
            assert anchor in anchors(file.read_text()), f"{page}: no heading for {target}"
