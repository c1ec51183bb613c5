"""CPU tasks as one-off tasks of Fargate, with a role of their own."""

from __future__ import annotations

import json
import logging
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from botocore.exceptions import BotoCoreError, ClientError

from atelier.contract import keys
from atelier.contract.errors import InvalidRequest, NotFound, NotReady, WorkerUnavailable
from atelier.storage.base import BlobStore
from portal.adapters import task_program
from portal.adapters.aws import failures
from portal.aws_options import AwsOptions
from portal.services.ports import Clock, TaskSpec, TaskState, TaskStatus

log = logging.getLogger(__name__)

CONTAINER = "tasks"
"""The one container of the task definition, and the first word of its log streams."""
LOOK_SECONDS, ASK_SECONDS = 1.0, 5.0
"""How often the store is looked at for a task's result, and ECS asked whether it still runs."""
SETTLES_SECONDS = 60.0
"""So young may a task be that ECS does not know yet: its answers follow its own acts a little later."""
FRESH_SECONDS = 300.0
"""So old may the note of a running task be: it is written anew then, or it would be swept as a leftover."""
LONGEST_OVERRIDES = 8192
"""Characters of a task's overrides that ECS takes."""
LOG_LINES, LOG_TAIL = 200, 8 * 2**10


class FargateTasks:
    """Tasks on ECS. `client` gives a boto3 client by the name of its service. What ECS calls a task stands in
    the store, so that any of the portal's processes finds it; its result as everywhere under its own key.
    What stands there is kept fresh by whoever looks at the task (`describe`).
    """

    def __init__(
        self,
        client: Callable[[str], Any],
        options: AwsOptions,
        store: BlobStore,
        store_url: str,
        *,
        clock: Clock,
        log_level: str = "info",
        look_seconds: float = LOOK_SECONDS,
    ) -> None:
        self._ecs, self._logs = client("ecs"), client("logs")
        self._options, self._store, self._store_url = options, store, store_url
        self._clock, self._log_level, self._look = clock, log_level, look_seconds
        self._closing = threading.Event()

    def start(self, spec: TaskSpec) -> str:
        """See Tasks. A file of the portal's own disk is brought into the store for it."""
        ticket = uuid.uuid4().hex
        request = self._request(spec, ticket, self._source(spec, ticket))
        try:
            told = self._ecs.run_task(**request)
        except (ClientError, BotoCoreError) as error:
            self._forget(ticket)
            raise failures.translated(error, "starting a CPU task") from error
        if not told.get("tasks"):
            self._forget(ticket)
            why = "; ".join(str(each.get("reason")) for each in told.get("failures", ())) or "no reason given"
            raise WorkerUnavailable(f"Fargate did not start the task: {why}. Try again in a few minutes.")
        self._store.put(keys.task_run(ticket), str(told["tasks"][0]["taskArn"]).encode())
        return ticket

    def describe(self, ticket: str, *, wait: float = 0.0) -> TaskStatus:
        """See Tasks. Who still waits when this process closes learns no more: the task is UNKNOWN to it."""
        arn = self._arn(ticket)
        if arn is None:
            return TaskStatus(TaskState.UNKNOWN)
        begun, asked = time.monotonic(), float("-inf")
        while True:
            found = task_program.left(self._store, ticket)
            if found is not None:
                return found
            passed = time.monotonic() - begun
            if passed - asked >= ASK_SECONDS:
                asked = passed
                over = self._over(ticket, arn)
                if over is not None:
                    # It may have written its result between our two looks.
                    return task_program.left(self._store, ticket) or over
            if passed >= wait:
                return TaskStatus(TaskState.RUNNING)
            if self._closing.wait(min(self._look, wait - passed)):
                return TaskStatus(TaskState.UNKNOWN)

    def stop(self, ticket: str) -> None:
        """See Tasks. What it writes while it ends is swept with other leftovers of tasks."""
        arn = self._arn(ticket)
        if arn is not None:
            try:
                self._ecs.stop_task(
                    cluster=self._cluster, task=arn, reason="The studio does not need it any more."
                )
            except (ClientError, BotoCoreError) as error:
                if not _gone(error):
                    raise failures.translated(error, "stopping a CPU task") from error
        self._forget(ticket)

    def logs(self, ticket: str) -> str:
        """See Tasks. From CloudWatch Logs, some seconds late."""
        arn = self._arn(ticket)
        if arn is None:
            return ""
        try:
            told = self._logs.get_log_events(
                logGroupName=f"/{self._options.aws_prefix}/tasks",
                logStreamName=f"{CONTAINER}/{CONTAINER}/{arn.rpartition('/')[2]}",
                limit=LOG_LINES,
                startFromHead=False,
            )
        except (ClientError, BotoCoreError) as error:
            if not _gone(error):
                log.warning("%s", failures.translated(error, "reading a task's log").message)
            return ""
        return "\n".join(str(each["message"]) for each in told["events"])[-LOG_TAIL:]

    def close(self) -> None:
        """See Tasks. AWS runs them: an import goes on, and the next process follows it."""
        self._closing.set()

    @property
    def _cluster(self) -> str:
        if not self._options.aws_task_cluster or not self._options.aws_task_definition:
            raise NotReady(
                "CPU tasks need a cluster and a task definition. Set ATELIER_AWS_TASK_CLUSTER and "
                "ATELIER_AWS_TASK_DEFINITION (docs/settings.md)."
            )
        return self._options.aws_task_cluster

    def _request(self, spec: TaskSpec, ticket: str, source: str) -> dict[str, Any]:
        words = task_program.words(spec, ticket, self._store_url, source, self._log_level)
        overrides = {"containerOverrides": [{"name": CONTAINER, "command": [*words, "--log-format", "json"]}]}
        if len(json.dumps(overrides)) > LONGEST_OVERRIDES:
            raise InvalidRequest("The names in this task are longer than ECS takes. Shorten the file's name.")
        labels = {**self._options.aws_tags, "atelier:task": ticket}
        return {
            "cluster": self._cluster,
            "taskDefinition": self._options.aws_task_definition,
            "launchType": "FARGATE",
            "count": 1,
            "clientToken": ticket,
            "startedBy": self._options.aws_prefix,
            "overrides": overrides,
            "networkConfiguration": {
                "awsvpcConfiguration": {
                    "subnets": list(self._options.aws_subnets),
                    "securityGroups": list(self._options.aws_security_groups),
                    "assignPublicIp": "DISABLED",
                }
            },
            "tags": [{"key": key, "value": value} for key, value in sorted(labels.items())],
        }

    def _source(self, spec: TaskSpec, ticket: str) -> str:
        """The source as the task can read it."""
        parts = urlsplit(spec.source)
        if parts.scheme != "file":
            return spec.source
        path = Path(unquote(parts.path))
        if path.is_dir():
            raise InvalidRequest(
                f"The folder {path.name} lies on this machine, where a task on AWS does not see it. Import "
                "the model from where it was published, or its single file."
            )
        if not path.is_file():
            raise NotFound(f"There is no file {path}.")
        self._store.put(keys.task_source(ticket), path)
        return keys.task_source(ticket)

    def _arn(self, ticket: str) -> str | None:
        try:
            return self._store.get(keys.task_run(ticket)).decode()
        except NotFound:
            return None

    def _age(self, ticket: str) -> float | None:
        """Seconds since it was noted what ECS calls the task; None where that is gone."""
        noted = self._store.stat(keys.task_run(ticket))
        return None if noted is None else self._clock.now() - noted.modified

    def _over(self, ticket: str, arn: str) -> TaskStatus | None:
        """How a task ended that left no result; None while it runs, or where ECS cannot say now."""
        try:
            told = self._ecs.describe_tasks(cluster=self._cluster, tasks=[arn])
        except (ClientError, BotoCoreError) as error:
            log.warning("%s", failures.translated(error, "looking at a CPU task").message)
            return None
        age = self._age(ticket)
        if not told.get("tasks"):
            new = age is not None and age < SETTLES_SECONDS
            return None if new else TaskStatus(TaskState.UNKNOWN)
        task = told["tasks"][0]
        if task.get("lastStatus") != "STOPPED":
            if age is not None and age >= FRESH_SECONDS:
                self._store.put(keys.task_run(ticket), arn.encode())
            return None
        container: dict[str, Any] = next(iter(task.get("containers", ())), {})
        code = container.get("exitCode")
        said = [task.get("stoppedReason"), container.get("reason")]
        why = " ".join(str(each).rstrip(".") + "." for each in said if each)
        status = f" with status {code}" if code is not None else ""
        lost = f"The task ended{status} before it said how it went. {why} Try again.".replace("  ", " ")
        return TaskStatus(TaskState.FAILED, error=WorkerUnavailable(lost).body())

    def _forget(self, ticket: str) -> None:
        for blob in list(self._store.list(f"tasks/{ticket}/")):
            self._store.delete(blob.key)


def _gone(error: ClientError | BotoCoreError) -> bool:
    """Whether what was asked for is over, or was never there."""
    if not isinstance(error, ClientError):
        return False
    code = failures.code_of(error)
    return code == "ResourceNotFoundException" or (
        code == "InvalidParameterException" and "not found" in failures.said(error).lower()
    )
