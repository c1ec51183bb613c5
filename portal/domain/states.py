"""The state machines of parts and jobs: total, pure, and the only place that decides what an event does.

A part moves `queued -> dispatched -> running -> succeeded | failed | stopped | cancelled | expired`. An
event that means nothing in a state (a late notification, a doubled click) leaves the state as it is: every
pair of state and event is decided by `after`.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

from atelier.contract.jobs import JobState, PartState
from atelier.contract.parts import Action


class PartEvent(StrEnum):
    """What can happen to a part."""

    DISPATCH = "dispatch"
    """The dispatcher took it and opened an attempt."""
    PROGRESS = "progress"
    """The attempt's progress grew for the first time: the engine has it."""
    SUCCEED = "succeed"
    STOP = "stop"
    """The attempt ended early with what it had, or the part was still waiting when its job was stopped."""
    FAIL = "fail"
    """It failed and will not be tried again."""
    REQUEUE = "requeue"
    """The attempt failed or was lost in a way that another attempt may mend."""
    CANCEL = "cancel"
    EXPIRE = "expire"
    """It waited longer than it may."""


_ENDINGS = {
    PartEvent.SUCCEED: PartState.SUCCEEDED,
    PartEvent.STOP: PartState.STOPPED,
    PartEvent.FAIL: PartState.FAILED,
    PartEvent.CANCEL: PartState.CANCELLED,
}
_TABLE: dict[PartState, dict[PartEvent, PartState]] = {
    PartState.QUEUED: {
        PartEvent.DISPATCH: PartState.DISPATCHED,
        PartEvent.STOP: PartState.STOPPED,
        PartEvent.FAIL: PartState.FAILED,
        PartEvent.CANCEL: PartState.CANCELLED,
        PartEvent.EXPIRE: PartState.EXPIRED,
    },
    PartState.DISPATCHED: {
        PartEvent.PROGRESS: PartState.RUNNING,
        PartEvent.REQUEUE: PartState.QUEUED,
        **_ENDINGS,
    },
    PartState.RUNNING: {PartEvent.REQUEUE: PartState.QUEUED, **_ENDINGS},
}


UNFINISHED_PARTS = tuple(state.value for state in PartState if not state.final)
UNFINISHED_JOBS = tuple(state.value for state in JobState if not state.final)
"""As they stand in the database."""


def after(state: PartState, event: PartEvent) -> PartState:
    """The state `event` leads to; the same state where it means nothing. Final states are never left."""
    return _TABLE.get(state, {}).get(event, state)


def on_action(state: PartState, action: Action) -> PartEvent | None:
    """What a click does at once to a part in `state`; None where its worker has to do it, or nothing is
    left to do.

    `cancel` ends everything at once: what an attempt still brings is dropped. `stop_now` ends what no
    engine has begun, since there is nothing to keep; `finish_current` ends what waits; `skip` passes over
    what runs and lets the rest follow.
    """
    if state.final or action is Action.SKIP:
        return None
    if action is Action.CANCEL:
        return PartEvent.CANCEL
    begun = (PartState.RUNNING,) if action is Action.STOP_NOW else (PartState.RUNNING, PartState.DISPATCHED)
    return None if state in begun else PartEvent.STOP


def tells_worker(state: PartState) -> bool:
    """Whether a worker may have a part in `state`, so that it must hear of a click."""
    return state in (PartState.DISPATCHED, PartState.RUNNING)


_RANKS = {Action.FINISH_CURRENT: 1, Action.SKIP: 2, Action.STOP_NOW: 2, Action.CANCEL: 3}


def outranks(action: Action, earlier: Action | None) -> bool:
    """Whether a click counts after an `earlier` one on the same part: nothing takes back what was asked for
    before.
    """
    return earlier is None or _RANKS[action] > _RANKS[earlier]


_WORST_FIRST = (
    (PartState.CANCELLED, JobState.CANCELLED),
    (PartState.FAILED, JobState.FAILED),
    (PartState.EXPIRED, JobState.EXPIRED),
    (PartState.STOPPED, JobState.STOPPED),
)


def job_state(parts: Iterable[PartState], *, waking: bool = False) -> JobState:
    """A job's state from its parts' states; `waking` says that a worker is being started for one of them.

    A job of several parts runs from the first picture on until the last part is final.
    """
    states = set(parts)
    if all(state.final for state in states):
        return next((job for part, job in _WORST_FIRST if part in states), JobState.SUCCEEDED)
    if PartState.RUNNING in states or any(state.final for state in states):
        return JobState.RUNNING
    if waking and PartState.DISPATCHED in states:
        return JobState.WAKING
    return JobState.QUEUED
