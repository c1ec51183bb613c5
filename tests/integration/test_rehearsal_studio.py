"""The portal with the adapters of AWS on a rehearsal: instances come and go, notifications are lost and
doubled, and every accepted job gives one result.
"""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image
from sqlalchemy import select

from atelier.contract.jobs import JobState
from portal.db.work import Attempt, Part, Picture
from portal.services.ports import EndpointState
from tests.rehearsed_studio import RehearsedStudio, rehearsed_studio


def crowd(studio: RehearsedStudio, users: int, jobs: int) -> list[tuple[str, str, int]]:
    """(user's name, job, seed) of what everybody sent, one after another."""
    callers = [studio.user(f"user{number}") for number in range(users)]
    return [
        (caller.username, studio.submit(caller, seed=1000 * each + number), 1000 * each + number)
        for number in range(jobs)
        for each, caller in enumerate(callers)
    ]


def through(studio: RehearsedStudio, step: float, most: int) -> int:
    """Go on until nothing is left to do; the most instances that served at once."""
    peak = 0
    for _ in range(most):
        studio.step(step)
        peak = max(peak, studio.played.serving)
        if not studio.left():
            return peak
    raise AssertionError(f"{studio.left()} parts are left after {most * step:g} simulated seconds")


def asleep(studio: RehearsedStudio) -> None:
    """Go on in quiet until no instance is left."""
    for _ in range(120):
        studio.step(30.0)
        if studio.played.wanted == 0 and studio.played.status == "InService":
            break
    assert (studio.played.wanted, studio.played.serving) == (0, 0)
    assert studio.work.endpoints.get("studio").status.state is EndpointState.ASLEEP


def one_result_each(studio: RehearsedStudio, sent: list[tuple[str, str, int]]) -> None:
    """Every job succeeded once, and shows the one picture of its own seed."""
    with studio.database.reading() as session:
        parts = {row.job_id: row for row in session.scalars(select(Part))}
        shown: dict[str, list[Picture]] = {}
        for picture in session.scalars(select(Picture)):
            shown.setdefault(picture.job_id, []).append(picture)
        counted = [row for row in session.scalars(select(Attempt)) if row.outcome == "succeeded"]
    assert len(parts) == len(sent)
    assert {row.state for row in parts.values()} == {JobState.SUCCEEDED.value}
    assert len({row.part_id for row in counted}) == len(counted) == len(sent)
    for _, job, seed in sent:
        [picture] = shown[job]
        assert int(picture.seed) == seed
    for _, job, seed in sent[:: max(1, len(sent) // 10)]:
        image = Image.open(io.BytesIO(studio.store.get(shown[job][0].key)))
        assert image.getpixel((5, 5)) == (seed % 256, seed // 256 % 256, seed // 65536 % 256)


@pytest.mark.long
def test_a_sleeping_endpoint_wakes_for_a_job_and_sleeps_again_though_every_notice_is_lost(
    tmp_path: Path,
) -> None:
    with rehearsed_studio(tmp_path) as studio:
        studio.endpoint()
        studio.rehearsal.simulation.chance.set({"lost": 1.0})
        sent = crowd(studio, users=2, jobs=2)
        assert through(studio, 10.0, 120) == 1
        one_result_each(studio, sent)
        asleep(studio)
        endpoint = studio.work.endpoints.get("studio")
        assert endpoint.demand == 0
        moves = [(each.before, each.after) for each in studio.rehearsal.simulation.activities]
        assert moves[-2:] == [(0, 1), (1, 0)]


@pytest.mark.long
def test_a_worker_that_dies_and_a_region_without_instances_lose_no_job(tmp_path: Path) -> None:
    with rehearsed_studio(tmp_path) as studio:
        studio.endpoint()
        studio.rehearsal.simulation.chance.set({"capacity": 0, "crashes": 2, "doubled": 1.0})
        sent = crowd(studio, users=1, jobs=3)
        for _ in range(40):
            studio.step(10.0)
        assert (studio.left(), studio.played.serving) == (3, 0)
        assert "no ml.g5.xlarge free" in studio.work.endpoints.get("studio").last_error
        studio.rehearsal.simulation.chance.set({"capacity": None})
        through(studio, 10.0, 200)
        one_result_each(studio, sent)
        assert studio.counted(Attempt) > len(sent)


@pytest.mark.long
def test_ten_users_with_fifty_jobs_lose_and_double_nothing_while_instances_come_and_go(
    tmp_path: Path,
) -> None:
    with rehearsed_studio(tmp_path, seconds=25.0) as studio:
        studio.endpoint()
        studio.rehearsal.simulation.chance.set({"lost": 0.2, "doubled": 0.2})
        sent = crowd(studio, users=10, jobs=50)
        assert len(sent) == 500
        assert through(studio, 10.0, 400) == 4
        one_result_each(studio, sent)
        asleep(studio)
        one_result_each(studio, sent)
