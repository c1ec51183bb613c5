"""The figures for Prometheus over HTTP, read with Prometheus's own parser."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from atelier.contract.errors import InvalidRequest
from portal.app import create_app
from tests.jobs_studio import PASSWORD, PAYLOAD, Studio, staffed

Figures = dict[tuple[str, frozenset[tuple[str, str]]], float]


@pytest.fixture
def studio(studio_url: str, tmp_path: Path) -> Iterator[Studio]:
    with staffed(studio_url, tmp_path) as made:
        yield made


@pytest.fixture
def client(studio: Studio) -> TestClient:
    """Without the application's lifespan: the test turns the dispatcher itself."""
    return TestClient(create_app(studio.services), base_url="http://127.0.0.1:8000")


def bearer(client: TestClient, name: str) -> dict[str, str]:
    answer = client.post("/api/v1/auth/token", json={"username": name, "password": PASSWORD})
    return {"Authorization": f"Bearer {answer.json()['access_token']}"}


def figures(client: TestClient, headers: dict[str, str]) -> Figures:
    answer = client.get("/metrics", headers=headers)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def one(found: Figures, name: str, **labels: str) -> float:
    return found[name, frozenset(labels.items())]


def test_only_who_may_view_the_portal_reads_the_figures_also_by_an_api_key(client: TestClient) -> None:
    root = bearer(client, "root")
    client.cookies.clear()
    assert client.get("/metrics").status_code == 401
    assert client.get("/metrics", headers=bearer(client, "ann")).status_code == 403
    asked = {"name": "prometheus", "scopes": ["portal.view"]}
    made = client.post("/api/v1/me/keys", json=asked, headers=root)
    assert made.status_code == 201, made.text
    client.cookies.clear()
    assert figures(client, {"Authorization": f"Bearer {made.json()['secret']}"})


def test_jobs_parts_attempts_and_the_leader_are_counted(client: TestClient, studio: Studio) -> None:
    ann, root = bearer(client, "ann"), bearer(client, "root")
    before = figures(client, root)
    assert one(before, "atelier_jobs_accepted_total") == 0
    assert one(before, "atelier_dispatcher_leader") == 0
    body = {"txt2img_payload": {**PAYLOAD, "n_iter": 3}}
    twice = {**ann, "Idempotency-Key": "the same twice"}
    for _ in range(2):
        assert client.post("/api/v1/jobs", json=body, headers=twice).status_code < 300
    assert one(figures(client, root), "atelier_queue_parts", state="queued") == 3
    assert studio.work.loop._leadership.held()
    studio.turn()
    found = figures(client, root)
    assert one(found, "atelier_jobs_accepted_total") == 1
    assert one(found, "atelier_dispatcher_leader") == 1
    assert one(found, "atelier_queue_parts", state="queued") == 0
    assert one(found, "atelier_queue_parts", state="dispatched") == 3
    assert one(found, "atelier_open_attempts", endpoint="local") == 3
    assert one(found, "atelier_ended_parts", outcome="failed") == 0
    assert one(found, "atelier_audit_entries_total") == len(studio.services.trail.entries())
    assert ("atelier_instances", frozenset({("endpoint", "local")})) in found


def test_requests_count_by_template_and_nothing_somebody_typed_is_a_label(client: TestClient) -> None:
    root = bearer(client, "root")
    for path in ("/api/v1/jobs/swordfish", "/api/v1/jobs/marlin", "/no/such/tarpon"):
        assert client.get(path, headers=root).status_code == 404
    client.request("BREAM", "/healthz")
    text = client.get("/metrics", headers=root).text
    found = figures(client, root)
    count = "atelier_http_request_seconds_count"
    assert one(found, count, route="/api/v1/jobs/{job_id}", method="GET", status="404") == 2
    assert one(found, count, route="none", method="GET", status="404") == 1
    assert any(("method", "other") in labels for name, labels in found if name == count)
    for typed in ("swordfish", "marlin", "tarpon", "BREAM", "root", "ann"):
        assert typed not in text


def test_waits_attempts_worker_seconds_demand_and_sweeps_are_counted(
    client: TestClient, studio: Studio
) -> None:
    ann, root = bearer(client, "ann"), bearer(client, "root")
    before = figures(client, root)
    assert one(before, "atelier_oldest_queued_timestamp_seconds") == 0
    assert one(before, "atelier_last_sweep_timestamp_seconds") == 0
    body = {"txt2img_payload": {**PAYLOAD, "n_iter": 2}}
    assert client.post("/api/v1/jobs", json=body, headers=ann).status_code == 202
    waiting = figures(client, root)
    assert one(waiting, "atelier_oldest_queued_timestamp_seconds") == studio.clock.now()
    assert one(waiting, "atelier_demand_parts", endpoint="local") == 2
    studio.clock.advance(7)
    first, second = studio.turn()
    studio.fleet.succeed(first)
    studio.fleet.fail(second, InvalidRequest("That cannot be drawn."))
    studio.turn()
    studio.work.measures.ended("local", "succeeded", 2.5)  # as after a worker that says how long it took
    found = figures(client, root)
    assert one(found, "atelier_queue_wait_seconds_count") == 2
    assert one(found, "atelier_queue_wait_seconds_sum") == 14
    assert one(found, "atelier_queue_wait_seconds_bucket", le="5.0") == 0
    assert one(found, "atelier_attempts_total", endpoint="local", outcome="succeeded") == 2
    assert one(found, "atelier_attempts_total", endpoint="local", outcome="failed") == 1
    assert one(found, "atelier_worker_seconds_total", endpoint="local") == 2.5
    assert one(found, "atelier_demand_parts", endpoint="local") == 0
    assert one(found, "atelier_sweeps_total") == 2
    assert one(found, "atelier_last_sweep_timestamp_seconds") == studio.clock.now()
