"""Policies as they were put, judged by the rehearsal's alarms: the number of instances follows what is asked
for, to zero and back.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from portal.adapters.aws.names import Names
from portal.adapters.aws.scaling import DAY, policies
from portal.domain import schedule
from portal.services.ports import EndpointSpec
from rehearsal.alarms import AlarmRule, Query
from rehearsal.metrics import Metrics, key
from rehearsal.scaling import Policy, Scaler, Scheduled, Target, WiredAlarm
from tests.integration.test_aws_fleet import Cloud, changed

TICK = 10.0


class Governed:
    """A fleet's endpoint, whose instances AWS's rules move (rehearsal.scaling.Rules and Scaled)."""

    def __init__(self, folder: Path, spec: EndpointSpec) -> None:
        self.cloud = Cloud(folder)
        self.world = self.cloud.world
        self.cloud.serve(spec)
        self.metrics = Metrics()
        self.states: dict[str, str] = {}
        self.scaler = Scaler(self, self.metrics, lambda _: self)
        self._read = 0

    def run(self, minutes: float, demand: int | None, **sagemaker: float) -> int:
        """Let time go by with a demand (None: the portal is gone) and values of SageMaker's own metrics; how
        many instances there are to be then.
        """
        where = {"EndpointName": "atelier-big"}
        for _ in range(int(minutes * 60 / TICK)):
            self.world.clock.advance(TICK)
            now = self.world.clock.now()
            if demand is not None:
                self.cloud.fleet.describe("big")
                self.cloud.fleet.demand("big", demand)
            for told in self.world.metrics[self._read :]:
                self.metrics.put(
                    key("Atelier", told["MetricName"], {"Endpoint": "atelier-big"}), told["Value"], now
                )
            self._read = len(self.world.metrics)
            for name, value in sagemaker.items():
                more = {"VariantName": "main"} if name.startswith("Invocations") else {}
                each = value / max(1, self.wanted) if name.endswith("PerInstance") else value
                self.metrics.put(key("AWS/SageMaker", name, where | more), each, now)
            self.scaler.tick(now - now % TICK)
        return self.wanted

    @property
    def wanted(self) -> int:
        return self.world.endpoints["atelier-big"].desired

    def resize(self, count: int) -> None:
        self.world.endpoints["atelier-big"].desired = count

    def alarms(self) -> Sequence[WiredAlarm]:
        found = []
        for name, put in self.world.alarms.items():
            queries = tuple(_query(each) for each in put["Metrics"])
            period = next(each["MetricStat"]["Period"] for each in put["Metrics"] if "MetricStat" in each)
            rule = AlarmRule(
                name,
                put["ComparisonOperator"],
                put["Threshold"],
                period,
                put["EvaluationPeriods"],
                put["EvaluationPeriods"],
                put["TreatMissingData"],
                queries,
            )
            resource = next(iter(self.world.targets))
            action = f"resource/sagemaker/{resource}:policyName/{name}"
            found.append(WiredAlarm(rule, [action], self.states.get(name, "OK")))
        return found

    def turn_alarm(self, name: str, state: str, reason: str) -> None:
        self.states[name] = state

    def targets(self) -> Sequence[Target]:
        return [
            Target(name, each["MinCapacity"], each["MaxCapacity"])
            for name, each in self.world.targets.items()
        ]

    def policies(self) -> Sequence[Policy]:
        return [
            Policy(name, each["ResourceId"], each["StepScalingPolicyConfiguration"])
            for name, each in self.world.policies.items()
        ]

    def scheduled(self) -> Sequence[Scheduled]:
        return [
            Scheduled(
                name,
                each["ResourceId"],
                each["Schedule"],
                each["Timezone"],
                each["ScalableTargetAction"]["MinCapacity"],
                each["ScalableTargetAction"]["MaxCapacity"],
            )
            for name, each in self.world.actions.items()
        ]

    def set_bounds(self, resource: str, low: int | None, high: int | None) -> None:
        self.world.targets[resource] |= {"MinCapacity": low, "MaxCapacity": high}


def _query(each: dict[str, Any]) -> Query:
    if "Expression" in each:
        return Query(each["Id"], expression=each["Expression"], returned=each["ReturnData"])
    metric = each["MetricStat"]["Metric"]
    dimensions = {it["Name"]: it["Value"] for it in metric["Dimensions"]}
    name = key(metric["Namespace"], metric["MetricName"], dimensions)
    return Query(each["Id"], name, each["MetricStat"]["Stat"], returned=each["ReturnData"])


@pytest.fixture
def governed(tmp_path: Path) -> Governed:
    return Governed(tmp_path, changed(target=4, max_instances=4))


def test_instances_follow_the_demand_to_zero_and_back(governed: Governed) -> None:
    assert governed.run(9, 0) == 1, "what was not needed goes after the idle time, not before"
    assert governed.run(5, 0) == 0
    assert governed.run(1, 1) == 1, "one part wakes it"
    assert governed.run(5, 4) == 1, "four parts are what one instance is for"
    assert governed.run(1, 5) == 2
    assert governed.run(5, 16) == 4
    assert governed.run(5, 100) == 4, "its most"
    assert governed.run(9, 4) == 4
    assert governed.run(9, 4) == 1
    assert governed.run(13, 0) == 0


def test_from_zero_as_many_come_as_it_takes_and_no_more_while_they_start(governed: Governed) -> None:
    assert governed.run(14, 0) == 0
    assert governed.run(0.5, 9) == 3
    governed.world.endpoints["atelier-big"].turns = 60
    assert governed.run(8, 9, HasBacklogWithoutCapacity=1.0, ApproximateBacklogSize=9.0) == 3


def test_a_portal_that_is_gone_asks_for_nothing(governed: Governed) -> None:
    assert governed.run(2, 16) == 4
    assert governed.run(9, None) == 4
    assert governed.run(10, None) == 0


def test_bodies_that_bypass_the_portal_wake_one_and_keep_what_they_need(governed: Governed) -> None:
    assert governed.run(14, 0) == 0
    assert governed.run(3, 0, HasBacklogWithoutCapacity=1.0, ApproximateBacklogSize=9.0) == 1
    assert governed.run(20, 0, ApproximateBacklogSize=3.0) == 1, "it works on them"
    assert governed.run(13, 0, ApproximateBacklogSize=0.0) == 0
    assert governed.run(3, None, HasBacklogWithoutCapacity=1.0, ApproximateBacklogSize=9.0) == 1


def test_it_follows_sagemakers_backlog_where_that_is_its_metric(tmp_path: Path) -> None:
    governed = Governed(tmp_path, changed(target=3, metric="backlog"))
    assert governed.run(14, 0, ApproximateBacklogSize=0.0) == 0
    assert governed.run(2, 0, ApproximateBacklogSize=5.0, HasBacklogWithoutCapacity=1.0) == 2

    def load(size: float) -> dict[str, float]:
        return {"ApproximateBacklogSize": size, "ApproximateBacklogSizePerInstance": size}

    assert governed.run(5, 0, **load(11.0)) == 4
    assert governed.run(9, 0, **load(6.0)) == 4
    assert governed.run(9, 0, **load(6.0)) == 2
    assert governed.run(14, 0, **load(0.0)) == 0


def test_a_realtime_endpoint_follows_its_calls_and_keeps_one(tmp_path: Path) -> None:
    spec = changed(kind="realtime", min_instances=1, target=60, metric="invocations")
    governed = Governed(tmp_path, spec)

    def load(calls: float) -> dict[str, float]:  # in a minute, told every ten seconds
        return {"Invocations": calls / 6, "InvocationsPerInstance": calls / 6}

    assert governed.run(3, 0, **load(60.0)) == 1
    assert governed.run(3, 0, **load(150.0)) == 3
    assert governed.run(9, 0, **load(100.0)) == 3
    assert governed.run(9, 0, **load(100.0)) == 2
    assert governed.run(20, 0, **load(0.0)) == 1


def test_hours_have_numbers_of_their_own(tmp_path: Path) -> None:
    spec = changed(target=4, schedule="mon-fri 08:00-18:00 Europe/Berlin 2-6")
    governed = Governed(tmp_path, spec)
    assert {each["Schedule"] for each in governed.world.actions.values()} == {
        "cron(0 8 ? * MON,TUE,WED,THU,FRI *)",
        "cron(0 18 ? * MON,TUE,WED,THU,FRI *)",
    }
    [target] = governed.world.targets.values()
    within = governed.world.clock.now()  # a Friday, 08:00 UTC: within the hours at once
    assert schedule.bounds(spec.schedule, within, 0, 4) == (2, 6)
    assert (target["MinCapacity"], target["MaxCapacity"]) == (2, 6)
    assert governed.run(12, 0) == 2
    governed.world.clock.advance(8.6 * 3600)
    assert governed.run(15, 0) == 0
    most = [each["StepScalingPolicyConfiguration"] for each in governed.world.policies.values()]
    assert max(step["ScalingAdjustment"] for each in most for step in each["StepAdjustments"]) == 6
    governed.cloud.fleet.update(changed(target=4))
    assert governed.world.actions == {}


def test_hours_that_follow_one_another_do_not_end_where_the_next_begin(governed: Governed) -> None:
    for text, crons in (
        ("sat-sun 00:00-24:00 UTC 1", {"0-on": "0 0 ? * SAT,SUN", "0-off": "0 0 ? * MON"}),
        ("mon-sun 00:00-24:00 UTC 1", {"0-on": "0 0 ? * MON,TUE,WED,THU,FRI,SAT,SUN"}),
        (
            "mon 08:00-12:00 UTC 1; mon 12:00-18:00 UTC 2",
            {"0-on": "0 8 ? * MON", "1-on": "0 12 ? * MON", "1-off": "0 18 ? * MON"},
        ),
    ):
        governed.cloud.fleet.update(changed(target=4, max_instances=4, schedule=text))
        assert {name: each["Schedule"] for name, each in governed.world.actions.items()} == {
            f"atelier-big-{name}": f"cron({cron} *)" for name, cron in crons.items()
        }


@pytest.mark.parametrize("idle", [5.0, 600.0, DAY, DAY + 1, 7 * DAY])
@pytest.mark.parametrize("metric", ["demand", "backlog"])
def test_no_alarm_looks_back_further_than_cloudwatch_does(idle: float, metric: str) -> None:
    spec = changed(idle_seconds=float(idle), metric=metric, max_instances=50)
    for each in policies(spec, Names("atelier")):
        periods = {it["MetricStat"]["Period"] for it in each.metrics if "MetricStat" in it}
        assert len(periods) == 1
        assert each.periods * max(periods) <= (DAY if max(periods) < 3600 else 7 * DAY)
        assert len(each.steps) <= 20
        lows = [step.get("MetricIntervalLowerBound") for step in each.steps]
        highs = [step.get("MetricIntervalUpperBound") for step in each.steps]
        assert lows[1:] == highs[:-1], "no gap, no overlap"


def test_what_never_changes_has_no_policies() -> None:
    assert policies(changed(min_instances=2, max_instances=2), Names("atelier")) == ()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("mon-fri 8-18 UTC 1", "are no hours"),
        ("mun 08:00-18:00 UTC 1", "are no days"),
        ("mon 08:00-18:00 Mars/Olympus 1", "no time zone"),
        ("mon 08:00-18:00 UTC 3-2", "less than at least"),
        ("mon 08:00-18:00 UTC 1; mon 17:00-19:00 UTC 2", "within others"),
        ("mon 22:00-06:00 UTC 1; tue 05:00-08:00 UTC 2", "within others"),
        ("mon 08:00-18:00 UTC 1; tue 08:00-18:00 Europe/Berlin 1", "same time zone"),
    ],
)
def test_hours_that_cannot_be_are_refused_in_words(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        schedule.parse(text)


def test_hours_go_over_midnight_and_the_weeks_end() -> None:
    [night] = schedule.parse("fri,sun 22:00-06:00 UTC 0-2")
    assert night.ends_on == (0, 5)
    monday = 1_799_625_600.0  # 2027-01-11 00:00 UTC, a Monday
    assert schedule.bounds("sun 22:00-06:00 UTC 3", monday + 3600, 0, 1) == (3, 3)
    assert schedule.bounds("sun 22:00-06:00 UTC 3", monday + 7 * 3600, 0, 1) == (0, 1)
