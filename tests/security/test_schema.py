"""What the API's description says, and that no request made from it, whoever sends it, gets a failure of ours
or an answer that is not in it.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Sequence
from copy import copy, deepcopy
from pathlib import Path
from typing import Any

import pytest
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from PIL import Image
from schemathesis import Case, GenerationMode
from schemathesis.checks import CheckFunction, not_a_server_error
from schemathesis.core.failures import Failure, FailureGroup
from schemathesis.openapi import from_dict
from schemathesis.python import asgi
from schemathesis.schemas import APIOperation
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from starlette.types import Receive, Scope, Send

from atelier.contract.parts import PictureResult, ResolvedPart
from portal.app import ROUTERS, create_app
from portal.services import audit
from portal.services.permissions import DESIGNER, ROLES
from portal.services.ports import Submission
from tests.jobs_studio import PAYLOAD, Studio
from tests.security.test_permission_walk import every_step
from tests.waiting import eventually

PASSWORD = "a long enough password"
ORIGIN = "http://127.0.0.1:8000"
SAME = {"Sec-Fetch-Site": "same-origin"}
LEAD = {"teams.manage", "quotas.manage", "settings.manage", "styles.manage_studio", "jobs.read_all"}
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
FEW = settings(
    derandomize=True,
    database=None,
    deadline=None,
    phases=(Phase.generate,),
    suppress_health_check=list(HealthCheck),
)


def picture_file() -> bytes:
    """A small PNG."""
    out = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(out, "PNG")
    return out.getvalue()


class World:
    """The application before an anonymous caller, a designer, a lead and an administrator; jobs end at once,
    with pictures. `known` are ids of what there is, by the names of parameters.
    """

    def __init__(self, database_url: str, folder: Path) -> None:
        self.studio = Studio(database_url, folder)
        fleet = self.studio.fleet
        self._submit, fleet.submit = fleet.submit, self._at_once  # type: ignore[method-assign]
        self._noted, fleet._picture = fleet._picture, self._drawn  # type: ignore[method-assign]
        services = self.studio.services
        services.roles.put(audit.SYSTEM, "lead", "", ROLES[DESIGNER] | LEAD)
        self.headers: dict[str, dict[str, str]] = {"anonymous": SAME}
        for name, role in (("ann", DESIGNER), ("lea", "lead"), ("root", "admin"), ("victim", DESIGNER)):
            services.identity.create(audit.SYSTEM, name, PASSWORD, role)
            _, tokens = services.identity.log_in(name, PASSWORD, audit.Origin(ip="127.0.0.1"))
            self.headers[name] = SAME | {"Authorization": f"Bearer {tokens.access}"}
        del self.headers["victim"]
        self.app = create_app(services)
        services.work.loop.start()
        self.client = asgi.get_client(self._without_lifespan)
        self.known = self._things()
        self.reached: set[tuple[str, int]] = set()

    def close(self) -> None:
        """End it."""
        self.studio.work.loop.stop()
        self.studio.close()

    async def _without_lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            raise RuntimeError("the test starts and ends what lives as long as the application")
        await self.app(scope, receive, send)

    def _at_once(self, submission: Submission) -> str:
        """What a worker does, in no time."""
        ticket = self._submit(submission)
        self.studio.fleet.succeed(submission)
        return ticket

    def _drawn(self, submission: Submission, part: ResolvedPart, index: int) -> PictureResult:
        """A picture that is one."""
        made, data = self._noted(submission, part, index), picture_file()
        self.studio.store.put(made.key, data)
        return made.model_copy(update={"size": len(data), "sha256": hashlib.sha256(data).hexdigest()})

    def ask(self, who: str, method: str, path: str, **body: Any) -> Any:
        """The JSON of an answer."""
        answer = self.client.request(method, ORIGIN + path, headers=self.headers[who], **body)
        assert answer.status_code < 300, (path, answer.text)
        return answer.json()

    def _things(self) -> dict[str, list[str]]:
        job = self.ask("ann", "POST", "/api/v1/jobs", json={"txt2img_payload": PAYLOAD})["id"]
        drawn = lambda: self.ask("ann", "GET", f"/api/v1/jobs/{job}")["pictures"]  # noqa: E731
        picture = eventually(drawn, within=60, about="the job did not end")[0]["id"]
        users = {each["username"]: each["id"] for each in self.ask("root", "GET", "/api/v1/users")}
        team = self.ask("root", "POST", "/api/v1/teams", json={"name": "one", "members": ["ann"]})["id"]
        self.ask("ann", "PUT", "/api/v1/styles/mine", json={"prompt": "soft"})
        link = self.ask("root", "POST", "/api/v1/users/invitations", json={})["id"]
        key = self.ask("ann", "POST", "/api/v1/me/keys", json={"name": "mine"})["id"]
        model = self.ask("root", "GET", "/api/v1/models")[0]["id"]
        self.ask("root", "PUT", f"/api/v1/models/{model}/preview", data=picture_file())
        rule = {"object_kind": "model", "object": model, "subject_kind": "user", "subject": users["victim"]}
        rule = self.ask("root", "PUT", "/api/v1/access-rules", json=rule | {"effect": "allow"})["id"]
        self.ask("root", "PUT", "/api/v1/quotas/everybody/*", json={"unfinished_jobs": 1000})
        return {
            "job_id": [job],
            "picture_id": [picture],
            "rule_id": [rule],
            "subject_kind": ["everybody", "team"],
            "user_id": [users["victim"]],
            "team_id": [team],
            "invitation_id": [link],
            "key_id": [key],
            "model_id": [model],
            "name": ["mine", "local", "lead"],
            "subject": [team, users["victim"], "lead", "*"],
            "version": ["0", "1"],
        }

    def operations(self) -> list[APIOperation]:
        """Every operation of the description."""
        return operations(self.app.openapi())

    def pages(self) -> list[APIOperation]:
        """Every operation of what is not in the description: the pages with their forms."""
        shown = []
        for route in (each for router in ROUTERS for each in router.routes):
            if isinstance(route, APIRoute) and not route.include_in_schema:
                shown.append(copy(route))
                shown[-1].include_in_schema = True
        return operations(get_openapi(title="pages", version="1", routes=shown))


def operations(description: dict[str, Any]) -> list[APIOperation]:
    """Every operation of a description."""
    return [result.ok() for result in from_dict(description).get_all_operations()]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("world")
    made = World(f"sqlite:///{folder / 'atelier.db'}", folder)
    yield made
    made.close()


def cases(
    operation: APIOperation, known: dict[str, list[str]]
) -> st.SearchStrategy[tuple[Case, dict[str, str]]]:
    """Requests made from a description, good ones and bad ones; and ids of things there are, to be put in."""
    made = st.one_of(*(operation.as_strategy(generation_mode=mode) for mode in GenerationMode))
    names = [each.name for each in operation.path_parameters if each.name in known]
    real = st.fixed_dictionaries({name: st.sampled_from(known[name]) for name in names})
    return st.tuples(made, st.one_of(st.just({}), real) if names else st.just({}))


def faults(
    world: World, operation: APIOperation, examples: int, checks: Sequence[CheckFunction] = CHECKS
) -> dict[str, str]:
    """What was wrong with the answers to so many requests, each sent as everybody."""
    found: dict[str, str] = {}

    @settings(FEW, max_examples=examples)
    @given(cases(operation, world.known))
    def send(drawn: tuple[Case, dict[str, str]]) -> None:
        case, real = drawn
        case.path_parameters.update(real)
        for name in ("Authorization", "authorization"):
            (case.headers or {}).pop(name, None)
        case.cookies = {}
        for who, headers in world.headers.items():
            answer = case.call(base_url=ORIGIN, session=world.client, headers=headers, allow_redirects=False)
            world.reached.add((operation.label, answer.status_code // 100))
            try:
                case.validate_response(answer, checks=list(checks))
            except (Failure, FailureGroup) as wrong:
                found.setdefault(f"{operation.label} as {who}: {answer.status_code}", str(wrong)[:3000])

    send()
    return found


def all_faults(world: World, examples: int, of_pages: int) -> dict[str, str]:
    """The same of every route."""
    found: dict[str, str] = {}
    for operation in world.operations():
        found |= faults(world, operation, examples)
    for operation in world.pages():
        found |= faults(world, operation, of_pages, [not_a_server_error])
    return found


def told(found: dict[str, str]) -> str:
    return "\n\n".join(f"{where}\n{what}" for where, what in found.items())


def test_the_description_says_of_every_route_who_may_use_it_and_how_it_refuses(world: World) -> None:
    found = world.ask("ann", "GET", "/openapi.json")
    steps = {step.name.replace(":path}", "}"): step for step in every_step(world.app.routes)}
    wrong = []
    for path, methods in found["paths"].items():
        for method, operation in methods.items():
            permission = steps[f"{method.upper()} {path}"].permission
            told_of = operation.get("x-permission", "public")
            refusing = {"401", "403", "422", "503"} if permission != "public" else set()
            if "{" in path:
                refusing.add("404")
            secured = bool(operation["security"]) == (permission != "public")
            if told_of != permission or not secured or refusing - set(operation["responses"]):
                wrong.append(f"{method} {path}")
            for status, response in operation["responses"].items():
                shapes = str(response.get("content"))
                if (
                    status >= "400"
                    and ("PeerFailure" if path.startswith(("/sdapi", "/controlnet")) else "Failure'")
                    not in shapes
                ):
                    wrong.append(f"{method} {path}: {status}")
    assert wrong == []
    assert "HTTPValidationError" not in str(found)
    assert len(found["paths"]) >= 75


def test_an_undeclared_refusal_would_be_found(world: World) -> None:
    description = deepcopy(world.app.openapi())
    description["paths"] = {"/api/v1/me": description["paths"]["/api/v1/me"]}
    [operation] = operations(description)
    assert faults(world, operation, 1) == {}
    del description["paths"]["/api/v1/me"]["get"]["responses"]["401"]
    [operation] = operations(description)
    assert list(faults(world, operation, 1)) == ["GET /api/v1/me as anonymous: 401"]


def test_no_request_made_from_the_description_gets_an_answer_that_is_not_in_it(world: World) -> None:
    found = all_faults(world, 2, 1)
    assert found == {}, told(found)
    assert len({label for label, kind in world.reached if kind == 2}) >= 50, (
        "hardly any request was a good one"
    )


@pytest.mark.long
def test_nor_do_many_more_of_them_on_either_database(database_url: str, tmp_path: Path) -> None:
    world = World(database_url, tmp_path)
    try:
        found = all_faults(world, 12, 12)
    finally:
        world.close()
    assert found == {}, told(found)
    assert len({label for label, kind in world.reached if kind == 2}) >= 80, "too few requests were good ones"
