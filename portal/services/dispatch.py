"""Takes waiting parts, fairly, and hands them to endpoints that have room.

A part is planned in a reading transaction, claimed in a writing one guarded by its state (and by SKIP
LOCKED where the database knows it), and sent outside of any transaction: nothing waits for the network with
the database in its hand.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from atelier import logs
from atelier.contract import keys, signing, understands
from atelier.contract.errors import AtelierError, StorageFailed, StorageFull, WorkReturned
from atelier.contract.jobs import PartState
from atelier.contract.parts import JobStamp, PartControl
from atelier.storage.base import BlobStore
from portal.db.base import Database, new_id
from portal.db.work import Attempt, Endpoint, Instance, Part
from portal.domain import retry
from portal.domain.fairness import Waiting, pick_order, room
from portal.domain.states import PartEvent, after
from portal.services.access import Access, refusal, rules_there_are
from portal.services.changes import Changes
from portal.services.completion import Completions, Ending, derive
from portal.services.measures import Measures
from portal.services.ports import Clock, EndpointKind, EndpointState, Fleet, Submission
from portal.services.turns import take_turn, turns

log = logging.getLogger(__name__)

LEASE_SECONDS = 30.0
"""How long a sent part is believed to be worked on without a sign of life."""


_CLOSED = (EndpointState.CREATING, EndpointState.FAILED, EndpointState.DELETING, EndpointState.DELETED)


@dataclass(frozen=True)
class Claimed:
    """A part that is ours to send."""

    job: str
    part: str
    attempt: int
    endpoint: str
    task: str
    resolved: dict[str, Any]


@dataclass(frozen=True)
class _Wish:
    """What a waiting part needs: the endpoint it asked for (None for any), weights, and whether it is sent
    alone.
    """

    endpoint: str | None
    blob: str
    alone: bool


@dataclass(frozen=True)
class _Target:
    """An endpoint with room for at least one more part."""

    name: str
    asleep: bool
    room: int
    load: int
    hot: frozenset[str]
    alone: bool = False
    """Whether what is sent there now is to be alone."""


class Dispatcher:
    """One pass is `dispatch_ready`; `portal.services.dispatch_loop` calls it whenever something changed."""

    def __init__(
        self,
        database: Database,
        store: BlobStore,
        fleet: Fleet,
        clock: Clock,
        changes: Changes,
        completions: Completions,
        signing_key: bytes,
        measures: Measures | None = None,
    ) -> None:
        self._measures = measures or Measures()
        self._database = database
        self._store = store
        self._fleet = fleet
        self._clock = clock
        self._changes = changes
        self._completions = completions
        self._signing_key = signing_key

    def dispatch_ready(self) -> int:
        """Send what there is room for. Returns how many parts were sent."""
        sent = 0
        while True:
            planned = self._plan()
            if planned is None:
                return sent
            claimed = self._claim(*planned)
            if claimed is not None:
                with logs.bound(job_id=claimed.job, part_id=claimed.part, attempt=claimed.attempt):
                    self._send(claimed)
                sent += 1

    def _plan(self) -> tuple[str, _Target] | None:
        """The fairest waiting part that an endpoint has room for, and that endpoint."""
        with self._database.reading() as session:
            waiting = _waiting(session, self._clock.now())
            if not waiting:
                return None
            targets = _targets(session)
            heads = list(waiting)
            owners = {each.owner for each in heads}
            order = pick_order(heads, *_service(session, owners), turns(session, owners))
            rules = rules_there_are(session)
            access = {owner: Access(session, owner, rules) for owner in owners}
        for each in order:
            wish = waiting[each]
            # A wanted endpoint that was closed to the owner counts all the same: the part is refused there.
            theirs = [
                it for it in targets if it.name == wish.endpoint or access[each.owner].endpoint(it.name)
            ]
            target = _choose(theirs, wish)
            if target is None:
                continue
            if not wish.alone:
                return each.part, target
            if target.load == 0:
                return each.part, replace(target, alone=True)
            targets.remove(target)  # it gets nothing more until it is empty
        return None

    def _claim(self, part_id: str, target: _Target) -> Claimed | None:
        """Make the part ours: dispatched, with a new open attempt. None if somebody else was faster, or where
        its owner may not have it made any more: then it has failed.
        """
        now = self._clock.now()
        with self._database.session() as session:
            part = session.scalar(
                select(Part)
                .where(Part.id == part_id, Part.state == PartState.QUEUED.value)
                .with_for_update(skip_locked=True)
            )
            if part is None:
                return None
            error = refusal(session, part, target.name)
            claimed = None if error else _open(session, part, target, now)
            if error:
                part.state, part.error = after(PartState.QUEUED, PartEvent.FAIL).value, error.body()
            derive(session, part.job_id, now, waking=target.asleep and claimed is not None)
            job_id, ready = part.job_id, max(part.created, part.not_before)
        if claimed is not None:
            self._measures.sent(now - ready)
        self._changes.notify(job_id)
        return claimed

    def _send(self, claimed: Claimed) -> None:
        try:
            control = PartControl(attempt=claimed.attempt)
            self._store.put(keys.part_control(claimed.job, claimed.part), control.model_dump_json().encode())
            body = signing.sign(_body(claimed), self._signing_key)
            submission = Submission(claimed.endpoint, claimed.job, claimed.part, claimed.attempt, body)
            ticket = self._fleet.submit(submission)
        except AtelierError as error:
            self._refused(claimed, _not_sent(error))
            return
        except Exception:
            log.exception("the part could not be sent to %s", claimed.endpoint)
            self._refused(claimed, WorkReturned(f"The endpoint {claimed.endpoint!r} could not be reached."))
            return
        log.info("part sent", extra={"endpoint": claimed.endpoint, "ticket": ticket})
        with self._database.session() as session:
            row = session.scalar(
                select(Attempt).where(Attempt.part_id == claimed.part, Attempt.number == claimed.attempt)
            )
            if row is not None and row.open:
                row.ticket = ticket

    def _refused(self, claimed: Claimed, error: AtelierError) -> None:
        self._completions.end(claimed.job, claimed.part, claimed.attempt, Ending(error=error))


def _not_sent(error: AtelierError) -> AtelierError:
    """Why a part could not be sent: a store that did not answer is not the work's fault."""
    if isinstance(error, StorageFailed) and not isinstance(error, StorageFull):
        return WorkReturned(f"The work could not be sent: {error.message}", detail=error.detail)
    return error


def _open(session: Session, part: Part, target: _Target, now: float) -> Claimed:
    """A new open attempt at the part, on the target."""
    part.state = after(PartState.QUEUED, PartEvent.DISPATCH).value
    part.attempt += 1
    part.endpoint = target.name
    session.add(_attempt(part, target, now))
    if part.attempt == 1:  # what is sent again is not counted again
        take_turn(session, part.owner_id, part.work)
    return Claimed(part.job_id, part.id, part.attempt, target.name, part.resolved["task"], part.resolved)


def _attempt(part: Part, target: _Target, now: float) -> Attempt:
    return Attempt(
        id=new_id(),
        part_id=part.id,
        job_id=part.job_id,
        owner_id=part.owner_id,
        number=part.attempt,
        endpoint=part.endpoint,
        started=now,
        lease_until=now + LEASE_SECONDS,
        woke=target.asleep,
        alone=target.alone,
    )


def _body(claimed: Claimed) -> dict[str, Any]:
    stamp = JobStamp(job=claimed.job, part=claimed.part, attempt=claimed.attempt, endpoint=claimed.endpoint)
    return {
        "task": claimed.task,
        "model": claimed.resolved["checkpoint"]["filename"],
        "resolved": claimed.resolved,
        "job": stamp.model_dump(mode="json", exclude={"signature"}),
    }


def _waiting(session: Session, now: float) -> dict[Waiting, _Wish]:
    """The first waiting part of each user and wanted endpoint, by priority, with what it needs.

    One row for each wanted endpoint too: a queue for a full endpoint must not hide the same user's parts
    for another. A priority decides which part is a user's first, never whose part is.
    """
    line = (Part.owner_id, Part.wanted_endpoint)
    turn = func.row_number().over(
        partition_by=line, order_by=(Part.priority.desc(), Part.created, Part.job_id, Part.ordinal)
    )
    numbered = (
        select(
            Part.id,
            Part.owner_id,
            func.min(Part.created).over(partition_by=line).label("since"),
            Part.work,
            Part.wanted_endpoint,
            Part.checkpoint_blob,
            Part.losses,
            turn.label("turn"),
        )
        .where(Part.state == PartState.QUEUED.value, Part.not_before <= now)
        .subquery()
    )
    rows = session.execute(select(numbered).where(numbered.c.turn == 1)).all()
    return {
        Waiting(row.id, row.owner_id, row.since, row.work): _Wish(
            row.wanted_endpoint, row.checkpoint_blob, retry.alone(row.losses)
        )
        for row in rows
    }


def _service(session: Session, owners: Collection[str]) -> tuple[Mapping[str, int], Mapping[str, float]]:
    """Of each of `owners`: attempts in flight, and when one was last sent (an index seek each, however long
    their past).
    """
    count = select(Attempt.owner_id, func.count()).where(Attempt.open).group_by(Attempt.owner_id)
    in_flight = {owner: flying for owner, flying in session.execute(count).all()}
    newest = {
        owner: session.scalar(select(func.max(Attempt.started)).where(Attempt.owner_id == owner))
        for owner in owners
    }
    return in_flight, {owner: started for owner, started in newest.items() if started is not None}


def _targets(session: Session) -> list[_Target]:
    """Endpoints with room that can serve, with what is hot on them."""
    flying = {
        name: count
        for name, count in session.execute(
            select(Attempt.endpoint, func.count()).where(Attempt.open).group_by(Attempt.endpoint)
        ).all()
    }
    taken = set(session.scalars(select(Attempt.endpoint).where(Attempt.open, Attempt.alone)))
    described: dict[str, list[dict[str, Any]]] = {}
    for instance in session.scalars(select(Instance)):
        described.setdefault(instance.endpoint, []).append(instance.described)
    found = []
    for endpoint in session.scalars(select(Endpoint).order_by(Endpoint.name)):
        load = flying.get(endpoint.name, 0)
        free = room(slots=endpoint.slots, instances=endpoint.instances, in_flight=load)
        states = described.get(endpoint.name, [])
        understood = not states or any(understands(state["contract"]) for state in states)
        if endpoint.name in taken or EndpointKind(endpoint.kind).custom:
            continue
        if free and understood and endpoint.state not in _CLOSED:
            hot = frozenset(blob for state in states for blob in state["hot"])
            found.append(_Target(endpoint.name, endpoint.state != EndpointState.IN_SERVICE, free, load, hot))
    return found


def _choose(targets: list[_Target], wish: _Wish) -> _Target | None:
    """The wanted endpoint; for "automatic" one where the weights are hot, then one that is awake, then the
    least loaded. What is sent alone goes where the least has to end first.
    """

    def rank(each: _Target) -> tuple[int, bool, bool, int, str]:
        before = each.load if wish.alone else 0
        return before, wish.blob not in each.hot, each.asleep, each.load, each.name

    return min((each for each in targets if wish.endpoint in (None, each.name)), key=rank, default=None)
