"""The pictures the demo checkpoint knows: one flat shape on one flat background.

Needs numpy and Pillow only, so that tests can draw and judge without torch. Lengths are
fractions of the picture's side; (0, 0) is the top left corner.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw

SIDE = 128
MARGIN = 0.04
SUPERSAMPLING = 4

PALETTE: dict[str, tuple[int, int, int]] = {
    "red": (226, 24, 28),
    "green": (28, 172, 48),
    "blue": (28, 52, 226),
    "yellow": (250, 224, 24),
    "teal": (24, 196, 208),
    "purple": (164, 32, 192),
    "white": (246, 246, 246),
    "black": (14, 14, 14),
}
COLOURS = tuple(PALETTE)
SHAPES = ("circle", "square", "triangle", "star", "diamond", "heart", "cross", "ring")

# The span a shape takes of the picture's side, by size word; "" is no word at all.
SPANS: dict[str, tuple[float, float]] = {
    "": (0.45, 0.65),
    "small": (0.22, 0.32),
    "big": (0.74, 0.88),
}
SIZES = tuple(SPANS)

# Direction from the centre, by position word; "" is no word at all.
DIRECTIONS: dict[str, tuple[int, int]] = {
    "": (0, 0),
    "left": (-1, 0),
    "right": (1, 0),
    "top": (0, -1),
    "bottom": (0, 1),
    "top left": (-1, -1),
    "top right": (1, -1),
    "bottom left": (-1, 1),
    "bottom right": (1, 1),
}
POSITIONS = tuple(DIRECTIONS)

Ring = tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Scene:
    """What one picture shows; size and position are "" where the prompt leaves them out."""

    shape: str
    colour: str
    background: str
    size: str = ""
    position: str = ""

    def __post_init__(self) -> None:
        """Refuse a scene that cannot be drawn or could not be seen."""
        if self.shape not in SHAPES or self.size not in SIZES or self.position not in POSITIONS:
            raise ValueError(f"unknown shape, size or position: {self}")
        if self.colour not in PALETTE or self.background not in PALETTE:
            raise ValueError(f"unknown colour: {self}")
        if self.colour == self.background:
            raise ValueError(f"the shape would be invisible: {self}")

    @property
    def triple(self) -> tuple[str, str, str]:
        """What the held-out split is about."""
        return (self.shape, self.colour, self.background)


@dataclass(frozen=True)
class Placement:
    """Where the shape's bounding box lies: its longer side and its centre."""

    span: float
    x: float = 0.5
    y: float = 0.5


@lru_cache(maxsize=1)
def held_out() -> tuple[Scene, ...]:
    """The 64 scenes never drawn in training: every (shape, colour) once, backgrounds spread.

    Each shape and each shape colour occurs eight times, each background seven to nine times.
    """
    scenes = []
    for s, shape in enumerate(SHAPES):
        for c, colour in enumerate(COLOURS):
            step = 1 + (3 * s + 2 * c) % (len(COLOURS) - 1)
            scenes.append(Scene(shape, colour, COLOURS[(c + step) % len(COLOURS)]))
    return tuple(scenes)


@lru_cache(maxsize=1)
def _held_out_triples() -> frozenset[tuple[str, str, str]]:
    """The held-out triples for fast look-up."""
    return frozenset(scene.triple for scene in held_out())


def is_held_out(scene: Scene) -> bool:
    """Whether this shape, colour and background were kept from training, placed anywhere."""
    return scene.triple in _held_out_triples()


def _regular(points: int, radii: tuple[float, ...], turn: float) -> Ring:
    """Points around the origin whose distance cycles through ``radii``."""
    return tuple(
        (
            radii[i % len(radii)] * math.cos(turn + 2 * math.pi * i / points),
            radii[i % len(radii)] * math.sin(turn + 2 * math.pi * i / points),
        )
        for i in range(points)
    )


def _heart() -> Ring:
    """The well-known parametric heart, point down."""
    points = []
    for i in range(96):
        t = 2 * math.pi * i / 96
        y = 13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)
        points.append((16 * math.sin(t) ** 3, -y))
    return tuple(points)


def _cross(arm: float) -> Ring:
    """An upright cross whose bars are ``arm`` of its span wide."""
    a, b = arm, 1.0
    return ((-a, -b), (a, -b), (a, -a), (b, -a), (b, a), (a, a), (a, b), (-a, b), (-a, a),
            (-b, a), (-b, -a), (-a, -a))  # fmt: skip


def _outlines(shape: str) -> tuple[Ring, ...]:
    """Filled outline first, then what is cut out of it."""
    match shape:
        case "circle":
            return (_regular(96, (1.0,), 0.0),)
        case "square":
            return (_regular(4, (1.0,), math.pi / 4),)
        case "triangle":
            return (_regular(3, (1.0,), -math.pi / 2),)
        case "star":
            return (_regular(10, (1.0, 0.45), -math.pi / 2),)
        case "diamond":
            return (((0.0, -1.0), (0.7, 0.0), (0.0, 1.0), (-0.7, 0.0)),)
        case "heart":
            return (_heart(),)
        case "cross":
            return (_cross(0.34),)
        case "ring":
            return (_regular(96, (1.0,), 0.0), _regular(96, (0.5,), 0.0))
    raise ValueError(f"unknown shape: {shape}")


@lru_cache(maxsize=len(SHAPES))
def _unit_outlines(shape: str) -> tuple[Ring, ...]:
    """The outlines with their bounding box centred on the origin and its longer side 1."""
    rings = _outlines(shape)
    xs = [x for x, _ in rings[0]]
    ys = [y for _, y in rings[0]]
    scale = 1.0 / max(max(xs) - min(xs), max(ys) - min(ys))
    mid_x, mid_y = (max(xs) + min(xs)) / 2, (max(ys) + min(ys)) / 2
    return tuple(tuple(((x - mid_x) * scale, (y - mid_y) * scale) for x, y in r) for r in rings)


def coverage(shape: str, placement: Placement, side: int = SIDE) -> np.ndarray:
    """How much of each pixel the shape covers: (side, side) float32 from 0 to 1."""
    large = side * SUPERSAMPLING
    canvas = Image.new("L", (large, large), 0)
    pen = ImageDraw.Draw(canvas)
    for fill, ring in zip((255, 0), _unit_outlines(shape), strict=False):
        pen.polygon(
            [
                ((placement.x + x * placement.span) * large, (placement.y + y * placement.span) * large)
                for x, y in ring
            ],
            fill=fill,
        )
    small = canvas.resize((side, side), Image.Resampling.BOX)
    return np.asarray(small, dtype=np.float32) / 255.0


def paint(mask: np.ndarray, colour: str, background: str) -> np.ndarray:
    """A (side, side, 3) uint8 picture of a coverage mask in two palette colours."""
    ink = np.asarray(PALETTE[colour], dtype=np.float32)
    paper = np.asarray(PALETTE[background], dtype=np.float32)
    weight = mask[..., None]
    return np.rint(paper * (1 - weight) + ink * weight).astype(np.uint8)


def placed(scene: Scene, span: float) -> Placement:
    """The placement of a shape of this span: centred, or along the edges its words name."""
    dx, dy = DIRECTIONS[scene.position]
    reach = 0.5 - MARGIN - span / 2
    return Placement(span, 0.5 + dx * reach, 0.5 + dy * reach)


def random_placement(scene: Scene, rng: np.random.Generator) -> Placement:
    """A placement the scene's words allow; spans gather around the middle of their range."""
    low, high = SPANS[scene.size]
    middle, spread = (low + high) / 2, (high - low) / 5
    span = float(np.clip(rng.normal(middle, spread), low, high))
    return placed(scene, span)


def random_scene(rng: np.random.Generator) -> Scene:
    """A scene to train on: never held out, two thirds without size and position."""
    while True:
        shape, colour, background = (str(rng.choice(words)) for words in (SHAPES, COLOURS, COLOURS))
        if colour == background:
            continue
        scene = Scene(shape, colour, background)
        if not is_held_out(scene):
            break
    if rng.random() < 0.66:
        return scene
    size = str(rng.choice(SIZES))
    position = "" if size == "big" else str(rng.choice(POSITIONS))
    return replace(scene, size=size, position=position)


def draw(scene: Scene, placement: Placement | None = None, side: int = SIDE) -> np.ndarray:
    """The ideal picture of a scene, (side, side, 3) uint8; by default of the middle span."""
    if placement is None:
        placement = placed(scene, sum(SPANS[scene.size]) / 2)
    return paint(coverage(scene.shape, placement, side), scene.colour, scene.background)
