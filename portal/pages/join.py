"""/portal/join: where a link leads, to a new account or to a new password."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Form, Query
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from atelier.contract.errors import Conflict, InvalidRequest, NotFound
from portal.api import cookies
from portal.api.arrival import arrived
from portal.api.security import public, refuse_cross_site, services_of
from portal.pages.rendering import page
from portal.services.container import Services

router = APIRouter(prefix="/portal/join", include_in_schema=False)
ServicesOf = Annotated[Services, Depends(services_of)]


@router.get("")
@public
def join_page(
    request: Request, services: ServicesOf, link: Annotated[str, Query(max_length=200)] = ""
) -> Response:
    """The form, or that the link does not work any more."""
    return _form(request, services, link)


@router.post("")
@public
def join(
    request: Request,
    services: ServicesOf,
    link: Annotated[str, Form(max_length=200)] = "",
    username: Annotated[str, Form(max_length=64)] = "",
    password: Annotated[str, Form(max_length=1024)] = "",
    again: Annotated[str, Form(max_length=1024)] = "",
) -> Response:
    """Make the account or set the password, and log in with it; or say why not, with what was typed."""
    refuse_cross_site(request, strict=False)
    origin = arrived(request).origin
    try:
        offer = services.invitations.look(link)
        if password != again:
            raise InvalidRequest("The two passwords differ. Type the same twice.")
        if offer.username is None:
            user = services.invitations.join(link, username, password, origin)
        else:
            user = services.invitations.set_password(link, password, origin)
        _, tokens = services.identity.log_in(user.username, password, origin)
    except (InvalidRequest, Conflict) as error:
        return _form(request, services, link, error.http_status, username=username, message=error.message)
    except NotFound:
        return _form(request, services, link)
    cookies.give(request, tokens)
    return RedirectResponse("/", 303)


def _form(
    request: Request,
    services: Services,
    link: str,
    status_code: int = 200,
    *,
    username: str = "",
    message: str = "",
) -> Response:
    try:
        offer = services.invitations.look(link)
    except NotFound as error:
        offer, status_code, message = None, error.http_status, error.message
    answer = page(
        request, "join.html", status_code, offer=offer, link=link, username=username, message=message
    )
    answer.headers["Referrer-Policy"] = "no-referrer"
    return answer
