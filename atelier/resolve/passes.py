"""Hires fix and the refiner: what a request says of its second pass and its second checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from atelier.contract import limits
from atelier.contract.errors import InvalidRequest, LimitExceeded, UnknownName
from atelier.contract.generation import Txt2ImgPayload
from atelier.contract.models import Catalogue, ModelRef
from atelier.contract.parts import HiresPass, Refiner
from atelier.resolve import naming
from atelier.resolve.ranges import names_final_size, within
from atelier.resolve.sampling import asked_scheduler, sampling
from atelier.vocabulary import LATENT_UPSCALERS, PIXEL_UPSCALERS, Sampler

DEFAULT_STRENGTH = 0.7
"""Denoising strength of a second pass that names none: the default of the peer's page, whose API fails
then.
"""
LEAST_STRENGTH = 0.01
"""The step of the peer's slider. The schedule has steps / strength steps, of which the last are run."""
REFINER_PASSES = ("first pass", "second pass", "both passes")
"""What the option `hires_fix_refiner_pass` may be."""
_NONE = ("", "None", "none")
_SAME = {"Use same sampler", "Use same scheduler", "Use same checkpoint", "", None}


class Sizes(NamedTuple):
    """(width, height) in pixels: what the picture is enlarged to, and the middle of it that stays."""

    upscaled: tuple[int, int]
    size: tuple[int, int]


def hires_sizes(request: Txt2ImgPayload, width: int, height: int, effective: Mapping[str, Any]) -> Sizes:
    """The second pass's sizes for a first pass of `width` x `height`, as the peer reckons them."""
    scale, wide, high = _wanted(request, effective)
    if not wide and not high:
        size = (int(width * scale), int(height * scale))
        return Sizes(size, size)
    if not high or not wide:
        size = (wide or high * width // height, high or wide * height // width)
        return Sizes(size, size)
    if width / height < wide / high:
        return Sizes((wide, wide * height // width), (wide, high))
    return Sizes((high * width // height, high), (wide, high))


def _wanted(request: Txt2ImgPayload, effective: Mapping[str, Any]) -> tuple[float, int, int]:
    """(scale, width, height) of the second pass; the sides are 0 where the scale decides."""
    if names_final_size(request, effective):
        return 1.0, request.width or 512, request.height or 512
    for field in ("hr_resize_x", "hr_resize_y"):
        within(field, getattr(request, field), 0, 0, limits.MAX_HIRES_SIDE)
    scale = float(within("hr_scale", request.hr_scale, 2.0, 0.25, limits.MAX_HIRES_SCALE))
    return scale, request.hr_resize_x or 0, request.hr_resize_y or 0


def hires(
    request: Txt2ImgPayload,
    catalogue: Catalogue,
    base: ModelRef,
    texts: tuple[str, str],
    common: Mapping[str, Any],
    effective: Mapping[str, Any],
) -> HiresPass | None:
    """The second pass of the request, None without hires fix. `texts`: its prompts with styles, as they are
    where the request gives it none of its own. Raises InvalidRequest and its kin.
    """
    if not request.enable_hr:
        return None
    upscaler = request.hr_upscaler or LATENT_UPSCALERS[0]
    if upscaler not in (*LATENT_UPSCALERS, *PIXEL_UPSCALERS):
        raise UnknownName.of("upscaler", upscaler, [*LATENT_UPSCALERS, *PIXEL_UPSCALERS])
    sampler, scheduler = hires_sampling(request)
    sizes = hires_sizes(request, common["width"], common["height"], effective)
    for size in {sizes.size, sizes.upscaled}:
        _check_size(size, limits.of_family(base.family).hires_side)
    own = request.hr_checkpoint_name
    checkpoint = None if own in _SAME else naming.checkpoint(catalogue, own)
    if checkpoint is not None:
        naming.of_its_latents(checkpoint, base, "hires checkpoint")
    steps = int(within("hr_second_pass_steps", request.hr_second_pass_steps, 0, 0, limits.MAX_STEPS))
    return HiresPass(
        size=sizes.size,
        upscaled=sizes.upscaled,
        upscaler=upscaler,
        steps=steps or common["steps"],
        denoising_strength=_strength(request),
        sampler=sampler.name,
        scheduler=scheduler,
        checkpoint=checkpoint,
        vae=naming.vae(catalogue, effective, checkpoint) if checkpoint else None,
        prompt=texts[0],
        negative_prompt=texts[1],
    )


def _strength(request: Txt2ImgPayload) -> float:
    """The denoising strength: 0, or enough for a schedule of a sensible length. Raises LimitExceeded."""
    strength = within("denoising_strength", request.denoising_strength, DEFAULT_STRENGTH, 0, 1)
    if 0.0 < strength < LEAST_STRENGTH:
        raise LimitExceeded(
            f"denoising_strength is {strength:g}; it must be 0 or from {LEAST_STRENGTH:g} to 1.",
            detail={"field": "denoising_strength", "low": LEAST_STRENGTH, "high": 1},
        )
    return strength


def hires_sampling(request: Txt2ImgPayload) -> tuple[Sampler, str]:
    """The sampler and schedule of the second pass; those of the first where it names none."""
    own, first = request.hr_sampler_name, request.sampler_name or request.sampler_index or "Euler"
    scheduler = request.hr_scheduler
    if scheduler in _SAME:
        scheduler = asked_scheduler(first, request.scheduler)
    return sampling(first if own in _SAME else str(own), scheduler)


def _check_size(size: tuple[int, int], most: int) -> None:
    if min(size) < limits.MIN_SIDE or max(size) > most:
        raise LimitExceeded(
            f"The second pass would enlarge the picture to {size[0]}x{size[1]}; its sides must be from "
            f"{limits.MIN_SIDE} to {most} pixels. Change the factor or the size of hires fix.",
            detail={"field": "hr_scale", "low": limits.MIN_SIDE, "high": most},
        )


def refiner(
    request: Txt2ImgPayload, catalogue: Catalogue, base: ModelRef, effective: Mapping[str, Any]
) -> Refiner | None:
    """The refiner that takes part, None where there is none to switch to. Raises UnknownName,
    InvalidRequest.
    """
    name = request.refiner_checkpoint
    if name is None or name in _NONE:
        return None
    chosen = naming.checkpoint(catalogue, name)
    switch_at = within("refiner_switch_at", request.refiner_switch_at, 0.0, 0, 1)
    if chosen.sha256 == base.sha256 or switch_at >= 1.0:
        return None
    if "inpaint" in (chosen.family or ""):
        raise InvalidRequest(f"{chosen.filename} is an inpainting checkpoint: it cannot refine a picture.")
    naming.of_its_latents(chosen, base, "refiner")
    passes = str(effective.get("hires_fix_refiner_pass") or "second pass")
    if passes not in REFINER_PASSES:
        raise InvalidRequest(f"The option 'hires_fix_refiner_pass' is one of {', '.join(REFINER_PASSES)}.")
    return Refiner(
        checkpoint=chosen,
        vae=naming.vae(catalogue, effective, chosen),
        switch_at=switch_at,
        by_sampling_steps=bool(effective.get("refiner_switch_by_sample_steps")),
        passes=passes,
    )
