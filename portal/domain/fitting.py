"""What fits a GPU: the worker's own estimate (workers.engine.memory) with the networks of each family. A
picture that cannot be made is refused by it when it is sent.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from atelier.contract.errors import LimitExceeded
from atelier.contract.families import BASES
from atelier.contract.parts import ResolvedPart

GIB = 2**30
USABLE = 0.9
"""The share of a GPU's memory that a worker uses."""
_WEIGHTS: Mapping[str, float] = {"sd1": 2.1, "sd2": 2.6, "sdxl": 6.9, "sdxl-refiner": 6.2}
"""GiB of the networks at 16 bit (UNet, text encoders, autoencoder), by family."""
_BYTES, _ROWS = 2, 2
"""Of a number at 16 bit; rows of a picture: with and without its prompt."""
_DECODER, _UNET = 256 * 7, 320 * 24
"""Widths of the widest maps times how many of them are held at once: a decode's for each pixel, an evaluated
row's for each point of the latent, eight pixels wide.
"""
_ROUNDING = 64


@dataclass(frozen=True)
class Room:
    """An endpoint and the memory in bytes of its GPU; 0 where nobody knows, so that everything fits."""

    endpoint: str
    kind: str
    memory: int


def fits(part: ResolvedPart, memory: int) -> bool:
    """Whether every picture of the part can be made with `memory` bytes of GPU; yes where nobody knows."""
    left = _left(part, memory)
    return left is None or all(_picture(*size) <= left for size in _sizes(part))


def refusal(parts: Iterable[ResolvedPart], room: Room) -> LimitExceeded | None:
    """Why a part cannot be made there; None where all can."""
    for part in parts:
        if not fits(part, room.memory):
            width, height = max(_sizes(part), key=lambda size: size[0] * size[1])
            left = _left(part, room.memory) or 0
            side = int((max(0, left) / (_picture(width, height) / (width * height))) ** 0.5)
            side = side // _ROUNDING * _ROUNDING
            hint = f"The largest square that fits is {side}x{side}." if side else "No picture fits beside it."
            needs = (_picture(width, height) + room.memory * USABLE - left) / USABLE / GIB
            return LimitExceeded(
                f"A picture of {width}x{height} with this {part.checkpoint.family} checkpoint needs a GPU of "
                f"about {needs:.0f} GiB; the endpoint {room.endpoint!r} ({room.kind}) has "
                f"{room.memory / GIB:.0f}. {hint} Choose a smaller size, or another endpoint.",
                detail={"width": width, "height": height, "side": side, "endpoint": room.endpoint},
            )
    return None


def _left(part: ResolvedPart, memory: int) -> int | None:
    """Bytes beside the weights; None where memory or family are not known."""
    family = part.checkpoint.family or ""
    base = max(
        (each for each in BASES if family == each or family.startswith(f"{each}-")), key=len, default=""
    )
    if not memory or base not in _WEIGHTS:
        return None
    return int(memory * USABLE - _WEIGHTS[base] * GIB)


def _sizes(part: ResolvedPart) -> list[tuple[int, int]]:
    return [(part.width, part.height), *([part.hires.upscaled] if part.hires else [])]


def _picture(width: int, height: int) -> int:
    """Bytes of working memory of one picture (pixels) while it is evaluated and decoded."""
    return _BYTES * (width * height * _DECODER + _ROWS * (width // 8) * (height // 8) * _UNET)
