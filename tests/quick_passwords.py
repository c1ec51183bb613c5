"""Passwords of tests: hashed with the same algorithm as a studio's, at the least cost there is."""

from __future__ import annotations

import functools

from pwdlib.hashers.argon2 import Argon2Hasher

from portal.services.passwords import Passwords


@functools.cache
def quick_passwords() -> Passwords:
    """One for all tests of a process, with a studio's own policy. A hash takes microseconds, where a studio's
    takes a tenth of a second and 64 MiB.
    """
    return Passwords(12, Argon2Hasher(time_cost=1, memory_cost=8, parallelism=1))
