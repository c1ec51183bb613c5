"""Narrow ControlNets and edge detectors as files, for tests."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import ControlNetModel
from safetensors.torch import save_file

from tests.narrow import UNET, Twin
from workers.engine.hed import Detector
from workers.engine.loader import ldm_keys, networks
from workers.engine.loader.architecture import ControlShape, UNetShape

HINT = (16, 16, 16, 16)


def control_twin(twin: Twin, seed: int = 0) -> ControlNetModel:
    """A ControlNet for the twin's UNet, whose outputs are not zero as a fresh one's are."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = ControlNetModel.from_unet(twin.modules[UNET], conditioning_embedding_out_channels=HINT)
        for parameter in made.parameters():
            parameter.data += 0.05 * torch.randn_like(parameter)
    return made.eval().requires_grad_(False)


def save_control(made: ControlNetModel, path: Path, *, layout: str = "ldm") -> Path:
    """The file of a ControlNet: `layout` is "diffusers", "ldm" or "bare" (ldm without the prefix)."""
    own = dict(made.state_dict())
    if layout == "diffusers":
        save_file(own, path)
        return path
    attention = ["CrossAttn" in kind for kind in made.config.down_block_types]
    modules = ldm_keys.inverted(ldm_keys.control_names(attention, made.config.layers_per_block))
    prefix = "control_model." if layout == "ldm" else ""
    named = {f"{prefix}{ldm_keys.rename(key, modules)}": tensor.contiguous() for key, tensor in own.items()}
    save_file(named, path)
    return path


def save_control_of(unet: UNetShape, path: Path, seed: int = 0) -> Path:
    """The file of a ControlNet for a UNet of that shape."""
    shape, stream = ControlShape(unet, HINT), torch.Generator().manual_seed(seed)
    modules = ldm_keys.inverted(ldm_keys.control_names(unet.attention, unet.blocks))
    tensors = {
        f"control_model.{ldm_keys.rename(name, modules)}": 0.1 * torch.randn(size, generator=stream)
        for name, size in networks.expected(shape).items()
    }
    save_file(tensors, path)
    return path


def save_detector(path: Path, seed: int = 0) -> Path:
    """A narrow edge detector with the names of ControlNetHED.pth."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        save_file(dict(Detector((4, 4, 8, 8, 8)).state_dict()), path)
    return path
