"""How a CPU task's program is called, and what it left in the store: the same on every platform."""

from __future__ import annotations

import json
from typing import Any

from atelier.contract import keys
from atelier.contract.errors import NotFound
from atelier.storage.base import BlobStore
from portal.services.ports import TaskSpec, TaskState, TaskStatus


def words(spec: TaskSpec, ticket: str, store_url: str, source: str, log_level: str) -> list[str]:
    """The program's arguments (workers.tasks.program)."""
    found = [spec.action.value, "--store", store_url, "--task", ticket, "--source", source]
    found += ["--name", spec.name, "--log-level", log_level]
    return [*found, "--kind", spec.kind] if spec.kind else found


def left(store: BlobStore, ticket: str) -> TaskStatus | None:
    """What a task said of itself at its end; None where it said nothing, or nothing that can be read."""
    try:
        found: Any = json.loads(store.get(keys.task_result(ticket)))
        error, outcome = found.get("error"), found.get("outcome", {})
    except (NotFound, ValueError, AttributeError):
        return None
    if error is not None:
        return TaskStatus(TaskState.FAILED, error=error)
    return TaskStatus(TaskState.SUCCEEDED, outcome)
