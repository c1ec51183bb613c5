"""CPU tasks as child processes of the portal: each with a folder, a log and an end of its own."""

from __future__ import annotations

import fcntl
import itertools
import logging
import os
import shutil
import subprocess
import sys
import threading
import uuid
from pathlib import Path

from atelier import logs
from atelier.contract import keys
from atelier.contract.errors import WorkerUnavailable
from atelier.processes import Child, spawn
from atelier.storage.base import BlobStore
from portal.adapters import task_program
from portal.services.ports import TaskAction, TaskSpec, TaskState, TaskStatus

log = logging.getLogger(__name__)

PROGRAM = (sys.executable, "-m", "workers.tasks")
STOP_SECONDS = 2.0
LOG_TAIL = 8 * 2**10
BUCKETS = (
    "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_REGION", "AWS_DEFAULT_REGION",
    "AWS_PROFILE", "AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE",
)  # fmt: skip
"""Variables of botocore: what an import needs to read another bucket, and no other task gets."""
_LOCK = "lock"


class LocalTasks:
    """Tasks on this machine. Everything of a run lies below `data_dir`/tasks/RUN and, in the store, below
    tasks/RUN-*; what a run that died has left is removed by the next.
    """

    def __init__(
        self,
        store: BlobStore,
        store_url: str,
        data_dir: Path,
        argv: tuple[str, ...] = PROGRAM,
        *,
        log_level: str = "info",
    ) -> None:
        self._store, self._store_url, self._argv = store, store_url, argv
        self._log_level = log_level
        self._root = data_dir.resolve() / "tasks"
        self._run = uuid.uuid4().hex[:12]
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._children: dict[str, Child] = {}
        self._held: int | None = None

    def start(self, spec: TaskSpec) -> str:
        """See Tasks."""
        with self._lock:
            self._open()
            ticket = f"{self._run}-{next(self._numbers)}"
            place = self._place(ticket)
            place.mkdir(mode=0o700)
            words = task_program.words(spec, ticket, self._store_url, spec.source, self._log_level)
            words += ["--workspace", str(place)]
            try:
                child = spawn(
                    [*self._argv, *words],
                    {"OMP_NUM_THREADS": "1"},
                    log=self._log(ticket),
                    passed_on=BUCKETS if spec.action is TaskAction.IMPORT else (),
                )
            except OSError as error:
                raise WorkerUnavailable(f"The task could not be started: {error.strerror}.") from error
            self._children[ticket] = child
        return ticket

    def describe(self, ticket: str, *, wait: float = 0.0) -> TaskStatus:
        """See Tasks."""
        with self._lock:
            child = self._children.get(ticket)
        if child is None:
            return TaskStatus(TaskState.UNKNOWN)
        try:
            status = child.wait(wait) if wait > 0 else child.poll()
        except subprocess.TimeoutExpired:
            status = None
        if status is None:
            return TaskStatus(TaskState.RUNNING)
        child.release()
        return self._ended(ticket, status)

    def stop(self, ticket: str) -> None:
        """See Tasks. What it made is removed with it."""
        with self._lock:
            child = self._children.pop(ticket, None)
        if child is None:
            return
        child.stop(STOP_SECONDS)
        shutil.rmtree(self._place(ticket), ignore_errors=True)
        self._log(ticket).unlink(missing_ok=True)
        for key in (keys.task_output(ticket), keys.task_result(ticket), keys.task_progress(ticket)):
            self._store.delete(key)

    def logs(self, ticket: str) -> str:
        """See Tasks."""
        try:
            with self._log(ticket).open("rb") as source:
                source.seek(max(0, self._log(ticket).stat().st_size - LOG_TAIL))
                return source.read().decode(errors="replace")
        except OSError:
            return ""

    def close(self) -> None:
        """See Tasks."""
        for ticket in list(self._children):
            self.stop(ticket)
        with self._lock:
            held, self._held = self._held, None
        if held is not None:
            shutil.rmtree(self._root / self._run, ignore_errors=True)
            os.close(held)

    def _place(self, ticket: str) -> Path:
        return self._root / self._run / ticket

    def _log(self, ticket: str) -> Path:
        return self._root / self._run / f"{ticket}.log"

    def _ended(self, ticket: str, status: int) -> TaskStatus:
        found = task_program.left(self._store, ticket)
        if found is not None:
            return found
        said = "; ".join(logs.legible(line) for line in self.logs(ticket).splitlines())
        log.warning("task %s ended with status %s: %s", ticket, status, said)
        lost = f"The task ended with status {status} before it said how it went. Try again."
        return TaskStatus(TaskState.FAILED, error=WorkerUnavailable(lost).body())

    def _open(self) -> None:
        """Take a folder of this run, locked while the process lives, and remove those of the dead."""
        if self._held is not None:
            return
        fresh = self._root / f".{self._run}"
        fresh.mkdir(parents=True, mode=0o700)
        self._held = os.open(fresh / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(self._held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fresh.rename(self._root / self._run)  # seen by others only once it is locked
        for other in self._root.glob("[!.]*"):
            if other.name != self._run and _abandoned(other):
                shutil.rmtree(other, ignore_errors=True)
                for blob in list(self._store.list(f"tasks/{other.name}-")):
                    self._store.delete(blob.key)


def _abandoned(run: Path) -> bool:
    """Whether the process that made the folder is gone: its lock can be had."""
    try:
        descriptor = os.open(run / _LOCK, os.O_RDONLY)
    except OSError:
        return False  # it is being made, or removed
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True
