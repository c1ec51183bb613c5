"""Override settings as chips: options that came with generation parameters and hold for this request."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from atelier.contract.errors import InvalidRequest
from atelier.options import defaults
from atelier.pasting import OPTION_LABELS

LABELS: Mapping[str, str] = {
    **OPTION_LABELS,
    "Model hash": "sd_model_checkpoint",
    "VAE": "sd_vae",
}
"""What the parameters line calls an option -> the option."""


def chips_of(overrides: Mapping[str, Any]) -> list[str]:
    """One chip per option: "Clip skip: 2"."""
    labels = {option: label for label, option in LABELS.items()}
    return [f"{labels.get(option, option)}: {value}" for option, value in overrides.items()]


def overrides_of(chips: Sequence[str]) -> dict[str, Any]:
    """The options behind chips, by label or by name, with values of the option's type.

    Raises InvalidRequest for a chip that names no option or gives it a value it cannot have.
    """
    found: dict[str, Any] = {}
    for chip in chips:
        name, _, text = chip.partition(":")
        option = LABELS.get(name.strip(), name.strip())
        if option not in defaults():
            raise InvalidRequest(
                f"No option is called {name.strip()[:80]!r}. Remove {chip[:80]!r} from Override settings."
            )
        try:
            found[option] = _typed(defaults()[option], text.strip())
        except ValueError as error:
            raise InvalidRequest(
                f"{chip[:80]!r} has no value that fits. Remove it from Override settings."
            ) from error
    return found


def _typed(default: object, text: str) -> Any:
    match default:
        case bool():
            if text.lower() not in ("true", "false"):
                raise ValueError(text)
            return text.lower() == "true"
        case int():
            return int(text)
        case float():
            return float(text)
        case list() | dict():
            return json.loads(text)
    return text
