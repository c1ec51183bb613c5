"""How much each endpoint is asked for: what waits for it and what it has. By that fleets scale."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from atelier.contract.jobs import PartState
from portal.db.work import Attempt, Endpoint, Part
from portal.services.access import Access, rules_there_are
from portal.services.ports import EndpointKind, EndpointState

_CANNOT = (EndpointState.FAILED.value, EndpointState.DELETING.value, EndpointState.DELETED.value)


def demands(session: Session) -> dict[str, int]:
    """Parts by endpoint. What waits for any endpoint counts where its owner may have it made: first where
    workers are, as far as the endpoint can grow, then at the next.
    """
    endpoints = session.scalars(select(Endpoint).order_by(Endpoint.name)).all()
    found = in_flight(session)
    for name, count in waiting_by_name(session).items():
        found[name] = found.get(name, 0) + count
    counts = {each.name: found.get(each.name, 0) for each in endpoints}
    able = [each for each in endpoints if each.state not in _CANNOT and not EndpointKind(each.kind).custom]
    able.sort(key=lambda each: (each.instances == 0, each.name))
    rules = rules_there_are(session)
    for owner, parts in _waiting_for_any(session).items():
        access = Access(session, owner, rules)
        _share(parts, [each for each in able if access.endpoint(each.name)], counts)
    return counts


def in_flight(session: Session) -> dict[str, int]:
    """Open attempts by endpoint."""
    query = select(Attempt.endpoint, func.count()).where(Attempt.open).group_by(Attempt.endpoint)
    return {name: count for name, count in session.execute(query)}


def waiting_by_name(session: Session) -> dict[str, int]:
    """Queued parts by the endpoint they asked for."""
    query = (
        select(Part.wanted_endpoint, func.count())
        .where(Part.state == PartState.QUEUED.value, Part.wanted_endpoint.is_not(None))
        .group_by(Part.wanted_endpoint)
    )
    return {name: count for name, count in session.execute(query) if name is not None}


def _waiting_for_any(session: Session) -> Mapping[str, int]:
    query = (
        select(Part.owner_id, func.count())
        .where(Part.state == PartState.QUEUED.value, Part.wanted_endpoint.is_(None))
        .group_by(Part.owner_id)
        .order_by(Part.owner_id)
    )
    return {owner: count for owner, count in session.execute(query)}


def _share(parts: int, endpoints: list[Endpoint], counts: dict[str, int]) -> None:
    """Lay `parts` on the endpoints in their order, each up to what its most instances are meant for; what is
    left over on the first.
    """
    for each in endpoints:
        most = each.max_instances * (each.target or each.slots)
        here = min(parts, max(0, most - counts[each.name]))
        counts[each.name] += here
        parts -= here
    if parts and endpoints:
        counts[endpoints[0].name] += parts
