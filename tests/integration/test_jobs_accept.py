"""Accepting a job, on SQLite and on PostgreSQL: all of it in one transaction, or none."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from atelier.contract.errors import (
    Conflict,
    InvalidRequest,
    LimitExceeded,
    NotFound,
    TooManyRequests,
    UnknownName,
)
from atelier.contract.jobs import JobRequest, JobState
from portal.db.audit import AuditEntry
from portal.db.work import IdempotencyKey, Job, Part
from portal.domain.states import UNFINISHED_JOBS
from portal.services import audit
from portal.services.accept import Limits
from tests.jobs_studio import PAYLOAD, Studio


@pytest.fixture
def studio(database_url: str, tmp_path: Path) -> Iterator[Studio]:
    made = Studio(database_url, tmp_path, limits=Limits(per_user=5, altogether=8))
    yield made
    made.close()


def counts(studio: Studio) -> dict[str, int]:
    accepted = select(func.count()).select_from(AuditEntry).where(AuditEntry.action == "job.accept")
    with studio.database.reading() as session:
        rows = {
            table.__tablename__: session.scalar(select(func.count()).select_from(table)) or 0
            for table in (Job, Part)
        }
        rows["keys"] = session.scalar(select(func.count()).select_from(IdempotencyKey)) or 0
        return rows | {"audit": session.scalar(accepted) or 0}


def test_a_job_its_parts_its_key_and_its_audit_row_appear_together(studio: Studio) -> None:
    ann = studio.user("ann")
    job_id = studio.submit(ann, key="k1", n_iter=3, batch_size=2)
    assert counts(studio) == {"jobs": 1, "parts": 3, "keys": 1, "audit": 1}
    parts = studio.parts(job_id)
    assert [part.first_index for part in parts] == [0, 2, 4]
    assert [part.resolved["seeds"] for part in parts] == [[7, 8], [9, 10], [11, 12]]
    assert studio.view(ann, job_id).state is JobState.QUEUED


def test_nothing_of_a_job_stays_when_its_audit_row_cannot_be_written(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    ann = studio.user("ann")

    def refuse(*_: Any, **__: Any) -> None:
        raise RuntimeError("the trail is full")

    monkeypatch.setattr(audit, "record", refuse)
    with pytest.raises(RuntimeError, match="trail"):
        studio.submit(ann, key="k1")
    assert counts(studio) == {"jobs": 0, "parts": 0, "keys": 0, "audit": 0}


def test_the_same_key_and_body_again_is_the_same_job(studio: Studio) -> None:
    ann = studio.user("ann")
    first = studio.submit(ann, key="k1")
    assert studio.submit(ann, key="k1") == first
    assert counts(studio)["jobs"] == 1


def test_the_same_key_with_another_body_is_a_conflict(studio: Studio) -> None:
    ann = studio.user("ann")
    studio.submit(ann, key="k1")
    with pytest.raises(Conflict):
        studio.submit(ann, key="k1", seed=8)
    assert counts(studio)["jobs"] == 1


def test_a_key_is_the_users_own_and_is_forgotten_after_a_day(studio: Studio) -> None:
    ann, bob = studio.user("ann"), studio.user("bob")
    first = studio.submit(ann, key="k1")
    assert studio.submit(bob, key="k1", seed=8) != first
    studio.clock.advance(24 * 3600 + 1)
    assert studio.submit(ann, key="k1", seed=9) != first
    assert counts(studio)["jobs"] == 3


def test_requests_with_one_key_at_the_same_moment_make_one_job(studio: Studio) -> None:
    ann = studio.user("ann")
    start, found, lock = threading.Barrier(4), [], threading.Lock()

    def send() -> None:
        start.wait()
        job = studio.work.acceptance.accept(ann, JobRequest(txt2img_payload=PAYLOAD), idempotency_key="race")
        with lock:
            found.append(job)

    threads = [threading.Thread(target=send) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4 and len(set(found)) == 1
    assert counts(studio) == {"jobs": 1, "parts": 1, "keys": 1, "audit": 1}


@pytest.mark.parametrize(
    ("payload", "error", "said"),
    [
        ({"sampler_name": "Eular a"}, UnknownName, "'Euler a'"),
        ({"scheduler": "Karas"}, UnknownName, "'Karras'"),
        ({"override_settings": {"sd_model_checkpoint": "furst"}}, UnknownName, "first"),
        ({"steps": 0}, LimitExceeded, "steps"),
        ({"width": "wide"}, InvalidRequest, "width"),
    ],
)
def test_what_cannot_be_carried_out_is_refused_with_the_reason(
    studio: Studio, payload: dict[str, Any], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        studio.submit(studio.user("ann"), **payload)
    assert counts(studio)["jobs"] == 0


def test_an_unknown_endpoint_and_an_unknown_task_are_refused(studio: Studio) -> None:
    ann = studio.user("ann")
    with pytest.raises(UnknownName, match="local"):
        studio.submit(ann, endpoint="locale")
    with pytest.raises(UnknownName, match="text-to-image"):
        studio.work.acceptance.accept(ann, JobRequest(task="text-to-video", txt2img_payload=PAYLOAD))


def test_a_user_with_too_many_unfinished_jobs_is_told_to_come_again(studio: Studio) -> None:
    ann, bob, eve = studio.user("ann"), studio.user("bob"), studio.user("eve")
    for _ in range(5):
        studio.submit(ann)
    with pytest.raises(TooManyRequests) as refused:
        studio.submit(ann)
    assert refused.value.detail["retry_after"] > 0
    for _ in range(3):
        studio.submit(bob)
    with pytest.raises(TooManyRequests, match="full"):
        studio.submit(eve)


def test_somebody_elses_job_does_not_exist_but_administrators_see_it_without_its_pictures(
    studio: Studio,
) -> None:
    ann, bob, root = studio.user("ann"), studio.user("bob"), studio.user("root", "admin")
    job_id = studio.submit(ann)
    for sent in studio.turn():
        studio.fleet.succeed(sent)
    studio.turn()
    with pytest.raises(NotFound):
        studio.view(bob, job_id)
    assert len(studio.view(ann, job_id).pictures) == 1
    seen = studio.view(root, job_id)
    assert seen.state is JobState.SUCCEEDED
    assert seen.pictures == () and seen.info == {}
    picture = studio.view(ann, job_id).pictures[0].id
    assert studio.work.files.describe(ann, picture)[0].size > 0
    for other in (bob, root):
        with pytest.raises(NotFound):
            studio.work.files.describe(other, picture)


def test_settings_of_the_user_take_part_unless_the_request_overrides_them(studio: Studio) -> None:
    from portal.db.identity import User

    ann = studio.user("ann")
    with studio.database.session() as session:
        session.get_one(User, ann.user_id).settings = {"CLIP_stop_at_last_layers": 2}
    taken = studio.parts(studio.submit(ann))[0]
    overridden = studio.parts(studio.submit(ann, override_settings={"CLIP_stop_at_last_layers": 3}))[0]
    assert taken.resolved["settings"]["clip_skip"] == 2
    assert overridden.resolved["settings"]["clip_skip"] == 3


def test_lists_are_the_callers_own_newest_first_and_go_on_from_a_cursor(studio: Studio) -> None:
    ann, bob = studio.user("ann"), studio.user("bob")
    mine = [studio.submit(ann) for _ in range(3)]
    studio.submit(bob)
    page, following = studio.work.jobs.listed(ann, limit=2)
    assert [job.id for job in page] == [mine[2], mine[1]]
    rest, last = studio.work.jobs.listed(ann, limit=2, cursor=following)
    assert [job.id for job in rest] == [mine[0]] and last is None
    assert len(studio.work.jobs.listed(ann, state="active")[0]) == 3
    assert studio.work.jobs.listed(ann, state="failed")[0] == []
    with pytest.raises(InvalidRequest):
        studio.work.jobs.listed(ann, state="asleep")
    assert UNFINISHED_JOBS == ("queued", "waking", "running")
