"""Import tasks in threads of the test's own process: the program itself, without the second that a process
takes to start.
"""

from __future__ import annotations

import json
import tempfile
import threading
from pathlib import Path
from typing import Any

from atelier.contract import keys
from atelier.contract.errors import AtelierError
from atelier.storage.base import BlobStore
from portal.services.ports import TaskSpec, TaskState, TaskStatus
from workers.tasks import importing, orders
from workers.tasks.connecting import Patience


class TasksHere:
    """The Tasks port for imports. `lose` forgets a task, as a process that dies does; `specs` are those that
    were started.
    """

    def __init__(self, store: BlobStore) -> None:
        self._store = store
        self._threads: dict[str, threading.Thread] = {}
        self.specs: list[TaskSpec] = []
        self.stopped: list[str] = []

    def start(self, spec: TaskSpec) -> str:
        """See Tasks."""
        self.specs.append(spec)
        ticket = f"here-{len(self.specs)}"
        thread = threading.Thread(target=self._run, args=(ticket, spec), daemon=True)
        self._threads[ticket] = thread
        thread.start()
        return ticket

    def describe(self, ticket: str, *, wait: float = 0.0) -> TaskStatus:
        """See Tasks."""
        thread = self._threads.get(ticket)
        if thread is None:
            return TaskStatus(TaskState.UNKNOWN)
        thread.join(wait)
        if thread.is_alive():
            return TaskStatus(TaskState.RUNNING)
        found = json.loads(self._store.get(keys.task_result(ticket)))
        if "error" in found:
            return TaskStatus(TaskState.FAILED, error=found["error"])
        return TaskStatus(TaskState.SUCCEEDED, found["outcome"])

    def stop(self, ticket: str) -> None:
        """See Tasks. A thread cannot be ended: what it still writes is the test's to wait for."""
        self.stopped.append(ticket)
        self._threads.pop(ticket, None)
        for key in (keys.task_output(ticket), keys.task_result(ticket)):
            self._store.delete(key)

    def lose(self) -> None:
        """Forget all tasks."""
        self._threads.clear()

    def logs(self, _ticket: str) -> str:
        """See Tasks."""
        return ""

    def close(self) -> None:
        """See Tasks."""
        for ticket in list(self._threads):
            self.stop(ticket)

    def _run(self, ticket: str, spec: TaskSpec) -> None:
        said: dict[str, Any]
        with tempfile.TemporaryDirectory() as place:
            try:
                order = orders.opened(self._store, spec.source)
                tell = orders.Telling(self._store, ticket, every=0)
                made = importing.import_model(order, self._store, Path(place), tell, Patience(pause=0))
                said = {"outcome": made.model_dump(mode="json")}
            except AtelierError as error:
                said = {"error": error.body()}
        if ticket in self._threads:
            self._store.put(keys.task_result(ticket), json.dumps(said).encode())
