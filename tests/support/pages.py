"""
The pages that a user reads, README.md and docs/*.md, as text; and what is in them: blocks, commands, links, anchors.
"""
import re
import shlex
from typing import NamedTuple

from support.places import ROOT

FILES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PAGES: dict[str, str] = {file.relative_to(ROOT).as_posix(): file.read_text() for file in FILES}

BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", flags=re.S | re.M)
LINK = re.compile(r"\]\(([^)\s]+)\)")


class Command(NamedTuple):
    """A command of a page, by its words: variables, `torchrun` and its options, a script, its arguments."""
    variables: dict[str, str]
    launcher: list[str]                          # [] for one that starts with python
    script: str
    args: list[str]


# --- what is in a page ----------------------------------------------------------------------------
def blocks(text: str) -> list[tuple[str, str]]:
    """The fenced blocks of a page: (kind, content). The kind is "sh", "text", "python", ... or ""."""
    return BLOCK.findall(text)


def prose(text: str) -> str:
    """A page without its fenced blocks."""
    return BLOCK.sub("", text)


def block_after(text: str, command: str) -> str:
    """The output that a page shows below a command: the text block after the sh block that has it."""
    found = blocks(text)
    i = next(i for i, (kind, content) in enumerate(found) if kind == "sh" and command in content)
    kind, content = found[i + 1]
    assert kind == "text", f"no output is shown after {command}"
    return content


def commands(text: str) -> list[str]:
    """The commands in a page's sh blocks, without comments. A line that ends in a backslash goes on in the next one.

    >>> commands("```sh\\nmake demo    # minutes\\npython a.py \\\\\\n    --b c\\n```")
    ['make demo', 'python a.py --b c']
    """
    lines: list[str] = []
    for kind, content in blocks(text):
        if kind == "sh":
            joined = re.sub(r" *\\\n *", " ", content)
            bare = [re.sub(r" +# .*$", "", line).strip() for line in joined.splitlines()]
            lines += [line for line in bare if line]
    return lines


def parse_command(command: str) -> Command:
    """The parts of a command that starts with python or torchrun. Raises SystemExit for a wrong option of torchrun.

    >>> tuple(parse_command("A=1 torchrun --nnodes 2 --nproc-per-node 8 train.py --batch 16"))
    ({'A': '1'}, ['--nnodes', '2', '--nproc-per-node', '8'], 'train.py', ['--batch', '16'])
    """
    words = shlex.split(command)
    variables = {}
    while "=" in words[0]:
        name, _, variables[name] = words.pop(0).partition("=")
    if words[0] == "python":
        return Command(variables, [], words[1], words[2:])

    assert words[0] == "torchrun", f"no command that these tests know: {command}"
    from torch.distributed.run import get_args_parser  # slow to import
    options = get_args_parser().parse_args(words[1:])
    args = options.training_script_args
    launcher = words[1:len(words) - len(args) - 1]
    return Command(variables, launcher, options.training_script, args)


# --- where a link leads ---------------------------------------------------------------------------
def links(text: str) -> list[str]:
    """The targets of a page's links that stay in the repository: "data.md#lists", "#lists", "../train.py"."""
    return [target for target in LINK.findall(prose(text)) if not re.match(r"\w+:", target)]


def anchors(text: str) -> set[str]:
    """What a link to a heading of a page may have after its #, as GitHub makes it.

    >>> sorted(anchors("# What was measured\\n## `make demo`, twice\\n## The run's folder"))
    ['make-demo-twice', 'the-runs-folder', 'what-was-measured']
    """
    found = set()
    for heading in re.findall(r"^#{1,6} +(.*?) *#*$", prose(text), flags=re.M):
        kept = re.sub(r"[^\w\- ]", "", heading.lower())
        found.add(kept.replace(" ", "-"))
    return found
