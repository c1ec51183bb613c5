"""/portal/endpoints: where pictures are made, how it goes there, and changing it."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Form
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from atelier.contract.errors import AtelierError, NotAuthenticated
from atelier.contract.models import ModelKind
from portal.api.security import Caller, require, services_of
from portal.pages.rendering import page
from portal.services.container import Services
from portal.services.imports import ImportWish
from portal.services.ports import EndpointKind, EndpointSpec, Metric

router = APIRouter(prefix="/portal/endpoints", include_in_schema=False)
ServicesOf = Annotated[Services, Depends(services_of)]
Keeper = Annotated[Caller, Depends(require("endpoints.manage"))]
Number = Annotated[int, Form(ge=0, le=10_000)]
Optional = Annotated[str, Form(pattern=r"^\s*[0-9]{0,5}\s*$")]

DONE = {
    "created": "The endpoint was created. Its worker starts, unless it may sleep until there is work.",
    "supplied": "The endpoint was created. Its models are on their way: see the page Models.",
    "changed": "The endpoint was changed. Running work was not interrupted.",
    "deleted": "The endpoint is gone. What waited for it goes to any other.",
    "leaving": "The endpoint is being deleted: it goes once its workers have stopped.",
}


@router.get("")
def endpoints(request: Request, _caller: Keeper, services: ServicesOf, done: str = "") -> Response:
    """Every endpoint with its state, its work and its numbers."""
    return _page(request, services, said=DONE.get(done, ""))


@router.post("")
def put(
    request: Request,
    caller: Keeper,
    services: ServicesOf,
    name: Annotated[str, Form(max_length=80)] = "",
    min_instances: Number = 1,
    max_instances: Number = 1,
    slots: Number = 8,
    idle_seconds: Annotated[float, Form(ge=0, le=10**7, allow_inf_nan=False)] = 600.0,
    threads: Number = 1,
    target: Optional = "",
    instance_type: Annotated[str, Form(max_length=60)] = "",
    price_hour: Annotated[float, Form(ge=0, le=100_000, allow_inf_nan=False)] = 0.0,
    kind: Annotated[str, Form(max_length=20)] = EndpointKind.ASYNC.value,
    image: Annotated[str, Form(max_length=300)] = "",
    metric: Annotated[str, Form(max_length=20)] = Metric.DEMAND.value,
    schedule: Annotated[str, Form(max_length=400)] = "",
    sources: Annotated[str, Form(max_length=20_000)] = "",
    what: Annotated[str, Form(max_length=16)] = "created",
) -> Response:
    """Create an endpoint, change its numbers, or take it away; or say why not."""
    numbers = {
        "min_instances": min_instances,
        "max_instances": max_instances,
        "slots": slots,
        "idle_seconds": idle_seconds,
        "threads": threads,
        "target": int(target) if target.strip() else None,
        "instance_type": instance_type,
        "price_hour": price_hour,
        "image": image.strip(),
        "metric": metric,
        "schedule": schedule.strip(),
    }
    kept = services.work.endpoints
    try:
        if what == "deleted":
            kept.delete(caller, name)
            what = "leaving" if any(each.spec.name == name for each in kept.listed()) else what
        elif what == "changed":
            kept.update(caller, name, numbers)
        else:
            spec = EndpointSpec(name=name.strip(), kind=kind, **numbers)  # type: ignore[arg-type]
            what = _created(services, caller, spec, wished(sources))
    except NotAuthenticated:
        raise
    except AtelierError as error:
        return _page(request, services, error.http_status, wrong=error.message)
    return RedirectResponse(f"/portal/endpoints?done={what if what in DONE else 'created'}", 303)


def _created(services: Services, caller: Caller, spec: EndpointSpec, wishes: list[ImportWish]) -> str:
    """Create an endpoint and ask for its models; what the page says then."""
    services.work.imports.check(caller, wishes)
    services.work.endpoints.create(caller, spec)
    services.work.imports.ask_all(caller, wishes, endpoint=spec.name)
    return "supplied" if wishes else "created"


def wished(sources: str) -> list[ImportWish]:
    """The models that are named one a line, each after its kind where it is no checkpoint."""
    kinds, found = {kind.value: kind for kind in ModelKind}, []
    for line in filter(None, map(str.strip, sources.splitlines())):
        first, _, rest = line.partition(" ")
        kind = kinds.get(first) if rest else None
        found.append(ImportWish(rest.strip(), kind) if kind else ImportWish(line))
    return found


def _page(request: Request, services: Services, status_code: int = 200, **values: str) -> Response:
    shown = {"said": "", "wrong": "", **values}
    costs = {each.name: each for each in services.costs.read().endpoints}
    names = {each.model.blob_sha256: each.model.name for each in services.work.desk.records()}
    return page(
        request,
        "endpoints.html",
        status_code,
        endpoints=services.work.endpoints.listed(),
        fresh=EndpointSpec(""),
        offers=services.work.endpoints.offers(),
        kinds=[each.value for each in EndpointKind],
        metrics=[each.value for each in Metric],
        costs=costs,
        models=names,
        **shown,
    )
