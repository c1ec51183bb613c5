"""The members of `alwayson_scripts` that extensions understand: checked against the extensions' own models,
and put into the prompt as the tags they stand for, so that they travel, are shown and pasted like any tag.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError

from atelier import extension
from atelier.contract.control import ControlUnit
from atelier.contract.errors import InvalidRequest
from atelier.contract.generation import Txt2ImgPayload
from atelier.contract.models import Catalogue
from atelier.extension import Hooks
from atelier.ignored import Ignored

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Applied:
    """A request with the extensions' members written into its prompts. `understood`: the names of
    all that the extensions know, in lower case.
    """

    request: Txt2ImgPayload
    understood: frozenset[str] = frozenset()
    ignored: tuple[Ignored, ...] = ()
    control: tuple[ControlUnit, ...] = ()
    """The ControlNet units that they stand for."""


def applied(request: Txt2ImgPayload, catalogue: Catalogue, hooks: Hooks | None = None) -> Applied:
    """The request as its extensions read it. `hooks`: the extensions in use, the installed ones where None.

    Raises InvalidRequest, naming the field, for a member that its extension's model refuses, and what the
    extension itself raises, such as UnknownName.
    """
    hooks = hooks or extension.installed("schema")
    models = understood(hooks)
    named = {
        title: models[title.lower()] for title in request.alwayson_scripts or {} if title.lower() in models
    }
    said: list[str] = []
    units: list[ControlUnit] = []
    ignored: list[Ignored] = []
    for title, model in named.items():
        member = _checked(title, (request.alwayson_scripts or {})[title], model)
        how = {"title": title.lower(), "member": member, "catalogue": catalogue}
        try:
            meaning = hooks.hook.control(**how)
            if meaning is not None:
                units += meaning.units
                ignored += [Ignored(*each) for each in meaning.ignored]
            elif request.disable_extra_networks:
                reason = "disable_extra_networks leaves the networks out"
                ignored.append(Ignored(f"alwayson_scripts.{title}", reason))
            else:
                said += [tag for tags in hooks.hook.resolve(**how) for tag in tags or ()]
        except ValueError as error:
            raise InvalidRequest(f"The field 'alwayson_scripts.{title}' cannot be used: {error}") from error
    return Applied(_with_tags(request, said), frozenset(models), tuple(ignored), tuple(units))


def _with_tags(request: Txt2ImgPayload, said: list[str]) -> Txt2ImgPayload:
    """The request with tags behind its prompts."""
    if not said:
        return request
    prompts = {"prompt": " ".join([request.prompt or "", *said]).lstrip()}
    if request.hr_prompt:
        prompts["hr_prompt"] = " ".join([request.hr_prompt, *said])
    return request.model_copy(update=prompts)


def lifted(
    payload: Mapping[str, Any], keep: Callable[[str], str], hooks: Hooks | None = None
) -> dict[str, Any]:
    """An unchecked request with the pictures in its extensions' members stored by `keep`, which gives their
    ids: none of them travels any further. Raises InvalidRequest.
    """
    scripts = payload.get("alwayson_scripts")
    if not isinstance(scripts, Mapping):
        return dict(payload)
    hooks, found = hooks or extension.installed("schema"), dict(scripts)
    for title, member in scripts.items():
        try:
            changed = hooks.hook.lift(title=str(title).lower(), member=member, keep=keep)
        except ValueError as error:
            raise InvalidRequest(f"The field 'alwayson_scripts.{title}' cannot be used: {error}.") from error
        if changed is not None:
            found[title] = changed
    return {**payload, "alwayson_scripts": found}


def understood(hooks: Hooks) -> dict[str, type[BaseModel]]:
    """Member of `alwayson_scripts`, in lower case -> the model its extension checks it with. An extension
    that fails is left out and logged; of two with one name the first stands.
    """
    found: dict[str, type[BaseModel]] = {}
    for each in hooks.hook.schema.get_hookimpls():
        try:
            answer: Any = each.function()
            for title, model in answer.items():
                found.setdefault(title.lower(), model)
        except Exception as error:  # noqa: BLE001  # one bad extension disables itself alone
            log.warning("The extension %s understands no members: %s", each.plugin_name, error)
    return found


def _checked(title: str, value: Any, model: type[BaseModel]) -> BaseModel:
    try:
        return model.model_validate(dict(value) if isinstance(value, Mapping) else value)
    except ValidationError as error:
        faults = [
            {
                "field": ".".join(["alwayson_scripts", title, *(str(place) for place in each["loc"])]),
                "reason": each["msg"],
            }
            for each in error.errors()
        ]
        first = faults[0]
        raise InvalidRequest(
            f"The field {first['field'][:200]!r} cannot be used: {first['reason']}.",
            detail={"fields": faults},
        ) from error
