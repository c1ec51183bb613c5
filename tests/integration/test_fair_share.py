"""Fair share through the real dispatcher, on SQLite and on PostgreSQL, with a worker told what to do."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from atelier.contract.errors import InvalidRequest, NotFound, StorageFailed
from atelier.contract.jobs import JobRequest
from portal.app import create_app
from portal.db.work import Turn
from portal.domain.access import SubjectKind
from portal.services import audit
from portal.services.callers import Caller
from portal.services.ports import EndpointSpec, Submission
from portal.services.trail import Wanted
from tests.jobs_studio import PAYLOAD, Studio
from tests.security.test_permission_walk import ORIGIN, PASSWORD


@pytest.fixture
def studio(database_url: str, tmp_path: Path) -> Iterator[Studio]:
    made = Studio(database_url, tmp_path, slots=1)
    yield made
    made.close()


def many(studio: Studio, caller: Caller, parts: int) -> None:
    """So many parts of one user."""
    for _ in range(parts // 100):
        studio.submit(caller, n_iter=100)
    if parts % 100:
        studio.submit(caller, n_iter=parts % 100)


def whose(studio: Studio, sent: Submission) -> str:
    """The name of the owner of what was sent."""
    return str(studio.services.identity.user(studio.parts(sent.job)[0].owner_id).username)


def serve(studio: Studio, rounds: int) -> list[str]:
    """The owners of what is sent in so many rounds, in each of which all that was sent before ends."""
    served = []
    for _ in range(rounds):
        sent = studio.turn()
        served += [whose(studio, each) for each in sent]
        studio.clock.advance(1.0)
        for each in sent:
            studio.fleet.succeed(each)
    return served


def test_with_one_place_five_parts_behind_five_hundred_are_done_within_twice_their_time_alone(
    studio: Studio,
) -> None:
    heavy, light = studio.user("heavy"), studio.user("light")
    many(studio, heavy, 500)
    assert serve(studio, 9) == ["heavy"] * 9
    [running] = studio.turn()
    many(studio, light, 5)
    studio.fleet.succeed(running)
    served = ["heavy", *serve(studio, 9)]  # the one that ran counts: it is waited for
    alone = 5
    assert served.count("light") == 5
    assert len(served) <= 2 * alone


def test_with_as_many_places_as_a_processor_has_five_take_no_more_than_twice_their_work(
    database_url: str, tmp_path: Path
) -> None:
    """Counted in pictures, as a processor feels them: what runs when the five come, theirs, and what is made
    beside theirs.
    """
    studio = Studio(database_url, tmp_path, slots=EndpointSpec("").slots)
    heavy, light = studio.user("heavy"), studio.user("light")
    many(studio, heavy, 50)
    serve(studio, 3)
    running = studio.turn()
    many(studio, light, 5)
    made: list[str] = []
    while made.count("light") < 5:
        made += [whose(studio, each) for each in running]
        for each in running:
            studio.fleet.succeed(each)
        running = studio.turn()
    assert len(made) <= 2 * 5, made
    studio.close()


def test_with_eight_places_they_wait_for_one_round_of_the_others_and_no_more(
    database_url: str, tmp_path: Path
) -> None:
    studio = Studio(database_url, tmp_path, slots=8)
    heavy, light = studio.user("heavy"), studio.user("light")
    many(studio, heavy, 50)
    assert serve(studio, 2) == ["heavy"] * 16
    running = studio.turn()
    many(studio, light, 5)
    for each in running:
        studio.fleet.succeed(each)
    following = Counter(whose(studio, each) for each in studio.turn())
    assert following == {"light": 5, "heavy": 3}
    studio.close()


def test_weights_of_users_teams_and_roles_divide_the_work(studio: Studio) -> None:
    ann, bob, cid = studio.user("ann"), studio.user("bob"), studio.user("cid")
    shares, teams = studio.services.shares, studio.services.teams
    team = teams.create(audit.SYSTEM, "posters", "", ["bob", "cid"])
    shares.put(audit.SYSTEM, SubjectKind.ROLE, "designer", 2.0)
    shares.put(audit.SYSTEM, SubjectKind.TEAM, team.id, 4.0)
    shares.put(audit.SYSTEM, SubjectKind.USER, cid.user_id, 1.0)
    assert [shares.of(who.user_id) for who in (ann, bob, cid)] == [2.0, 4.0, 1.0]
    for who in (ann, bob, cid):
        many(studio, who, 12)
    assert Counter(serve(studio, 14)) == {"ann": 4, "bob": 8, "cid": 2}
    shares.delete(audit.SYSTEM, SubjectKind.TEAM, team.id)
    assert shares.of(bob.user_id) == 2.0


def test_work_that_is_sent_again_does_not_count_twice_against_its_owner(studio: Studio) -> None:
    ann = studio.user("ann")
    studio.submit(ann)

    def stands() -> tuple[float, float]:
        with studio.database.reading() as session:
            turn = session.get_one(Turn, ann.user_id)
            return turn.start, turn.finish

    [first] = studio.turn()
    before = stands()
    assert before[1] > before[0]
    studio.fleet.fail(first, StorageFailed("the store did not answer"))
    studio.turn()
    studio.clock.advance(100.0)
    [second] = studio.turn()
    assert (second.part, second.attempt) == (first.part, 2)
    assert stands() == before


def test_a_priority_orders_ones_own_jobs_and_takes_nothing_from_anybody(studio: Studio) -> None:
    ann, bob = studio.user("ann"), studio.user("bob")
    jobs = [studio.submit(ann) for _ in range(4)]
    many(studio, bob, 4)
    late = studio.work.acceptance.accept(ann, JobRequest(priority=5, txt2img_payload=PAYLOAD))
    studio.work.actions.prioritise(ann, jobs[2], 9)
    studio.work.actions.prioritise(ann, jobs[0], -1)
    assert studio.view(ann, late).priority == 5
    order, owners = [], []
    for _ in range(9):
        [sent] = studio.turn()
        owners.append(whose(studio, sent))
        order.append(sent.job)
        studio.clock.advance(1.0)
        studio.fleet.succeed(sent)
    assert [job for job in order if job in (*jobs, late)] == [jobs[2], late, jobs[1], jobs[3], jobs[0]]
    assert owners == ["ann", "bob"] * 4 + ["ann"]
    told = [
        (each.object, each.details) for each in studio.services.trail.entries(Wanted(action="job.priority"))
    ]
    assert told == [
        (f"job:{jobs[0]}", {"before": 0, "priority": -1}),
        (f"job:{jobs[2]}", {"before": 0, "priority": 9}),
    ]


def test_a_priority_is_the_owners_and_comes_too_late_for_what_has_ended(studio: Studio) -> None:
    ann, bob, root = studio.user("ann"), studio.user("bob"), studio.user("root", "admin")
    job = studio.submit(ann)
    for other in (bob, root):
        with pytest.raises(NotFound):
            studio.work.actions.prioritise(other, job, 1)
    serve(studio, 2)
    before = studio.view(ann, job)
    assert before.state.final
    studio.work.actions.prioritise(ann, job, 1)
    assert studio.view(ann, job) == before


def test_shares_over_http_are_checked_named_and_in_the_trail(tmp_path: Path) -> None:
    studio = Studio(f"sqlite:///{tmp_path / 'a.db'}", tmp_path)
    ids = {
        name: studio.services.identity.create(audit.SYSTEM, name, PASSWORD, role).id
        for name, role in (("root", "admin"), ("ann", "designer"))
    }
    # Without its lifespan: nothing is dispatched meanwhile.
    client = TestClient(create_app(studio.services), base_url=ORIGIN, client=("127.0.0.1", 5000))
    with contextlib.closing(client):

        def call(who: str, method: str, path: str, **body: object) -> tuple[int, object]:
            login = client.post("/api/v1/auth/token", json={"username": who, "password": PASSWORD}).json()
            bearer = {"Authorization": f"Bearer {login['access_token']}"}
            answer = client.request(method, path, headers=bearer, json=body or None)
            return answer.status_code, answer.json() if answer.content else None

        path = f"/api/v1/shares/user/{ids['ann']}"
        for weight in (0.0, 0.09, 101, "much", None, True):
            assert call("root", "PUT", path, weight=weight)[0] == 422
        assert call("root", "PUT", "/api/v1/shares/user/nobody", weight=2)[0] == 422
        assert call("ann", "PUT", path, weight=2)[0] == 403
        kept = {"subject_kind": "user", "subject": ids["ann"], "subject_name": "ann", "weight": 2.5}
        assert call("root", "PUT", path, weight=2.5) == (200, kept)
        assert call("root", "PUT", path, weight=2.5) == (200, kept)
        assert call("root", "GET", "/api/v1/shares") == (200, [kept])
        assert call("ann", "GET", "/api/v1/me/usage")[1]["weight"] == 2.5  # type: ignore[index]
        assert call("root", "DELETE", path) == (204, None)
        assert call("root", "DELETE", path)[0] == 404
        submitted = {"txt2img_payload": PAYLOAD, "priority": 7}
        status, job = call("ann", "POST", "/api/v1/jobs", **submitted)
        assert status == 202 and job["priority"] == 7  # type: ignore[index]
        for priority in (101, True, "1", 0.5):
            assert call("ann", "POST", "/api/v1/jobs", **submitted | {"priority": priority})[0] == 422
        status, job = call("ann", "PATCH", f"/api/v1/jobs/{job['id']}", priority=-3)  # type: ignore[index]
        assert status == 200 and job["priority"] == -3  # type: ignore[index]
    entries = studio.services.trail.entries(Wanted(action="share.put"))
    assert [(each.actor_name, each.subject, each.details) for each in entries] == [
        ("root", "ann", {"weight": 2.5, "before": None})
    ]
    with pytest.raises(InvalidRequest, match=r"0\.1 to 100"):
        studio.services.shares.put(audit.SYSTEM, SubjectKind.EVERYBODY, "*", float("nan"))
    studio.close()
