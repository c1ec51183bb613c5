"""Alarms, targets, policies and scheduled actions kept in memory, put in the words of AWS's requests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from rehearsal.alarms import INSUFFICIENT, AlarmRule, Query
from rehearsal.metrics import key
from rehearsal.scaling import Policy, Scheduled, Target, WiredAlarm

Request = Mapping[str, Any]


class KeptRules:
    """Rules of a Scaler without an account around them."""

    def __init__(self) -> None:
        self._alarms: dict[str, WiredAlarm] = {}
        self._targets: dict[str, Target] = {}
        self._policies: dict[str, Policy] = {}
        self._actions: dict[str, Scheduled] = {}

    def put(self, operation: str, request: Request) -> None:
        """Carry out one request by the name of boto3's method. Raises ValueError for another one."""
        match operation:
            case "register_scalable_target":
                resource = request["ResourceId"]
                self._targets[resource] = Target(resource, request["MinCapacity"], request["MaxCapacity"])
            case "put_scaling_policy":
                step = request.get("StepScalingPolicyConfiguration")
                tracking = request.get("TargetTrackingScalingPolicyConfiguration")
                name = request["PolicyName"]
                self._policies[name] = Policy(name, request["ResourceId"], step=step, tracking=tracking)
            case "put_metric_alarm":
                rule = _rule(request)
                self._alarms[rule.name] = WiredAlarm(rule, tuple(request["AlarmActions"]), INSUFFICIENT)
            case "put_scheduled_action":
                action = request.get("ScalableTargetAction") or {}
                name = request["ScheduledActionName"]
                self._actions[name] = Scheduled(
                    name,
                    request["ResourceId"],
                    request["Schedule"],
                    request.get("Timezone", "UTC"),
                    action.get("MinCapacity"),
                    action.get("MaxCapacity"),
                )
            case _:
                raise ValueError(f"The request {operation!r} makes no rule.")

    def alarms(self) -> Sequence[WiredAlarm]:
        """See Rules."""
        return list(self._alarms.values())

    def turn_alarm(self, name: str, state: str, reason: str) -> None:
        """See Rules."""
        self._alarms[name] = replace(self._alarms[name], state=state)

    def targets(self) -> Sequence[Target]:
        """See Rules."""
        return list(self._targets.values())

    def policies(self) -> Sequence[Policy]:
        """See Rules."""
        return list(self._policies.values())

    def scheduled(self) -> Sequence[Scheduled]:
        """See Rules."""
        return list(self._actions.values())

    def set_bounds(self, resource: str, low: int | None, high: int | None) -> None:
        """See Rules."""
        known = self._targets[resource]
        self._targets[resource] = replace(
            known,
            low=known.low if low is None else low,
            high=known.high if high is None else high,
        )


def _rule(request: Request) -> AlarmRule:
    """A PutMetricAlarm request as a rule."""
    periods = int(request["EvaluationPeriods"])
    stats = [each["MetricStat"] for each in request.get("Metrics") or [] if "MetricStat" in each]
    return AlarmRule(
        name=request["AlarmName"],
        comparison=request["ComparisonOperator"],
        threshold=float(request["Threshold"]),
        period=int(request["Period"] if "Period" in request else stats[0]["Period"]),
        periods=periods,
        to_alarm=int(request.get("DatapointsToAlarm", periods)),
        missing=request.get("TreatMissingData", "missing"),
        queries=_queries(request),
    )


def _queries(request: Request) -> tuple[Query, ...]:
    if "MetricName" in request:
        return (Query("m", _metric(request), request["Statistic"]),)
    found = []
    for each in request["Metrics"]:
        returned = each.get("ReturnData", True)
        if "MetricStat" in each:
            stat = each["MetricStat"]
            found.append(Query(each["Id"], _metric(stat["Metric"]), stat["Stat"], returned=returned))
        else:
            found.append(Query(each["Id"], expression=each["Expression"], returned=returned))
    return tuple(found)


def _metric(said: Request) -> Any:
    dimensions = {each["Name"]: each["Value"] for each in said.get("Dimensions") or []}
    return key(said["Namespace"], said["MetricName"], dimensions)
