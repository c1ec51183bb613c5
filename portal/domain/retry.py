"""When a failed attempt is followed by another one, and after how long."""

from __future__ import annotations

MAX_ATTEMPTS = 3
LOSSES_IN_COMPANY = 2
"""So often a part may be lost together with a worker that had others too. From then on it is sent alone."""
MAX_LOSSES_ALONE = 5
"""So often a worker may go away with nothing but one part before that part is to blame for it."""
_FIRST_DELAY = 1.0
_LONGEST_DELAY = 60.0


def again(attempt: int, *, retryable: bool) -> bool:
    """Whether attempt number `attempt` (1 is the first) is followed by another after its failure."""
    return retryable and attempt < MAX_ATTEMPTS


def alone(losses: int) -> bool:
    """Whether a part that was lost `losses` times in company is sent to a worker that has nothing else."""
    return losses >= LOSSES_IN_COMPANY


def blamed(losses: int) -> bool:
    """Whether a part that was lost `losses` times when it was alone fails for good."""
    return losses >= MAX_LOSSES_ALONE


def delay(attempt: int, *, spread: float) -> float:
    """Seconds to wait after failed attempt `attempt`: doubling, up to a minute; `spread` in [0, 1) adds up
    to half of it again.

    The spread keeps parts that failed together from coming back together.
    """
    return min(_LONGEST_DELAY, _FIRST_DELAY * 2.0 ** min(attempt - 1, 16)) * (1.0 + 0.5 * spread)
