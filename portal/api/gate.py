"""What every request passes: its arrival is read, its host and transport checked, its body bounded, its
answer hardened.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping

from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from atelier import logs
from atelier.contract.errors import AtelierError, InvalidRequest, NotPermitted, PayloadTooLarge
from portal.api.arrival import Arrival, arrival_of, known_host
from portal.api.bodies import looked_at
from portal.api.errors import Shape, respond, unexpected
from portal.services.failures import failure
from portal.services.metrics import UNMATCHED, Metrics, known_method
from portal.settings import Settings

log = logging.getLogger("portal.access")

PROBES = ("/healthz", "/readyz")
"""Asked by load balancers over plain http and by address: no check of host or transport."""

SELDOM_TOLD = frozenset((*PROBES, "/metrics", "/portal/static/{name}"))
"""Routes whose requests are logged at the level debug alone."""

MODEL_UPLOAD = "/api/v1/models/upload"
"""The one route whose body may be larger: it is written to disk as it arrives, and a setting of its own
bounds it.
"""

CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
"""Scripts are files of our own, and none of them may make markup of a text: there is no trusted type."""

HEADERS = {
    "Content-Security-Policy": CSP,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=(), payment=(), usb=()",
    "Cache-Control": "no-store",
}
"""What every answer carries unless its route says otherwise."""


class Gate:
    """ASGI middleware, the outermost: nothing reaches a route without an Arrival in `request.state`."""

    def __init__(
        self, app: ASGIApp, settings: Settings, shapes: Mapping[str, Shape], metrics: Metrics
    ) -> None:
        self._app = app
        self._settings = settings
        self._shapes = shapes
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        arrival = arrival_of(scope, self._settings)
        scope.setdefault("state", {}).update(arrival=arrival, cookies=[])
        with logs.bound(request_id=arrival.request_id):
            await self._answer(Request(scope), arrival, receive, send)

    async def _answer(self, request: Request, arrival: Arrival, receive: Receive, send: Send) -> None:
        began, scope = time.perf_counter(), request.scope
        hardened = _Hardened(send, arrival, scope["state"]["cookies"])
        try:
            self._check(request, arrival)
            body = await looked_at(scope, _bounded(receive, self._limit(request)))
            await self._app(scope, body, hardened)
        except (AtelierError, HTTPException) as error:
            await respond(request, error, self._shapes)(scope, receive, hardened)
        except UnicodeEncodeError:
            half = InvalidRequest("The request holds half a character (a lone surrogate). Send whole ones.")
            await respond(request, half, self._shapes)(scope, receive, hardened)
        except Exception as error:  # the boundary: a defect is logged and answered, the process goes on
            if hardened.started:
                raise
            await unexpected(request, error, self._shapes, failure(error))(scope, receive, hardened)
        finally:
            self._note(request, hardened, began)

    def _note(self, request: Request, answer: _Hardened, began: float) -> None:
        """Count the request and log it, by its route's template: what stands in a path may be a secret."""
        if answer.began is None:
            return
        route = getattr(request.scope.get("route"), "path", None)
        self._metrics.answered(route, request.method, answer.status, answer.began - began)
        said = {
            "method": known_method(request.method),
            "route": route or UNMATCHED,
            "status": answer.status,
            "ms": round(1000 * (answer.began - began), 1),
            "whole_ms": round(1000 * (time.perf_counter() - began), 1),
            "ip": request.state.arrival.client_ip,
        }
        level = logging.DEBUG if said["route"] in SELDOM_TOLD else logging.INFO
        log.log(level, "%(method)s %(route)s %(status)s", said, extra=said)

    def _check(self, request: Request, arrival: Arrival) -> None:
        if request.url.path in PROBES:
            return
        if not known_host(arrival, self._settings):
            raise InvalidRequest(
                f"This studio does not answer under {arrival.host[:100]!r}. "
                "Set ATELIER_PUBLIC_URL or ATELIER_ALLOWED_HOSTS."
            )
        if not (arrival.secure or arrival.loopback or self._settings.insecure_http):
            raise NotPermitted(
                "Plain http is refused: passwords would be readable on the way. "
                "Use https, or set ATELIER_INSECURE_HTTP=1 on a network you trust."
            )
        length = request.headers.get("content-length", "0")
        if not length.isdigit() or int(length) > self._limit(request):
            raise PayloadTooLarge(_too_large(self._limit(request)))

    def _limit(self, request: Request) -> int:
        """The most bytes the request's body may have."""
        large = request.url.path == MODEL_UPLOAD and request.method == "POST"
        return self._settings.max_model_bytes if large else self._settings.max_body_bytes


class _Hardened:
    """`send` with our headers, the request id and the cookies of this request added."""

    def __init__(self, send: Send, arrival: Arrival, cookies: list[str]) -> None:
        self._send = send
        self._arrival = arrival
        self._cookies = cookies
        self.started = False
        self.status = 0
        self.began: float | None = None
        """When the answer began, by time.perf_counter."""

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.started, self.began, self.status = True, time.perf_counter(), message["status"]
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers.setdefault(name, value)
            headers["X-Request-ID"] = self._arrival.request_id
            if self._arrival.secure:
                headers["Strict-Transport-Security"] = "max-age=31536000"
            for cookie in self._cookies:
                headers.append("Set-Cookie", cookie)
        await self._send(message)


def _bounded(receive: Receive, limit: int) -> Receive:
    """`receive` that refuses more than `limit` bytes, for bodies that do not say their length."""
    taken = 0

    async def bounded() -> Message:
        nonlocal taken
        message = await receive()
        taken += len(message.get("body", b""))
        if taken > limit:
            raise HTTPException(413, _too_large(limit))
        return message

    return bounded


def _too_large(limit: int) -> str:
    return f"The request is larger than {limit / 2**20:g} MiB, the most this studio takes at once."
