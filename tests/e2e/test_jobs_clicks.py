"""Interrupt, Skip and cancel over HTTP with a real worker: what each keeps, and that the computing ends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import httpx
from sqlalchemy import func, select

from atelier.contract.jobs import JobState, JobView
from portal.db.work import Attempt, Part
from portal.services.ports import EndpointSpec
from tests.live_portal import LivePortal
from tests.waiting import eventually

LONG = {"steps": 150, "width": 128, "height": 128}


def at_steps(live: LivePortal, who: httpx.Client, **payload: object) -> str:
    """A job of which a picture is in the making."""
    job = live.submit(who, **payload)
    eventually(
        lambda: JobView.model_validate(who.get(f"/api/v1/jobs/{job}").json()).progress.step > 0,
        within=120,
        every=0.02,
        about="the job never began",
    )
    return job


def click(who: httpx.Client, job: str, action: str) -> JobView:
    answer = who.post(f"/api/v1/jobs/{job}/actions", json={"action": action})
    assert answer.status_code == 200, answer.text
    return JobView.model_validate(answer.json())


def in_flight(live: LivePortal, job: str) -> int:
    """Attempts that a worker may still compute."""
    with live.services.database.reading() as session:
        return session.scalar(select(func.count()).where(Attempt.job_id == job, Attempt.open)) or 0


def let_go(live: LivePortal, job: str) -> None:
    """Wait until the worker computes nothing of the job any more."""
    eventually(lambda: in_flight(live, job) == 0, within=60, about="the worker went on computing")


@contextmanager
def one_at_a_time(live: LivePortal) -> Iterator[None]:
    """The endpoint takes one part at a time within."""
    root = live.person("root")
    root.patch("/api/v1/endpoints/local", json={"slots": 1}).raise_for_status()
    try:
        yield
    finally:
        root.patch("/api/v1/endpoints/local", json={"slots": EndpointSpec("").slots}).raise_for_status()


def test_interrupt_after_the_current_picture_finishes_it_and_drops_what_waits(live: LivePortal) -> None:
    ann = live.person()
    with one_at_a_time(live):
        job = at_steps(live, ann, n_iter=3, steps=60, width=128, height=128)
        click(ann, job, "finish_current")
        view = live.finished(ann, job)
    assert view.state is JobState.STOPPED
    [picture] = view.pictures
    assert picture.complete, "the current picture was cut short"


def test_skip_passes_over_the_picture_in_the_making_and_makes_the_following_ones(live: LivePortal) -> None:
    ann = live.person()
    with one_at_a_time(live):
        job = at_steps(live, ann, n_iter=2, steps=80, width=128, height=128)
        click(ann, job, "skip")
        view = live.finished(ann, job)
    assert [picture.complete for picture in view.pictures] == [False, True]
    assert len({picture.seed for picture in view.pictures}) == 2


def test_cancel_ends_the_computing_keeps_nothing_and_frees_the_worker(live: LivePortal) -> None:
    ann = live.person()
    job = at_steps(live, ann, n_iter=2, **LONG)
    assert click(ann, job, "cancel").state is JobState.CANCELLED
    let_go(live, job)
    assert JobView.model_validate(ann.get(f"/api/v1/jobs/{job}").json()).pictures == ()
    with live.services.database.reading() as session:
        parts = session.scalars(select(Part.state).where(Part.job_id == job)).all()
    assert set(parts) == {"cancelled"}
    left = [blob.key for blob in live.services.store.list(f"jobs/{job}/") if blob.key.endswith(".png")]
    assert left == []
    assert live.finished(ann, live.submit(ann)).state is JobState.SUCCEEDED


def test_a_click_twice_and_one_on_what_has_ended_change_nothing(live: LivePortal) -> None:
    ann = live.person()
    job = at_steps(live, ann, **LONG)
    for action in ("stop_now", "stop_now", "finish_current"):
        click(ann, job, action)
    ended = live.finished(ann, job)
    assert ended.state is JobState.STOPPED and not ended.pictures[0].complete
    let_go(live, job)
    for action in ("cancel", "skip", "stop_now"):
        assert click(ann, job, action) == ended


def test_the_peers_interrupt_and_skip_reach_the_callers_own_job_alone(live: LivePortal) -> None:
    ann, bob, program = live.person("ann"), live.person("bob"), live.program("ann")
    theirs = at_steps(live, bob, steps=150, width=256, height=256)
    mine = at_steps(live, ann, **LONG)
    skipped = program.post("/sdapi/v1/skip")
    assert (skipped.status_code, skipped.json()) == (200, None)
    assert not live.finished(ann, mine).pictures[0].complete
    mine = at_steps(live, ann, **LONG)
    interrupted = program.post("/sdapi/v1/interrupt")
    assert (interrupted.status_code, interrupted.json()) == (200, {})
    view = live.finished(ann, mine)
    assert view.state is JobState.STOPPED and not view.pictures[0].complete
    idle = program.post("/sdapi/v1/interrupt")
    assert (idle.status_code, idle.json()) == (200, {})
    seen = JobView.model_validate(bob.get(f"/api/v1/jobs/{theirs}").json())
    assert seen.state is JobState.RUNNING or all(picture.complete for picture in seen.pictures)
    click(bob, theirs, "cancel")
    let_go(live, theirs)
