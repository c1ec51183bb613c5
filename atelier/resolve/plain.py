"""A plain request on a catalogue: the parts that make its pictures, in the order of its answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from atelier.contract import limits
from atelier.contract.models import Catalogue
from atelier.contract.parts import ResolvedPart
from atelier.contract.plain import JPEG_QUALITY, PlainRequest, check_area
from atelier.ignored import Ignored
from atelier.resolve import locks, naming, resolve_txt2img
from atelier.resolve.ranges import within
from atelier.seeds import Draw, draw_seed
from atelier.wire import USERNAME

_FORMAT = {"samples_format": "jpg", "jpeg_quality": JPEG_QUALITY}


@dataclass(frozen=True)
class PlainResolution:
    """A plain request with every name resolved, and what is to be told about it beside its answer."""

    parts: tuple[ResolvedPart, ...]
    warnings: tuple[str, ...]
    ignored: tuple[Ignored, ...]


def resolve_plain(
    request: PlainRequest,
    catalogue: Catalogue,
    *,
    settings: Mapping[str, Any] | None = None,
    locked: Mapping[str, str] | None = None,
    draw: Draw = draw_seed,
) -> PlainResolution:
    """The parts of `request` on `catalogue` under `settings` (option name -> value): for each prompt as few
    as hold its pictures. `locked`: the options that the request cannot change -> who has locked them. The
    prompts are read in Atelier's language. Raises InvalidRequest and its kin.
    """
    given = settings or {}
    model, dropped = locks.unlocked_model(request.model, locked or {}, given)
    chosen = naming.checkpoint(catalogue, model or given.get(locks.CHECKPOINT))
    native = limits.of_family(chosen.family).native
    usual = chosen.resolution or (native, native)
    width, height = request.width or usual[0], request.height or usual[1]
    check_area(request, width, height)
    last = limits.MAX_SEED - limits.MAX_BATCH_COUNT * limits.MAX_BATCH_SIZE
    drawn = request.seed is None or request.seed == -1
    first = draw() if drawn else int(within("seed", request.seed, 0, 0, last))
    common = {
        "width": width,
        "height": height,
        "steps": request.num_inference_steps,
        "cfg_scale": request.guidance_scale if request.guided else 1.0,
        "sampler_name": request.sampler_name,
    }
    parts: list[ResolvedPart] = []
    warnings: list[str] = []
    for number, (prompt, negative) in enumerate(zip(request.prompts, request.negatives, strict=True)):
        each = request.num_images_per_prompt
        for done in range(0, each, limits.MAX_BATCH_SIZE):
            batch = min(limits.MAX_BATCH_SIZE, each - done)
            texts = {"prompt": prompt, "negative_prompt": negative}
            numbers = {"seed": first + number * each + done, "batch_size": batch}
            found = resolve_txt2img(
                common | texts | numbers,
                catalogue,
                model=chosen.title,
                settings={**given, **_FORMAT},
                draw=draw,
            )
            parts += found.parts
            warnings += found.warnings
    return PlainResolution(tuple(parts), tuple(dict.fromkeys(warnings)), (*_ignored(request), *dropped))


def _ignored(request: PlainRequest) -> tuple[Ignored, ...]:
    """What has no effect on the pictures."""
    found: list[Ignored] = []
    if request.negative_prompt and not request.guided:
        reason = "a guidance_scale of at most 1 turns guidance off, and the negative prompt with it"
        found.append(Ignored("negative_prompt", reason))
    if request.username is not None:
        found.append(Ignored("username", USERNAME))
    return tuple(found)
