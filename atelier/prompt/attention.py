"""Attention syntax: `(more)`, `[less]`, `(exactly:1.3)`, escapes and BREAK, as the peer reads them (a reading
of its behaviour, v1.10.1).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal

BREAK = "BREAK"
"""The text of the fragment, with weight -1, that ends a 75-token chunk."""

BREAK_FRAGMENT = (BREAK, -1.0)
ROUND = 1.1
SQUARE = 1 / 1.1
DEEPEST_IN_ORDER = 32
"""Brackets around a word whose factors are multiplied from the inside out, as the peer rounds; inside more of
them the order is another, and the product differs in its last digits.
"""

_TOKEN = re.compile(
    r"""
    \\(?P<escaped>[\\()\[\]]) |
    \\ |
    (?P<open>[(\[]) |
    :\s*(?P<weight>[+-]?[.\d]+)\s*\) |
    (?P<close>[)\]]) |
    (?P<text>[^\\()\[\]:]+ | :)
    """,
    re.VERBOSE,
)
_BREAK = re.compile(r"\bBREAK\b")
_PARTNER = {")": "(", "]": "["}
_FACTOR = {"(": ROUND, "[": SQUARE}


@dataclass(frozen=True, slots=True)
class Reading:
    """Fragments with their weights, and the steps it took to find them."""

    fragments: list[tuple[str, float]]
    work: int


class _Fragments:
    """The texts found so far, the brackets still open by kind, and those closed: (first text inside, first
    text behind, factor) in the order of their closing.
    """

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.breaks: set[int] = set()
        self.open: dict[str, list[int]] = {"(": [], "[": []}
        self.closed: list[tuple[int, int, float]] = []
        self.work = 0

    def add(self, text: str) -> None:
        """Text between two BREAKs; spaces around a BREAK go with it."""
        pieces = _BREAK.split(text)
        self.work += len(pieces)
        for number, piece in enumerate(pieces):
            if number:
                self.breaks.add(len(self.texts))
                self.texts.append(BREAK)
                piece = piece.lstrip()
            self.texts.append(piece.rstrip() if number < len(pieces) - 1 else piece)

    def close(self, kind: str, factor: float) -> bool:
        """Close the last open bracket of `kind`; round and square ones close crosswise, like the peer's."""
        if not self.open[kind]:
            return False
        self.closed.append((self.open[kind].pop(), len(self.texts), factor))
        return True

    def close_all(self) -> None:
        for kind, factor in _FACTOR.items():
            while self.close(kind, factor):
                self.work += 1


class _Weights:
    """The product of the factors around one text after another, in work that is linear but for the depth up
    to `DEEPEST_IN_ORDER`, and logarithmic in the number of brackets beyond.
    """

    def __init__(self, closed: list[tuple[int, int, float]]) -> None:
        self.factors = [factor for _, _, factor in closed]
        self.tree = [1.0] * (2 * len(closed))
        self.around: set[int] = set()
        self.work = 0

    def enter(self, bracket: int) -> None:
        self.around.add(bracket)
        self._set(bracket, self.factors[bracket])

    def leave(self, bracket: int) -> None:
        self.around.remove(bracket)
        self._set(bracket, 1.0)

    def _set(self, bracket: int, factor: float) -> None:
        place = bracket + len(self.factors)
        self.tree[place] = factor
        while place > 1:
            place //= 2
            self.tree[place] = self.tree[2 * place] * self.tree[2 * place + 1]
            self.work += 1

    def product(self) -> float:
        if len(self.around) > DEEPEST_IN_ORDER:
            return 0.0 if math.isnan(self.tree[1]) else self.tree[1]
        self.work += len(self.around)
        weight = 1.0
        for bracket in sorted(self.around):
            weight *= self.factors[bracket]
        return weight


def parse(text: str) -> list[tuple[str, float]]:
    """Fragments with their weights, in order; ("BREAK", -1.0) ends a chunk. Never raises; "" gives [("",
    1.0)].

    A bracket left open counts to the end of the text. BREAK inside brackets breaks too, where the peer
    tokenises the word.
    """
    return read(text).fragments


def read(text: str) -> Reading:
    """`parse` with its work counted."""
    fragments = _Fragments()
    for match in _TOKEN.finditer(text):
        fragments.work += 1
        _take(fragments, match)
    fragments.close_all()
    weighted, work = _weighted(fragments)
    return Reading(_merged(weighted) or [("", 1.0)], fragments.work + work + len(weighted))


def _take(fragments: _Fragments, match: re.Match[str]) -> None:
    if match["escaped"] is not None:
        fragments.texts.append(match["escaped"])
    elif match["open"] is not None:
        fragments.open[match["open"]].append(len(fragments.texts))
    elif match["weight"] is not None:
        _take_weight(fragments, match)
    elif match["close"] is not None:
        kind = _PARTNER[match["close"]]
        if not fragments.close(kind, _FACTOR[kind]):
            fragments.texts.append(match["close"])
    elif match["text"] is not None:
        fragments.add(match["text"])


def _take_weight(fragments: _Fragments, match: re.Match[str]) -> None:
    try:
        weight = float(match["weight"])
    except ValueError:  # "1.2.3" is no number: text, and a bracket without a weight
        fragments.texts.append(match[0][:-1])
        if not fragments.close("(", ROUND):
            fragments.texts.append(")")
        return
    if not fragments.close("(", weight):
        fragments.texts.append(match[0])


def _weighted(found: _Fragments) -> tuple[list[tuple[str, float]], int]:
    """Each text with its weight. A bracket is entered before its first text and left before the first behind
    it.
    """
    weights = _Weights(found.closed)
    ends = range(len(found.closed))
    starts = sorted(ends, key=lambda bracket: found.closed[bracket][0])
    entered = left = 0
    out: list[tuple[str, float]] = []
    for place, text in enumerate(found.texts):
        while entered < len(starts) and found.closed[starts[entered]][0] <= place:
            weights.enter(starts[entered])
            entered += 1
        while left < len(ends) and found.closed[left][1] <= place:
            weights.leave(left)
            left += 1
        out.append(BREAK_FRAGMENT if place in found.breaks else (text, weights.product()))
    return out, weights.work


def _merged(fragments: list[tuple[str, float]]) -> list[tuple[str, float]]:
    """Neighbours of one weight as one fragment."""
    texts: list[list[str]] = []
    weights: list[float] = []
    mergeable = False
    for text, weight in fragments:
        is_break = (text, weight) == BREAK_FRAGMENT
        if mergeable and not is_break and weights[-1] == weight:
            texts[-1].append(text)
        else:
            texts.append([text])
            weights.append(weight)
        mergeable = not is_break
    return [("".join(parts), weight) for parts, weight in zip(texts, weights, strict=True)]


def render(fragments: Iterable[tuple[str, float]]) -> str:
    """Text that `parse` reads as `fragments`, apart from empty ones; neighbours of one weight become one.

    Weights must be finite.
    """
    return "".join(_rendered(text, weight) for text, weight in fragments if text)


def _rendered(text: str, weight: float) -> str:
    if (text, weight) == BREAK_FRAGMENT:
        return f" {BREAK} "
    escaped = re.sub(r"([\\()\[\]])", r"\\\1", text).replace(BREAK, "B\\REAK")
    return escaped if weight == 1.0 else f"({escaped}:{Decimal(weight):f})"
