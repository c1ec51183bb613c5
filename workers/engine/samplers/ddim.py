"""DDIM (Song et al. 2021, eq. 12) and its form for CFG++ (Chung et al. 2024), in sigmas."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch

from workers.engine.samplers.euler import ancestral_split, slope
from workers.engine.samplers.interface import Ask, SamplerNoise, SamplerOptions, Sampling

CFGPP_SHARE = 1.0 / 12.5
"""What the guidance scale is multiplied with for CFG++: the peer maps 0..12.5 to 0..1."""


def to_unit(x: torch.Tensor, sigma: float) -> torch.Tensor:
    """A latent of signal 1 and noise sigma at variance 1: what the samplers of timesteps end with."""
    return x / math.sqrt(1.0 + sigma**2)


def ddim(x: torch.Tensor, sigmas: Sequence[float], noise: SamplerNoise, options: SamplerOptions) -> Sampling:
    """Each step goes from the denoised latent back along the noise seen, `eta_ddim` of it exchanged for fresh
    noise. In sigmas that is an ancestral Euler step.
    """
    for sigma, following in pairwise(sigmas):
        r = yield Ask(x, sigma)
        down, up = ancestral_split(sigma, following, options.eta_ddim)
        x = r.denoised + slope(x, r.denoised, sigma) * down
        x = x + noise.step() * up
    return to_unit(x, sigmas[-1])


def ddim_cfgpp(
    x: torch.Tensor, sigmas: Sequence[float], noise: SamplerNoise, options: SamplerOptions
) -> Sampling:
    """Guided at a small share of the scale, and back along the noise that the negative prompt's view has."""
    for sigma, following in pairwise(sigmas):
        r = yield Ask(x, sigma)
        down, up = ancestral_split(sigma, following, options.eta_ddim)
        guided = r.uncond + (r.denoised - r.uncond) * CFGPP_SHARE
        x = guided + slope(x, r.uncond, sigma) * down
        x = x + noise.step() * up
    return to_unit(x, sigmas[-1])
