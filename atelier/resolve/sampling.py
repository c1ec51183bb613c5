"""Which sampler with which schedule, and the numbers it takes: from the request, else from the options."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from atelier import options
from atelier.contract.errors import InvalidRequest
from atelier.contract.generation import Txt2ImgPayload
from atelier.contract.parts import EngineSettings
from atelier.vocabulary import Sampler, find_sampler, find_scheduler

AUTOMATIC = "Automatic"
_SCHEDULES = ("Default", "Zero Terminal SNR")
_OF_THE_REQUEST = ("s_churn", "s_tmin", "s_tmax", "s_noise", "s_min_uncond")


def sampling(name: str, scheduler: str | None) -> tuple[Sampler, str]:
    """The sampler of that name, and the label of the schedule it really runs with. Raises UnknownName.

    An old joint name ("DPM++ 2M Karras") brings its schedule, unless another is asked for by name.
    """
    sampler, _ = find_sampler(name)
    chosen = asked_scheduler(name, scheduler)
    return sampler, sampler.scheduler if chosen == AUTOMATIC else chosen


def asked_scheduler(name: str, scheduler: str | None) -> str:
    """The label of the schedule that a sampler's name and a schedule's name ask for together."""
    _, joint = find_sampler(name)
    chosen = find_scheduler(scheduler) if scheduler else None
    if joint is not None and (chosen is None or chosen.label == AUTOMATIC):
        chosen = joint
    return chosen.label if chosen else AUTOMATIC


def engine_settings(request: Txt2ImgPayload, effective: Mapping[str, Any]) -> EngineSettings:
    """The options a picture depends on as values. Raises InvalidRequest naming the first that cannot be."""
    values = {
        field: effective[option]
        for option, field in options.ENGINE_OPTIONS.items()
        if effective.get(option) is not None
    }
    values |= {
        field: getattr(request, field) for field in _OF_THE_REQUEST if getattr(request, field) is not None
    }
    if request.eta is not None:
        # one field for both kinds; DDIM knows no more than 1, which is nothing to a request without DDIM
        ddim = any(str(name).startswith("DDIM") for name in (request.sampler_name, request.hr_sampler_name))
        values["eta"] = request.eta
        if ddim or request.eta <= 1.0:
            values["eta_ddim"] = request.eta
    noise = effective.get("sd_noise_schedule") or _SCHEDULES[0]
    if noise not in _SCHEDULES:
        raise InvalidRequest(f"The option 'sd_noise_schedule' is one of {', '.join(_SCHEDULES)}.")
    values["zero_terminal_snr"] = noise == _SCHEDULES[1]
    try:
        return EngineSettings.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(place) for place in first["loc"])
        name = next((option for option, its in options.ENGINE_OPTIONS.items() if its == field), field)
        raise InvalidRequest(
            f"The option {name!r} cannot be used: {first['msg']}.", detail={"option": name}
        ) from error
