"""SageMaker's container contract over HTTP: GET /ping and POST /invocations, with a drain at SIGTERM.

/ping answers 200 only while a request would be served. Every failure is JSON and never 2xx: an asynchronous
endpoint counts any 2xx as success, whatever it says.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import logging
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from atelier import logs
from atelier.contract.errors import (
    AtelierError,
    InternalError,
    InvalidRequest,
    MalformedBody,
    NotAcceptable,
    NotAuthenticated,
    NotFound,
    PayloadTooLarge,
    TooManyRequests,
    UnsupportedMedia,
    WorkReturned,
)

Status = Literal["starting", "ready", "draining", "stopped"]
ABANDON_SECONDS = 3.0
"""What is left after the drain time for work to notice that it was given up."""
_KEEP_ALIVE_SECONDS = 75
_ACCEPTED = ("", "*/*", "application/*", "application/json")
"""What an Accept header may say: nothing, or a range that has JSON in it."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Invocation:
    """A request to /invocations: its JSON object, and an event that is set if the caller goes away."""

    body: dict[str, Any]
    gone: asyncio.Event


@dataclass(frozen=True)
class Answer:
    """A JSON object, and headers that say more of it than it may itself."""

    body: dict[str, Any]
    headers: Mapping[str, str] = field(default_factory=dict)


Health = Callable[[], list[str]]
"""What is wrong with the worker, a sentence each. It may block."""
Handler = Callable[[Invocation], Awaitable[dict[str, Any] | Answer]]


class Gate:
    """Whether requests are let in, and how many are inside. `announce` is called when the status changes.

    It belongs to the event loop; other threads only read the status.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._inside = 0
        self._empty = asyncio.Event()
        self._empty.set()
        self._status: Status = "starting"
        self.announce: Callable[[], None] = lambda: None

    @property
    def status(self) -> Status:
        """starting, ready, draining or stopped."""
        return self._status

    @property
    def inside(self) -> int:
        """Requests that were let in and have not been answered."""
        return self._inside

    def open(self) -> None:
        """Let requests in, unless a drain has begun meanwhile."""
        if self._status == "starting":
            self._turn("ready")

    def drain(self) -> None:
        """Let nobody in any more."""
        self._turn("draining")

    def stop(self) -> None:
        """The worker is done."""
        self._turn("stopped")

    async def emptied(self, seconds: float) -> bool:
        """Wait up to `seconds` until nobody is inside; whether that came true."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._empty.wait(), seconds)
        return self._empty.is_set()

    @contextlib.contextmanager
    def admitted(self) -> Iterator[None]:
        """Count a request as inside. Raises WorkReturned or TooManyRequests, both to be tried again."""
        if self._status != "ready":
            raise WorkReturned(f"This worker is {self._status}; another one or a later try will do.")
        if self._inside >= self._most:
            told = f"This worker already has {self._inside} requests in work."
            raise TooManyRequests(told, detail={"retry_after": 1})
        self._inside += 1
        self._empty.clear()
        try:
            yield
        finally:
            self._inside -= 1
            if not self._inside:
                self._empty.set()

    def _turn(self, status: Status) -> None:
        self._status = status
        log.info("the worker is %s", status)
        self.announce()


def contract_app(
    handle: Handler,
    gate: Gate,
    *,
    token: str | None,
    max_body_bytes: int,
    health: Health | None = None,
    lifespan: Callable[[Starlette], contextlib.AbstractAsyncContextManager[None]] | None = None,
) -> Starlette:
    """The two routes of the contract around `handle`, and /healthz and /readyz, which says in words what is
    wrong: that the gate is closed, and what `health` finds. With a `token`, /invocations asks for it as a
    bearer token.
    """

    async def invocations(request: Request) -> Response:
        began, request_id = time.perf_counter(), logs.request_id(request.headers.get("x-request-id"))
        with logs.bound(request_id=request_id):
            response = await answered(request)
            said = {"status": response.status_code, "ms": round(1000 * (time.perf_counter() - began), 1)}
            log.info("POST /invocations %d", response.status_code, extra=said)
        response.headers["X-Request-Id"] = request_id
        return response

    async def answered(request: Request) -> Response:
        try:
            _check_token(request, token)
            _check_accepted(request)
            with gate.admitted():
                body = await _json_object(request, max_body_bytes)
                async with _watching_for_departure(request) as gone:
                    made = await handle(Invocation(body, gone))
                    answer = made if isinstance(made, Answer) else Answer(made)
                    return await asyncio.to_thread(JSONResponse, answer.body, headers=dict(answer.headers))
        except AtelierError as error:
            return error_response(error)
        except ClientDisconnect:
            return Response(status_code=499)
        except Exception:  # the caller gets JSON, the log gets the rest
            log.exception("the request failed")
            told = "The worker met a defect. Its log has the request id."
            return error_response(InternalError(told, detail={"request_id": logs.current()["request_id"]}))

    async def not_found(request: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 404
        path = request.url.path[:200]
        told = NotFound(f"There is no {request.method} {path} here; only /ping and /invocations.")
        return JSONResponse({"error": told.body()}, status_code=status)

    routes = [*_probes(gate, health), Route("/invocations", invocations, methods=["POST"])]
    return Starlette(routes=routes, exception_handlers={HTTPException: not_found}, lifespan=lifespan)


def _probes(gate: Gate, health: Health | None) -> list[Route]:
    """/ping as SageMaker asks it, and for people /healthz (the process answers) and /readyz."""

    async def ping(_: Request) -> Response:
        return Response(status_code=200 if gate.status == "ready" else 503)

    async def alive(_: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def ready(_: Request) -> Response:
        faults = [] if gate.status == "ready" else [f"The worker is {gate.status}."]
        faults += await asyncio.to_thread(health) if health else []
        said = {"status": "not ready" if faults else "ready", "faults": faults}
        return JSONResponse(said, 503 if faults else 200)

    return [
        Route("/ping", ping, methods=["GET"]),
        Route("/healthz", alive, methods=["GET"]),
        Route("/readyz", ready, methods=["GET"]),
    ]


def error_response(error: AtelierError) -> Response:
    """The one place where an error becomes HTTP."""
    headers = {"Retry-After": str(error.detail.get("retry_after", 1))} if error.retryable else None
    return JSONResponse({"error": error.body()}, status_code=error.http_status, headers=headers)


def _check_token(request: Request, token: str | None) -> None:
    if token is None:
        return
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not hmac.compare_digest(given.strip().encode(), token.encode()):
        raise NotAuthenticated("This worker asks for its own token.")


def _check_accepted(request: Request) -> None:
    """A caller that names media types has to take JSON; one with weight 0 is none it takes."""
    accept = request.headers.get("accept", "")
    for each in accept.lower().split(","):
        kind, _, weight = each.replace(" ", "").partition(";")
        refused = weight.startswith("q=0") and not weight.removeprefix("q=").strip("0.")
        if kind in _ACCEPTED and not refused:
            return
    raise NotAcceptable(
        f"Answers are application/json, and this call accepts {accept[:80]!r}. Send Accept: application/json."
    )


async def _json_object(request: Request, max_bytes: int) -> dict[str, Any]:
    kind = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise UnsupportedMedia(
            f"The body must be application/json, not {kind[:80]!r}. Send the header Content-Type with it."
        )
    too_large = PayloadTooLarge(f"The body is larger than {max_bytes} bytes.", detail={"limit": max_bytes})
    length = request.headers.get("content-length", "")
    if length.isdigit() and int(length) > max_bytes:
        raise too_large
    data = bytearray()
    async for chunk in request.stream():
        data += chunk
        if len(data) > max_bytes:
            raise too_large
    return await asyncio.to_thread(_parse, bytes(data))


def _parse(data: bytes) -> dict[str, Any]:
    try:
        body = json.loads(data)
        if b"\\u" in data:
            # Half a surrogate pair is no text: better refused here than in the middle of the work.
            json.dumps(body, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise MalformedBody(f"The body is no JSON that can be used: {str(error)[:200]}.") from error
    if not isinstance(body, dict):
        raise InvalidRequest("The body must be a JSON object.")
    return body


@contextlib.asynccontextmanager
async def _watching_for_departure(request: Request) -> AsyncIterator[asyncio.Event]:
    gone = asyncio.Event()

    async def watch() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        gone.set()

    watcher = asyncio.create_task(watch())
    try:
        yield gone
    finally:
        watcher.cancel()


def serve(
    handle: Handler,
    gate: Gate,
    *,
    host: str,
    port: int,
    token: str | None,
    max_body_bytes: int,
    drain_seconds: float,
    start: Callable[[], None],
    give_up: Callable[[], None],
    health: Health | None = None,
) -> bool:
    """Serve until SIGTERM or SIGINT, then drain; returns whether the start succeeded.

    `start` runs in a thread while /ping already answers 503. `give_up` is called when the drain time is over
    and requests are still inside: it must make them end soon. The process is meant to exit afterwards.
    """
    failed = False

    async def open_when_started() -> None:
        nonlocal failed
        try:
            await asyncio.to_thread(start)
        except Exception:  # a worker that cannot start says why and goes
            log.exception("the worker cannot start")
            failed = server.should_exit = True
        else:
            gate.open()

    async def close_when_asked(asked: asyncio.Event) -> None:
        await asked.wait()
        gate.drain()
        if not await gate.emptied(drain_seconds):
            log.warning("%d requests are given up", gate.inside)
            give_up()
            await gate.emptied(ABANDON_SECONDS)
        server.should_exit = True

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        asked = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            # Instead of uvicorn's handlers, which close at once and end with the signal as the exit status.
            asyncio.get_running_loop().add_signal_handler(number, asked.set)
        tasks = [asyncio.create_task(open_when_started()), asyncio.create_task(close_when_asked(asked))]
        yield
        for task in tasks:
            task.cancel()

    app = contract_app(
        handle, gate, token=token, max_body_bytes=max_body_bytes, health=health, lifespan=lifespan
    )
    server = uvicorn.Server(_uvicorn_config(app, host, port))
    server.run()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second request to go must not spoil the last writes
    gate.stop()
    return not failed


def _uvicorn_config(app: Starlette, host: str, port: int) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        host=host,
        port=port,
        loop="asyncio",
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=1,
    )
