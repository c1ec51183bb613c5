"""The wall around Gradio: what an outsider, another user and another site can reach through the web UI."""

from __future__ import annotations

import asyncio
import re
import warnings
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import gradio as gr
import httpx
import pytest
from fastapi import FastAPI, Request
from starlette.routing import BaseRoute, Mount
from starlette.testclient import TestClient

from atelier.contract.routes import owner_of
from tests.browser.portal_double import Double, create_double
from tests.security.test_games import BODIES, WORDS
from webui.app import STATIC, create_app
from webui.mount import mount
from webui.portal import Portal
from webui.settings import Settings
from webui.studio import build_studio
from webui.wall import MAX_EVENT_BYTES

ADA = {"atelier": "session-of-ada", "atelier-refresh": "belongs to the portal alone"}
SAME_ORIGIN = {"Sec-Fetch-Site": "same-origin"}

HARMLESS = {
    "/assets/{path:path}",
    "/favicon.ico",
    "/robots.txt",
    "/static/{path:path}",
    "/ui",
    "/ui/cards/txt2img.json",
    "/ui/units/txt2img.json",
    "/ui/healthz",
    "/ui/readyz",
}
"""Gradio's and our own code and looks, which tabs of cards and sections of units there are, and whether the
process is well: the same bytes for everybody. `/` only sends people to the login.
"""


def built(make: Callable[[], Any]) -> Any:
    """`make()` within an event loop, as the process does it: Gradio opens its own where there is none."""

    async def inside() -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            return make()

    return asyncio.run(inside())


@pytest.fixture(scope="module")
def double() -> Double:
    return Double(step_s=0)


@pytest.fixture(scope="module")
def app(double: Double) -> FastAPI:
    portal = Portal("http://portal", transport=httpx.ASGITransport(create_double(double)))
    return built(lambda: create_app(Settings(), portal=portal))


@pytest.fixture
def ada(app: FastAPI) -> Iterator[TestClient]:
    yield TestClient(app, base_url="http://127.0.0.1:7860", cookies=ADA, follow_redirects=False)


@pytest.fixture
def nobody(app: FastAPI) -> Iterator[TestClient]:
    yield TestClient(app, base_url="http://127.0.0.1:7860", follow_redirects=False)


async def anybody(request: Request) -> str:
    return "ada"


def reader_of_files() -> gr.Blocks:
    """A page that gives back what it is told a file holds: the worst a later handler of ours could be."""
    with gr.Blocks(analytics_enabled=False) as blocks:
        file, text = gr.File(type="filepath"), gr.Textbox()
        gr.Button().click(
            lambda path: Path(path).read_text() if path else "", file, text, queue=False, api_name="read"
        )
    return blocks


def ask_for(app: FastAPI, path: Path) -> str:
    body = {"data": [{"path": str(path), "meta": {"_type": "gradio.FileData"}}]}
    return TestClient(app).post("/gradio_api/run/read", json=body).text


def test_a_file_reference_that_was_never_uploaded_is_refused(tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("the signing key")

    def mounted() -> FastAPI:
        app = FastAPI()
        mount(app, reader_of_files(), anybody)
        return app

    assert "the signing key" not in ask_for(built(mounted), secret)


def test_gradio_is_mounted_in_one_place_only(repository: Path) -> None:
    mounts = [
        path.relative_to(repository).as_posix()
        for path in (repository / "webui").rglob("*.py")
        if re.search(r"mount_gradio_app|\.launch\(", path.read_text())
    ]
    assert mounts == ["webui/mount.py"]


def paths_of(routes: list[BaseRoute]) -> Iterator[str]:
    for route in routes:
        if isinstance(route, Mount) and route.routes:
            yield from (route.path.rstrip("/") + path for path in paths_of(list(route.routes)))
        elif (included := getattr(route, "original_router", None)) is not None:
            yield from paths_of(list(included.routes))
        else:
            yield getattr(route, "path", "")


def concrete(path: str) -> str:
    return re.sub(r"\{[^}]*\}", "x", path) or "/"


def test_without_a_login_only_code_and_looks_answer(app: FastAPI, nobody: TestClient) -> None:
    paths = {path for path in paths_of(list(app.routes)) if owner_of(path) == "webui"}
    assert len(paths) > 60, "the search for Gradio's routes has stopped finding them"
    answers = {path: nobody.get(concrete(path)).status_code for path in paths}
    posts = {path: nobody.post(concrete(path), headers=SAME_ORIGIN).status_code for path in paths}
    refused = {401, 404, 405}
    open_by_get = {path for path, status in answers.items() if status not in refused and path != "/"}
    answering = {path for path in HARMLESS if answers.get(path) in (200, 404)}
    assert open_by_get <= HARMLESS
    assert answering <= HARMLESS
    assert set(posts.values()) <= refused
    assert answers["/"] == 303


def test_the_front_page_sends_a_stranger_to_the_login(nobody: TestClient) -> None:
    answer = nobody.get("/")
    assert (answer.status_code, answer.headers["location"]) == (303, "/portal/login?next=/")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/gradio_api/upload"),
        ("GET", "/gradio_api/file=/etc/hostname"),
        ("GET", "/gradio_api/file=C:/x"),
        ("GET", "/gradio_api/file/etc/hostname"),
        ("GET", "/gradio_api/proxy=http://127.0.0.1/"),
        ("POST", "/gradio_api/component_server"),
        ("POST", "/gradio_api/queue/join"),
        ("GET", "/gradio_api/queue/data"),
        ("POST", "/gradio_api/process_recording"),
        ("GET", "/gradio_api/vibe-code"),
        ("GET", "/gradio_api/openapi.json"),
        ("GET", "/gradio_api/runs"),
        ("GET", "/monitoring"),
        ("GET", "/gradio_api/stream/x/1/1/playlist.m3u8"),
        ("POST", "/login"),
        ("GET", "/svelte/x"),
    ],
)
def test_gradio_routes_the_page_does_not_use_are_gone_even_for_users(
    ada: TestClient, method: str, path: str
) -> None:
    assert ada.request(method, path, headers=SAME_ORIGIN).status_code == 404


@pytest.mark.parametrize(
    "path",
    ["/assets/../gradio_api/file=/etc/hostname", "/static/%2e%2e/%2e%2e/%2e%2e/etc/passwd", "/ui/../app.py"],
)
def test_nothing_climbs_out_of_the_public_folders(ada: TestClient, path: str) -> None:
    answer = ada.get(path)
    assert answer.status_code in (403, 404)
    assert "root:" not in answer.text


def test_an_upload_is_refused_before_a_byte_is_kept(ada: TestClient) -> None:
    answer = ada.post("/gradio_api/upload", files={"files": ("x.png", b"x" * 100)}, headers=SAME_ORIGIN)
    assert answer.status_code == 404


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site", "Origin": "http://evil.example"},
        {"Sec-Fetch-Site": "same-site", "Origin": "http://127.0.0.1:9999"},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {},
    ],
)
def test_another_site_cannot_press_generate(ada: TestClient, double: Double, headers: dict[str, str]) -> None:
    before = len(double.jobs)
    answer = ada.post("/gradio_api/run/predict", json={"data": [], "fn_index": 0}, headers=headers)
    assert answer.status_code == 403
    assert answer.json()["error"]["code"] == "not_permitted"
    assert len(double.jobs) == before


def test_our_own_origin_is_enough_where_the_browser_says_nothing_of_the_site(ada: TestClient) -> None:
    answer = ada.post(
        "/gradio_api/run/predict",
        json={"data": [], "fn_index": 0},
        headers={"Origin": "http://127.0.0.1:7860"},
    )
    assert answer.status_code != 403


def test_a_form_beyond_the_limit_is_refused(ada: TestClient) -> None:
    answer = ada.post("/gradio_api/run/predict", content=b"x" * (MAX_EVENT_BYTES + 1), headers=SAME_ORIGIN)
    assert answer.status_code == 413


def test_a_form_that_is_a_bomb_or_means_two_things_is_refused(ada: TestClient) -> None:
    headers = SAME_ORIGIN | {"Content-Type": "application/json"}
    wrong = {}
    for what, body in BODIES.items():
        answer = ada.post("/gradio_api/run/predict", content=body, headers=headers)
        if not 400 <= answer.status_code < 500 or (
            len(body) <= MAX_EVENT_BYTES and WORDS.get(what, "") not in answer.text
        ):
            wrong[what] = (answer.status_code, answer.text[:200])
    assert wrong == {}


def test_every_answer_of_the_page_carries_the_strict_headers(ada: TestClient, nobody: TestClient) -> None:
    for answer in (
        ada.get("/"),
        ada.get("/config"),
        nobody.get("/"),
        nobody.get("/gradio_api/upload"),
        nobody.get("/ui/studio.js"),
    ):
        policy = answer.headers["content-security-policy"]
        assert "script-src 'self';" in policy
        assert "unsafe-eval" not in policy
        assert "frame-ancestors 'none'" in policy
        assert answer.headers["x-content-type-options"] == "nosniff"


def test_the_first_page_has_no_inline_script_and_no_foreign_address(ada: TestClient) -> None:
    html = ada.get("/").text
    assert re.findall(r"<script(?![^>]*\ssrc=)", html) == []
    assert re.findall(r"(?:src|href|content)=\"(?:https?:)?//[^\"]*", html) == []
    assert '<script type="module" src="/ui/studio.js"></script>' in html


def test_the_page_holds_no_state_and_queues_nothing(double: Double) -> None:
    blocks = built(lambda: build_studio(Portal("http://portal")))
    config = blocks.get_config_file()
    assert [
        each
        for each in config["components"]
        if each["type"] in ("state", "browserstate", "html", "uploadbutton", "file", "image")
    ] == []
    assert len(config["dependencies"]) >= 3
    assert all(each["queue"] is False and each["js"] is None for each in config["dependencies"])
    assert config["enable_queue"] is not None


def test_only_the_access_cookie_reaches_the_portal_from_this_process(
    nobody: TestClient, double: Double
) -> None:
    double.seen.clear()
    nobody.get(
        "/config", headers={"Cookie": "atelier=session-of-grace; atelier-refresh=belongs to the portal alone"}
    )
    cookies = [headers.get("cookie", "") for _, path, headers in double.seen if path == "/api/v1/me"]
    assert cookies, "nobody asked who the caller is"
    assert all("refresh" not in cookie for cookie in cookies)


def test_a_session_the_portal_ended_is_out_within_five_seconds(double: Double) -> None:
    now = [0.0]
    portal = Portal(
        "http://portal", transport=httpx.ASGITransport(create_double(double)), clock=lambda: now[0]
    )

    async def asked() -> list[bool]:
        seen = [await portal.caller(ADA) is not None]
        double_people = double.ended
        double_people.add("ada")
        seen.append(await portal.caller(ADA) is not None)
        now[0] = 5.0
        seen.append(await portal.caller(ADA) is not None)
        double_people.clear()
        return seen

    assert asyncio.run(asked()) == [True, True, False]


def test_gradio_is_new_enough_for_what_this_wall_relies_on() -> None:
    assert tuple(int(part) for part in version("gradio").split(".")[:2]) >= (6, 31)


def test_our_scripts_write_text_never_markup() -> None:
    scripts = list(STATIC.glob("*.js"))
    assert len(scripts) >= 10
    dangerous = re.compile(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|srcdoc"
        r"|setTimeout\(\s*[\"'`]"
    )
    found = [
        f"{path.name}: {line.strip()}"
        for path in scripts
        for line in path.read_text().splitlines()
        if dangerous.search(line)
    ]
    assert found == []
