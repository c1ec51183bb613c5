"""Cards of extra networks and the quick settings in a real Chromium, before the scripted portal and in the
whole studio.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Locator, expect

from tests.browser.conftest import ADA, Visit, Visitor
from tests.browser.model_double import model
from tests.browser.portal_double import Double
from tests.browser.stage import ROOT, Stage, Studio, last_job, on_stage

pytestmark = [pytest.mark.browser]


def open_tab(visitor: Visitor, name: str) -> None:
    visitor.page.get_by_role("tab", name=name, exact=True).click()
    visitor.page.locator(".card").first.wait_for()


def card(visitor: Visitor, name: str) -> Locator:
    return visitor.page.locator(f'.card[data-name="{name}"]')


def names(visitor: Visitor) -> list[str]:
    """The cards in sight, in their order."""
    found = visitor.page.locator(".card:not([hidden])")
    return list(found.evaluate_all("(cards) => cards.map((each) => each.dataset.name)"))


def test_a_click_puts_a_card_into_the_prompt_and_another_takes_it_out(ada: Visitor, stage: Stage) -> None:
    page = ada.page
    prompt, negative = (page.locator(f"#txt2img_{name} textarea") for name in ("prompt", "neg_prompt"))
    ada.prompt("a portrait")
    open_tab(ada, "Lora")
    expect(page.locator("#txt2img_settings")).to_be_hidden()
    use = card(ada, "ada").locator(".use")
    use.click()
    expect(prompt).to_have_value("a portrait <lora:ada_v2:0.8> ada, hat")
    expect(negative).to_have_value("bald")
    expect(use).to_have_attribute("aria-pressed", "true")
    use.press("ArrowRight")
    expect(card(ada, "zebra").locator(".use")).to_be_focused()
    page.keyboard.press("Enter")
    expect(prompt).to_have_value("a portrait <lora:ada_v2:0.8> ada, hat <lora:zebra:1>")
    use.click()
    expect(prompt).to_have_value("a portrait <lora:zebra:1>")
    expect(negative).to_have_value("")
    open_tab(ada, "Hypernetworks")
    card(ada, "calm").locator(".use").click()
    negative.focus()
    open_tab(ada, "Textual Inversion")
    card(ada, "bad-hands").locator(".use").click()
    expect(negative).to_have_value("bad-hands")
    open_tab(ada, "Checkpoints")
    card(ada, "painter").locator(".use").click()
    title = page.get_by_label("Stable Diffusion checkpoint")
    expect(title).to_have_value("painter.safetensors [0123456789]")
    page.get_by_role("tab", name="Generation").click()
    ada.choose("setting_sd_vae", "soft.safetensors")
    skip = page.locator("#setting_CLIP_stop_at_last_layers input[type=number]")
    skip.fill("2")
    skip.blur()
    ada.number("steps", 1)
    ada.generate()
    ada.finished()
    payload = last_job(stage)
    assert payload["prompt"] == "a portrait <lora:zebra:1> <hypernet:calm:0.6>"
    assert payload["override_settings"] == {"sd_vae": "soft.safetensors", "CLIP_stop_at_last_layers": 2}
    assert list(stage.double.jobs.values())[-1].model == "painter.safetensors [0123456789]"


def test_cards_are_looked_for_sorted_foldered_and_told_about(visit: Visit, stage: Stage) -> None:
    stage.double.permissions = ["models.manage"]
    stage.double.models += [model(f"many {index:04d}", "lora", folder="many") for index in range(1000)]
    ada = visit(stage.url, width=390, height=844, look="dark")
    ada.log_in(*ADA)
    page = ada.page
    open_tab(ada, "Lora")
    assert page.evaluate("() => document.documentElement.scrollWidth - window.innerWidth") <= 0
    expect(card(ada, "grand")).to_be_hidden()
    expect(page.locator(".cards-said")).to_contain_text("1 of another family")
    page.get_by_label("Other families").check()
    expect(card(ada, "grand")).to_be_visible()
    expect(card(ada, "grand").locator(".description")).to_have_text("<b>For the large ones</b>")
    page.get_by_role("group", name="Folders").get_by_role("button", name="people", exact=True).click()
    assert names(ada) == ["ada"]
    page.get_by_role("button", name="All", exact=True).click()
    page.get_by_label("Search the cards").fill("many 099")
    assert len(names(ada)) == 11
    page.get_by_label("Search the cards").fill("a")
    page.get_by_label("Sort by").select_option("created")
    page.get_by_title("Ascending; sort descending").click()
    assert names(ada)[:2] == ["ada", "zebra"]
    zebra = card(ada, "zebra")
    assert zebra.locator("img").get_attribute("loading") == "lazy"
    zebra.get_by_role("button", name="Metadata").click()
    dialog = page.locator("#txt2img_metadata_dialog")
    expect(dialog.locator("pre")).to_contain_text('"smile": 12')
    dialog.get_by_role("button", name="Close").click()
    zebra.get_by_role("button", name="Edit notes").click()
    form = page.locator("#txt2img_edit_model_dialog")
    form.get_by_role("button", name="smile").click()
    form.get_by_label("Preferred weight").fill("0.5")
    form.get_by_label("Family").select_option("sdxl")
    form.get_by_role("button", name="Save").click()
    expect(zebra.locator(".badge")).to_have_text("SDXL")
    zebra.locator(".use").click()
    expect(page.locator("#txt2img_prompt textarea")).to_have_value("<lora:zebra:0.5> smile")
    page.get_by_label("Search the cards").fill("")
    page.get_by_label("Look for new files").click()
    # a thousand cards drawn anew in software take a busy machine its time
    expect(card(ada, "fresh")).to_be_attached(timeout=90_000)
    zebra.get_by_role("button", name="Take the picture").click()
    expect(page.locator(".cards-said")).to_contain_text("Make or choose a picture first")


def test_a_checkpoints_notes_name_the_vae_it_prefers_and_a_networks_do_not(
    visit: Visit, stage: Stage
) -> None:
    stage.double.permissions = ["models.manage"]
    ada = visit(stage.url)
    ada.log_in(*ADA)
    form = ada.page.locator("#txt2img_edit_model_dialog")
    open_tab(ada, "Lora")
    card(ada, "ada").hover()
    card(ada, "ada").get_by_role("button", name="Edit notes").click()
    expect(form.get_by_label("Trigger words")).to_be_visible()
    expect(form.get_by_label("Preferred VAE")).to_be_hidden()
    form.get_by_role("button", name="Cancel").click()
    open_tab(ada, "Checkpoints")
    for chosen, before in (("soft.safetensors", ""), ("None", "soft.safetensors")):
        card(ada, "painter").hover()
        card(ada, "painter").get_by_role("button", name="Edit notes").click()
        expect(form.get_by_label("Preferred VAE")).to_have_value(before)
        form.get_by_label("Preferred VAE").select_option(chosen)
        form.get_by_role("button", name="Save").click()
        expect(form).to_be_hidden()
    assert [each["vae"] for each in stage.double.models if each["name"] == "painter"] == ["None"]


def test_folders_are_a_row_or_a_tree_and_the_keys_walk_it(visit: Visit, stage: Stage) -> None:
    stage.double.models += [
        model("tabby", "lora", folder="animals/cats"),
        model("rex", "lora", folder="animals/dogs"),
    ]
    ada = visit(stage.url)
    ada.log_in(*ADA)
    page, keys = ada.page, ada.page.keyboard
    open_tab(ada, "Lora")
    page.get_by_label("Other families").check()
    expect(page.get_by_label("Other families")).to_have_css("appearance", "auto")
    folders = page.get_by_role("group", name="Folders").get_by_role("button")
    row = ["All", "animals", "animals/cats", "animals/dogs", "people", "people/friends"]
    expect(folders).to_have_text(row)
    page.locator("#txt2img_extra_tree").click()
    branches = page.get_by_role("tree", name="Folders").get_by_role("treeitem")
    expect(branches).to_have_text(["All5", "animals3", "people1"])
    branches.nth(1).click()
    assert names(ada) == ["rex", "tabby", "zebra"]
    keys.press("ArrowRight")
    expect(branches).to_have_text(["All5", "animals3", "cats1", "dogs1", "people1"])
    keys.press("ArrowRight")
    keys.press("Enter")
    assert names(ada) == ["tabby"]
    expect(branches.nth(2)).to_be_focused()
    keys.press("ArrowLeft")
    keys.press("ArrowLeft")
    expect(branches).to_have_text(["All5", "animals3", "people1"])
    assert names(ada) == ["rex", "tabby", "zebra"], "a folder that closes takes what was chosen in it"
    page.reload()
    ada.ready()
    open_tab(ada, "Lora")
    expect(branches).to_have_text(["All5", "animals3", "people1"])
    page.locator("#txt2img_extra_tree").click()
    expect(folders).to_have_text(row)
    next(each for each in stage.double.models if each["name"] == "rex")["missing_since"] = 1.0
    page.get_by_label("Look for new files").click()
    expect(page.locator(".cards-said")).to_contain_text("rex.safetensors [0123456789]: moved or deleted")
    expect(card(ada, "rex")).to_have_count(0)
    expect(folders).to_have_text([each for each in row if each != "animals/dogs"])


def test_the_tabs_are_those_of_the_installed_extensions_and_go_with_them(
    visit: Visit, tmp_path: Path
) -> None:
    for package in ("atelier", "webui", "extensions"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.rmtree(tmp_path / "extensions" / "lora")
    other = tmp_path / "extensions" / "sketches"
    other.mkdir()
    (other / "extension.toml").write_text(
        'name = "sketches"\nversion = "1"\ncontract = "1.0"\nparts = ["ui"]\n'
    )
    (other / "ui.py").write_text(
        "from atelier.extension import hookimpl\n\n\n@hookimpl\ndef controls():\n"
        "    return [{'type': 'cards', 'title': 'My Sketches', 'kind': 'embedding', 'tag': '~{name}~',"
        " 'order': 25}, {'type': 'lever'}]\n"
    )
    with on_stage(Double(), tmp_path / "webui.log", tmp_path) as stage:
        ada = visit(stage.url)
        ada.log_in(*ADA)
        tabs = ada.page.locator(".tab-strip [role=tab]")
        expect(tabs).to_have_text(
            ["Generation", "Textual Inversion", "Hypernetworks", "My Sketches", "Checkpoints"]
        )
        open_tab(ada, "My Sketches")
        card(ada, "bad-hands").locator(".use").click()
        expect(ada.page.locator("#txt2img_prompt textarea")).to_have_value("~bad-hands~")
        expect(card(ada, "bad-hands").locator(".use")).to_have_attribute("aria-pressed", "true")
        stage.double.models = [each for each in stage.double.models if each["kind"] != "hypernetwork"]
        ada.page.get_by_role("tab", name="Hypernetworks").click()
        expect(ada.page.locator(".cards-said")).to_have_text("No hypernetwork is registered yet.")
    assert "sketches: this version draws no control" in (tmp_path / "webui.log").read_text()


def network(name: str) -> bytes:
    """The smallest LoRA of SD1, by its shapes."""
    shapes = {f"lora_unet_{name}_attn2_to_k.lora_down.weight": [1, 768]}
    header, end = {}, 0
    for key, (rows, columns) in shapes.items():
        header[key] = {
            "dtype": "F32",
            "shape": [rows, columns],
            "data_offsets": [end, end + 4 * rows * columns],
        }
        end += 4 * rows * columns
    text = json.dumps({"__metadata__": {"ss_output_name": "Tiny One"}} | header).encode()
    return len(text).to_bytes(8, "little") + text + bytes(end)


def test_in_the_studio_an_uploaded_network_becomes_a_card_with_a_picture_of_the_gallery(
    visit: Visit, studio: Studio
) -> None:
    admin = visit(studio.url)
    admin.log_in("admin", "an admin of this test alone")
    page = admin.page
    page.goto(studio.url + "/portal/models")
    page.get_by_label("Model file").set_input_files(
        {"name": "tiny.safetensors", "mimeType": "application/octet-stream", "buffer": network("a")}
    )
    page.get_by_label("Kind").first.select_option("lora")
    page.get_by_role("button", name="Upload").click()
    expect(page.get_by_role("row", name="tiny")).to_be_visible()
    page.goto(studio.url + "/")
    admin.ready()
    for name, value in (("width", 64), ("height", 64), ("steps", 1)):
        admin.number(name, value)
    admin.generate()
    admin.finished()
    open_tab(admin, "Lora")
    tiny = card(admin, "tiny")
    tiny.locator(".use").click()
    expect(page.locator("#txt2img_prompt textarea")).to_have_value("<lora:Tiny One:1>")
    tiny.hover()
    tiny.get_by_role("button", name="Take the picture").click()
    expect(tiny.locator("img")).to_be_visible()
    headers = {"Authorization": f"Bearer {studio.admin}"}
    [view] = httpx.get(f"{studio.url}/api/v1/models?kind=lora", headers=headers, trust_env=False).json()
    shown = httpx.get(studio.url + view["preview_url"], headers=headers, trust_env=False)
    assert (shown.status_code, shown.headers["content-type"]) == (200, "image/webp")
