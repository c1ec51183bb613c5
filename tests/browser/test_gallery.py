"""The gallery in a real Chromium before a scripted portal: whose pictures are shown, and who sees them."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Locator, expect

from tests.browser.conftest import Visit, Visitor
from tests.browser.stage import Stage

pytestmark = [pytest.mark.browser]

GRACE = ("grace", "staple battery horse")


def made(who: Visitor, count: int = 1) -> None:
    """A finished job of so many pictures."""
    who.number("steps", 2)
    who.number("batch_count", count)
    who.generate()
    who.finished()


def gallery(who: Visitor, shelf: str = "Mine") -> Locator:
    """The open gallery at a shelf."""
    dialog = who.page.locator("#atelier_gallery")
    if not dialog.is_visible():
        who.page.locator("#atelier_gallery_button").click()
    dialog.get_by_role("radio", name=shelf, exact=True).check()
    return dialog


def test_a_picture_is_shared_with_a_team_in_words_that_say_who_will_see_it(
    ada: Visitor, visit: Visit, stage: Stage
) -> None:
    stage.double.teams = {"Films": ["ada", "grace"]}
    made(ada, 2)
    ada.page.locator("#txt2img_share").click()
    dialog = ada.page.locator("#atelier_gallery")
    seen_by, told = dialog.get_by_label("Who sees these pictures"), dialog.locator(".share .hint")
    share = dialog.get_by_role("button", name="Share", exact=True)
    expect(told).to_have_text("Only you see these 3 pictures and their prompts.")
    expect(share).to_be_disabled()
    seen_by.select_option("Everybody in the studio")
    expect(told).to_have_text("Everybody who can log in will see these 3 pictures and their prompts.")
    seen_by.select_option("The team Films")
    expect(told).to_have_text(
        "grace will see these 3 pictures and their prompts, and whoever joins the team later."
    )
    assert [job.visibility for job in stage.double.jobs.values()] == ["private"], (
        "nothing is shared by choosing"
    )
    share.click()
    expect(told).to_have_text(re.compile("^grace sees? these"))
    expect(share).to_be_disabled()

    grace = visit(stage.url)
    grace.log_in(*GRACE)
    theirs = gallery(grace, "Shared with me")
    pictures = theirs.locator(".gallery-grid button")
    expect(pictures).to_have_count(3)
    expect(pictures.first.locator(".of")).to_have_text("ada")
    pictures.last.click()
    expect(theirs.locator(".standing")).to_have_text("ada shares this with the team Films.")
    expect(theirs.get_by_label("Who sees these pictures")).to_be_hidden()
    expect(theirs.locator(".frame img")).to_have_js_property("complete", True)

    seen_by.select_option("Only you")
    dialog.get_by_role("button", name="Share no longer").click()
    expect(told).to_have_text("Only you see these 3 pictures and their prompts.")
    expect(gallery(grace, "My teams").locator(".nothing")).to_contain_text("Nobody has shared")
    expect(gallery(grace, "Shared with me").locator(".nothing")).to_contain_text("Nobody shares")


def test_the_shelves_show_whose_pictures_they_say_and_take_parameters_over(
    ada: Visitor, stage: Stage
) -> None:
    ada.prompt("a red circle")
    made(ada)
    ada.prompt("something else")
    dialog = gallery(ada)
    expect(dialog.locator(".gallery-grid button")).to_have_count(1)
    expect(dialog.locator(".queue")).to_be_hidden()
    for shelf in ("Shared with me", "My teams", "Studio"):
        expect(gallery(ada, shelf).locator(".gallery-grid button")).to_have_count(0)
        expect(dialog.locator(".nothing")).to_be_visible()
    [job] = stage.double.jobs.values()
    job.visibility = "studio"
    expect(gallery(ada, "Studio").locator(".gallery-grid button")).to_have_count(0)
    gallery(ada, "Mine")
    picture = gallery(ada, "Studio").locator(".gallery-grid button")
    expect(picture.locator(".of")).to_have_text("Studio")
    picture.click()
    dialog.get_by_role("button", name="Use its parameters").click()
    expect(dialog).to_be_hidden()
    expect(ada.page.locator("#txt2img_prompt textarea")).to_have_value("a red circle")


def test_of_the_queue_others_entries_show_their_place_alone(ada: Visitor, visit: Visit, stage: Stage) -> None:
    stage.double.step_s = 3600
    grace = visit(stage.url)
    grace.log_in(*GRACE)
    for who in (ada, grace):
        who.prompt(f"a secret of {who.page.locator('#atelier_user').text_content()}")
        who.generate()
        who.state("active")
    dialog = gallery(grace)
    expect(dialog.locator(".queue")).to_have_text("2 jobs wait in the studio. Yours: place 2.")
    assert "secret of ada" not in grace.page.content()
    assert "job1" not in str([text for text in grace.page.locator("body").all_inner_texts()])


def test_the_gallery_is_used_by_keyboard_and_fits_a_narrow_window(visit: Visit, stage: Stage) -> None:
    ada = visit(stage.url, width=390, height=800)
    ada.log_in("ada", "correct horse battery")
    made(ada)
    ada.page.locator("#atelier_gallery_button").click()
    dialog = ada.page.locator("#atelier_gallery")
    dialog.get_by_role("radio", name="Mine").focus()
    ada.page.keyboard.press("ArrowRight")
    expect(dialog.get_by_role("radio", name="Shared with me")).to_be_checked()
    expect(dialog.locator(".nothing")).to_be_visible()
    ada.page.keyboard.press("ArrowLeft")
    dialog.locator(".gallery-grid button").focus()
    ada.page.keyboard.press("Enter")
    expect(dialog.get_by_label("Who sees these pictures")).to_be_visible()
    assert ada.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    ada.page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
