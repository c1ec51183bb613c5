"""A portal at a real socket, for requests that no client library would send."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import uvicorn

from portal.app import create_app
from portal.services import audit
from tests.jobs_studio import Studio
from tests.waiting import eventually

PASSWORD = "a long enough password"
SAME = {"Sec-Fetch-Site": "same-origin"}


class Served:
    """A portal on a port of its own, with ann (designer) and root (admin)."""

    def __init__(self, folder: Path) -> None:
        self.studio = Studio(f"sqlite:///{folder / 'atelier.db'}", folder)
        # Nobody on this machine is a proxy here: what a sender says of itself is not believed.
        services = self.studio.services
        settings = services.settings.model_copy(update={"trusted_proxies": ()})
        self.app = create_app(replace(services, settings=settings))
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.url = f"http://127.0.0.1:{self.port}"
        # As the portal's own process is served: nothing of uvicorn's reading of proxies.
        config = uvicorn.Config(
            self.app, port=self.port, log_config=None, proxy_headers=False, timeout_graceful_shutdown=1
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, daemon=True)
        self._clients: dict[str, httpx.Client] = {}

    def start(self) -> None:
        """Answer from now on."""
        for name, role in (("ann", "designer"), ("root", "admin")):
            self.studio.services.identity.create(audit.SYSTEM, name, PASSWORD, role)
        self._thread.start()
        eventually(lambda: self._server.started, within=60, about="the portal did not start")

    def stop(self) -> None:
        """Answer no more."""
        for client in self._clients.values():
            client.close()
        self._server.should_exit = True
        self._thread.join(20)
        self.studio.close()

    def token(self, name: str) -> str:
        """A bearer token of somebody."""
        origin = audit.Origin(ip="127.0.0.1")
        return self.studio.services.identity.log_in(name, PASSWORD, origin)[1].access

    def person(self, name: str) -> httpx.Client:
        """A client of somebody, "" for nobody."""
        if name not in self._clients:
            headers = SAME | ({"Authorization": f"Bearer {self.token(name)}"} if name else {})
            self._clients[name] = httpx.Client(
                base_url=self.url, headers=headers, trust_env=False, timeout=120
            )
        return self._clients[name]

    def raw(self, *lines: bytes, body: bytes = b"") -> tuple[int, bytes]:
        """(status, all of the answer) to bytes as they are, 0 where the connection is closed without one."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=60) as line:
            line.sendall(b"\r\n".join(lines) + b"\r\n\r\n" + body)
            answer = b""
            while chunk := _received(line):
                answer += chunk
        return int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/1.1 ") else 0, answer

    def state(self) -> dict[str, Any]:
        """What there is, to see that nothing of it is lost."""
        root = self.person("root")
        paths = (
            "users",
            "teams",
            "models",
            "styles",
            "endpoints",
            "access-rules",
            "quotas",
            "settings/platform",
        )
        found = {path: root.get(f"/api/v1/{path}").raise_for_status().json() for path in paths}
        return found | {"users": [each | {"last_login_at": None} for each in found["users"]]}


def _received(line: socket.socket) -> bytes:
    try:
        return line.recv(65536)
    except ConnectionError:
        return b""


@contextmanager
def served_portal(folder: Path) -> Iterator[Served]:
    """A portal for as long as the context lasts."""
    made = Served(folder)
    made.start()
    try:
        yield made
    finally:
        made.stop()
