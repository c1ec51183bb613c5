"""The client helper against a real worker: pictures in the answer, by location, and behind an asynchronous
endpoint.
"""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from atelier.client import Invoked, collect, invoke
from atelier.contract.errors import (
    AtelierError,
    Expired,
    InternalError,
    InvalidRequest,
    NotAuthenticated,
    UnknownName,
    WorkerUnavailable,
)
from atelier.storage.filesystem import FilesystemBlobStore
from tests.integration.worker_process import TOKEN, Worker, publish, registered, tiny_checkpoint

SMALL: dict[str, Any] = {"prompt": "a dog", "width": 64, "height": 64, "num_inference_steps": 1, "seed": 3}


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory, free_ports: Callable[[], int]) -> Iterator[Worker]:
    place = tmp_path_factory.mktemp("invoked")
    store = FilesystemBlobStore(place / "store")
    checkpoint = registered(store, tiny_checkpoint(place / "tiny.safetensors", 1))
    publish(store, checkpoint.model_copy(update={"resolution": (64, 64)}))
    started = Worker(store, place / "worker", free_ports())
    try:
        yield started.ready()
    finally:
        started.stop()


@pytest.fixture
def url(worker: Worker) -> str:
    return f"{worker.client.base_url}/invocations"


def sizes(found: Invoked) -> list[tuple[int, int]]:
    return [Image.open(io.BytesIO(each)).size for each in found.pictures]


def test_pictures_come_ready_for_pil_with_what_there_is_to_say_of_them(url: str) -> None:
    found = invoke(
        url, SMALL | {"num_images_per_prompt": 2, "guidance_scale": 1, "negative_prompt": "x"}, token=TOKEN
    )
    assert (sizes(found), found.locations) == ([(64, 64)] * 2, ())
    assert [each["field"] for each in found.notices["ignored"]] == ["negative_prompt"]


def test_stored_pictures_are_fetched_from_their_locations(url: str) -> None:
    found = invoke(url, SMALL | {"output": "s3"}, token=TOKEN)
    [location] = found.locations
    assert location.startswith("file://") and sizes(found) == [(64, 64)]
    seen: list[str] = []

    def fetch(place: str) -> bytes:
        seen.append(place)
        return b"from elsewhere"

    assert invoke(url, SMALL | {"output": "s3"}, token=TOKEN, fetch=fetch).pictures == (b"from elsewhere",)
    assert len(seen) == 1
    elsewhere = collect({"s3_loc": ["s3://bucket/key.png"]})
    assert (elsewhere.pictures, elsewhere.locations) == ((), ("s3://bucket/key.png",))


def test_the_workers_own_errors_are_raised(url: str, free_port: int) -> None:
    with pytest.raises(UnknownName, match=r"There is no checkpoint named 'tinny'\. Did you mean 'tiny"):
        invoke(url, SMALL | {"model": "tinny"}, token=TOKEN)
    with pytest.raises(NotAuthenticated):
        invoke(url, SMALL)
    with pytest.raises(InvalidRequest, match="num_inference_steps"):
        invoke(url, SMALL | {"num_inference_stepz": 2}, token=TOKEN)
    with pytest.raises(WorkerUnavailable, match="Is the worker in service"):
        invoke(f"http://127.0.0.1:{free_port}/invocations", "a dog")


class Asynchronous:
    """An asynchronous endpoint in front of the worker, as SageMaker has it: 202 with two locations at once,
    the worker's answer in one of them later.
    """

    def __init__(self, worker: Worker, place: Path) -> None:
        self.worker, self.place, self.calls = worker, place, 0
        self.promised: dict[str, bytes] = {}
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                outer.calls += 1
                output = outer.place / f"{outer.calls}.out"
                outer.promised[output.as_uri()] = body
                self.send_response(202)
                self.send_header("X-Amzn-SageMaker-OutputLocation", output.as_uri())
                self.send_header("X-Amzn-SageMaker-FailureLocation", output.with_suffix(".failed").as_uri())
                self.end_headers()
                self.wfile.write(b'{"InferenceId": "1"}')

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/invocations"

    def work(self) -> None:
        """Have the worker answer what is promised."""
        for uri, body in [*self.promised.items()]:
            del self.promised[uri]
            answer = self.worker.invoke(json.loads(body))
            output = Path(uri.removeprefix("file://"))
            if answer.is_success:
                output.write_bytes(answer.content)
            else:
                said = b"Received client error (422) from primary and could not load: "
                output.with_suffix(".failed").write_bytes(said + answer.content)


@pytest.fixture
def asynchronous(worker: Worker, tmp_path: Path) -> Iterator[Asynchronous]:
    made = Asynchronous(worker, tmp_path)
    yield made
    made.server.shutdown()
    made.server.server_close()


def test_an_asynchronous_answer_is_waited_for(asynchronous: Asynchronous) -> None:
    waits: list[float] = []

    def wait(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:
            asynchronous.work()

    found = invoke(asynchronous.url, SMALL, wait=wait)
    assert sizes(found) == [(64, 64)]
    assert len(waits) == 3 and waits == sorted(waits)


def test_an_asynchronous_failure_is_the_workers_error_and_silence_ends(asynchronous: Asynchronous) -> None:
    with pytest.raises(UnknownName, match="tinny"):
        invoke(asynchronous.url, SMALL | {"model": "tinny"}, wait=lambda _: asynchronous.work())
    with pytest.raises(Expired, match="within 30 seconds"):
        invoke(asynchronous.url, SMALL, patience=30, wait=lambda _: None)


@pytest.mark.parametrize(
    ("answer", "said"),
    [({}, "neither pictures"), ({"generated_images": ["?"]}, "no base64"), ({"s3_loc": []}, "neither")],
)
def test_an_answer_that_is_none_is_told(answer: dict[str, Any], said: str) -> None:
    with pytest.raises(InternalError, match=said):
        collect(answer)


def test_what_aws_own_client_gives_can_be_collected_with_a_reader_of_ones_own() -> None:
    places = {"s3://b/failure": b"the container was killed"}
    with pytest.raises(AtelierError, match="without a reason of ours: the container was killed"):
        collect({"OutputLocation": "s3://b/output", "FailureLocation": "s3://b/failure"}, fetch=places.get)
    with pytest.raises(InvalidRequest, match="Give `fetch`"):
        collect({"OutputLocation": "s3://b/output"})
