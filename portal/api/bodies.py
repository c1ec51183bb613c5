"""What is JSON here: the body of a request is looked at before any route reads it. Every parser agrees on
what passes, and none needs more memory for it than the limits say.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from anyio import to_thread
from starlette.datastructures import Headers
from starlette.types import Message, Receive, Scope

from atelier.contract.errors import InvalidRequest

MAX_VALUES = 500_000
"""Values in a body: one is some hundred bytes of memory, however few it is in the body."""
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


def check(data: bytes) -> None:
    """Raise InvalidRequest for JSON that means different things to different readers, or too much to any.
    What is no JSON at all passes: its route says where it ends.
    """
    if data.count(b",") + data.count(b"[") + data.count(b"{") > MAX_VALUES:
        raise InvalidRequest(f"The body has more than {MAX_VALUES:,} values. Send less at once.")
    try:
        json.loads(data, object_pairs_hook=_object, parse_constant=_constant)
    except json.JSONDecodeError:
        return
    except UnicodeDecodeError as error:
        raise InvalidRequest("The body is no JSON: it is not UTF-8.") from error
    except RecursionError as error:
        raise InvalidRequest("The body is nested deeper than any request has to be.") from error
    except ValueError as error:
        digits = sys.get_int_max_str_digits()
        raise InvalidRequest(f"The body has a number of more than {digits:,} digits.") from error


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


def _object(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise InvalidRequest(f"The body names {twice[:80]!r} twice in one object: only one of them can hold.")
    return made


def _constant(name: str) -> NoReturn:
    raise InvalidRequest(f"The body has {name}, which is no number of JSON.")
