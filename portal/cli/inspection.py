"""What `atelier doctor` finds in the studio's own data: trail, endpoints, model files, extensions, disks."""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from sqlalchemy import select

from atelier import extension
from atelier.contract import keys
from atelier.contract.errors import AtelierError
from atelier.logs import printable
from portal.db.work import Endpoint, Model
from portal.services.container import Services
from portal.services.health import OK
from portal.services.model_presence import gone
from portal.services.ports import EndpointState

LEAST_FREE_BYTES = 2 * 2**30
NOTED_END = "audit.end"
"""The file in the data directory that keeps how far the trail reached when it was verified last."""
_END = re.compile(r"(\d{1,18}):([0-9a-f]{64})\s*\Z")
CLOCKS = 2.0
"""Seconds by which file systems and backups may round the time of a file."""
CHUNK = 8 * 2**20


@dataclass(frozen=True)
class Wish:
    """How closely to look: `hashes` reads every model file whole."""

    hashes: bool = False


def inspect(services: Services, wish: Wish) -> list[str]:
    """Everything that is wrong, a sentence each."""
    return [problem for look in LOOKS for problem in look(services, wish)]


def _trail(services: Services, _wish: Wish) -> Iterator[str]:
    """The chain from its beginning to its end, and that it goes through where it ended last time: newest
    entries that were taken away leave no gap.
    """
    noted = services.settings.data_dir / NOTED_END
    before = _END.match(noted.read_text(encoding="ascii", errors="replace")) if noted.is_file() else None
    if noted.is_file() and before is None:
        yield f"{noted} is no end of an audit trail (COUNT:HASH). Somebody changed it."
    verified = services.trail.verify((int(before[1]), before[2]) if before else None)
    if verified.broken:
        yield f"The audit trail does not hold: {verified.broken}"
        return
    if verified.count:
        noted.write_text(f"{verified.count}:{verified.hash}\n", encoding="ascii")
        noted.chmod(0o600)


def _endpoints(services: Services, _wish: Wish) -> Iterator[str]:
    with services.database.reading() as session:
        found = session.scalars(select(Endpoint).order_by(Endpoint.name)).all()
    if not found:
        yield "There is no endpoint: nothing can make pictures. Run: atelier endpoint create NAME"
    for each in found:
        if each.state == EndpointState.FAILED:
            yield f"The endpoint {each.name} has failed: {each.reason}"


def _aws(services: Services, _wish: Wish) -> Iterator[str]:
    """Where endpoints are AWS's: what of them the account's quotas do not allow."""
    if services.settings.platform != "aws":
        return
    from portal.adapters.aws import connection, service_quotas  # bring boto3, which only AWS needs

    specs = [each.spec for each in services.work.endpoints.listed()]
    yield from service_quotas.preflight(connection.clients(services.settings)("service-quotas"), specs)


def _models(services: Services, wish: Wish) -> Iterator[str]:
    with services.database.reading() as session:
        rows = session.scalars(select(Model).order_by(Model.kind, Model.name)).all()
    for row in rows:
        name = f"The {row.kind} {printable(row.name)}"
        if gone(row) and row.blob_sha256 == row.sha256:
            where = printable(str(row.source))
            yield f"{name}: its file {where} is gone. Put it back, or run: atelier model refresh"
        elif reason := _changed(services, row) or (wish.hashes and _other_bytes(services, row)):
            yield f"{name}: {reason} Import it again."


def _changed(services: Services, row: Model) -> str:
    """Why the file that is served cannot be the one that was registered, as far as its size and time tell."""
    stored = services.store.stat(keys.model(row.blob_sha256))
    if stored is None:
        return "its stored file is gone."
    if row.config_sha256 and services.store.stat(keys.model(row.config_sha256)) is None:
        return "its stored configuration is gone."
    if row.blob_sha256 != row.sha256:
        return ""  # a conversion: of its size nothing is noted
    if stored.size != row.size:
        return f"its file has {stored.size} bytes and had {row.size}."
    path = Path(row.source) if row.source else None
    if path is not None and path.is_file() and abs(path.stat().st_mtime - row.modified) > CLOCKS:
        return f"its file {printable(str(path))} was changed after it was registered."
    return ""


def _other_bytes(services: Services, row: Model) -> str:
    digest = hashlib.sha256()
    with services.store.open(keys.model(row.blob_sha256)) as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return "" if digest.hexdigest() == row.blob_sha256 else "its file has other bytes than were registered."


def _extensions(_services: Services, _wish: Wish) -> Iterator[str]:
    for each in extension.check(extension.INSTALLED):
        if not each.usable:
            yield f"The extension {each.name} {each.version} is not used: {each.reason}."


def _store(services: Services, _wish: Wish) -> Iterator[str]:
    if services.health.checks()["store"] != OK:
        yield _refusal(services)
    place = urlsplit(services.settings.store)
    if place.scheme != "file":
        return
    path = Path(unquote(place.path))
    existing = next(each for each in (path, *path.parents) if each.exists())
    own = services.settings.data_dir.absolute()
    if existing.stat().st_dev == own.stat().st_dev:
        return  # looked at with the data directory
    free = shutil.disk_usage(existing).free
    if free < LEAST_FREE_BYTES:
        yield f"Only {free / 2**30:.1f} GiB are free at {existing}, where the blob store is."


def _refusal(services: Services) -> str:
    """What keeps the store from being written to."""
    try:
        services.store.put(keys.probe("doctor"), b"{}")
        services.store.delete(keys.probe("doctor"))
    except AtelierError as error:
        return f"The blob store cannot be written to. {error.message}"
    return "The blob store could not be written to a moment ago, and can be now."


def _platform(services: Services, _wish: Wish) -> Iterator[str]:
    for part in services.platform:
        try:
            part.look()
        except AtelierError as error:
            yield f"{part.title}: {error.message}"


LOOKS: tuple[Callable[[Services, Wish], Iterator[str]], ...] = (
    _trail,
    _endpoints,
    _aws,
    _models,
    _extensions,
    _store,
    _platform,
)
