"""Prompt editing and alternation: which text stands at which sampling step.

A text is read once (`compile`); what it says at a step is put together when it is asked for.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from atelier.prompt.schedule_syntax import Alternation, Edit, Item, Program, read

_FARTHEST = 1e9


@dataclass(frozen=True)
class Timing:
    """What moments are counted in. `steps`: of the first pass; `hires_steps`: of the second, where it is the
    one that is drawn; `old`: the scheduling before 1.6 of the peer.
    """

    steps: int
    hires_steps: int | None = None
    old: bool = False

    @property
    def total(self) -> int:
        """Steps of the pass that is drawn; the old scheduling counts the first pass's in both."""
        return self.steps if self.hires_steps is None or self.old else self.hires_steps

    def moment(self, when: str) -> int:
        """The last step, counted from 1, before the change; below 1 it has happened from the start.

        Integers count from the start of the first pass and fractions from 0 in it and from 1 in the second.
        """
        number = max(-_FARTHEST, min(_FARTHEST, float(when)))
        second = self.hires_steps is not None
        if self.old:
            moment = number * self.steps if number < 1 else number
        elif "." in when:
            moment = (number - (1.0 if second else 0.0)) * self.total
        else:
            moment = number - (self.steps if second else 0)
        return min(self.total, int(moment))


class Timeline:
    """A schedule at one timing. Texts are put together on demand, once for all ends that show the same."""

    def __init__(self, program: Program, timing: Timing) -> None:
        self._program = program
        edits = {item.when for sequence in program.sequences for item in sequence if isinstance(item, Edit)}
        counts = {
            len(item.options)
            for sequence in program.sequences
            for item in sequence
            if isinstance(item, Alternation)
        }
        self._moments = {when: timing.moment(when) for when in edits}
        self._changes = sorted(set(self._moments.values()))
        self._counts = sorted(counts)
        ends = {moment for moment in self._changes if moment >= 1} | {timing.total}
        self.ends: tuple[int, ...] = tuple(sorted(ends | set(range(1, timing.total + 1 if counts else 1))))
        self._texts: dict[tuple[int, ...], str] = {}

    def end(self, step: int) -> int:
        """The end of the entry in force at sampling step `step`, counted from 0: the first end that is not
        before it. Past the last end the first entry holds again, as in the peer.
        """
        place = bisect_left(self.ends, step)
        return self.ends[place] if place < len(self.ends) else self.ends[0]

    def text(self, end: int) -> str:
        """The text of the entry that ends at `end`, counted from 1."""
        # Ends with the same edits done and the same place in every alternation show the same text.
        key = (bisect_left(self._changes, end), *((end - 1) % count for count in self._counts))
        if key not in self._texts:
            self._texts[key] = "".join(self._pieces(end))
        return self._texts[key]

    def at(self, step: int) -> str:
        """The text at sampling step `step`, counted from 0."""
        return self.text(self.end(step))

    def distinct(self) -> list[str]:
        """Every text that comes up, in the order of its first entry."""
        return list(dict.fromkeys(self.text(end) for end in self.ends))

    def _pieces(self, end: int) -> Iterator[str]:
        """A walk with a stack of its own: brackets may be nested deeper than Python's calls."""
        sequences = self._program.sequences
        stack: list[Iterator[Item]] = [iter(sequences[-1])]
        while stack:
            item = next(stack[-1], None)
            if item is None:
                stack.pop()
            elif isinstance(item, str):
                yield item
            elif isinstance(item, Edit):
                stack.append(iter(sequences[item.before if end <= self._moments[item.when] else item.after]))
            else:
                stack.append(iter(sequences[item.options[(end - 1) % len(item.options)]]))


@dataclass(frozen=True)
class Schedule:
    """A prompt that was read once, before any number of steps is known."""

    program: Program

    @property
    def work(self) -> int:
        """Steps the reader took; in proportion to the text's length."""
        return self.program.work

    @property
    def constant(self) -> bool:
        """Whether one text stands at every step."""
        return all(isinstance(item, str) for item in self.program.sequences[-1])

    def timeline(self, steps: int, hires_steps: int | None = None, old: bool = False) -> Timeline:
        """The schedule at a number of steps."""
        return Timeline(self.program, Timing(steps, hires_steps, old))

    def spans(
        self, steps: int, hires_steps: int | None = None, old: bool = False
    ) -> Iterator[tuple[int, str]]:
        """(end, text) in order, each put together when it is taken; a step, counted from 0, shows the first
        entry that ends at it or later.
        """
        timeline = self.timeline(steps, hires_steps, old)
        return ((end, timeline.text(end)) for end in timeline.ends)

    def at(self, step: int, steps: int, hires_steps: int | None = None, old: bool = False) -> str:
        """The text at sampling step `step`, counted from 0."""
        return self.timeline(steps, hires_steps, old).at(step)


@lru_cache(maxsize=256)
def compile(text: str) -> Schedule:
    """Read a text once; the same text gives the same schedule. Never raises."""
    return Schedule(read(text))


def parse(text: str, steps: int, hires_steps: int | None = None, old: bool = False) -> list[tuple[int, str]]:
    """Entries (last step, text) whose ends rise to the number of steps. Never raises.

    `steps`: of the first pass, doubled for samplers of second order. `hires_steps`: of the second pass, if
    the text is drawn in it. `old`: moments below 1 are fractions, others steps, in both passes.
    """
    return list(compile(text).spans(steps, hires_steps, old))
