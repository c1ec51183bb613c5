"""The web UI's process: `python -m webui.app`."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from pydantic import BaseModel
from starlette.responses import JSONResponse, Response
from starlette.staticfiles import StaticFiles

from atelier import extension, logs
from atelier.controls import OWN_PAGES, card_pages, unit_sections
from atelier.extension import Hooks
from atelier.processes import exit_with_parent
from webui.edge import Edge
from webui.entrance import Entrance
from webui.health import add_health
from webui.page import FirstPage
from webui.portal import Portal
from webui.proxy import add_portal_routes
from webui.settings import Settings
from webui.wall import Wall

STATIC = Path(__file__).parent / "static"

GRADIO_ENVIRONMENT = {
    "GRADIO_ANALYTICS_ENABLED": "False",
    "GRADIO_RUN_HISTORY": "False",
    "GRADIO_MCP_SERVER": "False",
    "GRADIO_SSR_MODE": "False",
    "GRADIO_VIBE_MODE": "",
    "HF_HUB_OFFLINE": "1",
}
"""Gradio reads these when it is imported: nothing goes out, nothing is recorded, no second server starts."""


def create_app(settings: Settings, *, portal: Portal | None = None, hooks: Hooks | None = None) -> FastAPI:
    """The whole origin: the portal's prefixes, our static files and, behind the wall, the Gradio page.
    `hooks`: the extensions in use, the installed ones where None.
    """
    # Imported here because Gradio reads its environment on import, and importing this module must read none.
    from webui.mount import mount
    from webui.studio import build_studio

    portal = portal or Portal(settings.portal_url)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await portal.close()

    async def username(request: Request) -> str | None:
        caller = await portal.caller(request.cookies)
        return str(caller["username"]) if caller else None

    app = FastAPI(lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    add_portal_routes(app, portal)
    _add_card_pages(app, hooks or extension.installed("ui"))
    add_health(app, portal)
    app.mount("/ui", StaticFiles(directory=STATIC), name="ui")
    mount(app, build_studio(portal), username)
    app.add_middleware(FirstPage)
    app.add_middleware(Wall, portal=portal)
    app.add_middleware(Entrance)
    if settings.edge == "cloudfront":
        app.add_middleware(Edge)
    return app


def _add_card_pages(app: FastAPI, hooks: Hooks) -> None:
    """`/ui/cards/<tab>.json` and `/ui/units/<tab>.json`: what the page's script draws for extensions."""
    for tab in OWN_PAGES:
        drawn: dict[str, Sequence[BaseModel]] = {
            "cards": card_pages(tab, hooks),
            "units": unit_sections(tab, hooks),
        }
        for kind, found in drawn.items():
            told = [each.model_dump(mode="json") for each in found]

            async def answer(_: Request, told: list[dict[str, Any]] = told) -> Response:
                return JSONResponse(told)

            app.add_route(f"/ui/{kind}/{tab}.json", answer, methods=["GET"])


def main() -> None:
    """Serve until asked to stop or until the parent is gone."""
    settings = Settings()
    logs.configure("webui", settings.log_level, settings.log_format)
    # The server passes the signal on once it has stopped: leave by the door, so that the scratch folder goes.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with tempfile.TemporaryDirectory(prefix="atelier-webui-") as scratch:
        os.environ.update(GRADIO_ENVIRONMENT, GRADIO_TEMP_DIR=scratch)
        exit_with_parent()
        uvicorn.Server(_server_config(settings)).run()


def _server_config(settings: Settings) -> uvicorn.Config:
    return uvicorn.Config(
        lambda: create_app(settings),
        # Built inside the server's event loop: Gradio opens loops of its own where it finds none.
        factory=True,
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=[str(network) for network in settings.trusted_proxies],
        # An open event stream never ends by itself; its job goes on in the portal whoever watches.
        timeout_graceful_shutdown=3,
    )


if __name__ == "__main__":
    main()
