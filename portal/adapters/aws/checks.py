"""What of AWS the studio leans on, each looked at by one cheap call that its role may make anyway."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from atelier.contract.errors import NotReady
from portal.adapters.aws import failures
from portal.aws_options import AwsOptions
from portal.services.ports import PlatformPart

MANY_WAITING = 1000
"""Notices in the queue that nobody reads: more than a minute's work of any studio."""


def parts(client: Callable[[str], Any], options: AwsOptions, secret: str) -> tuple[PlatformPart, ...]:
    """The parts beside the bucket, which is the store. `secret` is the name of one that there must be."""

    def queue() -> str:
        if not options.aws_queue_url:
            raise NotReady("No queue is known that tells of ended work. Set ATELIER_AWS_QUEUE_URL.")
        told = _asked(
            "looking at the queue of ended work",
            lambda: client("sqs").get_queue_attributes(
                QueueUrl=options.aws_queue_url, AttributeNames=["ApproximateNumberOfMessages"]
            ),
        )
        waiting = int(told["Attributes"]["ApproximateNumberOfMessages"])
        if waiting > MANY_WAITING:
            raise NotReady(f"{waiting} notices of ended work wait: no dispatcher reads them.")
        return f"It answers; {waiting} notices wait."

    def secrets() -> str:
        _asked(
            f"looking at the secret {secret!r}",
            lambda: client("secretsmanager").describe_secret(SecretId=secret),
        )
        return "The deployment's keys are there."

    def cluster() -> str:
        if not options.aws_task_cluster or not options.aws_task_definition:
            raise NotReady(
                "No cluster or no task definition is known for CPU tasks. Set ATELIER_AWS_TASK_CLUSTER and "
                "ATELIER_AWS_TASK_DEFINITION."
            )
        told = _asked(
            "looking at the cluster of CPU tasks",
            lambda: client("ecs").describe_clusters(clusters=[options.aws_task_cluster]),
        )
        found = told.get("clusters") or [{}]
        if found[0].get("status") != "ACTIVE":
            raise NotReady(f"There is no active cluster {options.aws_task_cluster!r} in this account.")
        return f"{found[0].get('runningTasksCount', 0)} tasks run on it."

    return (
        PlatformPart("queue", "Queue of ended work", "The queue of ended work cannot be read.", queue),
        PlatformPart("secrets", "Secrets", "The deployment's keys cannot be looked at.", secrets),
        PlatformPart("cluster", "Cluster of CPU tasks", "The cluster of CPU tasks is not there.", cluster),
    )


def _asked(doing: str, call: Callable[[], Any]) -> Any:
    try:
        return call()
    except (ClientError, BotoCoreError) as error:
        raise failures.translated(error, doing) from error
