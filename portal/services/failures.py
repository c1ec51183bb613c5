"""Failures of what the portal stands on, as what is told of them."""

from __future__ import annotations

from sqlalchemy.exc import DataError, OperationalError

from atelier.contract.errors import AtelierError, InvalidRequest, StorageFailed


def failure(error: Exception) -> AtelierError | None:
    """What to tell of an exception that means the database cannot be used just now, or cannot hold what it
    was given; None for any other.
    """
    if isinstance(error, DataError):
        return InvalidRequest(
            "The request holds what no database can keep: the character NUL, or a number or a text beyond "
            "every limit."
        )
    if not isinstance(error, OperationalError):
        return None
    if "is full" in str(error.orig):
        return StorageFailed("The disk with the database is full: nothing can be kept. Make room on it.")
    return StorageFailed("The database did not answer. Try again; if it stays so, tell an administrator.")
