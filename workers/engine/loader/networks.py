"""Building the networks: empty module sets of a given architecture, to be filled with weights again and
again.

This is the one place that knows the libraries' classes; everything else sees `torch.nn.Module`.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from diffusers import AutoencoderKL, ControlNetModel, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from workers.engine import blocks
from workers.engine.loader.architecture import TIME_WIDTH, ControlShape, TextShape, UNetShape, VaeShape

Shape = UNetShape | VaeShape | TextShape | ControlShape


def _common(shape: UNetShape) -> dict[str, Any]:
    """What the library wants to know of a UNet's way down."""
    pooled: dict[str, Any] = (
        {
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": TIME_WIDTH,
            "projection_class_embeddings_input_dim": shape.added,
        }
        if shape.added
        else {}
    )
    return pooled | {
        "in_channels": shape.in_channels,
        "down_block_types": tuple(
            "CrossAttnDownBlock2D" if attends else "DownBlock2D" for attends in shape.attention
        ),
        "block_out_channels": shape.widths,
        "layers_per_block": shape.blocks,
        "cross_attention_dim": shape.context,
        # diffusers reads `attention_head_dim` as the number of heads in models of this family
        "attention_head_dim": shape.heads,
        "use_linear_projection": shape.linear_projection,
        # the library gives the middle the depth and the heads of the last level
        "transformer_layers_per_block": (*(depth or 1 for depth in shape.depths[:-1]), shape.middle),
    }


def _unet(shape: UNetShape) -> torch.nn.Module:
    up = tuple("CrossAttnUpBlock2D" if attends else "UpBlock2D" for attends in reversed(shape.attention))
    return UNet2DConditionModel(out_channels=shape.out_channels, up_block_types=up, **_common(shape))


def _control(shape: ControlShape) -> torch.nn.Module:
    return ControlNetModel(conditioning_embedding_out_channels=shape.hint, **_common(shape.unet))


def _vae(shape: VaeShape) -> torch.nn.Module:
    return AutoencoderKL(
        in_channels=shape.channels,
        out_channels=shape.channels,
        down_block_types=("DownEncoderBlock2D",) * len(shape.widths),
        up_block_types=("UpDecoderBlock2D",) * len(shape.widths),
        block_out_channels=shape.widths,
        layers_per_block=shape.blocks,
        latent_channels=shape.latent_channels,
    )


def _text(shape: TextShape) -> torch.nn.Module:
    config = CLIPTextConfig(
        hidden_size=shape.width,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        intermediate_size=shape.inner,
        vocab_size=shape.vocabulary,
        max_position_embeddings=shape.positions,
        hidden_act=shape.activation,
        layer_norm_eps=1e-5,
    )
    module = CLIPTextModel(config)
    if shape.projection:
        # beside the encoder, under the name that all exports of it use
        module.register_module("text_projection", torch.nn.Linear(shape.width, shape.projection, bias=False))
    return module


def library(shape: Shape) -> torch.nn.Module:
    """The library's own module set of an architecture, with random weights."""
    if isinstance(shape, UNetShape):
        return _unet(shape)
    if isinstance(shape, ControlShape):
        return _control(shape)
    return _vae(shape) if isinstance(shape, VaeShape) else _text(shape)


def skeleton(shape: Shape) -> torch.nn.Module:
    """The module set as the engine runs it, without memory behind it (on torch's meta device)."""
    with torch.device("meta"):
        made = library(shape)
        if isinstance(shape, ControlShape):
            return blocks.fit_control(made)
        return blocks.fit(made) if isinstance(shape, UNetShape) else made


@lru_cache(maxsize=16)
def expected(shape: Shape) -> dict[str, torch.Size]:
    """Names and shapes of the tensors that fill the architecture."""
    return {name: tensor.shape for name, tensor in skeleton(shape).state_dict().items()}


def empty(shape: Shape, device: str, dtype: torch.dtype, *, channels_last: bool = False) -> torch.nn.Module:
    """The module set with memory for its weights, which hold nothing meaningful yet. `channels_last`: those
    of convolutions lie as the activations do, channel by channel for each pixel.
    """
    # torch's own `to`: the library's override warns about modules that these networks do not have
    module = torch.nn.Module.to(skeleton(shape), dtype).to_empty(device=device)
    if isinstance(shape, TextShape):
        module.embeddings.position_ids.copy_(torch.arange(shape.positions).unsqueeze(0))
    elif channels_last:
        module = torch.nn.Module.to(module, memory_format=torch.channels_last)
    return module.eval().requires_grad_(False)
