"""Which fields of a request had no effect, and why. Nothing a caller sets is dropped in silence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from atelier import options
from atelier.contract.errors import UnknownName
from atelier.contract.generation import Txt2ImgPayload
from atelier.contract.models import Catalogue
from atelier.prompt import networks
from atelier.scripts import GRID_OPTIONS
from atelier.vocabulary import ALWAYS_ON_SCRIPTS, Sampler


class Ignored(NamedTuple):
    """A field of the request that changed nothing, and the reason for the user."""

    field: str
    reason: str


_LATER = {
    "restore_faces": "face restoration is not served yet",
    "firstpass_image": "the first pass is made again from its seed",
    "comments": "it is an answer field of the peer and sets nothing",
    "force_task_id": "jobs have ids of their own; see /api/v1/jobs",
    "do_not_save_samples": "every picture is kept with its job",
    "do_not_save_grid": "save_images says whether a grid is made",
    "save_images": "every picture is kept with its job, and no grid is made of these",
    "override_settings_restore_afterwards": "override_settings hold for one request and are never stored",
    "script_args": "no script was run",
}
HONOURED = (
    frozenset(options.ENGINE_OPTIONS)
    | options.NAMING_OPTIONS
    | options.INFOTEXT_OPTIONS
    | options.RESOLVED_OPTIONS
    | GRID_OPTIONS
)
"""The options that a picture or a grid may depend on."""
_HIRES = (
    "denoising_strength", "firstphase_width", "firstphase_height", "hr_scale", "hr_upscaler",
    "hr_second_pass_steps",
    "hr_resize_x", "hr_resize_y", "hr_checkpoint_name", "hr_sampler_name", "hr_scheduler",
    "hr_prompt", "hr_negative_prompt",
)  # fmt: skip


def ignored_fields(
    request: Txt2ImgPayload,
    overrides: Mapping[str, Any],
    sampler: Sampler,
    catalogue: Catalogue,
    *,
    refines: bool = False,
    served: frozenset[str] = frozenset(),
) -> tuple[Ignored, ...]:
    """Every field set to a non-default value that this request's pictures do not depend on. `served`: the
    always-on scripts that extensions read, in lower case. Raises UnknownName for unknown ones.
    """
    found = [Ignored(field, reason) for field, reason in _LATER.items() if request.given(field)]
    if request.given("disable_extra_networks") and not _names_networks(request):
        found.append(Ignored("disable_extra_networks", "no prompt names a network"))
    found += _hires_fields(request)
    if not refines:
        found += [
            Ignored(field, "it takes effect with a refiner checkpoint of its own and a switch below 1")
            for field in ("refiner_checkpoint", "refiner_switch_at")
            if request.given(field) and str(getattr(request, field)).lower() != "none"
        ]
    found += _sampler_fields(request, overrides, sampler)
    found += _seed_fields(request)
    found += _scripts(request, served)
    found += [
        Ignored("styles", f"there is no style named {name[:80]!r}")
        for name in request.styles or ()
        if name not in catalogue.styles
    ]
    if request.given("sampler_index") and request.sampler_name:
        found.append(Ignored("sampler_index", "sampler_name is given and wins"))
    found += [
        Ignored(f"override_settings.{name}", "this option is not served yet")
        for name in overrides
        if name not in HONOURED
    ]
    if overrides.get("inpainting_mask_weight", 1) != 1:
        reason = "it takes effect with an input picture"
        found.append(Ignored("override_settings.inpainting_mask_weight", reason))
    return tuple(found)


def _names_networks(request: Txt2ImgPayload) -> bool:
    prompts = (request.prompt or "", (request.hr_prompt or "") if request.enable_hr else "")
    return any(networks.extract(prompt)[1] for prompt in prompts)


def _hires_fields(request: Txt2ImgPayload) -> list[Ignored]:
    if not request.enable_hr:
        reason = "it takes effect with hires fix"
        return [Ignored(field, reason) for field in _HIRES if request.given(field)]
    sized = [field for field in ("hr_resize_x", "hr_resize_y") if request.given(field)]
    legacy = request.firstphase_width or request.firstphase_height
    if legacy:
        sized = [*sized, "hr_scale"]
        return [
            Ignored(field, "firstphase_width and firstphase_height name the sizes")
            for field in sized
            if request.given(field)
        ]
    if sized and request.given("hr_scale"):
        return [Ignored("hr_scale", "hr_resize_x or hr_resize_y names the size")]
    return []


def _sampler_fields(request: Txt2ImgPayload, overrides: Mapping[str, Any], sampler: Sampler) -> list[Ignored]:
    found = [
        Ignored(field, f"the sampler {sampler.name} does not use it")
        for field in ("eta", "s_churn", "s_tmin", "s_tmax", "s_noise")
        if request.given(field) and field not in sampler.uses
    ]
    churn = request.s_churn if request.s_churn is not None else overrides.get("s_churn", 0)
    if "s_churn" in sampler.uses and not churn:
        found += [
            Ignored(field, "it takes effect with s_churn > 0")
            for field in ("s_tmin", "s_tmax", "s_noise")
            if request.given(field)
        ]
    return found


def _seed_fields(request: Txt2ImgPayload) -> list[Ignored]:
    found: list[Ignored] = []
    if request.given("subseed") and not request.subseed_strength:
        found.append(Ignored("subseed", "it takes effect with subseed_strength > 0"))
    width, height = request.seed_resize_from_w or 0, request.seed_resize_from_h or 0
    if min(width, height) <= 0:
        found += [
            Ignored(field, "seed resize needs both a width and a height above 0")
            for field in ("seed_resize_from_w", "seed_resize_from_h")
            if request.given(field)
        ]
    return found


def _scripts(request: Txt2ImgPayload, served: frozenset[str]) -> list[Ignored]:
    found: list[Ignored] = []
    for title in request.alwayson_scripts or {}:
        if title.lower() in served:
            continue
        if title.lower() not in ALWAYS_ON_SCRIPTS:
            raise UnknownName.of("always-on script", title, (*ALWAYS_ON_SCRIPTS, *sorted(served)))
        found.append(Ignored(f"alwayson_scripts.{title}", "this script is not served yet"))
    return found
