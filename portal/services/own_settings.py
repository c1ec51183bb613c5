"""A user's own settings: options of the peer that hold for that user's requests and for nobody else's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from atelier import ownoptions
from atelier.contract.models import Catalogue, ModelKind
from atelier.ignored import Ignored
from portal.db.base import Database
from portal.db.identity import User
from portal.services import audit
from portal.services.callers import Caller
from portal.services.models import catalogue
from portal.services.ports import Clock


class OwnSettings:
    """Shows and changes them."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def shown(self, caller: Caller) -> dict[str, Any]:
        """Every option there is, as it holds for the caller: what they have set, the studio's standard
        checkpoint, else the default.
        """
        with self._database.reading() as session:
            settings = session.get_one(User, caller.user_id).settings
            return _shown(settings, catalogue(session, caller.user_id))

    def change(
        self, caller: Caller, given: Mapping[str, Any], origin: audit.Origin = audit.Origin()
    ) -> tuple[Ignored, ...]:
        """Let options hold for the caller from now on, all of them or none; None gives a default back. What
        was not stored, with the reason. Raises UnknownName and InvalidRequest, naming the option.
        """
        with self._database.session() as session:
            user = session.get_one(User, caller.user_id, with_for_update=True)
            models = catalogue(session, caller.user_id)
            wanted = ownoptions.wanted(given, _shown(user.settings, models), models)
            if wanted.changes:
                merged = {**user.settings, **wanted.changes}
                user.settings = {name: value for name, value in merged.items() if value is not None}
                audit.record(
                    session,
                    caller,
                    "settings.change",
                    f"user:{user.id}",
                    origin=origin,
                    details={"options": sorted(wanted.changes)},
                    at=self._clock.now(),
                )
        return wanted.ignored


def _shown(settings: Mapping[str, Any], models: Catalogue) -> dict[str, Any]:
    effective = ownoptions.known() | dict(settings)
    name = effective.get("sd_model_checkpoint") or models.default_checkpoint
    found = models.find(ModelKind.CHECKPOINT, str(name)) if name else None
    if found is not None:
        effective["sd_model_checkpoint"] = found.title
        effective["sd_checkpoint_hash"] = found.sha256
    return effective
