"""The state machine of imports: total and pure."""

from __future__ import annotations

from enum import StrEnum


class ImportState(StrEnum):
    """How an import is."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        """Whether nothing happens any more by itself."""
        return self in _FINAL


class ImportEvent(StrEnum):
    """What can happen to an import."""

    CLAIM = "claim"
    """A process takes it and starts its task."""
    REQUEUE = "requeue"
    """Its task was lost, or failed in a way that another try may mend."""
    SUCCEED = "succeed"
    """The model is there, perhaps a moment after somebody cancelled it."""
    FAIL = "fail"
    CANCEL = "cancel"
    RETRY = "retry"
    """Somebody asks for it again."""


_FINAL = (ImportState.SUCCEEDED, ImportState.FAILED, ImportState.CANCELLED)
_AFTER = {
    (ImportState.QUEUED, ImportEvent.CLAIM): ImportState.RUNNING,
    (ImportState.QUEUED, ImportEvent.FAIL): ImportState.FAILED,
    (ImportState.QUEUED, ImportEvent.CANCEL): ImportState.CANCELLED,
    (ImportState.RUNNING, ImportEvent.REQUEUE): ImportState.QUEUED,
    (ImportState.RUNNING, ImportEvent.SUCCEED): ImportState.SUCCEEDED,
    (ImportState.RUNNING, ImportEvent.FAIL): ImportState.FAILED,
    (ImportState.RUNNING, ImportEvent.CANCEL): ImportState.CANCELLED,
    (ImportState.CANCELLED, ImportEvent.SUCCEED): ImportState.SUCCEEDED,
    (ImportState.FAILED, ImportEvent.RETRY): ImportState.QUEUED,
    (ImportState.CANCELLED, ImportEvent.RETRY): ImportState.QUEUED,
}


def after(state: ImportState, event: ImportEvent) -> ImportState:
    """The state after an event; one that means nothing in it leaves it as it is."""
    return _AFTER.get((state, event), state)
