"""Pictures out of a unit, before anything else sees it: in their place stand ids of stored inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from extensions.controlnet.units import PICTURES

Keep = Callable[[str], str]
"""Stores a picture that is given as text and returns its id. Raises ValueError, with a sentence."""


def lifted(member: Any, keep: Keep) -> Any:
    """A member `alwayson_scripts.controlnet` with the pictures of its enabled units stored by `keep`, and
    without those of the others. Raises ValueError.
    """
    if not isinstance(member, Mapping):
        return member
    args = member.get("args")
    units = [args] if isinstance(args, Mapping) else args
    if not isinstance(units, list):
        return member
    return {**member, "args": [_unit(number, each, keep) for number, each in enumerate(units)]}


def _unit(number: int, unit: Any, keep: Keep) -> Any:
    if not isinstance(unit, Mapping):
        return unit
    rest = {name: value for name, value in unit.items() if all(name not in names for _, names in PICTURES)}
    if unit.get("enabled") not in (True, 1, "true", "True"):
        return rest
    given = {where: next((unit[each] for each in names if unit.get(each)), None) for where, names in PICTURES}
    image, mask = _both(number, given["image"])
    found = {"image": image, "mask": given["mask"] if given["mask"] is not None else mask}
    try:
        return rest | {where: None if not text else keep(_text(where, text)) for where, text in found.items()}
    except ValueError as error:
        raise ValueError(f"the unit {number}: {error}") from error


def _both(number: int, image: Any) -> tuple[Any, Any]:
    """(image, mask) of the forms the peer takes: text, {"image", "mask"}, [image, mask], [{...}]."""
    if isinstance(image, list) and len(image) == 1:
        return _both(number, image[0])
    if isinstance(image, list) and len(image) == 2 and not any(isinstance(each, Mapping) for each in image):
        return image[0], image[1]
    if isinstance(image, Mapping):
        return image.get("image"), image.get("mask")
    if isinstance(image, list):
        raise ValueError(f"the unit {number} has {len(image)} images; give each a unit of its own")
    return image, None


def _text(where: str, value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"its {where} must be text: base64, a data URL, or the id of an uploaded picture")
    return value
