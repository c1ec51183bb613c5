"""Days of work: what was asked for when, read from an export of a studio, or made up with a seed."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

HOUR, DAY = 3600.0, 86_400.0
OFFICE = (0.0,) * 7 + (0.1, 0.6, 1.0, 1.0, 0.9, 0.5, 0.8, 1.0, 1.0, 0.8, 0.4, 0.15, 0.1, 0.1, 0.05, 0.0, 0.0)
"""How busy each hour of a studio's day is, of its busiest."""
TYPICAL_SECONDS = 3.5
"""A picture of 512 x 512 pixels and 25 steps on the slowest GPU offered, about."""


@dataclass(frozen=True)
class Arrival:
    """A part: when it was asked for (seconds of the day), and how long the engine has with it alone."""

    at: float
    seconds: float


def read(path: Path) -> list[Arrival]:
    """The day in a file of JSON lines, {"at": unix seconds, "seconds": of the engine} each; the first day of
    several. Raises ValueError where a line is none.
    """
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    if not lines:
        raise ValueError(f"{path} has no line.")
    try:
        said = sorted((float(each["at"]), float(each["seconds"])) for each in lines)
    except (KeyError, TypeError) as error:
        raise ValueError(f'{path}: every line is {{"at": ..., "seconds": ...}}.') from error
    midnight = said[0][0] - said[0][0] % DAY
    return [Arrival(at - midnight, seconds) for at, seconds in said if at - midnight < DAY]


def synthetic(users: int, seed: int, jobs_each: float = 40.0) -> list[Arrival]:
    """A day of `users` designers with about `jobs_each` jobs each: one to eight parts at once, most of one
    size, in the hours of an office.
    """
    dice = random.Random(seed)  # noqa: S311  # the same day again for the same seed
    share = jobs_each / sum(OFFICE)
    found: list[Arrival] = []
    for hour, busy in enumerate(OFFICE):
        for at in _moments(dice, users * share * busy):
            parts = dice.choice((1, 1, 1, 2, 2, 4, 4, 8))
            seconds = TYPICAL_SECONDS * dice.choice((0.7, 1.0, 1.0, 1.0, 1.6, 3.0))
            found += [Arrival(HOUR * hour + at, seconds)] * parts
    return sorted(found, key=lambda each: each.at)


def _moments(dice: random.Random, rate: float) -> Iterable[float]:
    """Seconds of an hour at which something comes that comes `rate` times in it, by chance."""
    if rate <= 0:
        return
    at = dice.expovariate(rate) * HOUR
    while at < HOUR:
        yield at
        at += dice.expovariate(rate) * HOUR
