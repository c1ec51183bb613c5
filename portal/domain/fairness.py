"""Whose part is next, and how many an endpoint may have at once.

Start-time fair queueing (Goyal, Vin, Cheng 1996) over users: every part sent moves its user's place in the
order on by its work divided by the user's weight, and who is furthest behind comes first. A user who was away
is let in a few parts ahead of those who were not, and no more: nobody saves up time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

CREDIT_PARTS = 8.0
"""So many of their own parts somebody who comes anew may have before those who were served all along."""
CREDIT_WORK = 8.0
"""And no more work than this of them, in units of portal.domain.effort."""
USUAL_WEIGHT = 1.0
LOWEST_WEIGHT, HIGHEST_WEIGHT = 0.1, 100.0


@dataclass(frozen=True)
class Waiting:
    """The first waiting part of a user. `since` is when the longest waiting of theirs was accepted, unix
    seconds; `work` is the part's own.
    """

    part: str
    owner: str
    since: float
    work: float = 1.0


@dataclass(frozen=True)
class Turn:
    """Where a user stands in the order: the last part sent began at `start` and ends at `finish`, in units of
    work by weight.
    """

    start: float = 0.0
    finish: float = 0.0


@dataclass(frozen=True)
class Turns:
    """Where everybody stands, and how much each counts."""

    by_owner: Mapping[str, Turn] = field(default_factory=dict)
    weights: Mapping[str, float] = field(default_factory=dict)

    @property
    def now(self) -> float:
        """How far the order has come: the start of the part furthest on."""
        return max((turn.start for turn in self.by_owner.values()), default=0.0)

    def weight(self, owner: str) -> float:
        """How much a user counts."""
        return self.weights.get(owner, USUAL_WEIGHT)

    def start(self, owner: str, work: float) -> float:
        """The place of a user's next part of so much work: lower ones are served first."""
        credit = min(CREDIT_PARTS * work, CREDIT_WORK) / self.weight(owner)
        return max(self.by_owner.get(owner, Turn()).finish, self.now - credit)

    def served(self, owner: str, work: float) -> Turn:
        """Where a user stands once that part was sent."""
        start = self.start(owner, work)
        return Turn(start, start + work / self.weight(owner))


def pick_order(
    waiting: Iterable[Waiting],
    in_flight: Mapping[str, int],
    last_served: Mapping[str, float],
    turns: Turns | None = None,
) -> list[Waiting]:
    """The waiting parts, the fairest first: whose user is furthest behind, then fewest parts in flight, then
    longest not served, then longest waiting.

    With one part of each user given, taking the first again and again serves users by their weights, however
    long one's queue is.
    """
    stand = turns or Turns()

    def rank(each: Waiting) -> tuple[float, int, float, float, str]:
        start = round(
            stand.start(each.owner, each.work), 6
        )  # sums of the same fractions may differ by a hair
        return start, in_flight.get(each.owner, 0), last_served.get(each.owner, 0.0), each.since, each.part

    return sorted(waiting, key=rank)


def room(*, slots: int, instances: int, in_flight: int) -> int:
    """How many more parts an endpoint may have: `slots` for each instance. One at zero gets a first
    instance's worth: that wakes it.
    """
    return max(0, slots * max(1, instances) - in_flight)
