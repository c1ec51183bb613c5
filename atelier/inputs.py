"""Input pictures as requests give them: base64, data URLs, or ids of what was uploaded."""

from __future__ import annotations

import base64
import binascii
import re

from atelier.contract.errors import InvalidRequest

MOST_BYTES = 30 * 2**20
MOST_RATIO = 32
"""Of a picture's longer side to its shorter one."""
_DATA_URL = re.compile(r"data:image/[\w.+-]+;base64,", re.IGNORECASE)
_ID = re.compile(r"[A-Za-z0-9]{1,40}-[0-9a-f]{64}")


def is_id(text: str) -> bool:
    """Whether it has the form of an input's id: its owner's, and the sha256 of its bytes."""
    return _ID.fullmatch(text) is not None


def check_sides(width: int, height: int) -> None:
    """Whether a picture of that many pixels may go in. Raises InvalidRequest."""
    if max(width, height) > MOST_RATIO * min(width, height):
        raise InvalidRequest(
            f"This picture has {width:,} x {height:,} pixels; its longer side may be {MOST_RATIO} times the "
            "shorter one. Cut it."
        )


def decoded(text: str) -> bytes:
    """The bytes of a picture given as base64 or as a data URL. Raises ValueError, with a sentence."""
    text = text.strip()
    if re.match(r"\w+://", text):
        raise ValueError("addresses are not fetched; send the picture itself as base64, or upload it")
    head = _DATA_URL.match(text)
    if text.startswith("data:") and head is None:
        raise ValueError("a data URL must be of an image, in base64")
    try:
        data = base64.b64decode(text[head.end() :] if head else text, validate=False)
    except (binascii.Error, ValueError) as error:
        raise ValueError("the picture is no base64") from error
    if not data:
        raise ValueError("the picture is no base64, or it is empty")
    if len(data) > MOST_BYTES:
        raise ValueError(f"the picture has {len(data) >> 20} MiB; at most {MOST_BYTES >> 20} may be")
    return data
