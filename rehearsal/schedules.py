"""When a scheduled action is due: at(...), rate(...) and cron(...), as Application Auto Scaling reads them.

https://docs.aws.amazon.com/autoscaling/application/userguide/scheduled-scaling-using-cron-expressions.html
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime
from zoneinfo import ZoneInfo

_MONTHS = {
    name: index for index, name in enumerate("JAN FEB MAR APR MAY JUN JUL AUG SEP OCT NOV DEC".split(), 1)
}
_DAYS = {name: index for index, name in enumerate("SUN MON TUE WED THU FRI SAT".split(), 1)}
_UNITS = {"minute": 60, "hour": 3600, "day": 86400}
_FORM = re.compile(r"(at|rate|cron)\((.+)\)\Z")


def due(schedule: str, timezone: str, now: float) -> bool:
    """Whether the minute that begins at unix time `now` is one of the schedule's. Raises ValueError for one
    that cannot be read.
    """
    form = _FORM.match(schedule.strip())
    if form is None:
        raise ValueError(f"The schedule {schedule!r} is none of at(...), rate(...) and cron(...).")
    kind, said = form.groups()
    here = datetime.fromtimestamp(now, ZoneInfo(timezone))
    if kind == "at":
        wanted = datetime.fromisoformat(said).replace(second=0, tzinfo=here.tzinfo)
        return here.replace(second=0, microsecond=0) == wanted
    if kind == "rate":
        count, unit = said.split()
        return int(now // 60) * 60 % (int(count) * _UNITS[unit.rstrip("s")]) == 0
    return _cron(said, here)


def _cron(said: str, here: datetime) -> bool:
    """Minutes, hours, day of month, month, day of week (1 is Sunday), year."""
    minute, hour, day, month, weekday, *year = said.split()
    parts: list[tuple[str, int, dict[str, int]]] = [
        (minute, here.minute, {}),
        (hour, here.hour, {}),
        (day, here.day, {}),
        (month, here.month, _MONTHS),
        (weekday, here.isoweekday() % 7 + 1, _DAYS),
        *((each, here.year, {}) for each in year),
    ]
    return all(_matches(field, value, names) for field, value, names in parts)


def _matches(field: str, value: int, names: dict[str, int]) -> bool:
    def number(word: str) -> int:
        return names[word.upper()] if word.upper() in names else int(word)

    return any(_one(each, value, number) for each in field.split(","))


def _one(part: str, value: int, number: Callable[[str], int]) -> bool:
    span, _, step = part.partition("/")
    if span in ("*", "?"):
        low, high = 0, 10_000
    elif "-" in span:
        low, high = (number(each) for each in span.split("-"))
    else:
        low = number(span)
        high = 10_000 if step else low
    return low <= value <= high and (value - low) % int(step or 1) == 0
