"""Latents into pixels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from workers.engine.slots import Slot

Pixels = npt.NDArray[np.uint8]


def decode(slot: Slot, latents: Sequence[torch.Tensor], scale_factor: float) -> torch.Tensor:
    """[N, 3, H, W] in -1..1 (unclamped), float32 on the CPU, for latents [C, h, w] of one size."""
    weight = next(slot.module.parameters())
    stacked = torch.stack(list(latents)).to(weight) / scale_factor
    pictures: torch.Tensor = slot.module.decode(
        stacked.contiguous(memory_format=torch.channels_last), return_dict=False
    )[0]
    return pictures.float().cpu()


def beyond(pictures: torch.Tensor) -> list[int]:
    """Which of the pictures [N, ...] have numbers that are infinite or none."""
    return [number for number, each in enumerate(pictures) if not bool(torch.isfinite(each).all())]


def encode(slot: Slot, picture: torch.Tensor, scale_factor: float) -> torch.Tensor:
    """The latent [C, h, w] of a picture [3, H, W] in -1..1, float32 on the CPU: the mean of its posterior.

    The peer draws from the posterior without a seed; its mean makes the same picture again.
    """
    weight = next(slot.module.parameters())
    shown = picture[None].to(weight).contiguous(memory_format=torch.channels_last)
    latent: torch.Tensor = slot.module.encode(shown).latent_dist.mean[0] * scale_factor
    return latent.float().cpu().contiguous()


def to_pixels(picture: torch.Tensor) -> Pixels:
    """uint8 [H, W, 3] of one picture [3, H, W] in -1..1; fractions are cut off, as in the peer."""
    levels = ((picture + 1.0) / 2.0).clamp(0.0, 1.0) * 255.0
    out: Pixels = levels.permute(1, 2, 0).contiguous().to(torch.uint8).numpy()
    return out
