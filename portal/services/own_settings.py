"""A user's own settings: options of the peer that hold for that user's requests and for nobody else's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from atelier.ignored import Ignored
from portal.services import audit
from portal.services.callers import Caller
from portal.services.setting_levels import SettingLevels, of_user


class OwnSettings:
    """Shows and changes them, as the peer's API does."""

    def __init__(self, levels: SettingLevels) -> None:
        self._levels = levels

    def shown(self, caller: Caller) -> dict[str, Any]:
        """Every option there is, as it holds for the caller: what they have set, their team or the studio;
        the studio's standard checkpoint, else the default.
        """
        return self._levels.shown(caller.user_id)

    def change(
        self, caller: Caller, given: Mapping[str, Any], origin: audit.Origin = audit.Origin()
    ) -> tuple[Ignored, ...]:
        """Let options hold for the caller from now on, all of them or none; None gives a default back. What
        was not stored, with the reason. Raises UnknownName and InvalidRequest, naming the option, and
        Conflict for one that is locked.
        """
        return self._levels.change(caller, of_user(caller.user_id), given, origin=origin)
