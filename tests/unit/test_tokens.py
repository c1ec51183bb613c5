"""Access tokens: what a forger or a fool could send is refused. The probes are those python-jose is known
for.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from jose import jwt

import portal.services.tokens
from atelier.contract.errors import NotAuthenticated
from portal.services.tokens import AUDIENCE, ISSUER, AccessClaims, AccessTokens

KEY, OTHER = b"k" * 32, b"o" * 32
NOW = 1_800_000_000.0
CLAIMS = AccessClaims("user-1", 3, "session-1", NOW + 900)


@pytest.fixture
def tokens() -> AccessTokens:
    return AccessTokens({"now": KEY, "before": OTHER})


def body(**changes: Any) -> dict[str, Any]:
    plain = {
        "iss": ISSUER, "aud": AUDIENCE, "sub": "user-1", "sid": "session-1", "typ": "access",
        "epoch": 3, "jti": "1", "iat": int(NOW), "exp": NOW + 900,
    }  # fmt: skip
    return {name: value for name, value in (plain | changes).items() if value is not None}


def signed(key: bytes = KEY, kid: str | None = "now", algorithm: str = "HS256", **changes: Any) -> str:
    return str(jwt.encode(body(**changes), key, algorithm, headers={"kid": kid} if kid else None))


def test_an_issued_token_reads_back_and_so_does_one_of_the_key_before(tokens: AccessTokens) -> None:
    assert tokens.read(tokens.issue(CLAIMS, NOW), NOW) == CLAIMS
    assert tokens.read(signed(OTHER, "before"), NOW).user_id == "user-1"


@pytest.mark.parametrize("claim", ["exp", "iat", "aud", "iss", "sub", "jti", "typ", "epoch", "sid"])
def test_a_token_without_a_claim_is_refused(tokens: AccessTokens, claim: str) -> None:
    with pytest.raises(NotAuthenticated):
        tokens.read(signed(**{claim: None}), NOW)


@pytest.mark.parametrize(
    "changes",
    [
        {"aud": "other"},
        {"iss": "other"},
        {"typ": "refresh"},
        {"exp": NOW - 10},
        {"exp": NOW - 0.4},
        {"exp": NOW},
    ],
)
def test_a_token_for_others_or_out_of_time_is_refused(tokens: AccessTokens, changes: dict[str, Any]) -> None:
    with pytest.raises(NotAuthenticated):
        tokens.read(signed(**changes), NOW)


@pytest.mark.parametrize("token", [
    signed(b"x" * 32), signed(kid=None), signed(kid="unknown"), signed(OTHER), signed(algorithm="HS384"),
    "", "a.b.c", "e30.e30.", "x" * 10_000,
])  # fmt: skip
def test_a_token_of_another_key_or_algorithm_or_none_at_all_is_refused(
    tokens: AccessTokens, token: str
) -> None:
    with pytest.raises(NotAuthenticated):
        tokens.read(token, NOW)


def test_an_unsigned_token_is_refused(tokens: AccessTokens) -> None:
    def encoded(value: dict[str, Any]) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")

    token = f"{encoded({'alg': 'none', 'typ': 'JWT', 'kid': 'now'})}.{encoded(body())}."
    with pytest.raises(NotAuthenticated):
        tokens.read(token, NOW)


@pytest.mark.parametrize("keys", [{}, {"now": b""}, {"now": b"short"}, {"now": KEY, "before": b"x"}])
def test_short_keys_are_no_keys(keys: dict[str, bytes]) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        AccessTokens(keys)


def test_python_jose_stays_in_one_small_module(repository: Path) -> None:
    users = [
        path
        for folder in ("atelier", "portal", "webui", "workers")
        for path in (repository / folder).rglob("*.py")
        if "from jose" in path.read_text(encoding="utf-8")
        or "import jose" in path.read_text(encoding="utf-8")
    ]
    assert users == [Path(portal.services.tokens.__file__)]
    assert len(users[0].read_text(encoding="utf-8").splitlines()) <= 85
