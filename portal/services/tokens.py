"""Access tokens: the only module that touches python-jose, which is safe in this corner alone (reference: RFC
7519, RFC 8725).

HS256 with a named list of algorithms, keys of at least 32 random bytes chosen by `kid`, every claim required.
jose compares expiry in whole seconds of the machine's clock, so expiry is compared here, on the injected
clock.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jose import JOSEError, jwt

from atelier.contract.errors import NotAuthenticated

ISSUER, AUDIENCE, ALGORITHM, KIND = "atelier", "atelier-api", "HS256", "access"
LONGEST = 4096
_REQUIRED = ("exp", "iat", "aud", "iss", "sub", "jti")
_OPTIONS = {"verify_exp": False, **{f"require_{claim}": True for claim in _REQUIRED}}


@dataclass(frozen=True)
class AccessClaims:
    """What an access token says: who, since which epoch, of which login, until when (unix seconds)."""

    user_id: str
    epoch: int
    session_id: str
    expires_at: float


class AccessTokens:
    """Issues and reads access tokens. `keys` are secrets by kid; the first one signs."""

    def __init__(self, keys: Mapping[str, bytes]) -> None:
        if not keys or any(len(key) < 32 for key in keys.values()):
            raise ValueError("signing keys need at least 32 bytes each")
        self._keys = dict(keys)
        self._kid = next(iter(keys))

    def issue(self, claims: AccessClaims, now: float) -> str:
        """The signed token for `claims`."""
        body: dict[str, Any] = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": claims.user_id,
            "sid": claims.session_id,
            "typ": KIND,
        }
        body |= {
            "epoch": claims.epoch,
            "jti": secrets.token_hex(16),
            "iat": int(now),
            "exp": claims.expires_at,
        }
        return str(jwt.encode(body, self._keys[self._kid], ALGORITHM, headers={"kid": self._kid}))

    def read(self, token: str, now: float) -> AccessClaims:
        """The claims of a valid token. Raises NotAuthenticated for anything else, without saying what was
        wrong.
        """
        try:
            if len(token) > LONGEST:
                raise ValueError("too long")
            key = self._keys[jwt.get_unverified_header(token)["kid"]]
            body = jwt.decode(token, key, [ALGORITHM], _OPTIONS, audience=AUDIENCE, issuer=ISSUER)
            claims = AccessClaims(body["sub"], int(body["epoch"]), str(body["sid"]), float(body["exp"]))
            if body["typ"] != KIND or claims.expires_at <= now:
                raise ValueError("expired, or another kind of token")
            return claims
        except (JOSEError, KeyError, TypeError, ValueError) as error:
            raise NotAuthenticated("You are not logged in any more. Log in again.") from error
