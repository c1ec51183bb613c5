"""One local endpoint's worker: a child process that a thread starts, watches, restarts with growing pauses,
and puts to sleep.
"""

from __future__ import annotations

import logging
import secrets
import socket
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from atelier import logs
from atelier.contract.errors import WorkerUnavailable, WorkReturned
from atelier.processes import Child, spawn
from portal.services.ports import EndpointSpec, EndpointState, EndpointStatus

log = logging.getLogger(__name__)

START_SECONDS = 180.0
"""How long a worker may take until it answers: a large model from a slow disk takes a minute or two."""
PING_SECONDS = 0.05
WATCH_SECONDS = 0.5
DRAIN_SECONDS = 10.0
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
LARGEST_LOG = 16 * 2**20


@dataclass(frozen=True)
class Launch:
    """How workers are started: their program, where the store is, the key that signs jobs, and further
    ATELIER_ settings.
    """

    store_url: str
    job_key: str
    argv: tuple[str, ...] = (sys.executable, "-m", "workers.inference.server")
    settings: Mapping[str, str] | None = None


@dataclass(frozen=True)
class _Running:
    child: Child
    url: str
    token: str


class WorkerProcess:
    """The worker of one endpoint. `expect`, `invoke` and `release` frame one request; everything is safe
    from any thread.
    """

    def __init__(self, spec: EndpointSpec, launch: Launch, data_dir: Path, http: httpx.Client) -> None:
        self._spec = spec
        self._launch = launch
        self._home = data_dir.resolve() / "workers" / f"{spec.name}-0"
        self._log = data_dir.resolve() / "logs" / f"worker-{spec.name}.log"
        self._http = http
        self._changed = threading.Condition()
        self._status = EndpointStatus(EndpointState.ASLEEP)
        self._running: _Running | None = None
        self._expected = 0
        self._last_used = time.monotonic()
        self._closing = False
        self._restart = False
        self._thread = threading.Thread(target=self._supervise, name=f"worker-{spec.name}", daemon=True)
        self._thread.start()

    def status(self) -> EndpointStatus:
        """How it is."""
        with self._changed:
            return self._status

    def change(self, spec: EndpointSpec) -> None:
        """Take other numbers; a worker whose own settings change is restarted once it is idle."""
        with self._changed:
            self._restart = self._restart or (spec.threads, spec.options) != (
                self._spec.threads,
                self._spec.options,
            )
            self._spec = spec
            self._changed.notify_all()

    def expect(self) -> None:
        """A request is coming: wake up, and do not fall asleep."""
        with self._changed:
            self._expected += 1
            self._changed.notify_all()

    def release(self) -> None:
        """That request is over."""
        with self._changed:
            self._expected -= 1
            self._last_used = time.monotonic()
            self._changed.notify_all()

    def invoke(self, body: dict[str, Any]) -> dict[str, Any] | None:
        """Send a body to the worker once it is ready, and wait for the end of the work. The error body,
        None where it went well.
        """
        try:
            running = self._ready()
            headers = {"Authorization": f"Bearer {running.token}"}
            answer = self._http.post(f"{running.url}/invocations", json=body, headers=headers)
        except WorkReturned as error:
            return error.body()
        except httpx.ConnectError:
            return WorkReturned("The worker went away before it could be given this work.").body()
        except httpx.TransportError:
            return WorkerUnavailable("The worker went away while it had this work.").body()
        if answer.is_success:
            return None
        return _error_of(answer)

    def close(self) -> None:
        """Stop the worker for good; it may finish what it is doing within its drain time."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join(DRAIN_SECONDS + 15.0)

    def _ready(self) -> _Running:
        """The running worker, waited for while it starts. Raises WorkReturned where it cannot be had."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._running or self._closing or self._status.state is EndpointState.FAILED
            )
            if self._running is None:
                raise WorkReturned(self._status.reason or "The worker is being stopped.")
            return self._running

    def _wanted(self) -> bool:
        return self._spec.min_instances > 0 or self._expected > 0

    def _supervise(self) -> None:
        pause = FIRST_PAUSE
        while self._wait_until_wanted():
            began = time.monotonic()
            failure = self._live()
            if failure is None or time.monotonic() - began >= LONGEST_PAUSE:
                # Only lives that end soon, one after another, are worth waiting longer and longer for.
                pause = FIRST_PAUSE
            if failure is None:
                continue
            log.warning(
                "the worker of endpoint %s ended, another starts in %g s: %s", self._spec.name, pause, failure
            )
            self._set(EndpointStatus(EndpointState.FAILED, 0, failure))
            with self._changed:
                self._changed.wait_for(lambda: self._closing, pause)
            pause = min(LONGEST_PAUSE, pause * 2)

    def _wait_until_wanted(self) -> bool:
        """Whether a worker is to be started now; False once this endpoint is closed."""
        with self._changed:
            if not self._wanted() and not self._closing:
                self._status = EndpointStatus(EndpointState.ASLEEP)
            self._changed.wait_for(lambda: self._closing or self._wanted())
            return not self._closing

    def _live(self) -> str | None:
        """One life of the child, from start to end. The reason where it ended by itself."""
        if self.status().state is not EndpointState.FAILED:
            # A failed endpoint stays failed until a worker really answers: nothing is sent to it meanwhile.
            self._set(EndpointStatus(EndpointState.STARTING))
        with self._changed:
            self._restart = False
        try:
            log_from = self._prepare()
            running = self._start()
        except OSError as error:
            return f"The worker could not be started: {error}."
        try:
            if self._wait_for_ping(running):
                self._serve(running)
            died = running.child.poll() is not None
            return _reason(self._log, log_from, running.child.poll()) if died else self._unready()
        finally:
            with self._changed:
                self._running = None
            running.child.stop(DRAIN_SECONDS)

    def _unready(self) -> str | None:
        """Why a child that is still alive is given up: it never answered, or nobody wants it any more."""
        if self.status().state is EndpointState.IN_SERVICE or self._closing:
            return None
        return f"The worker did not answer within {START_SECONDS:.0f} s."

    def _prepare(self) -> int:
        """Folders and log; the log's length before this life."""
        self._home.joinpath("opt", "ml").mkdir(parents=True, exist_ok=True)
        self._log.parent.mkdir(parents=True, exist_ok=True)
        logs.put_aside(self._log, LARGEST_LOG)
        return self._log.stat().st_size if self._log.exists() else 0

    def _start(self) -> _Running:
        port, token = _free_port(), secrets.token_hex(32)
        threads = str(self._spec.threads)
        env = {
            "ATELIER_STORE": self._launch.store_url,
            "ATELIER_ENDPOINT": self._spec.name,
            "ATELIER_INSTANCE": f"{self._spec.name}-0",
            "ATELIER_JOB_KEY": self._launch.job_key,
            "ATELIER_WORKER_TOKEN": token,
            "ATELIER_MODEL_CACHE": str(self._home / "opt" / "ml" / "model-cache"),
            "ATELIER_MAX_INVOCATIONS": str(max(64, 2 * self._spec.slots)),
            "ATELIER_THREADS": threads,
            "OMP_NUM_THREADS": threads,
            "SAGEMAKER_BIND_TO_PORT": str(port),
            "HOME": str(self._home),
            "HF_HUB_OFFLINE": "1",
            "PYTHONUNBUFFERED": "1",
            **(self._launch.settings or {}),
            **{f"ATELIER_{name.upper()}": value for name, value in self._spec.options.items()},
        }
        return _Running(spawn(self._launch.argv, env, log=self._log), f"http://127.0.0.1:{port}", token)

    def _wait_for_ping(self, running: _Running) -> bool:
        """Wait until the worker serves. False where it died, took too long, or is not wanted any more."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and running.child.poll() is None:
            try:
                if self._http.get(f"{running.url}/ping", timeout=5.0).status_code == 200:
                    return True
            except httpx.TransportError:
                pass
            with self._changed:
                if self._changed.wait_for(lambda: self._closing, PING_SECONDS):
                    return False
        return False

    def _serve(self, running: _Running) -> None:
        """Be in service until the child dies, the endpoint is closed, or nobody has wanted it for long
        enough.
        """
        with self._changed:
            self._running = running
            self._last_used = time.monotonic()
        self._set(EndpointStatus(EndpointState.IN_SERVICE, 1))
        while running.child.poll() is None:
            logs.put_aside(self._log, LARGEST_LOG)
            with self._changed:
                self._changed.wait(WATCH_SECONDS)
                idle = time.monotonic() - self._last_used if self._expected == 0 else 0.0
                tired = not self._wanted() and idle >= self._spec.idle_seconds
                if self._closing or tired or (self._restart and self._expected == 0):
                    self._running = None
                    return

    def _set(self, status: EndpointStatus) -> None:
        with self._changed:
            self._status = status
            self._changed.notify_all()


def _error_of(answer: httpx.Response) -> dict[str, Any]:
    try:
        body = answer.json()["error"]
        if isinstance(body, dict):
            return body
    except (ValueError, KeyError, TypeError):
        pass
    return WorkerUnavailable(f"The worker answered {answer.status_code} without a reason.").body()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _reason(log_file: Path, start: int, status: int | None) -> str:
    """A sentence with the end of the log of this life: what an administrator looks for first."""
    with log_file.open("rb") as source:
        size = log_file.stat().st_size
        source.seek(max(start if start <= size else 0, size - 2**16))
        lines = [line for line in source.read().decode(errors="replace").splitlines() if line.strip()]
    said = logs.legible(lines[-1].strip())[:400] if lines else "it wrote nothing"
    return f"The worker ended with status {status}: {said}. Its log: {log_file.name}"
