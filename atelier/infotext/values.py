"""The values of an infotext's entries as numbers and truths, where they make sense as such."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

Reader = Callable[[object], Any]
"""Makes a typed value of an entry's; raises Nonsense."""

_WHOLE = re.compile(r"([+-]?\d{1,20})(?:\.0{0,20})?", re.ASCII)
_REAL = re.compile(r"[+-]?(?:\d{1,20}(?:\.\d{0,40})?|\.\d{1,40})(?:[eE][+-]?\d{1,3})?", re.ASCII)
_TRUTHS = {"true": True, "1": True, "false": False, "0": False}


class Nonsense(ValueError):
    """Why an entry cannot be used, as the end of a sentence."""


def text(value: object) -> str:
    """Any value as it stands."""
    return str(value)


def truth(value: object) -> bool:
    """True or False, 1 or 0. Raises Nonsense."""
    known = _TRUTHS.get(str(value).strip().lower())
    if known is None:
        raise Nonsense(f"{str(value)[:80]!r} is neither True nor False")
    return known


def whole(low: float, high: float) -> Reader:
    """A reader of whole numbers from `low` to `high`."""

    def read(value: object) -> int:
        number = _WHOLE.fullmatch(str(value).strip())
        if number is None:
            raise Nonsense(f"{str(value)[:80]!r} is no whole number")
        return int(_within(int(number[1]), low, high))

    return read


def real(low: float, high: float) -> Reader:
    """A reader of numbers from `low` to `high`."""

    def read(value: object) -> float:
        written = str(value).strip()
        if not _REAL.fullmatch(written):
            raise Nonsense(f"{written[:80]!r} is no number")
        return _within(float(written), low, high)

    return read


def _within(number: float, low: float, high: float) -> float:
    if not low <= number <= high:
        raise Nonsense(f"{number} is not from {low} to {high}")
    return number
