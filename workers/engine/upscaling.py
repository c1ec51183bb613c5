"""From the first pass of hires fix to the second: the latent enlarged, in latent space or as a picture.

Behaviour of the peer (v1.10.1): six latent modes; otherwise the picture is decoded, cut to 8 bits, resized
and encoded again. What is larger than the target is cut to its middle.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

from atelier.contract.errors import UnknownName
from atelier.vocabulary import LATENT_UPSCALERS
from workers.engine.decode import Pixels, to_pixels
from workers.engine.models import LATENT_SCALE
from workers.engine.rows import Decode, Encode, Question

Enlarge = Callable[[torch.Tensor], Generator[Question, list[torch.Tensor], torch.Tensor]]
"""The generator that gives the enlarged latent for a latent [C, h, w]."""

_MODES: dict[str, dict[str, Any]] = {
    "Latent": {"mode": "bilinear", "antialias": False},
    "Latent (antialiased)": {"mode": "bilinear", "antialias": True},
    "Latent (bicubic)": {"mode": "bicubic", "antialias": False},
    "Latent (bicubic antialiased)": {"mode": "bicubic", "antialias": True},
    "Latent (nearest)": {"mode": "nearest", "antialias": False},
    "Latent (nearest-exact)": {"mode": "nearest-exact", "antialias": False},
}
_FILTERS = {
    "None": Image.Resampling.LANCZOS,
    "Lanczos": Image.Resampling.LANCZOS,
    "Nearest": Image.Resampling.NEAREST,
}
_LARGEST_MULTIPLE = 8
"""The peer's upscalers make sides that divide by this before the picture is brought to its size."""


@dataclass(frozen=True)
class Target:
    """Sizes in pixels, (width, height): the picture becomes `upscaled`, of which the middle `size` stays."""

    upscaled: tuple[int, int]
    size: tuple[int, int]

    def middle(self, latent: torch.Tensor) -> torch.Tensor:
        """The part of an enlarged latent [C, h, w] that stays."""
        cut_x = (self.upscaled[0] - self.size[0]) // LATENT_SCALE
        cut_y = (self.upscaled[1] - self.size[1]) // LATENT_SCALE
        height, width = latent.shape[1:]
        return latent[
            :, cut_y // 2 : height - (cut_y + 1) // 2, cut_x // 2 : width - (cut_x + 1) // 2
        ].contiguous()


def resized(picture: Image.Image, width: int, height: int, upscaler: str) -> Image.Image:
    """`picture` brought to a size by an upscaler that needs no model. Raises UnknownName.

    Lanczos and Nearest enlarge by one factor to sides that divide by 8 first, then to the size, as in the
    peer.
    """
    if upscaler not in _FILTERS:
        raise UnknownName.of("upscaler", upscaler, [*LATENT_UPSCALERS, *_FILTERS])
    kind, scale = _FILTERS[upscaler], max(width / picture.width, height / picture.height)
    if upscaler != "None" and scale > 1.0:
        picture = picture.resize((int(picture.width * scale), int(picture.height * scale)), kind)
        sides = tuple(int(side) // _LARGEST_MULTIPLE * _LARGEST_MULTIPLE for side in picture.size)
        if picture.size != sides:
            picture = picture.resize((sides[0], sides[1]), Image.Resampling.LANCZOS)
    if picture.size != (width, height):
        picture = picture.resize((width, height), Image.Resampling.LANCZOS)
    return picture


class Autoencoder(NamedTuple):
    """Whose weights decode or encode, and the scale of the latents."""

    vae: str
    scale_factor: float


def enlargement(
    upscaler: str, target: Target, before: Autoencoder, after: Autoencoder, *, tiling: bool = False
) -> Enlarge:
    """How a latent is enlarged by the upscaler of that name: decoded by the autoencoder of the pass `before`,
    encoded by that of the pass `after`. Raises UnknownName.
    """
    if upscaler in _MODES:
        return _in_latent_space(_MODES[upscaler], target)
    if upscaler not in _FILTERS:
        raise UnknownName.of("upscaler", upscaler, [*LATENT_UPSCALERS, *_FILTERS])

    def enlarge(latent: torch.Tensor) -> Generator[Question, list[torch.Tensor], torch.Tensor]:
        [picture] = yield Decode(before.vae, latent, before.scale_factor, tiling)
        larger = resized(Image.fromarray(to_pixels(picture), "RGB"), *target.upscaled, upscaler)
        [encoded] = yield Encode(after.vae, to_picture(np.asarray(larger)), after.scale_factor, tiling)
        return target.middle(encoded)

    return enlarge


def to_picture(pixels: Pixels) -> torch.Tensor:
    """[3, H, W] in -1..1 of uint8 pixels [H, W, 3]."""
    levels = torch.from_numpy(np.array(pixels)).permute(2, 0, 1).float() / 255.0
    return levels * 2.0 - 1.0


def _in_latent_space(mode: dict[str, Any], target: Target) -> Enlarge:
    width, height = target.upscaled

    def enlarge(latent: torch.Tensor) -> Generator[Question, list[torch.Tensor], torch.Tensor]:
        larger = torch.nn.functional.interpolate(
            latent[None], size=(height // LATENT_SCALE, width // LATENT_SCALE), **mode
        )[0]
        return target.middle(larger)
        yield  # a generator like the others, that has nothing to ask

    return enlarge
