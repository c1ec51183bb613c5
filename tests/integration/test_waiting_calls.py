"""Calls that wait for somebody else: whatever they wait for, the portal answers everything else."""

from __future__ import annotations

import base64
import io
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from anyio import to_thread
from PIL import Image
from starlette.testclient import TestClient

from atelier.contract import keys
from portal.api.v1 import custom_calls
from portal.app import create_app
from portal.services import audit
from portal.services.ports import EndpointSpec, TaskSpec, TaskState, TaskStatus
from tests.jobs_studio import PASSWORD, Studio

PATIENCE = 60


class Held:
    """Tasks that end when a test says so. `begun` counts up at each."""

    def __init__(self) -> None:
        self.begun, self.free = threading.Semaphore(0), threading.Event()
        self.stopped: list[str] = []
        self.studio: Studio | None = None

    def start(self, spec: TaskSpec) -> str:
        ticket = f"{len(self.stopped)}-{spec.source[-8:]}"
        self.begun.release()
        return ticket

    def describe(self, ticket: str, *, wait: float = 0.0) -> TaskStatus:
        if not self.free.wait(wait):
            return TaskStatus(TaskState.RUNNING)
        assert self.studio is not None
        self.studio.store.put(keys.task_output(ticket), b"map")
        return TaskStatus(TaskState.SUCCEEDED)

    def stop(self, ticket: str) -> None:
        self.stopped.append(ticket)

    def logs(self, ticket: str) -> str:
        return ticket

    def close(self) -> None:
        self.free.set()


class Desk:
    """A portal with one thread for everything, two users, and tasks and an endpoint that are held."""

    def __init__(self, client: TestClient, studio: Studio, tasks: Held) -> None:
        self.client, self.studio, self.tasks = client, studio, tasks
        self.begun, self.free = threading.Semaphore(0), threading.Event()
        studio.fleet.ask = self._answer  # type: ignore[method-assign]
        spec = EndpointSpec("now", kind="custom-realtime", image="registry/mine:1")
        studio.work.endpoints.create(audit.SYSTEM, spec)
        self.headers = {}
        for name in ("ann", "bob"):
            studio.services.identity.create(audit.SYSTEM, name, PASSWORD, "designer")
            login = client.post("/api/v1/auth/token", json={"username": name, "password": PASSWORD}).json()
            self.headers[name] = {"Authorization": f"Bearer {login['access_token']}"}
        assert client.portal is not None
        client.portal.call(_one_thread)

    def _answer(self, _name: str, body: bytes, content_type: str, _accept: str) -> tuple[bytes, str]:
        self.begun.release()
        assert self.free.wait(PATIENCE)
        return body, content_type

    def detect(self, who: str = "ann", **headers: str) -> httpx.Response:
        out = io.BytesIO()
        Image.new("RGB", (8, 8)).save(out, "PNG")
        body: dict[str, Any] = {"controlnet_images": [base64.b64encode(out.getvalue()).decode()] * 2}
        return self.client.post("/controlnet/detect", json=body, headers=self.headers[who] | headers)

    def send(self, who: str = "ann", **headers: str) -> httpx.Response:
        path = "/api/v1/endpoints/now/invocations"
        return self.client.post(path, content=b"body", headers=self.headers[who] | headers)

    def answers_others(self) -> None:
        """A route that needs the one thread is answered."""
        assert self.client.get("/controlnet/version", headers=self.headers["bob"]).status_code == 200


async def _one_thread() -> None:
    to_thread.current_default_thread_limiter().total_tokens = 1


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    tasks = Held()
    tasks.studio = studio = Studio(f"sqlite:///{tmp_path / 'a.db'}", tmp_path, tasks=tasks)
    with TestClient(create_app(studio.services), base_url="http://127.0.0.1:8000") as client:
        made = Desk(client, studio, tasks)
        try:
            yield made
        finally:
            tasks.free.set()
            made.free.set()
    studio.close()


@contextmanager
def beside() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as pool:
        yield pool


def test_the_probe_is_answered_while_every_thread_is_taken(desk: Desk) -> None:
    assert desk.client.portal is not None
    taken, free = threading.Event(), threading.Event()

    def hold() -> None:
        taken.set()
        free.wait(PATIENCE)

    held: Future[None] = desk.client.portal.start_task_soon(to_thread.run_sync, hold)
    try:
        assert taken.wait(PATIENCE)
        assert desk.client.get("/healthz").json() == {"status": "ok"}
        assert not held.done()
    finally:
        free.set()
        held.result(PATIENCE)


def test_a_map_that_takes_long_keeps_nobody_else_waiting_and_is_its_users_only_one(desk: Desk) -> None:
    with beside() as pool:
        first = pool.submit(desk.detect)
        assert desk.tasks.begun.acquire(timeout=PATIENCE)
        second = desk.detect()
        assert second.status_code == 429 and int(second.headers["Retry-After"]) >= 1
        assert "Maps of yours are being drawn" in second.text
        other = pool.submit(desk.detect, "bob")
        assert desk.tasks.begun.acquire(timeout=PATIENCE)
        desk.answers_others()
        assert not first.done() and not other.done()
        desk.tasks.free.set()
        assert [each.result(PATIENCE).status_code for each in (first, other)] == [200, 200]
    assert desk.detect().status_code == 200


def test_maps_wait_no_longer_than_the_caller_all_together(desk: Desk) -> None:
    late = desk.detect(Prefer="wait=0")
    assert late.status_code == 503 and "not drawn in time" in late.text
    assert len(desk.tasks.stopped) == 1, "its task is stopped, and the second is not begun"
    desk.tasks.free.set()
    assert desk.detect().status_code == 200


def test_a_custom_endpoint_that_takes_long_keeps_nobody_else_waiting(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(custom_calls._APART, "_threads", 1)
    with beside() as pool:
        first = pool.submit(desk.send)
        assert desk.begun.acquire(timeout=PATIENCE)
        desk.answers_others()
        refused = desk.send("bob")
        assert refused.status_code == 429 and int(refused.headers["Retry-After"]) >= 1
        desk.free.set()
        assert first.result(PATIENCE).content == b"body"


def test_a_custom_endpoint_is_waited_for_as_long_as_the_caller_prefers(desk: Desk) -> None:
    late = desk.send(Prefer="wait=1")
    assert late.status_code == 503 and "within 1 seconds" in late.text
    desk.free.set()
    assert desk.send().content == b"body"
