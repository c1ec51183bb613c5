"""Endpoints, on SQLite and on PostgreSQL: rows say what is wanted, and what the fleet made of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import select

from atelier.contract import keys
from atelier.contract.errors import Conflict, InvalidRequest, NotFound, UnknownName, WorkerUnavailable
from portal.db.audit import AuditEntry
from portal.db.work import Attempt, Endpoint
from portal.domain.access import Effect, ObjectKind, SubjectKind
from portal.domain.conditions import Condition, Observed, condition
from portal.services import audit
from portal.services.costs import CostBook
from portal.services.ports import EndpointSpec, EndpointState, EndpointStatus
from tests.jobs_studio import Studio


@pytest.fixture
def studio(studio_url: str, tmp_path: Path) -> Iterator[Studio]:
    made = Studio(studio_url, tmp_path)
    yield made
    made.close()


def test_a_created_endpoint_is_given_to_the_fleet_and_stands_in_the_trail(studio: Studio) -> None:
    view = studio.work.endpoints.create(audit.SYSTEM, EndpointSpec("big", slots=4, threads=2))
    assert view.status == EndpointStatus(EndpointState.IN_SERVICE, 1)
    assert studio.fleet.endpoints["big"].slots == 4
    with studio.database.reading() as session:
        entry = session.scalars(select(AuditEntry).where(AuditEntry.object == "endpoint:big")).one()
    assert entry.action == "endpoint.create" and entry.details["slots"] == 4


def test_a_taken_name_and_numbers_out_of_range_are_refused(studio: Studio) -> None:
    with pytest.raises(Conflict):
        studio.work.endpoints.create(audit.SYSTEM, EndpointSpec("local"))
    for spec in (
        EndpointSpec("automatic"),
        EndpointSpec("no_underscores"),
        EndpointSpec("a/b"),
        EndpointSpec("x", slots=0),
        EndpointSpec("x", min_instances=2, max_instances=1),
        EndpointSpec("x", max_instances=10**400),
        EndpointSpec("x", options={"dtype": "float32\0"}),
        EndpointSpec("x", options={"dtype": ""}),
    ):
        with pytest.raises(InvalidRequest):
            studio.work.endpoints.create(audit.SYSTEM, spec)
    assert [view.spec.name for view in studio.work.endpoints.listed()] == ["local"]


def test_an_endpoint_the_fleet_cannot_make_is_kept_as_failed_with_the_reason(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(spec: EndpointSpec) -> None:
        raise WorkerUnavailable("there is no GPU left")

    monkeypatch.setattr(studio.fleet, "create", refuse)
    view = studio.work.endpoints.create(audit.SYSTEM, EndpointSpec("big"))
    assert view.status == EndpointStatus(EndpointState.FAILED, 0, "there is no GPU left")


def test_what_is_not_given_of_a_new_endpoint_is_its_kinds(studio: Studio) -> None:
    begun = studio.work.endpoints.begun
    assert (begun({"name": "a", "instance_type": "large"}).slots, begun({"name": "a"}).slots) == (16, 3)
    given = begun({"name": "a", "instance_type": "large", "slots": 3, "price_hour": 0.0})
    assert (given.slots, given.price_hour) == (3, 0.0)


def test_what_the_fleet_says_later_is_observed(studio: Studio) -> None:
    studio.fleet.statuses["local"] = EndpointStatus(EndpointState.FAILED, 0, "it fell over")
    studio.work.endpoints.observe()
    assert studio.work.endpoints.get("local").status.reason == "it fell over"


def test_an_endpoint_at_work_is_not_deleted_and_an_idle_one_is_with_all_it_published(studio: Studio) -> None:
    ann = studio.user("ann")
    studio.submit(ann)
    [sent] = studio.turn()
    with pytest.raises(Conflict, match="at work"):
        studio.work.endpoints.delete(audit.SYSTEM, "local")
    studio.fleet.succeed(sent)
    studio.turn()
    studio.work.endpoints.delete(audit.SYSTEM, "local")
    assert "local" not in studio.fleet.endpoints
    assert studio.store.stat(keys.catalogue("local")) is None
    with pytest.raises(NotFound):
        studio.work.endpoints.get("local")


def test_jobs_that_waited_for_a_deleted_endpoint_go_to_another_one(studio: Studio) -> None:
    ann = studio.user("ann")
    studio.work.endpoints.create(audit.SYSTEM, EndpointSpec("other"))
    studio.fleet.statuses["other"] = EndpointStatus(EndpointState.FAILED, 0, "broken")
    studio.turn()
    job_id = studio.submit(ann, endpoint="other")
    assert studio.turn() == []
    studio.work.endpoints.delete(audit.SYSTEM, "other")
    assert [(sent.job, sent.endpoint) for sent in studio.turn()] == [(job_id, "local")]


def test_a_restarted_portal_gives_its_endpoints_to_the_fleet_again(studio: Studio) -> None:
    studio.fleet.endpoints.clear()
    studio.fleet.statuses.clear()
    studio.work.endpoints.resume()
    assert list(studio.fleet.endpoints) == ["local"]
    assert studio.work.endpoints.get("local").status.state is EndpointState.IN_SERVICE


def test_changing_an_endpoint_that_is_not_there_is_told(studio: Studio) -> None:
    with pytest.raises(NotFound):
        studio.work.endpoints.update(audit.SYSTEM, "absent", {"slots": 2})
    with pytest.raises(NotFound):
        studio.work.endpoints.delete(audit.SYSTEM, "absent")


def test_the_fleet_is_told_what_each_endpoint_is_asked_for(studio: Studio) -> None:
    ann, bob = studio.user("ann"), studio.user("bob")
    studio.work.endpoints.create(audit.SYSTEM, EndpointSpec("big", slots=2, max_instances=2))
    studio.work.endpoints.create(audit.SYSTEM, EndpointSpec("asleep", max_instances=10))
    for name, status in (("local", EndpointState.FAILED), ("asleep", EndpointState.ASLEEP)):
        studio.fleet.statuses[name] = EndpointStatus(status, 0, "it fell over" if name == "local" else "")
    studio.work.endpoints.observe()
    studio.submit(ann, endpoint="local")
    for _ in range(3):
        studio.submit(ann)
    studio.submit(bob)
    studio.work.endpoints.observe()
    assert studio.fleet.demands == {"local": 1, "big": 4, "asleep": 0}
    studio.submit(bob)
    studio.work.endpoints.observe()
    assert studio.fleet.demands == {"local": 1, "big": 4, "asleep": 1}, "beyond what `big` can grow to"
    studio.services.access.put(
        audit.SYSTEM, ObjectKind.ENDPOINT, "big", SubjectKind.USER, bob.user_id, Effect.DENY
    )
    studio.work.endpoints.observe()
    assert studio.fleet.demands == {"local": 1, "big": 3, "asleep": 2}, "never where its owner may not"


def test_a_fleet_that_takes_its_time_leaves_the_endpoint_deleting_until_its_workers_are_gone(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    delete, asked = studio.fleet.delete, []
    monkeypatch.setattr(studio.fleet, "delete", asked.append)
    studio.work.endpoints.delete(audit.SYSTEM, "local")
    assert studio.work.endpoints.get("local").condition is Condition.DELETING
    assert studio.turn() == [] and asked == ["local", "local"]
    studio.submit(studio.user("ann"))
    assert studio.turn() == [], "it gets nothing any more"
    with pytest.raises(NotFound):
        studio.work.endpoints.update(audit.SYSTEM, "local", {"slots": 2})
    with pytest.raises(Conflict, match="being deleted"):
        studio.work.endpoints.create(audit.SYSTEM, EndpointSpec("local"))
    delete("local")
    studio.work.endpoints.observe()
    with pytest.raises(NotFound):
        studio.work.endpoints.get("local")


def test_what_another_process_wrote_down_is_given_to_the_fleet(studio: Studio) -> None:
    with studio.database.session() as session:
        row = session.get_one(Endpoint, "local")
        row.slots = 3
        session.add(Endpoint(name="new", slots=5, created=studio.clock.now()))
    studio.work.endpoints.observe()
    assert studio.fleet.endpoints["local"].slots == 3 and studio.fleet.endpoints["new"].slots == 5
    assert studio.work.endpoints.get("new").condition is Condition.IN_SERVICE


def test_the_last_error_outlives_its_end(studio: Studio) -> None:
    studio.fleet.statuses["local"] = EndpointStatus(EndpointState.FAILED, 0, "it fell over")
    studio.work.endpoints.observe()
    view, failed_at = studio.work.endpoints.get("local"), studio.clock.now()
    assert (view.condition, view.because) == (Condition.FAILED, "it fell over")
    studio.clock.advance(60)
    studio.fleet.statuses["local"] = EndpointStatus(EndpointState.IN_SERVICE, 1)
    studio.work.endpoints.observe()
    view = studio.work.endpoints.get("local")
    assert view.condition is Condition.IN_SERVICE
    assert (view.last_error, view.last_error_at) == ("it fell over", failed_at)


def test_a_kind_of_instance_brings_its_numbers_and_an_unknown_one_is_refused(studio: Studio) -> None:
    view = studio.work.endpoints.create(audit.SYSTEM, EndpointSpec("big", instance_type="large", threads=1))
    assert (view.spec.threads, view.spec.options) == (8, {"device": "cuda"})
    with pytest.raises(InvalidRequest, match="There are: small, large"):
        studio.work.endpoints.update(audit.SYSTEM, "big", {"instance_type": "huge"})


def test_what_instances_cost_is_written_down_and_shared_by_the_work_done(studio: Studio) -> None:
    ann, bob = studio.user("ann"), studio.user("bob")
    studio.work.endpoints.update(audit.SYSTEM, "local", {"price_hour": 3.6})
    studio.work.endpoints.create(audit.SYSTEM, EndpointSpec("idle", price_hour=7.2))
    studio.fleet.statuses["local"] = EndpointStatus(EndpointState.IN_SERVICE, 2)
    book = CostBook(studio.database, studio.clock)
    studio.work.endpoints.observe()
    for _ in range(5):
        studio.clock.advance(20)
        studio.work.endpoints.observe()
    for who, seconds in ((ann, 30.0), (bob, 10.0)):
        job = studio.submit(who, endpoint="local")
        studio.turn()
        with studio.database.session() as session:
            attempt = session.scalars(select(Attempt).where(Attempt.job_id == job)).one()
            attempt.worked = seconds
    costs = book.read()
    assert costs.hourly == pytest.approx(2 * 3.6 + 7.2)
    by_name = {each.name: (each.month, each.cost_month) for each in costs.endpoints}
    assert by_name["local"] == (pytest.approx(200, abs=0.01), pytest.approx(0.2, abs=1e-4))
    users = {each.name: each for each in costs.users}
    assert users["ann"].cost_today == pytest.approx(0.15, abs=1e-4) and users["ann"].today == 30
    assert users["bob"].cost_today == pytest.approx(0.05, abs=1e-4)
    assert users[""].cost_month == pytest.approx(0.2, abs=1e-4), "of the idle endpoint, nobody's"
    assert sum(each.cost_month for each in costs.users) == pytest.approx(costs.month)
    studio.clock.advance(3600)
    studio.work.endpoints.observe()
    assert book.read().month == pytest.approx(costs.month), "a gap in which nobody looked is not charged"


@pytest.mark.parametrize(
    ("observed", "word", "said"),
    [
        (Observed("asleep"), Condition.OFF, "next part starts a worker"),
        (Observed("asleep", leaving=1), Condition.SCALING, "one worker finishes and stops"),
        (Observed("starting", queued=2), Condition.WAKING, "2 parts wait for it"),
        (Observed("in_service", instances=1, wanted=1, in_flight=1), Condition.LOADING, "weights"),
        (Observed("in_service", instances=1, wanted=1, in_flight=1, running=1), Condition.IN_SERVICE, ""),
        (Observed("in_service", instances=1, wanted=3), Condition.SCALING, "1 of 3 workers serve"),
        (Observed("in_service", instances=1, wanted=1, leaving=2), Condition.SCALING, "2 workers finish"),
        (Observed("in_service", "it broke", 1, 1), Condition.IN_SERVICE, "it broke"),
        (Observed("failed", "no GPU"), Condition.FAILED, "no GPU"),
        (Observed("deleting"), Condition.DELETING, "stop"),
    ],
)
def test_a_state_is_one_word_with_its_reason(observed: Observed, word: Condition, said: str) -> None:
    found, because = condition(observed)
    assert found is word and said in because


def test_options_change_how_workers_compute_and_nothing_else_of_theirs(studio: Studio) -> None:
    view = studio.work.endpoints.create(audit.SYSTEM, EndpointSpec("quick", options={"dtype": "float16"}))
    assert view.spec.options == {"dtype": "float16"}
    for name in ("store", "job_key", "worker_token", "host", "model_cache", "instance", "DTYPE", "a\0"):
        with pytest.raises(UnknownName, match="Known: 'device'"):
            studio.work.endpoints.update(audit.SYSTEM, "quick", {"options": {name: "x"}})
    assert studio.fleet.endpoints["quick"].options == {"dtype": "float16"}


def test_what_was_accepted_for_an_endpoint_while_that_went_is_made_anywhere(studio: Studio) -> None:
    studio.work.endpoints.create(audit.SYSTEM, EndpointSpec("big"))
    job = studio.submit(studio.user("ann"), endpoint="big")
    with studio.database.session() as session:
        session.delete(session.get_one(Endpoint, "big"))
    studio.work.endpoints.observe()
    [sent] = studio.turn()
    assert (sent.job, sent.endpoint) == (job, "local")
