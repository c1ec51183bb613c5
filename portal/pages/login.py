"""/portal/login and /portal/logout: the one door for people."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Form
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from atelier.contract.errors import AtelierError, NotAuthenticated, TooManyRequests
from portal.api import cookies
from portal.api.arrival import arrived
from portal.api.security import identify, public, refuse_cross_site, services_of
from portal.pages.rendering import LOGIN, local_path, page, static_file
from portal.services.container import Services

router = APIRouter(include_in_schema=False)
ServicesOf = Annotated[Services, Depends(services_of)]
YEAR = 31_536_000


@router.get("/")
@public
def front() -> Response:
    """A portal without a web UI in front of it: its own first page."""
    return RedirectResponse("/portal/", 303)


@router.get(LOGIN)
@public
def login_page(request: Request, services: ServicesOf, next: str = "/") -> Response:
    """The login form; whoever is logged in already, or can be renewed, goes straight on."""
    try:
        identify(request, services, allow_cookie=True)
    except AtelierError:
        return page(request, "login.html", next=local_path(next), username="", message="")
    return RedirectResponse(local_path(next), 303)


@router.post(LOGIN)
@public
def log_in(
    request: Request,
    services: ServicesOf,
    username: Annotated[str, Form(max_length=256)] = "",
    password: Annotated[str, Form(max_length=1024)] = "",
    next: Annotated[str, Form(max_length=2048)] = "/",
) -> Response:
    """Set the cookies and go where the person was going; or say why not, with what they typed still there."""
    refuse_cross_site(request, strict=False)
    try:
        _user, tokens = services.identity.log_in(username, password, arrived(request).origin)
    except (NotAuthenticated, TooManyRequests) as error:
        answer = page(
            request,
            "login.html",
            error.http_status,
            next=local_path(next),
            username=username[:64],
            message=error.message,
        )
        if seconds := error.detail.get("retry_after"):
            answer.headers["Retry-After"] = str(seconds)
        return answer
    cookies.give(request, tokens)
    return RedirectResponse(local_path(next), 303)


@router.post("/portal/logout")
@public
def log_out(request: Request, services: ServicesOf) -> Response:
    """End this login everywhere and forget the cookies; harmless for whoever is not logged in."""
    found = cookies.presented(request)
    if found:
        refuse_cross_site(request)
        services.identity.log_out(found.access, found.refresh, arrived(request).origin)
    cookies.take_away(request)
    return RedirectResponse(LOGIN, 303)


@router.get("/portal/static/{name}")
@public
def static(name: str, request: Request) -> Response:
    """A stylesheet, script or picture of the portal's pages."""
    content, media_type, etag = static_file(name)
    headers = {"ETag": etag, "Cache-Control": f"public, max-age={YEAR}, immutable"}
    if request.headers.get("if-none-match") == etag:
        return Response(status_code=304, headers=headers)
    return Response(content, media_type=media_type, headers=headers)
