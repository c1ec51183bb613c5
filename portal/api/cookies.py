"""The portal's two cookies: the access token and the refresh token. Nobody else sets any, and no script reads
them.
"""

from __future__ import annotations

from dataclasses import dataclass

from starlette.requests import Request

from portal.api.arrival import Arrival, arrived
from portal.services.sessions import Tokens

SECURE_PREFIX = "__Host-"
ACCESS = "atelier"
REFRESH = "atelier-refresh"


@dataclass(frozen=True)
class Presented:
    """What the browser sent; either may be missing."""

    access: str | None
    refresh: str | None

    def __bool__(self) -> bool:
        return bool(self.access or self.refresh)


def name_of(cookie: str, arrival: Arrival) -> str:
    """`__Host-` on https, where the browser then refuses a cookie from a neighbour or without Secure; plain
    on loopback http.
    """
    return SECURE_PREFIX + cookie if arrival.secure else cookie


def presented(request: Request) -> Presented:
    """The cookies of this request that are ours for this transport."""
    arrival = arrived(request)
    return Presented(
        request.cookies.get(name_of(ACCESS, arrival)),
        request.cookies.get(name_of(REFRESH, arrival)),
    )


def give(request: Request, tokens: Tokens) -> None:
    """Set both cookies on the answer to `request`, for as long as the session may last."""
    arrival = arrived(request)
    seconds = round(tokens.session_seconds)
    request.state.cookies[:] = [
        _header(ACCESS, tokens.access, seconds, arrival),
        _header(REFRESH, tokens.refresh, seconds, arrival),
    ]


def take_away(request: Request) -> None:
    """Make the browser forget both cookies."""
    arrival = arrived(request)
    request.state.cookies[:] = [_header(each, "", 0, arrival) for each in (ACCESS, REFRESH)]


def _header(cookie: str, value: str, seconds: int, arrival: Arrival) -> str:
    # Lax, not Strict: a link from a chat must open the studio logged in. Unsafe methods are guarded by their
    # origin.
    parts = [
        f"{name_of(cookie, arrival)}={value}",
        "Path=/",
        f"Max-Age={seconds}",
        "HttpOnly",
        "SameSite=Lax",
    ]
    return "; ".join([*parts, "Secure"] if arrival.secure else parts)
