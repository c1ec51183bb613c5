"""The parameters line `Key: value, Key: value`: quoting, and reading it in one pass."""

from __future__ import annotations

import json
import re

_RUN = re.compile(r"([\w \-/]+)(:?)")
"""The longest run of characters that a key may hold, and whether a colon makes a key of it."""
_QUOTED = re.compile(r'\s*("(?:\\.|[^\\"])+")(?:,|\Z)')
_PLAIN = re.compile(r"\s*([^,]*),?")
_NEEDS_QUOTES = re.compile(r"[,\n:]")
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


def quote(value: object) -> str:
    """A value as it stands in the parameters line: JSON-quoted if it holds a comma, colon or newline."""
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if _NEEDS_QUOTES.search(text) else text


def unquote(text: str) -> str:
    """The value behind `quote`; what is not valid JSON stays as it is. Half a surrogate pair, which no file
    can hold, becomes U+FFFD.
    """
    if len(text) < 2 or text[0] != '"' or text[-1] != '"':
        return text
    try:
        return _LONE_SURROGATE.sub("\ufffd", str(json.loads(text)))
    except (ValueError, RecursionError):
        return text


def entries(line: str) -> list[tuple[str, str]]:
    """The (key, raw value) pairs of a line, in order; whatever stands between them is passed over.

    A key starts with a word character and has at least two characters. A value is quoted, or goes to the next
    comma. Each character is looked at a bounded number of times, whatever the line holds.
    """
    found: list[tuple[str, str]] = []
    place = 0
    while (run := _RUN.search(line, place)) is not None:
        place = run.end()
        key = run[1].lstrip(" -/")
        if not run[2] or len(key) < 2:
            continue
        value = _QUOTED.match(line, place) or _PLAIN.match(line, place)
        if value is not None:
            found.append((key, value[1]))
            place = value.end()
    return found
