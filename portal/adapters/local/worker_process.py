"""One worker of a local endpoint: a child process that a thread starts, watches, restarts with growing
pauses, and lets go.
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

import httpx

from atelier import logs
from atelier.processes import Child, spawn
from portal.services.ports import EndpointSpec, EndpointState

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
class Running:
    """A child process, and how it is spoken to."""

    child: Child
    url: str
    token: str


class WorkerProcess:
    """The worker of one place of an endpoint. Its crew says whether it is wanted and counts what it has;
    `changed` is the crew's, and guards every attribute here.
    """

    def __init__(
        self,
        spec: EndpointSpec,
        number: int,
        launch: Launch,
        data_dir: Path,
        http: httpx.Client,
        changed: threading.Condition,
    ) -> None:
        self.name = f"{spec.name}-{number}"
        self.number = number
        self.state = EndpointState.ASLEEP
        self.reason = ""
        """Why it failed, until it serves again."""
        self.wanted = False
        self.working = 0
        """Requests it has."""
        self.running: Running | None = None
        self.renewing = False
        """Whether it is to be started anew, with other settings, once it has nothing to do."""
        self._spec = spec
        self._launch = launch
        self._home = data_dir.resolve() / "workers" / self.name
        log_name = spec.name if number == 0 else self.name
        self._log = data_dir.resolve() / "logs" / f"worker-{log_name}.log"
        self._http = http
        self._changed = changed
        self._closing = False
        self._thread = threading.Thread(target=self._supervise, name=f"worker-{self.name}", daemon=True)
        self._thread.start()

    @property
    def serves(self) -> bool:
        """Whether it takes new work."""
        return self.wanted and self.running is not None

    @property
    def away(self) -> bool:
        """Whether it has no process and is not to have one."""
        return not self.wanted and self.state in (EndpointState.ASLEEP, EndpointState.FAILED)

    def change(self, spec: EndpointSpec) -> None:
        """Take other numbers; a worker whose own settings change is restarted once it is idle."""
        with self._changed:
            differs = (spec.threads, spec.options) != (self._spec.threads, self._spec.options)
            self.renewing = self.renewing or differs
            self._spec = spec
            self._changed.notify_all()

    def close(self) -> None:
        """Stop the worker for good; it may finish what it is doing within its drain time."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join(DRAIN_SECONDS + 15.0)

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
                "the worker %s of endpoint %s ended, another starts in %g s: %s",
                self.name,
                self._spec.name,
                pause,
                failure,
            )
            self._set(EndpointState.FAILED, failure)
            with self._changed:
                self._changed.wait_for(lambda: self._closing, pause)
            pause = min(LONGEST_PAUSE, pause * 2)

    def _wait_until_wanted(self) -> bool:
        """Whether a worker is to be started now; False once this endpoint is closed."""
        with self._changed:
            if not self.wanted and not self._closing:
                self.state = EndpointState.ASLEEP
                self._changed.notify_all()
            self._changed.wait_for(lambda: self._closing or self.wanted)
            return not self._closing

    def _live(self) -> str | None:
        """One life of the child, from start to end. The reason where it ended by itself."""
        with self._changed:
            if self.state is not EndpointState.FAILED:
                # What failed stays failed until it really answers: nothing is sent to it meanwhile.
                self._set(EndpointState.STARTING)
            self.renewing = False
        began = time.monotonic()
        try:
            log_from = self._prepare()
            running = self._start()
        except (OSError, ValueError) as error:  # an environment that no process can have is a ValueError
            return f"The worker could not be started: {error}."
        try:
            if self._wait_for_ping(running):
                self._serve(running)
            died = running.child.poll() is not None
            return _reason(self._log, log_from, running.child.poll()) if died else self._unready(began)
        finally:
            with self._changed:
                self.running = None
            running.child.stop(DRAIN_SECONDS)

    def _unready(self, began: float) -> str | None:
        """Why a child that is still alive is given up: it never answered, or nobody wants it any more."""
        if self.state is EndpointState.IN_SERVICE or time.monotonic() - began < START_SECONDS:
            return None
        return f"The worker did not answer within {START_SECONDS:.0f} s."

    def _prepare(self) -> int:
        """Folders and log; the log's length before this life."""
        self._home.joinpath("opt", "ml").mkdir(parents=True, exist_ok=True)
        self._log.parent.mkdir(parents=True, exist_ok=True)
        logs.put_aside(self._log, LARGEST_LOG)
        return self._log.stat().st_size if self._log.exists() else 0

    def _start(self) -> Running:
        port, token = _free_port(), secrets.token_hex(32)
        threads = str(self._spec.threads)
        env = {
            "ATELIER_STORE": self._launch.store_url,
            "ATELIER_ENDPOINT": self._spec.name,
            "ATELIER_INSTANCE": self.name,
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
        return Running(spawn(self._launch.argv, env, log=self._log), f"http://127.0.0.1:{port}", token)

    def _wait_for_ping(self, running: Running) -> bool:
        """Wait until the worker serves. False where it died, took too long, or is not wanted any more."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and running.child.poll() is None:
            try:
                if self._http.get(f"{running.url}/ping", timeout=5.0).status_code == 200:
                    return True
            except httpx.TransportError:
                pass
            with self._changed:
                if self._changed.wait_for(lambda: self._closing or not self.wanted, PING_SECONDS):
                    return False
        return False

    def _serve(self, running: Running) -> None:
        """Be in service until the child dies, the endpoint is closed, or it has nothing to do and is not
        wanted, or not with these settings.
        """
        with self._changed:
            self.running = running
            self._set(EndpointState.IN_SERVICE)
        while running.child.poll() is None:
            logs.put_aside(self._log, LARGEST_LOG)
            with self._changed:
                self._changed.wait(WATCH_SECONDS)
                leaves = (self.renewing or not self.wanted) and self.working == 0
                if self._closing or leaves:
                    self.running = None
                    return

    def _set(self, state: EndpointState, reason: str = "") -> None:
        with self._changed:
            self.state, self.reason = state, reason
            self._changed.notify_all()


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
