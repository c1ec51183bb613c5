"""Waiting time against monthly cost, as SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 900, 560
LEFT, RIGHT, TOP, BOTTOM = 70, 250, 50, 60
P50, P95 = "#2f7d5b", "#c2502e"
LEAST_SECONDS = 0.1
"""Where the scale of waiting, which is logarithmic, begins."""


@dataclass(frozen=True)
class Point:
    """A plan: cost a month, waiting in seconds."""

    name: str
    monthly: float
    p50: float
    p95: float


def drawn(points: Sequence[Point], title: str) -> str:
    """The picture: for each plan its median wait and its 95th percentile, joined by a line."""
    most = _ceiling(max((each.monthly for each in points), default=1.0))
    slowest = max((each.p95 for each in points), default=1.0)
    decades = max(1, math.ceil(math.log10(max(slowest, 1.0) / LEAST_SECONDS)))

    def x(monthly: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * monthly / most

    def y(seconds: float) -> float:
        share = math.log10(max(seconds, LEAST_SECONDS) / LEAST_SECONDS) / decades
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * share

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" '
        f'viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<text x="{LEFT}" y="24" font-size="16">Waiting time against monthly cost: {escape(title)}</text>',
        *(_line_across(y(LEAST_SECONDS * 10**each), LEAST_SECONDS * 10**each) for each in range(decades + 1)),
        *(_line_up(x(most * each / 5), most * each / 5) for each in range(6)),
        f'<text x="{LEFT}" y="{HEIGHT - 16}">cost a month, in the currency of the prices</text>',
        f'<text x="{LEFT}" y="42" fill="{P50}">median wait</text>',
        f'<text x="{LEFT + 90}" y="42" fill="{P95}">95 of 100 wait less</text>',
    ]
    for number, each in enumerate(sorted(points, key=lambda it: it.monthly), 1):
        parts += _marks(number, each, x(each.monthly), y(each.p50), y(each.p95))
    return "\n".join([*parts, "</svg>", ""])


def _marks(number: int, point: Point, x: float, p50: float, p95: float) -> list[str]:
    legend = TOP + 18 * number
    told = f"{number}  {point.name}"
    return [
        f'<line x1="{x:.1f}" y1="{p50:.1f}" x2="{x:.1f}" y2="{p95:.1f}" stroke="#999"/>',
        f'<circle cx="{x:.1f}" cy="{p50:.1f}" r="4" fill="{P50}"/>',
        f'<circle cx="{x:.1f}" cy="{p95:.1f}" r="4" fill="{P95}"/>',
        f'<text x="{x + 7:.1f}" y="{p95 + 4:.1f}">{number}</text>',
        f'<text x="{WIDTH - RIGHT + 16}" y="{legend}">{escape(told)}</text>',
    ]


def _line_across(y: float, seconds: float) -> str:
    label = f"{seconds:g} s"
    return (
        f'<line x1="{LEFT}" y1="{y:.1f}" x2="{WIDTH - RIGHT}" y2="{y:.1f}" stroke="#ddd"/>'
        f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{label}</text>'
    )


def _line_up(x: float, cost: float) -> str:
    return (
        f'<line x1="{x:.1f}" y1="{TOP}" x2="{x:.1f}" y2="{HEIGHT - BOTTOM}" stroke="#eee"/>'
        f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{cost:g}</text>'
    )


def _ceiling(value: float) -> float:
    """The next number that is 1, 2 or 5 times a power of ten."""
    if value <= 0:
        return 1.0
    scale = 10.0 ** math.floor(math.log10(value))
    return next(each * scale for each in (1.0, 2.0, 5.0, 10.0) if value <= each * scale)
