"""The largest numbers anybody may ask for. A family or an endpoint may be stricter; nothing is laxer."""

from __future__ import annotations

from typing import NamedTuple

MAX_PROMPT_CHARACTERS = 20_000
MAX_CHUNKS = 300
"""Pieces of 75 tokens of one text: what MAX_PROMPT_CHARACTERS come to where hardly any token has two."""
MAX_COMPOSITION = 64
"""Parts of a prompt joined by AND: each is a row in every step."""

MAX_STEPS = 150
MAX_BATCH_SIZE = 8
MAX_BATCH_COUNT = 100
MIN_SIDE = 64
MAX_SIDE = 2048
MAX_CFG_SCALE = 100.0
MAX_SEED = 2**64 - 1
"""What a generator's state takes; random seeds are drawn from [0, 4294967294) like the peer's."""

RANDOM_SEED_BELOW = 4_294_967_294
MAX_BODY_BYTES = 32 * 2**20

MAX_HIRES_SIDE = 4096
"""Of a second pass; the worker's memory may set a lower bound and says which."""
MAX_HIRES_SCALE = 8.0


class FamilyLimits(NamedTuple):
    """Sides in pixels: what a family was trained at, and the largest a first and a second pass may have."""

    native: int
    side: int
    hires_side: int


_FAMILIES = {
    "sd1": FamilyLimits(512, MAX_SIDE, MAX_HIRES_SIDE),
    "sd2": FamilyLimits(768, MAX_SIDE, MAX_HIRES_SIDE),
    "sdxl": FamilyLimits(1024, MAX_SIDE, MAX_HIRES_SIDE),
}
_UNKNOWN_FAMILY = FamilyLimits(1024, MAX_SIDE, MAX_HIRES_SIDE)


def of_family(family: str | None) -> FamilyLimits:
    """The limits of a family ("sd1", "sd1-inpaint", "sdxl" ...)."""
    return _FAMILIES.get((family or "").partition("-")[0], _UNKNOWN_FAMILY)
