"""A model from where it is offered into the store: fetched, verified, converted, hashed, stored."""

from __future__ import annotations

import hashlib
import ipaddress
import re
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlencode

from atelier import modelcard, modelkind
from atelier.contract import keys
from atelier.contract.errors import InvalidRequest, ModelUnusable, NotFound
from atelier.contract.imports import ImportOrder, ImportOutcome
from atelier.contract.models import ModelKind
from atelier.modelfile import hashes, read_header
from atelier.modelsource import HubSource, Source, WebSource, parse
from atelier.outbound import Reach
from atelier.storage.base import BlobStore
from atelier.storage.opening import open_store
from workers.tasks.connecting import Patience
from workers.tasks.conversion import SUFFIXES, convert
from workers.tasks.fetching import Fetched, Fetcher, Terms
from workers.tasks.hub import Repository
from workers.tasks.objects import fetch_object
from workers.tasks.orders import Telling

USUAL = Patience()
SAFETENSORS = ".safetensors"
_PICTURES = (".png", ".webp")
_NAME = re.compile(r"[^\x00-\x1f/\\:*?\"<>|]{1,250}\Z")


def import_model(
    order: ImportOrder, store: BlobStore, place: Path, tell: Telling, patience: Patience = USUAL
) -> ImportOutcome:
    """Carry out an order below the folder `place`; the model lies in the store then, and nowhere else.
    Raises AtelierError, saying what to do.
    """
    tell.phase("looking")
    source = parse(order.source, order.hub)
    arrived = _arrived(source, order, place, tell, Fetcher(_terms(order, patience)))
    if order.sha256 and arrived.folder:
        raise InvalidRequest("A sha256 is of one file, and this repository is a folder. Leave it out.")
    stored = arrived.path
    if stored.suffix.lower() != SAFETENSORS:
        tell.phase("converting")
        stored = place / "output.safetensors"
        convert(arrived.path, stored, order.kind, name=arrived.filename)
    header = read_header(stored)
    modelkind.check(arrived.filename, header, order.kind)
    tell.phase("hashing")
    found = hashes(arrived.path)
    blob = found.sha256 if stored == arrived.path else _sha256(stored)
    network = order.kind is ModelKind.LORA
    addnet = modelcard.addnet_hash(stored, header.metadata, header.data_offset) if network else None
    tell.phase("storing")
    store.put(keys.model(blob), stored)
    return ImportOutcome(
        filename=arrived.filename,
        sha256=found.sha256,
        short_hash=found.short,
        legacy_hash=found.legacy,
        size=arrived.path.stat().st_size,
        blob_sha256=blob,
        addnet_hash=addnet,
        revision=arrived.revision,
        verified=arrived.verified,
    )


class _Arrived:
    """What was fetched: one file, or a folder made into one."""

    def __init__(
        self, path: Path, filename: str, *, verified: bool, revision: str = "", folder: bool = False
    ) -> None:
        self.path, self.filename, self.verified = path, filename, verified
        self.revision, self.folder = revision, folder


def _arrived(source: Source, order: ImportOrder, place: Path, tell: Telling, fetcher: Fetcher) -> _Arrived:
    if isinstance(source, HubSource):
        return _of_the_hub(fetcher, source, order, place, tell)
    if isinstance(source, WebSource):
        tell.phase("fetching")
        fetched = fetcher.fetch(source.url, place / "fetched", tell, sha256=order.sha256)
        return _named(fetched, _better(fetched.filename, source.filename, order.kind), order.kind)
    tell.phase("fetching")
    bucket = open_store(f"s3://{source.bucket}{_query(order.bucket_options)}")
    fetched = fetch_object(bucket, source, place / "fetched", tell, order)
    return _named(fetched, source.filename, order.kind)


def _of_the_hub(
    fetcher: Fetcher, source: HubSource, order: ImportOrder, place: Path, tell: Telling
) -> _Arrived:
    repository = Repository(fetcher, order.hub, source, bool(order.token))
    file = repository.chosen(source.file, order.kind)
    tell.phase("fetching")
    if file is None:
        return _folder(repository, source, order, place, tell)
    if order.sha256 and file.sha256 and file.sha256 != order.sha256.lower():
        raise InvalidRequest(
            f"{file.path} of {source.repository} has the sha256 {file.sha256}, not {order.sha256}."
        )
    fetched = repository.fetch(file, place / "fetched", tell)
    if order.sha256 and fetched.sha256 != order.sha256.lower():
        raise InvalidRequest(f"{file.path} has the sha256 {fetched.sha256}, not {order.sha256}.")
    arrived = _named(fetched, file.path.rsplit("/", 1)[-1], order.kind)
    arrived.revision = repository.commit
    return arrived


def _folder(
    repository: Repository, source: HubSource, order: ImportOrder, place: Path, tell: Telling
) -> _Arrived:
    files = repository.folder_files(order.limit, order.limited_by)
    total, before = sum(each.size or 0 for each in files), 0
    folder = place / "folder"
    for each in files:
        path = folder / each.path
        path.parent.mkdir(parents=True, exist_ok=True)
        fetched = repository.fetch(each, path, _shifted(tell, before, total))
        before += fetched.size
        if before > order.limit:
            raise InvalidRequest(f"The repository {source.repository} is larger than it says.")
    tell.phase("converting")
    from workers.tasks import folders  # brings torch, which no other source needs

    made = place / "folder.safetensors"
    folders.as_one_file(folder, made, source.filename, place)
    name = source.filename + SAFETENSORS
    return _Arrived(made, name, verified=True, revision=repository.commit, folder=True)


class _shifted:  # noqa: N801  # a function that remembers
    """Tells of one file as a part of all of them."""

    def __init__(self, tell: Telling, before: int, total: int) -> None:
        self._tell, self._before, self._total = tell, before, total

    def __call__(self, done: int, _size: int | None) -> None:
        self._tell(self._before + done, self._total)


def _terms(order: ImportOrder, patience: Patience) -> Terms:
    networks = tuple(ipaddress.ip_network(each) for each in order.networks)
    return Terms(
        Reach(order.hosts, networks),
        order.limit,
        order.seconds,
        limited_by=order.limited_by,
        token=order.token,
        token_site=order.token_site,
        patience=patience,
    )


def _query(options: Mapping[str, str]) -> str:
    return f"?{urlencode(options)}" if options else ""


def _better(told: str, spelled: str, kind: ModelKind) -> str:
    """What a file is called: as the site says, if that is a model file's name, else as its address ends."""
    return told if told.lower().endswith(_endings(kind)) else spelled


def _endings(kind: ModelKind) -> tuple[str, ...]:
    pictures = _PICTURES if kind is ModelKind.EMBEDDING else ()
    return (SAFETENSORS, *(each for each in SUFFIXES if each not in _PICTURES), *pictures)


def _named(fetched: Fetched, filename: str, kind: ModelKind) -> _Arrived:
    """The file under its own name. Raises ModelUnusable for what is no model file's."""
    proper = _NAME.match(filename) and not filename.startswith(".") and len(filename.encode()) <= 250
    if not proper or not filename.lower().endswith(_endings(kind)):
        raise ModelUnusable(
            f"{filename[:80]!r} is no model file: its name should end in {', '.join(_endings(kind))}. Give "
            "the address of the file itself."
        )
    if not fetched.size:
        raise NotFound(f"{filename} is empty.")
    path = fetched.path.with_name("given" + Path(filename).suffix.lower())
    fetched.path.rename(path)
    return _Arrived(path, filename, verified=fetched.verified)


def _sha256(path: Path) -> str:
    with path.open("rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest()
