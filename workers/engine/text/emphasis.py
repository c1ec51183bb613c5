"""What a weight in a prompt does to the encoding (the peer's option "emphasis")."""

from __future__ import annotations

import torch

KEEPS_MEAN = "Original"
NO_NORM = "No norm"


def apply(encoded: torch.Tensor, weights: torch.Tensor, mode: str) -> torch.Tensor:
    """[tokens, width] with each token times its weight; "Original" then restores the chunk's mean, other
    modes than "No norm" do nothing.

    An encoding whose mean is (nearly) zero cannot be restored by scaling and is left without it.
    """
    if mode not in (KEEPS_MEAN, NO_NORM):
        return encoded
    weighted = encoded * weights.unsqueeze(-1)
    if mode == NO_NORM:
        return weighted
    before, after = encoded.mean(), weighted.mean()
    restored = weighted * (before / after)
    # chosen by the device itself: nobody waits for it
    return torch.where(torch.isfinite(restored).all(), restored, weighted)
