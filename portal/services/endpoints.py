"""Endpoints: what administrators want, kept in rows; what the fleet makes of it, observed into the same
rows.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from atelier.contract import keys
from atelier.contract.errors import AtelierError, Conflict, InvalidRequest, NotFound
from atelier.contract.jobs import PartState
from atelier.contract.parts import InstanceState
from atelier.storage.base import BlobStore
from portal.db.base import Database
from portal.db.work import Attempt, Endpoint, Instance, Part
from portal.domain.access import ObjectKind
from portal.services import audit
from portal.services.access import Access, forget_object
from portal.services.callers import Caller
from portal.services.changes import WORK, Changes
from portal.services.models import Models
from portal.services.ports import Clock, EndpointSpec, EndpointState, EndpointStatus, Fleet

_NAME = re.compile(r"[A-Za-z0-9](-*[A-Za-z0-9]){0,62}\Z")
"""SageMaker's rule for endpoint names, kept on one machine too."""
SILENT_SECONDS = 60.0
"""An instance that has not described itself for so long is gone."""
_RANGES: Mapping[str, tuple[float, float]] = {
    "min_instances": (0, 1000),
    "max_instances": (1, 1000),
    "slots": (1, 1000),
    "idle_seconds": (5, 7 * 24 * 3600),
    "threads": (1, 1024),
}


@dataclass(frozen=True)
class EndpointView:
    """An endpoint with its load."""

    spec: EndpointSpec
    status: EndpointStatus
    in_flight: int
    queued: int
    hot: tuple[str, ...]
    created: float


class Endpoints:
    """Creates, changes and deletes endpoints; `observe` keeps their rows true."""

    def __init__(
        self,
        database: Database,
        store: BlobStore,
        fleet: Fleet,
        clock: Clock,
        changes: Changes,
        models: Models,
    ) -> None:
        self._database = database
        self._store = store
        self._fleet = fleet
        self._clock = clock
        self._changes = changes
        self._models = models

    def create(self, actor: audit.Actor, spec: EndpointSpec) -> EndpointView:
        """Make an endpoint. Raises Conflict for a taken name, InvalidRequest for numbers out of range, the
        fleet's own errors.
        """
        _check(spec)
        with self._database.session() as session:
            if session.get(Endpoint, spec.name) is not None:
                raise Conflict(f"There is already an endpoint named {spec.name!r}.")
            row = Endpoint(name=spec.name, created=self._clock.now())
            _write(row, spec)
            session.add(row)
            audit.record(session, actor, "endpoint.create", f"endpoint:{spec.name}", details=_numbers(spec))
        self._models.publish(spec.name)
        self._tell(spec)
        return self.get(spec.name)

    def update(self, actor: audit.Actor, name: str, changed: Mapping[str, Any]) -> EndpointView:
        """Change some numbers of an endpoint. Raises NotFound, InvalidRequest."""
        with self._database.session() as session:
            row = session.get(Endpoint, name, with_for_update=True)
            if row is None:
                raise NotFound(f"There is no endpoint named {name[:80]!r}.")
            spec = EndpointSpec(**{**vars(specification(row)), **changed, "name": name})
            _check(spec)
            _write(row, spec)
            audit.record(session, actor, "endpoint.update", f"endpoint:{name}", details=dict(changed))
        self._tell(spec)
        return self.get(name)

    def delete(self, actor: audit.Actor, name: str) -> None:
        """Take an endpoint away. What waits for it by name goes to any other. Raises NotFound, Conflict
        while it works.
        """
        with self._database.session() as session:
            row = session.get(Endpoint, name, with_for_update=True)
            if row is None:
                raise NotFound(f"There is no endpoint named {name[:80]!r}.")
            if _count_open(session, name):
                raise Conflict(
                    f"The endpoint {name!r} is at work. Cancel its jobs or wait for them, then delete it."
                )
            for part in session.scalars(
                select(Part).where(Part.wanted_endpoint == name, Part.state == PartState.QUEUED.value)
            ):
                part.wanted_endpoint = None
            session.execute(delete(Instance).where(Instance.endpoint == name))
            session.delete(row)
            forget_object(session, ObjectKind.ENDPOINT, [name])
            audit.record(session, actor, "endpoint.delete", f"endpoint:{name}")
        self._fleet.delete(name)
        for key in (keys.catalogue(name), keys.endpoint_control(name)):
            self._store.delete(key)
        self._changes.notify(WORK)

    def get(self, name: str, viewer: Caller | None = None) -> EndpointView:
        """One endpoint. Raises NotFound, also for one that is closed to `viewer`."""
        with self._database.reading() as session:
            row = session.get(Endpoint, name)
            if row is None or not _may_see(session, viewer, name):
                raise NotFound(f"There is no endpoint named {name[:80]!r}.")
            return _view(session, row)

    def listed(self, viewer: Caller | None = None) -> list[EndpointView]:
        """Every endpoint by name; without those closed to `viewer`, if any."""
        with self._database.reading() as session:
            rows = session.scalars(select(Endpoint).order_by(Endpoint.name)).all()
            return [_view(session, row) for row in rows if _may_see(session, viewer, row.name)]

    def resume(self) -> None:
        """Give every endpoint of the database to the fleet: what a portal does when it starts."""
        for view in self.listed():
            self._models.publish(view.spec.name)
            self._tell(view.spec)

    def observe(self) -> None:
        """Bring the rows up to what the fleet and the workers say; wake the dispatcher where that makes
        room.
        """
        changed = False
        for view in self.listed():
            status = self._fleet.describe(view.spec.name)
            instances = self._instances(view.spec.name)
            if status != view.status or self._differs(view.spec.name, instances):
                self._note(view.spec.name, status, instances)
                changed = True
        if changed:
            self._changes.notify(WORK)

    def _tell(self, spec: EndpointSpec) -> None:
        try:
            self._fleet.create(spec)
            status = self._fleet.describe(spec.name)
        except AtelierError as error:
            status = EndpointStatus(EndpointState.FAILED, reason=error.message)
        self._note(spec.name, status, None)
        self._changes.notify(WORK)

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

    def _note(self, name: str, status: EndpointStatus, instances: dict[str, InstanceState] | None) -> None:
        with self._database.session() as session:
            row = session.get(Endpoint, name, with_for_update=True)
            if row is None:
                return
            row.state, row.reason, row.instances = status.state.value, status.reason, status.instances
            if instances is None:
                return
            session.execute(delete(Instance).where(Instance.endpoint == name))
            session.add_all(
                Instance(
                    endpoint=name, name=each.instance, at=each.at, described=each.model_dump(mode="json")
                )
                for each in instances.values()
            )


def _may_see(session: Session, viewer: Caller | None, name: str) -> bool:
    """Whether an endpoint is there for `viewer`. Who looks after endpoints sees all of them."""
    if viewer is None or viewer.may("endpoints.manage"):
        return True
    return Access(session, viewer.user_id).endpoint(name)


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
    )


def _write(row: Endpoint, spec: EndpointSpec) -> None:
    for field, value in vars(spec).items():
        if field != "name":
            setattr(row, field, value)


def _view(session: Session, row: Endpoint) -> EndpointView:
    queued = session.scalar(
        select(func.count()).where(Part.state == PartState.QUEUED.value, Part.wanted_endpoint == row.name)
    )
    described = session.scalars(select(Instance.described).where(Instance.endpoint == row.name)).all()
    return EndpointView(
        spec=specification(row),
        status=EndpointStatus(EndpointState(row.state), row.instances, row.reason),
        in_flight=_count_open(session, row.name),
        queued=queued or 0,
        hot=tuple(sorted({blob for state in described for blob in state["hot"]})),
        created=row.created,
    )


def _count_open(session: Session, name: str) -> int:
    return session.scalar(select(func.count()).where(Attempt.open, Attempt.endpoint == name)) or 0


def _check(spec: EndpointSpec) -> None:
    if not _NAME.match(spec.name):
        raise InvalidRequest(
            "An endpoint's name has up to 63 letters, digits and hyphens, and begins and ends with no hyphen."
        )
    if spec.name == "automatic":
        raise InvalidRequest("The name 'automatic' means any endpoint. Choose another.")
    for field, (low, high) in _RANGES.items():
        if not low <= getattr(spec, field) <= high:
            raise InvalidRequest(
                f"{field} is {getattr(spec, field):g}; it must be from {low:g} to {high:g}.",
                detail={"field": field},
            )
    if spec.min_instances > spec.max_instances:
        raise InvalidRequest("min_instances must not exceed max_instances.")


def _numbers(spec: EndpointSpec) -> dict[str, Any]:
    return {field: value for field, value in vars(spec).items() if field not in ("name", "options")}
