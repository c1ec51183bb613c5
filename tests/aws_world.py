"""AWS as far as a fleet sees it, behind real boto3 clients: botocore checks every request against its own
models and builds it, and then, instead of a network, this world answers. Its endpoints take as many turns as
AWS would take minutes; nothing goes on by itself.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import Mock
from urllib.parse import urlsplit

import boto3
from botocore import xform_name

from atelier.storage.filesystem import FilesystemBlobStore
from portal.adapters.memory.clock import ManualClock

REGION = "eu-central-1"
ACCOUNT = f"arn:aws:%s:{REGION}:123456789012:%s"


class Bucket(FilesystemBlobStore):
    """Files that say they lie in a bucket."""

    def location(self, key: str) -> str:
        return f"s3://bucket/studio/{key}"

    def key_of(self, location: str) -> str:
        return urlsplit(location).path.removeprefix("/studio/")


@cache
def _session() -> Any:
    """One for all worlds: reading botocore's models takes a while."""
    return boto3.Session("testing", "testing", region_name=REGION)


class Refusal(Exception):
    """AWS's answer to a call that it does not carry out."""

    def __init__(self, code: str, message: str, **more: Any) -> None:
        super().__init__(message)
        self.body = {"Error": {"Code": code, "Message": message}, **more}


@dataclass
class Endpoint:
    """One endpoint: `turns` is how many looks it stays in transition."""

    config: str
    status: str
    current: int = 0
    desired: int = 1
    turns: int = 1
    reason: str = ""
    becomes: str = "InService"
    before: str = ""
    failed: str = ""


@dataclass
class World:
    """`work` is what a worker makes of a body: (status, answer). `fail` maps an operation's name to refusals
    that it gives before it does anything; `calls` are all that came, in order.
    """

    folder: Path
    work: Callable[[bytes], tuple[int, bytes]] = lambda body: (200, b"{}")
    clock: ManualClock = field(default_factory=ManualClock)
    endpoints: dict[str, Endpoint] = field(default_factory=dict)
    configs: dict[str, dict[str, Any]] = field(default_factory=dict)
    models: dict[str, dict[str, Any]] = field(default_factory=dict)
    targets: dict[str, dict[str, Any]] = field(default_factory=dict)
    policies: dict[str, dict[str, Any]] = field(default_factory=dict)
    alarms: dict[str, dict[str, Any]] = field(default_factory=dict)
    actions: dict[str, dict[str, Any]] = field(default_factory=dict)
    metrics: list[dict[str, Any]] = field(default_factory=list)
    fail: dict[str, list[Refusal]] = field(default_factory=dict)
    calls: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    quotas: dict[str, float] = field(
        default_factory=lambda: {"ml.g5.xlarge": 8.0, "ml.g5.2xlarge": 8.0, "ml.g6.xlarge": 8.0}
    )
    unable: str = ""
    """FailureReason of endpoints that are created from now on."""
    takes_back: str = ""
    """FailureReason of changes that are asked for from now on: what was there before comes back."""

    def __post_init__(self) -> None:
        self.bucket = Bucket(self.folder / "bucket")

    def client(self, service: str) -> Any:
        """A boto3 client whose calls end here."""
        made = _session().client(service, endpoint_url="http://127.0.0.1:9")
        made.meta.events.register(f"before-call.{service}", self._answer)
        made.meta.events.register("provide-client-params", self._remember)
        return made

    def leftovers(self) -> list[str]:
        """Everything there is."""
        kinds = (
            self.endpoints,
            self.configs,
            self.models,
            self.targets,
            self.policies,
            self.alarms,
            self.actions,
        )
        return [name for kind in kinds for name in kind]

    def asked(self, operation: str) -> list[dict[str, Any]]:
        """The requests of one kind, in order."""
        return [request for name, request in self.calls if name == operation]

    def _remember(self, params: dict[str, Any], model: Any, **_: Any) -> None:
        self._request = params
        self.calls.append((model.name, params))

    def _answer(self, model: Any, **_: Any) -> tuple[Any, dict[str, Any]]:
        try:
            if self.fail.get(model.name):
                raise self.fail[model.name].pop(0)
            said = getattr(self, xform_name(model.name))(**self._request) or {}
        except Refusal as refusal:
            return Mock(status_code=400), {**refusal.body, "ResponseMetadata": {}}
        return Mock(status_code=200), {**said, "ResponseMetadata": {}}

    # SageMaker

    def create_model(self, ModelName: str, **request: Any) -> None:
        self._new(self.models, ModelName, request, "model")

    def create_endpoint_config(self, EndpointConfigName: str, **request: Any) -> None:
        assert request["ProductionVariants"][0]["ModelName"] in self.models
        self._new(self.configs, EndpointConfigName, request, "endpoint configuration")

    def create_endpoint(self, EndpointName: str, EndpointConfigName: str, **_: Any) -> None:
        variant = self.configs[EndpointConfigName]["ProductionVariants"][0]
        made = Endpoint(EndpointConfigName, "Creating", 0, variant["InitialInstanceCount"], turns=2)
        made.becomes, made.failed = ("Failed", self.unable) if self.unable else ("InService", "")
        self._new(self.endpoints, EndpointName, made, "endpoint")

    def describe_endpoint(self, EndpointName: str) -> dict[str, Any]:
        it = self._endpoint(EndpointName)
        if it.turns:
            it.turns -= 1
        elif it.status == "Deleting":
            del self.endpoints[EndpointName]
            self._endpoint(EndpointName)
        else:
            it.current = it.desired
            if it.status in ("Creating", "Updating"):
                it.status, it.reason = it.becomes, it.failed
                if it.before:
                    it.config, it.before = it.before, ""
                if it.status == "Failed":
                    it.current = 0
        variant = {
            "VariantName": "main",
            "CurrentInstanceCount": it.current,
            "DesiredInstanceCount": it.desired,
        }
        return {
            "EndpointName": EndpointName,
            "EndpointConfigName": it.config,
            "EndpointStatus": it.status,
            "ProductionVariants": [variant],
            **({"FailureReason": it.reason} if it.reason else {}),
        }

    def update_endpoint(
        self, EndpointName: str, EndpointConfigName: str, RetainAllVariantProperties: bool
    ) -> None:
        it = self._endpoint(EndpointName)
        self._settled(it)
        new, old = (self.configs[each]["ProductionVariants"][0] for each in (EndpointConfigName, it.config))
        if new["InstanceType"] != old["InstanceType"] and self.targets:
            raise Refusal("ValidationException", "Deregister the variant as a scalable target first.")
        it.before, it.failed = (it.config, self.takes_back) if self.takes_back else ("", "")
        it.config, it.status, it.turns = EndpointConfigName, "Updating", 1
        if not RetainAllVariantProperties:
            it.desired = new["InitialInstanceCount"]

    def delete_endpoint(self, EndpointName: str) -> None:
        it = self._endpoint(EndpointName)
        self._settled(it)
        it.status, it.turns = "Deleting", 1

    def describe_endpoint_config(self, EndpointConfigName: str) -> dict[str, Any]:
        return self.configs[EndpointConfigName]

    def list_endpoint_configs(self, NameContains: str, **_: Any) -> dict[str, Any]:
        found = [{"EndpointConfigName": each} for each in self.configs if NameContains in each]
        return {"EndpointConfigs": found}

    def list_models(self, NameContains: str, **_: Any) -> dict[str, Any]:
        return {"Models": [{"ModelName": each} for each in self.models if NameContains in each]}

    def delete_endpoint_config(self, EndpointConfigName: str) -> None:
        assert EndpointConfigName not in {each.config for each in self.endpoints.values()}
        del self.configs[EndpointConfigName]

    def delete_model(self, ModelName: str) -> None:
        del self.models[ModelName]

    def invoke_endpoint_async(
        self, EndpointName: str, InputLocation: str, InferenceId: str, **_: Any
    ) -> dict[str, Any]:
        output = self.configs[self._endpoint(EndpointName).config]["AsyncInferenceConfig"]["OutputConfig"]
        status, answer = self.work(self.bucket.get(self.bucket.key_of(InputLocation)))
        places = {
            "OutputLocation": f"{output['S3OutputPath']}/{InferenceId[-36:]}.out",
            "FailureLocation": f"{output['S3FailurePath']}/{InferenceId[-36:]}-error.out",
        }
        if status:
            place = places["OutputLocation" if status < 300 else "FailureLocation"]
            self.bucket.put(self.bucket.key_of(place), answer)
        return {"InferenceId": InferenceId, **places}

    def invoke_endpoint(self, EndpointName: str, Body: bytes, **_: Any) -> dict[str, Any]:
        self._endpoint(EndpointName)
        status, answer = self.work(Body)
        if status >= 300:
            more = {"OriginalStatusCode": status, "OriginalMessage": answer.decode()}
            raise Refusal("ModelError", f"Received client error ({status}) from primary", **more)
        return {"Body": Mock(read=lambda: answer), "ContentType": "application/json"}

    # Service Quotas

    def list_service_quotas(self, ServiceCode: str, **_: Any) -> dict[str, Any]:
        assert ServiceCode == "sagemaker"
        named = [(f"{kind} for endpoint usage", most) for kind, most in self.quotas.items()]
        named.append(("ml.g5.2xlarge for training job usage", 0))
        quotas = [
            {"QuotaName": name, "QuotaCode": f"L-{len(name):08X}", "Value": most} for name, most in named
        ]
        return {"Quotas": quotas}

    # Application Auto Scaling

    def register_scalable_target(self, ResourceId: str, **request: Any) -> dict[str, Any]:
        name = ResourceId.split("/")[1]
        assert self.endpoints[name].status == "InService", "a least of zero is set after the creation"
        self.targets[ResourceId] = request
        it = self.endpoints[name]
        it.desired = min(request["MaxCapacity"], max(request["MinCapacity"], it.desired))
        return {}

    def deregister_scalable_target(self, ResourceId: str, **_: Any) -> None:
        if self.targets.pop(ResourceId, None) is None:
            raise Refusal("ObjectNotFoundException", "No scalable target found")
        self.policies = {
            name: each for name, each in self.policies.items() if each["ResourceId"] != ResourceId
        }

    def put_scaling_policy(self, PolicyName: str, ResourceId: str, **request: Any) -> dict[str, Any]:
        assert ResourceId in self.targets
        self.policies[PolicyName] = {"ResourceId": ResourceId, **request}
        return {"PolicyARN": ACCOUNT % ("autoscaling", f"scalingPolicy:{PolicyName}"), "Alarms": []}

    def delete_scaling_policy(self, PolicyName: str, **_: Any) -> None:
        if self.policies.pop(PolicyName, None) is None:
            raise Refusal("ObjectNotFoundException", "No scaling policy found")

    def put_scheduled_action(self, ScheduledActionName: str, **request: Any) -> None:
        self.actions[ScheduledActionName] = request

    def describe_scheduled_actions(self, ResourceId: str, **_: Any) -> dict[str, Any]:
        found = [name for name, each in self.actions.items() if each["ResourceId"] == ResourceId]
        return {"ScheduledActions": [{"ScheduledActionName": name} for name in found]}

    def delete_scheduled_action(self, ScheduledActionName: str, **_: Any) -> None:
        del self.actions[ScheduledActionName]

    # CloudWatch

    def put_metric_alarm(self, AlarmName: str, **request: Any) -> None:
        self.alarms[AlarmName] = request

    def describe_alarms(self, AlarmNames: list[str], **_: Any) -> dict[str, Any]:
        return {"MetricAlarms": [{"AlarmName": name} for name in AlarmNames if name in self.alarms]}

    def delete_alarms(self, AlarmNames: list[str]) -> None:
        for name in AlarmNames:
            del self.alarms[name]

    def put_metric_data(self, Namespace: str, MetricData: list[dict[str, Any]]) -> None:
        assert Namespace == "Atelier"
        self.metrics += MetricData

    def _endpoint(self, name: str) -> Endpoint:
        if name not in self.endpoints:
            raise Refusal("ValidationException", f"Could not find endpoint {json.dumps(name)}.")
        return self.endpoints[name]

    def _settled(self, it: Endpoint) -> None:
        if it.status not in ("InService", "Failed", "OutOfService"):
            raise Refusal("ValidationException", "Cannot update in-progress endpoint.")

    def _new(self, kept: dict[str, Any], name: str, value: Any, what: str) -> None:
        if name in kept:
            raise Refusal("ValidationException", f"Cannot create already existing {what} {name}.")
        kept[name] = value
