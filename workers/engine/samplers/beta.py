"""Quantiles of the beta distribution, for the schedule of that name."""

from __future__ import annotations

import math

_ACCURACY = 1e-14
_MOST_TERMS = 500
_MOST_STEPS = 200
_TINY = 1e-300


def _fraction(x: float, a: float, b: float) -> float:
    """The continued fraction of the incomplete beta function (DLMF 8.17.22), by Lentz's method."""
    value = upper = 1.0
    lower = 0.0
    for term in range(1, _MOST_TERMS):
        half, odd = divmod(term, 2)
        if odd:
            factor = -(a + half) * (a + b + half) * x / ((a + 2 * half) * (a + 2 * half + 1))
        else:
            factor = half * (b - half) * x / ((a + 2 * half - 1) * (a + 2 * half))
        lower = 1.0 / ((1.0 + factor * lower) or _TINY)
        upper = (1.0 + factor / upper) or _TINY
        value *= upper * lower
        if abs(upper * lower - 1.0) < _ACCURACY:
            break
    return 1.0 / value


def cumulative(x: float, a: float, b: float) -> float:
    """The regularised incomplete beta function I_x(a, b): how likely a beta(a, b) number is at most x."""
    if x <= 0.0 or x >= 1.0:
        return 0.0 if x <= 0.0 else 1.0
    if x > (a + 1) / (a + b + 2):
        return 1.0 - cumulative(1.0 - x, b, a)
    return _density(x, a, b) * x * (1.0 - x) * _fraction(x, a, b) / a


def _density(x: float, a: float, b: float) -> float:
    log_beta = math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
    return math.exp((a - 1) * math.log(x) + (b - 1) * math.log1p(-x) - log_beta)


def quantile(share: float, a: float, b: float) -> float:
    """The number that a beta(a, b) number is at most with probability `share`; a, b > 0.

    Newton's method on `cumulative`, kept inside a bracket that shrinks with every step.
    """
    if share <= 0.0 or share >= 1.0:
        return 0.0 if share <= 0.0 else 1.0
    low, high = 0.0, 1.0
    x = a / (a + b)
    for _ in range(_MOST_STEPS):
        excess = cumulative(x, a, b) - share
        low, high = (low, x) if excess > 0 else (x, high)
        step = x - excess / (_density(x, a, b) or _TINY)
        following = step if low < step < high else (low + high) / 2
        if abs(following - x) <= _ACCURACY * max(x, _TINY) or following in (low, high):
            return following
        x = following
    return x
