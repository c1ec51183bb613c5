"""Preprocessors by themselves: what a ControlNet would be shown of a picture, drawn by a CPU task."""

from __future__ import annotations

import hashlib
import json
import threading
from dataclasses import dataclass

from atelier import preprocessors
from atelier.contract import keys
from atelier.contract.control import Preprocessing
from atelier.contract.errors import InvalidRequest, TooManyRequests, WorkerUnavailable, from_body
from atelier.preprocessors import NOTHING
from atelier.storage.base import BlobStore
from portal.db.base import Database
from portal.services.callers import Caller
from portal.services.inputs import Inputs
from portal.services.models import catalogue
from portal.services.ports import TaskAction, Tasks, TaskSpec, TaskState

_AT_ONCE = 2
_PATIENCE = 60.0
"""Seconds to wait for a turn, and for a map."""
_STEP = 2.0


@dataclass(frozen=True)
class Asked:
    """A map to be made: pictures as text (see Inputs.keep), numbers below 0 for the standard ones."""

    module: str
    image: str
    mask: str | None = None
    resolution: float = -1
    threshold_a: float = -1
    threshold_b: float = -1


class Detections:
    """Makes maps, a few at once."""

    def __init__(self, database: Database, store: BlobStore, tasks: Tasks, inputs: Inputs) -> None:
        self._database, self._store, self._tasks, self.inputs = database, store, tasks, inputs
        self._turns = threading.BoundedSemaphore(_AT_ONCE)

    def made(self, caller: Caller, asked: Asked) -> bytes:
        """The PNG of a map. Raises InvalidRequest and its kin, TooManyRequests, WorkerUnavailable."""
        document = self._document(caller, asked)
        if not self._turns.acquire(timeout=_PATIENCE):
            raise TooManyRequests("Others' maps are being drawn. Try again in a moment.")
        try:
            return self._drawn(document, asked.module)
        finally:
            self._turns.release()

    def _document(self, caller: Caller, asked: Asked) -> str:
        """The key of what the task is to read."""
        found = preprocessors.find(asked.module)
        with self._database.reading() as session:
            known = catalogue(session, caller.user_id)
        sliders = zip(
            (found.resolution, found.a, found.b),
            (asked.resolution, asked.threshold_a, asked.threshold_b),
            strict=True,
        )
        resolution, a, b = ((slider or NOTHING).taken(value) for slider, value in sliders)
        how = Preprocessing(
            module=found.name,
            resolution=resolution,
            threshold_a=a,
            threshold_b=b,
            annotator=preprocessors.annotator(known, found),
        )
        try:
            image = self.inputs.keep(caller, asked.image)
            mask = self.inputs.keep(caller, asked.mask) if asked.mask else None
        except ValueError as error:
            raise InvalidRequest(f"The image cannot be used: {error}.") from error
        data = json.dumps({"how": how.model_dump(mode="json"), "image": image, "mask": mask}).encode()
        key = keys.asset(f"{caller.user_id}-{hashlib.sha256(data).hexdigest()}")
        self._store.put(key, data, content_type="application/json")
        return key

    def _drawn(self, document: str, module: str) -> bytes:
        ticket = self._tasks.start(TaskSpec(TaskAction.DETECT, document, module))
        try:
            waited, status = 0.0, self._tasks.describe(ticket, wait=_STEP)
            while status.state is TaskState.RUNNING and waited < _PATIENCE:
                waited += _STEP
                status = self._tasks.describe(ticket, wait=_STEP)
            if status.error is not None:
                raise from_body(status.error)
            if status.state is not TaskState.SUCCEEDED:
                raise WorkerUnavailable(
                    "The map was not drawn in time. Try a smaller picture, or again later."
                )
            return self._store.get(keys.task_output(ticket))
        finally:
            self._tasks.stop(ticket)
