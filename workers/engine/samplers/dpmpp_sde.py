"""Solvers of the reverse diffusion as a stochastic equation, in the manner of DPM-Solver++ (Lu et al. 2022,
section 5 for the second-order ones; the third order and the stochastic singlestep are Crowson's).

t = -log sigma; `eta` scales the noise, 0 leaving the probability flow. Noise is the increments of the
picture's Brownian path between the levels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch

from workers.engine.samplers.dpmpp import towards
from workers.engine.samplers.euler import ancestral_split
from workers.engine.samplers.interface import Ask, Increments, SamplerNoise, SamplerOptions, Sampling


def _path(sigmas: Sequence[float], noise: SamplerNoise) -> Increments:
    return noise.brownian(min(sigma for sigma in sigmas if sigma > 0.0), max(sigmas))


def dpmpp_sde(
    x: torch.Tensor, sigmas: Sequence[float], noise: SamplerNoise, options: SamplerOptions
) -> Sampling:
    """The singlestep solver: half a step in log sigma, then the whole with what was seen there. Both add
    noise of the same path.
    """
    between = _path(sigmas, noise)
    for sigma, following in pairwise(sigmas):
        r = yield Ask(x, sigma)
        if following == 0.0:
            return r.denoised
        middle = math.sqrt(sigma * following)
        down, up = ancestral_split(sigma, middle, options.eta)
        halfway = towards(x, r.denoised, sigma, down)
        halfway = halfway + between(sigma, middle) * (options.s_noise * up)
        r = yield Ask(halfway, middle)
        down, up = ancestral_split(sigma, following, options.eta)
        x = towards(x, r.denoised, sigma, down)
        x = x + between(sigma, following) * (options.s_noise * up)
    return x


History = Sequence[tuple[float, torch.Tensor]]
"""Earlier steps, the newest first: their length in log sigma and what was seen at their start."""
Correction = Callable[[float, float, torch.Tensor, History], torch.Tensor | None]
"""(span, step, denoised, history) -> what to add to a first-order step of length `step`, where `span` is that
length with the share of the noise, (1 + eta) * step.
"""


def midpoint_correction(
    span: float, step: float, denoised: torch.Tensor, history: History
) -> torch.Tensor | None:
    """What the change of the denoised latent adds, after the midpoint rule."""
    if not history:
        return None
    step_before, before = history[0]
    return (denoised - before) * (-0.5 * math.expm1(-span) * step / step_before)


def heun_correction(
    span: float, step: float, denoised: torch.Tensor, history: History
) -> torch.Tensor | None:
    """What the change of the denoised latent adds, were it linear: the exponential integrator's phi_2."""
    if not history:
        return None
    step_before, before = history[0]
    return (denoised - before) * ((math.expm1(-span) / span + 1.0) * step / step_before)


def third_order_correction(
    span: float, step: float, denoised: torch.Tensor, history: History
) -> torch.Tensor | None:
    """What first and second differences of the denoised latent add (phi_2 and phi_3)."""
    if len(history) < 2:
        return heun_correction(span, step, denoised, history)
    (step_1, before_1), (step_2, before_2) = history[0], history[1]
    ratio_1, ratio_2 = step_1 / step, step_2 / step
    newer, older = (denoised - before_1) / ratio_1, (before_1 - before_2) / ratio_2
    second = (newer - older) / (ratio_1 + ratio_2)
    phi_2 = math.expm1(-span) / span + 1.0
    phi_3 = phi_2 / span - 0.5
    return phi_2 * (newer + second * ratio_1) - phi_3 * second


def _multistep(
    x: torch.Tensor,
    sigmas: Sequence[float],
    noise: SamplerNoise,
    options: SamplerOptions,
    correction: Correction,
) -> Sampling:
    between = _path(sigmas, noise)
    history: History = []
    for sigma, following in pairwise(sigmas):
        r = yield Ask(x, sigma)
        if following == 0.0:
            return r.denoised
        step = math.log(sigma / following)
        span = step * (1.0 + options.eta)
        x = math.exp(-span) * x - math.expm1(-span) * r.denoised
        added = correction(span, step, r.denoised, history)
        x = x if added is None else x + added
        if options.eta:
            spread = following * math.sqrt(-math.expm1(-2.0 * options.eta * step))
            x = x + between(sigma, following) * (options.s_noise * spread)
        history = [(step, r.denoised), *history][:2]
    return x


def dpmpp_2m_sde(
    x: torch.Tensor, sigmas: Sequence[float], noise: SamplerNoise, options: SamplerOptions
) -> Sampling:
    """The second-order multistep solver, midpoint rule."""
    return _multistep(x, sigmas, noise, options, midpoint_correction)


def dpmpp_2m_sde_heun(
    x: torch.Tensor, sigmas: Sequence[float], noise: SamplerNoise, options: SamplerOptions
) -> Sampling:
    """The second-order multistep solver, linear in the denoised latent."""
    return _multistep(x, sigmas, noise, options, heun_correction)


def dpmpp_3m_sde(
    x: torch.Tensor, sigmas: Sequence[float], noise: SamplerNoise, options: SamplerOptions
) -> Sampling:
    """The third-order multistep solver; its first steps are of lower order."""
    return _multistep(x, sigmas, noise, options, third_order_correction)
