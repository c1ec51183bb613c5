"""The ControlNet section in a real Chromium: a picture goes up, into a map, and into the request."""

from __future__ import annotations

import io

import pytest
from PIL import Image
from playwright.sync_api import expect

from tests.browser.conftest import Visitor
from tests.browser.stage import Stage, last_job

pytestmark = [pytest.mark.browser]


def picture() -> bytes:
    """A PNG of 64 x 48, red above and blue below."""
    made = Image.new("RGB", (64, 48), "blue")
    made.paste("red", (0, 0, 64, 24))
    out = io.BytesIO()
    made.save(out, "PNG")
    return out.getvalue()


def test_a_unit_sends_its_picture_numbers_and_model_with_the_form(ada: Visitor, stage: Stage) -> None:
    page = ada.page
    ada.prompt("a house")
    ada.number("steps", 1)
    page.locator("#controlnet_section > summary").click()
    unit = page.locator("#controlnet_unit_0_panel")
    expect(unit.locator("#controlnet_unit_0_model option")).to_have_count(2)
    unit.locator("#controlnet_unit_0_file").set_input_files(
        {"name": "notes.txt", "mimeType": "text/plain", "buffer": b"no picture"}
    )
    expect(unit.locator(".unit-said")).to_have_text("This is no picture that can be read.")
    [fault] = ada.faults
    assert "422" in fault
    ada.faults.clear()
    unit.locator("#controlnet_unit_0_file").set_input_files(
        {"name": "house.png", "mimeType": "image/png", "buffer": picture()}
    )
    expect(unit.locator("#controlnet_unit_0_enabled")).to_be_checked()
    expect(unit.locator(".unit-drop img")).to_be_visible()
    expect(unit.locator(".unit-said")).to_be_empty()
    expect(page.locator("#controlnet_section .units-state")).to_have_text("1 on")
    expect(unit.get_by_label("Low Threshold")).to_have_count(0)
    unit.get_by_label("Preprocessor").select_option("canny")
    unit.get_by_label("Low Threshold").fill("50")
    unit.get_by_label("Low Threshold").blur()
    unit.get_by_role("button", name="Preview").click()
    expect(unit.locator(".unit-map img")).to_be_visible()
    unit.get_by_label("Pixel Perfect").check()
    expect(unit.get_by_label("Resolution")).to_be_hidden()
    unit.locator("#controlnet_unit_0_model").select_option(label="edges")
    unit.get_by_label("Ending Control Step").fill("0.7")
    unit.get_by_label("Ending Control Step").blur()
    unit.get_by_label("Control Mode").select_option("ControlNet is more important")
    ada.generate()
    ada.finished()
    [first, second, third] = last_job(stage)["alwayson_scripts"]["controlnet"]["args"]
    [asset] = stage.double.assets
    assert first == {
        "enabled": True, "image": asset, "module": "canny", "model": "edges.safetensors [0123456789]",
        "pixel_perfect": True, "control_mode": "ControlNet is more important",
        "resize_mode": "Crop and Resize", "hr_option": "Both", "weight": 1, "guidance_start": 0,
        "guidance_end": 0.7, "processor_res": 512,
        "threshold_a": 50, "threshold_b": 200,
    }  # fmt: skip
    assert second == third == {"enabled": False}
    unit.get_by_role("button", name="Remove picture").click()
    expect(unit.locator("#controlnet_unit_0_enabled")).not_to_be_checked()
    ada.generate()
    ada.state("idle")
    expect(page.locator("#txt2img_picture")).to_be_visible()


def test_tabs_of_units_are_walked_by_keys_and_each_keeps_its_own(ada: Visitor) -> None:
    page = ada.page
    page.locator("#controlnet_section > summary").click()
    page.locator("#controlnet_unit_0_module").select_option("threshold")
    page.locator("#controlnet_unit_0_tab").focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator("#controlnet_unit_1_panel")).to_be_visible()
    expect(page.locator("#controlnet_unit_0_panel")).to_be_hidden()
    expect(page.locator("#controlnet_unit_1_module")).to_have_value("none")
    page.keyboard.press("ArrowLeft")
    expect(page.locator("#controlnet_unit_0_module")).to_have_value("threshold")
    expect(page.locator("#controlnet_unit_0_threshold_a")).to_have_value("127")
