"""A real portal over HTTP with a real worker process, for tests from one end to the other."""

from __future__ import annotations

import socket
import threading
from pathlib import Path
from typing import Any

import httpx
import uvicorn

from atelier.contract.jobs import JobView
from atelier.contract.models import ModelKind
from portal.app import create_app
from portal.bootstrap import build
from portal.db.migrate import upgrade
from portal.services import audit
from portal.services.models import ModelFile
from portal.services.ports import EndpointSpec, EndpointState
from portal.settings import load
from tests.quick_passwords import quick_passwords
from tests.waiting import eventually

PASSWORD = "a long enough password"
SMALL: dict[str, Any] = {
    "prompt": "a red circle on a blue background",
    "steps": 4,
    "width": 64,
    "height": 64,
    "seed": 1234,
    "sampler_name": "Euler",
    "cfg_scale": 5,
}


class LivePortal:
    """A portal in this process and a worker in a child, with the users ann, bob (designers) and root
    (admin).
    """

    def __init__(self, data_dir: Path, checkpoints: list[Path]) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        # Sites on loopback may be imported from: they stand in for others.
        options = {"portal_port": port, "worker_device": "cpu", "import_networks": ["127.0.0.0/8"]}
        settings = load(data_dir=data_dir, **options)
        self.services = build(settings, passwords=quick_passwords())
        upgrade(self.services.database)
        for name, role in (("ann", "designer"), ("bob", "designer"), ("root", "admin")):
            self.services.identity.create(audit.SYSTEM, name, PASSWORD, role)
        for path in checkpoints:
            self.services.work.models.register(audit.SYSTEM, ModelFile(path, ModelKind.CHECKPOINT, link=True))
        self._clients: dict[tuple[str, str], httpx.Client] = {}
        self.url = f"http://127.0.0.1:{port}"
        config = uvicorn.Config(
            create_app(self.services), port=port, log_config=None, timeout_graceful_shutdown=2
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, daemon=True)

    def start(self) -> None:
        """Answer HTTP and start the worker; returns once both are there."""
        self._thread.start()
        self.services.work.loop.start()
        self.services.work.endpoints.create(audit.SYSTEM, EndpointSpec("local"))
        eventually(lambda: self._server.started, within=60, about="the portal did not start")
        eventually(self._in_service, within=240, about="the worker did not start")

    def stop(self) -> None:
        """End the server, the dispatcher and the worker."""
        for client in self._clients.values():
            client.close()
        self._server.should_exit = True
        self._thread.join(10)
        self.services.work.loop.stop()
        self.services.work.fleet.close()
        self.services.database.close()

    def program(self, name: str = "ann") -> httpx.Client:
        """A program's client: Basic authentication. It is closed with the portal."""
        if (name, "program") not in self._clients:
            self._clients[name, "program"] = self._client(auth=(name, PASSWORD))
        return self._clients[name, "program"]

    def person(self, name: str = "ann") -> httpx.Client:
        """A person's client for /api/v1: a bearer token. It is closed with the portal."""
        if (name, "person") not in self._clients:
            body = {"username": name, "password": PASSWORD}
            answer = httpx.post(f"{self.url}/api/v1/auth/token", json=body, trust_env=False)
            token = answer.raise_for_status().json()["access_token"]
            self._clients[name, "person"] = self._client(headers={"Authorization": f"Bearer {token}"})
        return self._clients[name, "person"]

    def _client(self, **credentials: Any) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=120, trust_env=False, **credentials)

    def submit(self, client: httpx.Client, **payload: Any) -> str:
        """The id of a job that was accepted."""
        answer = client.post("/api/v1/jobs", json={"txt2img_payload": {**SMALL, **payload}})
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    def finished(self, client: httpx.Client, job_id: str, within: float = 180) -> JobView:
        """The job once it is final."""

        def final() -> JobView | None:
            view = JobView.model_validate(client.get(f"/api/v1/jobs/{job_id}").json())
            return view if view.state.final else None

        view = eventually(final, within=within, every=0.05, about=f"job {job_id} did not end")
        assert view is not None
        return view

    def finished_or_at(self, client: httpx.Client, job_id: str, phase: str) -> bool:
        """Whether the job has come to a phase, or past it."""
        view = JobView.model_validate(client.get(f"/api/v1/jobs/{job_id}").json())
        return view.state.final or view.progress.phase == phase

    def _in_service(self) -> bool:
        status = self.services.work.fleet.describe("local")
        assert status.state is not EndpointState.FAILED, status.reason
        return status.state is EndpointState.IN_SERVICE
