"""Parts whose attempts are used up: listed with what became of each attempt, and tried again once."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import delete
from starlette.testclient import TestClient

from atelier.contract.errors import (
    AtelierError,
    Conflict,
    InvalidRequest,
    ModelUnusable,
    NotFound,
    NotPermitted,
    OutOfMemory,
    QuotaExceeded,
    StorageFailed,
    TooManyRequests,
    WorkerUnavailable,
)
from atelier.contract.jobs import JobState
from portal.app import create_app
from portal.db.work import Model
from portal.domain.access import SubjectKind
from portal.domain.quotas import Quota
from portal.domain.retry import MAX_ATTEMPTS, MAX_LOSSES_ALONE
from portal.services import audit
from portal.services.accept import Limits
from portal.services.callers import Caller
from portal.services.dead_letters import Sought
from portal.services.identity import Change
from portal.services.trail import Wanted
from tests.jobs_studio import Studio
from tests.security.test_permission_walk import ORIGIN, PASSWORD


@pytest.fixture
def studio(database_url: str, tmp_path: Path) -> Iterator[Studio]:
    made = Studio(database_url, tmp_path, limits=Limits(per_user=4, altogether=50))
    yield made
    made.close()


def given_up(studio: Studio, caller: Caller, error: AtelierError | None = None, n_iter: int = 1) -> str:
    """A job all of whose parts failed as often as they may."""
    job_id = studio.submit(caller, n_iter=n_iter)
    for _ in range(MAX_ATTEMPTS):
        for sent in studio.turn():
            studio.fleet.fail(sent, error or StorageFailed("the store did not answer"))
        studio.turn()
        studio.clock.advance(100.0)
    assert studio.view(caller, job_id).state is JobState.FAILED
    return job_id


def served(studio: Studio) -> None:
    """Everything that waits is made."""
    for sent in studio.turn():
        studio.fleet.succeed(sent)
    studio.turn()


def test_a_part_whose_attempts_are_used_up_is_listed_with_its_reason_and_each_attempt(studio: Studio) -> None:
    ann = studio.user("ann")
    job_id = given_up(studio, ann)
    [letter], following = studio.work.dead_letters.listed(ann)
    assert following is None and letter.job == job_id and letter.owner == "ann"
    assert letter.error["code"] == "storage_failed" and letter.died > 0
    assert letter.retried_as is None and letter.model is not None
    assert [(each.number, each.endpoint, each.outcome) for each in letter.attempts] == [
        (number, "local", "failed") for number in range(1, MAX_ATTEMPTS + 1)
    ]
    assert all(each.error and each.error["message"] == "the store did not answer" for each in letter.attempts)
    assert studio.work.dead_letters.get(ann, letter.part) == letter


def test_what_no_other_attempt_can_mend_is_no_dead_letter_and_is_not_tried_again(studio: Studio) -> None:
    ann = studio.user("ann")
    job_id = studio.submit(ann)
    studio.fleet.fail(studio.turn()[0], OutOfMemory("512x512 is the largest that fits"))
    studio.turn()
    assert studio.view(ann, job_id).state is JobState.FAILED
    assert studio.work.dead_letters.listed(ann) == ([], None)
    assert studio.work.dead_letters.retry_job(ann, job_id) == []
    with pytest.raises(NotFound):
        studio.work.dead_letters.retry(ann, studio.parts(job_id)[0].id)
    assert studio.turn() == []


def test_a_part_that_ended_its_workers_all_alone_is_one_and_is_tried_again_alone(studio: Studio) -> None:
    ann = studio.user("ann")
    job_id = studio.submit(ann)
    while studio.view(ann, job_id).state is not JobState.FAILED:
        for sent in studio.turn():
            studio.fleet.fail(sent, WorkerUnavailable("the worker went away"))
        studio.turn()
        studio.clock.advance(100.0)
    [letter], _ = studio.work.dead_letters.listed(ann)
    assert [each.outcome for each in letter.attempts] == ["lost"] * (MAX_LOSSES_ALONE + 2)
    studio.submit(ann)
    studio.work.dead_letters.retry(ann, letter.part)
    for _ in range(2):
        [sent] = studio.turn()
        studio.fleet.succeed(sent)
    assert studio.turn() == []


def test_a_retry_makes_the_missing_pictures_in_one_job_however_often_it_is_asked_for(studio: Studio) -> None:
    ann = studio.user("ann")
    job_id = given_up(studio, ann, n_iter=3)
    seeds = studio.view(ann, job_id).info["all_seeds"]
    letters, _ = studio.work.dead_letters.listed(ann, Sought(job=job_id))
    first, second, third = sorted(letters, key=lambda each: each.ordinal)
    single = studio.work.dead_letters.retry(ann, second.part)
    assert studio.work.dead_letters.retry(ann, second.part) == single
    both = studio.work.dead_letters.retry_job(ann, job_id)
    assert studio.work.dead_letters.retry_job(ann, job_id) == both
    assert len(both) == 2 and single in both
    [rest] = set(both) - {single}
    assert len(studio.parts(single)) == 1 and len(studio.parts(rest)) == 2
    served(studio)
    assert [picture.seed for picture in studio.view(ann, single).pictures] == [seeds[1]]
    seen = studio.view(ann, rest)
    assert [picture.seed for picture in seen.pictures] == [seeds[0], seeds[2]] == seen.info["all_seeds"]
    assert seen.state is JobState.SUCCEEDED and seen.info["atelier"]["retry_of"] == job_id
    assert studio.view(ann, job_id).state is JobState.FAILED, "a final state was left"
    assert {studio.work.dead_letters.get(ann, each.part).retried_as for each in (first, third)} == {rest}
    told = [each.details for each in studio.services.trail.entries(Wanted(action="job.retry"))]
    assert told == [{"as": rest, "parts": 2}, {"as": single, "parts": 1}]


def test_of_two_clicks_at_the_same_moment_one_makes_the_job_and_the_other_finds_it(studio: Studio) -> None:
    ann = studio.user("ann")
    job_id = given_up(studio, ann)
    [letter], _ = studio.work.dead_letters.listed(ann)
    together, made = threading.Barrier(2), []

    def click() -> None:
        together.wait()
        made.append(studio.work.dead_letters.retry(ann, letter.part))

    threads = [threading.Thread(target=click) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 2 and len(set(made)) == 1
    assert {job.id for job in studio.work.jobs.listed(ann)[0]} == {job_id, made[0]}


def test_a_retried_part_has_all_its_attempts_again(studio: Studio) -> None:
    ann = studio.user("ann")
    given_up(studio, ann)
    [letter], _ = studio.work.dead_letters.listed(ann)
    again = studio.work.dead_letters.retry(ann, letter.part)
    for _ in range(MAX_ATTEMPTS - 1):
        studio.fleet.fail(studio.turn()[0], StorageFailed("still not"))
        studio.turn()
        studio.clock.advance(100.0)
    served(studio)
    assert studio.view(ann, again).state is JobState.SUCCEEDED


def test_nothing_is_tried_again_for_who_may_not_have_pictures_made_any_more(studio: Studio) -> None:
    ann, root = studio.user("ann"), studio.user("root", "admin")
    job_id = given_up(studio, ann)
    studio.services.roles.put(root, "watcher", "", ["jobs.read", "jobs.control"])
    studio.services.identity.change(root, ann.user_id, Change(roles=["watcher"]))
    watcher = Caller(ann.user_id, "ann", ("watcher",), frozenset(("jobs.read", "jobs.control")))
    for caller in (watcher, root):
        with pytest.raises(NotPermitted, match="'ann' may not have pictures made"):
            studio.work.dead_letters.retry_job(caller, job_id)
    studio.services.identity.change(root, ann.user_id, Change(roles=["designer"]))
    assert len(studio.work.dead_letters.retry_job(ann, job_id)) == 1


def test_they_are_the_owners_and_an_administrators_who_may_filter_and_try_them_again(studio: Studio) -> None:
    ann, bob, root = studio.user("ann"), studio.user("bob"), studio.user("root", "admin")
    job_id = given_up(studio, ann)
    given_up(studio, bob, StorageFailed("another reason"))
    letters = studio.work.dead_letters
    [mine], _ = letters.listed(ann)
    assert letters.listed(root) == ([], None)
    with pytest.raises(NotPermitted):
        letters.listed(bob, everybody=True)
    for asked in (letters.get, letters.retry):
        with pytest.raises(NotFound):
            asked(bob, mine.part)
    with pytest.raises(NotFound):
        letters.retry_job(bob, job_id)

    def found(**sought: object) -> list[str]:
        return [each.owner for each in letters.listed(root, Sought(**sought), everybody=True)[0]]  # type: ignore[arg-type]

    assert found() == ["bob", "ann"]
    assert found(owner="Ann") == ["ann"] == found(job=job_id)
    assert found(code="storage_failed", endpoint="local") == ["bob", "ann"]
    assert found(code="out_of_memory") == [] == found(endpoint="elsewhere")
    page, following = letters.listed(root, everybody=True, limit=1)
    rest, last = letters.listed(root, everybody=True, limit=1, cursor=following)
    assert [each.owner for each in (*page, *rest)] == ["bob", "ann"] and last is None
    with pytest.raises(InvalidRequest, match="cursor"):
        letters.listed(root, everybody=True, cursor=job_id)
    again = letters.retry(root, mine.part)
    assert found(waiting=True) == ["bob"]
    served(studio)
    assert len(studio.view(ann, again).pictures) == 1
    [entry] = studio.services.trail.entries(Wanted(action="job.retry"))
    assert (entry.actor_name, entry.subject, entry.object) == ("root", "ann", f"job:{job_id}")


def test_a_retry_keeps_to_quotas_and_limits_and_makes_nothing_for_the_disabled(studio: Studio) -> None:
    ann, root = studio.user("ann"), studio.user("root", "admin")
    job_id = given_up(studio, ann, n_iter=2)
    quotas = studio.services.quotas
    quotas.put(audit.SYSTEM, SubjectKind.USER, ann.user_id, Quota(pictures_a_day=1))
    with pytest.raises(QuotaExceeded):
        studio.work.dead_letters.retry_job(ann, job_id)
    quotas.delete(audit.SYSTEM, SubjectKind.USER, ann.user_id)
    waiting = [studio.submit(ann) for _ in range(4)]
    with pytest.raises(TooManyRequests):
        studio.work.dead_letters.retry_job(ann, job_id)
    served(studio)
    assert studio.view(ann, waiting[-1]).state is JobState.SUCCEEDED
    studio.services.identity.change(audit.SYSTEM, ann.user_id, Change(disabled=True))
    with pytest.raises(Conflict, match="disabled"):
        studio.work.dead_letters.retry_job(root, job_id)
    assert studio.turn() == []


def test_a_retry_whose_model_was_deleted_says_so_and_makes_nothing(studio: Studio) -> None:
    ann = studio.user("ann")
    job_id = given_up(studio, ann)
    with studio.database.session() as session:
        session.execute(delete(Model))
    with pytest.raises(ModelUnusable, match=r"first\.safetensors was deleted"):
        studio.work.dead_letters.retry_job(ann, job_id)
    assert [job.id for job in studio.work.jobs.listed(ann)[0]] == [job_id]


def test_over_http_a_dead_letter_is_read_tried_again_and_hidden_from_others(tmp_path: Path) -> None:
    studio = Studio(f"sqlite:///{tmp_path / 'a.db'}", tmp_path)
    callers = {}
    for name in ("ann", "bob"):
        row = studio.services.identity.create(audit.SYSTEM, name, PASSWORD, "designer")
        callers[name] = Caller(row.id, name, ("designer",), frozenset())
    job_id = given_up(studio, callers["ann"])
    # Without its lifespan: nothing is dispatched meanwhile.
    client = TestClient(create_app(studio.services), base_url=ORIGIN, client=("127.0.0.1", 5000))
    with contextlib.closing(client):
        bearers = {}
        for name in callers:
            login = client.post("/api/v1/auth/token", json={"username": name, "password": PASSWORD}).json()
            bearers[name] = {"headers": {"Authorization": f"Bearer {login['access_token']}"}}
        path = "/api/v1/dead-letters"
        [letter] = client.get(path, params={"job": job_id}, **bearers["ann"]).json()["letters"]
        assert letter["error"]["code"] == "storage_failed" and len(letter["attempts"]) == MAX_ATTEMPTS
        assert client.get(path, **bearers["bob"]).json() == {"letters": [], "next": None}
        assert client.get(path, params={"everybody": True}, **bearers["bob"]).status_code == 403
        one = f"{path}/{letter['part']}"
        for method, url in (("GET", one), ("POST", f"{one}/retry"), ("POST", f"/api/v1/jobs/{job_id}/retry")):
            assert client.request(method, url, **bearers["bob"]).status_code == 404
        answers = [client.post(f"{one}/retry", **bearers["ann"]).json() for _ in range(2)]
        assert answers[0] == answers[1] and len(answers[0]["jobs"]) == 1
        again = answers[0]["jobs"][0]
        assert client.post(f"/api/v1/jobs/{job_id}/retry", **bearers["ann"]).json() == {"jobs": [again]}
        assert client.get(one, **bearers["ann"]).json()["retried_as"] == again
        assert client.get(f"/api/v1/jobs/{again}", **bearers["ann"]).json()["state"] == "queued"
    studio.close()
