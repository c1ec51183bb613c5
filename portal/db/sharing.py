"""What every table has whose rows belong to somebody and can be shared."""

from __future__ import annotations

from sqlalchemy import String
from sqlalchemy.orm import Mapped, mapped_column

from portal.db.base import ID


class Shareable:
    """A mixin. The table itself has `owner_id`; whatever is owned joins by these two columns and one line in
    portal.services.sharing.
    """

    visibility: Mapped[str] = mapped_column(String(8), default="private", server_default="private")
    """portal.domain.sharing.Visibility."""
    team_id: Mapped[str | None] = mapped_column(ID)
    """The team it is shared with, where `visibility` is "team". No foreign key: a team that is taken away
    makes it private again (portal.services.sharing.withdraw).
    """
