"""A studio with the adapters of AWS, on a rehearsal whose instances run a script: everything by one clock,
which goes when a test says so.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from sqlalchemy import func, select

from atelier.contract.jobs import PartState
from portal.bootstrap import build
from portal.db.work import Attempt, Part, Picture
from portal.services import audit
from portal.services.ports import EndpointSpec
from portal.settings import Settings, load
from rehearsal.crew import CREDENTIALS
from rehearsal.script import Bucket, PaintingScript
from rehearsal.server import RehearsalServer
from rehearsal.variant import Variant, Worker
from rehearsal.workers import ScriptedWorker
from tests.jobs_studio import Studio, tables
from tests.quick_passwords import quick_passwords
from tests.rehearsed import START

OPEN = (PartState.QUEUED.value, PartState.DISPATCHED.value, PartState.RUNNING.value)
_LISTS = ("ATELIER_AWS_SUBNETS", "ATELIER_AWS_SECURITY_GROUPS")


class RehearsedStudio(Studio):
    """Services on a rehearsal. Each part takes `seconds` of simulated time on its instance."""

    def __init__(self, folder: Path, *, seconds: float = 20.0, seed: int = 3) -> None:
        self.rehearsal = RehearsalServer(self._worker, start=START, seed=seed)
        self.rehearsal.start()
        self.clock = self.rehearsal.clock  # type: ignore[assignment]
        self._seconds = seconds
        self.settings = in_account(self.rehearsal.set_up(), folder)
        self.services = build(self.settings, clock=self.clock, passwords=quick_passwords())
        self.database, self.work, self.store = self.services.database, self.services.work, self.services.store  # type: ignore[assignment]
        tables(self.database)
        self.checkpoint("first")

    def close(self) -> None:
        """Give everything back."""
        self.services.stop()
        self.rehearsal.stop()

    def endpoint(self, **more: Any) -> str:
        """An endpoint with GPUs, once AWS has let it fall asleep."""
        given = {"min_instances": 0, "max_instances": 4, "slots": 4, "target": 4, "idle_seconds": 300.0}
        spec = EndpointSpec("studio", instance_type="ml.g5.xlarge", **(given | more))  # type: ignore[arg-type]
        self.work.endpoints.create(audit.SYSTEM, spec)
        for _ in range(60):
            self.step(30.0)
            if self.played.status == "InService" and self.played.wanted == 0:
                break
        assert self.played.wanted == 0
        return spec.name

    @property
    def played(self) -> Any:
        """SageMaker's endpoint."""
        return self.rehearsal.simulation.endpoints["atelier-studio"]

    def step(self, seconds: float) -> None:
        """Let time go by, then let the portal do what it does."""
        self.clock.advance(seconds)
        self.work.loop.turn()

    def left(self) -> int:
        """Parts that are not through."""
        with self.database.reading() as session:
            query = select(func.count()).select_from(Part).where(Part.state.in_(OPEN))
            return session.scalar(query) or 0

    def counted(self, table: type[Part] | type[Attempt] | type[Picture]) -> int:
        """Rows of a table."""
        with self.database.reading() as session:
            return session.scalar(select(func.count()).select_from(table)) or 0

    def _worker(self, _endpoint: str, _instance: str, variant: Variant) -> Worker:
        account = self.rehearsal.simulation.account
        told = variant.environment
        bucket = Bucket(account, urlsplit(told["ATELIER_STORE"]).netloc)
        key = account.secret(told["ATELIER_JOB_KEY_ARN"]).encode()
        script = PaintingScript(bucket, lambda: key, self.clock.now, lambda _: self._seconds)
        return ScriptedWorker(script, self.rehearsal.clock, 25.0)


def in_account(told: dict[str, str], folder: Path) -> Settings:
    """Settings of a studio in the account that `told` describes."""
    named = {
        name.removeprefix("ATELIER_").lower(): tuple(json.loads(value)) if name in _LISTS else value
        for name, value in told.items()
    }
    return load(data_dir=folder, **named)


@contextmanager
def rehearsed_studio(folder: Path, **more: Any) -> Iterator[RehearsedStudio]:
    """A studio on a rehearsal, with a role's credentials in the environment."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in CREDENTIALS.items():
            patch.setenv(name, value)
        studio = RehearsedStudio(folder, **more)
        try:
            yield studio
        finally:
            studio.close()
