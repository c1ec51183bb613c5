"""What a request may not change: options that the studio or a team has locked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from atelier.contract.generation import Txt2ImgPayload
from atelier.ignored import Ignored

CHECKPOINT = "sd_model_checkpoint"
FIELDS: Mapping[str, tuple[str, ...]] = {
    "eta": ("eta_ancestral", "eta_ddim"),
    "s_churn": ("s_churn",),
    "s_tmin": ("s_tmin",),
    "s_tmax": ("s_tmax",),
    "s_noise": ("s_noise",),
    "s_min_uncond": ("s_min_uncond",),
    "tiling": ("tiling",),
    # Who may draw with one checkpoint alone may not let another one finish the picture either.
    "hr_checkpoint_name": (CHECKPOINT,),
    "refiner_checkpoint": (CHECKPOINT,),
}
"""Fields of a request that stand for options, with the options. A field goes where any of them is locked."""
NO_OTHER = ("", "none", "use same checkpoint")
"""Names that mean no checkpoint beside the one of the picture."""


def unlocked(
    request: Txt2ImgPayload, locked: Mapping[str, str], settings: Mapping[str, Any]
) -> tuple[Txt2ImgPayload, list[Ignored]]:
    """The request without what `locked` (option -> who has locked it) forbids it, and what that leaves out. A
    value that holds anyway goes without a word.
    """
    if not locked:
        return request, []
    changes: dict[str, Any] = {}
    left_out: list[Ignored] = []
    overrides = dict(request.override_settings or {})
    for option in [name for name in overrides if name in locked]:
        value = overrides.pop(option)
        if value is not None and value != settings.get(option):
            left_out.append(Ignored(f"override_settings.{option}", reason(option, locked[option])))
        changes["override_settings"] = overrides
    for field, options in FIELDS.items():
        lock = next((option for option in options if option in locked), None)
        value = getattr(request, field)
        if lock is None or value is None or (lock == CHECKPOINT and value.strip().lower() in NO_OTHER):
            continue
        changes[field] = None
        if request.given(field) and value != settings.get(lock):
            left_out.append(Ignored(field, reason(lock, locked[lock])))
    return request.model_copy(update=changes), left_out


def unlocked_model(
    model: str | None, locked: Mapping[str, str], settings: Mapping[str, Any]
) -> tuple[str | None, list[Ignored]]:
    """The model that a request names beside its options, None where the checkpoint is locked; what that
    leaves out, if it is another one.
    """
    if model is None or CHECKPOINT not in locked:
        return model, []
    if model == settings.get(CHECKPOINT):
        return None, []
    return None, [Ignored("model", reason(CHECKPOINT, locked[CHECKPOINT]))]


def reason(option: str, by: str) -> str:
    """Why a value was ignored."""
    return f"the option {option!r} is locked by {by}"
