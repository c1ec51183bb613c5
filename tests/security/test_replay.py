"""What one user may do with their own things, sent again by another: it is not there."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image
from starlette.testclient import TestClient

from atelier.contract import keys
from atelier.contract.parts import ProgressState
from portal.app import create_app
from portal.services import audit
from portal.services.callers import Caller
from portal.services.permissions import DESIGNER, ROLES
from tests.integration.test_dead_letters import given_up
from tests.integration.test_grids import XYZ, made
from tests.jobs_studio import PAYLOAD, Studio
from tests.security.test_permission_walk import ORIGIN, PASSWORD, SAME, Step, every_step

BODIES: dict[str, Any] = {
    "POST /api/v1/jobs/{job_id}/actions": {"action": "cancel"},
    "PATCH /api/v1/jobs/{job_id}": {"priority": 1},
    "PUT /api/v1/styles/{name:path}": {"prompt": "mine now"},
    "PUT /api/v1/sharing/{kind}/{object_id}": {"visibility": "private"},
}
SHARED = {
    "/api/v1/models/{model_id}",
    "/api/v1/models/{model_id}/preview",
    "/portal/models/{model_id}/sharing",
    "/api/v1/endpoints/{name}",
    "/api/v1/endpoints/{name}/invocations",
    "/api/v1/endpoints/{name}/invocations/{call_id}",  # one's own: test_custom_calls.py
}
"""What designers see of what is the studio's."""
SHARING = ("PUT /api/v1/sharing/{kind}/{object_id}",)
"""What is put on a thing that is there already, and makes none of one's own."""


def a_picture() -> bytes:
    """A small PNG."""
    out = io.BytesIO()
    Image.new("RGB", (64, 64)).save(out, "PNG")
    return out.getvalue()


class Owned:
    """ann's job with six pictures and their grid, a job of hers that runs, a part that was given up, a key, a
    style and a version of her settings, before a portal; bob has nothing.
    """

    def __init__(self, studio: Studio, client: TestClient, ids: dict[str, str]) -> None:
        self.client, self.headers = client, dict[str, dict[str, str]]()
        caller = Caller(ids["ann"], "ann", (DESIGNER,), ROLES[DESIGNER])
        for name in ids:
            login = client.post("/api/v1/auth/token", json={"username": name, "password": PASSWORD}).json()
            self.headers[name] = SAME | {"Authorization": f"Bearer {login['access_token']}"}
        self.job = made(studio, caller, **XYZ)
        letter = given_up(studio, caller)
        self.letter = studio.parts(letter)[0].id
        self.running = running(studio, caller)
        self.sent = self("ann", "POST", "/inference", json={"prompt": "hers"}).json()["job"]
        self.key = self("ann", "POST", "/api/v1/me/keys", json={"name": "mine"}).json()["id"]
        self.asset = self("ann", "POST", "/api/v1/assets", content=a_picture()).json()["id"]
        self("ann", "PUT", "/api/v1/styles/mine", json={"prompt": "soft"})
        self("ann", "PATCH", "/api/v1/settings/me", json={"values": {"samples_format": "jpg"}})
        view = self("ann", "GET", f"/api/v1/jobs/{self.job}").json()
        self.pictures = re.findall(r"/files/([\w-]+)", str(view))
        assert len(set(self.pictures)) >= 7, "six pictures and their grid"

    def __call__(self, who: str, method: str, path: str, **options: Any) -> httpx.Response:
        return self.client.request(method, path, headers=self.headers[who], **options)

    def values(self, path: str) -> list[dict[str, str]]:
        """What of ann's stands in a path, by the names of its parameters; nothing for what is not hers."""
        known = {
            "job_id": [self.job, self.running],
            "part_id": [self.letter],
            "picture_id": self.pictures,
            "key_id": [self.key],
            "asset_id": [self.asset],
            "name:path": ["mine"],
            "version": ["1"],
            "kind": ["job"],
            "object_id": [self.job],
        }
        names = re.findall(r"{([^}]+)}", path)
        if path.startswith("/inference/"):
            return [{"job_id": self.sent}]
        if "seq" in names:
            return [{"job_id": self.running, "seq": "1"}]
        if set(names) - set(known):
            return []
        return [dict(zip(names, each, strict=True)) for each in product(*(known[name] for name in names))]

    def shown(self) -> list[Any]:
        """All that ann sees of hers, but for how far the running job is."""
        paths = ("/me/keys", "/styles", "/settings/me", "/settings/me/versions", f"/jobs/{self.job}")
        jobs = self("ann", "GET", "/api/v1/jobs").json()["jobs"]
        seen = [self("ann", "GET", f"/api/v1{path}").json() for path in paths]
        return [*seen, [(each["id"], each["state"] != "cancelled") for each in jobs]]


def running(studio: Studio, caller: Caller) -> str:
    """A job in the making, with a preview."""
    job = studio.submit(caller)
    [sent] = studio.turn()
    studio.fleet.progress(sent, 1)
    key = keys.progress(sent.job, sent.part, sent.attempt)
    state = ProgressState.model_validate_json(studio.store.get(key)).model_copy(update={"preview": 1})
    studio.store.put(key, state.model_dump_json().encode())
    studio.store.put(keys.preview(sent.job, sent.part, sent.attempt, 1), b"the newest preview")
    return job


@pytest.fixture
def owned(studio_url: str, tmp_path: Path) -> Iterator[Owned]:
    studio = Studio(studio_url, tmp_path)
    ids = {
        name: studio.services.identity.create(audit.SYSTEM, name, PASSWORD, role).id
        for name, role in (("ann", DESIGNER), ("bob", DESIGNER), ("root", "admin"))
    }
    # Without its lifespan: the dispatcher takes its turns when the test says so.
    yield Owned(
        studio, TestClient(create_app(studio.services), base_url=ORIGIN, client=("127.0.0.1", 5)), ids
    )
    studio.close()


def designers_steps(owned: Owned) -> list[Step]:
    """The routes that a designer may use, with something in their path."""
    app: Any = owned.client.app
    return [
        step for step in every_step(app.routes) if "{" in step.path and step.permission in ROLES[DESIGNER]
    ]


def test_every_route_about_one_thing_is_replayed_or_about_what_everybody_sees(owned: Owned) -> None:
    steps = designers_steps(owned)
    missing = {step.path for step in steps if not owned.values(step.path)}
    assert missing == SHARED
    assert len(steps) >= 10


def test_what_succeeds_for_the_owner_is_not_there_for_somebody_else(owned: Owned) -> None:
    calls = [
        (step.method, re.sub(r"{([^}]+)}", lambda found, known=known: known[found[1]], step.path), step.name)
        for step in designers_steps(owned)
        for known in owned.values(step.path)
    ]
    # What takes something away comes last, and what makes one's own is not asked of somebody else.
    calls.sort(key=lambda call: (call[0] == "DELETE", call[2].endswith("actions"), call[2]))
    before = owned.shown()
    for method, path, name in calls:
        if method != "PUT" or name in SHARING:
            answer = owned("bob", method, path, json=BODIES.get(name))
            assert answer.status_code == 404, (method, path, answer.status_code)
    assert owned.shown() == before
    stream = f"/api/v1/jobs/{owned.running}/events"
    for method, path, name in calls:
        if path != stream:  # it lasts as long as its job, which ends last
            answer = owned("ann", method, path, json=BODIES.get(name))
            assert answer.status_code < 300, (method, path, answer.text)
    assert owned("ann", "GET", stream).status_code == 200
    assert len(calls) >= 20


def test_a_thing_of_ones_own_by_the_same_name_touches_nobody_elses(owned: Owned) -> None:
    before = owned.shown()
    assert owned("bob", "PUT", "/api/v1/styles/mine", json={"prompt": "bob's"}).status_code == 200
    assert owned("bob", "PATCH", "/api/v1/settings/me", json={"values": {"samples_format": "png"}}).is_success
    assert owned("bob", "POST", "/api/v1/settings/me/undo/0").status_code == 200
    assert owned("bob", "DELETE", "/api/v1/styles/mine").status_code == 204
    wrong = {"current": "not it at all", "new": "another long password"}
    assert owned("bob", "PUT", "/api/v1/me/password", json=wrong).status_code in (401, 403, 422)
    body, key = {"txt2img_payload": {"prompt": "x", "steps": 1}}, {"Idempotency-Key": "the same key"}
    jobs = []
    for who in ("ann", "bob"):
        headers = owned.headers[who] | key
        jobs.append(owned.client.post("/api/v1/jobs", json=body, headers=headers).json()["id"])
    assert len(set(jobs)) == 2, "a key of one's own finds nobody else's job"
    assert owned("bob", "GET", f"/api/v1/jobs?cursor={jobs[0]}").json()["jobs"] == []
    assert owned("bob", "GET", "/api/v1/jobs?everybody=true").status_code == 403
    owned("ann", "POST", f"/api/v1/jobs/{jobs[0]}/actions", json={"action": "cancel"})
    assert [each for each in owned.shown()[:-1]] == before[:-1]


def test_what_a_keeper_names_in_a_request_is_not_somebody_elses_either(owned: Owned) -> None:
    model = owned("root", "GET", "/api/v1/models").json()[0]["id"]
    for picture in owned.pictures:
        path = f"/api/v1/models/{model}/preview?picture={picture}"
        assert owned("root", "PUT", path).status_code == 404, "an administrator's eyes end at ann's pictures"
        assert owned("root", "GET", f"/files/{picture}").status_code == 404
    for path in ("/api/v1/jobs?everybody=true", f"/api/v1/jobs/{owned.job}", "/portal/jobs"):
        told = owned("root", "GET", path).text
        assert owned.job[-8:] in told
        assert not any(each in told for each in (*owned.pictures, str(PAYLOAD["prompt"]))), path
    assert owned("root", "GET", f"/api/v1/jobs/{owned.running}/preview/1").status_code == 404
    assert owned("bob", "GET", "/sdapi/v1/progress").json()["state"]["job"] == ""
    assert owned("ann", "GET", "/sdapi/v1/progress").json()["state"]["job"] == owned.running
    link = owned("root", "POST", "/api/v1/users/invitations", json={}).json()
    assert owned("bob", "DELETE", f"/api/v1/users/invitations/{link['id']}").status_code == 403
    assert owned("root", "DELETE", f"/api/v1/users/invitations/{owned.key}").status_code == 404
    assert owned("root", "DELETE", f"/api/v1/me/keys/{owned.key}").status_code == 404
