"""The training worker's program: `python -m workers.training train|serve`, SageMaker's two words."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from atelier import logs, redaction
from atelier.processes import exit_with_parent
from workers.runtime.settings import WorkerSettings
from workers.runtime.start import begun
from workers.training import endpoint, job


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one training job and end, or serve trainings until SIGTERM. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m workers.training", description=__doc__)
    parser.add_argument("command", choices=["train", "serve"], help="one job below /opt/ml, or an endpoint")
    command = parser.parse_args(arguments).command
    exit_with_parent()
    if command == "train":
        logs.configure("training", "info")
        return job.run()
    return begun(_serve)


def _serve() -> int:
    settings = WorkerSettings()  # what is required comes from the environment
    logs.configure("training", settings.log_level, settings.log_format)
    redaction.hide(settings.token)
    return 0 if endpoint.answer(settings) else 1
