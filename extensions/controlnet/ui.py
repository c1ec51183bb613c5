"""The ControlNet section of the web UI."""

from __future__ import annotations

from typing import Any, get_args

from atelier.contract.control import ControlMode, Passes, ResizeMode
from atelier.extension import hookimpl
from atelier.preprocessors import SERVED, Preprocessor, Slider

COUNT = 3


@hookimpl
def controls(tab: str) -> list[dict[str, Any]]:
    """A section of units below the seed."""
    if tab != "txt2img":
        return []
    return [
        {
            "type": "units",
            "title": "ControlNet",
            "member": "controlnet",
            "kind": "controlnet",
            "count": COUNT,
            "modules": [_module(each) for each in SERVED],
            "control_modes": list(get_args(ControlMode)),
            "resize_modes": list(get_args(ResizeMode)),
            "passes": list(get_args(Passes)),
        }
    ]


def _module(each: Preprocessor) -> dict[str, Any]:
    sliders = {"processor_res": each.resolution, "threshold_a": each.a, "threshold_b": each.b}
    return {
        "name": each.name,
        "label": each.shown,
        "sliders": [_slider(field, one) for field, one in sliders.items() if one is not None],
    }


def _slider(field: str, one: Slider) -> dict[str, Any]:
    return {
        "field": field,
        "label": one.name,
        "value": one.value,
        "minimum": one.low,
        "maximum": one.high,
        "step": one.step,
    }
