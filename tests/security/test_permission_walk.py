"""Every route as everybody: what its declared permission opens, and nothing else does.

Only the public routes and one with a rule of its own are named: a new route is walked because it is there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import httpx
import pytest
from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute
from starlette.testclient import TestClient

from portal.api.security import declared, public, require
from portal.app import create_app
from portal.services import audit
from portal.services.identity import Change
from portal.services.permissions import DESIGNER, PERMISSIONS, ROLES
from tests.jobs_studio import Studio

PASSWORD = "a long enough password"
ORIGIN = "http://127.0.0.1:8000"
SAME = {"Sec-Fetch-Site": "same-origin", "Origin": ORIGIN}
PUBLIC = {
    "GET /",
    "GET /healthz",
    "GET /readyz",
    "GET /portal/login",
    "POST /portal/login",
    "POST /portal/logout",
    "GET /portal/join",
    "POST /portal/join",
    "GET /portal/static/{name}",
    "POST /api/v1/auth/token",
    "POST /api/v1/auth/refresh",
}
"""What answers without a login. Another route is on this list on purpose, or it is a hole."""


class Step(NamedTuple):
    """A method of a route, and the permission it declares ("public", or None for none)."""

    method: str
    path: str
    permission: str | None

    @property
    def name(self) -> str:
        return f"{self.method} {self.path}"


def every_step(routes: Iterable[Any]) -> Iterator[Step]:
    """Every method of every route, also of routers inside; what is no route of the API declares nothing."""
    for route in routes:
        inner = getattr(route, "original_router", None)
        if isinstance(inner, APIRouter):
            yield from every_step(inner.routes)
        elif isinstance(route, APIRoute):
            for method in sorted(route.methods):
                yield Step(method, route.path, declared(route))
        else:
            yield Step("*", str(getattr(route, "path", route)), None)


class Walk:
    """The application before people: designers, a disabled one, an administrator, and for each permission
    one with it alone and one with all but it.
    """

    def __init__(self, studio: Studio, client: TestClient, app: FastAPI) -> None:
        self.app, self._studio, self._client = app, studio, client
        self.steps = list(every_step(app.routes))
        self._headers = {"anonymous": SAME}
        for name, role in (("root", "admin"), ("ann", DESIGNER), ("bob", DESIGNER), ("gone", DESIGNER)):
            self._add(name, role)
        gone = next(each for each in studio.services.identity.users() if each.username == "gone")
        studio.services.identity.change(audit.SYSTEM, gone.id, Change(disabled=True))
        for number, permission in enumerate(PERMISSIONS):
            for kind, held in (("only", {permission}), ("but", set(PERMISSIONS) - {permission})):
                studio.services.roles.put(audit.SYSTEM, f"{kind}{number}", "", held)
                self._add(f"{kind} {permission}", f"{kind}{number}", f"{kind}{number}")

    def _add(self, who: str, role: str, username: str = "") -> None:
        name = username or who
        self._studio.services.identity.create(audit.SYSTEM, name, PASSWORD, role)
        login = self._client.post("/api/v1/auth/token", json={"username": name, "password": PASSWORD})
        self._headers[who] = SAME | {"Authorization": f"Bearer {login.json()['access_token']}"}

    def __call__(self, who: str, step: Step) -> httpx.Response:
        url = re.sub(r"{[^}]+}", "x", step.path)
        # A list is no body of any route: who comes in is told so, and no job is made and waited for.
        body: dict[str, Any] = {"json": []} if step.method not in ("GET", "HEAD") else {}
        return self._client.request(
            step.method, url, headers=self._headers[who], follow_redirects=False, **body
        )

    @property
    def guarded(self) -> list[tuple[Step, str]]:
        """The routes that want a permission, with it."""
        return [(step, step.permission) for step in self.steps if step.permission not in (None, "public")]


@pytest.fixture(scope="module")
def walk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Walk]:
    folder = tmp_path_factory.mktemp("walk")
    studio = Studio(f"sqlite:///{folder / 'atelier.db'}", folder)
    app = create_app(studio.services)
    with TestClient(
        app, base_url=ORIGIN, client=("127.0.0.1", 5000), raise_server_exceptions=False
    ) as client:
        yield Walk(studio, client, app)
    studio.close()


def is_turned_away(step: Step, answer: httpx.Response) -> bool:
    """Whether somebody without a login was sent to it, or told 401."""
    to_login = answer.status_code == 303 and answer.headers["location"].startswith("/portal/login")
    return answer.status_code == 401 or (to_login and step.method == "GET")


def test_every_route_of_the_schema_and_of_the_pages_declares_a_permission(walk: Walk) -> None:
    assert [step.name for step in walk.steps if step.permission is None] == []
    assert {step.name for step in walk.steps if step.permission == "public"} == PUBLIC
    told = {
        f"{method.upper()} {path}"
        for path, methods in walk.app.openapi()["paths"].items()
        for method in methods
    }
    walked = {re.sub(r":path}", "}", step.name) for step in walk.steps}
    assert told - walked == set()
    assert any(step.path.startswith("/portal/") for step, _ in walk.guarded)
    assert len(walk.guarded) >= 100


def test_the_walk_sees_a_route_that_declares_nothing_however_it_was_added() -> None:
    inner, app = APIRouter(), FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    inner.add_api_route("/deep", lambda: None)
    inner.add_api_route("/shown", public(lambda: None))
    middle = APIRouter()
    middle.include_router(inner)
    app.include_router(middle)
    app.add_route("/plain", lambda request: None)
    found = {step.path: step.permission for step in every_step(app.routes)}
    assert found == {"/deep": None, "/shown": "public", "/plain": None}
    with pytest.raises(ValueError, match="no permission of the registry"):
        require("jobs.everything")


@pytest.mark.parametrize("who", ["anonymous", "gone"])
def test_nobody_passes_without_a_login_or_with_that_of_a_disabled_account(walk: Walk, who: str) -> None:
    passed = {}
    for step, _ in walk.guarded:
        answer = walk(who, step)
        if not is_turned_away(step, answer):
            passed[step.name] = answer.status_code
    assert passed == {}


@pytest.mark.parametrize("who", ["ann", "bob", "root"])
def test_a_role_opens_what_it_has_and_nothing_more(walk: Walk, who: str) -> None:
    held = ROLES["admin" if who == "root" else DESIGNER]
    wrong = {}
    for step, permission in walk.guarded:
        status = walk(who, step).status_code
        if (status in (401, 403)) == (permission in held) or status >= 500:
            wrong[step.name] = status
    assert wrong == {}


def test_the_declared_permission_alone_opens_a_route(walk: Walk) -> None:
    wrong = {}
    for step, permission in walk.guarded:
        answer = walk(f"only {permission}", step)
        # The form for an invitation gives the role of a designer where it names none: nobody gives more than
        # they have, which is said in other words.
        refused = answer.status_code == 403 and (
            "needs the permission" in answer.text or step.name != "POST /portal/users/invitations"
        )
        if refused or is_turned_away(step, answer) or answer.status_code >= 500:
            wrong[step.name] = answer.status_code
    assert wrong == {}


def test_every_other_permission_together_does_not(walk: Walk) -> None:
    wrong = {}
    for step, permission in walk.guarded:
        answer = walk(f"but {permission}", step)
        if answer.status_code != 403 or permission not in answer.text:
            wrong[step.name] = answer.status_code
    assert wrong == {}
