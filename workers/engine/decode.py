"""Latents into pixels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from workers.engine.slots import Slot

Pixels = npt.NDArray[np.uint8]


def decode(slot: Slot, latents: Sequence[torch.Tensor], scale_factor: float) -> torch.Tensor:
    """[N, 3, H, W] in -1..1 (unclamped), float32 on the slot's device, for latents [C, h, w] of one size."""
    weight = next(slot.module.parameters())
    stacked = torch.stack(list(latents)).to(weight) / scale_factor
    pictures: torch.Tensor = slot.module.decode(
        stacked.contiguous(memory_format=torch.channels_last), return_dict=False
    )[0]
    return pictures.float()


def finite(pictures: torch.Tensor) -> torch.Tensor:
    """[N]: which of the pictures [N, ...] have no number that is infinite or none."""
    return torch.isfinite(pictures).flatten(1).all(1)


def encode(slot: Slot, picture: torch.Tensor, scale_factor: float) -> torch.Tensor:
    """The latent [C, h, w] of a picture [3, H, W] in -1..1, float32 on the slot's device: the mean of its
    posterior.

    The peer draws from the posterior without a seed; its mean makes the same picture again.
    """
    weight = next(slot.module.parameters())
    shown = picture[None].to(weight).contiguous(memory_format=torch.channels_last)
    latent: torch.Tensor = slot.module.encode(shown).latent_dist.mean[0] * scale_factor
    return latent.float().contiguous()


def levels(pictures: torch.Tensor) -> torch.Tensor:
    """uint8 [..., H, W, 3] of pictures [..., 3, H, W] in -1..1; fractions are cut off, as in the peer."""
    scaled = ((pictures + 1.0) / 2.0).clamp(0.0, 1.0) * 255.0
    return scaled.movedim(-3, -1).contiguous().to(torch.uint8)


def to_pixels(picture: torch.Tensor) -> Pixels:
    """uint8 [H, W, 3] of one picture [3, H, W] in -1..1 on the CPU."""
    out: Pixels = levels(picture).numpy()
    return out
