"""Upsampling as the published networks do it."""

from __future__ import annotations

import torch
import torch.nn.functional as F


class Upsample(torch.nn.Module):
    """Twice the size, convolved, then cut to the skip connection's size.

    The published networks resize after the convolution where a side is odd; the library's module resizes
    before it.
    """

    def __init__(self, conv: torch.nn.Module) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, hidden_states: torch.Tensor, output_size: torch.Size | None = None) -> torch.Tensor:
        """[N, C, h, w] -> [N, C, *output_size], twice the size where none is given."""
        doubled = F.interpolate(hidden_states, scale_factor=2.0, mode="nearest")
        out: torch.Tensor = self.conv(doubled)
        if output_size is None or out.shape[2:] == output_size:
            return out
        return F.interpolate(out, size=tuple(output_size), mode="nearest")
