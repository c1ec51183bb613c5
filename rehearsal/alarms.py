"""When an alarm rings: the last periods, and what counts where there is no data.

https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/alarms-and-missing-data.html
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from rehearsal.expressions import Series, evaluate
from rehearsal.metrics import Key, Metrics

OK, ALARM, INSUFFICIENT = "OK", "ALARM", "INSUFFICIENT_DATA"
FURTHER = 2
"""Periods beyond those evaluated that are looked at too, for data to stand in for missing ones."""

_BREACHES: Mapping[str, Callable[[float, float], bool]] = {
    "GreaterThanThreshold": operator.gt,
    "GreaterThanOrEqualToThreshold": operator.ge,
    "LessThanThreshold": operator.lt,
    "LessThanOrEqualToThreshold": operator.le,
}


@dataclass(frozen=True)
class Query:
    """A member of an alarm with metric math: either `metric` with its statistic, or an expression."""

    id: str
    metric: Key | None = None
    statistic: str = "Average"
    expression: str = ""
    returned: bool = True


@dataclass(frozen=True)
class AlarmRule:
    """An alarm as it was put, in CloudWatch's words; `period` in seconds."""

    name: str
    comparison: str
    threshold: float
    period: int
    periods: int
    to_alarm: int
    missing: str
    queries: tuple[Query, ...]


@dataclass(frozen=True)
class Verdict:
    """The state of an alarm, and the newest value that there is (None where there is none)."""

    state: str
    value: float | None


def judged(rule: AlarmRule, metrics: Metrics, now: float, before: str) -> Verdict:
    """The alarm's state at `now`, which was `before`. Only periods that are over count."""
    series = _series(rule, metrics, now)
    real = [each for each in series if each is not None]
    value = real[-1] if real else None
    breaches = _BREACHES[rule.comparison]
    if len(real) >= rule.periods:
        points = [breaches(each, rule.threshold) for each in real[-rule.periods :]]
        return Verdict(_state(points, rule.to_alarm), value)
    if rule.missing == "ignore":
        return Verdict(before, value)
    points = [breaches(each, rule.threshold) for each in real]
    if rule.missing == "missing":
        if not points:
            return Verdict(INSUFFICIENT, None)
        return Verdict(_state(points, min(rule.to_alarm, len(points))), value)
    filler = [rule.missing == "breaching"] * (rule.periods - len(points))
    return Verdict(_state([*filler, *points], rule.to_alarm), value)


def _state(points: list[bool], to_alarm: int) -> str:
    return ALARM if sum(points) >= to_alarm else OK


def _series(rule: AlarmRule, metrics: Metrics, now: float) -> Series:
    """The value of each period looked at, the oldest first."""
    end = now - now % rule.period
    periods = rule.periods + FURTHER
    known: dict[str, Series] = {}
    for each in rule.queries:
        if each.metric is not None:
            known[each.id] = metrics.series(
                each.metric, each.statistic, end - rule.period * periods, rule.period, periods
            )
    for each in rule.queries:
        if each.expression:
            known[each.id] = evaluate(each.expression, known, periods)
    return known[next(each.id for each in rule.queries if each.returned)]
