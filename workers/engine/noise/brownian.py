"""A Brownian path over noise levels that depends on its seed alone, not on where or in which order it is
looked at.

A virtual Brownian tree (Li et al. 2020, "Scalable Gradients for Stochastic Differential Equations", section
4): the path is known at both ends of an interval, its middle is drawn given those, and so on into the half
that holds the wanted point. Each interval's numbers come from a seed of its own, numpy's SeedSequence of the
picture's seed and the interval's place in the tree. Times are rounded to 1e-6 and places, seeds and order of
the arithmetic are those of the tree the peer uses, so that a seed gives the same picture.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Sequence

import numpy as np
import torch

Drawn = Callable[[Sequence[int]], Sequence[torch.Tensor]]
"""Gives the standard normal numbers of each of some seeds."""
Split = tuple[float, float, float]
"""Where an interval begins, is halved, and ends."""

_POOL = 24
_DIGITS = 6
_MOST_LEVELS = 64
_KEPT = 4
"""Points remembered: a step begins where the one before it ended."""


class BrownianTree:
    """The path of the seed `entropy` over [start, end], 0 at its start; `draw` turns a seed into numbers."""

    def __init__(self, entropy: int, start: float, end: float, draw: Drawn) -> None:
        self._entropy, self._draw = entropy, draw
        self.start, self.end = round(start, _DIGITS), round(end, _DIGITS)
        seed = np.random.SeedSequence(entropy, pool_size=_POOL).generate_state(1)[0]
        [whole] = draw([int(seed)])
        self._whole = whole * math.sqrt(end - start)
        self._known: OrderedDict[float, torch.Tensor] = OrderedDict()

    def _seed(self, place: int, depth: int) -> int:
        """The seed of what decides the middle of the interval at `place` (from the left) of a depth."""
        sequence = np.random.SeedSequence(self._entropy, spawn_key=(place, depth), pool_size=_POOL)
        return int(sequence.generate_state(1)[0])

    def at(self, time: float) -> torch.Tensor:
        """The path at a time; beyond the ends it is that of the ends."""
        time = min(max(round(time, _DIGITS), self.start), self.end)
        if time not in self._known:
            self._known[time] = self._descend(time)
            if len(self._known) > _KEPT:
                self._known.popitem(last=False)
        self._known.move_to_end(time)
        return self._known[time]

    def _splits(self, time: float) -> tuple[list[Split], list[int]]:
        """The intervals that are halved until one ends at `time`, and their seeds."""
        low, high, place = self.start, self.end, 0
        splits: list[Split] = []
        seeds: list[int] = []
        while low < time < high and len(splits) < _MOST_LEVELS:
            middle = round(0.5 * (high + low), _DIGITS)
            seeds.append(self._seed(place, len(splits)))
            splits.append((low, middle, high))
            if time < middle:
                high, place = middle, 2 * place
            else:
                low, place = middle, 2 * place + 1
        return splits, seeds

    def _descend(self, time: float) -> torch.Tensor:
        splits, seeds = self._splits(time)
        before, increment = torch.zeros_like(self._whole), self._whole
        if time <= self.start:
            return before
        for (low, middle, high), normal in zip(splits, self._draw(seeds), strict=True):
            left, right, width = middle - low, high - middle, high - low
            half = left * increment / width + math.sqrt(left * right / width) * normal
            if time < middle:
                increment = half
            else:
                before, increment = before + half, increment - half
        # the last interval begins or ends at `time`
        return before if splits and time == splits[-1][1] else before + increment

    def increment(self, sigma: float, following: float) -> torch.Tensor:
        """W(following) - W(sigma), scaled to unit variance; the levels in any order, not equal."""
        first, last = _single(sigma), _single(following)
        return (self.at(last) - self.at(first)) / math.sqrt(abs(last - first))


def _single(level: float) -> float:
    """The level in single precision, which the peer's schedules have."""
    return float(np.float32(level))


def tree_over(entropy: int, low: float, high: float, draw: Drawn) -> BrownianTree:
    """The tree over the noise levels from `low` to `high`."""
    return BrownianTree(entropy, _single(low), _single(high), draw)
