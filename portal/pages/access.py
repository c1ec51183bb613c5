"""/portal/access: who may use which endpoint and model, how much of the studio, and who counts how much where
several wait.
"""

from __future__ import annotations

from typing import Annotated, TypeVar

from fastapi import APIRouter, Depends, Form
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from atelier.contract.errors import AtelierError, InvalidRequest, NotAuthenticated
from portal.api.security import Caller, require, services_of
from portal.domain.access import Effect, ObjectKind, SubjectKind
from portal.domain.quotas import Quota
from portal.pages.rendering import page
from portal.services.container import Services

router = APIRouter(prefix="/portal/access", include_in_schema=False)
ServicesOf = Annotated[Services, Depends(services_of)]
RuleKeeper = Annotated[Caller, Depends(require("access.manage"))]
QuotaKeeper = Annotated[Caller, Depends(require("quotas.manage"))]
Choice = Annotated[str, Form(max_length=100)]
Amount = Annotated[str, Form(max_length=20)]

Kind = TypeVar("Kind", ObjectKind, SubjectKind)
MEBIBYTE = 2**20
DONE = {
    "rule": "The rule holds from now on, also for work that waits.",
    "lifted": "The rule is gone.",
    "quota": "The quota holds from now on.",
    "unlimited": "The quota is gone.",
    "weight": "The weight counts from the next part on.",
    "usual": "The weight is gone.",
}


@router.get("")
def access(request: Request, _caller: RuleKeeper, services: ServicesOf, done: str = "") -> Response:
    """Every rule, quota and weight."""
    return _page(request, services, said=DONE.get(done, ""))


@router.post("/rules")
def put_rule(
    request: Request,
    caller: RuleKeeper,
    services: ServicesOf,
    object: Choice = "",
    subject: Choice = "",
    effect: Choice = "deny",
    rule_id: Choice = "",
) -> Response:
    """Make a rule, or with `rule_id` lift one; or say why not."""
    try:
        if rule_id:
            services.access.delete(caller, rule_id)
            return _back("lifted")
        object_kind, about = _chosen(ObjectKind, object)
        subject_kind, whom = _chosen(SubjectKind, subject)
        services.access.put(caller, object_kind, about, subject_kind, whom, _effect(effect))
    except AtelierError as error:
        return _wrong(request, services, error)
    return _back("rule")


@router.post("/quotas")
def put_quota(
    request: Request,
    caller: QuotaKeeper,
    services: ServicesOf,
    subject: Choice = "",
    unfinished_jobs: Amount = "",
    pictures_a_day: Amount = "",
    gpu_seconds_a_day: Amount = "",
    storage_mib: Amount = "",
    what: Choice = "put",
) -> Response:
    """Limit how much somebody may use, or lift that; or say why not. What is left empty is not limited."""
    try:
        kind, whom = _chosen(SubjectKind, subject)
        if what == "delete":
            services.quotas.delete(caller, kind, whom)
            return _back("unlimited")
        mebibytes = _number(storage_mib)
        quota = Quota(
            unfinished_jobs=_number(unfinished_jobs),
            pictures_a_day=_number(pictures_a_day),
            gpu_seconds_a_day=_number(gpu_seconds_a_day),
            storage_bytes=None if mebibytes is None else mebibytes * MEBIBYTE,
        )
        services.quotas.put(caller, kind, whom, quota)
    except AtelierError as error:
        return _wrong(request, services, error)
    return _back("quota")


@router.post("/weights")
def put_weight(
    request: Request,
    caller: QuotaKeeper,
    services: ServicesOf,
    subject: Choice = "",
    weight: Amount = "",
    what: Choice = "put",
) -> Response:
    """Let somebody count more or less where several wait, or as usual again; or say why not."""
    try:
        kind, whom = _chosen(SubjectKind, subject)
        if what == "delete":
            services.shares.delete(caller, kind, whom)
            return _back("usual")
        services.shares.put(caller, kind, whom, _decimal(weight))
    except AtelierError as error:
        return _wrong(request, services, error)
    return _back("weight")


def _chosen(kinds: type[Kind], value: str) -> tuple[Kind, str]:
    """`team:ID` of a list of choices."""
    kind, _, name = value.partition(":")
    try:
        return kinds(kind), name
    except ValueError as error:
        raise InvalidRequest("Choose what this is about, and for whom.") from error


def _effect(value: str) -> Effect:
    return Effect.ALLOW if value == Effect.ALLOW.value else Effect.DENY


def _number(text: str) -> int | None:
    text = text.strip()
    if not text:
        return None
    if not text.isascii() or not text.isdigit():
        raise InvalidRequest(f"{text!r} is no whole number from 0 on. Leave the field empty for no limit.")
    return int(text)


def _decimal(text: str) -> float:
    try:
        return float(text.strip())
    except ValueError as error:
        raise InvalidRequest(f"{text!r} is no number. Give a weight such as 2 or 0.5.") from error


def _back(done: str) -> Response:
    return RedirectResponse(f"/portal/access?done={done}", 303)


def _wrong(request: Request, services: Services, error: AtelierError) -> Response:
    if isinstance(error, NotAuthenticated):
        raise error
    return _page(request, services, error.http_status, wrong=error.message)


def _page(request: Request, services: Services, status_code: int = 200, **values: str) -> Response:
    shown = {"said": "", "wrong": "", **values}
    subjects = [
        ("everybody", [("everybody:*", "everybody")]),
        ("roles", [(f"role:{each.name}", each.name) for each in services.roles.listed()]),
        ("teams", [(f"team:{each.id}", each.name) for each in services.teams.listed()]),
        ("users", [(f"user:{each.id}", each.username) for each in services.identity.users()]),
    ]
    names = [each.spec.name for each in services.work.endpoints.listed()]
    models = [
        (f"model:{each.id}", f"{each.model.name} ({each.model.kind.value})")
        for each in services.work.desk.records()
    ]
    objects = [("endpoints", [(f"endpoint:{name}", name) for name in names]), ("models", models)]
    return page(
        request,
        "access.html",
        status_code,
        rules=services.access.listed(),
        quotas=services.quotas.listed(),
        weights=services.shares.listed(),
        subjects=subjects,
        objects=objects,
        mebibyte=MEBIBYTE,
        **shown,
    )
