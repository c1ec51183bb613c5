"""Models as the wire names them: by kind, name and the hash of the file as it was given."""

from __future__ import annotations

from enum import StrEnum

from pydantic import BaseModel, ConfigDict


class ModelKind(StrEnum):
    """What a model file is for."""

    CHECKPOINT = "checkpoint"
    VAE = "vae"
    LORA = "lora"
    EMBEDDING = "embedding"
    HYPERNETWORK = "hypernetwork"
    CONTROLNET = "controlnet"
    UPSCALER = "upscaler"
    ANNOTATOR = "annotator"
    """A network that draws a ControlNet's map of a picture (its edges, say)."""


class ModelRef(BaseModel):
    """A model a part uses. `sha256` is its identity; `blob_sha256` is the stored object, perhaps a
    conversion.
    """

    model_config = ConfigDict(frozen=True)

    kind: ModelKind
    name: str
    filename: str
    sha256: str
    blob_sha256: str
    size: int
    short_hash: str
    legacy_hash: str | None = None
    config_sha256: str | None = None
    """Blob of the configuration (.yaml) that came beside the file, if any."""
    family: str | None = None
    """The family in force: an administrator's word, else what the file tells."""
    resolution: tuple[int, int] | None = None
    """Width and height in pixels it was trained at, where the file says so."""
    alias: str | None = None
    """The name its trainer gave it, by which prompts may call it too."""
    addnet_hash: str | None = None
    """Of networks: kohya's hash of the file without its header, which infotexts show (12 digits)."""

    @property
    def title(self) -> str:
        """How the peer shows it: `file.safetensors [0123456789]`."""
        return f"{self.filename} [{self.short_hash}]"

    def answers_to(self, text: str) -> bool:
        """Whether `text` names this model: title, file name, stem, name, or a hash (short, legacy, whole)."""
        wanted = text.strip().lower()
        stem = self.filename.rsplit(".", 1)[0]
        names = {self.title, self.filename, stem, self.name, f"{stem} [{self.short_hash}]"}
        hashes = {self.short_hash, self.sha256, self.legacy_hash or self.short_hash}
        if self.legacy_hash:
            names |= {f"{self.filename} [{self.legacy_hash}]", f"{stem} [{self.legacy_hash}]"}
        return wanted in {each.lower() for each in names | hashes}


class Catalogue(BaseModel):
    """What may be named on an endpoint: the portal's view of it, also published to the store for direct
    callers.
    """

    model_config = ConfigDict(frozen=True)

    models: tuple[ModelRef, ...] = ()
    missing: tuple[ModelRef, ...] = ()
    """Models whose linked files are gone: none may be named, and it is said why."""
    default_checkpoint: str | None = None
    preferred_vaes: dict[str, str] = {}
    """A checkpoint's sha256 -> the file name of the VAE that people prefer for it, "None" for the one inside
    it.
    """
    styles: dict[str, tuple[str, str]] = {}
    """Style name -> (prompt, negative prompt)."""

    def of_kind(self, kind: ModelKind) -> list[ModelRef]:
        """The models of one kind, in the catalogue's order."""
        return [model for model in self.models if model.kind == kind]

    def to_the_letter(self, kind: ModelKind, name: str) -> ModelRef | None:
        """The first model of `kind` whose name, or whose file's without its ending, is `name` exactly."""
        names = ((each, (each.name, each.filename.rsplit(".", 1)[0])) for each in self.of_kind(kind))
        return next((each for each, own in names if name in own), None)

    def gone(self, kind: ModelKind, name: str) -> ModelRef | None:
        """The model of `kind` that `name` would mean if its file were there."""
        return Catalogue(models=self.missing).find(kind, name) if self.missing else None

    def find(self, kind: ModelKind, name: str) -> ModelRef | None:
        """The first model of `kind` that answers to `name`, else the first whose alias it is."""
        models, alias = self.of_kind(kind), name.strip().lower()
        found = next((model for model in models if model.answers_to(name)), None)
        return found or next((model for model in models if (model.alias or "").lower() == alias != ""), None)
