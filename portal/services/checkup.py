"""How the studio is: each thing it leans on, whether it works, and what to do where it does not."""

from __future__ import annotations

import platform
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from importlib.metadata import version

from sqlalchemy.exc import SQLAlchemyError

from atelier import extension
from atelier.contract import CONTRACT_VERSION
from atelier.contract.errors import AtelierError
from atelier.storage.base import BlobStore
from portal.db import migrate
from portal.db.base import Database
from portal.domain.conditions import Condition
from portal.services.endpoints import Endpoints
from portal.services.health import OK, Health
from portal.services.job_details import JobDetails
from portal.services.ports import PlatformPart
from portal.services.trail import Trail
from portal.settings import Settings

PROBE = "health/probe"
SCARCE, FEW = 2 * 2**30, 10 * 2**30
"""Free bytes below which pictures may be lost, and below which somebody should look."""
SLOW_SECONDS = 0.25
LONG_WAIT = 600.0
READ_ENTRIES = 20_000
"""Entries of the audit trail that are verified while somebody waits for the page."""


class Tone(StrEnum):
    """How something is."""

    GOOD = "good"
    WARN = "warn"
    BAD = "bad"


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at: what was found, and what to do about it (empty: nothing)."""

    name: str
    tone: Tone
    said: str
    remedy: str = ""


@dataclass(frozen=True)
class Report:
    """Everything that was looked at, and what is installed."""

    findings: tuple[Finding, ...]
    versions: tuple[tuple[str, str], ...]
    extensions: Sequence[extension.Report]

    @property
    def worst(self) -> Tone:
        """The worst of the findings."""
        tones = {each.tone for each in self.findings}
        return next((tone for tone in (Tone.BAD, Tone.WARN) if tone in tones), Tone.GOOD)


class Checkup:
    """Looks at all of it when asked."""

    def __init__(
        self,
        settings: Settings,
        health: Health,
        database: Database,
        store: BlobStore,
        trail: Trail,
        endpoints: Endpoints,
        details: JobDetails,
        platform: Sequence[PlatformPart] = (),
    ) -> None:
        self._settings = settings
        self._health = health
        self._database = database
        self._store = store
        self._trail = trail
        self._endpoints = endpoints
        self._details = details
        self._platform = platform

    def report(self) -> Report:
        """Look at everything; a look that fails is a finding itself."""
        looks: tuple[tuple[str, Callable[[], Finding]], ...] = (
            ("Database", self._look_at_database),
            ("Blob store", self._look_at_store),
            ("Disk", self._look_at_disk),
            ("Dispatcher", self._look_at_dispatcher),
            ("Workers", self._look_at_workers),
            ("Queue", self._look_at_queue),
            ("Audit trail", self._look_at_trail),
            *((part.title, partial(_look_at_part, part)) for part in self._platform),
        )
        found = [_guarded(name, look) for name, look in looks]
        reports = extension.check(extension.INSTALLED)
        return Report((*found, _of_extensions(reports)), self._versions(), reports)

    def _look_at_database(self) -> Finding:
        began = time.perf_counter()
        self._database.ping()
        took = time.perf_counter() - began
        kind = self._database.url.get_backend_name()
        if migrate.pending(self._database):
            return Finding("Database", Tone.BAD, "It is not of this version.", "Run: atelier migrate")
        said = f"{kind} answers in {took * 1000:.1f} ms."
        slow = (
            f"Look at the load of the {kind} server and of the network to it." if took > SLOW_SECONDS else ""
        )
        return Finding("Database", Tone.WARN if slow else Tone.GOOD, said, slow)

    def _look_at_store(self) -> Finding:
        began = time.perf_counter()
        self._store.put(PROBE, b"here")
        whole = self._store.get(PROBE) == b"here"
        self._store.delete(PROBE)
        took = time.perf_counter() - began
        if not whole:
            said = "What was written did not come back as it was."
            return Finding("Blob store", Tone.BAD, said, "Stop the studio and check the disk or bucket.")
        return Finding("Blob store", Tone.GOOD, f"Written, read and deleted in {took * 1000:.1f} ms.")

    def _look_at_disk(self) -> Finding:
        place = self._settings.data_dir.absolute()
        usage = shutil.disk_usage(place if place.exists() else place.parent)
        said = f"{usage.free / 2**30:.1f} of {usage.total / 2**30:.0f} GiB free in the data directory."
        remedy = "Delete pictures and models that nobody needs, or move the data directory to a larger disk."
        tone = Tone.BAD if usage.free < SCARCE else Tone.WARN if usage.free < FEW else Tone.GOOD
        return Finding("Disk", tone, said, "" if tone is Tone.GOOD else remedy)

    def _look_at_dispatcher(self) -> Finding:
        said = self._health.checks()["dispatcher"]
        if said == OK:
            return Finding("Dispatcher", Tone.GOOD, "A process sends waiting work to the workers.")
        return Finding("Dispatcher", Tone.BAD, said, "Restart the portal, and look at its log.")

    def _look_at_workers(self) -> Finding:
        views = self._endpoints.listed()
        if not views:
            remedy = "Create one on the page Endpoints."
            return Finding("Workers", Tone.BAD, "There is no endpoint, so no picture can be made.", remedy)
        failed = [each for each in views if each.condition is Condition.FAILED]
        lame = [each for each in views if each.status.reason and each not in failed]
        serving = sum(each.status.instances for each in views)
        said = f"{serving} in service on {len(views)} {'endpoint' if len(views) == 1 else 'endpoints'}."
        for tone, those in ((Tone.BAD, failed), (Tone.WARN, lame)):
            if those:
                told = " ".join(f"{each.spec.name}: {each.status.reason}" for each in those)
                return Finding(
                    "Workers", tone, f"{said} {told}", "Read the log that is named, on this machine."
                )
        return Finding("Workers", Tone.GOOD, said)

    def _look_at_queue(self) -> Finding:
        load = self._details.load()
        if load.oldest <= LONG_WAIT:
            return Finding("Queue", Tone.GOOD, f"Waiting: {load.waiting}. In work: {load.running}.")
        said = f"{load.waiting} parts wait, the oldest for {load.oldest / 60:.0f} minutes."
        return Finding(
            "Queue", Tone.WARN, said, "Let an endpoint have more instances, or see why it has none."
        )

    def _look_at_trail(self) -> Finding:
        newest = self._trail.entries(limit=1)
        count = newest[0].id if newest else 0
        if count > READ_ENTRIES:
            remedy = "Verify it on the page Audit, or with: atelier audit verify"
            return Finding("Audit trail", Tone.GOOD, f"{count} entries; too many to read all here.", remedy)
        verified = self._trail.verify()
        if verified.broken:
            remedy = "Keep a copy of the database, and compare it with the last backup: see docs/audit.md."
            return Finding("Audit trail", Tone.BAD, verified.broken, remedy)
        return Finding("Audit trail", Tone.GOOD, f"All {verified.entries} entries are what was written.")

    def _versions(self) -> tuple[tuple[str, str], ...]:
        names = ("fastapi", "sqlalchemy", "pydantic")
        return (
            ("Atelier", version("atelier")),
            ("Contract with workers", CONTRACT_VERSION),
            ("Python", platform.python_version()),
            ("System", platform.platform(terse=True)),
            ("Database", self._database.url.get_dialect().name),
            *((name, version(name)) for name in names),
        )


def _look_at_part(part: PlatformPart) -> Finding:
    try:
        return Finding(part.title, Tone.GOOD, part.look())
    except AtelierError as error:
        return Finding(part.title, Tone.BAD, error.message, "Mend it in the account; see docs/aws.md.")


def _guarded(name: str, look: Callable[[], Finding]) -> Finding:
    try:
        return look()
    except AtelierError as error:
        return Finding(name, Tone.BAD, error.message, "See the portal's log: data/logs/portal.log")
    except (OSError, SQLAlchemyError) as error:
        said = f"It could not be looked at: {type(error).__name__}."
        return Finding(name, Tone.BAD, said, "See the portal's log: data/logs/portal.log")


def _of_extensions(reports: Sequence[extension.Report]) -> Finding:
    unfit = [each for each in reports if not each.usable]
    if unfit:
        said = " ".join(f"{each.name}: {each.reason}" for each in unfit)
        return Finding("Extensions", Tone.WARN, said, "Update them, or take them out of the installation.")
    return Finding("Extensions", Tone.GOOD, f"{len(reports)} installed, all of them usable.")
