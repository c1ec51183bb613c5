"""POST /inference and its answers, without a worker: who may, what is refused, where answers lie."""

from __future__ import annotations

import base64
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select
from starlette.testclient import TestClient

from atelier.contract import keys
from atelier.contract.errors import OutOfMemory
from portal.api.following import patience
from portal.app import create_app
from portal.db.audit import AuditEntry
from portal.db.work import AnswerDue
from portal.domain.access import Effect, ObjectKind, SubjectKind
from portal.services import audit
from portal.services.accept import Limits
from tests.jobs_studio import PASSWORD, Studio
from tests.published_requests import BODY

PLAIN = {"prompt": "a red circle", "num_inference_steps": 5}
ORIGIN = "http://127.0.0.1:8000"
Asked = tuple[Studio, TestClient]


class Desk:
    """A studio before programs, each of a new user."""

    def __init__(self, url: str, folder: Path) -> None:
        self.studio = Studio(url, folder, limits=Limits(per_user=6), slots=100)
        self._app = create_app(self.studio.services)
        self._numbers = itertools.count(1)

    def program(self) -> TestClient:
        """A program of somebody who was not there before."""
        self.newest = name = f"ann{next(self._numbers)}"
        self.studio.services.identity.create(audit.SYSTEM, name, PASSWORD, "designer")
        client = TestClient(self._app, base_url=ORIGIN, client=("127.0.0.1", 5))
        client.auth = (name, PASSWORD)
        return client


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    folder = tmp_path_factory.mktemp("inference")
    made = Desk(f"sqlite:///{folder / 'atelier.db'}", folder)
    yield made
    made.studio.close()


@pytest.fixture
def asked(desk: Desk) -> Asked:
    return desk.studio, desk.program()


def send(client: TestClient, body: Any = PLAIN, endpoint: str = "local", **options: Any) -> Any:
    return client.post("/inference", params={"endpoint_name": endpoint}, json=body, **options)


def made(studio: Studio) -> None:
    """Let every part that waits be made."""
    for sent in studio.turn():
        studio.fleet.succeed(sent)
    studio.turn()


def test_the_answer_lies_in_the_store_as_soon_as_the_job_is_done_without_anybody_asking(
    studio_url: str, tmp_path: Path
) -> None:
    there = Desk(studio_url, tmp_path)
    studio, client = there.studio, there.program()
    job = send(client, {**BODY, "model": None}).json()["job"]
    assert client.get(f"/inference/{job}").status_code == 202
    assert client.get(f"/inference/{job}").json()["state"] == "queued"
    made(studio)
    stored = json.loads(studio.store.get(keys.job_answer(job)))
    assert list(stored) == ["images", "parameters", "info"]
    assert base64.b64decode(stored["images"][0])
    assert stored["parameters"]["prompt"] == BODY["txt2img_payload"]["prompt"]
    with studio.database.reading() as session:
        assert session.scalar(select(func.count()).select_from(AnswerDue)) == 0
    assert client.get(f"/inference/{job}").json() == stored
    studio.clock.advance(1e6)
    studio.work.orphans.sweep(audit.SYSTEM)
    assert client.get(f"/inference/{job}").json() == stored, "nobody takes it for litter"
    studio.close()


def test_the_answer_may_say_where_the_pictures_are(asked: Asked) -> None:
    studio, client = asked
    job = send(client, {**PLAIN, "output": "s3", "num_images_per_prompt": 2}).json()["job"]
    made(studio)
    places = client.get(f"/inference/{job}").json()["s3_loc"]
    assert len(places) == 2
    assert all(each.startswith("/files/") for each in places), "a folder of this machine is nobody's business"


def test_on_a_bucket_the_output_is_told_as_the_peer_tells_it(
    asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    studio, client = asked
    monkeypatch.setattr(studio.store, "location", lambda key: f"s3://studio/atelier/{key}")
    accepted = send(client)
    job = accepted.json()["job"]
    assert accepted.json()["output_location"] == f"s3://studio/atelier/jobs/{job}/answer.json"
    assert accepted.headers["X-Amzn-SageMaker-OutputLocation"] == accepted.json()["output_location"]
    assert accepted.json()["failure_location"] == f"s3://studio/atelier/jobs/{job}/failure.json"
    assert accepted.json()["status_url"] == f"{ORIGIN}/inference/{job}"
    text = send(client, headers={"Accept": "text/plain, */*"})
    assert (text.status_code, text.headers["content-type"]) == (202, "text/plain; charset=utf-8")
    assert text.text.startswith("s3://studio/atelier/jobs/") and text.text.endswith("/answer.json")
    refused = send(client, headers={"Accept": "image/png"})
    assert (refused.status_code, refused.json()["error"]["code"]) == (406, "not_acceptable")


@pytest.mark.parametrize(
    ("body", "endpoint", "code", "words"),
    [
        (PLAIN, "locl", "unknown_name", "no endpoint named 'locl'. Did you mean 'local'?"),
        ({**BODY, "task": "image-to-image"}, "local", "invalid_request", "input pictures are not served yet"),
        ({**BODY, "task": "interrogate"}, "local", "invalid_request", "captions of pictures are not served"),
        ({**BODY, "task": "text-to-imag"}, "local", "unknown_name", "Did you mean 'text-to-image'?"),
        (BODY, "local", "unknown_name", "no checkpoint named 'v1-5-pruned.ckpt'"),
        ({"task": "text-to-image"}, "local", "invalid_request", "needs `txt2img_payload`, an object"),
        ({"model": "first"}, "local", "invalid_request", "of no kind that is served"),
        ({**PLAIN, "hight": 64}, "local", "invalid_request", "did you mean 'height'?"),
        ({**PLAIN, "output": "s4"}, "local", "invalid_request", "output"),
        ({**BODY, "output": "s4"}, "local", "unknown_name", "Did you mean 's3'?"),
    ],
)
def test_what_cannot_be_done_is_refused_with_a_sentence(
    asked: Asked, body: Any, endpoint: str, code: str, words: str
) -> None:
    _, client = asked
    answer = send(client, body, endpoint)
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, code), answer.text
    assert words in answer.json()["error"]["message"]


def test_an_endpoint_that_is_closed_to_the_caller_is_none_for_them(asked: Asked) -> None:
    studio, client = asked
    access = studio.services.access
    rule = access.put(audit.SYSTEM, ObjectKind.ENDPOINT, "local", SubjectKind.EVERYBODY, "*", Effect.DENY)
    answer = send(client)
    access.delete(audit.SYSTEM, rule.id)
    assert answer.status_code == 403, answer.text
    assert "may not use any of the studio's endpoints" in answer.json()["error"]["message"]


def test_it_wants_basic_or_bearer_and_no_cookie(desk: Desk) -> None:
    client = desk.program()
    client.auth = None
    login = client.post("/api/v1/auth/token", json={"username": desk.newest, "password": PASSWORD}).json()
    bearer = {"Authorization": f"Bearer {login['access_token']}"}
    assert send(client, headers=bearer).status_code == 202
    refused = send(client, headers={"Cookie": f"atelier={login['access_token']}"})
    assert refused.status_code == 401
    assert refused.headers["WWW-Authenticate"].startswith("Basic")


def test_anothers_job_has_no_answer_and_neither_has_one_that_was_not_sent_here(desk: Desk) -> None:
    studio, bob, client = desk.studio, desk.program(), desk.program()
    job = send(client).json()["job"]
    assert bob.get(f"/inference/{job}").status_code == 404
    made(studio)
    assert bob.get(f"/inference/{job}").status_code == 404
    assert client.get(f"/inference/{job}").status_code == 200
    caller = studio.services.credentials.by_password(desk.newest, PASSWORD, audit.Origin(ip="127.0.0.1"))
    other = client.get(f"/inference/{studio.submit(caller)}")
    assert (other.status_code, "was not sent to /inference" in other.text) == (404, True)


def test_a_repeated_key_is_the_same_job_and_another_form_of_it_a_conflict(asked: Asked) -> None:
    studio, client = asked
    key = {"Idempotency-Key": "once"}
    first, again = send(client, headers=key).json(), send(client, headers=key).json()
    assert first["job"] == again["job"]
    assert send(client, {**PLAIN, "output": "s3"}, headers=key).status_code == 409
    accepted = select(func.count()).select_from(AuditEntry).where(AuditEntry.action == "job.accept")
    mine = accepted.where(AuditEntry.object == f"job:{first['job']}")
    with studio.database.reading() as session:
        assert session.scalar(mine) == 1


def test_too_much_at_once_is_told_with_when_to_come_again(asked: Asked) -> None:
    _, client = asked
    statuses = [send(client).status_code for _ in range(7)]
    assert statuses == [202] * 6 + [429]
    assert int(send(client).headers["Retry-After"]) >= 1


def test_a_failure_lies_beside_where_the_answer_would(asked: Asked) -> None:
    studio, client = asked
    job = send(client).json()["job"]
    sent = next(each for each in studio.turn() if each.job == job)
    studio.fleet.fail(sent, OutOfMemory("Too large."))
    studio.turn()
    assert json.loads(studio.store.get(keys.job_failure(job)))["error"]["code"] == "out_of_memory"
    answer = client.get(f"/inference/{job}")
    assert (answer.status_code, answer.json()["error"]["code"]) == (424, "job_failed")
    assert answer.json()["error"]["detail"]["error"]["message"] == "Too large."
    assert answer.json()["error"]["message"] == "Too large."


def test_a_picture_that_is_gone_is_a_failure_and_keeps_nothing_else_waiting(asked: Asked) -> None:
    studio, client = asked
    lost = send(client).json()["job"]
    kept = send(client).json()["job"]
    for sent in studio.turn():
        studio.fleet.succeed(sent)
        if sent.job == lost:
            studio.store.delete(keys.picture(sent.job, sent.part, sent.attempt, 0))
            studio.store.delete(keys.picture(sent.job, sent.part, sent.attempt, 0, "jpg"))
    studio.turn()
    assert client.get(f"/inference/{lost}").status_code == 424
    assert client.get(f"/inference/{kept}").status_code == 200


def test_a_call_that_may_not_wait_any_longer_names_the_job_that_goes_on(asked: Asked) -> None:
    studio, client = asked
    waited = client.post(
        "/sdapi/v1/txt2img", json={"prompt": "x"}, headers={"Prefer": "respond-async, wait=0"}
    )
    assert waited.status_code == 504
    job = waited.headers["Location"].rsplit("/", 1)[-1]
    assert waited.headers["Location"] == f"/api/v1/jobs/{job}"
    assert job in waited.json()["detail"] and "It goes on" in waited.json()["detail"]
    assert [each.state for each in studio.parts(job)] == ["queued"]


def test_a_studio_bounds_how_long_calls_wait_and_a_caller_may_only_wait_less(asked: Asked) -> None:
    settings = asked[0].services.settings
    assert patience(settings, "") is None
    assert patience(settings, "wait=20") == 20
    bounded = settings.model_copy(update={"answer_seconds": 25.0})
    assert [patience(bounded, each) for each in ("", "wait=20", "wait=900", "wait=x")] == [25, 20, 25, 25]
