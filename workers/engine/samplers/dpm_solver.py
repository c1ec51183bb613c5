"""DPM-Solver (Lu et al. 2022, "DPM-Solver: A Fast ODE Solver for Diffusion Probabilistic Model Sampling in
Around 10 Steps"): singlestep solvers of orders 1 to 3 in the predicted noise, with a fixed number of
evaluations ("fast") or with steps chosen by an error estimate ("adaptive", algorithm 3 and appendix C there).

t = -log sigma, so that the signal's scale is 1. With `eta` each step goes to below its end and fresh noise
leads back up to it.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from itertools import pairwise

import numpy as np
import torch

from workers.engine.samplers.euler import ancestral_split
from workers.engine.samplers.interface import (
    Ask,
    Denoised,
    LevelPlan,
    SamplerNoise,
    SamplerOptions,
    Sampling,
    by_label,
    tail_by_label,
)

Asking = Generator[Ask, Denoised, torch.Tensor]
THIRD = 1.0 / 3.0

TOLERANCE = 0.05
"""Of the adaptive solver, relative; and absolute:"""
LEAST_TOLERANCE = 0.0078
FIRST_STEP = 0.05
ACCEPTED = 0.81
"""A step is taken if one of at least this share of its length may follow."""
LEAST_STEP = 2e-3
"""No step is shorter, and one as short as this is taken as it is, so that there is an end."""
CLOSE = 1e-5
USUAL_STEPS, USUAL_RANGE = 20, math.log(14.6 / 0.03)


def full_range(plan: LevelPlan) -> list[float]:
    """The schedule that was asked for, from the highest level of the model to its lowest, where it ends:
    these solvers go all that way, whatever lies between.
    """
    return [plan.model.sigmas[-1], *by_label(plan)[1:-1], plan.model.sigmas[0]]


def tail(plan: LevelPlan, encoded: int) -> tuple[float, list[float]]:
    """The last levels of the schedule, down to the model's lowest."""
    level, left = tail_by_label(plan, encoded)
    return level, [*left[:-1], plan.model.sigmas[0]]


def predicted_noise(x: torch.Tensor, sigma: float) -> Asking:
    """The noise the model sees in `x`, in units of sigma."""
    r = yield Ask(x, sigma)
    return (x - r.denoised) / sigma


def _first(x: torch.Tensor, eps: torch.Tensor, t: float, end: float) -> torch.Tensor:
    """DPM-Solver-1 from t to `end`, the noise staying as it is."""
    return x - eps * (math.exp(-end) * math.expm1(end - t))


def _second(
    x: torch.Tensor, eps: torch.Tensor, t: float, end: float, share: float = 0.5
) -> Generator[Ask, Denoised, tuple[torch.Tensor, torch.Tensor]]:
    """DPM-Solver-2 with its inner point after `share` of the step. Returns the noise seen there, too."""
    inner = t + share * (end - t)
    inside = yield from predicted_noise(_first(x, eps, t, inner), math.exp(-inner))
    factor = math.exp(-end) * math.expm1(end - t) / (2.0 * share)
    return _first(x, eps, t, end) - (inside - eps) * factor, inside


def _third(x: torch.Tensor, eps: torch.Tensor, inside: torch.Tensor, t: float, end: float) -> Asking:
    """DPM-Solver-3 with inner points at 1/3, where the noise is `inside`, and 2/3 of the step."""

    def corrected(to: float, share: float, seen: torch.Tensor) -> torch.Tensor:
        span = to - t
        factor = math.exp(-to) * (math.expm1(span) / span - 1.0) / share
        return _first(x, eps, t, to) - (seen - eps) * factor

    inner = t + 2.0 * THIRD * (end - t)
    # the first inner point lies half the way to the second
    further = yield from predicted_noise(corrected(inner, 0.5, inside), math.exp(-inner))
    return corrected(end, 2.0 * THIRD, further)


def _split(t: float, end: float, last: float, eta: float) -> tuple[float, float]:
    """(where to step to, the noise to add there) for a step from t to `end`, never past `last`."""
    if not eta:
        return end, 0.0
    down, _ = ancestral_split(math.exp(-t), math.exp(-end), eta)
    reached = min(last, -math.log(down)) if down > 0.0 else last
    return reached, math.sqrt(max(math.exp(-2.0 * end) - math.exp(-2.0 * reached), 0.0))


def orders(evaluations: int) -> list[int]:
    """The orders of the fast solver's steps: threes, then what is left (section 3.4 there)."""
    threes, rest = divmod(evaluations, 3)
    if rest:
        return [3] * threes + [rest]
    return [3] * (threes - 1) + [2, 1]


def dpm_fast(
    x: torch.Tensor, sigmas: Sequence[float], noise: SamplerNoise, options: SamplerOptions
) -> Sampling:
    """As many evaluations as the schedule has steps, in singlesteps of equal length from its first level to
    its last, which is above 0.
    """
    first, last = -math.log(sigmas[0]), -math.log(sigmas[-1])
    chosen = orders(len(sigmas) - 1)
    places = [first + (last - first) * number / len(chosen) for number in range(len(chosen) + 1)]
    for order, (t, end) in zip(chosen, pairwise(places), strict=True):
        reached, up = _split(t, end, last, options.eta)
        eps = yield from predicted_noise(x, math.exp(-t))
        if order == 1:
            x = _first(x, eps, t, reached)
        elif order == 2:
            x, _ = yield from _second(x, eps, t, reached)
        else:
            _, inside = yield from _second(x, eps, t, reached, THIRD)
            x = yield from _third(x, eps, inside, t, reached)
        x = x + noise.step() * (options.s_noise * up)
    return x


def _factor(low: torch.Tensor, high: torch.Tensor, before: torch.Tensor, order: float) -> float:
    """How much longer the next step may be, by the distance of two orders' results in units of the tolerance.
    Limited to (0, 1 + pi / 2).
    """
    allowed = torch.clamp(TOLERANCE * torch.maximum(low.abs(), before.abs()), min=LEAST_TOLERANCE)
    error = float(((low - high) / allowed).norm()) / math.sqrt(low.numel())
    return 1.0 + math.atan((1.0 / (error + 1e-8)) ** (1.0 / order) - 1.0)


def _single(t: float) -> float:
    """The time in single precision, as the peer has it: where a step is only just taken or only just not,
    the last digits decide.
    """
    return float(np.float32(t))


def dpm_adaptive(
    x: torch.Tensor, sigmas: Sequence[float], noise: SamplerNoise, options: SamplerOptions
) -> Sampling:
    """Steps as long as second and third order agree, from the schedule's first level to its last, above 0;
    the schedule between is not heeded. Each picture's own error decides, so that it does not depend on its
    batch. A step that fails is tried again at a shorter length, without noise drawn.
    """
    t, last = _single(-math.log(sigmas[0])), _single(-math.log(sigmas[-1]))
    length, before = FIRST_STEP, x
    eps: torch.Tensor | None = None
    while t < last - CLOSE:
        end = _single(min(last, t + length))
        reached, up = _split(t, end, last, options.eta)
        if eps is None:
            eps = yield from predicted_noise(x, math.exp(-t))
        low, inside = yield from _second(x, eps, t, reached, THIRD)
        high = yield from _third(x, eps, inside, t, reached)
        factor = _factor(low, high, before, 1.5 if options.eta else 3.0)
        if math.isnan(factor):
            # a network that overflowed: no step would ever be taken
            return high
        taken = factor >= ACCEPTED or length <= LEAST_STEP
        length = max(length * factor, LEAST_STEP)
        if taken:
            before, x, t, eps = low, high + noise.step() * up, end, None
    return x


def likely(sigmas: Sequence[float]) -> int:
    """An estimate of the adaptive solver's evaluations: three for each of as many steps as usual models take
    over the whole range, fewer where it begins lower.
    """
    return 3 * max(round(USUAL_STEPS * math.log(sigmas[0] / sigmas[-1]) / USUAL_RANGE), 1)
