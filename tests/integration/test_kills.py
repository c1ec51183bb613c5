"""SIGKILL of worker and portal at random points: every accepted key has its one result, as if nothing had
been.
"""

from __future__ import annotations

import contextlib
import random
import signal
import sys
import threading
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import numpy
import psutil
import pytest
from sqlalchemy import func, select

from atelier.contract.jobs import JobState
from atelier.storage.filesystem import FilesystemBlobStore
from portal.bootstrap import build
from portal.db.work import Attempt, IdempotencyKey, Job, Picture
from portal.services import audit
from portal.settings import load
from tests.live_portal import SMALL
from tests.orphan_report import unaccounted
from tests.portal_process import Persistent, PortalProcess, prepare, processes_of
from tests.waiting import eventually

SEED = 20261128
KILLS = 20
LEVELS = 2
"""By so much a pixel may differ: a row's numbers move by one level with the batch it is computed in."""
AT_ONCE = 30
"""Unfinished jobs that ann keeps in the studio."""
LONG = {**SMALL, "width": 128, "height": 128, "steps": 100}
"""What is still in work when something ends, however fast the machine is."""
WANTED: tuple[dict[str, Any], ...] = tuple(
    {**(LONG if number % 3 == 0 else SMALL), "seed": 100 + number, "n_iter": 1 + number % 2}
    | {"batch_size": 1 + number // 3}
    for number in range(6)
)


class Client(threading.Thread):
    """Ann at work: always a few jobs in the studio, each key sent until it is answered, some again later."""

    def __init__(self, ann: Persistent, chance: random.Random) -> None:
        super().__init__(daemon=True)
        self.ann, self._chance = ann, chance
        self.enough = threading.Event()
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            unfinished: list[str] = []
            for number in range(10_000):
                if self.enough.is_set():
                    return
                key = f"key-{number}"
                unfinished.append(self.ann.submit(key, WANTED[number % len(WANTED)]))
                if self._chance.random() < 0.3:
                    self.ann.submit(key, WANTED[number % len(WANTED)])
                while len(unfinished) >= AT_ONCE and not self.enough.wait(0.1):
                    unfinished = [job for job in unfinished if not self.ann.view(job).state.final]
        except BaseException as failure:  # noqa: BLE001  # told by the test's thread
            self.failure = failure


def pictures_of(ann: Persistent, job: str) -> list[numpy.ndarray[Any, Any]]:
    view = ann.finished(job)
    assert view.state is JobState.SUCCEEDED, (view.error, job)
    return ann.pixels(view)


def difference(one: list[numpy.ndarray[Any, Any]], other: list[numpy.ndarray[Any, Any]]) -> int:
    """The largest between any two pixels, in levels of 255."""
    assert len(one) == len(other)
    return max(int(numpy.abs(a.astype(int) - b.astype(int)).max()) for a, b in zip(one, other, strict=True))


class Storm:
    """Ends the worker and the portal by turns, at work or as they start, the one or the other first: by
    SIGKILL, or by SIGTERM where it is `gentle`.
    """

    def __init__(
        self, portal: PortalProcess, ann: Persistent, chance: random.Random, *, gentle: bool = False
    ) -> None:
        self._portal, self._ann, self._chance, self._gentle = portal, ann, chance, gentle
        self._pause = threading.Event()
        self.workers = self.portals = self.at_work = 0

    def rage(self, times: int) -> None:
        """Until each has been ended so many times."""
        while min(self.workers, self.portals) < times:
            self._portal.launch()
            [worker, *_] = eventually(self._portal.workers, within=240, every=0.05)
            if self._gentle or self._chance.random() < 0.5:
                eventually(self._busy, within=240, every=0.05, about="nothing was ever at work")
                self.at_work += 1
                self._wait(1.0)
            else:
                self._wait(3.0)
            victims = [partial(self._kill_worker, worker), self._kill_portal]
            if not self._gentle:
                self._chance.shuffle(victims)
            victims[0]()
            self._wait(1.0)
            victims[1]()

    def _busy(self) -> bool:
        found = self._ann.ask("GET", "/api/v1/jobs?state=active").raise_for_status().json()["jobs"]
        return any(job["state"] == "running" for job in found)

    def _wait(self, longest: float) -> None:
        self._pause.wait(self._chance.uniform(0.0, longest))

    def _kill_worker(self, worker: psutil.Process) -> None:
        with contextlib.suppress(psutil.NoSuchProcess):  # it went after its portal, by itself
            worker.terminate() if self._gentle else worker.kill()
            self.workers += 1

    def _kill_portal(self) -> None:
        if self._gentle:
            self._portal.child.terminate()
            # 0, or SIGTERM's own where it came before there was anything to end in good order.
            assert self._portal.child.wait(120) in (0, -signal.SIGTERM)
            self._portal.child.release()
        else:
            self._portal.kill()
        self.portals += 1


def check_rows(database_url: str, data_dir: Path, ann: Persistent) -> tuple[Counter[str | None], int]:
    """Every key one job, nothing open, every picture once and stored, and nothing else after a sweep. The
    outcomes of attempts, and how many blobs were swept.
    """
    services = build(load(data_dir=data_dir, database_url=database_url, roles=("api",)))
    store = services.store
    assert isinstance(store, FilesystemBlobStore)
    with services.database.reading() as session:
        assert session.scalar(select(func.count()).select_from(IdempotencyKey)) == len(ann.jobs)
        assert set(session.scalars(select(Job.id))) == set(ann.jobs.values())
        assert not session.scalar(select(func.count()).where(Attempt.open))
        outcomes = Counter(session.scalars(select(Attempt.outcome)))
        keys = session.scalars(select(Picture.key).where(Picture.index >= 0)).all()
    assert len(set(keys)) == len(keys) and all(store.stat(key) for key in keys)
    swept = services.work.orphans.sweep(audit.SYSTEM, age=0.0)
    assert unaccounted(services.database, store) == [] and list(store.unfinished()) == []
    services.stop()
    return outcomes, swept.blobs


def after_a_storm(
    database_url: str, data_dir: Path, checkpoint: Path, port: int, times: int, *, gentle: bool = False
) -> set[str | None]:
    """Ann works while worker and portal end so many times; everything the promise says is looked at then. The
    outcomes of attempts.
    """
    began, chance = time.monotonic(), random.Random(SEED)  # noqa: S311  # the same choices at every run
    prepare(data_dir, checkpoint, database_url)
    portal = PortalProcess(data_dir, port, ATELIER_DATABASE_URL=database_url)
    ann = Persistent([portal.url])
    try:
        ann.login()
        undisturbed = [
            pictures_of(ann, ann.submit(f"alone-{number}", wanted)) for number, wanted in enumerate(WANTED)
        ]
        portal.kill()
        client = Client(ann, random.Random(SEED))  # noqa: S311
        client.start()
        storm = Storm(portal, ann, chance, gentle=gentle)
        storm.rage(times)
        portal.start()
        client.enough.set()
        client.join(240)
        assert not client.is_alive() and client.failure is None, client.failure
        worst = 0
        for key, job in ann.jobs.items():
            if key.startswith("key-"):
                alone = undisturbed[int(key.removeprefix("key-")) % len(WANTED)]
                worst = max(worst, difference(pictures_of(ann, job), alone))
        assert worst <= LEVELS
    finally:
        portal.child.stop(60)
        ann.close()
    eventually(lambda: not processes_of(data_dir), within=90, about="processes were left behind")
    outcomes, swept = check_rows(database_url, data_dir, ann)
    sys.stdout.write(
        f"\n{storm.workers} ends of the worker, {storm.portals} of the portal, {storm.at_work} at work: "
        f"{len(ann.jobs)} keys, {ann.broken} broken answers, attempts {dict(outcomes)}, {swept} blobs swept, "
        f"largest difference {worst} of 255, {time.monotonic() - began:.0f} s\n"
    )
    return set(outcomes)


@pytest.mark.long
def test_twenty_kills_of_worker_and_portal_leave_one_result_for_every_key(
    database_url: str, data_dir: Path, checkpoints: list[Path], free_port: int
) -> None:
    outcomes = after_a_storm(database_url, data_dir, checkpoints[0], free_port, KILLS)
    assert {"succeeded", "abandoned", "lost"} <= outcomes


@pytest.mark.long
def test_a_worker_and_a_portal_that_are_asked_to_end_under_load_drop_nothing(
    database_url: str, data_dir: Path, checkpoints: list[Path], free_port: int
) -> None:
    outcomes = after_a_storm(database_url, data_dir, checkpoints[0], free_port, 3, gentle=True)
    assert outcomes <= {"succeeded", "returned", "abandoned"}
