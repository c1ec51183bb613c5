"""Too much at once is answered 429 with what to do, on every route; what waits too long expires."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient

from atelier.contract.errors import TooManyRequests
from atelier.contract.jobs import JobRequest, JobState
from portal.app import ROUTERS, create_app
from portal.services import audit
from portal.services.accept import Limits
from portal.services.callers import Caller
from portal.services.dispatch_watch import WAITING_LIMIT
from portal.services.permissions import ROLES
from portal.services.ports import EndpointState, EndpointStatus
from tests.integration.test_dead_letters import given_up
from tests.jobs_studio import PAYLOAD, Studio
from tests.security.test_permission_walk import ORIGIN, PASSWORD, every_step

SUBMITTING = {
    "POST /api/v1/jobs": {"txt2img_payload": PAYLOAD},
    "POST /sdapi/v1/txt2img": PAYLOAD,
    "POST /inference": {"task": "text-to-image", "txt2img_payload": PAYLOAD},
    "POST /api/v1/jobs/{job_id}/retry": None,
    "POST /api/v1/dead-letters/{part_id}/retry": None,
}
"""Every route that makes jobs, with a body that would make one."""
READING = {
    *("POST /sdapi/v1/png-info", "POST /api/v1/infotext"),
    *("POST /api/v1/controlnet/preview", "POST /controlnet/detect"),
    "POST /api/v1/endpoints/{name}/invocations",
}
"""What needs the same permission and makes no job: parameters that are read, pictures that are
looked at, bodies for endpoints of another kind.
"""
PROGRAMS = ("/sdapi/", "/inference")


class Queue:
    """A studio before HTTP in which ann may have two unfinished jobs and everybody together three."""

    def __init__(self, studio: Studio, client: TestClient) -> None:
        self.studio, self._client = studio, client
        self.callers = {
            name: Caller(
                studio.services.identity.create(audit.SYSTEM, name, PASSWORD, "designer").id,
                name,
                ("designer",),
                ROLES["designer"],
            )
            for name in ("ann", "bob", "eve")
        }

    def ask(self, who: str, route: str, **values: str) -> httpx.Response:
        method, path = route.format(**values).split()
        return self._client.request(
            method,
            path,
            params={"endpoint_name": "local"} if path == "/inference" else None,
            json=SUBMITTING.get(route),
            auth=(who, PASSWORD),
        )

    def token(self, who: str, route: str, **values: str) -> httpx.Response:
        login = self._client.post("/api/v1/auth/token", json={"username": who, "password": PASSWORD})
        bearer = {"Authorization": f"Bearer {login.json()['access_token']}"}
        method, path = route.format(**values).split()
        return self._client.request(method, path, json=SUBMITTING.get(route), headers=bearer)


@pytest.fixture
def queue(database_url: str, tmp_path: Path) -> Iterator[Queue]:
    studio = Studio(database_url, tmp_path, limits=Limits(per_user=2, altogether=3))
    # Without its lifespan: the dispatcher does a round when the test says so.
    client = TestClient(create_app(studio.services), base_url=ORIGIN, client=("127.0.0.1", 5000))
    yield Queue(studio, client)
    client.close()
    studio.close()


def said(answer: httpx.Response) -> str:
    """The sentence of a refusal that says when to come again."""
    assert answer.status_code == 429, answer.text
    assert 1 <= int(answer.headers["retry-after"]) <= 60
    body: dict[str, Any] = answer.json()
    return str(body["error"]["message"] if isinstance(body.get("error"), dict) else body["detail"])


def test_every_route_that_makes_jobs_says_when_to_come_again_and_what_to_do(queue: Queue) -> None:
    ann, studio = queue.callers["ann"], queue.studio
    dead = given_up(studio, ann)
    part = studio.parts(dead)[0].id
    for _ in range(2):
        assert queue.token("ann", "POST /api/v1/jobs").status_code == 202
    for route in SUBMITTING:
        asked = queue.ask if any(each in route for each in PROGRAMS) else queue.token
        sentence = said(asked("ann", route, job_id=dead, part_id=part))
        assert "2 unfinished jobs" in sentence and "cancel one" in sentence, route
    assert queue.token("bob", "POST /api/v1/jobs").status_code == 202
    assert "The studio's queue is full" in said(queue.token("eve", "POST /api/v1/jobs"))
    for sent in studio.turn():
        studio.fleet.succeed(sent)
    studio.turn()
    assert queue.token("ann", "POST /api/v1/jobs").status_code == 202


def test_of_many_requests_at_the_same_moment_as_many_are_taken_as_there_is_room_for(
    studio_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    studio = Studio(studio_url, tmp_path, limits=Limits(per_user=2, altogether=50))
    ann, acceptance = studio.user("ann"), studio.work.acceptance
    together, resolve = threading.Barrier(4, timeout=60), acceptance._resolve

    def all_found_room(*given: Any) -> Any:
        together.wait()
        return resolve(*given)

    monkeypatch.setattr(acceptance, "_resolve", all_found_room)

    def ask(_number: int) -> bool:
        try:
            return bool(acceptance.accept(ann, JobRequest(txt2img_payload=PAYLOAD)))
        except TooManyRequests:
            return False

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(ask, range(4))) == [False, False, True, True]
    assert len(studio.work.jobs.listed(ann)[0]) == 2
    studio.close()


def test_no_other_route_makes_jobs() -> None:
    writing = {
        step.name
        for router in ROUTERS
        for step in every_step(router.routes)
        if step.permission == "jobs.submit" or step.name.endswith("/retry")
    }
    assert writing == set(SUBMITTING) | READING


def test_a_job_that_waited_too_long_expires_and_says_so(queue: Queue) -> None:
    ann, studio = queue.callers["ann"], queue.studio
    studio.fleet.statuses["local"] = EndpointStatus(EndpointState.FAILED, 0, "broken")
    studio.turn()
    job_id = studio.submit(ann)
    studio.clock.advance(WAITING_LIMIT - 60)
    studio.turn()
    assert studio.view(ann, job_id).state is JobState.QUEUED
    studio.clock.advance(61)
    studio.turn()
    seen = queue.token("ann", f"GET /api/v1/jobs/{job_id}").json()
    assert seen["state"] == "expired" and seen["error"]["code"] == "expired"
    assert "within a day" in seen["error"]["message"] and "again" in seen["error"]["message"]
    studio.fleet.statuses["local"] = EndpointStatus(EndpointState.IN_SERVICE, 1)
    assert studio.turn() == []
