"""A portal without HTTP and without workers: a real database and store, a fleet and a clock that do what a
test says.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import select, text

from atelier.contract.jobs import JobRequest, JobView
from atelier.storage.base import BlobStore
from atelier.storage.filesystem import FilesystemBlobStore
from portal.adapters.local.inbox import QueueInbox
from portal.adapters.memory.clock import ManualClock
from portal.adapters.memory.fleet import InMemoryFleet
from portal.bootstrap import build
from portal.db import migrate
from portal.db.base import Base, Database, new_id
from portal.db.identity import User
from portal.db.work import Attempt, Model, Part
from portal.services import audit
from portal.services.accept import Limits
from portal.services.callers import Caller
from portal.services.permissions import ROLES
from portal.services.ports import EndpointSpec, Submission, Tasks
from portal.settings import load
from tests.quick_passwords import quick_passwords

PASSWORD = "a long enough password"
PAYLOAD: dict[str, Any] = {
    "prompt": "a red circle on a blue background",
    "steps": 10,
    "width": 64,
    "height": 64,
    "seed": 7,
}


class Studio:
    """Services on `database_url`, with one checkpoint `first`, one endpoint `local`, and nobody yet.
    `options` are further settings.
    """

    def __init__(
        self,
        database_url: str,
        folder: Path,
        *,
        limits: Limits | None = None,
        slots: int = 8,
        store: BlobStore | None = None,
        tasks: Tasks | None = None,
        **options: Any,
    ) -> None:
        self.clock = ManualClock()
        self.inbox = QueueInbox()
        self.store: Any = store or FilesystemBlobStore(folder / "store")
        self.fleet = InMemoryFleet(self.store, self.inbox)
        settings = load(data_dir=folder, database_url=database_url, **options)
        self.services = build(
            settings,
            clock=self.clock,
            store=self.store,
            inbox=self.inbox,
            fleet=self.fleet,
            limits=limits,
            tasks=tasks,
            passwords=quick_passwords(),
        )
        self.database = self.services.database
        self.work = self.services.work
        tables(self.database)
        self.checkpoint("first")
        self.work.endpoints.create(audit.SYSTEM, EndpointSpec("local", slots=slots))

    def close(self) -> None:
        """Give the database back."""
        self.database.close()

    def user(self, name: str, role: str = "designer") -> Caller:
        """A user who exists, as the caller of requests."""
        row = User(id=new_id(), username=name, password_hash="-", created_at=self.clock.now(), settings={})
        row.hold([role])
        with self.database.session() as session:
            session.add(row)
        return Caller(row.id, name, (role,), ROLES[role])

    def checkpoint(self, name: str) -> str:
        """A registered checkpoint without a file; its sha256."""
        digest = hashlib.sha256(name.encode()).hexdigest()
        row = Model(
            id=new_id(),
            kind="checkpoint",
            name=name,
            filename=f"{name}.safetensors",
            sha256=digest,
            blob_sha256=digest,
            size=1,
            short_hash=digest[:10],
            standard=name == "first",
            created=self.clock.now(),
        )
        with self.database.session() as session:
            session.add(row)
        return digest

    def submit(
        self, caller: Caller, *, key: str | None = None, endpoint: str = "automatic", **payload: Any
    ) -> str:
        """The id of an accepted job."""
        request = JobRequest(endpoint=endpoint, txt2img_payload={**PAYLOAD, **payload})
        self.clock.advance(0.001)
        return self.work.acceptance.accept(caller, request, idempotency_key=key)

    def turn(self) -> list[Submission]:
        """One round of the dispatcher; what it sent."""
        before = len(self.fleet.submissions)
        self.work.loop.turn()
        return self.fleet.submissions[before:]

    def view(self, caller: Caller, job_id: str) -> JobView:
        """The job as its owner sees it."""
        return self.work.jobs.get(caller, job_id)

    def parts(self, job_id: str) -> list[Part]:
        """The rows of a job's parts, in order."""
        with self.database.reading() as session:
            return list(session.scalars(select(Part).where(Part.job_id == job_id).order_by(Part.ordinal)))

    def attempts(self, job_id: str) -> list[Attempt]:
        """The rows of a job's attempts, the oldest first."""
        with self.database.reading() as session:
            return list(session.scalars(select(Attempt).where(Attempt.job_id == job_id).order_by(Attempt.id)))


def tables(database: Database) -> None:
    """The tables of this version, and the note that they are: quicker than every migration in turn."""
    Base.metadata.create_all(database.engine)
    with database.engine.begin() as connection:
        connection.execute(
            text("CREATE TABLE IF NOT EXISTS alembic_version (version_num VARCHAR(32) NOT NULL)")
        )
        connection.execute(text("DELETE FROM alembic_version"))
        connection.execute(text("INSERT INTO alembic_version VALUES (:head)"), {"head": migrate.head()})


@contextmanager
def staffed(url: str, folder: Path) -> Iterator[Studio]:
    """A studio with the administrator root and the designer ann, whose password is PASSWORD."""
    made = Studio(url, folder)
    for name, role in (("root", "admin"), ("ann", "designer")):
        made.services.identity.create(audit.SYSTEM, name, PASSWORD, role)
    yield made
    made.close()
