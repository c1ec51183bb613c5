"""Passwords: argon2id hashes, a policy of length and commonness, and the same work for users who do not
exist.
"""

from __future__ import annotations

import os
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from pwdlib import PasswordHash
from pwdlib.hashers.argon2 import Argon2Hasher

from atelier.contract.errors import InvalidRequest, TooManyRequests

LONGEST = 1024
"""Characters; far above any passphrase, far below what would make hashing a weapon."""

MOST_IN_LINE = 30
"""People whose passwords are looked at or wait for that. Each holds one of the threads that answer requests,
so that more would keep everybody else waiting.
"""

COMMON = frozenset(
    (
        "123456789012",
        "1234567890123",
        "12345678901234",
        "administrator",
        "changemeplease",
        "correcthorsebatterystaple",
        "iloveyouiloveyou",
        "letmeinletmein",
        "passwordpassword",
        "password1234",
        "password12345",
        "qwertyuiop12",
        "qwertyuiop123",
        "qwertyuiopasdf",
        "stablediffusion",
        "welcomewelcome",
    )
)
"""Passwords of twelve characters and more that lead every list of leaked ones."""


class Passwords:
    """Hashes and checks passwords. `hasher` is argon2id at its library's recommended cost unless a test asks
    for a cheap one.
    """

    def __init__(self, min_length: int, hasher: Argon2Hasher | None = None) -> None:
        # As many at once as there are cores: each takes one whole, and 64 MiB.
        self._cores = threading.BoundedSemaphore(max(1, os.cpu_count() or 1))
        self._line = threading.BoundedSemaphore(MOST_IN_LINE)
        self._min_length = min_length
        self._context = PasswordHash((hasher or Argon2Hasher(),))
        self._nobodys = self._context.hash(secrets.token_urlsafe(24))

    def hash(self, password: str) -> str:
        """The hash to store."""
        with self._cores:
            return self._context.hash(password)

    @contextmanager
    def in_line(self) -> Iterator[None]:
        """A place among those whose passwords are looked at. Raises TooManyRequests where none is left."""
        if not self._line.acquire(blocking=False):
            raise TooManyRequests(
                "Many people are logging in at this moment. Try again in a few seconds.",
                detail={"retry_after": 3},
            )
        try:
            yield
        finally:
            self._line.release()

    def verify(self, password: str, stored: str | None) -> tuple[bool, str | None]:
        """(whether it is right, a new hash where the stored one is of an older cost). `stored` None costs the
        same and is wrong.
        """
        if len(password) > LONGEST:
            return False, None
        with self._cores:
            right, renewed = self._context.verify_and_update(password, stored or self._nobodys)
        return (right, renewed) if stored else (False, None)

    def check_policy(self, password: str, username: str, *, min_length: int | None = None) -> None:
        """Raise InvalidRequest, with a sentence that says why, for a password nobody should have."""
        least = self._min_length if min_length is None else min_length
        if len(password) < least:
            raise InvalidRequest(f"The password is too short: it needs at least {least} characters.")
        if len(password) > LONGEST:
            raise InvalidRequest(f"The password is too long: {LONGEST} characters are the most.")
        folded = password.casefold()
        if folded in COMMON or len(set(folded)) < 4 or folded.strip("0123456789!.") == username.casefold():
            raise InvalidRequest(
                "The password is too easy to guess: it is a common one, or made of the name."
            )
