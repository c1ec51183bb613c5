"""When and how strongly ControlNets act on a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from workers.engine.rows import Control

SOFT = 0.825
"""Of each output's strength in the next deeper one's, where the prompt is more important (the peer's)."""
_DEEPEST = 12
"""Number of the middle's output in SD1, from which the peer counts for every family."""


@dataclass(frozen=True, eq=False)
class Timed:
    """A control that acts from the share `start` to the share `end` of a pass's steps; with `cond_only` on
    the prompts alone, not on the negative one.
    """

    control: Control
    start: float = 0.0
    end: float = 1.0
    cond_only: bool = False

    def acts(self, share: float) -> bool:
        """Whether it acts at that share."""
        return self.start <= share <= self.end


def share(evaluation: int, evaluations: int, steps: int) -> float:
    """How far a pass of `steps` is at evaluation number `evaluation` of `evaluations`, as the peer counts:
    a step is done when its first evaluation is, and the first two steps are both number 0.
    """
    each = max(evaluations // steps, 1)
    return max((evaluation + each - 1) // each - 1, 0) / steps


def scales(
    outputs: int, weight: float, *, soft: bool = False, own: Sequence[float] | None = None
) -> tuple[float, ...]:
    """How strongly each of `outputs` outputs acts: `weight`, where `soft` falling towards the shallow ones,
    or `own` strengths, which stand for both.
    """
    if own is not None:
        return tuple(own)
    return tuple(weight * (SOFT ** (_DEEPEST - number) if soft else 1.0) for number in range(outputs))
