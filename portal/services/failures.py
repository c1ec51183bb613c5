"""Failures of what the portal stands on, as what is told of them."""

from __future__ import annotations

from sqlalchemy.exc import DataError, DBAPIError, OperationalError, TimeoutError

from atelier.contract.errors import AtelierError, InvalidRequest, StorageFailed, StorageFull
from atelier.storage.filesystem import NO_ROOM

DATABASE = {"failed": "database", "retry_after": 5}
"""The detail of every failure of the database."""
_FULL = ("is full", "No space left", "disk I/O error")
"""What SQLite and PostgreSQL say where a write met the end of the disk; the last also where it is broken."""


def failure(error: Exception) -> AtelierError | None:
    """What to tell of an exception that means the database cannot be used just now, or cannot hold what it
    was given; None for any other.
    """
    if isinstance(error, DataError):
        return InvalidRequest(
            "The request holds what no database can keep: the character NUL, or a number or a text beyond "
            "every limit."
        )
    if isinstance(error, OSError) and error.errno in NO_ROOM:
        return StorageFull("The portal's disk is full. Make room on it, then send this again.")
    lost = isinstance(error, DBAPIError) and error.connection_invalidated
    if not (lost or isinstance(error, OperationalError | TimeoutError)):
        return None
    if any(said in str(error) for said in _FULL):
        return StorageFull(
            "The disk with the database is full or refuses writes, so nothing was kept. Make room on it, "
            "then send this again.",
            detail=DATABASE,
        )
    return StorageFailed(
        "The database did not answer, or was busy for too long. Send this again in a moment; if it stays so, "
        "tell an administrator.",
        detail=DATABASE,
    )
