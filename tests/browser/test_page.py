"""The page in a real Chromium before a scripted portal: what a designer does, and what may go wrong."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import ADA, Visit, Visitor
from tests.browser.stage import Stage, last_job
from tests.waiting import eventually

pytestmark = [pytest.mark.browser]

GRACE = ("grace", "staple battery horse")


def test_the_form_starts_as_the_peers_does_at_the_checkpoints_own_size(ada: Visitor) -> None:
    page = ada.page
    expect(page.get_by_label("Stable Diffusion checkpoint")).to_have_value(
        "atelier-demo.safetensors [0123456789]"
    )
    expect(page.get_by_label("Sampling method", exact=True)).to_have_value("DPM++ 2M")
    expect(page.get_by_label("Schedule type", exact=True)).to_have_value("Automatic")
    for name, value in {
        "steps": "20",
        "width": "128",
        "height": "128",
        "batch_count": "1",
        "cfg_scale": "7",
    }.items():
        expect(page.locator(f"#txt2img_{name} input[type=number]")).to_have_value(value)
    expect(page.locator("#txt2img_seed input")).to_have_value("-1")
    expect(page.locator("#txt2img_seed_extras")).to_be_hidden()
    expect(page.locator("#atelier_user")).to_have_text("ada")
    expect(page).to_have_title("Atelier")


def test_the_size_follows_the_checkpoint_until_somebody_chooses_one(ada: Visitor) -> None:
    page = ada.page
    choose = page.get_by_label("Stable Diffusion checkpoint")
    width = page.locator("#txt2img_width input[type=number]")
    expect(width).to_have_value("128")
    for name, size in (("large", "1024"), ("painter", "512")):
        choose.click()
        page.get_by_role("option", name=re.compile(name)).click()
        expect(width).to_have_value(size)
    ada.number("width", 640)
    choose.click()
    page.get_by_role("option", name=re.compile("large")).click()
    expect(choose).to_have_value(re.compile("large"))
    expect(width).to_have_value("640")


def test_what_the_form_says_is_what_the_portal_gets(ada: Visitor, stage: Stage) -> None:
    page = ada.page
    ada.prompt("a (red:1.2) circle")
    page.locator("#txt2img_neg_prompt textarea").fill("square")
    ada.choose("txt2img_sampling", "Euler a")
    ada.choose("txt2img_scheduler", "Karras")
    numbers = {
        "steps": 9,
        "width": 192,
        "height": 64,
        "batch_count": 2,
        "batch_size": 3,
        "cfg_scale": 4.5,
        "seed": 77,
    }
    for name, value in numbers.items():
        ada.number(name, value)
    page.get_by_label("Extra").check()
    ada.number("subseed", 5)
    ada.number("subseed_strength", 0.25)
    ada.generate()
    ada.finished()
    assert last_job(stage) == {
        "prompt": "a (red:1.2) circle",
        "negative_prompt": "square",
        "sampler_name": "Euler a",
        "scheduler": "Karras",
        "steps": 9,
        "width": 192,
        "height": 64,
        "n_iter": 2,
        "batch_size": 3,
        "cfg_scale": 4.5,
        "seed": 77,
        "subseed": 5,
        "subseed_strength": 0.25,
        "save_images": True,
    }


def test_progress_shows_percent_eta_preview_and_goes_away(ada: Visitor, stage: Stage) -> None:
    stage.double.step_s = 0.1
    page = ada.page
    ada.number("steps", 60)
    ada.generate()
    progress = page.locator("#txt2img_progress")
    expect(progress).to_contain_text(re.compile(r"\d+% ETA: \d+s"))
    expect(page).to_have_title(re.compile(r"^\[\d+% ETA: \d+s\] Atelier$"))
    expect(page.locator("#txt2img_preview")).to_be_visible()
    expect(page.locator("#txt2img_generate")).to_be_hidden()
    assert int(progress.get_attribute("aria-valuenow") or 0) > 0
    stage.double.step_s = 0
    ada.finished()
    for gone in (progress, page.locator("#txt2img_preview"), page.locator("#txt2img_interrupt")):
        expect(gone).to_be_hidden()
    expect(page).to_have_title("Atelier")
    expect(page.locator("#html_log_txt2img")).to_have_text(re.compile(r"^Time taken: \d+\.\d sec\.$"))


def test_the_infotext_follows_the_selected_picture_and_its_seed_can_be_used_again(ada: Visitor) -> None:
    page = ada.page
    ada.number("batch_count", 3)
    ada.number("seed", 100)
    ada.number("steps", 2)
    ada.generate()
    ada.finished()
    pictures = page.locator(".thumbs button")
    expect(pictures).to_have_count(4)
    expect(pictures.first).to_have_attribute("aria-label", "Grid, picture 1 of 4")
    expect(page.locator("#html_info_txt2img")).to_contain_text("Seed: 100,")
    pictures.nth(2).click()
    expect(page.locator("#html_info_txt2img")).to_contain_text("Seed: 101,")
    page.keyboard.press("ArrowRight")
    expect(page.locator("#html_info_txt2img")).to_contain_text("Seed: 102,")
    page.locator("#txt2img_reuse_seed").click()
    expect(page.locator("#txt2img_seed input")).to_have_value("102")
    page.locator("#txt2img_random_seed").click()
    expect(page.locator("#txt2img_seed input")).to_have_value("-1")
    page.locator("#txt2img_copy_infotext").click()
    assert "Seed: 102," in page.evaluate("() => navigator.clipboard.readText()")


def test_the_token_counter_counts_as_the_text_encoder_does(ada: Visitor) -> None:
    counter = ada.page.locator("#txt2img_token_counter")
    expect(counter).to_have_text("0/75")
    ada.prompt("a (red:1.2) circle on a blue background <lora:x:1>")
    expect(counter).to_have_text("7/75")
    ada.prompt("circle, " * 40)
    expect(counter).to_have_text("80/150")
    ada.prompt("[a:a red circle on a blue background:5] # only a remark")
    expect(counter).to_have_text("7/75")
    ada.prompt("a ((red) circle]")
    expect(counter).to_have_text("⚠ 1 ( is not closed. 1 ] closes nothing. 4/75")
    expect(counter).to_have_attribute("title", re.compile("is not closed"))
    expect(counter).to_have_css("color", "rgb(163, 35, 26)")
    expect(ada.page.locator("#txt2img_negative_token_counter")).to_have_text("0/75")


def test_swap_exchanges_width_and_height_for_the_request_too(ada: Visitor, stage: Stage) -> None:
    ada.number("width", 192)
    ada.number("height", 64)
    ada.page.locator("#txt2img_res_switch_btn").click()
    ada.number("steps", 1)
    ada.generate()
    ada.finished()
    assert (last_job(stage)["width"], last_job(stage)["height"]) == (64, 192)


def test_the_first_interrupt_ends_after_the_current_picture_and_the_second_at_once(
    ada: Visitor, stage: Stage
) -> None:
    stage.double.step_s = 0.05
    page = ada.page
    ada.number("batch_count", 4)
    ada.number("steps", 150)
    ada.generate()
    expect(page.locator("#txt2img_preview")).to_be_visible()
    job = list(stage.double.jobs.values())[-1]
    page.locator("#txt2img_interrupt").click()
    expect(page.locator("#txt2img_interrupt")).to_have_class(re.compile("pressed"))
    expect(page.locator("#txt2img_progress")).to_contain_text("Interrupting")
    page.keyboard.press("Escape")
    ada.finished()
    assert stage.double.actions == [(job.id, "finish_current"), (job.id, "stop_now")]
    assert job.state == "stopped"


def test_interrupt_stops_at_once_where_no_other_picture_remains(ada: Visitor, stage: Stage) -> None:
    stage.double.step_s = 0.05
    ada.number("steps", 150)
    ada.generate()
    expect(ada.page.locator("#txt2img_preview")).to_be_visible()
    ada.page.locator("#txt2img_interrupt").click()
    ada.finished()
    assert [action for _, action in stage.double.actions] == ["stop_now"]


def test_the_keyboard_generates_skips_and_weighs(ada: Visitor, stage: Stage) -> None:
    stage.double.step_s = 0.05
    page = ada.page
    ada.number("steps", 60)
    area = page.locator("#txt2img_prompt textarea")
    area.fill("a red circle")
    area.press("Home")
    area.press("ArrowRight")
    area.press("ArrowRight")
    area.press("Control+ArrowUp")
    expect(area).to_have_value("a (red:1.1) circle")
    area.press("Control+ArrowUp")
    expect(area).to_have_value("a (red:1.2) circle")
    area.press("Control+ArrowDown")
    area.press("Control+ArrowDown")
    expect(area).to_have_value("a red circle")
    area.fill("a <lora:x:1>, red, b")
    area.evaluate("(field) => field.setSelectionRange(6, 6)")
    area.press("Control+ArrowDown")
    expect(area).to_have_value("a <lora:x:0.95>, red, b")
    area.evaluate("(field) => field.setSelectionRange(18, 18)")
    area.press("Alt+ArrowRight")
    expect(area).to_have_value("a <lora:x:0.95>, b, red")
    area.press("Alt+ArrowLeft")
    expect(area).to_have_value("a <lora:x:0.95>, red, b")
    area.evaluate("(field) => field.setSelectionRange(17, 23)")
    area.press("Control+ArrowUp")
    expect(area).to_have_value("a <lora:x:0.95>, (red, b:1.1)")
    page.get_by_label("Hires. fix").check()
    hires = page.locator("#hires_prompt textarea")
    hires.fill("ring")
    hires.press("Control+ArrowUp")
    expect(hires).to_have_value("(ring:1.1)")
    page.get_by_label("Hires. fix").uncheck()
    area.fill("a red circle")
    area.press("Control+Enter")
    ada.state("active")
    page.locator("#txt2img_sampling input").click()
    page.keyboard.press("Escape")
    expect(page.locator("#txt2img_interrupt")).not_to_have_class(re.compile("pressed"))
    area.press("Alt+Enter")
    area.press("Control+Enter")
    expect(page.locator("#txt2img_progress")).to_be_visible()
    ada.finished()
    ada.state("idle")
    assert [action for _, action in stage.double.actions] == ["skip", "stop_now"]
    assert len(stage.double.jobs) == 2, "Ctrl+Enter during a job interrupts it and starts again"
    assert last_job(stage)["prompt"] == "a red circle"


def test_a_reload_during_a_job_finds_it_again(ada: Visitor, stage: Stage) -> None:
    stage.double.step_s = 0.15
    ada.number("steps", 150)
    ada.generate()
    expect(ada.page.locator("#txt2img_progress")).to_contain_text("%")
    ada.page.reload()
    ada.ready()
    ada.state("active")
    expect(ada.page.locator("#txt2img_progress")).to_contain_text("ETA")
    stage.double.step_s = 0
    ada.finished()
    assert len(stage.double.jobs) == 1


def test_a_reload_after_a_job_shows_its_pictures_again(ada: Visitor) -> None:
    ada.number("steps", 1)
    ada.generate()
    ada.finished()
    ada.page.reload()
    ada.ready()
    ada.finished()
    expect(ada.page.locator("#html_info_txt2img")).to_contain_text("Steps: 1,")


def test_a_second_user_sees_nothing_of_the_first(ada: Visitor, visit: Visit, stage: Stage) -> None:
    stage.double.step_s = 0.1
    ada.number("steps", 60)
    ada.generate()
    grace = visit(stage.url)
    grace.log_in(*GRACE)
    expect(grace.page.locator(".empty")).to_have_text("Your pictures appear here")
    expect(grace.page.locator("#txt2img_progress")).to_be_hidden()
    stage.double.step_s = 0
    ada.finished()
    expect(grace.page.locator("#txt2img_picture")).to_be_hidden()


HOSTILE = (
    "<img src=x onerror=alert(1)>",
    "${alert(1)}",
    "{{constructor.constructor('alert(1)')()}}",
    "</textarea><script>alert(1)</script>",
    "javascript:alert(1)",
    "<svg/onload=alert(1)>",
)


def test_prompts_and_model_names_are_shown_as_text_and_run_nothing(ada: Visitor, stage: Stage) -> None:
    dialogs: list[str] = []
    ada.page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    ada.number("steps", 1)
    for text in HOSTILE:
        stage.double.models[0]["title"] = f"{text}.safetensors"
        ada.page.locator("#refresh_sd_model_checkpoint").click()
        expect(ada.page.get_by_label("Stable Diffusion checkpoint")).to_have_value(f"{text}.safetensors")
        ada.prompt(text)
        ada.generate()
        expect(ada.page.locator("#html_info_txt2img")).to_contain_text(text)
        ada.finished()
    assert dialogs == []


def test_a_refused_request_says_why_and_the_form_works_on(ada: Visitor, stage: Stage) -> None:
    message = "There is no checkpoint named 'x'. Did you mean 'y'?"
    stage.double.refuse_with = {"code": "unknown_name", "message": message, "retryable": False, "detail": {}}
    ada.generate()
    alert = ada.page.get_by_role("alert")
    expect(alert).to_contain_text(message)
    expect(alert).to_contain_text("unknown_name")
    ada.state("idle")
    stage.double.refuse_with = None
    ada.number("steps", 1)
    ada.generate()
    ada.finished()
    expect(ada.page.locator(".alert")).to_be_hidden()


def test_a_session_that_ended_leads_back_to_the_login(ada: Visitor, stage: Stage) -> None:
    ada.page.wait_for_load_state("networkidle")
    stage.double.ended.add("ada")
    ada.generate()
    expect(ada.page.get_by_role("alert")).to_contain_text("Log in again")
    expect(ada.page.get_by_role("alert").get_by_role("link")).to_have_attribute(
        "href", "/portal/login?next=/"
    )
    stage.double.ended.clear()
    ada.faults.clear()


def test_what_had_no_effect_is_said_under_the_picture(ada: Visitor, stage: Stage) -> None:
    ada.page.get_by_label("Extra").check()
    ada.number("subseed", 9)
    ada.number("steps", 1)
    ada.generate()
    ada.finished()
    expect(ada.page.locator("#txt2img_notes")).to_contain_text("subseed had no effect")


def test_the_viewer_turns_pages_and_closes(ada: Visitor) -> None:
    page = ada.page
    ada.number("batch_count", 2)
    ada.number("steps", 1)
    ada.number("seed", 4)
    ada.generate()
    ada.finished()
    page.locator(".zoom").click()
    expect(page.locator("dialog.viewer")).to_be_visible()
    expect(page.locator(".viewer .caption")).to_contain_text("Grid")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    expect(page.locator(".viewer .caption")).to_contain_text("Seed 5")
    page.keyboard.press("Escape")
    expect(page.locator("dialog.viewer")).to_be_hidden()


def test_logging_out_ends_at_the_login_page(ada: Visitor) -> None:
    ada.page.locator("#atelier_logout").click()
    ada.page.wait_for_url("**/portal/login**")
    ada.page.goto(ada.url + "/")
    assert "/portal/login" in ada.page.url
    # what the page was still asking for when the session ended is refused, and the browser says so
    ada.faults[:] = [fault for fault in ada.faults if "401" not in fault]


def test_the_look_is_remembered(ada: Visitor) -> None:
    page = ada.page
    page.get_by_role("button", name="Dark or light").click()
    expect(page.locator("body")).to_have_class(re.compile("dark"))
    page.goto(ada.url + "/")
    ada.ready()
    expect(page.locator("body")).to_have_class(re.compile("dark"))


def test_nothing_is_cut_off_at_any_width(ada: Visitor) -> None:
    page = ada.page
    ada.open_everything()
    for width in (390, 768, 901, 1440, 2560):
        page.set_viewport_size({"width": width, "height": 844})
        assert page.evaluate("() => document.documentElement.scrollWidth - window.innerWidth") <= 0, width
        generate = page.locator("#txt2img_generate").bounding_box()
        assert generate is not None
        assert generate["height"] >= 44, "a thumb needs 44 px"


def test_the_quick_settings_keep_clear_of_the_account_at_any_width(ada: Visitor) -> None:
    page = ada.page
    page.evaluate("document.querySelector('#atelier_user').textContent = 'a'.repeat(64)")
    for width in (390, 901, 1180, 1181, 1280, 1440, 1920):
        page.set_viewport_size({"width": width, "height": 844})
        settings = page.locator("#quicksettings").bounding_box()
        account = page.locator("#atelier_header nav").bounding_box()
        assert settings is not None and account is not None
        apart = settings["x"] + settings["width"] <= account["x"]
        below = account["y"] + account["height"] <= settings["y"]
        assert apart or below, f"the account lies on the quick settings at {width} px: {settings}, {account}"


LINES = """
(element) => {
  const text = document.createRange();
  text.selectNodeContents(element);
  return new Set([...text.getClientRects()].map((each) => Math.round(each.bottom))).size;
}
"""


def test_what_can_be_clicked_beside_the_name_stands_in_one_line_at_390_px(ada: Visitor) -> None:
    page = ada.page
    page.evaluate("document.querySelector('#atelier_user').textContent = 'a'.repeat(64)")
    page.set_viewport_size({"width": 390, "height": 844})
    way_out = page.locator("#atelier_header nav button", has_text="Log out")
    assert way_out.evaluate(LINES) == 1
    box = way_out.bounding_box()
    assert box is not None and box["x"] + box["width"] <= 390


CONTRAST = """
() => {
  const channels = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const luminance = ([r, g, b]) => {
    const linear = (v) => (v <= 10.31 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4);
    return 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
  };
  const ground = (element) => {
    for (let each = element; each; each = each.parentElement) {
      const colour = channels(getComputedStyle(each).backgroundColor);
      if (colour.length < 4 || colour[3] === 1) return colour;
    }
    return [255, 255, 255];
  };
  const poor = [];
  let seen = 0;
  for (const element of document.querySelectorAll("button, label, a, p, span, li, input, textarea, th, td")) {
    const own = [...element.childNodes].filter((node) => node.nodeType === Node.TEXT_NODE);
    const text = element.value || own.map((node) => node.textContent.trim()).join("");
    const box = element.getBoundingClientRect();
    const style = getComputedStyle(element);
    if (!text || !box.width || !box.height || style.visibility === "hidden") continue;
    if (style.fontSize === "0px") continue;
    if (["range", "checkbox", "hidden"].includes(element.type)) continue;
    const colour = channels(style.color);
    const [a, b] = [luminance(colour), luminance(ground(element))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    seen += 1;
    if (ratio < 4.5) poor.push(`${text.slice(0, 40)}: ${ratio.toFixed(2)} ${element.outerHTML.slice(0, 60)}`);
  }
  return [seen, poor];
}
"""


@pytest.mark.parametrize("look", ["light", "dark"])
def test_every_text_has_the_contrast_of_wcag_aa(visit: Visit, stage: Stage, look: str) -> None:
    visitor = visit(stage.url, look=look)
    visitor.log_in(*ADA)
    visitor.open_everything()
    visitor.prompt("(unclosed")
    visitor.number("steps", 1)
    visitor.generate()
    visitor.finished()
    seen, poor = visitor.page.evaluate(CONTRAST)
    assert poor == []
    assert seen > 30, "the search for text has stopped finding it"


def test_every_control_has_a_name(ada: Visitor) -> None:
    ada.open_everything()
    nameless = ada.page.evaluate(
        """() => [...document.querySelectorAll("button, input, textarea, select, a[href]")]
        .filter((each) => each.getBoundingClientRect().width && !each.closest("[hidden]"))
        .filter((each) => !each.getAttribute("aria-label") && !each.labels?.length && !each.title)
        .filter((each) => !each.textContent.trim())
        .map((each) => each.outerHTML.slice(0, 120))"""
    )
    assert nameless == []


def test_an_endpoint_is_chosen_among_those_one_may_use_kept_and_sent(
    ada: Visitor, visit: Visit, stage: Stage
) -> None:
    page, chosen = ada.page, ada.page.get_by_label("Endpoint", exact=True)
    expect(chosen).to_have_value("Automatic")
    ada.number("steps", 1)
    ada.generate()
    ada.finished()
    chosen.click()
    expect(page.locator("#atelier_endpoint [role=option]")).to_contain_text(
        ["Automatic", "local (ready)", "big (asleep, wakes with a job)"]
    )
    page.get_by_role("option", name="big (asleep, wakes with a job)").click()
    eventually(lambda: stage.double.chosen == {"ada": "big"}, within=60, about="the choice was not kept")
    page.reload()
    ada.ready()
    expect(chosen).to_have_value("big (asleep, wakes with a job)")
    ada.number("steps", 1)
    ada.generate()
    ada.finished()
    assert [job.endpoint for job in stage.double.jobs.values()] == ["automatic", "big"]
    grace = visit(stage.url)
    grace.log_in(*GRACE)
    expect(grace.page.get_by_label("Endpoint", exact=True)).to_have_value("Automatic")


def test_an_endpoint_that_is_locked_is_shown_and_not_to_be_changed(visit: Visit, stage: Stage) -> None:
    stage.double.locked_by, stage.double.chosen = "the studio", {"ada": "local"}
    ada = visit(stage.url)
    ada.log_in(*ADA)
    expect(ada.page.get_by_label("Endpoint", exact=True)).to_have_value("local (ready)")
    expect(ada.page.get_by_label("Endpoint", exact=True)).to_be_disabled()
    expect(ada.page.locator("#atelier_endpoint")).to_contain_text("Locked by the studio.")
