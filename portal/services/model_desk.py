"""Looking after models: what is known of each, changing it, its preview, taking it away."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from sqlalchemy import Text, cast, func, or_, select, update
from sqlalchemy.orm import Session, undefer

from atelier import modelcard
from atelier.contract import families, keys
from atelier.contract.errors import Conflict, InvalidRequest, NotFound, UnknownName
from atelier.contract.models import ModelKind
from atelier.resolve import naming
from atelier.storage.base import BlobStore
from portal.db.base import Database
from portal.db.work import Model, Part, RetiredBlob
from portal.domain.sharing import Visibility
from portal.domain.states import UNFINISHED_PARTS
from portal.services import audit, model_previews
from portal.services.access import KEEPER
from portal.services.callers import Caller
from portal.services.files import Files
from portal.services.model_notes import Notes
from portal.services.model_owners import retire
from portal.services.model_views import Details, Record, Wanted, closed_to, matches, records_of
from portal.services.models import Models, check_name, reference
from portal.services.ports import Clock
from portal.services.sharing import standings


@dataclass(frozen=True)
class ModelChange:
    """What is to be changed; None leaves it. A family of "" gives the detected one back."""

    name: str | None = None
    notes: dict[str, Any] | None = None
    family_override: str | None = None
    standard: bool = False


class ModelDesk:
    """The registry as people see and change it."""

    def __init__(
        self, database: Database, store: BlobStore, clock: Clock, models: Models, files: Files
    ) -> None:
        self._database = database
        self._store = store
        self._clock = clock
        self._models = models
        self._files = files

    def records(self, wanted: Wanted | None = None, viewer: Caller | None = None) -> list[Record]:
        """The models asked for, by kind and name; without those closed to `viewer`, if any."""
        wanted = wanted or Wanted()
        query = select(Model).order_by(Model.kind, func.lower(Model.name), Model.id)
        if wanted.kind:
            query = query.where(Model.kind == wanted.kind.value)
        with self._database.reading() as session:
            closed = closed_to(session, viewer)
            rows = [row for row in session.scalars(query) if row.id not in closed]
            return [each for each in records_of(session, rows) if matches(each, wanted)]

    def record(self, model_id: str, viewer: Caller | None = None) -> Record:
        """One model. Raises NotFound, also for one that is closed to `viewer`."""
        with self._database.reading() as session:
            kind, closed = _seen(session, model_id, viewer).kind, closed_to(session, viewer)
            every = session.scalars(select(Model).where(Model.kind == kind))
            records = records_of(session, [row for row in every if row.id not in closed])
        return next(each for each in records if each.id == model_id)

    def details(self, model_id: str, viewer: Caller | None = None) -> Details:
        """What the file says. Raises NotFound."""
        with self._database.reading() as session:
            _seen(session, model_id, viewer)
            query = select(Model).where(Model.id == model_id).options(undefer(Model.details))
            row = session.scalar(query)
            if row is None:
                raise _absent()
            metadata = dict(row.details.get("metadata") or {})
            return Details(metadata, modelcard.suggested_words(metadata), row.details.get("embedding"))

    def all_details(self, kind: ModelKind, viewer: Caller) -> list[tuple[Record, dict[str, Any]]]:
        """(model, its stored details) of every model of a kind that `viewer` may use."""
        query = select(Model).where(Model.kind == kind.value).order_by(func.lower(Model.name))
        with self._database.reading() as session:
            hidden = closed_to(session, viewer)
            every = session.scalars(query.options(undefer(Model.details)))
            rows = [row for row in every if row.id not in hidden]
            pairs = zip(records_of(session, rows), rows, strict=True)
            return [(record, row.details) for record, row in pairs if record.missing_since is None]

    def change(
        self, actor: audit.Actor, model_id: str, change: ModelChange, origin: audit.Origin = audit.Origin()
    ) -> Record:
        """Change a model, which is the actor's own unless they look after all. Raises NotFound, NotPermitted,
        Conflict for a name that is taken, InvalidRequest.
        """
        with self._database.session() as session:
            row = _kept(session, model_id, actor)
            before = row.name
            told: dict[str, Any] = {}
            if change.name is not None and change.name != row.name:
                check_name(session, ModelKind(row.kind), row.owner_id, change.name)
                row.name = told["name"] = change.name
            if change.notes is not None:
                notes = _notes({**row.notes, **change.notes})
                if "vae" in change.notes:
                    notes = notes.model_copy(update={"vae": _preferred_vae(session, actor, row, notes.vae)})
                row.notes = notes.model_dump(exclude_defaults=True)
                told["notes"] = sorted(change.notes)
            if change.family_override is not None:
                row.family_override = told["family"] = _family(row, change.family_override)
            if change.standard:
                _demand_keeper(actor)
                _make_standard(session, row)
                told["standard"] = True
            _record(session, actor, "model.change", row, origin, told, before)
        self._models.publish()
        return self.record(model_id)

    def delete(self, actor: audit.Actor, model_id: str, origin: audit.Origin = audit.Origin()) -> None:
        """Take a model away: no request finds it any more, jobs that are accepted are still drawn with it,
        and its file goes once none needs it. Raises NotFound, NotPermitted for another's, Conflict for the
        standard checkpoint while there are others.
        """
        with self._database.session() as session:
            row = _kept(session, model_id, actor)
            others = select(Model.id).where(Model.kind == row.kind, Model.id != row.id).limit(1)
            if row.standard and session.scalar(others):
                raise Conflict(
                    f"{row.name!r} is the standard checkpoint. Make another one the standard first."
                )
            told = {"kind": row.kind, "sha256": row.sha256}
            _record(session, actor, "model.delete", row, origin, told)
            preview = retire(session, row, self._clock.now())
        self._models.publish()
        self._drop_preview(preview)
        self.sweep()

    def retire(self, hashes: Sequence[str]) -> None:
        """Let stored files go that no model has; one that is named meanwhile stays."""
        with self._database.session() as session:
            for sha256 in hashes:
                session.merge(RetiredBlob(sha256=sha256, since=self._clock.now()))

    def sweep(self) -> int:
        """Remove the stored files of deleted models that no model and no unfinished part needs any more;
        how many went.
        """
        gone = []
        with self._database.session() as session:
            self._database.alone(session)
            for retired in session.scalars(select(RetiredBlob)).all():
                sha256 = retired.sha256
                if not _named(session, sha256):
                    if _needed(session, sha256):
                        continue
                    gone.append(sha256)
                session.delete(retired)
            # Inside the transaction: a file that comes in again meanwhile waits to be named until this ends.
            for sha256 in gone:
                self._store.delete(keys.model(sha256))
        return len(gone)

    def preview(self, model_id: str, viewer: Caller | None = None) -> tuple[bytes, str]:
        """(WebP, its sha256) of a model's preview. Raises NotFound."""
        with self._database.reading() as session:
            sha256 = _seen(session, model_id, viewer).preview_sha256
        if sha256 is None:
            raise NotFound("This model has no preview.")
        return self._store.get(keys.model_preview(sha256)), sha256

    def set_preview(
        self, actor: audit.Actor, model_id: str, data: bytes, origin: audit.Origin = audit.Origin()
    ) -> Record:
        """Let a picture file be the preview. Raises NotFound, NotPermitted, InvalidRequest for what is no
        picture.
        """
        with self._database.reading() as session:
            _kept(session, model_id, actor)
        self._put_preview(actor, model_id, model_previews.store(self._store, data), origin)
        return self.record(model_id)

    def set_preview_from(
        self, caller: Caller, model_id: str, picture_id: str, origin: audit.Origin = audit.Origin()
    ) -> Record:
        """Let one of the caller's own pictures be the preview: one that is only shared with them would be
        shown to more people than its owner chose. Raises NotFound.
        """
        file, key = self._files.describe(caller, picture_id)
        if not file.own:
            raise NotFound("There is no such picture among your own.")
        with self._files.open(key) as source:
            return self.set_preview(caller, model_id, source.read(model_previews.MAX_BYTES), origin)

    def remove_preview(
        self, actor: audit.Actor, model_id: str, origin: audit.Origin = audit.Origin()
    ) -> None:
        """Take the preview away; nothing happens where there is none. Raises NotFound."""
        self._put_preview(actor, model_id, None, origin)

    def _put_preview(
        self, actor: audit.Actor, model_id: str, sha256: str | None, origin: audit.Origin
    ) -> None:
        with self._database.session() as session:
            row = _kept(session, model_id, actor)
            before, row.preview_sha256 = row.preview_sha256, sha256
            _record(session, actor, "model.preview", row, origin, {"removed": sha256 is None})
        if before != sha256:
            self._drop_preview(before)

    def _drop_preview(self, sha256: str | None) -> None:
        if sha256 is None:
            return
        with self._database.reading() as session:
            used = session.scalar(select(Model.id).where(Model.preview_sha256 == sha256).limit(1))
        if used is None:
            self._store.delete(keys.model_preview(sha256))


def _row(session: Session, model_id: str) -> Model:
    row = session.get(Model, model_id)
    if row is None:
        raise _absent()
    return row


def _seen(session: Session, model_id: str, viewer: Caller | None) -> Model:
    """A model that is not closed to `viewer`."""
    row = _row(session, model_id)
    if row.id in closed_to(session, viewer):
        raise _absent()
    return row


def _kept(session: Session, model_id: str, actor: audit.Actor) -> Model:
    """A model that `actor` may change: their own; any for who looks after models, and for the command line.
    Raises NotFound, NotPermitted.
    """
    if not isinstance(actor, Caller):
        return _row(session, model_id)
    row = _seen(session, model_id, actor)
    if row.owner_id != actor.user_id:
        _demand_keeper(actor)
    return row


def _demand_keeper(actor: audit.Actor) -> None:
    if isinstance(actor, Caller):
        actor.demand(KEEPER)


def _absent() -> NotFound:
    return NotFound("There is no such model. It may have been deleted: reload the list.")


def _make_standard(session: Session, row: Model) -> None:
    if row.kind != ModelKind.CHECKPOINT.value:
        raise InvalidRequest("Only a checkpoint can be the standard one.")
    if row.owner_id is not None or row.visibility != Visibility.STUDIO.value:
        raise Conflict(
            f"{row.name!r} is not the studio's own for everybody, so it cannot be the standard one."
        )
    if row.missing_since is not None:
        raise naming.absent(reference(row))
    session.execute(update(Model).where(Model.standard).values(standard=False))
    row.standard = True


def _notes(values: dict[str, Any]) -> Notes:
    try:
        return Notes.model_validate(values)
    except ValidationError as error:
        faults = [f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors()]
        raise InvalidRequest(f"These notes cannot be kept. {'; '.join(faults)}.") from error


def _preferred_vae(session: Session, actor: audit.Actor, row: Model, name: str) -> str:
    """The VAE of that name, of those that `actor` sees, as its file is called. Raises InvalidRequest,
    UnknownName.
    """
    if name in ("", "None"):
        return name
    if row.kind != ModelKind.CHECKPOINT.value:
        raise InvalidRequest(f"{row.filename} is a {row.kind}: only a checkpoint has a preferred VAE.")
    closed = closed_to(session, actor if isinstance(actor, Caller) else None)
    every = session.scalars(select(Model).where(Model.kind == ModelKind.VAE.value))
    vaes = [reference(each) for each in every if each.id not in closed]
    found = next((each for each in vaes if each.answers_to(name)), None)
    if found is None:
        raise UnknownName.of("VAE", name, ["Automatic", "None", *(each.filename for each in vaes)])
    return found.filename


def _family(row: Model, given: str) -> str | None:
    """What a model's family is said to be, None for what its file tells. Raises UnknownName, and
    InvalidRequest where a checkpoint's tensors say otherwise: the engine would refuse it.
    """
    if not given:
        return None
    if given not in families.NAMES:
        raise UnknownName.of("family", given, families.NAMES)
    checkpoint = row.kind == ModelKind.CHECKPOINT.value
    if checkpoint and row.family and families.contradicts(given, row.family):
        tensors, may_be = families.of_tensors(row.family), " or ".join(families.choices(row.family))
        raise InvalidRequest(
            f"{row.filename} cannot be {given}: its tensors are those of {tensors}. It may be {may_be}."
        )
    return given


def _record(
    session: Session,
    actor: audit.Actor,
    action: str,
    row: Model,
    origin: audit.Origin,
    told: dict[str, Any],
    name: str = "",
) -> None:
    """`name` where it was called otherwise before. What belongs to somebody else was done for them."""
    [standing] = standings(session, [row])
    whose = "" if row.owner_id == actor.user_id else standing.owner
    audit.record(
        session, actor, action, f"model:{name or row.name}", subject=whose, origin=origin, details=told
    )


def _named(session: Session, sha256: str) -> bool:
    query = select(Model.id).where(or_(Model.blob_sha256 == sha256, Model.config_sha256 == sha256))
    return session.scalar(query.limit(1)) is not None


def _needed(session: Session, sha256: str) -> bool:
    query = select(Part.id).where(
        Part.state.in_(UNFINISHED_PARTS), cast(Part.resolved, Text).contains(sha256)
    )
    return session.scalar(query.limit(1)) is not None
