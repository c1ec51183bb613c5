"""Who sees what belongs to somebody: its owner, and whom the owner shared it with on purpose."""

from __future__ import annotations

from collections.abc import Collection
from enum import StrEnum
from typing import Protocol


class Visibility(StrEnum):
    """Who sees a thing besides its owner: nobody, the people of one team, everybody in the studio."""

    PRIVATE = "private"
    TEAM = "team"
    STUDIO = "studio"


class Shared(Protocol):
    """Anything that has an owner and can be shared. Without an owner it is the studio's own."""

    @property
    def owner_id(self) -> str | None:
        """The user's id."""
        ...

    @property
    def visibility(self) -> str:
        """A Visibility's value."""
        ...

    @property
    def team_id(self) -> str | None:
        """Of what is shared with a team: which."""
        ...


def may_see(user_id: str, teams: Collection[str], thing: Shared) -> bool:
    """Whether a user who belongs to `teams` (ids) sees the thing by ownership or sharing."""
    if thing.owner_id == user_id or thing.visibility == Visibility.STUDIO:
        return True
    return thing.visibility == Visibility.TEAM and thing.team_id in teams
