"""A part of a job as the text that goes into its pictures, to the peer's letter."""

from __future__ import annotations

from typing import Any

from atelier import __version__
from atelier.contract.parts import ResolvedPart
from atelier.infotext.grammar import quote
from atelier.vocabulary import find_sampler

BASELINE = "v1.10.1"
"""The version of the peer whose behaviour this is."""


def render(part: ResolvedPart, index: int) -> str:
    """The infotext of picture `index` of `part`: prompt, negative prompt if any, one line of parameters."""
    lines = [part.prompt]
    if part.negative_prompt:
        lines.append(f"Negative prompt: {part.negative_prompt}")
    lines.append(
        ", ".join(
            f"{key}: {quote(value)}" if key != value else key
            for key, value in parameters(part, index).items()
            if value is not None and key not in part.infotext_omits
        )
    )
    return "\n".join(lines).strip()


def parameters(part: ResolvedPart, index: int) -> dict[str, Any]:
    """The entries of the parameters line in the peer's order; None where the peer leaves one out.

    The last two are the peer's version, whose behaviour this is, and ours.
    """
    entries = {
        "Steps": part.steps,
        "Sampler": part.sampler,
        "Schedule type": part.scheduler,
        "CFG scale": part.cfg_scale,
        "Seed": part.seeds[index],
        "Size": f"{part.width}x{part.height}",
        **_models(part),
        **_variation(part, index),
        "Denoising strength": part.hires.denoising_strength if part.hires else None,
        "Conditional mask weight": _conditional_mask_weight(part),
        **_options(part),
        "Tiling": part.tiling or None,
    }
    entries |= part.extra_params | _told_in_text_alone(part)
    if part.whole_numbers:
        entries = {key: _whole(value) for key, value in entries.items()}
    return entries | {"Version": BASELINE, "Engine": f"Atelier {__version__}"}


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _models(part: ResolvedPart) -> dict[str, Any]:
    vae = part.vae
    return {
        "Model hash": part.checkpoint.short_hash,
        "Model": part.checkpoint.name.replace(",", "").replace(":", ""),
        "VAE hash": vae.short_hash if vae else None,
        "VAE": vae.filename if vae else None,
    }


def _variation(part: ResolvedPart, index: int) -> dict[str, Any]:
    varied = part.subseed_strength != 0
    resized = part.seed_resize_from if min(part.seed_resize_from) > 0 else None
    return {
        "Variation seed": part.subseeds[index] if varied else None,
        "Variation seed strength": part.subseed_strength if varied else None,
        "Seed resize from": f"{resized[0]}x{resized[1]}" if resized else None,
    }


def _conditional_mask_weight(part: ResolvedPart) -> float | None:
    """An inpainting checkpoint sees a mask in every picture, so its weight counts in text-to-image too."""
    takes_a_mask = (part.checkpoint.family or "").endswith("-inpaint")
    return part.settings.inpainting_mask_weight if takes_a_mask else None


def _options(part: ResolvedPart) -> dict[str, Any]:
    settings = part.settings
    return {
        "Clip skip": settings.clip_skip if settings.clip_skip > 1 else None,
        "ENSD": settings.eta_noise_seed_delta if _reseeds_step_noise(part) else None,
        "RNG": settings.randn_source if settings.randn_source != "GPU" else None,
    }


def _reseeds_step_noise(part: ResolvedPart) -> bool:
    """Whether ENSD takes effect: a sampler that reads it, with ancestral noise to seed."""
    sampler, _ = find_sampler(part.sampler)
    return bool(part.settings.eta_noise_seed_delta and part.settings.eta and "uses_ensd" in sampler.options)


def _told_in_text_alone(part: ResolvedPart) -> dict[str, Any]:
    """What the peer's `extra_generation_params` has as null and its text spells out, where it differs from
    the first pass.
    """
    if part.hires is None:
        return {}
    second = {
        "Hires prompt": (part.hires.prompt, part.prompt),
        "Hires negative prompt": (part.hires.negative_prompt, part.negative_prompt),
        "Hires schedule type": (part.hires.scheduler, part.scheduler),
    }
    return {
        key: own
        for key, (own, first) in second.items()
        if own != first and part.extra_params.get(key, own) is None
    }
