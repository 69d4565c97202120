"""
What the tests of mote/runtime share: signal handlers as they were, a checkpoint, and a run that nothing happens to.
"""
import json
import signal

import pytest
import torch
from support.checkpoints import new_checkpoint
from support.clips import OPENAI
from torch.utils.data._utils import signal_handling

import train
from mote.clip_backbone import load_clip


@pytest.fixture(autouse=True)
def handlers():
    """A signal's handlers are as they were before a test; torch's of SIGCHLD is not there yet."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD)
    before = {number: signal.getsignal(number) for number in numbers}
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal_handling._SIGCHLD_handler_set = False
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(scope="session")
def saved():
    """A checkpoint as train.py writes it. Not to be written to."""
    return new_checkpoint()


@pytest.fixture(scope="session")
def job(world, tmp_path_factory):
    """Flags: two epochs of three steps on 12 videos, with a tower that has running statistics."""
    folder = tmp_path_factory.mktemp("job")
    for split, count in (("train", 12), ("val", 2)):
        lines = (world / "toyworld" / f"{split}.txt").read_text().splitlines(keepends=True)
        (folder / f"{split}.txt").write_text("".join(lines[:count]))
    (folder / "norm.json").write_text(json.dumps({
        "embed_dim": 32, "custom_text": True,
        "vision_cfg": {"image_size": 32, "timm_model_name": "test_resnet", "timm_pool": "avg"},
        "text_cfg": {"context_length": 24, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
        "preprocess_cfg": OPENAI}))
    torch.save(load_clip(str(folder / "norm.json"), "")[0].state_dict(), folder / "norm.pt")
    return ["--data", "toyworld", "--train-list", str(folder / "train.txt"), "--val-list", str(folder / "val.txt"),
            "--backbone", str(folder / "norm.json"), "--pretrained", str(folder / "norm.pt"), "--zero-shot", "",
            "--device", "cpu", "--threads", "1", "--workers", "0", "--layers", "1", "--frames", "2", "--batch", "4",
            "--epochs", "2", "--eval-every", "2", "--log-every", "6", "--keep", "99", "--resume", "auto", "--out"]


@pytest.fixture(scope="session")
def straight(job, tmp_path_factory):
    """The run that nothing happens to."""
    run = tmp_path_factory.mktemp("runs") / "straight"
    train.main([*job, str(run)])
    return run
