"""Models whose owner leaves: given to somebody else, or taken away with everything that hangs on them."""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import select
from sqlalchemy.orm import Session

from portal.db.work import Model, RetiredBlob
from portal.domain.access import ObjectKind
from portal.services.access import forget_object


def retire(session: Session, row: Model, now: float) -> str | None:
    """Delete a model's row with the rules on it, in the caller's transaction; its files go once nothing needs
    them. The sha256 of its preview, which may go if no other model has it.
    """
    preview = row.preview_sha256
    for sha256 in filter(None, (row.blob_sha256, row.config_sha256)):
        session.merge(RetiredBlob(sha256=sha256, since=now))
    session.delete(row)
    forget_object(session, ObjectKind.MODEL, [row.id])
    return preview


def owned(session: Session, user_id: str) -> list[Model]:
    """A user's own models."""
    return list(session.scalars(select(Model).where(Model.owner_id == user_id).order_by(Model.id)))


def hand_over(session: Session, user_id: str, heir_id: str, name: str) -> None:
    """Let a user's models be the heir's, in the caller's transaction; under another name, which says whose it
    was, where the heir has one of that kind and name.
    """
    taken = {(row.kind, row.name) for row in owned(session, heir_id)}
    for row in owned(session, user_id):
        row.name = next(each for each in _names(row.name, name) if (row.kind, each) not in taken)
        row.owner_id = heir_id
        taken.add((row.kind, row.name))
    session.flush()


def _names(name: str, whose: str) -> Iterator[str]:
    yield name
    number = 1
    while True:
        suffix = f" ({whose})" if number == 1 else f" ({whose} {number})"
        yield name[: 200 - len(suffix)] + suffix
        number += 1
