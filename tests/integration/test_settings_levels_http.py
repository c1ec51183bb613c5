"""Settings of the studio, of teams and of oneself over HTTP: who may, what is refused, what comes back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from portal.app import create_app
from portal.services import audit
from tests.jobs_studio import Studio

PASSWORD = "a long enough password"


class Portal:
    """A portal with root, an administrator, and ann, a designer."""

    def __init__(self, studio: Studio, client: TestClient) -> None:
        self.client = client
        for name, role in (("root", "admin"), ("ann", "designer")):
            studio.services.identity.create(audit.SYSTEM, name, PASSWORD, role)
        self._headers = {name: self._log_in(name) for name in ("root", "ann")}

    def _log_in(self, name: str) -> dict[str, str]:
        login = self.client.post("/api/v1/auth/token", json={"username": name, "password": PASSWORD})
        return {"Authorization": f"Bearer {login.json()['access_token']}"}

    def __call__(self, who: str, method: str, path: str, body: Any = None) -> Any:
        """(status, the answer's JSON)."""
        answer = self.client.request(
            method, f"/api/v1/settings/{path}", headers=self._headers[who], json=body
        )
        return answer.status_code, answer.json()

    def setting(self, who: str, path: str, key: str) -> dict[str, Any]:
        """One option as it holds there."""
        _, body = self(who, "GET", path)
        return next(each for each in body["settings"] if each["key"] == key)


@pytest.fixture
def portal(studio_url: str, tmp_path: Path) -> Iterator[Portal]:
    studio = Studio(studio_url, tmp_path)
    app = create_app(studio.services)
    with TestClient(app, base_url="http://127.0.0.1:8000", client=("127.0.0.1", 5000)) as client:
        yield Portal(studio, client)
    studio.close()


def test_an_administrator_sets_and_locks_and_a_designer_sees_it(portal: Portal) -> None:
    status, body = portal("root", "PATCH", "platform", {"values": {"rho": 5}, "locked": {"rho": True}})
    assert (status, body["version"], body["name"], body["ignored"]) == (200, 1, "the studio", [])
    assert portal.setting("ann", "me", "rho") == {
        "key": "rho",
        "value": 5.0,
        "default": 0.0,
        "level": "platform",
        "source": "the studio",
        "own": False,
        "locks": False,
        "locked_by": "the studio",
    }
    status, body = portal("ann", "PATCH", "me", {"values": {"rho": 4}})
    assert status == 409 and body["error"]["detail"] == {"option": "rho", "locked_by": "the studio"}
    peers = portal.client.post("/sdapi/v1/options", json={"rho": 4.0}, auth=("ann", PASSWORD))
    assert peers.status_code == 409 and "locked by the studio" in peers.text
    assert portal("ann", "PATCH", "me", {"values": {"tiling": True}})[0] == 200
    assert portal.setting("ann", "me", "tiling")["level"] == "user"
    assert portal.setting("root", "me", "tiling")["level"] == "built-in"


def test_a_teams_settings_are_versions_that_come_back(portal: Portal) -> None:
    made = portal.client.post(
        "/api/v1/teams", json={"name": "Posters", "members": ["ann"]}, headers=portal._headers["root"]
    ).json()
    path = f"teams/{made['id']}"
    portal("root", "PATCH", path, {"values": {"rho": 6}})
    portal("root", "PATCH", path, {"values": {"rho": 7}, "locked": {"rho": True}})
    assert portal.setting("ann", "me", "rho")["locked_by"] == "the team Posters"
    status, body = portal("root", "POST", f"{path}/undo/1")
    assert (status, body["version"]) == (200, 3)
    mine = portal.setting("ann", "me", "rho")
    assert (mine["value"], mine["source"], mine["locked_by"]) == (6.0, "the team Posters", "")
    _, versions = portal("root", "GET", f"{path}/versions")
    assert [(each["number"], each["locked"], each["undoes_to"]) for each in versions] == [
        (3, [], 1),
        (2, ["rho"], None),
        (1, [], None),
    ]
    assert portal("root", "POST", f"{path}/undo/8")[0] == 404
    assert portal("root", "GET", "teams/none")[0] == 404


@pytest.mark.parametrize("path", ["platform", "teams/x"])
def test_what_is_everybodys_needs_the_permission(portal: Portal, path: str) -> None:
    assert portal("ann", "GET", path)[0] == 403
    assert portal("ann", "GET", f"{path}/versions")[0] == 403
    assert portal("ann", "PATCH", path, {"values": {"rho": 5}})[0] == 403
    assert portal("ann", "POST", f"{path}/undo/0")[0] == 403


def test_a_change_that_cannot_be_says_why_and_stores_nothing(portal: Portal) -> None:
    for body, said in (
        ({}, "nothing to change"),
        ({"values": {"rhoo": 1}}, "no option named 'rhoo'"),
        ({"values": {"rho": "much", "tiling": True}}, "'much' is not a number"),
        ({"locked": {"outdir_samples": True}}, "no option named 'outdir_samples'"),
    ):
        status, answer = portal("root", "PATCH", "platform", body)
        assert status == 422 and said in answer["error"]["message"], answer
    assert portal("root", "GET", "platform")[1]["version"] == 0
    status, answer = portal("root", "PATCH", "me", {"locked": {"rho": True}})
    assert status == 422 and "nobody to lock them for" in answer["error"]["message"]
