"""Tasks that the rehearsal's ECS is asked to run, and what keeps a rehearsal from starting."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from portal import simulated
from portal.cli import main
from rehearsal.server import RehearsalServer
from rehearsal.tasks import TaskRunner
from tests.rehearsed import client
from tests.waiting import eventually

SAYS = "import os, sys; print('asked for', sys.argv[1:], os.environ['COLOUR']); sys.exit(3)"


@pytest.fixture
def ecs(tmp_path: Path) -> Iterator[tuple[Any, Any]]:
    """Clients of ECS and its logs, with a task definition; a task's program says what it was asked."""

    def nobody(*_: object) -> Any:
        raise AssertionError("no endpoint is made here")

    server = RehearsalServer(nobody)
    program = (sys.executable, "-c", SAYS)
    runner = TaskRunner(server.simulation.account, tmp_path, {"AWS_REGION": "us-east-1"}, program)
    server.front.tasks = runner
    server.start()
    try:
        ecs, logs = client(server.url, "ecs"), client(server.url, "logs")
        ecs.create_cluster(clusterName="atelier")
        container = {"name": "tasks", "image": "tasks", "cpu": 1, "memory": 1}
        ecs.register_task_definition(family="task", containerDefinitions=[container])
        logs.create_log_group(logGroupName="/atelier/tasks")
        yield ecs, logs
    finally:
        runner.close()
        server.stop()


def test_a_task_runs_with_its_command_and_its_end_and_log_are_seen(ecs: tuple[Any, Any]) -> None:
    tasks, logs = ecs
    override = {
        "name": "tasks",
        "command": ["convert", "--name", "x"],
        "environment": [{"name": "COLOUR", "value": "red"}],
    }
    made = tasks.run_task(
        cluster="atelier",
        taskDefinition="task",
        launchType="FARGATE",
        overrides={"containerOverrides": [override]},
    )
    arn = made["tasks"][0]["taskArn"]

    def ended() -> dict[str, Any] | None:
        found: dict[str, Any] = tasks.describe_tasks(cluster="atelier", tasks=[arn])["tasks"][0]
        return found if found["lastStatus"] == "STOPPED" else None

    task = eventually(ended, within=60, about="the task never ended")
    assert task["containers"][0]["exitCode"] == 3
    stream = f"tasks/tasks/{arn.rpartition('/')[2]}"

    def written() -> list[str]:
        said = logs.get_log_events(logGroupName="/atelier/tasks", logStreamName=stream)
        return [each["message"] for each in said["events"]]

    assert eventually(written, within=60) == ["asked for ['convert', '--name', 'x'] red"]


def test_a_rehearsal_without_what_it_needs_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ATELIER_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setattr(simulated, "find_spec", lambda name: None if name == "moto" else object())
    assert main(["up", "--simulate-aws"]) == 1
    said = capsys.readouterr().err
    assert "needs moto, which is not installed here: pip install 'atelier[rehearsal]'" in said
    assert not (tmp_path / "data").exists(), "nothing was begun"
