"""Numbers as CloudWatch keeps them, and statistics of them over periods of simulated time."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping

KEPT_SECONDS = 24 * 3600.0
"""How long a number is kept: longer than any alarm looks back."""

Key = tuple[str, str, tuple[tuple[str, str], ...]]


def key(namespace: str, name: str, dimensions: Mapping[str, str]) -> Key:
    """What a metric is known by."""
    return namespace, name, tuple(sorted(dimensions.items()))


class Metrics:
    """All metrics by their key, the newest numbers last."""

    def __init__(self) -> None:
        self._numbers: dict[Key, deque[tuple[float, float]]] = {}

    def put(self, metric: Key, value: float, at: float) -> None:
        """Note a number; numbers come in the order of their time."""
        kept = self._numbers.setdefault(metric, deque())
        kept.append((at, value))
        while kept[0][0] < at - KEPT_SECONDS:
            kept.popleft()

    def last(self, metric: Key) -> tuple[float, float] | None:
        """(time, number) of the newest."""
        kept = self._numbers.get(metric)
        return kept[-1] if kept else None

    def known(self) -> list[Key]:
        """Every metric there is."""
        return list(self._numbers)

    def statistic(self, metric: Key, statistic: str, begin: float, end: float) -> float | None:
        """A statistic of the numbers in [begin, end); None where there are none. Raises ValueError for one
        that is not known.
        """
        return self.series(metric, statistic, begin, end - begin, 1)[0]

    def series(
        self, metric: Key, statistic: str, begin: float, period: float, periods: int
    ) -> list[float | None]:
        """The statistic of each of `periods` periods from `begin` on, of `period` seconds each."""
        found: list[list[float]] = [[] for _ in range(periods)]
        for at, value in reversed(self._numbers.get(metric, ())):
            if at < begin:
                break
            index = int((at - begin) // period)
            if index < periods:
                found[index].append(value)
        return [reduced(each, statistic) if each else None for each in found]


def reduced(numbers: Iterable[float], statistic: str) -> float:
    """One number for all, by the name of a CloudWatch statistic. Raises ValueError."""
    values = list(numbers)
    match statistic:
        case "Average":
            return sum(values) / len(values)
        case "Sum":
            return sum(values)
        case "Maximum":
            return max(values)
        case "Minimum":
            return min(values)
        case "SampleCount":
            return float(len(values))
    raise ValueError(f"The rehearsal does not compute the statistic {statistic!r}.")
