"""Carrying imports out: one task for each, started, followed and brought to its end by one process at a time.

Whoever follows a task renews a lease on its row. A row whose lease has run out, or whose process is certainly
gone, is taken over: its task is looked for, and begun anew where it was lost.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from atelier.contract import keys
from atelier.contract.errors import (
    AtelierError,
    InternalError,
    NotFound,
    NotPermitted,
    QuotaExceeded,
    WorkReturned,
    from_body,
)
from atelier.contract.imports import ImportOrder, ImportOutcome, ImportProgress
from atelier.contract.models import ModelKind
from atelier.modelsource import Source, parse
from atelier.storage.base import BlobStore
from portal.db.identity import User
from portal.db.imports import ModelImport
from portal.domain.imports import ImportEvent, ImportState, after
from portal.services import audit, sealing
from portal.services.access import KEEPER
from portal.services.audit import Named
from portal.services.failures import failure
from portal.services.imports import Imports
from portal.services.models import ModelFile, Models
from portal.services.ports import TaskAction, Tasks, TaskSpec, TaskState
from portal.services.rights import permissions_of

log = logging.getLogger(__name__)

LEASE_SECONDS = 60.0
OWNER = "models.upload"
TRIES = 3
PAUSE_SECONDS = 30.0
"""Before the second try; twice as much before the third."""


@dataclass(frozen=True)
class ImportLimits:
    """`size` in bytes of one model, `seconds` of one try, how many `at_once`; `bucket_options` of S3."""

    size: int
    seconds: float
    at_once: int
    bucket_options: Mapping[str, str]


class ImportWork:
    """Drives imports. `name` is this process, `gone` says of another that it has certainly ended."""

    def __init__(
        self,
        asked: Imports,
        store: BlobStore,
        tasks: Tasks,
        models: Models,
        limits: ImportLimits,
        name: str,
        gone: Callable[[str], bool],
    ) -> None:
        self.asked = asked
        self._database, self._clock, self._quotas = asked.database, asked.clock, asked.quotas
        self._tokens, self._rules = asked.tokens, asked.rules
        self._store, self._tasks, self._models, self._limits = store, tasks, models, limits
        self.name, self._gone = name, gone
        self._tickets: dict[str, str] = {}
        """Tasks that this process follows, by import."""

    def imports(self) -> None:
        """One round: what the leader does every few seconds."""
        self._stop_the_unwanted()
        for import_id in self._to_look_at():
            self._guarded(self._look, import_id)
        while (begun := self._claimed()) is not None:
            self._guarded(self._start, begun)

    def drive(self, import_id: str) -> None:
        """One round for one import, whoever leads: what a command does that waits for it."""
        self._stop_the_unwanted()
        if import_id in self._to_look_at():
            self._guarded(self._look, import_id)
        elif self._claimed(import_id) is not None:
            self._guarded(self._start, import_id)

    def _guarded(self, work: Callable[[str], None], import_id: str) -> None:
        """Do `work`; a failure that is nobody's word about the import leaves it to the next round."""
        try:
            work(import_id)
        except AtelierError as error:
            self._failed(import_id, error)
        except Exception as error:
            told = failure(error)
            if told is None:
                log.exception("import %s could not be carried on", import_id)
                self._failed(import_id, InternalError("The import failed here. The portal's log says why."))
            else:
                log.warning("import %s has to wait: %s", import_id, told.message)

    def _stop_the_unwanted(self) -> None:
        """End the tasks of imports that were cancelled, or are gone with their users."""
        for import_id, ticket in list(self._tickets.items()):
            with self._database.reading() as session:
                row = session.get(ModelImport, import_id)
                wanted = row is not None and row.state == ImportState.RUNNING and row.driver == self.name
            if not wanted:
                self._let_go(import_id, ticket)

    def _let_go(self, import_id: str, ticket: str | None) -> None:
        """Remove what the task and its order have left."""
        self._tickets.pop(import_id, None)
        if ticket is not None:
            self._tasks.stop(ticket)
            self._store.delete(keys.task_progress(ticket))
        for blob in list(self._store.list(f"imports/{import_id}/")):
            self._store.delete(blob.key)

    def _to_look_at(self) -> list[str]:
        """Imports at work that are this process's to follow, taking over those that nobody follows."""
        now = self._clock.now()
        query = select(ModelImport).where(ModelImport.state == ImportState.RUNNING.value)
        with self._database.reading() as session:
            rows = session.scalars(query.order_by(ModelImport.id)).all()
            mine = [row.id for row in rows if row.driver == self.name]
            stray = [
                row.id
                for row in rows
                if row.driver != self.name and (row.lease_until < now or self._gone(row.driver or ""))
            ]
        return mine + [each for each in stray if self._taken_over(each, now)]

    def _taken_over(self, import_id: str, now: float) -> bool:
        with self._database.session() as session:
            row = session.get(ModelImport, import_id, with_for_update=True)
            if row is None or row.state != ImportState.RUNNING or row.driver == self.name:
                return False
            if row.lease_until >= now and not self._gone(row.driver or ""):
                return False
            row.driver, row.lease_until = self.name, now + LEASE_SECONDS
            if row.ticket:
                self._tickets[import_id] = row.ticket
        return True

    def _claimed(self, only: str | None = None) -> str | None:
        """The next import to begin, which is this process's from now on; None where there is none, or no
        room.
        """
        now = self._clock.now()
        waiting = select(ModelImport).where(
            ModelImport.state == ImportState.QUEUED.value, ModelImport.not_before <= now
        )
        if only is not None:
            waiting = waiting.where(ModelImport.id == only)
        query = waiting.order_by(ModelImport.created, ModelImport.id).limit(1)
        with self._database.reading() as session:
            if session.scalar(query) is None:
                return None
        with self._database.session() as session:
            row = session.scalar(query.with_for_update(skip_locked=True))
            running = select(func.count()).where(ModelImport.state == ImportState.RUNNING.value)
            if row is None or (only is None and (session.scalar(running) or 0) >= self._limits.at_once):
                return None
            row.state = after(ImportState(row.state), ImportEvent.CLAIM).value
            row.driver, row.lease_until = self.name, now + LEASE_SECONDS
            row.attempt, row.ticket, row.error = row.attempt + 1, None, None
            row.phase, row.done, row.total = "looking", 0, None
            row.started = row.started or now
            return row.id

    def _start(self, import_id: str) -> None:
        """Give the task its order, sealed under a key of its own."""
        with self._database.session() as session:
            row = session.get_one(ModelImport, import_id)
            order, attempt = self._order(session, row), row.attempt
        blob, key = keys.import_order(import_id, attempt), secrets.token_bytes(32)
        self._store.put(blob, sealing.seal(key, order.model_dump_json().encode(), blob))
        spec = TaskSpec(TaskAction.IMPORT, f"{blob}#{key.hex()}", "import", order.kind.value)
        ticket = self._tasks.start(spec)
        self._tickets[import_id] = ticket
        with self._database.session() as session:
            found = session.get(ModelImport, import_id, with_for_update=True)
            if found is not None and found.driver == self.name and found.state == ImportState.RUNNING:
                found.ticket = ticket

    def _order(self, session: Session, row: ModelImport) -> ImportOrder:
        """What the task is told. Raises NotFound for a token that is gone, NotPermitted, QuotaExceeded."""
        owner, keeper = _still_permitted(session, row)
        source = parse(row.source, self._rules.hub)
        self._rules.check(source, anywhere=keeper)
        limit, by = self._limits.size, "ATELIER_MAX_MODEL_BYTES"
        room = self._quotas.room(session, owner.id) if row.own and owner is not None else None
        if room is not None and room < limit:
            limit, by = room, "what your storage quota leaves"
        token, site = self._token(session, row, source, keeper)
        reach = self._rules.reach(anywhere=keeper)
        return ImportOrder(
            source=row.source,
            kind=ModelKind(row.kind),
            hub=self._rules.hub,
            sha256=row.sha256,
            limit=limit,
            limited_by=by,
            seconds=self._limits.seconds,
            hosts=reach.hosts,
            networks=tuple(map(str, reach.networks)),
            token=token,
            token_site=site,
            bucket_options=dict(self._limits.bucket_options),
        )

    def _token(self, session: Session, row: ModelImport, source: Source, keeper: bool) -> tuple[str, str]:
        """(the token, its site) that its owner may use now, twice "" for none. Raises NotFound."""
        try:
            found = self._tokens.chosen(
                session, source, row.owner_id, keeper=keeper, wish=row.token_id or "auto"
            )
        except NotFound:
            raise NotFound(
                "The token this import was to use was deleted, or may not be used any more by who asked for "
                "it. Import again with another one."
            ) from None
        return self._tokens.opened(session, found) if found is not None else ("", "")

    def _look(self, import_id: str) -> None:
        ticket = self._tickets.get(import_id)
        if ticket is None:
            raise WorkReturned("The task was lost with the process that started it.")
        with self._database.reading() as session:
            row = session.get(ModelImport, import_id)
            if row is None:
                return
            _still_permitted(session, row)
        status = self._tasks.describe(ticket)
        if status.state is TaskState.RUNNING:
            self._note_progress(import_id, ticket)
        elif status.state is TaskState.SUCCEEDED:
            self._land(import_id, ticket, status.outcome)
        elif status.error is not None:
            raise from_body(status.error)
        else:
            raise WorkReturned("The task of this import was lost.")

    def _note_progress(self, import_id: str, ticket: str) -> None:
        try:
            told = ImportProgress.model_validate_json(self._store.get(keys.task_progress(ticket)))
        except (NotFound, ValidationError):
            told = ImportProgress()
        with self._database.session() as session:
            row = session.get(ModelImport, import_id, with_for_update=True)
            if row is not None and row.state == ImportState.RUNNING and row.driver == self.name:
                row.phase, row.done, row.total = told.phase, told.done, told.total
                row.lease_until = self._clock.now() + LEASE_SECONDS

    def _land(self, import_id: str, ticket: str, told: Mapping[str, object]) -> None:
        """Make a model of what lies in the store now."""
        outcome = ImportOutcome.model_validate(told)
        with self._database.reading() as session:
            row = session.get_one(ModelImport, import_id)
            owner, _ = _still_permitted(session, row)
            room = self._quotas.room(session, owner.id) if row.own and owner is not None else None
            if room is not None and outcome.size > room:
                raise QuotaExceeded(
                    f"{outcome.filename} has {outcome.size:,} bytes, and your storage quota leaves {room:,}.",
                    detail={"quota": "storage_bytes"},
                )
            actor = Named(row.owner_id, owner.username if owner else "command line")
            file = ModelFile(
                Path(outcome.filename),
                ModelKind(row.kind),
                row.name or None,
                folder=row.folder,
                owner_id=row.owner_id if row.own else None,
            )
        model = self._models.adopt(actor, file, outcome)
        with self._database.session() as session:
            found = session.get(ModelImport, import_id, with_for_update=True)
            if found is not None:
                # Also where it was cancelled at this very moment: the model is there.
                found.state, found.error = after(ImportState(found.state), ImportEvent.SUCCEED).value, None
                found.model_title, found.revision = model.title, outcome.revision
                found.phase, found.done, found.total = "", outcome.size, outcome.size
                found.ended, found.ticket, found.driver = self._clock.now(), None, None
                details = {
                    "sha256": model.sha256,
                    "verified": outcome.verified,
                    "source": found.source.partition("?")[0],
                }
                if outcome.revision:
                    details["revision"] = outcome.revision
                audit.record(session, actor, "model.import", f"model:{model.name}", details=details)
        self._let_go(import_id, ticket)

    def _failed(self, import_id: str, error: AtelierError) -> None:
        """Try again later what another try may mend; end it else."""
        now = self._clock.now()
        with self._database.session() as session:
            row = session.get(ModelImport, import_id, with_for_update=True)
            if row is not None and row.state == ImportState.RUNNING and row.driver == self.name:
                again = error.retryable and row.attempt < TRIES
                event = ImportEvent.REQUEUE if again else ImportEvent.FAIL
                row.state, row.error = after(ImportState(row.state), event).value, error.body()
                row.driver, row.ticket, row.phase = None, None, ""
                pause = 0.0 if isinstance(error, WorkReturned) else PAUSE_SECONDS * row.attempt
                row.not_before, row.ended = now + pause, None if again else now
                if not again:
                    owner = session.get(User, row.owner_id) if row.owner_id else None
                    actor = Named(row.owner_id, owner.username if owner else "command line")
                    told = {"source": row.source.partition("?")[0], "code": error.code}
                    audit.record(session, actor, "model.import", f"import:{row.id}", "failed", details=told)
        self._let_go(import_id, self._tickets.get(import_id))


def _still_permitted(session: Session, row: ModelImport) -> tuple[User | None, bool]:
    """(who asked, None for the command line; whether they look after models), if they may still have it.
    Raises NotPermitted.
    """
    if row.owner_id is None:
        return None, True
    owner = session.get(User, row.owner_id)
    held = permissions_of(session, owner.roles) if owner is not None and not owner.disabled else frozenset()
    if (OWNER if row.own else KEEPER) not in held:
        raise NotPermitted("Who asked for this import may not have it any more, so it was ended.")
    return owner, KEEPER in held
