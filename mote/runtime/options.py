"""
Command-line options: one parser for scripts and tools, whose mistakes are one line. Not part of the paper.
"""
import argparse


class Help(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """The script's docstring as it stands, and the defaults."""


def plain_errors(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Make a parser raise ValueError, for `one_line_errors`, where it would print its usage and exit."""
    parser.formatter_class = Help
    def error(message: str):
        raise ValueError(message)
    parser.error = error
    return parser
