"""The txt2img form: the peer's labels, ids, ranges and defaults, and the request that comes of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from atelier.contract.errors import InvalidRequest
from atelier.contract.generation import Txt2ImgPayload
from atelier.scripts.axes import AXES
from atelier.vocabulary import LATENT_UPSCALERS, PIXEL_UPSCALERS, SAMPLERS, SCHEDULERS
from webui.params.form import FORM, payload
from webui.params.overrides import LABELS, chips_of, overrides_of
from webui.params.scripts import FILE, MATRIX, OFFERED, PLACES, SCRIPTS, XYZ
from webui.params.table import (
    Check,
    Choice,
    Choices,
    Control,
    Number,
    Options,
    Slider,
    Text,
    defaults,
)
from webui.params.txt2img import EXTRA, HIRES, REFINER, TXT2IMG, switch_of
from webui.params.units import members

# a1111.md 2.2: element id -> (label, minimum, maximum, step, default)
SLIDERS = {
    "txt2img_steps": ("Sampling steps", 1, 150, 1, 20),
    "txt2img_width": ("Width", 64, 2048, 8, 512),
    "txt2img_height": ("Height", 64, 2048, 8, 512),
    "txt2img_batch_count": ("Batch count", 1, 100, 1, 1),
    "txt2img_batch_size": ("Batch size", 1, 8, 1, 1),
    "txt2img_cfg_scale": ("CFG Scale", 1, 30, 0.5, 7.0),
    "txt2img_subseed_strength": ("Variation strength", 0, 1, 0.01, 0.0),
    "txt2img_seed_resize_from_w": ("Resize seed from width", 0, 2048, 8, 0),
    "txt2img_seed_resize_from_h": ("Resize seed from height", 0, 2048, 8, 0),
    "txt2img_hires_steps": ("Hires steps", 0, 150, 1, 0),
    "txt2img_denoising_strength": ("Denoising strength", 0, 1, 0.01, 0.7),
    "txt2img_hr_scale": ("Upscale by", 1, 4, 0.05, 2.0),
    "txt2img_hr_resize_x": ("Resize width to", 0, 2048, 8, 0),
    "txt2img_hr_resize_y": ("Resize height to", 0, 2048, 8, 0),
    "txt2img_switch_at": ("Switch at", 0.01, 1, 0.01, 0.8),
    "script_txt2img_prompt_matrix_margin_size": ("Grid margins (px)", 0, 500, 2, 0),
    "script_txt2img_xyz_plot_margin_size": ("Grid margins (px)", 0, 500, 2, 0),
}
PANELS = {"prompt matrix": MATRIX, "prompts from file or textbox": FILE, "x/y/z plot": XYZ}
HIRES_ON, REFINER_ON = switch_of(HIRES), switch_of(REFINER)


def by_id(elem_id: str) -> Control:
    return next(control for control in FORM if control.elem_id == elem_id)


def sent(form: dict[str, Any]) -> dict[str, Any]:
    """The payload of a form in which these controls were touched."""
    values = defaults(FORM) | form
    return payload([values[control.elem_id] for control in FORM])


def filled(**changed: Any) -> dict[str, Any]:
    return sent({f"txt2img_{name}": value for name, value in changed.items()})


@pytest.mark.parametrize("elem_id", SLIDERS)
def test_a_slider_has_the_label_range_and_default_of_the_peer(elem_id: str) -> None:
    control = by_id(elem_id)
    assert isinstance(control, Slider)
    assert (control.label, control.minimum, control.maximum, control.step, control.default) == SLIDERS[
        elem_id
    ]


def test_every_control_is_one_the_peer_has_under_that_id() -> None:
    named = {control.elem_id: control.label for control in TXT2IMG if not isinstance(control, Slider)}
    assert named == {
        "txt2img_prompt": "Prompt",
        "txt2img_neg_prompt": "Negative prompt",
        "txt2img_sampling": "Sampling method",
        "txt2img_scheduler": "Schedule type",
        "txt2img_seed": "Seed",
        "txt2img_subseed_show": "Extra",
        "txt2img_subseed": "Variation seed",
        "txt2img_tiling": "Tiling",
        "txt2img_styles": "Styles",
        "txt2img_hr-checkbox": "Hires. fix",
        "txt2img_hr_upscaler": "Upscaler",
        "hr_checkpoint": "Checkpoint",
        "hr_sampler": "Hires sampling method",
        "hr_scheduler": "Hires schedule type",
        "hires_prompt": "Hires prompt",
        "hires_neg_prompt": "Hires negative prompt",
        "txt2img_enable-checkbox": "Refiner",
        "txt2img_checkpoint": "Checkpoint",
    }


def test_ids_and_fields_are_unique_and_every_field_is_one_of_the_request() -> None:
    ids, names = (
        [control.elem_id for control in FORM],
        [control.field for control in FORM if control.field],
    )
    assert len(set(ids)) == len(ids)
    assert len(set(names)) == len(names)
    assert set(names) <= set(Txt2ImgPayload.model_fields)


def test_only_samplers_and_schedules_that_are_served_are_offered() -> None:
    sampler, scheduler = by_id("txt2img_sampling"), by_id("txt2img_scheduler")
    assert isinstance(sampler, Choice)
    assert isinstance(scheduler, Choice)
    assert sampler.choices == tuple(each.name for each in SAMPLERS if each.served)
    assert scheduler.choices == tuple(each.label for each in SCHEDULERS if each.served)
    assert (sampler.default, scheduler.default) == ("DPM++ 2M", "Automatic")


def test_an_untouched_form_asks_for_what_the_peers_form_asks_for() -> None:
    assert filled(prompt="a red circle") == {
        "prompt": "a red circle",
        "negative_prompt": "",
        "sampler_name": "DPM++ 2M",
        "scheduler": "Automatic",
        "steps": 20,
        "width": 512,
        "height": 512,
        "n_iter": 1,
        "batch_size": 1,
        "cfg_scale": 7.0,
        "seed": -1,
        "save_images": True,
    }


def test_the_request_of_an_untouched_form_leaves_nothing_without_effect() -> None:
    request = Txt2ImgPayload.model_validate(filled())
    assert request.subseed_strength == 0
    assert request.seed_resize_from_w == -1
    assert request.enable_hr is False
    assert request.denoising_strength is None


@pytest.mark.parametrize(
    "elem_id", ["txt2img_subseed", "txt2img_subseed_strength", "txt2img_seed_resize_from_w"]
)
def test_extra_seed_controls_count_only_while_extra_is_ticked(elem_id: str) -> None:
    name = elem_id.removeprefix("txt2img_")
    assert by_id(elem_id).within == EXTRA
    assert by_id(elem_id).field not in filled(**{name: 1})
    assert filled(**{name: 1, "subseed_show": True})[by_id(elem_id).field] == 1


@pytest.mark.parametrize(
    ("name", "given", "sent"),
    [("seed", None, -1), ("seed", 7.0, 7), ("steps", 33.0, 33), ("cfg_scale", 5, 5), ("width", None, 512)],
)
def test_numbers_arrive_whole_and_an_emptied_one_is_the_default(
    name: str, given: float | None, sent: float
) -> None:
    value = filled(**{name: given})[name]
    assert value == sent
    assert type(value) is type(sent)


def test_a_form_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="3 values for"):
        payload(["a", "b", "c"])


def test_every_kind_of_control_is_in_use() -> None:
    kinds = {Text, Number, Slider, Choice, Choices, Options, Check}
    assert {type(control) for control in FORM} == kinds


def test_hires_fix_offers_the_ways_to_enlarge_that_need_no_model() -> None:
    upscaler = by_id("txt2img_hr_upscaler")
    assert isinstance(upscaler, Choice)
    assert upscaler.choices == LATENT_UPSCALERS + PIXEL_UPSCALERS
    assert upscaler.default == "Latent"


def test_what_is_within_a_switched_off_accordion_is_not_sent() -> None:
    touched = {"hires_prompt": "a ring", "txt2img_hr_scale": 3.0, "txt2img_checkpoint": "other"}
    assert not {"hr_prompt", "hr_scale", "refiner_checkpoint"} & set(sent(touched))
    on = sent(touched | {HIRES_ON: True, REFINER_ON: True})
    assert on.items() >= {"hr_prompt": "a ring", "hr_scale": 3.0, "refiner_checkpoint": "other"}.items()


def test_a_choice_of_the_same_says_nothing() -> None:
    on = sent({HIRES_ON: True, REFINER_ON: True})
    silent = {"hr_checkpoint_name", "hr_sampler_name", "hr_scheduler", "hr_prompt", "hr_negative_prompt"}
    assert not silent & set(on)
    assert not {"refiner_checkpoint", "refiner_switch_at"} & set(on), "a refiner without a checkpoint is none"


@pytest.mark.parametrize("script", PANELS)
def test_a_panel_has_the_peers_labels_in_the_order_of_its_list(script: str, golden: Path) -> None:
    listed = json.loads((golden / "lists" / "script-info.json").read_text(encoding="utf-8"))
    [peer] = [each["args"] for each in listed if each["name"] == script and not each["is_img2img"]]
    assert [control.label for control in PANELS[script]] == [each["label"] for each in peer]
    for control, each in zip(PANELS[script], peer, strict=True):
        assert control.default == (each["value"] or control.default), control.label
        if isinstance(control, Slider):
            bounds = (each["minimum"], each["maximum"], each["step"])
            assert (control.minimum, control.maximum, control.step) == bounds
        if isinstance(control, Options):
            assert list(control.choices) == each["choices"]


@pytest.mark.parametrize("case", ["xyz-3d", "xyz-cfg-steps", "xyz-seed", "xyz-sr", "xyz-varyx"])
def test_the_form_can_say_what_the_peers_own_plots_were_asked(case: str, golden: Path) -> None:
    recorded = json.loads((golden / "cases" / f"{case}.json").read_text(encoding="utf-8"))["payload"]
    form: dict[str, Any] = {SCRIPTS[0].elem_id: "X/Y/Z plot"}
    for control, value in zip(XYZ, recorded["script_args"], strict=True):
        form[control.elem_id] = AXES[value].label if isinstance(control, Choice) else value
    asked = sent(form)
    assert asked["script_name"] == recorded["script_name"]
    assert asked["script_args"] == recorded["script_args"]


def test_axes_are_named_by_their_place_whatever_is_left_out() -> None:
    assert set(OFFERED) <= set(PLACES)
    assert [PLACES[name] for name in ("Nothing", "Seed", "Steps", "CFG Scale", "Clip skip")] == [
        0,
        1,
        4,
        6,
        24,
    ]
    assert "Face restore" not in OFFERED


def test_chips_become_options_of_their_type_and_back() -> None:
    options = {
        "CLIP_stop_at_last_layers": 2,
        "eta_noise_seed_delta": 31337,
        "sgm_noise_multiplier": True,
        "eta_ancestral": 0.5,
        "sd_vae": "a: b.safetensors",
    }
    chips = chips_of(options)
    assert chips[0] == "Clip skip: 2"
    assert overrides_of(chips) == options
    assert filled(override_settings=chips)["override_settings"] == options
    assert "override_settings" not in filled(override_settings=[])


@pytest.mark.parametrize("chip", ["Clip skip: x", "no such option: 1", "", "Tiling: perhaps", "Eta:"])
def test_a_chip_that_makes_no_sense_is_named(chip: str) -> None:
    with pytest.raises(InvalidRequest, match="Override settings"):
        overrides_of([chip])


def test_every_label_of_a_chip_names_an_option() -> None:
    assert overrides_of([f"{label}: 1" for label in ("Clip skip", "ENSD", "Eta")])
    assert len(set(LABELS.values())) == len(LABELS)


def test_units_of_the_pages_script_become_members_of_the_request_and_nonsense_is_refused() -> None:
    units = {"controlnet": {"args": [{"enabled": True, "image": "an-id"}]}}
    assert members(json.dumps(units)) == {"alwayson_scripts": units}
    assert members("") == members(None) == members("{}") == {}
    for nonsense in ("[1]", "{", "7"):
        with pytest.raises(ValueError):
            members(nonsense)
