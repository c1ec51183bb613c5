"""Which endpoint a request can be made at, by the memory of its GPU."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from atelier.contract.parts import ResolvedPart
from portal.db.work import Endpoint
from portal.domain.fitting import Room, fits, refusal
from portal.services.access import endpoints_of
from portal.services.ports import EndpointState, InstanceType


def placed(
    session: Session,
    user_id: str,
    wanted: str | None,
    parts: Sequence[ResolvedPart],
    offers: Iterable[InstanceType],
) -> str | None:
    """The endpoint that parts go to: the wanted one; for any (None) any, or where one has too little memory
    the smallest that has enough. Raises LimitExceeded where none has.
    """
    memories = {each.name: each.gpu_memory for each in offers if each.gpu_memory}
    if not memories or all(fits(part, min(memories.values())) for part in parts):
        return wanted
    rooms = _rooms(session, [wanted] if wanted else endpoints_of(session, user_id), memories)
    refusals = {room.endpoint: refusal(parts, room) for room in rooms}
    able = [room for room in rooms if refusals[room.endpoint] is None]
    if wanted is not None or len(able) == len(rooms):
        told = refusals.get(wanted or "")
        if told is not None:
            raise told
        return wanted
    if not able:
        largest = max(rooms, key=lambda room: room.memory)
        raise refusals[largest.endpoint] or AssertionError
    return min(able, key=lambda room: (room.memory or float("inf"), room.endpoint)).endpoint


def _rooms(session: Session, names: Sequence[str], memories: dict[str, int]) -> list[Room]:
    """The endpoints of those names, without those that are going; of any that works rather than those that
    have failed.
    """
    rows = session.scalars(
        select(Endpoint)
        .where(Endpoint.name.in_(names), Endpoint.state != EndpointState.DELETING.value)
        .order_by(Endpoint.name)
    ).all()
    working = [row for row in rows if row.state != EndpointState.FAILED] or rows
    return [Room(row.name, row.instance_type, memories.get(row.instance_type, 0)) for row in working]
