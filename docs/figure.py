"""
Draw docs/figure.svg, the README's figure: the paper's Figure 2 as this repository builds it.

    python docs/figure.py

Data flows down. Three lanes go through the same boxes: the two passes of a training step (dashed)
and the one pass of a test (solid). The squares in the temporal transformer are the experts' weights
(L, E) of each lane. Below the diagram: what a test sees of one toyworld clip, 8 of its 16 frames.

Lengths are in SVG units: pixels where a page shows the figure at its own width, about a README's.
Widths of letters differ between machines, so text keeps a distance from what is beside it.
tests/docs/test_figure.py compares the committed file with what this script draws.
"""
import base64
import re
import struct
import zlib
from pathlib import Path

import torch
from torch import Tensor

from mote.data import segment_indices
from mote.merging import ETA, LAMBDA, merging_weights
from mote.toyworld import FRAMES, class_set, make_clip

FILE = Path(__file__).with_suffix(".svg")
TITLE = "MoTE: a mixture of temporal experts that carries CLIP to video"
DESCRIPTION = (
    "Frames go through CLIP's visual tower and become frame features e (B, T, D). A temporal "
    "transformer of L blocks, each with E experts, turns them into temporal features t (B, T, D). "
    "In training (dashed lines) a first pass uses one drawn expert per layer, and a second pass "
    "all experts, merged at a drawn temperature. In a test (solid lines) one pass uses the plain "
    "average of the experts, and modulation scales t by rho. The video embedding is z = mean(e) + "
    "rho mean(t). Its cosine with the class embeddings y from CLIP's text tower gives the losses "
    "L_TE and L_WMR in training, and the answer in a test. L_MSE keeps the second pass near e. "
    "Below the diagram: eight frames of a generated clip, a yellow star moving right.")

# --- what it looks like ---------------------------------------------------------------------------
WIDTH, HEIGHT = 830, 890
MARGIN = 24
PATHS = ("training", "training", "test")
LANES = (115, 273, 437)                            # x of first pass, second pass, test
E_X, Y_X = 546, 794                                # x of the lines that carry e and y down

PAPER, BOX, PANEL, LINE = "#fcfbf8", "#ffffff", "#f4f2ec", "#c4bfb3"
INK, MUTED = "#22272e", "#59616b"
COLOURS = {"training": "#b0480c", "test": "#0b58a5", "both": "#6b727b"}
TINTS = {"training": "#fdf3ea", "test": "#ebf2fa"}
DASH = "7 5"                                       # of everything that only training does

STYLE = f"""
    text {{ font-family: system-ui, sans-serif; font-size: 16px; fill: {INK} }}
    .name {{ font-size: 18px; font-weight: 600 }}
    .file {{ font-family: ui-monospace, monospace; font-size: 14px; fill: {MUTED} }}
    .note {{ font-size: 15px; font-weight: 400; fill: {MUTED} }}
    .pass {{ font-weight: 600 }}
    .how {{ font-size: 15px }}
    .axis {{ font-size: 14px; fill: {MUTED} }}
    .lane {{ font-size: 14px; font-weight: 700; letter-spacing: 1.5px }}
    .training {{ fill: {COLOURS["training"]} }}
    .test {{ fill: {COLOURS["test"]} }}
    .math {{ font-size: 18px }}
    .v {{ font-family: serif; font-style: italic; font-size: 20px }}
    .sub {{ font-size: 13px }}
    image {{ image-rendering: pixelated }}
"""


# --- drawing --------------------------------------------------------------------------------------
class Drawing:
    """SVG elements in layers: boxes, then lines by path, then what stands on them."""

    def __init__(self):
        self.boxes = []
        self.lines = {"both": [], "training": [], "test": []}
        self.top = []

    def box(self, left: float, top: float, right: float, bottom: float, path: str = "",
            fill: str = BOX, radius: float = 8) -> None:
        """A rounded box. path: "training" for a dashed border, "test" for a solid one."""
        stroke = COLOURS.get(path, LINE)
        dash = f' stroke-dasharray="{DASH}"' if path == "training" else ""
        self.boxes.append(f'<rect x="{left}" y="{top}" width="{right - left}" '
                          f'height="{bottom - top}" rx="{radius}" fill="{fill}" '
                          f'stroke="{stroke}" stroke-width="1.5"{dash}/>')

    def text(self, x: float, y: float, words: str, style: str = "", anchor: str = "start") -> None:
        """Words on the baseline y, with the marks of `marked_up`, but for the names of files."""
        if style != "file":
            words = marked_up(words)
        style = f' class="{style}"' if style else ""
        anchor = f' text-anchor="{anchor}"' if anchor != "start" else ""
        self.top.append(f'<text x="{x}" y="{y}"{style}{anchor}>{words}</text>')

    def arrow(self, path: str, *points: tuple[float, float]) -> None:
        """A line through points, level or upright from each to the next, with a head at its end."""
        (x0, y0), (x1, y1) = points[-2:]
        length = abs(x1 - x0) + abs(y1 - y0)
        dx, dy = (x1 - x0) / length, (y1 - y0) / length
        back_x, back_y = x1 - 9 * dx, y1 - 9 * dy
        self.top.append(f'<path d="M{x1:g} {y1:g}L{back_x - 5 * dy:g} {back_y - 5 * dx:g}'
                        f'L{back_x + 5 * dy:g} {back_y + 5 * dx:g}Z" fill="{COLOURS[path]}"/>')
        line = rounded((*points[:-1], (back_x, back_y)))
        self.lines[path].append(f'<path d="{line}"/>')

    def branch(self, path: str, *points: tuple[float, float]) -> None:
        """An arrow that leaves another line: a dot where it does."""
        x, y = points[0]
        self.top.append(f'<circle cx="{x}" cy="{y}" r="3.5" fill="{COLOURS[path]}"/>')
        self.arrow(path, *points)

    def svg(self) -> str:
        """The whole file."""
        lines = []
        for path, elements in self.lines.items():
            dash = f' stroke-dasharray="{DASH}"' if path == "training" else ""
            lines.append(f'<g id="{path}" fill="none" stroke="{COLOURS[path]}" '
                         f'stroke-width="2"{dash}>')
            lines += elements
            lines.append("</g>")
        body = "\n".join([*self.boxes, *lines, *self.top])
        return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
                f'width="{WIDTH}" height="{HEIGHT}" role="img" aria-labelledby="title desc">\n'
                f'<title id="title">{TITLE}</title>\n<desc id="desc">{DESCRIPTION}</desc>\n'
                f'<style>{STYLE}</style>\n{body}\n</svg>\n')


def marked_up(words: str) -> str:
    """*a* -> a variable in italics, _TE -> a subscript, [Eq. 1] -> a note, set apart."""
    markup = ""
    back = ""                                      # what lifts the line again after a subscript
    for part in re.findall(r"\*.+?\*|_[A-Z]+|\[.+?\]|[^*_[]+", words):
        if part[0] == "*":
            markup += f'<tspan class="v"{back}>{part[1:-1]}</tspan>'
        elif part[0] == "[":
            markup += f'<tspan class="note" dx="8"{back}>{part[1:-1]}</tspan>'
        elif part[0] == "_":
            markup += f'<tspan class="sub" dy="5">{part[1:]}</tspan>'
        else:
            markup += f"<tspan{back}>{part}</tspan>" if back else part
        back = ' dy="-5"' if part[0] == "_" else ""
    return markup


def rounded(points: tuple, radius: float = 8) -> str:
    """A path through points along the axes, its corners rounded."""
    (x, y), *rest = points
    d = f"M{x:g} {y:g}"
    for i, (cx, cy) in enumerate(rest):
        if i + 1 == len(rest):
            return d + f"L{cx:g} {cy:g}"
        nx, ny = rest[i + 1]
        bx, by = towards(cx, cy, x, y, radius)
        ax, ay = towards(cx, cy, nx, ny, radius)
        d += f"L{bx:g} {by:g}Q{cx:g} {cy:g} {ax:g} {ay:g}"
        x, y = cx, cy
    return d


def towards(x0: float, y0: float, x1: float, y1: float, by: float) -> tuple[float, float]:
    """The point `by` away from (x0, y0) in the direction of (x1, y1)."""
    length = abs(x1 - x0) + abs(y1 - y0)
    return x0 + by * (x1 - x0) / length, y0 + by * (y1 - y0) / length


def png(picture: Tensor) -> str:
    """uint8 (3, h, w) -> a PNG, as a data URI."""
    def chunk(kind: bytes, data: bytes) -> bytes:
        return (struct.pack(">I", len(data)) + kind + data
                + struct.pack(">I", zlib.crc32(kind + data)))

    _, h, w = picture.shape
    rows = picture.permute(1, 2, 0).reshape(h, 3 * w)
    unfiltered = b"".join(b"\0" + bytes(row.tolist()) for row in rows)
    data = (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", w, h, 8, 2, 0, 0, 0))
            + chunk(b"IDAT", zlib.compress(unfiltered, 9)) + chunk(b"IEND", b""))
    return "data:image/png;base64," + base64.b64encode(data).decode()


# --- the diagram, from top to bottom --------------------------------------------------------------
def towers(d: Drawing) -> None:
    """Frames and class names go through CLIP (Eq. 1)."""
    d.box(24, 24, 144, 80)
    d.text(84, 47, "Frames", "name", "middle")
    d.text(84, 69, "mote/data.py", "file", "middle")
    d.arrow("both", (144, 52), (184, 52))
    d.box(184, 24, 400, 80)
    d.text(292, 47, "CLIP visual tower", "name", "middle")
    d.text(292, 69, "mote/clip_backbone.py", "file", "middle")

    d.text(546, 58, "Class names", "name", "end")
    d.arrow("both", (554, 52), (590, 52))
    d.box(590, 24, 806, 80)
    d.text(698, 47, "CLIP text tower", "name", "middle")
    d.text(698, 69, "mote/clip_backbone.py", "file", "middle")


def transformer(d: Drawing) -> None:
    """The temporal transformer (Eq. 2), and the experts' weights in its three lanes."""
    d.arrow("both", (292, 80), (292, 124))
    d.text(304, 96, "*e* (B, T, D)[Eq. 1]", "math")
    d.box(24, 124, 524, 382, fill=PANEL)
    d.text(40, 150, "Temporal transformer", "name")
    d.text(508, 150, "mote/temporal_experts.py", "file", "end")
    d.text(40, 173, "L blocks of attention and E experts")
    d.text(508, 173, "Eq. 2", "note", "end")

    d.box(36, 186, 352, 370, "training", TINTS["training"])
    d.text(48, 207, "TRAINING", "lane training")
    d.box(362, 186, 512, 370, "test", TINTS["test"])
    d.text(374, 207, "TEST", "lane test")

    # Chosen, not drawn: torch's generators do not draw the same on every machine.
    drawn = torch.eye(4)[[3, 1, 3, 2]]
    merged = torch.stack([merging_weights(4, tau) for tau in (1.2, -2.4, 9.6, -0.6)])
    average = torch.full((4, 4), 1 / 4)
    columns = (("training", drawn, "Pass 1[Eq. 5]", "one expert drawn"),
               ("training", merged, "Pass 2[Eq. 7]", "merged, *τ* drawn"),
               ("test", average, "One pass[Eq. 6]", "plain average"))
    for x, (path, weights_LE, name, how) in zip(LANES, columns):
        d.text(x, 230, name, "pass", "middle")
        d.text(x, 251, how, "how", "middle")
        squares(d, x, 260, weights_LE, COLOURS[path])
    d.text(LANES[0], 362, "E experts", "axis", "middle")
    d.top.append(f'<text class="axis" text-anchor="middle" '
                 f'transform="translate({LANES[0] - 50} 301) rotate(-90)">L layers</text>')
    d.text(LANES[1], 362, "mote/merging.py", "file", "middle")
    d.text(LANES[2], 362, "mote/merging.py", "file", "middle")


def squares(d: Drawing, x: float, top: float, weights_LE: Tensor, colour: str) -> None:
    """Expert weights, a row per layer, centred on x: the area of a square is the weight."""
    cell, step = 18, 22
    left = x - 1.5 * step - cell / 2
    for row, weights_E in enumerate(weights_LE.tolist()):
        for column, weight in enumerate(weights_E):
            cx = left + column * step + cell / 2
            cy = top + row * step + cell / 2
            square(d, cx, cy, cell, f'fill="{BOX}" stroke="{LINE}"')
            if weight:
                square(d, cx, cy, cell * weight**0.5, f'fill="{colour}"')


def square(d: Drawing, cx: float, cy: float, side: float, look: str) -> None:
    d.top.append(f'<rect x="{cx - side / 2:.2f}" y="{cy - side / 2:.2f}" width="{side:.2f}" '
                 f'height="{side:.2f}" rx="1.5" {look}/>')


def embedding(d: Drawing) -> None:
    """z from e and t, and modulation (Eq. 2, 11)."""
    for x, path in zip(LANES, PATHS):
        d.arrow(path, (x, 382), (x, 428))
    d.text(LANES[0] + 12, 410, "*t* (B, T, D)", "math")
    d.text(LANES[2] + 12, 410, "*t* (B, T, D)", "math")
    d.branch("training", (LANES[1], 404), (LANES[1] + 34, 404))
    d.text(LANES[1] + 40, 410, "*L*_MSE[Eq. 9]", "math")

    d.branch("both", (292, 103), (E_X, 103), (E_X, 428))
    d.box(24, 428, 564, 488)
    d.text(40, 453, "*z* = mean(*e*) + *ρ* mean(*t*)", "math")
    d.text(548, 453, "mote/model.py", "file", "end")
    d.text(40, 476, "Eq. 2 in training (*ρ* = 1), Eq. 11 in a test", "note")

    d.box(604, 428, 768, 488, "test", TINTS["test"])
    d.text(686, 453, "Modulation", "name", "middle")
    d.text(686, 476, "mote/modulation.py", "file", "middle")
    d.text(686, 508, "compares N and M classes", "note", "middle")
    d.branch("test", (E_X, 398), (686, 398), (686, 428))
    d.branch("test", (Y_X, 458), (768, 458))
    d.arrow("test", (604, 458), (564, 458))
    d.text(586, 450, "*ρ*", "math", "middle")


def similarity(d: Drawing) -> None:
    """The cosine of z and y (Eq. 3), and what comes of it."""
    for x, path in zip(LANES, PATHS):
        d.arrow(path, (x, 488), (x, 528))
        d.text(x + 12, 513, "*z* (B, D)", "math")
        d.arrow(path, (x, 572), (x, 612))
    d.box(24, 528, 564, 572)
    d.text(40, 556, "cosine(*z*, *y*)[Eq. 3]", "math")
    d.text(548, 556, "mote/model.py", "file", "end")
    d.arrow("both", (Y_X, 80), (Y_X, 550), (564, 550))
    d.text(604, 541, "*y* (N, D)[Eq. 1]", "math")
    d.text(604, 571, "in training (M, D)", "note")

    for x, size in zip(LANES, ("(B, M)", "(B, M)", "(B, N)")):
        d.text(x + 12, 597, size, "math")
    d.box(24, 612, 352, 704, "training", TINTS["training"])
    d.text(LANES[0], 638, "*L*_TE[Eq. 4]", "math", "middle")
    d.text(LANES[1], 638, "*L*_WMR[Eq. 8]", "math", "middle")
    d.text(40, 666, f"*L* = *L*_TE + {LAMBDA} *L*_WMR + {ETA} *L*_MSE", "math")
    d.text(40, 692, "Eq. 10", "note")
    d.text(336, 692, "train.py", "file", "end")
    d.box(362, 612, 806, 704, "test", TINTS["test"])
    d.text(378, 638, "Answer", "name")
    d.text(378, 666, "the class with the highest cosine")
    d.text(378, 692, "such as “star moving right”", "note")
    d.text(790, 692, "eval.py", "file", "end")


def key(d: Drawing) -> None:
    """What the lines and the letters mean."""
    for y, path in zip((124, 146, 168), COLOURS):
        d.arrow(path, (580, y - 5), (632, y - 5))
        d.text(646, y, path)
    letters = (("B", "clips"), ("T", "frames"), ("D", "embedding"), ("N", "test classes"),
               ("M", "training classes"), ("E", "experts"), ("L", "layers"), ("*τ*", "temperature"))
    for i, (letter, words) in enumerate(letters):
        d.text(626, 200 + 22 * i, letter, "name", "middle")
        d.text(646, 200 + 22 * i, words)
    square(d, 626, 371, 12, f'fill="{MUTED}"')
    d.text(646, 376, "expert’s weight")


def clip(d: Drawing) -> None:
    """Eight frames of the clip that toyworld's test set calls val_star_moving_right_6.mp4."""
    classes = class_set("toyworld")
    label = [words for words, _ in classes].index("star moving right")
    frames = make_clip("star", "yellow", "moving right", (0, 0, 1, 6 * len(classes) + label))
    d.top.append(f'<clipPath id="strip"><rect x="{MARGIN}" y="748" width="782" height="96" '
                 'rx="8"/></clipPath><g clip-path="url(#strip)">')
    for i, frame in enumerate(segment_indices(FRAMES, 8)[0].tolist()):
        d.top.append(f'<image x="{MARGIN + 98 * i}" y="748" width="96" height="96" '
                     f'href="{png(frames[frame])}"/>')
    d.top.append("</g>")
    d.text(24, 736, "One clip, T = 8 frames[“star moving right”]", "name")
    d.text(806, 736, "mote/toyworld", "file", "end")
    d.text(24, 868, "Played backwards, the same frames are “star moving left”: only time tells "
                    "the two apart.", "note")


def draw() -> str:
    """The figure, as SVG."""
    d = Drawing()
    d.box(0.75, 0.75, WIDTH - 0.75, HEIGHT - 0.75, fill=PAPER, radius=14)
    for part in (towers, transformer, embedding, similarity, key, clip):
        part(d)
    return d.svg()


if __name__ == "__main__":
    FILE.write_text(draw(), encoding="utf-8")
