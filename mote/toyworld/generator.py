"""
Toyworld: generated videos of a moving shape, so that the main job runs in minutes, on real mp4 files, with no download.

One object (10 shapes x 6 colours, with a dark mark so that spinning shows) does one of 8 motions before a noisy
background. Opposite motions are the same frames played backwards, so that no single frame gives them away: only a model
that uses time can tell "moving left" from "moving right". Three sets of classes (the paper's questions, in small):

    toyworld              5 shapes x 8 motions    40 classes   training, and the close-set test
    toyworld-novel        other 5 shapes x 8      40 classes   zero-shot: known motions of shapes never trained on
    toyworld-appearance   6 colours x 10 shapes   60 classes   zero-shot: what CLIP knew; colour is noise in training

Dimension key   n clips   T frames   s pixels a side
The CLIP that goes with it (toyworld.json, toyworld.pt) is trained by tools/toyworld/pretrain.py. Not part of the paper.
"""
import secrets
import shutil
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

SHAPES = ("circle", "square", "triangle", "star", "cross", "ring", "diamond", "bar", "crescent", "heart")
TRAINED_SHAPES, NOVEL_SHAPES = SHAPES[:5], SHAPES[5:]
COLOURS = {"red": (230, 40, 40), "green": (40, 190, 60), "blue": (50, 80, 240), "yellow": (240, 220, 40),
           "purple": (170, 50, 200), "white": (240, 240, 240)}
# motion -> (what changes, played backwards?)
MOTIONS = {"moving right": ("x", False), "moving left": ("x", True), "moving up": ("y", False),
           "moving down": ("y", True), "growing": ("size", False), "shrinking": ("size", True),
           "spinning": ("angle", False), "blinking": ("light", False)}
SIZE, FRAMES, FPS = 48, 16, 12                                    # pixels a side, frames of a clip, frames per second
# clips of each class, per split
SETS = {"toyworld": {"train": 24, "val": 8}, "toyworld-novel": {"val": 8}, "toyworld-appearance": {"val": 5}}


def inside(shape: str, u: Tensor, v: Tensor) -> Tensor:
    """How far (u, v) lies inside the shape of radius 1, negative outside; u to the right, v up. Any shape -> same."""
    r, theta = torch.hypot(u, v), torch.atan2(u, v)               # theta = 0 points up
    spoke = (torch.remainder(theta, 2 * torch.pi / 5) * 5 / torch.pi - 1).abs()   # 1 on the star's five tips, 0 between
    x, y = 1.15 * u, 1.15 * v + 0.15
    return {
        "circle": lambda: 0.9 - r,
        "square": lambda: 0.78 - torch.maximum(u.abs(), v.abs()),
        "triangle": lambda: torch.minimum(v + 0.6, 0.55 - 0.5 * v - 0.866 * u.abs()),
        "star": lambda: 0.4 + 0.65 * spoke**1.5 - r,
        "cross": lambda: torch.maximum(torch.minimum(0.28 - u.abs(), 0.95 - v.abs()),
                                       torch.minimum(0.28 - v.abs(), 0.95 - u.abs())),
        "ring": lambda: torch.minimum(0.95 - r, r - 0.55),
        "diamond": lambda: (1 - u.abs() / 0.5 - v.abs()) * 0.45,
        "bar": lambda: torch.minimum(1 - u.abs(), 0.32 - v.abs()),
        "crescent": lambda: torch.minimum(0.95 - r, torch.hypot(u - 0.45, v) - 0.7),
        "heart": lambda: (x * x * y**3 - (x * x + y * y - 1) ** 3).clamp(-0.5, 0.5),
    }[shape]()


def poses(changes: str, n: int, T: int, generator: torch.Generator) -> Tensor:
    """Random trajectories, played forwards: (n, T, 5) = x, y, radius, angle, light. Lengths in sides of the picture."""
    def between(low, high):
        return low + (high - low) * torch.rand(n, 1, generator=generator)
    time = torch.linspace(-0.5, 0.5, T).expand(n, T)
    x, y, radius, angle = between(0.35, 0.65), between(0.35, 0.65), between(0.15, 0.24), between(-0.25, 0.25)
    travel, turns = between(0.3, 0.5), between(0.7, 1.2) * torch.where(between(-1, 1) > 0, 1, -1)
    phase = between(0, 4)
    light = torch.ones(n, T)
    if changes == "x":
        x = x + travel * time
    if changes == "y":
        y = y + travel * time
    if changes == "size":
        radius = radius * (1 + 1.2 * time)
    if changes == "angle":
        angle = angle + 2 * torch.pi * turns * time
    if changes == "light":
        light = torch.where(torch.remainder(torch.arange(T) + phase, 4) < 2, 1.0, 0.15)
    return torch.stack([p.expand(n, T) for p in (x, y, radius, angle, light)], dim=-1)


def render(shape: str, colours: Tensor, pose_nT5: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """Draw clips of one shape: colours (n, 3) in 0..255 and poses (n, T, 5) -> uint8 (n, T, 3, size, size)."""
    n, T, _ = pose_nT5.shape
    x, y, radius, angle, light = pose_nT5[..., None, None].unbind(dim=2)            # each (n, T, 1, 1)
    centre = (torch.arange(size) + 0.5) / size
    right, up = centre.view(1, 1, 1, size) - x, (1 - centre).view(1, 1, size, 1) - y
    u = (right * angle.cos() + up * angle.sin()) / radius
    v = (up * angle.cos() - right * angle.sin()) / radius
    edge = size * radius                                                            # a soft edge, one pixel wide
    cover = (inside(shape, u, v) * edge + 0.5).clamp(0, 1) * light
    mark = ((0.26 - torch.hypot(u, v - 0.6)) * edge + 0.5).clamp(0, 1) * light
    background = 90 * torch.rand(n, 1, 3, 1, 1, generator=generator)
    cover, mark = cover.unsqueeze(2), mark.unsqueeze(2)                             # (n, T, 1, s, s)
    picture = background + cover * (colours.view(n, 1, 3, 1, 1) - background)
    picture = picture * (1 - 0.85 * mark) + 8 * torch.randn(n, T, 3, size, size, generator=generator)
    return picture.round().clamp(0, 255).to(torch.uint8)


def make_clip(shape: str, colour: str, motion: str, seed: tuple[int, ...], frames: int = FRAMES,
              size: int = SIZE) -> Tensor:
    """One clip, a function of its arguments alone -> uint8 (frames, 3, size, size). KeyError for an unknown word."""
    changes, backwards = MOTIONS[motion]
    generator = torch.Generator().manual_seed(int(np.random.SeedSequence(seed).generate_state(1, np.uint64)[0]))
    clip = render(shape, torch.tensor([COLOURS[colour]]), poses(changes, 1, frames, generator), size, generator)[0]
    return clip.flip(0) if backwards else clip


def class_set(name: str) -> list[tuple[str, dict]]:
    """Class name and fixed attributes of each class of a set, in label order."""
    if name == "toyworld-appearance":
        return [(f"{colour} {shape}", {"colour": colour, "shape": shape}) for colour in COLOURS for shape in SHAPES]
    shapes = {"toyworld": TRAINED_SHAPES, "toyworld-novel": NOVEL_SHAPES}[name]
    return [(f"{shape} {motion}", {"shape": shape, "motion": motion}) for shape in shapes for motion in MOTIONS]


def generate(folder: str | Path, name: str = "toyworld", seed: int = 0, clips: dict[str, int] | None = None) -> Path:
    """Write the videos, train.txt / val.txt (`path label`) and classes.csv (`id,name`) of a set; left alone if there.

    clips: how many a class, per split (default SETS[name]). Raises OSError where the folder cannot be written.
    """
    from torchcodec.encoders import VideoEncoder

    folder = Path(folder)
    if (folder / "classes.csv").exists():
        return folder
    building = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}")    # renamed when whole: no half set is left
    (building / "videos").mkdir(parents=True)
    classes = class_set(name)
    for part, (split, count) in enumerate((clips or SETS[name]).items()):
        lines = []
        for i in range(count * len(classes)):
            label = i % len(classes)
            key = (seed, list(SETS).index(name), part, i)
            pick = np.random.default_rng(key)
            drawn = {"shape": pick.choice(SHAPES), "colour": pick.choice(list(COLOURS)),
                     "motion": pick.choice(list(MOTIONS))}
            file = f"videos/{split}_{classes[label][0].replace(' ', '_')}_{i // len(classes)}.mp4"
            clip = make_clip(**{**drawn, **classes[label][1]}, seed=key)
            # One thread and no macroblock tree: x264 otherwise writes another file each time it is asked.
            VideoEncoder(clip, frame_rate=FPS).to_file(building / file, codec="libx264", crf=18, preset="veryfast",
                                                       extra_options={"threads": 1, "mbtree": 0})
            lines.append(f"{file} {label}\n")
        (building / f"{split}.txt").write_text("".join(lines))
    (building / "classes.csv").write_text("".join(f"{i},{c}\n" for i, (c, _) in enumerate(classes)))
    try:
        building.rename(folder)
    except OSError:
        shutil.rmtree(building)
        if not (folder / "classes.csv").exists():                 # otherwise another process was first: take its set
            raise
    return folder


def ready(folder: str | Path, name: str, write: bool = True, patience: float = 600) -> Path:
    """`generate` in one process (write=True); the others wait for its folder. OSError after `patience` seconds."""
    if write:
        if not (Path(folder) / "classes.csv").exists():
            print(f"generating {name} in {folder} ...", flush=True)
        return generate(folder, name)
    start = time.monotonic()
    while not (Path(folder) / "classes.csv").exists():
        if time.monotonic() - start > patience:
            raise OSError(f"{folder} was not generated within {patience:.0f} s")
        time.sleep(0.1)
    return Path(folder)
