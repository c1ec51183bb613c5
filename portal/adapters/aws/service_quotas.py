"""What the account may have, before anything is asked for: Service Quotas of SageMaker, in words.

A quota is found by the name of its usage ("ml.g5.2xlarge for endpoint usage"), since its code (L-...) is
known to AWS alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from portal.adapters.aws import failures
from portal.services.ports import EndpointSpec

SERVICE = "sagemaker"
_USAGE = " for endpoint usage"


@dataclass(frozen=True)
class Quota:
    """How many instances of one kind all endpoints of the account may have, and the quota's code."""

    code: str
    most: int


def read(client: Any) -> dict[str, Quota]:
    """Quotas by kind of instance, in force in this account and region. Raises what boto3 raises."""
    found = {}
    for page in client.get_paginator("list_service_quotas").paginate(ServiceCode=SERVICE):
        for each in page["Quotas"]:
            kind, usage, _ = each["QuotaName"].partition(_USAGE)
            if usage:
                found[kind] = Quota(each["QuotaCode"], int(each["Value"]))
    return found


def findings(quotas: Mapping[str, Quota], specs: Iterable[EndpointSpec]) -> list[str]:
    """What of the endpoints the account does not allow, a sentence each; endpoints of one kind of instance
    share its quota.
    """
    by_kind: dict[str, list[EndpointSpec]] = {}
    for each in specs:
        by_kind.setdefault(each.instance_type, []).append(each)
    found = []
    for kind, those in sorted(by_kind.items()):
        names = ", ".join(each.name for each in those)
        most, quota = sum(each.max_instances for each in those), quotas.get(kind)
        if quota is None:
            found.append(
                f"Service Quotas knows no {kind} for endpoints in this region, which {names} would run on. "
                "Choose another instance_type, or another region."
            )
        elif quota.most < most:
            found.append(_short(kind, quota, names, most))
    return found


def _short(kind: str, quota: Quota, names: str, most: int) -> str:
    first = max(0, quota.most)
    why = "new accounts begin with 0 of most GPU instances" if not first else "the others would not start"
    return (
        f"The account may have {first} {kind} for endpoints, and {names} may want {most}: {why}. "
        f"Ask for more: aws service-quotas request-service-quota-increase --service-code {SERVICE} "
        f"--quota-code {quota.code} --desired-value {most}"
    )


def preflight(client: Any, specs: Iterable[EndpointSpec]) -> list[str]:
    """As `findings`; a sentence where AWS does not tell."""
    wanted = [each for each in specs if each.instance_type]
    if not wanted:
        return []
    try:
        return findings(read(client), wanted)
    except (ClientError, BotoCoreError) as error:
        return [failures.translated(error, "reading the account's quotas").message]
