"""How an endpoint's number of instances follows what it is asked for: step policies and their alarms.

The portal publishes two metrics for each endpoint (namespace Atelier, dimension Endpoint): Demand, the parts
that wait for it or are with it, and Capacity, the instances it is to have. Missing data count as nothing
asked for (FILL), so an endpoint whose portal is gone goes to its least. Every policy: docs/aws-endpoints.md.

A step's bounds are differences to the alarm's threshold, the lower one inclusive (Application Auto Scaling,
StepAdjustment); counts are whole, so bounds lie half-way between them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from portal.adapters.aws.names import VARIANT, Names
from portal.domain import schedule
from portal.services.ports import EndpointKind, EndpointSpec, Metric

NAMESPACE = "Atelier"
DEMAND, CAPACITY = "Demand", "Capacity"
QUICK = 10
"""Seconds of a period of the portal's own metrics, which have a resolution of seconds."""
MINUTE, HOUR, DAY = 60, 3600, 86_400
MOST_STEPS = 20
"""Step adjustments that one policy may have (Application Auto Scaling's quota)."""
COOLDOWN = 60
FAR_ABOVE = 1_000_000
"""Stands for a capacity nobody told of: whatever there is, fewer will do."""
OUT, WAKE, KNOCK, IN = "out", "wake", "knock", "in"
POLICIES = (OUT, WAKE, KNOCK, IN)
"""Every policy an endpoint may have, by the end of its name."""


@dataclass(frozen=True)
class Policy:
    """A step policy and the alarm that starts it: `what` ends both names; `metrics` are the alarm's, of which
    the last is compared with `threshold`.
    """

    what: str
    adjustment: str
    steps: tuple[dict[str, Any], ...]
    metrics: tuple[dict[str, Any], ...]
    comparison: str
    threshold: float
    periods: int
    means: str


def policies(spec: EndpointSpec, names: Names) -> tuple[Policy, ...]:
    """The policies of an endpoint; none where its number of instances never changes."""
    if spec.min_instances == spec.max_instances and not spec.schedule:
        return ()
    if spec.metric == Metric.INVOCATIONS:
        return _by_invocations(spec, names)
    if spec.metric == Metric.BACKLOG:
        return _by_backlog(spec, names)
    return _by_demand(spec, names)


def _by_demand(spec: EndpointSpec, names: Names) -> tuple[Policy, ...]:
    target, most = spec.parts_each, _most(spec)
    queued = not EndpointKind(spec.kind).waits
    quick = (_own(DEMAND, "d", names, spec, QUICK), _own(CAPACITY, "n", names, spec, QUICK))
    slow = (
        _own(DEMAND, "d", names, spec, MINUTE),
        _own(CAPACITY, "n", names, spec, _minute(spec), "Minimum"),
    )
    out = Policy(
        OUT,
        "ChangeInCapacity",
        _counted(most, target, offset=0.0),
        (*quick, _math(f"IF(FILL(n, 0) > 0, FILL(d, 0) - {target} * FILL(n, 0), 0)")),
        "GreaterThanThreshold",
        0.0,
        1,
        f"Demand > {target} x instances: as many more as it takes",
    )
    if not queued:
        spare = _math(f"FILL(d, 0) - {target} * (FILL(n, {FAR_ABOVE}) - 1)")
        return out, _inward(spec, (_own(DEMAND, "d", names, spec, _minute(spec)), slow[1], spare))
    backlog = _sagemaker("ApproximateBacklogSize", "b", names, spec, _minute(spec))
    spare = _math(
        f"IF(FILL(b, 0) > FILL(d, 0), FILL(b, 0), FILL(d, 0)) - {target} * (FILL(n, {FAR_ABOVE}) - 1)"
    )
    wake = Policy(
        WAKE,
        "ExactCapacity",
        _counted(most, target, offset=1.0),
        (*quick, _math("IF(FILL(n, 1) < 1, FILL(d, 0), 0)")),
        "GreaterThanOrEqualToThreshold",
        1.0,
        1,
        "Demand >= 1 at zero instances: as many as it takes",
    )
    knock = Policy(
        KNOCK,
        "ExactCapacity",
        ({"MetricIntervalLowerBound": 0.0, "ScalingAdjustment": 1},),
        (
            slow[0],
            _sagemaker("HasBacklogWithoutCapacity", "w", names, spec, MINUTE),
            _math("IF(FILL(d, 0) < 1, FILL(w, 0), 0)"),
        ),
        "GreaterThanOrEqualToThreshold",
        1.0,
        1,
        "SageMaker's own queue has work at zero instances that the portal knows nothing of: one",
    )
    demand = _own(DEMAND, "d", names, spec, _minute(spec))
    return out, wake, knock, _inward(spec, (demand, slow[1], backlog, spare))


def _by_backlog(spec: EndpointSpec, names: Names) -> tuple[Policy, ...]:
    """By SageMaker's queue: c is all of it, p of each instance that serves."""
    waits = (
        _sagemaker("ApproximateBacklogSize", "c", names, spec, MINUTE),
        _sagemaker("HasBacklogWithoutCapacity", "w", names, spec, MINUTE),
        _math("IF(FILL(w, 0) > 0, FILL(c, 1), 0)"),
    )
    wake = Policy(
        WAKE,
        "ExactCapacity",
        _counted(_most(spec), spec.parts_each, offset=1.0),
        waits,
        "GreaterThanOrEqualToThreshold",
        1.0,
        1,
        "backlog at zero instances: as many as it takes",
    )
    out, spare = _by_load(spec, names, ("ApproximateBacklogSize", "ApproximateBacklogSizePerInstance"))
    return out, wake, spare


def _by_invocations(spec: EndpointSpec, names: Names) -> tuple[Policy, ...]:
    """By calls in a minute: c are all of them, p of each instance that serves."""
    return _by_load(spec, names, ("Invocations", "InvocationsPerInstance"), "Sum")


def _by_load(
    spec: EndpointSpec, names: Names, of: tuple[str, str], statistic: str = "Maximum"
) -> tuple[Policy, Policy]:
    """Out and in by a load that SageMaker tells, of all and of each instance. Counted with are the instances
    there are to be, or the load of instances that still start would be answered with more and more of them;
    with those that serve, c / p, where the portal does not tell the number.
    """
    target, period = spec.parts_each, _minute(spec)

    def metrics(period: int, capacity: str) -> tuple[dict[str, Any], ...]:
        return (
            _sagemaker(of[0], "c", names, spec, period, statistic),
            _sagemaker(of[1], "p", names, spec, period, statistic),
            _own(CAPACITY, "n", names, spec, period, capacity),
        )

    serve = f"IF(FILL(c, 0) < 1, 1, FILL(c, 0) / IF(FILL(p, 0) > 0, FILL(p, 1), {FAR_ABOVE}))"
    count = f"IF(FILL(n, {FAR_ABOVE}) < {FAR_ABOVE}, FILL(n, 0), {serve})"
    within = target * (period // MINUTE if statistic == "Sum" else 1)
    out = Policy(
        OUT,
        "ChangeInCapacity",
        _counted(_most(spec), target, offset=0.0),
        (*metrics(MINUTE, "Maximum"), _math(f"IF(FILL(p, 0) > 0, FILL(c, 0) - {target} * {count}, 0)")),
        "GreaterThanThreshold",
        0.0,
        1,
        f"{of[0]} > {target} x instances: as many more as it takes",
    )
    spare = _math(f"FILL(c, 0) - {within} * ({count} - 1)")
    return out, _inward(spec, (*metrics(period, "Minimum"), spare))


def _inward(spec: EndpointSpec, metrics: tuple[dict[str, Any], ...]) -> Policy:
    """One instance fewer, minute by minute, once fewer would have done all through the idle time."""
    return Policy(
        IN,
        "ChangeInCapacity",
        ({"MetricIntervalUpperBound": 0.0, "ScalingAdjustment": -1},),
        metrics,
        "LessThanOrEqualToThreshold",
        0.0,
        math.ceil(spec.idle_seconds / _minute(spec)),
        f"one fewer would have done for {spec.idle_seconds:g} s: one fewer",
    )


def _most(spec: EndpointSpec) -> int:
    """The most instances there ever are, its hours included."""
    hours = schedule.parse(spec.schedule)
    return max(spec.max_instances, *(each.high or each.low for each in hours), 1)


def _minute(spec: EndpointSpec) -> int:
    """The period in which quiet is counted: alarms that look back over a day count hours."""
    return MINUTE if spec.idle_seconds <= DAY else HOUR


def _counted(most: int, target: int, *, offset: float) -> tuple[dict[str, Any], ...]:
    """Steps of `target` parts each, from one instance to `most`, as far as a policy may have them."""
    count = min(most, MOST_STEPS)
    steps = []
    for number in range(1, count + 1):
        step: dict[str, Any] = {"ScalingAdjustment": number}
        if number == 1:
            step["MetricIntervalLowerBound"] = 0.0
        else:
            step["MetricIntervalLowerBound"] = target * (number - 1) + 0.5 - offset
        if number < count:
            step["MetricIntervalUpperBound"] = target * number + 0.5 - offset
        steps.append(step)
    return tuple(steps)


def _own(
    metric: str, name: str, names: Names, spec: EndpointSpec, period: int, statistic: str = "Maximum"
) -> dict[str, Any]:
    return _metric(name, NAMESPACE, metric, {"Endpoint": names.endpoint(spec.name)}, period, statistic)


def _sagemaker(
    metric: str, name: str, names: Names, spec: EndpointSpec, period: int, statistic: str = "Maximum"
) -> dict[str, Any]:
    where = {"EndpointName": names.endpoint(spec.name)}
    if metric.startswith("Invocations"):
        where["VariantName"] = VARIANT
    return _metric(name, "AWS/SageMaker", metric, where, period, statistic)


def _metric(
    name: str, namespace: str, metric: str, where: dict[str, str], period: int, statistic: str
) -> dict[str, Any]:
    dimensions = [{"Name": key, "Value": value} for key, value in where.items()]
    told = {"Namespace": namespace, "MetricName": metric, "Dimensions": dimensions}
    return {
        "Id": name,
        "MetricStat": {"Metric": told, "Period": period, "Stat": statistic},
        "ReturnData": False,
    }


def _math(expression: str) -> dict[str, Any]:
    return {"Id": "e", "Expression": expression, "Label": "e", "ReturnData": True}
