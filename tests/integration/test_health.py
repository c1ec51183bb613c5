"""/healthz and /readyz: each part really broken, and named."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import delete, text, update
from starlette.testclient import TestClient

from portal.app import create_app
from portal.db.work import Endpoint, Lease
from portal.services.health import OK, UNKNOWN
from tests.jobs_studio import Studio
from tests.waiting import eventually


@pytest.fixture
def studio(database_url: str, tmp_path: Path) -> Iterator[Studio]:
    made = Studio(database_url, tmp_path)
    assert made.work.loop._leadership.held()
    yield made
    made.close()


def readiness(studio: Studio) -> tuple[int, dict[str, str]]:
    """(status, what /readyz says of each part), looked at anew."""
    studio.services.health._seen = None
    client = TestClient(create_app(studio.services), base_url="http://127.0.0.1:8000")
    answer = client.get("/readyz")
    assert client.get("/healthz").json() == {"status": "ok"}
    if answer.status_code == 200:
        return 200, answer.json()["checks"]
    error = answer.json()["error"]
    assert error["code"] == "not_ready" and answer.json()["request_id"]
    wrong = {said for said in error["detail"]["checks"].values() if said != OK}
    assert all(said in error["message"] for said in wrong)
    return answer.status_code, error["detail"]["checks"]


def wrong(studio: Studio) -> dict[str, str]:
    status, checks = readiness(studio)
    assert status == 503
    return {name: said for name, said in checks.items() if said != OK}


def test_a_studio_whose_parts_all_work_is_ready(studio: Studio) -> None:
    parts = ("database", "store", "migrations", "dispatcher", "endpoints")
    assert readiness(studio) == (200, dict.fromkeys(parts, OK))


def test_a_database_of_another_version_is_named(studio: Studio) -> None:
    with studio.database.engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '0001'"))
    assert "atelier migrate" in wrong(studio)["migrations"]


def test_a_store_that_cannot_be_written_to_is_named(studio: Studio, tmp_path: Path) -> None:
    blobs = tmp_path / "store" / "blobs"
    blobs.rename(tmp_path / "elsewhere")
    blobs.write_text("a file where the folder was")
    assert wrong(studio) == {"store": "The blob store cannot be written to."}
    blobs.unlink()
    (tmp_path / "elsewhere").rename(blobs)
    assert readiness(studio)[0] == 200
    assert list((blobs / "health").iterdir()) == [], "what was written for the look is gone"


def test_a_studio_nobody_dispatches_for_is_named_once_another_should_have_taken_over(studio: Studio) -> None:
    studio.clock.advance(20)
    assert readiness(studio)[0] == 200, "a process that was just killed is being replaced"
    studio.clock.advance(20)
    assert "No process has dispatched for 25 s" in wrong(studio)["dispatcher"]
    studio.work.loop._leadership.give_up()
    assert "has stopped" in wrong(studio)["dispatcher"]
    with studio.database.session() as session:
        session.execute(delete(Lease))
    assert "anything yet" in wrong(studio)["dispatcher"]


def test_a_dispatchers_thread_that_ended_is_named(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    loop = studio.work.loop
    monkeypatch.setattr(loop, "_complete", lambda: None)  # as after a failure nobody caught
    loop.start()
    try:
        eventually(loop.faults, within=60)
        assert wrong(studio) == {
            "dispatcher": "The thread dispatcher-complete has ended; this process has to be started again."
        }
    finally:
        loop.stop()


def test_endpoints_that_have_all_failed_are_named_and_one_that_works_is_enough(studio: Studio) -> None:
    with studio.database.session() as session:
        session.execute(update(Endpoint).values(state="failed", reason="a secret path"))
    assert list(wrong(studio)) == ["endpoints"]
    assert "secret" not in str(wrong(studio)), "a stranger reads this"
    with studio.database.session() as session:
        session.add(Endpoint(name="other", state="asleep", created=1.0))
    assert readiness(studio)[0] == 200


def test_a_database_that_is_gone_is_named_and_what_hangs_on_it_is_not_known(
    studio: Studio, tmp_path: Path
) -> None:
    studio.database.close()
    if studio.database.is_sqlite:
        (tmp_path / "atelier.db").rename(tmp_path / "gone.db")
        (tmp_path / "atelier.db").mkdir()
    else:
        studio.database.url = studio.database.url.set(port=1)
        studio.database.__init__(studio.database.url)  # type: ignore[misc]  # nobody listens there
        studio.services.health._database = studio.database
    found = wrong(studio)
    assert found["database"] == "The database does not answer."
    assert found["migrations"] == found["dispatcher"] == found["endpoints"] == UNKNOWN
    assert "store" not in found


def test_who_asks_often_gets_the_answer_from_before(studio: Studio) -> None:
    assert studio.services.health.checks() is studio.services.health.checks()
