"""SageMaker's calls about one endpoint: seen, made, changed, taken away. Nothing here waits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from botocore.exceptions import ClientError

from portal.adapters.aws import failures
from portal.adapters.aws.names import VARIANT, Names
from portal.adapters.aws.requests import Wanted
from portal.services.ports import EndpointState, EndpointStatus

IN_TRANSITION = frozenset({"Creating", "Updating", "SystemUpdating", "RollingBack"})
"""Statuses in which an endpoint can be neither changed nor deleted."""
BROKEN = frozenset({"Failed", "OutOfService", "UpdateRollbackFailed"})
"""Statuses that end only with the endpoint."""


@dataclass(frozen=True)
class Seen:
    """What DescribeEndpoint says: `config` is the configuration in force, `current` the instances that serve,
    `desired` how many there are to be.
    """

    status: str
    config: str
    current: int
    desired: int
    reason: str


def status_of(seen: Seen, reason: str, note: str) -> EndpointStatus:
    """SageMaker's status as a fleet's. `reason` is in words already."""
    serving, leaving = min(seen.current, seen.desired), max(0, seen.current - seen.desired)
    if seen.status in BROKEN:
        return EndpointStatus(EndpointState.FAILED, 0, reason or f"SageMaker says {seen.status}.", note=note)
    if seen.status == "Deleting":
        return EndpointStatus(EndpointState.DELETING, 0, reason, note=note)
    if seen.status == "Creating":
        return EndpointStatus(EndpointState.CREATING, 0, reason, max(1, seen.desired), note=note)
    if seen.status == "RollingBack":
        note = f"The last change failed and AWS takes it back. {note}".strip()
    if serving:
        state = EndpointState.IN_SERVICE
    else:
        state = EndpointState.STARTING if seen.desired else EndpointState.ASLEEP
    return EndpointStatus(state, serving, reason, seen.desired, leaving, note)


class Endpoints:
    """`client` is a boto3 client of SageMaker. Methods raise what boto3 raises."""

    def __init__(self, client: Any, names: Names) -> None:
        self._client = client
        self._names = names

    def see(self, name: str) -> Seen | None:
        """How the endpoint is; None where there is none."""
        try:
            told = self._client.describe_endpoint(EndpointName=self._names.endpoint(name))
        except ClientError as error:
            if failures.missing(error):
                return None
            raise
        variants = {each["VariantName"]: each for each in told.get("ProductionVariants", [])}
        main = variants.get(VARIANT, {})
        return Seen(
            told["EndpointStatus"],
            told.get("EndpointConfigName", ""),
            int(main.get("CurrentInstanceCount", 0)),
            int(main.get("DesiredInstanceCount", main.get("CurrentInstanceCount", 0))),
            told.get("FailureReason", ""),
        )

    def make(self, wanted: Wanted) -> None:
        """Begin to create the endpoint."""
        self._prepare(wanted)
        self._unless_taken(self._client.create_endpoint, wanted.endpoint)

    def change(self, wanted: Wanted, *, keep_count: bool) -> None:
        """Begin to give the endpoint its new configuration; with as many instances as it is to have now, or
        as the configuration says.
        """
        self._prepare(wanted)
        request = {key: wanted.endpoint[key] for key in ("EndpointName", "EndpointConfigName")}
        self._client.update_endpoint(**request, RetainAllVariantProperties=keep_count)

    def instance_type(self, config: str) -> str:
        """The kind of instance of a configuration; empty where that is gone."""
        try:
            told = self._client.describe_endpoint_config(EndpointConfigName=config)
        except ClientError as error:
            if failures.missing(error):
                return ""
            raise
        return str(told["ProductionVariants"][0].get("InstanceType", ""))

    def delete(self, name: str) -> None:
        """Begin to delete the endpoint itself."""
        try:
            self._client.delete_endpoint(EndpointName=self._names.endpoint(name))
        except ClientError as error:
            if not failures.missing(error):
                raise

    def sweep(self, name: str, kept: tuple[str, ...] = ()) -> None:
        """Delete the endpoint's configurations and models but those `kept`."""
        prefix = self._names.endpoint(name)
        for listing, key, field, removal in (
            ("list_endpoint_configs", "EndpointConfigs", "EndpointConfigName", "delete_endpoint_config"),
            ("list_models", "Models", "ModelName", "delete_model"),
        ):
            for page in self._client.get_paginator(listing).paginate(NameContains=prefix):
                for each in page[key]:
                    found = each[field]
                    if self._names.is_version(name, found) and found not in kept:
                        self._unless_missing(getattr(self._client, removal), {field: found})

    def _prepare(self, wanted: Wanted) -> None:
        self._unless_taken(self._client.create_model, wanted.model)
        self._unless_taken(self._client.create_endpoint_config, wanted.config)

    def _unless_taken(self, call: Any, request: dict[str, Any]) -> None:
        """Its name says all of it, so what is there already is the same."""
        try:
            call(**request)
        except ClientError as error:
            if not failures.taken(error):
                raise

    def _unless_missing(self, call: Any, request: dict[str, Any]) -> None:
        try:
            call(**request)
        except ClientError as error:
            if not failures.missing(error):
                raise
