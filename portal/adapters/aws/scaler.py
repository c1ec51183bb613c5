"""Puts an endpoint's policies, alarms and hours where AWS keeps them, and takes them away."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from botocore.exceptions import ClientError

from portal.adapters.aws import failures
from portal.adapters.aws.names import Names, tags
from portal.adapters.aws.scaling import COOLDOWN, POLICIES, Policy, policies
from portal.domain import schedule
from portal.services.ports import EndpointKind, EndpointSpec

DIMENSION = "sagemaker:variant:DesiredInstanceCount"
_DAYS = ("MON", "TUE", "WED", "THU", "FRI", "SAT", "SUN")


class Scaler:
    """`autoscaling` and `cloudwatch` are boto3 clients. Everything may be done again. Methods raise what
    boto3 raises.
    """

    def __init__(self, autoscaling: Any, cloudwatch: Any, names: Names, labels: Mapping[str, str]) -> None:
        self._autoscaling = autoscaling
        self._cloudwatch = cloudwatch
        self._names = names
        self._labels = labels

    def apply(self, spec: EndpointSpec, now: float) -> None:
        """Let the endpoint scale as `spec` says; what was there otherwise goes. Only once it is in service:
        before that AWS does not take a least of zero.
        """
        low, high = schedule.bounds(spec.schedule, now, spec.min_instances, spec.max_instances)
        self._autoscaling.register_scalable_target(
            **self._where(spec.name), MinCapacity=_least(spec, low), MaxCapacity=high
        )
        kept = policies(spec, self._names)
        for each in kept:
            self._put(spec, each)
        self._remove(spec.name, tuple(name for name in POLICIES if name not in {each.what for each in kept}))
        self._keep_hours(spec)

    def remove(self, name: str) -> None:
        """Let the endpoint scale no more, and leave nothing of it."""
        self._remove(name, POLICIES)
        self._forget_hours(name, set())
        try:
            self._autoscaling.deregister_scalable_target(**self._where(name))
        except ClientError as error:
            if not failures.missing(error):
                raise

    def _where(self, name: str) -> dict[str, str]:
        return {
            "ServiceNamespace": "sagemaker",
            "ResourceId": self._names.resource(name),
            "ScalableDimension": DIMENSION,
        }

    def _put(self, spec: EndpointSpec, policy: Policy) -> None:
        called = f"{self._names.endpoint(spec.name)}-{policy.what}"
        made = self._autoscaling.put_scaling_policy(
            **self._where(spec.name),
            PolicyName=called,
            PolicyType="StepScaling",
            StepScalingPolicyConfiguration={
                "AdjustmentType": policy.adjustment,
                "StepAdjustments": list(policy.steps),
                "Cooldown": COOLDOWN,
                "MetricAggregationType": "Maximum",
            },
        )
        self._cloudwatch.put_metric_alarm(
            AlarmName=called,
            AlarmDescription=policy.means,
            ActionsEnabled=True,
            AlarmActions=[made["PolicyARN"]],
            Metrics=list(policy.metrics),
            ComparisonOperator=policy.comparison,
            Threshold=policy.threshold,
            EvaluationPeriods=policy.periods,
            TreatMissingData="notBreaching",
            Tags=tags(self._labels, spec.name),
        )

    def _remove(self, name: str, what: tuple[str, ...]) -> None:
        called = [f"{self._names.endpoint(name)}-{each}" for each in what]
        if not called:
            return
        alarms = self._cloudwatch.describe_alarms(AlarmNames=called)["MetricAlarms"]
        if alarms:
            self._cloudwatch.delete_alarms(AlarmNames=[each["AlarmName"] for each in alarms])
        for each in called:
            try:
                self._autoscaling.delete_scaling_policy(**self._where(name), PolicyName=each)
            except ClientError as error:
                if not failures.missing(error):
                    raise

    def _keep_hours(self, spec: EndpointSpec) -> None:
        """Two scheduled actions for each of the hours: their begin and their end. No end where others begin,
        or the same anew: AWS does not say which of two at the same minute comes last.
        """
        kept = set()
        found = schedule.parse(spec.schedule)
        begins = {(day, each.start) for each in found for day in each.days}
        for number, hours in enumerate(found):
            ends = tuple(day for day in hours.ends_on if (day, hours.end) not in begins)
            high = max(hours.low, spec.max_instances if hours.high is None else hours.high)
            turns = (
                ("on", hours.days, hours.start, hours.low, high),
                ("off", ends, hours.end, spec.min_instances, spec.max_instances),
            )
            for what, days, minute, low, most in turns:
                if not days:
                    continue
                called = f"{self._names.endpoint(spec.name)}-{number}-{what}"
                kept.add(called)
                self._autoscaling.put_scheduled_action(
                    **self._where(spec.name),
                    ScheduledActionName=called,
                    Schedule=cron(days, minute),
                    Timezone=hours.zone,
                    ScalableTargetAction={"MinCapacity": _least(spec, low), "MaxCapacity": most},
                )
        self._forget_hours(spec.name, kept)

    def _forget_hours(self, name: str, kept: set[str]) -> None:
        where = self._where(name)
        found = self._autoscaling.describe_scheduled_actions(**where)["ScheduledActions"]
        for each in found:
            if each["ScheduledActionName"] not in kept:
                self._autoscaling.delete_scheduled_action(
                    **where, ScheduledActionName=each["ScheduledActionName"]
                )


def _least(spec: EndpointSpec, low: int) -> int:
    return max(1, low) if EndpointKind(spec.kind).waits else low


def cron(days: tuple[int, ...], minute: int) -> str:
    """The expression of Application Auto Scaling for a minute of some days of the week."""
    named = ",".join(_DAYS[day] for day in days)
    return f"cron({minute % 60} {minute // 60} ? * {named} *)"
