"""One request without a script: its names into files, its options into values, its pictures into parts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from atelier import options
from atelier.contract import limits
from atelier.contract.errors import InvalidRequest, LimitExceeded, ModelUnusable, UnknownName
from atelier.contract.generation import Txt2ImgPayload
from atelier.contract.models import Catalogue, ModelRef
from atelier.contract.parts import PictureFormat, ResolvedPart
from atelier.extension import Hooks
from atelier.ignored import Ignored, ignored_fields
from atelier.prompt import comments, styles
from atelier.prompt.spoken import Spoken, plans
from atelier.resolve import members, naming, passes, tags
from atelier.resolve.params import extra_params, omitted
from atelier.resolve.ranges import common_numbers, seeds, size_warnings
from atelier.resolve.sampling import engine_settings, sampling
from atelier.seeds import Draw


@dataclass(frozen=True)
class Resolved:
    """The parts of one request, one per iteration, and what is to be told about it."""

    parts: tuple[ResolvedPart, ...]
    warnings: tuple[str, ...]
    ignored: tuple[Ignored, ...]
    style_names: tuple[str, ...]


def resolved(
    request: Txt2ImgPayload,
    catalogue: Catalogue,
    *,
    model: str | None,
    settings: Mapping[str, Any],
    draw: Draw,
    answering: bool = False,
    hooks: Hooks | None = None,
) -> Resolved:
    """The parts of a request on `catalogue`; `answering` and `hooks` as in resolve_txt2img. Raises
    InvalidRequest and its kin; never falls back in silence.
    """
    overrides = checked_overrides(request.override_settings or {})
    effective = {**settings, **overrides}
    spoken_for = members.applied(request, catalogue, hooks)
    request = spoken_for.request
    base, vae = _models(catalogue, model, overrides, settings)
    sampler, scheduler = sampling(request.sampler_name or request.sampler_index or "Euler", request.scheduler)
    engine = engine_settings(request, effective)
    texts = _texts(request, catalogue, effective)
    common = common_numbers(request, base, effective)
    first_tags, second_tags = _tags(request, texts, catalogue, effective, hooks)
    second = passes.hires(request, catalogue, base, (texts.hires, texts.hires_negative), common, effective)
    if second is not None:
        second = second.model_copy(update={"networks": second_tags.networks})
    refined = passes.refiner(request, catalogue, base, effective)
    common |= {
        "checkpoint": base,
        "vae": vae,
        "prompt": texts.prompt,
        "negative_prompt": texts.negative,
        "sampler": sampler.name,
        "scheduler": scheduler,
        "settings": engine,
        "subseed_strength": float(request.subseed_strength or 0),
        "tiling": bool(effective.get("tiling") if request.tiling is None else request.tiling),
        "hires": second,
        "refiner": refined,
        "networks": first_tags.networks,
        "control": spoken_for.control,
        "format": picture_format(effective),
        "whole_numbers": not answering,
        "infotext_omits": omitted(effective),
    }
    numbers = seeds(request, draw)
    first = ResolvedPart.model_validate(common | numbers[0])
    said = plans(first)
    _check_composition(said)
    common["embeddings"] = naming.embeddings(catalogue, said, engine)
    common["extra_params"] = extra_params(request, effective, first, said, common["embeddings"], hooks)
    parts = tuple(ResolvedPart.model_validate(common | each) for each in numbers)
    ignored = ignored_fields(
        request, overrides, sampler, catalogue, refines=refined is not None, served=spoken_for.understood
    )
    told = first_tags.warnings + (second_tags.warnings if second else ())
    told += naming.vae_warnings(catalogue, effective, _checkpoints(first))
    warnings = (*dict.fromkeys(told), *size_warnings((common["width"], common["height"]), base))
    return Resolved(parts, warnings, (*ignored, *spoken_for.ignored), texts.styles)


def _checkpoints(part: ResolvedPart) -> list[ModelRef]:
    """The checkpoints of a part's passes."""
    further = (part.hires and part.hires.checkpoint, part.refiner and part.refiner.checkpoint)
    return [part.checkpoint, *(each for each in further if each)]


def _models(
    catalogue: Catalogue, model: str | None, overrides: Mapping[str, Any], settings: Mapping[str, Any]
) -> tuple[ModelRef, ModelRef | None]:
    """The checkpoint of a request and its autoencoder. Raises UnknownName, ModelUnusable."""
    named, own = overrides.get("sd_model_checkpoint") or model, settings.get("sd_model_checkpoint")
    with _from_settings("sd_model_checkpoint", stored=bool(own and not named)):
        base = naming.checkpoint(catalogue, named or own)
    with _from_settings("sd_vae", stored="sd_vae" in settings and "sd_vae" not in overrides):
        return base, naming.vae(catalogue, {**settings, **overrides}, base)


@contextmanager
def _from_settings(option: str, *, stored: bool) -> Iterator[None]:
    """Say of an error about a model that it is in the caller's own settings, where the request names none."""
    try:
        yield
    except (UnknownName, ModelUnusable) as error:
        if not stored or not error.detail:
            raise
        told = (
            f"{error.message} Your own setting {option!r} names it, or your team's or the studio's that "
            "holds for you: set another, or null."
        )
        raise type(error)(told, detail=error.detail) from error


def checked_overrides(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a request that are set, by names that exist. Raises UnknownName."""
    known = options.defaults()
    for name in overrides:
        if name not in known and name not in options.INFOTEXT_OPTIONS:
            raise UnknownName.of(
                "option",
                name,
                [each for each in known if each[:3] == name[:3]] or list(options.ENGINE_OPTIONS),
            )
    return {name: value for name, value in overrides.items() if value is not None}


@dataclass(frozen=True)
class _Texts:
    """The prompts of both passes with styles and without comments, and the styles that were known."""

    prompt: str
    negative: str
    hires: str
    hires_negative: str
    styles: tuple[str, ...]


def _texts(request: Txt2ImgPayload, catalogue: Catalogue, effective: Mapping[str, Any]) -> _Texts:
    known = tuple(name for name in request.styles or () if name in catalogue.styles)
    prompt, negative = request.prompt or "", request.negative_prompt or ""
    given = {
        "prompt": prompt,
        "negative_prompt": negative,
        "hr_prompt": request.hr_prompt or prompt,
        "hr_negative_prompt": request.hr_negative_prompt or negative,
    }
    commented = effective.get("enable_prompt_comments") is not False
    ready: dict[str, str] = {}
    for field, text in given.items():
        _check_length(field, len(text))
        for name in known:
            style = catalogue.styles[name][1 if "negative" in field else 0]
            _check_length(field, styles.length(text, style))
            text = styles.apply(text, style)
        ready[field] = comments.strip(text) if commented else text
    return _Texts(
        ready["prompt"], ready["negative_prompt"], ready["hr_prompt"], ready["hr_negative_prompt"], known
    )


def _check_composition(said: tuple[Spoken, ...]) -> None:
    most = max(len(spoken.positive.parts) for spoken in said)
    if most > limits.MAX_COMPOSITION:
        raise LimitExceeded(
            f"The prompt has {most:,} parts joined by AND; at most {limits.MAX_COMPOSITION} may be.",
            detail={"field": "prompt", "limit": limits.MAX_COMPOSITION},
        )


def _check_length(field: str, length: int) -> None:
    if length > limits.MAX_PROMPT_CHARACTERS:
        raise LimitExceeded(
            f"The {field} has {length:,} characters; at most {limits.MAX_PROMPT_CHARACTERS:,} may be.",
            detail={"field": field, "limit": limits.MAX_PROMPT_CHARACTERS},
        )


def picture_format(effective: Mapping[str, Any]) -> PictureFormat:
    """The file format the options ask for. Raises InvalidRequest."""
    name = str(effective.get("samples_format") or "png").lower().lstrip(".")
    values = {
        "name": "jpg" if name == "jpeg" else name,
        "quality": effective.get("jpeg_quality") or 80,
        "lossless": effective.get("webp_lossless") or False,
        "with_infotext": effective.get("enable_pnginfo") is not False,
    }
    try:
        return PictureFormat.model_validate(values)
    except ValidationError as error:
        raise InvalidRequest(
            "The options of the picture's file cannot be used: samples_format is png, jpg, webp or avif, "
            f"jpeg_quality from 1 to 100 (given: {name[:20]!r}, {str(values['quality'])[:20]!r})."
        ) from error


def _tags(
    request: Txt2ImgPayload,
    texts: _Texts,
    catalogue: Catalogue,
    effective: Mapping[str, Any],
    hooks: Hooks | None,
) -> tuple[tags.Tags, tags.Tags]:
    """The networks of both passes' prompts."""
    if request.disable_extra_networks:
        return tags.Tags(), tags.Tags()
    first = tags.read(texts.prompt, catalogue, effective, hooks)
    same = texts.hires == texts.prompt
    return first, first if same else tags.read(texts.hires, catalogue, effective, hooks)
