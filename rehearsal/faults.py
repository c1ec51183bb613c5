"""What goes wrong, on demand: set by a test or over HTTP, drawn by a seeded chance where it is a rate."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any


@dataclass
class Faults:
    """The faults in force. Rates are shares of one; numbers count down as they are used up."""

    quota: int | None = None
    """The most instances of the account, None for as many as are asked for."""
    capacity: int | None = None
    """How many more instances there are to be had, None for any number."""
    throttled: float = 0.0
    """Share of SageMaker's calls that are answered with ThrottlingException."""
    lost: float = 0.0
    """Share of notifications that never arrive."""
    doubled: float = 0.0
    """Share of notifications that arrive twice."""
    late: float = 0.0
    """Share of notifications that arrive after `late_seconds` of simulated time."""
    late_seconds: float = 120.0
    failing_pings: int = 0
    """How many workers that start from now on never answer /ping with 200."""
    crashes: int = 0
    """How many workers die in the middle of the work they get from now on."""


class Chance:
    """The faults, and the dice that decide where they strike."""

    def __init__(self, seed: int = 0) -> None:
        self.faults = Faults()
        self._random = random.Random(seed)  # noqa: S311  # a rehearsal is to be the same again

    def set(self, changed: Mapping[str, Any]) -> None:
        """Change some faults. Raises ValueError for a name that is none and a value of another kind."""
        known = {each.name for each in fields(Faults)}
        for name, value in changed.items():
            if name not in known:
                raise ValueError(f"{name!r} is no fault. There are {', '.join(sorted(known))}.")
            if not (value is None or isinstance(value, (int, float))):
                raise ValueError(f"The fault {name!r} is a number.")
            setattr(self.faults, name, value)

    def told(self) -> dict[str, Any]:
        """The faults in force, by name."""
        return asdict(self.faults)

    def strikes(self, rate: float) -> bool:
        """Whether something that happens in a share `rate` of all cases happens now."""
        return rate > 0 and self._random.random() < rate

    def spread(self, seconds: float, share: float = 0.1) -> float:
        """A duration that differs from `seconds` by up to a share of it."""
        return seconds * (1.0 + share * (2.0 * self._random.random() - 1.0))

    def used(self, name: str) -> bool:
        """Whether one of a counted fault was left, and is used up now."""
        left: int = getattr(self.faults, name)
        if left > 0:
            setattr(self.faults, name, left - 1)
        return left > 0

    def instance_to_be_had(self) -> bool:
        """Whether the region has another instance; it is taken then."""
        if self.faults.capacity is None:
            return True
        if self.faults.capacity < 1:
            return False
        self.faults.capacity -= 1
        return True
