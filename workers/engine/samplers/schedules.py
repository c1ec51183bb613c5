"""Noise schedules: the sigmas a sampler visits, from the highest to its last, which mostly is zero."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise

from atelier.contract.errors import InvalidRequest, UnknownName
from workers.engine.discretisation import Discretisation
from workers.engine.samplers.beta import quantile


@dataclass(frozen=True)
class ScheduleOptions:
    """What a request may change of a schedule; 0 means the model's or the schedule's own. `sdxl`: the model
    is of that family (Align Your Steps has a table of its own for it).
    """

    sigma_min: float = 0.0
    sigma_max: float = 0.0
    rho: float = 0.0
    discard_next_to_last: bool = False
    beta_alpha: float = 0.6
    beta_beta: float = 0.6
    sdxl: bool = False

    def discarding(self, discards: bool) -> ScheduleOptions:
        """The same for a sampler that leaves the next-to-last sigma out by itself, if it does."""
        return replace(self, discard_next_to_last=self.discard_next_to_last or discards)


Schedule = Callable[[int, float, float, ScheduleOptions, Discretisation], list[float]]
"""(steps, sigma_min, sigma_max, options, model) -> the sigmas from high to low, the last one included."""

KARRAS_RHO = 7.0
POLYEXPONENTIAL_RHO = 1.0
ALIGNED = (14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.029)
ALIGNED_SDXL = (14.615, 6.315, 3.771, 2.181, 1.342, 0.862, 0.555, 0.380, 0.234, 0.113, 0.029)
"""The published tables of Align Your Steps (Sabour et al. 2024) for SD 1.5 and SDXL."""


def _ramp(steps: int) -> list[float]:
    """`steps` numbers from 0 to 1."""
    return [step / (steps - 1) if steps > 1 else 0.0 for step in range(steps)]


def uniform(
    steps: int, low: float, high: float, options: ScheduleOptions, model: Discretisation
) -> list[float]:
    """Evenly spaced timesteps of the model, from its last to its first; bounds are not heeded."""
    last = len(model.sigmas) - 1
    return [*(model.sigma_at(last * (1.0 - share)) for share in _ramp(steps)), 0.0]


def karras_ramp(steps: int, low: float, high: float, rho: float = KARRAS_RHO) -> list[float]:
    """`steps` levels from `high` to `low` with evenly spaced rho-th roots (Karras et al. 2022, eq. 5)."""
    start, end = high ** (1 / rho), low ** (1 / rho)
    return [(start + share * (end - start)) ** rho for share in _ramp(steps)]


def karras(
    steps: int, low: float, high: float, options: ScheduleOptions, model: Discretisation
) -> list[float]:
    """Evenly spaced rho-th roots."""
    return [*karras_ramp(steps, low, high, options.rho or KARRAS_RHO), 0.0]


def exponential(
    steps: int, low: float, high: float, options: ScheduleOptions, model: Discretisation
) -> list[float]:
    """Evenly spaced logarithms."""
    return [*(high * (low / high) ** share for share in _ramp(steps)), 0.0]


def polyexponential(
    steps: int, low: float, high: float, options: ScheduleOptions, model: Discretisation
) -> list[float]:
    """Logarithms along a power of the ramp: with rho 1 the exponential schedule."""
    power = options.rho or POLYEXPONENTIAL_RHO
    return [*(low * (high / low) ** ((1.0 - share) ** power) for share in _ramp(steps)), 0.0]


def sgm_uniform(
    steps: int, low: float, high: float, options: ScheduleOptions, model: Discretisation
) -> list[float]:
    """Evenly spaced timesteps of which the last is left out, as in Stability's generative-models."""
    start, end = model.timestep(high), model.timestep(low)
    return [*(model.sigma_at(start + step / steps * (end - start)) for step in range(steps)), 0.0]


def kl_optimal(
    steps: int, low: float, high: float, options: ScheduleOptions, model: Discretisation
) -> list[float]:
    """Evenly spaced arc tangents (Sabour et al. 2024, theorem 3.1). Ends at `low`, as the peer has it, not
    at 0.
    """
    start, end = math.atan(high), math.atan(low)
    return [math.tan(start + step / steps * (end - start)) for step in range(steps + 1)]


def align_your_steps(
    steps: int, low: float, high: float, options: ScheduleOptions, model: Discretisation
) -> list[float]:
    """The published table, interpolated in logarithms for other numbers of steps; bounds are not heeded."""
    table = ALIGNED_SDXL if options.sdxl else ALIGNED
    if steps == len(table):
        return [*table, 0.0]
    found = []
    for share in _ramp(steps):
        place = share * (len(table) - 1)
        before = min(int(place), len(table) - 2)
        found.append(table[before] * (table[before + 1] / table[before]) ** (place - before))
    return [*found, 0.0]


def simple(
    steps: int, low: float, high: float, options: ScheduleOptions, model: Discretisation
) -> list[float]:
    """Every n-th training level from the last on, without interpolation; bounds are not heeded."""
    stride = len(model.sigmas) / steps
    return [*(model.sigmas[-1 - int(step * stride)] for step in range(steps)), 0.0]


def normal(
    steps: int, low: float, high: float, options: ScheduleOptions, model: Discretisation
) -> list[float]:
    """Evenly spaced timesteps between those of the bounds."""
    start, end = model.timestep(high), model.timestep(low)
    return [*(model.sigma_at(start + share * (end - start)) for share in _ramp(steps)), 0.0]


def ddim(steps: int, low: float, high: float, options: ScheduleOptions, model: Discretisation) -> list[float]:
    """Every n-th training level from the second on: one more than `steps` where n leaves room; bounds are
    not heeded.
    """
    stride = max(len(model.sigmas) // steps, 1)
    return [*reversed(model.sigmas[1::stride]), 0.0]


def beta(steps: int, low: float, high: float, options: ScheduleOptions, model: Discretisation) -> list[float]:
    """Quantiles of a beta distribution between the bounds (Lee et al. 2024, "Beta Sampling is All You Need").

    The peer spreads sigmas, not timesteps, over them.
    """
    shares = [quantile(1.0 - share, options.beta_alpha, options.beta_beta) for share in _ramp(steps)]
    return [*(low + share * (high - low) for share in shares), 0.0]


SCHEDULES: dict[str, Schedule] = {
    "Automatic": uniform,
    "Uniform": uniform,
    "Karras": karras,
    "Exponential": exponential,
    "Polyexponential": polyexponential,
    "SGM Uniform": sgm_uniform,
    "KL Optimal": kl_optimal,
    "Align Your Steps": align_your_steps,
    "Simple": simple,
    "Normal": normal,
    "DDIM": ddim,
    "Beta": beta,
}
"""By label. "Automatic" is what a sampler without a schedule of its own takes: the model's own spacing."""


def sigmas(label: str, steps: int, options: ScheduleOptions, model: Discretisation) -> list[float]:
    """The sigmas of `steps` steps by the schedule of that label (DDIM's may be one more), the last included.

    UnknownName for a schedule that is not here; InvalidRequest where the options leave it without sense.
    """
    schedule = SCHEDULES.get(label)
    if schedule is None:
        raise UnknownName.of("schedule", label, SCHEDULES)
    count = steps + 1 if options.discard_next_to_last else steps
    low, high = options.sigma_min or model.sigmas[0], options.sigma_max or model.sigmas[-1]
    try:
        found = schedule(count, low, high, options, model)
    except (ArithmeticError, ValueError, TypeError):
        found = []
    if options.discard_next_to_last:
        found = [*found[:-2], *found[-1:]]
    if not _falls(found):
        raise InvalidRequest(
            f"The schedule type {label!r} gives no {steps} falling noise levels with sigma min {low:g}, "
            f"sigma max {high:g} and rho {options.rho:g}. Set them to 0 for the model's own, or take fewer "
            "steps, or a higher denoising strength in a second pass."
        )
    return found


def _falls(found: list[float]) -> bool:
    """Whether these are levels a sampler can go through. A negative bound's roots are complex numbers."""
    if len(found) < 2 or not all(isinstance(sigma, float) and math.isfinite(sigma) for sigma in found):
        return False
    return found[-1] >= 0.0 and all(later < earlier for earlier, later in pairwise(found))
