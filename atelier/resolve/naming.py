"""Names into model files of a catalogue. Nothing falls back in silence: an unknown name is refused with the
nearest.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from atelier.contract.errors import InvalidRequest, ModelUnusable, UnknownName
from atelier.contract.models import Catalogue, ModelKind, ModelRef
from atelier.contract.parts import EngineSettings
from atelier.prompt import chunks
from atelier.prompt.spoken import Spoken

_AUTOMATIC = (None, "", "Automatic")


def checkpoint(catalogue: Catalogue, name: object) -> ModelRef:
    """The checkpoint of that name, the catalogue's own where none is named. Raises UnknownName,
    ModelUnusable for one whose file is gone.
    """
    wanted = name or catalogue.default_checkpoint
    if wanted is None:
        raise UnknownName(
            "This endpoint has no checkpoint. An admin can import one: atelier model import FILE."
        )
    found = catalogue.find(ModelKind.CHECKPOINT, str(wanted))
    if found is None:
        _refuse_gone(catalogue, ModelKind.CHECKPOINT, str(wanted))
        known = [each.filename for each in catalogue.of_kind(ModelKind.CHECKPOINT)]
        raise UnknownName.of("checkpoint", str(wanted), known)
    return found


def absent(model: ModelRef) -> ModelUnusable:
    """The error for a model whose linked file is gone."""
    return ModelUnusable(
        f"The file {model.filename} is not in its folder any more: it was moved or deleted. Choose another "
        f"{model.kind.value}, or have it put back and look for new files.",
        detail={"model": model.name, "kind": model.kind.value},
    )


def _refuse_gone(catalogue: Catalogue, kind: ModelKind, name: str) -> None:
    if gone := catalogue.gone(kind, name):
        raise absent(gone)


def vae(catalogue: Catalogue, effective: Mapping[str, Any], of: ModelRef) -> ModelRef | None:
    """The autoencoder that the options name for the checkpoint `of`; None for the one inside it, which "None"
    says. "Automatic" is the one preferred for the checkpoint, else the file that lies beside it, else the
    one inside. Without the option `sd_vae_overrides_per_model_preferences` these two win over a name, too.
    Raises UnknownName.
    """
    name = effective.get("sd_vae")
    automatic = name in _AUTOMATIC
    if automatic or not _name_wins(effective):
        preferred = catalogue.preferred_vaes.get(of.sha256)
        if preferred == "None":
            return None
        found = catalogue.find(ModelKind.VAE, preferred) if preferred else None
        found = found or _beside(catalogue, of)
        if found or automatic:
            return found
    return None if name == "None" else _named_vae(catalogue, name)


def _name_wins(effective: Mapping[str, Any]) -> bool:
    return effective.get("sd_vae_overrides_per_model_preferences") is not False


def vae_warnings(
    catalogue: Catalogue, effective: Mapping[str, Any], of: Iterable[ModelRef]
) -> tuple[str, ...]:
    """What is to be said of checkpoints whose preferred autoencoder would be used, and is not here."""
    if effective.get("sd_vae") not in _AUTOMATIC and _name_wins(effective):
        return ()
    wanted = [(each, catalogue.preferred_vaes.get(each.sha256)) for each in of]
    return tuple(
        f"{each.filename} prefers the VAE {name}, which is not here: it is drawn without."
        for each, name in wanted
        if name and name != "None" and catalogue.find(ModelKind.VAE, name) is None
    )


def _named_vae(catalogue: Catalogue, name: object) -> ModelRef:
    found = catalogue.find(ModelKind.VAE, str(name))
    if found is None:
        _refuse_gone(catalogue, ModelKind.VAE, str(name))
        known = ["Automatic", "None", *(each.filename for each in catalogue.of_kind(ModelKind.VAE))]
        raise UnknownName.of("VAE", str(name), known)
    return found


def _beside(catalogue: Catalogue, checkpoint: ModelRef) -> ModelRef | None:
    """The autoencoder whose file name begins with the checkpoint's (`x.vae.pt` of `x.safetensors`), the first
    by name; not one whose name begins with that of another checkpoint, and with more of it.
    """
    stem = _stem(checkpoint)
    longer = [each for each in map(_stem, catalogue.of_kind(ModelKind.CHECKPOINT)) if len(each) > len(stem)]
    near = [
        each
        for each in catalogue.of_kind(ModelKind.VAE)
        if _stem(each).startswith(stem) and not _stem(each).startswith(tuple(longer))
    ]
    return min(near, key=lambda each: each.filename, default=None)


def _stem(ref: ModelRef) -> str:
    return ref.filename.rpartition("/")[2].rsplit(".", 1)[0]


def embeddings(
    catalogue: Catalogue, said: Iterable[Spoken], settings: EngineSettings
) -> tuple[ModelRef, ...]:
    """The textual inversions that the prompts name at any of their steps, in the order of their use."""
    known = {each.name: each for each in catalogue.of_kind(ModelKind.EMBEDDING)}
    found: dict[str, ModelRef] = {}
    for prompt in (each for spoken in said for each in spoken):
        for text in prompt.distinct() if known else ():
            lowered = text.lower()
            vectors = {name: 1 for name in known if name.lower() in lowered}
            if not vectors:
                continue
            for chunk in chunks.cut(
                text,
                backtrack=settings.comma_padding_backtrack,
                emphasis=settings.emphasis,
                old_emphasis=settings.use_old_emphasis_implementation,
                embeddings=vectors,
            ):
                found |= {name: known[name] for _, name in chunk.fixes if name not in found}
    return tuple(found.values())


def of_its_latents(chosen: ModelRef, base: ModelRef, role: str) -> ModelRef:
    """`chosen`, if it can go on with the latents of `base`. Raises InvalidRequest."""
    families = [(each.family or "").partition("-")[0] for each in (chosen, base)]
    if all(families) and ("sdxl" in families) and families[0] != families[1]:
        raise InvalidRequest(
            f"The {role} {chosen.filename} is of another family ({chosen.family}) than {base.filename} "
            f"({base.family}): their latents do not fit. Choose one of the same family."
        )
    return chosen


def short_title(ref: ModelRef) -> str:
    """How the peer names a checkpoint in an infotext: `name [0123456789]`."""
    return f"{ref.filename.rsplit('.', 1)[0]} [{ref.short_hash}]"
