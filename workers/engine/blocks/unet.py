"""The UNet: the library's weights under the library's names, walked by ourselves."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest

import torch
import torch.nn.functional as F

from workers.engine.blocks.network import Network, attentions, through

_CHILDREN = (
    "time_proj",
    "time_embedding",
    "add_time_proj",
    "add_embedding",
    "conv_in",
    "down_blocks",
    "mid_block",
    "up_blocks",
    "conv_norm_out",
    "conv_out",
)


class UNet(Network):
    """The library's UNet2DConditionModel for pictures, with our blocks in it."""

    def __init__(self, library: torch.nn.Module) -> None:
        super().__init__()
        self._meet(library, _CHILDREN)

    def forward(
        self,
        latents: torch.Tensor,
        times: torch.Tensor,
        keys: torch.Tensor,
        control: Sequence[torch.Tensor] = (),
    ) -> torch.Tensor:
        """The prediction [N, C', h, w] for latents [N, C, h, w] and what `times` and `keys` gave for them.
        `control`: what ControlNets add to each block's way up, the middle's last (see ControlNet.forward).
        """
        shifts, prompts = self._shifts(times), self._prompts(keys)
        hidden, skips = self._down(self.conv_in(latents), shifts, prompts)
        if control:
            hidden = hidden + control[-1]
            skips = [skip + added for skip, added in zip(skips, control[:-1], strict=True)]
        for block in self.up_blocks:
            for resnet, attention in zip_longest(block.resnets, attentions(block)):
                hidden = torch.cat([hidden, skips.pop()], dim=1)
                hidden = through(resnet, attention, hidden, shifts, prompts)
            for upsampler in block.upsamplers or ():
                hidden = upsampler(hidden, skips[-1].shape[2:])
        out: torch.Tensor = self.conv_out(F.silu(self.conv_norm_out(hidden), inplace=True))
        return out
