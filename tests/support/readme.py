"""README.md, as text."""
from support.places import ROOT

README = (ROOT / "README.md").read_text()
