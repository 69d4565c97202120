"""
Command-line options: a script's frozen dataclass becomes its parser, a mistake one line.

    @dataclass(frozen=True)
    class Config:
        lr: float = option(5e-5, "peak learning rate")             ->    --lr 5e-5
        flip: bool = option(True, "horizontal flips")              ->    --flip, --no-flip

Not part of the paper.
"""
import argparse
import importlib.util
import math
import shlex
import sys
from collections.abc import Callable
from dataclasses import field, fields
from pathlib import Path
from typing import Any


class Help(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """The script's docstring as it stands, and the default of every option."""


def plain_errors(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Make a parser raise ValueError, for `one_line_errors`, in place of printing its usage."""
    def error(message: str):
        raise ValueError(message)

    parser.formatter_class = Help
    parser.error = error
    return parser


def option(default, help: str, least: float = 0, above: float = -math.inf,
           most: float = math.inf, choices: tuple | None = None, needs: str = "") -> Any:
    """A field of a configuration. A number must be finite, at least `least`, above `above`, at
    most `most`: it is not negative unless its field says so. choices: the values allowed.
    needs: a package, for a switch that works only where it is installed.
    """
    rules = {"help": help, "least": least, "above": above, "most": most, "choices": choices,
             "needs": needs}
    return field(default=default, metadata=rules)


def positive(default, help: str) -> Any:
    """An option that must be at least 1."""
    return option(default, help, least=1)


def flag(name: str) -> str:
    """The option of a field.

    >>> flag("clip_lr")
    '--clip-lr'
    """
    return "--" + name.replace("_", "-")


def parser_for(config_class: type, script: str, description: str) -> argparse.ArgumentParser:
    """An argparse parser with one option for each field of a configuration."""
    parser = argparse.ArgumentParser(script, description=description, allow_abbrev=False)
    parser = plain_errors(parser)
    for one in fields(config_class):
        if one.type is bool:
            kind = {"action": argparse.BooleanOptionalAction}
        else:
            kind = {"type": one.type, "choices": one.metadata["choices"]}
        parser.add_argument(flag(one.name), default=one.default, help=one.metadata["help"], **kind)
    return parser


def parse(config_class: type, script: str, description: str, recipes: tuple[Callable, ...] = (),
          argv: list[str] | None = None):
    """Command line -> configuration. Raises ValueError, one line, for a mistake.

    recipes: functions from what is given so far to defaults that go with it, as a dict. They are
    asked in turn, and an earlier one's defaults stand. --help shows the defaults in force.
    """
    parser = parser_for(config_class, script, description)
    argv = joined(sys.argv[1:] if argv is None else argv, config_class)
    without_help = [word for word in argv if word not in ("-h", "--help")]
    decided: dict = {}
    for recipe in recipes:
        given, _ = parser.parse_known_args(without_help)
        decided = {**recipe(given), **decided}
        parser.set_defaults(**decided)
    config = config_class(**vars(parser.parse_args(argv)))
    check_ranges(config)
    check_packages(config)
    return config


def differences(config, recipes: tuple[Callable, ...]) -> str:
    """The options that are not the defaults in force, as a command line has them.

    recipes: as `parse` takes them, here asked what goes with the configuration. --data is left out:
    it chooses the recipe.
    """
    defaults: dict = {}
    for recipe in recipes:
        defaults = {**recipe(config), **defaults}
    words = []
    for one in fields(config):
        value = getattr(config, one.name)
        if one.name == "data" or value == defaults.get(one.name, one.default):
            continue
        if one.type is bool:
            words.append(flag(one.name if value else f"no-{one.name}"))
        else:
            words += [flag(one.name), str(value)]
    return shlex.join(words)


def joined(argv: list[str], config_class: type) -> list[str]:
    """The words of a command line, where a text that begins with a dash is joined to its option.

    argparse would take it for an option: many YouTube ids begin with a dash. Options stay as they
    are, and so does a word with two dashes unless a file has that name. --video -3B32lodo2M.mp4
    becomes --video=-3B32lodo2M.mp4.
    """
    flags = {flag(one.name) for one in fields(config_class)}
    flags |= {flag(f"no-{one.name}") for one in fields(config_class)} | {"-h", "--help"}
    texts = {flag(one.name) for one in fields(config_class) if one.type is str}

    words: list[str] = []
    for word in argv:
        is_text = word.startswith("-") and word.partition("=")[0] not in flags
        if word.startswith("--") and not Path(word).exists():
            is_text = False
        if is_text and words and words[-1] in texts:
            words[-1] += f"={word}"
        else:
            words.append(word)
    return words


def comma_separated(text: str) -> list[str]:
    """
    >>> comma_separated("ucf101, k600,")
    ['ucf101', 'k600']
    """
    return [name.strip() for name in text.split(",") if name.strip()]


def check_ranges(config) -> None:
    """Raise ValueError for a number that is not finite, or outside what its field allows."""
    for one in fields(config):
        if one.type not in (int, float):
            continue
        value = getattr(config, one.name)
        least, above, most = (one.metadata[rule] for rule in ("least", "above", "most"))
        if not math.isfinite(value):
            raise ValueError(f"{flag(one.name)} must be a number, got {value}")
        if value < least or value <= above or value > most:
            lowest = f"above {above:g}" if above >= least else f"of at least {least:g}"
            highest = f" and at most {most:g}" if most < math.inf else ""
            raise ValueError(f"{flag(one.name)} must be a number {lowest}{highest}, got {value}")


def check_packages(config) -> None:
    """Raise ValueError for a switch that is on and whose package is not installed."""
    for one in fields(config):
        package = one.metadata["needs"]
        if package and getattr(config, one.name) and importlib.util.find_spec(package) is None:
            raise ValueError(f"{flag(one.name)} needs the package {package}: pip install {package}")
