"""
Class files: which name each label has.

    csv          `id,name`, ids 0..N-1, with or without a header; ; | tabs and spaces for the comma
    classInd.txt UCF-101's `1 ApplyEyeMakeup`, from 1
    json         Something-Something's {"name": "id", ..}, or {"id": "name", ..}

The order of the lines has no meaning. Every mistake is a ValueError or FileNotFoundError of one
line that names the file. A new format is added in `class_rows`. Copy together with
published_lists.py and folders.py; needs the standard library only. Not part of the paper.
"""
import csv
import re
from pathlib import Path

try:
    from . import published_lists as published
    from .folders import read_text
except ImportError:                                # copied beside them, outside the package
    import published_lists as published
    from folders import read_text


def read_classes(file: str | Path) -> list[str]:
    """Class names, in order of label, from a class file of any format named above.

    Raises FileNotFoundError, or ValueError unless the ids are 0..N-1, each once and with a name.
    The order of the lines has no meaning: ids alone say which label a name has.
    """
    names: dict[int, str] = {}
    for number, name in class_rows(file):
        if not number.isdecimal() or len(number) > 9 or not name:
            got = f"{number},{name}"[:80]
            raise ValueError(f"{file}: expected `id,name` with a number and a name that is not "
                             f"empty, got {got!r}")
        if int(number) in names:
            raise ValueError(f"{file}: id {int(number)} stands there twice")
        names[int(number)] = name

    if not names or max(names) >= len(names):
        missing = next((i for i in range(len(names)) if i not in names), 0)
        last = max(len(names) - 1, 0)
        raise ValueError(f"{file}: ids must be 0..{last} without a gap; {missing} is missing")
    return [names[i] for i in range(len(names))]


def class_rows(file: str | Path) -> list[tuple[str, str]]:
    """The pairs (number, name) of a class file, unchecked, both as text.

    `read_classes` checks them all in one place. Raises ValueError for a file that is no csv.
    """
    text = read_text(file)
    if Path(file).suffix == ".json":
        return published.something_classes(file, text)
    if Path(file).name == "classInd.txt":
        return published.ucf_classes(text)

    delimiter = class_delimiter(text)
    try:
        reader = csv.reader(text.splitlines(), delimiter=delimiter, strict=True)
        table = [row for row in reader if row]
    except csv.Error as error:
        raise ValueError(f"{file}: not a csv ({error})") from None
    # Commas in a name need no quotes: all columns after the first are the name.
    rows = []
    for row in table:
        number = re.sub(r"\.0+$", "", row[0].strip())            # pandas writes 1.0
        rows.append((number, delimiter.join(row[1:]).strip()))
    # A mistyped first id looks like a header and goes too: `read_classes` then misses that id.
    if rows and not rows[0][0].isdecimal():
        header = [column for column in table[0] if column.strip()]
        if len(header) > 2 and delimiter != " ":   # a third column would become a part of each name
            raise ValueError(f"{file}: expected the columns `id,name`, "
                             f"got {delimiter.join(header)[:80]!r}")
        del rows[0]
    return rows


def class_delimiter(text: str) -> str:
    """What stands between ids and names: mostly a comma, else ; | or a tab, or only a space.

    Only what follows an id counts, since names hold commas and spaces too.

    >>> class_delimiter("0 hop, skip\\n1 catch"), class_delimiter("0;hop, skip")
    (' ', ';')
    """
    for delimiter in (",", ";", "|", "\t", " "):
        if re.search(rf'^\s*"?\d+(?:\.0+)?"? *{re.escape(delimiter)}', text, re.MULTILINE):
            return delimiter
    return ","
