"""What the page says while a job waits for its turn, for a worker and for its model; and its Skip button."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import Visitor
from tests.browser.stage import Stage

STATES: list[tuple[dict[str, Any], str]] = [
    ({"state": "queued", "queue_position": 3, "progress": {"eta_s": 75.2}}, "In queue: 3 ETA: 1m 15s"),
    ({"state": "queued", "queue_position": 2, "progress": {"eta_s": None}}, "In queue: 2"),
    (
        {"state": "waking", "progress": {"note": "A worker is being started on local.", "eta_s": 12.0}},
        "A worker is being started on local. ETA: 12s",
    ),
    (
        {"state": "running", "progress": {"phase": "loading", "note": "Loading v1-5.ckpt.", "eta_s": None}},
        "Loading v1-5.ckpt.",
    ),
    (
        {"state": "running", "progress": {"phase": "steps", "note": "", "fraction": 0.4, "eta_s": 6.0}},
        "40% ETA: 6s",
    ),
]
"""What the portal says, and what people read."""


def test_the_page_says_what_is_waited_for_and_for_how_long(ada: Visitor, stage: Stage) -> None:
    stage.double.step_s = 0.2
    stage.double.shows = {"queue_position": None, **STATES[0][0]}
    ada.number("steps", 150)
    ada.generate()
    bar = ada.page.locator("#txt2img_progress")
    for view, words in STATES:
        stage.double.shows = {"queue_position": None, **view}
        expect(bar).to_have_attribute("aria-valuetext", words)
        expect(bar).to_contain_text(words)
        expect(ada.page).to_have_title(f"[{words}] Atelier")
    stage.double.shows = {}
    ada.page.locator("#txt2img_interrupt").click()
    ada.finished()


@pytest.mark.parametrize("width", [390, 1440])
def test_the_longest_of_these_sentences_is_not_cut_off(ada: Visitor, stage: Stage, width: int) -> None:
    note = "A worker is being started on a-long-endpoint; that usually takes 240 s."
    stage.double.step_s = 0.2
    stage.double.shows = {"state": "waking", "progress": {"note": note, "eta_s": 300.0}}
    ada.page.set_viewport_size({"width": width, "height": 900})
    ada.number("steps", 150)
    ada.generate()
    bar = ada.page.locator("#txt2img_progress")
    expect(bar).to_contain_text(f"{note} ETA: 5m 0s")
    inside = bar.evaluate(
        "(bar) => [...bar.querySelectorAll('*')].every((each) => each.scrollWidth <= bar.clientWidth + 1"
        " && each.getBoundingClientRect().bottom <= bar.getBoundingClientRect().bottom + 1)"
    )
    assert inside, "the sentence does not fit its bar"
    stage.double.shows = {}
    ada.page.locator("#txt2img_interrupt").click()
    ada.finished()


def test_the_skip_button_asks_for_the_next_picture_and_the_job_goes_on(ada: Visitor, stage: Stage) -> None:
    stage.double.step_s = 0.1
    ada.number("steps", 100)
    ada.number("batch_count", 2)
    ada.generate()
    expect(ada.page.locator("#txt2img_preview")).to_be_visible()
    ada.page.locator("#txt2img_skip").click()
    [job] = stage.double.jobs
    ada.page.wait_for_function(
        "() => performance.getEntries().some((each) => each.name.endsWith('/actions'))"
    )
    assert stage.double.actions == [(job, "skip")]
    ada.state("active")
    expect(ada.page.locator("#txt2img_interrupt")).not_to_contain_class("pressed")
    stage.double.step_s = 0
    ada.finished()
    assert len(stage.double.jobs[job].pictures) >= 2
