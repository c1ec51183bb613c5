"""Euler's method for the probability flow, and its ancestral form (Karras et al. 2022, algorithm 2; Song et
al. 2021).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch

from workers.engine.samplers.interface import Ask, SamplerNoise, SamplerOptions, Sampling


def slope(x: torch.Tensor, denoised: torch.Tensor, sigma: float) -> torch.Tensor:
    """dx/dsigma of the probability flow (Karras et al. 2022, eq. 3)."""
    return (x - denoised) / sigma


def churned(
    x: torch.Tensor, sigma: float, steps: int, noise: SamplerNoise, options: SamplerOptions
) -> tuple[torch.Tensor, float]:
    """`x` with noise added before a step of `steps`, and its new level, where s_churn > 0 and `sigma` lies in
    [s_tmin, s_tmax] (Karras et al. 2022, algorithm 2).

    With s_churn noise is drawn at every step, used or not, as the peer does: the bounds do not shift later
    numbers.
    """
    most = min(options.s_churn / steps, math.sqrt(2.0) - 1.0)
    if most <= 0.0:
        return x, sigma
    drawn = noise.step()
    if not options.s_tmin <= sigma <= options.s_tmax:
        return x, sigma
    raised = sigma * (most + 1.0)
    return x + drawn * (options.s_noise * math.sqrt(raised**2 - sigma**2)), raised


def euler(x: torch.Tensor, sigmas: Sequence[float], noise: SamplerNoise, options: SamplerOptions) -> Sampling:
    """Euler steps, each after the noise that `s_churn` adds."""
    for sigma, following in pairwise(sigmas):
        x, raised = churned(x, sigma, len(sigmas) - 1, noise, options)
        r = yield Ask(x, raised)
        x = x + slope(x, r.denoised, raised) * (following - raised)
    return x


def ancestral_split(sigma: float, following: float, eta: float) -> tuple[float, float]:
    """(down, up): the level to step down to and the noise to add so that together they reach `following`."""
    if not eta:
        return following, 0.0
    up = min(following, eta * math.sqrt(following**2 * (sigma**2 - following**2) / sigma**2))
    return math.sqrt(following**2 - up**2), up


def euler_ancestral(
    x: torch.Tensor, sigmas: Sequence[float], noise: SamplerNoise, options: SamplerOptions
) -> Sampling:
    """Euler steps to below the next level and fresh noise up to it, `eta` of the most there can be. It takes
    no `s_noise`, as in the peer.
    """
    for sigma, following in pairwise(sigmas):
        r = yield Ask(x, sigma)
        down, up = ancestral_split(sigma, following, options.eta)
        x = x + slope(x, r.denoised, sigma) * (down - sigma)
        if following > 0.0:
            x = x + noise.step() * up
    return x
