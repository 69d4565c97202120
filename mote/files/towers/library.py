"""
transformers, the library that some towers need and mote does not: is it there, and is it quiet.

    check_installed(package, option)     one line with what to install, in place of an ImportError
    quiet()                              what it logs stays out of the terminal

Copy alone: needs nothing, and transformers inside quiet(). Not part of the paper.
"""
import contextlib
import importlib.util
from collections.abc import Iterator

INSTALL = 'pip install "mote-video[towers]"'


def check_installed(package: str, option: str) -> None:
    """Raise ValueError where a package is missing. option: what needs it, in words."""
    try:
        found = importlib.util.find_spec(package)
    except ModuleNotFoundError:              # google, of google.protobuf
        found = None
    if found is None:
        package = package.removeprefix("google.")
        raise ValueError(f"{option}: {package} reads it, and is not installed: "
                         f"pip install {package}, or {INSTALL}")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without what transformers logs: what is wrong raises an error.

    It warns of every SigLIP that Google has published, since its ids of special tokens are CLIP's,
    and of formats of a tokenizer that it tries in vain.
    """
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)
