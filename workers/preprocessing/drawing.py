"""The preprocessors that need no learned weights. Each makes a map [h, w, 3] of a picture [h, w, 3]."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import cv2
import numpy as np

from workers.preprocessing.pictures import Array, of_resolution, scaled_by

_SHUFFLED_OVER = 256
"""Pixels over which a shuffled picture's parts wander."""


@dataclass(frozen=True)
class Numbers:
    """What a preprocessor is told: the resolution of the shorter side, two thresholds, and a seed where it
    draws by chance.
    """

    resolution: float = 512
    a: float = 0.0
    b: float = 0.0
    seed: int = 0


Draw = Callable[[Array, Numbers], Array]


def _none(picture: Array, _numbers: Numbers) -> Array:
    return picture


def _invert(picture: Array, _numbers: Numbers) -> Array:
    return 255 - picture


def _canny(picture: Array, numbers: Numbers) -> Array:
    """Canny (1986)."""
    scaled, cut = of_resolution(picture, numbers.resolution)
    edges = cv2.Canny(scaled, int(numbers.a), int(numbers.b))
    return cut(np.stack([edges] * 3, axis=2).astype(np.uint8))


def _threshold(picture: Array, numbers: Numbers) -> Array:
    scaled, cut = of_resolution(picture, numbers.resolution)
    return cut(_white(scaled.min(axis=2) > numbers.a))


def _white(where: np.typing.NDArray[np.bool_]) -> Array:
    """White where it is true [h, w], black elsewhere."""
    return np.repeat(np.where(where, 255, 0).astype(np.uint8)[..., None], 3, axis=2)


def _blur(picture: Array, numbers: Numbers) -> Array:
    scaled, cut = of_resolution(picture, numbers.resolution)
    return cv2.GaussianBlur(cut(scaled), (0, 0), numbers.a).astype(np.uint8)


def _xdog(picture: Array, numbers: Numbers) -> Array:
    """Differences of Gaussians (Winnemoeller 2011): where a wide blur is brighter than a narrow one."""
    scaled, cut = of_resolution(picture, numbers.resolution)
    values = scaled.astype(np.float32)
    narrow, wide = cv2.GaussianBlur(values, (0, 0), 0.5), cv2.GaussianBlur(values, (0, 0), 5.0)
    bright = (255 - (wide - narrow).min(axis=2)).clip(0, 255).astype(np.uint8)
    return cut(_white(2 * (255 - bright).astype(np.int32) > numbers.a))


def _lineart(picture: Array, numbers: Numbers) -> Array:
    """What is darker than its surroundings, white on black."""
    scaled, cut = of_resolution(picture, numbers.resolution)
    values = scaled.astype(np.float32)
    dark = (cv2.GaussianBlur(values, (0, 0), 6.0) - values).min(axis=2).clip(0, 255)
    strong = dark[dark > 8]
    dark = dark / max(16.0, float(np.median(strong)) if strong.size else 0.0) * 127
    return cut(np.repeat(dark.clip(0, 255).astype(np.uint8)[..., None], 3, axis=2))


def _colour_grid(picture: Array, numbers: Numbers) -> Array:
    """Squares of 64 pixels, each of one colour."""
    k = numbers.resolution / min(picture.shape[:2])
    width, height = scaled_by(k, picture)
    scaled = cv2.resize(picture, (width, height), interpolation=cv2.INTER_CUBIC if k > 1 else cv2.INTER_AREA)
    few = cv2.resize(scaled, (max(width // 64, 1), max(height // 64, 1)), interpolation=cv2.INTER_CUBIC)
    return cv2.resize(few, (width, height), interpolation=cv2.INTER_NEAREST).astype(np.uint8)


def _shuffle(picture: Array, numbers: Numbers) -> Array:
    """The picture's parts moved about by smooth noise of the seed."""
    scaled, cut = of_resolution(picture, numbers.resolution)
    shown = cut(scaled)
    height, width = shown.shape[:2]
    chance = np.random.RandomState(numbers.seed & 0xFFFFFFFF)
    columns = _smooth_noise(chance, height, width) * (width - 1)
    rows = _smooth_noise(chance, height, width) * (height - 1)
    moved = cv2.remap(shown, columns.astype(np.float32), rows.astype(np.float32), cv2.INTER_LINEAR)
    return moved.astype(np.uint8)


def _smooth_noise(chance: np.random.RandomState, height: int, width: int) -> np.typing.NDArray[np.float64]:
    """[height, width] from 0 to 1, changing over _SHUFFLED_OVER pixels."""
    step = _SHUFFLED_OVER
    few = chance.uniform(0, 1, size=(height // step + 2, width // step + 2))
    whole = cv2.resize(few, (width + 2 * step, height + 2 * step), interpolation=cv2.INTER_CUBIC)
    part = whole[step : step + height, step : step + width].astype(np.float64)
    part -= part.min()
    most = part.max()
    return part / most if most else part


def _gamma(channel: Array, gamma: float) -> Array:
    bent = ((channel.astype(np.float32) / 255.0) ** gamma * 255.0).clip(0, 255).astype(np.uint8)
    return np.repeat(bent[..., None], 3, axis=2)


def _luminance(picture: Array, numbers: Numbers) -> Array:
    """L of CIELAB; red and blue change places, as in the peer."""
    return _gamma(cv2.cvtColor(picture, cv2.COLOR_BGR2LAB)[..., 0].astype(np.uint8), numbers.a)


def _intensity(picture: Array, numbers: Numbers) -> Array:
    """V of HSV."""
    return _gamma(picture.max(axis=2), numbers.a)


def _tile(picture: Array, numbers: Numbers) -> Array:
    if numbers.a < 1.1:
        return picture
    height, width = picture.shape[:2]
    smaller = (max(1, int(width / numbers.a)), max(1, int(height / numbers.a)))
    return cv2.resize(picture, smaller, interpolation=cv2.INTER_AREA).astype(np.uint8)


DRAWN: Mapping[str, Draw] = {
    "none": _none,
    "invert": _invert,
    "canny": _canny,
    "threshold": _threshold,
    "blur_gaussian": _blur,
    "scribble_xdog": _xdog,
    "lineart_standard": _lineart,
    "color": _colour_grid,
    "shuffle": _shuffle,
    "recolor_luminance": _luminance,
    "recolor_intensity": _intensity,
    "tile_resample": _tile,
    "inpaint": _none,
}
"""By the preprocessor's name (see atelier.preprocessors)."""
