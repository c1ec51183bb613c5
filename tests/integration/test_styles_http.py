"""Prompt styles over HTTP: routes, files sent and fetched, two users who do not meet."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from starlette.requests import Request
from starlette.testclient import TestClient
from starlette.types import Message

from atelier import stylefile
from atelier.client import PortalClient
from atelier.contract.errors import PayloadTooLarge
from portal.api.v1.styles import sent_file
from portal.app import create_app
from portal.services import audit
from tests.jobs_studio import Studio

PASSWORD = "a long enough password"
ORIGIN = "http://127.0.0.1:8000"
TWO = "name,prompt,negative_prompt\nfog,in fog,\nsun,{prompt} in the sun,night\n"


@pytest.fixture
def studio(studio_url: str, tmp_path: Path) -> Iterator[Studio]:
    made = Studio(studio_url, tmp_path)
    yield made
    made.close()


@pytest.fixture
def client(studio: Studio) -> Iterator[TestClient]:
    for name, role in (("root", "admin"), ("mia", "designer"), ("leo", "designer")):
        studio.services.identity.create(audit.SYSTEM, name, PASSWORD, role)
    app = create_app(studio.services)
    with TestClient(app, base_url=ORIGIN, client=("127.0.0.1", 5000), raise_server_exceptions=False) as made:
        yield made


class Person:
    """Somebody with a token."""

    def __init__(self, client: TestClient, name: str) -> None:
        body = {"username": name, "password": PASSWORD}
        token = client.post("/api/v1/auth/token", json=body).json()["access_token"]
        self._client = client
        self._headers = {"Authorization": f"Bearer {token}"}

    def __call__(self, method: str, path: str = "", **options: Any) -> httpx.Response:
        """A request to /api/v1/styles."""
        return self._client.request(method, f"/api/v1/styles{path}", headers=self._headers, **options)

    def names(self, query: str = "") -> list[tuple[str, str]]:
        """Name and scope of the styles."""
        return [(each["name"], each["scope"]) for each in self("GET", query).json()["styles"]]


@pytest.fixture
def mia(client: TestClient) -> Person:
    return Person(client, "mia")


@pytest.fixture
def leo(client: TestClient) -> Person:
    return Person(client, "leo")


@pytest.fixture
def root(client: TestClient) -> Person:
    return Person(client, "root")


def trail(studio: Studio) -> list[tuple[str, str, str, dict[str, Any]]]:
    found = reversed(studio.services.trail.entries())
    told = [(each.actor_name, each.action, each.object, each.details) for each in found]
    return [each for each in told if each[1].startswith(("style.", "permission."))]


@pytest.mark.parametrize(
    "name", ["plain", "a/b/c", "/x/", "50% {prompt} ?&#=+ü", "import", "export", "a/../b", "ende ", "日本 🎨"]
)
def test_any_name_is_made_shown_replaced_and_deleted(mia: Person, name: str) -> None:
    address = "/" + quote(name, safe="")
    made = mia("PUT", address, json={"prompt": "p {prompt}", "negative_prompt": "n"})
    assert made.status_code == 200, made.text
    shown = made.json()
    assert shown == {
        "id": shown["id"],
        "name": name,
        "prompt": "p {prompt}",
        "negative_prompt": "n",
        "scope": "own",
        "owner": "mia",
        "visibility": "private",
        "team": None,
    }
    assert mia("GET").json() == {"styles": [shown]}
    assert mia("PUT", address, json={"prompt": "q"}).json() == {**shown, "prompt": "q", "negative_prompt": ""}
    assert mia("DELETE", address).status_code == 204
    assert mia("DELETE", address).status_code == 404
    assert mia("GET").json() == {"styles": []}


def test_two_users_do_not_see_or_touch_each_others_styles(mia: Person, leo: Person) -> None:
    assert mia("PUT", "/mine", json={"prompt": "mia's"}).status_code == 200
    assert leo.names() == []
    missing, foreign = leo("DELETE", "/nothing"), leo("DELETE", "/mine")
    assert (missing.status_code, foreign.status_code) == (404, 404)
    assert foreign.json()["error"]["message"].replace("mine", "nothing") == missing.json()["error"]["message"]
    assert b"mine" not in leo("GET", "/export").content
    assert mia.names() == [("mine", "own")]


def test_the_studios_styles_are_changed_with_the_permission_alone_and_every_change_is_audited(
    studio: Studio, mia: Person, root: Person
) -> None:
    body = {"prompt": "hush", "negative_prompt": ""}
    for method, path, options in (
        ("PUT", "/house?scope=studio", {"json": body}),
        ("DELETE", "/house?scope=studio", {}),
        ("POST", "/import?scope=studio", {"content": TWO}),
    ):
        refused = mia(method, path, **options)
        assert refused.status_code == 403, path
        assert refused.json()["error"]["detail"] == {"permission": "styles.manage_studio"}
    assert root("PUT", "/house?scope=studio", json=body).json()["scope"] == "studio"
    assert root("PUT", "/house?scope=studio", json=body).status_code == 200
    assert root("POST", "/import?scope=studio", content=TWO).json()["added"] == 2
    assert root("DELETE", "/fog?scope=studio").status_code == 204
    assert root("PUT", "/mine", json=body).status_code == 200
    denied = ("mia", "permission.denied", "permission:styles.manage_studio", {})
    assert trail(studio) == [
        denied,
        denied,
        denied,
        ("root", "style.save", "style:house", {"replaced": False}),
        ("root", "style.save", "style:house", {"replaced": True}),
        ("root", "style.import", "style:*", {"added": 2, "replaced": 0}),
        ("root", "style.delete", "style:fog", {}),
    ]
    assert mia.names() == [("house", "studio"), ("sun", "studio")]


def test_a_designer_cannot_delete_the_studios_style_as_if_it_were_own(mia: Person, root: Person) -> None:
    root("PUT", "/house?scope=studio", json={"prompt": "p"})
    assert mia("DELETE", "/house").status_code == 404
    assert mia.names() == [("house", "studio")]


@pytest.mark.parametrize(
    ("path", "options"),
    [
        ("/", {"json": {}}),
        ("/" + "x" * 201, {"json": {}}),
        ("/%23comment", {"json": {}}),
        ("/a%00b", {"json": {}}),
        ("/a", {"json": {"prompt": "x" * 20_001}}),
        ("/a", {"json": {"prompt": "a\0b"}}),
        ("/a", {"content": b'{"prompt": "\\ud800"}'}),
        ("/a", {"json": {"name": "b"}}),
        ("/a", {"json": {"prompt": None}}),
        ("/a?scope=everybody", {"json": {}}),
    ],
)
def test_what_cannot_be_kept_is_refused_with_a_sentence(
    mia: Person, path: str, options: dict[str, Any]
) -> None:
    refused = mia("PUT", path, **options)
    assert refused.status_code == 422, refused.text
    assert refused.json()["error"]["message"]
    assert mia.names() == []


def test_an_import_merges_and_tells_what_it_left_out(mia: Person) -> None:
    mia("PUT", "/sun", json={"prompt": "old"})
    mia("PUT", "/stay", json={"prompt": "kept"})
    text = (
        "\ufeff" + TWO + f"#gone,x,\n,nameless,\nlong,{'x' * 20_001},\nwide,a,b,c\nfog,thick fog,\n"
        'lines,"a\nb","c,""d"""\n'
    )
    answer = mia("POST", "/import", content=text.encode())
    assert answer.status_code == 200, answer.text
    told = answer.json()
    assert (told["added"], told["replaced"]) == (2, 1)
    assert [(row["line"], row["name"]) for row in told["refused"]] == [(5, ""), (6, "long"), (7, "wide")]
    for row, reason in zip(told["refused"], ("1 to 200", "20,001", "4 cells"), strict=True):
        assert reason in row["reason"]
    shown = [(each["name"], each["prompt"], each["negative_prompt"]) for each in mia("GET").json()["styles"]]
    assert shown == [
        ("sun", "{prompt} in the sun", "night"),
        ("stay", "kept", ""),
        ("fog", "thick fog", ""),
        ("lines", "a\nb", 'c,"d"'),
    ]


def test_an_export_is_the_peers_file_and_comes_back_the_same(
    client: TestClient, mia: Person, leo: Person, root: Person
) -> None:
    root("POST", "/import?scope=studio", content="name,text\nhouse,old form\n")
    mia("POST", "/import", content=TWO)
    saved = mia("GET", "/export")
    assert saved.headers["content-type"] == "text/csv; charset=utf-8"
    assert saved.headers["content-disposition"] == 'attachment; filename="styles.csv"'
    assert saved.content == ("\ufeff" + TWO.replace("\n", "\r\n")).encode()
    assert leo("POST", "/import", content=saved.content).json() == {"added": 2, "replaced": 0, "refused": []}
    assert leo("GET", "/export").content == saved.content
    assert (
        leo("GET", "/export?scope=studio").text == "\ufeffname,prompt,negative_prompt\r\nhouse,old form,\r\n"
    )


@pytest.mark.parametrize(
    "content", [b"", b"no styles\n", b"name,prompt\n\xff,x\n", b'name,prompt\nx,"' + b"y" * 200_000]
)
def test_a_file_that_is_none_changes_nothing(mia: Person, content: bytes) -> None:
    refused = mia("POST", "/import", content=content)
    assert refused.status_code == 422, refused.text
    assert mia.names() == []


def test_a_file_beyond_the_limit_is_refused(mia: Person) -> None:
    refused = mia("POST", "/import", content=b"name,prompt\nx," + b"y" * stylefile.MAX_BYTES)
    assert refused.status_code == 413
    assert "10 MiB" in refused.json()["error"]["message"]
    assert mia.names() == []


def test_what_is_beyond_the_limit_is_not_even_read() -> None:
    read = 0

    async def receive() -> Message:
        nonlocal read
        read += 2**20
        return {"type": "http.request", "body": b"x" * 2**20, "more_body": read < 20 * 2**20}

    with pytest.raises(PayloadTooLarge):
        asyncio.run(sent_file(Request({"type": "http"}, receive)))
    assert read == stylefile.MAX_BYTES + 2**20


def test_the_peers_clients_get_its_list(client: TestClient, mia: Person, root: Person, golden: Path) -> None:
    root("POST", "/import?scope=studio", content=(golden / "styles.csv").read_bytes())
    expected = json.loads((golden / "lists" / "prompt-styles.json").read_text())
    for name in ("mia", "leo"):
        assert client.get("/sdapi/v1/prompt-styles", auth=(name, PASSWORD)).json() == expected
    mia("PUT", "/wrap", json={"prompt": "mine"})
    seen = {
        name: client.get("/sdapi/v1/prompt-styles", auth=(name, PASSWORD)).json()[0]["prompt"]
        for name in ("mia", "leo")
    }
    assert seen == {"mia": "mine", "leo": expected[0]["prompt"]}
    assert client.get("/sdapi/v1/prompt-styles").status_code == 401


def test_styles_are_taken_out_of_a_pasted_text_for_who_has_them(
    client: TestClient, mia: Person, leo: Person, golden: Path
) -> None:
    case = json.loads((golden / "cases" / "pnginfo-styles.json").read_text())
    mia("POST", "/import", content=(golden / "styles.csv").read_bytes())
    said = {
        name: client.post("/sdapi/v1/png-info", json=case["payload"], auth=(name, PASSWORD)).json()
        for name in ("mia", "leo")
    }
    assert said["mia"] == case["info"]
    assert said["leo"]["parameters"]["Prompt"] == case["info"]["info"].splitlines()[0]


def test_the_client_saves_lists_and_deletes(client: TestClient) -> None:
    body = {"username": "mia", "password": PASSWORD}
    token = client.post("/api/v1/auth/token", json=body).json()["access_token"]

    async def use() -> list[list[str]]:
        async with PortalClient(ORIGIN, token=token, transport=httpx.ASGITransport(client.app)) as portal:
            saved = await portal.save_style("a/b?", "p", "n")
            seen = await portal.styles()
            assert seen == [saved]
            await portal.delete_style("a/b?")
            return [[each["name"] for each in seen], [each["name"] for each in await portal.styles()]]

    assert asyncio.run(use()) == [["a/b?"], []]
