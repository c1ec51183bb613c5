"""(request, catalogue, settings) -> resolved parts: the only place where names become files and options
become values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from pydantic import ValidationError

from atelier import pasting, scripts
from atelier.contract.errors import AtelierError, InvalidRequest
from atelier.contract.generation import Txt2ImgPayload
from atelier.contract.grids import Arrangement
from atelier.contract.models import Catalogue
from atelier.contract.parts import ResolvedPart
from atelier.extension import Hooks
from atelier.ignored import Ignored
from atelier.resolve import locks
from atelier.resolve.request import Resolved, checked_overrides, resolved
from atelier.scripts import Cell
from atelier.seeds import Draw, draw_seed

__all__ = ["Draw", "Resolution", "draw_seed", "parse_payload", "resolve_txt2img"]


@dataclass(frozen=True)
class Resolution:
    """A request with every name resolved: its parts in the order of their pictures, how these are laid out,
    and what is to be told about it. `dispatch`: the parts' indices in the order in which they are best sent.
    """

    payload: Txt2ImgPayload
    parts: tuple[ResolvedPart, ...]
    warnings: tuple[str, ...]
    ignored: tuple[Ignored, ...]
    style_names: tuple[str, ...]
    arrangement: Arrangement = field(default_factory=Arrangement)
    dispatch: tuple[int, ...] = ()


def resolve_txt2img(
    payload: Mapping[str, Any] | Txt2ImgPayload,
    catalogue: Catalogue,
    *,
    model: str | None = None,
    settings: Mapping[str, Any] | None = None,
    locked: Mapping[str, str] | None = None,
    draw: Draw = draw_seed,
    answering: bool = False,
    hooks: Hooks | None = None,
) -> Resolution:
    """The parts of a text-to-image request on `catalogue` under the caller's effective `settings` (option
    name -> value): one for each iteration of each cell of its script.

    A model named in the request's override_settings wins over `model`, that over the settings, that over the
    catalogue's default. `answering`: the pictures go straight into the answer of the peer's API, whose format
    is that of the settings, as there, and whose numbers keep their point (CFG scale 7.0); a request cannot
    override it. `hooks`: the extensions in use, the installed ones where None. `locked`: the options that the
    request cannot change -> who has locked them; what it asks of them is ignored, and told.

    Raises InvalidRequest and its kin; never falls back in silence.
    """
    request = payload if isinstance(payload, Txt2ImgPayload) else parse_payload(payload)
    given, left_out = settings or {}, list[Ignored]()
    if request.infotext:
        left_out += pasting.paste(request.infotext, catalogue=catalogue, settings=given)[1].ignored
        request = pasting.filled(request, request.infotext, catalogue=catalogue, settings=given)
    asked = request
    if answering:
        request, dropped = _without_format(request)
        left_out += dropped
    checked_overrides(request.override_settings or {})
    kept = locked or {}
    request, dropped = locks.unlocked(request, kept, given)
    model, model_dropped = locks.unlocked_model(model, kept, given)
    left_out += dropped + model_dropped
    effective = {**given, **checked_overrides(request.override_settings or {})}
    expansion = scripts.expand(request, catalogue, draw, effective) or scripts.plain(request, effective)
    cells: list[Resolved] = []
    each = partial(resolved, model=model, settings=given, hooks=hooks)
    for cell in expansion.cells:
        allowed, dropped = locks.unlocked(cell.payload, kept, given)
        left_out += dropped
        try:
            cells.append(each(allowed, catalogue, draw=draw, answering=answering))
        except AtelierError as error:
            raise _placed(error, cell) from error
    parts = tuple(part for cell in cells for part in cell.parts)
    return Resolution(
        payload=asked,
        parts=_maps_once(parts, scripted=bool(request.script_name)),
        warnings=tuple(dict.fromkeys([*expansion.warnings, *(w for cell in cells for w in cell.warnings)])),
        ignored=tuple(dict.fromkeys([*left_out, *_ignored(cells, expansion.arrangement)])),
        style_names=tuple(dict.fromkeys(name for cell in cells for name in cell.style_names)),
        arrangement=expansion.arrangement,
        dispatch=_dispatch(expansion.order, [len(cell.parts) for cell in cells]),
    )


def _maps_once(parts: tuple[ResolvedPart, ...], *, scripted: bool) -> tuple[ResolvedPart, ...]:
    """The parts, of which the first alone shows what ControlNets' preprocessors made: it is the same for all
    of them. A script's pictures come without, as in the peer.
    """
    return tuple(
        _without_maps(part) if part.control and (scripted or number) else part
        for number, part in enumerate(parts)
    )


def _without_maps(part: ResolvedPart) -> ResolvedPart:
    units = tuple(unit.model_copy(update={"shows_map": False}) for unit in part.control)
    return part.model_copy(update={"control": units})


def _ignored(cells: Sequence[Resolved], arrangement: Arrangement) -> list[Ignored]:
    """What no cell heeds. Saving pictures is heeded where it makes a grid."""
    every = [each for cell in cells for each in cell.ignored]
    return [each for each in every if each.field != "save_images" or not arrangement.grids]


def _without_format(request: Txt2ImgPayload) -> tuple[Txt2ImgPayload, list[Ignored]]:
    """The request with the format left to the settings, and what that leaves out."""
    overrides = dict(request.override_settings or {})
    if overrides.pop("samples_format", None) is None:
        return request, []
    reason = "the answer has the format of your settings, as in the peer"
    changed = request.model_copy(update={"override_settings": overrides})
    return changed, [Ignored("override_settings.samples_format", reason)]


def _placed(error: AtelierError, cell: Cell) -> AtelierError:
    """The error of a cell, saying which cell it is."""
    if not cell.place:
        return error
    return type(error)(f"{cell.place}: {error.message}", detail=error.detail)


def _dispatch(order: tuple[int, ...], counts: list[int]) -> tuple[int, ...]:
    """The indices of parts for an order of cells, of which cell i has `counts[i]` parts."""
    firsts = [sum(counts[:number]) for number in range(len(counts))]
    return tuple(firsts[cell] + part for cell in order for part in range(counts[cell]))


def parse_payload(payload: Mapping[str, Any]) -> Txt2ImgPayload:
    """The payload as typed fields. Raises InvalidRequest naming the first bad field; details of all in
    `detail`.
    """
    try:
        found = Txt2ImgPayload.model_validate(dict(payload))
    except ValidationError as error:
        faults = [
            {"field": ".".join(str(place) for place in each["loc"]), "reason": each["msg"]}
            for each in error.errors()
        ]
        first = faults[0]
        raise InvalidRequest(
            f"The field {first['field']!r} cannot be used: {first['reason']}.", detail={"fields": faults}
        ) from error
    try:
        found.model_dump(mode="json")
    except ValueError as error:  # what answers and databases would meet too late
        raise InvalidRequest("The request is nested deeper than any request needs.") from error
    return found
