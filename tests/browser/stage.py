"""The web UI on a stage: its real process, with the scripted portal or the whole studio behind it."""

from __future__ import annotations

import contextlib
import itertools
import socket
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
import uvicorn

from atelier.processes import Child, spawn
from tests.browser.portal_double import Double, create_double
from tests.waiting import eventually

ROOT = Path(__file__).resolve().parents[2]
STARTING_S = 180
STUDIO_STARTS_S = 300
ADMIN_PASSWORD = "an admin of this test alone"


@dataclass
class Stage:
    """The address people open, and the scripted portal behind it."""

    url: str
    double: Double
    webui: Child
    portal: PortalThread


def free_port() -> int:
    """A TCP port on loopback that nobody used a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class PortalThread:
    """The scripted portal on a port of its own; it can go away and come back."""

    def __init__(self, double: Double) -> None:
        self.double = double
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.server: uvicorn.Server | None = None
        self.thread: threading.Thread | None = None

    def start(self) -> None:
        """Answer from now on."""
        config = uvicorn.Config(
            create_double(self.double), port=self.port, log_level="error", timeout_graceful_shutdown=1
        )
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run, daemon=True)
        self.thread.start()
        server = self.server
        eventually(lambda: server.started, within=STARTING_S, about="the scripted portal never started")

    def stop(self) -> None:
        """Answer no more."""
        if self.server is not None and self.thread is not None:
            self.server.should_exit = True
            self.thread.join(10)


@contextlib.contextmanager
def on_stage(double: Double, log: Path, root: Path = ROOT) -> Iterator[Stage]:
    """The web UI's own process, started as the studio starts it, before the scripted portal. `root`: the
    installation it runs from.
    """
    portal = PortalThread(double)
    portal.start()
    try:
        with webui_process(portal.url, log, root=root) as (url, child):
            yield Stage(url, double, child, portal)
    finally:
        portal.stop()


@contextlib.contextmanager
def webui_process(
    portal_url: str, log: Path, python: str = sys.executable, root: Path = ROOT
) -> Iterator[tuple[str, Child]]:
    """`python -m webui.app` on a free port, for as long as the context lasts."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    env = {
        "ATELIER_PORT": str(port),
        "ATELIER_PORTAL_URL": portal_url,
        "PYTHONPATH": str(root),
        "HOME": str(log.parent),
    }
    child = spawn([python, "-m", "webui.app"], env, log=log, cwd=root)
    try:
        eventually(
            lambda: httpx.get(url + "/ui/mark.svg", trust_env=False).status_code == 200,
            within=STARTING_S,
            about=f"the web UI never answered; see {log}",
        )
        yield url, child
    finally:
        child.stop()


@dataclass
class Studio:
    """The whole studio: its address, and people who may log in."""

    url: str
    data_dir: Path
    admin: str
    pid: int = 0
    """Of the supervisor."""
    names: Iterator[int] = field(default_factory=itertools.count)

    def designer(self, name: str = "") -> tuple[str, str]:
        """A new designer's name and password."""
        name, password = name or f"designer{next(self.names)}", "long enough for anybody"
        body = {"username": name, "password": password, "role": "designer"}
        headers = {"Authorization": f"Bearer {self.admin}"}
        answer = httpx.post(self.url + "/api/v1/users", json=body, headers=headers, trust_env=False)
        assert answer.status_code == 201, answer.text
        return name, password

    def process(self, module: str) -> psutil.Process:
        """The studio's running process of that module. Raises LookupError while there is none."""
        for each in psutil.Process(self.pid).children():
            with contextlib.suppress(psutil.NoSuchProcess):
                if module in each.cmdline() and each.status() != psutil.STATUS_ZOMBIE:
                    return each
        raise LookupError(module)

    def job(self, owner: str = "", **payload: Any) -> str:
        """The id of an accepted job of somebody's, else the administrator's."""
        headers = {"Authorization": f"Bearer {owner or self.admin}"}
        body = {"txt2img_payload": {"prompt": "a red circle on a blue background", **payload}}
        answer = httpx.post(self.url + "/api/v1/jobs", json=body, headers=headers, trust_env=False)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])


def a_checkpoint() -> Path | None:
    """The demo checkpoint; where it is not trained yet, the small one among the recorded answers, if any."""
    trained = ROOT / "models" / "atelier-demo.safetensors"
    recorded = ROOT.parent / "shared" / "data" / "golden" / "models" / "oracle.safetensors"
    return next((place for place in (trained, recorded) if place.exists()), None)


@contextlib.contextmanager
def studio_up(place: Path, checkpoint: Path, *arguments: str) -> Iterator[Studio]:
    """`atelier up` on free ports with a data directory within `place`, for as long as the context lasts;
    `arguments` are further ones of the command.
    """
    port, portal_port = free_port(), free_port()
    url, log = f"http://127.0.0.1:{port}", place / "up.log"
    env = {
        "ATELIER_DATA_DIR": str(place / "data"),
        "ATELIER_PORT": str(port),
        "ATELIER_PORTAL_PORT": str(portal_port),
        "ATELIER_ADMIN_PASSWORD": ADMIN_PASSWORD,
        "ATELIER_DEMO_CHECKPOINT": str(checkpoint),
        "HOME": str(place),
        "OMP_NUM_THREADS": "1",
    }
    child = spawn([str(Path(sys.executable).parent / "atelier"), "up", *arguments], env, log=log, cwd=ROOT)
    try:
        eventually(
            lambda: httpx.get(url + "/readyz", trust_env=False).status_code == 200,
            within=STUDIO_STARTS_S,
            every=0.2,
            about=f"the studio never answered; see {log}",
        )
        login = {"username": "admin", "password": ADMIN_PASSWORD}
        answer = httpx.post(url + "/api/v1/auth/token", json=login, trust_env=False)
        yield Studio(url, place / "data", answer.json()["access_token"], child.pid)
    finally:
        child.stop(timeout=60)


def last_job(stage: Stage) -> dict[str, Any]:
    """The payload of the newest job that reached the scripted portal."""
    return list(stage.double.jobs.values())[-1].payload
