"""How much each may use: which limit counts, and that two jobs at once never share its last place."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from atelier.contract.errors import AtelierError, InvalidRequest, NotFound, QuotaExceeded
from portal.app import create_app
from portal.db.work import Attempt, Picture
from portal.domain.access import SubjectKind
from portal.domain.quotas import Quota, Usage, effective, exceeded, midnight
from portal.services import audit
from portal.services.callers import Caller
from portal.services.trail import Wanted
from tests.jobs_studio import PAYLOAD, Studio

USER, TEAM, ROLE, ALL = SubjectKind.USER, SubjectKind.TEAM, SubjectKind.ROLE, SubjectKind.EVERYBODY


@pytest.fixture
def studio(studio_url: str, tmp_path: Path) -> Iterator[Studio]:
    made = Studio(studio_url, tmp_path)
    yield made
    made.close()


def limit(studio: Studio, kind: SubjectKind = ALL, subject: str = "*", **limits: Any) -> None:
    studio.services.quotas.put(audit.SYSTEM, kind, subject, Quota(**limits))


def refused(studio: Studio, caller: Caller, **payload: Any) -> QuotaExceeded:
    with pytest.raises(QuotaExceeded) as caught:
        studio.submit(caller, **payload)
    return caught.value


def finish(studio: Studio, seconds: float = 0.0) -> None:
    """Let everything that is sent succeed, having worked so many seconds each."""
    for sent in studio.turn():
        studio.fleet.succeed(sent)
    studio.turn()
    with studio.database.session() as session:
        session.query(Attempt).update({"worked": seconds})


@pytest.mark.parametrize(
    ("quotas", "expected"),
    [
        ((), Quota()),
        (((ALL, Quota(10, 100)),), Quota(10, 100)),
        (((ALL, Quota(10, 100)), (ROLE, Quota(20))), Quota(20, 100)),
        (((ROLE, Quota(20)), (TEAM, Quota(30)), (TEAM, Quota(5))), Quota(30)),
        (((TEAM, Quota(30, 300)), (USER, Quota(1))), Quota(1, 300)),
        (((USER, Quota(0)), (ALL, Quota(9, storage_bytes=7))), Quota(0, storage_bytes=7)),
    ],
)
def test_the_nearest_limit_counts_and_of_teams_and_roles_the_largest(
    quotas: tuple[tuple[SubjectKind, Quota], ...], expected: Quota
) -> None:
    assert effective(quotas) == expected


def test_a_limit_may_be_reached_and_not_passed() -> None:
    assert exceeded(Quota(2, 10), Usage(1, 6), pictures=4) is None
    assert exceeded(Quota(2, 10), Usage(1, 6), pictures=5) == "pictures_a_day"
    assert exceeded(Quota(2, 10), Usage(2, 6), pictures=4) == "unfinished_jobs"
    assert exceeded(Quota(gpu_seconds_a_day=5), Usage(gpu_seconds_a_day=4.9), pictures=1) is None
    assert exceeded(Quota(gpu_seconds_a_day=5), Usage(gpu_seconds_a_day=5.0), pictures=1) is not None
    assert exceeded(Quota(storage_bytes=0), Usage(), pictures=1) == "storage_bytes"
    assert midnight(86_400.0 * 3 + 5.5) == 86_400.0 * 3


def test_unfinished_jobs_are_limited_and_a_finished_one_makes_room(studio: Studio) -> None:
    ann, bob = studio.user("ann"), studio.user("bob")
    limit(studio, unfinished_jobs=2)
    studio.submit(ann)
    studio.submit(ann)
    error = refused(studio, ann)
    assert error.detail == {"quota": "unfinished_jobs", "limit": 2, "used": 2}
    assert "You have 2 unfinished jobs" in error.message
    studio.submit(bob)
    finish(studio)
    assert studio.submit(ann)


def test_pictures_of_a_day_count_made_and_promised_ones_until_midnight(studio: Studio) -> None:
    ann = studio.user("ann")
    limit(studio, USER, ann.user_id, pictures_a_day=5)
    studio.submit(ann, n_iter=1, batch_size=2)
    finish(studio)
    studio.submit(ann, n_iter=2, batch_size=1)
    error = refused(studio, ann, batch_size=2)
    assert error.detail["used"] == 4 and 0 < error.detail["retry_after"] <= 86_401
    studio.submit(ann)
    finish(studio)
    studio.clock.advance(error.detail["retry_after"])
    assert studio.submit(ann, batch_size=5)


def test_seconds_of_computing_are_limited_by_what_was_worked_today(studio: Studio) -> None:
    ann = studio.user("ann")
    limit(studio, ROLE, "designer", gpu_seconds_a_day=60)
    studio.submit(ann)
    finish(studio, seconds=59.5)
    studio.submit(ann)
    finish(studio, seconds=30.0)
    assert studio.services.quotas.of(ann.user_id).usage.gpu_seconds_a_day == 60.0
    assert "60 of the 60 seconds" in refused(studio, ann).message
    studio.clock.advance(86_400)
    assert studio.submit(ann)


def test_an_attempt_says_how_long_its_worker_had_it(studio: Studio) -> None:
    ann = studio.user("ann")
    job = studio.submit(ann)
    [sent] = studio.turn()
    studio.fleet.succeed(sent, timeline={"received": 100.0, "steps": 101.0, "stored": 107.5})
    studio.turn()
    assert [each.worked for each in studio.attempts(job)] == [7.5]


def test_kept_pictures_are_limited_by_their_bytes(studio: Studio) -> None:
    ann = studio.user("ann")
    studio.submit(ann)
    finish(studio)
    with studio.database.reading() as session:
        size = sum(each.size for each in session.query(Picture))
    limit(studio, storage_bytes=size)
    assert f"{size:,} bytes" in refused(studio, ann).message
    limit(studio, storage_bytes=size + 1)
    assert studio.submit(ann)


def test_of_many_jobs_at_once_as_many_get_in_as_there_are_places(studio: Studio) -> None:
    ann = studio.user("ann")
    limit(studio, unfinished_jobs=3)
    start, results = threading.Barrier(8), []

    def send() -> None:
        start.wait(20)
        try:
            results.append(studio.submit(ann))
        except AtelierError as error:
            results.append(error.code)

    threads = [threading.Thread(target=send) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(results) == 8 and results.count("quota_exceeded") == 5


def test_a_key_sent_again_is_the_same_job_even_where_nothing_more_may_be_made(studio: Studio) -> None:
    ann = studio.user("ann")
    limit(studio, unfinished_jobs=1)
    assert studio.submit(ann, key="once") == studio.submit(ann, key="once")


def test_quotas_are_told_noted_and_go_with_their_subject(studio: Studio) -> None:
    ann = studio.user("ann")
    team = studio.services.teams.create(audit.SYSTEM, "Films", members=["ann"])
    limit(studio, TEAM, team.id, pictures_a_day=7)
    limit(studio, USER, ann.user_id, storage_bytes=9)
    told = {each.subject_name: each.quota for each in studio.services.quotas.listed()}
    assert told == {"Films": Quota(pictures_a_day=7), "ann": Quota(storage_bytes=9)}
    assert studio.services.quotas.of(ann.user_id).quota == Quota(pictures_a_day=7, storage_bytes=9)
    studio.services.teams.delete(audit.SYSTEM, team.id)
    studio.services.quotas.delete(audit.SYSTEM, USER, ann.user_id)
    assert studio.services.quotas.listed() == []
    entries = studio.services.trail.entries(Wanted(action="quota."))
    assert [(each.action, each.subject) for each in entries] == [
        ("quota.delete", "ann"), ("quota.put", "ann"), ("quota.put", ""),
    ]  # fmt: skip
    with pytest.raises(NotFound):
        studio.services.quotas.delete(audit.SYSTEM, USER, ann.user_id)
    with pytest.raises(InvalidRequest, match="no team"):
        limit(studio, TEAM, team.id, pictures_a_day=7)
    with pytest.raises(InvalidRequest, match="from 0 on"):
        limit(studio, pictures_a_day=-1)


def test_over_http_who_asks_too_much_is_told_of_what_and_when_there_is_more(
    studio_url: str, tmp_path: Path
) -> None:
    studio = Studio(studio_url, tmp_path)
    password = "a long enough password"
    for name, role in (("root", "admin"), ("ann", "designer")):
        studio.services.identity.create(audit.SYSTEM, name, password, role)
    with TestClient(create_app(studio.services), base_url="http://127.0.0.1:8000") as client:

        def bearer(name: str) -> dict[str, str]:
            answer = client.post("/api/v1/auth/token", json={"username": name, "password": password})
            return {"Authorization": f"Bearer {answer.json()['access_token']}"}

        root, ann = bearer("root"), bearer("ann")
        path = "/api/v1/quotas/everybody/*"
        assert client.put(path, json={"pictures_a_day": 1}, headers=ann).status_code == 403
        for body in ({"pictures_a_day": -1}, {"pictures": 1}, {"gpu_seconds_a_day": "many"}):
            assert client.put(path, json=body, headers=root).status_code == 422, body
        assert client.put(path, json={"pictures_a_day": 1}, headers=root).status_code == 200
        job = {"txt2img_payload": {**PAYLOAD, "batch_size": 2}}
        answer = client.post("/api/v1/jobs", json=job, headers=ann)
        assert answer.status_code == 429 and answer.json()["error"]["code"] == "quota_exceeded"
        assert 0 < int(answer.headers["retry-after"]) <= 86_401
        assert client.post("/api/v1/jobs", json={"txt2img_payload": PAYLOAD}, headers=ann).status_code == 202
        standing = client.get("/api/v1/me/usage", headers=ann).json()
        assert (standing["quota"]["pictures_a_day"], standing["usage"]["pictures_a_day"]) == (1, 1)
        assert client.delete(path, headers=root).status_code == 204
        assert client.delete(path, headers=root).status_code == 404
    studio.close()
