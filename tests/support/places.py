"""Where things lie: the repository, the authors' numbers."""
from pathlib import Path

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests/golden"
OFFICIAL = GOLDEN / "official_tiny_checkpoint.pt"
