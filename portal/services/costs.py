"""What the studio's workers cost: seconds of running and money, by endpoint and by user.

An endpoint costs the time its instances ran, at work or not. That is shared among users by the seconds
their work took there; what nobody worked is nobody's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from portal.db.base import Database
from portal.db.identity import User
from portal.db.work import Attempt, Endpoint, EndpointUsage
from portal.domain.quotas import midnight
from portal.services.endpoint_watch import day_of
from portal.services.ports import Clock

NOBODY = ""
"""The user of what no work was done on."""


@dataclass(frozen=True)
class Use:
    """Seconds and money of somebody or something, today and since the first of the month (UTC)."""

    name: str
    today: float = 0.0
    month: float = 0.0
    cost_today: float = 0.0
    cost_month: float = 0.0


@dataclass(frozen=True)
class Costs:
    """All of it. `hourly` is what the instances that run now cost an hour; seconds of endpoints are of
    running instances, seconds of users are of work.
    """

    hourly: float
    endpoints: tuple[Use, ...]
    users: tuple[Use, ...]

    @property
    def today(self) -> float:
        """Everything of today."""
        return sum(each.cost_today for each in self.endpoints)

    @property
    def month(self) -> float:
        """Everything of this month."""
        return sum(each.cost_month for each in self.endpoints)


class CostBook:
    """Reads what the watch of the endpoints wrote down."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def read(self) -> Costs:
        """Today's and this month's."""
        now = self._clock.now()
        with self._database.reading() as session:
            running = Endpoint.price_hour * (Endpoint.instances + Endpoint.leaving)
            hourly = session.scalar(select(func.sum(running))) or 0.0
            today, month = day_of(now), day_of(now)[:8] + "01"
            spent = [_spent(session, since) for since in (today, month)]
            start = midnight(now)
            first = start - (int(today[8:]) - 1) * 86_400.0
            worked = [_worked(session, since) for since in (start, first)]
        shares = [_shared(costs, work) for costs, work in zip(spent, worked, strict=True)]
        return Costs(hourly, _uses(spent), _uses(shares))


_Amounts = dict[str, tuple[float, float]]
"""By name: seconds, money."""


def _spent(session: Session, since: str) -> _Amounts:
    query = (
        select(EndpointUsage.endpoint, func.sum(EndpointUsage.seconds), func.sum(EndpointUsage.cost))
        .where(EndpointUsage.day >= since)
        .group_by(EndpointUsage.endpoint)
    )
    return {name: (seconds, cost) for name, seconds, cost in session.execute(query)}


def _worked(session: Session, since: float) -> dict[tuple[str, str], float]:
    """Seconds of work by endpoint and user name."""
    query = (
        select(Attempt.endpoint, User.username, func.sum(Attempt.worked))
        .join(User, User.id == Attempt.owner_id)
        .where(Attempt.started >= since)
        .group_by(Attempt.endpoint, User.username)
    )
    return {(endpoint, user): seconds for endpoint, user, seconds in session.execute(query) if seconds}


def _shared(spent: _Amounts, worked: dict[tuple[str, str], float]) -> _Amounts:
    """What each user's work took, and their share of what it was done on cost."""
    found: _Amounts = {}
    totals: dict[str, float] = {}
    for (endpoint, _), seconds in worked.items():
        totals[endpoint] = totals.get(endpoint, 0.0) + seconds
    for (endpoint, user), seconds in worked.items():
        cost = spent.get(endpoint, (0.0, 0.0))[1] * seconds / totals[endpoint]
        before = found.get(user, (0.0, 0.0))
        found[user] = before[0] + seconds, before[1] + cost
    idle = [amounts for endpoint, amounts in spent.items() if endpoint not in totals]
    if idle:
        found[NOBODY] = sum(each[0] for each in idle), sum(each[1] for each in idle)
    return found


def _uses(periods: Sequence[_Amounts]) -> tuple[Use, ...]:
    today, month = periods
    uses = [
        Use(name, today.get(name, (0.0, 0.0))[0], seconds, today.get(name, (0.0, 0.0))[1], cost)
        for name, (seconds, cost) in month.items()
    ]
    return tuple(sorted(uses, key=lambda each: (-each.cost_month, -each.month, each.name)))
