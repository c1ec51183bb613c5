"""The portal as a web application: `create_app(services)`, and `python -m portal.app` as one process of the
studio.
"""

from __future__ import annotations

import gc
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

import uvicorn
from fastapi import APIRouter, FastAPI
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware

from atelier import logs
from atelier.contract.errors import StorageFailed
from atelier.processes import exit_with_parent
from portal.api import controlnet, errors, files, health, metrics
from portal.api.gate import Gate
from portal.api.gateway import inference
from portal.api.schema import PEERS, describe
from portal.api.sdapi import clicks, lists, model_lists, networks, options, png_info, progress, txt2img
from portal.api.sdapi.errors import as_peer
from portal.api.security import undeclared
from portal.api.v1 import (
    access,
    assets,
    audit,
    auth,
    controlnet_preview,
    custom_calls,
    dead_letters,
    endpoints,
    imports,
    infotext,
    jobs,
    me,
    model_uploads,
    models,
    quotas,
    roles,
    setting_levels,
    shares,
    sharing,
    styles,
    teams,
    users,
)
from portal.bootstrap import build
from portal.db.base import Database
from portal.db.migrate import pending
from portal.pages import access as access_page
from portal.pages import admin, docs, join, login, people
from portal.pages import audit as audit_page
from portal.pages import endpoints as endpoints_page
from portal.pages import imports as imports_page
from portal.pages import jobs as jobs_page
from portal.pages import models as models_page
from portal.pages import settings as settings_page
from portal.pages.rendering import as_page
from portal.services.container import Services
from portal.settings import Settings, load

log = logging.getLogger(__name__)

ROUTERS: tuple[APIRouter, ...] = (
    health.router,
    metrics.router,
    login.router,
    admin.router,
    jobs_page.router,
    people.router,
    access_page.router,
    endpoints_page.router,
    settings_page.router,
    audit_page.router,
    join.router,
    imports_page.router,
    models_page.router,
    docs.router,
    auth.router,
    me.router,
    users.router,
    roles.router,
    teams.router,
    access.router,
    quotas.router,
    shares.router,
    setting_levels.router,
    audit.router,
    jobs.router,
    dead_letters.router,
    model_uploads.router,
    imports.router,
    models.router,
    styles.router,
    sharing.router,
    endpoints.router,
    custom_calls.router,
    files.router,
    assets.router,
    infotext.router,
    txt2img.router,
    lists.router,
    options.router,
    model_lists.router,
    networks.router,
    progress.router,
    clicks.router,
    png_info.router,
    inference.router,
    controlnet.router,
    controlnet_preview.router,
)
"""Every router of the portal; a route that is in none of them does not exist."""

DATABASE_SECONDS = 60.0
"""How long a portal that starts waits for its database."""
GRACE_SECONDS = 5
"""How long streams and downloads may go on after SIGTERM."""

SHAPES: Mapping[str, errors.Shape] = {"/portal": as_page, "/docs": as_page} | dict.fromkeys(PEERS, as_peer)
"""How families of routes write errors, by prefix; the others as /api/v1 does."""


def create_app(services: Services) -> FastAPI:
    """The application. Refuses to be built with a route that declares no permission."""
    if missing := undeclared(ROUTERS):
        raise RuntimeError(f"routes without a permission: {', '.join(missing)}")
    app = FastAPI(
        title="Atelier",
        lifespan=_lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        middleware=[Middleware(Gate, settings=services.settings, shapes=SHAPES, metrics=services.metrics)],
    )
    app.state.services = services
    errors.install(app, SHAPES)
    for router in ROUTERS:
        app.include_router(router)
    app.openapi = lambda: describe(app, ROUTERS)  # type: ignore[method-assign]  # FastAPI's way to replace it
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    """The dispatcher and the workers live as long as the application: uvicorn ends the process right
    after.
    """
    services: Services = app.state.services
    await run_in_threadpool(services.start)
    try:
        yield
    finally:
        await run_in_threadpool(services.stop)


def serve(settings: Settings) -> None:
    """Answer until SIGTERM, or until the process that started this one is gone."""
    logs.configure("portal", settings.log_level, settings.log_format)
    services = build(settings)
    await_database(services.database)
    if pending(services.database):
        raise SystemExit("The database is not of this version. Run: atelier migrate")
    app = create_app(services)
    gc.collect()
    gc.freeze()  # what there is now stays: looking at it again and again costs a tenth of a second each time
    exit_with_parent()
    uvicorn.run(
        app,
        host=settings.portal_host,
        port=settings.portal_port,
        log_config=None,
        access_log=False,  # the Gate's says more
        proxy_headers=False,  # the Gate reads forwarded headers, from trusted proxies alone
        server_header=False,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )


def await_database(
    database: Database, seconds: float = DATABASE_SECONDS, pause: Callable[[float], object] = time.sleep
) -> None:
    """Return once the database answers: it may be starting too. Raises SystemExit after so many seconds."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            database.ping()
            return
        except StorageFailed as error:
            if time.monotonic() >= deadline:
                raise SystemExit(f"{error.message} Start it, or set ATELIER_DATABASE_URL.") from error
            log.warning("%s The portal waits for it.", error.message)
            pause(1.0)


if __name__ == "__main__":
    serve(load())
