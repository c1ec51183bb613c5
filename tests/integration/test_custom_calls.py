"""Endpoints of the kind custom: bodies untouched, answers for their sender alone, and no parts of jobs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from starlette.testclient import TestClient

from atelier.contract.errors import NotFound, UnknownName
from portal.adapters.aws.calls import folders
from portal.app import create_app
from portal.services import audit
from portal.services.ports import EndpointSpec, Outcome
from tests.integration.test_aws_fleet import Cloud, changed
from tests.jobs_studio import PASSWORD, Studio

SAME = {"Sec-Fetch-Site": "same-origin", "Origin": "http://127.0.0.1:8000"}
BODY = b"\x00\xffnot JSON at all"


class Desk:
    """A portal with two custom endpoints and two users, asked over HTTP."""

    def __init__(self, client: TestClient, studio: Studio) -> None:
        self.client, self.studio = client, studio
        for name, kind in (("own", "custom"), ("now", "custom-realtime")):
            spec = EndpointSpec(name, kind=kind, image="registry/mine:1")
            studio.work.endpoints.create(audit.SYSTEM, spec)
        self.headers = {}
        for name in ("ann", "bob"):
            studio.services.identity.create(audit.SYSTEM, name, PASSWORD, "designer")
            login = client.post("/api/v1/auth/token", json={"username": name, "password": PASSWORD}).json()
            self.headers[name] = SAME | {"Authorization": f"Bearer {login['access_token']}"}

    def send(self, name: str, who: str = "ann", **headers: str) -> httpx.Response:
        path = f"/api/v1/endpoints/{name}/invocations"
        return self.client.post(path, content=BODY, headers=self.headers[who] | headers)

    def fetch(self, url: str, who: str = "ann") -> httpx.Response:
        return self.client.get(url, headers=self.headers[who])


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    studio = Studio(f"sqlite:///{tmp_path / 'a.db'}", tmp_path)
    with TestClient(create_app(studio.services), base_url="http://127.0.0.1:8000") as client:
        yield Desk(client, studio)


def test_a_body_goes_on_untouched_and_its_answer_is_its_senders(desk: Desk) -> None:
    sent = desk.send("own", **{"Content-Type": "image/x-raw", "Accept": "application/json"})
    assert sent.status_code == 202
    [(name, key, content_type)] = desk.studio.fleet.left
    assert (name, content_type, desk.studio.store.get(key)) == ("own", "image/x-raw", BODY)
    url = sent.json()["status_url"]
    assert desk.fetch(url).status_code == 202
    desk.studio.store.put("custom/own/answers/1", b'{"done": true}')
    desk.studio.fleet.outcomes[key] = Outcome("custom/own/answers/1")
    assert desk.fetch(url).json() == {"done": True}
    assert desk.fetch(url, "bob").status_code == 404
    assert desk.fetch(url.replace("/own/", "/now/")).status_code == 404
    desk.studio.store.put("custom/own/failures/1", b"no memory")
    desk.studio.fleet.outcomes[key] = Outcome("custom/own/failures/1", failed=True)
    failed = desk.fetch(url)
    assert failed.status_code == 424 and "no memory" in failed.text


def test_one_whose_callers_wait_answers_at_once_and_nothing_it_says_becomes_a_page(desk: Desk) -> None:
    said = desk.send("now", **{"Content-Type": "text/html"})
    assert (said.status_code, said.content) == (200, BODY)
    assert said.headers["content-type"] == "application/octet-stream"
    assert said.headers["content-disposition"] == "attachment"


def test_no_part_of_a_job_goes_to_a_custom_endpoint_and_no_body_to_another(desk: Desk) -> None:
    assert desk.send("local").status_code == 422
    assert desk.send("never").status_code == 404
    ann = desk.studio.user("carl")
    with pytest.raises(UnknownName):
        desk.studio.submit(ann, endpoint="own")
    desk.studio.work.endpoints.delete(audit.SYSTEM, "local")
    desk.studio.submit(ann)
    assert desk.studio.turn() == []
    assert desk.studio.fleet.demands.get("own", 0) == 0


def test_calls_are_kept_for_a_week(desk: Desk) -> None:
    desk.send("own")
    assert len([*desk.studio.store.list("custom/")]) == 2
    young = max(each.modified for each in desk.studio.store.list("custom/"))
    desk.studio.clock.jump(young + 7 * 86_400 - desk.studio.clock.now())
    assert desk.studio.work.orphans.sweep(audit.SYSTEM).found["custom"] == 0
    desk.studio.clock.advance(86_400)
    assert desk.studio.work.orphans.sweep(audit.SYSTEM).found["custom"] == 2
    assert [*desk.studio.store.list("custom/")] == []


def test_sagemaker_takes_the_body_and_notes_its_end_where_it_is_kept(tmp_path: Path) -> None:
    cloud = Cloud(tmp_path)
    cloud.serve(changed(kind="custom", image="registry/mine:1", metric="backlog"))
    [model] = cloud.world.asked("CreateModel")
    assert model["PrimaryContainer"]["Environment"] == {}, "nothing of the studio's is told to it"
    assert model["ExecutionRoleArn"].endswith("role/custom")
    assert (
        "NotificationConfig"
        not in next(iter(cloud.world.configs.values()))["AsyncInferenceConfig"]["OutputConfig"]
    )
    cloud.world.bucket.put("custom/user/call", BODY)
    seen: list[bytes] = []
    cloud.world.work = lambda body: (seen.append(body) or 200, b"answer")  # type: ignore[func-returns-value]
    ticket = cloud.fleet.leave("big", "custom/user/call", "image/x-raw")
    assert seen == [BODY]
    outcome = cloud.another().outcome(ticket)
    assert outcome is not None and not outcome.failed
    assert outcome.key.startswith(folders("big", custom=True)[0])
    assert cloud.world.bucket.get(outcome.key) == b"answer"
    with pytest.raises(NotFound):
        cloud.fleet.outcome("never")
    cloud.world.work = lambda body: (200, body)
    assert cloud.fleet.ask("big", BODY, "image/x-raw", "*/*") == (BODY, "application/json")
