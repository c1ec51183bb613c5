"""How edits `[from:to:when]` and alternations `[a|b]` are found in a prompt: one pass, one reading.

The peer's grammar allows several readings of some texts and takes one by chance. Here a bracket is what its
partner makes of it, from the inside out:

- a round bracket holds at most one colon of its own;
- a square bracket without colons and bars is emphasis; with bars alone an alternation; with one or two
  colons, the last before a number, an edit;
- a bracket that is none of these, has no partner or encloses one of those is plain text, and so is every
  bracket around it; what stands whole inside it is still read;
- a bar outside an alternation, or a backslash that escapes nothing, leaves the whole text unread, as in the
  peer; only in an edit, behind a brace `{`, a bar is plain text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import groupby

_TOKEN = re.compile(r"(?P<plain>(?:[^\\\[\]():|]|\\.)+)|[\[\]():|\\]")
_BRACE = re.compile(r"\\.|(?P<brace>[{}])")
_WHEN = re.compile(r"\s*(?P<number>[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)\s*")
_PARTNER = {")": "(", "]": "["}
_MOST_COLONS = {"(": 1, "[": 2}


@dataclass(frozen=True, slots=True)
class Edit:
    """`[from:to:when]`: two sequences by number and the moment as it was written."""

    before: int
    after: int
    when: str


@dataclass(frozen=True, slots=True)
class Alternation:
    """`[a|b|c]`: sequences by number, one after the other, step by step."""

    options: tuple[int, ...]


Item = str | Edit | Alternation


@dataclass(frozen=True, slots=True)
class Program:
    """A text as sequences of items that name each other by number; the last one is the whole text.

    `work` counts the reader's steps: tokens read, items moved, brackets given up. `unread`: whether a mark
    without a place kept all edits and alternations from being read.
    """

    sequences: tuple[tuple[Item, ...], ...]
    work: int
    unread: bool = False


class _Unread(Exception):
    """The text holds a mark that the peer's grammar has no place for."""


@dataclass(slots=True)
class _Open:
    """A bracket without its partner so far: where its items begin, and the places of its own marks."""

    kind: str
    start: int
    colons: list[int] = field(default_factory=list)
    bars: list[int] = field(default_factory=list)
    braced: bool = False
    only_braced_bars: bool = True


class _Reader:
    def __init__(self) -> None:
        self.items: list[Item] = []
        self.open: list[_Open] = []
        self.sequences: list[tuple[Item, ...]] = []
        self.work = 0

    def read(self, text: str) -> None:
        for token in _TOKEN.finditer(text):
            self.work += 1
            mark = token[0]
            if token["plain"] is not None:
                self._plain(mark)
            elif mark in _PARTNER:
                self._close(mark)
            elif mark in _MOST_COLONS:
                self.open.append(_Open(mark, len(self.items)))
                self.items.append(mark)
            else:
                self._separate(mark)
        self._give_up()
        self.sequences.append(self._sequence(self.items))

    def _plain(self, text: str) -> None:
        self.items.append(text)
        if self.open and ("{" in text or "}" in text):
            for match in _BRACE.finditer(text):
                self.work += 1
                if match["brace"]:
                    self.open[-1].braced = match["brace"] == "{"

    def _separate(self, mark: str) -> None:
        """A colon or a bar; a backslash that comes as a token of its own escapes nothing."""
        inner = self.open[-1] if self.open else None
        if mark == "\\" or (mark == "|" and (inner is None or inner.kind == "(")):
            raise _Unread
        if inner is not None and mark == "|":
            inner.bars.append(len(self.items))
            inner.only_braced_bars &= inner.braced
        elif inner is not None:
            inner.colons.append(len(self.items))
            inner.braced = False
        self.items.append(mark)
        if inner is not None and len(inner.colons) > _MOST_COLONS[inner.kind]:
            self._give_up()

    def _close(self, mark: str) -> None:
        if not self.open or self.open[-1].kind != _PARTNER[mark]:
            self._give_up()
            self.items.append(mark)
            return
        inner = self.open[-1]
        if mark == ")" or not (inner.colons or inner.bars):
            self.items.append(mark)
        elif not inner.colons:
            self._replace(inner.start, Alternation(tuple(self._fields(inner.start, inner.bars))))
        elif (when := self._when(inner)) is not None:
            *before, after, _ = self._fields(inner.start, inner.colons)
            self._replace(inner.start, Edit(before[0] if before else self._keep([]), after, when))
        else:
            self._give_up()
            self.items.append(mark)
            return
        self.open.pop()

    def _when(self, inner: _Open) -> str | None:
        """The number behind the last colon, where the bracket can be an edit."""
        last = self.items[inner.colons[-1] + 1 :]
        self.work += len(last)
        if not inner.only_braced_bars or len(last) != 1 or not isinstance(last[0], str):
            return None
        match = _WHEN.fullmatch(last[0])
        return match["number"] if match else None

    def _fields(self, start: int, marks: list[int]) -> list[int]:
        ends = [*marks, len(self.items)]
        return [
            self._keep(self.items[left + 1 : right])
            for left, right in zip([start, *marks], ends, strict=True)
        ]

    def _replace(self, start: int, item: Item) -> None:
        self.work += len(self.items) - start
        del self.items[start:]
        self.items.append(item)

    def _keep(self, items: list[Item]) -> int:
        self.sequences.append(self._sequence(items))
        return len(self.sequences) - 1

    def _sequence(self, items: Iterable[Item]) -> tuple[Item, ...]:
        """The items with neighbouring text joined."""
        out: list[Item] = []
        for is_text, run in groupby(items, lambda item: isinstance(item, str)):
            part = list(run)
            self.work += len(part)
            out.extend(["".join(str(each) for each in part)] if is_text else part)
        return tuple(out)

    def _give_up(self) -> None:
        """Every open bracket becomes text: none of them can hold the mark that stands here."""
        self.work += len(self.open)
        if any(each.bars for each in self.open):
            raise _Unread
        self.open.clear()


def read(text: str) -> Program:
    """The one reading of `text`; a text that cannot be read is itself. Never raises; linear work."""
    reader = _Reader()
    try:
        reader.read(text)
    except _Unread:
        return Program(((text,),), reader.work, unread=True)
    return Program(tuple(reader.sequences), reader.work)
