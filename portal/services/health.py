"""Whether the studio can do its work, and what keeps it from that: what /readyz and `atelier doctor` say."""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from sqlalchemy import select

from atelier.contract import keys
from atelier.contract.errors import AtelierError
from atelier.storage.base import BlobStore
from portal.db import migrate
from portal.db.base import Database
from portal.db.work import Endpoint, Lease
from portal.services.dispatch_loop import GIVEN_UP, LEADER, LEASE_SECONDS
from portal.services.ports import Clock, EndpointState, PlatformPart

log = logging.getLogger(__name__)

OK = "ok"
REMEMBERED_SECONDS = 1.0
"""Whoever asks more often gets the answer from before: asking is free for everybody."""
PLATFORM_SECONDS = 15.0
"""The same for parts of the platform, which are asked over the network."""
LATE_SECONDS = LEASE_SECONDS
"""How long after a lease ran out another process should have taken it."""
UNKNOWN = "Not known while the database does not answer."


class Health:
    """Looks at the parts, each by itself; nothing here raises."""

    def __init__(
        self,
        database: Database,
        store: BlobStore,
        clock: Clock,
        loop_faults: Callable[[], list[str]],
        monotonic: Callable[[], float] = time.monotonic,
        platform: Sequence[PlatformPart] = (),
    ) -> None:
        self._database = database
        self._store = store
        self._clock = clock
        self._loop_faults = loop_faults
        self._monotonic = monotonic
        self._platform = platform
        self._platform_seen: tuple[float, dict[str, str]] = (float("-inf"), {})
        self._name = uuid.uuid4().hex
        self._lock = threading.Lock()
        self._seen: tuple[float, Mapping[str, str]] | None = None

    def checks(self) -> Mapping[str, str]:
        """Part -> "ok", or what is wrong in a sentence that tells a stranger nothing of the inside."""
        with self._lock:
            now = self._monotonic()
            if self._seen is None or now - self._seen[0] >= REMEMBERED_SECONDS:
                self._seen = now, self._look()
            return self._seen[1]

    def _look(self) -> Mapping[str, str]:
        checks = {
            "database": self._asked(self._ping, "The database does not answer."),
            "store": self._asked(self._write, "The blob store cannot be written to."),
        }
        for name, look in (
            ("migrations", self._migrations),
            ("dispatcher", self._dispatcher),
            ("endpoints", self._endpoints),
        ):
            known = checks["database"] == OK
            checks[name] = self._asked(look, "This could not be looked at.") if known else UNKNOWN
        return checks | self._of_platform()

    def _of_platform(self) -> dict[str, str]:
        """How the platform's parts are; each look there is a call that somebody else counts."""
        if self._monotonic() - self._platform_seen[0] >= PLATFORM_SECONDS:
            seen = {part.name: self._asked(partial(_works, part), part.broken) for part in self._platform}
            self._platform_seen = self._monotonic(), seen
        return self._platform_seen[1]

    def _asked(self, look: Callable[[], str], otherwise: str) -> str:
        try:
            return look()
        except Exception as error:  # noqa: BLE001  # whatever fails there is what is wrong
            reason = error.message if isinstance(error, AtelierError) else repr(error)
            log.warning("not ready: %s %s", otherwise, reason)
            return otherwise

    def _ping(self) -> str:
        self._database.ping()
        return OK

    def _write(self) -> str:
        key = keys.probe(self._name)
        self._store.put(key, b"{}")
        self._store.delete(key)
        return OK

    def _migrations(self) -> str:
        return "The database is not of this version. Run: atelier migrate" if self._pending() else OK

    def _pending(self) -> bool:
        return migrate.pending(self._database)

    def _dispatcher(self) -> str:
        """Some process leads, or did a moment ago; and the threads of this one do their rounds."""
        if faults := self._loop_faults():
            return " ".join(faults)
        with self._database.reading() as session:
            until = session.scalar(select(Lease.until).where(Lease.name == LEADER))
        if until is None:
            return "No process has dispatched anything yet. Start one with the role dispatcher."
        if until == GIVEN_UP:
            return "The process that dispatched has stopped, and no other has taken over yet."
        late = self._clock.now() - until
        if late > LATE_SECONDS:
            return f"No process has dispatched for {late:.0f} s. Start one with the role dispatcher."
        return OK

    def _endpoints(self) -> str:
        """At least one can make pictures. None at all is a studio that is being set up."""
        with self._database.reading() as session:
            states = session.scalars(select(Endpoint.state)).all()
        if states and all(state == EndpointState.FAILED for state in states):
            return "Every endpoint has failed. An administrator finds the reason on the page Endpoints."
        return OK


def _works(part: PlatformPart) -> str:
    part.look()
    return OK
