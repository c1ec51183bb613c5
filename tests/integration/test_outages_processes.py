"""A full disk and a database that is away, with real processes: what was accepted is made all the same."""

from __future__ import annotations

import contextlib
import random
import resource
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from sqlalchemy import func, select

from atelier.contract.jobs import JobState
from atelier.storage.filesystem import FilesystemBlobStore
from portal.bootstrap import build
from portal.db.work import Attempt, Job
from portal.services import audit
from portal.settings import load
from tests.integration.test_kills import Client
from tests.live_portal import SMALL
from tests.orphan_report import unaccounted
from tests.portal_process import Persistent, PortalProcess, prepare, processes_of
from tests.postgres import Server, empty_database
from tests.waiting import eventually

AWAY_SECONDS = 30.0
SLOW = {**SMALL, "steps": 30, "width": 128, "height": 128}
ROOM = "48m"
"""The size of the disk: database, logs and a few small pictures take a tenth of it."""
MOUNT = f'mount -t tmpfs -o size={ROOM} none "$1" && cp -r "$0/." "$1" && shift && exec "$@"'


class SmallDisk:
    """A portal whose data lies on a disk of its own, which can be filled: a tmpfs that only this portal and
    its workers see, or, where the system allows no mount, a limit to the size of their files.
    """

    def __init__(self, prepared: Path, data_dir: Path, port: int) -> None:
        self.mounts = _may_mount()
        if self.mounts:
            around = ("unshare", "-rm", "sh", "-c", MOUNT, str(prepared), str(data_dir))
        else:
            shutil.copytree(prepared, data_dir, dirs_exist_ok=True)
            around = ()
        self._log = prepared.parent
        self.portal = PortalProcess(data_dir, port, start=False, around=around)
        self.portal.log = self._log / "portal.log"
        self.portal.start()
        inside = f"/proc/{self.portal.child.pid}/root{data_dir}" if self.mounts else str(data_dir)
        self.place = Path(inside)
        """The data directory as this process sees it."""

    def fill(self) -> None:
        """Leave no room at all."""
        if not self.mounts:
            self._limit(4096)
            return
        with (self.place / "filler").open("wb", buffering=0) as filler, contextlib.suppress(OSError):
            for size in (2**20, 4096):
                with contextlib.suppress(OSError):
                    while True:
                        filler.write(bytes(size))

    def was_met(self) -> bool:
        """Whether the portal, or work that came back from a worker, met the full disk."""
        said = self.portal.log.read_text()
        return "has to wait" in said or "returned" in said

    def make_room(self) -> None:
        """Give it back."""
        if not self.mounts:
            self._limit(resource.RLIM_INFINITY)
            return
        (self.place / "filler").unlink()

    def _limit(self, size: int) -> None:
        for pid in (self.portal.child.pid, *(each.pid for each in self.portal.workers())):
            _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, hard))


def _may_mount() -> bool:
    program = shutil.which("unshare")
    if program is None:
        return False
    tried = [program, "-rm", "sh", "-c", "mount -t tmpfs -o size=1m none /mnt"]
    return subprocess.run(tried, capture_output=True, timeout=60, check=False).returncode == 0


@pytest.fixture
def disk(tmp_path: Path, data_dir: Path, checkpoints: list[Path], free_port: int) -> Iterator[SmallDisk]:
    prepare(tmp_path / "prepared", checkpoints[0])
    made = SmallDisk(tmp_path / "prepared", data_dir, free_port)
    yield made
    made.portal.child.stop(60)


def refusal(ann: Persistent, key: str) -> httpx.Response | None:
    """The answer to a request with a key; None where it was accepted, which counts."""
    headers = {"Idempotency-Key": key, "Authorization": f"Bearer {ann.token}"}
    body = {"txt2img_payload": {**SMALL, "seed": 7}}
    answer = httpx.post(ann.urls[0] + "/api/v1/jobs", json=body, headers=headers, trust_env=False, timeout=60)
    if answer.status_code != 202:
        return answer
    ann.jobs[key] = str(answer.json()["id"])
    return None


@pytest.mark.long
def test_a_full_disk_is_told_leaves_nothing_and_what_was_accepted_is_made_once_there_is_room(
    disk: SmallDisk, tmp_path: Path
) -> None:
    ann = Persistent([disk.portal.url])
    ann.login()
    assert ann.finished(ann.submit("warm", SMALL)).state is JobState.SUCCEEDED
    for number in range(3):
        ann.submit(f"slow-{number}", {**SLOW, "seed": number})
    eventually(lambda: ann.view(ann.jobs["slow-0"]).progress.phase == "steps", within=180, every=0.1)
    disk.fill()
    refused: list[httpx.Response] = []
    for number in range(40):
        answer = refusal(ann, f"full-{number}")
        refused += [answer] if answer is not None else []
    assert refused and {answer.status_code for answer in refused} <= {503, 507}
    full = [answer.json()["error"] for answer in refused if answer.status_code == 507]
    assert full and all(error["code"] == "storage_full" and "Make room" in error["message"] for error in full)
    if disk.mounts:  # else the log is full as well
        eventually(disk.was_met, within=180, about="nothing that was at work met the full disk")
    disk.make_room()
    ann.submit("afterwards", SMALL)
    ann.submit("full-39", {**SMALL, "seed": 7})
    for job in ann.jobs.values():
        view = ann.finished(job)
        assert view.state is JobState.SUCCEEDED and len(ann.pixels(view)) == 1, view.error
    ann.close()
    check_disk(disk, tmp_path, set(ann.jobs.values()))
    kind = "a tmpfs" if disk.mounts else "a limit to files"
    sys.stdout.write(f"\n{kind}: {len(refused)} of 40 refused, {len(ann.jobs)} jobs made\n")


def check_disk(disk: SmallDisk, tmp_path: Path, jobs: set[str]) -> None:
    """Those jobs and no others, none of whose attempts failed, and nothing else in the store after a sweep.
    The database is looked at in a copy: SQLite opens no file through /proc.
    """
    for file in disk.place.glob("atelier.db*"):
        shutil.copy(file, tmp_path)
    services = build(load(data_dir=tmp_path, roles=("api",)), store=FilesystemBlobStore(disk.place / "store"))
    with services.database.reading() as session:
        assert set(session.scalars(select(Job.id))) == jobs
        assert "failed" not in set(session.scalars(select(Attempt.outcome)))
    services.work.orphans.sweep(audit.SYSTEM, age=0.0)
    assert unaccounted(services.database, services.store) == []
    assert not list((disk.place / "store" / "partial").iterdir())
    services.stop()


@pytest.mark.long
def test_a_database_away_for_half_a_minute_loses_nothing_and_no_request_meets_a_defect(
    data_dir: Path, checkpoints: list[Path], free_port: int
) -> None:
    server, began = Server(), time.monotonic()
    with empty_database(server.url) as url:
        prepare(data_dir, checkpoints[0], url)
        portal = PortalProcess(data_dir, free_port, ATELIER_DATABASE_URL=url)
        ann = Persistent([portal.url])
        try:
            ann.login()
            assert ann.finished(ann.submit("warm", SMALL)).state is JobState.SUCCEEDED
            client = Client(ann, random.Random(1))  # noqa: S311  # the same choices at every run
            client.start()
            eventually(lambda: len(ann.jobs) > 10, within=120)
            server.stop()
            threading.Event().wait(AWAY_SECONDS)
            assert 503 in ann.statuses
            server.start()
            known = len(ann.jobs)
            eventually(lambda: len(ann.jobs) > known + 3, within=120)
            client.enough.set()
            client.join(120)
            assert not client.is_alive() and client.failure is None, client.failure
            for job in ann.jobs.values():
                assert ann.finished(job).state is JobState.SUCCEEDED
            assert ann.statuses <= {200, 202, 503}
        finally:
            portal.child.stop(60)
            ann.close()
        services = build(load(data_dir=data_dir, database_url=url, roles=("api",)))
        with services.database.reading() as session:
            assert session.scalar(select(func.count()).select_from(Job)) == len(ann.jobs)
            assert not session.scalar(select(func.count()).where(Attempt.open))
        services.work.orphans.sweep(audit.SYSTEM, age=0.0)
        assert unaccounted(services.database, services.store) == []
        services.stop()
    server.remove()
    eventually(lambda: not processes_of(data_dir), within=90, about="processes were left behind")
    sys.stdout.write(
        f"\nthe database away for {AWAY_SECONDS:.0f} s: {len(ann.jobs)} keys, {ann.broken} broken answers, "
        f"{time.monotonic() - began:.0f} s\n"
    )
