"""The machine's clock."""

from __future__ import annotations

import time


class SystemClock:
    """Clock on the machine's own time."""

    def now(self) -> float:
        """Unix seconds."""
        return time.time()
