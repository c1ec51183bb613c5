"""The Lambda behind API Gateway: a call of a program is passed on to the portal, and its answer back.

It holds no secret and decides nothing. Who calls is said by the caller's own Authorization header, and
checked by the portal. Events are those of an HTTP API, payload format 2.0. Standard library alone, so that
the zip is this one file.

ATELIER_PORTAL_URL is the portal's address. An answer must be there before API Gateway gives up (30 s):
calls that wait for pictures ask the portal by `Prefer: wait` to answer 504 with the job's id before that.
"""

from __future__ import annotations

import base64
import binascii
import http.client
import json
import logging
import os
import time
from collections.abc import Mapping
from typing import Any, Protocol
from urllib.parse import quote, urlsplit

log = logging.getLogger("gateway")
log.setLevel(logging.INFO)

SECONDS = 27.0
"""The longest a call takes here; the Lambda's own limit is 29."""
WAIT_SECONDS = 24
"""The longest the portal may wait for pictures, so that its answer passes through in time."""
MARGIN_SECONDS = 1.5
"""What is kept of the Lambda's time for the answer itself."""
BODY_BYTES = 4 * 2**20
"""Of a request's body. A Lambda takes 6 MB together with everything around the body, base64 included."""
ANSWER_BYTES = 4 * 2**20
"""Of an answer's body, for the same reason."""
CHUNK = 64 * 1024
PATHS = ("/inference", "/train", "/api/v1", "/sdapi", "/controlnet", "/internal", "/files")
"""What programs may reach, and everything below it: never pages, logins by form, or cookies."""
QUERY = "/?%:@!$&'()*+,;=~-._[]|"
"""What of a query is passed on as it is; the rest is quoted, as UTF-8."""
ASKED = ("accept", "authorization", "content-type", "idempotency-key", "if-none-match", "user-agent")
"""Headers of a request that are passed on."""
ANSWERED = (
    "cache-control", "content-disposition", "content-security-policy", "content-type", "etag", "location",
    "retry-after", "www-authenticate", "x-amzn-sagemaker-failurelocation", "x-amzn-sagemaker-outputlocation",
    "x-content-type-options", "x-request-id",
)  # fmt: skip
"""Headers of an answer that are passed back."""
PEER = "/sdapi"
"""Below it errors have the peer's form."""
Json = dict[str, Any]


class Context(Protocol):
    """What of Lambda's context is looked at."""

    def get_remaining_time_in_millis(self) -> int:
        """Milliseconds until this call is ended."""
        ...


class Refused(Exception):
    """A call that is answered here. `code` and `status` are the portal's, see docs/errors.md."""

    def __init__(self, status: int, code: str, message: str, *, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.retry_after = status, code, message, retry_after


def handler(event: Mapping[str, Any], context: Context) -> Json:
    """Answer one call: the event of an HTTP API (payload format 2.0) in, its proxy answer out."""
    began = time.monotonic()
    request_id = str(event.get("requestContext", {}).get("requestId", ""))
    path = str(event.get("rawPath", ""))
    try:
        left = context.get_remaining_time_in_millis() / 1000 - MARGIN_SECONDS
        answer = _passed_on(event, path, request_id, began + min(SECONDS, left))
    except Refused as refused:
        answer = _refusal(refused, path, request_id)
    said = {
        "request_id": request_id,
        "method": _method(event),
        "path": next((each for each in PATHS if _below(path, each)), "elsewhere"),
        "status": answer["statusCode"],
        "ms": round(1000 * (time.monotonic() - began)),
    }
    log.info("answered", extra=said)
    return answer


def _passed_on(event: Mapping[str, Any], path: str, request_id: str, until: float) -> Json:
    """The portal's answer to a call. Raises Refused."""
    if not any(_below(path, each) for each in PATHS) or ".." in path.split("/"):
        raise Refused(
            404, "not_found", "The gateway has no such path. See the studio's /docs for those it has."
        )
    if path.endswith("/events"):
        raise Refused(
            422,
            "invalid_request",
            "The gateway carries no streams of events. Ask for the job itself instead.",
        )
    body, query = _body(event), quote(str(event.get("rawQueryString", "")), safe=QUERY)
    headers = _headers(event, request_id)
    line = _connection(max(0.1, until - time.monotonic()))
    try:
        target = quote(path, safe="/%:@!$&'()*+,;=~-._")  # whether it comes quoted depends on its characters
        line.request(_method(event), f"{target}?{query}" if query else target, body or None, headers)
        answer = line.getresponse()
        return _answer(answer, _read(line, answer, until))
    except ValueError as error:  # a header beyond Latin-1, or with a line's end in it
        raise Refused(
            422, "invalid_request", "A header of this request has characters that no header may have."
        ) from error
    except TimeoutError as error:
        raise _too_slow(event) from error
    except (OSError, http.client.HTTPException) as error:
        log.warning("no answer from the portal: %s", type(error).__name__)
        raise Refused(
            503, "not_ready", "The portal does not answer the gateway. Try again in a moment.", retry_after=5
        ) from error
    finally:
        line.close()


def _connection(seconds: float) -> http.client.HTTPConnection:
    """A line to the portal that waits so long for each piece of an answer."""
    address = urlsplit(os.environ["ATELIER_PORTAL_URL"])
    kind = http.client.HTTPSConnection if address.scheme == "https" else http.client.HTTPConnection
    return kind(address.hostname or "", address.port, timeout=seconds)


def _read(line: http.client.HTTPConnection, answer: http.client.HTTPResponse, until: float) -> bytes:
    """The whole body, if it is there in time and not too large. Raises TimeoutError, Refused."""
    read = bytearray()
    while True:
        left = until - time.monotonic()
        if left <= 0:
            raise TimeoutError
        if line.sock is not None:
            line.sock.settimeout(left)
        chunk = answer.read1(CHUNK)
        if not chunk:
            return bytes(read)
        read += chunk
        if len(read) > ANSWER_BYTES:
            raise Refused(
                413,
                "payload_too_large",
                f"The answer is larger than the {ANSWER_BYTES // 2**20} MiB that the gateway carries. Read "
                'it where it lies, send "output": "s3", or ask the studio at its own address.',
            )


def _answer(answer: http.client.HTTPResponse, body: bytes) -> Json:
    """The proxy answer: text as it is, anything else in base64."""
    headers = {name: answer.headers[name] for name in ANSWERED if answer.headers[name] is not None}
    kind = headers.get("content-type", "").partition(";")[0].strip()
    told: Json = {"statusCode": answer.status, "headers": headers}
    if kind == "application/json" or kind.startswith("text/"):
        return told | {"body": body.decode("utf-8", "replace"), "isBase64Encoded": False}
    return told | {"body": base64.b64encode(body).decode(), "isBase64Encoded": True}


def _headers(event: Mapping[str, Any], request_id: str) -> dict[str, str]:
    """The headers that are passed on, and what the gateway has to say itself."""
    given = {str(name).lower(): str(value) for name, value in (event.get("headers") or {}).items()}
    headers = {name: given[name] for name in ASKED if name in given}
    source = str(event.get("requestContext", {}).get("http", {}).get("sourceIp", ""))
    if source:
        headers["x-forwarded-for"] = source
    asked = [each.strip() for each in given.get("prefer", "").split(",") if each.strip()]
    headers |= {"x-request-id": request_id, "prefer": ", ".join([*asked, f"wait={WAIT_SECONDS}"])}
    headers["accept-encoding"] = "identity"
    return headers


def _body(event: Mapping[str, Any]) -> bytes:
    """The request's body. Raises Refused."""
    text = event.get("body") or ""
    try:
        body = base64.b64decode(text, validate=True) if event.get("isBase64Encoded") else str(text).encode()
    except (binascii.Error, ValueError) as error:
        raise Refused(400, "malformed_body", "The body cannot be read.") from error
    if len(body) > BODY_BYTES:
        raise Refused(
            413,
            "payload_too_large",
            f"The body is larger than the {BODY_BYTES // 2**20} MiB that the gateway carries. Send it to the "
            "studio's own address.",
        )
    return body


def _too_slow(event: Mapping[str, Any]) -> Refused:
    """What is said where the portal did not answer in time: whether anything was done is not known."""
    late = f"The portal did not answer within {SECONDS:.0f} seconds."
    if _method(event) == "GET":
        return Refused(504, "not_ready", f"{late} Ask again.", retry_after=5)
    return Refused(
        504,
        "not_ready",
        f"{late} It may have been accepted: look at /api/v1/jobs before you send it again, or send it "
        "with an Idempotency-Key, which makes a repetition the same job.",
    )


def _refusal(refused: Refused, path: str, request_id: str) -> Json:
    """An answer of the gateway's own in the form of the portal's."""
    error = {
        "code": refused.code,
        "message": refused.message,
        "retryable": refused.retry_after is not None,
        "detail": {},
    }
    body: Json = {"error": error, "request_id": request_id}
    if _below(path, PEER):
        body = {"error": "HTTPException", "detail": refused.message, "body": "", "errors": ""}
    headers = {"content-type": "application/json", "cache-control": "no-store", "x-request-id": request_id}
    if refused.retry_after is not None:
        headers["retry-after"] = str(refused.retry_after)
    return {
        "statusCode": refused.status,
        "headers": headers,
        "body": json.dumps(body),
        "isBase64Encoded": False,
    }


def _method(event: Mapping[str, Any]) -> str:
    return str(event.get("requestContext", {}).get("http", {}).get("method", "GET")).upper()


def _below(path: str, prefix: str) -> bool:
    return path == prefix or path.startswith(prefix + "/")
