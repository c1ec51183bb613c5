"""Sampling of latent consistency models (Luo et al. 2023, algorithm 3)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import torch

from workers.engine.samplers.interface import (
    Ask,
    LevelPlan,
    SamplerNoise,
    SamplerOptions,
    Sampling,
    by_label,
    tail_by_label,
)

STRIDE = 20
"""The models are distilled on every 20th timestep: 19, 39, ... 999."""
SIGMA_DATA = 0.5
TIMESTEP_SCALE = 10.0


def _distilled(plan: LevelPlan) -> LevelPlan:
    return replace(plan, model=plan.model.every(STRIDE))


def levels(plan: LevelPlan) -> list[float]:
    """The schedule over the levels the model was distilled on."""
    return by_label(_distilled(plan))


def tail(plan: LevelPlan, encoded: int) -> tuple[float, list[float]]:
    """The last levels of that schedule."""
    return tail_by_label(_distilled(plan), encoded)


def lcm(x: torch.Tensor, sigmas: Sequence[float], noise: SamplerNoise, options: SamplerOptions) -> Sampling:
    """Each step jumps to the end and adds the noise of the next level.

    The network is asked at the nearest timestep it was distilled on, with `x` as loud as it is: the latent is
    rescaled to that level, and the noise seen there taken from `x`. Needs `options.levels`.
    """
    assert options.levels is not None, "latent consistency needs the model's levels"
    distilled = options.levels.every(STRIDE)
    for sigma, following in pairwise(sigmas):
        place = distilled.nearest(sigma)
        level = distilled.sigmas[place]
        shown = x * math.sqrt((1.0 + level**2) / (1.0 + sigma**2))
        r = yield Ask(shown, level)
        consistent = x - (shown - r.denoised) * (sigma / level)
        # the boundary condition of consistency models: nearly 1 and 0 at all of these timesteps
        timestep = (STRIDE * place + STRIDE - 1) * TIMESTEP_SCALE
        width = math.hypot(timestep, SIGMA_DATA)
        x = consistent * (timestep / width) + x * (SIGMA_DATA / width) ** 2
        if following > 0.0:
            x = x + noise.step() * following
    return x
