"""What every adapter of the Tasks port keeps. One of another technology runs this same class with its own
fixture.
"""

from __future__ import annotations

import hashlib
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from atelier.contract import keys
from atelier.storage.base import BlobStore
from atelier.storage.opening import open_store
from portal.adapters.local.tasks import LocalTasks
from portal.services.ports import TaskAction, Tasks, TaskSpec, TaskState, TaskStatus
from tests.pickling import program, tensor, text, zipped
from tests.waiting import eventually

WEIGHTS = zipped(program(b"}" + text("w") + tensor("0", 2, (2,), (1,)) + b"s"), {"0": bytes(8)})


@pytest.fixture
def store(tmp_path: Path) -> BlobStore:
    return open_store((tmp_path / "store").as_uri())


@pytest.fixture
def tasks(store: BlobStore, tmp_path: Path) -> Iterator[Tasks]:
    made = LocalTasks(store, (tmp_path / "store").as_uri(), tmp_path / "data")
    yield made
    made.close()


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
        assert "bad.pt" in tasks.logs(ticket)
        assert tasks.logs("never") == ""


def test_a_local_task_ends_with_its_parent_and_the_next_run_sweeps_after_it(
    store: BlobStore, tmp_path: Path, repository: Path
) -> None:
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
