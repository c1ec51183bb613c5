"""/portal/settings: what holds for oneself, for a team and for everybody, what is locked, and what was
before.
"""

from __future__ import annotations

import json
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Form, Query
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from atelier import ownoptions
from atelier.contract.errors import AtelierError, InvalidRequest, NotAuthenticated
from portal.api.security import Caller, require, services_of
from portal.pages.rendering import page
from portal.services.container import Services
from portal.services.setting_levels import PLATFORM, Scope, of_team, of_user

router = APIRouter(prefix="/portal/settings", include_in_schema=False)
ServicesOf = Annotated[Services, Depends(services_of)]
Owner = Annotated[Caller, Depends(require("account.change"))]

MINE, EVERYBODY = "mine", "platform"
KEEPER = "settings.manage"
DONE = {
    "changed": "The setting holds from the next request on.",
    "undone": "The settings are as they were then. That is a new version, so nothing is lost.",
}


@router.get("")
def settings(
    request: Request,
    caller: Owner,
    services: ServicesOf,
    scope: Annotated[str, Query(max_length=40)] = MINE,
    search: Annotated[str, Query(max_length=100)] = "",
    done: str = "",
) -> Response:
    """The options of a scope, with what can be done about each, and its versions."""
    return _page(request, services, caller, scope, search, said=DONE.get(done, ""))


@router.post("")
def change(
    request: Request,
    caller: Owner,
    services: ServicesOf,
    scope: Annotated[str, Form(max_length=40)] = MINE,
    search: Annotated[str, Form(max_length=100)] = "",
    key: Annotated[str, Form(max_length=200)] = "",
    value: Annotated[str, Form(max_length=20_000)] = "",
    what: Annotated[str, Form(max_length=16)] = "set",
) -> Response:
    """Set one option, take its value back, lock it or set it free; or say why not."""
    levels = services.setting_levels
    try:
        whose = _scope(caller, scope)
        if what in ("lock", "free"):
            levels.change(caller, whose, {}, {key: what == "lock"})
        else:
            ignored = levels.change(caller, whose, {key: None if what == "reset" else _typed(key, value)})
            if ignored:
                raise InvalidRequest(f"{ignored[0].field} was not stored: {ignored[0].reason}")
    except AtelierError as error:
        return _wrong(request, services, caller, scope, search, error)
    return _back(scope, search, "changed")


@router.post("/undo")
def undo(
    request: Request,
    caller: Owner,
    services: ServicesOf,
    scope: Annotated[str, Form(max_length=40)] = MINE,
    version: Annotated[int, Form(ge=0, lt=2**31)] = 0,
) -> Response:
    """Bring a version back as a new one; or say why not."""
    try:
        services.setting_levels.undo(caller, _scope(caller, scope), version)
    except AtelierError as error:
        return _wrong(request, services, caller, scope, "", error)
    return _back(scope, "", "undone")


def _scope(caller: Caller, name: str) -> Scope:
    """The scope of that name in an address. Raises NotPermitted for another's than one's own."""
    if name == MINE:
        return of_user(caller.user_id)
    caller.demand(KEEPER)
    return PLATFORM if name == EVERYBODY else of_team(name)


def _typed(key: str, text: str) -> Any:
    """What was typed, as the type of the option's default."""
    default = ownoptions.known().get(key)
    if isinstance(default, bool):
        return text == "true"
    if not isinstance(default, int | float | list | dict):
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        kind = "number" if isinstance(default, int | float) else "list"
        raise InvalidRequest(f"{text[:80]!r} is no {kind}, which {key} is.") from error


def _back(scope: str, search: str, done: str) -> Response:
    query = urlencode({"scope": scope, "search": search, "done": done})
    return RedirectResponse(f"/portal/settings?{query}", 303)


def _wrong(
    request: Request, services: Services, caller: Caller, scope: str, search: str, error: AtelierError
) -> Response:
    if isinstance(error, NotAuthenticated):
        raise error
    mine = scope if scope == MINE or caller.may(KEEPER) else MINE
    return _page(request, services, caller, mine, search, error.http_status, wrong=error.message)


def _page(
    request: Request,
    services: Services,
    caller: Caller,
    scope: str,
    search: str,
    status_code: int = 200,
    **values: str,
) -> Response:
    whose = _scope(caller, scope)
    view = services.setting_levels.view(caller, whose)
    words = search.lower().split()
    found = [each for each in view.settings if all(word in each.key.lower() for word in words)]
    scopes = [(MINE, "mine")]
    if caller.may(KEEPER):
        scopes += [(EVERYBODY, "everybody's")]
        scopes += [(each.id, f"the team {each.name}'s") for each in services.teams.listed()]
    shown = {"said": "", "wrong": "", **values}
    return page(
        request,
        "settings.html",
        status_code,
        view=view,
        settings=found,
        versions=services.setting_levels.versions(caller, whose),
        scopes=scopes,
        scope=scope,
        search=search,
        locking=scope != MINE,
        **shown,
    )
