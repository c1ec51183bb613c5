"""What people are told about an endpoint: one word, and a sentence that says why."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Condition(StrEnum):
    """How an endpoint is, as people see it."""

    OFF = "off"
    WAKING = "waking"
    LOADING = "loading"
    IN_SERVICE = "in_service"
    SCALING = "scaling"
    FAILED = "failed"
    DELETING = "deleting"


@dataclass(frozen=True)
class Observed:
    """What is known of an endpoint: the fleet's state and numbers, and its work."""

    state: str
    reason: str = ""
    instances: int = 0
    wanted: int = 0
    leaving: int = 0
    queued: int = 0
    in_flight: int = 0
    running: int = 0
    """Parts that a worker was seen to compute."""
    hot: int = 0
    """Weights in the workers' memory."""
    note: str = ""
    """What it waits for."""


def condition(it: Observed) -> tuple[Condition, str]:
    """The word and the sentence."""
    word, because = _condition(it)
    return word, f"{because} {it.note}".strip()


def _condition(it: Observed) -> tuple[Condition, str]:
    if it.state in ("deleting", "deleted"):
        return Condition.DELETING, "Its workers finish what they have and stop."
    if it.state == "failed":
        return Condition.FAILED, it.reason or "The fleet does not say why."
    if it.state == "asleep":
        if it.leaving:
            return Condition.SCALING, f"Nothing waits: {_workers(it.leaving)}."
        return Condition.OFF, "Nothing waits. The next part starts a worker."
    if it.state in ("creating", "starting"):
        waits = f"; {_parts(it.queued + it.in_flight)} for it" if it.queued + it.in_flight else ""
        return Condition.WAKING, f"A worker is being started{waits}."
    return _serving(it)


def _serving(it: Observed) -> tuple[Condition, str]:
    lame = f" One of its workers failed: {it.reason}" if it.reason else ""
    if it.leaving:
        return Condition.SCALING, f"Fewer are needed: {_workers(it.leaving)}.{lame}"
    if it.wanted > it.instances:
        return Condition.SCALING, f"{it.instances} of {it.wanted} workers serve, the others come up.{lame}"
    if it.in_flight and not it.running and not it.hot:
        return Condition.LOADING, f"The weights of its first work are being loaded.{lame}"
    return Condition.IN_SERVICE, lame.strip()


def _workers(number: int) -> str:
    return "one worker finishes and stops" if number == 1 else f"{number} workers finish and stop"


def _parts(number: int) -> str:
    return "one part waits" if number == 1 else f"{number} parts wait"
