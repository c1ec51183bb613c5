"""Failures of what the portal stands on, as what is told of them."""

from __future__ import annotations

from sqlalchemy.exc import OperationalError

from atelier.contract.errors import StorageFailed


def failure(error: Exception) -> StorageFailed | None:
    """What to tell of an exception that means the database cannot be used just now; None for any other."""
    if not isinstance(error, OperationalError):
        return None
    if "is full" in str(error.orig):
        return StorageFailed("The disk with the database is full: nothing can be kept. Make room on it.")
    return StorageFailed("The database did not answer. Try again; if it stays so, tell an administrator.")
