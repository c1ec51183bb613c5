"""Jobs over real HTTP with a real worker: from the click to the bytes of the picture."""

from __future__ import annotations

import hashlib
import io
import json
import time
from pathlib import Path

import httpx
import pytest
from PIL import Image

from atelier.contract.jobs import JobState, JobView
from tests.live_portal import SMALL, LivePortal


def test_a_submitted_job_becomes_a_picture_whose_bytes_carry_its_parameters(live: LivePortal) -> None:
    ann = live.person()
    view = live.finished(ann, live.submit(ann))
    assert view.state is JobState.SUCCEEDED
    [picture] = view.pictures
    answer = ann.get(picture.url)
    image = Image.open(io.BytesIO(answer.content))
    assert image.size == (64, 64) and image.mode == "RGB"
    assert image.text["parameters"] == picture.infotext  # type: ignore[attr-defined]
    assert answer.headers["etag"] == f'"{hashlib.sha256(answer.content).hexdigest()}"'
    assert answer.headers["content-type"] == "image/png"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in answer.headers["content-security-policy"]
    assert {"accepted", "received", "steps", "visible"} <= set(view.timeline)


def test_a_download_has_a_name_and_an_unchanged_file_is_not_sent_again(live: LivePortal) -> None:
    ann = live.person()
    [picture] = live.finished(ann, live.submit(ann)).pictures
    saved = ann.get(picture.download_url)
    assert saved.headers["content-disposition"] == 'attachment; filename="00000-1234.png"'
    again = ann.get(picture.url, headers={"If-None-Match": saved.headers["etag"]})
    assert again.status_code == 304 and again.content == b""


def test_the_event_stream_shows_the_job_from_waiting_to_done_and_ends(live: LivePortal) -> None:
    ann = live.person()
    job_id = live.submit(ann, steps=40, width=128, height=128)  # long enough to be seen at work
    with ann.stream("GET", f"/api/v1/jobs/{job_id}/events") as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        data = [line.removeprefix("data:") for line in stream.iter_lines() if line.startswith("data:")]
    seen = [JobView.model_validate_json(each) for each in data]
    states = list(dict.fromkeys(view.state for view in seen))
    # `waking` where this test is the first to send work to its studio: the worker is still starting.
    assert states[0] in (JobState.QUEUED, JobState.WAKING, JobState.RUNNING)
    assert states[-2:] == [JobState.RUNNING, JobState.SUCCEEDED]
    assert [view.version for view in seen] == sorted(view.version for view in seen)
    fractions = [view.progress.fraction for view in seen]
    assert fractions == sorted(fractions) and fractions[-1] == 1.0


def test_somebody_else_finds_neither_the_job_nor_its_events_nor_its_pictures(live: LivePortal) -> None:
    ann, bob = live.person("ann"), live.person("bob")
    job_id = live.submit(ann)
    [picture] = live.finished(ann, job_id).pictures
    for path in (
        f"/api/v1/jobs/{job_id}",
        f"/api/v1/jobs/{job_id}/events",
        f"/api/v1/jobs/{job_id}/preview/1",
    ):
        assert bob.get(path).status_code == 404, path
    assert bob.get(picture.url).status_code == 404
    assert bob.post(f"/api/v1/jobs/{job_id}/actions", json={"action": "cancel"}).status_code == 404
    assert job_id not in {job["id"] for job in bob.get("/api/v1/jobs").json()["jobs"]}
    assert job_id in {job["id"] for job in ann.get("/api/v1/jobs").json()["jobs"]}


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/v1/jobs"),
        ("POST", "/api/v1/jobs"),
        ("GET", "/api/v1/jobs/x/events"),
        ("GET", "/files/x"),
        ("GET", "/api/v1/models"),
        ("GET", "/api/v1/endpoints"),
        ("POST", "/sdapi/v1/txt2img"),
        ("GET", "/sdapi/v1/progress"),
    ],
)
def test_nothing_answers_without_a_login(live: LivePortal, method: str, path: str) -> None:
    answer = httpx.request(method, live.url + path, json={} if method == "POST" else None, trust_env=False)
    assert answer.status_code == 401


def test_the_same_request_with_the_same_key_is_the_same_job_over_http_too(live: LivePortal) -> None:
    ann = live.person()
    body = {"txt2img_payload": SMALL}
    answers = [ann.post("/api/v1/jobs", json=body, headers={"Idempotency-Key": "http-1"}) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [202, 202]
    assert answers[0].json()["id"] == answers[1].json()["id"]
    other = {"txt2img_payload": {**SMALL, "seed": 5}}
    assert ann.post("/api/v1/jobs", json=other, headers={"Idempotency-Key": "http-1"}).status_code == 409
    live.finished(ann, answers[0].json()["id"])


def test_a_name_nobody_knows_is_refused_with_the_nearest_one(live: LivePortal) -> None:
    answer = live.person().post("/api/v1/jobs", json={"txt2img_payload": {**SMALL, "sampler_name": "Eular"}})
    assert answer.status_code == 422
    error = answer.json()["error"]
    assert error["code"] == "unknown_name" and error["detail"]["nearest"] == "Euler"


def test_interrupt_ends_a_running_job_within_five_seconds_and_keeps_what_there_is(live: LivePortal) -> None:
    ann = live.person()
    job_id = live.submit(ann, steps=150, width=128, height=128, n_iter=3)
    with ann.stream("GET", f"/api/v1/jobs/{job_id}/events") as stream:
        for line in stream.iter_lines():
            if line.startswith("data:") and '"phase":"steps"' in line:
                break
    clicked = time.monotonic()
    ann.post(f"/api/v1/jobs/{job_id}/actions", json={"action": "stop_now"})
    view = live.finished(ann, job_id)
    assert time.monotonic() - clicked < 5
    assert view.state is JobState.STOPPED
    assert all(not picture.complete for picture in view.pictures)


def test_cancel_discards_a_running_job_at_once(live: LivePortal) -> None:
    ann = live.person()
    job_id = live.submit(ann, steps=150, width=128, height=128)
    answer = ann.post(f"/api/v1/jobs/{job_id}/actions", json={"action": "cancel"})
    assert answer.json()["state"] == "cancelled"
    assert live.finished(ann, job_id).pictures == ()
    assert live.finished(ann, live.submit(ann)).state is JobState.SUCCEEDED


def test_a_preview_of_a_running_job_is_a_picture_for_its_owner(live: LivePortal) -> None:
    ann = live.person()
    job_id = live.submit(ann, steps=150, width=128, height=128)
    url = ""
    with ann.stream("GET", f"/api/v1/jobs/{job_id}/events") as stream:
        for line in stream.iter_lines():
            if line.startswith("data:"):
                url = json.loads(line.removeprefix("data:"))["progress"]["preview_url"] or ""
                if url:
                    break
    answer = ann.get(url)
    assert answer.headers["content-type"] == "image/jpeg"
    assert Image.open(io.BytesIO(answer.content)).format == "JPEG"
    ann.post(f"/api/v1/jobs/{job_id}/actions", json={"action": "cancel"})


def test_endpoints_are_seen_by_designers_and_managed_by_administrators_alone(live: LivePortal) -> None:
    ann, root = live.person("ann"), live.person("root")
    [local] = [each for each in ann.get("/api/v1/endpoints").json() if each["name"] == "local"]
    assert local["state"] == "in_service" and local["instances"] == 1
    body = {"name": "spare", "min_instances": 0}
    assert ann.post("/api/v1/endpoints", json=body).status_code == 403
    made = root.post("/api/v1/endpoints", json=body)
    assert made.status_code == 201 and made.json()["state"] == "asleep"
    assert root.post("/api/v1/endpoints", json=body).status_code == 409
    changed = root.patch("/api/v1/endpoints/spare", json={"slots": 3})
    assert changed.json()["slots"] == 3
    assert root.patch("/api/v1/endpoints/spare", json={"slots": 0}).status_code == 422
    assert root.delete("/api/v1/endpoints/spare").status_code == 204
    assert root.get("/api/v1/endpoints/spare").status_code == 404


def test_the_models_are_listed_with_their_hashes_and_the_standard_one_is_marked(
    live: LivePortal, checkpoints: list[Path]
) -> None:
    first, second = (path.stem for path in checkpoints)
    found = live.person().get("/api/v1/models", params={"kind": "checkpoint"}).json()
    assert [(model["name"], model["standard"]) for model in found] == [(first, True), (second, False)]
    assert found[0]["title"] == f"{first}.safetensors [{found[0]['sha256'][:10]}]"
    assert live.person().put("/api/v1/models/standard", json={"name": second}).status_code == 403
