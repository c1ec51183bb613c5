"""The `job` member of a body is believed only with a signature: HMAC-SHA256 over the canonical body (RFC
2104).
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Any

from atelier.contract import canonical


def sign(body: dict[str, Any], key: bytes) -> dict[str, Any]:
    """A copy of `body` whose `job` carries `signature`; `body["job"]` must be there. Raises ValueError for a
    short key.
    """
    if len(key) < 32:
        raise ValueError("the signing key needs at least 32 bytes")
    return {**body, "job": {**body["job"], "signature": _digest(body, key)}}


def verify(body: dict[str, Any], key: bytes) -> bool:
    """Whether the signature in `body["job"]` is that of the rest of the body."""
    job = body.get("job")
    if not isinstance(job, dict) or not isinstance(job.get("signature"), str) or len(key) < 32:
        return False
    try:
        return hmac.compare_digest(_digest(body, key).encode(), job["signature"].encode())
    except ValueError:
        return False


def _digest(body: dict[str, Any], key: bytes) -> str:
    job = {name: value for name, value in body["job"].items() if name != "signature"}
    return hmac.new(key, canonical.dumps({**body, "job": job}).encode(), hashlib.sha256).hexdigest()
