"""The Lambda behind API Gateway before a real portal, and before servers that misbehave."""

from __future__ import annotations

import ast
import base64
import json
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from atelier.contract.errors import ERRORS
from atelier.contract.routes import PREFIXES
from tests.security.served import PASSWORD, Served, served_portal
from tests.waiting import eventually

SOURCE = Path(__file__).resolve().parents[2] / "deployment" / "lambda" / "gateway.py"
WHO = {"authorization": "Basic " + base64.b64encode(f"ann:{PASSWORD}".encode()).decode()}
PLAIN = {"prompt": "a red circle", "num_inference_steps": 2}


def _loaded() -> ModuleType:
    spec = spec_from_file_location("gateway", SOURCE)
    assert spec and spec.loader
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


gateway = _loaded()


class Left:
    """A Lambda with so much time left."""

    def __init__(self, seconds: float = 29.0) -> None:
        self._seconds = seconds

    def get_remaining_time_in_millis(self) -> int:
        return int(1000 * self._seconds)


def event(method: str, path: str, body: Any = None, **headers: str) -> dict[str, Any]:
    """As an HTTP API sends it, payload format 2.0."""
    path, _, query = path.partition("?")
    return {
        "version": "2.0",
        "rawPath": path,
        "rawQueryString": query,
        "cookies": ["atelier=stolen"],
        "headers": {"content-type": "application/json", "host": "x.execute-api.eu-west-1.amazonaws.com"}
        | {name.replace("_", "-"): value for name, value in headers.items()},
        "requestContext": {
            "requestId": "JKJaXmPLvHcESHA=",
            "http": {"method": method, "path": path, "sourceIp": "203.0.113.7"},
        },
        "body": None if body is None else json.dumps(body),
        "isBase64Encoded": False,
    }


def asked(*told: Any, left: float = 29.0, **headers: str) -> tuple[int, dict[str, str], Any]:
    """(status, headers, body) of an answer."""
    answer = gateway.handler(event(*told, **headers), Left(left))
    raw = base64.b64decode(answer["body"]) if answer["isBase64Encoded"] else answer["body"]
    known = answer["headers"].get("content-type", "").startswith("application/json")
    return answer["statusCode"], answer["headers"], json.loads(raw) if known else raw


@pytest.fixture(scope="module")
def portal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served_portal(tmp_path_factory.mktemp("behind")) as made:
        yield made


@pytest.fixture
def ahead(portal: Served, monkeypatch: pytest.MonkeyPatch) -> Served:
    """The portal that the Lambda stands before."""
    monkeypatch.setenv("ATELIER_PORTAL_URL", portal.url)
    return portal


Reply = Callable[[BaseHTTPRequestHandler], None]


@pytest.fixture
def behaving(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Reply], None]]:
    """Puts a server that answers as told in the portal's place."""
    servers: list[ThreadingHTTPServer] = []

    def put(reply: Reply) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                reply(self)

            do_POST = do_GET  # noqa: N815  # the server calls it so

            def log_message(self, format: str, *args: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        servers.append(server)
        monkeypatch.setenv("ATELIER_PORTAL_URL", f"http://127.0.0.1:{server.server_address[1]}")

    yield put
    for server in servers:
        server.shutdown()
        server.server_close()


def test_a_job_goes_in_and_its_answer_comes_back_with_the_callers_own_credentials(ahead: Served) -> None:
    status, headers, told = asked("POST", "/inference?endpoint_name=local", PLAIN, **WHO)
    assert status == 202, told
    assert told["status_url"] == f"{ahead.url}/inference/{told['job']}"
    assert headers["x-amzn-sagemaker-outputlocation"] == told["output_location"]
    assert asked("GET", f"/inference/{told['job']}", **WHO)[0] == 202
    fleet, done = ahead.studio.fleet, lambda: asked("GET", f"/inference/{told['job']}", **WHO)[0] == 200
    mine = lambda: [each for each in fleet.submissions if each.job == told["job"]]  # noqa: E731
    fleet.succeed(eventually(mine, about="the job was not sent")[0])
    eventually(done, about="the job was not done")
    _, _, answer = asked("GET", f"/inference/{told['job']}", **WHO)
    assert list(answer) == ["generated_images"]
    status, headers, refused = asked("GET", f"/inference/{told['job']}")
    assert (status, refused["error"]["code"]) == (401, "not_authenticated")
    assert headers["www-authenticate"].startswith("Basic")
    view = asked("GET", f"/api/v1/jobs/{told['job']}", authorization=f"Bearer {ahead.token('ann')}")[2]
    picture = asked("GET", view["pictures"][0]["url"], authorization=f"Bearer {ahead.token('ann')}")
    assert picture[1]["content-type"].startswith("image/")
    assert picture[2] == base64.b64decode(answer["generated_images"][0])


def test_a_call_that_waits_too_long_is_answered_with_its_job(
    ahead: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateway, "WAIT_SECONDS", 0)
    status, headers, told = asked("POST", "/sdapi/v1/txt2img", {"prompt": "x", "steps": 1}, **WHO)
    job = headers["location"].removeprefix("/api/v1/jobs/")
    assert status == 504 and job in told["detail"]
    assert ahead.studio.parts(job)
    assert gateway.WAIT_SECONDS + gateway.MARGIN_SECONDS < gateway.SECONDS < 29


def test_what_the_portal_refuses_comes_back_as_it_said_it(ahead: Served) -> None:
    status, _, told = asked("POST", "/inference?endpoint_name=locl", PLAIN, **WHO)
    assert (status, told["error"]["detail"]["nearest"]) == (422, "local")


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/portal/login", 404, "not_found"),
        ("GET", "/inferences", 404, "not_found"),
        ("GET", "/", 404, "not_found"),
        ("GET", "/api/v1/../../portal/login", 404, "not_found"),
        ("GET", "/api/v1/jobs/x/events", 422, "invalid_request"),
    ],
)
def test_pages_and_streams_are_not_reached(method: str, path: str, status: int, code: str) -> None:
    answered, headers, told = asked(method, path, **WHO)
    assert (answered, told["error"]["code"]) == (status, code)
    assert told["request_id"] == headers["x-request-id"] == "JKJaXmPLvHcESHA="


def test_headers_are_passed_on_by_name_and_cookies_never(behaving: Callable[[Reply], None]) -> None:
    seen: dict[str, str] = {}

    def reply(request: BaseHTTPRequestHandler) -> None:
        seen.update({name.lower(): value for name, value in request.headers.items()}, path=request.path)
        request.send_response(200)
        request.send_header("Content-Type", "text/plain")
        request.send_header("Set-Cookie", "atelier=mine")
        request.send_header("X-Internal", "yes")
        request.send_header("Content-Length", "2")
        request.end_headers()
        request.wfile.write(b"ok")

    behaving(reply)
    extra = {
        "cookie": "atelier=x",
        "x_forwarded_for": "10.0.0.1",
        "x_amz_security_token": "t",
        "prefer": "wait=5",
    }
    status, headers, body = asked("GET", "/api/v1/styles/a b?q=%C3%A9&q=2", **WHO, **extra)
    assert (status, body, set(headers)) == (200, "ok", {"content-type"})
    assert seen.pop("host").startswith("127.0.0.1:")
    assert seen == WHO | {
        "path": "/api/v1/styles/a%20b?q=%C3%A9&q=2",
        "content-type": "application/json",
        "accept-encoding": "identity",
        "x-forwarded-for": "203.0.113.7",
        "x-request-id": "JKJaXmPLvHcESHA=",
        "prefer": "wait=5, wait=24",
    }


def test_a_portal_that_holds_its_answer_back_is_given_up_in_words(behaving: Callable[[Reply], None]) -> None:
    let_go = threading.Event()
    behaving(lambda _: let_go.wait(60) and None)
    short = gateway.MARGIN_SECONDS + 0.2
    try:
        status, headers, told = asked("POST", "/inference", PLAIN, left=short, **WHO)
        assert (status, told["error"]["code"], told["error"]["retryable"]) == (504, "not_ready", False)
        assert "Idempotency-Key" in told["error"]["message"] and "retry-after" not in headers
        status, headers, told = asked("GET", "/inference/x", left=short, **WHO)
        assert (status, told["error"]["retryable"], headers["retry-after"]) == (504, True, "5")
    finally:
        let_go.set()


def test_a_portal_that_trickles_is_given_up_too(behaving: Callable[[Reply], None]) -> None:
    let_go = threading.Event()

    def reply(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Type", "application/json")
        request.send_header("Content-Length", "1000000")
        request.end_headers()
        while not let_go.wait(0.01):
            try:
                request.wfile.write(b" ")
            except OSError:
                return

    behaving(reply)
    try:
        assert asked("GET", "/inference/x", left=gateway.MARGIN_SECONDS + 0.3)[0] == 504
    finally:
        let_go.set()


def test_too_large_bodies_and_answers_are_refused_with_another_way(
    behaving: Callable[[Reply], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateway, "ANSWER_BYTES", 100_000)

    def reply(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Length", "100001")
        request.end_headers()
        request.wfile.write(b"x" * 100_001)

    behaving(reply)
    status, _, told = asked("GET", "/inference/x")
    assert (status, told["error"]["code"]) == (413, "payload_too_large")
    assert "where it lies" in told["error"]["message"]
    status, _, told = asked("POST", "/inference", {"prompt": "x" * gateway.BODY_BYTES})
    assert (status, told["error"]["code"]) == (413, "payload_too_large")
    assert "4 MiB" in told["error"]["message"]


def test_a_portal_that_is_away_is_told_and_so_is_one_that_speaks_nonsense(
    monkeypatch: pytest.MonkeyPatch, free_port: int
) -> None:
    monkeypatch.setenv("ATELIER_PORTAL_URL", f"http://127.0.0.1:{free_port}")
    status, headers, told = asked("GET", "/sdapi/v1/samplers")
    assert (status, told["error"], headers["retry-after"]) == (503, "HTTPException", "5"), (
        "in the peer's form"
    )
    with socket.create_server(("127.0.0.1", 0)) as server:

        def mumble() -> None:
            line, _ = server.accept()
            with line:
                line.recv(65536)
                line.sendall(b"SSH-2.0-nothing of HTTP\r\n\r\n")

        thread = threading.Thread(target=mumble, daemon=True)
        thread.start()
        monkeypatch.setenv("ATELIER_PORTAL_URL", f"http://127.0.0.1:{server.getsockname()[1]}")
        status, _, told = asked("GET", "/inference/x")
        assert (status, told["error"]["code"], told["error"]["retryable"]) == (503, "not_ready", True)
        eventually(lambda: not thread.is_alive(), about="the server did not end")


def test_bodies_in_base64_are_read_and_bad_ones_refused(ahead: Served) -> None:
    sent = event("POST", "/inference", **WHO)
    good = sent | {"body": base64.b64encode(json.dumps(PLAIN).encode()).decode(), "isBase64Encoded": True}
    assert gateway.handler(good, Left())["statusCode"] == 202
    bad = gateway.handler(sent | {"body": "&&&", "isBase64Encoded": True}, Left())
    assert (bad["statusCode"], json.loads(bad["body"])["error"]["code"]) == (400, "malformed_body")


def test_nothing_of_a_callers_is_logged(ahead: Served, caplog: pytest.LogCaptureFixture) -> None:
    asked("POST", "/inference?endpoint_name=local", PLAIN | {"prompt": "a secret wish"}, **WHO)
    said = " ".join(str(vars(each)) for each in caplog.records if each.name == "gateway")
    assert "answered" in said and "'status': 202" in said
    assert "secret wish" not in said and WHO["authorization"].split()[1] not in said


def test_characters_beyond_latin_1_are_refused_in_a_header_and_quoted_in_a_query(ahead: Served) -> None:
    status, _, told = asked("GET", "/api/v1/jobs", user_agent="a browser \u2713", **WHO)
    assert (status, told["error"]["code"]) == (422, "invalid_request")
    assert "characters" in told["error"]["message"]
    status, _, told = asked("GET", "/controlnet/version?x=\u2713 y%20z", **WHO)
    assert status == 200, told


def test_it_is_one_file_of_the_standard_library_and_speaks_as_the_portal_does() -> None:
    tree = ast.parse(SOURCE.read_text(encoding="utf-8"))
    named = {each.names[0].name for each in ast.walk(tree) if isinstance(each, ast.Import)}
    named |= {str(each.module) for each in ast.walk(tree) if isinstance(each, ast.ImportFrom)}
    assert {each.partition(".")[0] for each in named} <= set(sys.stdlib_module_names)
    ours = {each.path for each in PREFIXES if each.owner == "portal"}
    assert all(f"/{path.split('/')[1]}" in ours for path in gateway.PATHS)
    refusals = [
        (each.args[0].value, each.args[1].value)
        for each in ast.walk(tree)
        if isinstance(each, ast.Call) and isinstance(each.func, ast.Name) and each.func.id == "Refused"
    ]
    assert len(refusals) >= 7
    assert all(code in ERRORS and status in (504, ERRORS[code].http_status) for status, code in refusals)
