"""/api/v1/auth: tokens for programs, and the renewal of a browser's session."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request

from atelier.contract.errors import NotAuthenticated
from portal.api import cookies
from portal.api.arrival import arrived
from portal.api.schema import also
from portal.api.security import public, refuse_cross_site, services_of
from portal.services.container import Services
from portal.services.sessions import Tokens

router = APIRouter(prefix="/api/v1/auth", tags=["auth"])


class LoginRequest(BaseModel):
    """A user name and its password."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    username: str = Field(max_length=256)
    password: str = Field(max_length=1024)


class RefreshRequest(BaseModel):
    """The refresh token of an earlier answer; a browser leaves it out and sends its cookie."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    refresh_token: str | None = Field(None, max_length=256)


class TokenView(BaseModel):
    """A bearer token; seconds are lifetimes from now. A browser's refresh token stays in its cookie."""

    access_token: str | None
    token_type: Literal["bearer"] = "bearer"  # noqa: S105  # a kind of token, not one
    expires_in: float
    refresh_token: str | None


@router.post("/token", response_model=TokenView, responses=also(401, 429))
@public
def token(
    body: LoginRequest, request: Request, services: Annotated[Services, Depends(services_of)]
) -> TokenView:
    """Exchange a user name and password for a bearer token."""
    _user, tokens = services.identity.log_in(body.username, body.password, arrived(request).origin)
    return _view(tokens)


@router.post("/refresh", response_model=TokenView, responses=also(401))
@public
def refresh(
    request: Request, services: Annotated[Services, Depends(services_of)], body: RefreshRequest | None = None
) -> TokenView:
    """Exchange a refresh token, of the body or of the browser's cookie, for fresh tokens."""
    if body is not None and body.refresh_token:
        return _view(services.sessions.refresh(body.refresh_token, arrived(request).origin))
    found = cookies.presented(request)
    if not found.refresh:
        raise NotAuthenticated("You are not logged in. Log in at /portal/login.")
    refuse_cross_site(request)
    tokens = services.sessions.refresh(found.refresh, arrived(request).origin)
    cookies.give(request, tokens)
    return TokenView(access_token=None, expires_in=tokens.access_seconds, refresh_token=None)


def _view(tokens: Tokens) -> TokenView:
    return TokenView(
        access_token=tokens.access, expires_in=tokens.access_seconds, refresh_token=tokens.refresh
    )
