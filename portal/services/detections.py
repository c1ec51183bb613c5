"""Preprocessors by themselves: what a ControlNet would be shown of a picture, drawn by a CPU task."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
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
_PATIENCE = 120.0
"""Seconds that a call may take for each of its maps, the wait for its turn included."""
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
        self._lock = threading.Lock()
        self._served: set[str] = set()

    def made(self, caller: Caller, asked: Sequence[Asked], within: float | None = None) -> list[bytes]:
        """The PNGs of maps, in order, in `within` seconds or as many as they may take. Somebody's second call
        is refused while the first goes on. Raises InvalidRequest and its kin, TooManyRequests,
        WorkerUnavailable.
        """
        most = _PATIENCE * len(asked)
        until = time.monotonic() + (most if within is None else min(within, most))
        with self._alone(caller):
            return [self._made(caller, each, until) for each in asked]

    def _made(self, caller: Caller, asked: Asked, until: float) -> bytes:
        document = self._document(caller, asked)
        if not self._turns.acquire(timeout=max(0.0, until - time.monotonic())):
            raise TooManyRequests("Others' maps are being drawn. Try again in a moment.")
        try:
            return self._drawn(document, asked.module, until)
        finally:
            self._turns.release()

    @contextmanager
    def _alone(self, caller: Caller) -> Iterator[None]:
        """While maps are made for somebody. Raises TooManyRequests where they are already."""
        with self._lock:
            if caller.user_id in self._served:
                raise TooManyRequests(
                    "Maps of yours are being drawn. Ask for others when they are there, or for up to eight "
                    "in one call.",
                    detail={"retry_after": 2},
                )
            self._served.add(caller.user_id)
        try:
            yield
        finally:
            with self._lock:
                self._served.discard(caller.user_id)

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

    def _drawn(self, document: str, module: str, until: float) -> bytes:
        ticket = self._tasks.start(TaskSpec(TaskAction.DETECT, document, module))
        try:
            status = self._tasks.describe(ticket)
            while status.state is TaskState.RUNNING and (left := until - time.monotonic()) > 0:
                status = self._tasks.describe(ticket, wait=min(_STEP, left))
            if status.error is not None:
                raise from_body(status.error)
            if status.state is not TaskState.SUCCEEDED:
                raise WorkerUnavailable(
                    "The map was not drawn in time. Try a smaller picture, or again later."
                )
            return self._store.get(keys.task_output(ticket))
        finally:
            self._tasks.stop(ticket)
