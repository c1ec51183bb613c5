"""SageMaker's container contract over HTTP, around a handler that follows a script."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest

from atelier.contract.errors import OutOfMemory, StorageFailed
from workers.runtime.server import Answer, Gate, Invocation, contract_app

TOKEN = "t" * 40


async def echo(invocation: Invocation) -> dict[str, Any]:
    return {"echo": invocation.body}


def an_open_gate(most: int = 4) -> Gate:
    gate = Gate(most)
    gate.open()
    return gate


def test_readyz_says_in_words_what_is_wrong_and_healthz_that_the_process_answers() -> None:
    assert call("GET", "/readyz").json() == {"status": "ready", "faults": []}
    starting = call("GET", "/readyz", gate=Gate(1))
    assert starting.status_code == 503 and starting.json()["faults"] == ["The worker is starting."]
    broken = call("GET", "/readyz", health=lambda: ["The engine's thread has ended."])
    assert broken.status_code == 503 and broken.json()["faults"] == ["The engine's thread has ended."]
    assert call("GET", "/healthz", gate=Gate(1)).json() == {"status": "ok"}


def test_an_answer_names_the_request_by_the_id_it_came_with_or_by_another() -> None:
    named = call("POST", "/invocations", json={}, headers={"X-Request-Id": "from-the-caller"})
    assert named.headers["x-request-id"] == "from-the-caller"
    for given in ("short", "with space in it", "x" * 65):
        made = call("POST", "/invocations", json={}, headers={"X-Request-Id": given})
        assert made.headers["x-request-id"] != given and len(made.headers["x-request-id"]) == 16


def call(
    method: str,
    path: str,
    *,
    gate: Gate | None = None,
    handle: Callable[[Invocation], Awaitable[dict[str, Any] | Answer]] = echo,
    token: str | None = None,
    health: Callable[[], list[str]] | None = None,
    **request: Any,
) -> httpx.Response:
    app = contract_app(handle, gate or an_open_gate(), token=token, max_body_bytes=1000, health=health)

    async def talk() -> httpx.Response:
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://worker") as client:
            return await client.request(method, path, **request)

    return asyncio.run(talk())


def code_of(response: httpx.Response) -> str:
    error = response.json()["error"]
    assert set(error) == {"code", "message", "retryable", "detail"}
    return str(error["code"])


@pytest.mark.parametrize(
    ("turn", "status"),
    [
        ((), 503),
        (("open",), 200),
        (("open", "drain"), 503),
        (("drain", "open"), 503),
        (("open", "stop"), 503),
    ],
)
def test_ping_answers_200_only_while_a_request_would_be_served(turn: tuple[str, ...], status: int) -> None:
    gate = Gate(1)
    for name in turn:
        getattr(gate, name)()
    assert call("GET", "/ping", gate=gate).status_code == status
    assert call("GET", "/ping", gate=gate, token=TOKEN).status_code == status
    invoked = call("POST", "/invocations", gate=gate, json={})
    assert invoked.status_code == status
    if status == 503:
        assert code_of(invoked) == "work_returned"
        assert invoked.json()["error"]["retryable"] is True
        assert invoked.headers["retry-after"] == "1"


def test_an_invocation_answers_json_with_its_length_and_ignores_custom_attributes() -> None:
    headers = {"X-Amzn-SageMaker-Custom-Attributes": "trace=1", "X-Amzn-SageMaker-Inference-Id": "7"}
    response = call("POST", "/invocations", json={"a": 1}, headers=headers)
    assert response.status_code == 200
    assert response.json() == {"echo": {"a": 1}}
    assert response.headers["content-type"] == "application/json"
    assert int(response.headers["content-length"]) == len(response.content)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"\xff\xfe", b'{"a": "\\ud800"}', b"[" * 900, b'{"n": 1' + b"0" * 900 + b"e"],
)
def test_a_body_that_is_no_json_is_a_bad_request(content: bytes) -> None:
    response = call("POST", "/invocations", content=content, headers={"content-type": "application/json"})
    assert response.status_code == 400
    assert code_of(response) == "malformed_body"


@pytest.mark.parametrize("content", [b"[]", b"3", b"null", b'"a prompt"'])
def test_a_body_that_is_no_json_object_is_refused(content: bytes) -> None:
    response = call("POST", "/invocations", content=content, headers={"content-type": "application/json"})
    assert response.status_code == 422
    assert code_of(response) == "invalid_request"


def test_a_body_of_another_type_is_refused_and_none_given_means_json() -> None:
    other = call("POST", "/invocations", content=b"{}", headers={"content-type": "text/plain"})
    assert (other.status_code, code_of(other)) == (415, "unsupported_media")
    assert call("POST", "/invocations", content=b"{}").status_code == 200
    charset = {"content-type": "Application/JSON; charset=utf-8"}
    assert call("POST", "/invocations", content=b"{}", headers=charset).status_code == 200


@pytest.mark.parametrize(
    ("accept", "status"),
    [
        ("application/json", 200),
        ("application/json, */*;q=0.5", 200),
        ("*/*", 200),
        ("Application/*; q=0.2", 200),
        ("", 200),
        ("image/png", 406),
        ("image/png, application/json;q=0", 406),
        ("application/x-npy", 406),
    ],
)
def test_a_caller_who_accepts_no_json_is_told_before_any_work(accept: str, status: int) -> None:
    response = call("POST", "/invocations", json={}, headers={"accept": accept})
    assert response.status_code == status
    if status == 406:
        assert code_of(response) == "not_acceptable"


def test_a_handler_may_say_more_in_headers() -> None:
    async def remarking(_: Invocation) -> Answer:
        return Answer({"done": True}, {"X-Amzn-SageMaker-Custom-Attributes": "remark"})

    response = call("POST", "/invocations", json={}, handle=remarking)
    assert response.json() == {"done": True}
    assert response.headers["x-amzn-sagemaker-custom-attributes"] == "remark"


@pytest.mark.parametrize("announced", [True, False])
def test_a_body_beyond_the_limit_is_refused_whether_it_says_its_length_or_not(announced: bool) -> None:
    async def chunks() -> Any:
        for _ in range(3):
            yield b"x" * 500

    content: Any = b"x" * 1001 if announced else chunks()
    response = call("POST", "/invocations", content=content, headers={"content-type": "application/json"})
    assert response.status_code == 413
    assert code_of(response) == "payload_too_large"


@pytest.mark.parametrize("given", [None, "Bearer wrong", "Basic " + TOKEN, TOKEN, "Bearer ", "Bearer ä"])
def test_invocations_ask_for_the_token_where_there_is_one(given: str | None) -> None:
    headers = {"authorization": given.encode()} if given else {}
    response = call("POST", "/invocations", json={}, token=TOKEN, headers=headers)
    assert response.status_code == 401
    assert code_of(response) == "not_authenticated"
    assert (
        call(
            "POST", "/invocations", json={}, token=TOKEN, headers={"authorization": f"Bearer {TOKEN}"}
        ).status_code
        == 200
    )


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/"), ("GET", "/invocations"), ("POST", "/ping"), ("GET", "/docs")]
)
def test_anything_else_is_answered_with_json_and_no_2xx(method: str, path: str) -> None:
    response = call(method, path)
    assert response.status_code in (404, 405)
    assert code_of(response) == "not_found"


@pytest.mark.parametrize(
    ("raised", "status", "code"),
    [
        (OutOfMemory("too large", detail={"largest": 64}), 507, "out_of_memory"),
        (StorageFailed("no"), 503, "storage_failed"),
        (RuntimeError("a secret of ours"), 500, "internal_error"),
    ],
)
def test_a_failure_is_json_of_one_shape_and_never_2xx(raised: Exception, status: int, code: str) -> None:
    async def fail(_: Invocation) -> dict[str, Any]:
        raise raised

    gate = an_open_gate()
    response = call("POST", "/invocations", json={}, handle=fail, gate=gate)
    assert response.status_code == status
    assert code_of(response) == code
    assert "a secret of ours" not in response.text
    assert gate.inside == 0


def test_more_requests_than_may_be_inside_are_told_to_come_again() -> None:
    gate, both = an_open_gate(most=2), asyncio.Event()
    release: list[asyncio.Event] = []

    async def hold(_: Invocation) -> dict[str, Any]:
        waiting = asyncio.Event()
        release.append(waiting)
        if len(release) == 2:
            both.set()
        await waiting.wait()
        return {}

    app = contract_app(hold, gate, token=None, max_body_bytes=1000)

    async def talk() -> list[httpx.Response]:
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://worker") as client:
            first = [asyncio.create_task(client.post("/invocations", json={})) for _ in range(2)]
            await asyncio.wait_for(both.wait(), 10)
            third = await client.post("/invocations", json={})
            assert not await gate.emptied(0)
            for waiting in release:
                waiting.set()
            assert await gate.emptied(5)
            return [third, *await asyncio.gather(*first)]

    third, *first = asyncio.run(talk())
    assert third.status_code == 429
    assert code_of(third) == "too_many_requests"
    assert [response.status_code for response in first] == [200, 200]


def test_the_handler_learns_that_its_caller_left() -> None:
    left: list[bool] = []

    async def wait_for_departure(invocation: Invocation) -> dict[str, Any]:
        await asyncio.wait_for(invocation.gone.wait(), 5)
        left.append(True)
        return {}

    app = contract_app(wait_for_departure, an_open_gate(), token=None, max_body_bytes=1000)
    messages = [
        {"type": "http.request", "body": json.dumps({}).encode(), "more_body": False},
        {"type": "http.disconnect"},
    ]
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return messages.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/invocations", "headers": [], "query_string": b""}
    asyncio.run(app(scope, receive, send))
    assert left == [True]
