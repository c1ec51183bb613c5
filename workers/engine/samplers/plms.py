"""PLMS (Liu et al. 2022, "Pseudo Numerical Methods for Diffusion Models on Manifolds"), in sigmas."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch

from workers.engine.samplers.ddim import to_unit
from workers.engine.samplers.euler import slope
from workers.engine.samplers.interface import Ask, SamplerNoise, SamplerOptions, Sampling

BASHFORTH = ((1.0,), (3 / 2, -1 / 2), (23 / 12, -16 / 12, 5 / 12), (55 / 24, -59 / 24, 37 / 24, -9 / 24))
"""Adams-Bashforth coefficients of evenly spaced steps, the newest first."""


def plms(x: torch.Tensor, sigmas: Sequence[float], noise: SamplerNoise, options: SamplerOptions) -> Sampling:
    """DDIM's transfer with the noise extrapolated from the last four steps; the first step looks one ahead
    instead.
    """
    seen: list[torch.Tensor] = []
    for sigma, following in pairwise(sigmas):
        r = yield Ask(x, sigma)
        seen = [slope(x, r.denoised, sigma), *seen][: len(BASHFORTH)]
        if len(seen) == 1 and following > 0.0:
            ahead = x + seen[0] * (following - sigma)
            r = yield Ask(ahead, following)
            direction = (seen[0] + slope(ahead, r.denoised, following)) / 2.0
        else:
            terms = zip(seen, BASHFORTH[len(seen) - 1], strict=True)
            direction = torch.stack([each * share for each, share in terms]).sum(0)
        x = x + direction * (following - sigma)
    return to_unit(x, sigmas[-1])


def evaluations(sigmas: Sequence[float]) -> int:
    """One for every step, and one more for the first."""
    return len(sigmas)
