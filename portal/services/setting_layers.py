"""The settings that hold for a user, read from the levels that have something to say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from portal.db.identity import User
from portal.db.preferences import SettingsVersion
from portal.db.rights import Membership, Team
from portal.domain.access import EVERYBODY, SubjectKind
from portal.domain.levels import Held, Layer, Level, merged

STUDIO = "the studio"


@dataclass(frozen=True)
class Standing:
    """The settings of one scope as they hold: of a user, of a team, of the platform."""

    held: Mapping[str, Held]

    @property
    def values(self) -> dict[str, Any]:
        """Option name -> value, of those that some level sets."""
        return {name: each.value for name, each in self.held.items() if each.level is not Level.BUILT_IN}

    @property
    def locks(self) -> dict[str, str]:
        """Option name -> who has locked it."""
        return {name: each.locked_by for name, each in self.held.items() if each.locked_by}


def standing(session: Session, user_id: str) -> Standing:
    """What holds for a user's requests."""
    user = Layer(Level.USER, "yourself", session.get_one(User, user_id).settings)
    return Standing(merged([*beneath_user(session, user_id), user]))


def beneath_user(session: Session, user_id: str) -> list[Layer]:
    """The layers that a user's own settings lie on."""
    teams = session.scalars(
        select(Team).join(Membership, Membership.team_id == Team.id).where(Membership.user_id == user_id)
    ).all()
    return [platform_layer(session), *(team_layer(session, team) for team in teams)]


def platform_layer(session: Session) -> Layer:
    """What the platform sets and locks for everybody."""
    row = newest(session, SubjectKind.EVERYBODY, EVERYBODY)
    return _layer(Level.PLATFORM, STUDIO, row)


def team_layer(session: Session, team: Team) -> Layer:
    """What a team sets and locks for its people."""
    return _layer(Level.TEAM, f"the team {team.name}", newest(session, SubjectKind.TEAM, team.id), team.name)


def newest(session: Session, kind: SubjectKind, subject: str) -> SettingsVersion | None:
    """The version that holds; None where there is none yet."""
    return session.scalars(
        select(SettingsVersion)
        .where(SettingsVersion.subject_kind == kind.value, SettingsVersion.subject == subject)
        .order_by(SettingsVersion.number.desc())
        .limit(1)
    ).first()


def _layer(level: Level, title: str, row: SettingsVersion | None, name: str = "") -> Layer:
    if row is None:
        return Layer(level, title, name=name)
    return Layer(level, title, row.values, frozenset(row.locked), name)
