"""The portal's own metrics in CloudWatch: what endpoints are asked for, and what their workers say of
themselves. A worker describes itself in the bucket every 15 s; from there its figures are published once a
minute, by endpoint alone: instances come and go, and each name of a metric costs money for a month.

So workers need no right in CloudWatch, and the portal no other than that for its Demand.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any

from pydantic import ValidationError

from atelier.contract import keys
from atelier.contract.errors import AtelierError
from atelier.contract.parts import InstanceState
from atelier.storage.base import BlobStore
from portal.adapters.aws.names import Names
from portal.adapters.aws.scaling import CAPACITY, DEMAND, NAMESPACE
from portal.services.ports import Clock

WORKER_SECONDS = 60.0
"""How often workers' figures are published; older descriptions are of workers that are gone."""


class Telling:
    """`cloudwatch` is a boto3 client. Methods raise what boto3 raises."""

    def __init__(self, cloudwatch: Any, store: BlobStore, names: Names, clock: Clock) -> None:
        self._cloudwatch = cloudwatch
        self._store = store
        self._names = names
        self._clock = clock
        self._told: dict[str, float] = {}

    def demand(self, name: str, parts: int, capacity: int) -> None:
        """Publish what an endpoint is asked for and how many instances it is to have, for its alarms; and
        its workers' figures, where it is time.
        """
        data = [
            self._datum(DEMAND, name, parts, "Count", quick=True),
            self._datum(CAPACITY, name, capacity, "Count", quick=True),
        ]
        passed = self._clock.monotonic() - self._told.get(name, float("-inf"))
        if passed >= WORKER_SECONDS:
            data += self._of_workers(name)
        self._cloudwatch.put_metric_data(Namespace=NAMESPACE, MetricData=data)
        if passed >= WORKER_SECONDS:
            self._told[name] = self._clock.monotonic()

    def _of_workers(self, name: str) -> list[dict[str, Any]]:
        return [
            self._datum(metric, name, value, unit)
            for state in self._states(name)
            for metric, value, unit in _figures(state)
        ]

    def _states(self, name: str) -> Iterable[InstanceState]:
        """The endpoint's workers that described themselves lately."""
        try:
            for blob in self._store.list(keys.instance(name, "x").removesuffix("x.json")):
                if blob.modified >= self._clock.now() - WORKER_SECONDS:
                    state = InstanceState.model_validate(json.loads(self._store.get(blob.key)))
                    if state.status != "stopped":
                        yield state
        except (AtelierError, ValidationError, ValueError):
            return  # the endpoints' watch says what is wrong with the store or a description

    def _datum(
        self, metric: str, name: str, value: float, unit: str, *, quick: bool = False
    ) -> dict[str, Any]:
        return {
            "MetricName": metric,
            "Dimensions": [{"Name": "Endpoint", "Value": self._names.endpoint(name)}],
            "Timestamp": datetime.fromtimestamp(self._clock.now(), UTC),
            "Value": float(value),
            "Unit": unit,
            "StorageResolution": 1 if quick else 60,
        }


def _figures(state: InstanceState) -> Iterator[tuple[str, float, str]]:
    """(metric, value, unit) of a worker: of a GPU's memory what its driver says, else what the engine
    counts.
    """
    gpu = state.gpu
    if gpu is not None:
        yield "GpuMemoryUsed", gpu.memory_used, "Bytes"
        yield "GpuMemoryFree", gpu.memory_total - gpu.memory_used, "Bytes"
        yield "GpuUtilization", gpu.busy, "Percent"
    else:
        where = "Gpu" if state.device.startswith("cuda") else ""
        yield f"{where}MemoryUsed", state.memory_used, "Bytes"
        yield f"{where}MemoryFree", state.memory_free, "Bytes"
    yield "PartsInWork", state.parts, "Count"
    yield "StepsPerSecond", state.steps_per_second, "Count/Second"
