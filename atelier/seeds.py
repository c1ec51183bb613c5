"""Random seeds, in the peer's range."""

from __future__ import annotations

import random
from collections.abc import Callable

from atelier.contract import limits

Draw = Callable[[], int]
"""Gives a seed where a request leaves it to chance."""


def draw_seed() -> int:
    """A random seed in the peer's range [0, 4294967294)."""
    return random.SystemRandom().randrange(limits.RANDOM_SEED_BELOW)
