"""How many rows a forward may have, so that a click is heeded soon: nothing stops a forward once it runs."""

from __future__ import annotations

from workers.engine.rows import BatchKey

LONGEST = 1.0
"""Seconds of the executor's own processor time that one forward should take at most."""
_UNTRIED = 4096
"""Elements of a channel, over all rows, of the first forward where nothing was measured yet: 16 rows of
128 x 128 pixels.
"""
_REMEMBERED = 512
"""Kinds of batches whose pace is kept."""


class Pace:
    """Seconds a row takes, by batch key, as measured.

    What counts is the processor time of the thread that asks for the forward. Where the network runs on the
    processor this is how long the forward takes, however busy the machine is with other things; where it runs
    on a GPU it is the time to ask for it, which bounds nothing, and such forwards are short. Splitting costs
    a processor little: large rows fill it one by one.
    """

    def __init__(self, most: int, longest: float = LONGEST) -> None:
        self._most, self._longest = most, longest
        self._seconds: dict[BatchKey, float] = {}
        self._by_area = 0.0

    def rows(self, key: BatchKey) -> int:
        """The most rows of a forward of this key, at least 1."""
        area = key.height * key.width
        seconds = self._seconds.get(key._replace(alone=0)) or self._by_area * area
        fit = self._longest / seconds if seconds else _UNTRIED / area
        return max(1, min(self._most, int(fit)))

    def took(self, key: BatchKey, rows: int, seconds: float) -> None:
        """Learn from a forward of `rows` rows."""
        kind = key._replace(alone=0)
        each = seconds / rows
        before = self._seconds.pop(kind, each)
        self._seconds[kind] = (before + each) / 2
        self._by_area = each / (key.height * key.width)
        if len(self._seconds) > _REMEMBERED:
            del self._seconds[next(iter(self._seconds))]
