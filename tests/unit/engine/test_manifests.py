"""The published checkpoints' tensors by name and shape, against models without memory (torch's meta device):
our names, the library's conversion of the LDM layout, and the published counts agree.
"""

from __future__ import annotations

from dataclasses import replace
from math import prod

import pytest
import torch
from diffusers.loaders import single_file_utils as theirs

from workers.engine.loader import ldm_keys, networks, openclip
from workers.engine.loader.architecture import (
    TextShape,
    UNetShape,
    VaeShape,
    infer_text,
    infer_unet,
    infer_vae,
)

SD15 = UNetShape(4, 4, (320, 640, 1280, 1280), (1, 1, 1, 0), 1, 2, 768, (8, 8, 8, 8), False)
SD21 = replace(SD15, context=1024, heads=(5, 10, 20, 20), linear_projection=True)
SDXL = UNetShape(4, 4, (320, 640, 1280), (0, 2, 10), 10, 2, 2048, (5, 10, 20), True, 2816)
REFINER = UNetShape(4, 4, (384, 768, 1536, 1536), (0, 4, 4, 0), 4, 2, 1280, (6, 12, 24, 24), True, 2560)
KL_F8 = VaeShape((128, 256, 512, 512), 2, 4, 3)
CLIP_L = TextShape(768, 12, 12, 3072, 49408, 77)
CLIP_H = TextShape(1024, 23, 16, 4096, 49408, 77, "gelu")
CLIP_G = TextShape(1280, 32, 20, 5120, 49408, 77, "gelu", 1280)

Shapes = dict[str, tuple[int, ...]]


def shapes(shape: UNetShape | VaeShape | TextShape) -> Shapes:
    return {name: tuple(size) for name, size in networks.expected(shape).items()}


def ldm_names(own: Shapes, modules: dict[str, str]) -> Shapes:
    named = {name: ldm_keys.rename(name, ldm_keys.inverted(modules)) for name in own}
    return {ldm: own[name] for name, ldm in named.items() if ldm is not None}


def hollow(named: Shapes, prefix: str) -> dict[str, torch.Tensor]:
    return {f"{prefix}{name}": torch.empty(shape, device="meta") for name, shape in named.items()}


@pytest.mark.parametrize(
    ("shape", "tensors", "millions"),
    [
        pytest.param(SD15, 686, 859.5, id="SD1.5"),
        pytest.param(replace(SD15, in_channels=9), 686, 859.5, id="SD1.5 inpainting"),
        pytest.param(SD21, 686, 865.9, id="SD2.1"),
        pytest.param(SDXL, 1680, 2567.5, id="SDXL"),
        pytest.param(REFINER, 1220, None, id="SDXL refiner"),
    ],
)
def test_a_published_unet_has_its_tensors_and_is_told_by_them(
    shape: UNetShape, tensors: int, millions: float | None
) -> None:
    own, modules = shapes(shape), ldm_keys.unet_modules(shape)
    ldm = ldm_names(own, modules)
    assert len(own) == len(ldm) == tensors
    if millions is not None:
        assert round(sum(map(prod, own.values())) / 1e6, 1) == pytest.approx(millions, abs=0.051)
    assert infer_unet(ldm, "it") == shape
    assert {ldm_keys.rename(name, modules): size for name, size in ldm.items()} == own
    config = {"layers_per_block": shape.blocks, "addition_embed_type": "text_time" if shape.added else None}
    converted = theirs.convert_ldm_unet_checkpoint(hollow(ldm, "model.diffusion_model."), config)
    assert {name: tuple(tensor.shape) for name, tensor in converted.items()} == own


def test_the_published_autoencoder_has_its_tensors() -> None:
    own, modules = shapes(KL_F8), ldm_keys.vae_modules(KL_F8)
    ldm = ldm_names(own, modules)
    assert len(own) == len(ldm) == 248
    assert round(sum(map(prod, own.values())) / 1e6, 1) == 83.7
    assert infer_vae(ldm, "it") == KL_F8
    assert {ldm_keys.rename(name, modules): size for name, size in ldm.items()} == own
    config = {"down_block_types": ["DownEncoderBlock2D"] * 4, "up_block_types": ["UpDecoderBlock2D"] * 4}
    converted = theirs.convert_ldm_vae_checkpoint(hollow(ldm, "first_stage_model."), config)
    assert {name: tuple(tensor.shape) for name, tensor in converted.items()} == own


@pytest.mark.parametrize(
    ("shape", "tensors", "millions"),
    [
        pytest.param(CLIP_L, 196, 123.1, id="CLIP ViT-L"),
        pytest.param(CLIP_H, 372, 340.4, id="SD2: OpenCLIP ViT-H without its last layer"),
        pytest.param(CLIP_G, 517, 694.7, id="SDXL: OpenCLIP ViT-bigG"),
    ],
)
def test_a_published_text_encoder_has_its_tensors(shape: TextShape, tensors: int, millions: float) -> None:
    own = shapes(shape)
    assert len(own) == tensors
    assert round(sum(map(prod, own.values())) / 1e6, 1) == millions
    open_clip = shape.activation == "gelu"
    assert infer_text(own, "it", open_clip=open_clip, pools=bool(shape.projection)) == shape
    if open_clip:
        written, strange = openclip.from_own(hollow(own, ""))
        assert not strange
        assert len(written) == 12 * shape.layers + 4 + bool(shape.projection)
        back, unknown = openclip.to_own(written)
        assert not unknown
        assert {name: tuple(tensor.shape) for name, tensor in back.items()} == own
