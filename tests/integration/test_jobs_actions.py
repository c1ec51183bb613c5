"""Interrupt, skip and cancel, on SQLite and on PostgreSQL: what waits ends at once, what runs is told."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import select

from atelier.contract import keys
from atelier.contract.errors import NotFound, WorkerUnavailable
from atelier.contract.jobs import JobState, PartState
from atelier.contract.parts import Action, EndpointControl, PartControl
from portal.db.audit import AuditEntry
from portal.services import audit
from portal.services.callers import Caller
from portal.services.identity import Change
from portal.services.ports import EndpointState, EndpointStatus, Submission
from portal.services.trail import Wanted
from tests.jobs_studio import Studio


@pytest.fixture
def studio(database_url: str, tmp_path: Path) -> Iterator[Studio]:
    made = Studio(database_url, tmp_path)
    yield made
    made.close()


def running(studio: Studio, caller: Caller, n_iter: int = 1) -> tuple[str, Submission]:
    """A job whose first part is running and whose others wait."""
    studio.work.endpoints.update(audit.SYSTEM, "local", {"slots": 1})
    job_id = studio.submit(caller, n_iter=n_iter)
    [sent] = studio.turn()
    studio.fleet.progress(sent, seq=1)
    studio.turn()
    assert studio.parts(job_id)[0].state == PartState.RUNNING
    return job_id, sent


def told(studio: Studio) -> dict[str, PartControl]:
    content = studio.store.get(keys.endpoint_control("local"))
    return dict(EndpointControl.model_validate_json(content).parts)


def states(studio: Studio, job_id: str) -> list[str]:
    return [part.state for part in studio.parts(job_id)]


def test_cancelling_a_queued_job_ends_it_at_once(studio: Studio) -> None:
    ann = studio.user("ann")
    job_id = studio.submit(ann)
    studio.work.actions.act(ann, job_id, Action.CANCEL)
    assert studio.view(ann, job_id).state is JobState.CANCELLED
    assert studio.turn() == []


def test_cancelling_a_running_job_ends_it_at_once_tells_the_worker_and_drops_what_still_comes(
    studio: Studio,
) -> None:
    ann = studio.user("ann")
    job_id, sent = running(studio, ann, n_iter=2)
    studio.work.actions.act(ann, job_id, Action.CANCEL)
    assert studio.view(ann, job_id).state is JobState.CANCELLED
    assert told(studio)[sent.part] == PartControl(attempt=1, action=Action.CANCEL)
    control = PartControl.model_validate_json(studio.store.get(keys.part_control(job_id, sent.part)))
    assert control.action is Action.CANCEL
    studio.fleet.succeed(sent)
    studio.turn()
    assert studio.view(ann, job_id).pictures == ()
    assert list(studio.store.list(keys.attempt(job_id, sent.part, 1))) == []


def test_cancel_discards_pictures_that_were_finished_already(studio: Studio) -> None:
    ann = studio.user("ann")
    job_id, sent = running(studio, ann, n_iter=2)
    studio.fleet.succeed(sent)
    studio.turn()
    picture = studio.view(ann, job_id).pictures[0]
    studio.work.actions.act(ann, job_id, Action.CANCEL)
    assert studio.view(ann, job_id).pictures == ()
    with pytest.raises(NotFound):
        studio.work.files.describe(ann, picture.id)
    assert studio.store.stat(keys.picture(job_id, sent.part, 1, 0)) is None


def test_a_cancelled_part_holds_its_place_until_its_worker_lets_go(studio: Studio) -> None:
    ann = studio.user("ann")
    job_id, sent = running(studio, ann)
    other = studio.submit(ann)
    studio.work.actions.act(ann, job_id, Action.CANCEL)
    assert studio.turn() == []
    studio.fleet.succeed(sent, stopped=True)
    assert [each.job for each in studio.turn()] == [other]


def test_stop_now_keeps_what_the_worker_brings_and_ends_what_waits(studio: Studio) -> None:
    ann = studio.user("ann")
    job_id, sent = running(studio, ann, n_iter=3)
    studio.work.actions.act(ann, job_id, Action.STOP_NOW)
    assert states(studio, job_id) == ["running", "stopped", "stopped"]
    assert told(studio)[sent.part].action is Action.STOP_NOW
    studio.fleet.succeed(sent, stopped=True)
    studio.turn()
    seen = studio.view(ann, job_id)
    assert seen.state is JobState.STOPPED and len(seen.pictures) == 1


def test_finish_current_lets_the_running_part_complete(studio: Studio) -> None:
    ann = studio.user("ann")
    job_id, sent = running(studio, ann, n_iter=2)
    studio.work.actions.act(ann, job_id, Action.FINISH_CURRENT)
    assert told(studio)[sent.part].action is Action.FINISH_CURRENT
    studio.fleet.succeed(sent)
    studio.turn()
    assert states(studio, job_id) == ["succeeded", "stopped"]


def test_skip_passes_over_the_running_part_and_the_rest_follows(studio: Studio) -> None:
    ann = studio.user("ann")
    job_id, sent = running(studio, ann, n_iter=2)
    studio.work.actions.act(ann, job_id, Action.SKIP)
    assert states(studio, job_id) == ["running", "queued"]
    studio.fleet.succeed(sent, stopped=True)
    [following] = studio.turn()
    studio.fleet.succeed(following)
    studio.turn()
    assert states(studio, job_id) == ["stopped", "succeeded"]
    assert len(studio.view(ann, job_id).pictures) == 2


def test_a_stronger_click_counts_after_a_weaker_one_and_not_the_other_way_round(studio: Studio) -> None:
    ann = studio.user("ann")
    job_id, sent = running(studio, ann)
    studio.work.actions.act(ann, job_id, Action.FINISH_CURRENT)
    studio.work.actions.act(ann, job_id, Action.STOP_NOW)
    studio.work.actions.act(ann, job_id, Action.FINISH_CURRENT)
    assert told(studio)[sent.part].action is Action.STOP_NOW


def test_a_stopped_part_whose_worker_died_is_not_tried_again(studio: Studio) -> None:
    ann = studio.user("ann")
    job_id, sent = running(studio, ann)
    studio.work.actions.act(ann, job_id, Action.STOP_NOW)
    studio.fleet.fail(sent, WorkerUnavailable("the worker went away"))
    studio.clock.advance(100.0)
    assert studio.turn() == []
    studio.clock.advance(100.0)
    assert studio.turn() == []
    assert studio.view(ann, job_id).state is JobState.STOPPED


def test_a_click_on_a_finished_job_changes_nothing(studio: Studio) -> None:
    ann = studio.user("ann")
    job_id, sent = running(studio, ann)
    studio.fleet.succeed(sent)
    studio.turn()
    before = studio.view(ann, job_id)
    for action in Action:
        studio.work.actions.act(ann, job_id, action)
    assert studio.view(ann, job_id) == before


def test_the_control_object_is_emptied_once_the_work_has_ended(studio: Studio) -> None:
    ann = studio.user("ann")
    job_id, sent = running(studio, ann)
    studio.work.actions.act(ann, job_id, Action.STOP_NOW)
    studio.fleet.succeed(sent, stopped=True)
    studio.turn()
    assert told(studio) == {}


def test_a_control_object_overwritten_by_another_writer_is_mended(studio: Studio) -> None:
    ann = studio.user("ann")
    job_id, sent = running(studio, ann)
    studio.work.actions.act(ann, job_id, Action.STOP_NOW)
    studio.store.put(keys.endpoint_control("local"), EndpointControl().model_dump_json().encode())
    studio.turn()
    assert told(studio)[sent.part].action is Action.STOP_NOW


def test_a_worker_that_comes_back_hears_that_its_lost_attempt_does_not_count_any_more(studio: Studio) -> None:
    ann = studio.user("ann")
    job_id, sent = running(studio, ann)
    studio.clock.advance(31.0)
    studio.turn()
    studio.turn()
    assert told(studio) == {sent.part: PartControl(attempt=2, action=None)}
    studio.clock.advance(10.0)
    [second] = studio.turn()
    studio.turn()
    assert told(studio)[sent.part] == PartControl(attempt=2, action=None)
    studio.fleet.succeed(second)
    studio.turn()
    assert told(studio) == {}
    assert studio.view(ann, job_id).state is JobState.SUCCEEDED


def test_a_worker_hears_of_an_attempt_that_was_abandoned_with_the_process_that_had_sent_it(
    studio: Studio,
) -> None:
    ann = studio.user("ann")
    job_id, sent = running(studio, ann)
    studio.fleet.statuses["local"] = EndpointStatus(EndpointState.FAILED, 0, "restarting")
    studio.turn()
    studio.fleet.forget_tickets()
    studio.turn()
    assert [each.outcome for each in studio.attempts(job_id)] == ["abandoned"]
    assert told(studio) == {sent.part: PartControl(attempt=2, action=None)}
    studio.fleet.statuses["local"] = EndpointStatus(EndpointState.IN_SERVICE, 1)
    [second] = studio.turn()
    studio.fleet.succeed(second)
    studio.turn()
    assert told(studio) == {}
    assert studio.view(ann, job_id).state is JobState.SUCCEEDED


def test_nobody_controls_anothers_job_but_an_administrator_whose_click_is_in_the_trail(
    studio: Studio,
) -> None:
    ann, bob, root = studio.user("ann"), studio.user("bob"), studio.user("root", "admin")
    job_id = studio.submit(ann)
    with pytest.raises(NotFound):
        studio.work.actions.act(bob, job_id, Action.CANCEL)
    assert studio.view(ann, job_id).state is JobState.QUEUED
    studio.work.actions.act(root, job_id, Action.CANCEL)
    assert studio.view(ann, job_id).state is JobState.CANCELLED
    with studio.database.reading() as session:
        entry = session.scalar(select(AuditEntry).where(AuditEntry.action == "job.cancel"))
    assert entry is not None and entry.actor_name == "root" and entry.object == f"job:{job_id}"


def test_disabling_a_user_stops_what_runs_and_what_waits_and_keeps_what_was_finished(studio: Studio) -> None:
    ann, bob = studio.user("ann"), studio.user("bob")
    studio.user("root", "admin")
    job_id, sent = running(studio, ann, n_iter=3)
    kept = studio.submit(bob)
    studio.services.identity.change(audit.SYSTEM, ann.user_id, Change(disabled=True))
    studio.turn()
    assert told(studio)[sent.part].action is Action.STOP_NOW
    assert states(studio, job_id) == ["running", "stopped", "stopped"]
    studio.fleet.succeed(sent, stopped=True)
    assert {each.job for each in studio.turn()} == {kept}
    assert states(studio, job_id) == ["stopped"] * 3
    studio.turn()
    [entry] = studio.services.trail.entries(Wanted(action="job.stop_now"))
    assert (entry.actor_name, entry.subject) == ("system", "ann")
