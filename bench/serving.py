"""The worker's own server around an engine of this process: real HTTP on the loopback, no files of models."""

from __future__ import annotations

import base64
import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import uvicorn

from atelier.contract import keys
from atelier.contract.models import Catalogue, ModelRef
from atelier.contract.parts import InstanceState
from atelier.storage.filesystem import FilesystemBlobStore
from workers.engine import Engine
from workers.inference.direct import DirectCalls
from workers.inference.executor import Executor
from workers.inference.tasks import Tasks
from workers.runtime.server import Gate, contract_app
from workers.runtime.side_thread import SideThread

ENDPOINT = "bench"
MOST = 64
_START_SECONDS = 30.0
_PATIENCE = 600.0


class Client:
    """Asks the worker for pictures as a caller without a portal does."""

    def __init__(self, http: httpx.Client) -> None:
        self._http = http

    def picture(self, payload: dict[str, Any]) -> bytes:
        """One picture's PNG."""
        body = {"task": "text-to-image", "txt2img_payload": payload}
        answer = self._http.post("/invocations", json=body)
        assert answer.status_code == 200, answer.text
        return base64.b64decode(answer.json()["images"][0])

    def pictures(self, payloads: list[dict[str, Any]]) -> list[bytes]:
        """Pictures of requests that are sent at once."""
        with ThreadPoolExecutor(len(payloads)) as threads:
            return list(threads.map(self.picture, payloads))


@contextlib.contextmanager
def served(engine: Engine, models: list[ModelRef], place: Path) -> Iterator[Client]:
    """A client of a worker that serves `models` with `engine`; its store is at `place`."""
    store = FilesystemBlobStore(place)
    catalogue = Catalogue(models=tuple(models), default_checkpoint=models[0].name)
    store.put(keys.catalogue(ENDPOINT), catalogue.model_dump_json().encode())
    executor = Executor(engine, store, SideThread(store, ENDPOINT, InstanceState.model_construct))
    handle = Tasks(executor, DirectCalls(executor, store, ENDPOINT), ENDPOINT, b"")
    gate = Gate(MOST)
    gate.open()
    app = contract_app(handle, gate, token=None, max_body_bytes=1 << 20)
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False, lifespan="off"))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        deadline = time.monotonic() + _START_SECONDS
        while not server.started:
            assert thread.is_alive() and time.monotonic() < deadline, "the server did not start"
            time.sleep(0.01)
        address = f"http://127.0.0.1:{listening.getsockname()[1]}"
        try:
            with httpx.Client(base_url=address, timeout=_PATIENCE, trust_env=False) as http:
                yield Client(http)
        finally:
            server.should_exit = True
            thread.join(_START_SECONDS)
            executor.close()
