"""A model as it is shown, and which of them somebody asks for and may see."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from atelier.contract import families
from atelier.contract.models import ModelKind, ModelRef
from portal.db.work import Model
from portal.services.access import KEEPER, Access
from portal.services.callers import Caller
from portal.services.model_notes import Notes
from portal.services.models import reference
from portal.services.sharing import OPEN, Standing, standings


@dataclass(frozen=True)
class Record:
    """A model as it is shown. `prompt_name` is how a prompt calls it: its alias, where no other has that."""

    id: str
    model: ModelRef
    standard: bool
    prompt_name: str
    detected_family: str | None
    family_override: str | None
    folder: str
    notes: Notes
    preview_sha256: str | None
    created: float
    modified: float
    missing_since: float | None = None
    """When its linked file was found to be gone."""
    standing: Standing = OPEN
    """Whose it is, and who sees it."""

    @property
    def families(self) -> tuple[str, ...]:
        """What its family may be said to be: what a checkpoint's tensors allow; of other kinds the base it is
        for.
        """
        if self.model.kind is ModelKind.CHECKPOINT:
            return families.choices(self.detected_family)
        return tuple(dict.fromkeys([*families.BASES, *filter(None, (self.family_override,))]))


@dataclass(frozen=True)
class Details:
    """What a model's file says of itself: the header's metadata, suggested trigger words with the number of
    pictures they stood at, and an embedding's size.
    """

    metadata: dict[str, str]
    suggested: list[tuple[str, int]]
    embedding: dict[str, Any] | None


@dataclass(frozen=True)
class Wanted:
    """Which models are asked for; None and "" leave a criterion out. `family` "sdxl" includes its variants,
    `folder` what lies below it.
    """

    kind: ModelKind | None = None
    family: str | None = None
    search: str = ""
    folder: str | None = None
    missing: bool = False
    """Whether those whose linked files are gone are asked for too."""


def closed_to(session: Session, viewer: Caller | None) -> set[str]:
    """The ids of the models that `viewer` may not see: others' own, and those a rule closes. Who looks after
    models sees all of them.
    """
    if viewer is None or viewer.may(KEEPER):
        return set()
    access = Access(session, viewer.user_id)
    columns = select(Model.id, Model.owner_id, Model.visibility, Model.team_id)
    return {row.id for row in session.execute(columns) if not access.model(row)}


def records_of(session: Session, rows: Sequence[Model]) -> list[Record]:
    """Rows as they are shown."""
    told = standings(session, rows)
    # Whatever two files are called by names neither.
    called = Counter(
        (row.kind, name) for row in rows for name in {row.name.lower(), (row.alias or row.name).lower()}
    )
    return [
        _record_of(row, each, unique=called[row.kind, (row.alias or row.name).lower()] == 1)
        for row, each in zip(rows, told, strict=True)
    ]


def _record_of(row: Model, standing: Standing, *, unique: bool) -> Record:
    return Record(
        id=row.id,
        model=reference(row),
        standard=row.standard,
        prompt_name=row.alias if row.alias and unique else row.name,
        detected_family=row.family,
        family_override=row.family_override,
        folder=row.folder,
        notes=Notes.model_validate(row.notes),
        preview_sha256=row.preview_sha256,
        created=row.created,
        modified=row.modified or row.created,
        missing_since=row.missing_since,
        standing=standing,
    )


def matches(record: Record, wanted: Wanted) -> bool:
    """Whether a model is one of those asked for."""
    model = record.model
    if record.missing_since is not None and not wanted.missing:
        return False
    family, folder = model.family or "", record.folder
    if wanted.family and not (family == wanted.family or family.startswith(f"{wanted.family}-")):
        return False
    if wanted.folder is not None and not (folder == wanted.folder or folder.startswith(f"{wanted.folder}/")):
        return False
    told = (model.name, model.filename, model.alias or "", folder, record.notes.description)
    text = " ".join((*told, record.notes.activation_text, model.sha256)).lower()
    return all(word in text for word in wanted.search.lower().split())
