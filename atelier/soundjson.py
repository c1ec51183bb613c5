"""JSON that every reader reads alike, and that needs no more memory than it may: what is neither is refused
before anything is made of it.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from atelier.contract.errors import InvalidRequest

MAX_VALUES = 500_000
"""Values in a body: one is some hundred bytes of memory, however few it is in the body."""


_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


def check(data: bytes) -> None:
    """Raise InvalidRequest for JSON that means different things to different readers, or too much to any.
    What is no JSON at all passes: its route says where it ends.
    """
    if data.count(b",") + data.count(b"[") + data.count(b"{") > MAX_VALUES:
        raise InvalidRequest(f"The body has more than {MAX_VALUES:,} values. Send less at once.")
    try:
        read = json.loads(data, object_pairs_hook=_object, parse_constant=_constant)
        if _SURROGATE.search(data):
            json.dumps(read, ensure_ascii=False).encode()
    except json.JSONDecodeError:
        return
    except UnicodeEncodeError as error:
        raise InvalidRequest(
            "The body holds half a character (a lone surrogate). Send whole ones."
        ) from error
    except UnicodeDecodeError as error:
        raise InvalidRequest("The body is no JSON: it is not UTF-8.") from error
    except RecursionError as error:
        raise InvalidRequest("The body is nested deeper than any request has to be.") from error
    except ValueError as error:
        digits = sys.get_int_max_str_digits()
        raise InvalidRequest(f"The body has a number of more than {digits:,} digits.") from error


def _object(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise InvalidRequest(f"The body names {twice[:80]!r} twice in one object: only one of them can hold.")
    return made


def _constant(name: str) -> NoReturn:
    raise InvalidRequest(f"The body has {name}, which is no number of JSON.")
