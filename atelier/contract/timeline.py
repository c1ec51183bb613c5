"""A part's life in time stamps: states, ETA, cost and overhead are all read from it."""

from __future__ import annotations

from collections.abc import Mapping

PHASES: tuple[str, ...] = (
    "accepted", "queued", "waking", "dispatched", "received", "loading",
    "encoding", "steps", "decoding", "storing", "stored", "visible",
)  # fmt: skip
"""In the order they are reached. Values are unix seconds at which the phase began; a phase that did not
happen is absent.
"""

COMPUTING: tuple[str, ...] = ("loading", "encoding", "steps", "decoding")


def span(timeline: Mapping[str, float], start: str, end: str) -> float | None:
    """Seconds from phase `start` to phase `end`, None where either is absent."""
    if start not in timeline or end not in timeline:
        return None
    return timeline[end] - timeline[start]


def computing_seconds(timeline: Mapping[str, float]) -> float | None:
    """Seconds the engine had the part: from its first computing phase to the start of storing."""
    begun = [timeline[phase] for phase in COMPUTING if phase in timeline]
    if not begun or "storing" not in timeline:
        return None
    return timeline["storing"] - min(begun)


def overhead_seconds(timeline: Mapping[str, float]) -> float | None:
    """Seconds from accepted to visible that the engine did not have the part."""
    total, computing = span(timeline, "accepted", "visible"), computing_seconds(timeline)
    return None if total is None or computing is None else total - computing
