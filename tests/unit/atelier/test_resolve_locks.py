"""Options that are locked stay as they are, whatever cell of whatever script asks for another value."""

from __future__ import annotations

from typing import Any

import pytest

from atelier import ownoptions
from atelier.contract.parts import ResolvedPart
from atelier.resolve import Resolution, resolve_txt2img
from atelier.scripts.axes import AXES, Axis
from tests.unit.atelier.test_infotext import CATALOGUE

LOCKED = dict.fromkeys(ownoptions.SERVED, "the studio")
REQUEST: dict[str, Any] = {"prompt": "x", "seed": 5, "subseed": 6, "steps": 8, "enable_hr": True}
WRITTEN = {
    "UniPC Order": "1, 2",
    "Always discard next-to-last sigma": "True",
    "SGM noise multiplier": "True",
    "RNG source": "NV",
    "Checkpoint name": "oracle_b",
    "Refiner checkpoint": "oracle_b",
    "VAE": "alt_vae",
    "Clip skip": "2",
    "Eta": "0.5",
    "Extra noise": "0.25",
}
"""A value of each axis that stands for an option; of the others it is 0.5."""
OF_OPTIONS = [
    axis
    for axis in AXES
    if axis.label in WRITTEN
    or axis.label.startswith(("Schedule m", "Schedule r", "Beta", "Sigma ", "Negative Guidance"))
]


def asked(locked: dict[str, str] | None = None, **request: Any) -> Resolution:
    return resolve_txt2img({**REQUEST, **request}, CATALOGUE, locked=locked)


def governed(part: ResolvedPart) -> dict[str, Any]:
    """What of a part follows from options."""
    fields = ("checkpoint", "vae", "refiner", "settings", "format", "tiling", "infotext_omits")
    return {name: getattr(part, name) for name in fields} | {"second": part.hires and part.hires.checkpoint}


def plot(axis: Axis) -> dict[str, Any]:
    arguments = {"x_type": axis.label, "x_values": WRITTEN.get(axis.label, "0.5")}
    return {"script_name": "x/y/z plot", "script_args": arguments, "refiner_switch_at": 0.5}


@pytest.mark.parametrize("axis", OF_OPTIONS, ids=lambda axis: axis.label)
def test_no_axis_of_a_plot_gets_round_a_lock(axis: Axis) -> None:
    [plain] = asked(LOCKED).parts
    free, held = asked(**plot(axis)), asked(LOCKED, **plot(axis))
    assert any(governed(part) != governed(plain) for part in free.parts), "this value changes something"
    assert [governed(part) for part in held.parts] == [governed(plain)] * len(held.parts)
    assert any("is locked by the studio" in each.reason for each in held.ignored)


def test_an_axis_that_stands_for_no_option_is_left_alone() -> None:
    axis = next(each for each in AXES if each.label == "Steps")
    values = {"script_args": {"x_type": axis.label, "x_values": "3, 4"}}
    assert [part.steps for part in asked(LOCKED, **plot(axis) | values).parts] == [3, 4]


def test_no_line_of_prompts_from_file_gets_round_a_lock() -> None:
    lines = "\n".join(("--prompt one --sd_model oracle_b", "--prompt two --tiling true"))
    script = {"script_name": "prompts from file or textbox", "script_args": {"prompts": lines}}
    [plain] = asked(LOCKED).parts
    free, held = asked(**script), asked(LOCKED, **script)
    assert [governed(part) == governed(plain) for part in free.parts] == [False, False]
    assert [governed(part) for part in held.parts] == [governed(plain)] * 2
    assert {each.field for each in held.ignored} >= {"override_settings.sd_model_checkpoint", "tiling"}


def test_no_other_checkpoint_has_a_part_in_a_picture_whose_checkpoint_is_locked() -> None:
    others = {"hr_checkpoint_name": "oracle_b", "refiner_checkpoint": "oracle_b", "refiner_switch_at": 0.5}
    [free] = asked(**others).parts
    assert free.refiner is not None and free.hires is not None and free.hires.checkpoint is not None
    held = asked({"sd_model_checkpoint": "the team Films"}, **others)
    assert held.parts[0].models == (held.parts[0].checkpoint,)
    reasons = {each.field: each.reason for each in held.ignored}
    for field in ("hr_checkpoint_name", "refiner_checkpoint"):
        assert reasons[field] == "the option 'sd_model_checkpoint' is locked by the team Films"


@pytest.mark.parametrize(("field", "name"), [
    ("hr_checkpoint_name", "Use same checkpoint"), ("refiner_checkpoint", "None"), ("refiner_checkpoint", ""),
])  # fmt: skip
def test_what_names_no_other_checkpoint_needs_no_remark(field: str, name: str) -> None:
    held = asked({"sd_model_checkpoint": "the studio"}, **{field: name})
    assert not [each for each in held.ignored if "locked" in each.reason]


def test_pasted_parameters_do_not_get_round_a_lock_either() -> None:
    text = "x\nSteps: 8, Sampler: Euler, Seed: 5, Size: 512x512, Clip skip: 2, RNG: NV, Eta: 0.5"
    [plain] = asked(LOCKED, width=512, height=512, sampler_name="Euler").parts
    held = asked(LOCKED, infotext=text, sampler_name="Euler")
    assert governed(held.parts[0]) == governed(plain)
