"""The scripts one can choose, with the peer's panels (AUTOMATIC1111 v1.10.1), and the positional lists their
values make.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from atelier.contract.models import Catalogue
from atelier.scripts.arguments import PromptMatrix, PromptsFromFile, XyzPlot
from atelier.scripts.axes import AXES
from webui.params.table import Check, Choice, Choices, Control, Form, Options, Slider, Text

NO_SCRIPT = "None"
MATRIX_TITLE, FILE_TITLE, XYZ_TITLE = PromptMatrix.title, PromptsFromFile.title, XyzPlot.title
TITLES = (NO_SCRIPT, MATRIX_TITLE, FILE_TITLE, XYZ_TITLE)

SCRIPT = Choice("", "Script", "script_list", NO_SCRIPT, choices=TITLES)

_MARGINS = "Grid margins (px)"
_IN_MATRIX, _IN_FILE = "script_txt2img_prompt_matrix", "script_txt2img_prompts_from_file_or_textbox"
IN_XYZ = "script_txt2img_xyz_plot"

MATRIX: tuple[Control, ...] = (
    Check("", "Put variable parts at start of prompt", f"{_IN_MATRIX}_put_at_start", False),
    Check("", "Use different seed for each picture", f"{_IN_MATRIX}_different_seeds", False),
    Options("", "Select prompt", f"{_IN_MATRIX}_prompt_type", "positive", choices=("positive", "negative")),
    Options(
        "", "Select joining char", f"{_IN_MATRIX}_variations_delimiter", "comma", choices=("comma", "space")
    ),
    Slider("", _MARGINS, f"{_IN_MATRIX}_margin_size", 0, maximum=500, step=2),
)

FILE: tuple[Control, ...] = (
    Check("", "Iterate seed every line", f"{_IN_FILE}_checkbox_iterate", False),
    Check("", "Use same random seed for all lines", f"{_IN_FILE}_checkbox_iterate_batch", False),
    Options("", "Insert prompts at the", f"{_IN_FILE}_prompt_position", "start", choices=("start", "end")),
    Text("", "List of prompt inputs", f"{_IN_FILE}_prompt_txt", "", lines=3),
)

PLACES: Mapping[str, int] = {axis.label: place for place, axis in enumerate(AXES)}
"""Axis -> its place in the peer's list, by which a request names it."""

OFFERED = tuple(axis.label for axis in AXES if not axis.refused)
"""The axes that can be used here."""

CALLERS_AXES: Mapping[str, tuple[str, ...]] = {
    "Checkpoint name": ("checkpoint",),
    "Refiner checkpoint": ("checkpoint", "None"),
    "VAE": ("vae", "Automatic", "None"),
    "Styles": ("style",),
}
"""Axes whose choices are the caller's own -> what they are, and what else can be picked."""

CHOICES_OF_AXIS: Mapping[str, tuple[str, ...]] = {
    axis.label: tuple(axis.choices(Catalogue()))
    for axis in AXES
    if axis.choices and axis.label not in CALLERS_AXES
}
"""Axes that offer the same to everybody."""


def has_choices(axis: str | None) -> bool:
    """Whether the values of `axis` are picked from a list, not typed."""
    return axis in CHOICES_OF_AXIS or axis in CALLERS_AXES


def axis_controls(letter: str) -> tuple[Choice, Text, Choices]:
    """Type, typed values and picked values of the axis `letter` (x, y or z)."""
    name = letter.upper()
    first = "Seed" if letter == "x" else "Nothing"
    return (
        Choice("", f"{name} type", f"{IN_XYZ}_{letter}_type", first, choices=OFFERED),
        Text("", f"{name} values", f"{IN_XYZ}_{letter}_values", "", lines=1),
        Choices("", f"{name} values", f"{IN_XYZ}_{letter}_values_dropdown", []),
    )


CSV_MODE = f"{IN_XYZ}_csv_mode"
XYZ_LOOKS: tuple[Control, ...] = (
    Check("", "Draw legend", f"{IN_XYZ}_draw_legend", True),
    Check("", "Include Sub Images", f"{IN_XYZ}_include_lone_images", False),
    Check("", "Include Sub Grids", f"{IN_XYZ}_include_sub_grids", False),
    Check("", "Keep -1 for seeds", f"{IN_XYZ}_no_fixed_seeds", False),
    Check("", "Vary seeds for X", f"{IN_XYZ}_vary_seeds_x", False),
    Check("", "Vary seeds for Y", f"{IN_XYZ}_vary_seeds_y", False),
    Check("", "Vary seeds for Z", f"{IN_XYZ}_vary_seeds_z", False),
    Slider("", _MARGINS, f"{IN_XYZ}_margin_size", 0, maximum=500, step=2),
    Check("", "Use text inputs instead of dropdowns", CSV_MODE, False),
)
XYZ: tuple[Control, ...] = (
    *axis_controls("x"),
    *axis_controls("y"),
    *axis_controls("z"),
    *XYZ_LOOKS,
)

PANELS: Mapping[str, tuple[Control, ...]] = {MATRIX_TITLE: MATRIX, FILE_TITLE: FILE, XYZ_TITLE: XYZ}
"""Script -> its controls, in the order of the peer's positional list."""

SCRIPTS: tuple[Control, ...] = (SCRIPT, *MATRIX, *FILE, *XYZ)


def script_fields(form: Form) -> dict[str, Any]:
    """`script_name` and `script_args` of the chosen script; nothing where none is."""
    title = form[SCRIPT.elem_id]
    panel = PANELS.get(str(title))
    if panel is None:
        return {}
    return {
        "script_name": str(title).lower(),
        "script_args": [_argument(control, form) for control in panel],
    }


def _argument(control: Control, form: Form) -> Any:
    """One entry of the list. An axis goes by its place; only the kind of values that is in sight counts."""
    value = form[control.elem_id]
    if isinstance(control, Choice):
        return PLACES[str(value)]
    axis = control.elem_id.removeprefix(f"{IN_XYZ}_").partition("_values")[0]
    if isinstance(control, Choices):
        return value if picks(form, axis) else []
    if control.elem_id == f"{IN_XYZ}_{axis}_values" and picks(form, axis):
        return ""
    return value


def picks(form: Form, letter: str) -> bool:
    """Whether the values of the axis `letter` are picked from its list as the form stands."""
    return has_choices(str(form[f"{IN_XYZ}_{letter}_type"])) and not form[CSV_MODE]
