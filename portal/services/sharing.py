"""What belongs to somebody, and whom they let see it: one mechanism for everything that is owned.

A table joins with the columns of portal.db.sharing.Shareable, an `owner_id`, and a line in KINDS; `visible`
then gives the condition for its lists and `sees` the answer for one row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, and_, or_, select, update
from sqlalchemy.orm import Session

from atelier.contract.errors import Conflict, InvalidRequest, NotFound, NotPermitted
from portal.db.base import Database
from portal.db.identity import User
from portal.db.rights import Membership, Team
from portal.db.styles import Style
from portal.db.work import Job, Model
from portal.domain.sharing import Shared, Visibility, may_see
from portal.services import audit
from portal.services.callers import Caller
from portal.services.changes import WORK, Changes

MANAGE = "sharing.manage"
"""Who has this permission says who sees what belongs to others, or to the studio."""


class Owned(StrEnum):
    """Kinds of things that have an owner. A job is shared with its pictures."""

    JOB = "job"
    MODEL = "model"
    STYLE = "style"


@dataclass(frozen=True)
class Kind:
    """A table of things that are owned. `label` names a row in the audit trail; `keeper` is the permission
    with which one sees all of them anyway.
    """

    table: Any
    label: Callable[[Any], str]
    keeper: str = ""


KINDS: dict[Owned, Kind] = {
    Owned.JOB: Kind(Job, lambda row: str(row.id)),
    Owned.MODEL: Kind(Model, lambda row: str(row.name), keeper="models.manage"),
    Owned.STYLE: Kind(Style, lambda row: str(row.name)),
}


@dataclass(frozen=True)
class Standing:
    """Whose a thing is (a user name, "" for the studio's own), and who sees it; `team` is a name."""

    owner: str
    visibility: Visibility
    team_id: str | None = None
    team: str | None = None


OPEN = Standing("", Visibility.STUDIO)
"""Of the studio's own that everybody sees."""


@dataclass(frozen=True)
class Wish:
    """Whom a thing is to be shared with; `team_id` where that is a team."""

    visibility: Visibility
    team_id: str | None = None


def visible(table: Any, user_id: str) -> ColumnElement[bool]:
    """The rows of a table that a user sees: their own, and what is shared with them."""
    return or_(table.owner_id == user_id, shared_with(table, user_id))


def shared_with(table: Any, user_id: str) -> ColumnElement[bool]:
    """The rows that are shared with everybody or with a team of the user's, whoever's they are."""
    shared = table.visibility.in_((Visibility.TEAM.value, Visibility.STUDIO.value))
    # An index finds these few among many private ones; what stands behind it judges them.
    return and_(shared, or_(table.visibility == Visibility.STUDIO.value, shared_with_teams(table, user_id)))


def shared_with_teams(table: Any, user_id: str) -> ColumnElement[bool]:
    """The rows that are shared with a team of the user's."""
    teams = select(Membership.team_id).where(Membership.user_id == user_id)
    return and_(table.visibility == Visibility.TEAM.value, table.team_id.in_(teams))


def sees(session: Session, user_id: str, thing: Shared) -> bool:
    """Whether a user sees one thing, now."""
    return seen(session, user_id, [thing])[0]


def seen(session: Session, user_id: str, things: Sequence[Shared]) -> list[bool]:
    """Whether a user sees each of these, now."""
    teams: set[str] = set()
    if any(each.visibility == Visibility.TEAM.value for each in things):
        teams |= set(session.scalars(select(Membership.team_id).where(Membership.user_id == user_id)))
    return [may_see(user_id, teams, each) for each in things]


def standings(session: Session, things: Iterable[Shared]) -> list[Standing]:
    """Whose each of these is and who sees it, with the names people know."""
    things = list(things)
    owners = {each.owner_id for each in things} - {None}
    teams = {each.team_id for each in things} - {None}
    users, named = _names(session, User.id, User.username, owners), _names(session, Team.id, Team.name, teams)
    return [
        Standing(
            users.get(each.owner_id, ""),
            Visibility(each.visibility),
            each.team_id,
            named.get(each.team_id),
        )
        for each in things
    ]


def withdraw(session: Session, team_id: str) -> None:
    """Make what is shared with a team private again, in the caller's transaction."""
    for kind in KINDS.values():
        shared = kind.table.visibility == Visibility.TEAM.value
        theirs = update(kind.table).where(shared, kind.table.team_id == team_id)
        session.execute(theirs.values(visibility=Visibility.PRIVATE.value, team_id=None))


class Sharing:
    """The use case. `publish` is called once it may have changed what everybody may name."""

    def __init__(self, database: Database, changes: Changes, publish: Callable[[], None]) -> None:
        self._database = database
        self._changes = changes
        self._publish = publish

    def share(self, caller: Caller, owned: Owned, object_id: str, wish: Wish) -> Standing:
        """Let others see a thing of the caller's own from now on, or no longer; anybody's with
        sharing.manage. Raises NotFound for what the caller does not see, NotPermitted for what is another's,
        InvalidRequest for a team they are not in, Conflict for what everybody must see.
        """
        kind = KINDS[owned]
        with self._database.session() as session:
            row = _row_to_share(session, caller, kind, owned, object_id)
            [before] = standings(session, [row])
            _check_wish(session, caller, row, wish)
            row.visibility = wish.visibility.value
            row.team_id = wish.team_id if wish.visibility is Visibility.TEAM else None
            [after] = standings(session, [row])
            if isinstance(row, Job):
                row.version += 1
            if after != before:
                audit.record(
                    session,
                    caller,
                    f"{owned.value}.share",
                    f"{owned.value}:{kind.label(row)}",
                    subject="" if row.owner_id == caller.user_id else before.owner,
                    details={"before": _told(before), "after": _told(after)},
                )
        if owned is not Owned.JOB:
            self._publish()
        self._changes.notify(object_id, WORK)
        return after


def _row_to_share(session: Session, caller: Caller, kind: Kind, owned: Owned, object_id: str) -> Any:
    """The row, locked. Raises unless it is there for the caller, and theirs to share."""
    row: Any = session.get(kind.table, object_id, with_for_update=True)
    manages = caller.may(MANAGE)
    seen = row is not None and (
        manages or sees(session, caller.user_id, row) or (kind.keeper and caller.may(kind.keeper))
    )
    if not seen:
        raise NotFound(f"There is no such {owned.value}.")
    if row.owner_id != caller.user_id and not manages:
        [standing] = standings(session, [row])
        whose = standing.owner or "the studio"
        raise NotPermitted(
            f"This {owned.value} belongs to {whose}: only its owner says who sees it. Ask them.",
            detail={"permission": MANAGE},
        )
    return row


def _check_wish(session: Session, caller: Caller, row: Any, wish: Wish) -> None:
    if wish.visibility is Visibility.TEAM:
        member = (wish.team_id or "", caller.user_id)
        known = wish.team_id and session.get(Team, wish.team_id) is not None
        if not known or not (session.get(Membership, member) or caller.may(MANAGE)):
            raise InvalidRequest("You belong to no such team. Name one of yours: GET /api/v1/me/teams.")
    if getattr(row, "standard", False) and wish.visibility is not Visibility.STUDIO:
        raise Conflict(
            f"{row.name!r} is the standard checkpoint, which everybody must see. Make another one it."
        )
    if isinstance(row, Style) and row.owner_id is None and wish.visibility is not Visibility.STUDIO:
        raise Conflict(
            "The studio's own styles are everybody's. Delete it, and keep it as a style of your own."
        )


def _told(standing: Standing) -> str:
    """As the audit trail says it."""
    return f"team {standing.team}" if standing.visibility is Visibility.TEAM else standing.visibility.value


def _names(session: Session, key: Any, name: Any, wanted: set[Any]) -> dict[Any, str]:
    if not wanted:
        return {}
    return {each: text for each, text in session.execute(select(key, name).where(key.in_(wanted)))}
