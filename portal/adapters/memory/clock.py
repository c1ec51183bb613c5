"""A clock that goes when it is told to."""

from __future__ import annotations


class ManualClock:
    """Clock whose time is set by hand."""

    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self._now = now
        self._passed = 0.0

    def now(self) -> float:
        """Unix seconds."""
        return self._now

    def advance(self, seconds: float) -> None:
        """Let time go by."""
        self._now += seconds
        self._passed += seconds

    def monotonic(self) -> float:
        """Seconds that went by."""
        return self._passed

    def jump(self, seconds: float) -> None:
        """Set the time of day, forwards or back: no time goes by."""
        self._now += seconds
