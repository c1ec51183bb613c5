"""What `<hypernet:...>` means: a name into a model. The infotext shows the prompt's tag and nothing else."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from atelier.contract.errors import UnknownName
from atelier.contract.models import Catalogue, ModelKind
from atelier.contract.parts import NetworkUse
from atelier.extension import TagMeaning, hookimpl
from atelier.prompt import networks

KIND = "hypernet"


class Hypernetwork(BaseModel):
    """A hypernetwork named outside the prompt: what `<hypernet:name:strength>` says."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    name: str = Field(min_length=1, max_length=200)
    strength: float = 1.0


class Hypernetworks(BaseModel):
    """`alwayson_scripts.hypernet`: the hypernetworks of a request, beside those that its prompt names."""

    model_config = ConfigDict(extra="forbid")

    args: list[Hypernetwork] = Field(default=[], max_length=32)


@hookimpl
def schema() -> dict[str, type[BaseModel]]:
    """The member `hypernet`."""
    return {KIND: Hypernetworks}


@hookimpl
def resolve(title: str, member: BaseModel, catalogue: Catalogue) -> list[str] | None:
    """A tag for each hypernetwork of the member. Raises UnknownName for one that is not there."""
    if title != KIND or not isinstance(member, Hypernetworks):
        return None
    return [_tag(each, catalogue) for each in member.args]


def _tag(asked: Hypernetwork, catalogue: Catalogue) -> str:
    if catalogue.to_the_letter(ModelKind.HYPERNETWORK, asked.name) is None:
        known = (each.name for each in catalogue.of_kind(ModelKind.HYPERNETWORK))
        raise UnknownName.of("hypernetwork", asked.name, known)
    return networks.written(KIND, asked.name, asked.strength)


@hookimpl
def parse_tag(kind: str, arguments: list[str], catalogue: Catalogue) -> TagMeaning | None:
    """`<hypernet:name:strength>`; the name is a file's, to the letter."""
    if kind != KIND:
        return None
    tag = networks.tag(kind, arguments[:2])
    told = (tag.warning,) if tag.warning else ()
    if found := catalogue.to_the_letter(ModelKind.HYPERNETWORK, tag.name):
        return TagMeaning(NetworkUse(model=found, called=tag.name, te=0.0, unet=tag.te), told)
    if gone := catalogue.gone(ModelKind.HYPERNETWORK, tag.name):
        told = (*told, f"The file {gone.filename} was moved or deleted. The picture is made without it.")
        return TagMeaning(None, told)
    missing = f"Hypernetwork not found: {tag.name[:80]}. The picture is made without it."
    return TagMeaning(None, (*told, missing))
