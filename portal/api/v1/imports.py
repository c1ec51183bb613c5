"""/api/v1/models/imports: models by their source. /api/v1/models/tokens: what opens doors there."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Self

from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict, Field, SecretStr
from starlette.requests import Request
from starlette.responses import Response

from atelier.contract.models import ModelKind
from portal.api.arrival import arrived
from portal.api.schema import also
from portal.api.security import Caller, require, services_of
from portal.services.container import Services
from portal.services.imports import ImportView, ImportWish
from portal.services.source_tokens import TokenView

router = APIRouter(prefix="/api/v1/models", tags=["models"])
ServicesOf = Annotated[Services, Depends(services_of)]
Owner = Annotated[Caller, Depends(require("models.upload"))]


class ImportBody(BaseModel):
    """A model to import. `source`: hf:organisation/repository[@revision][/file], https://host/path or
    s3://bucket/key. `sha256` is what the file must have. `own`: for the caller alone, as it always is where
    they do not look after models. `token`: "auto" takes the one kept for the source's site, "none" none, or
    the id of one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str = Field(max_length=1000)
    kind: ModelKind = ModelKind.CHECKPOINT
    name: str = Field("", max_length=200)
    folder: str = Field("", max_length=400)
    sha256: str = Field("", pattern="^([0-9a-fA-F]{64})?$")
    own: bool = False
    token: str = Field("auto", max_length=40)

    @property
    def wish(self) -> ImportWish:
        """What the services are asked for."""
        return ImportWish(**self.model_dump())


class ImportAction(StrEnum):
    """What can be done about an import."""

    CANCEL = "cancel"
    RETRY = "retry"


class ImportActionBody(BaseModel):
    """cancel ends an import and throws away what came; retry begins one anew that failed or was cancelled."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    action: ImportAction


class TokenBody(BaseModel):
    """A token to keep for a site (a host; the Hugging Face Hub where it is left out). `studio`: for everybody
    who looks after models.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(max_length=64)
    token: SecretStr = Field(max_length=1000)
    site: str = Field("", max_length=260)
    studio: bool = False


class TokenOut(BaseModel):
    """A token that is kept, without what it is. `owner` is "" for the studio's; times in unix seconds."""

    id: str
    name: str
    site: str
    owner: str
    created: float
    used: float | None

    @classmethod
    def of(cls, view: TokenView) -> Self:
        """The view as JSON."""
        return cls(**vars(view))


@router.post("/imports", status_code=202, response_model=ImportView, responses=also(404, 409, 429))
def import_model(
    body: ImportBody, request: Request, response: Response, caller: Owner, services: ServicesOf
) -> ImportView:
    """Import a model by its source: a task fetches, verifies, converts and stores it. The same import that is
    under way already is that one.
    """
    view = services.work.imports.ask(caller, body.wish, arrived(request).origin)
    response.headers["Location"] = f"/api/v1/models/imports/{view.id}"
    return view


@router.get("/imports", response_model=list[ImportView])
def imports(caller: Owner, services: ServicesOf) -> list[ImportView]:
    """The caller's imports, everybody's for who looks after models; the newest first, at most 100."""
    return services.work.imports.listed(caller)


@router.get("/imports/{import_id}", response_model=ImportView)
def one_import(import_id: str, caller: Owner, services: ServicesOf) -> ImportView:
    """How far an import is."""
    return services.work.imports.get(caller, import_id)


@router.post("/imports/{import_id}/actions", response_model=ImportView, responses=also(409))
def act_on_import(import_id: str, body: ImportActionBody, caller: Owner, services: ServicesOf) -> ImportView:
    """Cancel an import, or begin it again."""
    kept = services.work.imports
    act = kept.cancel if body.action is ImportAction.CANCEL else kept.retry
    return act(caller, import_id)


@router.get("/tokens", response_model=list[TokenOut])
def tokens(caller: Owner, services: ServicesOf) -> list[TokenOut]:
    """The caller's tokens, and the studio's for who looks after models; never what they are."""
    return [TokenOut.of(view) for view in services.work.imports.tokens.listed(caller)]


@router.post("/tokens", status_code=201, response_model=TokenOut, responses=also(409))
def keep_token(body: TokenBody, caller: Owner, services: ServicesOf) -> TokenOut:
    """Keep a token for a site. It is sent to no other, and shown to nobody again."""
    given = body.token.get_secret_value()
    kept = services.work.imports.tokens.keep(caller, body.name, body.site, given, studio=body.studio)
    return TokenOut.of(kept)


@router.delete("/tokens/{token_id}", status_code=204)
def delete_token(token_id: str, caller: Owner, services: ServicesOf) -> None:
    """Forget a token."""
    services.work.imports.tokens.delete(caller, token_id)
