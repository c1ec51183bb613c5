"""Checkpoints of the real architectures with random weights, made in memory: speed asks for no trained ones.

Shapes are those of the published configurations (SD 1.5, SDXL 1.0 base); "narrow" ones have their topology
and a fraction of their widths, for a CPU.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from atelier.contract.models import ModelKind, ModelRef
from workers.engine.loader import networks, sidecar
from workers.engine.loader.architecture import TIME_WIDTH, TextShape, UNetShape, VaeShape
from workers.engine.loader.checkpoint import Checkpoint, Weights, linear_alphas
from workers.engine.loader.families import FAMILIES

VOCABULARY = 49408
_CALM = 0.1
"""Factor of the last layers: a network that answers loudly would drive the latents out of half precision."""
_LAST = ("conv_out.weight",)


@dataclass(frozen=True)
class Architecture:
    """The networks of a family: shapes, and the FLOPs of one forward at `side` pixels (2 for each
    multiplication and addition; 0 where they were not counted).
    """

    family: str
    unet: UNetShape
    vae: VaeShape
    texts: tuple[TextShape, ...]
    side: int = 0
    unet_flops: float = 0.0
    decode_flops: float = 0.0

    def flops(self, side: int, steps: int) -> float:
        """Of a picture with guidance: two rows a step, one decode. 0 for a size that was not counted."""
        return 2 * steps * self.unet_flops + self.decode_flops if side == self.side else 0.0


_VAE = VaeShape((128, 256, 512, 512), 2, 4, 3)
_CLIP_L = TextShape(768, 12, 12, 3072, VOCABULARY, 77)
_CLIP_G = TextShape(1280, 32, 20, 5120, VOCABULARY, 77, "gelu", 1280)
_NARROW_VAE = VaeShape((32, 32, 64, 64), 2, 4, 3)


def _sd1(widths: tuple[int, ...], context: int) -> UNetShape:
    return UNetShape(4, 4, widths, (1, 1, 1, 0), 1, 2, context, (8, 8, 8, 8), linear_projection=False)


def _sdxl(widths: tuple[int, ...], depths: tuple[int, ...], context: int, pooled: int) -> UNetShape:
    heads = tuple(max(1, width // 64) for width in widths)
    added = pooled + FAMILIES["sdxl"].numbers * TIME_WIDTH
    return UNetShape(4, 4, widths, depths, depths[-1], 2, context, heads, linear_projection=True, added=added)


FULL = {
    "SD1.5": Architecture(
        "sd1", _sd1((320, 640, 1280, 1280), 768), _VAE, (_CLIP_L,), 512, 0.803e12, 2.515e12
    ),
    "SDXL": Architecture(
        "sdxl",
        _sdxl((320, 640, 1280), (0, 2, 10), 2048, 1280),
        _VAE,
        (_CLIP_L, _CLIP_G),
        1024,
        6.761e12,
        10.470e12,
    ),
}
NARROW = {
    "SD1.5": Architecture(
        "sd1", _sd1((32, 64, 64, 64), 64), _NARROW_VAE, (TextShape(64, 2, 4, 128, VOCABULARY, 77),)
    ),
    "SDXL": Architecture(
        "sdxl",
        _sdxl((32, 64, 64), (0, 1, 2), 96, 64),
        _NARROW_VAE,
        (
            TextShape(32, 2, 4, 64, VOCABULARY, 77),
            TextShape(64, 2, 4, 128, VOCABULARY, 77, "gelu", 64),
        ),
    ),
}


def named(name: str, architecture: Architecture) -> ModelRef:
    """The checkpoint as a request names it; there is no file, so its hash is a made-up one."""
    digest = name.encode().hex().ljust(64, "0")
    return ModelRef(
        kind=ModelKind.CHECKPOINT,
        name=name,
        filename=f"{name}.safetensors",
        sha256=digest,
        blob_sha256=digest,
        size=0,
        short_hash=digest[:10],
        family=architecture.family,
    )


def checkpoint(ref: ModelRef, architecture: Architecture, device: str, dtype: torch.dtype) -> Checkpoint:
    """Random weights for all networks in the memory of `device`, the same ones every time."""
    generator = torch.Generator(device).manual_seed(1)

    def weights(name: str, shape: networks.Shape) -> Weights:
        tensors = {
            key: _random(key, size, generator, dtype)
            for key, size in networks.expected(shape).items()
            if not key.endswith("position_ids")
        }
        return Weights(name, shape, tensors)

    own = ref.blob_sha256
    return Checkpoint(
        id=own,
        family=architecture.family,
        unet=weights(own, architecture.unet),
        vae=weights(own, architecture.vae),
        texts=tuple(
            weights(f"{own}:te{number}" if number else own, shape)
            for number, shape in enumerate(architecture.texts)
        ),
        scale_factor=FAMILIES[architecture.family].scale_factor,
        v_prediction=False,
        zero_snr=False,
        alphas_cumprod=linear_alphas(sidecar.read(None, ref.filename)),
    )


def _random(key: str, size: torch.Size, generator: torch.Generator, dtype: torch.dtype) -> torch.Tensor:
    """Weights that keep the variance of what goes through them; norms that do nothing; no biases."""
    device = generator.device
    if len(size) == 1:
        fill = 1.0 if "norm" in key and key.endswith("weight") else 0.0
        return torch.full(size, fill, dtype=dtype, device=device)
    noise = torch.randn(size, generator=generator, device=device) / max(1, size[1:].numel()) ** 0.5
    return (noise * _CALM if key.endswith(_LAST) else noise).to(dtype)
