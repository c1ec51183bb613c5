"""Watches attempts in flight: marks them running, renews or ends their leases, and finds endings nobody
told of.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import select, update

from atelier.contract.errors import Expired, WorkerUnavailable
from atelier.contract.jobs import PartState
from portal.db.base import Database
from portal.db.work import Attempt, IdempotencyKey, Part
from portal.domain.states import PartEvent, after
from portal.services.changes import WORK, Changes
from portal.services.completion import ABANDONED, LOST, Completions, Ending, derive
from portal.services.dispatch import LEASE_SECONDS
from portal.services.ports import Clock, Fleet, TicketState
from portal.services.progress import ProgressBoard

log = logging.getLogger(__name__)

RENEW_BELOW = 20.0
"""A lease is written anew when fewer seconds than this are left: once in ten seconds, not with each
progress.
"""
WAITING_LIMIT = 24 * 3600.0
"""Seconds a part may wait for an endpoint before it expires."""
_EXPIRED = "No endpoint could take this work within a day. Send it again, or ask an administrator."
IDEMPOTENCY_SECONDS = 24 * 3600.0


@dataclass(frozen=True)
class InFlight:
    """An open attempt and the state of its part."""

    job: str
    part: str
    attempt: int
    ticket: str | None
    lease_until: float
    running: bool


class Watcher:
    """`look` is called a few times a second, `sweep` every few seconds, by whoever leads."""

    def __init__(
        self,
        database: Database,
        fleet: Fleet,
        clock: Clock,
        changes: Changes,
        completions: Completions,
        board: ProgressBoard,
    ) -> None:
        self._database = database
        self._fleet = fleet
        self._clock = clock
        self._changes = changes
        self._completions = completions
        self._board = board
        self._noted: dict[tuple[str, int], int] = {}
        """Newest sequence number acted on, by part and attempt. The board's own reading may be ahead:
        people look at it too.
        """

    def look(self) -> int:
        """Read progress of everything in flight; note what began and renew leases. Returns how many
        attempts are open.
        """
        flying = self._in_flight()
        self._board.keep_only(each.part for each in flying)
        grown = self._grown(flying)
        renewed = self._clock.now() + RENEW_BELOW
        noted = [each for each in grown if not each.running or each.lease_until < renewed]
        if noted:
            self._note(noted)
        self._changes.notify(*{each.job for each in grown})
        return len(flying)

    def _grown(self, flying: Sequence[InFlight]) -> list[InFlight]:
        noted, grown = {}, []
        for each in flying:
            state = self._board.refresh(each.job, each.part, each.attempt).state
            known = self._noted.get((each.part, each.attempt), 0)
            if state is not None and state.seq > known:
                grown.append(each)
            noted[each.part, each.attempt] = state.seq if state else known
        self._noted = noted
        return grown

    def sweep(self) -> int:
        """Find attempts that ended without a word and those that were lost; expire what waited too long.
        Returns how many changed. Whoever leads may have been busy for longer than a lease lasts, as with a
        slow fleet: so signs of life that came meanwhile are read first.
        """
        self.look()
        changed = sum(self._reconcile(each) for each in self._in_flight())
        return changed + self._expire()

    def _in_flight(self) -> list[InFlight]:
        query = (
            select(
                Attempt.job_id,
                Attempt.part_id,
                Attempt.number,
                Attempt.ticket,
                Attempt.lease_until,
                Part.state,
            )
            .join(Part, Part.id == Attempt.part_id)
            .where(Attempt.open)
        )
        with self._database.reading() as session:
            return [
                InFlight(job, part, number, ticket, lease, state != PartState.DISPATCHED)
                for job, part, number, ticket, lease, state in session.execute(query)
            ]

    def _note(self, alive: Sequence[InFlight]) -> None:
        """One transaction for all: leases of what showed life, and `running` for what began."""
        now = self._clock.now()
        with self._database.session() as session:
            for each in alive:
                session.execute(
                    update(Attempt)
                    .where(Attempt.part_id == each.part, Attempt.number == each.attempt, Attempt.open)
                    .values(lease_until=now + LEASE_SECONDS)
                )
                if not each.running:
                    part = session.get_one(Part, each.part, with_for_update=True)
                    if part.attempt == each.attempt and part.state == PartState.DISPATCHED:
                        part.state = after(PartState.DISPATCHED, PartEvent.PROGRESS).value
                        derive(session, each.job, now)
                        ids = {"job_id": each.job, "part_id": each.part, "attempt": each.attempt}
                        log.info("part running", extra=ids)

    def _reconcile(self, each: InFlight) -> bool:
        """Make one open attempt agree with the blob store and the fleet."""
        ending = self._completions.stored(each.job, each.part, each.attempt)
        if ending is not None:
            return self._completions.end(each.job, each.part, each.attempt, ending)
        ticket = TicketState.PENDING if each.ticket is None else self._fleet.poll(each.ticket)
        now = self._clock.now()
        if each.lease_until > now + LEASE_SECONDS:
            self._extend(each)  # the clock was set back: a lease that seems longer than any is as long as one
        overdue = now > each.lease_until
        if ticket is TicketState.UNKNOWN:
            lost = WorkerUnavailable("The process that had sent this work was restarted.")
            return self._completions.end(
                each.job, each.part, each.attempt, Ending(error=lost, outcome=ABANDONED)
            )
        if not overdue:
            return False
        if each.ticket is not None and not each.running and ticket is TicketState.PENDING:
            # Still queued in front of a worker that starts or is busy: the engine may yet run it.
            self._extend(each)
            return False
        ids = {"job_id": each.job, "part_id": each.part, "attempt": each.attempt}
        log.warning("the attempt showed no life for %.0f s", LEASE_SECONDS, extra=ids)
        lost = WorkerUnavailable("The worker stopped answering.")
        return self._completions.end(each.job, each.part, each.attempt, Ending(error=lost, outcome=LOST))

    def _extend(self, each: InFlight) -> None:
        with self._database.session() as session:
            session.execute(
                update(Attempt)
                .where(Attempt.part_id == each.part, Attempt.number == each.attempt, Attempt.open)
                .values(lease_until=self._clock.now() + LEASE_SECONDS)
            )

    def _expire(self) -> int:
        now = self._clock.now()
        old = select(Part.id).where(Part.state == PartState.QUEUED.value, Part.created < now - WAITING_LIMIT)
        with self._database.reading() as session:
            due = session.scalars(old).all()
            keys_due = session.scalar(
                select(IdempotencyKey.key).where(IdempotencyKey.created < now - IDEMPOTENCY_SECONDS).limit(1)
            )
        if not due and keys_due is None:
            return 0
        jobs = set()
        with self._database.session() as session:
            for part in session.scalars(
                select(Part).where(Part.id.in_(due)).with_for_update(skip_locked=True)
            ):
                part.state = after(PartState(part.state), PartEvent.EXPIRE).value
                part.error = Expired(_EXPIRED).body()
                jobs.add(part.job_id)
            for job in jobs:
                derive(session, job, now)
            for stale in session.scalars(
                select(IdempotencyKey).where(IdempotencyKey.created < now - IDEMPOTENCY_SECONDS)
            ):
                session.delete(stale)
        self._changes.notify(*jobs, WORK)
        return len(due)
