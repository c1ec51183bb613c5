"""Whether linked model files are still where they lay: those that went away, and those that came back."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.orm import Session

from atelier.contract.parts import ResolvedPart
from atelier.modelfile import hashes
from atelier.resolve import naming
from portal.db.work import Model
from portal.services import audit


def gone(row: Model) -> bool:
    """Whether the model is a linked file that is not where it lay."""
    return row.source is not None and not Path(row.source).exists()


def check(session: Session, parts: Iterable[ResolvedPart]) -> None:
    """Raise ModelUnusable for parts that need a linked file which is gone: they would fail on their worker. A
    file that was converted is in the store, wherever the original went.
    """
    needed = {ref.blob_sha256: ref for part in parts for ref in part.models}
    linked = select(Model).where(Model.blob_sha256.in_(needed), Model.source.is_not(None))
    for row in session.scalars(linked):
        in_place, wanted = row.blob_sha256 == row.sha256, needed[row.blob_sha256]
        if in_place and row.name == wanted.name and gone(row):
            raise naming.absent(wanted)


def look(session: Session, actor: audit.Actor, now: float) -> tuple[list[Model], list[Model]]:
    """Mark the models whose linked files are gone, and unmark those that lie where they lay: (gone, back). A
    file in its place that is another one does not bring it back.
    """
    went, came = [], []
    for row in session.scalars(select(Model).where(Model.source.is_not(None))):
        if gone(row) == (row.missing_since is not None):
            continue
        if row.missing_since is None:
            row.missing_since = now
            went.append(row)
        elif _is_the_file(Path(str(row.source)), row):
            row.missing_since = None
            came.append(row)
    for action, rows in (("model.missing", went), ("model.returned", came)):
        for row in rows:
            audit.record(session, actor, action, f"model:{row.name}", details={"sha256": row.sha256}, at=now)
    return went, came


@dataclass(frozen=True)
class Place:
    """Where a file was found: on the portal's machine (None: a copy is in the store), what it is called, and
    its folder below that of its kind.
    """

    source: Path | None
    filename: str
    folder: str


def follow(session: Session, actor: audit.Actor, row: Model, place: Place, now: float) -> bool:
    """Let a model whose linked file is gone be the same file at another place: notes, preview and rules stay.
    A name that was the file's goes with the file. Whether it was gone.
    """
    if not gone(row) and row.missing_since is None:
        return False
    old, new = (name.rsplit(".", 1)[0] for name in (row.filename, place.filename))
    taken = select(Model.id).where(Model.kind == row.kind, Model.name == new, Model.id != row.id)
    if row.name == old and session.scalar(taken) is None:
        row.name = new[:200]
    row.filename, row.folder = place.filename[:255], place.folder[:400]
    row.source = str(place.source) if place.source is not None else None
    row.missing_since = None
    audit.record(session, actor, "model.moved", f"model:{row.name}", details={"sha256": row.sha256}, at=now)
    return True


def _is_the_file(path: Path, row: Model) -> bool:
    """Whether the file at the place of a missing model is that model's. A folder is believed to be."""
    try:
        return path.is_dir() or (path.stat().st_size == row.size and hashes(path).sha256 == row.sha256)
    except OSError:
        return False
