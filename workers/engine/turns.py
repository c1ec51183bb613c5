"""Whose turn it is: which group of rows the next forward serves, and when weights may be changed for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from workers.engine.rows import BatchKey
from workers.engine.slots import Slot


class Turn(NamedTuple):
    """The group to serve, and the slot whose weights must go for it (None where nothing that is wanted has to
    go).
    """

    key: BatchKey
    evict: Slot | None = None


@dataclass(frozen=True)
class Turns:
    """The fairness rule.

    Among groups whose weights are in a slot the one that has waited longest is served. Weights are replaced
    by others that wait only when their rows are done, or when they have been kept for `hold` times the cost
    of a change and `least` forwards, or when a row has waited for `age_limit` seconds.
    """

    hold: float = 10.0
    least: int = 20
    age_limit: float = 30.0

    def next(
        self,
        waiting: Mapping[BatchKey, float],
        slots: Mapping[str, Sequence[Slot]],
        room: Mapping[str, bool],
        now: float,
    ) -> Turn:
        """The next turn. `waiting`: group -> when its oldest row was asked for (not empty).

        `slots` and `room` by the weights of a group: the slots of its architecture, and whether another one
        may be made.
        """
        oldest_first = sorted(waiting, key=lambda key: waiting[key])
        wanted = {key.weights for key in waiting}
        loaded = [
            key for key in oldest_first if any(slot.weights == key.weights for slot in slots[key.weights])
        ]
        for key in oldest_first:
            if key in loaded:
                continue
            if room[key.weights]:
                return Turn(key)
            evict = self._evictable(key.weights, slots[key.weights], wanted, now - waiting[key], now)
            if evict is not None:
                return Turn(key, evict)
        return Turn(loaded[0])

    def _evictable(
        self, weights: str, slots: Sequence[Slot], wanted: set[str], age: float, now: float
    ) -> Slot | None:
        """The slot that may be given `weights`: an idle one first, else one that has been kept long enough;
        among these one that has the checkpoint already and changes its networks alone.
        """
        idle = [slot for slot in slots if slot.weights not in wanted]
        served = [
            slot
            for slot in slots
            if self._served(slot, weights, now) or (age >= self.age_limit and slot.forwards_since_fill)
        ]
        candidates = idle or served
        return min(candidates, key=lambda slot: not slot.holds_base(weights), default=None)

    def _served(self, slot: Slot, weights: str, now: float) -> bool:
        kept = now - slot.filled >= self.hold * slot.cost(weights)
        return kept and slot.forwards_since_fill >= self.least
