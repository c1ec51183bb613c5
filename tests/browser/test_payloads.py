"""Forty scripts in everything people can write, in a real Chromium before the whole studio: each is shown as
the text it is, none runs, and the content policy has nothing to stop.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from playwright.sync_api import Page, expect

from tests.browser.conftest import Visit, Visitor
from tests.browser.stage import ADMIN_PASSWORD, Studio
from tests.browser.test_txt2img import give
from tests.integration.test_models_http import network
from tests.payloads import CALL, PAYLOADS

pytestmark = [pytest.mark.browser]

WATCH = f"""
for (const [name, gives] of [["{CALL}"], ["alert"], ["confirm", true], ["prompt"], ["print"]]) {{
  window[name] = (...told) => {{ console.error(`RAN ${{name}} ${{told}}`); return gives; }};
}}
document.addEventListener("securitypolicyviolation", (event) =>
  console.error("BLOCKED", event.blockedURI));
"""
ALL = "\n".join(PAYLOADS)
PORTAL_PAGES = (
    "/portal/",
    "/portal/users",
    "/portal/teams",
    "/portal/roles",
    "/portal/access",
    "/portal/models",
    "/portal/audit",
    "/portal/jobs",
    "/portal/endpoints",
    "/portal/settings",
    "/docs",
)


class Planted:
    """What the payloads were put into, and how to be rid of it again."""

    def __init__(self, studio: Studio, folder: Path) -> None:
        self.url, self._folder = studio.url, folder
        self.designer = studio.designer()
        headers = {"Authorization": f"Bearer {studio.admin}", "User-Agent": PAYLOADS[4]}
        self.root = httpx.Client(base_url=studio.url, headers=headers, trust_env=False, timeout=120)
        body = dict(zip(("username", "password"), self.designer, strict=True))
        token = self.root.post("/api/v1/auth/token", json=body).json()["access_token"]
        own = {"Authorization": f"Bearer {token}", "User-Agent": PAYLOADS[28]}
        self.person = httpx.Client(base_url=studio.url, headers=own, trust_env=False, timeout=120)
        self.models: list[str] = []
        self.teams: list[str] = []

    def plant(self) -> None:
        """Put the payloads everywhere."""
        for number, payload in enumerate(PAYLOADS):
            path = network(
                self._folder / "x.safetensors", {"ss_output_name": payload, payload: payload}, number
            )
            query = {"kind": "lora", "filename": f"payload{number}.safetensors"}
            made = self.root.post("/api/v1/models/upload", params=query, content=path.read_bytes())
            assert made.status_code == 201, made.text
            self.models.append(made.json()["id"])
            texts = dict.fromkeys(
                ("name", "description", "notes", "activation_text", "negative_text"), payload
            )
            told = self.root.patch(f"/api/v1/models/{self.models[-1]}", json=texts)
            assert told.status_code == 200, told.text
            made = self.root.post("/api/v1/teams", json={"name": payload[:64], "description": payload})
            assert made.status_code == 201, made.text
            self.teams.append(made.json()["id"])
            body = {"username": payload[:64], "password": "long enough for anybody"}
            assert self.root.post("/api/v1/users", json=body).status_code == 422
        role = {"description": " ".join(PAYLOADS[4:9]), "permissions": []}
        assert self.root.put("/api/v1/roles/payloads", json=role).status_code == 200
        rule = {
            "object_kind": "model",
            "object": self.models[0],
            "subject_kind": "team",
            "subject": self.teams[0],
        }
        assert self.root.put("/api/v1/access-rules", json=rule | {"effect": "deny"}).status_code == 200
        written = io.StringIO()
        rows = csv.writer(written)
        rows.writerow(("name", "prompt", "negative_prompt"))
        rows.writerows((payload, payload, payload) for payload in PAYLOADS)
        taken = self.person.post("/api/v1/styles/import", content=written.getvalue().encode())
        assert taken.json()["added"] == len(PAYLOADS), taken.text

    def uproot(self) -> None:
        """Take them away: the studio is everybody's."""
        for model in self.models:
            self.root.delete(f"/api/v1/models/{model}")
        for team in self.teams:
            self.root.delete(f"/api/v1/teams/{team}")
        self.root.delete("/api/v1/roles/payloads")
        self.root.close()
        self.person.close()


@pytest.fixture(scope="module")
def planted(studio: Studio, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Planted]:
    made = Planted(studio, tmp_path_factory.mktemp("payloads"))
    try:
        made.plant()
        yield made
    finally:
        made.uproot()


def watched(visit: Visit, url: str) -> Visitor:
    """A visitor in whose pages and frames a script that runs, a dialog and a blocked script are faults."""
    visitor = visit(url)
    visitor.page.add_init_script(WATCH)
    visitor.page.on("dialog", lambda dialog: visitor.faults.append(f"dialog: {dialog.message}"))
    return visitor


def missing(page: Page, selector: str, characters: int = 200) -> list[str]:
    """Which payloads are nowhere shown as text in the elements of a selector, fields with their values."""
    read = "(found) => found.map((each) => `${each.textContent} ${each.value ?? ''}`).join('\\n')"
    shown = page.locator(selector).evaluate_all(read)
    return [payload for payload in PAYLOADS if payload[:characters] not in shown]


def test_the_watch_sees_what_runs(visit: Visit, planted: Planted) -> None:
    visitor = watched(visit, planted.url)
    visitor.page.goto(planted.url + "/portal/login")
    visitor.page.evaluate("() => { const link = document.createElement('a'); link.textContent = 'x'; }")
    assert visitor.faults == []
    visitor.page.goto("data:text/html," + PAYLOADS[0] + PAYLOADS[4])
    visitor.page.wait_for_load_state("load")
    seen = [each for each in visitor.faults if "RAN" in each]
    assert sorted(each[-1] for each in seen) == ["1", "5"]
    visitor.faults.clear()


def test_the_portals_pages_show_forty_scripts_as_text(visit: Visit, planted: Planted) -> None:
    root = watched(visit, planted.url)
    page = root.page
    page.goto(planted.url + "/portal/login")
    page.locator("[name=username]").fill(PAYLOADS[26])
    page.locator("[name=password]").fill("x")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_be_visible()
    expect(page.locator("[name=username]")).to_have_value(PAYLOADS[26])
    assert all("401" in each for each in root.faults), root.faults
    root.faults.clear()
    root.log_in("admin", ADMIN_PASSWORD)
    for path in PORTAL_PAGES:
        assert page.goto(planted.url + path).ok
        page.wait_for_load_state("load")
    for path, selector in (
        ("/portal/models", "td strong"),
        ("/portal/models", "td .clamp"),
        ("/portal/models", "input[name=description]"),
        ("/portal/teams", "main"),
        ("/portal/access", "option"),
    ):
        page.goto(planted.url + path)
        assert missing(page, selector) == [], (path, selector)
    for path, selector in (("/portal/users", "label.check"), ("/portal/audit?action=team.", "main")):
        page.goto(planted.url + path)
        assert missing(page, selector, 60) == [], path
    assert PAYLOADS[4] in page.locator("td [title]").evaluate_all(
        "(found) => found.map((each) => each.title)"
    )
    for payload in (PAYLOADS[4], PAYLOADS[26], PAYLOADS[28], PAYLOADS[34]):
        for path in (
            "/portal/models?search=",
            "/portal/audit?actor=",
            "/portal/settings?search=",
            "/portal/nowhere/",
        ):
            page.goto(planted.url + path + str(httpx.QueryParams({"": payload}))[1:])
    page.goto(planted.url + "/portal/login?next=" + "javascript:__pwned(35)")
    assert root.faults == [f for f in root.faults if "404" in f], root.faults
    root.faults.clear()


def picture() -> bytes:
    """A PNG whose every text is of payloads: the parameters, with names and values, and other chunks."""
    out, chunk = io.BytesIO(), PngInfo()
    entries: dict[str, Any] = {"Steps": 1, "Sampler": PAYLOADS[4], "Model": PAYLOADS[0], "VAE": PAYLOADS[26]}
    told = ", ".join(
        f'{name}: "{value}"' if name != "Steps" else "Steps: 1" for name, value in entries.items()
    )
    chunk.add_text("parameters", f"{ALL}\nNegative prompt: {ALL}\n{told}, Style: x, {PAYLOADS[6]}: 1")
    chunk.add_text("Title", ALL)
    chunk.add_itxt(PAYLOADS[0][:70], ALL)
    Image.new("RGB", (16, 16), "red").save(out, "PNG", pnginfo=chunk)
    return out.getvalue()


def test_the_web_ui_shows_forty_scripts_as_text(visit: Visit, planted: Planted) -> None:
    ada = watched(visit, planted.url)
    page = ada.page
    ada.log_in(*planted.designer)
    prompt = page.locator("#txt2img_prompt textarea")
    page.get_by_role("tab", name="Lora", exact=True).click()
    page.locator(".card").first.wait_for()
    assert missing(page, ".card .name") == []
    assert missing(page, ".card .description") == []
    card = page.locator(".card", has_text=PAYLOADS[4]).first
    card.get_by_role("button", name="Metadata").click()
    dialog = page.locator("#txt2img_metadata_dialog")
    expect(dialog.locator("pre")).to_contain_text(PAYLOADS[4])
    dialog.get_by_role("button", name="Close").click()
    card.locator(".use").click()
    page.get_by_role("tab", name="Generation").click()
    ada.choose("txt2img_styles", PAYLOADS[4], PAYLOADS[36], PAYLOADS[37])
    expect(page.locator("#txt2img_styles .token")).to_have_count(3)
    page.keyboard.press("Escape")
    page.locator("#txt2img_styles_edit_button").click()
    styles = page.locator("#txt2img_styles_dialog")
    expect(styles.locator("option")).to_have_count(len(PAYLOADS))
    styles.get_by_role("button", name="Close").click()
    give(ada, "drop", picture())
    expect(prompt).to_have_value(ALL)
    for side in ("width", "height"):
        ada.number(side, 64)
    ada.number("steps", 1)
    ada.generate()
    ada.finished()
    info = page.locator("#html_info_txt2img").text_content() or ""
    assert [payload for payload in PAYLOADS if payload not in info] == []
    page.reload()
    ada.ready()
