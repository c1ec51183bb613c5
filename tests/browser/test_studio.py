"""The whole studio in a real Chromium: `atelier up`, the real worker and checkpoint, designers at work."""

from __future__ import annotations

import hashlib
import io
import re
from pathlib import Path

import httpx
import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from atelier.infotext import parse
from tests.browser.conftest import Visit, Visitor
from tests.browser.stage import ADMIN_PASSWORD, Studio
from tests.waiting import eventually

pytestmark = [pytest.mark.browser]

PROMPT = "a red circle on a blue background"
SLOW = {"steps": 150, "batch_count": 4}
"""A job that outlasts a reload on any machine."""


def at_work(visit: Visit, studio: Studio) -> Visitor:
    """A new designer before the form, with a size that takes seconds."""
    visitor = visit(studio.url)
    visitor.log_in(*studio.designer())
    visitor.page.get_by_label("Stable Diffusion checkpoint").and_(
        visitor.page.locator("[aria-expanded]")
    ).wait_for()
    expect(visitor.page.get_by_label("Stable Diffusion checkpoint")).to_have_value(
        re.compile(r"\[[0-9a-f]{10}\]")
    )
    for side in ("width", "height"):
        visitor.number(side, 128)
    visitor.prompt(PROMPT)
    return visitor


def shown(page: Page) -> str:
    """The address of the picture on show."""
    return str(page.locator("#txt2img_picture").get_attribute("src"))


def fetched(visitor: Visitor, path: str) -> httpx.Response:
    """A path of the studio as this visitor's browser gets it, without its cache."""
    cookies = {each["name"]: each["value"] for each in visitor.page.context.cookies()}
    return httpx.get(visitor.url + path, cookies=cookies, trust_env=False)


def test_a_designer_types_presses_generate_and_downloads_the_picture(
    visit: Visit, studio: Studio, tmp_path: Path
) -> None:
    ada = at_work(visit, studio)
    ada.number("steps", 60)
    ada.generate()
    expect(ada.page.locator("#txt2img_progress")).to_contain_text(re.compile(r"\d+%"))
    ada.finished()
    with ada.page.expect_download() as downloading:
        ada.page.locator("#txt2img_download").click()
    saved = tmp_path / downloading.value.suggested_filename
    downloading.value.save_as(saved)
    stored = fetched(ada, shown(ada.page))
    assert stored.status_code == 200
    assert hashlib.sha256(saved.read_bytes()).hexdigest() == hashlib.sha256(stored.content).hexdigest()
    with Image.open(io.BytesIO(saved.read_bytes())) as picture:
        assert (picture.format, picture.mode, picture.size) == ("PNG", "RGB", (128, 128))
        parameters = picture.info["parameters"]
    assert parameters == ada.page.locator("#html_info_txt2img").text_content()
    known = parse(parameters)
    assert (known["Prompt"], str(known["Steps"]), known["Sampler"]) == (PROMPT, "60", "DPM++ 2M")
    assert saved.name.endswith(f"-{known['Seed']}.png")


def test_a_reload_finds_the_running_job_and_interrupt_ends_it(visit: Visit, studio: Studio) -> None:
    ada = at_work(visit, studio)
    for name, value in SLOW.items():
        ada.number(name, value)
    ada.generate()
    expect(ada.page.locator("#txt2img_progress")).to_contain_text(re.compile("[1-9]%"), timeout=60_000)
    ada.page.reload()
    ada.ready()
    ada.state("active")
    expect(ada.page.locator("#txt2img_progress")).to_contain_text(re.compile("[1-9]%"), timeout=60_000)
    ada.page.locator("#txt2img_interrupt").click()
    ada.page.locator("#txt2img_interrupt").click()
    ada.state("idle", 20)
    [job] = fetched(ada, "/api/v1/jobs").json()["jobs"]
    assert job["state"] == "stopped"
    assert (
        not all(picture["complete"] for picture in job["pictures"])
        or len(job["pictures"]) < SLOW["batch_count"]
    )


@pytest.mark.long
def test_a_killed_web_ui_comes_back_under_the_open_page_which_shows_its_picture(
    visit: Visit, studio: Studio
) -> None:
    ada = at_work(visit, studio)
    ada.number("steps", 150)
    ada.number("batch_count", 3)
    ada.generate()
    expect(ada.page.locator("#txt2img_progress")).to_contain_text(re.compile("[1-9]%"), timeout=60_000)
    killed = studio.process("webui.app")
    killed.kill()
    eventually(lambda: studio.process("webui.app").pid != killed.pid, within=120, about="it stays away")
    ada.finished()
    assert fetched(ada, shown(ada.page)).status_code == 200
    [job] = fetched(ada, "/api/v1/jobs").json()["jobs"]
    assert (job["state"], len(job["pictures"])) == ("succeeded", 4), "three and their grid"
    said = [each for each in ada.faults if "Failed to load resource" not in each]
    assert not said, said
    ada.faults.clear()  # what was asked for while nobody answered is the browser's to report


def test_a_second_user_in_a_second_browser_sees_nothing_of_it(visit: Visit, studio: Studio) -> None:
    ada, grace = at_work(visit, studio), at_work(visit, studio)
    ada.number("steps", 100)
    ada.generate()
    ada.state("active")
    [job] = fetched(ada, "/api/v1/jobs?state=active").json()["jobs"]
    assert fetched(grace, "/api/v1/jobs").json()["jobs"] == []
    assert fetched(grace, f"/api/v1/jobs/{job['id']}").status_code == 404
    assert fetched(grace, f"/api/v1/jobs/{job['id']}/events").status_code == 404
    assert fetched(grace, f"/api/v1/jobs/{job['id']}/preview/1").status_code == 404
    grace.page.reload()
    grace.ready()
    grace.state("idle")
    ada.finished()
    picture = shown(ada.page)
    assert fetched(ada, picture).status_code == 200
    assert fetched(grace, picture).status_code == 404
    grace.page.reload()
    grace.ready()
    expect(grace.page.locator(".empty")).to_be_visible()
    expect(grace.page.locator("#txt2img_picture")).to_be_hidden()


def test_the_live_preview_appears_while_the_picture_is_in_the_making(visit: Visit, studio: Studio) -> None:
    ada = at_work(visit, studio)
    ada.number("steps", 150)
    ada.generate()
    expect(ada.page.locator("#txt2img_preview")).to_be_visible(timeout=60_000)
    loaded = ada.page.locator("#txt2img_preview").evaluate(
        "(image) => [image.naturalWidth, image.naturalHeight]"
    )
    assert min(loaded) > 0
    ada.page.keyboard.press("Escape")
    ada.state("idle", 20)


def test_a_picture_is_served_in_a_sandbox_and_to_no_stranger(visit: Visit, studio: Studio) -> None:
    ada = at_work(visit, studio)
    ada.number("steps", 2)
    ada.generate()
    ada.finished()
    answer = fetched(ada, shown(ada.page))
    assert "sandbox" in answer.headers["content-security-policy"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert httpx.get(studio.url + shown(ada.page), trust_env=False).status_code in (401, 404)


def pixels(content: bytes) -> bytes:
    with Image.open(io.BytesIO(content)) as picture:
        return picture.tobytes()


def test_a_pictures_parameters_pasted_by_somebody_else_draw_it_again(visit: Visit, studio: Studio) -> None:
    ada, grace = at_work(visit, studio), at_work(visit, studio)
    page = ada.page
    ada.prompt("a [red|green] (circle:1.2) on blue BREAK bright")
    page.get_by_label("Hires. fix").check()
    ada.choose("txt2img_hr_upscaler", "Lanczos")
    ada.choose("hr_sampler", "Euler")
    page.locator("#hires_prompt textarea").fill("a bright circle, sharp")
    ada.choose("txt2img_sampling", "DPM++ SDE")
    page.get_by_label("Extra").check()
    page.get_by_label("Tiling").check()
    numbers = {"steps": 4, "hr_scale": 1.5, "denoising_strength": 0.5, "subseed": 5, "subseed_strength": 0.3}
    for name, value in numbers.items():
        ada.number(name, value)
    ada.generate()
    ada.finished()
    infotext = page.locator("#html_info_txt2img").inner_text()
    grace.prompt(infotext)
    grace.page.locator("#paste").click()
    expect(grace.page.get_by_label("Hires. fix")).to_be_checked()
    grace.generate()
    grace.finished()
    assert grace.page.locator("#html_info_txt2img").inner_text() == infotext
    first, second = (fetched(each, shown(each.page)).content for each in (ada, grace))
    assert pixels(first) == pixels(second)
    expect(grace.page.locator("#txt2img_notes")).to_be_hidden()


def test_a_plot_shows_its_grid_alone_and_can_be_pasted(visit: Visit, studio: Studio) -> None:
    ada = at_work(visit, studio)
    page, plot = ada.page, "script_txt2img_xyz_plot"
    ada.number("steps", 2)
    ada.number("seed", 7)
    ada.choose("script_list", "X/Y/Z plot")
    page.locator(f"#{plot}_x_values textarea").fill("7-8")
    ada.choose(f"{plot}_y_type", "Sampler")
    expect(page.locator(f"#{plot}_y_values_dropdown")).to_be_visible()
    ada.choose(f"{plot}_y_values_dropdown", "Euler a", "LMS")
    page.keyboard.press("Escape")
    ada.generate()
    ada.finished()
    expect(page.locator("#html_info_txt2img")).to_contain_text("Script: X/Y/Z plot")
    expect(page.locator(".thumbs")).to_be_hidden()
    with Image.open(io.BytesIO(fetched(ada, shown(page)).content)) as grid:
        assert grid.width > 2 * 128
        assert grid.height > 2 * 128
    ada.choose("script_list", "None")
    page.locator("#txt2img_clear_prompt").click()
    page.locator("#paste").click()
    expect(page.get_by_label("Script", exact=True)).to_have_value("X/Y/Z plot")
    expect(page.locator(f"#{plot}_y_values_dropdown .token")).to_have_count(2)
    expect(page.locator("#txt2img_prompt textarea")).to_have_value(PROMPT)


def test_an_administrator_looks_after_users_without_leaving_the_page(visit: Visit, studio: Studio) -> None:
    root = visit(studio.url)
    root.log_in("admin", ADMIN_PASSWORD)
    root.page.locator("#atelier_people_button").click()
    frame = root.page.frame_locator("#atelier_people iframe")
    expect(frame.locator("h1")).to_have_text("Users")
    expect(frame.locator(".bar")).to_be_hidden()
    form = frame.locator("form[action='/portal/users']")
    form.get_by_label("User name").fill("framed")
    form.get_by_label("Password").fill("long enough for anybody")
    form.get_by_role("button", name="Add").click()
    expect(frame.get_by_text("The user was created.")).to_be_visible()
    root.page.locator("#atelier_people").get_by_role("link", name="Teams").click()
    expect(frame.locator("h1")).to_have_text("Teams")
    root.page.locator("#atelier_people").get_by_role("button", name="Close").click()
    expect(root.page.locator("#atelier_people")).to_be_hidden()
    framed = visit(studio.url)
    framed.log_in("framed", "long enough for anybody")
    expect(framed.page.locator("#atelier_user")).to_have_text("framed")
    expect(framed.page.locator("#atelier_people_button")).to_have_count(0)
