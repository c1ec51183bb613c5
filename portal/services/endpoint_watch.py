"""Keeps the rows of endpoints true: what the fleet and the workers say of them, what they are asked for, and
what they cost.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable
from datetime import UTC, datetime

from pydantic import ValidationError
from sqlalchemy import delete, select

from atelier.contract import keys
from atelier.contract.errors import AtelierError, NotFound
from atelier.contract.parts import InstanceState
from atelier.storage.base import BlobStore
from portal.db.base import Database
from portal.db.work import Endpoint, EndpointUsage, Instance
from portal.services.changes import WORK, Changes
from portal.services.demand import demands
from portal.services.ports import Clock, EndpointSpec, EndpointState, EndpointStatus, Fleet

SILENT_SECONDS = 60.0
"""An instance that has not described itself for so long is gone."""
LONGEST_MEASURE = 60.0
"""Seconds between two looks that are still believed to have been seconds of running."""
HOUR = 3600.0


class EndpointWatch:
    """Called by whoever leads, every few seconds."""

    def __init__(
        self,
        database: Database,
        store: BlobStore,
        fleet: Fleet,
        clock: Clock,
        changes: Changes,
        feeds: Callable[[], bool],
    ) -> None:
        self._database = database
        self._store = store
        self._fleet = fleet
        self._clock = clock
        self._changes = changes
        self._looking = threading.Lock()
        self._feeds = feeds
        self._measured: float | None = None
        self._given: dict[str, EndpointSpec] = {}
        """What this process gave to the fleet last: another one, or a command, may have changed a row."""

    @property
    def feeds(self) -> bool:
        """Whether this process has the workers; if not, the leader sees to what the rows say."""
        return self._feeds()

    def let_go(self) -> None:
        """Another process leads: its fleet has every endpoint from now on. Nobody waits here for workers that
        finish what they are at.
        """
        given, self._given = self._given, {}
        for name in given:
            threading.Thread(target=self._fleet.release, args=(name,), name="let-go", daemon=True).start()

    def tell(self, spec: EndpointSpec) -> None:
        """Give an endpoint to the fleet, and note what it says; where another process leads, it will."""
        if not self._feeds():
            return
        self._given[spec.name] = spec
        try:
            self._fleet.create(spec)
            status = self._fleet.describe(spec.name)
        except AtelierError as error:
            status = EndpointStatus(EndpointState.FAILED, reason=error.message)
        self.note(spec.name, status, None)
        self._changes.notify(WORK)

    def observe(self, finish: Callable[[str], None]) -> None:
        """Bring the rows up to what the fleet and the workers say, and tell the fleet the demand; wake the
        dispatcher where that makes room. `finish` ends the deletion of an endpoint whose workers are gone.
        """
        with self._looking:
            changed = self._look(finish)
            self._publish_demand()
            self._measure()
        if changed:
            self._changes.notify(WORK)

    def note(self, name: str, status: EndpointStatus, instances: dict[str, InstanceState] | None) -> None:
        """Write down what is known of an endpoint; its last error outlives its end."""
        with self._database.session() as session:
            row = session.get(Endpoint, name, with_for_update=True)
            if row is None:
                return
            row.state, row.reason, row.instances = status.state.value, status.reason, status.instances
            row.wanted, row.leaving, row.note = status.wanted, status.leaving, status.note
            if status.reason and (status.reason != row.last_error or row.last_error_at is None):
                row.last_error, row.last_error_at = status.reason, self._clock.now()
            if instances is None:
                return
            session.execute(delete(Instance).where(Instance.endpoint == name))
            session.add_all(
                Instance(
                    endpoint=name, name=each.instance, at=each.at, described=each.model_dump(mode="json")
                )
                for each in instances.values()
            )

    def _look(self, finish: Callable[[str], None]) -> bool:
        """Whether something had changed."""
        changed = False
        for name, (spec, row) in self._rows().items():
            status = self._fleet.describe(name)
            if row.state is EndpointState.DELETING:
                if status.state is EndpointState.DELETED:
                    finish(name)
                elif status.state is not EndpointState.DELETING:
                    self._fleet.delete(name)
                continue
            if status.state is EndpointState.DELETED or self._given.get(name) != spec:
                self.tell(spec)
                continue
            instances = self._instances(name)
            if status != row or self._differs(name, instances):
                self.note(name, status, instances)
                changed = True
        return changed

    def _rows(self) -> dict[str, tuple[EndpointSpec, EndpointStatus]]:
        with self._database.reading() as session:
            rows = session.scalars(select(Endpoint).order_by(Endpoint.name))
            return {row.name: (specification(row), status_of(row)) for row in rows}

    def _instances(self, name: str) -> dict[str, InstanceState]:
        """Workers that described themselves lately, by name."""
        found = {}
        for blob in self._store.list(keys.instance(name, "x").removesuffix("x.json")):
            if blob.modified < self._clock.now() - SILENT_SECONDS:
                continue
            try:
                state = InstanceState.model_validate(json.loads(self._store.get(blob.key)))
            except (NotFound, ValidationError, ValueError):
                continue
            if state.status != "stopped":
                found[state.instance] = state
        return found

    def _differs(self, name: str, instances: dict[str, InstanceState]) -> bool:
        with self._database.reading() as session:
            known = {
                row.name: row.at for row in session.scalars(select(Instance).where(Instance.endpoint == name))
            }
        return known != {each.instance: each.at for each in instances.values()}

    def _publish_demand(self) -> None:
        with self._database.reading() as session:
            found = demands(session)
        for name, parts in found.items():
            self._fleet.demand(name, parts)

    def _measure(self) -> None:
        """Write down for how long instances ran since the last look, by endpoint and day, and what that
        cost.
        """
        now, passed, before = self._clock.now(), self._clock.monotonic(), self._measured
        self._measured = passed
        if before is None or not 0 < passed - before <= LONGEST_MEASURE:
            return
        with self._database.session() as session:
            rows = session.scalars(select(Endpoint).where(Endpoint.instances + Endpoint.leaving > 0))
            running = [(row.name, row.instances + row.leaving, row.price_hour) for row in rows]
            for name, instances, price in running:
                seconds = (passed - before) * instances
                usage = session.get(EndpointUsage, (name, day_of(now)), with_for_update=True)
                if usage is None:
                    usage = EndpointUsage(endpoint=name, day=day_of(now), seconds=0.0, cost=0.0)
                    session.add(usage)
                usage.seconds += seconds
                usage.cost += seconds * price / HOUR


def specification(row: Endpoint) -> EndpointSpec:
    """A row as the fleet takes it."""
    return EndpointSpec(
        name=row.name,
        min_instances=row.min_instances,
        max_instances=row.max_instances,
        slots=row.slots,
        idle_seconds=row.idle_seconds,
        threads=row.threads,
        options=dict(row.options or {}),
        target=row.target,
        instance_type=row.instance_type,
        price_hour=row.price_hour,
        kind=row.kind,
        image=row.image,
        metric=row.metric,
        schedule=row.schedule,
    )


def status_of(row: Endpoint) -> EndpointStatus:
    """A row as the fleet described it last."""
    state = EndpointState(row.state)
    return EndpointStatus(state, row.instances, row.reason, row.wanted, row.leaving, row.note)


def day_of(seconds: float) -> str:
    """The day of unix seconds in UTC, as 2031-12-24."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d")


def hot_of(described: Iterable[dict[str, object]]) -> tuple[str, ...]:
    """The weights in memory of instances as they described themselves, by the sha256 of their blob."""
    found: set[str] = set()
    for state in described:
        hot = state.get("hot")
        if isinstance(hot, (list, tuple)):
            found.update(map(str, hot))
    return tuple(sorted(found))
