"""Importing models by their source: who may ask for what, and how far it is. `ImportWork` carries it out."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from atelier import outbound
from atelier.contract.errors import Conflict, InvalidRequest, LimitExceeded, NotFound, NotPermitted
from atelier.contract.models import ModelKind
from atelier.modelsource import BucketSource, HubSource, Source, parse
from atelier.outbound import Reach
from portal.db.base import Database, new_id
from portal.db.identity import User
from portal.db.imports import ModelImport
from portal.domain.imports import ImportEvent, ImportState, after
from portal.services import audit
from portal.services.access import KEEPER
from portal.services.callers import Caller
from portal.services.model_uploads import check_folder
from portal.services.models import check_name
from portal.services.ports import Clock
from portal.services.quotas import Quotas
from portal.services.source_tokens import SourceTokens

UNFINISHED = (ImportState.QUEUED.value, ImportState.RUNNING.value)
MOST_UNFINISHED = 20
"""Of one user."""
SHOWN = 100
_SECRETS = re.compile(r"(^|&)(token|api_?key|access_token|auth|password)=", re.IGNORECASE)
_SHA256 = re.compile(r"([0-9a-f]{64})?\Z")


@dataclass(frozen=True)
class ImportRules:
    """From where a deployment lets models come; see portal.import_options."""

    hub: str
    hosts: tuple[str, ...]
    networks: tuple[outbound.Network, ...]
    buckets: tuple[str, ...]

    def reach(self, *, anywhere: bool) -> Reach:
        """What may be reached: the named hosts and the Hub, or every public one."""
        hub = outbound.parse(self.hub).host
        return Reach((outbound.ANY,) if anywhere else (*self.hosts, hub), self.networks)

    def check(self, source: Source, *, anywhere: bool) -> None:
        """Refuse what can be refused without asking anybody. Raises InvalidRequest, NotPermitted."""
        if isinstance(source, BucketSource):
            self._check_bucket(source)
        elif not isinstance(source, HubSource):
            address, reach = outbound.parse(source.url), self.reach(anywhere=anywhere)
            reach.check_name(address)
            if _SECRETS.search(address.target.partition("?")[2]):
                raise InvalidRequest(
                    "An address with a token in it would be kept as it is. Keep the token for its site "
                    "instead (portal, Models, Tokens), and give the address without it."
                )
            try:
                machine = ipaddress.ip_address(address.host)
            except ValueError:
                return
            reach.check_machines(address, [machine])

    def _check_bucket(self, source: BucketSource) -> None:
        for allowed in self.buckets:
            bucket, _, prefix = allowed.partition("/")
            if source.bucket == bucket and (not prefix or source.key.startswith(prefix.rstrip("/") + "/")):
                return
        raise NotPermitted(
            f"s3://{source.bucket} is no bucket that models may be imported from: an administrator can name "
            "it, or a part of it, in ATELIER_IMPORT_BUCKETS.",
            detail={"bucket": source.bucket},
        )


@dataclass(frozen=True)
class ImportWish:
    """What somebody asks for. `own`: for themselves alone; `token`: "auto", "none" or a token's id; `sha256`
    of the file where they know it.
    """

    source: str
    kind: ModelKind = ModelKind.CHECKPOINT
    name: str = ""
    folder: str = ""
    sha256: str = ""
    own: bool = False
    token: str = "auto"  # noqa: S105  # a choice, no token


@dataclass(frozen=True)
class ImportView:
    """An import. `phase` is what its task does (looking, fetching, converting, hashing, storing), `done` and
    `total` its bytes, `attempt` which try it is; `error` why it failed, or why it is tried again; `model` the
    title of the model that came of it, `revision` the repository's commit. Times in unix seconds.
    """

    id: str
    source: str
    kind: ModelKind
    name: str
    own: bool
    asker: str
    endpoint: str
    state: ImportState
    phase: str
    done: int
    total: int | None
    attempt: int
    error: dict[str, Any] | None
    model: str
    revision: str
    created: float
    started: float | None
    ended: float | None


class Imports:
    """Takes in what people ask for, shows it, cancels it and asks again."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        rules: ImportRules,
        tokens: SourceTokens,
        quotas: Quotas,
    ) -> None:
        self.database, self.clock, self.quotas = database, clock, quotas
        self.rules, self.tokens = rules, tokens

    def ask(
        self, actor: audit.Actor, wish: ImportWish, origin: audit.Origin | None = None, endpoint: str = ""
    ) -> ImportView:
        """Accept an import; the same one that is under way already is that one. Raises InvalidRequest,
        NotPermitted, Conflict, QuotaExceeded, LimitExceeded.
        """
        [view] = self.ask_all(actor, [wish], origin, endpoint)
        return view

    def ask_all(
        self,
        actor: audit.Actor,
        wishes: Sequence[ImportWish],
        origin: audit.Origin | None = None,
        endpoint: str = "",
    ) -> list[ImportView]:
        """Accept all imports, or none."""
        keeper = not isinstance(actor, Caller) or actor.may(KEEPER)
        checked = [(wish, self._checked(wish, keeper)) for wish in wishes]
        with self.database.session() as session:
            if actor.user_id is not None:
                session.get(User, actor.user_id, with_for_update=True)
            rows = [
                self._accepted(session, actor, wish, source, origin, endpoint, keeper)
                for wish, source in checked
            ]
            return [_view(row, actor.username) for row in rows]

    def check(self, actor: audit.Actor, wishes: Sequence[ImportWish]) -> None:
        """Refuse imports for everybody that could not be asked for. Raises NotPermitted, InvalidRequest,
        Conflict.
        """
        if wishes and isinstance(actor, Caller):
            actor.demand(KEEPER)
        for wish in wishes:
            self._checked(wish, keeper=True)
        with self.database.reading() as session:
            for wish in wishes:
                if wish.name:
                    check_name(session, wish.kind, None, wish.name)

    def listed(self, caller: Caller) -> list[ImportView]:
        """The caller's imports, everybody's for who looks after models; the newest first."""
        query = select(ModelImport, User.username).join(User, isouter=True)
        if not caller.may(KEEPER):
            query = query.where(ModelImport.owner_id == caller.user_id)
        query = query.order_by(ModelImport.created.desc(), ModelImport.id.desc()).limit(SHOWN)
        with self.database.reading() as session:
            return [_view(row, name) for row, name in session.execute(query)]

    def get(self, actor: audit.Actor, import_id: str) -> ImportView:
        """One import. Raises NotFound, also for somebody else's."""
        with self.database.reading() as session:
            row = _row(session, actor, import_id)
            owner = session.get(User, row.owner_id) if row.owner_id else None
            return _view(row, owner.username if owner else None)

    def cancel(self, actor: audit.Actor, import_id: str) -> ImportView:
        """Let an import end; nothing happens where it has. Its task is stopped by the process that has it.
        Raises NotFound.
        """
        return self._move(actor, import_id, ImportEvent.CANCEL, "import.cancel")

    def retry(self, actor: audit.Actor, import_id: str) -> ImportView:
        """Ask again for what failed or was cancelled. Raises NotFound, NotPermitted, Conflict where it did
        neither, LimitExceeded where its owner has as many under way as may be.
        """
        with self.database.reading() as session:
            row = _row(session, actor, import_id)
            if not row.own and isinstance(actor, Caller):
                actor.demand(KEEPER)
            if row.state not in (ImportState.FAILED, ImportState.CANCELLED):
                raise Conflict("This import has not failed. Only what failed or was cancelled begins again.")
        return self._move(actor, import_id, ImportEvent.RETRY, "import.retry")

    def _checked(self, wish: ImportWish, keeper: bool) -> Source:
        source = parse(wish.source, self.rules.hub)
        self.rules.check(source, anywhere=keeper)
        check_folder(wish.folder)
        if not _SHA256.match(wish.sha256.strip().lower()):
            raise InvalidRequest("A sha256 has 64 hexadecimal digits.")
        return source

    def _accepted(
        self,
        session: Session,
        actor: audit.Actor,
        wish: ImportWish,
        source: Source,
        origin: audit.Origin | None,
        endpoint: str,
        keeper: bool,
    ) -> ModelImport:
        own = actor.user_id is not None and (wish.own or not keeper)
        if wish.name:
            check_name(session, wish.kind, actor.user_id if own else None, wish.name)
        mine = ModelImport.owner_id == actor.user_id if actor.user_id else ModelImport.owner_id.is_(None)
        under_way = select(ModelImport).where(mine, ModelImport.state.in_(UNFINISHED))
        same = under_way.where(
            ModelImport.source == str(source),
            ModelImport.kind == wish.kind.value,
            ModelImport.name == wish.name,
            ModelImport.own.is_(own),
        )
        known = session.scalar(same.limit(1))
        if known is not None:
            return known
        _leave_room(session, actor.user_id)
        if own and actor.user_id is not None:
            self.quotas.room(session, actor.user_id)
        self.tokens.chosen(session, source, actor.user_id, keeper=keeper, wish=wish.token)
        token = None if wish.token in ("", "auto") else wish.token
        row = ModelImport(
            id=new_id(),
            owner_id=actor.user_id,
            own=own,
            source=str(source),
            kind=wish.kind.value,
            name=wish.name,
            folder=wish.folder.strip("/"),
            sha256=wish.sha256.strip().lower(),
            token_id=token,
            endpoint=endpoint,
            created=self.clock.now(),
            **_FRESH,
        )
        session.add(row)
        session.flush()
        told = {"source": _shown(source), "kind": row.kind, "own": own, "token": wish.token or "auto"}
        audit.record(session, actor, "import.ask", f"import:{row.id}", origin=origin, details=told)
        return row

    def _move(self, actor: audit.Actor, import_id: str, event: ImportEvent, action: str) -> ImportView:
        with self.database.session() as session:
            if event is ImportEvent.RETRY:
                # The user first, as where they ask: of two at once for the last place, one gets it.
                whose = session.scalar(select(ModelImport.owner_id).where(ModelImport.id == import_id))
                if whose is not None:
                    session.get(User, whose, with_for_update=True)
            row = _row(session, actor, import_id, lock=True)
            before = ImportState(row.state)
            state = after(before, event)
            if state is not before:
                if event is ImportEvent.RETRY:
                    _leave_room(session, row.owner_id)
                row.state = state.value
                row.ended = None if event is ImportEvent.RETRY else self.clock.now()
                if event is ImportEvent.RETRY:
                    for field, value in _FRESH.items():
                        setattr(row, field, value)
                owner = session.get(User, row.owner_id) if row.owner_id else None
                subject = owner.username if owner and row.owner_id != actor.user_id else ""
                audit.record(session, actor, action, f"import:{row.id}", subject=subject)
        return self.get(actor, import_id)


_FRESH: dict[str, Any] = {
    "state": ImportState.QUEUED.value,
    "attempt": 0,
    "lease_until": 0.0,
    "not_before": 0.0,
    "phase": "",
    "done": 0,
    "total": None,
    "error": None,
    "model_title": "",
    "revision": "",
}


def _shown(source: Source) -> str:
    """A source as it stands in the trail: an address without its query, which may be signed."""
    return str(source).partition("?")[0]


def _leave_room(session: Session, owner_id: str | None) -> None:
    """Raise LimitExceeded where a user has as many unfinished imports as may be; the command line may have
    any number.
    """
    if owner_id is None:
        return
    mine = (ModelImport.owner_id == owner_id, ModelImport.state.in_(UNFINISHED))
    if (session.scalar(select(func.count()).where(*mine)) or 0) >= MOST_UNFINISHED:
        raise LimitExceeded(f"At most {MOST_UNFINISHED} imports wait at once. Wait for some to end.")


def _row(session: Session, actor: audit.Actor, import_id: str, *, lock: bool = False) -> ModelImport:
    row = session.get(ModelImport, import_id, with_for_update=lock or None)
    mine = row is not None and row.owner_id == actor.user_id
    if row is None or not (mine or not isinstance(actor, Caller) or actor.may(KEEPER)):
        raise NotFound("There is no such import. It may have gone with its user: reload the list.")
    return row


def _view(row: ModelImport, asker: str | None) -> ImportView:
    return ImportView(
        id=row.id,
        source=row.source.partition("?")[0],
        kind=ModelKind(row.kind),
        name=row.name,
        own=row.own,
        asker=asker or "command line",
        endpoint=row.endpoint,
        state=ImportState(row.state),
        phase=row.phase,
        done=row.done,
        total=row.total,
        attempt=row.attempt,
        error=row.error,
        model=row.model_title,
        revision=row.revision,
        created=row.created,
        started=row.started,
        ended=row.ended,
    )
