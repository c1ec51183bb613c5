"""The values of an X/Y/Z axis as people write them: comma-separated, quoted, and as ranges of numbers."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Callable, Sequence
from typing import TypeVar

from atelier.contract.errors import InvalidRequest, LimitExceeded
from atelier.scripts.expansion import MAX_PICTURES

Number = TypeVar("Number", int, float)

_NUMBER = r"[+-]?\s*\d*\.?\d+(?:[eE][+-]?\d+)?"
_STEP = r"\(\s*([+-]?\s*\d*\.?\d+)\s*\)"
_RANGE = re.compile(rf"\s*({_NUMBER})\s*-\s*({_NUMBER})\s*(?:{_STEP}|\[\s*(\d{{1,6}})\s*\])?\s*")


def split(text: str) -> list[str]:
    """The values of a line of comma-separated ones, without the spaces around; quotes keep a comma in.

    Raises InvalidRequest for what is too long to be a list.
    """
    try:
        rows = list(csv.reader(io.StringIO(text), skipinitialspace=True))
    except csv.Error as error:
        raise InvalidRequest(f"The list {text[:80]!r} cannot be read: {error}.") from error
    return [value.strip() for row in rows for value in row]


def joined(values: Sequence[str]) -> str:
    """The line that `split` reads back."""
    out = io.StringIO()
    csv.writer(out, lineterminator="").writerow(values)
    return out.getvalue()


def integers(values: Sequence[str]) -> list[int]:
    """Whole numbers and ranges of them: `1-5`, `1-10 (+2)`, `10-1 (-3)`, `1-10 [3]` for three, evenly spaced.

    Raises InvalidRequest for what is neither.
    """
    return _all_numbers(values, int, "a whole number")


def floats(values: Sequence[str]) -> list[float]:
    """Numbers and ranges of them, as `integers` has them; the step is 1 unless said."""
    return _all_numbers(values, _finite, "a number")


def _all_numbers(values: Sequence[str], read: Callable[[str], Number], wanted: str) -> list[Number]:
    found: list[Number] = []
    for value in values:
        if value.strip():
            found += _numbers(value, read, wanted)
            _bounded(len(found))
    return found


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(text)
    return number


def _numbers(value: str, read: Callable[[str], Number], wanted: str) -> list[Number]:
    try:
        return [read(value)]
    except ValueError:
        return _range(value, read, wanted)


def _range(value: str, read: Callable[[str], Number], wanted: str) -> list[Number]:
    match = _RANGE.fullmatch(value)
    try:
        if match is None:
            raise ValueError
        start, end, step = (read("".join((match[i] or "1").split())) for i in (1, 2, 3))
    except ValueError:
        raise InvalidRequest(
            f"{value[:80]!r} is neither {wanted} nor a range such as 1-5, 1-10 (+2) or 1-10 [3]."
        ) from None
    if match[4]:
        if int(match[4]) == 0:
            raise InvalidRequest(f"The range {value[:80]!r} asks for no values. Ask for one or more.")
        return _evenly(start, end, _bounded(int(match[4])), read)
    # The end belongs to the range; a hair of tolerance, since 0.1 is no binary fraction.
    try:
        count = 0 if step == 0 else math.floor((end - start) / step + 1e-9) + 1
    except (OverflowError, ValueError):
        count = 0
    if count <= 0:
        raise InvalidRequest(f"The range {value[:80]!r} is empty. One that falls says so: 5-1 (-1).")
    return [_tidy(start + i * step) for i in range(_bounded(count))]


def _evenly(start: Number, end: Number, count: int, read: Callable[[str], Number]) -> list[Number]:
    whole = read is int
    spaced = [start + (end - start) * i / max(1, count - 1) for i in range(count)]
    return [read(str(math.trunc(each))) if whole else _tidy(each) for each in spaced]  # type: ignore[misc]


def _tidy(number: Number) -> Number:
    return round(number, 10) if isinstance(number, float) else number


def _bounded(count: int) -> int:
    if count > MAX_PICTURES:
        raise LimitExceeded(
            f"A range has {count:,} values, and a job may have {MAX_PICTURES:,} pictures.",
            detail={"values": count, "limit": MAX_PICTURES},
        )
    return count
