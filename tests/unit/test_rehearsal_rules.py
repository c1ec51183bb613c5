"""CloudWatch's and Application Auto Scaling's rules, as the rehearsal plays them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest

from rehearsal.alarms import ALARM, INSUFFICIENT, OK, AlarmRule, Query, judged
from rehearsal.expressions import evaluate
from rehearsal.metrics import Metrics, key
from rehearsal.refusals import Refused
from rehearsal.scaling import Policy, Scaler, Scheduled, Target, WiredAlarm
from rehearsal.schedules import due

MINUTE = 60
METRIC = key("Atelier", "Demand", {"Endpoint": "e"})
RESOURCE = "endpoint/e/variant/v"


def rule(
    missing: str = "missing", *, periods: int = 3, to_alarm: int = 3, threshold: float = 5.0
) -> AlarmRule:
    """An alarm for more than `threshold`, on averages of minutes."""
    queries = (Query("m", METRIC),)
    return AlarmRule("a", "GreaterThanThreshold", threshold, MINUTE, periods, to_alarm, missing, queries)


def measured(picture: str) -> Metrics:
    """Minutes as AWS's table draws them: X is over the threshold, 0 is not, - is missing."""
    found = Metrics()
    for minute, sign in enumerate(picture.split()):
        if sign != "-":
            found.put(METRIC, 9.0 if sign == "X" else 0.0, minute * MINUTE + 5.0)
    return found


@pytest.mark.parametrize(
    ("picture", "missing", "ignore", "breaching", "not_breaching"),
    [
        ("0 - X - X", OK, OK, OK, OK),
        ("- - - - 0", OK, "before", OK, OK),
        ("- - - - -", INSUFFICIENT, "before", ALARM, OK),
        ("0 X X - X", ALARM, ALARM, ALARM, ALARM),
        ("- - X - -", ALARM, "before", ALARM, OK),
    ],
)
def test_an_alarm_treats_missing_data_as_awss_own_table_says(
    picture: str, missing: str, ignore: str, breaching: str, not_breaching: str
) -> None:
    wanted = {"missing": missing, "ignore": ignore, "breaching": breaching, "notBreaching": not_breaching}
    found = {
        treatment: judged(rule(treatment), measured(picture), 5.0 * MINUTE, "before").state
        for treatment in wanted
    }
    assert found == wanted


def test_an_alarm_rings_for_m_of_n_periods_and_looks_at_none_that_goes_on() -> None:
    metrics = measured("X 0 X 0 X")
    two_of_three = rule(to_alarm=2)
    assert judged(two_of_three, metrics, 5.0 * MINUTE, OK).state == ALARM
    assert judged(two_of_three, metrics, 4.0 * MINUTE + 59.0, OK).state == OK
    assert judged(rule(), metrics, 5.0 * MINUTE, ALARM).state == OK


def test_metric_math_fills_compares_and_computes_for_each_period() -> None:
    known = {"d": [None, 8.0, 3.0], "n": [1.0, None, 2.0]}
    assert evaluate("FILL(d, 0) - 4 * FILL(n, 1)", known, 3) == [-4.0, 4.0, -5.0]
    assert evaluate("IF(FILL(n, 0) > 0, d, 0)", known, 3) == [None, 0.0, 3.0]
    assert evaluate("FILL(d, REPEAT)", known, 3) == [None, 8.0, 3.0]
    assert evaluate("MAX([d, n]) / 0", known, 3) == [None, None, None]
    with pytest.raises(ValueError, match="does not understand"):
        evaluate("d.real", known, 3)


@pytest.mark.parametrize(
    ("schedule", "when", "wanted"),
    [
        ("cron(0 8 ? * MON-FRI *)", datetime(2031, 1, 6, 7, 0, tzinfo=UTC), True),
        ("cron(0 8 ? * MON-FRI *)", datetime(2031, 1, 6, 8, 0, tzinfo=UTC), False),
        ("cron(0 8 ? * MON-FRI *)", datetime(2031, 1, 5, 7, 0, tzinfo=UTC), False),
        ("cron(0/15 * * * ? *)", datetime(2031, 1, 5, 7, 45, tzinfo=UTC), True),
        ("at(2031-01-05T08:00:00)", datetime(2031, 1, 5, 7, 0, tzinfo=UTC), True),
        ("rate(2 hours)", datetime(2031, 1, 5, 8, 0, tzinfo=UTC), True),
        ("rate(2 hours)", datetime(2031, 1, 5, 9, 0, tzinfo=UTC), False),
    ],
)
def test_a_schedule_is_read_in_its_own_time_zone(schedule: str, when: datetime, wanted: bool) -> None:
    assert due(schedule, "Europe/Berlin", when.timestamp()) is wanted


@dataclass
class Scripted:
    """Rules as a test sets them, and an endpoint that only counts."""

    policy: Policy
    wanted: int = 0
    low: int = 0
    high: int = 4
    refusal: str = ""
    alarm: AlarmRule = field(default_factory=lambda: rule(periods=1, to_alarm=1, threshold=0.0))
    state: str = OK
    actions: Sequence[Scheduled] = ()

    def alarms(self) -> list[WiredAlarm]:
        """One, for the policy."""
        arn = f"arn:aws:autoscaling:x:1:scalingPolicy:g:resource/sagemaker/{RESOURCE}:policyName/p"
        return [WiredAlarm(self.alarm, (arn,), self.state)]

    def turn_alarm(self, name: str, state: str, reason: str) -> None:
        """Keep the state."""
        self.state = state

    def targets(self) -> list[Target]:
        """The one."""
        return [Target(RESOURCE, self.low, self.high)]

    def policies(self) -> list[Policy]:
        """The one."""
        return [self.policy]

    def scheduled(self) -> Sequence[Scheduled]:
        """Those given."""
        return self.actions

    def set_bounds(self, resource: str, low: int | None, high: int | None) -> None:
        """Other bounds."""
        self.low, self.high = low if low is not None else self.low, high if high is not None else self.high

    def resize(self, count: int) -> None:
        """Count, or refuse."""
        if self.refusal:
            raise Refused("ValidationException", self.refusal)
        self.wanted = count


def stepping(adjustment: str, *steps: tuple[float | None, float | None, int], cooldown: int = 300) -> Policy:
    """A step policy p with steps (from, to, by)."""
    names = ("MetricIntervalLowerBound", "MetricIntervalUpperBound")
    listed: list[Mapping[str, Any]] = [
        {name: bound for name, bound in zip(names, each[:2], strict=True) if bound is not None}
        | {"ScalingAdjustment": each[2]}
        for each in steps
    ]
    configuration = {"AdjustmentType": adjustment, "StepAdjustments": listed, "Cooldown": cooldown}
    return Policy("p", RESOURCE, step=configuration)


class Play:
    """A scaler that is ticked through minutes in which the metric has a value, or none."""

    def __init__(self, rules: Scripted) -> None:
        self.rules = rules
        self.metrics = Metrics()
        self.scaler = Scaler(rules, self.metrics, lambda _: rules)
        self.now = 6_000_000.0

    def minute(self, value: float | None) -> int:
        """Instances wanted once that minute is over."""
        if value is not None:
            self.metrics.put(METRIC, value, self.now + 30.0)
        self.now += MINUTE
        self.scaler.tick(self.now)
        return self.rules.wanted


def test_a_step_policy_takes_the_step_of_the_distance_within_the_bounds() -> None:
    policy = stepping("ExactCapacity", (0.0, 3.5, 1), (3.5, 7.5, 2), (7.5, None, 9))
    assert Play(Scripted(policy)).minute(3.0) == 1
    assert Play(Scripted(policy)).minute(4.0) == 2
    assert Play(Scripted(policy)).minute(50.0) == 4, "more than its most is not asked for"
    assert Play(Scripted(policy)).minute(None) == 0


def test_what_was_added_within_the_cooldown_counts_and_is_not_added_again() -> None:
    play = Play(Scripted(stepping("ChangeInCapacity", (0.0, 5.0, 1), (5.0, None, 3), cooldown=180), wanted=1))
    assert play.minute(1.0) == 2
    assert play.minute(1.0) == 2, "the cooldown is on"
    assert play.minute(9.0) == 4, "three more than before the cooldown began, not five"
    assert [play.minute(1.0) for _ in range(3)] == [4, 4, 4]


def test_one_goes_after_the_other_with_the_cooldown_between_and_never_below_the_least() -> None:
    policy = stepping("ChangeInCapacity", (None, 0.0, -1), cooldown=120)
    alarm = AlarmRule("a", "LessThanOrEqualToThreshold", 0.0, MINUTE, 1, 1, "missing", (Query("m", METRIC),))
    play = Play(Scripted(policy, wanted=3, low=1, alarm=alarm))
    assert [play.minute(0.0) for _ in range(6)] == [2, 2, 1, 1, 1, 1]


def test_a_refused_change_is_asked_for_again_while_the_alarm_rings() -> None:
    rules = Scripted(stepping("ExactCapacity", (0.0, None, 2)), refusal="is Updating")
    play = Play(rules)
    assert play.minute(5.0) == 0
    rules.refusal = ""
    assert play.minute(5.0) == 2
    assert [each.refused for each in play.scaler.activities] == ["is Updating", ""]


def test_a_tracking_policy_keeps_a_metric_near_its_target() -> None:
    dimensions = [{"Name": "Endpoint", "Value": "e"}]
    metric = {
        "Namespace": "Atelier",
        "MetricName": "Demand",
        "Dimensions": dimensions,
        "Statistic": "Average",
    }
    tracking = {"TargetValue": 4.0, "CustomizedMetricSpecification": metric, "ScaleInCooldown": 0}
    play = Play(Scripted(Policy("p", RESOURCE, tracking=tracking), wanted=1, low=1))
    assert [play.minute(8.0) for _ in range(3)] == [1, 1, 2], "three minutes above, then twice as many"
    assert [play.minute(1.0) for _ in range(16)][-3:] == [2, 1, 1], "a quarter of an hour below, then fewer"


def test_a_scheduled_action_moves_the_bounds_and_the_count_with_them() -> None:
    opening = Scheduled("open", RESOURCE, "rate(1 minute)", "UTC", 2, 3)
    rules = Scripted(stepping("ExactCapacity"), actions=[opening])
    assert Play(rules).minute(None) == 2
    assert (rules.low, rules.high) == (2, 3)
