"""The local fleet with real child processes: a scripted worker that speaks the contract and misbehaves on
demand.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from atelier.contract.errors import WorkerUnavailable, WorkReturned
from portal.adapters.local import worker_process
from portal.adapters.local.fleet import LocalFleet
from portal.adapters.local.inbox import QueueInbox
from portal.adapters.local.worker_process import Launch
from portal.services.ports import Completion, EndpointSpec, EndpointState, Submission, TicketState
from tests.waiting import eventually

WORKER = """
import json, os, signal, sys, threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
sys.path.insert(0, os.environ["ROOT"])
from atelier.processes import exit_with_parent
exit_with_parent(lambda: os._exit(0))
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
if os.environ["ATELIER_INSTANCE"] in os.environ["LAME"].split():
    sys.exit("lame")
if os.path.exists(os.environ["BROKEN"]):
    sys.exit("no weights today")

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.answer(200, {})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.headers["Authorization"] != "Bearer " + os.environ["ATELIER_WORKER_TOKEN"]:
            return self.answer(401, {"error": {"code": "not_authenticated", "message": "no"}})
        if body["do"] == "die":
            os._exit(3)
        if body["do"] == "fail":
            error = {"code": "out_of_memory", "message": "too large", "retryable": False}
            return self.answer(507, {"error": error})
        if body["do"] == "wait":
            with open(body["path"]) as pipe:
                pipe.read()
            with open(body["path"] + ".by", "w") as out:
                out.write(os.environ["ATELIER_INSTANCE"])
        if body["do"] == "environment":
            with open(body["path"], "w") as out:
                json.dump(dict(os.environ), out)
        self.answer(200, {"result": "key"})

    def answer(self, status, body):
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass

ThreadingHTTPServer(("127.0.0.1", int(os.environ["SAGEMAKER_BIND_TO_PORT"])), Handler).serve_forever()
"""


class Yard:
    """A local fleet whose workers run the script above."""

    def __init__(
        self, folder: Path, root: Path, now: Callable[[], float] = time.monotonic, lame: str = ""
    ) -> None:
        script = folder / "worker.py"
        script.write_text(WORKER)
        self.broken = folder / "broken"
        self.inbox = QueueInbox()
        settings = {"ROOT": str(root), "BROKEN": str(self.broken), "LAME": lame}
        launch = Launch(
            (folder / "store").as_uri(), "k" * 64, argv=(sys.executable, str(script)), settings=settings
        )
        self.fleet = LocalFleet(self.inbox, launch, folder, now)

    def state(self, *states: EndpointState) -> Callable[[], bool]:
        return lambda: self.fleet.describe("e").state in states

    def send(self, do: str, **body: Any) -> str:
        return self.fleet.submit(Submission("e", "job", "part", 1, {"do": do, **body}))

    def told(self) -> Completion:
        messages: list[Any] = eventually(lambda: self.inbox.receive(0.1), within=60)
        [message] = messages
        self.inbox.ack(message.receipt)
        return message.completion  # type: ignore[no-any-return]


@pytest.fixture
def yard(tmp_path: Path, repository: Path) -> Iterator[Yard]:
    made = Yard(tmp_path, repository)
    yield made
    made.fleet.close()


def test_a_worker_is_started_serves_and_is_stopped_with_its_endpoint(yard: Yard) -> None:
    yard.fleet.create(EndpointSpec("e"))
    eventually(yard.state(EndpointState.IN_SERVICE), within=60)
    ticket = yard.send("work")
    assert yard.told() == Completion("job", "part", 1, None)
    eventually(lambda: yard.fleet.poll(ticket) is TicketState.DONE)
    children = psutil.Process().children()
    yard.fleet.delete("e")
    assert yard.fleet.describe("e").state is EndpointState.DELETED
    assert not [
        child for child in children if child.is_running() and "worker.py" in " ".join(child.cmdline())
    ]


def test_a_submission_returns_at_once_and_waits_for_the_worker_to_start(yard: Yard) -> None:
    yard.fleet.create(EndpointSpec("e", min_instances=0))
    assert yard.fleet.describe("e").state is EndpointState.ASLEEP
    ticket = yard.send("work")
    assert yard.fleet.poll(ticket) is TicketState.PENDING
    assert yard.told().error is None


def test_an_idle_worker_that_may_sleep_goes_and_the_next_part_wakes_it(yard: Yard) -> None:
    yard.fleet.create(EndpointSpec("e", min_instances=0, idle_seconds=0.5))
    for _ in range(2):
        yard.send("work")
        assert yard.told().error is None
        eventually(yard.state(EndpointState.ASLEEP), within=60)


def test_a_workers_own_error_is_passed_on(yard: Yard) -> None:
    yard.fleet.create(EndpointSpec("e"))
    yard.send("fail")
    assert yard.told().error == {"code": "out_of_memory", "message": "too large", "retryable": False}


def test_a_worker_that_dies_is_reported_with_its_work_and_started_again(yard: Yard) -> None:
    yard.fleet.create(EndpointSpec("e"))
    yard.send("die")
    error = yard.told().error
    assert error is not None and error["code"] == WorkerUnavailable.code and error["retryable"]
    eventually(yard.state(EndpointState.FAILED), within=60)
    assert "status 3" in yard.fleet.describe("e").reason
    yard.send("work")
    error = yard.told().error
    assert error is None or error["code"] == WorkReturned.code
    eventually(yard.state(EndpointState.IN_SERVICE), within=60)
    yard.send("work")
    assert yard.told().error is None


def test_a_killed_worker_is_replaced(yard: Yard) -> None:
    yard.fleet.create(EndpointSpec("e"))
    eventually(yard.state(EndpointState.IN_SERVICE), within=60)
    [child] = [each for each in psutil.Process().children() if "worker.py" in " ".join(each.cmdline())]
    os.kill(child.pid, signal.SIGKILL)
    assert eventually(yard.state(EndpointState.FAILED), within=60)
    assert eventually(yard.state(EndpointState.IN_SERVICE), within=60)


def test_a_worker_that_had_served_long_is_replaced_soon_however_often_it_is_killed(
    yard: Yard, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(worker_process, "FIRST_PAUSE", 0.05)
    monkeypatch.setattr(worker_process, "LONGEST_PAUSE", 0.1)
    yard.fleet.create(EndpointSpec("e"))
    for _ in range(3):
        eventually(yard.state(EndpointState.IN_SERVICE), within=60)
        [child] = [each for each in psutil.Process().children() if "worker.py" in " ".join(each.cmdline())]
        eventually(lambda it=child: time.time() - it.create_time() > 0.2, within=60)
        os.kill(child.pid, signal.SIGKILL)
        eventually(yard.state(EndpointState.FAILED), within=60)
    said = [record.getMessage() for record in caplog.records if "another starts" in record.getMessage()]
    assert len(said) == 3 and all("another starts in 0.05 s" in each for each in said)


def test_a_worker_that_cannot_start_says_why_refuses_what_waits_and_recovers_by_itself(yard: Yard) -> None:
    yard.broken.touch()
    yard.fleet.create(EndpointSpec("e"))
    yard.send("work")
    error = yard.told().error
    assert error is not None and "no weights today" in error["message"]
    assert error["code"] == WorkReturned.code
    status = yard.fleet.describe("e")
    assert (
        status.state is EndpointState.FAILED and status.instances == 0 and "no weights today" in status.reason
    )
    yard.broken.unlink()
    eventually(yard.state(EndpointState.IN_SERVICE), within=60)


def test_a_worker_gets_its_own_environment_and_nothing_of_its_parents(
    yard: Yard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not for children")
    yard.fleet.create(EndpointSpec("e", threads=2, options={"dtype": "float32"}))
    seen = tmp_path / "seen.json"
    yard.send("environment", path=str(seen))
    assert yard.told().error is None
    text = seen.read_text()
    assert "not for children" not in text
    for part in (
        '"ATELIER_ENDPOINT": "e"',
        '"ATELIER_THREADS": "2"',
        '"ATELIER_DTYPE": "float32"',
        "ATELIER_JOB_KEY",
    ):
        assert part in text


def test_an_environment_that_no_process_can_have_is_said_and_can_be_mended(yard: Yard) -> None:
    yard.fleet.create(EndpointSpec("e", options={"dtype": "a\0"}))
    eventually(yard.state(EndpointState.FAILED), within=60)
    assert "null byte" in yard.fleet.describe("e").reason
    yard.fleet.update(EndpointSpec("e"))
    eventually(yard.state(EndpointState.IN_SERVICE), within=60)


def test_changed_threads_restart_the_worker_and_changed_slots_do_not(yard: Yard) -> None:
    def pid() -> int:
        found = [each.pid for each in psutil.Process().children() if "worker.py" in " ".join(each.cmdline())]
        return found[0] if found else 0

    yard.fleet.create(EndpointSpec("e"))
    eventually(yard.state(EndpointState.IN_SERVICE), within=60)
    first = pid()
    yard.fleet.update(EndpointSpec("e", slots=3))
    yard.send("work")
    assert yard.told().error is None and pid() == first
    yard.fleet.update(EndpointSpec("e", threads=2))
    eventually(lambda: pid() not in (0, first), within=60)
    eventually(yard.state(EndpointState.IN_SERVICE), within=60)


def test_a_ticket_of_another_run_is_unknown_and_an_unknown_endpoint_takes_nothing(yard: Yard) -> None:
    assert yard.fleet.poll("another-run-1") is TicketState.UNKNOWN
    with pytest.raises(WorkReturned):
        yard.send("work")
