"""
tools/toyworld/table.py: a row for each recipe, by hand; what a run's line holds; what is refused.

Must be true: runs of different recipes, or under different conditions, are never averaged; a recipe without a name is
shown by the flags that give it; a refusal is one line and leaves the file as it was. On folders of runs as train.py
leaves them, with a config that train.py itself parsed.
"""
import json
import os
import re
import shlex
from dataclasses import asdict

import pytest
import torch

import train
from tools.toyworld import table

UNTRAINED = {"toyworld": 15.0, "toyworld-novel": 20.0}


@pytest.fixture
def make_run(tmp_path):
    """A folder as train.py leaves it. top1: without modulation, on both sets; with it, 10 less."""
    numbers = iter(range(100))

    def make(*flags, top1=50.0, seed=0, torch_version="2.14.1", untrained=UNTRAINED):
        folder = tmp_path / f"run{next(numbers)}"
        folder.mkdir()
        config = asdict(train.parse_config(["--threads", "1", "--seed", str(seed), "--out", str(folder), *flags]))
        torch.save({"config": config, "torch": torch_version}, folder / "last.pt")
        rows = {"untrained CLIP, frames averaged": untrained, "trained": dict.fromkeys(untrained, top1),
                "trained, with modulation": dict.fromkeys(untrained, top1 - 10)}
        (folder / "results.json").write_text(json.dumps(rows))
        return str(folder)
    return make


@pytest.fixture
def file(tmp_path):
    return tmp_path / "runs.jsonl"


def rows_of(text: str) -> dict[str, list[str]]:
    """The table's rows, the header among them: first cell -> the others."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:2] == "| "]
    assert len({row[0] for row in rows}) == len(rows)
    return {row[0]: row[1:] for row in rows}


def lines_of(file) -> list[dict]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def add(file, *runs) -> str:
    return table.main(["--file", str(file), "--add", *runs])


# --- a run's line -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("flags, weights, rates", [
    ([], (0.5, 0.1), (3e-3, 4e-4)),
    (["--experts", "1"], (0, 0), (3e-3, 4e-4)),
    (["--experts", "1", "--weight-mse", "0.1"], (0, 0.1), (3e-3, 4e-4)),
    (["--weight-merged", "0.3", "--weight-mse", "0.7", "--lr", "0.5", "--clip-lr", "0.2"], (0.3, 0.7), (0.5, 0.2)),
])
def test_a_line_has_the_weights_and_rates_of_its_run(make_run, file, flags, weights, rates):
    add(file, make_run(*flags))
    [line] = lines_of(file)
    assert (line["weight_merged"], line["weight_mse"]) == weights
    assert (line["lr"], line["clip_lr"]) == rates


def test_a_line_has_what_else_changes_the_numbers_and_nothing_that_does_not(make_run, file):
    add(file, make_run("--routing", "uniform", "--flip", "--workers", "7", "--keep", "9"), make_run(seed=5))
    changed, default = lines_of(file)
    assert (changed.pop("routing"), changed.pop("flip")) == ("uniform", True)
    assert changed.keys() == default.keys()
    assert default.keys() == {"experts", "weight_merged", "weight_mse", "lr", "clip_lr", "seed", "epochs", "threads",
                              "results", "torch", "machine", "date"}


def test_every_line_of_the_shipped_file_has_the_recipe_of_its_command():
    commands = {name: train.parse_config(shlex.split(flags)) for name, flags in RECIPES.items()}
    for line in lines_of(table.FILE):
        name = table.name_of(table.recipe_of(line))
        assert all(line[flag] == getattr(commands[name], flag) for flag in table.RECIPE), line


# --- rows ---------------------------------------------------------------------------------------------------------
RECIPES = {"plain transformer (E = 1)": "--experts 1",
           "plain transformer (E = 1) with L_MSE": "--experts 1 --weight-mse 0.1",
           "experts alone (E = 4, L_TE only)": "--weight-merged 0 --weight-mse 0",
           "MoTE (E = 4)": ""}
RECIPES |= {f"{name}, `--lr 6e-3`": f"{flags} --lr 6e-3" for name, flags in RECIPES.items()}


def test_each_recipe_has_its_two_rows_in_order(make_run, file):
    """All at once, added in another order, one value each; untrained CLIP once."""
    runs = {name: make_run(*shlex.split(flags), top1=20.0 + i) for i, (name, flags) in enumerate(RECIPES.items())}
    rows = rows_of(add(file, *reversed(runs.values())))
    names = [row for name in RECIPES for row in (name, f"{name}, with modulation")]
    assert list(rows) == ["top-1, per cent", "untrained CLIP, frames averaged", *names]
    assert rows["untrained CLIP, frames averaged"] == ["15.0", "20.0"]
    for i, name in enumerate(RECIPES):
        assert rows[name] == [f"{20 + i}.0"] * 2 and rows[f"{name}, with modulation"] == [f"{10 + i}.0"] * 2


def test_a_row_is_the_mean_and_range_over_seeds(make_run, file):
    rows = rows_of(add(file, *(make_run(seed=seed, top1=top1) for seed, top1 in enumerate((40.0, 50.0, 90.0)))))
    assert rows["MoTE (E = 4)"] == ["60.0 (40.0 to 90.0)"] * 2
    assert rows["MoTE (E = 4), with modulation"] == ["50.0 (30.0 to 80.0)"] * 2


@pytest.mark.parametrize("flags", [
    "--experts 3", "--experts 1 --weight-merged 0.5 --weight-mse 0.1", "--weight-merged 0", "--weight-mse 0",
    "--weight-mse 0.2", "--lr 0.001", "--clip-lr 0.0001", "--experts 1 --lr 0.001", "--routing uniform", "--layers 2",
    "--beta 0.8", "--flip", "--batch 16", "--warmup 2.0", "--no-flip --frames 4"])
def test_a_recipe_without_a_name_has_a_row_named_by_flags_that_give_it(flags, make_run, file):
    text = add(file, make_run(), make_run("--experts", "1"), make_run(*shlex.split(flags), top1=80.0))
    rows = rows_of(text)
    assert rows["MoTE (E = 4)"] == rows["plain transformer (E = 1)"] == ["50.0"] * 2
    [name] = [row for row, cells in rows.items() if cells == ["80.0"] * 2]
    asked = train.parse_config(shlex.split(re.fullmatch("`(.*)`", name)[1]))
    assert asdict(asked) == asdict(train.parse_config(shlex.split(flags)))


def test_a_variant_of_structure_is_another_recipe(make_run, file):
    """As tools/ablations.py leaves it: a field that train.py has not."""
    folder = make_run(top1=80.0)
    checkpoint = torch.load(f"{folder}/last.pt", weights_only=True)
    checkpoint["config"]["variant"] = "same-init"
    torch.save(checkpoint, f"{folder}/last.pt")
    rows = rows_of(add(file, make_run(), folder))
    assert rows["MoTE (E = 4)"] == ["50.0"] * 2
    assert [name for name in rows if "--variant same-init" in name and "modulation" not in name]


# --- seeds and conditions -----------------------------------------------------------------------------------------
def test_seeds_stand_below_the_table_where_all_rows_share_them(make_run, file):
    text = add(file, *(make_run(*flags, seed=seed) for flags in ([], ["--experts", "1"]) for seed in (2, 0)))
    assert rows_of(text)["top-1, per cent"] == list(UNTRAINED)
    assert text.splitlines()[-1].startswith("Seeds 0, 2; torch 2.14.1, ")


def test_seeds_stand_in_the_rows_where_they_differ(make_run, file):
    text = add(file, make_run(seed=0), make_run(seed=1), make_run("--experts", "1", seed=0))
    rows = rows_of(text)
    assert rows["top-1, per cent"] == ["seeds", *UNTRAINED]
    assert {name: row[0] for name, row in rows.items()} == {
        "top-1, per cent": "seeds", "untrained CLIP, frames averaged": "",
        "plain transformer (E = 1)": "0", "plain transformer (E = 1), with modulation": "0",
        "MoTE (E = 4)": "0, 1", "MoTE (E = 4), with modulation": "0, 1"}
    assert text.splitlines()[-1].startswith("Torch 2.14.1, ") and "Seeds" not in text


def test_the_days_are_those_of_the_first_and_the_last_run(make_run, file):
    runs = [make_run(seed=seed) for seed in range(3)]
    for run, day in zip(runs, (3, 1, 2)):
        os.utime(f"{run}/results.json", (day * 86400, day * 86400))
    assert add(file, *runs).endswith(", 1970-01-02 to 1970-01-04.")


def one_line(capsys) -> str:
    """What was said, which must be one line."""
    said = capsys.readouterr()
    assert said.err.count("\n") == 1 and said.err.startswith("table.py: error: ") and not said.out
    return said.err


@pytest.mark.parametrize("flags, other, said", [
    ([], {"torch_version": "2.15.0"}, r"run1 has torch 2\.15\.0, line 1 of \S+ has 2\.14\.1: a table is of one"),
    (["--epochs", "2"], {}, "has epochs 2, line 1 of .* has 16"),
    (["--threads", "2"], {}, "has threads 2, line 1 of .* has 1"),
    ([], {"untrained": {"toyworld": 15.0, "toyworld-novel": 20.3}}, "other numbers of the untrained CLIP than line 1"),
    ([], {"untrained": {"toyworld": 15.0}}, "other numbers of the untrained CLIP than line 1"),
])
def test_a_run_under_other_conditions_is_refused_and_the_file_kept(flags, other, said, make_run, file, capsys):
    add(file, make_run())
    before = file.read_bytes()
    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped:
        add(file, make_run(*flags, seed=1, **other))
    assert stopped.value.code == 2 and re.search(said, one_line(capsys)) and file.read_bytes() == before


def test_a_run_of_another_machine_is_refused(make_run, file, capsys, monkeypatch):
    add(file, make_run())
    capsys.readouterr()
    monkeypatch.setattr(table.os, "cpu_count", lambda: 99)
    with pytest.raises(SystemExit):
        add(file, make_run(seed=1))
    assert re.search("has machine .*, 99 cores, line 1 of .* has ", one_line(capsys))


def test_lines_of_different_conditions_that_are_in_the_file_are_refused_too(make_run, file, capsys):
    add(file, make_run())
    [line] = lines_of(file)
    file.write_text("".join(json.dumps({**line, "seed": seed, "torch": f"2.{seed}"}) + "\n" for seed in (3, 4)))
    capsys.readouterr()
    with pytest.raises(SystemExit):
        table.main(["--file", str(file)])
    assert re.search(r"line 2 of \S+ has torch 2\.4, line 1 of \S+ has 2\.3", one_line(capsys))


def test_a_run_that_is_there_already_is_refused(make_run, file, capsys):
    add(file, make_run(seed=3), make_run("--experts", "1", seed=3))
    before = file.read_bytes()
    capsys.readouterr()
    with pytest.raises(SystemExit):
        add(file, make_run(seed=3, top1=60.0))
    assert re.search(r"run2 is line 1 of \S+ again: MoTE \(E = 4\), seed 3", one_line(capsys))
    assert file.read_bytes() == before


def test_a_line_without_its_weights_is_refused(make_run, file, capsys):
    add(file, make_run())
    [line] = lines_of(file)
    del line["weight_mse"]
    file.write_text(json.dumps(line) + "\n")
    capsys.readouterr()
    with pytest.raises(SystemExit):
        table.main(["--file", str(file)])
    assert "line 1 of" in (said := one_line(capsys)) and "does not say its weight_mse" in said


def test_a_run_that_has_not_ended_is_refused(make_run, file, capsys):
    folder = make_run()
    os.remove(f"{folder}/results.json")
    with pytest.raises(SystemExit):
        add(file, folder)
    assert "run0 has no results.json: a run writes it when it ends" in one_line(capsys) and not file.exists()
