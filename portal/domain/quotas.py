"""How much somebody may use: which of several quotas counts, and what is left of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields

from portal.domain.access import SubjectKind

DAY = 86_400.0


@dataclass(frozen=True)
class Quota:
    """Limits; None limits nothing. Days begin at midnight UTC."""

    unfinished_jobs: int | None = None
    pictures_a_day: int | None = None
    gpu_seconds_a_day: float | None = None
    storage_bytes: int | None = None


@dataclass(frozen=True)
class Usage:
    """What a user has used: the same fields as a Quota's. Pictures are those made today and those that
    accepted work will make.
    """

    unfinished_jobs: int = 0
    pictures_a_day: int = 0
    gpu_seconds_a_day: float = 0.0
    storage_bytes: int = 0


NAMES = tuple(field.name for field in fields(Quota))
_NEARNESS = (SubjectKind.USER,), (SubjectKind.TEAM, SubjectKind.ROLE), (SubjectKind.EVERYBODY,)


def effective(quotas: Iterable[tuple[SubjectKind, Quota]]) -> Quota:
    """The limits that count for somebody, from all quotas that mean them: of each limit the nearest one said,
    a user's own before those of teams and roles, of which the largest, before everybody's.
    """
    given = list(quotas)
    found: dict[str, float | int] = {}
    for kinds in _NEARNESS:
        for name in NAMES:
            said = [getattr(quota, name) for kind, quota in given if kind in kinds]
            limits = [limit for limit in said if limit is not None]
            if limits and name not in found:
                found[name] = max(limits)
    return Quota(**found)  # type: ignore[arg-type]


def exceeded(quota: Quota, usage: Usage, *, pictures: int) -> str | None:
    """The limit that one more job of so many `pictures` would go beyond, None where there is room for it."""
    asked = {"unfinished_jobs": 1, "pictures_a_day": pictures}
    for name in NAMES:
        limit, used = getattr(quota, name), getattr(usage, name)
        if limit is None:
            continue
        beyond = used + asked[name] > limit if name in asked else used >= limit
        if beyond:
            return name
    return None


def midnight(now: float) -> float:
    """The unix seconds at which the day of `now` began, UTC."""
    return now - now % DAY
