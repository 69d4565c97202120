"""
CLIPModel and SiglipModel folders of transformers. (Stub until the branch hftowers is merged.)
"""
from pathlib import Path


def is_transformers(folder: Path) -> bool:
    return False


def read_transformers(folder: Path, backbone: str, tokenizer_name: str) -> dict:
    raise ValueError(f"--backbone {backbone}: a model of transformers")


def build_transformers(config: dict):
    raise NotImplementedError


build_transformers_visual = build_transformers
