"""How much work a part is, and which parts are alike: what fairness and estimates are counted in."""

from __future__ import annotations

from dataclasses import dataclass

from atelier.contract.parts import ResolvedPart

_UNIT = 512 * 512 * 20
"""Pixels times steps of one unit of work: a picture of 512 x 512 pixels in 20 steps."""
_LEAST = 0.001


@dataclass(frozen=True)
class Effort:
    """`work` in units of a picture of 512 x 512 pixels in 20 steps. Parts of one `shape` differ in nothing
    that their time depends on, but for the checkpoint.
    """

    work: float
    shape: str


def effort(part: ResolvedPart) -> Effort:
    """The effort of a part: its pictures, their size and steps, those of a second pass included."""
    work = part.width * part.height * part.steps
    shape = f"{part.batch_size}x{part.width}x{part.height}/{part.steps}"
    if part.hires is not None:
        width, height = part.hires.size
        work += int(width * height * part.hires.steps * part.hires.denoising_strength)
        shape += f"+{width}x{height}/{part.hires.steps}*{part.hires.denoising_strength:g}"
    return Effort(max(_LEAST, part.batch_size * work / _UNIT), shape)
