"""The chain that makes a changed, removed or inserted audit entry show: each entry's hash covers the one
before.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping


def seal(key: bytes, previous: str, entry: Mapping[str, object]) -> str:
    """The hash of an entry: HMAC-SHA256 (RFC 2104) under `key` over the hash before it and the entry's
    canonical JSON (sorted keys, no spaces, ASCII), as 64 hexadecimal digits.

    It is keyed, so that whoever can write the database but not read the portal's secrets cannot make another
    chain that holds.
    """
    canonical = json.dumps(entry, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hmac.new(key, f"{previous}\n{canonical}".encode(), hashlib.sha256).hexdigest()


def holds(key: bytes, previous: str, entry: Mapping[str, object], seal_of_entry: str) -> bool:
    """Whether the entry is the one that was sealed after `previous`."""
    return hmac.compare_digest(seal(key, previous, entry), seal_of_entry)
