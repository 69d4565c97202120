"""
A dataclass becomes a command line: recipes give defaults, the user's word wins, a mistake is one line.

Checked on a configuration made for it, each number by hand. The recipes of train.py: test_recipes.py.
"""
import math
import shlex
from argparse import Namespace
from dataclasses import asdict, dataclass

import pytest

import train
from mote.runtime.options import (
    check_ranges,
    comma_separated,
    differences,
    flag,
    option,
    parse,
    positive,
)
from mote.runtime.recipes import RECIPES


@dataclass(frozen=True)
class Config:
    name: str = option("", "a name")
    size: str = option("small", "a size", choices=("small", "large"))
    layers: int = option(4, "how many")
    workers: int = positive(2, "how many at least")
    clip_lr: float = option(0.5, "a rate")
    beta: float = option(0.6, "a unit", least=1e-6)
    min_area: float = option(0.08, "a part", above=0, most=1)
    shift: float = option(0.0, "either side of 0", least=-math.inf)
    flip: bool = option(True, "or not")


def parsed(*argv: str, recipes: tuple = ()) -> Config:
    return parse(Config, "tool.py", "What it does.", recipes, list(argv))


def refused(*argv: str) -> str:
    with pytest.raises(ValueError) as raised:
        parsed(*argv)
    message = str(raised.value)
    assert len(message.splitlines()) == 1
    return message


# --- fields to options ----------------------------------------------------------------------------
def test_without_options_a_configuration_has_its_defaults():
    assert parsed() == Config()


def test_each_field_is_an_option_of_its_type():
    config = parsed("--name", "a b", "--size", "large", "--layers", "7", "--workers=1", "--clip-lr", "1e-3",
                    "--beta", "2", "--min-area", "1", "--shift", "-3", "--no-flip")
    assert asdict(config) == {"name": "a b", "size": "large", "layers": 7, "workers": 1, "clip_lr": 0.001, "beta": 2.0,
                              "min_area": 1.0, "shift": -3.0, "flip": False}
    assert parsed("--no-flip", "--flip").flip is True and flag("clip_lr") == "--clip-lr"


@pytest.mark.parametrize("text", ["-3B32lodo2M.mp4", "-x", "-clip.mp4", "-1", "--no video.mp4"])
def test_a_text_may_begin_with_a_dash(tmp_path, monkeypatch, text):
    """YouTube's names do. One of two dashes must be a file."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / text).touch()
    assert parsed("--name", text, "--layers", "3") == parsed(f"--name={text}", "--layers=3") == Config(text, layers=3)
    assert parsed("--layers", "3", "--name", text).name == text


@pytest.mark.parametrize("argv, words", [
    (["--name", "--layers", "3"], "--name: expected one argument"), (["--name", "--no-flip"], "expected one argument"),
    (["--name", "--lyers", "3"], "--name: expected one argument"), (["--name"], "expected one argument"),
    (["--layers", "-x"], "--layers: "), (["-x"], "unrecognized arguments: -x")])
def test_an_option_is_no_text(argv, words):
    assert words in refused(*argv)


@pytest.mark.parametrize("argv, words", [
    (["--layer", "3"], "unrecognized arguments: --layer 3"),                 # no abbreviations
    (["--layers", "3.5"], "--layers: invalid int value: '3.5'"), (["--layers"], "--layers: expected one argument"),
    (["--size", "huge"], "invalid choice: 'huge'"), (["3"], "unrecognized arguments: 3")])
def test_what_cannot_be_parsed_is_one_line_that_names_it(argv, words):
    assert words in refused(*argv)


def test_the_command_line_is_the_processes_own_where_none_is_given(monkeypatch):
    monkeypatch.setattr("sys.argv", ["tool.py", "--layers", "9"])
    assert parse(Config, "tool.py", "").layers == 9


def test_names_between_commas():
    assert comma_separated(" a,b c ,, ") == ["a", "b c"] and comma_separated("") == []


# --- recipes --------------------------------------------------------------------------------------
def by_name(given: Namespace) -> dict:
    return {"layers": 6, "size": "large"} if given.name == "big" else {}


def by_size(given: Namespace) -> dict:
    return {"layers": 9, "workers": 8} if given.size == "large" else {}


BOTH = (by_name, by_size)


@pytest.mark.parametrize("argv, layers, workers", [
    ([], 4, 2),                                                  # no recipe has anything to say
    (["--name", "big"], 6, 8),                                   # 6 of the earlier one; 8, for it made the size large
    (["--size", "large"], 9, 8),                                 # the later one alone
    (["--name", "big", "--size", "small"], 6, 2),                # the user's size: the later one is not asked for 8
    (["--name", "big", "--layers", "1"], 1, 8), (["--size", "large", "--layers", "1", "--workers", "3"], 1, 3)])
def test_an_earlier_recipes_default_stands_and_the_users_value_wins(argv, layers, workers):
    config = parsed(*argv, recipes=BOTH)
    assert (config.layers, config.workers) == (layers, workers)


@pytest.mark.parametrize("argv, given", [
    ([], ""), (["--layers", "4"], ""),                           # the default, given or not
    (["--name", "big"], "--name big"), (["--size", "large"], "--size large"),
    (["--name", "big", "--layers", "6"], "--name big"), (["--name", "big", "--layers", "4"], "--name big --layers 4"),
    (["--name", "two words"], "--name 'two words'"), (["--name", "big", "--size", "small"], "--name big --size small")])
def test_what_differs_from_the_recipe_is_a_command_line_that_gives_the_same_configuration(argv, given):
    config = parsed(*argv, recipes=BOTH)
    words = shlex.split(differences(config, BOTH))
    assert sorted(words) == sorted(shlex.split(given))
    assert parsed(*words, recipes=BOTH) == config


def test_a_switch_that_is_off_and_not_the_dataset_differs_from_the_recipe():
    config = train.parse_config(["--data", "k400", "--no-flip", "--compile"])
    assert differences(config, RECIPES) == "--no-flip --compile"
    assert differences(train.parse_config(["--data", "ssv2"]), RECIPES) == ""            # its recipe has no flips


def test_the_order_of_recipes_decides_and_not_that_of_the_options():
    assert parsed("--size", "large", "--name", "big", recipes=BOTH).layers == 6
    assert parsed("--size", "large", "--name", "big", recipes=BOTH[::-1]).layers == 9


@pytest.mark.parametrize("argv, layers", [([], 4), (["--name", "big"], 6), (["--size", "large"], 9)])
@pytest.mark.parametrize("ask", ["-h", "--help"])
def test_help_shows_the_defaults_in_force(capsys, argv, layers, ask):
    with pytest.raises(SystemExit) as left:
        parsed(ask, *argv, recipes=BOTH)
    words = " ".join(capsys.readouterr().out.split())
    assert left.value.code == 0 and words.startswith("usage: tool.py") and "What it does." in words
    assert f"--layers LAYERS how many (default: {layers})" in words


def test_a_default_of_a_recipe_is_checked_like_any_other():
    with pytest.raises(ValueError, match="--workers must be a number of at least 1, got 0"):
        parsed(recipes=(lambda _: {"workers": 0},))


# --- ranges ---------------------------------------------------------------------------------------
@pytest.mark.parametrize("name, value", [
    ("layers", 0), ("workers", 1), ("beta", 1e-6), ("min_area", 1e-9), ("min_area", 1.0), ("shift", -1e300),
    ("clip_lr", 0.0), ("clip_lr", 1e300)])
def test_a_number_at_the_edge_of_its_range_is_fine(name, value):
    check_ranges(Config(**{name: value}))


@pytest.mark.parametrize("name, value, message", [
    ("layers", -1, "--layers must be a number of at least 0, got -1"),
    ("workers", 0, "--workers must be a number of at least 1, got 0"),
    ("clip_lr", -1e-9, "--clip-lr must be a number of at least 0, got -1e-09"),
    ("beta", 9e-7, "--beta must be a number of at least 1e-06, got 9e-07"),
    ("min_area", 0.0, "--min-area must be a number above 0 and at most 1, got 0.0"),
    ("min_area", -0.5, "--min-area must be a number above 0 and at most 1, got -0.5"),
    ("min_area", 1.001, "--min-area must be a number above 0 and at most 1, got 1.001"),
    ("clip_lr", math.nan, "--clip-lr must be a number, got nan"),
    ("clip_lr", math.inf, "--clip-lr must be a number, got inf"),
    ("min_area", math.nan, "--min-area must be a number, got nan"),
    ("shift", -math.inf, "--shift must be a number, got -inf")])
def test_a_number_outside_its_range_is_one_line_that_says_the_rule(name, value, message):
    with pytest.raises(ValueError) as raised:
        check_ranges(Config(**{name: value}))
    assert str(raised.value) == message
    assert refused(f"{flag(name)}={value}") == message           # from the command line too


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_text_and_truth_have_no_range(value):
    check_ranges(Config(name=str(value), flip=False))
