"""A table's control as a Gradio component."""

from __future__ import annotations

from typing import Any

import gradio as gr
from gradio.components import Component

from webui.params.table import Check, Choice, Choices, Control, Number, Options, Slider, Text


def draw(control: Control, **looks: Any) -> Component:
    """The component for `control`; `looks` are layout arguments (scale, min_width, ...)."""
    common: dict[str, Any] = {
        "label": control.label,
        "elem_id": control.elem_id,
        "value": control.default,
        **looks,
    }
    match control:
        case Text(lines=lines, placeholder=placeholder):
            return gr.Textbox(**{"lines": lines, "max_lines": 12, "placeholder": placeholder, **common})
        case Slider(minimum=low, maximum=high, step=step):
            return gr.Slider(low, high, step=step, buttons=[], **common)
        case Choice(choices=choices, callers=callers):
            return gr.Dropdown(list(choices), allow_custom_value=callers, **common)
        case Choices():
            return gr.Dropdown([], multiselect=True, allow_custom_value=True, **common)
        case Options(choices=choices):
            return gr.Radio(list(choices), **common)
        case Number():
            return gr.Number(precision=0, **common)
        case Check():
            return gr.Checkbox(**common)
    raise TypeError(f"no component draws a {type(control).__name__}")


def tool(name: str, elem_id: str, **looks: Any) -> gr.Button:
    """A small square button. The style sheet shows an icon in place of its name, which stays for those who
    listen.
    """
    return gr.Button(
        name, elem_id=elem_id, size="sm", min_width=40, scale=0, **{"elem_classes": ["tool"], **looks}
    )
