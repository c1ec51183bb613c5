"""Sharing over HTTP: every way to a thing opens and closes with it, on both databases."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient

from atelier.contract.errors import NotFound
from portal.api.following import follow
from portal.app import create_app
from portal.services import audit
from portal.services.callers import Caller
from portal.services.permissions import ROLES
from portal.services.teams import TeamView
from tests.integration.test_grids import finish
from tests.integration.test_models_http import network
from tests.jobs_studio import PAYLOAD, Studio

PASSWORD = "a long enough password"
ORIGIN = "http://127.0.0.1:8000"
OWN = "/api/v1/models/upload?kind=lora&filename=annalynx.safetensors"
PEOPLE = {"root": ["admin"], "ann": ["designer", "maker"], "bob": ["designer"], "eve": ["designer"]}
"""ann may have models of her own; ann and bob are the team Films."""


class Portal:
    def __init__(self, studio: Studio, client: TestClient) -> None:
        self.studio, self._client = studio, client
        services = studio.services
        services.roles.put(audit.SYSTEM, "maker", "", ["models.upload"])
        self.ids = {
            name: services.identity.create(audit.SYSTEM, name, PASSWORD, roles).id
            for name, roles in PEOPLE.items()
        }
        self.films: TeamView = services.teams.create(audit.SYSTEM, "Films", "", ["ann", "bob"])
        self._headers = {name: self._logged_in(name) for name in PEOPLE}

    def _logged_in(self, name: str) -> dict[str, str]:
        login = self._client.post("/api/v1/auth/token", json={"username": name, "password": PASSWORD})
        return {"Authorization": f"Bearer {login.json()['access_token']}"}

    def __call__(self, who: str, method: str, path: str, **options: Any) -> httpx.Response:
        return self._client.request(method, path, headers=self._headers[who], **options)

    def get(self, who: str, path: str) -> Any:
        answer = self(who, "GET", path)
        assert answer.status_code == 200, (path, answer.text)
        return answer.json()

    def share(self, who: str, path: str, visibility: str, team: str | None = None) -> httpx.Response:
        return self(who, "PUT", f"/api/v1/sharing/{path}", json={"visibility": visibility, "team": team})

    def job(self, who: str) -> dict[str, Any]:
        made = self(who, "POST", "/api/v1/jobs", json={"txt2img_payload": PAYLOAD})
        finish(self.studio, *self.studio.turn())
        return dict(self.get(who, f"/api/v1/jobs/{made.json()['id']}"))


@pytest.fixture
def portal(studio_url: str, tmp_path: Path) -> Iterator[Portal]:
    studio = Studio(studio_url, tmp_path)
    # Not entered: nothing is dispatched but by the tests.
    client = TestClient(create_app(studio.services), base_url=ORIGIN, client=("127.0.0.1", 5000))
    yield Portal(studio, client)
    client.close()
    studio.close()


def test_a_shared_job_is_seen_with_its_pictures_and_kept_by_no_browser(portal: Portal) -> None:
    job = portal.job("ann")
    path, url = f"/api/v1/jobs/{job['id']}", job["pictures"][0]["url"]
    assert [portal("bob", "GET", each).status_code for each in (path, url)] == [404, 404]
    assert portal.share("bob", f"job/{job['id']}", "studio").status_code == 404
    [team] = portal.get("ann", "/api/v1/me/teams")
    assert (team["name"], team["members"]) == ("Films", ["ann", "bob"])
    assert portal.get("eve", "/api/v1/me/teams") == []
    shared = portal.share("ann", f"job/{job['id']}", "team", team["id"])
    assert shared.json() == {"owner": "ann", "visibility": "team", "team": "Films"}
    seen = portal.get("bob", path)
    assert (seen["owner"], seen["team"], seen["pictures"]) == ("ann", "Films", job["pictures"])
    assert [each["id"] for each in portal.get("bob", "/api/v1/jobs?shown=shared")["jobs"]] == [job["id"]]
    assert portal.get("eve", "/api/v1/jobs?shown=shared")["jobs"] == []
    assert "immutable" in portal("ann", "GET", url).headers["cache-control"]
    assert portal("bob", "GET", url).headers["cache-control"] == "private, no-cache"
    assert [portal("eve", "GET", each).status_code for each in (path, url)] == [404, 404]
    assert portal("bob", "POST", f"{path}/actions", json={"action": "cancel"}).status_code == 403
    assert portal("eve", "POST", f"{path}/actions", json={"action": "cancel"}).status_code == 404
    portal("root", "PATCH", f"/api/v1/teams/{team['id']}", json={"members": ["ann"]})
    assert [portal("bob", "GET", each).status_code for each in (path, url)] == [404, 404]


def test_a_picture_that_is_only_shared_with_somebody_is_no_preview_of_a_model(
    portal: Portal, tmp_path: Path
) -> None:
    content = network(tmp_path / "annalynx.safetensors").read_bytes()
    upload = "/api/v1/models/upload?kind=lora&filename=rootlynx.safetensors"
    model = portal("root", "POST", upload, content=content).json()["id"]
    job = portal.job("ann")
    assert portal.share("ann", f"job/{job['id']}", "studio").status_code == 200
    picture = job["pictures"][0]["id"]
    assert portal("root", "GET", job["pictures"][0]["url"]).status_code == 200
    set_ = portal("root", "PUT", f"/api/v1/models/{model}/preview?picture={picture}")
    assert set_.status_code == 404 and "your own" in set_.json()["error"]["message"]
    assert portal("root", "GET", f"/api/v1/models/{model}/preview").status_code == 404


def test_what_cannot_be_shared_is_a_clear_refusal(portal: Portal) -> None:
    long: dict[str, Any] = {"visibility": "team", "team": "x" * 65}
    for path, body, status in (
        ("planet/x", {"visibility": "studio"}, 422),
        ("job/x", {"visibility": "studio"}, 404),
        ("model/x", {"visibility": "everybody"}, 422),
        ("style/x", long, 422),
        ("style/x", {}, 422),
    ):
        answer = portal("ann", "PUT", f"/api/v1/sharing/{path}", json=body)
        assert answer.status_code == status, answer.text
        assert answer.json()["error"]["message"]


def test_an_open_event_stream_ends_when_its_watcher_leaves_the_team(portal: Portal) -> None:
    made = portal("ann", "POST", "/api/v1/jobs", json={"txt2img_payload": PAYLOAD}).json()
    assert portal.share("ann", f"job/{made['id']}", "team", portal.films.id).status_code == 200
    bob = Caller(portal.ids["bob"], "bob", ("designer",), ROLES["designer"])

    async def watched() -> str | None:
        views = follow(portal.studio.services, bob, made["id"])
        first = await anext(views)
        portal.studio.services.teams.change(audit.SYSTEM, portal.films.id, members=["ann"])
        with pytest.raises(NotFound):
            await anext(views)
        return first.owner if first else None

    assert asyncio.run(watched()) == "ann"


def test_a_designers_model_is_in_no_list_of_anybody_elses_until_it_is_shared(
    portal: Portal, tmp_path: Path
) -> None:
    content = network(tmp_path / "annalynx.safetensors").read_bytes()
    assert portal("bob", "POST", OWN, content=content).status_code == 403
    made = portal("ann", "POST", OWN, content=content)
    assert made.status_code == 201, made.text
    view = made.json()
    assert (view["owner"], view["visibility"]) == ("ann", "private")
    again = portal("ann", "POST", f"{OWN}&sha256={view['sha256']}", content=content)
    assert again.json()["id"] == view["id"], "the same file again"
    details = f"/api/v1/models/{view['id']}"
    card = "/sd_extra_networks/get-single-card?page=lora&name=annalynx"
    tag = {"txt2img_payload": {**PAYLOAD, "prompt": "<lora:annalynx:1>"}}

    def there(who: str) -> list[bool]:
        lists = ("/api/v1/models?kind=lora", "/sdapi/v1/loras", "/portal/models")
        found = ["annalynx" in portal(who, "GET", each).text for each in lists]
        found += [portal(who, "GET", each).status_code == 200 for each in (details, card)]
        job = portal(who, "POST", "/api/v1/jobs", json=tag).json()
        [part] = portal.studio.parts(job["id"])
        return [*found, bool(part.resolved["networks"])]

    everything, nothing = [True] * 6, [False] * 6
    assert [there(who) for who in ("ann", "bob", "eve")] == [everything, nothing, nothing]
    assert portal("bob", "DELETE", details).status_code == 403, "bob has no models of his own"
    assert portal.share("ann", f"model/{view['id']}", "team", portal.films.id).status_code == 200
    assert [there(who) for who in ("ann", "bob", "eve")] == [everything, everything, nothing]
    seen_by = {"seen_by": "private"}
    shared = portal(
        "ann", "POST", f"/portal/models/{view['id']}/sharing", data=seen_by, follow_redirects=False
    )
    assert (shared.status_code, shared.headers["location"]) == (303, "/portal/models?done=shared")
    assert there("bob") == nothing
    mine = portal.get("root", details)
    assert (mine["owner"], mine["visibility"]) == ("ann", "private"), "who looks after models sees all"
    assert portal("ann", "PATCH", details, json={"description": "mine"}).json()["description"] == "mine"
    own = portal("root", "POST", f"{OWN}&own=true", content=content)
    assert own.json()["owner"] == "root"
    studios = portal("root", "POST", OWN, content=content).json()
    assert (studios["owner"], studios["visibility"]) == ("", "studio")
    assert portal("ann", "DELETE", details).status_code == 204
    actions = [each.action for each in portal.studio.services.trail.entries(limit=50)]
    assert actions.count("model.share") == 2


def test_the_queue_tells_of_others_their_place_alone(portal: Portal) -> None:
    theirs = [
        portal("ann", "POST", "/api/v1/jobs", json={"txt2img_payload": PAYLOAD}).json()["id"] for _ in "ab"
    ]
    own = portal("bob", "POST", "/api/v1/jobs", json={"txt2img_payload": PAYLOAD}).json()["id"]
    queue = portal.get("bob", "/api/v1/jobs/queue")
    assert queue["waiting"] == 3
    assert [set(entry) for entry in queue["entries"]] == [{"position", "job"}] * 3
    assert [entry["position"] for entry in queue["entries"]] == [1, 2, 3]
    assert [entry["job"] for entry in queue["entries"] if entry["job"]] == [own]
    told = str([portal.get("bob", path) for path in ("/api/v1/jobs/queue", "/api/v1/jobs")])
    progress = portal.get("bob", "/sdapi/v1/progress")
    assert progress["state"]["job"] == own
    for secret in (*theirs, "ann", portal.ids["ann"]):
        assert not re.search(rf"\b{secret}\b", told + str(progress))
    assert portal.get("eve", "/sdapi/v1/progress")["state"]["job"] == ""
