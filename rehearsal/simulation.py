"""SageMaker on a clock, in one account: endpoints, asynchronous requests, messages, metrics, scaling."""

from __future__ import annotations

import json
import logging
import time
import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from rehearsal.account import Account
from rehearsal.clock import SimulatedClock
from rehearsal.endpoint import Endpoint, check_quota
from rehearsal.faults import Chance
from rehearsal.metrics import Key, Metrics, key
from rehearsal.refusals import Refused
from rehearsal.scaling import Activity, Scaler
from rehearsal.variant import Answer, Durations, Invocation, Variant, Worker

log = logging.getLogger(__name__)

TICK, MINUTE = 10.0, 60.0
CARRIED_SECONDS = 65.0
"""Real seconds for which a caller's number goes on: who publishes every minute does so in every simulated
minute, too.
"""
OpenWorker = Callable[[str, str, Variant], Worker]
"""From endpoint, instance and variant to a worker that was not started."""


class Simulation:
    """One account's SageMaker. Every method may be called from any thread."""

    def __init__(
        self,
        account: Account,
        clock: SimulatedClock,
        open_worker: OpenWorker,
        *,
        chance: Chance | None = None,
        durations: Durations | None = None,
    ) -> None:
        self.account = account
        self.clock = clock
        self.chance = chance or Chance()
        self.durations = durations or Durations()
        self.metrics = Metrics()
        self.endpoints: dict[str, Endpoint] = {}
        self._open_worker = open_worker
        self._scaler = Scaler(account, self.metrics, self._of_resource)
        self._put: dict[Key, float] = {}
        """When callers put each metric last, by time.monotonic."""
        clock.every(TICK, self._tick)

    @property
    def activities(self) -> list[Activity]:
        """What scaling did, the newest last."""
        return self._scaler.activities

    # --- Surroundings of endpoints

    def open_worker(self, endpoint: str, instance: str, variant: Variant) -> Worker:
        """See Surroundings."""
        return self._open_worker(endpoint, instance, variant)

    def quota_left(self) -> int | None:
        """See Surroundings."""
        most = self.chance.faults.quota
        return None if most is None else most - sum(each.wanted for each in self.endpoints.values())

    def read(self, uri: str) -> bytes:
        """See Surroundings."""
        return self.account.read(uri)

    def finished(self, endpoint: Endpoint, invocation: Invocation, answer: Answer, reason: str) -> None:
        """See Surroundings."""
        if invocation.answered is not None:
            invocation.answered(answer, endpoint.variant.name)
            return
        where = invocation.failure if reason else invocation.output
        if where:
            # Where a worker went without a word, SageMaker leaves its own sentence.
            said = answer.body if answer.status else json.dumps({"message": reason}).encode()
            try:
                self.account.write(where, said, answer.content_type)
            except LookupError as error:
                reason = reason or f"The answer could not be stored. {error}"
        self._count(endpoint, "InvocationFailures" if reason else "InvocationsProcessed", 1.0)
        topic = endpoint.variant.error_topic if reason else endpoint.variant.success_topic
        if topic is not None:
            self._tell(topic, _message(self.account.region, self.clock.now(), endpoint, invocation, reason))

    # --- Calls

    def create(self, name: str, config: str, tags: list[dict[str, str]]) -> str:
        """CreateEndpoint; the ARN. Raises Refused."""
        with self.clock.lock:
            if name in self.endpoints:
                raise Refused("ValidationException", f"Cannot create already existing endpoint {name!r}.")
            variant = self.account.variant(config)
            check_quota(self.quota_left(), variant.count, variant.instance_type)
            made = Endpoint(name, variant, self, self.clock, self.chance, self.durations)
            arn = self.account.record_endpoint(name, config, tags)
            self.endpoints[name] = made
            made.create()
            return arn

    def update(self, name: str, config: str, *, keep_count: bool) -> None:
        """UpdateEndpoint. Raises Refused."""
        with self.clock.lock:
            self.get(name).update(self.account.variant(config), keep_count=keep_count)

    def resize(self, name: str, count: int) -> None:
        """UpdateEndpointWeightsAndCapacities, of its one variant. Raises Refused."""
        with self.clock.lock:
            self.get(name).resize(count)

    def delete(self, name: str) -> None:
        """DeleteEndpoint. Raises Refused where there is none, or one that is being made or changed."""
        with self.clock.lock:
            endpoint = self.get(name)
            if endpoint.status in ("Creating", "Updating"):
                raise Refused(
                    "ValidationException", f"Cannot update in-progress endpoint {name!r}: {endpoint.status}."
                )

            def gone() -> None:
                self.endpoints.pop(name, None)
                self.account.forget_endpoint(name)

            endpoint.delete(gone)

    def get(self, name: str) -> Endpoint:
        """The endpoint. Raises Refused where there is none."""
        found = self.endpoints.get(name)
        if found is None:
            raise Refused("ValidationException", f"Could not find endpoint {name!r}.")
        return found

    def invoke_async(self, name: str, invocation: Invocation, extension: str, filename: str) -> Invocation:
        """InvokeEndpointAsync: queue it; its locations are set then. Raises Refused."""
        with self.clock.lock:
            endpoint = self._to_invoke(name)
            variant = endpoint.variant
            if variant.output is None:
                raise Refused("ValidationException", f"Endpoint {name!r} is not asynchronous.")
            drawn = str(uuid.uuid4())
            folder = "/".join(each.strip("/") for each in (variant.output, extension) if each)
            invocation.output = f"{folder}/{filename or drawn + '.out'}"
            if variant.failure:
                invocation.failure = f"{variant.failure.rstrip('/')}/{drawn}-error.out"
            invocation.received = self.clock.now()
            endpoint.accept(invocation)
            return invocation

    def invoke(self, name: str, invocation: Invocation) -> None:
        """InvokeEndpoint: hand it to an instance at once. Raises Refused."""
        with self.clock.lock:
            endpoint = self._to_invoke(name)
            if endpoint.variant.asynchronous:
                raise Refused("ValidationException", f"Endpoint {name!r} takes asynchronous requests alone.")
            if not endpoint.serving:
                raise Refused("ServiceUnavailable", "No instance is in service.", 503)
            invocation.received = self.clock.now()
            self._count(endpoint, "Invocations", 1.0)
            endpoint.accept(invocation)

    def collect(self) -> None:
        """Take over what callers put into CloudWatch since the last look."""
        with self.clock.lock:
            for metric, value in self.account.new_numbers():
                self.metrics.put(metric, value, self.clock.now())
                self._put[metric] = time.monotonic()

    def carry_on(self) -> None:
        """Let callers' numbers go on while real time is short: called before a clock moves by itself."""
        now, real = self.clock.now(), time.monotonic()
        for metric, put in self._put.items():
            last = self.metrics.last(metric)
            if last is not None and real - put < CARRIED_SECONDS and now - last[0] >= TICK / 2:
                self.metrics.put(metric, last[1], now)

    def close(self) -> None:
        """Kill every worker."""
        with self.clock.lock:
            for endpoint in self.endpoints.values():
                endpoint.kill()

    # --- On the clock

    def _tick(self) -> None:
        now = self.clock.now()
        for endpoint in list(self.endpoints.values()):
            endpoint.look()
        self._scaler.tick(now)
        if now % MINUTE < 1.0:
            for endpoint in list(self.endpoints.values()):
                self._measure(endpoint)
        for name, endpoint in self.endpoints.items():
            self.account.show_endpoint(name, endpoint.variant.config, endpoint.status)

    def _measure(self, endpoint: Endpoint) -> None:
        """SageMaker's metrics of an asynchronous endpoint's queue."""
        if not endpoint.variant.asynchronous:
            return
        backlog, serving = len(endpoint.waiting) + endpoint.busy, endpoint.serving
        self._count(endpoint, "ApproximateBacklogSize", backlog)
        self._count(endpoint, "HasBacklogWithoutCapacity", float(backlog > 0 and serving == 0))
        self._count(endpoint, "ApproximateAgeOfOldestRequest", endpoint.oldest())
        if serving:
            self._count(endpoint, "ApproximateBacklogSizePerInstance", backlog / serving)

    def _count(self, endpoint: Endpoint, name: str, value: float) -> None:
        for dimensions in (
            {"EndpointName": endpoint.name},
            {"EndpointName": endpoint.name, "VariantName": endpoint.variant.name},
        ):
            metric, now = key("AWS/SageMaker", name, dimensions), self.clock.now()
            self.metrics.put(metric, float(value), now)
            self.account.tell_number(metric, float(value), now)

    def _tell(self, topic: str, message: Mapping[str, Any]) -> None:
        """Publish a message, as well as the faults in force let it."""
        faults = self.chance.faults
        if self.chance.strikes(faults.lost):
            return
        times = 2 if self.chance.strikes(faults.doubled) else 1
        for _ in range(times):
            if self.chance.strikes(faults.late):
                self.clock.after(faults.late_seconds, lambda: self.account.publish(topic, message))
            else:
                self.account.publish(topic, message)

    def _to_invoke(self, name: str) -> Endpoint:
        endpoint = self.endpoints.get(name)
        if endpoint is None or endpoint.status in ("Creating", "Failed", "Deleting"):
            raise Refused("ValidationError", f"Endpoint {name} of account not found.")
        return endpoint

    def _of_resource(self, resource: str) -> Endpoint | None:
        kind, _, rest = resource.partition("/")
        return self.endpoints.get(rest.partition("/")[0]) if kind == "endpoint" else None


def _message(
    region: str, now: float, endpoint: Endpoint, invocation: Invocation, reason: str
) -> dict[str, Any]:
    """What SageMaker publishes of an asynchronous request.

    https://docs.aws.amazon.com/sagemaker/latest/dg/async-inference-check-predictions.html
    """
    message: dict[str, Any] = {
        "awsRegion": region,
        "eventTime": _stamp(now),
        "receivedTime": _stamp(invocation.received),
        "invocationStatus": "Failed" if reason else "Completed",
        "requestParameters": {
            "contentType": invocation.content_type,
            "endpointName": endpoint.name,
            "inputLocation": invocation.input,
        },
        "inferenceId": invocation.id,
        "eventVersion": "1.0",
        "eventSource": "aws:sagemaker",
        "eventName": "InferenceResult",
    }
    if reason:
        message["failureReason"] = reason
        if invocation.failure:
            message["responseParameters"] = {"outputLocation": invocation.failure}
    else:
        message["responseParameters"] = {
            "contentType": invocation.accept or "application/json",
            "outputLocation": invocation.output,
        }
    return message


def _stamp(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
