"""How long work takes, measured: by the timelines of the parts that were made last."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

from sqlalchemy import select
from sqlalchemy.orm import Session

from portal.db.work import Attempt, Part
from portal.services.ports import Clock

LAST = 200
"""So many of the newest attempts are looked at."""
FRESH_SECONDS = 5.0
NOTICED = 0.5
"""Seconds of loading below which nothing was loaded."""


@dataclass(frozen=True)
class Made:
    """A part that was made, with its timeline (atelier.contract.timeline)."""

    endpoint: str
    shape: str
    work: float
    timeline: Mapping[str, float]

    @property
    def computing(self) -> float | None:
        """Seconds from the end of loading until its pictures were stored, by its worker's clock."""
        begun = next((name for name in ("encoding", "steps", "received") if name in self.timeline), "")
        return self._between(begun, "stored")

    @property
    def loading(self) -> float | None:
        """Seconds in which its worker loaded weights; None where they were there."""
        seconds = self._between("loading", "encoding")
        return seconds if seconds is not None and seconds >= NOTICED else None

    @property
    def waking(self) -> float | None:
        """Seconds until a worker that had to be started had it; None where one was there."""
        return self._between("waking", "received")

    def _between(self, start: str, end: str) -> float | None:
        if start not in self.timeline or end not in self.timeline:
            return None
        return max(0.0, self.timeline[end] - self.timeline[start])


@dataclass(frozen=True)
class Measured:
    """Medians in seconds by endpoint, and how many units of work each did in a second while it worked."""

    by_shape: Mapping[tuple[str, str], float] = field(default_factory=dict)
    per_work: Mapping[str, float] = field(default_factory=dict)
    throughput: Mapping[str, float] = field(default_factory=dict)
    loading: Mapping[str, float] = field(default_factory=dict)
    waking: Mapping[str, float] = field(default_factory=dict)

    def computing(self, endpoint: str, shape: str, work: float) -> float | None:
        """Seconds a part takes on an endpoint: as long as those of its shape did, else by its work."""
        like = self.by_shape.get((endpoint, shape))
        if like is not None:
            return like
        return self.per_work[endpoint] * work if endpoint in self.per_work else None

    def together(self, endpoints: Iterable[str]) -> float | None:
        """Units of work that endpoints do in a second; None where none of them was measured."""
        return sum(self.throughput.get(each, 0.0) for each in endpoints) or None


class Estimates:
    """Reads what was measured, at most every few seconds."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._known: tuple[float, Measured] | None = None

    def measured(self, session: Session) -> Measured:
        """What the last parts say."""
        now, known = self._clock.monotonic(), self._known
        if known is not None and now - known[0] < FRESH_SECONDS:
            return known[1]
        rows = session.execute(
            select(Attempt.endpoint, Part.shape, Part.work, Part.timeline)
            .join(Part, Part.id == Attempt.part_id)
            .where(Attempt.outcome == "succeeded", Attempt.number == Part.attempt)
            .order_by(Attempt.id.desc())
            .limit(LAST)
        )
        found = measure([Made(*row) for row in rows])
        self._known = now, found
        return found


def measure(made: Sequence[Made]) -> Measured:
    """What those parts say, the newest first."""
    by_shape: dict[tuple[str, str], list[float]] = {}
    lists: dict[str, dict[str, list[float]]] = {"per_work": {}, "loading": {}, "waking": {}}
    for each in made:
        seconds = each.computing
        if seconds is not None:
            by_shape.setdefault((each.endpoint, each.shape), []).append(seconds)
            lists["per_work"].setdefault(each.endpoint, []).append(seconds / each.work)
        for name, found in (("loading", each.loading), ("waking", each.waking)):
            if found is not None:
                lists[name].setdefault(each.endpoint, []).append(found)
    medians = {name: {key: median(values) for key, values in found.items()} for name, found in lists.items()}
    return Measured(
        by_shape={key: median(values[:20]) for key, values in by_shape.items()},
        throughput={name: rate for name in lists["per_work"] if (rate := _throughput(made, name))},
        **medians,
    )


def _throughput(made: Iterable[Made], endpoint: str) -> float:
    """Work by the seconds in which there was any: side by side counts once."""
    spans = sorted(
        (each.timeline["received"], each.timeline["stored"], each.work)
        for each in made
        if each.endpoint == endpoint and {"received", "stored"} <= each.timeline.keys()
    )
    busy, until = 0.0, float("-inf")
    for start, end, _ in spans:
        busy += max(0.0, end - max(start, until))
        until = max(until, end)
    return sum(work for *_, work in spans) / busy if busy > 0 else 0.0
