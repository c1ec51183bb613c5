"""The dispatcher on SQLite and on PostgreSQL, with a fleet and a clock that do what the test says."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from atelier.contract import keys, signing
from atelier.contract.errors import OutOfMemory, StorageFailed, WorkerUnavailable, WorkReturned
from atelier.contract.jobs import JobState, PartState
from atelier.contract.parts import InstanceState, PartControl, Task
from atelier.storage.base import BlobStat
from portal.adapters.local.inbox import QueueInbox
from portal.adapters.memory.clock import ManualClock
from portal.domain.retry import LOSSES_IN_COMPANY, MAX_ATTEMPTS, MAX_LOSSES_ALONE, delay
from portal.services import audit
from portal.services.dispatch_loop import Leadership
from portal.services.ports import EndpointSpec, EndpointState, EndpointStatus, Submission
from tests.jobs_studio import Studio


@pytest.fixture
def studio(database_url: str, tmp_path: Path) -> Iterator[Studio]:
    made = Studio(database_url, tmp_path)
    yield made
    made.close()


def only(sent: list[Submission]) -> Submission:
    assert len(sent) == 1
    return sent[0]


def test_a_part_is_signed_controlled_sent_and_made_visible(studio: Studio) -> None:
    ann = studio.user("ann")
    job_id = studio.submit(ann, batch_size=2)
    sent = only(studio.turn())
    key = studio.services.secrets.get("job-key").hex().encode()
    assert signing.verify(sent.body, key)
    assert sent.body["task"] == Task.TEXT_TO_IMAGE
    control = PartControl.model_validate_json(studio.store.get(keys.part_control(job_id, sent.part)))
    assert control == PartControl(attempt=1, action=None)
    studio.fleet.progress(sent, seq=1)
    studio.turn()
    assert studio.view(ann, job_id).state is JobState.RUNNING
    studio.fleet.succeed(sent)
    studio.turn()
    seen = studio.view(ann, job_id)
    assert seen.state is JobState.SUCCEEDED
    assert [picture.seed for picture in seen.pictures] == [7, 8]
    assert seen.info["infotexts"] == [picture.infotext for picture in seen.pictures]
    assert {"accepted", "dispatched", "visible"} <= set(seen.timeline)


def test_users_are_served_in_turn_however_long_one_queue_is(studio: Studio) -> None:
    many, few = studio.user("many"), studio.user("few")
    studio.work.endpoints.update(audit.SYSTEM, "local", {"slots": 1})
    for _ in range(12):
        studio.submit(many)
    for _ in range(3):
        studio.submit(few)
    owners = {job.id: who for who in (many, few) for job in studio.work.jobs.listed(who)[0]}
    order = []
    for _ in range(15):
        sent = only(studio.turn())
        order.append(owners[sent.job].username)
        studio.clock.advance(1.0)
        studio.fleet.succeed(sent)
    assert Counter(order[:6]) == {"many": 3, "few": 3}
    assert order[6:] == ["many"] * 9


def test_no_more_parts_are_in_flight_than_the_endpoint_has_slots(studio: Studio) -> None:
    studio.work.endpoints.update(audit.SYSTEM, "local", {"slots": 3})
    studio.submit(studio.user("ann"), n_iter=5)
    assert len(studio.turn()) == 3
    assert studio.turn() == []
    studio.fleet.succeed(studio.fleet.submissions[0])
    assert len(studio.turn()) == 1


def test_one_part_wakes_an_endpoint_at_zero_and_its_job_says_so(studio: Studio) -> None:
    ann = studio.user("ann")
    studio.fleet.statuses["local"] = EndpointStatus(EndpointState.ASLEEP, 0)
    studio.turn()
    job_id = studio.submit(ann)
    sent = only(studio.turn())
    assert studio.view(ann, job_id).state is JobState.WAKING
    studio.fleet.succeed(sent)
    studio.turn()
    assert "waking" in studio.view(ann, job_id).timeline


def test_a_failed_endpoint_gets_nothing_and_its_jobs_wait(studio: Studio) -> None:
    ann = studio.user("ann")
    studio.fleet.statuses["local"] = EndpointStatus(EndpointState.FAILED, 0, "no such device")
    studio.turn()
    job_id = studio.submit(ann)
    assert studio.turn() == []
    assert studio.view(ann, job_id).state is JobState.QUEUED
    studio.fleet.statuses["local"] = EndpointStatus(EndpointState.IN_SERVICE, 1)
    assert [sent.job for sent in studio.turn()] == [job_id]


def instance(studio: Studio, endpoint: str, *, hot: tuple[str, ...] = (), contract: str = "1.0") -> None:
    state = InstanceState(
        endpoint=endpoint,
        instance="w",
        contract=contract,
        engine="test",
        status="ready",
        at=studio.clock.now(),
        hot=hot,
    )
    key = keys.instance(endpoint, "w")
    studio.store.put(key, state.model_dump_json().encode())


def test_automatic_prefers_the_endpoint_where_the_weights_are_hot(studio: Studio) -> None:
    second = studio.checkpoint("second")
    studio.work.endpoints.create(audit.SYSTEM, EndpointSpec("other"))
    studio.clock._now = studio.store.put("endpoints/clock", b"").modified
    instance(studio, "other", hot=(second,))
    studio.turn()
    ann = studio.user("ann")
    studio.submit(ann, override_settings={"sd_model_checkpoint": "second"})
    assert only(studio.turn()).endpoint == "other"
    studio.submit(ann, endpoint="local", override_settings={"sd_model_checkpoint": "second"})
    assert only(studio.turn()).endpoint == "local"


def test_a_worker_that_does_not_understand_the_contract_gets_nothing(studio: Studio) -> None:
    studio.clock._now = studio.store.put("endpoints/clock", b"").modified
    instance(studio, "local", contract="2.0")
    studio.turn()
    studio.submit(studio.user("ann"))
    assert studio.turn() == []


def test_a_retryable_failure_is_tried_again_after_a_pause_and_three_times_at_most(studio: Studio) -> None:
    ann = studio.user("ann")
    job_id = studio.submit(ann)
    for number in range(1, MAX_ATTEMPTS + 1):
        sent = only(studio.turn())
        assert sent.attempt == number
        studio.fleet.fail(sent, StorageFailed("the store did not answer"))
        assert studio.turn() == []
        studio.clock.advance(100.0)
    seen = studio.view(ann, job_id)
    assert seen.state is JobState.FAILED
    assert seen.error is not None and seen.error["code"] == "storage_failed"
    assert [attempt.outcome for attempt in studio.attempts(job_id)] == ["failed"] * 3


def test_work_that_was_given_back_waits_longer_each_time_and_never_counts_as_failed(studio: Studio) -> None:
    ann = studio.user("ann")
    job_id = studio.submit(ann)
    for number in range(1, 3 * MAX_ATTEMPTS):
        studio.fleet.fail(only(studio.turn()), WorkReturned("draining"))
        assert studio.turn() == []
        studio.clock.advance(0.9 * min(60.0, 2.0 ** (number - 1)))
        assert studio.turn() == [], f"sent again too soon after attempt {number}"
        studio.clock.advance(60.0)
    studio.fleet.fail(only(studio.turn()), WorkerUnavailable("the worker went away"))
    studio.turn()
    studio.clock.advance(10.0)
    studio.fleet.succeed(only(studio.turn()))
    studio.turn()
    assert studio.view(ann, job_id).state is JobState.SUCCEEDED
    outcomes = Counter(attempt.outcome for attempt in studio.attempts(job_id))
    assert outcomes == {"returned": 8, "lost": 1, "succeeded": 1}


def test_a_part_given_back_a_thousand_times_still_waits_a_minute_and_a_half_at_most() -> None:
    assert 60.0 <= delay(5000, spread=0.5) <= 90.0


def test_a_part_lost_with_its_neighbours_is_not_to_blame_and_is_sent_alone_from_then_on(
    studio: Studio,
) -> None:
    ann, bob = studio.user("ann"), studio.user("bob")
    poison = studio.submit(ann)
    others = [studio.submit(bob) for _ in range(3)]

    def crash(sent: Submission) -> None:
        studio.fleet.fail(sent, WorkerUnavailable("the worker went away"))

    for _ in range(LOSSES_IN_COMPANY):
        sent = studio.turn()
        assert {each.job for each in sent} == {poison, *others}
        for each in sent:
            crash(each)
        assert studio.turn() == []
        studio.clock.advance(100.0)
    for _ in range(MAX_LOSSES_ALONE + len(others)):
        alone = only(studio.turn())
        assert studio.turn() == [], "it was not left alone"
        (crash if alone.job == poison else studio.fleet.succeed)(alone)
        studio.work.loop.watcher.sweep()
        studio.clock.advance(100.0)
    studio.turn()
    assert [studio.view(bob, job).state for job in others] == [JobState.SUCCEEDED] * 3
    seen = studio.view(ann, poison)
    assert seen.state is JobState.FAILED
    assert seen.error is not None and f"{MAX_LOSSES_ALONE} times" in seen.error["message"]
    kinds = Counter((each.alone, each.outcome) for each in studio.attempts(poison))
    assert kinds == {(False, "lost"): LOSSES_IN_COMPANY, (True, "lost"): MAX_LOSSES_ALONE}


def test_a_part_that_is_to_be_alone_waits_for_the_others_and_nothing_is_sent_before_it(
    studio: Studio,
) -> None:
    ann, bob = studio.user("ann"), studio.user("bob")
    suspect = studio.submit(ann)
    for _ in range(LOSSES_IN_COMPANY):
        studio.fleet.fail(only(studio.turn()), WorkerUnavailable("the worker went away"))
        studio.turn()
        if len(studio.attempts(suspect)) < LOSSES_IN_COMPANY:
            studio.clock.advance(100.0)
    first = studio.submit(bob)
    running = only(studio.turn())
    assert running.job == first
    studio.clock.advance(20.0)
    studio.fleet.progress(running, seq=1)
    later = studio.submit(bob)
    assert studio.turn() == [], "somebody else's part was sent before the one whose turn it is"
    studio.fleet.succeed(running)
    alone = only(studio.turn())
    assert alone.job == suspect
    studio.fleet.succeed(alone)
    assert only(studio.turn()).job == later
    assert studio.view(ann, suspect).state is JobState.SUCCEEDED


def test_a_failure_that_cannot_mend_itself_is_final_at_once(studio: Studio) -> None:
    ann = studio.user("ann")
    job_id = studio.submit(ann)
    studio.fleet.fail(only(studio.turn()), OutOfMemory("512x512 is the largest that fits"))
    studio.turn()
    seen = studio.view(ann, job_id)
    assert seen.state is JobState.FAILED
    assert seen.error is not None and "512x512" in seen.error["message"]


def test_a_submission_the_fleet_refuses_comes_back_into_the_queue(studio: Studio) -> None:
    ann = studio.user("ann")
    studio.fleet.refusal = WorkerUnavailable("no capacity")
    job_id = studio.submit(ann)
    studio.turn()
    assert studio.parts(job_id)[0].state == PartState.QUEUED
    studio.fleet.refusal = None
    studio.clock.advance(10.0)
    studio.fleet.succeed(only(studio.turn()))
    studio.turn()
    assert studio.view(ann, job_id).state is JobState.SUCCEEDED


def test_a_store_that_fails_while_work_is_sent_never_counts_as_the_works_failure(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    ann, put = studio.user("ann"), studio.store.put
    job_id = studio.submit(ann)

    def away(key: str, data: bytes) -> BlobStat:
        if key.startswith("jobs/"):
            raise StorageFailed("The bucket did not answer.")
        return put(key, data)

    monkeypatch.setattr(studio.store, "put", away)
    for _ in range(MAX_ATTEMPTS + 2):
        assert studio.turn() == []
        studio.clock.advance(100.0)
    assert {each.outcome for each in studio.attempts(job_id)} == {"returned"}
    assert "The bucket did not answer." in (studio.parts(job_id)[0].error or {})["message"]
    monkeypatch.setattr(studio.store, "put", put)
    studio.fleet.succeed(only(studio.turn()))
    studio.turn()
    assert studio.view(ann, job_id).state is JobState.SUCCEEDED


def test_a_completion_that_comes_twice_gives_one_result(studio: Studio) -> None:
    ann = studio.user("ann")
    job_id = studio.submit(ann)
    sent = only(studio.turn())
    studio.fleet.succeed(sent)
    studio.fleet.succeed(sent)
    studio.turn()
    studio.turn()
    assert len(studio.view(ann, job_id).pictures) == 1


def test_a_completion_nobody_told_of_is_found_by_the_sweeper(studio: Studio) -> None:
    ann = studio.user("ann")
    job_id = studio.submit(ann)
    studio.fleet.succeed(only(studio.turn()), tell=False)
    studio.turn()
    assert studio.view(ann, job_id).state is JobState.SUCCEEDED


def test_completions_from_several_threads_at_once_give_one_result(studio: Studio) -> None:
    ann = studio.user("ann")
    job_id = studio.submit(ann)
    sent = only(studio.turn())
    studio.fleet.succeed(sent, tell=False)
    changed: list[bool] = []
    start = threading.Barrier(3)

    def complete() -> None:
        start.wait()
        changed.append(studio.work.loop.completions.notified(sent.job, sent.part, sent.attempt, None))

    threads = [threading.Thread(target=complete) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(changed) == [False, False, True]
    assert len(studio.view(ann, job_id).pictures) == 1


def test_an_attempt_that_shows_no_life_is_lost_and_another_one_counts(studio: Studio) -> None:
    ann = studio.user("ann")
    job_id = studio.submit(ann)
    first = only(studio.turn())
    studio.fleet.progress(first, seq=1)
    studio.turn()
    studio.clock.advance(31.0)
    assert studio.turn() == []
    studio.clock.advance(5.0)
    second = only(studio.turn())
    assert second.attempt == 2
    studio.fleet.succeed(first)
    studio.turn()
    assert studio.view(ann, job_id).state is not JobState.SUCCEEDED
    assert list(studio.store.list(keys.attempt(job_id, first.part, 1))) == []
    studio.fleet.succeed(second)
    studio.turn()
    seen = studio.view(ann, job_id)
    assert seen.state is JobState.SUCCEEDED and len(seen.pictures) == 1
    with studio.store.open(keys.picture(job_id, second.part, 2, 0)) as stored:
        assert stored.read().decode().split("/")[1] == "2"


def test_an_attempt_that_fell_silent_is_lost_in_time_where_the_clock_was_set_back(studio: Studio) -> None:
    job_id = studio.submit(studio.user("ann"))
    studio.fleet.progress(only(studio.turn()), seq=1)
    studio.turn()
    studio.clock.jump(-3600.0)
    studio.turn()
    studio.clock.advance(31.0)
    studio.turn()
    assert [attempt.outcome for attempt in studio.attempts(job_id)] == ["lost"]


def test_growing_progress_renews_the_lease_of_a_slow_part(studio: Studio) -> None:
    studio.submit(studio.user("ann"))
    sent = only(studio.turn())
    for seq in range(1, 10):
        studio.fleet.progress(sent, seq=seq)
        studio.turn()
        studio.clock.advance(15.0)
    assert len(studio.fleet.submissions) == 1


def test_a_fleet_that_describes_itself_slowly_costs_no_live_attempt(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = studio.submit(studio.user("ann"))
    sent = only(studio.turn())
    studio.fleet.progress(sent, seq=1)
    studio.turn()
    described = studio.fleet.describe

    def slowly(name: str) -> EndpointStatus:
        studio.clock.advance(40.0)
        studio.fleet.progress(sent, seq=2)
        return described(name)

    monkeypatch.setattr(studio.fleet, "describe", slowly)
    assert studio.turn() == []
    assert studio.parts(job_id)[0].state == PartState.RUNNING
    monkeypatch.setattr(studio.fleet, "describe", lambda name: studio.clock.advance(40.0) or described(name))
    studio.turn()
    assert [each.outcome for each in studio.attempts(job_id)] == ["lost"], "silence is still silence"


def test_a_part_queued_in_front_of_a_busy_worker_is_not_lost_while_its_ticket_is_pending(
    studio: Studio,
) -> None:
    job_id = studio.submit(studio.user("ann"))
    studio.turn()
    for _ in range(5):
        studio.clock.advance(31.0)
        studio.turn()
    assert [attempt.open for attempt in studio.attempts(job_id)] == [True]


def test_after_a_restart_of_the_portal_what_was_in_flight_is_queued_again_without_counting(
    studio: Studio,
) -> None:
    ann = studio.user("ann")
    job_id = studio.submit(ann)
    for number in range(1, MAX_ATTEMPTS + 2):
        assert only(studio.turn()).attempt == number
        studio.fleet.forget_tickets()
        studio.work.loop.watcher.sweep()
    studio.fleet.succeed(only(studio.turn()))
    studio.turn()
    assert studio.view(ann, job_id).state is JobState.SUCCEEDED
    assert Counter(attempt.outcome for attempt in studio.attempts(job_id)) == {"abandoned": 4, "succeeded": 1}


def test_a_result_stored_before_the_restart_is_not_computed_again(studio: Studio) -> None:
    ann = studio.user("ann")
    job_id = studio.submit(ann)
    studio.fleet.succeed(only(studio.turn()), tell=False)
    studio.fleet.forget_tickets()
    assert studio.turn() == []
    assert studio.view(ann, job_id).state is JobState.SUCCEEDED


def test_a_part_nobody_could_take_for_a_day_expires(studio: Studio) -> None:
    ann = studio.user("ann")
    studio.fleet.statuses["local"] = EndpointStatus(EndpointState.FAILED, 0, "broken")
    studio.turn()
    job_id = studio.submit(ann)
    studio.clock.advance(24 * 3600 + 1)
    studio.turn()
    assert studio.view(ann, job_id).state is JobState.EXPIRED


def test_only_one_process_leads_and_another_takes_over_when_it_stops_renewing(studio: Studio) -> None:
    first, second = (Leadership(studio.database, studio.clock) for _ in range(2))
    assert first.held() and not second.held()
    studio.clock.advance(10.0)
    assert first.held() and not second.held()
    studio.clock.advance(16.0)
    assert second.held() and not first.held()
    second.give_up()
    assert first.held()


def test_a_clock_that_is_set_back_lets_no_process_believe_in_a_lease_that_ran_out(studio: Studio) -> None:
    first, second = (Leadership(studio.database, studio.clock) for _ in range(2))
    assert first.held() and not second.held()
    studio.clock.jump(-300.0)
    assert first.sure and not second.held()
    studio.clock.advance(15.0)
    assert not first.sure, "the holder counts by the time of day"
    assert second.held(), "who waits counts by the time of day"
    assert second.sure and not first.held()


def test_a_holder_whose_clock_is_behind_keeps_its_lease_as_long_as_it_renews_it(studio: Studio) -> None:
    behind = ManualClock(studio.clock.now() - 300.0)
    first, second = Leadership(studio.database, studio.clock), Leadership(studio.database, behind)
    assert first.held() and not second.held()
    first.give_up()
    assert second.held()
    for _ in range(6):
        assert not first.held(), "it took a lease away that was renewed"
        assert second.held()
        studio.clock.advance(8.0)
        behind.advance(8.0)
    assert not first.held()
    studio.clock.advance(15.0)
    assert first.held(), "nobody renewed it for as long as it lasts"


def test_of_processes_that_start_at_the_same_moment_one_leads_and_none_stumbles(studio: Studio) -> None:
    together = threading.Barrier(4)
    leads: list[bool] = []

    def start(leadership: Leadership) -> None:
        together.wait()
        leads.append(leadership.held())

    candidates = [Leadership(studio.database, studio.clock) for _ in range(4)]
    threads = [threading.Thread(target=start, args=(each,)) for each in candidates]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(leads) == [False, False, False, True]


def test_a_result_that_points_outside_its_attempt_is_no_result(studio: Studio) -> None:
    ann = studio.user("ann")
    job_id = studio.submit(ann)
    sent = only(studio.turn())
    studio.fleet.succeed(sent, tell=False)
    key = keys.result(job_id, sent.part, 1)
    forged = studio.store.get(key).replace(f"jobs/{job_id}/{sent.part}/1/0.png".encode(), b"secrets/0.png")
    studio.store.put(key, forged)
    studio.turn()
    seen = studio.view(ann, job_id)
    assert seen.state is JobState.FAILED and seen.pictures == ()


def test_the_queue_position_counts_those_who_come_before(studio: Studio) -> None:
    ann, bob = studio.user("ann"), studio.user("bob")
    studio.fleet.statuses["local"] = EndpointStatus(EndpointState.FAILED, 0, "broken")
    studio.turn()
    first, second, third = studio.submit(ann), studio.submit(ann), studio.submit(ann)
    other = studio.submit(bob)
    assert [studio.view(ann, job).queue_position for job in (first, second, third)] == [1, 3, 4]
    assert studio.view(bob, other).queue_position == 2
    assert "1 in front" in studio.view(bob, other).progress.note


def test_an_unacknowledged_message_comes_again(studio: Studio) -> None:
    inbox = QueueInbox()
    studio.submit(studio.user("ann"))
    studio.fleet._inbox = inbox
    studio.fleet.succeed(only(studio.turn()))
    [message] = inbox.receive(0.0)
    assert inbox.receive(0.0) == []
    inbox.return_unacknowledged()
    assert inbox.receive(0.0) == [message]
    inbox.ack(message.receipt)
    inbox.return_unacknowledged()
    assert inbox.receive(0.0) == []
