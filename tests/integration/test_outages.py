"""A database that is away or busy, and a disk that is full: it is said, nothing is lost, and all goes on."""

from __future__ import annotations

import asyncio
import errno
import resource
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.testclient import TestClient

from atelier.contract.errors import StorageFailed, StorageFull
from atelier.contract.jobs import JobState, JobView
from portal.api.following import followed_to_the_end
from portal.app import await_database, create_app
from portal.db import base
from portal.db.base import Database
from portal.services import audit
from portal.services.failures import failure
from portal.services.health import OK
from portal.services.ports import Submission
from tests.jobs_studio import PAYLOAD, Studio
from tests.postgres import Server, empty_database
from tests.waiting import eventually

PASSWORD = "a long enough password"


class Portal:
    """A studio with its dispatcher's threads at work, and ann at its API."""

    def __init__(self, studio: Studio) -> None:
        self.studio = studio
        self.client = TestClient(create_app(studio.services), base_url="http://127.0.0.1:8000")
        studio.services.identity.create(audit.SYSTEM, "ann", PASSWORD, "designer")
        answer = self.client.post("/api/v1/auth/token", json={"username": "ann", "password": PASSWORD})
        self.token = answer.json()["access_token"]
        self.client.headers["Authorization"] = f"Bearer {self.token}"
        self.studio.work.loop.start()

    def close(self) -> None:
        self.studio.work.loop.stop()
        self.client.close()
        self.studio.close()

    def submit(self, key: str) -> httpx.Response:
        body = {"txt2img_payload": {**PAYLOAD, "seed": len(key)}}
        return self.client.post("/api/v1/jobs", json=body, headers={"Idempotency-Key": key})

    def sent(self, count: int) -> list[Submission]:
        """What was given to workers, once it is so many parts."""
        fleet = self.studio.fleet
        eventually(lambda: len(fleet.submissions) >= count, within=60)
        return list(fleet.submissions)

    def says_of_database(self) -> str:
        """What /readyz says of it."""
        answer = self.client.get("/readyz")
        found = answer.json() if answer.is_success else answer.json()["error"]["detail"]
        return str(found["checks"]["database"])

    def view(self, job_id: str) -> JobView:
        return JobView.model_validate(self.client.get(f"/api/v1/jobs/{job_id}").raise_for_status().json())

    def all_succeed(self, jobs: dict[str, str]) -> None:
        """Let everything that is sent end well; each key has its job with one picture then."""

        def done() -> bool:
            for sent in list(self.studio.fleet.submissions):
                self.studio.fleet.succeed(sent)
            return all(self.view(job).state.final for job in jobs.values())

        eventually(done, within=60)
        assert len(set(jobs.values())) == len(jobs)
        for key, job in jobs.items():
            assert self.submit(key).json()["id"] == job
            view = self.view(job)
            assert (view.state, len(view.pictures)) == (JobState.SUCCEEDED, 1), key
        assert len(self.client.get("/api/v1/jobs").json()["jobs"]) == len(jobs)


def told_to_come_again(answer: httpx.Response) -> dict[str, Any]:
    assert answer.status_code == 503, answer.text
    assert int(answer.headers["Retry-After"]) >= 1
    error: dict[str, Any] = answer.json()["error"]
    assert error["code"] == "storage_failed" and error["retryable"]
    assert error["detail"]["failed"] == "database"
    return error


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A PostgreSQL of these tests alone, which they stop and start."""
    made = Server()
    yield made
    made.remove()


def test_a_database_server_that_stops_is_told_and_loses_nothing(server: Server, tmp_path: Path) -> None:
    with empty_database(server.url) as url:
        portal = Portal(Studio(url, tmp_path))
        caller = portal.studio.services.sessions.caller_of(portal.token)
        jobs = {key: str(portal.submit(key).json()["id"]) for key in ("a", "bb")}
        sent = portal.sent(2)
        followed: list[JobView] = []
        follower = threading.Thread(
            target=lambda: followed.append(
                asyncio.run(followed_to_the_end(portal.studio.services, caller, jobs["a"]))
            ),
        )
        follower.start()
        server.stop()
        try:
            told_to_come_again(portal.submit("ccc"))
            told_to_come_again(portal.client.get("/api/v1/jobs"))
            assert eventually(lambda: "does not answer" in portal.says_of_database(), within=60)
            assert portal.client.get("/healthz").status_code == 200
            portal.studio.fleet.succeed(sent[0])  # its notification meets a database that is away
        finally:
            server.start()
        assert eventually(lambda: portal.says_of_database() == OK, within=60)
        jobs["ccc"] = str(portal.submit("ccc").raise_for_status().json()["id"])
        portal.all_succeed(jobs)
        follower.join(60)
        assert [view.state for view in followed] == [JobState.SUCCEEDED]
        portal.close()


def test_a_locked_sqlite_file_is_told_and_a_notification_that_meets_it_is_taken_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(base, "SQLITE_BUSY_MS", 100)
    file = tmp_path / "atelier.db"
    portal = Portal(Studio(f"sqlite:///{file}", tmp_path))
    jobs = {"a": str(portal.submit("a").json()["id"])}
    sent = portal.sent(1)
    eventually(lambda: portal.studio.attempts(jobs["a"])[0].ticket)
    other = sqlite3.connect(file, isolation_level=None, timeout=60)
    other.execute("BEGIN IMMEDIATE")
    assert "busy" in told_to_come_again(portal.submit("bb"))["message"]
    assert portal.client.get("/api/v1/jobs").status_code == 200  # who only reads does not wait
    portal.studio.fleet.succeed(sent[0])
    eventually(lambda: "completion has to wait" in caplog.text, within=60)
    other.execute("ROLLBACK")
    other.close()
    eventually(lambda: portal.view(jobs["a"]).state is JobState.SUCCEEDED, within=60)
    jobs["bb"] = str(portal.submit("bb").raise_for_status().json()["id"])
    portal.all_succeed(jobs)
    portal.close()


def test_work_that_meets_a_full_disk_is_sent_again_until_there_is_room(tmp_path: Path) -> None:
    studio = Studio(f"sqlite:///{tmp_path / 'atelier.db'}", tmp_path)
    ann = studio.user("ann")
    job = studio.submit(ann)
    for _ in range(6):
        [sent] = studio.turn()
        studio.fleet.fail(sent, StorageFull("no room"), tell=True)
        studio.turn()
        studio.clock.advance(100.0)
    [sent] = studio.turn()
    studio.fleet.succeed(sent)
    studio.turn()
    assert studio.view(ann, job).state is JobState.SUCCEEDED
    assert [each.outcome for each in studio.attempts(job)] == ["returned"] * 6 + ["succeeded"]
    studio.close()


@contextmanager
def no_file_larger_than(size: int) -> Iterator[None]:
    """The system refuses to let any file of this process grow beyond so many bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_write_that_the_system_refuses_leaves_nothing_in_store_and_database(tmp_path: Path) -> None:
    portal = Portal(Studio(f"sqlite:///{tmp_path / 'atelier.db'}", tmp_path))
    portal.studio.work.loop.stop()
    store = portal.studio.store
    store.put("answers/x/0.png", b"before")
    with no_file_larger_than(4096):
        with pytest.raises(StorageFull, match="Make room"):
            store.put("answers/x/0.png", b"1" * 100_000)
        refused = portal.submit("a")
    assert store.get("answers/x/0.png") == b"before" and list(store.unfinished()) == []
    assert refused.status_code == 507, refused.text
    error = refused.json()["error"]
    assert error["code"] == "storage_full" and "Make room" in error["message"]
    assert int(refused.headers["Retry-After"]) >= 1
    assert portal.client.get("/api/v1/jobs").json()["jobs"] == []
    accepted = portal.submit("a")
    assert accepted.status_code == 202 and portal.submit("a").json()["id"] == accepted.json()["id"]
    portal.close()


def test_a_portal_that_starts_waits_for_its_database_and_gives_up_with_a_sentence(tmp_path: Path) -> None:
    folder = tmp_path / "later"
    database = Database(f"sqlite:///{folder / 'atelier.db'}")
    await_database(database, 60, lambda _: folder.mkdir())
    assert (folder / "atelier.db").exists()
    database.close()
    nowhere = Database(f"sqlite:///{tmp_path / 'nowhere' / 'atelier.db'}")
    with pytest.raises(SystemExit, match="does not answer"):
        await_database(nowhere, 0)
    nowhere.close()


def test_failures_of_disk_and_database_are_told_as_what_they_are() -> None:
    busy = failure(PoolTimeout("QueuePool limit reached"))
    assert type(busy) is StorageFailed and busy.detail["retry_after"] > 0
    full = failure(OSError(errno.ENOSPC, "No space left on device"))
    assert type(full) is StorageFull and "Make room" in full.message
    assert failure(OSError(errno.EPERM, "no")) is None
    assert failure(RuntimeError("a defect")) is None
