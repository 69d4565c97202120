"""
docs/towers.md is true: every command runs as written, on tiny files of the names and kinds that it gives.

What each command stands for is made small: names of open_clip by tests/survey/shrinking.py, folders of open_clip and of
transformers with random weights, tokenizers of the same classes in a hub's cache. The tables: tests/docs/test_pages.py.
"""
import contextlib
import json
import shutil

import open_clip
import pytest
import torch
from safetensors.torch import save_file
from support import hub_cache, tokenizers
from support.clips import TINY
from support.pages import PAGES, block_after, commands, parse_command
from survey.examining import at_random, write_small
from survey.shrinking import hub_of_tiny_files, standing_in

import eval as evaluation
import train
from mote.clip_backbone import build_clip

pytest.importorskip("transformers")

PAGE = PAGES["docs/towers.md"]
COMMANDS = [command for command in commands(PAGE) if " --data-root " in command]
WEIGHTS = {"ViT-B-16-SigLIP": "open_clip_model.safetensors", "ViT-L-14": "ViT-L-14.pt", "ViT-S-16": "epoch_10.pt",
           "coca_ViT-L-14": "open_clip_pytorch_model.bin", "ViT-B-16-SigLIP2": "downloaded.pt"}
ALONE = ["--workers", "0", "--threads", "1", "--device", "cpu"]


@pytest.fixture(scope="module")
def place(world, tmp_path_factory):
    """A folder where all that the page's commands name lies, with open_clip's names made small."""
    folder = tmp_path_factory.mktemp("place")
    few_videos(world / "toyworld" / "videos", folder / "DIR")
    with contextlib.ExitStack() as opened:
        opened.enter_context(hub_of_tiny_files(folder / "hub", *WEIGHTS))
        for name, file in WEIGHTS.items():
            config, written = write_small(name, folder)
            opened.enter_context(standing_in(name, config))
            save_as(torch.load(written, weights_only=True), folder / file)
        opened.enter_context(pytest.MonkeyPatch.context()).chdir(folder)
        write_places(folder)
        yield folder


def few_videos(videos, folder):
    """Two classes of four clips."""
    for name in ("star_moving_left", "circle_growing"):
        (folder / name).mkdir(parents=True)
        for i, file in enumerate(sorted(videos.glob(f"*_{name}_*.mp4"))):
            shutil.copy(file, folder / name / f"{i}.mp4")


def save_as(state, file):
    """In the format that the file's name tells: of a hub, or of a training on several GPUs."""
    if file.suffix == ".safetensors":
        save_file({name: tensor.contiguous() for name, tensor in state.items()}, file)
    elif file.name.startswith("epoch"):
        parallel = {f"module.{name}": tensor for name, tensor in state.items()}
        torch.save({"epoch": 10, "name": "run", "state_dict": parallel, "optimizer": {}}, file)
    else:
        torch.save(state, file)


def write_places(folder):
    """Folders and repositories: open_clip's, with a tokenizer of its own, and transformers'; a .json; a tokenizer."""
    from support.transformers_folders import clip_folder, siglip_folder

    config = open_clip.get_model_config("ViT-B-16-SigLIP")       # the small one stands in its place
    pixels = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "resize_mode": "squash", "interpolation": "bicubic"}
    weights = (folder / WEIGHTS["ViT-B-16-SigLIP"]).read_bytes()
    files = {**tokenizers.siglip(), "open_clip_model.safetensors": weights,
             "open_clip_config.json": json.dumps({"model_cfg": config, "preprocess_cfg": pixels}).encode()}
    hub_cache.write_files(folder / "MODEL", files)
    hub_cache.write_files(folder / "WORDS", tokenizers.siglip())
    hub_cache.put_into_cache(folder / "hub", "ORG/NAME", files)

    for name, make in (("clip-vit-base-patch16", clip_folder), ("siglip-base-patch16-224", siglip_folder)):
        (folder / name).mkdir()
        make(folder / name)
    siglip = {file.name: file.read_bytes() for file in (folder / "siglip-base-patch16-224").iterdir()}
    hub_cache.put_into_cache(folder / "hub", "google/siglip-base-patch16-224", siglip)

    (folder / "tower.json").write_text(json.dumps(TINY))
    save_as(at_random(build_clip(TINY)), folder / "tower.pt")


def test_every_command_with_videos_names_a_tower():
    assert len(COMMANDS) >= 12 and all(" --backbone " in command for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_command_runs(command, place, tmp_path, monkeypatch, capsys):
    _, _, script, args = parse_command(command)
    if args[-1] == "webli":                                      # the only tag: what its download would give
        monkeypatch.setattr("mote.files.weights.download", lambda name, tag: place / "downloaded.pt")
    if script == "eval.py":
        assert evaluation.main([*args, *ALONE])
        return

    train.main([*args, *ALONE, "--epochs", "1", "--layers", "1", "--batch", "2", "--out", str(tmp_path / "run")])
    shown = block_after(PAGE, command).strip()
    assert shown in capsys.readouterr().out.splitlines()
    again = evaluation.main(["--checkpoint", str(tmp_path / "run"), "--data-root", "DIR", *ALONE])
    assert again                                                 # the tower is not named again
