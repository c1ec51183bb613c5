"""The residual block."""

from __future__ import annotations

import torch
import torch.nn.functional as F


class Resnet(torch.nn.Module):
    """GroupNorm, SiLU, convolution, twice, the timestep added between; the library's ResnetBlock2D with its
    default options.

    Activations and sums are done in place on what the block itself has made.
    """

    def __init__(self, block: torch.nn.Module) -> None:
        super().__init__()
        self.norm1, self.conv1 = block.norm1, block.conv1
        self.time_emb_proj = block.time_emb_proj
        self.norm2, self.conv2 = block.norm2, block.conv2
        self.conv_shortcut = block.conv_shortcut

    def forward(self, input_tensor: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
        """[N, C, h, w] and what the timestep adds, by `time_emb_proj` [N, C'] -> [N, C', h, w]."""
        hidden = self.conv1(F.silu(self.norm1(input_tensor), inplace=True))
        hidden += shift[:, :, None, None]
        hidden = self.conv2(F.silu(self.norm2(hidden), inplace=True))
        hidden += input_tensor if self.conv_shortcut is None else self.conv_shortcut(input_tensor)
        out: torch.Tensor = hidden
        return out
