"""The whole form: every control whose value goes into a request, and the request it makes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from atelier.options import defaults
from webui.params.overrides import overrides_of
from webui.params.scripts import SCRIPTS, script_fields
from webui.params.table import Control, Form, Value, fields, filled
from webui.params.txt2img import (
    OPTION_OF,
    OVERRIDES,
    QUICK,
    REFINER_CHECKPOINT,
    REFINER_SWITCH_AT,
    TXT2IMG,
)

FORM: tuple[Control, ...] = (*TXT2IMG, OVERRIDES, *SCRIPTS, *QUICK)
"""In the order in which a handler is given the values."""

_NO_SETTINGS: Mapping[str, Any] = MappingProxyType({})

ALWAYS = {"save_images": True}
"""Without it the peer, and so the portal, makes no grid."""


def payload(values: Sequence[Value], settings: Mapping[str, Any] = _NO_SETTINGS) -> dict[str, Any]:
    """The txt2img payload of a form whose controls hold `values`, for somebody with these `settings`
    (option -> value). Raises ValueError for another number of values.
    """
    form = filled(FORM, values)
    return plain_fields(form, settings) | script_fields(form) | ALWAYS


def plain_fields(form: Form, settings: Mapping[str, Any] = _NO_SETTINGS) -> dict[str, Any]:
    """The fields of the controls, quick settings and chips alone, without a script."""
    found = fields(TXT2IMG, form)
    if REFINER_CHECKPOINT.field not in found:
        # Switching to nothing: the peer leaves the moment out as well.
        found.pop(REFINER_SWITCH_AT.field, None)
    chips = form[OVERRIDES.elem_id]
    quick = {option: form[elem_id] for elem_id, option in OPTION_OF.items()}
    # What holds anyway is not said: a request names what makes it different.
    overrides = {
        name: value for name, value in quick.items() if value != settings.get(name, defaults()[name])
    }
    overrides |= overrides_of(chips if isinstance(chips, list) else [])
    return found | ({"override_settings": overrides} if overrides else {})
