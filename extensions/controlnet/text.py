"""A unit as one entry of an infotext."""

from __future__ import annotations

from typing import Any

from atelier.contract.control import ControlUnit


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
