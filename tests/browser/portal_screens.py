"""The portal's pages for docs/screens: a studio with people, rights, endpoints, work and a price, and a
picture of every page in both looks, at a desk and on a phone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
from PIL import Image
from playwright.sync_api import Browser, Page

from tests.browser.stage import ADMIN_PASSWORD, ROOT, Studio
from tests.waiting import eventually

PLACE = ROOT / "docs" / "screens"
PAGES = ("overview", "jobs", "job", "mine", "endpoints", "models", "users", "roles", "teams", "access")
PAGES += ("settings", "audit", "health")
COLOURS = 160
"""As many as a picture of a page keeps: letters stay clean, and the file a third."""
PEOPLE = ("mira", "jonas", "lena", "tom")


class Desk:
    """The administrator's calls of the API."""

    def __init__(self, studio: Studio) -> None:
        headers = {"Authorization": f"Bearer {studio.admin}"}
        self.client = httpx.Client(base_url=studio.url + "/api/v1", headers=headers, trust_env=False)

    def __call__(self, method: str, path: str, **body: Any) -> Any:
        answer = self.client.request(method, path, json=body or None, timeout=60).raise_for_status()
        return answer.json() if answer.content else None


def furnish(studio: Studio) -> None:
    """Let there be something to see on every page."""
    desk = Desk(studio)
    rights = ["account.read", "jobs.submit", "jobs.read", "jobs.control", "jobs.read_all", "portal.view"]
    role = {"description": "Sees everybody's jobs and what the studio costs.", "permissions": rights}
    desk("PUT", "/roles/art-director", **role)
    tokens = {}
    for name in PEOPLE:
        studio.designer(name)
        login = {"username": name, "password": "long enough for anybody"}
        tokens[name] = httpx.post(studio.url + "/api/v1/auth/token", json=login, trust_env=False).json()
    users = {each["username"]: each["id"] for each in desk("GET", "/users")}
    desk("PATCH", f"/users/{users['lena']}", roles=["art-director", "designer"])
    desk("POST", "/teams", name="Posters", description="Print, large sizes", members=["mira", "lena"])
    desk("POST", "/teams", name="Motion", description="Storyboards and key frames", members=["jonas", "tom"])
    desk("PUT", "/quotas/everybody/*", unfinished_jobs=20, pictures_a_day=500)
    desk("PATCH", "/endpoints/local", max_instances=2, price_hour=0.48)
    night = {"min_instances": 0, "max_instances": 4, "price_hour": 1.2, "idle_seconds": 300}
    desk("POST", "/endpoints", name="night", **night)
    rule = {"object_kind": "endpoint", "object": "night", "subject_kind": "everybody", "subject": "*"}
    desk("PUT", "/access-rules", **rule, effect="deny")
    for name in ("mira", "jonas", "tom"):
        token = tokens[name]["access_token"]
        jobs = [studio.job(token, steps=12, width=128, height=128, seed=seed) for seed in (3, 4)]
        eventually(lambda mine=jobs: all(_ended(desk, each) for each in mine), within=180)
    for name in ("mira", "tom", "jonas"):
        studio.job(tokens[name]["access_token"], steps=150, n_iter=12, width=128, height=128)


def _ended(desk: Desk, job: str) -> bool:
    return bool(desk("GET", f"/jobs/{job}")["state"] in ("succeeded", "failed"))


def portal_pages(browser: Browser, studio: Studio, look: str, width: int) -> None:
    """Every page of the portal as an administrator sees it."""
    context = browser.new_context(
        viewport={"width": width, "height": 860}, color_scheme="dark" if look == "dark" else "light"
    )
    page = context.new_page()
    page.goto(studio.url + "/portal/login?next=/portal/")
    page.locator("[name=username]").fill("admin")
    page.locator("[name=password]").fill(ADMIN_PASSWORD)
    page.keyboard.press("Enter")
    page.locator(".bar").wait_for()
    for name in PAGES:
        page.goto(f"{studio.url}/portal/{_path(page, studio, name)}")
        page.wait_for_load_state("networkidle")
        page.screenshot(path=PLACE / f"portal-{name}-{look}-{width}.png")
    context.close()


def _path(page: Page, studio: Studio, name: str) -> str:
    """Where a page is; `job` is the newest that ended well."""
    if name != "job":
        return "" if name == "overview" else name
    page.goto(studio.url + "/portal/jobs?state=succeeded")
    href = page.locator("#live td a").first.get_attribute("href") or ""
    return href.removeprefix("/portal/")


def squeeze(place: Path) -> None:
    """Let every picture there have few colours, which is most of its size."""
    for path in place.glob("*.png"):
        with Image.open(path) as picture:
            if picture.mode != "P":
                picture.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)
