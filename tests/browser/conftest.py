"""A real Chromium, and what to point it at: the web UI before a scripted portal, and the whole studio."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Page,
    Request,
    expect,
    sync_playwright,
)

from tests.browser import chromium
from tests.browser.portal_double import Double
from tests.browser.stage import Stage, Studio, a_checkpoint, on_stage, studio_up

ADA = ("ada", "correct horse battery")

KEPT = "local_storage,session_storage,indexeddb,websql,service_workers,cache_storage,file_systems"
"""What a page may have kept in a profile, beside its cookies."""

expect.set_options(timeout=60_000)
"""Milliseconds to wait for what should show: much, since machines that run tests are busy."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """The Chromium the tests of a module share; visitors of one test have a profile each.

    No longer than that: while Playwright runs, an event loop runs in this thread, and other tests start
    theirs.
    """
    found = chromium.find(install=True)
    assert found is not None, "there is no Chromium; python -m tests.browser.chromium says what to do"
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(
            executable_path=str(found.path), args=list(chromium.FLAGS), env=found.environment
        )
        yield started
        started.close()


@dataclass
class Visitor:
    """Somebody at a browser, and everything there that should not have happened."""

    page: Page
    url: str
    faults: list[str] = field(default_factory=list)

    def heard(self, message: ConsoleMessage) -> None:
        """Keep errors and warnings of the console: violations of the content policy are among them."""
        # a preview may be gone when it is asked for: its picture was finished or ended meanwhile
        gone = "/preview/" in str(message.location.get("url", "")) and "404" in message.text
        if message.type in ("error", "warning") and not gone:
            self.faults.append(f"console {message.type}: {message.text}")

    def asked(self, request: Request) -> None:
        """Keep requests to anywhere but the studio."""
        if not request.url.startswith((self.url, "data:", "blob:")):
            self.faults.append(f"external request: {request.url}")

    def log_in(self, name: str, password: str) -> None:
        """Through the portal's login page to the form."""
        self.page.goto(self.url + "/")
        self.page.locator("[name=username]").fill(name)
        self.page.locator("[name=password]").fill(password)
        self.page.keyboard.press("Enter")
        self.ready()

    def ready(self) -> None:
        """Wait until the form is drawn, the page's script has hold of it and the first values are in."""
        self.page.locator("#txt2img_gallery").wait_for()
        self.page.locator("body[data-ready]").wait_for()
        self.page.locator("body[data-job]").wait_for()
        self.page.locator("#txt2img_generate").wait_for(state="attached")

    def number(self, name: str, value: float) -> None:
        """Type a number into a control."""
        box = self.page.locator(f"#txt2img_{name} input[type=number]")
        box.fill(str(value))
        box.blur()

    def choose(self, elem_id: str, *options: str) -> None:
        """Pick from the dropdown of that element id; several where it takes several."""
        self.page.locator(f"#{elem_id} input").click()
        for option in options:
            self.page.locator(f"#{elem_id}").get_by_role("option", name=option, exact=True).click()

    def open_everything(self) -> None:
        """Have every control in sight that can be, with the largest of the scripts' panels."""
        for label in ("Hires. fix", "Refiner", "Extra"):
            self.page.get_by_label(label, exact=True).check()
        self.choose("script_list", "X/Y/Z plot")
        self.page.locator("#txt2img_script_x_y_z_plot").wait_for()

    def prompt(self, text: str) -> None:
        """Type the prompt."""
        self.page.locator("#txt2img_prompt textarea").fill(text)

    def generate(self) -> None:
        """Press Generate."""
        self.page.locator("#txt2img_generate").click()

    def state(self, name: str, timeout_s: float = 120) -> None:
        """Wait until the page is idle, submitting or active."""
        self.page.locator(f"body[data-job={name}]").wait_for(timeout=timeout_s * 1000)

    def finished(self, timeout_s: float = 120) -> None:
        """Wait until a job has run and its first picture is shown."""
        self.state("idle", timeout_s)
        self.page.locator("#txt2img_picture").wait_for(timeout=timeout_s * 1000)


Visit = Callable[..., Visitor]
Wish = tuple[str, int, int, str]
"""The studio's address, the window's width and height, and whether the system looks light or dark."""


class Profiles:
    """Profiles of the browser. Whoever takes one finds it empty but for the page's code in its cache; in each
    an idle page keeps the process alive that has compiled it. A load takes half the time of a first one.
    """

    def __init__(self, browser: Browser) -> None:
        self._browser = browser
        self._idle: dict[Wish, list[BrowserContext]] = {}

    def take(self, wish: Wish) -> BrowserContext:
        """One that nobody has now."""
        idle = self._idle.get(wish)
        return idle.pop() if idle else self._made(*wish)

    def leave(self, wish: Wish, context: BrowserContext) -> None:
        """Close what was opened in it, forget what was kept in it, and let others have it."""
        idle, *opened = context.pages
        for page in opened:
            page.close()
        context.clear_cookies()
        session = context.new_cdp_session(idle)
        session.send("Storage.clearDataForOrigin", {"origin": wish[0], "storageTypes": KEPT})
        session.detach()
        self._idle.setdefault(wish, []).append(context)

    def _made(self, url: str, width: int, height: int, look: str) -> BrowserContext:
        context = self._browser.new_context(
            viewport={"width": width, "height": height},
            color_scheme="dark" if look == "dark" else "light",
            accept_downloads=True,
        )
        context.grant_permissions(["clipboard-read", "clipboard-write"], origin=url)
        context.new_page().goto(url + "/ui/mark.svg")
        return context


@pytest.fixture(scope="module")
def profiles(browser: Browser) -> Profiles:
    """The profiles that visitors of a module's tests take and leave."""
    return Profiles(browser)


@pytest.fixture
def visit(profiles: Profiles) -> Iterator[Visit]:
    """Opens a browser for each who comes; afterwards none may have seen a fault it did not expect."""
    taken: list[tuple[Wish, BrowserContext]] = []
    visitors: list[Visitor] = []

    def arrive(url: str, *, width: int = 1440, height: int = 900, look: str = "light") -> Visitor:
        wish = (url, width, height, look)
        context = profiles.take(wish)
        taken.append((wish, context))
        visitor = Visitor(context.new_page(), url)
        visitor.page.on("console", visitor.heard)
        visitor.page.on("pageerror", lambda error: visitor.faults.append(f"page error: {error}"))
        visitor.page.on("request", visitor.asked)
        visitors.append(visitor)
        return visitor

    yield arrive
    for wish, context in taken:
        profiles.leave(wish, context)
    assert [fault for visitor in visitors for fault in visitor.faults] == []


@pytest.fixture(scope="session")
def stage_before_double(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """The web UI's own process before the scripted portal."""
    with on_stage(Double(), tmp_path_factory.mktemp("webui") / "webui.log") as stage:
        yield stage


@pytest.fixture
def stage(stage_before_double: Stage) -> Iterator[Stage]:
    """The same with an empty memory."""
    double = stage_before_double.double
    double.__dict__.update(Double().__dict__ | {"serial": double.serial})
    yield stage_before_double


@pytest.fixture(scope="session")
def checkpoint() -> Path:
    """The checkpoint the studio starts with."""
    found = a_checkpoint()
    assert found is not None, "there is no checkpoint on this machine: make demo"
    return found


@pytest.fixture(scope="session")
def studio(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path) -> Iterator[Studio]:
    """`atelier up` on free ports with a data directory of its own."""
    with studio_up(tmp_path_factory.mktemp("studio"), checkpoint) as studio:
        yield studio


@pytest.fixture
def ada(visit: Visit, stage: Stage) -> Visitor:
    """Ada, logged in before the scripted portal."""
    visitor = visit(stage.url)
    visitor.log_in(*ADA)
    return visitor
