"""What `<hypernet:...>` means: a name into a model. The infotext shows the prompt's tag and nothing else."""

from __future__ import annotations

from atelier.contract.models import Catalogue, ModelKind
from atelier.contract.parts import NetworkUse
from atelier.extension import TagMeaning, hookimpl
from atelier.prompt import networks

KIND = "hypernet"


@hookimpl
def parse_tag(kind: str, arguments: list[str], catalogue: Catalogue) -> TagMeaning | None:
    """`<hypernet:name:strength>`; the name is a file's, to the letter."""
    if kind != KIND:
        return None
    tag = networks.tag(kind, arguments[:2])
    told = (tag.warning,) if tag.warning else ()
    for each in catalogue.of_kind(ModelKind.HYPERNETWORK):
        if tag.name in (each.name, each.filename.rsplit(".", 1)[0]):
            return TagMeaning(NetworkUse(model=each, called=tag.name, te=0.0, unet=tag.te), told)
    if gone := catalogue.gone(ModelKind.HYPERNETWORK, tag.name):
        told = (*told, f"The file {gone.filename} was moved or deleted. The picture is made without it.")
        return TagMeaning(None, told)
    missing = f"Hypernetwork not found: {tag.name[:80]}. The picture is made without it."
    return TagMeaning(None, (*told, missing))
