"""`python -m portal.app` as a process of its own, to be killed and started again, and a client that does not
give up.
"""

from __future__ import annotations

import hashlib
import io
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy
import psutil
from PIL import Image

from atelier.contract.jobs import JobView
from atelier.contract.models import ModelKind
from atelier.processes import Child, spawn
from portal.bootstrap import build
from portal.db.migrate import upgrade
from portal.services import audit
from portal.services.models import ModelFile
from portal.services.ports import EndpointSpec
from portal.settings import load
from tests.live_portal import PASSWORD
from tests.waiting import eventually


def prepare(data_dir: Path, checkpoint: Path, database_url: str | None = None, slots: int = 4) -> None:
    """A studio with the designer ann, one checkpoint and the endpoint `local`."""
    services = build(load(data_dir=data_dir, database_url=database_url, roles=("api",)))
    upgrade(services.database)
    services.identity.create(audit.SYSTEM, "ann", PASSWORD, "designer")
    services.work.models.register(audit.SYSTEM, ModelFile(checkpoint, ModelKind.CHECKPOINT, link=True))
    services.work.endpoints.create(audit.SYSTEM, EndpointSpec("local", slots=slots))
    services.database.close()


class PortalProcess:
    """A portal process on a data directory. `settings` are further ATELIER_ variables, `around` the words
    of a program that becomes the one it is given.
    """

    def __init__(
        self, data_dir: Path, port: int, *, start: bool = True, around: tuple[str, ...] = (), **settings: str
    ) -> None:
        self._argv = (*around, sys.executable, "-m", "portal.app")
        self.url = f"http://127.0.0.1:{port}"
        self.log = data_dir / f"portal-{port}.log"
        self._env = {
            "ATELIER_DATA_DIR": str(data_dir),
            "ATELIER_PORTAL_PORT": str(port),
            "ATELIER_WORKER_DEVICE": "cpu",
            "OMP_NUM_THREADS": "1",
            **settings,
        }
        self.child: Child
        if start:
            self.start()

    def launch(self) -> None:
        """Start it, and wait for nothing."""
        self.child = spawn(self._argv, self._env, log=self.log)

    def start(self) -> Child:
        """Start it and wait until it answers."""
        self.launch()
        eventually(self.ready, within=180, every=0.1, about="the portal did not start")
        return self.child

    def kill(self) -> None:
        """SIGKILL, as the kernel does where memory runs out."""
        self.child.process.kill()
        self.child.wait(60)
        self.child.release()

    def workers(self) -> list[psutil.Process]:
        """Its worker processes."""
        try:
            children = psutil.Process(self.child.pid).children(recursive=True)
            return [each for each in children if "workers.inference.server" in " ".join(each.cmdline())]
        except psutil.NoSuchProcess:
            return []

    def ready(self) -> bool:
        """Whether it answers. Fails where it has ended."""
        assert self.child.poll() is None, self.log.read_text()[-2000:]
        return httpx.get(f"{self.url}/healthz", trust_env=False).status_code == 200


def processes_of(data_dir: Path) -> list[int]:
    """The ids of all processes that were started for a data directory, whoever their parent is by now."""
    found = []
    for each in psutil.process_iter():
        try:
            if each.pid != psutil.Process().pid and str(data_dir) in " ".join(each.environ().values()):
                found.append(each.pid)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


@dataclass
class Persistent:
    """A client that sends a request with its key again until it has an answer that is no 5xx, as a program
    should.
    """

    urls: list[str]
    jobs: dict[str, str] = field(default_factory=dict)
    broken: int = 0
    """Answers that were none, or a 5xx."""
    statuses: set[int] = field(default_factory=set)
    token: str = ""

    def __post_init__(self) -> None:
        self._http = httpx.Client(trust_env=False, timeout=30)

    def close(self) -> None:
        """Let go of the connections."""
        self._http.close()

    def login(self) -> None:
        """Ann comes in."""
        answer = self.ask("POST", "/api/v1/auth/token", json={"username": "ann", "password": PASSWORD})
        self.token = answer.raise_for_status().json()["access_token"]
        self._http.headers["Authorization"] = f"Bearer {self.token}"

    def ask(self, method: str, path: str, at: int = 0, within: float = 240, **how: Any) -> httpx.Response:
        """The answer, asked for until there is one."""
        answers: list[httpx.Response] = []

        def once() -> bool:
            try:
                answer = self._http.request(method, self.urls[at] + path, **how)
            except httpx.TransportError:
                self.broken += 1
                raise
            self.statuses.add(answer.status_code)
            if answer.status_code >= 500:
                self.broken += 1
                return False
            answers.append(answer)
            return True

        eventually(once, within=within, every=0.1, about=f"{method} {path} was never answered")
        return answers[0]

    def submit(self, key: str, payload: dict[str, Any], at: int = 0) -> str:
        """The job of a key. The same key is the same job, however often it is sent."""
        body = {"txt2img_payload": payload}
        answer = self.ask("POST", "/api/v1/jobs", at, json=body, headers={"Idempotency-Key": key})
        assert answer.status_code == 202, answer.text
        job = str(answer.json()["id"])
        assert self.jobs.setdefault(key, job) == job
        return job

    def view(self, job: str, at: int = 0) -> JobView:
        """A job as ann sees it."""
        return JobView.model_validate(self.ask("GET", f"/api/v1/jobs/{job}", at).raise_for_status().json())

    def finished(self, job: str, at: int = 0, within: float = 240) -> JobView:
        """The job once it is final."""
        eventually(
            lambda: self.view(job, at).state.final, within=within, every=0.2, about=f"{job} never ended"
        )
        return self.view(job, at)

    def pixels(self, view: JobView) -> list[numpy.ndarray[Any, Any]]:
        """The pictures of a job, as they are stored, as 8-bit RGB of (height, width, 3)."""
        found = []
        for picture in view.pictures:
            data = self.ask("GET", picture.url).raise_for_status().content
            assert hashlib.sha256(data).hexdigest()
            found.append(numpy.asarray(Image.open(io.BytesIO(data)).convert("RGB")))
        return found
