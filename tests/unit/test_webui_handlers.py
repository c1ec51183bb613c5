"""What the form's handlers answer: counters, sizes, styles, axes, pasted parameters and refusals."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from atelier.pasting import paste
from tests.browser.portal_double import Double, create_double
from webui.handlers import scripts
from webui.handlers.generate import generator
from webui.handlers.hires import describe_sizes, final_size
from webui.handlers.paste import PASTED, fitting, form_updates, paster
from webui.handlers.styles import style_applier, style_lister, with_styles
from webui.handlers.tokens import token_counter, tokens
from webui.handlers.upscale import upscaled, upscaler
from webui.params.form import FORM
from webui.params.scripts import OFFERED, has_choices
from webui.params.table import Control, defaults
from webui.params.txt2img import HIRES, TXT2IMG, switch_of
from webui.portal import Portal

ADA: Any = SimpleNamespace(cookies={"atelier": "session-of-ada"})
NOBODY: Any = SimpleNamespace(cookies={})
KNOWN = [
    {"name": "wrap", "prompt": "photo of {prompt}, bright", "negative_prompt": "dark"},
    {"name": "plain", "prompt": "sharp edges", "negative_prompt": "blurry, {prompt}"},
]


def portal(double: Double | None = None) -> Portal:
    return Portal("http://portal", transport=httpx.ASGITransport(create_double(double or Double())))


def by_id(elem_id: str) -> Control:
    return next(control for control in FORM if control.elem_id == elem_id)


def untouched() -> list[Any]:
    values = defaults(FORM)
    return [values[control.elem_id] for control in FORM]


@pytest.mark.parametrize(
    ("prompt", "count"),
    [
        ("", "0/75"),
        ("a (red:1.2) circle <lora:x:1>", "3/75"),
        ("[a:a red circle:5]", "3/75"),
        ("a red circle AND a ring", "3/75"),
        ("a circle # not this", "2/75"),
        ("circle, " * 40, "80/150"),
        ("(a", "⚠ 1 ( is not closed. 1/75"),
        ("x" * 20_001, "⚠ 20,001 characters are too many: a prompt has at most 20,000."),
    ],
)
def test_a_counter_shows_the_longest_step_and_what_is_wrong(prompt: str, count: str) -> None:
    assert tokens(prompt) == count


def test_network_tags_count_in_the_negative_prompt_where_they_are_text() -> None:
    assert tokens("<lora:x:1>", positive=False) != "0/75"


def test_the_counters_count_the_chosen_styles() -> None:
    count = token_counter(portal())
    assert asyncio.run(count(ADA, "a circle", "", ["wrap", "plain"], 20)) == ("9/75", "3/75")
    assert asyncio.run(count(NOBODY, "a circle", None, ["wrap"], None)) == ("2/75", "0/75")


def test_styles_are_put_around_or_behind_in_their_order() -> None:
    assert with_styles("a cat", "", ["wrap", "plain"], KNOWN) == (
        "photo of a cat, bright, sharp edges",
        "blurry, dark",
    )
    assert with_styles("a cat", "b", ["gone"], KNOWN) == ("a cat", "b")


def test_applying_styles_empties_the_choice_and_a_refusal_changes_nothing() -> None:
    apply = style_applier(portal())
    prompt, negative, chosen = asyncio.run(apply(ADA, "a cat", "", ["wrap"]))
    assert (prompt["value"], negative["value"], chosen["value"]) == ("photo of a cat, bright", "dark", [])
    assert all("value" not in each for each in asyncio.run(apply(NOBODY, "a cat", "", ["wrap"])))


def test_the_list_of_styles_keeps_those_chosen_that_still_exist() -> None:
    listed = asyncio.run(style_lister(portal())(ADA, ["plain", "gone"]))
    assert (listed["choices"], listed["value"]) == (["wrap", "plain"], ["plain"])
    assert "choices" not in asyncio.run(style_lister(portal())(NOBODY, ["plain"]))


@pytest.mark.parametrize(
    ("form", "size"),
    [
        ((512, 512, 2.0, 0, 0), (1024, 1024)),
        ((512, 768, 1.55, 0, 0), (792, 1184)),
        ((512, 768, 2.0, 1024, 0), (1024, 1536)),
        ((512, 768, 2.0, 0, 1024), (680, 1024)),
        ((512, 768, 2.0, 1000, 1000), (1000, 1000)),
        ((None, None, None, None, None), (0, 0)),
    ],
)
def test_the_final_size_follows_the_scale_or_the_side_to_resize_to(form: Any, size: tuple[int, int]) -> None:
    assert final_size(*form) == size


def test_the_header_speaks_of_sizes_only_while_hires_fix_is_on() -> None:
    assert describe_sizes(False, 512, 512, 2, 0, 0) == ""
    assert describe_sizes(True, 512, 640, 2, 0, 0) == "from 512x640 to 1024x1280"


def axes(csv_mode: bool, *values: Any) -> list[Any]:
    return list(asyncio.run(scripts.axes_shower(portal())(ADA, csv_mode, *values)))


def test_an_axis_with_a_list_shows_it_and_takes_over_what_was_typed() -> None:
    kind, typed, picked, fill = axes(False, "Sampler", "Euler, no such, LMS", [])
    assert (kind["value"], typed["value"], typed["visible"]) == ("Sampler", "", "hidden")
    assert (picked["value"], picked["visible"]) == (["Euler", "LMS"], True)
    assert "idle" not in fill["elem_classes"]


def test_an_axis_without_a_list_keeps_its_text() -> None:
    _, typed, picked, fill = axes(False, "Steps", "1-10 [3]", ["Euler"])
    assert (typed["value"], typed["visible"]) == ("1-10 [3]", True)
    assert (picked["value"], picked["visible"]) == ([], "hidden")
    assert "idle" in fill["elem_classes"]


def test_text_inputs_write_the_picked_values_as_a_line() -> None:
    _, typed, picked, _ = axes(True, "Checkpoint name", "", ["painter.safetensors [0123456789]"])
    assert typed["value"] == "painter.safetensors [0123456789]"
    assert picked["visible"] == "hidden"


@pytest.mark.parametrize("axis", OFFERED)
def test_an_axis_is_filled_with_everything_it_offers_or_left_alone(axis: str) -> None:
    fill = scripts.axis_filler(portal())
    typed, picked = asyncio.run(fill(ADA, False, axis, "", []))
    written, _ = asyncio.run(fill(ADA, True, axis, "", []))
    assert "value" not in typed
    assert ("value" in picked) == has_choices(axis)
    if "value" in picked:
        assert scripts.split(written["value"]) == picked["value"]


def test_values_with_commas_and_quotes_survive_a_line() -> None:
    values = ["a, b", 'say "x"', "plain"]
    assert scripts.split(scripts.joined(values)) == values
    assert scripts.split("") == []


def read(text: str) -> dict[str, Any]:
    parameters, pasted = paste(text)
    ignored = [each._asdict() for each in pasted.ignored]
    return {
        "infotext": text,
        "parameters": parameters,
        "fields": pasted.fields,
        "overrides": pasted.overrides,
        "ignored": ignored,
    }


def test_pasting_switches_off_what_the_parameters_do_not_speak_of() -> None:
    updates, notes = form_updates(read("a cat\nSteps: 3, Sampler: Euler, Seed: 5"))
    for switch in (
        "txt2img_hr-checkbox",
        "txt2img_enable-checkbox",
        "txt2img_subseed_show",
        "txt2img_tiling",
    ):
        assert updates[switch]["value"] is False, switch
    assert updates["txt2img_override_settings"]["visible"] == "hidden"
    assert updates["script_list"]["value"] == "None"
    assert "txt2img_batch_count" not in updates, "what is not named stays as it is"
    assert notes == []


@pytest.mark.parametrize(
    ("elem_id", "value", "held", "noted"),
    [
        ("txt2img_steps", "33", 33, False),
        ("txt2img_hr_scale", 8.0, 4, True),
        ("txt2img_seed_resize_from_w", -1, 0, False),
        ("txt2img_sampling", "k_euler_a", "Euler a", False),
        ("txt2img_scheduler", "karras", "Karras", False),
        ("txt2img_hr_upscaler", "latent (nearest)", "Latent (nearest)", False),
        ("txt2img_hr_upscaler", "4x-UltraSharp", None, True),
        ("hr_checkpoint", "anything at all", "anything at all", False),
        ("txt2img_steps", "many", None, True),
        ("txt2img_styles", ["a"], ["a"], False),
        ("txt2img_tiling", "True", True, False),
        ("txt2img_prompt", "a: b", "a: b", False),
    ],
)
def test_a_pasted_value_becomes_one_the_control_can_hold(
    elem_id: str, value: Any, held: Any, noted: bool
) -> None:
    found, note = fitting(by_id(elem_id), value)
    assert (found, bool(note)) == (held, noted)
    assert type(found) is type(held)


def test_pasting_without_a_session_says_so_and_changes_nothing() -> None:
    said, *updates = asyncio.run(paster(portal())(NOBODY, "a\nSteps: 1, Sampler: Euler, Seed: 1"))
    assert json.loads(said)["error"]["code"] == "not_authenticated"
    assert len(updates) == len(PASTED)
    assert all("value" not in each for each in updates)


def test_a_job_is_refused_in_words_where_the_form_cannot_be_read() -> None:
    generate = generator(portal())
    assert (
        "Reload" in json.loads(asyncio.run(generate(ADA, None, None, "only one value")))["error"]["message"]
    )
    assert (
        json.loads(asyncio.run(generate(NOBODY, None, None, *untouched())))["error"]["code"]
        == "not_authenticated"
    )


def test_upscaling_keeps_the_picture_and_takes_the_second_pass_from_the_form() -> None:
    form = defaults(FORM) | {"txt2img_hr_scale": 1.5, "hires_prompt": "finer", "txt2img_prompt": "not this"}
    text = "a cat\nSteps: 3, Sampler: Euler, Seed: 5, Size: 64x64, Clip skip: 2, Batch size: 4"
    found = upscaled(read(text), form)
    own = {"prompt": "a cat", "seed": 5, "steps": 3, "width": 64, "batch_size": 1, "n_iter": 1}
    second = {"enable_hr": True, "hr_scale": 1.5, "hr_prompt": "finer", "denoising_strength": 0.7}
    assert found.items() >= (own | second).items()
    assert found["override_settings"] == {"CLIP_stop_at_last_layers": 2}
    assert switch_of(HIRES) in {control.elem_id for control in TXT2IMG}


def test_upscaling_nothing_is_refused_in_words() -> None:
    said = json.loads(asyncio.run(upscaler(portal())(ADA, "", None, *untouched())))
    assert "could not be read" in said["error"]["message"]
