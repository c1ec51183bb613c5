"""What is wrong with a prompt, in words for the person who types it."""

from __future__ import annotations

import re

from atelier.contract.limits import MAX_PROMPT_CHARACTERS
from atelier.prompt.schedule_syntax import Edit, read

_MARK = re.compile(r"\\.|[()\[\]{}]", re.DOTALL)
_KINDS = (("(", ")"), ("[", "]"), ("{", "}"))


def problems(text: str) -> list[str]:
    """A sentence for each mistake that can be seen; [] where there is none. Never raises.

    A text that is too long gets that sentence alone: it is not read.
    """
    if len(text) > MAX_PROMPT_CHARACTERS:
        return [f"{len(text):,} characters are too many: a prompt has at most {MAX_PROMPT_CHARACTERS:,}."]
    return [*_unbalanced(text), *_unread(text)]


def _unbalanced(text: str) -> list[str]:
    """Brackets without their partners, by kind; an escaped bracket is no bracket."""
    found: list[str] = []
    marks = _MARK.findall(text)
    for opening, closing in _KINDS:
        depth = stray = 0
        for mark in marks:
            if mark == opening:
                depth += 1
            elif mark == closing and depth:
                depth -= 1
            elif mark == closing:
                stray += 1
        if depth:
            found.append(f"{depth} {opening} {'is' if depth == 1 else 'are'} not closed.")
        if stray:
            found.append(f"{stray} {closing} {'closes' if stray == 1 else 'close'} nothing.")
    return found


def _unread(text: str) -> list[str]:
    """A mark that turns all prompt editing off, in a text that would be edited without it."""
    if not read(text).unread:
        return []
    without = read(re.sub(r"\||\\$", " ", text, flags=re.MULTILINE))
    if not any(isinstance(item, Edit) for sequence in without.sequences for item in sequence):
        return []
    return ["A | outside of [a|b], or a \\ at a line's end, stops prompt editing: write \\| for the sign."]
