"""README.md and docs/results.md, as text; what a cell of the tables of results may say."""
import re

from support.places import ROOT

README = (ROOT / "README.md").read_text()
RESULTS = (ROOT / "docs/results.md").read_text()


def is_accounted_for(cell: str) -> bool:
    """Whether a cell says "not run", or gives a number with what it comes from: its log in results/ or its protocol."""
    if cell.startswith("not run"):
        return True
    log = re.search(r"\bresults/[\w./-]+\.(?:log|txt|jsonl|json)\b", cell)
    protocol = re.search(r"\bprotocol [0-9a-f]{8}\b", cell)
    number = re.match(r"\d", cell)
    return bool(number and (log or protocol))
