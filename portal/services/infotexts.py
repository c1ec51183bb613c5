"""Infotexts read for a user: with their options, the studio's models, and the styles they may name."""

from __future__ import annotations

from atelier import pasting
from atelier.pasting import Pasted
from portal.db.base import Database
from portal.services.callers import Caller
from portal.services.models import catalogue
from portal.services.setting_layers import standing


def read(database: Database, caller: Caller, text: str) -> tuple[dict[str, object], Pasted]:
    """(the entries, what they set) of an infotext, as `caller` would paste it. Any text can be read."""
    with database.reading() as session:
        settings = standing(session, caller.user_id).values
        known = catalogue(session, caller.user_id)
    return pasting.paste(text, catalogue=known, settings=settings)
