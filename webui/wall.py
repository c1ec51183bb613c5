"""What stands between the world and Gradio: a list of the paths the page needs, a login, same-origin writes,
strict headers.

Gradio isolates neither files nor sessions between users and offers routes this page never uses (uploads,
cached files, proxying, monitoring). Everything not listed here answers 404, whatever a later Gradio adds.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from atelier import logs
from atelier.contract.errors import (
    AtelierError,
    InvalidRequest,
    NotAuthenticated,
    NotFound,
    NotPermitted,
    PayloadTooLarge,
    WorkerUnavailable,
)
from atelier.contract.routes import owner_of
from atelier.soundjson import check
from webui.portal import Portal
from webui.unavailable import unavailable

LOGIN = "/portal/login?next=/"

CONTENT_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        # Gradio lays out with style attributes; styles alone cannot run anything.
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "font-src 'self' data:",
        "connect-src 'self'",
        "manifest-src 'self'",
        # The portal's pages about people, in a frame of the page.
        "frame-src 'self'",
        "form-action 'self'",
        "base-uri 'self'",
        "frame-ancestors 'none'",
    )
)

SECURITY_HEADERS = {
    "Content-Security-Policy": CONTENT_POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=(), payment=(), usb=()",
}

PUBLIC = ("/assets/", "/static/", "/ui/", "/favicon.ico", "/robots.txt")
"""The same bytes for everybody, logged in or not: the page's code and looks."""

PRIVATE = {
    "GET": (
        "/",
        "/config",
        "/theme.css",
        "/gradio_api/info",
        "/gradio_api/startup-events",
        "/gradio_api/heartbeat/",
    ),
    "POST": ("/gradio_api/run/",),
}
"""What the page asks of Gradio, for people who are logged in. A trailing slash admits what is below."""

MAX_EVENT_BYTES = 2**20
"""A form of this page is prompts and numbers; nothing in it comes near a mebibyte."""


class Wall:
    """ASGI middleware around the mounted Gradio app. The portal's prefixes pass untouched: they have a guard
    of their own.
    """

    def __init__(self, app: ASGIApp, portal: Portal) -> None:
        self.app = app
        self.portal = portal

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the request through, or answer it here."""
        if scope["type"] == "lifespan" or (scope["type"] == "http" and owner_of(scope["path"]) == "portal"):
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        request = Request(scope, receive)
        guarded = _with_headers(send, request)
        refusal = await self._refusal(request)
        if refusal is not None:
            await refusal(scope, receive, guarded)
            return
        try:
            await self.app(scope, await _sound(request, _limited(receive, request)), guarded)
        except InvalidRequest as error:
            await _refuse(error)(scope, receive, guarded)

    async def _refusal(self, request: Request) -> Response | None:
        """Why this request goes no further, None where it may."""
        path, method = request.url.path, "GET" if request.method == "HEAD" else request.method
        if method == "GET" and _listed(path, PUBLIC):
            return None
        if not _listed(path, PRIVATE.get(method, ())):
            return _refuse(NotFound("There is nothing at this address."))
        try:
            caller = await self.portal.caller(request.cookies)
        except WorkerUnavailable:
            return unavailable(request)
        if caller is None:
            if path == "/":
                return RedirectResponse(LOGIN, status_code=303, headers={"Cache-Control": "no-store"})
            return _refuse(
                NotAuthenticated("You are not logged in, or your session has ended. Log in again.")
            )
        if method == "POST" and not same_origin(request):
            return _refuse(NotPermitted("Another site tried to use your session; it was refused."))
        if int(request.headers.get("content-length") or 0) > MAX_EVENT_BYTES:
            return _refuse(
                PayloadTooLarge(
                    f"The form is larger than {MAX_EVENT_BYTES // 2**20} MiB. Shorten the prompt."
                )
            )
        return None


def same_origin(request: Request) -> bool:
    """Whether the browser says that our own page sends this: Sec-Fetch-Site, else an Origin that is our
    host.
    """
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site == "same-origin"
    origin = request.headers.get("origin")
    return origin is not None and urlsplit(origin).netloc == request.headers.get("host")


def _listed(path: str, known: tuple[str, ...]) -> bool:
    return any(
        path == each or (each.endswith("/") and each != "/" and path.startswith(each)) for each in known
    )


def _refuse(error: AtelierError) -> Response:
    return JSONResponse(
        {"error": error.body(), "request_id": logs.current().get("request_id", "")},
        status_code=error.http_status,
        headers={"Cache-Control": "no-store"},
    )


def _with_headers(send: Send, request: Request) -> Send:
    """A send that adds the security headers to every answer of ours."""

    async def guarded(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in SECURITY_HEADERS.items():
                headers[name] = value
            if request.url.scheme == "https":
                headers["Strict-Transport-Security"] = "max-age=31536000"
            if not _listed(request.url.path, PUBLIC):
                headers["Cache-Control"] = "no-store"
            elif request.url.path.startswith("/ui/"):
                # A 304 costs little: a page of one version must not run another version's script.
                headers["Cache-Control"] = "no-cache"
        await send(message)

    return guarded


def _limited(receive: Receive, request: Request) -> Receive:
    """A receive that breaks off a body without a length once it grows past the limit."""
    taken = 0

    async def counted() -> Message:
        nonlocal taken
        message = await receive()
        taken += len(message.get("body", b""))
        return message if taken <= MAX_EVENT_BYTES else {"type": "http.disconnect"}

    return counted if "transfer-encoding" in request.headers else receive


async def _sound(request: Request, receive: Receive) -> Receive:
    """`receive`, after the whole form has come in and is JSON that can be read in one way only. Raises
    InvalidRequest.
    """
    if request.method != "POST":
        return receive
    taken = bytearray()
    while (message := await receive())["type"] == "http.request":
        taken += message.get("body", b"")
        if not message.get("more_body", False):
            check(bytes(taken))
            break
    waiting: list[Message] = [{**message, "body": bytes(taken)}]

    async def again() -> Message:
        return waiting.pop() if waiting else await receive()

    return again
