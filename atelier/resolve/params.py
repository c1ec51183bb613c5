"""The peer's extra_generation_params: what a request adds to its infotext, in the order of insertion."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from atelier import extension
from atelier.contract.generation import Txt2ImgPayload
from atelier.contract.models import ModelRef
from atelier.contract.parts import EngineSettings, HiresPass, Refiner, ResolvedPart
from atelier.extension import Hooks
from atelier.prompt import chunks
from atelier.prompt.spoken import Spoken, plans
from atelier.resolve.naming import short_title
from atelier.resolve.ranges import names_final_size
from atelier.vocabulary import TIMESTEP_SAMPLERS, Sampler, find_sampler, find_scheduler

_UNI_PC = {
    "UniPC variant": "uni_pc_variant",
    "UniPC skip type": "uni_pc_skip_type",
    "UniPC order": "uni_pc_order",
    "UniPC lower order final": "uni_pc_lower_order_final",
}
_CHURN = {
    "Sigma churn": "s_churn",
    "Sigma tmin": "s_tmin",
    "Sigma tmax": "s_tmax",
    "Sigma noise": "s_noise",
}
_BEFORE_HIRES = "ControlNet "
"""How entries begin that stand before those of the second pass, as in the peer."""
_SWITCHES = {"Lora hashes": "lora_add_hashes_to_infotext"}
OMISSIONS = {
    "add_model_hash_to_info": ("Model hash",),
    "add_model_name_to_info": ("Model",),
    "add_vae_hash_to_info": ("VAE hash",),
    "add_vae_name_to_info": ("VAE",),
    "add_version_to_infotext": ("Version",),
}
"""Option -> the keys its "no" leaves out of the infotext."""


def omitted(effective: Mapping[str, Any]) -> tuple[str, ...]:
    """The keys of the parameters line that the options leave out."""
    return tuple(key for option, keys in OMISSIONS.items() if effective.get(option) is False for key in keys)


def extra_params(
    request: Txt2ImgPayload,
    effective: Mapping[str, Any],
    part: ResolvedPart,
    said: tuple[Spoken, ...],
    embeddings: tuple[ModelRef, ...] = (),
    hooks: Hooks | None = None,
) -> dict[str, Any]:
    """The entries of a part that says `said` and names `embeddings`, those of the extensions (`hooks`; None:
    the installed ones) among them. Values the text alone has (hires
    prompts) are None, as in the peer's answer.
    """
    engine, second, refined = part.settings, part.hires, part.refiner
    sampler, _ = find_sampler(part.sampler)
    samplers = (sampler, *((find_sampler(second.sampler)[0],) if second else ()))
    theirs = _of_extensions(part, effective, hooks or extension.installed("schema"))
    extra = {key: value for key, value in theirs.items() if key.startswith(_BEFORE_HIRES)}
    if second is not None:
        extra |= _of_hires(request, effective, sampler, second)
    extra |= theirs
    if embeddings and effective.get("textual_inversion_add_hashes_to_infotext") is not False:
        extra["TI hashes"] = ", ".join(f"{each.name}: {each.sha256[:12]}" for each in embeddings)
    if engine.emphasis != "Original" and any(mark in part.prompt + part.negative_prompt for mark in "(["):
        extra["Emphasis"] = engine.emphasis
    if engine.use_old_scheduling and _texts(plans(part, old=False)) != _texts(said):
        extra["Old prompt editing timelines"] = True
    extra |= _of_schedule(sampler, part.scheduler, engine, discards=all(each.discards for each in samplers))
    if second is not None and second.scheduler not in ("Automatic", extra.get("Schedule type")):
        extra["Hires schedule type"] = second.scheduler
    for each in samplers:
        extra |= _of_sampler(each, request, engine)
    extra |= _of_guidance(engine, refined, hires=second is not None)
    return extra | _of_padding(said, engine)


def _of_extensions(part: ResolvedPart, effective: Mapping[str, Any], hooks: Hooks) -> dict[str, Any]:
    """What the extensions say, as far as the options let it stand."""
    answers = reversed(hooks.hook.infotext(part=part, index=0))
    return {key: value for entries in answers for key, value in entries.items() if _said(key, effective)}


def _said(key: str, effective: Mapping[str, Any]) -> bool:
    """Whether the options let an extension's entry stand in the infotext."""
    return effective.get(_SWITCHES.get(key, "")) is not False


def _of_guidance(engine: EngineSettings, refined: Refiner | None, *, hires: bool) -> dict[str, Any]:
    extra: dict[str, Any] = {}
    if engine.skip_early_cond:
        extra["Skip Early CFG"] = engine.skip_early_cond
    if refined is not None:
        extra |= _of_refiner(refined, hires=hires)
    if engine.s_min_uncond:
        extra["NGMS"] = engine.s_min_uncond
        extra |= {"NGMS all steps": True} if engine.s_min_uncond_all else {}
    if hires and engine.extra_noise:
        extra["Extra noise"] = engine.extra_noise
    return extra


def _texts(said: tuple[Spoken, ...]) -> list[list[list[tuple[str, float]]]]:
    """Every text of every pass, span by span."""
    return [
        [each.texts_at(step) for first, last in each.spans() for step in (first, last)]
        for spoken in said
        for each in spoken
    ]


def _of_padding(said: tuple[Spoken, ...], engine: EngineSettings) -> dict[str, Any]:
    """Said where a prompt and the negative prompt have different numbers of chunks at some step."""
    label = "Pad conds v0" if engine.pad_cond_uncond_v0 else "Pad conds"
    if not (engine.pad_cond_uncond or engine.pad_cond_uncond_v0):
        return {}
    for spoken in said:
        lengths = {
            len(chunks.cut(text, backtrack=engine.comma_padding_backtrack, emphasis=engine.emphasis))
            for each in spoken
            for text in each.distinct()
        }
        if len(lengths) > 1:
            return {label: True}
    return {}


def _of_refiner(refined: Refiner, *, hires: bool) -> dict[str, Any]:
    extra: dict[str, Any] = {}
    if refined.by_sampling_steps:
        extra["Refiner switch by sampling steps"] = True
    if hires and refined.passes != "second pass":
        extra["Hires refiner"] = refined.passes
    return extra | {"Refiner": short_title(refined.checkpoint), "Refiner switch at": refined.switch_at}


def _of_hires(
    request: Txt2ImgPayload, effective: Mapping[str, Any], sampler: Sampler, second: HiresPass
) -> dict[str, Any]:
    extra: dict[str, Any] = {"Denoising strength": second.denoising_strength}
    if second.checkpoint is not None:
        extra["Hires checkpoint"] = short_title(second.checkpoint)
    if second.sampler != sampler.name:
        extra["Hires sampler"] = second.sampler
    extra |= {"Hires prompt": None, "Hires negative prompt": None, "Hires schedule type": None}
    wide, high = request.hr_resize_x or 0, request.hr_resize_y or 0
    if names_final_size(request, effective):
        wide, high = second.size
    if wide or high:
        extra["Hires resize"] = f"{wide}x{high}"
    else:
        extra["Hires upscale"] = float(2.0 if request.hr_scale is None else request.hr_scale)
    if request.hr_second_pass_steps:
        extra["Hires steps"] = second.steps
    if request.hr_upscaler is not None:
        extra["Hires upscaler"] = second.upscaler
    return extra


def _of_schedule(
    sampler: Sampler, scheduler: str, engine: EngineSettings, *, discards: bool
) -> dict[str, Any]:
    """Samplers that go by training timesteps heed no schedule."""
    extra: dict[str, Any] = {}
    if engine.use_downcasted_alpha_bar:
        extra["Downcast alphas_cumprod"] = True
    if engine.zero_terminal_snr:
        extra["Noise Schedule"] = "Zero Terminal SNR"
    if sampler.name in TIMESTEP_SAMPLERS:
        return extra
    entries: dict[str, Any] = {"Schedule type": None if scheduler == "Automatic" else scheduler}
    if scheduler != "Automatic":
        entries |= {
            "Schedule min sigma": engine.sigma_min,
            "Schedule max sigma": engine.sigma_max,
            "Schedule rho": engine.rho if engine.rho != find_scheduler(scheduler).default_rho else None,
        }
        if find_scheduler(scheduler).default_rho < 0:
            del entries["Schedule rho"]
    if scheduler == "Beta":
        entries |= {
            "Beta schedule alpha": engine.beta_dist_alpha,
            "Beta schedule beta": engine.beta_dist_beta,
        }
    entries |= {
        "Discard penultimate sigma": engine.always_discard_next_to_last_sigma and not discards,
        "SGM noise multiplier": engine.sgm_noise_multiplier,
    }
    return extra | {label: value for label, value in entries.items() if value}


def _of_sampler(sampler: Sampler, request: Txt2ImgPayload, engine: EngineSettings) -> dict[str, Any]:
    """Churn is said where it comes of an option; of the request's own fields the peer says nothing."""
    default = EngineSettings()
    extra: dict[str, Any] = {
        label: getattr(engine, field)
        for label, field in _CHURN.items()
        if field in sampler.uses
        and getattr(request, field) is None
        and getattr(engine, field) != getattr(default, field)
    }
    ddim = sampler.name.startswith("DDIM")
    if ddim and engine.eta_ddim != 0.0:
        extra["Eta DDIM"] = engine.eta_ddim
    elif not ddim and "eta" in sampler.uses and engine.eta != 1.0:
        extra["Eta"] = engine.eta
    if sampler.name == "UniPC":
        extra |= {
            label: getattr(engine, field)
            for label, field in _UNI_PC.items()
            if getattr(engine, field) != getattr(default, field)
        }
    return extra
