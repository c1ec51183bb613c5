"""Every control of txt2img in a real Chromium: what the page shows, and what of it reaches the portal."""

from __future__ import annotations

import io
import re
from typing import Any

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from playwright.sync_api import Locator, expect

from atelier.vocabulary import LATENT_UPSCALERS, SAMPLERS, SCHEDULERS
from tests.browser.conftest import ADA, Visit, Visitor
from tests.browser.stage import Stage, last_job

pytestmark = [pytest.mark.browser]

PAINTER = "painter.safetensors [0123456789]"
LARGE = "large.safetensors [0123456789]"
XYZ = "script_txt2img_xyz_plot"

INFOTEXT = (
    "a (red:1.2) circle\nNegative prompt: square\n"
    "Steps: 33, Sampler: DPM++ SDE, Schedule type: Exponential, CFG scale: 5.5, Seed: 77, Size: 192x256, "
    "Model hash: 0123456789, Model: painter, Variation seed: 9, Variation seed strength: 0.25, "
    "Seed resize from: 128x64, Denoising strength: 0.4, Clip skip: 2, ENSD: 31337, Tiling: True, "
    'Hires checkpoint: painter, Hires sampler: Euler, Hires prompt: "a ring, red", Hires upscale: 1.5, '
    "Hires steps: 7, Hires upscaler: Lanczos, Refiner: large, Refiner switch at: 0.6, Version: v1.10.1"
)


def drawn(ada: Visitor, stage: Stage) -> dict[str, Any]:
    """The payload of a job that is quickly done."""
    ada.number("steps", 1)
    ada.generate()
    ada.finished()
    return last_job(stage)


def number(ada: Visitor, name: str) -> Locator:
    return ada.page.locator(f"#txt2img_{name} input[type=number]")


def options(ada: Visitor, elem_id: str) -> list[str]:
    """What a dropdown offers."""
    ada.page.locator(f"#{elem_id} input").click()
    listed = ada.page.locator(f"#{elem_id}").get_by_role("option")
    expect(listed.first).to_be_visible()
    offered = listed.all_inner_texts()
    ada.page.keyboard.press("Escape")
    expect(listed).to_have_count(0)
    ada.page.locator(f"#{elem_id} input").blur()
    return [each.replace("✓", "").strip() for each in offered]


def test_all_samplers_and_schedules_of_the_peer_are_offered(ada: Visitor) -> None:
    assert options(ada, "txt2img_sampling") == [each.name for each in SAMPLERS]
    assert options(ada, "txt2img_scheduler") == [each.label for each in SCHEDULERS]
    assert len(SAMPLERS) == 20
    assert len(SCHEDULERS) == 12


def test_hires_fix_opens_with_its_switch_and_says_what_becomes_of_the_size(
    ada: Visitor, stage: Stage
) -> None:
    page, line = ada.page, ada.page.locator("#txt2img_hr_line")
    upscaler = page.locator("#txt2img_hr_upscaler")
    expect(upscaler).to_be_hidden()
    expect(line).to_have_text("")
    page.locator("#txt2img_hr .fold-head").click()
    expect(page.get_by_label("Hires. fix")).to_be_checked()
    expect(upscaler).to_be_visible()
    expect(line).to_have_text("from 128x128 to 256x256")
    ada.number("hr_scale", 1.5)
    expect(line).to_have_text("from 128x128 to 192x192")
    ada.number("width", 256)
    expect(line).to_have_text("from 256x128 to 384x192")
    ada.number("hr_resize_x", 512)
    expect(line).to_have_text("from 256x128 to 512x256")
    assert options(ada, "txt2img_hr_upscaler") == [*LATENT_UPSCALERS, "None", "Lanczos", "Nearest"]
    ada.number("hr_resize_x", 0)
    assert drawn(ada, stage).items() >= {
        "enable_hr": True,
        "hr_upscaler": "Latent",
        "hr_second_pass_steps": 0,
        "denoising_strength": 0.7,
        "hr_scale": 1.5,
        "hr_resize_x": 0,
        "hr_resize_y": 0,
    }.items()  # fmt: skip
    assert not {"hr_checkpoint_name", "hr_sampler_name", "hr_scheduler", "hr_prompt"} & set(last_job(stage))
    page.get_by_label("Hires. fix").uncheck()
    expect(upscaler).to_be_hidden()
    expect(line).to_have_text("")
    assert not [name for name in drawn(ada, stage) if name.startswith("hr_") or name == "enable_hr"]


def test_every_control_of_hires_fix_reaches_the_portal(ada: Visitor, stage: Stage) -> None:
    ada.page.get_by_label("Hires. fix").check()
    ada.choose("txt2img_hr_upscaler", "Nearest")
    for name, value in {
        "hires_steps": 12,
        "denoising_strength": 0.35,
        "hr_resize_x": 320,
        "hr_resize_y": 192,
    }.items():
        ada.number(name, value)
    ada.choose("hr_checkpoint", PAINTER)
    ada.choose("hr_sampler", "Euler a")
    ada.choose("hr_scheduler", "Karras")
    ada.page.locator("#hires_prompt textarea").fill("a ring")
    ada.page.locator("#hires_neg_prompt textarea").fill("a square")
    expect(ada.page.locator("#txt2img_hr_line")).to_have_text("from 128x128 to 320x192")
    assert drawn(ada, stage).items() >= {
        "enable_hr": True,
        "hr_upscaler": "Nearest",
        "hr_second_pass_steps": 12,
        "denoising_strength": 0.35,
        "hr_resize_x": 320,
        "hr_resize_y": 192,
        "hr_checkpoint_name": PAINTER,
        "hr_sampler_name": "Euler a",
        "hr_scheduler": "Karras",
        "hr_prompt": "a ring",
        "hr_negative_prompt": "a square",
    }.items()  # fmt: skip


def test_the_refiner_counts_while_it_is_on_and_has_a_checkpoint(ada: Visitor, stage: Stage) -> None:
    page = ada.page
    expect(page.locator("#txt2img_checkpoint")).to_be_hidden()
    page.locator("#txt2img_enable .fold-head").click()
    expect(number(ada, "switch_at")).to_have_value("0.8")
    assert not {"refiner_checkpoint", "refiner_switch_at"} & set(drawn(ada, stage))
    stage.double.models.append(stage.double.models[1] | {"title": "new.safetensors"})
    page.locator("#txt2img_checkpoint_refresh").click()
    ada.choose("txt2img_checkpoint", "new.safetensors")
    ada.number("switch_at", 0.55)
    payload = drawn(ada, stage)
    assert (payload["refiner_checkpoint"], payload["refiner_switch_at"]) == ("new.safetensors", 0.55)


def test_the_variation_seed_can_be_drawn_and_used_again(ada: Visitor, stage: Stage) -> None:
    page, subseed = ada.page, ada.page.locator("#txt2img_subseed input")
    ada.number("seed", 40)
    drawn(ada, stage)
    page.get_by_label("Extra").check()
    page.locator("#txt2img_reuse_subseed").click()
    expect(subseed).to_have_value("41")
    ada.number("subseed_strength", 0.5)
    ada.number("seed_resize_from_w", 256)
    ada.number("seed_resize_from_h", 128)
    page.get_by_label("Tiling").check()
    sent = {"subseed": 41, "subseed_strength": 0.5, "seed_resize_from_w": 256, "seed_resize_from_h": 128}
    assert drawn(ada, stage).items() >= (sent | {"tiling": True}).items()
    page.locator("#txt2img_random_subseed").click()
    expect(subseed).to_have_value("-1")
    page.get_by_label("Extra").uncheck()
    expect(page.locator("#txt2img_seed_extras")).to_be_hidden()
    assert not set(sent) & set(drawn(ada, stage))


def test_styles_are_counted_sent_and_written_into_the_prompts(ada: Visitor, stage: Stage) -> None:
    page, styles = ada.page, ada.page.locator("#txt2img_styles")
    before = page.locator("#txt2img_panels").bounding_box()
    ada.prompt("a circle")
    ada.choose("txt2img_styles", "wrap", "plain")
    page.keyboard.press("Escape")
    expect(page.locator("#txt2img_token_counter")).to_have_text("9/75")
    expect(page.locator("#txt2img_negative_token_counter")).to_have_text("3/75")
    assert page.locator("#txt2img_panels").bounding_box() == before, "choosing styles moves nothing"
    payload = drawn(ada, stage)
    assert (payload["prompt"], payload["styles"]) == ("a circle", ["wrap", "plain"])
    page.locator("#txt2img_style_apply").click()
    expect(page.locator("#txt2img_prompt textarea")).to_have_value("photo of a circle, bright, sharp edges")
    expect(page.locator("#txt2img_neg_prompt textarea")).to_have_value("blurry, dark")
    expect(styles.locator(".token")).to_have_count(0)
    assert "styles" not in drawn(ada, stage)


def test_the_editor_keeps_changes_and_deletes_styles(ada: Visitor, stage: Stage) -> None:
    page = ada.page
    ada.prompt("a {prompt} on paper")
    page.locator("#txt2img_styles_edit_button").click()
    dialog = page.get_by_role("dialog", name="Styles")
    name, prompt, negative = (
        dialog.get_by_label(label, exact=True) for label in ("Style", "Prompt", "Negative prompt")
    )
    name.fill("plain")
    expect(prompt).to_have_value("sharp edges")
    expect(negative).to_have_value("blurry, {prompt}")
    name.fill("paper <b>/ ink")
    dialog.get_by_role("button", name="Copy from the prompts").click()
    expect(prompt).to_have_value("a {prompt} on paper")
    dialog.get_by_role("button", name="Save").click()
    expect(dialog.get_by_role("status")).to_have_text("“paper <b>/ ink” is saved.")
    assert stage.double.styles["paper <b>/ ink"] == ("a {prompt} on paper", "")
    name.fill("wrap")
    dialog.get_by_role("button", name="Delete").click()
    expect(dialog.get_by_role("status")).to_have_text("“wrap” is deleted.")
    with page.expect_file_chooser() as chooser:
        dialog.get_by_role("button", name="Import…").click()
    content = b"name,prompt,negative_prompt\nfilm,on film,digital\n"
    chooser.value.set_files({"name": "styles.csv", "mimeType": "text/csv", "buffer": content})
    expect(dialog.get_by_role("status")).to_have_text("1 added, 0 replaced.")
    expect(dialog.get_by_role("link", name="Export")).to_have_attribute("href", "/api/v1/styles/export")
    dialog.get_by_role("button", name="Close").click()
    expect(dialog).to_be_hidden()
    assert sorted(options(ada, "txt2img_styles")) == ["film", "paper <b>/ ink", "plain"]


def test_pasted_parameters_fill_the_whole_form(ada: Visitor, stage: Stage) -> None:
    page = ada.page
    chips = page.locator("#txt2img_override_settings")
    expect(chips).to_be_hidden()
    ada.prompt(INFOTEXT)
    page.locator("#paste").click()
    expect(page.locator("#txt2img_prompt textarea")).to_have_value("a (red:1.2) circle")
    expect(chips.locator(".token")).to_have_text([re.compile("ENSD: 31337")])
    expect(page.locator("#setting_CLIP_stop_at_last_layers input[type=number]")).to_have_value("2")
    expect(page.locator("#txt2img_hr_line")).to_have_text("from 192x256 to 288x384")
    for label in ("Hires. fix", "Refiner", "Extra", "Tiling"):
        expect(page.get_by_label(label, exact=True)).to_be_checked()
    chips.locator(".token").get_by_role("button").click()
    expect(chips).to_be_hidden()
    payload = drawn(ada, stage)
    assert payload == {
        "prompt": "a (red:1.2) circle",
        "negative_prompt": "square",
        "sampler_name": "DPM++ SDE",
        "scheduler": "Exponential",
        "steps": 1,
        "enable_hr": True,
        "hr_upscaler": "Lanczos",
        "hr_second_pass_steps": 7,
        "denoising_strength": 0.4,
        "hr_scale": 1.5,
        "hr_resize_x": 0,
        "hr_resize_y": 0,
        "hr_checkpoint_name": "painter",
        "hr_sampler_name": "Euler",
        "hr_scheduler": "Exponential",
        "hr_prompt": "a ring, red",
        "refiner_checkpoint": "large",
        "refiner_switch_at": 0.6,
        "width": 192,
        "height": 256,
        "n_iter": 1,
        "batch_size": 1,
        "cfg_scale": 5.5,
        "seed": 77,
        "tiling": True,
        "subseed": 9,
        "subseed_strength": 0.25,
        "seed_resize_from_w": 128,
        "seed_resize_from_h": 64,
        "override_settings": {"CLIP_stop_at_last_layers": 2},
        "save_images": True,
    }


def test_an_empty_prompt_pastes_the_callers_own_last_picture(ada: Visitor, stage: Stage) -> None:
    page = ada.page
    page.locator("#paste").click()
    expect(page.get_by_role("alert")).to_contain_text("You have no picture yet")
    ada.prompt("a red ring")
    ada.number("seed", 12)
    drawn(ada, stage)
    expect(page.get_by_role("alert")).to_be_hidden()
    page.get_by_label("Hires. fix").check()
    page.locator("#txt2img_clear_prompt").click()
    ada.number("seed", -1)
    page.locator("#paste").click()
    expect(page.locator("#txt2img_prompt textarea")).to_have_value("a red ring")
    expect(page.locator("#txt2img_seed input")).to_have_value("12")
    expect(page.get_by_label("Hires. fix")).not_to_be_checked()
    ada.prompt("no parameters in here")
    page.locator("#paste").click()
    expect(page.locator("#txt2img_notes")).to_contain_text("No generation parameters")
    expect(page.locator("#txt2img_prompt textarea")).to_have_value("no parameters in here")


def test_what_cannot_be_taken_over_is_said(ada: Visitor) -> None:
    ada.prompt("x\nSteps: 999, Sampler: Eulr, CFG scale: 42, Seed: 5, Size: 64x64")
    ada.page.locator("#paste").click()
    notes = ada.page.locator("#txt2img_notes li")
    expect(notes).to_have_count(3)
    expect(notes.nth(0)).to_contain_text("Steps was not taken over")
    expect(notes.nth(1)).to_contain_text("There is no sampler named 'Eulr'")
    expect(notes.nth(2)).to_have_text("CFG Scale: 42 is out of range, 30 was taken.")
    expect(number(ada, "cfg_scale")).to_have_value("30")
    expect(number(ada, "steps")).to_have_value("20")
    expect(ada.page.locator("#txt2img_seed input")).to_have_value("5")


def picture(infotext: str, form: str = "PNG") -> bytes:
    out, chunk = io.BytesIO(), PngInfo()
    if infotext:
        chunk.add_text("parameters", infotext)
    Image.new("RGB", (16, 16), "red").save(out, form, **({"pnginfo": chunk} if form == "PNG" else {}))
    return out.getvalue()


GIVE = """
([selector, kind, bytes, name, type]) => {
  const transfer = new DataTransfer();
  transfer.items.add(new File([new Uint8Array(bytes)], name, { type }));
  const target = document.querySelector(selector);
  const about = { bubbles: true, cancelable: true };
  target.dispatchEvent(kind === "drop"
    ? new DragEvent("drop", { ...about, dataTransfer: transfer })
    : new ClipboardEvent("paste", { ...about, clipboardData: transfer }));
}
"""


def give(ada: Visitor, kind: str, content: bytes, name: str = "x.png", media: str = "image/png") -> None:
    """Drop a file on the prompt, or paste it there from the clipboard."""
    ada.page.evaluate(GIVE, ["#txt2img_prompt textarea", kind, list(content), name, media])


def test_a_picture_dropped_on_the_prompt_or_pasted_into_it_fills_the_form(ada: Visitor, stage: Stage) -> None:
    page, seed = ada.page, ada.page.locator("#txt2img_seed input")
    give(ada, "drop", picture(INFOTEXT))
    expect(seed).to_have_value("77")
    expect(page.get_by_label("Hires. fix")).to_be_checked()
    give(ada, "paste", picture("a ring\nSteps: 3, Sampler: Euler, Seed: 78"))
    expect(seed).to_have_value("78")
    expect(page.get_by_label("Hires. fix")).not_to_be_checked()
    expect(page.locator("#txt2img_prompt textarea")).to_have_value("a ring")
    give(ada, "drop", picture(""))
    expect(page.get_by_role("alert")).to_contain_text("carries no generation parameters")
    give(ada, "drop", b"text", "x.txt", "text/plain")
    expect(page.get_by_role("alert")).to_contain_text("Only pictures")
    expect(page.locator("#txt2img_prompt textarea")).to_have_value("a ring")
    assert [sorted(each) for each in stage.double.readings] == [
        ["image"],
        ["text"],
        ["image"],
        ["text"],
        ["image"],
    ]


def test_a_picture_of_the_gallery_can_be_dropped_on_the_prompt(ada: Visitor, stage: Stage) -> None:
    ada.prompt("a red ring")
    ada.number("seed", 31)
    drawn(ada, stage)
    ada.prompt("")
    ada.number("seed", -1)
    ada.page.locator("#txt2img_picture").drag_to(ada.page.locator("#txt2img_prompt textarea"))
    expect(ada.page.locator("#txt2img_seed input")).to_have_value("31")
    expect(ada.page.locator("#txt2img_prompt textarea")).to_have_value("a red ring")


def test_the_prompt_matrix_sends_its_list(ada: Visitor, stage: Stage) -> None:
    page, panel = ada.page, ada.page.locator("#txt2img_script_prompt_matrix")
    expect(panel).to_be_hidden()
    assert options(ada, "script_list") == [
        "None", "Prompt matrix", "Prompts from file or textbox", "X/Y/Z plot",
    ]  # fmt: skip
    ada.choose("script_list", "Prompt matrix")
    expect(panel).to_be_visible()
    assert drawn(ada, stage)["script_args"] == [False, False, "positive", "comma", 0]
    panel.get_by_label("Put variable parts at start of prompt").check()
    panel.get_by_label("Use different seed for each picture").check()
    panel.get_by_label("negative").check()
    panel.get_by_label("space").check()
    page.locator("#script_txt2img_prompt_matrix_margin_size input[type=number]").fill("4")
    payload = drawn(ada, stage)
    assert payload["script_name"] == "prompt matrix"
    assert payload["script_args"] == [True, True, "negative", "space", 4]
    ada.choose("script_list", "None")
    expect(panel).to_be_hidden()
    assert not {"script_name", "script_args"} & set(drawn(ada, stage))


def test_prompts_from_a_file_or_the_textbox_are_sent(ada: Visitor, stage: Stage) -> None:
    page, panel = ada.page, ada.page.locator("#txt2img_script_prompts_from_file_or_textbox")
    ada.choose("script_list", "Prompts from file or textbox")
    with page.expect_file_chooser() as chooser:
        page.locator("#txt2img_prompts_file").click()
    chooser.value.set_files(
        {"name": "lines.txt", "mimeType": "text/plain", "buffer": b"a ring\r\na disc\r\n"}
    )
    lines = panel.get_by_label("List of prompt inputs")
    expect(lines).to_have_value("a ring\na disc")
    panel.get_by_label("Iterate seed every line").check()
    panel.get_by_label("end", exact=True).check()
    payload = drawn(ada, stage)
    assert payload["script_name"] == "prompts from file or textbox"
    assert payload["script_args"] == [True, False, "end", "a ring\na disc"]


def test_the_axes_of_a_plot_offer_lists_or_text_and_can_be_exchanged(ada: Visitor, stage: Stage) -> None:
    page = ada.page
    typed, picked = page.locator(f"#{XYZ}_x_values textarea"), page.locator(f"#{XYZ}_y_values_dropdown")
    ada.choose("script_list", "X/Y/Z plot")
    expect(page.get_by_label("X type")).to_have_value("Seed")
    typed.fill("1-3")
    ada.choose(f"{XYZ}_y_type", "Sampler")
    expect(picked).to_be_visible()
    expect(page.locator(f"#{XYZ}_y_values")).to_be_hidden()
    expect(page.locator(f"#{XYZ}_fill_x")).to_be_hidden()
    ada.choose(f"{XYZ}_y_values_dropdown", "Euler", "DPM++ 2M")
    page.keyboard.press("Escape")
    ada.choose(f"{XYZ}_z_type", "Checkpoint name")
    page.locator(f"#{XYZ}_fill_z").click()
    expect(page.locator(f"#{XYZ}_z_values_dropdown .token")).to_have_count(3)
    args = drawn(ada, stage)["script_args"]
    assert args[:6] == [1, "1-3", [], 9, "", ["Euler", "DPM++ 2M"]]
    assert args[6:9] == [11, "", ["atelier-demo.safetensors [0123456789]", LARGE, PAINTER]]
    assert args[9:] == [True, False, False, False, False, False, False, 0, False]
    page.locator(f"#{XYZ}_swap_xy_axes").click()
    expect(page.get_by_label("X type")).to_have_value("Sampler")
    expect(page.locator(f"#{XYZ}_x_values_dropdown .token")).to_have_count(2)
    expect(page.locator(f"#{XYZ}_y_values textarea")).to_have_value("1-3")
    page.get_by_label("Use text inputs instead of dropdowns").check()
    expect(typed).to_have_value("Euler,DPM++ 2M")
    for label in ("Draw legend", "Include Sub Images", "Vary seeds for Y"):
        page.get_by_label(label).click()
    page.locator(f"#{XYZ}_margin_size input[type=number]").fill("6")
    args = drawn(ada, stage)["script_args"]
    assert args[:6] == [9, "Euler,DPM++ 2M", [], 1, "1-3", []]
    assert args[9:] == [False, True, False, False, False, True, False, 6, True]


def test_a_pasted_plot_is_set_up_again(ada: Visitor, stage: Stage) -> None:
    ada.prompt(
        "a ring\nSteps: 1, Sampler: Euler, Seed: 5, Size: 64x64, Script: X/Y/Z plot, X Type: CFG Scale, "
        'X Values: "3, 6", Y Type: Sampler, Y Values: "Euler, LMS", Version: v1.10.1'
    )
    ada.page.locator("#paste").click()
    expect(ada.page.get_by_label("Script", exact=True)).to_have_value("X/Y/Z plot")
    expect(ada.page.locator(f"#{XYZ}_y_values_dropdown .token")).to_have_count(2)
    args = drawn(ada, stage)["script_args"]
    assert args[:7] == [6, "3, 6", [], 9, "", ["Euler", "LMS"], 0]


def test_upscaling_draws_the_selected_picture_with_the_hires_settings_beside_it(
    ada: Visitor, stage: Stage
) -> None:
    page = ada.page
    ada.prompt("a red ring")
    ada.number("batch_count", 2)
    ada.number("seed", 20)
    drawn(ada, stage)
    expect(page.locator("#txt2img_upscale")).to_be_hidden()
    page.locator(".thumbs button").nth(2).click()
    ada.prompt("something else")
    ada.number("width", 64)
    page.get_by_label("Hires. fix").check()
    ada.number("hr_scale", 1.5)
    page.get_by_label("Hires. fix").uncheck()
    page.locator("#txt2img_upscale").click()
    expect(page.locator(".thumbs button")).to_have_count(4)
    expect(page.locator(".thumbs button").nth(3)).to_have_attribute("aria-pressed", "true")
    payload = last_job(stage)
    own = {"prompt": "a red ring", "seed": 21, "width": 128, "height": 128, "n_iter": 1, "batch_size": 1}
    assert payload.items() >= (own | {"enable_hr": True, "hr_scale": 1.5, "steps": 1}).items()
    assert "firstpass_image" not in payload


def test_generating_for_ever_goes_on_until_it_is_taken_back(ada: Visitor, stage: Stage) -> None:
    page, jobs = ada.page, stage.double.jobs
    ada.number("steps", 2)
    page.locator("#txt2img_generate").click(button="right")
    expect(page.get_by_role("menuitem", name="Cancel generate forever")).to_be_disabled()
    page.get_by_role("menuitem", name="Generate forever", exact=True).click()
    page.wait_for_function("() => document.title.startsWith('[')")
    expect(page.locator("body[data-forever]")).to_be_attached()
    stage.double.step_s = 0.2
    expect(page.locator("#txt2img_interrupt")).to_be_visible()
    page.locator("#txt2img_interrupt").click(button="right")
    page.get_by_role("menuitem", name="Cancel generate forever").click()
    stage.double.step_s = 0
    ada.finished()
    count = len(jobs)
    assert count >= 1
    expect(page.locator("body[data-forever]")).to_have_count(0)
    drawn(ada, stage)
    assert len(jobs) == count + 1


def test_generating_for_ever_repeats_and_ends_with_a_refusal(ada: Visitor, stage: Stage) -> None:
    ada.number("steps", 1)
    ada.page.locator("#txt2img_generate").click(button="right")
    ada.page.get_by_role("menuitem", name="Generate forever", exact=True).click()
    ada.page.wait_for_function(
        "() => performance.getEntries().filter((each) => each.name.endsWith('/events')).length > 2"
    )
    stage.double.refuse_with = {"code": "too_many_requests", "message": "Enough.", "retryable": True}
    expect(ada.page.get_by_role("alert")).to_contain_text("Enough.")
    expect(ada.page.locator("body[data-forever]")).to_have_count(0)
    assert len(stage.double.jobs) >= 3


def test_a_wrong_chip_is_named_and_nothing_is_sent(ada: Visitor, stage: Stage) -> None:
    ada.prompt(INFOTEXT)
    ada.page.locator("#paste").click()
    chips = ada.page.locator("#txt2img_override_settings")
    chips.locator("input").fill("Clip skip: many")
    chips.locator("input").press("Enter")
    ada.generate()
    expect(ada.page.get_by_role("alert")).to_contain_text("'Clip skip: many'")
    assert stage.double.jobs == {}


SMALL_OR_OUTSIDE = """
() => [...document.querySelectorAll("button.tool")]
  .map((each) => [each.textContent, each.getBoundingClientRect()])
  .filter(([, box]) => box.width && (box.width < 44 || box.height < 44 || box.right > window.innerWidth))
  .map(([name]) => name)
"""


def test_everything_fits_on_a_phone_and_under_a_thumb(visit: Visit, stage: Stage) -> None:
    visitor = visit(stage.url, width=390, height=844)
    visitor.log_in(*ADA)
    page = visitor.page
    visitor.open_everything()
    for title in ("Prompt matrix", "Prompts from file or textbox", "X/Y/Z plot"):
        visitor.choose("script_list", title)
        expect(page.locator(".script-panel:not(.put-away)")).to_have_count(1)
        assert page.evaluate("() => document.documentElement.scrollWidth - window.innerWidth") <= 0, title
        assert page.evaluate(SMALL_OR_OUTSIDE) == [], title
