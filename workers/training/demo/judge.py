"""Judging a picture by its pixels alone: does it show what the prompt asked for?

The shape's mask is every pixel nearer to the shape's palette colour than to the background's.
A picture is right when the mean colours of mask and rest are each nearest to their own of the
eight, and the mask overlaps the ideal drawing with IoU >= 0.7. A prompt without a size word
allows a range of spans, so the ideal is the best-fitting one of that range.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from workers.training.demo.shapes import (
    COLOURS,
    PALETTE,
    SHAPES,
    SPANS,
    Scene,
    coverage,
    placed,
)

THRESHOLD = 0.7
SPAN_STEPS = 9


@dataclass(frozen=True)
class Verdict:
    """What the judge saw; ``closest`` is the shape that fits the mask best of all."""

    colour: str
    background: str
    iou: float
    closest: str
    colour_right: bool
    background_right: bool

    @property
    def shape_right(self) -> bool:
        """Whether the mask overlaps the ideal drawing enough."""
        return self.iou >= THRESHOLD

    @property
    def right(self) -> bool:
        """Whether colours and shape are those of the prompt."""
        return self.colour_right and self.background_right and self.shape_right


def nearest_colour(rgb: np.ndarray) -> str:
    """The palette's colour nearest to an RGB mean (0-255)."""
    palette = np.asarray([PALETTE[name] for name in COLOURS], dtype=np.float64)
    return COLOURS[int(np.argmin(((palette - rgb) ** 2).sum(axis=1)))]


def mask_of(picture: np.ndarray, scene: Scene) -> np.ndarray:
    """The pixels nearer to the shape's colour than to the background's, (h, w) bool."""
    pixels = picture[..., :3].astype(np.float64)
    to_ink = ((pixels - np.asarray(PALETTE[scene.colour])) ** 2).sum(axis=-1)
    to_paper = ((pixels - np.asarray(PALETTE[scene.background])) ** 2).sum(axis=-1)
    mask: np.ndarray = to_ink < to_paper
    return mask


@lru_cache(maxsize=512)
def ideal_masks(shape: str, size: str, position: str, side: int) -> np.ndarray:
    """The ideal drawings of every span the words allow, (spans, side, side) bool."""
    low, high = SPANS[size]
    scene = Scene(shape, COLOURS[0], COLOURS[1], size, position)
    spans = np.linspace(low, high, SPAN_STEPS)
    return np.stack([coverage(shape, placed(scene, float(s)), side) >= 0.5 for s in spans])


def iou(mask: np.ndarray, shape: str, size: str = "", position: str = "") -> float:
    """The best overlap of a mask with the ideal drawings of a shape, 0 to 1."""
    ideals = ideal_masks(shape, size, position, mask.shape[0])
    union = (ideals | mask).sum(axis=(1, 2))
    return float(((ideals & mask).sum(axis=(1, 2)) / union).max())


def judge(picture: np.ndarray, scene: Scene) -> Verdict:
    """Judge a square RGB picture, (side, side, 3) uint8, against the scene of a prompt."""
    if picture.ndim != 3 or picture.shape[0] != picture.shape[1]:
        raise ValueError(f"the judge wants a square RGB picture, got {picture.shape}")
    mask = mask_of(picture, scene)
    pixels = picture[..., :3].astype(np.float64)
    colour = nearest_colour(pixels[mask].mean(axis=0)) if mask.any() else ""
    background = nearest_colour(pixels[~mask].mean(axis=0)) if not mask.all() else ""
    overlaps = {shape: iou(mask, shape, scene.size, scene.position) for shape in SHAPES}
    return Verdict(
        colour=colour,
        background=background,
        iou=overlaps[scene.shape],
        closest=max(overlaps, key=lambda shape: overlaps[shape]),
        colour_right=colour == scene.colour,
        background_right=background == scene.background,
    )
