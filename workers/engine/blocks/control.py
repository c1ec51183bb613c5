"""The ControlNet (Zhang et al. 2023): a copy of the UNet's way down that also sees a picture."""

from __future__ import annotations

import torch

from workers.engine.blocks.network import Network

_CHILDREN = (
    "time_proj",
    "time_embedding",
    "add_time_proj",
    "add_embedding",
    "conv_in",
    "down_blocks",
    "mid_block",
    "controlnet_cond_embedding",
    "controlnet_down_blocks",
    "controlnet_mid_block",
)


class ControlNet(Network):
    """The library's ControlNetModel with our blocks in it."""

    def __init__(self, library: torch.nn.Module) -> None:
        super().__init__()
        self._meet(library, _CHILDREN)

    def hint(self, pictures: torch.Tensor) -> torch.Tensor:
        """[N, C, h, w]: what pictures [N, 3, 8h, 8w] in 0..1 add to the first convolution's output."""
        out: torch.Tensor = self.controlnet_cond_embedding(pictures)
        return out

    def forward(
        self, latents: torch.Tensor, times: torch.Tensor, keys: torch.Tensor, hints: torch.Tensor
    ) -> list[torch.Tensor]:
        """What is added to the UNet's blocks on the way up, the middle's last, each [N, C, h, w], for latents
        [N, C, h, w], what `times` and `keys` gave for them, and the `hints` of their pictures.
        """
        shifts, prompts = self._shifts(times), self._prompts(keys)
        hidden, skips = self._down(self.conv_in(latents) + hints, shifts, prompts)
        found = [out(skip) for out, skip in zip(self.controlnet_down_blocks, skips, strict=True)]
        return [*found, self.controlnet_mid_block(hidden)]
