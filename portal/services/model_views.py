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
from portal.services.access import Access
from portal.services.callers import Caller
from portal.services.model_notes import Notes
from portal.services.models import reference


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
    """The ids of the models that a rule closes to `viewer`. Who looks after models sees all of them."""
    if viewer is None or viewer.may("models.manage"):
        return set()
    access = Access(session, viewer.user_id)
    if access.unlimited:
        return set()
    return {model_id for model_id in session.scalars(select(Model.id)) if not access.model(model_id)}


def records_of(rows: Sequence[Model]) -> list[Record]:
    """Rows as they are shown."""
    # Whatever two files are called by names neither.
    called = Counter(
        (row.kind, name) for row in rows for name in {row.name.lower(), (row.alias or row.name).lower()}
    )
    return [_record_of(row, unique=called[row.kind, (row.alias or row.name).lower()] == 1) for row in rows]


def _record_of(row: Model, *, unique: bool) -> Record:
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
