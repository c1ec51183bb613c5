"""Parts of the UNet as the engine runs them: the library's weights under the library's names, without its
per-call work.
"""

from __future__ import annotations

import torch
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from diffusers.models.upsampling import Upsample2D

from workers.engine.blocks.control import ControlNet
from workers.engine.blocks.network import Network
from workers.engine.blocks.resnet import Resnet
from workers.engine.blocks.transformer import Transformer
from workers.engine.blocks.unet import UNet
from workers.engine.blocks.upsample import Upsample

__all__ = ["ControlNet", "Network", "UNet", "fit", "fit_control"]


def fit(library: torch.nn.Module) -> UNet:
    """The library's UNet with our blocks in the place of its own; names and weights stay as they are."""
    return UNet(_fitted(library))


def fit_control(library: torch.nn.Module) -> ControlNet:
    """The library's ControlNet with our blocks in the place of its own."""
    return ControlNet(_fitted(library))


def _fitted(module: torch.nn.Module) -> torch.nn.Module:
    for name, child in list(module.named_children()):
        module.register_module(name, _ours(child))
    return module


def _ours(child: torch.nn.Module) -> torch.nn.Module:
    if isinstance(child, ResnetBlock2D):
        return Resnet(child)
    if isinstance(child, Transformer2DModel):
        return Transformer(child)
    if isinstance(child, Upsample2D):
        return Upsample(child.conv)
    return _fitted(child)
