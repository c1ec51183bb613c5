"""Who is asking, and may they: the dependencies by which every route declares its permission.

`require("jobs.submit")` takes the browser's cookie or a bearer token; `require_basic("jobs.submit")` is for
programs and takes Basic (a password or an API key) or a bearer token, never the cookie. A route without
either, and not marked `public`, is refused when the application is built.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any, TypeVar

from fastapi import APIRouter
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from starlette.requests import Request

from atelier import logs
from atelier.contract.errors import NotAuthenticated, NotPermitted
from atelier.contract.routes import for_programs
from portal.api import cookies
from portal.api.arrival import Arrival, arrived
from portal.services.callers import Caller
from portal.services.container import Services
from portal.services.permissions import PERMISSIONS

__all__ = [
    "Caller",
    "arrived",
    "declared",
    "guard_of",
    "public",
    "refuse_cross_site",
    "require",
    "require_basic",
    "services_of",
    "undeclared",
]

SAFE_METHODS = frozenset(("GET", "HEAD", "OPTIONS"))
F = TypeVar("F", bound=Callable[..., Any])


def services_of(request: Request) -> Services:
    """The services of the application that answers `request` (also a dependency)."""
    found: Services = request.app.state.services
    return found


class Guard:
    """A dependency that yields the caller, or refuses: 401 without a valid credential, 403 without the
    permission.
    """

    def __init__(self, permission: str, *, program: bool) -> None:
        if permission not in PERMISSIONS:
            raise ValueError(f"{permission!r} is no permission of the registry")
        self.permission = permission
        self._program = program

    def wants_program(self, path: str) -> bool:
        """Whether the route at `path` is for programs alone."""
        return self._program or for_programs(path)

    def __call__(self, request: Request) -> Caller:
        """The caller, who has the permission."""
        services = services_of(request)
        caller = identify(request, services, allow_cookie=not self.wants_program(request.url.path))
        caller = replace(caller, origin=arrived(request).origin)
        request.state.caller = caller
        logs.note(user_id=caller.user_id)
        if not caller.may(self.permission):
            services.identity.note_denied(caller, self.permission)
        caller.demand(self.permission)
        return caller


def require(permission: str) -> Guard:
    """For people and their programs: the browser's cookie, or a bearer token (access token or API key)."""
    return Guard(permission, program=False)


def require_basic(permission: str) -> Guard:
    """For programs alone: Basic with a password or an API key, or a bearer token. A cookie is no credential
    here.
    """
    return Guard(permission, program=True)


def public(endpoint: F) -> F:
    """Mark a route that answers without a login. Use it rarely: it is the only way around a permission."""
    endpoint.atelier_public = True  # type: ignore[attr-defined]
    return endpoint


def identify(request: Request, services: Services, *, allow_cookie: bool) -> Caller:
    """The caller of `request`. Raises NotAuthenticated, TooManyRequests, or NotPermitted for a request from
    another site.
    """
    scheme, _, credential = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and credential:
        return services.credentials.by_bearer(credential.strip())
    if scheme.lower() == "basic" and credential and not allow_cookie:
        username, password = _basic(credential)
        return services.credentials.by_password(username, password, arrived(request).origin)
    if allow_cookie and (found := cookies.presented(request)):
        refuse_cross_site(request)
        return _by_cookie(request, services, found)
    if allow_cookie:
        raise NotAuthenticated("You are not logged in. Log in at /portal/login.")
    raise NotAuthenticated("Incorrect username or password")


def _by_cookie(request: Request, services: Services, found: cookies.Presented) -> Caller:
    """The caller of the access cookie; where that has expired, of a fresh one exchanged for the refresh
    cookie.
    """
    if found.access:
        try:
            return services.sessions.caller_of(found.access)
        except NotAuthenticated:
            if not found.refresh:
                raise
    try:
        tokens = services.sessions.refresh(found.refresh or "", arrived(request).origin)
    except NotAuthenticated:
        cookies.take_away(request)
        raise
    cookies.give(request, tokens)
    return services.sessions.caller_of(tokens.access)


def refuse_cross_site(request: Request, *, strict: bool = True) -> None:
    """Raise NotPermitted for an unsafe method that another site may have caused (CSRF).

    Browsers say where a request comes from in Sec-Fetch-Site, or at least in Origin; page scripts cannot
    forge either. With `strict`, a request that carries neither is refused too: a program has no business with
    cookies.
    """
    if request.method in SAFE_METHODS:
        return
    fetch_site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
    if fetch_site is not None:
        good = fetch_site == "same-origin"
    elif origin is not None:
        good = _same_site(origin, arrived(request))
    else:
        good = not strict
    if not good:
        raise NotPermitted(
            "This request did not come from the studio's own pages, so it was not carried out."
        )


def _same_site(origin: str, arrival: Arrival) -> bool:
    return origin.lower() == arrival.site


def _basic(credential: str) -> tuple[str, str]:
    try:
        username, colon, password = base64.b64decode(credential, validate=True).decode().partition(":")
    except ValueError:  # no base64, no ASCII, no UTF-8
        username = colon = password = ""
    if not colon:
        raise NotAuthenticated("Incorrect username or password")
    return username, password


def declared(route: APIRoute) -> str | None:
    """The permission a route declares, "public", or None."""
    if getattr(route.endpoint, "atelier_public", False):
        return "public"
    guard = guard_of(route)
    return guard.permission if guard else None


def guard_of(route: APIRoute) -> Guard | None:
    """What guards a route, None where nothing does."""
    return next((call for call in _calls(route.dependant) if isinstance(call, Guard)), None)


def undeclared(routers: Iterable[APIRouter]) -> list[str]:
    """Every route without a declared permission, as "METHODS path"; a route that is no APIRoute counts as
    one.
    """
    found = []
    for router in routers:
        for route in router.routes:
            if not isinstance(route, APIRoute) or declared(route) is None:
                methods = ",".join(sorted(getattr(route, "methods", None) or ()))
                found.append(f"{methods} {getattr(route, 'path', route)}".strip())
    return found


def _calls(dependant: Dependant) -> Iterator[object]:
    yield dependant.call
    for child in dependant.dependencies:
        yield from _calls(child)
