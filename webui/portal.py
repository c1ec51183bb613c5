"""The way from this process to the portal: one pool of connections, and each caller's own cookie."""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import httpx

from atelier import logs
from atelier.client import PortalClient
from atelier.contract.errors import NotAuthenticated

ACCESS_COOKIES = ("__Host-atelier", "atelier")
"""The access cookie's names, on https and on loopback http. No other cookie of the browser is read here."""

SECURE = "__Host-"
"""How a cookie's name begins that browsers take over https alone."""

REMEMBERED_S = 5.0
"""How long an answer to "who is this" holds: a revoked session is out within this time."""

REMEMBERED_CALLERS = 4096


class StudioClient(PortalClient):
    """The portal's API with what only a form asks for."""

    async def styles(self) -> list[dict[str, Any]]:
        """The prompt styles the caller may use: name, prompt, negative_prompt, scope."""
        return list((await self._json("GET", "/api/v1/styles"))["styles"])

    async def endpoints(self) -> list[dict[str, Any]]:
        """The endpoints the caller may use: name, state."""
        return list(await self._json("GET", "/api/v1/endpoints"))

    async def own_settings(self) -> list[dict[str, Any]]:
        """Every option as it holds for the caller: key, value, locked_by."""
        return list((await self._json("GET", "/api/v1/settings/me"))["settings"])

    async def set_own(self, values: Mapping[str, Any]) -> None:
        """Let options hold for the caller from now on. Raises Conflict for one that is locked."""
        await self._send("PATCH", "/api/v1/settings/me", json={"values": dict(values)})

    async def infotext(self, text: str) -> dict[str, Any]:
        """What a form reads in generation parameters: infotext, parameters, fields, overrides, ignored."""
        return dict(await self._json("POST", "/api/v1/infotext", json={"text": text}))


class SharedTransport(httpx.AsyncBaseTransport):
    """One connection pool for every client of the process: closing a client does not close it."""

    def __init__(self, inner: httpx.AsyncBaseTransport) -> None:
        self.inner = inner

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Pass the request on, with the id of the request it is made for."""
        if (known := logs.current().get("request_id")) is not None:
            request.headers["X-Request-Id"] = str(known)
        return await self.inner.handle_async_request(request)

    async def aclose(self) -> None:
        """Stay open: the pool belongs to the process."""


class OverHttps(httpx.AsyncBaseTransport):
    """The pool, for a caller whose browser came over https."""

    def __init__(self, inner: SharedTransport) -> None:
        self._inner = inner

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Pass the request on, saying so."""
        request.headers["X-Forwarded-Proto"] = "https"
        return await self._inner.handle_async_request(request)


class Portal:
    """The portal as this process sees it: its address, the pool, and who the callers of the last
    seconds are.
    """

    def __init__(
        self,
        url: str,
        *,
        transport: httpx.AsyncBaseTransport | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=64, keepalive_expiry=4)
        self.url = url.rstrip("/")
        self.transport = SharedTransport(transport or httpx.AsyncHTTPTransport(limits=limits))
        self._clock = clock
        self._callers: OrderedDict[bytes, tuple[float, dict[str, Any]]] = OrderedDict()

    def client(self, cookies: Mapping[str, str]) -> StudioClient:
        """The portal's API with the caller's access cookie and nothing else of theirs. Where that came over
        https, the portal is told so: it looks for no such cookie in a request that came over plain http.
        """
        found = access_cookie(cookies)
        if not any(name.startswith(SECURE) for name in found):
            return StudioClient(self.url, cookies=found, transport=self.transport)
        origin = httpx.URL(self.url).copy_with(scheme="https")
        transport = OverHttps(self.transport)
        return StudioClient(self.url, cookies=found, origin=str(origin), transport=transport)

    async def caller(self, cookies: Mapping[str, str]) -> dict[str, Any] | None:
        """Who holds this access cookie, as GET /api/v1/me tells it; None where nobody does.

        Remembered up to REMEMBERED_S seconds. Raises WorkerUnavailable where the portal does not answer.
        """
        cookie = access_cookie(cookies)
        if not cookie:
            return None
        key = hashlib.sha256(repr(sorted(cookie.items())).encode()).digest()
        known = self._callers.get(key)
        if known is not None and self._clock() < known[0]:
            return known[1]
        try:
            async with self.client(cookie) as client:
                me = await client.me()
        except NotAuthenticated:
            self._callers.pop(key, None)
            return None
        self._callers[key] = (self._clock() + REMEMBERED_S, me)
        self._callers.move_to_end(key)
        while len(self._callers) > REMEMBERED_CALLERS:
            self._callers.popitem(last=False)
        return me

    async def close(self) -> None:
        """Close the pool."""
        await self.transport.inner.aclose()


def access_cookie(cookies: Mapping[str, str]) -> dict[str, str]:
    """The access cookie among `cookies`, if any."""
    return {name: cookies[name] for name in ACCESS_COOKIES if cookies.get(name)}
