"""Which worker an instance runs: the program of Atelier's inference image, with SageMaker's environment."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from rehearsal.clock import SimulatedClock
from rehearsal.variant import Variant, Worker
from rehearsal.workers import ProcessWorker

PROGRAM = (sys.executable, "-m", "workers.inference.server")
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "rehearsal", "AWS_SECRET_ACCESS_KEY": "rehearsal"}
"""What a role gives to a container; the simulated account looks at none of it."""


def aws_environment(url: str, region: str) -> dict[str, str]:
    """What lets a process find the simulated account."""
    return {"AWS_REGION": region, "AWS_DEFAULT_REGION": region, "AWS_ENDPOINT_URL": url, **CREDENTIALS}


class ProcessCrew:
    """Starts the real program for every instance, each with a folder of its own under `home`, whatever the
    endpoint's image is. What an instance with a GPU is told of its device is left out: it computes here.
    """

    def __init__(
        self,
        home: Path,
        url: str,
        region: str,
        *,
        threads: int = 1,
        program: Sequence[str] = PROGRAM,
        clock: SimulatedClock | None = None,
    ) -> None:
        self.clock = clock
        self._home = home.resolve()
        self.url = url
        self._region = region
        self._threads = threads
        self._program = program

    def open(self, endpoint: str, instance: str, variant: Variant) -> Worker:
        """See OpenWorker."""
        if self.clock is None:
            raise RuntimeError("The crew has no clock yet.")
        home = self._home / endpoint / instance
        given = {
            name: f"{home}{value}" if name == "ATELIER_MODEL_CACHE" and value.startswith("/") else value
            for name, value in variant.environment.items()
        }
        own = {
            **aws_environment(self.url, self._region),
            "HOSTNAME": instance,
            "ATELIER_HOST": "127.0.0.1",
            "ATELIER_INSTANCE": instance,
            "ATELIER_DEVICE": "auto",
            "ATELIER_DTYPE": "auto",
            "ATELIER_THREADS": str(self._threads),
            "OMP_NUM_THREADS": str(self._threads),
            "PYTHONUNBUFFERED": "1",
        }
        return ProcessWorker(self._program, {**given, **own}, home, self.clock)
