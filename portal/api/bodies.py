"""The body of a request that is JSON is looked at before any route reads it."""

from __future__ import annotations

from anyio import to_thread
from starlette.datastructures import Headers
from starlette.types import Message, Receive, Scope

from atelier.soundjson import check

LONG_BYTES = 2**20
"""What is longer is looked at beside the loop that answers everybody."""
_METHODS = ("POST", "PUT", "PATCH", "DELETE")


async def looked_at(scope: Scope, receive: Receive) -> Receive:
    """`receive`, where the body is JSON after it has been read whole and found to be sound. Raises
    InvalidRequest.
    """
    if scope["method"] not in _METHODS or not _says_json(Headers(scope=scope)):
        return receive
    data, end = await _whole(receive)
    if end["type"] == "http.request":
        if len(data) > LONG_BYTES:
            await to_thread.run_sync(check, data)
        else:
            check(data)
    waiting: list[Message] = [end if end["type"] != "http.request" else {**end, "body": data}]

    async def again() -> Message:
        return waiting.pop() if waiting else await receive()

    return again


def _says_json(headers: Headers) -> bool:
    media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    return media_type == "application/json" or media_type.endswith("+json")


async def _whole(receive: Receive) -> tuple[bytes, Message]:
    """The body and the message it ended with, which may be that the sender is gone."""
    taken = bytearray()
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return bytes(taken), message
        taken += message.get("body", b"")
        if not message.get("more_body", False):
            return bytes(taken), message
