"""What `<lora:...>` means: name or alias into a model, and what the infotext says of it."""

from __future__ import annotations

import difflib
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from atelier.contract.errors import UnknownName
from atelier.contract.models import Catalogue, ModelKind, ModelRef
from atelier.contract.parts import NetworkUse, ResolvedPart
from atelier.extension import TagMeaning, hookimpl
from atelier.prompt import networks

KIND = "lora"
_NO_ALIASES = ("none", "addams")
"""Names that too many trainers left standing to mean one file."""


class Lora(BaseModel):
    """A LoRA named outside the prompt: what `<lora:name:te:unet:dyn>` says. `unet` None: as strong as `te`;
    `dyn`: the rank it is cut to, None for all of it.
    """

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    name: str = Field(min_length=1, max_length=200)
    te: float = 1.0
    unet: float | None = None
    dyn: int | None = Field(default=None, ge=1)


class Loras(BaseModel):
    """`alwayson_scripts.lora`: the LoRAs of a request, beside those that its prompt names."""

    model_config = ConfigDict(extra="forbid")

    args: list[Lora] = Field(default=[], max_length=32)


@hookimpl
def schema() -> dict[str, type[BaseModel]]:
    """The member `lora`."""
    return {KIND: Loras}


@hookimpl
def resolve(title: str, member: BaseModel, catalogue: Catalogue) -> list[str] | None:
    """A tag for each LoRA of the member. Raises UnknownName for one that is not there."""
    if title != KIND or not isinstance(member, Loras):
        return None
    return [_tag(each, catalogue) for each in member.args]


def _tag(asked: Lora, catalogue: Catalogue) -> str:
    if find(catalogue, asked.name) is None:
        raise UnknownName.of("LoRA", asked.name, (each.name for each in catalogue.of_kind(ModelKind.LORA)))
    rank = [] if asked.dyn is None else [asked.dyn]
    return networks.written(KIND, asked.name, asked.te, asked.te if asked.unet is None else asked.unet, *rank)


@hookimpl
def parse_tag(kind: str, arguments: list[str], catalogue: Catalogue) -> TagMeaning | None:
    """`<lora:name:te:unet:dyn>`, also written `<lyco:...>`."""
    tag = networks.tag(kind, arguments)
    if tag.kind != KIND:
        return None
    told = (tag.warning,) if tag.warning else ()
    found = find(catalogue, tag.name)
    if found is None:
        return TagMeaning(None, (*told, _missing(catalogue, tag.name)))
    use = NetworkUse(model=found, called=tag.name, te=tag.te, unet=tag.unet, dyn=tag.dyn)
    return TagMeaning(use, told)


def find(catalogue: Catalogue, name: str) -> ModelRef | None:
    """The network of that name, to the letter: its file's, else the name its trainer gave it, unless several
    have that.
    """
    if named := catalogue.to_the_letter(ModelKind.LORA, name):
        return named
    if name.lower() in _NO_ALIASES:
        return None
    aliased = [each for each in catalogue.of_kind(ModelKind.LORA) if each.alias == name]
    return aliased[0] if len(aliased) == 1 else None


def _missing(catalogue: Catalogue, name: str) -> str:
    if gone := catalogue.gone(ModelKind.LORA, name):
        return f"The file {gone.filename} was moved or deleted. The picture is made without it."
    models = catalogue.of_kind(ModelKind.LORA)
    known = sorted({*(each.name for each in models), *(each.alias for each in models if each.alias)})
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    hint = f" Did you mean {near[0]}?" if near else ""
    if any(each.alias == name for each in models):
        hint = " Several files have this as their trainer's name: use a file's name."
    return f"Lora not found: {name[:80]}. The picture is made without it.{hint}"


@hookimpl
def infotext(part: ResolvedPart, index: int) -> dict[str, Any]:
    """`Lora hashes`: each network of either pass by the name the prompt calls it."""
    second = part.hires.networks if part.hires else ()
    hashes = {
        each.called.replace(":", "").replace(",", ""): (each.model.addnet_hash or each.model.sha256)[:12]
        for each in (*part.networks, *second)
        if each.model.kind is ModelKind.LORA and each.called
    }
    said = ", ".join(f"{name}: {short}" for name, short in hashes.items())
    return {"Lora hashes": said} if said else {}
