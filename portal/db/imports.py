"""Models on their way in from elsewhere, and the tokens that open doors there."""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, BigInteger, Boolean, ForeignKey, Integer, String, text
from sqlalchemy.orm import Mapped, mapped_column

from portal.db.base import ID, Base
from portal.db.work import Seconds


class ModelImport(Base):
    """One model that somebody asked for by its source. It moves `queued -> running -> succeeded | failed |
    cancelled`; what failed or was cancelled may be queued again.
    """

    __tablename__ = "model_imports"

    id: Mapped[str] = mapped_column(ID, primary_key=True)
    owner_id: Mapped[str | None] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    """Who asked; null: the command line."""
    own: Mapped[bool] = mapped_column(Boolean)
    """Whether the model is to be the asker's own, not the studio's."""
    source: Mapped[str] = mapped_column(String(1000))
    kind: Mapped[str] = mapped_column(String(20))
    name: Mapped[str] = mapped_column(String(200), default="")
    folder: Mapped[str] = mapped_column(String(400), default="")
    sha256: Mapped[str] = mapped_column(String(64), default="")
    """What the file must be; empty where the asker does not say."""
    token_id: Mapped[str | None] = mapped_column(ID)
    """Null: the one for its site, looked for as a task begins; "none": none. No foreign key: a token that is
    taken away leaves its imports, which then fail in words.
    """
    endpoint: Mapped[str] = mapped_column(String(63), default="")
    """The endpoint it was named at the creation of, if any."""
    state: Mapped[str] = mapped_column(String(20), default="queued", index=True)
    attempt: Mapped[int] = mapped_column(Integer, default=0)
    driver: Mapped[str | None] = mapped_column(String(64))
    """The process that follows its task."""
    lease_until: Mapped[float] = mapped_column(Seconds, default=0.0)
    ticket: Mapped[str | None] = mapped_column(String(300))
    not_before: Mapped[float] = mapped_column(Seconds, default=0.0)
    phase: Mapped[str] = mapped_column(String(20), default="")
    done: Mapped[int] = mapped_column(BigInteger, default=0, server_default=text("0"))
    total: Mapped[int | None] = mapped_column(BigInteger)
    """Bytes of the file, where its source says."""
    error: Mapped[dict[str, Any] | None] = mapped_column(JSON)
    model_title: Mapped[str] = mapped_column(String(300), default="")
    revision: Mapped[str] = mapped_column(String(64), default="")
    created: Mapped[float] = mapped_column(Seconds, index=True)
    started: Mapped[float | None] = mapped_column(Seconds)
    ended: Mapped[float | None] = mapped_column(Seconds)


class SourceToken(Base):
    """A token for one site, sealed under a key that is not in the database. It is never shown again."""

    __tablename__ = "source_tokens"

    id: Mapped[str] = mapped_column(ID, primary_key=True)
    owner_id: Mapped[str | None] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    """Null: the studio's."""
    name: Mapped[str] = mapped_column(String(64))
    site: Mapped[str] = mapped_column(String(260))
    """The host it is for, with a port that is not the scheme's own: it is sent to no other."""
    sealed: Mapped[str] = mapped_column(String(2000))
    """Base64 of a nonce (12 bytes) and the token under AES-256-GCM, with the row's id as associated data."""
    created: Mapped[float] = mapped_column(Seconds)
    used: Mapped[float | None] = mapped_column(Seconds)
