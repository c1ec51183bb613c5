"""Who gets in: every route, every credential, every header, over HTTP."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from fastapi import APIRouter
from sqlalchemy import event
from starlette.testclient import TestClient

from atelier.contract import routes
from portal.api.security import undeclared
from portal.app import create_app
from portal.services import audit
from portal.services.identity import Change
from tests.jobs_studio import Studio

PASSWORD = "a long enough password"
ORIGIN = "http://127.0.0.1:8000"
SAME = {"Sec-Fetch-Site": "same-origin", "Origin": ORIGIN}


@pytest.fixture
def studio(studio_url: str, tmp_path: Path) -> Iterator[Studio]:
    made = Studio(studio_url, tmp_path)
    for name, role in (("root", "admin"), ("ann", "designer"), ("bob", "designer")):
        made.services.identity.create(audit.SYSTEM, name, PASSWORD, role)
    yield made
    made.close()


@pytest.fixture
def client(studio: Studio) -> Iterator[TestClient]:
    app = create_app(studio.services)
    with TestClient(app, base_url=ORIGIN, client=("127.0.0.1", 5000), raise_server_exceptions=False) as made:
        yield made


def log_in(client: TestClient, name: str, password: str = PASSWORD, **headers: str) -> httpx.Response:
    form = {"username": name, "password": password, "next": "/"}
    return client.post("/portal/login", data=form, headers=SAME | headers, follow_redirects=False)


def bearer(client: TestClient, name: str) -> dict[str, str]:
    answer = client.post("/api/v1/auth/token", json={"username": name, "password": PASSWORD})
    return {"Authorization": f"Bearer {answer.json()['access_token']}"}


def test_a_route_without_a_declared_permission_is_found(client: TestClient) -> None:
    router = APIRouter()

    @router.get("/open")
    def open_to_all() -> None:
        """Nothing guards it."""

    assert undeclared([router]) == ["GET /open"]
    assert len(client.get("/openapi.json", headers=bearer(client, "root")).json()["paths"]) >= 15


def test_anonymous_callers_get_nowhere_but_the_public_places(client: TestClient) -> None:
    paths = client.get("/openapi.json", headers=bearer(client, "root")).json()["paths"]
    client.cookies.clear()
    open_places = {"/healthz", "/readyz", "/api/v1/auth/token", "/api/v1/auth/refresh"}
    answered: dict[str, int] = {}
    for path, methods in paths.items():
        for method in methods:
            url = re.sub(r"{[^}]+}", "x", path)
            answer = client.request(method, url, headers=SAME, json={}, follow_redirects=False)
            if path not in open_places and not path.startswith("/portal/login"):
                answered[f"{method} {path}"] = answer.status_code
    assert answered
    assert {place: code for place, code in answered.items() if code not in (401, 303)} == {}


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/api/v1/users", None),
        ("POST", "/api/v1/users", {"username": "eve", "password": PASSWORD, "role": "admin"}),
        ("GET", "/api/v1/audit", None),
        ("POST", "/api/v1/endpoints", {"name": "mine"}),
        ("DELETE", "/api/v1/endpoints/local", None),
    ],
)
def test_a_designer_is_refused_what_only_an_admin_may(
    client: TestClient, method: str, path: str, body: dict[str, str] | None
) -> None:
    answer = client.request(method, path, headers=bearer(client, "ann"), json=body)
    assert answer.status_code == 403
    assert answer.json()["error"]["code"] == "not_permitted"


def test_a_credential_of_any_bytes_is_no_credential(client: TestClient) -> None:
    for sent in (b"Basic \xff\xfe", b"Basic ====", b"Basic /w==", b"Basic", b"Bearer \xe4.a.b", b"\xff"):
        answer = client.get("/sdapi/v1/options", headers={b"authorization": sent})
        assert answer.status_code == 401, sent


def test_an_api_key_that_never_ends_is_asked_for_as_such(client: TestClient) -> None:
    ann = bearer(client, "ann") | {"content-type": "application/json"}
    for end in ("NaN", "Infinity"):
        body = f'{{"name": "mine", "expires_at": {end}}}'
        assert client.post("/api/v1/me/keys", content=body, headers=ann).status_code == 422
    assert client.post("/api/v1/me/keys", json={"name": "a\0b"}, headers=ann).status_code == 422
    assert client.get("/api/v1/me/keys", headers=ann).json() == []


def test_the_browsers_cookies_are_http_only_and_same_site(client: TestClient) -> None:
    answer = log_in(client, "ann")
    assert answer.status_code == 303
    cookies = answer.headers.get_list("set-cookie")
    assert {each.split("=")[0] for each in cookies} == {"atelier", "atelier-refresh"}
    for cookie in cookies:
        assert "HttpOnly" in cookie
        assert re.search("samesite=(lax|strict)", cookie, re.IGNORECASE)
        assert "Path=/" in cookie
    assert client.get("/api/v1/me").json()["username"] == "ann"


def test_the_cookie_is_no_credential_for_programs(client: TestClient) -> None:
    log_in(client, "ann")
    assert client.get("/api/v1/me").status_code == 200
    assert client.get("/sdapi/v1/samplers").status_code == 401
    assert client.get("/sdapi/v1/samplers", auth=("ann", PASSWORD)).status_code == 200
    assert routes.for_programs("/sdapi/v1/samplers")


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"},
        {"Sec-Fetch-Site": "same-site", "Origin": "http://other.example"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
    ],
)
def test_an_unsafe_request_from_another_site_is_refused_although_the_cookie_came_along(
    client: TestClient, headers: dict[str, str]
) -> None:
    log_in(client, "ann")
    answer = client.post("/api/v1/jobs", json={"txt2img_payload": {}}, headers=headers)
    assert answer.status_code == 403


def test_pages_carry_a_strict_policy_and_load_nothing_from_elsewhere(client: TestClient) -> None:
    answer = client.get("/portal/login")
    policy = answer.headers["content-security-policy"]
    assert "unsafe-eval" not in policy
    assert re.search(r"script-src 'self'(;|$)", policy)
    assert "frame-ancestors 'none'" in policy or "frame-ancestors 'self'" in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert not re.search(r"(src|href)=\"https?://", answer.text)
    assert "<script>" not in answer.text


def test_what_a_user_types_comes_back_escaped(client: TestClient) -> None:
    answer = log_in(client, "<script>alert(1)</script>", "wrong password")
    assert "<script>alert(1)" not in answer.text
    assert answer.status_code in (401, 422)


def test_the_login_leads_to_our_own_pages_alone(client: TestClient) -> None:
    for target in ("https://evil.example/", "//evil.example", "/\\evil.example", "javascript:alert(1)"):
        form = {"username": "ann", "password": PASSWORD, "next": target}
        answer = client.post("/portal/login", data=form, headers=SAME, follow_redirects=False)
        assert "evil" not in answer.headers["location"]
        assert answer.headers["location"].startswith("/")


def test_a_body_over_the_limit_is_refused(client: TestClient) -> None:
    answer = client.post(
        "/api/v1/jobs",
        content=b"x" * (33 * 2**20),
        headers={**bearer(client, "ann"), "Content-Type": "application/json"},
    )
    assert answer.status_code == 413


def test_nobody_sees_anothers_job(studio: Studio, client: TestClient) -> None:
    job = client.post(
        "/api/v1/jobs", json={"txt2img_payload": {"prompt": "mine"}}, headers=bearer(client, "ann")
    ).json()["id"]
    bob = bearer(client, "bob")
    assert client.get(f"/api/v1/jobs/{job}", headers=bearer(client, "ann")).status_code == 200
    for path in (
        f"/api/v1/jobs/{job}",
        f"/api/v1/jobs/{job}/events",
        f"/api/v1/jobs/{job}/preview/1",
        "/files/x",
    ):
        assert client.get(path, headers=bob).status_code == 404, path
    assert (
        client.post(f"/api/v1/jobs/{job}/actions", json={"action": "cancel"}, headers=bob).status_code == 404
    )
    assert client.get("/api/v1/jobs", headers=bob).json().get("jobs") == []


def test_a_disabled_user_is_out_at_once(studio: Studio, client: TestClient) -> None:
    headers = bearer(client, "ann")
    ann = next(each for each in studio.services.identity.users() if each.username == "ann")
    studio.services.identity.change(audit.SYSTEM, ann.id, Change(disabled=True))
    assert client.get("/api/v1/me", headers=headers).status_code == 401
    assert client.get("/sdapi/v1/samplers", auth=("ann", PASSWORD)).status_code == 401


@pytest.mark.parametrize("studio_url", ["sqlite"], indirect=True)
def test_a_full_disk_beneath_the_database_is_told_and_nothing_is_half_kept(
    studio: Studio, client: TestClient
) -> None:
    ann = bearer(client, "ann")
    engine = studio.database.engine
    event.listen(engine, "connect", lambda line, _: line.execute("PRAGMA max_page_count = 1"))
    engine.dispose()  # what is there fits; not a page more
    answer = client.put("/api/v1/styles/long", json={"prompt": "a" * 20_000}, headers=ann)
    assert (answer.status_code, answer.json()["error"]["code"]) == (507, "storage_full")
    assert "full" in answer.json()["error"]["message"]
    assert client.get("/api/v1/styles", headers=ann).json() == {"styles": []}


def test_the_character_nul_is_no_defect_on_any_database(database_url: str, tmp_path: Path) -> None:
    made = Studio(database_url, tmp_path)
    made.services.identity.create(audit.SYSTEM, "ann", PASSWORD, "designer")
    app = create_app(made.services)
    with TestClient(
        app, base_url=ORIGIN, client=("127.0.0.1", 5000), raise_server_exceptions=False
    ) as client:
        ann = bearer(client, "ann")
        login = {"username": "ann\0", "password": PASSWORD}
        assert client.post("/api/v1/auth/token", json=login).status_code in (401, 422)
        for path in ("models", "jobs"):
            assert client.get(f"/api/v1/{path}/%00", headers=ann).status_code in (404, 422)
        for name in ("files/%00", "api/v1/jobs?cursor=%00", "api/v1/models?search=%00"):
            assert client.get(f"/{name}", headers=ann).status_code < 500
        made.services.identity.create(audit.SYSTEM, "root", PASSWORD, "admin")
        root = bearer(client, "root")
        for name in ("audit?action=%00", "audit/export?action=%00", "audit/export?format=jsonl&object=%00"):
            assert client.get(f"/api/v1/{name}", headers=root).status_code in (200, 422), name
        key = ann | {"Idempotency-Key": "a"}
        body = {"endpoint": "a\0", "model": "b\0"}
        assert client.post("/api/v1/jobs", json=body, headers=key).status_code == 422
    made.close()


def test_an_unexpected_failure_says_nothing_but_its_request_id(studio: Studio, client: TestClient) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("a secret of the inside")

    studio.services.identity.users = broken  # type: ignore[method-assign]
    answer = client.get("/api/v1/users", headers=bearer(client, "root"))
    assert answer.status_code == 500
    assert "secret" not in answer.text
    assert answer.json()["request_id"]
