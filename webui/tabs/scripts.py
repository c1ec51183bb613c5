"""The Script dropdown of txt2img and the panels of the scripts."""

from __future__ import annotations

import gradio as gr
from gradio.components import Component

from webui.components.controls import draw, tool
from webui.handlers.scripts import AWAY, PANEL, axes_shower, axes_swapper, axis_filler, panels_of
from webui.params import scripts as params
from webui.portal import Portal
from webui.tabs.drawing import Drawn, each, row, tie

SWAPS = (("x", "y"), ("y", "z"), ("x", "z"))


def script_panels(portal: Portal, drawn: Drawn) -> None:
    """Draw the dropdown and the panels. The page keeps all of them; only the chosen script's is in sight."""
    script = draw(params.SCRIPT)
    drawn[params.SCRIPT.elem_id] = script
    panels: list[gr.Column] = []
    for title, panel in (
        (params.MATRIX_TITLE, _matrix),
        (params.FILE_TITLE, _file),
        (params.XYZ_TITLE, _xyz),
    ):
        with gr.Column(elem_classes=[PANEL, AWAY], elem_id=_panel_id(title)) as column:
            panel(drawn)
        panels.append(column)
    tie(script.change, panels_of, [script], panels)
    _tie_axes(portal, drawn)


def _panel_id(title: str) -> str:
    letters = "".join(each if each.isalnum() else "_" for each in title.lower())
    return f"txt2img_script_{letters}"


def _matrix(drawn: Drawn) -> None:
    start, seeds, prompt, joining, margins = params.MATRIX
    row(drawn, (start, seeds), elem_id="txt2img_matrix_checks", min_width=200)
    row(drawn, (prompt, joining), elem_id="txt2img_matrix_options")
    each(drawn, (margins,))


def _file(drawn: Drawn) -> None:
    iterate, same, position, text = params.FILE
    row(drawn, (iterate, same), elem_id="txt2img_file_checks", min_width=200)
    each(drawn, (position,))
    with gr.Row(elem_classes=["prompt-lines"]):
        drawn[text.elem_id] = draw(text, lines=3, max_lines=16, min_width=200)
        tool("Load the lines from a text file", "txt2img_prompts_file")


def _xyz(drawn: Drawn) -> None:
    for letter in "xyz":
        kind, typed, picked = params.axis_controls(letter)
        with gr.Row(elem_classes=["axis"]):
            each(drawn, (kind,), min_width=140, scale=2)
            each(drawn, (typed,), min_width=160, scale=4, max_lines=6)
            each(drawn, (picked,), min_width=160, scale=4, visible="hidden")
            name = f"{params.IN_XYZ}_fill_{letter}"
            drawn[name] = tool(
                f"Fill in every value of {letter.upper()}", name, elem_classes=["tool", "idle"]
            )
    legend, images, grids, keep, *vary, margins, csv_mode = params.XYZ_LOOKS
    row(drawn, (legend, images, grids, keep, *vary, csv_mode), elem_id="txt2img_xyz_checks", min_width=160)
    each(drawn, (margins,))
    with gr.Row(elem_classes=["swaps"]):
        for first, second in SWAPS:
            name = f"{params.IN_XYZ}_swap_{first}{second}_axes"
            label = f"Swap {first.upper()}/{second.upper()} axes"
            drawn[name] = gr.Button(label, elem_id=name, size="sm", min_width=110)


def _axis(drawn: Drawn, letter: str) -> list[Component]:
    return [drawn[control.elem_id] for control in params.axis_controls(letter)]


def _shown(drawn: Drawn, letters: str) -> list[Component]:
    """What an update of axes updates: their controls, each with its button."""
    return [
        component
        for letter in letters
        for component in (*_axis(drawn, letter), drawn[f"{params.IN_XYZ}_fill_{letter}"])
    ]


def _tie_axes(portal: Portal, drawn: Drawn) -> None:
    csv_mode = drawn[params.CSV_MODE]
    everything = [component for letter in "xyz" for component in _axis(drawn, letter)]
    tie(csv_mode.input, axes_shower(portal), [csv_mode, *everything], _shown(drawn, "xyz"))
    for letter in "xyz":
        axis = _axis(drawn, letter)
        tie(axis[0].input, axes_shower(portal), [csv_mode, *axis], _shown(drawn, letter))
        filler = drawn[f"{params.IN_XYZ}_fill_{letter}"]
        tie(filler.click, axis_filler(portal), [csv_mode, *axis], axis[1:])
    for first, second in SWAPS:
        both = [*_axis(drawn, first), *_axis(drawn, second)]
        swap = drawn[f"{params.IN_XYZ}_swap_{first}{second}_axes"]
        tie(swap.click, axes_swapper(portal), [csv_mode, *both], _shown(drawn, first + second))
