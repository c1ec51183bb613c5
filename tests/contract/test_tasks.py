"""What every adapter of the Tasks port keeps. One of another technology runs this same class with its own
fixture.
"""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from atelier.contract import keys
from atelier.contract.errors import AtelierError
from atelier.storage.base import BlobStore
from atelier.storage.filesystem import FilesystemBlobStore
from atelier.storage.opening import open_store
from portal.adapters.aws.tasks import FargateTasks
from portal.adapters.local.clock import SystemClock
from portal.adapters.local.tasks import LocalTasks
from portal.adapters.memory.clock import ManualClock
from portal.aws_options import AwsOptions
from portal.services.orphans import AGE_SECONDS
from portal.services.ports import TaskAction, Tasks, TaskSpec, TaskState, TaskStatus
from tests.fargate import Fargate
from tests.moto_aws import Aws
from tests.pickling import program, tensor, text, zipped
from tests.waiting import eventually

WEIGHTS = zipped(program(b"}" + text("w") + tensor("0", 2, (2,), (1,)) + b"s"), {"0": bytes(8)})


@dataclass
class Ground:
    """Tasks of one technology, and the store they work on."""

    tasks: Tasks
    store: BlobStore


@pytest.fixture(params=["local", "fargate"])
def ground(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Ground]:
    url = (tmp_path / "store").as_uri()
    if request.param == "local":
        local = LocalTasks(open_store(url), url, tmp_path / "data")
        yield Ground(local, open_store(url))
        local.close()
        return
    account: Aws = request.getfixturevalue("aws")
    url = f"s3://studio/{uuid.uuid4().hex}?endpoint_url={account.url}"
    host, store = Fargate(account, tmp_path), open_store(url)
    made = FargateTasks(host.client, host.options, store, url, clock=SystemClock(), look_seconds=0.05)
    yield Ground(made, store)
    made.close()
    host.close()


@pytest.fixture
def store(ground: Ground) -> BlobStore:
    return ground.store


@pytest.fixture
def tasks(ground: Ground) -> Tasks:
    return ground.tasks


def ended(tasks: Tasks, ticket: str) -> TaskStatus:
    status = tasks.describe(ticket, wait=60.0)
    assert status.state is not TaskState.RUNNING
    return status


def left(store: BlobStore) -> list[str]:
    return [each.key for each in store.list("tasks/")]


class TestTasks:
    def test_a_pickle_in_the_store_becomes_a_safetensors_file_in_the_store(
        self, tasks: Tasks, store: BlobStore
    ) -> None:
        store.put("imports/one", WEIGHTS)
        ticket = tasks.start(TaskSpec(TaskAction.CONVERT, "imports/one", "one.pt", "checkpoint"))
        status = ended(tasks, ticket)
        made = store.get(keys.task_output(ticket))
        assert (status.state, status.error) == (TaskState.SUCCEEDED, None)
        assert status.outcome == {"sha256": hashlib.sha256(made).hexdigest(), "size": len(made)}
        assert b'"w"' in made

    def test_a_failure_is_the_files_and_says_so(self, tasks: Tasks, store: BlobStore) -> None:
        store.put("imports/bad", b"<html>")
        status = ended(tasks, tasks.start(TaskSpec(TaskAction.CONVERT, "imports/bad", "bad.pt", "lora")))
        assert status.state is TaskState.FAILED
        assert status.error is not None
        assert status.error["code"] == "model_unusable"
        assert "bad.pt" in status.error["message"]

    def test_a_file_is_hashed_as_the_peer_does(self, tasks: Tasks, store: BlobStore) -> None:
        store.put("imports/one", WEIGHTS)
        status = ended(tasks, tasks.start(TaskSpec(TaskAction.HASH, "imports/one", "one.pt")))
        assert status.outcome["sha256"] == hashlib.sha256(WEIGHTS).hexdigest()
        assert len(status.outcome["legacy"]) == 8

    def test_a_file_of_the_portals_own_disk_can_be_worked_on(
        self, tasks: Tasks, store: BlobStore, tmp_path: Path
    ) -> None:
        (tmp_path / "one.pt").write_bytes(WEIGHTS)
        spec = TaskSpec(TaskAction.HASH, (tmp_path / "one.pt").as_uri(), "one.pt")
        assert ended(tasks, tasks.start(spec)).outcome["size"] == len(WEIGHTS)

    def test_what_was_stopped_is_unknown_and_has_left_nothing(self, tasks: Tasks, store: BlobStore) -> None:
        store.put("imports/one", WEIGHTS)
        running = tasks.start(TaskSpec(TaskAction.CONVERT, "imports/one", "one.pt", "checkpoint"))
        tasks.stop(running)
        done = tasks.start(TaskSpec(TaskAction.CONVERT, "imports/one", "one.pt", "checkpoint"))
        ended(tasks, done)
        assert left(store) != []
        tasks.stop(done)
        tasks.stop(done)
        assert {tasks.describe(each).state for each in (running, done, "never")} == {TaskState.UNKNOWN}
        assert left(store) == []

    def test_the_log_can_be_read_and_an_unknown_one_is_empty(self, tasks: Tasks, store: BlobStore) -> None:
        store.put("imports/bad", b"<html>")
        ticket = tasks.start(TaskSpec(TaskAction.CONVERT, "imports/bad", "bad.pt", "lora"))
        ended(tasks, ticket)
        eventually(lambda: "bad.pt" in tasks.logs(ticket), within=60)
        assert tasks.logs("never") == ""


@dataclass
class Line:
    """Fargate tasks whose program is one line of Python."""

    aws: Aws
    host: Fargate

    def __post_init__(self) -> None:
        self.url = f"s3://studio/{uuid.uuid4().hex}?endpoint_url={self.aws.url}"
        self.store = open_store(self.url)
        self.clock = ManualClock(time.time())
        self.tasks = FargateTasks(
            self.host.client, self.host.options, self.store, self.url, clock=self.clock, look_seconds=0.05
        )


@pytest.fixture
def dying(aws: Aws, tmp_path: Path) -> Iterator[Line]:
    host = Fargate(aws, tmp_path, (sys.executable, "-c", "import sys; sys.exit(3)"))
    yield Line(aws, host)
    host.close()


def test_a_fargate_task_goes_where_the_deployment_says_and_another_process_sees_how_it_dies(
    dying: Line, aws: Aws
) -> None:
    ticket = dying.tasks.start(TaskSpec(TaskAction.CONVERT, "imports/one", "one.pt", "lora"))
    (request,) = dying.host.requests
    network = request["networkConfiguration"]["awsvpcConfiguration"]
    assert (network["subnets"], network["securityGroups"]) == (["subnet-1", "subnet-2"], ["sg-1"])
    assert (request["launchType"], network["assignPublicIp"]) == ("FARGATE", "DISABLED")
    assert {"key": "Project", "value": "atelier"} in request["tags"]
    another = FargateTasks(
        aws.client, dying.host.options, dying.store, dying.url, clock=SystemClock(), look_seconds=0.05
    )
    status = another.describe(ticket, wait=60.0)
    assert status.state is TaskState.FAILED
    assert status.error is not None
    assert "ended with status 3 before it said how it went" in status.error["message"]
    assert status.error["retryable"]


@pytest.fixture
def waiting(aws: Aws, tmp_path: Path) -> Iterator[Line]:
    host = Fargate(aws, tmp_path, (sys.executable, "-c", "import threading; threading.Event().wait()"))
    yield Line(aws, host)
    host.close()


def test_a_fargate_task_goes_on_when_the_process_that_started_it_closes(waiting: Line, aws: Aws) -> None:
    ticket = waiting.tasks.start(TaskSpec(TaskAction.CONVERT, "imports/one", "one.pt", "lora"))
    waiting.tasks.close()
    assert waiting.tasks.describe(ticket).state is TaskState.RUNNING
    assert waiting.tasks.describe(ticket, wait=600.0).state is TaskState.UNKNOWN, "nobody waits on"
    another = FargateTasks(
        aws.client, waiting.host.options, waiting.store, waiting.url, clock=SystemClock(), look_seconds=0.05
    )
    assert another.describe(ticket).state is TaskState.RUNNING
    assert left(waiting.store) == [keys.task_run(ticket)]
    another.stop(ticket)
    assert another.describe(ticket).state is TaskState.UNKNOWN


def test_what_ecs_calls_a_running_task_never_grows_old_enough_to_be_swept(
    waiting: Line, tmp_path: Path
) -> None:
    store = FilesystemBlobStore(tmp_path / "store")
    tasks = FargateTasks(
        waiting.host.client, waiting.host.options, store, waiting.url, clock=waiting.clock, look_seconds=0.05
    )
    ticket = tasks.start(TaskSpec(TaskAction.CONVERT, "imports/one", "one.pt", "lora"))
    note = keys.task_run(ticket)
    for age, written in ((60.0, False), (AGE_SECONDS - 60.0, True)):
        at = waiting.clock.now() - age
        os.utime(store.root / "blobs" / note, (at, at))
        assert tasks.describe(ticket).state is TaskState.RUNNING
        found = store.stat(note)
        assert found is not None
        assert (found.modified > at + 1) is written
    tasks.stop(ticket)


def test_a_fargate_task_that_ecs_does_not_know_yet_is_given_a_minute(waiting: Line) -> None:
    ticket = uuid.uuid4().hex
    arn = f"arn:aws:ecs:eu-central-1:123456789012:task/tasks/{uuid.uuid4().hex}"
    waiting.store.put(keys.task_run(ticket), arn.encode())
    assert waiting.tasks.describe(ticket, wait=0.2).state is TaskState.RUNNING
    waiting.clock.advance(120.0)
    assert waiting.tasks.describe(ticket).state is TaskState.UNKNOWN


def test_what_fargate_cannot_start_leaves_nothing_and_says_why(dying: Line, aws: Aws, tmp_path: Path) -> None:
    spec = TaskSpec(TaskAction.HASH, "imports/one", "one.pt")
    nowhere = AwsOptions(aws_task_cluster="elsewhere", aws_task_definition="tasks:1")
    for options, wanted, reason in (
        (nowhere, spec, r"starting a CPU task.*[Cc]luster"),
        (AwsOptions(), spec, "ATELIER_AWS_TASK_CLUSTER"),
        (nowhere, TaskSpec(TaskAction.FOLDER, tmp_path.as_uri(), "x"), "folder"),
        (nowhere, TaskSpec(TaskAction.HASH, f"{tmp_path.as_uri()}/gone", "x"), "no file"),
        (nowhere, TaskSpec(TaskAction.HASH, "imports/one", "x" * 9000), "longer than ECS takes"),
    ):
        with pytest.raises(AtelierError, match=reason):
            FargateTasks(aws.client, options, dying.store, dying.url, clock=dying.clock).start(wanted)
    assert left(dying.store) == []


def test_a_local_task_ends_with_its_parent_and_the_next_run_sweeps_after_it(
    tmp_path: Path, repository: Path
) -> None:
    store = open_store((tmp_path / "store").as_uri())
    script = (
        "import sys; from pathlib import Path; from atelier.storage.opening import open_store;"
        "from portal.adapters.local.tasks import LocalTasks; from portal.services.ports import *;"
        "url = sys.argv[1]; tasks = LocalTasks(open_store(url), url, Path(sys.argv[2]),"
        " (sys.executable, '-c', 'from atelier.processes import exit_with_parent as e; import threading; e();"
        " threading.Event().wait()'));"
        "ticket = tasks.start(TaskSpec(TaskAction.HASH, 'x', 'x'));"
        "open_store(url).put(f'tasks/{ticket}/output', b'1');"
        "print(ticket, flush=True); tasks.describe(ticket, wait=60)"
    )
    arguments = ["-c", script, (tmp_path / "store").as_uri(), str(tmp_path / "data")]
    parent = psutil.Popen([sys.executable, *arguments], stdout=subprocess.PIPE, cwd=repository, text=True)
    with parent.stdout:
        assert parent.stdout.readline().strip()
        (child,) = parent.children()
        parent.send_signal(signal.SIGKILL)
        parent.wait(60)
    eventually(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE, within=60)
    assert left(store) != []
    after = LocalTasks(store, (tmp_path / "store").as_uri(), tmp_path / "data")
    store.put("imports/one", WEIGHTS)
    after.describe(after.start(TaskSpec(TaskAction.HASH, "imports/one", "one.pt")), wait=60.0)
    assert [key for key in left(store) if key.endswith("output")] == []
    assert len([*(tmp_path / "data" / "tasks").iterdir()]) == 1
    after.close()
    assert [*(tmp_path / "data" / "tasks").iterdir()] == []
