"""Time as a value that is handed in, so that tests decide what time it is."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Two clocks: one for deadlines, one for what is told to others."""

    def monotonic(self) -> float:
        """Seconds that only grow; differences alone have a meaning."""
        ...

    def time(self) -> float:
        """Unix seconds."""
        ...


class SystemClock:
    """The machine's clocks."""

    def monotonic(self) -> float:
        """See Clock."""
        return time.monotonic()

    def time(self) -> float:
        """See Clock."""
        return time.time()
