"""The linear multistep method (Adams-Bashforth on the uneven grid of a schedule), up to fourth order."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from workers.engine.samplers.euler import slope
from workers.engine.samplers.interface import Ask, SamplerNoise, SamplerOptions, Sampling

ORDER = 4


def weights(points: Sequence[float], start: float, end: float) -> list[float]:
    """For each of the points the integral from `start` to `end` of the Lagrange polynomial that is 1 there
    and 0 at the others.
    """
    found = []
    for place, point in enumerate(points):
        # coefficients of the polynomial in (t - start), lowest power first: exact and well scaled
        polynomial = [1.0]
        for other in (each for index, each in enumerate(points) if index != place):
            shift, width = start - other, point - other
            raised = [0.0, *polynomial]
            kept = [*polynomial, 0.0]
            polynomial = [(low * shift + high) / width for low, high in zip(kept, raised, strict=True)]
        length = end - start
        found.append(sum(each * length ** (power + 1) / (power + 1) for power, each in enumerate(polynomial)))
    return found


def lms(x: torch.Tensor, sigmas: Sequence[float], noise: SamplerNoise, options: SamplerOptions) -> Sampling:
    """Each step integrates the polynomial through the slopes of the last four."""
    slopes: list[torch.Tensor] = []
    for step in range(len(sigmas) - 1):
        r = yield Ask(x, sigmas[step])
        slopes = [slope(x, r.denoised, sigmas[step]), *slopes][:ORDER]
        points = [sigmas[step - back] for back in range(len(slopes))]
        for each, weight in zip(slopes, weights(points, sigmas[step], sigmas[step + 1]), strict=True):
            x = x + each * weight
    return x
