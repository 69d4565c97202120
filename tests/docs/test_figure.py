"""The README's figure: docs/figure.svg is what docs/figure.py draws, and what it says holds."""
import base64
import re
import runpy
import xml.etree.ElementTree as ET
import zlib

import numpy as np
import pytest
from support.places import ROOT

SVG = "{http://www.w3.org/2000/svg}"
IMAGE = re.compile(r'href="data:image/png;base64,([^"]+)"')
LOOK = ("stroke-dasharray", "stroke")


@pytest.fixture(scope="module")
def committed() -> str:
    return (ROOT / "docs/figure.svg").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def script() -> dict:
    """What docs/figure.py defines: docs/ is no package."""
    return runpy.run_path(str(ROOT / "docs/figure.py"))


@pytest.fixture(scope="module")
def tree(committed) -> ET.Element:
    """Raises ParseError where the file is not well-formed XML."""
    return ET.fromstring(committed)


def words(element: ET.Element) -> str:
    return "".join(element.itertext())


def texts(tree: ET.Element, style: str = "") -> list[str]:
    """All texts, or those of a class."""
    found = tree.iter(SVG + "text")
    return [words(text) for text in found if style in text.get("class", "").split() or not style]


def pixels(svg: str) -> list[np.ndarray]:
    """The frames, each int (48, 48, 3). Written without filters, so that zlib alone reads them."""
    frames = []
    for encoded in IMAGE.findall(svg):
        png = base64.b64decode(encoded)
        start = png.index(b"IDAT") + 4
        rows = np.frombuffer(zlib.decompressobj().decompress(png[start:]), np.uint8).reshape(48, 1 + 3 * 48)
        assert not rows[:, 0].any()
        frames.append(rows[:, 1:].reshape(48, 48, 3).astype(int))
    return frames


# --- it is current --------------------------------------------------------------------------------
def test_the_committed_figure_is_what_the_script_draws(committed, script):
    """Of the frames the pixels count, not the bytes of the PNG: those differ between versions of zlib."""
    drawn = script["draw"]()
    assert IMAGE.sub("", committed) == IMAGE.sub("", drawn), "run: python docs/figure.py"
    assert len(pixels(committed)) == 8
    # One level: a rounding may fall the other way on another processor.
    assert np.abs(np.array(pixels(committed)) - np.array(pixels(drawn))).max() <= 1, "run: python docs/figure.py"


def test_the_figure_has_the_same_bytes_at_each_run(script):
    assert script["draw"]() == script["draw"]()


def test_the_frames_are_those_that_a_test_sees_of_the_clip(committed):
    from mote.data import segment_indices
    from mote.toyworld import class_set, make_clip

    i = 6 * 40 + [name for name, _ in class_set("toyworld")].index("star moving right")
    clip = make_clip("star", "yellow", "moving right", seed=(0, 0, 1, i))
    expected = clip[segment_indices(16, 8)[0]].permute(0, 2, 3, 1).numpy().astype(int)
    assert np.abs(np.array(pixels(committed)) - expected).max() <= 1


# --- what it says holds ---------------------------------------------------------------------------
def test_every_file_that_the_figure_names_exists(tree):
    names = texts(tree, "file")
    assert {"mote/data.py", "mote/clip_backbone.py", "mote/temporal_experts.py", "mote/merging.py",
            "mote/modulation.py", "mote/model.py", "train.py"} <= set(names)
    assert [name for name in names if not (ROOT / name).exists()] == []
    assert set(re.findall(r"[\w/]+\.py", " ".join(texts(tree)))) <= set(names)


def test_the_figure_shows_every_equation_once_or_more(tree):
    shown = set()
    for text in texts(tree):
        for numbers in re.findall(r"Eq\. (\d+)", text):
            shown.add(int(numbers))
    assert shown == set(range(1, 12))


def test_the_arrows_carry_the_letters_of_the_dimension_key(tree):
    on_arrows = " | ".join(texts(tree, "math"))
    for shape in ("e (B, T, D)", "t (B, T, D)", "z (B, D)", "y (N, D)", "(B, N)"):
        assert shape in on_arrows
    assert {"B", "T", "D", "N", "M", "E", "L"} <= set(texts(tree, "name"))


def test_the_weights_of_the_losses_are_those_of_eq_10(tree):
    from mote.merging import ETA, LAMBDA
    assert f"L = LTE + {LAMBDA} LWMR + {ETA} LMSE" in texts(tree, "math")


def test_the_area_of_a_square_is_its_weight(script):
    import torch
    d = script["Drawing"]()
    script["squares"](d, 100, 0, torch.tensor([[0, 0.25, 1, 0.75]]), "#123456")
    sides = [float(re.search('width="(.+?)"', square)[1]) for square in d.top if "#123456" in square]
    assert np.square(sides) / 18**2 == pytest.approx([0.25, 1, 0.75], abs=1e-3)


# --- it can be read -------------------------------------------------------------------------------
def test_the_figure_is_well_formed(tree):
    assert tree.tag == SVG + "svg"


def test_training_and_test_are_told_apart_by_dashes_and_by_a_label(tree):
    paths = {group.get("id"): group for group in tree.iter(SVG + "g") if group.get("id")}
    assert set(paths) == {"training", "test", "both"}
    assert paths["training"].get("stroke-dasharray")
    for path, group in paths.items():
        assert len(group) > 0
        assert path == "training" or "stroke-dasharray" not in group.attrib
        # No line has a look of its own.
        assert [line for line in group if any(name in line.attrib for name in LOOK)] == []
    assert {"TRAINING", "TEST"} <= set(texts(tree, "lane"))
    assert {"training", "test", "both"} <= set(texts(tree))


def test_the_boxes_of_training_alone_have_dashed_borders(tree):
    boxes = {}                                                   # colour of the border -> whether dashed
    for rect in tree.iter(SVG + "rect"):
        if rect.get("stroke"):
            boxes.setdefault(rect.get("stroke"), set()).add("stroke-dasharray" in rect.attrib)
    colours = {group.get("id"): group.get("stroke") for group in tree.iter(SVG + "g")}
    assert boxes[colours["training"]] == {True}
    assert boxes[colours["test"]] == {False}


def test_no_letter_is_smaller_than_12_pixels_where_a_readme_is_830_wide(tree):
    sizes = [float(size) for size in re.findall(r"font-size: ([\d.]+)px", words(tree.find(SVG + "style")))]
    assert float(tree.get("viewBox").split()[2]) <= 830
    assert sizes and min(sizes) >= 12


def test_the_figure_needs_nothing_from_outside(tree, committed):
    families = re.findall(r"font-family: ([^;}]+)", committed)
    named = {family.strip() for listed in families for family in listed.split(",")}
    assert named == {"system-ui", "sans-serif", "ui-monospace", "monospace", "serif"}
    linked = [element.get("href") for element in tree.iter() if element.get("href")]
    assert linked and all(link.startswith("data:image/png;base64,") for link in linked)
    assert "@import" not in committed and "<script" not in committed


def test_the_background_is_solid_and_the_figure_has_a_title_and_a_description(tree):
    background = next(tree.iter(SVG + "rect"))
    width, height = tree.get("viewBox").split()[2:]
    assert re.fullmatch("#[0-9a-f]{6}", background.get("fill"))
    assert float(background.get("rx")) > 0 and background.get("stroke")
    assert float(background.get("width")) >= float(width) - 2
    assert float(background.get("height")) >= float(height) - 2
    assert tree.get("aria-labelledby") == f"{tree[0].get('id')} {tree[1].get('id')}"
    assert [tree[0].tag, tree[1].tag] == [SVG + "title", SVG + "desc"]
    assert words(tree[0]) and words(tree[1])
