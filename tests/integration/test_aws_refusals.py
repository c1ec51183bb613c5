"""What is made of AWS's refusals and failures, as botocore reads them off a real connection."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from atelier.contract.errors import AtelierError, InternalError, NotPermitted, WorkReturned
from portal.adapters.aws import failures

JSON = "application/json"


class Service:
    """A SageMaker runtime that answers every call with the same refusal, and a client of it."""

    def __init__(self) -> None:
        self.answer: tuple[int, str, bytes, str] = (500, JSON, b"", "")
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                status, kind, body, code = service.answer
                self.rfile.read(int(self.headers["Content-Length"]))
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                if code:
                    self.send_header("x-amzn-errortype", code)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()
        self.client = boto3.Session("testing", "testing", region_name="eu-central-1").client(
            "sagemaker-runtime",
            endpoint_url=f"http://127.0.0.1:{self._server.server_address[1]}",
            config=Config(retries={"total_max_attempts": 1, "mode": "standard"}),
        )

    def refused(self, status: int, kind: str, body: bytes, code: str) -> ClientError:
        """What boto3 raises where the service answers so."""
        self.answer = (status, kind, body, code)
        with pytest.raises(ClientError) as caught:
            self.client.invoke_endpoint(EndpointName="atelier-big", Body=b"{}")
        return caught.value

    def close(self) -> None:
        self.client.close()
        self._server.shutdown()
        self._thread.join(60)
        self._server.server_close()


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    made = Service()
    yield made
    made.close()


@pytest.mark.parametrize(
    ("status", "kind", "body", "code", "becomes"),
    [
        (503, JSON, b"", "", WorkReturned),
        (502, "text/html", b"<html><body>Bad gateway</body></html>", "", WorkReturned),
        (500, JSON, b'{"message": "Oh"}', "InternalServerException", WorkReturned),
        (429, JSON, b"", "", WorkReturned),
        (400, JSON, b'{"message": "It has run out"}', "ExpiredTokenException", WorkReturned),
        (403, JSON, b'{"message": "Not you"}', "AccessDeniedException", NotPermitted),
        (400, JSON, b'{"message": "Who?"}', "SomethingElse", InternalError),
    ],
)
def test_what_passes_by_itself_is_tried_again_and_nothing_else(
    service: Service, status: int, kind: str, body: bytes, code: str, becomes: type[AtelierError]
) -> None:
    told = failures.translated(service.refused(status, kind, body, code), "sending to the endpoint 'big'")
    assert type(told) is becomes, told.message
    assert "sending to the endpoint 'big'" in told.message
    assert ("tried again" in told.message) is told.retryable
