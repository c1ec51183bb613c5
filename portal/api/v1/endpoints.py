"""/api/v1/endpoints: the workers, seen by everybody, managed by administrators."""

from __future__ import annotations

from typing import Annotated, Self

from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict, Field

from portal.api.schema import also
from portal.api.security import Caller, require, services_of
from portal.api.v1.imports import ImportBody
from portal.domain.conditions import Condition
from portal.services.container import Services
from portal.services.endpoints import EndpointView
from portal.services.ports import USUAL_SLOTS, EndpointState

router = APIRouter(prefix="/api/v1/endpoints", tags=["endpoints"])
ServicesOf = Annotated[Services, Depends(services_of)]
Reader = Annotated[Caller, Depends(require("endpoints.read"))]
Manager = Annotated[Caller, Depends(require("endpoints.manage"))]


class EndpointBody(BaseModel):
    """An endpoint to create. min_instances 0 lets it sleep after idle_seconds; slots are parts in work at
    once on an instance. More than `target` parts (waiting and in work) for each instance start another one;
    null means as many as it has slots. An instance_type (GET /api/v1/endpoints/types) brings threads and
    device, and slots and price_hour (of one instance) where they are left out. `kind` is how it is asked
    (async, realtime; custom and custom-realtime run `image` and get bodies untouched), `metric` what it
    scales by (demand, backlog, invocations), `schedule` hours with other numbers, as "mon-fri 08:00-18:00
    Europe/Berlin 1-4".
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    min_instances: int = 1
    max_instances: int = 1
    slots: int = USUAL_SLOTS
    idle_seconds: float = 600.0
    threads: int = 1
    options: dict[str, str] = {}
    target: int | None = None
    instance_type: str = ""
    price_hour: float = Field(default=0.0, allow_inf_nan=False)
    kind: str = "async"
    image: str = ""
    metric: str = "demand"
    schedule: str = ""


class EndpointCreate(EndpointBody):
    """An endpoint to create, with models to import for it: what POST /api/v1/models/imports takes."""

    imports: list[ImportBody] = Field([], max_length=20)


class EndpointChange(BaseModel):
    """What to change of an endpoint; what is left out stays."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    min_instances: int | None = None
    max_instances: int | None = None
    slots: int | None = None
    idle_seconds: float | None = None
    threads: int | None = None
    options: dict[str, str] | None = None
    target: int | None = None
    instance_type: str | None = None
    price_hour: float | None = Field(default=None, allow_inf_nan=False)
    image: str | None = None
    metric: str | None = None
    schedule: str | None = None


class EndpointOut(EndpointBody):
    """An endpoint and how it is. `condition` is the state as people read it and `because` says why; `demand`
    is what it scales by; of the instances, `instances` serve, so many are `wanted`, and `leaving` ones
    finish their work; `note` says what it waits for; `hot` are the weights in memory, by the sha256 of their
    blob; times in unix seconds.
    """

    state: EndpointState
    reason: str
    note: str
    condition: Condition
    because: str
    instances: int
    wanted: int
    leaving: int
    demand: int
    in_flight: int
    queued: int
    hot: tuple[str, ...]
    created: float
    last_error: str
    last_error_at: float | None

    @classmethod
    def of(cls, view: EndpointView) -> Self:
        """The view as JSON."""
        return cls(
            **vars(view.spec),
            **vars(view.status),
            in_flight=view.in_flight,
            queued=view.queued,
            hot=view.hot,
            created=view.created,
            condition=view.condition,
            because=view.because,
            demand=view.demand,
            last_error=view.last_error,
            last_error_at=view.last_error_at,
        )


class InstanceTypeOut(BaseModel):
    """A kind of instance: threads of its processor, memory and own disk in bytes, what it computes on
    (`bf16`: also in bfloat16), and what a new endpoint of that kind begins with. `price_of` says where and
    when the price was read.
    """

    name: str
    description: str
    threads: int
    memory: int
    device: str
    gpu: str
    gpu_memory: int
    slots: int
    price_hour: float
    price_of: str
    bf16: bool
    disk: int


@router.get("", response_model=list[EndpointOut])
def endpoints(caller: Reader, services: ServicesOf) -> list[EndpointOut]:
    """Every endpoint, by name."""
    return [EndpointOut.of(view) for view in services.work.endpoints.listed(caller)]


@router.post("", status_code=201, response_model=EndpointOut, responses=also(409))
def create(body: EndpointCreate, caller: Manager, services: ServicesOf) -> EndpointOut:
    """Make an endpoint; its worker starts at once unless it may sleep. Models named in `imports` are fetched
    meanwhile, for everybody, and can be chosen there as each is in.
    """
    wishes = [each.wish for each in body.imports]
    services.work.imports.check(caller, wishes)
    spec = services.work.endpoints.begun(body.model_dump(exclude={"imports"}, exclude_unset=True))
    made = services.work.endpoints.create(caller, spec)
    services.work.imports.ask_all(caller, wishes, endpoint=spec.name)
    return EndpointOut.of(made)


@router.get("/types", response_model=list[InstanceTypeOut])
def types(_caller: Reader, services: ServicesOf) -> list[InstanceTypeOut]:
    """The kinds of instances there are to choose from."""
    return [InstanceTypeOut(**vars(each)) for each in services.work.endpoints.offers()]


@router.get("/{name}", response_model=EndpointOut)
def endpoint(name: str, caller: Reader, services: ServicesOf) -> EndpointOut:
    """One endpoint that the caller may use."""
    return EndpointOut.of(services.work.endpoints.get(name, caller))


@router.patch("/{name}", response_model=EndpointOut)
def update(name: str, body: EndpointChange, caller: Manager, services: ServicesOf) -> EndpointOut:
    """Change an endpoint; running work is not interrupted."""
    return EndpointOut.of(services.work.endpoints.update(caller, name, body.model_dump(exclude_none=True)))


@router.delete("/{name}", status_code=204, responses=also(409))
def delete(name: str, caller: Manager, services: ServicesOf) -> None:
    """Take an idle endpoint away."""
    services.work.endpoints.delete(caller, name)
