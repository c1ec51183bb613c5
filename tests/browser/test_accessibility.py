"""axe-core over every page of the portal and the web UI's tabs, in light and dark, at a desk and on a phone.

axe-core 4.14.1 (Deque Systems, MPL-2.0) lies unchanged in tests/browser/axe with its licence; it is used by
these tests alone and is part of no product.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import Visit, Visitor
from tests.browser.stage import ADMIN_PASSWORD, Studio
from tests.waiting import eventually

pytestmark = [pytest.mark.browser]

AXE = (Path(__file__).parent / "axe" / "axe.min.js").read_text()
RUN = f"async () => {{ {AXE}; return (await axe.run(document, {{resultTypes: ['violations']}})).violations }}"
PAGES = ("", "mine", "jobs", "endpoints", "models", "users", "roles", "teams", "access", "settings")
PAGES += ("audit", "health")


def violations(page: Page) -> list[str]:
    """What axe finds of impact serious or critical, one line each."""
    found: list[dict[str, Any]] = page.evaluate(RUN)
    return [
        f"{each['id']}: {each['help']} at {[node['target'] for node in each['nodes']][:3]}"
        for each in found
        if each["impact"] in ("serious", "critical")
    ]


def at_the_portal(visit: Visit, studio: Studio, look: str, width: int) -> Visitor:
    """The administrator at the portal."""
    visitor = visit(studio.url, width=width, height=900, look=look)
    visitor.page.goto(studio.url + "/portal/login?next=/portal/")
    assert violations(visitor.page) == []
    visitor.page.locator("[name=username]").fill("admin")
    visitor.page.locator("[name=password]").fill(ADMIN_PASSWORD)
    visitor.page.keyboard.press("Enter")
    visitor.page.locator(".bar").wait_for()
    return visitor


@pytest.mark.parametrize(
    ("look", "width"), [("light", 1280), pytest.param("dark", 390, marks=pytest.mark.long)]
)
def test_no_page_of_the_portal_keeps_anybody_out_or_is_wider_than_its_window(
    visit: Visit, studio: Studio, look: str, width: int
) -> None:
    page = at_the_portal(visit, studio, look, width).page
    wrong = {}
    for name in PAGES:
        page.goto(f"{studio.url}/portal/{name}")
        for summary in page.locator("details > summary").all()[:3]:
            summary.click()
        too_wide = page.evaluate("() => document.documentElement.scrollWidth > window.innerWidth")
        if found := violations(page) + ["wider than the window"] * too_wide:
            wrong[name] = found
    assert wrong == {}


@pytest.mark.parametrize("look", ["light", pytest.param("dark", marks=pytest.mark.long)])
def test_no_tab_of_the_web_ui_keeps_anybody_out(visit: Visit, studio: Studio, look: str) -> None:
    visitor = visit(studio.url, width=1280, height=900, look=look)
    visitor.log_in(*studio.designer())
    page, wrong = visitor.page, {}
    for tab in page.locator("[role=tab]:visible").all():
        name = tab.inner_text()
        tab.click()
        expect(tab).to_have_attribute("aria-selected", "true")
        if found := violations(page):
            wrong[name] = found
    assert wrong == {}


def test_the_portal_is_used_by_keyboard_and_keeps_up_by_itself(visit: Visit, studio: Studio) -> None:
    visitor = at_the_portal(visit, studio, "light", 1280)
    page = visitor.page
    page.goto(studio.url + "/portal/jobs?state=active")
    page.keyboard.press("Tab")
    skip = page.locator(".skip")
    expect(skip).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#main")).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.get_by_label("State", exact=True)).to_be_focused()
    width = page.evaluate("() => getComputedStyle(document.activeElement).outlineWidth")
    assert width == "3px", "what has the focus is seen"
    expect(page.locator("#live")).to_contain_text("Nothing here.")
    job = studio.job(steps=150, n_iter=8)
    stop = page.locator(f"#stop-{job}")
    stop.wait_for()  # the list was read again without a click

    def arrived() -> bool:
        """Press it, again where the list was just being renewed, until the trail says so."""
        if stop.count():
            page.evaluate("id => document.getElementById(id)?.focus()", f"stop-{job}")
            page.keyboard.press("Enter")
        trail = page.request.get(f"{studio.url}/api/v1/audit?action=job.stop_now&object=job:{job}")
        return f"job:{job}" in trail.text()

    assert eventually(arrived, within=180, every=1)
    assert page.evaluate("() => performance.getEntriesByType('navigation')[0].type") == "navigate"
    assert "/portal/jobs?state=active" in page.url
    page.request.post(
        f"{studio.url}/api/v1/jobs/{job}/actions", data={"action": "cancel"}, headers={"Origin": studio.url}
    )
