"""Notifications that never come, come twice or in another order, and clocks that jump: each accepted key
still ends with one visible result.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import func, select

from atelier.contract import keys
from atelier.contract.jobs import JobState
from portal.db.work import Attempt, IdempotencyKey
from portal.services.callers import Caller
from portal.services.ports import Submission
from tests.jobs_studio import Studio

SEEDS = (1, 2, 3)
KEYS = 16
SHARE = 0.2
"""How many notifications are dropped, and doubled, and how many change places with the next one."""
ROUNDS = 100


@pytest.fixture
def studio(database_url: str, tmp_path: Path) -> Iterator[Studio]:
    made = Studio(database_url, tmp_path, slots=8)
    yield made
    made.close()


class Trouble:
    """A world that ends parts at random moments and passes on its notifications badly."""

    def __init__(self, studio: Studio, seed: int) -> None:
        self._studio = studio
        self.chance = random.Random(seed)  # noqa: S311  # the same troubles at every run
        self._flying: list[Submission] = []
        self._ended: list[Submission] = []
        self.troubles: set[str] = set()

    def turn(self) -> None:
        """A round of the dispatcher, and some of what flies ends."""
        self._flying += self._studio.turn()
        for each in list(self._flying):
            if self.chance.random() < 0.5:
                self._flying.remove(each)
                self._ended.append(each)
        self._pass_on()

    def _pass_on(self) -> None:
        ended, self._ended = self._ended, []
        for at in range(len(ended) - 1):
            if self.chance.random() < SHARE:
                ended[at], ended[at + 1] = ended[at + 1], ended[at]
                self.troubles.add("reordered")
        for each in ended:
            dropped = self.chance.random() < SHARE
            self._studio.fleet.succeed(each, tell=not dropped)
            if dropped:
                self.troubles.add("dropped")
            elif self.chance.random() < SHARE:
                self._studio.fleet.succeed(each)
                self.troubles.add("doubled")


def accepted(studio: Studio, user: Caller) -> dict[str, str]:
    """Jobs by their keys; every key is sent twice, as a program does that got no answer."""
    jobs = {}
    for number in range(KEYS):
        key = f"key-{number}"
        jobs[key] = studio.submit(user, key=key, seed=100 + number, n_iter=1 + number % 3)
        assert studio.submit(user, key=key, seed=100 + number, n_iter=1 + number % 3) == jobs[key]
    return jobs


def one_result_each(studio: Studio, user: Caller, jobs: dict[str, str]) -> None:
    """Every key has its job, every job each of its pictures once, and nothing else lies in the store."""
    with studio.database.reading() as session:
        assert session.scalar(select(func.count()).select_from(IdempotencyKey)) == KEYS
        assert not session.scalar(select(func.count()).where(Attempt.open))
    for number, key in enumerate(jobs):
        seen = studio.view(user, jobs[key])
        assert seen.state is JobState.SUCCEEDED, seen.error
        pictures = [picture for picture in seen.pictures if not picture.grid]
        assert [picture.seed for picture in pictures] == [
            100 + number + each for each in range(1 + number % 3)
        ]
    rows = [row for job in jobs.values() for row in studio.attempts(job)]
    shown = {keys.result(row.job_id, row.part_id, row.number) for row in rows if row.outcome == "succeeded"}
    stored = {blob.key for blob in studio.store.list("jobs/")}
    assert {key for key in stored if key.endswith("/result.json")} == shown


def settle(studio: Studio, world: Trouble, user: Caller, jobs: dict[str, str]) -> bool:
    """Let rounds go by until every job is final; False where that does not come."""
    for _ in range(ROUNDS):
        world.turn()
        studio.clock.advance(5.0)
        if all(studio.view(user, job).state.final for job in jobs.values()):
            return True
    return False


@pytest.mark.parametrize("seed", SEEDS)
def test_notifications_that_are_dropped_doubled_and_reordered_give_one_result_each(
    studio: Studio, seed: int
) -> None:
    user = studio.user("ann")
    jobs = accepted(studio, user)
    world = Trouble(studio, seed)
    assert settle(studio, world, user, jobs)
    one_result_each(studio, user, jobs)
    assert world.troubles == {"reordered", "dropped", "doubled"}


@pytest.mark.parametrize("seed", SEEDS)
def test_a_clock_that_jumps_five_minutes_forth_and_back_gives_one_result_each(
    studio: Studio, seed: int
) -> None:
    user = studio.user("ann")
    jobs = accepted(studio, user)
    world = Trouble(studio, seed)
    for jump in (300.0, -300.0, -300.0, 300.0):
        world.turn()
        studio.clock.advance(jump)
    assert settle(studio, world, user, jobs)
    one_result_each(studio, user, jobs)
