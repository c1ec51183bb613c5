"""Hours in which an endpoint has other numbers: "mon-fri 08:00-18:00 Europe/Berlin 1-4".

Several stand one after another with `;` between them. Within them the endpoint has at least and at most the
instances that stand last (one number: at least so many); outside, its own numbers.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from zoneinfo import ZoneInfo

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
DAY, WEEK = 24 * 60, 7 * 24 * 60
_HOURS = re.compile(
    r"(?P<days>[a-z,-]+) (?P<from>\d\d:\d\d)-(?P<to>\d\d:\d\d) (?P<zone>[A-Za-z0-9_+/-]+)"
    r" (?P<low>\d{1,4})(-(?P<high>\d{1,4}))?"
)
_FORM = 'Write it as "mon-fri 08:00-18:00 Europe/Berlin 1-4".'


@dataclass(frozen=True)
class Hours:
    """Days by number (0 is Monday), minutes of the day, and how many instances then; `high` None for the
    endpoint's own. Where `end` is not after `start` it is of the next day.
    """

    days: tuple[int, ...]
    start: int
    end: int
    zone: str
    low: int
    high: int | None

    @property
    def ends_on(self) -> tuple[int, ...]:
        """The days on which it ends."""
        later = 0 if self.end > self.start else 1
        return tuple(sorted((day + later) % 7 for day in self.days))

    def holds(self, minute: int) -> bool:
        """Whether a minute of the week in its zone is within."""
        return any((minute - begin) % WEEK < self._length for begin in self._begins)

    def meets(self, other: Hours) -> bool:
        """Whether both hold at some minute."""
        return any(self.holds(begin) for begin in other._begins) or any(
            other.holds(begin) for begin in self._begins
        )

    @property
    def _begins(self) -> list[int]:
        return [day * DAY + self.start for day in self.days]

    @property
    def _length(self) -> int:
        return (self.end - self.start) % DAY or DAY


def parse(text: str) -> tuple[Hours, ...]:
    """The hours of a schedule. Raises ValueError with a sentence."""
    found: list[Hours] = []
    for each in filter(None, (piece.strip() for piece in text.split(";"))):
        hours = _hours(each)
        if any(hours.zone != other.zone for other in found):
            raise ValueError("All hours of a schedule have the same time zone.")
        if any(hours.meets(other) for other in found):
            raise ValueError(f"The hours {each!r} begin or end within others.")
        found.append(hours)
    return tuple(found)


def bounds(schedule: str, now: float, low: int, high: int) -> tuple[int, int]:
    """(at least, at most) instances at `now` (unix seconds) of an endpoint with those numbers."""
    for each in parse(schedule):
        local = datetime.fromtimestamp(now, ZoneInfo(each.zone))
        if each.holds(local.weekday() * DAY + local.hour * 60 + local.minute):
            return each.low, max(each.low, high if each.high is None else each.high)
    return low, high


def _hours(text: str) -> Hours:
    match = _HOURS.fullmatch(" ".join(text.lower().split()[:1] + text.split()[1:]))
    if match is None:
        raise ValueError(f"{text[:60]!r} are no hours. {_FORM}")
    try:
        ZoneInfo(match["zone"])
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f"There is no time zone {match['zone']!r}. {_FORM}") from error
    low, high = int(match["low"]), match["high"]
    if high is not None and int(high) < max(1, low):
        raise ValueError(f"In {text[:60]!r} at most {high} is less than at least {max(1, low)}.")
    return Hours(
        _days(match["days"]),
        _minute(match["from"]),
        _minute(match["to"]),
        match["zone"],
        low,
        None if high is None else int(high),
    )


def _days(text: str) -> tuple[int, ...]:
    found: set[int] = set()
    for piece in text.split(","):
        first, _, last = piece.partition("-")
        if first not in DAYS or (last or first) not in DAYS:
            raise ValueError(f"{text!r} are no days: they are {', '.join(DAYS)}. {_FORM}")
        begin, end = DAYS.index(first), DAYS.index(last or first)
        found |= {day % 7 for day in range(begin, (end if end >= begin else end + 7) + 1)}
    return tuple(sorted(found))


def _minute(text: str) -> int:
    hours, minutes = map(int, text.split(":"))
    if hours > 24 or minutes > 59 or (hours == 24 and minutes):
        raise ValueError(f"{text} is no time of day. {_FORM}")
    return (hours * 60 + minutes) % DAY
