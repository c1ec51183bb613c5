"""Settings of the platform, of teams and of users: shown, changed, locked, and brought back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from atelier import ownoptions
from atelier.contract.errors import Conflict, InvalidRequest, NotFound, UnknownName
from atelier.contract.models import Catalogue, ModelKind
from atelier.ignored import Ignored
from portal.db.base import Database
from portal.db.identity import User
from portal.db.preferences import SettingsVersion
from portal.db.rights import Team
from portal.domain.access import EVERYBODY, SubjectKind
from portal.domain.levels import Layer, Level, merged
from portal.services import audit
from portal.services.access import endpoints_of
from portal.services.audit import Actor
from portal.services.models import catalogue
from portal.services.ports import Clock
from portal.services.setting_layers import Standing, beneath_user, newest, platform_layer, team_layer


@dataclass(frozen=True)
class Scope:
    """Whose settings: the platform's, a team's, a user's."""

    kind: SubjectKind
    subject: str


PLATFORM = Scope(SubjectKind.EVERYBODY, EVERYBODY)


def of_team(team_id: str) -> Scope:
    """The settings of a team."""
    return Scope(SubjectKind.TEAM, team_id)


def of_user(user_id: str) -> Scope:
    """A user's own settings."""
    return Scope(SubjectKind.USER, user_id)


@dataclass(frozen=True)
class SettingView:
    """One option as it holds in a scope. `own`: whether the scope itself sets it; `locks`: whether the scope
    itself locks it; `locked_by`: who has locked it, empty for nobody.
    """

    key: str
    value: Any
    default: Any
    level: Level
    source: str
    own: bool
    locks: bool
    locked_by: str


@dataclass(frozen=True)
class ScopeView:
    """Every option that can be set, as it holds in a scope, and the number of the version that holds (0 where
    nothing was ever changed).
    """

    name: str
    version: int
    settings: tuple[SettingView, ...]


@dataclass(frozen=True)
class _Place:
    """A scope with what it lies on and what it holds now, in one session."""

    scope: Scope
    name: str
    object: str
    beneath: tuple[Layer, ...]
    values: Mapping[str, Any]
    locked: frozenset[str]
    number: int
    models: Catalogue
    user: User | None = None
    standing: Standing = field(init=False)
    inherited: Standing = field(init=False)

    def __post_init__(self) -> None:
        levels = {SubjectKind.EVERYBODY: Level.PLATFORM, SubjectKind.TEAM: Level.TEAM}
        own = Layer(levels.get(self.scope.kind, Level.USER), self.name, self.values, self.locked)
        object.__setattr__(self, "standing", Standing(merged([*self.beneath, own])))
        object.__setattr__(self, "inherited", Standing(merged(self.beneath)))


class SettingLevels:
    """The use cases about them. Each change is a version, with an audit entry in its own transaction."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def view(self, actor: Actor, scope: Scope) -> ScopeView:
        """Raises NotFound for a team or user who does not exist."""
        with self._database.reading() as session:
            place = _place(session, actor, scope)
        defaults, held = ownoptions.known(), place.standing.held
        return ScopeView(
            place.name,
            place.number,
            tuple(_view(key, defaults[key], place, held) for key in sorted(ownoptions.SERVED, key=str.lower)),
        )

    def shown(self, user_id: str) -> dict[str, Any]:
        """Every option there is as it holds for a user, and the studio's standard checkpoint where no level
        names one.
        """
        with self._database.reading() as session:
            place = _place(session, audit.Named(user_id, ""), of_user(user_id))
        return _shown(place.standing.values, place.models)

    def change(
        self,
        actor: Actor,
        scope: Scope,
        given: Mapping[str, Any],
        locks: Mapping[str, bool] | None = None,
        origin: audit.Origin | None = None,
    ) -> tuple[Ignored, ...]:
        """Let options hold in a scope from now on, all of them or none; None gives the value from below back.
        `locks`: option -> whether it is locked for what lies above. What was not stored, with the reason.

        Raises UnknownName and InvalidRequest naming the option, Conflict for an option that a level below has
        locked, NotFound.
        """
        with self._writing() as session:
            place = _place(session, actor, scope, lock=True)
            current = _shown(place.standing.values, place.models)
            inherited = _shown(place.inherited.values, place.models)
            wanted = ownoptions.wanted(given, current, place.models, inherited)
            _check_endpoint(session, actor, wanted.changes.get(ownoptions.ENDPOINT))
            changes = {
                name: value
                for name, value in wanted.changes.items()
                if value is not None or name in place.values
            }
            _check_locks(place, changes, locks or {})
            values = {name: value for name, value in {**place.values, **changes}.items() if value is not None}
            locked = (place.locked | _those(locks, True)) - _those(locks, False)
            self._keep(session, actor, place, values, locked, origin=origin)
        return wanted.ignored

    def versions(self, actor: Actor, scope: Scope, limit: int = 100) -> Sequence[SettingsVersion]:
        """The newest versions of a scope, newest first. Raises NotFound."""
        with self._database.reading() as session:
            _place(session, actor, scope)
            return session.scalars(_of(scope).order_by(SettingsVersion.number.desc()).limit(limit)).all()

    def undo(self, actor: Actor, scope: Scope, number: int) -> None:
        """Bring back what version `number` set and locked, as a new version; 0 is the time before the first.
        Raises NotFound.
        """
        with self._writing() as session:
            place = _place(session, actor, scope, lock=True)
            values: Mapping[str, Any] = {}
            locked: frozenset[str] = frozenset()
            if number != 0:
                row = session.scalars(_of(scope).where(SettingsVersion.number == number)).first()
                if row is None:
                    raise NotFound(f"There is no version {number} of these settings.")
                values, locked = row.values, frozenset(row.locked)
            self._keep(session, actor, place, dict(values), locked, undoes_to=number)

    @contextmanager
    def _writing(self) -> Iterator[Session]:
        """A session that writes. Raises Conflict where somebody else wrote the same version meanwhile."""
        try:
            with self._database.session() as session:
                yield session
        except IntegrityError as error:
            raise Conflict(
                "Somebody else changed these settings at the same moment. Look at them again, then repeat."
            ) from error

    def _keep(
        self,
        session: Session,
        actor: Actor,
        place: _Place,
        values: dict[str, Any],
        locked: frozenset[str],
        *,
        undoes_to: int | None = None,
        origin: audit.Origin | None = None,
    ) -> None:
        """Write the next version and its audit entry; nothing where nothing changes."""
        changed = _differing(place.values, values)
        newly, freed = locked - place.locked, place.locked - locked
        if not (changed or newly or freed):
            return
        now, number = self._clock.now(), place.number + 1
        if place.number == 0 and place.values:  # set before there were versions
            session.add(_row(place, 1, dict(place.values), place.locked, sorted(place.values), "", now))
            number = 2
        every = sorted({*changed, *newly, *freed})
        row = _row(place, number, values, locked, every, actor.username[:64], now)
        row.undoes_to = undoes_to
        session.add(row)
        if place.user is not None:
            place.user.settings = values
        told: dict[str, object] = {"options": changed}
        told |= {name: sorted(these) for name, these in (("locked", newly), ("unlocked", freed)) if these}
        if undoes_to is not None:
            told["version"] = undoes_to
        action = "settings.change" if undoes_to is None else "settings.undo"
        audit.record(session, actor, action, place.object, origin=origin, details=told, at=now)


def _row(
    place: _Place,
    number: int,
    values: dict[str, Any],
    locked: frozenset[str],
    changed: list[str],
    by: str,
    at: float,
) -> SettingsVersion:
    return SettingsVersion(
        subject_kind=place.scope.kind.value,
        subject=place.scope.subject,
        number=number,
        values=values,
        locked=sorted(locked),
        changed=changed,
        actor_name=by,
        at=at,
    )


def _of(scope: Scope) -> Any:
    return select(SettingsVersion).where(
        SettingsVersion.subject_kind == scope.kind.value, SettingsVersion.subject == scope.subject
    )


def _place(session: Session, actor: Actor, scope: Scope, *, lock: bool = False) -> _Place:
    """The scope as it is now. Raises NotFound."""
    row = newest(session, scope.kind, scope.subject)
    number, values, locked = 0, {}, frozenset[str]()
    if row is not None:
        number, values, locked = row.number, row.values, frozenset(row.locked)
    models = catalogue(session, actor.user_id)
    if scope.kind is SubjectKind.EVERYBODY:
        return _Place(scope, "the studio", "settings:studio", (), values, locked, number, models)
    if scope.kind is SubjectKind.TEAM:
        team = session.get(Team, scope.subject, with_for_update=lock)
        if team is None:
            raise NotFound("There is no such team.")
        name, below = team_layer(session, team).title, (platform_layer(session),)
        return _Place(scope, name, f"team:{team.name}", below, values, locked, number, models)
    user = session.get(User, scope.subject, with_for_update=lock)
    if user is None:
        raise NotFound("There is no such user.")
    layers = tuple(beneath_user(session, user.id))
    return _Place(
        scope, "yourself", f"user:{user.id}", layers, user.settings, frozenset(), number, models, user
    )


def _check_locks(place: _Place, changes: Mapping[str, Any], locks: Mapping[str, bool]) -> None:
    """Raise Conflict for what a level below has locked, InvalidRequest for a lock that cannot be."""
    held = place.inherited.locks
    for name in (*(name for name, value in changes.items() if value is not None), *_those(locks, True)):
        if name in held:
            raise Conflict(
                f"The option {name!r} is locked by {held[name]}: its value there holds for you too. Ask an "
                "administrator. Nothing was stored.",
                detail={"option": name, "locked_by": held[name]},
            )
    for name in locks:
        if name not in ownoptions.SERVED:
            raise UnknownName.of("option", name, sorted(ownoptions.SERVED))
    if locks and place.scope.kind is SubjectKind.USER:
        raise InvalidRequest("Your own settings lie on top: there is nobody to lock them for.")


def _check_endpoint(session: Session, actor: Actor, name: str | None) -> None:
    """Raise UnknownName for an endpoint that is not there for who sets it."""
    if name in (None, ownoptions.AUTOMATIC) or actor.user_id is None:
        return
    names = endpoints_of(session, actor.user_id)
    if name not in names:
        raise UnknownName.of("endpoint", name, [ownoptions.AUTOMATIC, *names])


def _those(locks: Mapping[str, bool] | None, wanted: bool) -> frozenset[str]:
    return frozenset(name for name, locked in (locks or {}).items() if locked is wanted)


def _differing(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    missing = object()
    return sorted(name for name in {*before, *after} if before.get(name, missing) != after.get(name, missing))


def _view(key: str, default: Any, place: _Place, held: Mapping[str, Any]) -> SettingView:
    own, locks, found = key in place.values, key in place.locked, held.get(key)
    if found is None:
        return SettingView(key, default, default, Level.BUILT_IN, "the built-in default", own, locks, "")
    value = default if found.level is Level.BUILT_IN else found.value
    return SettingView(key, value, default, found.level, found.title, own, locks, found.locked_by)


def _shown(values: Mapping[str, Any], models: Catalogue) -> dict[str, Any]:
    effective = ownoptions.known() | dict(values)
    name = effective.get("sd_model_checkpoint") or models.default_checkpoint
    found = models.find(ModelKind.CHECKPOINT, str(name)) if name else None
    if found is not None:
        effective["sd_model_checkpoint"] = found.title
        effective["sd_checkpoint_hash"] = found.sha256
    return effective
