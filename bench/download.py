"""How fast a checkpoint comes from S3 into memory: the worker's reader against boto3's `download_file`.

    python bench/download.py [--megabytes 512] [--rounds 5] [--json FILE]

Two servers on loopback, each in a process of its own: moto, which is S3 for tests and reads all of an object
for each piece of it, and a bare one that sends ranges of a file and does nothing else. Everything shares the
machine with its server, so the rates say little; the ratios of ways that take turns in the same run do.

    download_file               boto3 as it is: the file lies on the disk, unchecked
    download_file, then read    the same, its sha256 compared, and the engine's reader: tensors in memory
    into memory                 the worker's way for a file that is not kept: tensors in memory, checked
    into memory and kept        the same, with the file on the disk as well

The file has tensors of an SDXL checkpoint's sizes in half precision.
"""

from __future__ import annotations

import argparse
import hashlib
import http.server
import multiprocessing
import os
import re
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import boto3
from figures import keep, table
from loading import written

from atelier.contract import keys
from atelier.contract.models import ModelKind, ModelRef
from atelier.modelfile import reference
from atelier.storage.s3 import Bucket, S3BlobStore
from workers.engine.loader import weightfile
from workers.runtime.model_cache import ModelCache

BUCKET = "models"
CREDENTIALS = {"aws_access_key_id": "testing", "aws_secret_access_key": "testing", "region_name": "us-east-1"}


class _Ranges(http.server.BaseHTTPRequestHandler):
    """Sends ranges of one file by sendfile, whatever is asked for."""

    protocol_version = "HTTP/1.1"
    path_of_file = ""

    def do_HEAD(self) -> None:
        self._head(200, os.path.getsize(self.path_of_file))  # noqa: PTH202

    def do_GET(self) -> None:
        size = os.path.getsize(self.path_of_file)  # noqa: PTH202
        wanted = re.match(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        start = int(wanted[1]) if wanted else 0
        end = int(wanted[2]) + 1 if wanted and wanted[2] else size
        self._head(206 if wanted else 200, end - start)
        self.wfile.flush()
        with Path(self.path_of_file).open("rb") as file:
            while start < end:
                start += os.sendfile(self.connection.fileno(), file.fileno(), start, end - start)

    def _head(self, status: int, length: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(length))
        self.send_header("ETag", '"one"')
        self.send_header("Last-Modified", "Sat, 01 Jan 2000 00:00:00 GMT")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def _bare(path: str, tell: Connection) -> None:
    handler = type("Handler", (_Ranges,), {"path_of_file": path})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    tell.send(f"http://127.0.0.1:{server.server_address[1]}")
    server.serve_forever()


def _moto(_: str, tell: Connection) -> None:
    import logging

    from moto.moto_server.threaded_moto_server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    tell.send("http://{}:{}".format(*server.get_host_and_port()))
    time.sleep(86_400)


@contextmanager
def served(serve: Callable[[str, Connection], None], path: Path) -> Iterator[str]:
    """The address of a server in a process of its own."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(
        target=serve, args=(str(path), theirs), daemon=True
    )
    process.start()
    try:
        yield ours.recv()
    finally:
        process.kill()
        process.join()


class Ways:
    """The ways to get one model, each in an empty folder."""

    def __init__(self, url: str, model: ModelRef, folder: Path) -> None:
        session = boto3.session.Session(**CREDENTIALS)
        self.client = session.client("s3", endpoint_url=url)
        self.store = S3BlobStore(Bucket(BUCKET, endpoint_url=url), session)
        self.model, self.folder = model, folder

    def download_file(self) -> None:
        """boto3 with its own settings."""
        self.client.download_file(BUCKET, keys.model(self.model.blob_sha256), str(self.folder / "file"))

    def download_and_read(self) -> None:
        """The same, checked and read into memory."""
        self.download_file()
        with (self.folder / "file").open("rb") as file:
            assert hashlib.file_digest(file, "sha256").hexdigest() == self.model.blob_sha256
        weightfile.read(self.folder / "file", lambda _: True)

    def into_memory(self, capacity: int = 0) -> None:
        """The worker's way."""
        source = ModelCache(self.store, self.folder, capacity).distant(self.model)
        assert source is not None
        weightfile.read(source, lambda _: True)

    def into_memory_and_kept(self) -> None:
        """The same with room on the disk."""
        self.into_memory(2**40)


WAYS: dict[str, Callable[[Ways], None]] = {
    "download_file": Ways.download_file,
    "download_file, then read": Ways.download_and_read,
    "into memory": Ways.into_memory,
    "into memory and kept": Ways.into_memory_and_kept,
}


def measure(url: str, model: ModelRef, rounds: int) -> dict[str, list[tuple[float, float]]]:
    """(seconds, processor seconds of the client) of every way by rounds, who begins each by turns; one round
    before does not count.
    """
    took: dict[str, list[tuple[float, float]]] = {name: [] for name in WAYS}
    names = list(WAYS)
    for number in range(rounds + 1):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            with tempfile.TemporaryDirectory() as folder:
                ways = Ways(url, model, Path(folder))
                begun, worked = time.perf_counter(), time.process_time()
                WAYS[name](ways)
                each = time.perf_counter() - begun, time.process_time() - worked
            if number:
                took[name].append(each)
    return took


def told(server: str, size: int, took: dict[str, list[tuple[float, float]]]) -> dict[str, Any]:
    """Print a table of a server's rounds; its figures."""
    rows, figures = [], {}
    for name, rounds in took.items():
        seconds, worked = (statistics.median(column) for column in zip(*rounds, strict=True))
        faster = [
            statistics.median(theirs[0] / own[0] for theirs, own in zip(took[other], rounds, strict=True))
            for other in ("download_file", "download_file, then read")
        ]
        figures[name] = {"s": seconds, "client_processor_s": worked, "mb_per_s": size / seconds / 1e6,
                         "times_download_file": faster[0], "times_download_and_read": faster[1]}  # fmt: skip
        rows.append((name, round(seconds, 2), round(worked, 2), round(size / seconds / 1e6),
                     round(faster[0], 2), round(faster[1], 2)))  # fmt: skip
    head = (
        f"{server}, {size / 1e6:.0f} MB",
        "s",
        "client's processor s",
        "MB/s",
        "x download_file",
        "x then read",
    )
    print(table(head, rows))
    print()
    return figures


def main() -> None:
    """Measure with both servers and print a table of each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--megabytes", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    figures: dict[str, Any] = {"rounds": args.rounds}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        figures["bytes"] = size = written(path, args.megabytes)
        model = reference(path, ModelKind.CHECKPOINT)
        with served(_moto, path) as url:
            client = boto3.client("s3", endpoint_url=url, **CREDENTIALS)
            client.create_bucket(Bucket=BUCKET)
            client.upload_file(str(path), BUCKET, keys.model(model.blob_sha256))
            figures["moto"] = told("moto", size, measure(url, model, args.rounds))
        with served(_bare, path) as url:
            figures["bare"] = told("bare server", size, measure(url, model, args.rounds))
    keep(figures, args.json)


if __name__ == "__main__":
    main()
