"""An infotext as a request: which field, or which option for this one request, each of its entries sets."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from pydantic import ValidationError

from atelier import infotext as infotexts
from atelier import options
from atelier.contract import limits
from atelier.contract.errors import InvalidRequest, UnknownName
from atelier.contract.generation import Txt2ImgPayload
from atelier.contract.models import Catalogue, ModelKind, ModelRef
from atelier.contract.parts import EngineSettings
from atelier.ignored import Ignored
from atelier.infotext import networks
from atelier.infotext.values import Nonsense, Reader, real, text, truth, whole
from atelier.pasted_networks import NETWORK_HASHES, named_by_hash, told
from atelier.vocabulary import find_sampler, find_scheduler

OPTION_LABELS: Mapping[str, str] = MappingProxyType(
    {
        "Clip skip": "CLIP_stop_at_last_layers",
        "ENSD": "eta_noise_seed_delta",
        "RNG": "randn_source",
        "Eta": "eta_ancestral",
        "Eta DDIM": "eta_ddim",
        "Sigma churn": "s_churn",
        "Sigma tmin": "s_tmin",
        "Sigma tmax": "s_tmax",
        "Sigma noise": "s_noise",
        "Schedule min sigma": "sigma_min",
        "Schedule max sigma": "sigma_max",
        "Schedule rho": "rho",
        "Beta schedule alpha": "beta_dist_alpha",
        "Beta schedule beta": "beta_dist_beta",
        "Discard penultimate sigma": "always_discard_next_to_last_sigma",
        "SGM noise multiplier": "sgm_noise_multiplier",
        "Noise Schedule": "sd_noise_schedule",
        "UniPC variant": "uni_pc_variant",
        "UniPC skip type": "uni_pc_skip_type",
        "UniPC order": "uni_pc_order",
        "UniPC lower order final": "uni_pc_lower_order_final",
        "Emphasis": "emphasis",
        "NGMS": "s_min_uncond",
        "NGMS all steps": "s_min_uncond_all",
        "Skip Early CFG": "skip_early_cond",
        "Pad conds": "pad_cond_uncond",
        "Pad conds v0": "pad_cond_uncond_v0",
        "Old prompt editing timelines": "use_old_scheduling",
        "Downcast alphas_cumprod": "use_downcasted_alpha_bar",
        "Refiner switch by sampling steps": "refiner_switch_by_sample_steps",
        "Hires refiner": "hires_fix_refiner_pass",
        "Tiling": "tiling",
        "Face restoration": "face_restoration_model",
        "Conditional mask weight": "inpainting_mask_weight",
        "Noise multiplier": "initial_noise_multiplier",
        "Extra noise": "img2img_extra_noise",
        "Token merging ratio": "token_merging_ratio",
        "Token merging ratio hr": "token_merging_ratio_hr",
        "VAE Encoder": "sd_vae_encode_method",
        "VAE Decoder": "sd_vae_decode_method",
        "FP8 weight": "fp8_storage",
        "Cache FP16 weight for LoRA": "cache_fp16_weight",
    }
)
"""Entries that stand for an option of the peer, but for the models' ("Model hash", "VAE")."""

_NO_SETTINGS: Mapping[str, Any] = MappingProxyType({})
_LARGEST_HIRES_SIDE = 16_384
_SAME_SAMPLER, _SAME_SCHEDULER, _SAME_CHECKPOINT = (
    f"Use same {each}" for each in ("sampler", "scheduler", "checkpoint")
)
_NOISE_SCHEDULES = {"Default", "Zero Terminal SNR"}


@dataclass(frozen=True)
class Pasted:
    """What an infotext sets: fields of Txt2ImgPayload, options for the request alone, and the entries that
    could not be used.
    """

    fields: dict[str, Any] = field(default_factory=dict)
    overrides: dict[str, Any] = field(default_factory=dict)
    ignored: tuple[Ignored, ...] = ()


def paste(
    text: str, *, catalogue: Catalogue | None = None, settings: Mapping[str, Any] = _NO_SETTINGS
) -> tuple[dict[str, object], Pasted]:
    """(the parsed entries, what they set) of an infotext, for somebody with these `settings` (option ->
    value).

    Styles of the catalogue are found in the prompts; LoRAs, embeddings and hypernetworks by their hashes,
    whatever they are called here. Never raises.
    """
    how = str(settings.get("infotext_styles", options.defaults()["infotext_styles"]))
    styles = catalogue.styles if catalogue is not None and how != "Ignore" else {}
    here = {label: named_by_hash(catalogue, kind) for label, kind in NETWORK_HASHES.items()}
    parsed = infotexts.parse(
        text,
        styles=styles,
        loras=here[networks.LORAS],
        embeddings=here[networks.EMBEDDINGS],
        hypernetworks=here[networks.HYPERNETWORKS],
    )
    for label in settings.get("infotext_skip_pasting") or ():
        parsed.pop(label, None)
    if how == "Discard":
        parsed.pop("Styles array", None)
    elif how == "Apply":
        parsed.setdefault("Styles array", [])
    return parsed, fields(parsed, catalogue=catalogue, settings=settings)


def filled(
    request: Txt2ImgPayload,
    text: str,
    *,
    catalogue: Catalogue | None = None,
    settings: Mapping[str, Any] = _NO_SETTINGS,
) -> Txt2ImgPayload:
    """`request` with every field that it does not set taken from an infotext (the peer's API field
    `infotext`); what it sets, in `override_settings` too, stays.
    """
    _, pasted = paste(text, catalogue=catalogue, settings=settings)
    explicit = set(request.model_fields_set)
    if "sampler_index" in explicit:  # the older name of the same thing
        explicit.add("sampler_name")
    found = {name: value for name, value in pasted.fields.items() if name not in explicit}
    given = request.model_dump(include=request.model_fields_set)
    overrides = {"override_settings": pasted.overrides | (request.override_settings or {})}
    try:
        return Txt2ImgPayload.model_validate(found | given | overrides)
    except ValidationError as error:
        place = ".".join(str(each) for each in error.errors()[0]["loc"])
        raise InvalidRequest(f"The infotext says something of {place!r} that cannot be used.") from error


def fields(
    parsed: Mapping[str, object],
    *,
    catalogue: Catalogue | None = None,
    settings: Mapping[str, Any] = _NO_SETTINGS,
) -> Pasted:
    """What the entries of a parsed infotext set, for somebody with these `settings`. Never raises: an entry
    that makes no sense, or names a model that is not in the `catalogue`, is told in `ignored`.

    Without a catalogue every model counts as known. A checkpoint is taken over only where the option
    `disable_weights_auto_swap` is off.
    """
    reading = _Reading(parsed, catalogue)
    reading.plain_fields()
    reading.sampling()
    if "Steps" in parsed:
        reading.what_is_off_when_unnamed()
    reading.second_pass()
    reading.refiner()
    overrides = _overrides(reading, dict(options.defaults()) | dict(settings))
    return Pasted(reading.fields, overrides, (*reading.ignored, *told(parsed, catalogue)))


class _Reading:
    """The entries being turned into fields, and what could not be."""

    def __init__(self, parsed: Mapping[str, object], catalogue: Catalogue | None) -> None:
        self.parsed, self.catalogue = parsed, catalogue
        self.fields: dict[str, Any] = {}
        self.ignored: list[Ignored] = []

    def ignore(self, label: str, reason: object) -> None:
        """Note that an entry was not used."""
        self.ignored.append(Ignored(f"infotext.{label}", str(reason)))

    def take(self, label: str, name: str, read: Reader) -> None:
        """Set the field `name` to what `read` makes of the entry, if there is one and it makes sense."""
        value = self.parsed.get(label)
        if value is None:
            return
        try:
            self.fields[name] = read(value)
        except Nonsense as error:
            self.ignore(label, error)

    def plain_fields(self) -> None:
        """Everything that one entry alone decides."""
        for label, (name, read) in _FIELDS.items():
            self.take(label, name, read)
        if isinstance(self.parsed.get("Styles array"), list):
            self.fields["styles"] = self.parsed["Styles array"]
        if self.parsed.get("Face restoration"):
            self.fields["restore_faces"] = True

    def what_is_off_when_unnamed(self) -> None:
        """A text of parameters that names no hires fix, variation or refiner was made without."""
        off = {"enable_hr": False, "subseed_strength": 0.0, "refiner_checkpoint": None}
        for name, value in (off | {"seed_resize_from_w": -1, "seed_resize_from_h": -1}).items():
            self.fields.setdefault(name, value)

    def sampling(self) -> None:
        """Sampler and schedule of the first pass."""
        if "Sampler" in self.parsed or self.parsed.get("Schedule type", "Automatic") != "Automatic":
            schedule = str(self.parsed.get("Schedule type", ""))
            self._sampler_and_schedule("Sampler", schedule, "sampler_name", "scheduler")

    def _hires_sampling(self) -> None:
        """Those of the second pass. A sampler of its own without a schedule of its own runs with the one
        that the first pass really had.
        """
        schedule = self._own("Hires schedule type")
        self.fields |= {"hr_sampler_name": _SAME_SAMPLER, "hr_scheduler": _SAME_SCHEDULER}
        if self._own("Hires sampler"):
            schedule = schedule or str(self.parsed.get("Schedule type", ""))
        self._sampler_and_schedule("Hires sampler", schedule, "hr_sampler_name", "hr_scheduler")

    def _sampler_and_schedule(self, label: str, schedule: str, sampler_field: str, field: str) -> None:
        """Set the two fields, an old joint name split. The schedule that a sampler has of its own is
        "Automatic", as in the peer's menus.
        """
        name = self._own(label)
        sampler = chosen = None
        try:
            if name:
                sampler, chosen = find_sampler(name[:200])
                self.fields[sampler_field] = sampler.name
            if schedule and chosen is None:
                chosen = find_scheduler(schedule[:200])
        except UnknownName as error:
            self.ignore(label, error.message)
        if chosen is not None:
            own = sampler is not None and chosen.label == sampler.scheduler
            self.fields[field] = "Automatic" if own else chosen.label

    def _own(self, label: str) -> str:
        value = str(self.parsed.get(label) or "")
        return "" if value in (_SAME_SAMPLER, _SAME_SCHEDULER, _SAME_CHECKPOINT) else value

    def second_pass(self) -> None:
        """Hires fix: on where the text names a strength and how large the picture became."""
        parsed = self.parsed
        resized = any(str(parsed.get(f"Hires resize-{side}", 0)) != "0" for side in (1, 2))
        scaled = "Hires upscale" in parsed or "Hires upscaler" in parsed
        if "Denoising strength" not in parsed or not (scaled or resized):
            return
        self.fields["enable_hr"] = True
        for label, (name, read) in _HIRES_FIELDS.items():
            self.take(label, name, read)
        self._hires_sampling()
        self.fields["hr_checkpoint_name"] = _SAME_CHECKPOINT
        self._checkpoint("Hires checkpoint", "hr_checkpoint_name")

    def refiner(self) -> None:
        """The refiner, where the text names one that is here."""
        if self._checkpoint("Refiner", "refiner_checkpoint"):
            self.take("Refiner switch at", "refiner_switch_at", real(0.01, 1))

    def _checkpoint(self, label: str, name: str) -> bool:
        wanted = self._own(label)
        if not wanted or wanted == "None":
            return False
        model = self.model(ModelKind.CHECKPOINT, wanted)
        if model is None and self.catalogue is not None:
            self.ignore(label, f"there is no checkpoint named {wanted[:200]!r}")
            return False
        self.fields[name] = model.title if model else wanted
        return True

    def model(self, kind: ModelKind, name: str) -> ModelRef | None:
        """The model of the catalogue that answers to `name`."""
        return self.catalogue.find(kind, name) if self.catalogue is not None else None


def _overrides(reading: _Reading, current: Mapping[str, Any]) -> dict[str, Any]:
    """Option -> value for the entries that stand for one and differ from what is set already."""
    found: dict[str, Any] = {}
    for label, option in OPTION_LABELS.items():
        value = reading.parsed.get(label)
        if value is None:
            continue
        try:
            typed = _typed(option, value)
        except Nonsense as error:
            reading.ignore(label, error)
            continue
        if typed != current.get(option):
            found[option] = typed
    vae = _vae(reading)
    if vae is not None and vae != current.get("sd_vae"):
        found["sd_vae"] = vae
    if not current.get("disable_weights_auto_swap") and (checkpoint := _checkpoint(reading)):
        found["sd_model_checkpoint"] = checkpoint
    return found


def _vae(reading: _Reading) -> str | None:
    name = reading.parsed.get("VAE")
    if name is None or name in ("Automatic", "None"):
        return None if name is None else str(name)
    model = reading.model(ModelKind.VAE, str(name))
    if model is None and reading.catalogue is not None:
        reading.ignore("VAE", f"there is no VAE named {str(name)[:200]!r}")
        return None
    return model.filename if model else str(name)


def _checkpoint(reading: _Reading) -> str | None:
    """The checkpoint by its hash, else by its name."""
    names = [str(reading.parsed[label]) for label in ("Model hash", "Model") if label in reading.parsed]
    if reading.catalogue is None:
        return names[0] if names else None
    for name in names:
        if model := reading.model(ModelKind.CHECKPOINT, name):
            return model.title
    if names:
        reading.ignore("Model hash", f"there is no checkpoint {names[0][:80]!r}")
    return None


def _typed(option: str, value: object) -> Any:
    """`value` in the type of the option's default, and one that the engine takes. Raises Nonsense."""
    default = options.defaults()[option]
    typed = _BY_TYPE[type(default)](value)
    if option == "sd_noise_schedule" and typed not in _NOISE_SCHEDULES:
        raise Nonsense(f"there is no such noise schedule; there are {', '.join(sorted(_NOISE_SCHEDULES))}")
    if option in options.ENGINE_OPTIONS:
        try:
            EngineSettings.model_validate({options.ENGINE_OPTIONS[option]: typed})
        except ValidationError as error:
            raise Nonsense(f"{str(value)[:80]!r} cannot be used: {error.errors()[0]['msg']}") from error
    return typed


_SEED = whole(-1, limits.MAX_SEED - limits.MAX_BATCH_COUNT * limits.MAX_BATCH_SIZE)
_SIDE = whole(limits.MIN_SIDE, limits.MAX_SIDE)
_HIRES_SIDE = whole(0, _LARGEST_HIRES_SIDE)
_RESIZED = whole(-1, limits.MAX_SIDE)
_BY_TYPE: Mapping[type, Reader] = MappingProxyType(
    {bool: truth, int: whole(-(2**63), 2**63), float: real(-math.inf, math.inf), str: text}
)
_FIELDS: Mapping[str, tuple[str, Reader]] = MappingProxyType(
    {
        "Prompt": ("prompt", text),
        "Negative prompt": ("negative_prompt", text),
        "Steps": ("steps", whole(1, limits.MAX_STEPS)),
        "CFG scale": ("cfg_scale", real(0, limits.MAX_CFG_SCALE)),
        "Seed": ("seed", _SEED),
        "Size-1": ("width", _SIDE),
        "Size-2": ("height", _SIDE),
        "Batch size": ("batch_size", whole(1, limits.MAX_BATCH_SIZE)),
        "Variation seed": ("subseed", _SEED),
        "Variation seed strength": ("subseed_strength", real(0, 1)),
        "Seed resize from-1": ("seed_resize_from_w", _RESIZED),
        "Seed resize from-2": ("seed_resize_from_h", _RESIZED),
        "Denoising strength": ("denoising_strength", real(0, 1)),
    }
)
_HIRES_FIELDS: Mapping[str, tuple[str, Reader]] = MappingProxyType(
    {
        "Hires upscale": ("hr_scale", real(0.25, 8)),
        "Hires upscaler": ("hr_upscaler", text),
        "Hires steps": ("hr_second_pass_steps", whole(0, limits.MAX_STEPS)),
        "Hires resize-1": ("hr_resize_x", _HIRES_SIDE),
        "Hires resize-2": ("hr_resize_y", _HIRES_SIDE),
        "Hires prompt": ("hr_prompt", text),
        "Hires negative prompt": ("hr_negative_prompt", text),
    }
)
