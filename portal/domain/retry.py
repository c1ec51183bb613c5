"""When a failed attempt is followed by another one, and after how long."""

from __future__ import annotations

MAX_ATTEMPTS = 3
_FIRST_DELAY = 1.0
_LONGEST_DELAY = 60.0


def again(attempt: int, *, retryable: bool) -> bool:
    """Whether attempt number `attempt` (1 is the first) is followed by another after its failure."""
    return retryable and attempt < MAX_ATTEMPTS


def delay(attempt: int, *, spread: float) -> float:
    """Seconds to wait after failed attempt `attempt`: doubling, up to a minute; `spread` in [0, 1) adds up
    to half of it again.

    The spread keeps parts that failed together from coming back together.
    """
    return min(_LONGEST_DELAY, _FIRST_DELAY * 2.0 ** min(attempt - 1, 16)) * (1.0 + 0.5 * spread)
