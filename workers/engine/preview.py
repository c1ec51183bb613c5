"""Approximate pictures from latents without the decoder: the linear map that fits it best, found once per
autoencoder.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch

from atelier.contract.errors import ModelUnusable
from workers.engine.decode import Pixels, to_pixels

_SAMPLES, _SIDE, _PATCH, _DOWN = 4, 8, 2, 8


class LatentMap:
    """[3, C] weights and [3] offsets: the colour a latent pixel stands for, roughly."""

    def __init__(self, weights: torch.Tensor, offsets: torch.Tensor) -> None:
        self.weights, self.offsets = weights, offsets

    def __call__(self, latent: torch.Tensor) -> Pixels:
        """uint8 [8h, 8w, 3] for a latent [C, h, w] on the CPU: its colours, enlarged smoothly to the
        picture's size.
        """
        colours = torch.einsum("rc,chw->rhw", self.weights, latent) + self.offsets[:, None, None]
        large = torch.nn.functional.interpolate(
            colours[None], scale_factor=_DOWN, mode="bilinear", align_corners=False
        )[0]
        return to_pixels(large)


def fit(decode: Callable[[Sequence[torch.Tensor]], torch.Tensor], channels: int) -> LatentMap:
    """Least squares over a few random latents: flat patches, decoded (into [N, 3, H, W] in -1..1) and
    averaged over each latent pixel.
    """
    stream = torch.Generator("cpu").manual_seed(0)
    patches = torch.randn(_SAMPLES, channels, _SIDE // _PATCH, _SIDE // _PATCH, generator=stream)
    latents = torch.nn.functional.interpolate(patches, scale_factor=_PATCH, mode="nearest")
    pictures = decode(list(latents))
    if not bool(torch.isfinite(pictures).all()):
        raise ModelUnusable(
            "The autoencoder makes numbers that are infinite or none of every picture: its file is damaged. "
            "Choose another SD VAE, or another checkpoint."
        )
    colours = torch.nn.functional.avg_pool2d(pictures, _DOWN).clamp(-1.0, 1.0)
    inputs = latents.permute(0, 2, 3, 1).reshape(-1, channels)
    inputs = torch.cat([inputs, torch.ones(len(inputs), 1)], dim=1)
    found = torch.linalg.lstsq(
        inputs.double(), colours.permute(0, 2, 3, 1).reshape(-1, 3).double()
    ).solution.float()
    return LatentMap(found[:-1].T.contiguous(), found[-1].clone())


def contact_sheet(pictures: Sequence[Pixels]) -> Pixels:
    """One picture of several of a size: rows of them on black, as square as possible."""
    columns = math.ceil(math.sqrt(len(pictures)))
    height, width, _ = pictures[0].shape
    sheet = np.zeros((height * math.ceil(len(pictures) / columns), width * columns, 3), dtype=np.uint8)
    for number, picture in enumerate(pictures):
        top, left = number // columns * height, number % columns * width
        sheet[top : top + height, left : left + width] = picture
    return sheet
