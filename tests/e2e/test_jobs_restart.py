"""Processes die in the middle of the work, and every accepted job still ends with one result."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from atelier.contract.jobs import JobView
from tests.live_portal import PASSWORD, SMALL, LivePortal
from tests.portal_process import PortalProcess, prepare
from tests.waiting import eventually

pytestmark = [pytest.mark.long]

SLOW = {**SMALL, "steps": 60, "width": 128, "height": 128}


@pytest.fixture
def portal(data_dir: Path, checkpoints: list[Path], free_port: int) -> Iterator[PortalProcess]:
    prepare(data_dir, checkpoints[0])
    process = PortalProcess(data_dir, free_port)
    yield process
    process.child.stop()


def _view(client: httpx.Client, url: str, job_id: str) -> JobView:
    return JobView.model_validate(client.get(f"{url}/api/v1/jobs/{job_id}").json())


def test_a_job_outlives_the_kill_of_the_portal_in_its_middle(portal: PortalProcess) -> None:
    with httpx.Client(trust_env=False, timeout=30) as ann:
        token = ann.post(
            f"{portal.url}/api/v1/auth/token", json={"username": "ann", "password": PASSWORD}
        ).json()
        ann.headers["Authorization"] = f"Bearer {token['access_token']}"
        job_id = ann.post(f"{portal.url}/api/v1/jobs", json={"txt2img_payload": SLOW}).json()["id"]
        eventually(lambda: _view(ann, portal.url, job_id).progress.phase == "steps", within=180, every=0.1)
        workers = portal.workers()
        assert len(workers) == 1
        portal.child.process.kill()
        portal.child.wait(10)
        portal.child.release()
        eventually(lambda: not workers[0].is_running(), within=90, about="the worker outlived its portal")
        portal.start()
        eventually(lambda: _view(ann, portal.url, job_id).state.final, within=240, every=0.2)
        view = _view(ann, portal.url, job_id)
    assert view.state == "succeeded", json.dumps(view.error)
    assert len(view.pictures) == 1


def test_a_job_outlives_the_kill_of_its_worker_and_is_made_by_the_next_one(live: LivePortal) -> None:
    ann = live.person()
    job_id = live.submit(ann, **{name: SLOW[name] for name in ("steps", "width", "height")})
    eventually(lambda: live.finished_or_at(ann, job_id, "steps"), within=180)
    [worker] = [
        each for each in psutil.Process().children() if "workers.inference.server" in " ".join(each.cmdline())
    ]
    worker.kill()
    view = live.finished(ann, job_id, within=240)
    assert view.state == "succeeded" and len(view.pictures) == 1
