"""`atelier up`: the studio on one machine. It prepares the data directory, starts portal and web UI as
processes, and minds them.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

import httpx

from atelier import logs
from atelier.contract.errors import Conflict, WorkerUnavailable
from atelier.processes import Child, exit_with_parent, spawn
from portal import simulated
from portal.first_start import FIRST_USER, Prepared, prepare
from portal.settings import Settings, environment

log = logging.getLogger(__name__)

START_SECONDS = 120.0
STOP_SECONDS = 45.0
"""Longer than a worker's drain time: a running picture may be finished."""
LOOK_SECONDS = 0.1
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0
STEADY_SECONDS = 60.0
"""A child that ran so long and then died starts again at once, with the pauses forgotten."""
MOST_DEATHS = 5
"""Deaths in a row, without a steady minute between, after which the whole ends."""
LAST_LINES = 15


class Say:
    """Lines for the person at the terminal."""

    def __call__(self, line: str = "") -> None:
        print(line, flush=True)


@dataclass
class Part:
    """A process of the studio: how it is started, where it answers, and how it has been."""

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str]
    url: str
    log: Path
    child: Child | None = None
    started: float = 0.0
    deaths: int = 0
    pause_until: float = field(default=0.0)
    vital: bool = False
    """The studio cannot go on without it, nor with another one."""

    def start(self) -> None:
        """Start the process; what it says goes to its log."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        logs.put_aside(self.log)
        self.child = spawn(self.argv, self.env, log=self.log)
        self.started = time.monotonic()
        log.info("started: %s", self.name, extra={"pid": self.child.pid, "address": self.url})

    def answers(self) -> bool:
        """Whether it serves requests by now."""
        try:
            return httpx.get(self.url, timeout=2.0, trust_env=False).status_code < 500
        except httpx.TransportError:
            return False

    def last_words(self) -> str:
        """The end of its log."""
        lines = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        return "\n".join(f"    {logs.legible(line)}" for line in lines[-LAST_LINES:])


class Supervisor:
    """Starts the parts in order, restarts what dies, and stops everything when asked to."""

    def __init__(self, say: Say) -> None:
        self._parts: list[Part] = []
        self._say = say
        self.stopping = threading.Event()
        self.hurry = threading.Event()

    def start(self, parts: list[Part]) -> None:
        """Start parts and wait until each answers. Raises WorkerUnavailable, with the end of its log."""
        for part in parts:
            self._parts.append(part)
            part.start()
        deadline = time.monotonic() + START_SECONDS
        for part in parts:
            while not self.stopping.is_set() and not part.answers():
                if part.child is not None and part.child.poll() is not None:
                    raise WorkerUnavailable(f"The {part.name} ended while it started:\n{part.last_words()}")
                if time.monotonic() > deadline:
                    raise WorkerUnavailable(
                        f"The {part.name} does not answer at {part.url}:\n{part.last_words()}"
                    )
                self.stopping.wait(LOOK_SECONDS)

    def mind(self) -> int:
        """Until asked to stop: restart what dies, with growing pauses. The exit status."""
        while not self.stopping.wait(LOOK_SECONDS):
            for part in self._parts:
                logs.put_aside(part.log)
                if not self._look_after(part):
                    return 1
        return 0

    def stop(self) -> None:
        """End every part: all are asked at once, waited for, and killed where that takes too long."""
        # What others lean on goes last.
        running = [part.child for part in reversed(self._parts) if part.child is not None]
        log.info("stopping %d processes", len(running))
        for child in running:
            child.terminate()
        deadline = time.monotonic() + STOP_SECONDS
        for child in running:
            while child.poll() is None and time.monotonic() < deadline and not self.hurry.is_set():
                self.hurry.wait(LOOK_SECONDS)
            status = child.stop(timeout=0.2)
            log.info("stopped", extra={"pid": child.pid, "status": status})

    def _look_after(self, part: Part) -> bool:
        """Whether the studio may go on as far as this part is concerned."""
        now = time.monotonic()
        if part.child is None:
            if now >= part.pause_until:
                part.start()
            return True
        status = part.child.poll()
        if status is None:
            return True
        part.child.release()
        part.child = None
        part.deaths = 1 if now - part.started > STEADY_SECONDS else part.deaths + 1
        log.error("died: %s", part.name, extra={"status": status, "deaths": part.deaths})
        if part.vital or part.deaths > MOST_DEATHS:
            self._say(f"The {part.name} died {_times(part.deaths)}. The studio ends. Its log says:")
            self._say(part.last_words())
            return False
        pause = min(FIRST_PAUSE * 2.0 ** (part.deaths - 1), LONGEST_PAUSE)
        part.pause_until = now + pause
        self._say(
            f"The {part.name} died (exit status {status}); starting it again in {pause:g} s. Log: {part.log}"
        )
        return True


def _times(deaths: int) -> str:
    return f"{deaths} times in a row" if deaths > 1 else "and cannot be started again"


def run(settings: Settings, *, simulate_aws: float | None = None) -> int:
    """The whole of `atelier up`; with `simulate_aws` (simulated seconds for each real one) on an account that
    is played here. Returns the exit status; raises AtelierError for what keeps it from starting.
    """
    began = time.monotonic()
    say = Say()
    if simulate_aws is not None:
        simulated.check()
    settings = with_free_ports(settings)
    check_ports(settings)
    settings.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    with alone(settings.data_dir):
        if simulate_aws is not None:
            settings = simulated.begun(settings)
        file = settings.data_dir.resolve() / "logs" / "supervisor.log"
        logs.configure("supervisor", settings.log_level, settings.log_format, file)
        logs.put_aside(file)
        supervisor = Supervisor(say)
        with _signals(supervisor):
            exit_with_parent(supervisor.stopping.set)
            try:
                if simulate_aws is not None:
                    settings = _in_account(supervisor, settings, simulate_aws)
                if not supervisor.stopping.is_set():
                    prepared = prepare(settings, simulated.ENDPOINT if simulate_aws else None)
                    supervisor.start(parts_of(settings))
                if not supervisor.stopping.is_set():
                    _greet(say, settings, prepared, time.monotonic() - began)
                return supervisor.mind()
            finally:
                say("Stopping the studio (again: at once) ...")
                supervisor.stop()
                say("Stopped.")


def _in_account(supervisor: Supervisor, settings: Settings, speed: float) -> Settings:
    """Start the account that is played, and find the studio's place in it."""
    account = simulated.account(settings, speed)
    file = settings.data_dir / "logs" / "rehearsal.log"
    supervisor.start(
        [Part("rehearsal of AWS", account.argv, {"PYTHONUNBUFFERED": "1"}, account.url, file, vital=True)]
    )
    return settings if supervisor.stopping.is_set() else simulated.in_account(settings, account.url)


def parts_of(settings: Settings) -> list[Part]:
    """The processes of the studio on one machine, each with exactly the settings it is to know."""
    data_dir = settings.data_dir.resolve()
    logs = data_dir / "logs"
    everything = environment(settings) | {
        "ATELIER_DATA_DIR": str(data_dir),
        "ATELIER_PORTAL_PORT": str(settings.portal_port),
        "ATELIER_PORT": str(settings.port),
        "PYTHONUNBUFFERED": "1",
    }
    if settings.platform == "aws":
        # botocore finds its role, region and endpoints there.
        everything |= {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    web = {
        "ATELIER_HOST": settings.host,
        "ATELIER_PORT": str(settings.port),
        "ATELIER_PORTAL_URL": settings.portal_url,
        "ATELIER_LOG_LEVEL": settings.log_level,
        "ATELIER_LOG_FORMAT": settings.log_format or "json",
        "PYTHONUNBUFFERED": "1",
    }
    python = sys.executable
    return [
        Part(
            "portal",
            (python, "-m", "portal.app"),
            everything,
            f"{settings.portal_url}/readyz",
            logs / "portal.log",
        ),
        Part(
            "web UI", (python, "-m", "webui.app"), web, f"{settings.local_url}/ui/readyz", logs / "webui.log"
        ),
    ]


def with_free_ports(settings: Settings) -> Settings:
    """Port 0 means any: choose one now, since both processes must know it."""
    chosen = {}
    for name, host in (("port", settings.host), ("portal_port", settings.portal_host)):
        if getattr(settings, name) == 0:
            with socket.create_server((host, 0)) as listener:
                chosen[name] = listener.getsockname()[1]
    return settings.model_copy(update=chosen)


def check_ports(settings: Settings) -> None:
    """Raise Conflict, naming every port that cannot be had and the setting that changes it."""
    wanted = (
        (settings.host, settings.port, "ATELIER_PORT"),
        (settings.portal_host, settings.portal_port, "ATELIER_PORTAL_PORT"),
    )
    problems = [reason for host, port, variable in wanted if (reason := _unavailable(host, port, variable))]
    if problems:
        raise Conflict(" ".join(problems))


def _unavailable(host: str, port: int, variable: str) -> str | None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        # SO_REUSEADDR, as the servers use it: a port that is only cooling down after a restart is free.
        socket.create_server((host, port), family=family).close()
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return (
                f"Port {port} on {host} is in use by another program: "
                f"stop it, or set {variable} to another port."
            )
        return f"Port {port} on {host} cannot be listened on ({error.strerror}): set {variable} or the host."
    return None


@contextmanager
def alone(data_dir: Path) -> Iterator[None]:
    """Hold the data directory for this studio. Raises Conflict where another one has it."""
    with (data_dir / "studio.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise Conflict(
                f"Another studio runs on the data directory {data_dir}. Stop it, or set ATELIER_DATA_DIR."
            ) from error
        yield


@contextmanager
def _signals(supervisor: Supervisor) -> Iterator[None]:
    """Ctrl-C and SIGTERM ask the studio to stop; a second one does not wait for running pictures."""

    def asked(_number: int, _frame: FrameType | None) -> None:
        if supervisor.stopping.is_set():
            supervisor.hurry.set()
        supervisor.stopping.set()

    before = {number: signal.signal(number, asked) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _greet(say: Say, settings: Settings, prepared: Prepared, seconds: float) -> None:
    say()
    for note in prepared.notes:
        say(f"  {note}")
    say(f"  Atelier is up after {seconds:.1f} s.")
    say(f"  Studio   {settings.url}/")
    say(f"  Portal   {settings.url}/portal/   (alone: {settings.portal_url}/portal/)")
    if prepared.password is not None:
        say(f"  Log in as {FIRST_USER} with the password {prepared.password} (shown this once).")
    if settings.aws_endpoint_url:
        say(f"  Account  {settings.aws_endpoint_url}/_rehearsal/state (docs/rehearsal.md)")
    say(f"  Logs     {settings.data_dir.resolve() / 'logs'}")
    say("  Ctrl-C stops everything.")
    say()
