"""Processes die in the middle of the work, and every accepted job still ends with one result."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from atelier.contract.jobs import JobView
from atelier.contract.models import ModelKind
from atelier.processes import Child, spawn
from portal.bootstrap import build
from portal.db.migrate import upgrade
from portal.services import audit
from portal.services.models import ModelFile
from portal.services.ports import EndpointSpec
from portal.settings import load
from tests.live_portal import PASSWORD, SMALL, LivePortal
from tests.waiting import eventually

SLOW = {**SMALL, "steps": 60, "width": 128, "height": 128}


class PortalProcess:
    """`python -m portal.app` on a data directory, to be killed and started again."""

    def __init__(self, data_dir: Path, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self._log = data_dir / "portal.log"
        self._env = {
            "ATELIER_DATA_DIR": str(data_dir),
            "ATELIER_PORTAL_PORT": str(port),
            "ATELIER_WORKER_DEVICE": "cpu",
            "OMP_NUM_THREADS": "1",
        }
        self.child = self.start()

    def start(self) -> Child:
        """Start it and wait until it answers."""
        self.child = spawn([sys.executable, "-m", "portal.app"], self._env, log=self._log)
        eventually(self._ready, within=180, every=0.1, about="the portal did not start")
        return self.child

    def workers(self) -> list[psutil.Process]:
        """Its worker processes."""
        children = psutil.Process(self.child.pid).children(recursive=True)
        return [each for each in children if "workers.inference.server" in " ".join(each.cmdline())]

    def _ready(self) -> bool:
        assert self.child.poll() is None, self._log.read_text()[-2000:]
        return httpx.get(f"{self.url}/readyz", trust_env=False).status_code == 200


@pytest.fixture
def portal(data_dir: Path, checkpoints: list[Path], free_port: int) -> Iterator[PortalProcess]:
    services = build(load(data_dir=data_dir, roles=("api",)))
    upgrade(services.database)
    services.identity.create(audit.SYSTEM, "ann", PASSWORD, "designer")
    services.work.models.register(audit.SYSTEM, ModelFile(checkpoints[0], ModelKind.CHECKPOINT, link=True))
    services.work.endpoints.create(audit.SYSTEM, EndpointSpec("local"))
    services.database.close()
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
