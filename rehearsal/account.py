"""The one typed door to moto: what lies in the simulated account, read and written within the process."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from moto.applicationautoscaling.models import applicationautoscaling_backends
from moto.cloudwatch.models import cloudwatch_backends
from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.ecs.models import ecs_backends
from moto.logs.models import logs_backends
from moto.moto_api import state_manager
from moto.s3.models import s3_backends
from moto.sagemaker.models import sagemaker_backends
from moto.secretsmanager.models import secretsmanager_backends
from moto.sns.models import sns_backends

from rehearsal.alarms import AlarmRule, Query
from rehearsal.metrics import Key, key
from rehearsal.refusals import Refused
from rehearsal.scaling import Policy, Scheduled, Target, WiredAlarm
from rehearsal.variant import Variant

ACCOUNT = DEFAULT_ACCOUNT_ID
NAMESPACE = "sagemaker"
DIMENSION = "sagemaker:variant:DesiredInstanceCount"


class Account:
    """moto's account in one region."""

    def __init__(self, region: str) -> None:
        self.region = region
        self._s3: Any = s3_backends[ACCOUNT]["aws"]
        self._sns: Any = sns_backends[ACCOUNT][region]
        self._watch: Any = cloudwatch_backends[ACCOUNT][region]
        self._scaling: Any = applicationautoscaling_backends[ACCOUNT][region]
        self._sagemaker: Any = sagemaker_backends[ACCOUNT][region]
        self._ecs: Any = ecs_backends[ACCOUNT][region]
        self._logs: Any = logs_backends[ACCOUNT][region]
        self._secrets: Any = secretsmanager_backends[ACCOUNT][region]
        self._collected = 0
        # Tasks run until their program ends, not for as many looks as moto would say.
        state_manager.set_transition("ecs::task", {"progression": "manual", "times": 10**9})

    # --- S3 and SNS

    def read(self, uri: str) -> bytes:
        """The bytes at s3://bucket/key. Raises LookupError."""
        where = urlsplit(uri)
        found = self._bucket(where.netloc).get_object(where.netloc, where.path.lstrip("/"))
        if found is None:
            raise LookupError(uri)
        return bytes(found.value)

    def write(self, uri: str, data: bytes, content_type: str) -> None:
        """Put bytes at s3://bucket/key. Raises LookupError where there is no such bucket."""
        where = urlsplit(uri)
        put = self._bucket(where.netloc).put_object(where.netloc, where.path.lstrip("/"), data)
        put.set_metadata({"content-type": content_type})

    def publish(self, topic: str, message: Mapping[str, Any]) -> None:
        """Tell a topic's subscribers. Nothing happens where there is no such topic."""
        if topic in self._sns.topics:
            self._sns.topics[topic].publish(json.dumps(message))

    def secret(self, arn: str) -> str:
        """A secret's text."""
        return str(self._secrets.get_secret_value(arn, None, None)["SecretString"])

    def _bucket(self, name: str) -> Any:
        if name not in self._s3.buckets:
            raise LookupError(f"There is no bucket {name!r}.")
        return self._s3

    # --- CloudWatch

    def new_numbers(self) -> list[tuple[Key, float]]:
        """What was put by callers since the last look, in its order."""
        every = self._watch.metric_data
        found = every[min(self._collected, len(every)) :]
        self._collected = len(every)
        return [
            (key(each.namespace, each.name, {it.name: it.value for it in each.dimensions}), each.value)
            for each in found
            if hasattr(each, "value")
        ]

    def tell_number(self, metric: Key, value: float, at: float) -> None:
        """Let callers of GetMetricData see a number of SageMaker's own."""
        namespace, name, dimensions = metric
        listed = [{"Name": each, "Value": it} for each, it in dimensions]
        datum = {
            "MetricName": name,
            "Value": value,
            "Dimensions": listed,
            "Timestamp": datetime.fromtimestamp(at, UTC).replace(tzinfo=None),
        }
        self.new_numbers_are_known(lambda: self._watch.put_metric_data(namespace, [datum]))

    def new_numbers_are_known(self, put: Any) -> None:
        """Do `put` without taking what it adds for a caller's."""
        before = len(self._watch.metric_data)
        put()
        if self._collected == before:
            self._collected = len(self._watch.metric_data)

    def alarms(self) -> list[WiredAlarm]:
        """Every metric alarm, with the scaling policies that it rings for."""
        found = []
        for alarm in list(self._watch.alarms.values()):
            rule = _rule(alarm)
            if rule is not None:
                actions = tuple(alarm.alarm_actions or ()) if alarm.actions_enabled else ()
                found.append(WiredAlarm(rule, actions, alarm.state_value))
        return found

    def turn_alarm(self, name: str, state: str, reason: str) -> None:
        """An alarm is in another state now."""
        alarm = self._watch.alarms.get(name)
        if alarm is not None and alarm.state_value != state:
            alarm.update_state(reason, "{}", state)

    # --- Application Auto Scaling

    def targets(self) -> list[Target]:
        """Scalable targets of endpoints."""
        return [
            Target(
                resource=each.resource_id,
                low=int(each.min_capacity or 0),
                high=int(each.max_capacity or 0),
                suspended=frozenset(name for name, is_so in (each.suspended_state or {}).items() if is_so),
            )
            for each in list(self._scaling.targets.get(DIMENSION, {}).values())
        ]

    def set_bounds(self, resource: str, low: int | None, high: int | None) -> None:
        """What a scheduled action does to a target."""
        target = self._scaling.targets.get(DIMENSION, {}).get(resource)
        if target is not None:
            target.update(low, high, None)

    def policies(self) -> list[Policy]:
        """Scaling policies of endpoints."""
        return [
            Policy(
                name=each.policy_name,
                resource=each.resource_id,
                step=each.step_scaling_policy_configuration,
                tracking=each.target_tracking_scaling_policy_configuration,
            )
            for each in list(self._scaling.policies.values())
            if each.scalable_dimension == DIMENSION
        ]

    def scheduled(self) -> list[Scheduled]:
        """Scheduled actions of endpoints."""
        return [
            Scheduled(
                name=each.scheduled_action_name,
                resource=each.resource_id,
                schedule=each.schedule,
                timezone=each.timezone or "UTC",
                low=(each.scalable_target_action or {}).get("MinCapacity"),
                high=(each.scalable_target_action or {}).get("MaxCapacity"),
            )
            for each in list(self._scaling.scheduled_actions)
            if each.scalable_dimension == DIMENSION
        ]

    # --- ECS and its logs

    def end_task(self, number: str, status: int, stream: str, lines: list[str]) -> None:
        """A task's program ended: its exit status, and what it had written, in the first group of logs whose
        name ends with /tasks.
        """
        for tasks in list(self._ecs.tasks.values()):
            for task in [each for each in tasks.values() if each.task_arn.endswith(number)]:
                task._status = task.desired_status = "STOPPED"
                task.stopped_reason = "Essential container in task exited"
                for container in task.containers:
                    container.exitCode = status
        group = next((name for name in self._logs.groups if name.endswith("/tasks")), None)
        if group is not None and lines:
            self._logs.create_log_stream(group, stream)
            now = int(time.time() * 1000)
            events = [{"timestamp": now, "message": line} for line in lines if line]
            self._logs.put_log_events(group, stream, events)

    # --- SageMaker's own records

    def variant(self, config_name: str) -> Variant:
        """What an endpoint configuration and its model say. Raises Refused."""
        config = self._sagemaker.endpoint_configs.get(config_name)
        if config is None:
            raise Refused(
                "ValidationException", f"Could not find endpoint configuration {self._arn(config_name)!r}."
            )
        if len(config.production_variants) != 1:
            raise Refused("ValidationException", "The rehearsal runs endpoints of one production variant.")
        said = config.production_variants[0]
        model = self._sagemaker._models.get(said["ModelName"])
        if model is None:
            raise Refused("ValidationException", f"Could not find model {said['ModelName']!r}.")
        container = model.primary_container or (model.containers or [{}])[0]
        return _variant(config_name, said, container, config.async_inference_config)

    def record_endpoint(self, name: str, config: str, tags: list[dict[str, str]]) -> str:
        """Let moto know of an endpoint, for its lists and tags; its ARN."""
        made = self._sagemaker.create_endpoint(name, config, tags)
        made.endpoint_status = "Creating"
        return str(made.arn)

    def show_endpoint(self, name: str, config: str, status: str) -> None:
        """Keep moto's record of an endpoint true."""
        known = self._sagemaker.endpoints.get(name)
        if known is not None:
            known.endpoint_config_name, known.endpoint_status = config, status

    def forget_endpoint(self, name: str) -> None:
        """The endpoint is gone."""
        self._sagemaker.endpoints.pop(name, None)

    def set_instance_type(self, config: str, types: list[str]) -> None:
        """Put the instance types that were asked for where moto, which knows few, got another."""
        for said, kind in zip(
            self._sagemaker.endpoint_configs[config].production_variants, types, strict=True
        ):
            said["InstanceType"] = kind

    def _arn(self, config: str) -> str:
        return f"arn:aws:sagemaker:{self.region}:{ACCOUNT}:endpoint-config/{config}"


def _variant(
    config: str, said: Mapping[str, Any], container: Mapping[str, Any], asynchronous: Mapping[str, Any] | None
) -> Variant:
    output = (asynchronous or {}).get("OutputConfig") or {}
    told = output.get("NotificationConfig") or {}
    client = (asynchronous or {}).get("ClientConfig") or {}
    return Variant(
        name=said["VariantName"],
        instance_type=said.get("InstanceType", ""),
        count=int(said.get("InitialInstanceCount", 1)),
        image=container.get("Image", ""),
        environment=dict(container.get("Environment") or {}),
        config=config,
        concurrency=int(client.get("MaxConcurrentInvocationsPerInstance", 1000)),
        startup_timeout=float(said.get("ContainerStartupHealthCheckTimeoutInSeconds", 600)),
        output=output.get("S3OutputPath") if asynchronous else None,
        failure=output.get("S3FailurePath"),
        success_topic=told.get("SuccessTopic"),
        error_topic=told.get("ErrorTopic"),
    )


def _rule(alarm: Any) -> AlarmRule | None:
    """An alarm of moto's in our words; None for a composite one."""
    queries = _queries(alarm)
    if not queries:
        return None
    period = alarm.period or next(
        (int(each.metric_stat.period) for each in alarm.metric_data_queries if each.metric_stat), 60
    )
    return AlarmRule(
        name=alarm.name,
        comparison=alarm.comparison_operator,
        threshold=float(alarm.threshold),
        period=int(period),
        periods=int(alarm.evaluation_periods),
        to_alarm=int(alarm.datapoints_to_alarm or alarm.evaluation_periods),
        missing=alarm.treat_missing_data or "missing",
        queries=queries,
    )


def _queries(alarm: Any) -> tuple[Query, ...]:
    if alarm.metric_name:
        dimensions = {each.name: each.value for each in alarm.dimensions}
        return (Query("m", key(alarm.namespace, alarm.metric_name, dimensions), alarm.statistic),)
    found = []
    for each in alarm.metric_data_queries:
        returned = each.return_data not in (False, "false", "False")
        if each.metric_stat is not None:
            metric = each.metric_stat.metric
            dimensions = {it.name: it.value for it in metric.dimensions}
            known = key(metric.namespace, metric.metric_name, dimensions)
            found.append(Query(each.id, known, each.metric_stat.stat, returned=returned))
        else:
            found.append(Query(each.id, expression=each.expression, returned=returned))
    return tuple(found)
