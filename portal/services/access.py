"""Rules on single endpoints and models: kept, and asked at submission and again at dispatch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

from sqlalchemy import ColumnElement, delete, select
from sqlalchemy.orm import Session

from atelier.contract.errors import InvalidRequest, NotFound, NotPermitted
from atelier.contract.parts import ResolvedPart
from portal.db.base import Database, new_id
from portal.db.rights import AccessRule
from portal.db.work import Endpoint, Model, Part
from portal.domain.access import (
    EVERYBODY,
    Effect,
    ObjectKind,
    Rule,
    Subject,
    SubjectKind,
    may_use,
)
from portal.domain.sharing import Shared, Visibility, may_see
from portal.services import audit
from portal.services.audit import Actor
from portal.services.changes import WORK, Changes
from portal.services.ports import Clock, EndpointKind
from portal.services.rights import permissions_of
from portal.services.subjects import Subjects, subject_of

Rules = dict[tuple[ObjectKind, str], list[Rule]]

UNLIMITED = "access.manage"
"""Who has this permission may use everything: they could lift any rule anyway."""

KEEPER = "models.manage"
"""Who has this permission sees every model, also those that others keep for themselves."""


class UsableModel(Shared, Protocol):
    """A model's row, or those of its columns that say whose it is."""

    @property
    def id(self) -> str:
        """The model's id."""
        ...


@dataclass(frozen=True)
class RuleView:
    """A rule in words: the object's and the subject's names as people know them."""

    id: str
    object_kind: ObjectKind
    object: str
    object_name: str
    subject_kind: SubjectKind
    subject: str
    subject_name: str
    effect: Effect


class Access:
    """What one user may use, in a session of the caller's."""

    def __init__(self, session: Session, user_id: str, rules: Rules | None = None) -> None:
        self._session, self._user_id = session, user_id
        self._rules = rules_there_are(session) if rules is None else rules
        self._free = not any(self._rules.values())
        if not self._free:
            self._free = UNLIMITED in self._permissions

    def endpoint(self, name: str) -> bool:
        """Whether the user's work may go to the endpoint."""
        return self._may(ObjectKind.ENDPOINT, name)

    def model(self, model: UsableModel) -> bool:
        """Whether the user may draw with the model: it is theirs or shared with them, and no rule closes it.
        Who looks after models sees everybody's. To be asked while the session is open.
        """
        if not self._sees(model):
            return False
        return self._may(ObjectKind.MODEL, model.id)

    def _sees(self, model: UsableModel) -> bool:
        if model.visibility == Visibility.STUDIO or model.owner_id == self._user_id:
            return True
        return may_see(self._user_id, self._subject.teams, model) or KEEPER in self._permissions

    def _may(self, kind: ObjectKind, name: str) -> bool:
        return self._free or may_use(self._subject, self._rules.get((kind, name), ()))

    @cached_property
    def _subject(self) -> Subject:
        return subject_of(self._session, self._user_id)

    @cached_property
    def _permissions(self) -> frozenset[str]:
        return permissions_of(self._session, self._subject.roles)


def takes_parts() -> ColumnElement[bool]:
    """Which endpoints take parts of jobs, as a condition: custom ones do not."""
    return Endpoint.kind.not_in([each.value for each in EndpointKind if each.custom])


def endpoints_of(session: Session, user_id: str) -> list[str]:
    """The names of the endpoints that a user's work may go to: custom ones take no parts of jobs."""
    access = Access(session, user_id)
    every = session.scalars(select(Endpoint.name).where(takes_parts()).order_by(Endpoint.name))
    return [name for name in every if access.endpoint(name)]


def refusal(session: Session, part: Part, endpoint: str) -> NotPermitted | None:
    """Why a part must not be made on the endpoint any more: what its owner was allowed at submission may have
    been taken away since.
    """
    access = Access(session, part.owner_id)
    if not access.endpoint(endpoint):
        return NotPermitted(f"You may not use the endpoint {endpoint!r} any more. Ask an administrator.")
    named = {model.sha256: model.name for model in ResolvedPart.model_validate(part.resolved).models}
    rows = session.scalars(select(Model).where(Model.sha256.in_(named))).all()
    open_to_them = {row.sha256 for row in rows if access.model(row)}
    closed = {row.sha256 for row in rows} - open_to_them
    if closed:
        name = named[min(closed)]
        return NotPermitted(f"You may not use the model {name!r} any more. Ask who looks after it.")
    return None


class AccessRules:
    """The use cases about rules. Each leaves an audit entry in its own transaction."""

    def __init__(self, database: Database, clock: Clock, changes: Changes) -> None:
        self._database = database
        self._clock = clock
        self._changes = changes

    def listed(self, kind: ObjectKind | None = None, object: str | None = None) -> Sequence[RuleView]:
        """Every rule, or those on one kind of object or one object."""
        query = select(AccessRule).order_by(AccessRule.object_kind, AccessRule.object, AccessRule.id)
        if kind is not None:
            query = query.where(AccessRule.object_kind == kind.value)
        if object is not None:
            query = query.where(AccessRule.object == object)
        with self._database.reading() as session:
            names = _Names(session)
            return [names.view(row) for row in session.scalars(query)]

    def put(
        self,
        actor: Actor,
        object_kind: ObjectKind,
        object: str,
        subject_kind: SubjectKind,
        subject: str,
        effect: Effect,
    ) -> RuleView:
        """Let a subject use an object, or not; a rule on the same two is replaced. Raises InvalidRequest for
        what does not exist.
        """
        subject = EVERYBODY if subject_kind is SubjectKind.EVERYBODY else subject
        with self._database.session() as session:
            names = _Names(session)
            names.check(object_kind, object, subject_kind, subject)
            row = session.scalar(
                select(AccessRule)
                .where(
                    AccessRule.object_kind == object_kind.value,
                    AccessRule.object == object,
                    AccessRule.subject_kind == subject_kind.value,
                    AccessRule.subject == subject,
                )
                .with_for_update()
            )
            if row is None:
                row = AccessRule(
                    id=new_id(),
                    object_kind=object_kind.value,
                    object=object,
                    subject_kind=subject_kind.value,
                    subject=subject,
                    created=self._clock.now(),
                )
                session.add(row)
            row.effect = effect.value
            view = names.view(row)
            _note(session, actor, f"access.{effect.value}", view)
        self._changes.notify(WORK)
        return view

    def delete(self, actor: Actor, rule_id: str) -> None:
        """Take a rule away. Raises NotFound."""
        with self._database.session() as session:
            row = session.get(AccessRule, rule_id, with_for_update=True)
            if row is None:
                raise NotFound("There is no such rule.")
            view = _Names(session).view(row)
            session.delete(row)
            _note(session, actor, "access.lift", view)
        self._changes.notify(WORK)


def forget_object(session: Session, kind: ObjectKind, objects: Iterable[str]) -> None:
    """Take the rules on what is being deleted away, in the caller's transaction."""
    session.execute(
        delete(AccessRule).where(AccessRule.object_kind == kind.value, AccessRule.object.in_(list(objects)))
    )


def rules_there_are(session: Session) -> Rules:
    """Every rule, by what it is about."""
    found: Rules = {}
    for row in session.scalars(select(AccessRule)):
        rule = Rule(SubjectKind(row.subject_kind), row.subject, Effect(row.effect))
        found.setdefault((ObjectKind(row.object_kind), row.object), []).append(rule)
    return found


def _note(session: Session, actor: Actor, action: str, rule: RuleView) -> None:
    person = rule.subject_name if rule.subject_kind is SubjectKind.USER else ""
    details = {"subject": f"{rule.subject_kind.value}:{rule.subject_name}"}
    about = f"{rule.object_kind.value}:{rule.object_name}"
    audit.record(session, actor, action, about, subject=person, details=details)


class _Names:
    """What objects and subjects are called, and whether they exist."""

    def __init__(self, session: Session) -> None:
        self._subjects = Subjects(session)
        self._objects: dict[ObjectKind, dict[str, str]] = {
            ObjectKind.ENDPOINT: {name: name for name in session.scalars(select(Endpoint.name))},
            ObjectKind.MODEL: {each.id: each.name for each in session.execute(select(Model.id, Model.name))},
        }

    def check(self, object_kind: ObjectKind, object: str, subject_kind: SubjectKind, subject: str) -> None:
        """Raise InvalidRequest for an object or a subject that does not exist."""
        if object not in self._objects[object_kind]:
            raise InvalidRequest(f"There is no {object_kind.value} {object[:80]!r} to make a rule of.")
        self._subjects.check(subject_kind, subject)

    def view(self, row: AccessRule) -> RuleView:
        """A row in words; what is gone goes by its id."""
        object_kind, subject_kind = ObjectKind(row.object_kind), SubjectKind(row.subject_kind)
        return RuleView(
            row.id,
            object_kind,
            row.object,
            self._objects[object_kind].get(row.object, row.object),
            subject_kind,
            row.subject,
            self._subjects.name(subject_kind, row.subject),
            Effect(row.effect),
        )
