"""Heun's method for the probability flow (Karras et al. 2022, algorithm 2)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch

from workers.engine.samplers.euler import churned, slope
from workers.engine.samplers.interface import Ask, SamplerNoise, SamplerOptions, Sampling


def heun_step(x: torch.Tensor, sigma: float, following: float) -> Sampling:
    """One step of the trapezoidal rule; to level 0, where the flow has no slope, one of Euler's."""
    r = yield Ask(x, sigma)
    first = slope(x, r.denoised, sigma)
    ahead = x + first * (following - sigma)
    if following == 0.0:
        return ahead
    r = yield Ask(ahead, following)
    return x + (first + slope(ahead, r.denoised, following)) * ((following - sigma) / 2.0)


def heun(x: torch.Tensor, sigmas: Sequence[float], noise: SamplerNoise, options: SamplerOptions) -> Sampling:
    """Heun steps, each after the noise that `s_churn` adds."""
    for sigma, following in pairwise(sigmas):
        x, raised = churned(x, sigma, len(sigmas) - 1, noise, options)
        x = yield from heun_step(x, raised, following)
    return x


def evaluations(sigmas: Sequence[float]) -> int:
    """Two for every step but that to level 0."""
    return sum(2 if following > 0.0 else 1 for following in sigmas[1:])
