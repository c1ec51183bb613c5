"""Denoisers whose answer is known exactly, and what drives a sampler with them, in double precision."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch

from workers.engine import samplers
from workers.engine.discretisation import Discretisation
from workers.engine.noise.brownian import tree_over
from workers.engine.samplers.interface import Denoised, Increments, LevelPlan, SamplerOptions
from workers.engine.samplers.schedules import ScheduleOptions

SHAPE = (4, 6, 6)
CENTRES = torch.tensor([-1.0, 0.2, 1.4], dtype=torch.float64)
SHARES = torch.tensor([0.3, 0.5, 0.2], dtype=torch.float64)
SPREAD = 0.15

Denoiser = Callable[[torch.Tensor, float], torch.Tensor]


def mixture(x: torch.Tensor, sigma: float) -> torch.Tensor:
    """The posterior mean of a mixture of Gaussians of deviation SPREAD, given x = mixture + sigma * noise."""
    spread = SPREAD**2 + sigma**2
    distance = x.unsqueeze(-1) - CENTRES
    weights = torch.softmax(SHARES.log() - distance**2 / (2 * spread), dim=-1)
    return (weights * (CENTRES + SPREAD**2 / spread * distance)).sum(-1)


CENTRE, WIDTH = 0.4, 0.7


def gaussian(x: torch.Tensor, sigma: float) -> torch.Tensor:
    """The same for one Gaussian of deviation WIDTH around CENTRE."""
    return CENTRE + (x - CENTRE) * (WIDTH**2 / (WIDTH**2 + sigma**2))


def gaussian_flow(x: torch.Tensor, sigma: float, following: float) -> torch.Tensor:
    """Where the probability flow of that Gaussian leads: the deviation shrinks, nothing else changes."""
    return CENTRE + (x - CENTRE) * math.sqrt((WIDTH**2 + following**2) / (WIDTH**2 + sigma**2))


def sd_levels() -> Discretisation:
    """The levels of Stable Diffusion 1.x."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    return Discretisation(torch.cumprod(1 - betas, 0))


def start(sigma: float, shape: tuple[int, ...] = SHAPE) -> torch.Tensor:
    """A given noise of deviation `sigma`."""
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(4)) * sigma


@dataclass
class Noise:
    """A picture's noise in double precision."""

    shape: tuple[int, ...] = SHAPE
    drawn: int = 0
    _stream: torch.Generator = field(default_factory=lambda: torch.Generator().manual_seed(9))

    def step(self) -> torch.Tensor:
        """The next numbers."""
        self.drawn += 1
        return torch.randn(self.shape, dtype=torch.float64, generator=self._stream)

    def brownian(self, low: float, high: float) -> Increments:
        """The path of a given seed."""

        def draw(seeds: Sequence[int]) -> list[torch.Tensor]:
            streams = [torch.Generator().manual_seed(seed) for seed in seeds]
            return [torch.randn(self.shape, dtype=torch.float64, generator=stream) for stream in streams]

        return tree_over(7, low, high, draw).increment


@dataclass
class Run:
    """What came of a sampling, and the levels it asked at."""

    latent: torch.Tensor
    asked: list[float]
    noise: Noise


def run(
    name: str,
    schedule: Sequence[float],
    options: SamplerOptions | None = None,
    *,
    denoiser: Denoiser = mixture,
    uncond: Denoiser | None = None,
    begin: torch.Tensor | None = None,
) -> Run:
    """Drive a sampler from `begin`, a given noise if there is none, through the schedule."""
    begin = start(schedule[0]) if begin is None else begin
    noise = Noise(tuple(begin.shape))
    asked: list[float] = []
    sampling = samplers.find(name)(begin, schedule, noise, options or SamplerOptions())
    try:
        ask = next(sampling)
        while True:
            asked.append(ask.sigma)
            view = denoiser(ask.x, ask.sigma)
            other = view if uncond is None else uncond(ask.x, ask.sigma)
            ask = sampling.send(Denoised(view, view, other))
    except StopIteration as end:
        return Run(end.value, asked, noise)


def plan(
    label: str,
    steps: int,
    levels: Discretisation,
    options: SamplerOptions | None = None,
    schedule: ScheduleOptions | None = None,
) -> LevelPlan:
    """What decides the levels of a picture."""
    return LevelPlan(label, steps, schedule or ScheduleOptions(), options or SamplerOptions(), levels)


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    """The distance of two latents over the size of the second."""
    return float((found - expected).norm() / expected.norm())
