"""Quotas: kept for users, teams, roles or everybody, and asked in the transaction that accepts a job."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from atelier.contract.errors import InvalidRequest, NotFound, QuotaExceeded
from portal.db.base import Database
from portal.db.identity import User
from portal.db.rights import Quota as QuotaRow
from portal.db.work import MAPS_FROM, Attempt, Job, Model, Part, Picture
from portal.domain.access import EVERYBODY, SubjectKind
from portal.domain.quotas import DAY, NAMES, Quota, Usage, effective, exceeded, midnight
from portal.domain.states import UNFINISHED_JOBS, UNFINISHED_PARTS
from portal.services import audit
from portal.services.audit import Actor
from portal.services.ports import Clock
from portal.services.subjects import Subjects, subject_of

_WORDS = {
    "unfinished_jobs": "You have {used:,} unfinished jobs, and may have {limit:,}. Wait for one to end.",
    "pictures_a_day": "That would be more than the {limit:,} pictures you may have made in a day; today it "
    "are {used:,}, those still to come included. There are more after midnight UTC.",
    "gpu_seconds_a_day": "You have used {used:,.0f} of the {limit:,.0f} seconds of computing you may use in "
    "a day. There are more after midnight UTC.",
    "storage_bytes": "Your pictures and models take {used:,} bytes, and may take {limit:,}. Delete "
    "some of them.",
}


@dataclass(frozen=True)
class QuotaView:
    """A quota and whom it is for, by the name people know."""

    subject_kind: SubjectKind
    subject: str
    subject_name: str
    quota: Quota


@dataclass(frozen=True)
class Standing:
    """What a user may use, and has used."""

    quota: Quota
    usage: Usage


class Quotas:
    """The use cases about quotas."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def listed(self) -> Sequence[QuotaView]:
        """Every quota, everybody's first."""
        with self._database.reading() as session:
            names = Subjects(session)
            rows = session.scalars(select(QuotaRow).order_by(QuotaRow.subject_kind, QuotaRow.subject))
            return [_view(row, names) for row in rows]

    def put(self, actor: Actor, kind: SubjectKind, subject: str, quota: Quota) -> QuotaView:
        """Let a quota be a subject's. Raises InvalidRequest for a subject that does not exist or a limit
        below zero.
        """
        subject = EVERYBODY if kind is SubjectKind.EVERYBODY else subject
        limits = vars(quota)
        if any(limit is not None and not 0 <= limit < 2**53 for limit in limits.values()):
            raise InvalidRequest("A limit is a number from 0 on, or null for none.")
        with self._database.session() as session:
            names = Subjects(session)
            names.check(kind, subject)
            row = session.merge(QuotaRow(subject_kind=kind.value, subject=subject, **limits))
            view = _view(row, names)
            _note(session, actor, "quota.put", view, dict(limits))
        return view

    def delete(self, actor: Actor, kind: SubjectKind, subject: str) -> None:
        """Take a subject's quota away. Raises NotFound."""
        with self._database.session() as session:
            row = session.get(QuotaRow, (kind.value, subject))
            if row is None:
                raise NotFound("There is no such quota.")
            view = _view(row, Subjects(session))
            session.delete(row)
            _note(session, actor, "quota.delete", view, {})

    def of(self, user_id: str) -> Standing:
        """What a user may use and has used."""
        with self._database.reading() as session:
            return Standing(_quota(session, user_id), self._usage(session, user_id))

    def demand(self, session: Session, user_id: str, pictures: int) -> None:
        """Raise QuotaExceeded where one more job of so many pictures is more than the user may use. In the
        transaction that accepts it: of two jobs at once for the last place, one gets it.
        """
        quota = _quota(session, user_id)
        if quota == Quota():
            return
        session.get(User, user_id, with_for_update=True)
        usage = self._usage(session, user_id)
        name = exceeded(quota, usage, pictures=pictures)
        if name is None:
            return
        limit, used = getattr(quota, name), getattr(usage, name)
        detail = {"quota": name, "limit": limit, "used": used}
        if name.endswith("_a_day"):
            now = self._clock.now()
            detail["retry_after"] = int(midnight(now) + DAY - now) + 1
        raise QuotaExceeded(_WORDS[name].format(limit=limit, used=used), detail=detail)

    def room(self, session: Session, user_id: str) -> int | None:
        """Bytes that a user may still keep, None for as many as they like. Raises QuotaExceeded where there
        are none left.
        """
        limit = _quota(session, user_id).storage_bytes
        if limit is None:
            return None
        used = self._usage(session, user_id).storage_bytes
        if used >= limit:
            told = _WORDS["storage_bytes"].format(limit=limit, used=used)
            raise QuotaExceeded(told, detail={"quota": "storage_bytes", "limit": limit, "used": used})
        return limit - used

    def _usage(self, session: Session, user_id: str) -> Usage:
        today = midnight(self._clock.now())

        def count(what: object, *conditions: object) -> float:
            return session.scalar(select(what).where(*conditions)) or 0  # type: ignore[call-overload]

        mine = Picture.owner_id == user_id
        made = count(
            func.count(Picture.id), mine, Picture.created >= today, Picture.index.between(0, MAPS_FROM - 1)
        )
        to_come = count(func.sum(Part.pictures), Part.owner_id == user_id, Part.state.in_(UNFINISHED_PARTS))
        worked = count(func.sum(Attempt.worked), Attempt.owner_id == user_id, Attempt.started >= today)
        jobs = count(func.count(Job.id), Job.owner_id == user_id, Job.state.in_(UNFINISHED_JOBS))
        kept = count(func.sum(Picture.size), mine)
        kept += count(func.sum(Model.size), Model.owner_id == user_id)
        return Usage(int(jobs), int(made + to_come), worked, int(kept))


def _quota(session: Session, user_id: str) -> Quota:
    rows = session.scalars(select(QuotaRow)).all()
    if not rows:
        return Quota()
    subject = subject_of(session, user_id)
    meant = [
        (SubjectKind(row.subject_kind), _limits(row))
        for row in rows
        if subject.meant_by(SubjectKind(row.subject_kind), row.subject)
    ]
    return effective(meant)


def _limits(row: QuotaRow) -> Quota:
    return Quota(**{name: getattr(row, name) for name in NAMES})


def _view(row: QuotaRow, names: Subjects) -> QuotaView:
    kind = SubjectKind(row.subject_kind)
    return QuotaView(kind, row.subject, names.name(kind, row.subject), _limits(row))


def _note(session: Session, actor: Actor, action: str, view: QuotaView, told: dict[str, object]) -> None:
    person = view.subject_name if view.subject_kind is SubjectKind.USER else ""
    about = f"quota:{view.subject_kind.value}:{view.subject_name}"
    audit.record(session, actor, action, about, subject=person, details=told)
