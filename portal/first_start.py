"""What a fresh data directory needs before anything can be served: tables, secrets, somebody to log in,
something to draw with.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from atelier.contract.errors import AtelierError, Conflict
from atelier.contract.models import ModelKind
from portal.bootstrap import JOB_KEY, SIGNING_KEY, build, open_database
from portal.db import migrate
from portal.services.audit import SYSTEM
from portal.services.container import Services
from portal.services.models import ModelFile
from portal.services.permissions import ADMIN
from portal.services.ports import USUAL_SLOTS, EndpointSpec
from portal.settings import Settings

FIRST_USER = "admin"
FIRST_ENDPOINT = "local"
CHECKOUT = Path(__file__).resolve().parents[1]
"""Where relative paths of the settings are looked for when the working directory has no such file."""
FLOOR = 8
"""Characters a first password given by the operator must have; people choosing their own need more."""


@dataclass(frozen=True)
class Prepared:
    """What `prepare` did. `password` is the first user's where it was made up here: it is shown once and kept
    nowhere.
    """

    password: str | None
    notes: tuple[str, ...]


def prepare(settings: Settings, endpoint: Mapping[str, Any] | None = None) -> Prepared:
    """Bring the data directory up to this version; where there is no endpoint, make `endpoint`, or one on
    this machine. Doing it again changes nothing. Raises AtelierError.
    """
    database = open_database(settings)
    migrated = migrate.upgrade(database)
    database.close()
    services = build(settings.model_copy(update={"roles": ("api",)}))
    try:
        for name in (SIGNING_KEY, JOB_KEY):
            services.secrets.get(name)
        password = _first_user(services, settings)
        notes = [*_first_checkpoint(services, settings), *_first_endpoint(services, settings, endpoint)]
    finally:
        services.stop()
    return Prepared(password, ("The database was brought up to date.", *notes) if migrated else tuple(notes))


def _first_user(services: Services, settings: Settings) -> str | None:
    """Make `admin` where there is nobody; its password where nobody gave one."""
    if not services.identity.empty():
        return None
    given = settings.admin_password.get_secret_value() if settings.admin_password else None
    password = given or secrets.token_urlsafe(12)
    try:
        services.identity.create(SYSTEM, FIRST_USER, password, ADMIN, min_length=FLOOR)
    except Conflict:  # tasks that start together prepare together: another one has made the user
        return None
    return None if given else password


def _first_checkpoint(services: Services, settings: Settings) -> list[str]:
    """Register the demo checkpoint, if it is there. A file that cannot be used is no reason not to start."""
    if settings.demo_checkpoint is None:
        return []
    path = located(settings.demo_checkpoint)
    known = services.work.models.listed(ModelKind.CHECKPOINT)
    if not path.is_file():
        return [] if known else ["There is no checkpoint yet. Add one with: atelier model import FILE"]
    try:
        found = services.work.models.register(SYSTEM, ModelFile(path, ModelKind.CHECKPOINT))
    except AtelierError as error:
        return [f"{path.name} was not registered: {error.message}"]
    return [] if any(found.sha256 == each.sha256 for each, _ in known) else [f"Checkpoint: {found.title}"]


def _first_endpoint(services: Services, settings: Settings, given: Mapping[str, Any] | None) -> list[str]:
    """One on this machine; on AWS the first one is an administrator's decision: it costs by the hour."""
    if services.work.endpoints.listed():
        return []
    if given is None and settings.platform == "aws":
        return []
    wanted = services.work.endpoints.begun(given) if given else _local_endpoint(services, settings)
    services.work.endpoints.create(SYSTEM, wanted)
    where = wanted.instance_type or "on this machine"
    return [f"Endpoint: {wanted.name}, {where}"]


def _local_endpoint(services: Services, settings: Settings) -> EndpointSpec:
    threads = settings.worker_threads or len(os.sched_getaffinity(0))
    gpus = [each for each in services.work.endpoints.offers() if each.gpu and settings.worker_device != "cpu"]
    slots = gpus[0].slots if gpus else USUAL_SLOTS
    return EndpointSpec(FIRST_ENDPOINT, threads=threads, slots=slots)


def located(path: Path) -> Path:
    """A path of the settings: as it is, or beside the code where the working directory has no such file."""
    return path if path.is_absolute() or path.exists() else CHECKOUT / path
