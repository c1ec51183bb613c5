"""Whose part is next, and how many an endpoint may have at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Waiting:
    """The first waiting part of a user; `since` is when it was accepted, unix seconds."""

    part: str
    owner: str
    since: float


def pick_order(
    waiting: Iterable[Waiting], in_flight: Mapping[str, int], last_served: Mapping[str, float]
) -> list[Waiting]:
    """The waiting parts, the fairest first: fewest parts in flight, then longest not served, then longest
    waiting.

    With one part of each user given, taking the first again and again serves users in turn, however long
    one's queue is.
    """

    def rank(each: Waiting) -> tuple[int, float, float, str]:
        return in_flight.get(each.owner, 0), last_served.get(each.owner, 0.0), each.since, each.part

    return sorted(waiting, key=rank)


def room(*, slots: int, instances: int, in_flight: int) -> int:
    """How many more parts an endpoint may have: `slots` for each instance. One at zero gets a first
    instance's worth: that wakes it.
    """
    return max(0, slots * max(1, instances) - in_flight)
