"""Everything the portal's routes, pages and commands work with, as one value. `portal/bootstrap.py`
fills it.
"""

from __future__ import annotations

from dataclasses import dataclass

from atelier.storage.base import BlobStore
from portal.db.base import Database
from portal.services.access import AccessRules
from portal.services.checkup import Checkup
from portal.services.costs import CostBook
from portal.services.credentials import Credentials
from portal.services.custom_calls import CustomCalls
from portal.services.departures import Departures
from portal.services.detections import Detections
from portal.services.health import Health
from portal.services.identity import Identity
from portal.services.invitations import Invitations
from portal.services.metrics import Metrics
from portal.services.own_settings import OwnSettings
from portal.services.ports import Clock, PlatformPart, Secrets
from portal.services.quotas import Quotas
from portal.services.roles import Roles
from portal.services.sessions import Sessions
from portal.services.setting_levels import SettingLevels
from portal.services.shares import Shares
from portal.services.sharing import Sharing
from portal.services.styles import Styles
from portal.services.teams import Teams
from portal.services.trail import Trail
from portal.services.work import Work
from portal.settings import Settings

DISPATCHER = "dispatcher"


@dataclass(frozen=True)
class Services:
    """The portal's parts. A test replaces one by naming it in `bootstrap.build`."""

    settings: Settings
    database: Database
    store: BlobStore
    clock: Clock
    secrets: Secrets
    sessions: Sessions
    identity: Identity
    credentials: Credentials
    trail: Trail
    invitations: Invitations
    departures: Departures
    roles: Roles
    teams: Teams
    access: AccessRules
    quotas: Quotas
    shares: Shares
    styles: Styles
    sharing: Sharing
    own_settings: OwnSettings
    setting_levels: SettingLevels
    work: Work
    detections: Detections
    metrics: Metrics
    costs: CostBook
    health: Health
    checkup: Checkup
    platform: tuple[PlatformPart, ...] = ()

    @property
    def custom(self) -> CustomCalls:
        """Calls of custom endpoints."""
        return CustomCalls(self.database, self.store, self.work.fleet, self.clock)

    def start(self) -> None:
        """Begin what runs beside the requests."""
        if DISPATCHER in self.settings.roles:
            self.work.desk.sweep()
            self.work.loop.start()

    def stop(self) -> None:
        """End it, stop the workers this process started, and close the database."""
        if DISPATCHER in self.settings.roles:
            self.work.loop.stop()
        self.work.fleet.close()
        self.work.tasks.close()
        self.database.close()
