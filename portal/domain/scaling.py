"""How many instances an endpoint is to have: out at once with the demand, in after a quiet time."""

from __future__ import annotations

import math
from collections import deque


def needed(demand: int, target: int, low: int, high: int) -> int:
    """Instances for `demand` parts (queued and in flight) at `target` parts each, from `low` to `high`: one
    more than there are as soon as demand > target x instances; one part alone wakes an endpoint at zero.
    """
    return min(high, max(low, math.ceil(demand / target)))


class Peak:
    """The largest of the numbers noted within a time: what has not been needed for so long may go."""

    def __init__(self) -> None:
        self._noted: deque[tuple[float, int]] = deque()

    def note(self, now: float, number: int, keep: float) -> int:
        """Note what is needed now; the most that was noted within the last `keep` seconds."""
        kept = self._noted
        while kept and kept[-1][1] <= number:
            kept.pop()
        kept.append((now, number))
        while len(kept) > 1 and kept[0][0] <= now - keep:
            kept.popleft()
        return kept[0][1]
