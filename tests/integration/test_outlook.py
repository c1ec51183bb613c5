"""What a waiting job is told: honest states of a cold start, and the time left by what like parts took."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from atelier.contract import keys
from atelier.contract.jobs import JobState, JobView
from atelier.contract.parts import ProgressState
from portal.app import create_app
from portal.domain.access import SubjectKind
from portal.services import audit
from portal.services.callers import Caller
from portal.services.estimates import Made, measure
from portal.services.permissions import ROLES
from portal.services.ports import EndpointState, EndpointStatus, Submission
from tests.jobs_studio import Studio
from tests.security.test_permission_walk import ORIGIN, PASSWORD


@pytest.fixture
def studio(database_url: str, tmp_path: Path) -> Iterator[Studio]:
    made = Studio(database_url, tmp_path, slots=1)
    yield made
    made.close()


def end(studio: Studio, sent: Submission, *, waking: float = 0.0, loading: float = 0.0) -> None:
    """The part took 4 s to compute, after so many seconds in which its worker came up and loaded."""
    studio.clock.advance(waking)
    received = studio.clock.now()
    at = {"received": received, "loading": received, "encoding": received + loading}
    studio.clock.advance(loading + 4.0)
    stored = studio.clock.now()
    studio.fleet.succeed(sent, timeline=at | {"steps": received + loading, "stored": stored})


def work(studio: Studio, sent: Submission, phase: str, step: int, seq: int) -> None:
    """What the worker says of a part."""
    state = ProgressState(seq=seq, phase=phase, step=step, steps=10, pictures_done=0, pictures=1)
    key = keys.progress(sent.job, sent.part, sent.attempt)
    studio.store.put(key, state.model_dump_json().encode())
    studio.clock.advance(0.5)  # a look that is younger than this is not repeated
    studio.turn()


def seen(studio: Studio, who: Caller, job: str) -> tuple[str, str, float | None]:
    """State, phase and time left, as its owner sees them."""
    view = studio.view(who, job)
    return view.state.value, view.progress.phase, view.progress.eta_s


def test_a_cold_start_is_told_as_it_is_and_then_from_what_it_took_before(studio: Studio) -> None:
    ann = studio.user("ann")

    def cold() -> tuple[str, Submission]:
        studio.fleet.statuses["local"] = EndpointStatus(EndpointState.ASLEEP, 0)
        studio.turn()
        job = studio.submit(ann)
        assert seen(studio, ann, job)[:2] == ("queued", "queued")
        [sent] = studio.turn()
        return job, sent

    first, sent = cold()
    assert seen(studio, ann, first) == ("waking", "waking", None)
    assert studio.view(ann, first).progress.note == (
        "A worker is being started on local; that takes a moment longer than usual."
    )
    studio.fleet.statuses["local"] = EndpointStatus(EndpointState.IN_SERVICE, 1)
    work(studio, sent, "loading", 0, 1)
    assert seen(studio, ann, first) == ("running", "loading", None)
    assert studio.view(ann, first).progress.note == "Loading first.safetensors."
    work(studio, sent, "steps", 1, 2)
    assert seen(studio, ann, first)[:2] == ("running", "steps")
    assert studio.view(ann, first).progress.note == ""
    end(studio, sent, waking=11.0, loading=3.0)
    studio.turn()
    studio.clock.advance(10.0)
    second, sent = cold()
    state, phase, eta = seen(studio, ann, second)
    assert (state, phase) == ("waking", "waking")
    assert "usually takes 12 s" in studio.view(ann, second).progress.note
    assert eta == pytest.approx(12.0 + 3.0 + 4.0, abs=0.2)  # it came up while its first words were waited for
    studio.clock.advance(5.0)
    assert seen(studio, ann, second)[2] == pytest.approx(14.0, abs=0.2)


def test_the_time_left_is_that_of_parts_of_the_same_size_and_steps_and_then_its_own_pace(
    studio: Studio,
) -> None:
    ann = studio.user("ann")
    for _ in range(3):
        studio.submit(ann)
        [sent] = studio.turn()
        end(studio, sent)
        studio.turn()
    studio.clock.advance(10.0)
    job = studio.submit(ann)
    [sent] = studio.turn()
    assert seen(studio, ann, job)[2] == 4.0
    work(studio, sent, "steps", 2, 1)
    assert seen(studio, ann, job)[2] == pytest.approx(4.0 * 0.81, abs=0.05)
    studio.clock.advance(7.5)  # far slower than usual
    work(studio, sent, "steps", 4, 2)
    eta = seen(studio, ann, job)[2]
    assert eta is not None and eta > 8.0
    end(studio, sent)
    studio.turn()
    twice = studio.submit(ann, steps=20)
    studio.clock.advance(10.0)
    studio.turn()
    assert seen(studio, ann, twice)[2] == pytest.approx(8.0, abs=0.1), "what no like part tells, work does"


def test_in_the_queue_what_is_served_before_counts_by_the_rate_that_was_measured(studio: Studio) -> None:
    ann, bob = studio.user("ann"), studio.user("bob")
    waiting = studio.submit(ann)
    [sent] = studio.turn()
    behind = studio.submit(ann)
    assert seen(studio, ann, behind) == ("queued", "queued", None)
    end(studio, sent)
    studio.turn()
    studio.clock.advance(10.0)
    assert studio.view(ann, waiting).state is JobState.SUCCEEDED
    many = studio.submit(bob, n_iter=20)
    last = studio.submit(ann)
    # One part is out; by turns, two parts of bob's come before ann's, which takes its own 4 s.
    state, _, eta = seen(studio, ann, last)
    assert state == "queued" and eta is not None and 4.0 + 2.0 <= eta <= 4.0 + 2.0 + 2 * 4.0
    whole = seen(studio, bob, many)[2]
    assert whole is not None and whole == pytest.approx(20 * 4.0 + 4.0 + 2.0, abs=4.1)


def test_the_peers_progress_says_the_same(tmp_path: Path) -> None:
    studio = Studio(f"sqlite:///{tmp_path / 'a.db'}", tmp_path, slots=1)
    row = studio.services.identity.create(audit.SYSTEM, "ann", PASSWORD, "designer")
    ann = Caller(row.id, "ann", ("designer",), ROLES["designer"])
    for _ in range(2):
        studio.submit(ann)
        end(studio, studio.turn()[0])
        studio.turn()
    studio.clock.advance(10.0)
    job = studio.submit(ann)
    studio.turn()
    client = TestClient(create_app(studio.services), base_url=ORIGIN, client=("127.0.0.1", 5000))
    told: dict[str, Any] = client.get("/sdapi/v1/progress", auth=("ann", PASSWORD)).json()
    assert told["eta_relative"] == 4.0 and told["state"]["job"] == job
    client.close()
    studio.close()


def test_a_view_names_a_place_by_priority_and_weight(studio: Studio) -> None:
    ann, bob = studio.user("ann"), studio.user("bob")
    studio.fleet.statuses["local"] = EndpointStatus(EndpointState.FAILED, 0, "broken")
    studio.turn()
    mine = [studio.submit(ann) for _ in range(3)]
    theirs = studio.submit(bob)
    studio.work.actions.prioritise(ann, mine[2], 1)

    def places() -> list[int | None]:
        return [studio.view(ann, job).queue_position for job in mine]

    assert places() == [3, 4, 1] and studio.view(bob, theirs).queue_position == 2
    studio.services.shares.put(audit.SYSTEM, SubjectKind.USER, bob.user_id, 0.1)
    assert studio.view(bob, theirs).queue_position == 2
    later = studio.submit(bob)
    view: JobView = studio.view(bob, later)
    assert view.queue_position == 5, "with a tenth of the weight a second part comes after ann's three"


def test_rates_count_what_runs_side_by_side_once_and_leave_out_what_was_not_measured() -> None:
    def made(received: float, stored: float, **more: float) -> Made:
        return Made("local", "shape", 2.0, {"received": received, "stored": stored, **more})

    found = measure([made(0.0, 4.0), made(0.0, 4.0), made(10.0, 12.0), Made("local", "other", 1.0, {})])
    assert found.throughput == {"local": 1.0}
    assert found.computing("local", "shape", 2.0) == 4.0
    assert found.computing("local", "unheard", 1.0) == 2.0
    assert found.computing("elsewhere", "shape", 2.0) is None
    assert found.together(["elsewhere"]) is None and found.waking == {} == found.loading
    cold = measure([made(20.0, 30.0, waking=5.0, loading=20.0, encoding=23.0)])
    assert (cold.waking["local"], cold.loading["local"]) == (15.0, 3.0)
    assert cold.computing("local", "shape", 2.0) == 7.0
