"""The rehearsal's process: `python -m rehearsal.server`. One address serves the whole simulated account."""

from __future__ import annotations

import argparse
import logging
import signal
import socket
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from moto.moto_api._internal.models import moto_api_backend
from moto.moto_server.werkzeug_app import MotoRequestHandler
from werkzeug.serving import make_server

from atelier import logs
from atelier.processes import exit_with_parent
from rehearsal.account import Account
from rehearsal.clock import Pacemaker, SimulatedClock
from rehearsal.controls import Controls
from rehearsal.crew import ProcessCrew, aws_environment
from rehearsal.faults import Chance
from rehearsal.front import Front
from rehearsal.simulation import OpenWorker, Simulation
from rehearsal.stage import set_up
from rehearsal.tasks import TaskRunner
from rehearsal.variant import Durations

SPEED = 60.0
"""Simulated seconds for each real one, where the clock goes by itself."""
REGION = "us-east-1"

log = logging.getLogger(__name__)


class _Quiet(MotoRequestHandler):  # type: ignore[misc]  # moto is not looked into
    def log_request(self, code: Any = "-", size: Any = "-") -> None:
        log.debug("%s %s", self.requestline, code)


class RehearsalServer:
    """The account on a loopback port, empty at first. Without a `speed` its clock goes when it is told to;
    with a folder `home` ECS's tasks are run there.
    """

    def __init__(
        self,
        open_worker: OpenWorker,
        *,
        port: int = 0,
        region: str = REGION,
        speed: float | None = None,
        seed: int = 0,
        durations: Durations | None = None,
        start: float | None = None,
        home: Path | None = None,
    ) -> None:
        moto_api_backend.reset()
        self.clock = SimulatedClock(time.time() if start is None else start)
        self.simulation = Simulation(
            Account(region), self.clock, open_worker, chance=Chance(seed), durations=durations
        )
        self._region = region
        self._controls = Controls(self.simulation)
        self._listener = socket.create_server(("127.0.0.1", port))
        environment = aws_environment(self.url, region)
        self._tasks = TaskRunner(self.simulation.account, home, environment) if home else None
        self.front = Front(self.simulation, self._controls, self._tasks)
        self._server = make_server(
            "127.0.0.1",
            self._listener.getsockname()[1],
            self.front,
            threaded=True,
            request_handler=_Quiet,
            fd=self._listener.fileno(),
        )
        self._thread = threading.Thread(target=self._server.serve_forever, name="rehearsal", daemon=True)
        self._pace = Pacemaker(self.clock, speed, self.simulation.carry_on) if speed else None

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def start(self) -> None:
        """Serve, in a thread of its own."""
        self._thread.start()
        if self._pace is not None:
            self._pace.start()

    def set_up(self) -> dict[str, str]:
        """Make what a deployment's templates would; the studio's variables for it, which
        /_rehearsal/settings gives from now on.
        """
        self._controls.settings = set_up(self.url, self._region)
        return self._controls.settings

    def stop(self) -> None:
        """Answer nothing any more; every worker is killed."""
        if self._pace is not None:
            self._pace.stop()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        self._listener.close()
        self.simulation.close()
        if self._tasks is not None:
            self._tasks.close()


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM, or until the parent's pipe closes. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m rehearsal.server", description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--home", type=Path, required=True, help="folder of the simulated instances")
    parser.add_argument("--region", default=REGION)
    parser.add_argument("--speed", type=float, default=SPEED, help="simulated seconds for each real one")
    parser.add_argument("--seed", type=int, default=0, help="of the dice that decide where faults strike")
    parser.add_argument("--threads", type=int, default=1, help="processor threads of each worker")
    given = parser.parse_args(arguments)
    logs.configure("rehearsal", "info", None)
    over = threading.Event()
    exit_with_parent(over.set)
    _on_signals(over)
    url = f"http://127.0.0.1:{given.port}"
    crew = ProcessCrew(given.home, url, given.region, threads=given.threads)
    server = RehearsalServer(
        crew.open,
        port=given.port,
        region=given.region,
        speed=given.speed,
        seed=given.seed,
        home=given.home,
    )
    crew.clock = server.clock
    server.start()
    server.set_up()
    log.info("the rehearsal answers at %s", server.url)
    over.wait()
    server.stop()
    return 0


def _on_signals(over: threading.Event) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: over.set())


if __name__ == "__main__":
    sys.exit(main())
