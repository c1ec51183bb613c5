"""Roles, teams and rules over HTTP: who may, what is refused, and what the answers say."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient

from portal.app import create_app
from portal.services import audit
from portal.services.permissions import PERMISSIONS
from tests.jobs_studio import PAYLOAD, Studio

PASSWORD = "a long enough password"
CLOSED = {"object_kind": "endpoint", "object": "local", "subject_kind": "everybody", "effect": "deny"}
ORIGIN = "http://127.0.0.1:8000"


class Portal:
    """A portal with root, an administrator, and ann and bob, designers."""

    def __init__(self, studio: Studio, client: TestClient) -> None:
        self._client = client
        self._headers: dict[str, dict[str, str]] = {}
        for name, role in (("root", "admin"), ("ann", "designer"), ("bob", "designer")):
            studio.services.identity.create(audit.SYSTEM, name, PASSWORD, role)

    def __call__(self, who: str, method: str, path: str, body: Any = None) -> httpx.Response:
        if who not in self._headers:
            login = self._client.post("/api/v1/auth/token", json={"username": who, "password": PASSWORD})
            self._headers[who] = {"Authorization": f"Bearer {login.json()['access_token']}"}
        return self._client.request(method, f"/api/v1{path}", headers=self._headers[who], json=body)

    def peer(self, who: str, path: str) -> httpx.Response:
        return self._client.get(path, auth=(who, PASSWORD))

    def id_of(self, name: str) -> str:
        return str(
            next(each["id"] for each in self("root", "GET", "/users").json() if each["username"] == name)
        )

    def log_in_again(self, who: str) -> None:
        self._headers.pop(who)


@pytest.fixture
def portal(studio_url: str, tmp_path: Path) -> Iterator[Portal]:
    studio = Studio(studio_url, tmp_path)
    with TestClient(create_app(studio.services), base_url=ORIGIN, client=("127.0.0.1", 5000)) as client:
        yield Portal(studio, client)
    studio.close()


def test_a_role_is_made_given_used_and_taken_away(portal: Portal) -> None:
    body = {"description": "Reads the trail.", "permissions": ["audit.read"]}
    assert portal("root", "PUT", "/roles/auditor", body).json()["permissions"] == ["audit.read"]
    assert portal("ann", "GET", "/audit").status_code == 403
    changed = portal("root", "PATCH", f"/users/{portal.id_of('ann')}", {"roles": ["designer", "auditor"]})
    assert changed.json()["roles"] == ["auditor", "designer"]
    assert portal("ann", "GET", "/audit").status_code == 401, "new roles end the logins of before"
    portal.log_in_again("ann")
    assert portal("ann", "GET", "/audit").status_code == 200
    me = portal("ann", "GET", "/me").json()
    assert (me["role"], me["roles"]) == ("auditor, designer", ["auditor", "designer"])
    assert portal("root", "DELETE", "/roles/auditor").status_code == 409
    portal("root", "PATCH", f"/users/{portal.id_of('ann')}", {"role": "designer"})
    assert portal("root", "DELETE", "/roles/auditor").status_code == 204
    assert [each["name"] for each in portal("root", "GET", "/roles").json()] == ["admin", "designer"]


def test_every_permission_is_told_with_its_risk(portal: Portal) -> None:
    told = portal("ann", "GET", "/permissions").json()
    assert {each["id"] for each in told} == set(PERMISSIONS)
    assert {each["risk"] for each in told} == {"low", "medium", "high"}


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/roles", None),
        ("PUT", "/roles/king", {"permissions": ["users.manage"]}),
        ("DELETE", "/roles/king", None),
        ("GET", "/teams", None),
        ("POST", "/teams", {"name": "Films"}),
        ("GET", "/access-rules", None),
        ("PUT", "/access-rules", CLOSED),
        ("DELETE", "/access-rules/x", None),
    ],
)  # fmt: skip
def test_a_designer_changes_nobodys_rights(portal: Portal, method: str, path: str, body: Any) -> None:
    assert portal("ann", method, path, body).status_code == 403


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("PUT", "/roles/admin", {"permissions": []}, 409),
        ("PUT", "/roles/King", {"permissions": []}, 422),
        ("PUT", "/roles/king", {"permissions": ["everything"]}, 422),
        ("PUT", "/roles/king", {}, 422),
        ("PUT", "/roles/king", {"permissions": [], "held": 3}, 422),
        ("POST", "/teams", {"name": ""}, 422),
        ("POST", "/teams", {"name": "Films", "members": ["nobody"]}, 422),
        ("PATCH", "/teams/none", {"name": "x"}, 404),
        ("DELETE", "/teams/none", None, 404),
        ("PUT", "/access-rules", {**CLOSED, "object_kind": "planet"}, 422),
        ("PUT", "/access-rules", {**CLOSED, "object_kind": "model"}, 422),
        ("DELETE", "/access-rules/none", None, 404),
        ("POST", "/users", {"username": "eve", "password": PASSWORD, "roles": []}, 422),
        ("POST", "/users", {"username": "eve", "password": PASSWORD, "roles": ["king"]}, 422),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_a_clear_refusal(
    portal: Portal, method: str, path: str, body: Any, status: int
) -> None:
    answer = portal("root", method, path, body)
    assert answer.status_code == status, answer.text
    assert answer.json()["error"]["message"]


def test_a_rule_closes_an_endpoint_to_a_team_and_to_nobody_else(portal: Portal) -> None:
    made = portal("root", "POST", "/teams", {"name": "Films", "members": ["ann"]}).json()
    rule = {**CLOSED, "subject_kind": "team", "subject": made["id"]}
    put = portal("root", "PUT", "/access-rules", rule).json()
    assert (put["object_name"], put["subject_name"]) == ("local", "Films")
    job = {"txt2img_payload": PAYLOAD, "endpoint": "local"}
    refused = portal("ann", "POST", "/jobs", job)
    assert refused.status_code == 403 and "Ask an administrator" in refused.json()["error"]["message"]
    assert portal("bob", "POST", "/jobs", job).status_code == 202
    assert len(portal("root", "GET", "/access-rules?object_kind=endpoint&object=local").json()) == 1
    assert portal("root", "DELETE", f"/access-rules/{put['id']}").status_code == 204
    assert portal("ann", "POST", "/jobs", job).status_code == 202


def test_what_is_closed_to_somebody_is_in_no_list_of_theirs(portal: Portal) -> None:
    [model] = portal("root", "GET", "/models").json()
    rule = {"subject_kind": "user", "subject": portal.id_of("ann"), "effect": "deny"}
    for what in (
        {"object_kind": "model", "object": model["id"]},
        {"object_kind": "endpoint", "object": "local"},
    ):
        assert portal("root", "PUT", "/access-rules", {**rule, **what}).status_code == 200
    for who, there in (("ann", 0), ("bob", 1), ("root", 1)):
        assert len(portal(who, "GET", "/models").json()) == there
        assert len(portal(who, "GET", "/endpoints").json()) == there
        assert len(portal.peer(who, "/sdapi/v1/sd-models").json()) == there
    for path in (f"/models/{model['id']}", f"/models/{model['id']}/preview", "/endpoints/local"):
        assert portal("ann", "GET", path).status_code == 404
    assert portal("bob", "GET", f"/models/{model['id']}").status_code == 200
    assert portal("bob", "GET", "/endpoints/local").status_code == 200
