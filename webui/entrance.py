"""What every request passes first: it gets an id, which the portal's lines about it carry too, and a line in
the log once it is answered.
"""

from __future__ import annotations

import logging
import time

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from atelier import logs
from atelier.contract.routes import owner_of

SELDOM_TOLD = ("/assets/", "/static/", "/ui/", "/gradio_api/heartbeat/", "/healthz", "/readyz")
"""Paths whose requests are logged at the level debug alone."""
METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))

log = logging.getLogger("webui.access")


class Entrance:
    """ASGI middleware, the outermost."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on under its id."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        status = 0
        answered = began
        request_id = logs.request_id(Headers(scope=scope).get("x-request-id"))

        async def named(message: Message) -> None:
            nonlocal status, answered
            if message["type"] == "http.response.start":
                status, answered = message["status"], time.perf_counter()
                MutableHeaders(scope=message)["X-Request-Id"] = request_id
            await send(message)

        with logs.bound(request_id=request_id):
            try:
                await self._app(scope, receive, named)
            finally:
                _note(scope, status, answered - began, time.perf_counter() - began)


def _note(scope: Scope, status: int, seconds: float, whole: float) -> None:
    """Log a request by its route's template: what stands in a path may be a secret."""
    path = scope["path"]
    template = getattr(scope.get("route"), "path", None) or _family(path)
    said = {
        "method": scope["method"] if scope["method"] in METHODS else "other",
        "route": template,
        "status": status,
        "ms": round(1000 * seconds, 1),
        "whole_ms": round(1000 * whole, 1),
    }
    level = logging.DEBUG if path.startswith(SELDOM_TOLD) else logging.INFO
    log.log(level, "%(method)s %(route)s %(status)s", said, extra=said)


def _family(path: str) -> str:
    """What a path without a route of ours is one of."""
    if owner_of(path) == "portal":
        return "portal"
    return (
        path
        if path in ("/", "/config", "/theme.css")
        else "page"
        if path.startswith("/gradio_api/")
        else "none"
    )
