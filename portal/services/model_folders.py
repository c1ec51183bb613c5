"""Folders of model files: what is in them, and those that are linked in place and looked through again."""

from __future__ import annotations

import threading
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import select

from atelier.contract.errors import AtelierError, NotFound
from atelier.contract.models import ModelKind, ModelRef
from atelier.modelcard import legible
from portal.db.base import Database, new_id
from portal.db.work import Model, ModelFolder
from portal.services import audit, model_presence
from portal.services.intake import FOLDER_INDEX, PICKLES, PICTURES, SAFETENSORS
from portal.services.models import ModelFile, Models, reference
from portal.services.ports import Clock

SUFFIXES = (SAFETENSORS, *PICKLES)
FOLDERS = {
    "stable-diffusion": ModelKind.CHECKPOINT,
    "vae": ModelKind.VAE,
    "lora": ModelKind.LORA,
    "lycoris": ModelKind.LORA,
    "embeddings": ModelKind.EMBEDDING,
    "hypernetworks": ModelKind.HYPERNETWORK,
    "controlnet": ModelKind.CONTROLNET,
    "esrgan": ModelKind.UPSCALER,
    "realesrgan": ModelKind.UPSCALER,
    "swinir": ModelKind.UPSCALER,
}
"""The folders in which the peer keeps each kind, lower case."""


@dataclass(frozen=True)
class Refreshed:
    """What looking through the linked folders found: new models, those found at another place, those that are
    back in theirs, those whose files are gone, and (file name, why it is none).
    """

    added: list[ModelRef] = field(default_factory=list)
    moved: list[ModelRef] = field(default_factory=list)
    returned: list[ModelRef] = field(default_factory=list)
    missing: list[ModelRef] = field(default_factory=list)
    refused: list[tuple[str, str]] = field(default_factory=list)


class ModelFolders:
    """Remembers linked folders, and registers what is new in them."""

    def __init__(self, database: Database, clock: Clock, models: Models) -> None:
        self._database = database
        self._clock = clock
        self._models = models
        self._one_at_a_time = threading.Lock()
        self._looked_at: dict[Path, tuple[float, str]] = {}
        """Path -> (its time of change, why it was refused)."""

    def remember(self, actor: audit.Actor, path: Path, kind: ModelKind | None) -> None:
        """Look through a folder at each refresh from now on. The same folder again is the same one."""
        place, stated = str(path.resolve()), kind.value if kind else None
        with self._database.session() as session:
            known = session.scalar(select(ModelFolder).where(ModelFolder.path == place))
            if known is not None:
                known.kind = stated
                return
            session.add(ModelFolder(id=new_id(), path=place, kind=stated, created=self._clock.now()))
            audit.record(session, actor, "model.link_folder", f"folder:{path.name}", details={"kind": stated})

    def refresh(self, actor: audit.Actor, kinds: Collection[ModelKind] = tuple(ModelKind)) -> Refreshed:
        """Register the files of `kinds` that are new in the linked folders, follow those that were moved, and
        mark those that are gone. One refresh at a time: a second one waits and finds nothing new.
        """
        found = Refreshed()
        with self._one_at_a_time:
            with self._database.reading() as session:
                linked = session.scalars(select(Model).where(Model.source.is_not(None))).all()
                known = {each.source for each in linked}
                if any(each.missing_since is None and model_presence.gone(each) for each in linked):
                    # What was passed over as a copy of a model may be all that is left of it.
                    self._looked_at = {path: told for path, told in self._looked_at.items() if told[1]}
                folders = [
                    (Path(each.path), ModelKind(each.kind) if each.kind else None)
                    for each in session.scalars(select(ModelFolder).order_by(ModelFolder.created))
                ]
            for root, stated in folders:
                for path in _files_below(root):
                    kind = stated or kind_of(path)
                    if kind in kinds and str(path.resolve()) not in known:
                        self._take(
                            actor, ModelFile(path, kind, link=True, folder=folder_of(path, root)), found
                        )
            self._look(actor, found)
        return found

    def _look(self, actor: audit.Actor, found: Refreshed) -> None:
        """Mark what is gone and unmark what is back."""
        with self._database.session() as session:
            went, came = model_presence.look(session, actor, self._clock.now())
            found.missing.extend(map(reference, went))
            found.returned.extend(map(reference, came))
        if went or came:
            self._models.publish()

    def _take(self, actor: audit.Actor, file: ModelFile, found: Refreshed) -> None:
        """Register a file. One that was refused is not read again until it changes."""
        try:
            stamp = file.path.stat().st_mtime
        except OSError:
            return  # it went away while the folder was read
        before = self._looked_at.get(file.path)
        if before is not None and before[0] == stamp:
            self._refuse(file.path, *before, found)
            return
        try:
            model, outcome = self._models.settle(actor, file)
            if outcome != "known":
                (found.added if outcome == "added" else found.moved).append(model)
            # The same bytes under another path are the same model, and are not to be hashed each time.
            self._looked_at[file.path] = (stamp, "")
        except OSError as error:
            self._refuse(file.path, stamp, f"It cannot be read: {error.strerror}.", found)
        except AtelierError as error:
            said = "" if is_mere_picture(file.path, error) else error.message
            self._refuse(file.path, stamp, said, found)

    def _refuse(self, path: Path, stamp: float, reason: str, found: Refreshed) -> None:
        """Remember why a file is no model, and tell it where there is anything to tell."""
        self._looked_at[path] = (stamp, reason)
        if reason:
            found.refused.append((legible(path.name), reason))


def files_at(path: Path) -> list[Path]:
    """The file itself, or every model file and model folder in and below a folder, which may be one itself.
    Raises NotFound.
    """
    if path.is_file():
        return [path]
    found = _files_below(path)
    if not found:
        raise NotFound(f"There is no model file at {path}.")
    return found


def _files_below(path: Path) -> list[Path]:
    folders = {index.parent for index in path.rglob(FOLDER_INDEX)}
    files = (each for each in path.rglob("*") if _is_model_file(each) and folders.isdisjoint(each.parents))
    return sorted([*(each for each in folders if folders.isdisjoint(each.parents)), *files])


def _is_model_file(path: Path) -> bool:
    """By its name. A picture is one where embeddings are kept, unless it is a preview of a file beside it."""
    suffix = path.suffix.lower()
    if suffix in PICTURES:
        stem = path.name.removesuffix(path.suffix).removesuffix(".preview")
        beside = (path.with_name(stem + each) for each in SUFFIXES)
        if kind_of(path) is not ModelKind.EMBEDDING or any(each.is_file() for each in beside):
            return False
    elif suffix not in SUFFIXES:
        return False
    return path.is_file()


def is_mere_picture(path: Path, error: AtelierError) -> bool:
    """Whether a file among embeddings was refused for being a picture like any other."""
    return path.suffix.lower() in PICTURES and error.detail.get("reason") == "no_embedding"


def kind_of(path: Path) -> ModelKind:
    """The kind that one of the file's folders names, the nearest first; a checkpoint where none does. A
    `.vae.` in a file's name says what it is, as in the peer.
    """
    if ".vae." in path.name.lower():
        return ModelKind.VAE
    for folder in path.absolute().parents:
        if folder.name.lower() in FOLDERS:
            return FOLDERS[folder.name.lower()]
    return ModelKind.CHECKPOINT


def folder_of(path: Path, root: Path) -> str:
    """Where a file stands below the folder that names its kind, or else below `root`: "people/old"."""
    parents = list(path.absolute().parents)
    named = next((each for each in parents if each.name.lower() in FOLDERS), root.absolute())
    return path.absolute().parent.relative_to(named).as_posix().removeprefix(".") if named in parents else ""
