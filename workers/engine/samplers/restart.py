"""Restart sampling (Xu et al. 2023, "Restart Sampling for Improving Generative Processes"): Heun's method,
which goes back up between two levels and comes down again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch

from workers.engine.samplers.heun import heun_step
from workers.engine.samplers.interface import SamplerNoise, SamplerOptions, Sampling
from workers.engine.samplers.schedules import karras_ramp

LOWEST, HIGHEST = 0.1, 2.0
"""The levels near which a restart begins and to which it goes back."""
LEAST_STEPS, MANY_STEPS = 20, 36
FEW = 9


def _nearest(levels: Sequence[float], wanted: float) -> int:
    return min(range(len(levels)), key=lambda place: abs(levels[place] - wanted))


def steps_of(sigmas: Sequence[float]) -> list[tuple[float, float]]:
    """The steps (from, to) for a schedule: below 20 the schedule's own; from there on some are kept for
    restarts, one of 9, and from 36 on two of a quarter each, and the rest follow a Karras schedule.
    """
    count = len(sigmas) - 1
    if count < LEAST_STEPS:
        return list(pairwise(sigmas))
    kept, times = (count // 4, 2) if count >= MANY_STEPS else (FEW, 1)
    main = [*karras_ramp(count - kept * times, sigmas[-2], sigmas[0]), 0.0]
    low, high = _nearest(main, LOWEST), _nearest(main, HIGHEST)
    plain = list(pairwise(main))
    if high >= low:
        return plain
    again = list(pairwise(karras_ramp(kept + 1, main[low], main[high])))
    return [*plain[:low], *(again * times), *plain[low:]]


def restart(
    x: torch.Tensor, sigmas: Sequence[float], noise: SamplerNoise, options: SamplerOptions
) -> Sampling:
    """Heun steps; before one that begins above where the last ended, noise leads up to it. It takes no
    `s_noise`, as in the peer.
    """
    reached = sigmas[0]
    for sigma, following in steps_of(sigmas):
        if sigma > reached:
            x = x + noise.step() * math.sqrt(sigma**2 - reached**2)
        x = yield from heun_step(x, sigma, following)
        reached = following
    return x


def evaluations(sigmas: Sequence[float]) -> int:
    """Two for every step but that to level 0."""
    return sum(2 if following > 0.0 else 1 for _, following in steps_of(sigmas))
