"""The one reading of a schedule is among those that the peer's grammar allows: all are tried here."""

from __future__ import annotations

import re
from functools import cache

from hypothesis import given
from hypothesis import strategies as st

from atelier.prompt import schedule

STEPS = 4
Meaning = tuple[str, ...]
"""The text at each step."""


def same(text: str) -> Meaning:
    return (text,) * STEPS


def joined(*parts: Meaning) -> Meaning:
    return tuple(map("".join, zip(*parts, strict=True)))


class Readings:
    """Every meaning of a text: a text is a row of elements, or, at the outermost level, of stray marks."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.prompt = cache(self._prompt)
        self.element = cache(self._element)
        self.options = cache(self._options)

    def all(self) -> set[Meaning]:
        found: list[set[Meaning]] = [{same("")}]
        for end in range(1, len(self.text) + 1):
            here: set[Meaning] = set()
            for start in range(end):
                last = set(self.element(start, end))
                if end - start == 1 and self.text[start] in "[]():":
                    last.add(same(self.text[start]))
                here |= {joined(left, right) for left in found[start] for right in last}
            found.append(here)
        return found[-1] or {same(self.text)}

    def _prompt(self, start: int, end: int) -> frozenset[Meaning]:
        found = {same("")} if start == end else set()
        for middle in range(start, end):
            rest = self.element(middle, end)
            if rest:
                found |= {joined(left, right) for left in self.prompt(start, middle) for right in rest}
        return frozenset(found)

    def _element(self, start: int, end: int) -> frozenset[Meaning]:
        text = self.text[start:end]
        if len(text) == 1 and text not in "[]():|":
            return frozenset({same(text)})
        found: set[Meaning] = set()
        if len(text) >= 2 and text[0] + text[-1] in ("()", "[]"):
            found |= {joined(same(text[0]), each, same(text[-1])) for each in self.prompt(start + 1, end - 1)}
        for colon in (place for place in range(start + 1, end - 1) if self.text[place] == ":"):
            if text[0] + text[-1] == "()":
                found |= {
                    joined(same("("), left, same(":"), right, same(")"))
                    for left in self.prompt(start + 1, colon)
                    for right in self.prompt(colon + 1, end - 1)
                }
            elif text[0] + text[-1] == "[]" and (
                when := re.fullmatch(r"\s*(\d+)\s*", self.text[colon + 1 : end - 1])
            ):
                found |= self._edits(start + 1, colon, int(when[1]))
        if len(text) >= 3 and text[0] + text[-1] == "[]":
            for options in self.options(start + 1, end - 1):
                if len(options) > 1:
                    found.add(tuple(options[step % len(options)][step] for step in range(STEPS)))
        return frozenset(found)

    def _edits(self, start: int, end: int, when: int) -> set[Meaning]:
        befores = [(same(""), start)]
        for colon in (place for place in range(start, end) if self.text[place] == ":"):
            befores += [(each, colon + 1) for each in self.prompt(start, colon)]
        return {
            before[:when] + after[when:] for before, begin in befores for after in self.prompt(begin, end)
        }

    def _options(self, start: int, end: int) -> frozenset[tuple[Meaning, ...]]:
        found = {(each,) for each in self.prompt(start, end)}
        for bar in (place for place in range(start, end) if self.text[place] == "|"):
            found |= {
                (first, *rest) for first in self.prompt(start, bar) for rest in self.options(bar + 1, end)
            }
        return frozenset(found)


def ours(text: str) -> Meaning:
    entries = schedule.parse(text, STEPS)
    return tuple(next(each for end, each in entries if end >= step) for step in range(1, STEPS + 1))


@given(
    st.lists(st.sampled_from([*"[[[]]]()::||ab12", ":2]", ":1]", "[a:", "(b", ":a:"]), max_size=9).map(
        "".join
    )
)
def test_the_reading_is_one_that_the_grammar_allows(text: str) -> None:
    readings = Readings(text).all()
    assert ours(text) in readings


def test_the_trial_of_all_readings_finds_the_ones_that_are_known() -> None:
    assert Readings("a[b:2]").all() == {same("a[b:2]"), ("a", "a", "ab", "ab")}
    assert Readings("[a|b]").all() == {("a", "b", "a", "b")}
    assert Readings("[a|b:2]").all() == {same("[a|b:2]")}
    assert len(Readings("(a:b:[c:d:2])").all()) > 1
