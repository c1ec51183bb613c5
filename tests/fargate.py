"""What Fargate is on moto, which keeps tasks and runs none: programs of tasks as child processes."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from moto.ecs.models import ecs_backends
from moto.moto_api import state_manager

from atelier.processes import Child, spawn
from portal.aws_options import AwsOptions
from tests.moto_aws import ACCOUNT, REGION, Aws, environment

STREAM = "tasks/tasks/{}"


class Fargate:
    """A cluster `tasks` with one task definition. `client` is given to the adapter: through it this hears of
    tasks that are to run, and of their end.
    """

    def __init__(
        self, aws: Aws, folder: Path, argv: tuple[str, ...] = (sys.executable, "-m", "workers.tasks")
    ) -> None:
        self._aws, self._folder, self._argv = aws, folder, argv
        self._children: dict[str, Child] = {}
        self._threads: list[threading.Thread] = []
        self._logs = aws.client("logs")
        state_manager.set_transition("ecs::task", {"progression": "manual", "times": 10**9})
        ecs = aws.client("ecs")
        ecs.create_cluster(clusterName="tasks")
        # Without a network of its own, for which moto would have to play all of EC2.
        ecs.register_task_definition(
            family="tasks",
            containerDefinitions=[{"name": "tasks", "image": "tasks", "cpu": 1, "memory": 1}],
        )
        self.options = AwsOptions(
            aws_prefix="atelier",
            aws_task_cluster="tasks",
            aws_task_definition="tasks:1",
            aws_subnets=("subnet-1", "subnet-2"),
            aws_security_groups=("sg-1",),
        )
        self.requests: list[dict[str, Any]] = []
        if not self._logs.describe_log_groups(logGroupNamePrefix="/atelier/tasks")["logGroups"]:
            self._logs.create_log_group(logGroupName="/atelier/tasks")

    @property
    def client(self) -> Callable[[str], Any]:
        """A factory of clients, as the adapter takes it."""

        def made(service: str) -> Any:
            client = self._aws.client(service)
            if service == "ecs":
                client.meta.events.register("provide-client-params.ecs.RunTask", self._asked)
                client.meta.events.register("after-call.ecs.RunTask", self._started)
                client.meta.events.register("after-call.ecs.StopTask", self._stopped)
            return client

        return made

    def close(self) -> None:
        """Stop what still runs."""
        for child in list(self._children.values()):
            child.stop(0.5)
        for thread in self._threads:
            thread.join(60)

    def _asked(self, params: dict[str, Any], **_: Any) -> None:
        self.requests.append(params)

    def _started(self, parsed: dict[str, Any], **_: Any) -> None:
        for task in parsed.get("tasks", ()):
            number = task["taskArn"].rpartition("/")[2]
            log = self._folder / f"{number}.log"
            child = spawn(
                [*self._argv, *self.requests[-1]["overrides"]["containerOverrides"][0]["command"]],
                {"OMP_NUM_THREADS": "1", **environment(self._aws.url)},
                log=log,
            )
            self._children[number] = child
            thread = threading.Thread(target=self._follow, args=(number, child, log))
            self._threads.append(thread)
            thread.start()

    def _stopped(self, parsed: dict[str, Any], **_: Any) -> None:
        child = self._children.get(parsed["task"]["taskArn"].rpartition("/")[2])
        if child is not None:
            child.stop(0.5)

    def _follow(self, number: str, child: Child, log: Path) -> None:
        status = child.wait(120)
        stream = STREAM.format(number)
        self._logs.create_log_stream(logGroupName="/atelier/tasks", logStreamName=stream)
        now = int(time.time() * 1000)
        events = [{"timestamp": now, "message": line} for line in log.read_text().splitlines() if line]
        if events:
            self._logs.put_log_events(logGroupName="/atelier/tasks", logStreamName=stream, logEvents=events)
        task: Any = next(
            each
            for tasks in ecs_backends[ACCOUNT][REGION].tasks.values()
            for each in tasks.values()
            if each.task_arn.endswith(number)
        )
        task._status = task.desired_status = "STOPPED"
        task.stopped_reason = "Essential container in task exited"
        for container in task.containers:
            container.exitCode = status
