"""The portal's prefixes on our origin: a streaming reverse proxy that keeps nothing and changes only what a
hop must.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterable

import httpx
from fastapi import FastAPI
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse

from atelier.contract.routes import PREFIXES
from webui.portal import Portal
from webui.unavailable import unavailable

METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]

HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
"""RFC 9110, 7.6.1: meant for one connection only."""

OURS = frozenset(
    {
        b"host",
        b"forwarded",
        b"x-real-ip",
        b"x-forwarded-for",
        b"x-forwarded-host",
        b"x-forwarded-proto",
        b"x-forwarded-port",
        b"x-request-id",
    }
)
"""Set by us from what we see: a caller's own would let it choose its address. The request's id is the one
that the Entrance settled.
"""

TIMEOUTS = httpx.Timeout(5, read=None, write=60, pool=5).as_dict()
"""No limit on reading: event streams and the peer's synchronous calls last as long as their job."""

RawHeaders = Iterable[tuple[bytes, bytes]]


def add_portal_routes(app: FastAPI, portal: Portal) -> None:
    """Give the portal's prefixes of atelier/contract/routes.py, and no others, to the proxy."""

    async def forward(request: Request) -> Response:
        return await _forward(request, portal)

    for prefix in PREFIXES:
        if prefix.owner == "portal":
            app.add_route(prefix.path, forward, methods=METHODS, include_in_schema=False)
            app.add_route(prefix.path + "/{rest:path}", forward, methods=METHODS, include_in_schema=False)


async def _forward(request: Request, portal: Portal) -> Response:
    """One exchange with the portal; 503 where it cannot be reached, 400 where the sender breaks off (nobody
    hears it, and it is no defect).
    """
    try:
        answer = await _exchange(request, portal)
    except ClientDisconnect:
        return PlainTextResponse("The request did not arrive whole.", 400)
    except httpx.TransportError:
        return unavailable(request)
    response = StreamingResponse(_chunks(answer), status_code=answer.status_code)
    response.raw_headers = [(name.lower(), value) for name, value in _end_to_end(answer.headers.raw)]
    return response


async def _exchange(request: Request, portal: Portal) -> httpx.Response:
    """Send it. A kept connection the portal closed meanwhile is tried once more, where the method
    allows it.
    """
    outgoing = _outgoing(request, portal)
    try:
        return await portal.transport.handle_async_request(outgoing)
    except (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError):
        if request.method not in ("GET", "HEAD") or _has_body(request):
            raise
        return await portal.transport.handle_async_request(_outgoing(request, portal))


def _outgoing(request: Request, portal: Portal) -> httpx.Request:
    target = httpx.URL(portal.url)
    raw_path = request.scope.get("raw_path") or request.url.path.encode()
    query = request.scope["query_string"]
    url = target.copy_with(raw_path=raw_path + (b"?" + query if query else b""))
    # RFC 9112, 6.3: chunks outrank a length that is stated beside them, and no proxy passes on both.
    dropped = OURS | {b"content-length"} if "transfer-encoding" in request.headers else OURS
    headers = [(name, value) for name, value in _end_to_end(request.headers.raw) if name not in dropped]
    headers += [
        (b"host", target.netloc),
        (b"x-forwarded-host", request.headers.get("host", "").encode("latin-1")),
        (b"x-forwarded-proto", request.url.scheme.encode()),
        (b"x-forwarded-for", (request.client.host if request.client else "").encode()),
    ]
    content: AsyncIterable[bytes] | None = request.stream() if _has_body(request) else None
    return httpx.Request(
        request.method, url, headers=headers, content=content, extensions={"timeout": TIMEOUTS}
    )


def _has_body(request: Request) -> bool:
    return request.headers.get("content-length", "0") != "0" or "transfer-encoding" in request.headers


def _end_to_end(headers: RawHeaders) -> list[tuple[bytes, bytes]]:
    """The headers that are not for one connection only, lower-cased."""
    listed = [(name.lower(), value) for name, value in headers]
    named = {
        token.strip().lower()
        for name, value in listed
        if name == b"connection"
        for token in value.split(b",")
    }
    return [(name, value) for name, value in listed if name not in HOP_BY_HOP and name not in named]


async def _chunks(answer: httpx.Response) -> AsyncIterator[bytes]:
    """The body as it comes, still encoded: an event is passed on the moment it arrives."""
    try:
        async for chunk in answer.aiter_raw():
            yield chunk
    finally:
        await answer.aclose()
