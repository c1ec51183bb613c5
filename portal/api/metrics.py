"""GET /metrics: the portal's figures as Prometheus reads them."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4
from starlette.responses import PlainTextResponse, Response

from portal.api.security import require, services_of
from portal.services.container import Services

router = APIRouter(tags=["health"])


@router.get("/metrics", dependencies=[Depends(require("portal.view"))], response_class=PlainTextResponse)
def metrics(services: Annotated[Services, Depends(services_of)]) -> Response:
    """Requests, jobs, queue, endpoints and the audit trail as figures, without anybody's name."""
    return Response(services.metrics.exposition(), media_type=CONTENT_TYPE_PLAIN_0_0_4)
