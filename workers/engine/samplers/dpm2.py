"""DPM-Solver-2 in the form of Karras et al. 2022: the midpoint rule, its middle taken in log sigma."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch

from workers.engine.samplers.euler import ancestral_split, churned, slope
from workers.engine.samplers.interface import Ask, SamplerNoise, SamplerOptions, Sampling


def _midpoint_step(x: torch.Tensor, sigma: float, following: float) -> Sampling:
    """One step with the slope in the middle; to level 0, which has no logarithm, one of Euler's."""
    r = yield Ask(x, sigma)
    first = slope(x, r.denoised, sigma)
    if following == 0.0:
        return x - first * sigma
    middle = math.sqrt(sigma * following)
    halfway = x + first * (middle - sigma)
    r = yield Ask(halfway, middle)
    return x + slope(halfway, r.denoised, middle) * (following - sigma)


def dpm2(x: torch.Tensor, sigmas: Sequence[float], noise: SamplerNoise, options: SamplerOptions) -> Sampling:
    """Midpoint steps, each after the noise that `s_churn` adds."""
    for sigma, following in pairwise(sigmas):
        x, raised = churned(x, sigma, len(sigmas) - 1, noise, options)
        x = yield from _midpoint_step(x, raised, following)
    return x


def dpm2_ancestral(
    x: torch.Tensor, sigmas: Sequence[float], noise: SamplerNoise, options: SamplerOptions
) -> Sampling:
    """Midpoint steps to below the next level and fresh noise up to it."""
    for sigma, following in pairwise(sigmas):
        down, up = ancestral_split(sigma, following, options.eta)
        x = yield from _midpoint_step(x, sigma, down)
        if following > 0.0:
            x = x + noise.step() * (options.s_noise * up)
    return x
