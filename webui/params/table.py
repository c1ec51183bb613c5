"""What a control is, apart from how it is drawn. The form and the request are both made from tables of
these.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Value = str | int | float | bool | list[str] | None
Form = Mapping[str, Value]
"""Element id -> value: a filled form."""


@dataclass(frozen=True)
class Control:
    """A control of a form. `field` is the request's field, empty where the control only opens others."""

    field: str
    label: str
    elem_id: str
    default: Value
    within: str = ""
    """Element id of the checkbox that must be on for this control to count."""


@dataclass(frozen=True)
class Text(Control):
    """Several lines of text."""

    lines: int = 3
    placeholder: str = ""
    optional: bool = False
    """An empty one is left out of the request."""


@dataclass(frozen=True)
class Number(Control):
    """A whole number typed in."""


@dataclass(frozen=True)
class Slider(Control):
    """A number within a range."""

    minimum: float = 0
    maximum: float = 1
    step: float = 1
    optional: bool = False
    """0 is left out of the request."""


@dataclass(frozen=True)
class Choice(Control):
    """One of several names. A choice whose default is `same` says nothing while it stands there."""

    choices: tuple[str, ...] = ()
    same: bool = False
    callers: bool = False
    """The list is the caller's own: any name passes here, and the portal is the one that checks it."""


@dataclass(frozen=True)
class Choices(Control):
    """Any number of names out of the caller's own list; none are left out of the request."""


@dataclass(frozen=True)
class Options(Control):
    """One of a few names, all of them in sight."""

    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Check(Control):
    """On or off. `optional`: off is left out of the request."""

    optional: bool = False


def filled(table: Sequence[Control], values: Sequence[Value]) -> dict[str, Value]:
    """The form that `values` make, in the table's order; an emptied control has its default.

    Raises ValueError where their numbers differ.
    """
    if len(table) != len(values):
        raise ValueError(f"{len(values)} values for {len(table)} controls")
    return {control.elem_id: _typed(control, value) for control, value in zip(table, values, strict=True)}


def fields(table: Sequence[Control], form: Form) -> dict[str, Any]:
    """The request's fields of the controls of `table` as `form` fills them.

    Controls within an unticked checkbox, and those that say nothing, are left out, so that the request's own
    defaults hold.
    """
    return {
        control.field: form[control.elem_id]
        for control in table
        if control.field
        and (not control.within or form[control.within])
        and not _silent(control, form[control.elem_id])
    }


def _silent(control: Control, value: Value) -> bool:
    match control:
        case Choice(same=True):
            return value == control.default
        case Check(optional=True) | Text(optional=True) | Slider(optional=True) | Choices():
            return not value
    return False


def _typed(control: Control, value: Value) -> Value:
    if value is None:
        return control.default
    whole = isinstance(control, Number) or (isinstance(control, Slider) and float(control.step).is_integer())
    return int(value) if whole and not isinstance(value, list) else value


def defaults(table: Sequence[Control]) -> dict[str, Value]:
    """Element id -> default."""
    return {control.elem_id: control.default for control in table}
