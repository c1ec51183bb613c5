"""Whatever happens in whatever order: accepted jobs are never lost, end once, and show one result."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from sqlalchemy import func, select

from atelier.contract.errors import OutOfMemory, WorkerUnavailable, WorkReturned
from atelier.contract.jobs import JobState, PartState
from atelier.contract.parts import Action
from portal.db.work import Attempt, Job, Part, Picture
from portal.domain.states import job_state
from tests.jobs_studio import Studio

SLOTS = 3
USERS = ("ann", "bob")


class Faults(RuleBasedStateMachine):
    """Submissions, clicks, endings, losses and restarts in any order, against a real database."""

    new_url: Callable[[Path], str]
    """The URL of a database for the studio in a folder."""

    @initialize()
    def open(self) -> None:
        """A fresh studio for each run."""
        self.folder = Path(tempfile.mkdtemp(prefix="atelier-faults-"))
        self.studio = Studio(type(self).new_url(self.folder), self.folder, slots=SLOTS)
        self.users = [self.studio.user(name) for name in USERS]
        self.jobs: list[tuple[Any, str]] = []
        self.finals: dict[str, str] = {}

    def _sent(self, data: st.DataObject) -> Any:
        return data.draw(st.sampled_from(self.studio.fleet.submissions))

    def _any_sent(self) -> bool:
        return bool(self.studio.fleet.submissions)

    @rule(user=st.sampled_from((0, 1)), parts=st.integers(1, 3), pictures=st.integers(1, 2))
    def submit(self, user: int, parts: int, pictures: int) -> None:
        """Somebody wants pictures."""
        if len(self.jobs) < 8:
            job = self.studio.submit(self.users[user], n_iter=parts, batch_size=pictures)
            self.jobs.append((self.users[user], job))

    @rule()
    def turn(self) -> None:
        """The dispatcher does a round."""
        self.studio.turn()

    @rule(seconds=st.sampled_from((1.0, 31.0, 100.0)))
    def wait(self, seconds: float) -> None:
        """Time goes by; after 31 s without a sign of life an attempt is lost."""
        self.studio.clock.advance(seconds)

    @precondition(_any_sent)
    @rule(data=st.data(), seq=st.integers(1, 9))
    def progress(self, data: st.DataObject, seq: int) -> None:
        """A worker shows life, or an old one speaks up late."""
        self.studio.fleet.progress(self._sent(data), seq)

    @precondition(_any_sent)
    @rule(data=st.data(), stopped=st.booleans(), tell=st.booleans())
    def succeed(self, data: st.DataObject, stopped: bool, tell: bool) -> None:
        """An attempt ends well, perhaps for the second time, perhaps without a word."""
        self.studio.fleet.succeed(self._sent(data), stopped=stopped, tell=tell)

    @precondition(_any_sent)
    @rule(data=st.data(), final=st.booleans())
    def fail(self, data: st.DataObject, final: bool) -> None:
        """An attempt fails."""
        error = OutOfMemory("too large") if final else WorkerUnavailable("gone")
        self.studio.fleet.fail(self._sent(data), error)

    @precondition(_any_sent)
    @rule(data=st.data())
    def give_back(self, data: st.DataObject) -> None:
        """A worker drains and gives its work back."""
        self.studio.fleet.fail(self._sent(data), WorkReturned("draining"))

    @rule()
    def restart(self) -> None:
        """The portal's process is restarted: what was in flight is unknown to the new one."""
        self.studio.fleet.forget_tickets()

    @rule(data=st.data(), action=st.sampled_from(Action))
    def click(self, data: st.DataObject, action: Action) -> None:
        """Somebody presses a button."""
        if self.jobs:
            owner, job = data.draw(st.sampled_from(self.jobs))
            self.studio.work.actions.act(owner, job, action)

    @invariant()
    def rows_agree(self) -> None:
        """Jobs say what their parts say, final ones stay, pictures are those of their parts, slots are
        kept.
        """
        if not hasattr(self, "studio"):
            return
        with self.studio.database.reading() as session:
            for job in session.scalars(select(Job)):
                parts = session.scalars(select(Part).where(Part.job_id == job.id)).all()
                state = job_state([PartState(part.state) for part in parts])
                assert state == job.state or {state, JobState(job.state)} == {
                    JobState.QUEUED,
                    JobState.WAKING,
                }
                assert self.finals.get(job.id, job.state) == job.state
                if state.final:
                    self.finals[job.id] = job.state
                shown = {part.id for part in parts if part.state in (PartState.SUCCEEDED, PartState.STOPPED)}
                pictures = session.scalars(select(Picture).where(Picture.job_id == job.id)).all()
                assert len({picture.index for picture in pictures}) == len(pictures)
                assert {picture.part_id for picture in pictures} <= shown
            flying = session.scalar(select(func.count()).select_from(Attempt).where(Attempt.open)) or 0
            assert flying <= SLOTS

    def teardown(self) -> None:
        """Left in peace, every accepted job comes to an end."""
        if not hasattr(self, "studio"):
            return
        try:
            # Workers that were never heard of again go with their process, as on one machine.
            self.studio.fleet.forget_tickets()
            for _ in range(60):
                self.studio.clock.advance(100.0)
                for sent in self.studio.turn():
                    self.studio.fleet.succeed(sent)
            for owner, job in self.jobs:
                assert self.studio.view(owner, job).state.final
            self.rows_agree()
        finally:
            self.studio.close()
            shutil.rmtree(self.folder)


_QUIET = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]


def _explore(new_url: Callable[[Path], str], examples: int, steps: int) -> None:
    from hypothesis.stateful import run_state_machine_as_test

    chosen = settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        derandomize=True,
        suppress_health_check=_QUIET,
    )
    machine = type("FaultsHere", (Faults,), {"new_url": staticmethod(new_url)})
    run_state_machine_as_test(machine, settings=chosen)  # type: ignore[no-untyped-call]


@pytest.mark.parametrize(
    "new_studio_url", ["sqlite", pytest.param("postgres", marks=pytest.mark.long)], indirect=True
)
def test_no_order_of_events_loses_a_job_or_shows_it_twice(new_studio_url: Callable[[Path], str]) -> None:
    _explore(new_studio_url, examples=12, steps=25)
    assert Faults.teardown.__doc__


@pytest.mark.long
@pytest.mark.parametrize(
    ("new_studio_url", "examples"), [("sqlite", 200), ("postgres", 60)], indirect=["new_studio_url"]
)
def test_no_long_order_of_events_loses_a_job_or_shows_it_twice(
    new_studio_url: Callable[[Path], str], examples: int
) -> None:
    _explore(new_studio_url, examples, steps=50)
    assert Faults.teardown.__doc__
