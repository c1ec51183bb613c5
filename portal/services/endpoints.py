"""Endpoints: what administrators want, kept in rows; what the fleet makes of it, observed into the same
rows.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from atelier.contract import keys
from atelier.contract.errors import Conflict, InvalidRequest, NotFound, UnknownName
from atelier.contract.jobs import PartState
from atelier.storage.base import BlobStore
from portal.db.base import Database
from portal.db.work import Attempt, Endpoint, Instance, Part
from portal.domain import schedule
from portal.domain.access import ObjectKind
from portal.domain.conditions import Condition, Observed, condition
from portal.services import audit
from portal.services.access import Access, forget_object
from portal.services.callers import Caller
from portal.services.changes import WORK, Changes
from portal.services.demand import demands
from portal.services.endpoint_watch import EndpointWatch, hot_of, specification, status_of
from portal.services.models import Models
from portal.services.ports import (
    Clock,
    EndpointKind,
    EndpointSpec,
    EndpointState,
    EndpointStatus,
    Fleet,
    InstanceType,
    Metric,
)

_NAME = re.compile(r"[A-Za-z0-9](-*[A-Za-z0-9]){0,62}\Z")
"""SageMaker's rule for endpoint names, kept on one machine too."""
_RANGES: Mapping[str, tuple[float, float]] = {
    "min_instances": (0, 1000),
    "max_instances": (1, 1000),
    "slots": (1, 1000),
    "idle_seconds": (5, 7 * 24 * 3600),
    "threads": (1, 1024),
    "target": (1, 100_000),
    "price_hour": (0, 100_000),
}

_OPTIONS = (
    "device",
    "dtype",
    "attention",
    "channels_last",
    "cuda_graphs",
    "model_memory",
    "model_cache_bytes",
)
"""Settings of workers that an endpoint may change: how they compute and what they keep in memory. Where the
store is, the keys, and where they listen are the studio's.
"""
_IMAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@-]{0,254}\Z")
"""What SageMaker takes as an image."""
LONGEST_SCHEDULE = 400
_VALUE = re.compile(r"[A-Za-z0-9._:-]{1,40}\Z")


@dataclass(frozen=True)
class EndpointView:
    """An endpoint with its load. `condition` is the word people read, `because` the sentence that says why;
    `demand` is what it scales by; `queued` asked for it by name.
    """

    spec: EndpointSpec
    status: EndpointStatus
    in_flight: int
    queued: int
    hot: tuple[str, ...]
    created: float
    condition: Condition
    because: str
    demand: int
    last_error: str
    last_error_at: float | None
    workers: tuple[Mapping[str, Any], ...] = ()
    """Its workers as they described themselves (InstanceState)."""


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
        feeds: Callable[[], bool] = lambda: True,
    ) -> None:
        self._database = database
        self._store = store
        self._fleet = fleet
        self._clock = clock
        self._changes = changes
        self._models = models
        self._watch = EndpointWatch(database, store, fleet, clock, changes, feeds)

    def offers(self) -> tuple[InstanceType, ...]:
        """The kinds of instances there are to choose from."""
        return self._fleet.offers()

    def begun(self, given: Mapping[str, Any]) -> EndpointSpec:
        """A new endpoint of what is given; slots and price that are not are those of its kind of instance."""
        kind = next((each for each in self.offers() if each.name == given.get("instance_type")), None)
        brought = {"slots": kind.slots, "price_hour": kind.price_hour} if kind else {}
        return EndpointSpec(**{**brought, **given})

    def create(self, actor: audit.Actor, spec: EndpointSpec) -> EndpointView:
        """Make an endpoint. Raises Conflict for a taken name, InvalidRequest for numbers out of range, the
        fleet's own errors.
        """
        spec = self._settled(spec)
        with self._database.session() as session:
            known = session.get(Endpoint, spec.name)
            if known is not None:
                going = known.state == EndpointState.DELETING
                told = "It is being deleted; try again in a moment." if going else ""
                raise Conflict(f"There is already an endpoint named {spec.name!r}. {told}".strip())
            row = Endpoint(name=spec.name, created=self._clock.now())
            _write(row, spec)
            session.add(row)
            audit.record(session, actor, "endpoint.create", f"endpoint:{spec.name}", details=_numbers(spec))
        self._models.publish(spec.name)
        self._watch.tell(spec)
        return self.get(spec.name)

    def update(self, actor: audit.Actor, name: str, changed: Mapping[str, Any]) -> EndpointView:
        """Change some numbers of an endpoint. Raises NotFound, InvalidRequest."""
        with self._database.session() as session:
            row = _kept(session, name)
            before = specification(row)
            if before.instance_type and changed.get("instance_type") == "":
                brought = {key: value for key, value in before.options.items() if key != "device"}
                before = replace(before, options=brought)
            spec = self._settled(EndpointSpec(**{**vars(before), **changed, "name": name}))
            if spec.kind != row.kind:
                raise Conflict(
                    f"The endpoint {name!r} stays {row.kind}: how it is asked cannot change. "
                    "Make another one of that kind."
                )
            _write(row, spec)
            audit.record(session, actor, "endpoint.update", f"endpoint:{name}", details=dict(changed))
        self._watch.tell(spec)
        return self.get(name)

    def delete(self, actor: audit.Actor, name: str) -> None:
        """Take an endpoint away. What waits for it by name goes to any other. Raises NotFound, Conflict
        while it works. Where its workers take a while to stop, it is there as `deleting` until then.
        """
        with self._database.session() as session:
            row = _kept(session, name)
            if _count_open(session, name):
                raise Conflict(
                    f"The endpoint {name!r} is at work. Cancel its jobs or wait for them, then delete it."
                )
            row.state, row.reason = EndpointState.DELETING.value, ""
            _open_to_all(session, name)
            audit.record(session, actor, "endpoint.delete", f"endpoint:{name}")
        if self._watch.feeds:
            self._fleet.delete(name)
            if self._fleet.describe(name).state is EndpointState.DELETED:
                self._finish(name)
        self._changes.notify(WORK)

    def get(self, name: str, viewer: Caller | None = None) -> EndpointView:
        """One endpoint. Raises NotFound, also for one that is closed to `viewer`."""
        with self._database.reading() as session:
            row = session.get(Endpoint, name)
            if row is None or not _may_see(session, viewer, name):
                raise NotFound(f"There is no endpoint named {name[:80]!r}.")
            return _view(session, row, demands(session))

    def listed(self, viewer: Caller | None = None) -> list[EndpointView]:
        """Every endpoint by name; without those closed to `viewer`, if any."""
        with self._database.reading() as session:
            rows = session.scalars(select(Endpoint).order_by(Endpoint.name)).all()
            asked = demands(session)
            return [_view(session, row, asked) for row in rows if _may_see(session, viewer, row.name)]

    def resume(self) -> None:
        """Give every endpoint of the database to the fleet: what a portal does when it starts."""
        for view in self.listed():
            if view.status.state is not EndpointState.DELETING:
                self._models.publish(view.spec.name)
                self._watch.tell(view.spec)

    def let_go(self) -> None:
        """Another process leads from now on: its fleet has the workers."""
        self._watch.let_go()

    def observe(self) -> None:
        """Bring the rows up to what the fleet and the workers say, and the fleet up to what the rows want."""
        self._watch.observe(self._finish)
        self._free_the_stranded()

    def _free_the_stranded(self) -> None:
        """Let what waits for an endpoint that is gone be made anywhere: it was accepted, or tried again,
        while that went.
        """
        there = select(Endpoint.name).where(Endpoint.state != EndpointState.DELETING.value)
        stranded = select(Part.wanted_endpoint).where(
            Part.state == PartState.QUEUED.value,
            Part.wanted_endpoint.is_not(None),
            Part.wanted_endpoint.not_in(there),
        )
        with self._database.reading() as session:
            names = set(session.scalars(stranded.distinct()))
        if not names:
            return
        with self._database.session() as session:
            for name in filter(None, sorted(names, key=str)):
                _open_to_all(session, name)
        self._changes.notify(WORK)

    def _settled(self, spec: EndpointSpec) -> EndpointSpec:
        """The specification with what its kind of instance brings. Raises InvalidRequest for numbers out of
        range and for a kind that nobody offers.
        """
        _check(spec)
        self._fleet.check(spec)
        if not spec.instance_type:
            return spec
        offered = {each.name: each for each in self._fleet.offers()}
        if spec.instance_type not in offered:
            raise InvalidRequest(
                f"There are no instances of the kind {spec.instance_type[:60]!r} here. "
                f"There are: {', '.join(offered)}.",
                detail={"field": "instance_type"},
            )
        kind = offered[spec.instance_type]
        return replace(spec, threads=kind.threads, options={**spec.options, "device": kind.device})

    def _finish(self, name: str) -> None:
        """Forget an endpoint whose workers are gone."""
        with self._database.session() as session:
            row = session.get(Endpoint, name, with_for_update=True)
            if row is None or row.state != EndpointState.DELETING:
                return
            _open_to_all(session, name)
            session.execute(delete(Instance).where(Instance.endpoint == name))
            session.delete(row)
            forget_object(session, ObjectKind.ENDPOINT, [name])
        for key in (keys.catalogue(name), keys.endpoint_control(name)):
            self._store.delete(key)


def _kept(session: Session, name: str) -> Endpoint:
    """The row of an endpoint that is to stay, locked. Raises NotFound."""
    row = session.get(Endpoint, name, with_for_update=True)
    if row is None or row.state == EndpointState.DELETING:
        raise NotFound(f"There is no endpoint named {name[:80]!r}.")
    return row


def _open_to_all(session: Session, name: str) -> None:
    """Let what waits for an endpoint by name be made anywhere."""
    for part in session.scalars(
        select(Part).where(Part.wanted_endpoint == name, Part.state == PartState.QUEUED.value)
    ):
        part.wanted_endpoint = None


def _may_see(session: Session, viewer: Caller | None, name: str) -> bool:
    """Whether an endpoint is there for `viewer`. Who looks after endpoints sees all of them."""
    if viewer is None or viewer.may("endpoints.manage"):
        return True
    return Access(session, viewer.user_id).endpoint(name)


def _write(row: Endpoint, spec: EndpointSpec) -> None:
    for field, value in vars(spec).items():
        if field != "name":
            setattr(row, field, value)


def _view(session: Session, row: Endpoint, asked: Mapping[str, int]) -> EndpointView:
    queued = session.scalar(
        select(func.count()).where(Part.state == PartState.QUEUED.value, Part.wanted_endpoint == row.name)
    )
    running = session.scalar(
        select(func.count()).where(Part.state == PartState.RUNNING.value, Part.endpoint == row.name)
    )
    workers = session.scalars(
        select(Instance.described).where(Instance.endpoint == row.name).order_by(Instance.name)
    ).all()
    in_flight, hot = _count_open(session, row.name), hot_of(workers)
    status = status_of(row)
    observed = Observed(
        **{**vars(status), "state": status.state.value},
        queued=queued or 0,
        in_flight=in_flight,
        running=running or 0,
        hot=len(hot),
    )
    word, because = condition(observed)
    return EndpointView(
        spec=specification(row),
        status=status,
        in_flight=in_flight,
        queued=queued or 0,
        hot=hot,
        created=row.created,
        condition=word,
        because=because,
        demand=asked.get(row.name, 0),
        last_error=row.last_error,
        last_error_at=row.last_error_at,
        workers=tuple(workers),
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
        value = getattr(spec, field)
        if value is not None and not low <= value <= high:
            raise InvalidRequest(
                f"{field} is {str(value)[:20]}; it must be from {low:g} to {high:g}.",
                detail={"field": field},
            )
    if spec.min_instances > spec.max_instances:
        raise InvalidRequest("min_instances must not exceed max_instances.")
    _check_options(spec.options)
    _check_kind(spec)


def _check_kind(spec: EndpointSpec) -> None:
    """Raise UnknownName, InvalidRequest for a kind, metric, image or hours that no fleet knows."""
    kinds, metrics = [each.value for each in EndpointKind], [each.value for each in Metric]
    if spec.kind not in kinds:
        raise UnknownName.of("kind of endpoint", spec.kind, kinds)
    if spec.metric not in metrics:
        raise UnknownName.of("metric", spec.metric, metrics)
    if bool(spec.image) is not EndpointKind(spec.kind).custom:
        needs = "needs an image" if not spec.image else "runs the deployment's own image"
        raise InvalidRequest(f"An endpoint of the kind {spec.kind} {needs}.", detail={"field": "image"})
    if spec.image and not _IMAGE.match(spec.image):
        raise InvalidRequest(
            "An image is named as its registry does: REGISTRY/REPOSITORY:TAG or @sha256:DIGEST.",
            detail={"field": "image"},
        )
    if len(spec.schedule) > LONGEST_SCHEDULE:
        raise InvalidRequest(f"A schedule has up to {LONGEST_SCHEDULE} characters.")
    try:
        schedule.parse(spec.schedule)
    except ValueError as error:
        raise InvalidRequest(str(error), detail={"field": "schedule"}) from error


def _check_options(options: Mapping[str, str]) -> None:
    """Raise UnknownName, InvalidRequest for what is no setting of workers that an endpoint may change."""
    for name, value in options.items():
        if name not in _OPTIONS:
            raise UnknownName.of("option of endpoints", name, _OPTIONS)
        if not _VALUE.match(value):
            raise InvalidRequest(
                f"The option {name} has up to 40 letters, digits and . _ : - as its value.",
                detail={"field": "options"},
            )


def _numbers(spec: EndpointSpec) -> dict[str, Any]:
    return {field: value for field, value in vars(spec).items() if field not in ("name", "options")}
