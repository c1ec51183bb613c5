"""Phase 1: the autoencoder, on crops of random pictures in palette and other colours.

The first three latent channels of a flat 8x8 block are pulled towards the block's own colour,
so that the same colour has the same code everywhere and the denoiser finds colours linearly.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor

from workers.training.demo.networks import LOGVAR, SCALE, Weights, build_vae
from workers.training.demo.shapes import (
    COLOURS,
    PALETTE,
    SIDE,
    Placement,
    coverage,
    draw,
    random_placement,
    random_scene,
)
from workers.training.demo.shapes import SHAPES as SHAPE_NAMES
from workers.training.demo.state import Clock, Phase

CROP = 64
NOISE = 0.12
ANCHOR, EDGE, SMALL = 0.3, 0.5, 1e-3


def shape_pool(count: int, rng: np.random.Generator) -> Tensor:
    """Coverage masks of many placements, (count, 128, 128) uint8."""
    masks = []
    for i in range(count):
        if i % 3:
            scene = random_scene(rng)
            mask = coverage(scene.shape, random_placement(scene, rng))
        else:
            span, x, y = rng.uniform(0.15, 0.9), rng.uniform(0.2, 0.8), rng.uniform(0.2, 0.8)
            mask = coverage(str(rng.choice(SHAPE_NAMES)), Placement(span, x, y))
        masks.append(np.rint(mask * 255).astype(np.uint8))
    return torch.from_numpy(np.stack(masks))


def test_pictures(count: int) -> Tensor:
    """Whole palette pictures as the denoiser will see them, in [-1, 1]."""
    rng = np.random.default_rng(1)
    scenes = [random_scene(rng) for _ in range(count)]
    drawn = np.stack([draw(scene, random_placement(scene, rng)) for scene in scenes])
    return torch.from_numpy(drawn).permute(0, 3, 1, 2).float() / 127.5 - 1


def _colours(count: int, generator: torch.Generator) -> Tensor:
    """Random colours in [-1, 1], (count, 3): three of four from the palette."""
    palette = torch.tensor([PALETTE[name] for name in COLOURS]) / 127.5 - 1
    picked = palette[torch.randint(len(palette), (count,), generator=generator)]
    free = torch.rand(count, 3, generator=generator) * 2 - 1
    return torch.where(torch.rand(count, 1, generator=generator) < 0.25, free, picked)


def pictures(pool: Tensor, count: int, crop: int, generator: torch.Generator) -> Tensor:
    """Random pictures in [-1, 1], (count, 3, crop, crop); some hold two shapes."""
    batch = _colours(count, generator)[:, :, None, None].expand(-1, -1, crop, crop)
    for layer in range(2):
        chosen = torch.randint(len(pool), (count,), generator=generator).tolist()
        corners = torch.randint(SIDE - crop + 1, (count, 2), generator=generator).tolist()
        masks = torch.stack(
            [pool[i, y : y + crop, x : x + crop] for i, (y, x) in zip(chosen, corners, strict=True)]
        )
        weight = masks[:, None].float() / 255
        if layer == 1:
            weight = weight * (torch.rand(count, 1, 1, 1, generator=generator) < 0.25)
        batch = torch.lerp(batch, _colours(count, generator)[:, :, None, None], weight)
    return batch


def anchor_loss(mean: Tensor, batch: Tensor) -> Tensor:
    """How far flat blocks' codes are from their colour (channel 3: zero)."""
    colour = F.avg_pool2d(batch, 8)
    spread = F.avg_pool2d((batch - F.interpolate(colour, scale_factor=8)).square(), 8).sum(1)
    flat = (spread < 1e-4).float()[:, None]
    target = torch.cat([colour, torch.zeros_like(colour[:, :1])], dim=1)
    return ((mean - target).square() * flat).sum() / (4 * flat.sum() + 1)


def vae_loss(vae: AutoencoderKL, batch: Tensor, generator: torch.Generator) -> Tensor:
    """L1 and edges of the noisy code's decoding, the anchor, and codes kept small."""
    with torch.autocast("cpu", torch.bfloat16):
        mean = vae.quant_conv(vae.encoder(batch))[:, :4].float()
        noise = torch.randn(mean.shape, generator=generator) * NOISE
        decoded = vae.decoder(vae.post_quant_conv(mean + noise)).float()
    error = decoded - batch
    edges = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
    size = mean.square().mean()
    return error.abs().mean() + EDGE * edges + ANCHOR * anchor_loss(mean, batch) + SMALL * size


@dataclass
class Whitening:
    """The affine map that makes the codes' channels independent, mean 0 and of one size."""

    mean: Tensor
    forward: Tensor
    backward: Tensor

    @classmethod
    def of(cls, codes: Tensor) -> Whitening:
        """From codes (n, 4, h, w): symmetric whitening, which keeps channels recognisable."""
        flat = codes.transpose(0, 1).flatten(1).double()
        mean = flat.mean(1)
        values, vectors = torch.linalg.eigh(torch.cov(flat))
        root = values.clamp_min(1e-8).sqrt()
        forward = vectors @ torch.diag(1 / root) @ vectors.T / SCALE
        backward = vectors @ torch.diag(root) @ vectors.T * SCALE
        return cls(mean.float(), forward.float(), backward.float())


@torch.no_grad()
def finished(weights: Weights, codes_of: Tensor) -> Weights:
    """The weights with whitened codes (times 0.18215: mean 0, deviation 1) and no variance.

    Both 1x1 convolutions absorb the map; the log-variance is a constant -30, so that sampling
    the posterior gives its mean.
    """
    vae = build_vae()
    vae.load_state_dict(weights)
    codes = vae.quant_conv(vae.encoder(codes_of))[:, :4]
    white = Whitening.of(codes)
    result = dict(vae.state_dict())
    kernel, bias = result["quant_conv.weight"].clone(), result["quant_conv.bias"].clone()
    kernel[:4, :, 0, 0] = white.forward @ kernel[:4, :, 0, 0]
    bias[:4] = white.forward @ (bias[:4] - white.mean)
    kernel[4:], bias[4:] = 0.0, LOGVAR
    out_kernel, out_bias = result["post_quant_conv.weight"], result["post_quant_conv.bias"]
    result["post_quant_conv.bias"] = out_bias + out_kernel[:, :, 0, 0] @ white.mean
    result["post_quant_conv.weight"] = (out_kernel[:, :, 0, 0] @ white.backward)[..., None, None]
    return result | {"quant_conv.weight": kernel, "quant_conv.bias": bias}


def train_vae(state: Path, steps: int, clock: Clock) -> Weights | None:
    """Train or resume the autoencoder; its averaged weights once done, else None."""
    generator = torch.Generator().manual_seed(torch.seed() % 2**31)
    pool = shape_pool(4000, np.random.default_rng(0))
    vae = build_vae()
    phase = Phase(state / "vae.pt", {"vae": vae}, {"vae": 1.5e-3}, steps, decay=0.99)

    def loss_of(step: int) -> Tensor:
        """Crops at first, whole pictures in the last sixth and now and then."""
        whole = step > steps * 5 // 6 and step % 2 == 0
        crop, count = (SIDE, 3) if whole else (CROP, 8)
        return vae_loss(vae, pictures(pool, count, crop, generator), generator)

    done = phase.run(loss_of, clock, lambda: None)
    return phase.averages["vae"].values if done else None
