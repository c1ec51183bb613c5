"""The table of prompt styles."""

from __future__ import annotations

from sqlalchemy import Float, ForeignKey, Index, Integer, String, Text, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from portal.db.base import ID, Base
from portal.db.sharing import Shareable


class Style(Shareable, Base):
    """A prompt style: a user's own, or the studio's where `owner_id` is null."""

    __tablename__ = "styles"
    __table_args__ = (
        UniqueConstraint("owner_id", "name"),
        # Nulls are no two of a kind to a unique constraint, so the studio's names have an index of their own.
        Index(
            "uq_styles_studio_name",
            "name",
            unique=True,
            sqlite_where=text("owner_id IS NULL"),
            postgresql_where=text("owner_id IS NULL"),
        ),
    )

    id: Mapped[str] = mapped_column(ID, primary_key=True)
    owner_id: Mapped[str | None] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    name: Mapped[str] = mapped_column(String(200))
    prompt: Mapped[str] = mapped_column(Text)
    negative_prompt: Mapped[str] = mapped_column(Text)
    position: Mapped[int] = mapped_column(Integer)
    """Place in the owner's list: styles stand in the order they came in, as in the peer's file."""
    created: Mapped[float] = mapped_column(Float(53))
