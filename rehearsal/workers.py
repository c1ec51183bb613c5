"""The workers of instances: the real program as a child process, or a script that takes simulated time."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar

import httpx

from atelier.processes import Child, spawn
from rehearsal.clock import SimulatedClock
from rehearsal.variant import Answer

Found = TypeVar("Found")

START_SECONDS = 300.0
"""Real seconds until a program that does not answer /ping is given up."""
PING_SECONDS = 0.2
STOP_SECONDS = 30.0
"""Real seconds between SIGTERM and SIGKILL, as SageMaker has it."""


class ProcessWorker:
    """A program that speaks SageMaker's contract on a loopback port, with SageMaker's environment. The clock
    is held while it starts and while it computes.
    """

    def __init__(
        self, argv: Sequence[str], environment: Mapping[str, str], home: Path, clock: SimulatedClock
    ) -> None:
        self._argv = argv
        self._environment = environment
        self._home = home
        self._clock = clock
        self._child: Child | None = None
        self._url = ""

    def start(self, ready: Callable[[str], None]) -> None:
        """See Worker."""
        port = _free_port()
        self._url = f"http://127.0.0.1:{port}"
        self._home.mkdir(parents=True, exist_ok=True)
        env = {**self._environment, "SAGEMAKER_BIND_TO_PORT": str(port), "HOME": str(self._home)}
        self._child = spawn([*self._argv, "serve"], env, log=self._home / "worker.log", cwd=self._home)
        self._aside(partial(self._until_healthy, self._child), ready)

    def alive(self) -> bool:
        """See Worker."""
        return self._child is not None and self._child.poll() is None

    def invoke(self, body: bytes, headers: Mapping[str, str], done: Callable[[Answer], None]) -> None:
        """See Worker."""

        def ask() -> Answer:
            try:
                with _caller(seconds=None) as http:
                    said = http.post(f"{self._url}/invocations", content=body, headers=dict(headers))
            except httpx.TransportError:
                return Answer(0, b"")
            return Answer(said.status_code, said.content, said.headers.get("content-type", ""))

        self._aside(ask, done)

    def crash(self) -> None:
        """See Worker."""
        if self._child is not None and self.alive():
            os.killpg(self._child.pid, signal.SIGKILL)
        self._let_go()

    def stop(self, stopped: Callable[[], None]) -> None:
        """See Worker."""
        if self._child is None:
            stopped()
            return
        child = self._child
        self._aside(lambda: child.stop(STOP_SECONDS), lambda _status: stopped())

    def _let_go(self) -> None:
        if self._child is not None:
            self._child.wait()
            self._child.release()
            self._child = None

    def _until_healthy(self, child: Child) -> str:
        deadline = time.monotonic() + START_SECONDS
        pause = threading.Event()
        with _caller(seconds=10.0) as http:
            while time.monotonic() < deadline:
                if child.poll() is not None:
                    return f"it ended with status {child.poll()}; its log: {self._home / 'worker.log'}"
                try:
                    if http.get(f"{self._url}/ping").status_code == 200:
                        return ""
                except httpx.TransportError:
                    pass
                pause.wait(PING_SECONDS)
        return f"it did not answer /ping within {START_SECONDS:.0f} s"

    def _aside(self, work: Callable[[], Found], done: Callable[[Found], None]) -> None:
        """Do `work` in a thread, the clock held meanwhile; then `done` under its lock."""

        def run() -> None:
            found = work()
            with self._clock.lock:
                self._clock.release()
                done(found)

        self._clock.hold()
        threading.Thread(target=run, name="rehearsal-worker", daemon=True).start()


class Script(Protocol):
    """What a scripted worker does with a body."""

    def begin(self, body: bytes) -> float:
        """Take the body; simulated seconds until its end."""
        ...

    def end(self, body: bytes) -> Answer:
        """The answer, with everything stored that the contract wants to be stored."""
        ...

    def give_up(self, body: bytes) -> Answer:
        """The answer of a worker that has to stop before its end."""
        ...


class ScriptedWorker:
    """A worker of a script: nothing is computed, and time is simulated. `drain` is how long it may go on
    after it was asked to stop.
    """

    def __init__(self, script: Script, clock: SimulatedClock, drain: float) -> None:
        self._script = script
        self._clock = clock
        self._drain = drain
        self._life = 0
        self._alive = False
        self._running: dict[int, tuple[bytes, Callable[[Answer], None]]] = {}
        self._numbers = 0

    def start(self, ready: Callable[[str], None]) -> None:
        """See Worker."""
        self._life += 1
        self._alive = True
        ready("")

    def alive(self) -> bool:
        """See Worker."""
        return self._alive

    def invoke(self, body: bytes, headers: Mapping[str, str], done: Callable[[Answer], None]) -> None:
        """See Worker."""
        self._numbers += 1
        number = self._numbers
        self._running[number] = (body, done)
        self._clock.after(self._script.begin(body), lambda: self._end(number))

    def crash(self) -> None:
        """See Worker."""
        self._alive = False
        self._running.clear()

    def stop(self, stopped: Callable[[], None]) -> None:
        """See Worker."""

        def over() -> None:
            left, self._running = list(self._running.values()), {}
            for body, done in left:
                done(self._script.give_up(body))
            self._alive = False
            stopped()

        self._clock.after(self._drain if self._running else 0.0, over)

    def _end(self, number: int) -> None:
        running = self._running.pop(number, None)
        if running is not None:
            body, done = running
            done(self._script.end(body))


def _caller(seconds: float | None) -> httpx.Client:
    """A client of the worker, which may take so long for an answer."""
    return httpx.Client(trust_env=False, verify=False, timeout=httpx.Timeout(10.0, read=seconds))  # noqa: S501  # plain http, on loopback


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
