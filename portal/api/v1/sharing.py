"""/api/v1/sharing: who sees what belongs to the caller."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict, Field

from portal.api.schema import also
from portal.api.security import Caller, require, services_of
from portal.domain.sharing import Visibility
from portal.services.container import Services
from portal.services.sharing import Owned, Wish

router = APIRouter(prefix="/api/v1/sharing", tags=["sharing"])


class ShareBody(BaseModel):
    """Whom to share with: private (nobody), team (its people), studio (everybody). `team` is a team's id."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    visibility: Visibility
    team: str | None = Field(None, max_length=64)


class ShareOut(BaseModel):
    """Whose a thing is ("" for the studio's), and who sees it; `team` is a team's name."""

    owner: str
    visibility: Visibility
    team: str | None


@router.put("/{kind}/{object_id}", response_model=ShareOut, responses=also(409))
def share(
    kind: Owned,
    object_id: str,
    body: ShareBody,
    caller: Annotated[Caller, Depends(require("sharing.own"))],
    services: Annotated[Services, Depends(services_of)],
) -> ShareOut:
    """Let others see a job with its pictures, a model or a style, or no longer: one's own; anybody's with
    sharing.manage.
    """
    wish = Wish(body.visibility, body.team)
    standing = services.sharing.share(caller, kind, object_id, wish)
    return ShareOut(owner=standing.owner, visibility=standing.visibility, team=standing.team)
