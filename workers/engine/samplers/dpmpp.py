"""DPM-Solver++ (Lu et al. 2022), in sigmas: t = -log sigma, the signal's scale being 1."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch

from workers.engine.samplers.euler import ancestral_split
from workers.engine.samplers.interface import Ask, SamplerNoise, SamplerOptions, Sampling


def towards(x: torch.Tensor, denoised: torch.Tensor, sigma: float, following: float) -> torch.Tensor:
    """The exact step from one level to another for a denoised latent that stays the same on the way."""
    share = following / sigma
    return share * x + (1.0 - share) * denoised


def dpmpp_2m(
    x: torch.Tensor, sigmas: Sequence[float], noise: SamplerNoise, options: SamplerOptions
) -> Sampling:
    """The second-order multistep solver: each step uses the denoised latent of the step before."""
    before: torch.Tensor | None = None
    step_before = 0.0
    for sigma, following in pairwise(sigmas):
        r = yield Ask(x, sigma)
        denoised = r.denoised
        if following == 0.0:
            return denoised
        step = math.log(sigma / following)
        blended = denoised
        if before is not None:
            half = step / (2.0 * step_before)
            blended = (1.0 + half) * denoised - half * before
        x = (following / sigma) * x - math.expm1(-step) * blended
        before, step_before = denoised, step
    return x


def dpmpp_2s_ancestral(
    x: torch.Tensor, sigmas: Sequence[float], noise: SamplerNoise, options: SamplerOptions
) -> Sampling:
    """The second-order singlestep solver to below the next level, and fresh noise up to it."""
    for sigma, following in pairwise(sigmas):
        r = yield Ask(x, sigma)
        down, up = ancestral_split(sigma, following, options.eta)
        denoised = r.denoised
        if down > 0.0:
            middle = math.sqrt(sigma * down)
            r = yield Ask(towards(x, denoised, sigma, middle), middle)
            denoised = r.denoised
        x = towards(x, denoised, sigma, down)
        if following > 0.0:
            x = x + noise.step() * (options.s_noise * up)
    return x
