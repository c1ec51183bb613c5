"""/ui/healthz and /ui/readyz: what a supervisor asks the web UI itself. (/healthz and /readyz of our origin
are the portal's.)
"""

from __future__ import annotations

import httpx
from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from webui.portal import Portal

ASKING = httpx.Timeout(5).as_dict()


def add_health(app: FastAPI, portal: Portal) -> None:
    """Add both routes."""

    async def alive(_: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def ready(_: Request) -> Response:
        fault = await _fault(portal)
        said = {"status": "not ready" if fault else "ready", "faults": [fault] if fault else []}
        return JSONResponse(said, 503 if fault else 200)

    app.add_route("/ui/healthz", alive, methods=["GET"])
    app.add_route("/ui/readyz", ready, methods=["GET"])


async def _fault(portal: Portal) -> str | None:
    """What is wrong; None where the portal answers. Whether that is ready itself, its own /readyz says."""
    request = httpx.Request("GET", f"{portal.url}/healthz", extensions={"timeout": ASKING})
    try:
        answer = await portal.transport.handle_async_request(request)
        await answer.aread()
        await answer.aclose()
    except httpx.TransportError:
        return "The portal does not answer."
    return None if answer.is_success else f"The portal answers its /healthz with {answer.status_code}."
