"""What every adapter of the Fleet port keeps, on one machine and on AWS."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from atelier.contract.errors import InvalidRequest
from portal.adapters.aws.fleet import SageMakerFleet
from portal.adapters.local.fleet import LocalFleet
from portal.adapters.local.inbox import QueueInbox
from portal.adapters.local.worker_process import Launch
from portal.aws_options import AwsOptions
from portal.services.ports import EndpointSpec, EndpointState, Fleet, Submission, TicketState
from tests.aws_world import World
from tests.waiting import eventually

WORKER = """
import json, os, sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
sys.path.insert(0, os.environ["ROOT"])
from atelier.processes import exit_with_parent
exit_with_parent(lambda: os._exit(0))

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.answer(200)

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.answer(507 if body["do"] == "fail" else 200)

    def answer(self, status):
        self.send_response(status)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_):
        pass

ThreadingHTTPServer(("127.0.0.1", int(os.environ["SAGEMAKER_BIND_TO_PORT"])), Handler).serve_forever()
"""


@dataclass
class Ground:
    """A fleet, and an endpoint that it can make. `pass_time` lets what does not go on by itself go on."""

    fleet: Fleet
    spec: EndpointSpec
    pass_time: Callable[[], None]

    def state(self, *states: EndpointState) -> Callable[[], bool]:
        def there() -> bool:
            self.pass_time()
            return self.fleet.describe(self.spec.name).state in states

        return there

    def send(self, do: str) -> str:
        return self.fleet.submit(Submission(self.spec.name, "job", f"part-{do}", 1, {"do": do}))


def on_this_machine(folder: Path, repository: Path) -> Ground:
    script = folder / "worker.py"
    script.write_text(WORKER)
    launch = Launch(
        (folder / "store").as_uri(),
        "k" * 64,
        argv=(sys.executable, str(script)),
        settings={"ROOT": str(repository)},
    )
    fleet = LocalFleet(QueueInbox(), launch, folder)
    return Ground(fleet, EndpointSpec("e", slots=2, max_instances=2), lambda: None)


def on_aws(folder: Path, _repository: Path) -> Ground:
    def work(body: bytes) -> tuple[int, bytes]:
        return (507 if json.loads(body)["do"] == "fail" else 200), b"{}"

    world = World(folder, work)
    options: dict[str, Any] = {"aws_inference_image": "image@sha256:1", "aws_inference_role": "a" * 20}
    fleet = SageMakerFleet(
        world.client,
        AwsOptions(**options),
        world.bucket,
        store_url="s3://bucket/studio",
        job_key_arn="arn:secret",
        clock=world.clock,
        tell=QueueInbox().put,
    )
    spec = EndpointSpec("e", slots=2, max_instances=2, instance_type="ml.g5.xlarge")
    return Ground(fleet, spec, lambda: world.clock.advance(60.0))


@pytest.fixture(params=[on_this_machine, on_aws], ids=["local", "aws"])
def ground(request: pytest.FixtureRequest, tmp_path: Path, repository: Path) -> Iterator[Ground]:
    made: Ground = request.param(tmp_path, repository)
    yield made
    made.fleet.close()


class TestFleet:
    def test_an_endpoint_comes_into_service_takes_work_and_goes(self, ground: Ground) -> None:
        assert ground.fleet.describe("e").state is EndpointState.DELETED, "nobody has made it"
        ground.fleet.create(ground.spec)
        eventually(ground.state(EndpointState.IN_SERVICE), within=120)
        status = ground.fleet.describe("e")
        assert (status.instances, status.wanted, status.reason) == (1, 1, "")
        for do in ("work", "fail"):
            ticket = ground.send(do)
            assert len(ticket) <= 200
            eventually(lambda ticket=ticket: ground.fleet.poll(ticket) is TicketState.DONE, within=60)
        ground.fleet.delete("e")
        eventually(ground.state(EndpointState.DELETED), within=120)
        ground.fleet.delete("e")
        assert ground.fleet.describe("e").state is EndpointState.DELETED

    def test_making_it_again_or_changing_its_numbers_keeps_it_in_service(self, ground: Ground) -> None:
        ground.fleet.create(ground.spec)
        eventually(ground.state(EndpointState.IN_SERVICE), within=120)
        ground.fleet.create(ground.spec)
        ground.pass_time()
        assert ground.fleet.describe("e").state is EndpointState.IN_SERVICE
        more = EndpointSpec(**{**vars(ground.spec), "max_instances": 3, "idle_seconds": 30.0})
        ground.fleet.update(more)
        ground.pass_time()
        assert ground.fleet.describe("e").state is EndpointState.IN_SERVICE
        ground.fleet.demand("e", 0)
        assert ground.fleet.describe("e").instances == 1

    def test_what_it_never_heard_of_is_unknown(self, ground: Ground) -> None:
        assert ground.fleet.poll("never") is TicketState.UNKNOWN
        ground.fleet.demand("never", 3)
        ground.fleet.release("never")
        assert ground.fleet.describe("never").state is EndpointState.DELETED

    def test_it_offers_kinds_of_instances_and_refuses_in_words_what_it_cannot_make(
        self, ground: Ground
    ) -> None:
        names = [each.name for each in ground.fleet.offers()]
        assert names and len(set(names)) == len(names)
        assert all(each.threads and each.memory and each.slots for each in ground.fleet.offers())
        ground.fleet.check(ground.spec)
        with pytest.raises(InvalidRequest) as refused:
            ground.fleet.check(EndpointSpec(**{**vars(ground.spec), "metric": "invocations"}))
        assert refused.value.detail == {"field": "metric"}
