"""Passwords: argon2id hashes, a policy of length and commonness, and the same work for users who do not
exist.
"""

from __future__ import annotations

import secrets

from pwdlib import PasswordHash
from pwdlib.hashers.argon2 import Argon2Hasher

from atelier.contract.errors import InvalidRequest

LONGEST = 1024
"""Characters; far above any passphrase, far below what would make hashing a weapon."""

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
        self._min_length = min_length
        self._context = PasswordHash((hasher or Argon2Hasher(),))
        self._nobodys = self._context.hash(secrets.token_urlsafe(24))

    def hash(self, password: str) -> str:
        """The hash to store."""
        return self._context.hash(password)

    def verify(self, password: str, stored: str | None) -> tuple[bool, str | None]:
        """(whether it is right, a new hash where the stored one is of an older cost). `stored` None costs the
        same and is wrong.
        """
        if len(password) > LONGEST:
            return False, None
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
