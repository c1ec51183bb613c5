"""Where users stand in the order in which parts are sent: read for the dispatcher and for estimates, moved on
as parts are sent.
"""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import select
from sqlalchemy.orm import Session

from portal.db.work import Turn as TurnRow
from portal.domain.fairness import Turn, Turns
from portal.services.shares import weights


def turns(session: Session, owners: Collection[str]) -> Turns:
    """Where everybody stands, with the weights of `owners`."""
    rows = session.execute(select(TurnRow.owner_id, TurnRow.start, TurnRow.finish))
    return Turns({owner: Turn(start, finish) for owner, start, finish in rows}, weights(session, owners))


def take_turn(session: Session, owner: str, work: float) -> None:
    """A part of `owner`'s of so much work is sent: move its owner on, in the caller's transaction."""
    turn = turns(session, [owner]).served(owner, work)
    session.merge(TurnRow(owner_id=owner, start=turn.start, finish=turn.finish))
