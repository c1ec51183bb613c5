"""A unit as one entry of an infotext, written and read."""

from __future__ import annotations

import re
from typing import Any

from atelier.contract.control import ControlUnit

_FIELDS = {
    "Module": "module",
    "Model": "model",
    "Weight": "weight",
    "Resize Mode": "resize_mode",
    "Processor Res": "processor_res",
    "Threshold A": "threshold_a",
    "Threshold B": "threshold_b",
    "Guidance Start": "guidance_start",
    "Guidance End": "guidance_end",
    "Pixel Perfect": "pixel_perfect",
    "Control Mode": "control_mode",
    "Hr Option": "hr_option",
}
_NUMBERS = ("weight", "processor_res", "threshold_a", "threshold_b", "guidance_start", "guidance_end")
_ENTRY = re.compile(rf"(?:^|, )({'|'.join(_FIELDS)}): ")


def written(unit: ControlUnit) -> str:
    """The peer's words; `Hr Option` where the unit is not for both passes."""
    how = unit.preprocessing
    said: dict[str, Any] = {
        "Module": unit.called,
        "Model": unit.model_called,
        "Weight": unit.weight,
        "Resize Mode": unit.resize_mode,
        "Processor Res": how.resolution,
        "Threshold A": how.threshold_a,
        "Threshold B": how.threshold_b,
        "Guidance Start": unit.guidance_start,
        "Guidance End": unit.guidance_end,
        "Pixel Perfect": unit.said_pixel_perfect,
        "Control Mode": unit.control_mode,
    }
    if unit.passes != "Both":
        said["Hr Option"] = unit.passes
    return ", ".join(f"{label}: {value}" for label, value in said.items())


def parsed(entry: str) -> dict[str, Any]:
    """The fields of a unit that an entry names. What cannot be read is left out."""
    marks = list(_ENTRY.finditer(entry))
    ends = [*(mark.start() for mark in marks[1:]), len(entry)]
    found: dict[str, Any] = {}
    for mark, end in zip(marks, ends, strict=True):
        field, value = _FIELDS[mark[1]], entry[mark.end() : end].strip()
        if field in _NUMBERS:
            try:
                number = float(value)
            except ValueError:
                continue
            found[field] = int(number) if field == "processor_res" else number
        else:
            found[field] = value == "True" if field == "pixel_perfect" else value
    return found
