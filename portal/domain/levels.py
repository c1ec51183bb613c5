"""Settings in levels: built-in < platform < team < user < request, and locks that end the climb."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Level(StrEnum):
    """Where a setting's value comes from, beneath the request."""

    BUILT_IN = "built-in"
    PLATFORM = "platform"
    TEAM = "team"
    USER = "user"


@dataclass(frozen=True)
class Layer:
    """What one level says. `title` names it in sentences ("the studio", "the team Posters"); `name` is what
    teams are ordered by.
    """

    level: Level
    title: str
    values: Mapping[str, Any] = field(default_factory=dict)
    locked: frozenset[str] = frozenset()
    name: str = ""


@dataclass(frozen=True)
class Held:
    """A setting as it holds: its value, the level and the name of the layer it comes from, and who has locked
    it (empty where nobody has).
    """

    value: Any
    level: Level
    title: str
    locked_by: str = ""


def merged(layers: Iterable[Layer]) -> dict[str, Held]:
    """Option name -> how it holds, of every option that some layer sets or locks.

    A nearer level beats a farther one, except one that has locked the option: it then has the value that the
    locking layer gives it, else the one from below it (the value is None for the built-in one). Of several
    teams a lock beats every value; of locks, and of values, the team counts that is first by name.
    """
    ordered = sorted(layers, key=_farthest_first)
    names = dict.fromkeys(name for layer in ordered for name in (*layer.values, *sorted(layer.locked)))
    return {name: _held(name, ordered) for name in names}


def _farthest_first(layer: Layer) -> tuple[int, str, str]:
    return list(Level).index(layer.level), layer.name.casefold(), layer.name


def _held(name: str, ordered: list[Layer]) -> Held:
    held = Held(None, Level.BUILT_IN, "the built-in default")
    for level in (Level.PLATFORM, Level.TEAM, Level.USER):
        layers = [each for each in ordered if each.level is level]
        lock = next((each for each in layers if name in each.locked), None)
        source = lock or next((each for each in layers if name in each.values), None)
        if source is not None and name in source.values:
            held = Held(source.values[name], level, source.title)
        if lock is not None:
            return Held(held.value, held.level, held.title, lock.title)
    return held
