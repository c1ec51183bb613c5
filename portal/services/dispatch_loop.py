"""The threads of the dispatcher role: one sends and sweeps, one takes in completions, one watches progress.

Only the holder of the lease does anything; another process with the same role waits for the lease to run out.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from functools import partial

from sqlalchemy.exc import IntegrityError

from portal.db.base import Database
from portal.db.work import Lease
from portal.services.changes import WORK, Changes
from portal.services.completion import Completions
from portal.services.dispatch import Dispatcher
from portal.services.dispatch_watch import Watcher
from portal.services.endpoints import Endpoints
from portal.services.failures import failure
from portal.services.jobs_actions import Actions
from portal.services.measures import Measures
from portal.services.ports import Clock, Inbox, Message

log = logging.getLogger(__name__)

LEADER = "dispatcher"
LEASE_SECONDS = 15.0
GIVEN_UP = 0.0
"""The end of a lease that its holder gave back."""
LOOK_SECONDS = 0.4
SWEEP_SECONDS = 2.0
IDLE_SECONDS = 2.0
STUCK_SECONDS = 120.0
"""A round that takes longer, as with a database that holds its answers back, is told."""


class Leadership:
    """The right to dispatch: a row that one process holds and renews.

    Nobody's time of day is trusted for long: the holder counts by its monotonic clock, and so does whoever
    waits, from the moment at which it saw the row change last. `gone` says of a holder that its process has
    certainly ended: then nobody waits.
    """

    def __init__(
        self,
        database: Database,
        clock: Clock,
        holder: str | None = None,
        gone: Callable[[str], bool] = lambda _: False,
    ) -> None:
        self._database = database
        self._clock = clock
        self.holder = holder or uuid.uuid4().hex
        self._gone = gone
        self._asking = threading.Lock()
        """Two threads of one process must not take each other for another."""
        self.elsewhere = False
        """Whether another process led when this one looked last."""
        self._sure_until = float("-inf")
        self._seen: tuple[str, float] | None = None
        self._unchanged_since = 0.0

    def may_lead(self) -> bool:
        """Whether no other process led when this one looked last; asks no database."""
        return not self.elsewhere

    def held(self) -> bool:
        """Whether this process leads, taking or renewing the lease where it can."""
        with self._asking:
            return self._held()

    def _held(self) -> bool:
        now, passed = self._clock.now(), self._clock.monotonic()
        if passed < self._sure_until - LEASE_SECONDS / 2:
            return True
        mine = (self.holder, now + LEASE_SECONDS)
        try:
            with self._database.session() as session:
                row = session.get(Lease, LEADER, with_for_update=True)
                if row is None:
                    session.add(Lease(name=LEADER, holder=mine[0], until=mine[1]))
                elif row.holder == self.holder or self._over(row, now, passed):
                    row.holder, row.until = mine
                else:
                    self.elsewhere = True
                    return False
        except IntegrityError:
            self.elsewhere = True
            return False  # somebody else was faster to write the very first lease
        self._seen, self._sure_until = mine, passed + LEASE_SECONDS
        self.elsewhere = False
        return True

    def _over(self, row: Lease, now: float, passed: float) -> bool:
        """Whether another's lease has run out: it was given up, or did not change for as long as it lasts.
        What is seen for the first time is believed to run until its time.
        """
        first, self._seen, seen = self._seen is None, (row.holder, row.until), self._seen
        if seen != self._seen:
            self._unchanged_since = passed
        unchanged = passed - self._unchanged_since >= LEASE_SECONDS
        ended = row.until == GIVEN_UP or unchanged or (first and row.until < now)
        return ended or self._gone(row.holder)

    @property
    def sure(self) -> bool:
        """Whether this process holds the lease by its own clock; asks no database."""
        return self._clock.monotonic() < self._sure_until

    def give_up(self) -> None:
        """Let another process lead at once."""
        with self._database.session() as session:
            row = session.get(Lease, LEADER, with_for_update=True)
            if row is not None and row.holder == self.holder:
                row.until = GIVEN_UP
        self._sure_until = float("-inf")


class DispatchLoop:
    """Runs the dispatcher's work in threads until it is stopped."""

    def __init__(
        self,
        leadership: Leadership,
        dispatcher: Dispatcher,
        watcher: Watcher,
        completions: Completions,
        endpoints: Endpoints,
        actions: Actions,
        inbox: Inbox,
        clock: Clock,
        changes: Changes,
        chores: Sequence[Callable[[], object]] = (),
        measures: Measures | None = None,
    ) -> None:
        self._measures = measures or Measures()
        self._leadership = leadership
        self._dispatcher = dispatcher
        self.watcher = watcher
        self.completions = completions
        self._endpoints = endpoints
        self._inbox = inbox
        self._clock = clock
        self._changes = changes
        self._chores = (
            endpoints.observe,
            actions.end_work_of_the_disabled,
            watcher.sweep,
            actions.republish,
            *chores,
        )
        """What the leader does every few seconds, in this order."""
        self._stopping = threading.Event()
        self._wake = threading.Event()
        self._look = threading.Event()
        self._threads: list[threading.Thread] = []
        self._rounds: dict[str, float] = {}
        """When each thread began its round, by time.monotonic."""

    @property
    def leading(self) -> bool:
        """Whether this process is the one that dispatches."""
        return self._leadership.sure

    def faults(self) -> list[str]:
        """What is wrong with the threads that were started, in words: one has ended, or is in one round for
        long.
        """
        found = []
        for thread in [] if self._stopping.is_set() else self._threads:
            busy = time.monotonic() - self._rounds[thread.name]
            if not thread.is_alive():
                found.append(f"The thread {thread.name} has ended; this process has to be started again.")
            elif busy > STUCK_SECONDS:
                found.append(f"The thread {thread.name} has been in one round for {busy:.0f} s.")
        return found

    def _begin_round(self) -> None:
        self._rounds[threading.current_thread().name] = time.monotonic()

    @property
    def follows(self) -> bool:
        """Whether another process dispatches."""
        return self._leadership.elsewhere

    @property
    def name(self) -> str:
        """This process, as the lease names it."""
        return self._leadership.holder

    def start(self) -> None:
        """Begin. Endpoints of the database are given to the fleet first."""
        for name, work in (
            ("dispatch", self._dispatch),
            ("complete", self._complete),
            ("watch", self._watch),
        ):
            thread = threading.Thread(target=work, name=f"dispatcher-{name}", daemon=True)
            self._rounds[thread.name] = time.monotonic()
            thread.start()
            self._threads.append(thread)

    def stop(self, timeout: float = 10.0) -> None:
        """End the threads and hand the lease on."""
        self._stopping.set()
        self._wake.set()
        self._look.set()
        for thread in self._threads:
            thread.join(timeout)
        self._guarded(self._leadership.give_up)

    def turn(self) -> None:
        """One round of everything in the caller's thread: what the threads do, without waiting."""
        for message in self._inbox.receive(0.0):
            self._take(message)
        self.watcher.look()
        for work in self._chores:
            work()
        self._measures.swept(self._clock.now())
        self._dispatcher.dispatch_ready()

    def _dispatch(self) -> None:
        resumed = False
        with self._changes.listening(WORK, self._wake.set):
            while not self._stopping.is_set():
                self._wake.clear()
                self._begin_round()
                leads = self._guarded(self._leadership.held)
                if leads is False:  # not None: a database that is away makes nobody else the leader
                    self._guarded(self._endpoints.let_go)
                    resumed = False
                elif leads:
                    resumed = resumed or bool(self._guarded(self._resume))
                    if self._guarded(self._dispatcher.dispatch_ready):
                        self._look.set()
                self._wake.wait(IDLE_SECONDS)

    def _resume(self) -> bool:
        self._endpoints.resume()
        return True

    def _complete(self) -> None:
        waiting: list[Message] = []
        while not self._stopping.is_set():
            self._begin_round()
            waiting += self._inbox.receive(LOOK_SECONDS)
            waiting = [message for message in waiting if not self._guarded(partial(self._take, message))]
            if waiting:
                self._stopping.wait(IDLE_SECONDS)

    def _take(self, message: Message) -> bool:
        said = message.completion
        self.completions.notified(said.job, said.part, said.attempt, said.error)
        self._inbox.ack(message.receipt)
        return True

    def _watch(self) -> None:
        swept = float("-inf")
        while not self._stopping.is_set():
            flying: object = 0
            self._begin_round()
            if self._guarded(self._leadership.held):
                flying = self._guarded(self.watcher.look)
                if self._clock.monotonic() - swept >= SWEEP_SECONDS:
                    swept = self._clock.monotonic()
                    for work in self._chores:
                        self._guarded(work)
                    self._measures.swept(self._clock.now())
            self._look.clear()
            self._look.wait(LOOK_SECONDS if flying else IDLE_SECONDS)

    def _guarded(self, work: Callable[[], object]) -> object:
        """Do `work`; whatever fails is logged and tried again in the next round."""
        try:
            return work()
        except Exception as error:
            name, told = getattr(work, "__name__", "completion"), failure(error)
            if told is None:
                log.exception("the dispatcher's %s failed; it will be tried again", name)
            else:
                log.warning("the dispatcher's %s has to wait: %s", name, told.message)
            return None
