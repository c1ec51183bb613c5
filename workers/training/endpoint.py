"""Training behind an endpoint: one body of /invocations is one run, its model goes to the store."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import tempfile
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from atelier.contract import keys
from atelier.contract.errors import Expired, InvalidRequest, WorkReturned
from atelier.storage.base import BlobStore
from atelier.storage.opening import open_store
from workers.runtime.server import Gate, Invocation, serve
from workers.runtime.settings import WorkerSettings
from workers.training.demo.state import Clock
from workers.training.job import out_of_time
from workers.training.recipes import RECIPES, Recipe, Run, parse

AT_ONCE = 1
"""Runs at the same time: each takes the whole machine."""

log = logging.getLogger(__name__)


class Trainings:
    """Answers `{"task": "training", "hyperparameters": {"recipe": ..., ...}}` with where the model lies:
    `{"models": [{"key", "file", "sha256", "size"}]}`. `places`: a folder for files of runs.
    """

    def __init__(
        self, store: BlobStore, endpoint: str, places: Path, recipes: Mapping[str, Recipe] = RECIPES
    ) -> None:
        self._store, self._endpoint, self._places, self._recipes = store, endpoint, places, recipes
        self._clocks: list[Clock] = []

    async def __call__(self, invocation: Invocation) -> dict[str, Any]:
        """Train, and store what came of it. Raises AtelierError."""
        body = invocation.body
        if body.get("task") != "training" or not isinstance(body.get("hyperparameters"), dict):
            raise InvalidRequest(
                "A training is asked for with "
                '{"task": "training", "hyperparameters": {"recipe": "demo", ...}}.'
            )
        run = parse(body["hyperparameters"], self._recipes)
        clock = Clock(run.minutes)
        self._clocks.append(clock)
        gone = asyncio.create_task(self._stop_when(invocation.gone, clock))
        try:
            return {"models": await asyncio.to_thread(self._trained, run, clock)}
        finally:
            gone.cancel()
            self._clocks.remove(clock)

    @property
    def running(self) -> int:
        """Runs at this moment."""
        return len(self._clocks)

    def give_up(self) -> None:
        """Let every run end soon."""
        for clock in list(self._clocks):
            clock.stop()

    @staticmethod
    async def _stop_when(gone: asyncio.Event, clock: Clock) -> None:
        await gone.wait()
        clock.stop()

    def _trained(self, run: Run, clock: Clock) -> list[dict[str, Any]]:
        self._places.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self._places, prefix="run-") as place:
            model = Path(place) / "model"
            if not run.into(model, Path(place) / "state", clock):
                if clock.stopped:
                    raise WorkReturned("The training was given up before it was done. Ask for it again.")
                raise Expired(out_of_time(run.minutes, "an endpoint keeps none"))
            name = uuid.uuid4().hex
            return [self._stored(name, file) for file in sorted(model.iterdir())]

    def _stored(self, name: str, file: Path) -> dict[str, Any]:
        key = keys.trained(self._endpoint, name, file.name)
        with file.open("rb") as source:
            digest = hashlib.file_digest(source, "sha256").hexdigest()
        self._store.put(key, file)
        return {"key": key, "file": file.name, "sha256": digest, "size": file.stat().st_size}


def answer(settings: WorkerSettings) -> bool:
    """Serve until SIGTERM; whether the start succeeded."""
    trainings = Trainings(open_store(settings.store), settings.endpoint, settings.model_cache)
    return serve(
        trainings,
        Gate(AT_ONCE),
        host=settings.host,
        port=settings.port,
        token=settings.token,
        max_body_bytes=settings.max_body_bytes,
        drain_seconds=settings.drain_seconds,
        start=lambda: None,
        give_up=trainings.give_up,
    )
