"""What a sampler is: a generator that asks for denoised latents and never sees the network.

`r = yield x, sigma` asks for the model's view of `x` at noise level `sigma`; the answer has `r.denoised`
(after guidance), `r.cond` and `r.uncond`. The generator returns the last latent. Latents are [C, H, W] of any
floating type; sigmas are Python floats, so that the arithmetic of a schedule is done in double precision
whatever the latents are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, Protocol

import torch

from workers.engine.discretisation import Discretisation
from workers.engine.samplers.schedules import ScheduleOptions, sigmas


class Denoised(NamedTuple):
    """The model's view of a noisy latent: with guidance, for the prompt alone, for the negative prompt
    alone.
    """

    denoised: torch.Tensor
    cond: torch.Tensor
    uncond: torch.Tensor


class Ask(NamedTuple):
    """A question of a sampler: what is `x` without its noise of standard deviation `sigma`?"""

    x: torch.Tensor
    sigma: float


Increments = Callable[[float, float], torch.Tensor]
"""(sigma, following) -> the Brownian path's increment between the two levels, scaled to unit variance."""


class SamplerNoise(Protocol):
    """Where a picture's further noise comes from."""

    def step(self) -> torch.Tensor:
        """The next standard normal noise of the picture's own stream ([C, H, W])."""
        ...

    def brownian(self, low: float, high: float) -> Increments:
        """The picture's Brownian path over the noise levels from `low` to `high`."""
        ...


@dataclass(frozen=True)
class SamplerOptions:
    """Numbers samplers take beyond their schedule; each uses those it knows. s_tmax: infinity where there is
    no bound. `eta` is that of the ancestral and SDE samplers, `eta_ddim` that of DDIM.
    """

    eta: float = 1.0
    s_churn: float = 0.0
    s_tmin: float = 0.0
    s_tmax: float = float("inf")
    s_noise: float = 1.0
    eta_ddim: float = 0.0
    uni_pc_variant: Literal["bh1", "bh2", "vary_coeff"] = "bh1"
    uni_pc_skip_type: Literal["time_uniform", "time_quadratic", "logSNR"] = "time_uniform"
    uni_pc_order: int = 3
    uni_pc_lower_order_final: bool = True
    levels: Discretisation | None = None
    """The levels the model was trained at: which timesteps it knows."""


Sampling = Generator[Ask, Denoised, torch.Tensor]
Solver = Callable[[torch.Tensor, Sequence[float], SamplerNoise, SamplerOptions], Sampling]
"""(start, sigmas, noise, options) -> the sampling. `sigmas` fall from the level of `start` to the level that
is returned, mostly 0.
"""


@dataclass(frozen=True)
class LevelPlan:
    """What decides the levels a picture goes through. `label` names the schedule, `model` gives the levels
    the network was trained at.
    """

    label: str
    steps: int
    schedule: ScheduleOptions
    options: SamplerOptions
    model: Discretisation


Levels = Callable[[LevelPlan], list[float]]
"""The sigmas of a whole picture."""
Tail = Callable[[LevelPlan, int], tuple[float, list[float]]]
"""(plan, encoded) -> the sigma to which a given latent is noised, and the sigmas of the `encoded` + 1 last
steps that are left to do.
"""


def by_label(plan: LevelPlan) -> list[float]:
    """The levels of the schedule that was asked for."""
    return sigmas(plan.label, plan.steps, plan.schedule, plan.model)


def tail_by_label(plan: LevelPlan, encoded: int) -> tuple[float, list[float]]:
    """The last levels of the schedule that was asked for."""
    levels = by_label(plan)
    # some schedules give other numbers of levels than were asked for: what counts is how many are left
    steps = min(plan.steps, len(levels) - 1)
    left = levels[max(steps - encoded - 1, 0) :]
    return left[0], left


def one_each(levels: Sequence[float]) -> int:
    """One evaluation for every step."""
    return len(levels) - 1


@dataclass(frozen=True)
class Sampler:
    """A solver and what has to be known to drive it.

    `unit`: it begins and ends with latents of variance 1 (signal and noise both shrunk), as the samplers of
    training timesteps do in the peer. What is asked has signal 1 and noise sigma with every sampler.
    `needs_uncond`: it uses `r.uncond`, so that the negative prompt is evaluated at every scale.
    `adaptive`: it decides its steps as it goes.
    `discards`: it leaves the next-to-last sigma of a schedule out.
    `evaluations`: how often a picture with those sigmas is evaluated, for its progress; an estimate where the
    sampler decides as it goes.
    """

    solve: Solver
    levels: Levels = by_label
    tail: Tail = tail_by_label
    unit: bool = False
    needs_uncond: bool = False
    discards: bool = False
    adaptive: bool = False
    evaluations: Callable[[Sequence[float]], int] = one_each

    def __call__(
        self, start: torch.Tensor, sigmas: Sequence[float], noise: SamplerNoise, options: SamplerOptions
    ) -> Sampling:
        """Begin: the generator that asks its way from `start` to the last sigma."""
        return self.solve(start, sigmas, noise, options)

    def _own(self, plan: LevelPlan) -> LevelPlan:
        return replace(plan, schedule=plan.schedule.discarding(self.discards))

    def sigmas(self, plan: LevelPlan) -> tuple[float, ...]:
        """The levels a whole picture goes through, by the schedule asked for where the sampler heeds it.
        UnknownName for a schedule that is not there.
        """
        return tuple(self.levels(self._own(plan)))

    def start(self, noise: torch.Tensor, sigmas: Sequence[float], *, unit_signal: bool) -> torch.Tensor:
        """What a picture made of noise alone starts from; `unit_signal` is the option "SGM noise
        multiplier".
        """
        loud = self.unit or unit_signal
        return noise * (math.sqrt(1.0 + sigmas[0] ** 2) if loud else sigmas[0])

    def resume(
        self, latent: torch.Tensor, noise: torch.Tensor, plan: LevelPlan, encoded: int
    ) -> tuple[torch.Tensor, tuple[float, ...]]:
        """(start, sigmas) for a picture made from a latent: `encoded` is how many of the plan's steps the
        latent is noised back over (the peer's t_enc, int(min(strength, 0.999) * steps)).
        """
        level, left = self.tail(self._own(plan), encoded)
        start = latent + noise * level
        if self.unit:
            # of variance 1 for its own level: the peer begins one level lower with it
            start = start * math.sqrt((1.0 + left[0] ** 2) / (1.0 + level**2))
        return start, tuple(left)
