"""Models: taken into the store once, named by whoever may use them, published to the workers as a
catalogue.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

from sqlalchemy import Select, or_, select, update
from sqlalchemy.orm import Session

from atelier import modelcard
from atelier.contract import keys
from atelier.contract.errors import Conflict, InvalidRequest, NotFound, StorageFailed
from atelier.contract.imports import ImportOutcome
from atelier.contract.models import Catalogue, ModelKind, ModelRef
from atelier.modelfile import hashes
from atelier.storage.base import BlobStat, BlobStore
from portal.db.base import Database, new_id
from portal.db.work import Endpoint, Model
from portal.domain.sharing import Visibility
from portal.services import audit, model_cards, model_presence, styles
from portal.services.access import Access
from portal.services.callers import Caller
from portal.services.intake import Arriving, Intake
from portal.services.model_inspection import configuration, inspect
from portal.services.model_presence import Place
from portal.services.ports import Clock


@runtime_checkable
class LinkingStore(Protocol):
    """A store that can name a file in place instead of copying it."""

    def link(self, key: str, path: Path) -> BlobStat:
        """Let `key` be the file at `path`."""
        ...


@dataclass(frozen=True)
class ModelFile:
    """A file, or a model folder, on the portal's machine to be registered. `name` is the name to be shown;
    None takes the file's stem.
    """

    path: Path
    kind: ModelKind
    name: str | None = None
    link: bool = False
    folder: str = ""
    """Where it stands below the folder of its kind."""
    owner_id: str | None = None
    """Whose it is to be, private until it is shared; None: the studio's, for everybody."""


Outcome = Literal["added", "known", "moved"]
"""What a file turned out to be: a new model, one that is there, or one that was missing."""


class Models:
    """The registry of model files."""

    def __init__(self, database: Database, store: BlobStore, clock: Clock, intake: Intake) -> None:
        self._database = database
        self._store = store
        self._clock = clock
        self._intake = intake

    def register(self, actor: audit.Actor, file: ModelFile) -> ModelRef:
        """`settle`, giving the model alone."""
        return self.settle(actor, file)[0]

    def settle(self, actor: audit.Actor, file: ModelFile) -> tuple[ModelRef, Outcome]:
        """Take a model file in: checked, hashed, converted where it is no safetensors file, stored (or linked
        in place), catalogued, audited. The same file with the same configuration again is the same model.

        A model folder of the diffusers library is one checkpoint. A `.yaml` of the same stem beside a
        checkpoint becomes its configuration. The first checkpoint becomes the standard one. A model whose
        linked file went away is found again by it, notes and all. Raises
        ModelUnusable, NotFound, Conflict where another file has its name; nothing is left behind then.
        """
        _check_path(file)
        with self._intake.arriving(file.path, file.kind) as arriving:
            return self._settle(actor, file, arriving)

    def adopt(self, actor: audit.Actor, file: ModelFile, outcome: ImportOutcome) -> ModelRef:
        """Register what an import has put into the store; `file` says all but its path. Raises what `settle`
        raises, and StorageFailed; the stored file is gone then, unless a model has it.
        """
        try:
            with self._intake.landed(outcome, file.kind) as (path, arriving):
                there = replace(file, path=path)
                _check_path(there)
                return self._settle(actor, there, arriving)[0]
        except BaseException:
            self._forget(outcome.blob_sha256)
            raise

    def _settle(self, actor: audit.Actor, file: ModelFile, arriving: Arriving) -> tuple[ModelRef, Outcome]:
        config = configuration(file.path) if file.kind is ModelKind.CHECKPOINT else None
        config_sha256 = hashes(config).sha256 if config else None
        name = file.name or ""
        with self._database.reading() as session:
            known = _same_model(session, file, arriving.hashes.sha256, config_sha256)
            if known is None:
                name = name or _own_name(session, file, arriving.filename)
                check_name(session, file.kind, file.owner_id, name)
        stored = known is not None and self._store.stat(keys.model(known.blob_sha256)) is not None
        if not stored:
            entry = self._entry(file, arriving, name, config)
            self._enter(actor, file, entry, arriving, config)
        registered, moved = self._settled(actor, file, arriving, config_sha256)
        if moved or not stored:
            self.publish()
        return registered, "moved" if moved else "added" if known is None else "known"

    def _settled(
        self, actor: audit.Actor, file: ModelFile, arriving: Arriving, config_sha256: str | None
    ) -> tuple[ModelRef, bool]:
        """The model that a file is now, and whether it was missing and is found again by this."""
        place = Place(file.path.resolve() if file.link else None, arriving.filename, file.folder)
        with self._database.session() as session:
            row = _same_model(session, file, arriving.hashes.sha256, config_sha256)
            if row is None:
                raise Conflict(f"{arriving.filename} was deleted while it came in. Import it again.")
            moved = model_presence.follow(session, actor, row, place, self._clock.now())
            return reference(row), moved

    def _entry(self, file: ModelFile, arriving: Arriving, name: str, config: Path | None) -> Model:
        """The row of a new model, not yet in the database. Raises ModelUnusable."""
        stored = arriving.stored()
        told = inspect(arriving.filename, stored, file.kind, config)
        return Model(
            id=new_id(),
            owner_id=file.owner_id,
            visibility=Visibility.PRIVATE if file.owner_id else Visibility.STUDIO,
            kind=file.kind.value,
            name=name,
            filename=arriving.filename,
            sha256=arriving.hashes.sha256,
            blob_sha256=arriving.blob_sha256,
            size=arriving.size,
            short_hash=arriving.hashes.short,
            legacy_hash=arriving.hashes.legacy,
            config_sha256=hashes(config).sha256 if config else None,
            family=told.family,
            resolution="{}x{}".format(*told.resolution) if told.resolution else None,
            created=self._clock.now(),
            folder=file.folder[:400],
            source=str(file.path.resolve()) if file.link else None,
        )

    def _enter(
        self, actor: audit.Actor, file: ModelFile, entry: Model, arriving: Arriving, config: Path | None
    ) -> ModelRef:
        """Store what the row names and enter it, once, whoever else brings the same file at the same time."""
        stored, key = arriving.stored(), keys.model(entry.blob_sha256)
        new = self._store.stat(key) is None
        try:
            if not arriving.blob:
                self._take_in(key, stored, link=file.link and stored == file.path)
            card = model_cards.read(self._store, file.path, file.kind, stored, arriving.addnet_hash)
            if config is not None and entry.config_sha256 is not None:
                self._store.put(keys.model(entry.config_sha256), config)
            with self._database.session() as session:
                self._database.alone(session)
                row = _same_model(session, file, entry.sha256, entry.config_sha256)
                if row is None:
                    row = self._added(session, actor, file, entry, card)
                registered = reference(row)
        except BaseException:
            if new:
                self._forget(entry.blob_sha256)
            raise
        if self._store.stat(key) is None:  # another import of these bytes failed, and took them away
            if arriving.blob:
                raise StorageFailed(f"{entry.filename} is gone from the store again. Import it again.")
            self._take_in(key, stored, link=file.link and stored == file.path)
        return registered

    def _added(
        self, session: Session, actor: audit.Actor, file: ModelFile, entry: Model, card: model_cards.Card
    ) -> Model:
        check_name(session, file.kind, file.owner_id, entry.name)
        first = select(Model.id).where(Model.standard)
        entry.standard = file.kind is ModelKind.CHECKPOINT and not session.scalar(first)
        card.fill(entry)
        session.add(entry)
        session.flush()
        details = {"kind": entry.kind, "sha256": entry.sha256, "linked": file.link}
        audit.record(session, actor, "model.register", f"model:{entry.name}", details=details)
        return entry

    def _forget(self, blob_sha256: str) -> None:
        """Remove stored bytes that no model came to have."""
        with self._database.session() as session:
            self._database.alone(session)
            if session.scalar(select(Model.id).where(Model.blob_sha256 == blob_sha256)) is None:
                self._store.delete(keys.model(blob_sha256))

    def listed(self, kind: ModelKind | None = None) -> list[tuple[ModelRef, bool]]:
        """Every model whose file is there, and whether it is the standard one, by kind and name."""
        query = select(Model).where(Model.missing_since.is_(None)).order_by(Model.kind, Model.name)
        with self._database.reading() as session:
            rows = session.scalars(query.where(Model.kind == kind.value) if kind else query).all()
            return [(reference(row), row.standard) for row in rows]

    def catalogue(self) -> Catalogue:
        """What everybody may name, with the studio's styles alone."""
        with self._database.reading() as session:
            return catalogue(session)

    def known_to(self, caller: Caller, models: Sequence[ModelRef]) -> list[ModelRef]:
        """Those of `models` that are there for the caller."""
        with self._database.reading() as session:
            theirs = catalogue(session, caller.user_id)
        seen = {(each.kind, each.sha256) for each in (*theirs.models, *theirs.missing)}
        return [each for each in models if (each.kind, each.sha256) in seen]

    def make_standard(self, actor: audit.Actor, name: str) -> ModelRef:
        """Let the checkpoint that answers to `name` be the one used where a request names none. Raises
        NotFound, Conflict for a user's own.
        """
        with self._database.session() as session:
            found = catalogue(session).find(ModelKind.CHECKPOINT, name)
            if found is None:
                raise NotFound(f"There is no checkpoint named {name[:200]!r}.")
            row = session.scalar(named_so(ModelKind.CHECKPOINT, None, found.name))
            if row is None or row.sha256 != found.sha256:
                raise Conflict(f"{found.title} is not the studio's own, so it cannot be the standard one.")
            session.execute(update(Model).where(Model.standard).values(standard=False))
            row.standard = True
            audit.record(session, actor, "model.standard", f"model:{found.name}")
        self.publish()
        return found

    def publish(self, endpoint: str | None = None) -> None:
        """Write the catalogue of one endpoint, or of all, to the store, for callers that reach a worker
        directly.
        """
        with self._database.reading() as session:
            published = catalogue(session).model_dump_json().encode()
            names = [endpoint] if endpoint else session.scalars(select(Endpoint.name)).all()
        for name in names:
            self._store.put(keys.catalogue(name), published, content_type="application/json")

    def _take_in(self, key: str, stored: Path, *, link: bool) -> None:
        if not link:
            self._store.put(key, stored)
        elif isinstance(self._store, LinkingStore):
            self._store.link(key, stored)
        else:
            raise InvalidRequest("This store cannot link files in place. Import the file instead.")


def catalogue(session: Session, user_id: str | None = None) -> Catalogue:
    """Everything that may be named in a request of a user; what everybody may name, without one. Of two that
    answer to one name, the user's own comes first, then the studio's: what others share stands behind.
    """
    rows = session.scalars(select(Model).order_by(Model.created, Model.id)).all()
    if user_id is None:
        rows = [row for row in rows if row.visibility == Visibility.STUDIO]
    else:
        access = Access(session, user_id)
        rows = sorted((row for row in rows if access.model(row)), key=lambda row: _nearness(row, user_id))
    standard = next((reference(row).title for row in rows if row.standard), None)
    return Catalogue(
        models=tuple(reference(row) for row in rows if row.missing_since is None),
        missing=tuple(reference(row) for row in rows if row.missing_since is not None),
        default_checkpoint=standard,
        preferred_vaes={row.sha256: str(row.notes["vae"]) for row in rows if row.notes.get("vae")},
        styles=styles.texts(session, user_id),
    )


def _nearness(row: Model, user_id: str) -> int:
    return (user_id, None).index(row.owner_id) if row.owner_id in (user_id, None) else 2


def reference(row: Model) -> ModelRef:
    """A row as the wire names it."""
    return ModelRef(
        kind=ModelKind(row.kind),
        name=row.name,
        filename=row.filename,
        sha256=row.sha256,
        blob_sha256=row.blob_sha256,
        size=row.size,
        short_hash=row.short_hash,
        legacy_hash=row.legacy_hash,
        config_sha256=row.config_sha256,
        family=row.family_override or row.family,
        resolution=_pixels(row.resolution),
        alias=row.alias,
        addnet_hash=row.addnet_hash,
    )


def _pixels(stored: str | None) -> tuple[int, int] | None:
    if stored is None:
        return None
    width, height = stored.split("x")
    return int(width), int(height)


def _same_model(session: Session, file: ModelFile, sha256: str, config: str | None) -> Model | None:
    """The row of that file, read with that configuration: its owner's own, else the studio's where that is
    open to them.
    """
    same = Model.kind == file.kind.value, Model.sha256 == sha256
    configured = Model.config_sha256.is_(None) if config is None else Model.config_sha256 == config
    whose = or_(Model.owner_id.is_(None), Model.owner_id == file.owner_id)
    rows = {row.owner_id: row for row in session.scalars(select(Model).where(*same, configured, whose))}
    studios = rows.get(None)
    if file.owner_id is None:
        return studios
    if studios is not None and (studios.missing_since is not None or model_presence.gone(studios)):
        studios = None
    if studios is not None and not Access(session, file.owner_id).model(studios):
        studios = None
    return rows.get(file.owner_id) or studios


def _own_name(session: Session, file: ModelFile, filename: str) -> str:
    """The name a file gives itself: its stem, or all of it where a file of that stem and another ending has
    that.
    """
    stem = filename.rsplit(".", 1)[0]
    named = named_so(file.kind, file.owner_id, stem)
    taken = session.scalar(named.with_only_columns(Model.filename))
    return filename if taken not in (None, filename) else stem


def _check_path(file: ModelFile) -> None:
    """Raise InvalidRequest for a path that can stand in no database: file systems take any bytes."""
    whole = str(file.path.resolve()) + file.folder
    if not modelcard.one_line(file.path.name) or modelcard.legible(whole) != whole:
        raise InvalidRequest(
            f"The path of {modelcard.legible(file.path.name)!r} holds a line's end, a control character or "
            "bytes that are no UTF-8. Rename it and import it again."
        )


def check_sayable(name: str) -> None:
    """Raise InvalidRequest for what can be no model's name: too long, of several lines, half characters."""
    if not name.strip() or len(name) > 200:
        raise InvalidRequest("A model's name has from 1 to 200 characters.")
    if not modelcard.one_line(name):
        raise InvalidRequest(f"A model's name is one line of whole characters; {name!r} is not. Rename it.")


def named_so(kind: ModelKind, owner_id: str | None, name: str) -> Select[Any]:
    """The model of that name among one owner's; the studio is one too."""
    whose = Model.owner_id.is_(None) if owner_id is None else Model.owner_id == owner_id
    return select(Model).where(Model.kind == kind.value, Model.name == name, whose)


def check_name(session: Session, kind: ModelKind, owner_id: str | None, name: str) -> None:
    """Raise InvalidRequest for what can be no name, Conflict for one that the owner's models have already."""
    check_sayable(name)
    taken = session.scalar(named_so(kind, owner_id, name).with_only_columns(Model.filename))
    if taken is not None:
        raise Conflict(
            f"Another {kind.value} is already named {name!r} ({taken}). Give this one another name."
        )
