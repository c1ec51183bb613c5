"""The state machines of parts and jobs are total, and nothing leaves a final state."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atelier.contract.jobs import JobState, PartState
from atelier.contract.parts import Action
from portal.domain.states import PartEvent, after, job_state, on_action, outranks, tells_worker

PAIRS = list(itertools.product(PartState, PartEvent))
PARTS = st.lists(st.sampled_from(PartState), min_size=1, max_size=6)


@pytest.mark.parametrize(("state", "event"), PAIRS)
def test_every_event_in_every_state_leads_to_a_state_and_final_ones_are_never_left(
    state: PartState, event: PartEvent
) -> None:
    reached = after(state, event)
    assert isinstance(reached, PartState)
    if state.final:
        assert reached is state


@given(st.lists(st.sampled_from(PartEvent), max_size=30))
def test_a_part_that_became_final_stays_as_it_is_whatever_comes_after(events: list[PartEvent]) -> None:
    state, ended = PartState.QUEUED, None
    for event in events:
        state = after(state, event)
        ended = ended or (state if state.final else None)
    assert ended is None or state is ended


@pytest.mark.parametrize("state", [each for each in PartState if not each.final])
def test_every_part_can_still_end(state: PartState) -> None:
    assert {after(state, event) for event in PartEvent if after(state, event).final}


@given(PARTS, st.booleans())
def test_a_job_is_final_exactly_when_all_its_parts_are(parts: list[PartState], waking: bool) -> None:
    assert job_state(parts, waking=waking).final == all(part.final for part in parts)


@given(PARTS, st.booleans(), st.randoms())
def test_a_jobs_state_does_not_depend_on_the_order_of_its_parts(
    parts: list[PartState], waking: bool, chance: object
) -> None:
    shuffled = list(parts)
    chance.shuffle(shuffled)  # type: ignore[attr-defined]
    assert job_state(shuffled, waking=waking) is job_state(parts, waking=waking)


@pytest.mark.parametrize(
    ("parts", "job"),
    [
        (["queued"], "queued"),
        (["dispatched"], "queued"),
        (["running", "queued"], "running"),
        (["succeeded", "queued"], "running"),
        (["succeeded", "succeeded"], "succeeded"),
        (["succeeded", "failed"], "failed"),
        (["succeeded", "stopped"], "stopped"),
        (["succeeded", "cancelled"], "cancelled"),
        (["expired", "stopped"], "expired"),
    ],
)
def test_a_jobs_state_follows_from_its_parts(parts: list[str], job: str) -> None:
    assert job_state(map(PartState, parts)) is JobState(job)


def test_a_sent_part_whose_worker_is_being_started_makes_its_job_waking() -> None:
    assert job_state([PartState.DISPATCHED, PartState.QUEUED], waking=True) is JobState.WAKING
    assert job_state([PartState.QUEUED], waking=True) is JobState.QUEUED


@pytest.mark.parametrize(("state", "action"), list(itertools.product(PartState, Action)))
def test_every_click_in_every_state_ends_the_part_or_is_told_to_a_worker_or_changes_nothing(
    state: PartState, action: Action
) -> None:
    event = on_action(state, action)
    if state.final:
        assert event is None and not tells_worker(state)
    elif event is not None:
        assert after(state, event).final
    elif action is not Action.SKIP:
        assert tells_worker(state)


def test_cancel_ends_everything_at_once_and_interrupt_keeps_what_runs() -> None:
    assert on_action(PartState.RUNNING, Action.CANCEL) is PartEvent.CANCEL
    assert on_action(PartState.RUNNING, Action.STOP_NOW) is None
    assert on_action(PartState.DISPATCHED, Action.STOP_NOW) is PartEvent.STOP
    assert on_action(PartState.DISPATCHED, Action.FINISH_CURRENT) is None
    assert on_action(PartState.QUEUED, Action.FINISH_CURRENT) is PartEvent.STOP
    assert on_action(PartState.QUEUED, Action.SKIP) is None


def test_no_later_click_takes_back_a_stronger_one() -> None:
    assert outranks(Action.CANCEL, Action.STOP_NOW)
    assert outranks(Action.STOP_NOW, Action.FINISH_CURRENT)
    assert not outranks(Action.FINISH_CURRENT, Action.STOP_NOW)
    assert not outranks(Action.CANCEL, Action.CANCEL)
