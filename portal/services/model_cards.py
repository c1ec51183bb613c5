"""What is known of a model beyond its name and hashes, read when its file comes in."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from atelier import modelcard
from atelier.contract.errors import InvalidRequest, ModelUnusable
from atelier.contract.models import ModelKind
from atelier.modelfile import Header, read_header
from atelier.storage.base import BlobStore
from portal.db.work import Model
from portal.services import model_notes, model_previews

NETWORKS = (ModelKind.LORA,)
"""Kinds that have kohya's hash."""
LARGEST_METADATA = 4 * 2**20
"""Characters of a header's metadata that are kept; a longer value is left out."""

_STEP_DIGITS = 15


@dataclass(frozen=True)
class Card:
    """What a file and the files beside it say of a model."""

    alias: str | None = None
    addnet_hash: str | None = None
    family: str | None = None
    details: dict[str, Any] = field(default_factory=dict)
    notes: model_notes.Notes = field(default_factory=model_notes.Notes)
    preview_sha256: str | None = None
    modified: float = 0.0

    def fill(self, row: Model) -> None:
        """Put it into a new row. A family that was told already stays."""
        row.alias, row.addnet_hash = self.alias, self.addnet_hash
        row.family = row.family or self.family
        row.details, row.notes = self.details, self.notes.model_dump(exclude_defaults=True)
        row.preview_sha256, row.modified = self.preview_sha256, self.modified


def read(
    blobs: BlobStore,
    given: Path,
    kind: ModelKind,
    converted: Path | None = None,
    addnet_hash: str | None = None,
) -> Card:
    """The card of the file `given`, with the files beside it; a picture among them is stored. `converted` is
    the safetensors file to read in place of a pickled one, `addnet_hash` kohya's hash where it is known.
    """
    path = converted or given
    try:
        header = read_header(path)
    except ModelUnusable:
        header = Header({}, {}, 0)
    metadata = {
        modelcard.legible(str(key)): modelcard.legible(str(value)) for key, value in header.metadata.items()
    }
    network = kind in NETWORKS and header.data_offset > 0
    return Card(
        alias=modelcard.alias(metadata) if kind in NETWORKS else None,
        addnet_hash=addnet_hash
        or (modelcard.addnet_hash(path, metadata, header.data_offset) if network else None),
        family=None if kind is ModelKind.CHECKPOINT else modelcard.base_family(header),
        details={"metadata": _bounded(metadata)} | _embedding(header, metadata, kind),
        notes=model_notes.beside(given),
        preview_sha256=_preview(blobs, given),
        modified=given.stat().st_mtime,
    )


def _embedding(header: Header, metadata: dict[str, str], kind: ModelKind) -> dict[str, Any]:
    shape = modelcard.embedding_shape(header) if kind is ModelKind.EMBEDDING else None
    if shape is None:
        return {}
    step = metadata.get("step", "")
    return {
        "embedding": {
            "step": int(step) if step.isdecimal() and len(step) <= _STEP_DIGITS else None,
            "sd_checkpoint": metadata.get("sd_checkpoint"),
            "sd_checkpoint_name": metadata.get("sd_checkpoint_name"),
            "shape": shape[1],
            "vectors": shape[0],
        }
    }


def _preview(blobs: BlobStore, path: Path) -> str | None:
    data = model_notes.preview_beside(path)
    try:
        return model_previews.store(blobs, data) if data is not None else None
    except InvalidRequest:  # a picture that cannot be read is no reason to refuse the model beside it
        return None


def _bounded(metadata: dict[str, str]) -> dict[str, str]:
    kept, room = {}, LARGEST_METADATA
    for key, value in sorted(metadata.items(), key=lambda item: len(item[1])):
        room -= len(key) + len(value)
        if room >= 0:
            kept[key] = value
    return kept
