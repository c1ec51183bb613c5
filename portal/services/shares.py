"""Shares: how much a user counts where several wait, by weights kept for users, teams, roles or everybody."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from atelier.contract.errors import InvalidRequest, NotFound
from portal.db.base import Database
from portal.db.rights import Share as ShareRow
from portal.domain.access import EVERYBODY, Subject, SubjectKind
from portal.domain.fairness import HIGHEST_WEIGHT, LOWEST_WEIGHT, USUAL_WEIGHT
from portal.services import audit
from portal.services.audit import Actor
from portal.services.subjects import Subjects, subject_of

_NEARNESS = (SubjectKind.USER,), (SubjectKind.TEAM, SubjectKind.ROLE), (SubjectKind.EVERYBODY,)


@dataclass(frozen=True)
class ShareView:
    """A weight and whom it is for, by the name people know."""

    subject_kind: SubjectKind
    subject: str
    subject_name: str
    weight: float


class Shares:
    """The use cases about shares."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def listed(self) -> Sequence[ShareView]:
        """Every share that was given."""
        with self._database.reading() as session:
            names = Subjects(session)
            rows = session.scalars(select(ShareRow).order_by(ShareRow.subject_kind, ShareRow.subject))
            return [_view(row, names) for row in rows]

    def put(self, actor: Actor, kind: SubjectKind, subject: str, weight: float) -> ShareView:
        """Let a subject count `weight` times as much as usual. Raises InvalidRequest for a subject that does
        not exist or a weight out of range.
        """
        subject = EVERYBODY if kind is SubjectKind.EVERYBODY else subject
        if not (math.isfinite(weight) and LOWEST_WEIGHT <= weight <= HIGHEST_WEIGHT):
            raise InvalidRequest(
                f"A weight is a number from {LOWEST_WEIGHT:g} to {HIGHEST_WEIGHT:g}; usual is "
                f"{USUAL_WEIGHT:g}.",
                detail={"field": "weight"},
            )
        with self._database.session() as session:
            names = Subjects(session)
            names.check(kind, subject)
            row = session.get(ShareRow, (kind.value, subject), with_for_update=True)
            before = None if row is None else row.weight
            if row is None:
                row = ShareRow(subject_kind=kind.value, subject=subject, weight=weight)
                session.add(row)
            row.weight = weight
            view = _view(row, names)
            if before != weight:
                _note(session, actor, "share.put", view, {"weight": weight, "before": before})
        return view

    def delete(self, actor: Actor, kind: SubjectKind, subject: str) -> None:
        """Take a subject's share away: it counts as much as others say of it. Raises NotFound."""
        with self._database.session() as session:
            row = session.get(ShareRow, (kind.value, subject), with_for_update=True)
            if row is None:
                raise NotFound("There is no such share.")
            view = _view(row, Subjects(session))
            session.delete(row)
            _note(session, actor, "share.delete", view, {"before": row.weight})

    def of(self, user_id: str) -> float:
        """How much a user counts."""
        with self._database.reading() as session:
            return weights(session, [user_id])[user_id]


def weights(session: Session, owners: Collection[str]) -> dict[str, float]:
    """How much each of `owners` counts: what is said of themselves, else the most that is said of their teams
    and roles, else what is said of everybody.
    """
    rows = session.scalars(select(ShareRow)).all()
    if not rows:
        return dict.fromkeys(owners, USUAL_WEIGHT)
    return {owner: _weight(rows, subject_of(session, owner)) for owner in owners}


def _weight(rows: Iterable[ShareRow], subject: Subject) -> float:
    meant = [
        (SubjectKind(row.subject_kind), row.weight)
        for row in rows
        if subject.meant_by(SubjectKind(row.subject_kind), row.subject)
    ]
    for kinds in _NEARNESS:
        said = [weight for kind, weight in meant if kind in kinds]
        if said:
            return max(said)
    return USUAL_WEIGHT


def _view(row: ShareRow, names: Subjects) -> ShareView:
    kind = SubjectKind(row.subject_kind)
    return ShareView(kind, row.subject, names.name(kind, row.subject), row.weight)


def _note(session: Session, actor: Actor, action: str, view: ShareView, told: dict[str, object]) -> None:
    person = view.subject_name if view.subject_kind is SubjectKind.USER else ""
    about = f"share:{view.subject_kind.value}:{view.subject_name}"
    audit.record(session, actor, action, about, subject=person, details=told)
