"""The families of models: one list of names for the portal, the pages and the engine.

A name is a base, perhaps what its UNet is shown besides the latent, perhaps "-v" for a model that predicts
velocities: "sd1", "sd2-inpaint", "sdxl-v".
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

BASES = ("sd1", "sd2", "sdxl", "sdxl-refiner")
VARIANTS: Mapping[int, str] = MappingProxyType({9: "-inpaint", 8: "-pix2pix", 5: "-depth"})
"""Channels that a UNet sees -> what follows the base; four are the usual ones."""
UNCLIP = "-unclip"
"""Of SD2: made from the encoding of a picture."""
VELOCITY = "-v"


def _variants(base: str) -> tuple[str, ...]:
    return ("", *VARIANTS.values(), *((UNCLIP,) if base == "sd2" else ()))


NAMES = tuple(
    base + variant + velocity for base in BASES for variant in _variants(base) for velocity in ("", VELOCITY)
)
"""Every family there can be."""


def predicts_velocity(family: str) -> bool:
    """Whether a family's name says so: "sd2-v", "sdxl-inpaint-v"."""
    return family.endswith(VELOCITY)


def of_tensors(family: str) -> str:
    """What a file's tensors tell of a family. What a model predicts leaves no trace in them: without "-v"."""
    return family.removesuffix(VELOCITY)


def contradicts(stated: str, found: str) -> bool:
    """Whether a file whose tensors are those of `found` cannot be of the family `stated`."""
    return of_tensors(stated) != of_tensors(found)


def choices(found: str | None) -> tuple[str, ...]:
    """The families that a checkpoint may be said to be of whose file tells `found`; all where it tells
    nothing.
    """
    return tuple(each for each in NAMES if found is None or not contradicts(each, found))
