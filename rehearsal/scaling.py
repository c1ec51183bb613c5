"""Application Auto Scaling: alarms are looked at, policies and scheduled actions move the instance count.

https://docs.aws.amazon.com/autoscaling/application/userguide/step-scaling-policy-overview.html
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from rehearsal.alarms import ALARM, AlarmRule, judged
from rehearsal.metrics import Key, Metrics, key
from rehearsal.refusals import Refused
from rehearsal.schedules import due

log = logging.getLogger(__name__)

MINUTE = 60.0
DEFAULT_COOLDOWN = 300.0
TRACKED_OUT, TRACKED_IN = 3, 15
"""Minutes above, and below nine tenths of, its target after which a tracking policy acts."""


@dataclass(frozen=True)
class Target:
    """A scalable target: `endpoint/<name>/variant/<variant>` between two counts."""

    resource: str
    low: int
    high: int
    suspended: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Policy:
    """A scaling policy, with its configuration in AWS's words."""

    name: str
    resource: str
    step: Mapping[str, Any] | None = None
    tracking: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Scheduled:
    """A scheduled action: other bounds at a time."""

    name: str
    resource: str
    schedule: str
    timezone: str
    low: int | None
    high: int | None


@dataclass(frozen=True)
class WiredAlarm:
    """An alarm, the ARNs it rings for, and the state it is in."""

    rule: AlarmRule
    actions: Sequence[str]
    state: str


class Rules(Protocol):
    """Where alarms, targets, policies and actions are kept."""

    def alarms(self) -> Sequence[WiredAlarm]:
        """Every alarm."""
        ...

    def turn_alarm(self, name: str, state: str, reason: str) -> None:
        """Note another state."""
        ...

    def targets(self) -> Sequence[Target]:
        """Every scalable target."""
        ...

    def policies(self) -> Sequence[Policy]:
        """Every policy."""
        ...

    def scheduled(self) -> Sequence[Scheduled]:
        """Every scheduled action."""
        ...

    def set_bounds(self, resource: str, low: int | None, high: int | None) -> None:
        """Other bounds for a target."""
        ...


class Scaled(Protocol):
    """What is scaled."""

    @property
    def wanted(self) -> int:
        """Instances it is to have."""
        ...

    def resize(self, count: int) -> None:
        """Another number. Raises Refused."""
        ...


@dataclass(frozen=True)
class Activity:
    """A change that was made, or refused: when, of what, from, to, why, and the refusal's sentence."""

    at: float
    resource: str
    before: int
    after: int
    cause: str
    refused: str = ""


class Scaler:
    """`tick` is called every ten simulated seconds. `find` gives the endpoint of a resource."""

    def __init__(self, rules: Rules, metrics: Metrics, find: Callable[[str], Scaled | None]) -> None:
        self.activities: list[Activity] = []
        self._rules = rules
        self._metrics = metrics
        self._find = find
        self._rang: dict[str, float] = {}
        self._out: dict[str, Activity] = {}
        self._in: dict[str, Activity] = {}

    def tick(self, now: float) -> None:
        """Judge what is due now."""
        policies = {
            f"resource/sagemaker/{each.resource}:policyName/{each.name}": each
            for each in self._rules.policies()
        }
        targets = {each.resource: each for each in self._rules.targets()}
        for alarm in self._rules.alarms():
            if now % min(alarm.rule.period, MINUTE) < 1.0:
                self._judge(alarm, policies, targets, now)
        if now % MINUTE < 1.0:
            for policy in policies.values():
                if policy.tracking is not None and policy.resource in targets:
                    self._track(policy, targets[policy.resource], now)
            self._on_schedule(now)
            self._keep_bounds(now)

    def _judge(
        self, alarm: WiredAlarm, policies: Mapping[str, Policy], targets: Mapping[str, Target], now: float
    ) -> None:
        verdict = judged(alarm.rule, self._metrics, now, alarm.state)
        if verdict.state != alarm.state:
            self._rules.turn_alarm(alarm.rule.name, verdict.state, f"The newest value is {verdict.value}.")
        if verdict.state != ALARM:
            self._rang.pop(alarm.rule.name, None)
            return
        if now - self._rang.get(alarm.rule.name, -math.inf) < MINUTE:
            return  # a policy is asked once a minute for as long as its alarm rings
        self._rang[alarm.rule.name] = now
        over = 0.0 if verdict.value is None else verdict.value - alarm.rule.threshold
        for action in alarm.actions:
            policy = next((it for end, it in policies.items() if action.endswith(end)), None)
            if policy is not None and policy.step is not None and policy.resource in targets:
                self._step(policy, policy.step, targets[policy.resource], over, now)

    def _step(self, policy: Policy, step: Mapping[str, Any], target: Target, over: float, now: float) -> None:
        endpoint = self._find(policy.resource)
        by = _adjustment(step.get("StepAdjustments") or [], over)
        if endpoint is None or by is None:
            return
        cooldown = float(step.get("Cooldown", DEFAULT_COOLDOWN))
        base, last = endpoint.wanted, self._out.get(policy.resource)
        if last is not None and now - last.at < cooldown and last.cause == policy.name:
            # What was added within the cooldown counts as a part of what the policy asks for.
            base = min(base, last.before)
        asked = _adjusted(step, base, by)
        if last is not None and base != endpoint.wanted and asked <= endpoint.wanted:
            return
        self._move(policy, target, asked, cooldown, now)

    def _track(self, policy: Policy, target: Target, now: float) -> None:
        endpoint = self._find(policy.resource)
        tracking = policy.tracking or {}
        metric = _tracked(tracking, policy.resource)
        if endpoint is None or metric is None or endpoint.wanted == 0:
            return
        wanted = float(tracking["TargetValue"])
        statistic = (tracking.get("CustomizedMetricSpecification") or {}).get("Statistic", "Average")
        values = [
            self._metrics.statistic(metric, statistic, now - MINUTE * (back + 1), now - MINUTE * back)
            for back in range(TRACKED_IN)
        ]
        recent = values[:TRACKED_OUT]
        if all(each is not None and each > wanted for each in recent):
            asked = math.ceil(endpoint.wanted * (values[0] or 0.0) / wanted)
            self._move(policy, target, asked, float(tracking.get("ScaleOutCooldown", 300)), now)
        elif not tracking.get("DisableScaleIn") and all(
            each is not None and each < 0.9 * wanted for each in values
        ):
            asked = math.ceil(endpoint.wanted * max(each or 0.0 for each in values) / wanted)
            asked = min(asked, endpoint.wanted - 1)
            self._move(policy, target, asked, float(tracking.get("ScaleInCooldown", 300)), now)

    def _on_schedule(self, now: float) -> None:
        for each in self._rules.scheduled():
            if due(each.schedule, each.timezone, now):
                self._rules.set_bounds(each.resource, each.low, each.high)

    def _keep_bounds(self, now: float) -> None:
        """Targets whose count lies outside their bounds, which were set anew."""
        for target in self._rules.targets():
            endpoint = self._find(target.resource)
            if endpoint is None or "ScheduledScalingSuspended" in target.suspended:
                continue
            asked = min(target.high, max(target.low, endpoint.wanted))
            cause = f"{'minimum' if asked > endpoint.wanted else 'maximum'} capacity was set to {asked}"
            self._apply(endpoint, target.resource, asked, cause, now)

    def _move(self, policy: Policy, target: Target, asked: int, cooldown: float, now: float) -> None:
        """Bring the endpoint to `asked`, within its bounds, unless a cooldown is on."""
        endpoint = self._find(policy.resource)
        if endpoint is None:
            return
        count = min(target.high, max(target.low, asked))
        out = count > endpoint.wanted
        stops = "DynamicScalingOutSuspended" if out else "DynamicScalingInSuspended"
        if count == endpoint.wanted or stops in target.suspended:
            return
        if not out:
            last = self._in.get(policy.resource)
            if last is not None and now - last.at < cooldown:
                return
        self._apply(endpoint, policy.resource, count, policy.name, now)

    def _apply(self, endpoint: Scaled, resource: str, count: int, cause: str, now: float) -> None:
        before = endpoint.wanted
        if count == before:
            return
        try:
            endpoint.resize(count)
        except Refused as error:
            self.activities.append(Activity(now, resource, before, count, cause, error.message))
            return
        made = Activity(now, resource, before, count, cause)
        log.info("%s: %d -> %d instances (%s)", resource, before, count, cause)
        self.activities.append(made)
        (self._out if count > before else self._in)[resource] = made


def _adjustment(steps: Sequence[Mapping[str, Any]], over: float) -> int | None:
    """The adjustment for a metric that is `over` its threshold (below it where negative)."""
    for step in steps:
        low = float(step.get("MetricIntervalLowerBound", -math.inf))
        high = float(step.get("MetricIntervalUpperBound", math.inf))
        # Below the threshold a step holds up to its upper bound, above it from its lower one.
        inside = low < over <= high if high <= 0 else low <= over < high
        if inside:
            return int(step["ScalingAdjustment"])
    return None


def _adjusted(step: Mapping[str, Any], count: int, by: int) -> int:
    kind = step.get("AdjustmentType", "ChangeInCapacity")
    if kind == "ExactCapacity":
        return by
    if kind == "PercentChangeInCapacity":
        change = count * by / 100.0
        least = int(step.get("MinAdjustmentMagnitude", 1))
        whole = math.floor(change) if change > 1 else (math.ceil(change) if change < -1 else round(change))
        return count + (int(math.copysign(max(least, abs(whole)), by)) if by else 0)
    return count + by


def _tracked(tracking: Mapping[str, Any], resource: str) -> Key | None:
    """The metric that a tracking policy follows."""
    custom = tracking.get("CustomizedMetricSpecification")
    if custom and custom.get("MetricName"):
        dimensions = {each["Name"]: each["Value"] for each in custom.get("Dimensions") or []}
        return key(custom["Namespace"], custom["MetricName"], dimensions)
    predefined = (tracking.get("PredefinedMetricSpecification") or {}).get("PredefinedMetricType")
    if predefined == "SageMakerVariantInvocationsPerInstance":
        _, endpoint, _, variant = resource.split("/")
        return key(
            "AWS/SageMaker", "InvocationsPerInstance", {"EndpointName": endpoint, "VariantName": variant}
        )
    return None
