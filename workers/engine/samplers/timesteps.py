"""The levels of the samplers that know training timesteps only: DDIM, PLMS and UniPC. They heed no
schedule.
"""

from __future__ import annotations

import math

from workers.engine.discretisation import Discretisation
from workers.engine.samplers.interface import LevelPlan


def timesteps(plan: LevelPlan) -> list[int]:
    """Every n-th training timestep from 1 on, rising: one more than asked for where n leaves room.

    With a sigma to be left out the peer counts one step more and leaves none out.
    """
    last = len(plan.model.sigmas) - 1
    steps = plan.steps + 1 if plan.schedule.discard_next_to_last else plan.steps
    stride = max((last + 1) // steps, 1)
    return [min(place + 1, last) for place in range(0, last + 1, stride)]


def levels(plan: LevelPlan) -> list[float]:
    """From the highest of the timesteps to the lowest, where the picture ends. A single step, which the peer
    leaves as noise, begins at the model's last timestep.
    """
    places = timesteps(plan)
    if len(places) == 1:
        places.append(len(plan.model.sigmas) - 1)
    return [plan.model.sigmas[place] for place in reversed(places)]


def tail(plan: LevelPlan, encoded: int) -> tuple[float, list[float]]:
    """A latent is noised to timestep number `encoded` and sampled from the one below it on: the peer's way.

    Where that leaves nothing to do, it is sampled from its own level.
    """
    places = timesteps(plan)
    encoded = min(encoded, len(places) - 1)
    level = plan.model.sigmas[places[encoded]]
    left = [plan.model.sigmas[place] for place in reversed(places[:encoded])]
    if len(left) < 2:
        left = [level, *(left or [0.0])]
    return level, left


def _sigma(model: Discretisation, timestep: float) -> float:
    """The sigma of a fractional timestep with the signal's logarithm, not sigma's, interpolated."""
    low = min(max(math.floor(timestep), 0), len(model.sigmas) - 2)
    before, after = (math.log1p(model.sigmas[place] ** 2) for place in (low, low + 1))
    return math.sqrt(math.expm1(before + (timestep - low) * (after - before)))


def _unipc_grid(plan: LevelPlan, steps: int, first: float) -> list[float]:
    """`steps` + 1 levels from that of the timestep `first` to the model's lowest."""
    model, count = plan.model, len(plan.model.sigmas)
    kind = plan.options.uni_pc_skip_type
    shares = [step / steps for step in range(steps + 1)]
    if kind == "logSNR":
        high = _sigma(model, first)
        return [high * (model.sigmas[0] / high) ** share for share in shares]
    power = 2.0 if kind == "time_quadratic" else 1.0
    start, end = ((place / count) ** (1.0 / power) for place in (first + 1.0, 1.0))
    times = ((start + share * (end - start)) ** power for share in shares)
    return [_sigma(model, max(time * count - 1.0, 0.0)) for time in times]


def unipc_levels(plan: LevelPlan) -> list[float]:
    """As many steps as there are timesteps, spaced as the option says, down to the model's lowest level."""
    return _unipc_grid(plan, len(timesteps(plan)), len(plan.model.sigmas) - 1.0)


def unipc_tail(plan: LevelPlan, encoded: int) -> tuple[float, list[float]]:
    """A latent is noised as for the other samplers of timesteps; the steps left are spaced anew."""
    places = timesteps(plan)
    encoded = min(encoded, len(places) - 1)
    level = plan.model.sigmas[places[encoded]]
    first = places[encoded - 1] if encoded > 1 else places[encoded]
    return level, _unipc_grid(plan, max(encoded, 1), float(first))
