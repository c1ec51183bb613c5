"""The machine's clock."""

from __future__ import annotations

import time


class SystemClock:
    """Clock on the machine's own time."""

    def now(self) -> float:
        """Unix seconds."""
        return time.time()

    def monotonic(self) -> float:
        """Seconds since some moment, whatever is done to the time of day."""
        return time.monotonic()
