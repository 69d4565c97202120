"""
Toyworld: generated videos of a moving shape, for a whole run in minutes, on real mp4 files.

One object (10 shapes x 6 colours, with a dark mark so that spinning shows) does one of 8 motions
before a noisy background. Opposite motions are the same frames played backwards, so that no single
frame gives them away: only a model that uses time can tell "moving left" from "moving right".
Three sets of classes ask the paper's questions, in small:

    toyworld              5 shapes x 8 motions    40 classes   training, and the close-set test
    toyworld-novel        other 5 shapes x 8      40 classes   zero-shot: known motions of shapes
                                                               never trained on
    toyworld-appearance   6 colours x 10 shapes   60 classes   zero-shot: what CLIP knew; colour is
                                                               noise in training

Every clip is a function of its seed alone, down to the bytes of its file: changing the order of
the random draws below changes every published number on toyworld.

Dimension key   n clips   T frames   s pixels a side
The CLIP that goes with it (toyworld.json, toyworld.pt) is trained by tools/toyworld/pretrain.py.
Not part of the paper.
"""
import secrets
import shutil
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..runtime.progress import progress

SHAPES = ("circle", "square", "triangle", "star", "cross", "ring", "diamond", "bar", "crescent",
          "heart")
TRAINED_SHAPES = SHAPES[:5]
NOVEL_SHAPES = SHAPES[5:]
COLOURS = {"red": (230, 40, 40), "green": (40, 190, 60), "blue": (50, 80, 240),
           "yellow": (240, 220, 40), "purple": (170, 50, 200), "white": (240, 240, 240)}
# motion -> (what changes, played backwards?)
MOTIONS = {"moving right": ("x", False), "moving left": ("x", True),
           "moving up": ("y", False), "moving down": ("y", True),
           "growing": ("size", False), "shrinking": ("size", True),
           "spinning": ("angle", False), "blinking": ("light", False)}
SIZE = 48                                          # pixels a side
FRAMES = 16                                        # of a clip
FPS = 12                                           # frames per second
# set -> {side: clips of each class}
SETS = {"toyworld": {"train": 24, "val": 8},
        "toyworld-novel": {"val": 8},
        "toyworld-appearance": {"val": 5}}


# --- pictures -------------------------------------------------------------------------------------
def inside(shape: str, u: Tensor, v: Tensor) -> Tensor:
    """How far (u, v) lies inside the shape of radius 1, negative outside. Any tensor shape -> same.

    u points to the right, v up. Near the edge the value is about a length, so that `render` can
    make the edge one pixel wide at any size. KeyError for an unknown shape.
    """
    r = torch.hypot(u, v)
    if shape == "circle":
        return 0.9 - r
    if shape == "square":
        return 0.78 - torch.maximum(u.abs(), v.abs())
    if shape == "triangle":
        return torch.minimum(v + 0.6, 0.55 - 0.5 * v - 0.866 * u.abs())
    if shape == "star":
        theta = torch.atan2(u, v)                  # 0 points up
        fifth = torch.remainder(theta, 2 * torch.pi / 5) * 5 / torch.pi
        spoke = (fifth - 1).abs()                  # 1 on the five tips, 0 between them
        return 0.4 + 0.65 * spoke**1.5 - r
    if shape == "cross":
        upright = torch.minimum(0.28 - u.abs(), 0.95 - v.abs())
        level = torch.minimum(0.28 - v.abs(), 0.95 - u.abs())
        return torch.maximum(upright, level)
    if shape == "ring":
        return torch.minimum(0.95 - r, r - 0.55)
    if shape == "diamond":
        return (1 - u.abs() / 0.5 - v.abs()) * 0.45
    if shape == "bar":
        return torch.minimum(1 - u.abs(), 0.32 - v.abs())
    if shape == "crescent":
        return torch.minimum(0.95 - r, torch.hypot(u - 0.45, v) - 0.7)
    if shape == "heart":
        x = 1.15 * u
        y = 1.15 * v + 0.15
        return (x * x * y**3 - (x * x + y * y - 1) ** 3).clamp(-0.5, 0.5)
    raise KeyError(shape)


def poses(changes: str, n: int, T: int, generator: torch.Generator) -> Tensor:
    """Random trajectories, played forwards: (n, T, 5) = x, y, radius, angle, light.

    Lengths are in sides of the picture, angles in radians, light is 1 for full brightness.
    changes: which of "x", "y", "size", "angle" and "light" changes with time. Time runs from -1/2
    to 1/2: the drawn place, radius and angle are those in the middle of the clip.
    """
    def between(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(n, 1, generator=generator)

    # All are drawn, in this order, whatever changes: so clips of one seed differ in nothing else.
    x = between(0.35, 0.65)
    y = between(0.35, 0.65)
    radius = between(0.15, 0.24)
    angle = between(-0.25, 0.25)
    travel = between(0.3, 0.5)
    turns = between(0.7, 1.2)
    turns = turns * torch.where(between(-1, 1) > 0, 1, -1)
    phase = between(0, 4)
    light = torch.ones(n, T)

    time = torch.linspace(-0.5, 0.5, T).expand(n, T)
    if changes == "x":
        x = x + travel * time
    if changes == "y":
        y = y + travel * time
    if changes == "size":
        radius = radius * (1 + 1.2 * time)
    if changes == "angle":
        angle = angle + 2 * torch.pi * turns * time
    if changes == "light":
        bright = torch.remainder(torch.arange(T) + phase, 4) < 2
        light = torch.where(bright, 1.0, 0.15)
    return torch.stack([p.expand(n, T) for p in (x, y, radius, angle, light)], dim=-1)


def render(shape: str, colours: Tensor, pose_nT5: Tensor, size: int,
           generator: torch.Generator) -> Tensor:
    """Clips of one shape: colours (n, 3) in 0..255 and poses (n, T, 5) -> uint8 (n, T, 3, s, s).

    The mark, a dark dot near the shape's top, shows how it is turned: a circle could not be seen to
    spin without it. The background has one colour a clip, and noise anew in every frame.
    """
    n, T, _ = pose_nT5.shape
    x, y, radius, angle, light = pose_nT5[..., None, None].unbind(dim=2)   # each (n, T, 1, 1)

    # Each pixel's place in the shape's own frame, (n, T, s, s).
    centre = (torch.arange(size) + 0.5) / size
    right = centre.view(1, 1, 1, size) - x
    up = (1 - centre).view(1, 1, size, 1) - y
    u = (right * angle.cos() + up * angle.sin()) / radius
    v = (up * angle.cos() - right * angle.sin()) / radius

    # How much of a pixel is covered: a soft edge, one pixel wide.
    pixels = size * radius
    cover = (inside(shape, u, v) * pixels + 0.5).clamp(0, 1) * light
    mark = ((0.26 - torch.hypot(u, v - 0.6)) * pixels + 0.5).clamp(0, 1) * light
    cover = cover.unsqueeze(2)                                             # (n, T, 1, s, s)
    mark = mark.unsqueeze(2)

    background = 90 * torch.rand(n, 1, 3, 1, 1, generator=generator)
    noise = 8 * torch.randn(n, T, 3, size, size, generator=generator)
    picture = background + cover * (colours.view(n, 1, 3, 1, 1) - background)
    picture = picture * (1 - 0.85 * mark) + noise
    return picture.round().clamp(0, 255).to(torch.uint8)


def make_clip(shape: str, colour: str, motion: str, seed: tuple[int, ...], frames: int = FRAMES,
              size: int = SIZE) -> Tensor:
    """One clip, a function of its arguments alone -> uint8 (frames, 3, size, size).

    seed: a key such as (seed of the set, set, side, number of the clip), so that clips can be made
    in any order. KeyError for an unknown word.
    """
    changes, backwards = MOTIONS[motion]
    state = np.random.SeedSequence(seed).generate_state(1, np.uint64)
    generator = torch.Generator().manual_seed(int(state[0]))

    pose_1T5 = poses(changes, 1, frames, generator)
    clip = render(shape, torch.tensor([COLOURS[colour]]), pose_1T5, size, generator)[0]
    if backwards:
        return clip.flip(0)
    return clip


# --- sets -----------------------------------------------------------------------------------------
def class_set(name: str) -> list[tuple[str, dict]]:
    """Class name and fixed attributes of each class of a set, in label order.

    The attributes are those of `make_clip`; what a class does not fix, such as the colour of a
    "star moving left", is drawn for each clip. KeyError for an unknown set.
    """
    classes = []
    if name == "toyworld-appearance":
        for colour in COLOURS:
            for shape in SHAPES:
                classes.append((f"{colour} {shape}", {"colour": colour, "shape": shape}))
        return classes

    shapes = {"toyworld": TRAINED_SHAPES, "toyworld-novel": NOVEL_SHAPES}[name]
    for shape in shapes:
        for motion in MOTIONS:
            classes.append((f"{shape} {motion}", {"shape": shape, "motion": motion}))
    return classes


def generate(folder: str | Path, name: str = "toyworld", seed: int = 0,
             clips: dict[str, int] | None = None) -> Path:
    """Write a set: its videos, train.txt / val.txt (`path label`) and classes.csv (`id,name`).

    A set that is there is left alone. clips: how many a class, per side (default SETS[name]).
    Raises OSError where the folder cannot be written.
    """
    folder = Path(folder)
    if (folder / "classes.csv").exists():
        return folder

    # Built under another name and renamed when whole: a killed run leaves no half set.
    building = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}")
    (building / "videos").mkdir(parents=True)
    for part, (side, count) in enumerate((clips or SETS[name]).items()):
        write_side(building, name, side, count, key=(seed, list(SETS).index(name), part))
    names = [f"{i},{words}\n" for i, (words, _) in enumerate(class_set(name))]
    (building / "classes.csv").write_text("".join(names))

    try:
        building.rename(folder)
    except OSError:
        shutil.rmtree(building)
        # Another process may have been first: then its set is taken.
        if not (folder / "classes.csv").exists():
            raise
    return folder


def write_side(folder: Path, name: str, side: str, count: int, key: tuple[int, ...]) -> None:
    """Write `count` videos of each class of a set, drawn by (*key, i), and the list of them."""
    from torchcodec.encoders import VideoEncoder

    classes = class_set(name)
    lines = []
    for i in progress(range(count * len(classes)), f"{name}, {side}"):
        # What the class does not fix is drawn.
        label = i % len(classes)
        words, fixed = classes[label]
        pick = np.random.default_rng((*key, i))
        about = {"shape": pick.choice(SHAPES),
                 "colour": pick.choice(list(COLOURS)),
                 "motion": pick.choice(list(MOTIONS))}
        about.update(fixed)
        clip = make_clip(**about, seed=(*key, i))

        # One thread and no macroblock tree: x264 otherwise writes another file each time.
        file = f"videos/{side}_{words.replace(' ', '_')}_{i // len(classes)}.mp4"
        encoder = VideoEncoder(clip, frame_rate=FPS)
        encoder.to_file(folder / file, codec="libx264", crf=18, preset="veryfast",
                        extra_options={"threads": 1, "mbtree": 0})
        lines.append(f"{file} {label}\n")
    (folder / f"{side}.txt").write_text("".join(lines))


def ready(folder: str | Path, name: str, write: bool = True, patience: float = 600) -> Path:
    """`generate` in one process (write=True); the others wait for its folder.

    They watch the disk, because there is no process group yet when datasets are opened. Raises
    OSError after `patience` seconds.
    """
    folder = Path(folder)
    if write:
        if not (folder / "classes.csv").exists():
            print(f"generating {name} in {folder} ...", flush=True)
        return generate(folder, name)

    start = time.monotonic()
    while not (folder / "classes.csv").exists():
        if time.monotonic() - start > patience:
            raise OSError(f"{folder} was not generated within {patience:.0f} s")
        time.sleep(0.1)
    return folder
