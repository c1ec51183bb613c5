"""The scripts' panels as data: labels, defaults, bounds and choices, in the order of the positional lists."""

from __future__ import annotations

import typing
from dataclasses import dataclass
from typing import Any, Literal

from pydantic.fields import FieldInfo

from atelier.contract.models import Catalogue
from atelier.scripts.arguments import Arguments, PromptMatrix, PromptsFromFile, XyzPlot
from atelier.scripts.axes import AXES

SCRIPTS: tuple[type[Arguments], ...] = (PromptMatrix, PromptsFromFile, XyzPlot)
"""The selectable scripts of text to image, in the peer's order."""

_STEP = 2
"""Of the margins' slider, in pixels."""


@dataclass(frozen=True)
class Argument:
    """One argument of a script: `name` is its field in typed arguments, `label` the peer's."""

    name: str
    label: str
    value: Any
    minimum: float | None = None
    maximum: float | None = None
    step: float | None = None
    choices: tuple[str, ...] | None = None


def arguments(script: type[Arguments]) -> tuple[Argument, ...]:
    """What a script takes, in order."""
    return tuple(_argument(name, field) for name, field in script.model_fields.items())


def axis_choices(catalogue: Catalogue) -> dict[str, list[str]]:
    """Axis label -> what its menu offers on `catalogue`, for the axes that have one and are served."""
    return {axis.label: axis.choices(catalogue) for axis in AXES if axis.choices and not axis.refused}


def script_info() -> list[dict[str, Any]]:
    """The peer's answer to GET /sdapi/v1/script-info for the scripts that are served."""
    return [
        {
            "name": script.script,
            "is_alwayson": False,
            "is_img2img": False,
            "args": [_described(argument) for argument in arguments(script)],
        }
        for script in SCRIPTS
    ]


def _argument(name: str, field: FieldInfo) -> Argument:
    label, value = str(field.alias), field.default
    if name.endswith("_choices"):
        return Argument(name, label, [], choices=())
    if name.endswith("_type") and field.annotation is not None and name[0] in "xyz":
        return Argument(name, label, value, choices=tuple(axis.label for axis in AXES))
    if typing.get_origin(field.annotation) is Literal:
        return Argument(name, label, value, choices=typing.get_args(field.annotation))
    bounds = {
        key: getattr(each, key) for each in field.metadata for key in ("ge", "le") if hasattr(each, key)
    }
    if not bounds:
        return Argument(name, label, value)
    return Argument(name, label, value, minimum=bounds.get("ge"), maximum=bounds.get("le"), step=_STEP)


def _described(argument: Argument) -> dict[str, Any]:
    """An argument as the peer's list has it. Its menus of values carry the label of the text beside them."""
    menu = argument.name.endswith("_choices")
    return {
        "label": argument.label.replace("choices", "values") if menu else argument.label,
        "value": None if menu else argument.value,
        "minimum": argument.minimum,
        "maximum": argument.maximum,
        "step": argument.step,
        "choices": None if argument.choices is None else list(argument.choices),
    }
