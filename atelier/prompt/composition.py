"""Composition: `a cat AND a dog :1.2`, parts that steer the picture together, each with its weight."""

from __future__ import annotations

import re

_AND = re.compile(r"\bAND\b")
_WEIGHT = re.compile(r"[-+]?(?:\d+\.?|\d*\.\d+)")


def parse(text: str) -> list[tuple[str, float]]:
    """(text, weight) of each part, in order, at least one. Never raises.

    Parts are split at the word AND; `:weight` at a part's end is taken off, 1 without one. Space before it
    and at the end goes, space at the start stays, as in the peer.
    """
    return [_weighted(part) for part in _AND.split(text)]


def _weighted(part: str) -> tuple[str, float]:
    text, colon, weight = part.rpartition(":")
    if colon and _WEIGHT.fullmatch(weight.strip()):
        return text.rstrip(), float(weight)
    return part.rstrip(), 1.0
