"""Endpoints, on SQLite and on PostgreSQL: rows say what is wanted, and what the fleet made of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import select

from atelier.contract import keys
from atelier.contract.errors import Conflict, InvalidRequest, NotFound, WorkerUnavailable
from portal.db.audit import AuditEntry
from portal.services import audit
from portal.services.ports import EndpointSpec, EndpointState, EndpointStatus
from tests.jobs_studio import Studio


@pytest.fixture
def studio(database_url: str, tmp_path: Path) -> Iterator[Studio]:
    made = Studio(database_url, tmp_path)
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
