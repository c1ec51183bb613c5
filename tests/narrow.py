"""Narrow twins of the published families: the library's own modules with few channels and random weights, as
a diffusers folder holds them, and as the single file they mean.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from workers.engine.loader.diffusers_layout import SCHEDULER, TEXT, TEXT_2, UNET, VAE, single_file

_ATTENDING, _PLAIN = "CrossAttnDownBlock2D", "DownBlock2D"


@dataclass(eq=False)
class Twin:
    """A family's modules, by the sub-folder of a diffusers folder they would be in."""

    family: str
    modules: dict[str, Any]
    configs: dict[str, dict[str, Any]] = field(default_factory=dict)

    def parts(self) -> dict[str, dict[str, torch.Tensor]]:
        """The tensors of each sub-folder."""
        return {name: dict(module.state_dict()) for name, module in self.modules.items()}

    def save(self, path: Path, dtype: torch.dtype = torch.float32, **more: torch.Tensor) -> Path:
        """Write the single file, with some tensors `more`."""
        made = single_file("twin", self.parts(), self.configs)
        tensors = {key: tensor.to(dtype).contiguous() for key, tensor in made.tensors.items()} | more
        save_file(tensors, path, metadata=made.metadata)
        return path


def _unet(
    channels: int, widths: tuple[int, ...], depths: tuple[int, ...], **more: Any
) -> UNet2DConditionModel:
    down = tuple(_ATTENDING if depth else _PLAIN for depth in depths)
    return UNet2DConditionModel(
        in_channels=channels,
        block_out_channels=widths,
        down_block_types=down,
        up_block_types=tuple(
            "CrossAttnUpBlock2D" if kind == _ATTENDING else "UpBlock2D" for kind in reversed(down)
        ),
        layers_per_block=2,
        **more,
    )


def _vae() -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(32, 32, 64, 64),
        layers_per_block=2,
        latent_channels=4,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
    )


def _text(width: int, layers: int, *, open_clip: bool = False, projection: int = 0) -> Any:
    config = CLIPTextConfig(
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=4,
        intermediate_size=2 * width,
        hidden_act="gelu" if open_clip else "quick_gelu",
        projection_dim=projection or 512,
        eos_token_id=49407,
        bos_token_id=49406,
    )
    return (CLIPTextModelWithProjection if projection else CLIPTextModel)(config)


def twin(family: str, seed: int = 0, *, channels: int = 4, velocity: bool = False) -> Twin:
    """The narrow twin of "sd1", "sd2", "sdxl" or "sdxl-refiner". `channels`: of the UNet's input."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        modules = _MAKERS[family](channels)
        for module in modules.values():
            _enliven(module)
            module.eval().requires_grad_(False)
    scale = 0.13025 if family.startswith("sdxl") else 0.18215
    configs = {UNET: dict(modules[UNET].config), VAE: {"scaling_factor": scale}}
    if velocity:
        configs[SCHEDULER] = {"prediction_type": "v_prediction"}
    return Twin(family, modules, configs)


def _enliven(module: torch.nn.Module) -> None:
    """Norms start as the identity and biases at zero, which would hide that they are mixed up."""
    for parameter in module.parameters():
        if parameter.ndim == 1:
            parameter.data += 0.1 * torch.randn_like(parameter)


def _sd1(channels: int) -> dict[str, Any]:
    unet = _unet(channels, (32, 64, 64, 64), (1, 1, 1, 0), attention_head_dim=8, cross_attention_dim=32)
    return {UNET: unet, VAE: _vae(), TEXT: _text(32, 3)}


def _sd2(channels: int) -> dict[str, Any]:
    unet = _unet(
        channels,
        (32, 64, 64, 128),
        (1, 1, 1, 0),
        attention_head_dim=(1, 1, 1, 2),
        cross_attention_dim=32,
        use_linear_projection=True,
    )
    return {UNET: unet, VAE: _vae(), TEXT: _text(32, 3, open_clip=True)}


def _sdxl(channels: int) -> dict[str, Any]:
    unet = _unet(
        channels,
        (32, 64, 128),
        (0, 2, 3),
        attention_head_dim=(1, 1, 2),
        cross_attention_dim=80,
        transformer_layers_per_block=(1, 2, 3),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=48 + 6 * 256,
    )
    return {
        UNET: unet,
        VAE: _vae(),
        TEXT: _text(32, 3),
        TEXT_2: _text(48, 4, open_clip=True, projection=48),
    }


def _refiner(channels: int) -> dict[str, Any]:
    unet = _unet(
        channels,
        (32, 64, 64, 128),
        (0, 2, 2, 0),
        attention_head_dim=(1, 1, 1, 2),
        cross_attention_dim=48,
        transformer_layers_per_block=2,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=48 + 5 * 256,
    )
    return {UNET: unet, VAE: _vae(), TEXT_2: _text(48, 4, open_clip=True, projection=48)}


_MAKERS = {"sd1": _sd1, "sd2": _sd2, "sdxl": _sdxl, "sdxl-refiner": _refiner}
